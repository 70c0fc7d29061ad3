//! Which of the nodes that fit is best: upstream's default scores and weights.

use crate::filter::Cycle;
use crate::{NodeInfo, PodInfo, Snapshot, TaintEffect, affinity};

/// The place of the best candidate; `entropy` picks among equals.
pub(crate) fn best(snapshot: &Snapshot, cycle: &Cycle<'_>, candidates: &[&NodeInfo], entropy: u64) -> usize {
    let pod = cycle.pod;
    let all = snapshot.nodes();
    let mut totals = vec![0_i64; candidates.len()];
    let mut add = |weight: i64, scores: Vec<i64>| totals.iter_mut().zip(scores).for_each(|(t, s)| *t += weight * s);
    add(3, normalized(candidates.iter().map(|n| intolerable(pod, n)).collect(), true));
    if !pod.preferred_nodes.is_empty() {
        add(2, normalized(candidates.iter().map(|n| preferred(pod, n)).collect(), false));
    }
    add(1, candidates.iter().map(|n| least_allocated(pod, n)).collect());
    add(1, candidates.iter().map(|n| balanced(pod, n)).collect());
    add(1, candidates.iter().map(|n| image_locality(snapshot, pod, n)).collect());
    if let Some(scores) = cycle.spread.score(all, candidates) {
        add(2, scores);
    }
    if let Some(scores) = affinity::score(snapshot, all, pod, candidates) {
        add(2, scores);
    }
    let most = totals.iter().copied().max().unwrap_or(0);
    let best: Vec<usize> = (0..totals.len()).filter(|i| totals[*i] == most).collect();
    best[(entropy % best.len() as u64) as usize]
}

/// To 0..100 by the highest (`helper.DefaultNormalizeScore`).
fn normalized(scores: Vec<i64>, reverse: bool) -> Vec<i64> {
    let most = scores.iter().copied().max().unwrap_or(0);
    let normal = |score: i64| match (most, reverse) {
        (0, true) => 100,
        (0, false) => score,
        (_, true) => 100 - 100 * score / most,
        (_, false) => 100 * score / most,
    };
    scores.into_iter().map(normal).collect()
}

fn intolerable(pod: &PodInfo, node: &NodeInfo) -> i64 {
    // Only tolerations of all effects or of this one count (`getAllTolerationPreferNoSchedule`).
    node.taints.iter().filter(|t| t.effect == TaintEffect::PreferNoSchedule && !pod.tolerates(t)).count() as i64
}

fn preferred(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let fits = |(_, term): &&(i64, crate::NodeTerm)| term.matches(&node.name, &node.labels);
    pod.preferred_nodes.iter().filter(fits).map(|(weight, _)| weight).sum()
}

/// The emptier the better (`least_allocated.go`).
fn least_allocated(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let score = |used: i64, have: i64| if have == 0 || used > have { 0 } else { (have - used) * 100 / have };
    let cpu = score(node.requested_for_score.0 + pod.requests_for_score.0, node.allocatable.milli_cpu);
    let memory = score(node.requested_for_score.1 + pod.requests_for_score.1, node.allocatable.memory);
    (cpu + memory) / 2
}

/// The nearer the used fractions of CPU and memory the better (`balanced_allocation.go`).
fn balanced(pod: &PodInfo, node: &NodeInfo) -> i64 {
    if pod.requests.milli_cpu == 0 && pod.requests.memory == 0 {
        return 0;
    }
    let fraction = |used: i64, have: i64| if have == 0 { 1.0 } else { (used as f64 / have as f64).min(1.0) };
    let cpu = fraction(node.requested.milli_cpu + pod.requests.milli_cpu, node.allocatable.milli_cpu);
    let memory = fraction(node.requested.memory + pod.requests.memory, node.allocatable.memory);
    ((1.0 - (cpu - memory).abs() / 2.0) * 100.0) as i64
}

/// Nodes that have the pod's images already (`image_locality.go`).
fn image_locality(snapshot: &Snapshot, pod: &PodInfo, node: &NodeInfo) -> i64 {
    const LEAST: i64 = 23 << 20;
    const MOST_PER_IMAGE: i64 = 1000 << 20;
    let total = snapshot.nodes().len() as i64;
    let spread =
        |image: &corten_base::Istr| snapshot.nodes().iter().filter(|n| n.images.contains_key(image)).count() as i64;
    let sum: i64 = pod.images.iter().filter_map(|i| node.images.get(i).map(|size| size * spread(i) / total)).sum();
    let most = MOST_PER_IMAGE * (pod.images.len().max(1) as i64);
    100 * (sum.clamp(LEAST, most) - LEAST) / (most - LEAST)
}
