//! Who would have to go so that a pod fits (`pkg/scheduler/framework/plugins/defaultpreemption`, `framework/preemption`).

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use corten_base::Istr;

use crate::decide::Diagnosis;
use crate::filter::{Cycle, Failure, NodeOutcome};
use crate::volumes::{self, Claims};
use crate::{NodeInfo, PodInfo, Preemption, Snapshot};

/// The best preemption if there is one, and upstream's sentence about it.
pub(crate) fn preempt(
    snapshot: &Snapshot,
    pod: &PodInfo,
    failures: &[(Istr, Failure)],
) -> (Option<Preemption>, String) {
    if !pod.preempts {
        return (None, "not eligible due to preemptionPolicy=Never.".into());
    }
    let nominated = snapshot.node(&pod.nominated_node);
    let hopeless = failures.iter().any(|(name, f)| *name == pod.nominated_node && !f.resolvable);
    if nominated.is_some_and(|n| !hopeless && n.pods.iter().any(|p| p.deleting && p.priority < pod.priority)) {
        return (None, "not eligible due to a terminating pod on the nominated node.".into());
    }
    let mut why = Diagnosis { nodes: snapshot.nodes().len(), ..Diagnosis::default() };
    why.absent = "Preemption is not helpful for scheduling";
    let claims = volumes::prefilter(snapshot, pod).unwrap_or_default();
    let mut candidates: Vec<Candidate> = Vec::new();
    for (name, _) in failures.iter().filter(|(_, f)| f.resolvable) {
        match select_victims(snapshot, pod, &claims, name) {
            Ok(candidate) => candidates.push(candidate),
            Err(failure) => why.failures.push((name.clone(), failure)),
        }
    }
    let Some(best) = candidates.into_iter().min_by_key(Candidate::cost) else { return (None, why.to_string()) };
    let victims: Vec<_> = best.victims.iter().map(|p| (p.namespace.clone(), p.name.clone(), p.uid.clone())).collect();
    let message =
        format!("found a potential placement for pod on node {}, preempting {} victims", best.node, victims.len());
    (Some(Preemption { node: best.node, victims }), message)
}

struct Candidate {
    node: Istr,
    /// The most important first.
    victims: Vec<Arc<PodInfo>>,
    violations: usize,
}

impl Candidate {
    /// Less is better: violated budgets, highest priority, sum of priorities, count, then the latest start.
    fn cost(&self) -> (usize, i32, i64, usize, Reverse<i64>, Istr) {
        let highest = self.victims.first().map_or(i32::MIN, |p| p.priority);
        let sum = self.victims.iter().map(|p| i64::from(p.priority) + i64::from(i32::MAX) + 1).sum();
        let earliest = self
            .victims
            .iter()
            .filter(|p| p.priority == highest)
            .filter_map(|p| p.started.map(|t| t.as_second()))
            .min()
            .unwrap_or(i64::MAX);
        (self.violations, highest, sum, self.victims.len(), Reverse(earliest), self.node.clone())
    }
}

fn select_victims(snapshot: &Snapshot, pod: &PodInfo, claims: &Claims, name: &Istr) -> Result<Candidate, Failure> {
    let at = snapshot.nodes().iter().position(|n| n.name == *name);
    let at = at.ok_or_else(|| Failure::unresolvable("node not found"))?;
    let mut nodes = snapshot.nodes().to_vec();
    let mut potential: Vec<Arc<PodInfo>> =
        nodes[at].pods.iter().filter(|p| p.priority < pod.priority).cloned().collect();
    if potential.is_empty() {
        return Err(Failure::unresolvable("No preemption victims found for incoming pod"));
    }
    let mut node = NodeInfo::clone(&nodes[at]);
    for victim in &potential {
        node.remove_pod(&victim.uid);
    }
    let fits = |node: &NodeInfo, nodes: &mut Vec<Arc<NodeInfo>>| {
        nodes[at] = Arc::new(node.clone());
        match Cycle::prepare(snapshot, nodes, pod, claims.clone()).filter_with_nominated(nodes, node) {
            NodeOutcome::Fits(_) => Ok(()),
            NodeOutcome::Fails(failure) => Err(failure),
        }
    };
    fits(&node, &mut nodes)?;
    potential.sort_by_key(|p| (Reverse(p.priority), p.started));
    let (violating, others) = by_budget(snapshot, potential);
    let mut candidate = Candidate { node: name.clone(), victims: Vec::new(), violations: 0 };
    for (victim, violates) in violating.into_iter().map(|v| (v, 1)).chain(others.into_iter().map(|v| (v, 0))) {
        node.add_pod(victim.clone());
        if fits(&node, &mut nodes).is_err() {
            node.remove_pod(&victim.uid);
            candidate.violations += violates;
            candidate.victims.push(victim);
        }
    }
    candidate.victims.sort_by_key(|p| (Reverse(p.priority), p.started));
    Ok(candidate)
}

/// Those whose eviction would violate a disruption budget, and the rest.
fn by_budget(snapshot: &Snapshot, pods: Vec<Arc<PodInfo>>) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut left: HashMap<usize, i64> = HashMap::new();
    pods.into_iter().partition(|pod| {
        let mut violates = false;
        for (i, budget) in snapshot.budgets.iter().enumerate() {
            let covers = budget.namespace == pod.namespace
                && !pod.labels.is_empty()
                && !budget.selector.is_nothing()
                && budget.selector.matches(&pod.labels)
                && !budget.disrupted.contains(&pod.name);
            if covers {
                let allowed = left.entry(i).or_insert(budget.allowed);
                *allowed -= 1;
                violates |= *allowed < 0;
            }
        }
        violates
    })
}
