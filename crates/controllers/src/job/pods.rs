//! Pods of a job: which to make, which to take away, when.

use std::collections::BTreeMap;
use std::time::Duration;

use corten_base::Timestamp;
use corten_kinds::id;
use corten_object::Object;
use corten_tree::{Tree, tree};
use corten_views::Pod;

use super::indexes::{self, FAILURES, IGNORED, INDEX, Indexes, index_of};
use super::{Sync, TRACKING, back_off, policy};
use crate::{Action, Typed, owners, pods};

/// The most pods made or deleted in one plan.
const BURST: usize = 500;
const INDEX_ENV: &str = "JOB_COMPLETION_INDEX";

/// Whether a pod is still to be counted.
pub(super) fn is_tracked(pod: &Typed<Pod>) -> bool {
    is_held(&pod.object)
}

/// As [`is_tracked`], for a pod that need not be decoded.
pub(super) fn is_held(pod: &Object) -> bool {
    pod.head.finalizers.iter().any(|f| *f == *TRACKING)
}

/// The write that ends the counting of a pod.
pub(super) fn untrack(pod: &Typed<Pod>) -> Action {
    let rest = owners::finalizers_without(&pod.object, TRACKING);
    Action::patch(&pod.object, tree!({"metadata": {"finalizers": (rest)}}))
}

/// When a pod ended (`getFinishedTime`): with its last container, of which sidecars are some.
pub(super) fn finished_at(pod: &Typed<Pod>) -> Option<Timestamp> {
    let is_sidecar = |name: &str| {
        pod.spec.init_containers.iter().any(|c| c.name == name && c.restart_policy.as_deref() == Some("Always"))
    };
    let sidecars = pod.status.init_container_statuses.iter().filter(|c| is_sidecar(&c.name));
    let containers = pod.status.container_statuses.iter().chain(sidecars);
    let ends: Option<Vec<Timestamp>> = containers.map(|c| c.state.terminated.as_ref()?.finished_at).collect();
    let from_containers = ends.and_then(|ends| ends.into_iter().max());
    let not_ready = || pod.ready_condition().filter(|c| c.status == "False").and_then(|c| c.last_transition_time);
    let deleted = || {
        let grace = pod.head().deletion_grace_seconds.unwrap_or(0);
        pod.head().deleted.and_then(|at| at.checked_sub(jiff::SignedDuration::from_secs(grace)).ok())
    };
    from_containers.or_else(not_ready).or_else(deleted).or(pod.head().created)
}

/// What the job wants of its pods.
#[derive(Default)]
pub(super) struct Wanted {
    /// Pods whose counting ends without being counted, and which are then deleted.
    pub surplus: Vec<Typed<Pod>>,
    /// Pods to make.
    pub create: Vec<Action>,
    /// When to look again.
    pub wait: Option<Duration>,
}

impl Sync<'_> {
    /// `manageJob`
    pub(super) fn manage(&self) -> Wanted {
        let active = self.active.len() as i64;
        if self.is_suspended() {
            return Wanted { surplus: self.active.clone(), ..Wanted::default() };
        }
        let parallelism = self.job.spec.parallelism.unwrap_or(1);
        let want = match self.job.spec.completions {
            None if self.succeeded > 0 => active,
            None => parallelism,
            Some(completions) => (completions - self.succeeded).min(parallelism).max(0),
        };
        let surplus = self.surplus(usize::try_from(active - want).unwrap_or(0));
        if !surplus.is_empty() {
            return Wanted { surplus, ..Wanted::default() };
        }
        let terminating = if self.replaces_only_failed() { self.terminating } else { 0 };
        let missing = usize::try_from(want - terminating - active).unwrap_or(0).min(BURST);
        if missing == 0 {
            return Wanted::default();
        }
        if self.job.spec.backoff_limit_per_index.is_none()
            && let Some(wait) = self.back_off.remaining(self.world)
        {
            return Wanted { wait: Some(wait), ..Wanted::default() };
        }
        if self.job.is_indexed() { self.create_indexed(missing) } else { self.create_plain(missing) }
    }

    /// Pods beyond the number: of doubled indexes first, then by rank (`activePodsForRemoval`).
    fn surplus(&self, at_least: usize) -> Vec<Typed<Pod>> {
        let mut out = Vec::new();
        let mut left = self.active.clone();
        if self.job.is_indexed() {
            let completions = self.completions();
            let mut by_index: BTreeMap<i64, Vec<Typed<Pod>>> = BTreeMap::new();
            for pod in left.drain(..) {
                match index_of(&pod).filter(|i| *i < completions) {
                    Some(index) => by_index.entry(index).or_default().push(pod),
                    None => out.push(pod),
                }
            }
            for pods in by_index.into_values() {
                let doubles = pods::choose_newest(&pods, pods.len() - 1);
                left.extend(pods.into_iter().filter(|p| !doubles.iter().any(|d| d.uid() == p.uid())));
                out.extend(doubles);
            }
        }
        let more = at_least.saturating_sub(out.len());
        out.extend(pods::choose_newest(&left, more));
        out.truncate(BURST);
        out
    }

    /// When a pod succeeded last, of the counted ones, too.
    pub(super) fn last_success(&self) -> Option<Timestamp> {
        let all = self.world.controlled::<Pod>(id::POD, self.job.namespace(), self.job.uid());
        all.iter().filter(|p| p.status.phase == "Succeeded").filter_map(finished_at).max()
    }

    fn template(&self) -> Tree {
        let mut template = self.tree.path("spec.template").cloned().unwrap_or_else(Tree::map);
        let mut finalizers = template.list_at("metadata.finalizers").to_vec();
        if !finalizers.iter().any(|f| f.as_str() == Some(TRACKING)) {
            finalizers.push(Tree::from(TRACKING));
        }
        template.set("metadata.finalizers", finalizers);
        template
    }

    fn create_plain(&self, count: usize) -> Wanted {
        let pod = pods::from_template(self.world, &self.template(), &self.job.object);
        let create = (0..count).map(|_| pods::create_generated(self.world, &self.job.object, pod.clone()));
        Wanted { create: create.collect(), ..Wanted::default() }
    }

    fn create_indexed(&self, count: usize) -> Wanted {
        let mut template = self.template();
        for list in ["spec.initContainers", "spec.containers"] {
            if let Some(Tree::List(containers)) = template.path_mut(list) {
                containers.iter_mut().for_each(add_index_env);
            }
        }
        let mut wanted = Wanted::default();
        for index in self.pending_indexes(count) {
            let replaced = self.delayed.get(&index);
            if let Some(failed) = replaced
                && let Some(wait) = self.index_back_off(failed)
            {
                wanted.wait = Some(wanted.wait.map_or(wait, |w| w.min(wait)));
                continue;
            }
            wanted.create.push(self.create_index(&template, index, replaced));
        }
        wanted
    }

    fn index_back_off(&self, failed: &Typed<Pod>) -> Option<Duration> {
        let failures = indexes::number(failed, FAILURES) + indexes::number(failed, IGNORED) + 1;
        back_off::remaining(self.world, usize::try_from(failures).unwrap_or(0), finished_at(failed)?)
    }

    fn create_index(&self, template: &Tree, index: i64, replaced: Option<&Typed<Pod>>) -> Action {
        let name = self.job.name();
        let mut pod = pods::from_template(self.world, template, &self.job.object);
        pod.make_map_at("metadata.labels").insert(INDEX, index.to_string());
        let annotations = pod.make_map_at("metadata.annotations");
        annotations.insert(INDEX, index.to_string());
        if self.job.spec.backoff_limit_per_index.is_some() {
            let (mut failures, mut ignored) =
                replaced.map_or((0, 0), |p| (indexes::number(p, FAILURES), indexes::number(p, IGNORED)));
            if let Some(replaced) = replaced {
                let skip = policy::judge(self.job.spec.pod_failure_policy.as_ref(), replaced).ignored;
                if skip { ignored += 1 } else { failures += 1 }
            }
            annotations.insert(FAILURES, failures.to_string());
            if ignored > 0 {
                annotations.insert(IGNORED, ignored.to_string());
            }
        }
        pod.set("spec.hostname", format!("{name}-{index}"));
        let suffix = format!("-{index}-");
        const PREFIX_MAX: usize = 58;
        let end = name.len().min(PREFIX_MAX - suffix.len());
        let prefix = format!("{}{suffix}", name.get(..end).unwrap_or(name));
        let full = self.world.generate_name(&prefix);
        pod.set("metadata.generateName", prefix);
        pods::create(&self.job.object, &full, pod)
    }

    /// The lowest indexes without a pod (`firstPendingIndexes`).
    fn pending_indexes(&self, count: usize) -> Vec<i64> {
        let mut taken: Indexes = self.succeeded_indexes.clone();
        taken.0.extend(self.active.iter().filter_map(|p| index_of(p)));
        if self.replaces_only_failed() {
            let terminating = self.pods.iter().filter(|p| p.is_terminating() && !p.is_terminal());
            taken.0.extend(terminating.filter_map(|p| index_of(p)));
        }
        if let Some(failed) = &self.failed_indexes {
            taken.0.extend(&failed.0);
        }
        (0..self.completions()).filter(|i| !taken.has(*i)).take(count).collect()
    }
}

fn add_index_env(container: &mut Tree) {
    let mut env = container.list_at("env").to_vec();
    if env.iter().any(|v| v.str_at("name") == INDEX_ENV) {
        return;
    }
    let path = format!("metadata.labels['{INDEX}']");
    env.push(tree!({"name": (INDEX_ENV), "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": (path)}}}));
    container.set("env", env);
}
