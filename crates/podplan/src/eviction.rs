//! Node-pressure eviction, the deciding part (`pkg/kubelet/eviction`): which thresholds are crossed, what the node says of it, and
//! which pod goes first; and pods that use more local storage than they may.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use corten_base::Timestamp;
use corten_views::container::ResourceRequirements;
use corten_views::pod::tolerates;
use corten_views::quantity::ResourceList;
use corten_views::{Container, Pod, Quantity, Taint};

use crate::memory::after;
use crate::resources::QosClass;

/// `status.reason` of a pod that was evicted, and the reason of its event.
pub const REASON: &str = "Evicted";
/// Seconds that a pod has to end when a hard threshold is crossed.
pub const GRACE_HARD_SECONDS: i64 = 1;
/// How long a node keeps a condition after its cause was last seen, unless it is told otherwise.
pub const TRANSITION_SECONDS: i64 = 300;
/// From this priority on a pod is critical and stays (`scheduling.SystemCriticalPriority`).
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// `memory.available`
    Memory,
    /// `nodefs.available`
    NodeFs,
    /// `nodefs.inodesFree`
    NodeFsInodes,
    /// `imagefs.available`
    ImageFs,
    /// `imagefs.inodesFree`
    ImageFsInodes,
    /// `pid.available`
    Pid,
}

/// Signals: name in options, the node's condition, the resource that messages name.
const SIGNALS: [(Signal, &str, &str, &str); 6] = [
    (Signal::Memory, "memory.available", "MemoryPressure", "memory"),
    (Signal::NodeFs, "nodefs.available", "DiskPressure", "ephemeral-storage"),
    (Signal::NodeFsInodes, "nodefs.inodesFree", "DiskPressure", "inodes"),
    (Signal::ImageFs, "imagefs.available", "DiskPressure", "ephemeral-storage"),
    (Signal::ImageFsInodes, "imagefs.inodesFree", "DiskPressure", "inodes"),
    (Signal::Pid, "pid.available", "PIDPressure", "pids"),
];

impl Signal {
    fn row(self) -> &'static (Signal, &'static str, &'static str, &'static str) {
        SIGNALS.iter().find(|row| row.0 == self).expect("every signal has a row")
    }

    /// As options name it.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The node's condition.
    pub fn condition(self) -> &'static str {
        self.row().2
    }

    /// The resource that runs short.
    pub fn resource(self) -> &'static str {
        self.row().3
    }
}

/// An amount of a resource, or a part of all of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Amount {
    /// So much.
    Absolute(Quantity),
    /// So much of the capacity; 1.0 is all.
    Part(f64),
}

impl Amount {
    fn parse(text: &str) -> Result<Amount, String> {
        let Some(percent) = text.strip_suffix('%') else {
            let amount = Quantity::parse(text).filter(|q| q.value() >= 0);
            return amount.map(Amount::Absolute).ok_or_else(|| format!("{text:?} is not an amount"));
        };
        match percent.parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Amount::Part(percent / 100.0)),
            _ => Err(format!("{text:?} is not a percentage from 0% to 100%")),
        }
    }

    fn of(&self, capacity: i64) -> i64 {
        match self {
            Amount::Absolute(quantity) => quantity.value(),
            Amount::Part(part) => (capacity as f64 * part) as i64,
        }
    }
}

impl std::fmt::Display for Amount {
    /// As options are written: `100Mi`, `10%`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Amount::Absolute(quantity) => f.write_str(quantity.as_str()),
            Amount::Part(part) => write!(f, "{}%", (part * 10_000.0).round() / 100.0),
        }
    }
}

impl Amount {
    fn text(&self, capacity: i64) -> String {
        match self {
            Amount::Absolute(quantity) => quantity.as_str().to_owned(),
            Amount::Part(_) => binary(self.of(capacity)),
        }
    }
}

/// From how little on the node acts.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    /// Of what.
    pub signal: Signal,
    /// Crossed when less than this is available.
    pub value: Amount,
    /// How long it must have been crossed; 0: a hard threshold.
    pub grace_seconds: i64,
    /// So much more must be available for it to count as resolved.
    pub reclaim: Option<Amount>,
}

/// How a node evicts.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// In any order.
    pub thresholds: Vec<Threshold>,
    /// How long a condition stays after its cause.
    pub transition_seconds: i64,
    /// The longest grace of a pod that a soft threshold ends.
    pub pod_grace_seconds_max: i64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings::parse(Settings::HARD, "", "", "").expect("the defaults can be parsed")
    }
}

impl Settings {
    /// The hard thresholds if none are given (`defaults_linux.go`).
    pub const HARD: &str =
        "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,imagefs.available<15%,imagefs.inodesFree<5%";

    /// From the kubelet's options `--eviction-hard`, `--eviction-soft` (`memory.available<100Mi,…`), `--eviction-soft-grace-period`
    /// (`memory.available=90s,…`, in seconds) and `--eviction-minimum-reclaim` (`memory.available=0Mi,…`).
    pub fn parse(hard: &str, soft: &str, graces: &str, reclaims: &str) -> Result<Settings, String> {
        let mut thresholds = statements(hard)?;
        let graces = pairs(graces, '=')?;
        for mut threshold in statements(soft)? {
            let name = threshold.signal.name();
            let grace = graces.iter().find(|(signal, _)| *signal == threshold.signal);
            let missing = || format!("grace period must be specified for the soft eviction threshold {name}");
            threshold.grace_seconds = seconds(grace.ok_or_else(missing)?.1)?;
            thresholds.push(threshold);
        }
        for (signal, amount) in pairs(reclaims, '=')? {
            let amount = Amount::parse(amount)?;
            thresholds.iter_mut().filter(|t| t.signal == signal).for_each(|t| t.reclaim = Some(amount.clone()));
        }
        Ok(Settings { thresholds, transition_seconds: TRANSITION_SECONDS, pod_grace_seconds_max: 0 })
    }
}

impl Settings {
    /// What pods cannot have of `capacity`, since the node evicts before it is used (`getNodeAllocatableReservation`,
    /// `hardEvictionReservation`).
    pub fn reserved(&self, signal: Signal, capacity: i64) -> i64 {
        let hard = self.thresholds.iter().filter(|t| t.signal == signal && t.grace_seconds == 0);
        hard.map(|t| t.value.of(capacity)).max().unwrap_or(0)
    }
}

fn pairs(text: &str, separator: char) -> Result<Vec<(Signal, &str)>, String> {
    let mut out = Vec::new();
    for pair in text.split(',').filter(|p| !p.trim().is_empty()) {
        let (name, value) = pair.split_once(separator).ok_or_else(|| format!("{pair:?} has no {separator:?}"))?;
        let row = SIGNALS.iter().find(|row| row.1 == name.trim());
        let row = row.ok_or_else(|| format!("unsupported eviction signal {:?}", name.trim()))?;
        out.push((row.0, value.trim()));
    }
    Ok(out)
}

fn statements(text: &str) -> Result<Vec<Threshold>, String> {
    let mut out = Vec::new();
    for (signal, value) in pairs(text, '<')? {
        let value = Amount::parse(value)?;
        // 0% and 100% switch a threshold off.
        if !matches!(value, Amount::Part(part) if part == 0.0 || part == 1.0) {
            out.push(Threshold { signal, value, grace_seconds: 0, reclaim: None });
        }
    }
    Ok(out)
}

/// `90s`, `1m30s`, `2h`
fn seconds(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not a duration");
    let (mut sum, mut number) = (0_i64, String::new());
    for c in text.chars() {
        let unit = match c {
            '0'..='9' => {
                number.push(c);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            _ => return Err(bad()),
        };
        let value: i64 = number.parse().map_err(|_| bad())?;
        sum = value.checked_mul(unit).and_then(|v| sum.checked_add(v)).ok_or_else(bad)?;
        number.clear();
    }
    if sum == 0 || !number.is_empty() { Err(bad()) } else { Ok(sum) }
}

/// What is there of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Bytes, inodes or processes that are left.
    pub available: i64,
    /// All of them.
    pub capacity: i64,
}

/// What all signals say.
pub type Readings = BTreeMap<Signal, Reading>;

/// What a container uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerUse {
    /// The container's name.
    pub name: String,
    /// Bytes of its working set.
    pub memory: i64,
    /// Bytes of its log and of what it wrote beside its volumes.
    pub disk: i64,
    /// Inodes of the same.
    pub inodes: i64,
}

/// What a pod uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodUse {
    /// Bytes of the pod's working set.
    pub memory: i64,
    /// Processes.
    pub pids: i64,
    /// Its containers.
    pub containers: Vec<ContainerUse>,
    /// Bytes and inodes of its local volumes on disk, by name.
    pub volumes: Vec<(String, i64, i64)>,
}

impl PodUse {
    /// Bytes of local storage.
    pub fn disk(&self) -> i64 {
        let containers: i64 = self.containers.iter().map(|c| c.disk).sum();
        containers + self.volumes.iter().map(|v| v.1).sum::<i64>()
    }

    fn inodes(&self) -> i64 {
        let containers: i64 = self.containers.iter().map(|c| c.inodes).sum();
        containers + self.volumes.iter().map(|v| v.2).sum::<i64>()
    }
}

/// What a node knows of its pressure between two looks.
#[derive(Debug, Default)]
pub struct Pressure {
    crossed: Vec<(Threshold, Timestamp)>,
    acted: Vec<Threshold>,
    seen: HashMap<&'static str, Timestamp>,
}

impl Pressure {
    /// Notes what was read. The thresholds to act upon, the most urgent first.
    pub fn note(&mut self, settings: &Settings, readings: &Readings, now: Timestamp) -> Vec<Threshold> {
        let mut crossed: Vec<Threshold> =
            settings.thresholds.iter().filter(|t| is_crossed(t, readings, false)).cloned().collect();
        // What was acted upon counts until so much more is there as it asks for.
        for threshold in self.acted.iter().filter(|t| is_crossed(t, readings, true)) {
            if !crossed.contains(threshold) {
                crossed.push(threshold.clone());
            }
        }
        let since = |t: &Threshold| self.crossed.iter().find(|(old, _)| old == t).map_or(now, |(_, at)| *at);
        let crossed: Vec<(Threshold, Timestamp)> = crossed.into_iter().map(|t| (t.clone(), since(&t))).collect();
        self.seen.extend(crossed.iter().map(|(t, _)| (t.signal.condition(), now)));
        self.seen.retain(|_, at| now < after(*at, settings.transition_seconds));
        let due = crossed.iter().filter(|(t, since)| now >= after(*since, t.grace_seconds));
        let mut due: Vec<Threshold> = due.map(|(t, _)| t.clone()).collect();
        self.crossed = crossed;
        self.acted.clone_from(&due);
        due.sort_by_key(|t| t.signal != Signal::Memory);
        due
    }

    /// The conditions that the node has.
    pub fn conditions(&self) -> BTreeSet<&'static str> {
        self.seen.keys().copied().collect()
    }
}

fn is_crossed(threshold: &Threshold, readings: &Readings, with_reclaim: bool) -> bool {
    let Some(reading) = readings.get(&threshold.signal) else { return false };
    let more = threshold.reclaim.as_ref().filter(|_| with_reclaim).map_or(0, |r| r.of(reading.capacity));
    threshold.value.of(reading.capacity).saturating_add(more) > reading.available
}

/// Whether a pod is refused because of the node's conditions, and with which message (`Admit` of the eviction manager).
pub fn refuses(conditions: &BTreeSet<&'static str>, pod: &Pod) -> Option<String> {
    if conditions.is_empty() || is_critical(pod) {
        return None;
    }
    let only_memory = conditions.iter().eq(["MemoryPressure"].iter());
    let taint =
        Taint { key: "node.kubernetes.io/memory-pressure".into(), effect: "NoSchedule".into(), ..Taint::default() };
    if only_memory && (QosClass::of(pod) != QosClass::BestEffort || tolerates(&pod.spec.tolerations, &taint)) {
        return None;
    }
    let list: Vec<&str> = conditions.iter().copied().collect();
    Some(format!("The node had condition: [{}]. ", list.join(" ")))
}

/// Never evicted (`pkg/kubelet/types` `IsCriticalPod`): static pods and those of system priority.
pub(crate) fn is_critical(pod: &Pod) -> bool {
    let annotations = &pod.metadata.annotations;
    let fixed = annotations.contains_key("kubernetes.io/config.mirror")
        || annotations.get("kubernetes.io/config.source").is_some_and(|s| s != "api");
    fixed || pod.spec.priority.unwrap_or(0) >= CRITICAL_PRIORITY
}

/// The order to evict a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eviction {
    /// The pod's uid.
    pub uid: String,
    /// `status.reason`, and the reason of the event.
    pub reason: &'static str,
    /// What its status says.
    pub message: String,
    /// How long it may take to end.
    pub grace_seconds: i64,
    /// What the condition `DisruptionTarget` says, if the pod gets it.
    pub disruption: Option<String>,
}

/// The pod to evict for the most urgent of the thresholds (there is at least one, and `readings` has it).
pub fn choose(
    settings: &Settings,
    thresholds: &[Threshold],
    readings: &Readings,
    pods: &[(&Pod, Option<&PodUse>)],
) -> Option<Eviction> {
    let threshold = thresholds.first()?;
    let mut ranked: Vec<&(&Pod, Option<&PodUse>)> = pods.iter().filter(|(pod, _)| !is_critical(pod)).collect();
    ranked.sort_by(|a, b| rank(threshold.signal, a, b));
    let (pod, used) = ranked.first()?;
    let own = pod.spec.termination_grace_period_seconds.unwrap_or(i64::MAX);
    let grace_seconds = match threshold.grace_seconds {
        0 => GRACE_HARD_SECONDS,
        _ => settings.pod_grace_seconds_max.min(own),
    };
    let message = message(threshold.signal, thresholds, readings, pod, *used);
    Some(Eviction {
        uid: pod.metadata.uid.clone(),
        reason: REASON,
        disruption: Some(message.clone()),
        message,
        grace_seconds,
    })
}

fn rank(signal: Signal, (a, used_a): &(&Pod, Option<&PodUse>), (b, used_b): &(&Pod, Option<&PodUse>)) -> Ordering {
    let (Some(used_a), Some(used_b)) = (used_a, used_b) else {
        // One of which nothing is known goes first.
        return used_a.is_some().cmp(&used_b.is_some());
    };
    let priority = a.spec.priority.unwrap_or(0).cmp(&b.spec.priority.unwrap_or(0));
    let (amount, exceeds): (fn(&PodUse) -> i64, bool) = match signal {
        Signal::Memory => (|u| u.memory, true),
        Signal::Pid => (|u| u.pids, false),
        Signal::NodeFs | Signal::ImageFs => (PodUse::disk, true),
        Signal::NodeFsInodes | Signal::ImageFsInodes => (PodUse::inodes, true),
    };
    // Inodes cannot be requested; upstream subtracts the storage that is.
    let request = |pod: &Pod| match signal {
        Signal::Memory => request_of(pod, "memory"),
        Signal::Pid => 0,
        _ => request_of(pod, "ephemeral-storage"),
    };
    let over = |pod: &Pod, used: &PodUse| {
        let wanted = if matches!(signal, Signal::NodeFsInodes | Signal::ImageFsInodes) { 0 } else { request(pod) };
        exceeds && amount(used) > wanted
    };
    over(b, used_b)
        .cmp(&over(a, used_a))
        .then(priority)
        .then((amount(used_b) - request(b)).cmp(&(amount(used_a) - request(a))))
}

fn request_of(pod: &Pod, resource: &str) -> i64 {
    total_of(pod, resource, |r| &r.requests).unwrap_or(0)
}

/// What the parts of a pod ask for together, as the scheduler counts it (`k8s.io/component-helpers/resource` `PodRequests`,
/// `PodLimits`); `None` if no part asks.
fn total_of(pod: &Pod, resource: &str, list: fn(&ResourceRequirements) -> &ResourceList) -> Option<i64> {
    let of = |r: &ResourceRequirements| list(r).get(resource).map(Quantity::value);
    let overhead = pod.spec.overhead.get(resource).map_or(0, Quantity::value);
    if let Some(whole) = pod.spec.resources.as_ref().and_then(of) {
        return Some(whole + overhead);
    }
    let all = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    all.into_iter().find_map(|c| of(&c.resources))?;
    let apps: i64 = pod.spec.containers.iter().filter_map(|c| of(&c.resources)).sum();
    let (mut sidecars, mut inits) = (0, 0);
    for container in &pod.spec.init_containers {
        let own = of(&container.resources).unwrap_or(0);
        inits = inits.max(sidecars + own);
        sidecars += if container.is_sidecar() { own } else { 0 };
    }
    Some(inits.max(apps + sidecars) + overhead)
}

fn message(signal: Signal, thresholds: &[Threshold], readings: &Readings, pod: &Pod, used: Option<&PodUse>) -> String {
    let resource = signal.resource();
    let mut out = format!("The node was low on resource: {resource}. ");
    let met = thresholds.iter().find(|t| t.signal.resource() == resource && readings.contains_key(&t.signal));
    if let Some((threshold, reading)) = met.and_then(|t| Some((t, readings.get(&t.signal)?))) {
        let (quantity, available) = (threshold.value.text(reading.capacity), binary(reading.available));
        out.push_str(&format!("Threshold quantity: {quantity}, available: {available}. "));
    }
    let Some(used) = used else { return out };
    let whole = pod.spec.resources.as_ref().and_then(|r| r.requests.get(resource));
    if let Some(request) = whole.filter(|_| signal == Signal::Memory) {
        let (name, usage) = (&pod.metadata.name, binary(used.memory));
        let request = request.as_str();
        out.push_str(&format!(
            "Pod {name} was using {usage}, request is {request}, has larger consumption of memory. "
        ));
    }
    for of in &used.containers {
        let all = pod.spec.containers.iter().chain(&pod.spec.init_containers);
        let Some(container) = all.into_iter().find(|c| c.name == of.name) else { continue };
        let usage = match resource {
            "memory" => of.memory,
            "ephemeral-storage" => of.disk,
            _ => continue,
        };
        let request = container.resources.requests.get(resource);
        if usage > request.map_or(0, Quantity::value) {
            let (usage, request) = (binary(usage), request.map_or("0", Quantity::as_str));
            out.push_str(&format!(
                "Container {} was using {usage}, request is {request}, has larger consumption of {resource}. ",
                of.name
            ));
        }
    }
    out
}

/// Whether something of a pod's local storage is limited, so that it has to be measured.
pub fn limits_storage(pod: &Pod) -> bool {
    let volume = pod.spec.volumes.iter().filter_map(|v| v.empty_dir.as_ref());
    let limited = volume.into_iter().any(|v| v.size_limit.is_some() && v.medium.is_empty());
    limited || storage_limits(pod).next().is_some()
}

/// The containers that count, with their limits of `ephemeral-storage`.
fn storage_limits(pod: &Pod) -> impl Iterator<Item = (&Container, &Quantity)> {
    let all = pod.spec.containers.iter().chain(pod.spec.init_containers.iter().filter(|c| c.is_sidecar()));
    all.filter_map(|c| Some((c, c.resources.limits.get("ephemeral-storage")?)))
}

/// Whether a pod uses more local storage than its limits allow (`localStorageEviction`).
pub fn over_limit(pod: &Pod, used: &PodUse) -> Option<Eviction> {
    let message = over_limit_message(pod, used).filter(|_| !is_critical(pod))?;
    let uid = pod.metadata.uid.clone();
    Some(Eviction { uid, reason: REASON, message, grace_seconds: GRACE_HARD_SECONDS, disruption: None })
}

fn over_limit_message(pod: &Pod, used: &PodUse) -> Option<String> {
    for volume in &pod.spec.volumes {
        let limit = volume.empty_dir.as_ref().filter(|v| v.medium.is_empty()).and_then(|v| v.size_limit.as_ref());
        let has = used.volumes.iter().find(|(name, ..)| *name == volume.name);
        if let (Some(limit), Some((name, bytes, _))) = (limit, has)
            && limit.value() > 0
            && *bytes > limit.value()
        {
            return Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {:?}. ", limit.as_str()));
        }
    }
    // As upstream: one container's limit is enough for the pod to have one.
    let whole = total_of(pod, "ephemeral-storage", |r| &r.limits)?;
    if used.disk() > whole {
        let total = binary(whole);
        return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {total}. "));
    }
    let limits: Vec<(&Container, &Quantity)> = storage_limits(pod).collect();
    let over = |(container, limit): &&(&Container, &Quantity)| {
        let has = used.containers.iter().find(|c| c.name == container.name).map_or(0, |c| c.disk);
        limit.value() != 0 && has > limit.value()
    };
    let (container, limit) = limits.iter().find(over)?;
    Some(format!("Container {} exceeded its local ephemeral storage limit {:?}. ", container.name, limit.as_str()))
}

/// A number as Go's resource.Quantity prints it in the format BinarySI.
fn binary(value: i64) -> String {
    const UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let (mut value, mut unit) = (value, 0);
    while value != 0 && value % 1024 == 0 && unit + 1 < UNITS.len() {
        value /= 1024;
        unit += 1;
    }
    format!("{value}{}", UNITS[unit])
}

#[cfg(test)]
#[path = "eviction_tests.rs"]
mod tests;
