//! InterPodAffinity: filter and score (`pkg/scheduler/framework/plugins/interpodaffinity`).

use std::collections::HashMap;
use std::sync::Arc;

use corten_base::Istr;

use crate::filter::Failure;
use crate::{NodeInfo, PodInfo, PodTerm, Snapshot};

/// A topology: label key and value.
type Place = (Istr, Istr);

/// What pods that are there mean for the pod.
pub(crate) struct AffinityState {
    /// Places that existing pods' anti-affinity forbids.
    forbidden: HashMap<Place, i64>,
    /// Places with pods that match all the pod's affinity terms.
    wanted: HashMap<Place, i64>,
    /// Places with pods that match one of the pod's anti-affinity terms.
    avoided: HashMap<Place, i64>,
}

impl AffinityState {
    pub fn prepare(snapshot: &Snapshot, nodes: &[Arc<NodeInfo>], pod: &PodInfo) -> AffinityState {
        let mut state = AffinityState { forbidden: HashMap::new(), wanted: HashMap::new(), avoided: HashMap::new() };
        for node in nodes {
            for existing in &node.pods {
                for term in &existing.anti_affinity {
                    if matches(snapshot, term, pod) {
                        note(&mut state.forbidden, node, term, 1);
                    }
                }
                if !pod.affinity.is_empty() && pod.affinity.iter().all(|t| matches(snapshot, t, existing)) {
                    pod.affinity.iter().for_each(|t| note(&mut state.wanted, node, t, 1));
                }
                for term in pod.anti_affinity.iter().filter(|t| matches(snapshot, t, existing)) {
                    note(&mut state.avoided, node, term, 1);
                }
            }
        }
        state
    }

    pub fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Failure> {
        if !self.affinity_holds(pod, node) {
            return Err(Failure::unresolvable("node(s) didn't match pod affinity rules"));
        }
        let here = |map: &HashMap<Place, i64>, key: &Istr| {
            node.labels.get(key).is_some_and(|value| map.contains_key(&(key.clone(), value.into())))
        };
        if pod.anti_affinity.iter().any(|t| here(&self.avoided, &t.topology_key)) {
            return Err(Failure::resolvable("node(s) didn't match pod anti-affinity rules"));
        }
        let forbidden = |(key, value): (&str, &str)| self.forbidden.contains_key(&(key.into(), value.into()));
        if !self.forbidden.is_empty() && node.labels.iter().any(forbidden) {
            return Err(Failure::resolvable("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }

    fn affinity_holds(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        let mut found = true;
        for term in &pod.affinity {
            let Some(value) = node.labels.get(&term.topology_key) else { return false };
            found &= self.wanted.contains_key(&(term.topology_key.clone(), value.into()));
        }
        // The first pod of a group that wants to be near itself may go anywhere.
        let own = |t: &PodTerm| t.namespaces.contains(&pod.namespace) && t.selector.matches(&pod.labels);
        found || (self.wanted.is_empty() && pod.affinity.iter().all(own))
    }
}

/// Scores from 0 to 100 by preferred terms of the pod and of the pods that are there; `None` if nobody has any.
pub(crate) fn score(
    snapshot: &Snapshot,
    all: &[Arc<NodeInfo>],
    pod: &PodInfo,
    candidates: &[&NodeInfo],
) -> Option<Vec<i64>> {
    let mut places: HashMap<Place, i64> = HashMap::new();
    for node in all {
        for existing in &node.pods {
            for (weight, term) in pod.preferred_pods.iter().filter(|(_, t)| matches(snapshot, t, existing)) {
                note(&mut places, node, term, *weight);
            }
            for (weight, term) in existing.preferred_pods.iter().filter(|(_, t)| matches(snapshot, t, pod)) {
                note(&mut places, node, term, *weight);
            }
            // hardPodAffinityWeight is 1 by default.
            for term in existing.affinity.iter().filter(|t| matches(snapshot, t, pod)) {
                note(&mut places, node, term, 1);
            }
        }
    }
    if places.is_empty() {
        return None;
    }
    let raw: Vec<i64> = candidates
        .iter()
        .map(|n| n.labels.iter().filter_map(|(k, v)| places.get(&(k.into(), v.into()))).sum())
        .collect();
    let (least, most) = (raw.iter().copied().min().unwrap_or(0), raw.iter().copied().max().unwrap_or(0));
    let normal = |s: &i64| if most == least { 0 } else { 100 * (s - least) / (most - least) };
    Some(raw.iter().map(normal).collect())
}

fn matches(snapshot: &Snapshot, term: &PodTerm, pod: &PodInfo) -> bool {
    let by_labels = || {
        let labels = snapshot.namespaces.get(&pod.namespace);
        term.namespace_selector.as_ref().is_some_and(|s| labels.map_or(s.is_everything(), |l| s.matches(l)))
    };
    (term.namespaces.contains(&pod.namespace) || by_labels()) && term.selector.matches(&pod.labels)
}

fn note(places: &mut HashMap<Place, i64>, node: &NodeInfo, term: &PodTerm, amount: i64) {
    if let Some(value) = node.labels.get(&term.topology_key) {
        *places.entry((term.topology_key.clone(), value.into())).or_default() += amount;
    }
}
