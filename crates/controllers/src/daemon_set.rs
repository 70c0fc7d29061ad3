//! DaemonSet: one pod on each node that fits (`pkg/controller/daemon`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use corten_base::Timestamp;
use corten_kinds::id;
use corten_tree::{Tree, tree};
use corten_views::meta::compile;
use corten_views::pod::{Toleration, tolerates};
use corten_views::{DaemonSet, Node, Pod};

use crate::history::{self, History};
use crate::{Action, Changed, Controller, EventNote, Key, Plan, Typed, Watch, World, owners, pods, status};

/// The controller.
pub struct DaemonSetController;

/// How long the next failed pod of a node stays before it is replaced: from the first, doubling to the second
/// (`failedPodsBackoff`).
const FAILED_WAIT_MIN: Duration = Duration::from_secs(1);
const FAILED_WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// The most pods made or deleted in one plan.
const BURST: usize = 250;
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
const TEMPLATE_GENERATION_LABEL: &str = "pod-template-generation";

/// What daemons tolerate anyway; the last only with the host's network.
const TOLERATED: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ("node.kubernetes.io/network-unavailable", "NoSchedule"),
];

const WATCHES: &[Watch] = &[
    Watch::itself(id::DAEMON_SET),
    Watch::controller(id::POD, id::DAEMON_SET),
    Watch::controller(id::CONTROLLER_REVISION, id::DAEMON_SET),
    Watch::by(id::POD, orphan),
    Watch::by(id::NODE, node_changed),
];

fn orphan(change: &Changed<'_>, out: &mut Vec<Key>) {
    let pod = change.object();
    if change.new.is_none() || pod.head.controller().is_some() || !change.selection_changed() {
        return;
    }
    for set in change.state.list_in(id::DAEMON_SET, &pod.head.namespace) {
        let matches = |s: Typed<DaemonSet>| compile(s.spec.selector.as_ref()).matches(&pod.head.labels);
        if Typed::read(set).is_some_and(matches) {
            out.push(set.key());
        }
    }
}

/// A node's labels and taints decide where daemons run.
fn node_changed(change: &Changed<'_>, out: &mut Vec<Key>) {
    if let (Some(old), Some(new)) = (change.old, change.new) {
        let spec = |o| Typed::<Node>::read(o).map(|n| n.spec.clone());
        if old.head.labels == new.head.labels && spec(old) == spec(new) {
            return;
        }
    }
    out.extend(change.state.list(id::DAEMON_SET).map(|set| set.key()));
}

impl Controller for DaemonSetController {
    fn name(&self) -> &'static str {
        "daemon-set"
    }

    fn component(&self) -> &'static str {
        "daemonset-controller"
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(set) = world.get::<DaemonSet>(key) else { return Plan::empty() };
        let selector = compile(set.spec.selector.as_ref());
        if selector.is_everything() || set.head().is_deleting() {
            return Plan::empty();
        }
        let claimed = owners::claim::<Pod>(world, &set.object, id::POD, &selector, |_| true);
        if !claimed.actions.is_empty() {
            return Plan::of(claimed.actions);
        }
        let tree = set.tree();
        let collisions = set.status.collision_count;
        let label = history::REVISION_HASH;
        let history = match history::sync(world, &set.object, &tree, &selector, collisions, label) {
            history::Sync::Ready(history) => history,
            history::Sync::First(plan) => return plan,
        };
        let hash = history.revisions[history.update].head().labels.get(label).unwrap_or_default().to_owned();
        let tolerations = tolerations(&set);
        let generation = set.head().generation;
        let known = world.kept::<Failures>().filter(|known| known.generation == generation).cloned();
        let failures = known.unwrap_or(Failures { generation, of: BTreeMap::new() });
        let (on, plan) = (BTreeMap::new(), Plan::empty());
        let mut daemons = Daemons { world, set, tree, history, hash, tolerations, on, failures, plan };
        daemons.sort_by_node(claimed.owned);
        daemons.reconcile()
    }
}

fn tolerations(set: &DaemonSet) -> Vec<Toleration> {
    let spec = &set.spec.template.spec;
    let added = added_tolerations(spec.host_network).map(|(key, effect)| Toleration {
        key: key.to_owned(),
        operator: "Exists".into(),
        effect: effect.to_owned(),
        ..Toleration::default()
    });
    spec.tolerations.iter().cloned().chain(added).collect()
}

fn added_tolerations(host_network: bool) -> impl Iterator<Item = (&'static str, &'static str)> {
    let count = if host_network { TOLERATED.len() } else { TOLERATED.len() - 1 };
    TOLERATED.iter().take(count).copied()
}

/// The node that a pod is on or bound for.
fn node_of(pod: &Pod) -> Option<&str> {
    if pod.is_scheduled() {
        return Some(&pod.spec.node_name);
    }
    let affinity = pod.spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let field = terms.iter().flat_map(|t| &t.match_fields).find(|f| f.key == "metadata.name" && f.operator == "In")?;
    field.values.first().map(String::as_str)
}

/// How long failed pods stay, by node; of one generation of a set.
#[derive(Debug, Clone, Default)]
struct Failures {
    generation: i64,
    /// When a failed pod was replaced last, and how long the next one stays.
    of: BTreeMap<String, (Timestamp, Duration)>,
}

impl Failures {
    /// How long the failed pod of a node has to stay; if it has not to, the next one will.
    fn wait(&mut self, node: &str, now: Timestamp) -> Option<Duration> {
        let passed = |at: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default();
        let known = self.of.get(node).filter(|(at, _)| passed(*at) <= 2 * FAILED_WAIT_MAX).copied();
        if let Some(left) = known.map(|(at, wait)| wait.saturating_sub(passed(at))).filter(|left| !left.is_zero()) {
            return Some(left);
        }
        let wait = known.map_or(FAILED_WAIT_MIN, |(_, wait)| (2 * wait).min(FAILED_WAIT_MAX));
        self.of.insert(node.to_owned(), (now, wait));
        None
    }
}

struct Daemons<'d> {
    world: &'d World<'d>,
    set: Typed<DaemonSet>,
    tree: Tree,
    history: History,
    hash: String,
    tolerations: Vec<Toleration>,
    /// Pods by node, the oldest first.
    on: BTreeMap<String, Vec<Typed<Pod>>>,
    failures: Failures,
    plan: Plan,
}

/// The pods of a node by revision, if there is at most one of each (`findUpdatedPodsOnNode`).
struct OnNode<'p> {
    new: Option<&'p Typed<Pod>>,
    old: Option<&'p Typed<Pod>>,
}

impl Daemons<'_> {
    fn sort_by_node(&mut self, pods: Vec<Typed<Pod>>) {
        for pod in pods {
            // What has ended and is being deleted holds no place.
            if pod.is_terminating() && pod.is_terminal() {
                continue;
            }
            if let Some(node) = node_of(&pod) {
                self.on.entry(node.to_owned()).or_default().push(pod);
            }
        }
        for pods in self.on.values_mut() {
            pods.sort_by_key(|p| (!p.is_scheduled(), p.head().created, p.name().to_owned()));
        }
    }

    fn reconcile(mut self) -> Plan {
        let nodes = self.world.list::<Node>(id::NODE, "");
        let (mut create, mut delete) = (Vec::new(), Vec::new());
        for node in &nodes {
            self.on_node(node, &mut create, &mut delete);
        }
        // Pods that were never placed, of nodes that are gone.
        for (name, pods) in &self.on {
            if !nodes.iter().any(|n| n.name() == name) {
                delete.extend(pods.iter().filter(|p| !p.is_scheduled() && !p.is_terminating()).cloned());
            }
        }
        if create.is_empty() && delete.is_empty() && self.set.spec.update_strategy.r#type != "OnDelete" {
            self.roll(&nodes, &mut create, &mut delete);
        }
        let mut actions: Vec<Action> = create.iter().take(BURST).map(|node| self.create(node)).collect();
        delete.sort_by(|a, b| a.name().cmp(b.name()));
        delete.dedup_by(|a, b| a.name() == b.name());
        actions.extend(delete.iter().take(BURST).map(|pod| pods::delete(&self.set.object, pod)));
        let live = |r: &Typed<corten_views::ControllerRevision>| {
            let hash = r.head().labels.get(history::REVISION_HASH).unwrap_or_default();
            hash == self.hash
                || self.on.values().flatten().any(|p| p.head().labels.get(history::REVISION_HASH) == Some(hash))
        };
        let limit = self.set.spec.revision_history_limit.unwrap_or(10);
        actions.extend(history::truncate(&self.history, limit, live));
        let before = status::of(&self.tree);
        let after = self.status(&before, &nodes);
        actions.extend(status::write(&self.set.object, &before, &after));
        let all: Vec<_> = self.on.values().flatten().cloned().collect();
        if let Some(wait) = pods::next_available(&all, self.set.spec.min_ready_seconds, self.world.now) {
            self.plan.requeue_after(wait);
        }
        self.plan.stage(actions);
        self.failures.of.retain(|node, _| nodes.iter().any(|n| n.name() == node));
        if !self.failures.of.is_empty() {
            self.plan.keep = Some(Arc::new(self.failures));
        }
        self.plan
    }

    /// Whether daemons should run on a node, and whether those that do may stay (`nodeShouldRunDaemonPod`).
    fn runs_on(&self, node: &Typed<Node>) -> (bool, bool) {
        let spec = &self.set.spec.template.spec;
        if !spec.node_name.is_empty() && spec.node_name != node.name() {
            return (false, false);
        }
        if !spec.allows_node(node.name(), |key| node.head().labels.get(key)) {
            return (false, false);
        }
        let untolerated = |effects: &[&str]| {
            node.spec.taints.iter().any(|t| effects.contains(&t.effect.as_str()) && !tolerates(&self.tolerations, t))
        };
        (!untolerated(&["NoExecute", "NoSchedule"]), !untolerated(&["NoExecute"]))
    }

    fn max_surge(&self, desired: i64) -> i64 {
        let rolling = self.set.spec.update_strategy.rolling_update.as_ref();
        rolling.and_then(|r| r.max_surge.as_ref()?.scaled(desired, true)).unwrap_or(0)
    }

    fn allows_surge(&self) -> bool {
        self.set.spec.update_strategy.r#type == "RollingUpdate" && self.max_surge(100) > 0
    }

    fn is_new(&self, pod: &Typed<Pod>) -> bool {
        pod.head().labels.get(history::REVISION_HASH) == Some(self.hash.as_str())
    }

    fn is_available(&self, pod: &Typed<Pod>) -> bool {
        pod.is_available(self.set.spec.min_ready_seconds, self.world.now)
    }

    /// `podsShouldBeOnNode`
    fn on_node(&mut self, node: &Typed<Node>, create: &mut Vec<String>, delete: &mut Vec<Typed<Pod>>) {
        let (should_run, may_stay) = self.runs_on(node);
        let Some(pods) = self.on.get(node.name()).cloned() else {
            if should_run {
                create.push(node.name().to_owned());
            }
            return;
        };
        let pods: Vec<_> = pods.into_iter().filter(|p| !p.is_terminating()).collect();
        if !may_stay {
            delete.extend(pods);
            return;
        }
        let running: Vec<_> = pods.into_iter().filter(|pod| !self.replace_ended(pod, node.name(), delete)).collect();
        if !self.allows_surge() {
            delete.extend(running.into_iter().skip(1));
            return;
        }
        if running.is_empty() {
            if should_run && self.on.get(node.name()).is_some_and(|all| all.iter().all(|p| p.is_terminating())) {
                create.push(node.name().to_owned());
            }
            return;
        }
        let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|p| self.is_new(p));
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!old.is_ready() || self.is_available(new))
        {
            delete.push(old.clone());
        }
        delete.extend(new.into_iter().skip(1).chain(old.into_iter().skip(1)));
    }

    /// A daemon that has ended is deleted, so that a new one takes its place; true if it has ended.
    fn replace_ended(&mut self, pod: &Typed<Pod>, node: &str, delete: &mut Vec<Typed<Pod>>) -> bool {
        let (namespace, name) = (pod.namespace(), pod.name());
        match pod.status.phase.as_str() {
            "Failed" => {
                if let Some(left) = self.failures.wait(node, self.world.now) {
                    self.plan.requeue_after(left);
                    return true;
                }
                let message = format!("Found failed daemon pod {namespace}/{name} on node {node}, will try to kill it");
                self.plan.events.push(EventNote::warning(&self.set.object, "FailedDaemonPod", message));
            }
            "Succeeded" => {
                let message =
                    format!("Found succeeded daemon pod {namespace}/{name} on node {node}, will try to delete it");
                self.plan.events.push(EventNote::normal(&self.set.object, "SucceededDaemonPod", message));
            }
            _ => return false,
        }
        delete.push(pod.clone());
        true
    }

    fn create(&self, node: &str) -> Action {
        let mut template = self.tree.path("spec.template").cloned().unwrap_or_else(Tree::map);
        let labels = template.make_map_at("metadata.labels");
        labels.insert(history::REVISION_HASH, self.hash.as_str());
        if let Some(generation) = self.set.metadata.annotations.get(TEMPLATE_GENERATION) {
            labels.insert(TEMPLATE_GENERATION_LABEL, generation.as_str());
        }
        let mut pod = pods::from_template(self.world, &template, &self.set.object);
        add_tolerations(&mut pod, self.set.spec.template.spec.host_network);
        pin_to_node(&mut pod, node);
        pods::create_generated(self.world, &self.set.object, pod)
    }

    fn by_revision<'p>(&self, pods: &'p [Typed<Pod>]) -> Option<OnNode<'p>> {
        let mut found = OnNode { new: None, old: None };
        for pod in pods.iter().filter(|p| !p.is_terminating()) {
            let slot = if self.is_new(pod) { &mut found.new } else { &mut found.old };
            if slot.replace(pod).is_some() {
                return None;
            }
        }
        Some(found)
    }

    /// `rollingUpdate` in `update.go`
    fn roll(&self, nodes: &[Typed<Node>], create: &mut Vec<String>, delete: &mut Vec<Typed<Pod>>) {
        let wanted: Vec<&Typed<Node>> = nodes.iter().filter(|n| self.runs_on(n).0).collect();
        let desired = wanted.len() as i64;
        let rolling = self.set.spec.update_strategy.rolling_update.as_ref();
        let unavailable = rolling.and_then(|r| r.max_unavailable.as_ref()?.scaled(desired, true)).unwrap_or(1);
        let surge = self.max_surge(desired);
        let unavailable = if desired > 0 && unavailable == 0 && surge == 0 { 1 } else { unavailable };
        let mut names: Vec<&str> = self.on.keys().map(String::as_str).collect();
        names.extend(wanted.iter().map(|n| n.name()).filter(|n| !self.on.contains_key(*n)));
        let pods = |name: &str| self.on.get(name).map_or(&[][..], Vec::as_slice);
        if surge == 0 {
            self.roll_in_place(names.iter().map(|n| pods(n)), unavailable, delete);
        } else {
            self.roll_with_surge(names.iter().map(|n| (*n, pods(n))), surge, &wanted, create, delete);
        }
    }

    fn roll_in_place<'p>(
        &self,
        nodes: impl Iterator<Item = &'p [Typed<Pod>]>,
        max_unavailable: i64,
        delete: &mut Vec<Typed<Pod>>,
    ) {
        let mut unavailable = 0;
        let mut candidates = Vec::new();
        for pods in nodes {
            match self.by_revision(pods) {
                Some(OnNode { new: Some(new), old: None }) if self.is_available(new) => {}
                Some(OnNode { new: None, old: Some(old) }) if self.is_available(old) => candidates.push(old.clone()),
                Some(OnNode { new: None, old: Some(old) }) => {
                    // It is unavailable anyway: replacing it costs nothing.
                    delete.push(old.clone());
                    unavailable += 1;
                }
                _ => unavailable += 1,
            }
        }
        let room = usize::try_from(max_unavailable - unavailable).unwrap_or(0);
        delete.extend(candidates.into_iter().take(room));
    }

    fn roll_with_surge<'p>(
        &self,
        nodes: impl Iterator<Item = (&'p str, &'p [Typed<Pod>])>,
        max_surge: i64,
        wanted: &[&Typed<Node>],
        create: &mut Vec<String>,
        delete: &mut Vec<Typed<Pod>>,
    ) {
        let (mut surging, mut available) = (0, 0);
        let (mut candidates, mut unwanted) = (Vec::new(), Vec::new());
        for (name, pods) in nodes {
            let on = self.by_revision(pods);
            let serves = on.as_ref().and_then(|on| on.old.or(on.new)).is_some_and(|p| self.is_available(p));
            available += usize::from(serves);
            match on {
                None => surging += 1,
                Some(OnNode { old: None, .. }) => {}
                Some(OnNode { new: None, old: Some(old) }) => {
                    let runs = wanted.iter().any(|n| n.name() == name);
                    match (runs, self.is_available(old)) {
                        (true, true) => candidates.push(name.to_owned()),
                        (true, false) => create.push(name.to_owned()),
                        (false, false) => delete.push(old.clone()),
                        (false, true) => unwanted.push(old.clone()),
                    }
                }
                Some(OnNode { new: Some(new), old: Some(old) }) => {
                    if self.is_available(new) {
                        delete.push(old.clone());
                    } else {
                        surging += 1;
                    }
                }
            }
        }
        // What serves on a node where it may only stay goes once as many as are wanted serve without it.
        delete.extend(unwanted.into_iter().take(available.saturating_sub(wanted.len())));
        let room = usize::try_from(max_surge - surging).unwrap_or(0);
        create.extend(candidates.into_iter().take(room));
    }

    /// `updateDaemonSetStatus`
    fn status(&self, before: &Tree, nodes: &[Typed<Node>]) -> Tree {
        let (mut desired, mut current, mut misscheduled) = (0, 0, 0);
        let (mut ready, mut updated, mut available) = (0, 0, 0);
        for node in nodes {
            let first = self.on.get(node.name()).and_then(|pods| pods.first());
            match (self.runs_on(node).0, first) {
                (true, Some(pod)) => {
                    desired += 1;
                    current += 1;
                    ready += i64::from(pod.is_ready());
                    available += i64::from(self.is_available(pod));
                    updated += i64::from(self.is_new(pod));
                }
                (true, None) => desired += 1,
                (false, Some(_)) => misscheduled += 1,
                (false, None) => {}
            }
        }
        let mut out = before.clone();
        out.insert("currentNumberScheduled", current);
        out.insert("numberMisscheduled", misscheduled);
        out.insert("desiredNumberScheduled", desired);
        out.insert("numberReady", ready);
        out.insert("observedGeneration", self.set.head().generation);
        status::count(&mut out, "updatedNumberScheduled", updated);
        status::count(&mut out, "numberAvailable", available);
        status::count(&mut out, "numberUnavailable", desired - available);
        out
    }
}

fn add_tolerations(pod: &mut Tree, host_network: bool) {
    let mut list = pod.list_at("spec.tolerations").to_vec();
    for (key, effect) in added_tolerations(host_network) {
        let same = |t: &Tree| {
            t.str_at("key") == key
                && t.str_at("effect") == effect
                && t.str_at("operator") == "Exists"
                && t.path("tolerationSeconds").is_none()
        };
        if !list.iter().any(same) {
            list.push(tree!({"key": (key), "operator": "Exists", "effect": (effect)}));
        }
    }
    pod.set("spec.tolerations", list);
}

/// The pod may only run on this node (`ReplaceDaemonSetPodNodeNameNodeAffinity`).
fn pin_to_node(pod: &mut Tree, node: &str) {
    const TERMS: &str = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let pin = tree!([{"key": "metadata.name", "operator": "In", "values": [(node)]}]);
    let mut terms: Vec<Tree> = pod.list_at(TERMS).to_vec();
    if terms.is_empty() {
        terms.push(Tree::map());
    }
    for term in &mut terms {
        term.insert("matchFields", pin.clone());
    }
    pod.set(TERMS, terms);
}
