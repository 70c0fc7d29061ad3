//! Hints by the zones' shares of the nodes' CPUs, for services that ask for it by annotation
//! (`k8s.io/endpointslice/topologycache`).
//!
//! Upstream remembers hints of all services in a cache; here the slices themselves tell what hints there are.

use std::collections::BTreeMap;

use corten_kinds::id;
use corten_tree::{Tree, tree};
use corten_views::{Node, Service};

use super::{Draft, ZONE, is_ready};
use crate::World;

/// `TopologyAwareHintsEnabled`
pub(super) const ENABLED: &str = "Topology Aware Hints has been enabled";
/// `TopologyAwareHintsDisabled`
pub(super) const DISABLED: &str = "Topology Aware Hints has been disabled";
const NO_NODE_INFO: &str = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes";
const NO_ZONE: &str = "One or more endpoints do not have a zone specified";
const NO_HINTS: &str = "No hints allocated for zones";
const TOO_FEW: &str = "Insufficient number of endpoints";
const TOO_UNEVEN: &str =
    "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold";

/// How much more than its share an endpoint may have to bear.
const OVERLOAD: f64 = 0.2;
const MODES: &[&str] = &["service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"];
const NOT_COUNTED: &[&str] = &["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

/// Whether a service asks for these hints (`hintsEnabled`): the first annotation that is there decides.
pub(super) fn is_asked_for(service: &Service) -> bool {
    let mode = MODES.iter().find_map(|name| service.metadata.annotations.get(*name));
    mode.is_some_and(|mode| mode == "Auto" || mode == "auto")
}

/// Each zone's share of the CPUs of nodes that are ready; `None` if one of these does not say what it has or where it is, or if
/// all are in one zone (`SetNodes`).
fn shares(world: &World<'_>) -> Option<BTreeMap<String, f64>> {
    let mut milli: BTreeMap<String, i64> = BTreeMap::new();
    for node in world.list::<Node>(id::NODE, "") {
        let labels = &node.head().labels;
        if NOT_COUNTED.iter().any(|label| labels.get(label).is_some()) || !node.is_ready() {
            continue;
        }
        let zone = labels.get(ZONE).filter(|zone| !zone.is_empty())?;
        let cpu = node.status.allocatable.get("cpu").map(|cpu| cpu.milli()).filter(|cpu| *cpu != 0)?;
        *milli.entry(zone.to_owned()).or_default() += cpu;
    }
    let total = milli.values().sum::<i64>() as f64;
    let shares: BTreeMap<String, f64> = milli.into_iter().map(|(zone, cpu)| (zone, cpu as f64 / total)).collect();
    (shares.len() >= 2).then_some(shares)
}

/// How many endpoints a zone is to have.
struct Allocation {
    desired: f64,
    minimum: usize,
    maximum: usize,
}

/// `getAllocations`; or why there are none.
fn allocations(world: &World<'_>, endpoints: usize) -> Result<BTreeMap<String, Allocation>, String> {
    let shares = shares(world).ok_or(NO_NODE_INFO)?;
    let numbers = format!("({endpoints} endpoints, {} zones)", shares.len());
    if shares.len() > endpoints {
        return Err(format!("{TOO_FEW} {numbers}"));
    }
    let allocation = |share: f64| {
        let desired = share * endpoints as f64;
        let minimum = (desired * (1.0 / (1.0 + OVERLOAD))).ceil();
        Allocation { desired: desired.max(minimum), minimum: minimum as usize, maximum: 0 }
    };
    let mut out: BTreeMap<String, Allocation> = shares.into_iter().map(|(zone, s)| (zone, allocation(s))).collect();
    let least: usize = out.values().map(|a| a.minimum).sum();
    let Some(spare) = endpoints.checked_sub(least) else { return Err(format!("{TOO_UNEVEN} {numbers}")) };
    out.values_mut().for_each(|a| a.maximum = a.minimum + spare);
    Ok(out)
}

/// Gives the endpoints of these slices their zones; an error says why there are no hints (`AddHints`).
///
/// Slices that stay as they are keep their hints unless a zone has too many.
pub(super) fn assign(world: &World<'_>, drafts: &mut [Draft<'_>]) -> Result<(), String> {
    let ready = drafts.iter().flat_map(|d| &d.endpoints).filter(|e| is_ready(e)).count();
    let allocations = allocations(world, ready)?;
    let mut allocated: BTreeMap<String, usize> = BTreeMap::new();
    let mut open = Vec::new();
    for draft in drafts {
        let kept = if draft.changed { None } else { hints_of(draft, &allocated, &allocations) };
        match kept {
            Some(hints) => hints.into_iter().for_each(|(zone, n)| *allocated.entry(zone).or_default() += n),
            None => open.extend(draft.endpoints.iter_mut()),
        }
    }
    for endpoint in &mut open {
        endpoint.remove("hints");
        if is_ready(endpoint) {
            let zone = endpoint.str_at("zone").to_owned();
            if zone.is_empty() {
                return Err(NO_ZONE.into());
            }
            set_zone(endpoint, &zone);
            *allocated.entry(zone).or_default() += 1;
        }
    }
    redistribute(&mut open, moves(&allocations, &allocated));
    if allocated.is_empty() { Err(NO_HINTS.into()) } else { Ok(()) }
}

fn set_zone(endpoint: &mut Tree, zone: &str) {
    endpoint.insert("hints", tree!({"forZones": [{"name": (zone)}]}));
}

/// The number of hints by zone of a slice; `None` if they cannot stay (`getHintsByZone`).
fn hints_of(
    draft: &Draft<'_>,
    allocated: &BTreeMap<String, usize>,
    allocations: &BTreeMap<String, Allocation>,
) -> Option<BTreeMap<String, usize>> {
    let mut out: BTreeMap<String, usize> = BTreeMap::new();
    for endpoint in draft.endpoints.iter().filter(|e| is_ready(e)) {
        let zones = endpoint.list_at("hints.forZones");
        if zones.is_empty() {
            return None;
        }
        zones.iter().for_each(|zone| *out.entry(zone.str_at("name").to_owned()).or_default() += 1);
    }
    let fits = |(zone, n): (&String, &usize)| {
        let before = allocated.get(zone).copied().unwrap_or(0);
        allocations.get(zone).is_some_and(|a| before + n <= a.maximum)
    };
    out.iter().all(fits).then_some(out)
}

/// From which zone to which one endpoint each is to move (`getGivingAndReceivingZones`).
fn moves(allocations: &BTreeMap<String, Allocation>, allocated: &BTreeMap<String, usize>) -> Vec<(String, String)> {
    // Positive: what a zone has too many.
    let surplus = |(zone, a): (&String, &Allocation)| {
        (zone.clone(), allocated.get(zone).copied().unwrap_or(0) as f64 - a.desired)
    };
    let mut surplus: BTreeMap<String, f64> = allocations.iter().map(surplus).collect();
    let mut out = Vec::new();
    loop {
        let most = surplus.iter().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(a.0)));
        let least = surplus.iter().min_by(|a, b| a.1.total_cmp(b.1).then(a.0.cmp(b.0)));
        let (Some((from, give)), Some((to, take))) = (most, least) else { return out };
        let (give, take) = (*give, -*take);
        if give < 0.5 || take < 0.5 || (give < 1.0 && take < 1.0) {
            return out;
        }
        let (from, to) = (from.clone(), to.clone());
        surplus.insert(from.clone(), give - 1.0);
        surplus.insert(to.clone(), 1.0 - take);
        out.push((from, to));
    }
}

/// `redistributeHints`
fn redistribute(open: &mut [&mut Tree], mut moves: Vec<(String, String)>) {
    for endpoint in open.iter_mut().filter(|e| is_ready(e)) {
        let next = moves.iter().position(|(from, _)| from == endpoint.str_at("zone"));
        if let Some(next) = next {
            let (_, to) = moves.remove(next);
            set_zone(endpoint, &to);
        }
    }
}
