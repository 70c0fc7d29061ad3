//! PodTopologySpread: filter and score (`pkg/scheduler/framework/plugins/podtopologyspread`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use corten_base::Istr;

use crate::filter::Failure;
use crate::{NodeInfo, PodInfo, SpreadConstraint, TaintEffect};

const HOSTNAME: &str = "kubernetes.io/hostname";

/// The pod's constraints with what is there already.
pub(crate) struct SpreadState<'p> {
    pod: &'p PodInfo,
    /// Per required constraint: matching pods per domain.
    required: Vec<(&'p SpreadConstraint, HashMap<Istr, i64>)>,
}

impl<'p> SpreadState<'p> {
    pub fn prepare(nodes: &[Arc<NodeInfo>], pod: &'p PodInfo) -> SpreadState<'p> {
        let constraints: Vec<&SpreadConstraint> = pod.spread.iter().filter(|c| c.required).collect();
        let mut required: Vec<_> = constraints.iter().map(|c| (*c, HashMap::new())).collect();
        for node in nodes.iter().filter(|_| !constraints.is_empty()) {
            if !has_all_keys(node, &constraints) {
                continue;
            }
            for (constraint, domains) in &mut required {
                if let Some(value) =
                    node.labels.get(&constraint.topology_key).filter(|_| included(constraint, pod, node))
                {
                    *domains.entry(Istr::new(value)).or_insert(0) += matching(constraint, pod, node);
                }
            }
        }
        SpreadState { pod, required }
    }

    pub fn filter(&self, node: &NodeInfo) -> Result<(), Failure> {
        for (constraint, domains) in &self.required {
            let Some(value) = node.labels.get(&constraint.topology_key) else {
                return Err(Failure::unresolvable(
                    "node(s) didn't match pod topology spread constraints (missing required label)",
                ));
            };
            let least = domains.values().copied().min().unwrap_or(0);
            let least = if domains.len() < constraint.domains_min { 0 } else { least };
            let own = i64::from(constraint.selector.matches(&self.pod.labels));
            let here = domains.get(value).copied().unwrap_or(0);
            if here + own - least > constraint.max_skew {
                return Err(Failure::resolvable("node(s) didn't match pod topology spread constraints"));
            }
        }
        Ok(())
    }

    /// Scores from 0 to 100 by the constraints that may be violated; `None` without any.
    pub fn score(&self, all: &[Arc<NodeInfo>], candidates: &[&NodeInfo]) -> Option<Vec<i64>> {
        let soft: Vec<&SpreadConstraint> = self.pod.spread.iter().filter(|c| !c.required).collect();
        if soft.is_empty() {
            return None;
        }
        let fit: Vec<bool> = candidates.iter().map(|n| has_all_keys(n, &soft)).collect();
        let scored = || candidates.iter().zip(&fit).filter(|(_, fit)| **fit).map(|(n, _)| *n);
        let mut raw = vec![0.0_f64; candidates.len()];
        for constraint in &soft {
            let values: HashSet<&str> = scored().filter_map(|n| n.labels.get(&constraint.topology_key)).collect();
            let mut counts: HashMap<&str, i64> = HashMap::new();
            for node in all.iter().filter(|n| has_all_keys(n, &soft) && included(constraint, self.pod, n)) {
                if let Some(value) = node.labels.get(&constraint.topology_key).and_then(|v| values.get(v)) {
                    *counts.entry(value).or_default() += matching(constraint, self.pod, node);
                }
            }
            let domains = if constraint.topology_key == HOSTNAME { scored().count() } else { values.len() };
            let weight = ((domains + 2) as f64).ln();
            for ((score, node), _) in raw.iter_mut().zip(candidates).zip(&fit).filter(|(_, fit)| **fit) {
                let value = node.labels.get(&constraint.topology_key).unwrap_or_default();
                let count = counts.get(value).copied().unwrap_or(0);
                *score += count as f64 * weight + (constraint.max_skew - 1) as f64;
            }
        }
        let raw: Vec<i64> = raw.into_iter().map(|s| s.round() as i64).collect();
        let valid = || raw.iter().zip(&fit).filter(|(_, fit)| **fit).map(|(s, _)| *s);
        let (least, most) = (valid().min().unwrap_or(0), valid().max().unwrap_or(0));
        let normal = |(score, fit): (&i64, &bool)| match (fit, most) {
            (false, _) => 0,
            (true, 0) => 100,
            (true, _) => 100 * (most + least - score) / most,
        };
        Some(raw.iter().zip(&fit).map(normal).collect())
    }
}

fn has_all_keys(node: &NodeInfo, constraints: &[&SpreadConstraint]) -> bool {
    constraints.iter().all(|c| node.labels.get(&c.topology_key).is_some())
}

/// Whether a node counts (`nodeAffinityPolicy`, `nodeTaintsPolicy`).
fn included(constraint: &SpreadConstraint, pod: &PodInfo, node: &NodeInfo) -> bool {
    let repels = |t: &crate::Taint| t.effect != TaintEffect::PreferNoSchedule && !pod.tolerates(t);
    (!constraint.honor_affinity || pod.node_matches(node))
        && (!constraint.honor_taints || !node.taints.iter().any(repels))
}

fn matching(constraint: &SpreadConstraint, pod: &PodInfo, node: &NodeInfo) -> i64 {
    let counts =
        |p: &&Arc<PodInfo>| !p.deleting && p.namespace == pod.namespace && constraint.selector.matches(&p.labels);
    node.pods.iter().filter(counts).count() as i64
}
