//! HorizontalPodAutoscaler: sizes what has a scale by metrics (`pkg/controller/podautoscaler`).
//!
//! An evaluation takes two reconciles: the first asks for the metrics, through the API, so that a metrics server or an adapter
//! that somebody has installed is asked like Corten's own; the second, which has the answers, decides. What upstream keeps in
//! maps (recommended sizes, changes of size) is kept by the driver as [`Memory`].

mod behavior;
mod metrics;
mod replicas;

use std::sync::Arc;
use std::time::Duration;

use corten_kinds::id;
use corten_object::{LabelSelector, Object, ObjectKey, time};
use corten_tree::{Tree, tree};
use corten_views::{HorizontalPodAutoscaler, Pod};

use crate::{Action, Controller, EventKind, EventNote, Key, Plan, Typed, Watch, World, Write, status};
use behavior::Memory;
use corten_object::conditions::{self, NewCondition};
use metrics::Metric;
use replicas::{Scaled, Tolerances};

/// The controller.
pub struct Autoscaler;

/// How long from one evaluation to the next (`--horizontal-pod-autoscaler-sync-period`).
const PERIOD: Duration = Duration::from_secs(15);
const WATCHES: &[Watch] = &[Watch::itself(id::HORIZONTAL_POD_AUTOSCALER)];

impl Controller for Autoscaler {
    fn name(&self) -> &'static str {
        "horizontal-pod-autoscaler"
    }

    fn component(&self) -> &'static str {
        "horizontal-pod-autoscaler"
    }

    fn user(&self) -> String {
        String::from("system:serviceaccount:kube-system:horizontal-pod-autoscaler")
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(hpa) = world.get::<HorizontalPodAutoscaler>(key) else { return Plan::empty() };
        let memory = world.kept::<Memory>().cloned().unwrap_or_default();
        let tree = hpa.tree();
        let before = status::of(&tree);
        let mut sync = Sync {
            world,
            behavior: tree.path("spec.behavior").filter(|b| !b.is_empty_value()).cloned(),
            hpa,
            tree,
            after: before.clone(),
            before,
            memory,
            events: Vec::new(),
        };
        if sync.rescale_failed() {
            return sync.finish(None);
        }
        let passed =
            sync.memory.evaluated.map(|at| Duration::try_from(world.now.duration_since(at)).unwrap_or_default());
        match passed.map(|passed| PERIOD.saturating_sub(passed)).filter(|left| !left.is_zero() && !sync.memory.asking) {
            Some(left) => Plan { requeue: Some(left), keep: Some(Arc::new(sync.memory)), ..Plan::empty() },
            None => sync.evaluate(),
        }
    }
}

/// What an autoscaler scales.
struct Target {
    key: ObjectKey,
    spec_replicas: i64,
    status_replicas: i64,
    /// The selector's text, as in the scale's status.
    selector: String,
}

/// An evaluation.
struct Sync<'s> {
    world: &'s World<'s>,
    hpa: Typed<HorizontalPodAutoscaler>,
    tree: Tree,
    behavior: Option<Tree>,
    before: Tree,
    after: Tree,
    memory: Memory,
    events: Vec<EventNote>,
}

/// What the metrics together ask for.
struct Wanted {
    replicas: i64,
    metric: String,
    statuses: Vec<Tree>,
}

/// Finds what an autoscaler scales (`scaleForResourceMappings`); an error is upstream's text.
fn target(world: &World<'_>, hpa: &Typed<HorizontalPodAutoscaler>) -> Result<Target, String> {
    let reference = &hpa.spec.scale_target_ref;
    let api_version = &reference.api_version;
    let group = match api_version.split('/').collect::<Vec<_>>().as_slice() {
        [_] => "",
        [group, _] => group,
        _ => return Err(format!("unexpected GroupVersion string: {api_version}")),
    };
    let registry = world.state.registry();
    let unknown = || format!("no matches for kind \"{}\" in group \"{group}\"", reference.kind);
    let kind = registry.group_kind(group, &reference.kind).ok_or_else(unknown)?;
    let resource = if group.is_empty() { kind.plural.to_string() } else { format!("{}.{group}", kind.plural) };
    let Some(paths) = kind.versions.iter().find_map(|v| kind.scale_paths(v)) else {
        return Err("the server could not find the requested resource".into());
    };
    let namespace = if kind.namespaced() { hpa.namespace() } else { "" };
    let key = ObjectKey::new(kind.id, namespace, &reference.name);
    let missing = || format!("{resource} \"{}\" not found", reference.name);
    let tree = world.state.get(&key).ok_or_else(missing)?.to_tree();
    if kind.custom.is_some() && tree.path(&paths.spec).is_none() {
        return Err(format!("Internal error occurred: the spec replicas field \".{}\" does not exist", paths.spec));
    }
    let count = |path: &str| tree.i64_at(path).unwrap_or(0);
    let (spec_replicas, status_replicas) = (count(&paths.spec), count(&paths.status));
    Ok(Target { key, spec_replicas, status_replicas, selector: paths.selector_text(&tree) })
}

impl Sync<'_> {
    fn event(&mut self, kind: EventKind, reason: &'static str, message: impl Into<String>) {
        self.events.push(EventNote { about: self.hpa.object.clone(), kind, reason, message: message.into() });
    }

    fn condition(&mut self, kind: &str, is_true: bool, reason: &str, message: impl Into<String>) {
        let status = if is_true { "True" } else { "False" };
        let condition = NewCondition { kind, status, reason, message: message.into() };
        conditions::set_in_place(&mut self.after, &condition, self.world.now);
    }

    /// Ends the evaluation: writes the status if it has changed, after the change of size if there is one.
    fn finish(mut self, rescale: Option<Action>) -> Plan {
        self.memory.evaluated = Some(self.world.now);
        self.memory.asking = false;
        let mut plan = Plan::empty();
        plan.stage(rescale);
        plan.stage(status::write(&self.hpa.object, &self.before, &self.after));
        plan.events = self.events;
        plan.requeue = Some(PERIOD);
        plan.keep = Some(Arc::new(self.memory));
        plan
    }

    /// Looks what became of the change of size that the last plan wrote; true if it failed, and that has been noted.
    fn rescale_failed(&mut self) -> bool {
        let Some((from, to, _why)) = self.memory.rescaling.take() else { return false };
        let target = target(self.world, &self.hpa).ok().map(|t| t.key);
        let failed = self.world.last.and_then(|last| last.failures.iter().find(|f| Some(&f.key) == target.as_ref()));
        let Some(failed) = failed else {
            let at = self.memory.evaluated.unwrap_or(self.world.now);
            self.memory.rescaled(self.behavior.as_ref(), from, to, at);
            return false;
        };
        let message = format!("the HPA controller was unable to update the target scale: {}", failed.status.message);
        self.condition("AbleToScale", false, "FailedUpdateScale", message);
        self.set_status(from, None, None, false);
        true
    }

    /// `reconcileAutoscaler`
    fn evaluate(mut self) -> Plan {
        let target = match target(self.world, &self.hpa) {
            Ok(target) => target,
            Err(why) => {
                self.event(EventKind::Warning, "FailedGetScale", why.as_str());
                let message = format!("the HPA controller was unable to get the target's current scale: {why}");
                self.condition("AbleToScale", false, "FailedGetScale", message);
                return self.finish(None);
            }
        };
        let message = "the HPA controller was able to get the target's current scale";
        self.condition("AbleToScale", true, "SucceededGetScale", message);
        let current = target.spec_replicas;
        self.memory.begin(current, self.world.now);
        let least = self.hpa.spec.min_replicas.unwrap_or(1);
        let most = self.hpa.spec.max_replicas;
        let was_scaled_to_zero =
            conditions::find(&self.before, "ScaledToZero").is_some_and(|c| c.str_at("status") == "True");
        if current == 0 && !(was_scaled_to_zero && (least != 0 || self.has_outside_metrics())) {
            let message = "scaling is disabled since the replica count of the target is zero";
            self.condition("ScalingActive", false, "ScalingDisabled", message);
            self.set_status(0, Some(0), Some(&[]), false);
            return self.finish(None);
        }
        if current > most && current != 0 {
            return self.rescale(&target, most, "Current number of replicas above Spec.MaxReplicas", &[]);
        }
        if current < least && current != 0 {
            return self.rescale(&target, least, "Current number of replicas below Spec.MinReplicas", &[]);
        }
        let asks = self.asks(&target);
        if !asks.is_empty() {
            self.memory.asking = true;
            return Plan { asks, keep: Some(Arc::new(self.memory)), ..Plan::empty() };
        }
        self.by_metrics(&target, (least, most), was_scaled_to_zero)
    }

    /// Whether a metric goes on being measured without replicas (`hasObjectOrExternalMetrics`).
    fn has_outside_metrics(&self) -> bool {
        self.tree.list_at("spec.metrics").iter().any(|m| matches!(m.str_at("type"), "Object" | "External"))
    }

    /// What is still to be read before the metrics can be computed.
    fn asks(&self, target: &Target) -> Vec<String> {
        if self.memory.asking || target.selector.is_empty() {
            return Vec::new();
        }
        let mut paths: Vec<String> = self.metrics(target).iter().filter_map(|m| m.path().ok()).collect();
        paths.sort();
        paths.dedup();
        paths
    }

    fn metrics<'m>(&'m self, target: &'m Target) -> Vec<Metric<'m>> {
        let metric =
            |spec| Metric { spec, namespace: self.hpa.namespace(), selector: &target.selector, world: self.world };
        self.tree.list_at("spec.metrics").iter().map(metric).collect()
    }

    fn by_metrics(mut self, target: &Target, bounds: (i64, i64), was_scaled_to_zero: bool) -> Plan {
        let current = target.spec_replicas;
        let wanted = match self.compute(target) {
            Ok(wanted) => wanted,
            Err((message, statuses)) => {
                self.set_status(current, None, Some(&statuses), false);
                self.event(EventKind::Warning, "FailedComputeMetricsReplicas", message);
                return self.finish(None);
            }
        };
        let mut reason = String::new();
        if wanted.replicas > current {
            reason = format!("{} above target", wanted.metric);
        } else if wanted.replicas < current {
            reason = "All metrics below target".into();
        }
        let mut desired = self.normalize(bounds, current, wanted.replicas);
        if current == 0 && bounds.0 != 0 && was_scaled_to_zero && desired < bounds.0 {
            desired = bounds.0;
            if reason.is_empty() {
                reason = "Current number of replicas below Spec.MinReplicas".into();
            }
        }
        if desired == current {
            self.set_status(current, Some(current), Some(&wanted.statuses), false);
            return self.finish(None);
        }
        self.rescale(target, desired, &reason, &wanted.statuses)
    }

    /// `computeReplicasForMetrics`; an error comes with the metrics' states as far as they are known.
    fn compute(&mut self, target: &Target) -> Result<Wanted, (String, Vec<Tree>)> {
        let specs = self.tree.list_at("spec.metrics").len();
        let nothing = || vec![tree!({"type": ""}); specs];
        let pods = self.pods(target).map_err(|why| (why, Vec::new()))?;
        let scaled = Scaled {
            spec_replicas: target.spec_replicas,
            status_replicas: target.status_replicas,
            pods: &pods,
            tolerances: Tolerances::of(self.behavior.as_ref()),
            now: self.world.now,
        };
        let proposals: Vec<_> = self.metrics(target).iter().map(|m| m.propose(&scaled)).collect();
        let mut wanted = Wanted { replicas: 0, metric: String::new(), statuses: nothing() };
        let mut unable: Vec<metrics::Unable> = Vec::new();
        for (index, proposal) in proposals.into_iter().enumerate() {
            match proposal {
                Ok(proposal) => {
                    if wanted.replicas == 0 || proposal.replicas > wanted.replicas {
                        (wanted.replicas, wanted.metric) = (proposal.replicas, proposal.metric);
                    }
                    wanted.statuses[index] = proposal.status;
                }
                Err(why) => unable.push(why),
            }
        }
        for unable in &unable {
            self.event(EventKind::Warning, unable.reason, unable.why.as_str());
        }
        if let Some(first) = unable.first()
            && (unable.len() >= specs || wanted.replicas < target.spec_replicas)
        {
            let message = format!("the HPA was unable to compute the replica count: {}", first.why);
            self.condition("ScalingActive", false, first.reason, message);
            let invalid = unable.len();
            let message =
                format!("invalid metrics ({invalid} invalid out of {specs}), first error is: {}", first.message);
            return Err((message, wanted.statuses));
        }
        let message = format!("the HPA was able to successfully calculate a replica count from {}", wanted.metric);
        self.condition("ScalingActive", true, "ValidMetricFound", message);
        Ok(wanted)
    }

    /// The pods that the target selects, if no other autoscaler has them (`validateAndParseSelector`).
    fn pods(&mut self, target: &Target) -> Result<Vec<Typed<Pod>>, String> {
        if target.selector.is_empty() {
            self.event(EventKind::Warning, "SelectorRequired", "selector is required");
            let message = "the HPA target's scale is missing a selector";
            self.condition("ScalingActive", false, "InvalidSelector", message);
            return Err("selector is required".into());
        }
        let selector = LabelSelector::parse(&target.selector).map_err(|why| {
            let message = format!("couldn't convert selector into a corresponding internal selector object: {why}");
            self.event(EventKind::Warning, "InvalidSelector", message.as_str());
            self.condition("ScalingActive", false, "InvalidSelector", message.as_str());
            message
        })?;
        let selected = |pod: &Object| selector.matches(&pod.head.labels);
        let pods = self.world.list_where::<Pod>(id::POD, self.hpa.namespace(), selected);
        if let Some(other) = self.rival(&pods) {
            let (name, namespace) = (self.hpa.name(), self.hpa.namespace());
            let named = format!("[{{{name} {namespace}}} {{{other} {namespace}}}]");
            let of = &target.selector;
            let message = format!("pods by selector {of} are controlled by more than one HPA (e.g. {named})");
            self.event(EventKind::Warning, "AmbiguousSelector", message.as_str());
            self.condition("ScalingActive", false, "AmbiguousSelector", message.as_str());
            return Err(message);
        }
        Ok(pods)
    }

    /// Another autoscaler that has one of these pods, too.
    fn rival(&self, pods: &[Typed<Pod>]) -> Option<String> {
        let others = self.world.list::<HorizontalPodAutoscaler>(id::HORIZONTAL_POD_AUTOSCALER, self.hpa.namespace());
        others.into_iter().filter(|other| other.uid() != self.hpa.uid()).find_map(|other| {
            let selector = LabelSelector::parse(&target(self.world, &other).ok()?.selector).ok()?;
            let has = !selector.is_everything() && pods.iter().any(|p| selector.matches(&p.head().labels));
            has.then(|| other.name().to_owned())
        })
    }

    /// The size within windows, policies and bounds (`normalizeDesiredReplicas`, `normalizeDesiredReplicasWithBehaviors`).
    fn normalize(&mut self, bounds: (i64, i64), current: i64, wanted: i64) -> i64 {
        let now = self.world.now;
        let behavior = self.behavior.clone();
        let (stable, reason, message) = match &behavior {
            Some(behavior) => self.memory.stabilize_with(behavior, current, wanted, now),
            None => {
                let why =
                    "recent recommendations were higher than current one, applying the highest recent recommendation";
                (self.memory.stabilize(wanted, now), "ScaleDownStabilized", why)
            }
        };
        if stable == wanted {
            self.condition("AbleToScale", true, "ReadyForNewScale", "recommended size matches current size");
        } else {
            self.condition("AbleToScale", true, reason, message);
        }
        let (desired, reason, message) = match &behavior {
            Some(behavior) => self.memory.limit_with(behavior, bounds, current, stable, now),
            None => behavior::limit_plain(bounds, current, stable),
        };
        self.condition("ScalingLimited", desired != stable, reason, message);
        desired
    }

    /// Writes the new size, and the status that says so.
    fn rescale(mut self, target: &Target, desired: i64, reason: &str, statuses: &[Tree]) -> Plan {
        let current = target.spec_replicas;
        let about = &self.hpa.object;
        let message = format!("New size: {desired}; reason: {reason}");
        let body = tree!({"apiVersion": "autoscaling/v1", "kind": "Scale",
            "metadata": {"name": (target.key.name.as_str()), "namespace": (target.key.namespace.as_str())},
            "spec": {"replicas": (desired)}});
        let write = Write::Update { key: target.key.clone(), subresource: "scale", body };
        let action = Action::from(write)
            .on_failure(EventNote::warning(about, "FailedRescale", format!("{message}; error: ")))
            .on_success(EventNote::normal(about, "SuccessfulRescale", message));
        let message = format!("the HPA controller was able to update the target scale to {desired}");
        self.condition("AbleToScale", true, "SucceededRescale", message);
        let to_zero =
            current > 0 && desired == 0 && self.hpa.spec.min_replicas == Some(0) && self.has_outside_metrics();
        if to_zero {
            self.condition("ScaledToZero", true, "ScaledToZero", "the HPA controller scaled the workload to zero");
        } else {
            let message = "the HPA controller did not scale the workload to zero";
            self.condition("ScaledToZero", false, "NotScaledToZero", message);
        }
        self.memory.rescaling = Some((current, desired, reason.to_owned()));
        self.set_status(current, Some(desired), Some(statuses), true);
        self.finish(Some(action))
    }

    /// `setStatus`; what is `None` stays.
    fn set_status(&mut self, current: i64, desired: Option<i64>, statuses: Option<&[Tree]>, rescaled: bool) {
        let out = &mut self.after;
        status::count(out, "currentReplicas", current);
        out.insert("desiredReplicas", desired.unwrap_or_else(|| out.i64_at("desiredReplicas").unwrap_or(0)));
        match statuses {
            Some([]) => drop(out.remove("currentMetrics")),
            Some(statuses) => out.insert("currentMetrics", statuses.to_vec()),
            None => {}
        }
        out.insert("observedGeneration", self.hpa.head().generation);
        if rescaled {
            out.insert("lastScaleTime", time::format(self.world.now));
        }
    }
}
