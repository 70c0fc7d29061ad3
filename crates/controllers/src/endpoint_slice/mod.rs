//! EndpointSlices of services with a selector (`k8s.io/endpointslice/reconciler.go`).

mod topology;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use corten_kinds::id;
use corten_object::{Object, ObjectKey};
use corten_tree::{Tree, tree};
use corten_views::{Node, Pod, Service};

use crate::service_pods::{
    LAST_CHANGE, TriggerTimes, hostname, ips, is_listed, pod_changed, pods_of, ports_on, selects, target_ref,
};
use crate::{Action, Changed, Controller, EventNote, Key, Plan, Typed, Watch, World, owners};

/// The controller.
pub struct EndpointSliceController;

/// How many endpoints a slice holds at most.
const ENDPOINTS_MAX: usize = 100;
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";

const WATCHES: &[Watch] = &[
    Watch::itself(id::SERVICE),
    Watch::by(id::POD, pod_changed),
    Watch::by(id::ENDPOINT_SLICE, slice_changed),
    Watch::by(id::NODE, node_changed),
];

fn slice_changed(change: &Changed<'_>, out: &mut Vec<Key>) {
    let head = &change.object().head;
    if head.labels.get(MANAGED_BY) == Some(MANAGER) {
        out.extend(head.labels.get(SERVICE_NAME).map(|name| ObjectKey::new(id::SERVICE, &head.namespace, name)));
    }
}

/// A node's zone stands in the endpoints on it, and pods on no node at all are in none; zones share out the endpoints of services
/// that ask for it by what is ready in them.
fn node_changed(change: &Changed<'_>, out: &mut Vec<Key>) {
    let zone = |o: Option<&Arc<Object>>| o.map(|o| o.head.labels.get(ZONE).map(str::to_owned));
    let ready = |o: Option<&Arc<Object>>| o.and_then(Typed::<Node>::read).is_some_and(|node| node.is_ready());
    let moved = zone(change.old) != zone(change.new);
    if moved {
        for pod in change.state.by_index(id::POD, "spec.nodeName", &change.object().head.name) {
            let services = change.state.list_in(id::SERVICE, &pod.head.namespace);
            let services = services.filter_map(Typed::<Service>::read);
            out.extend(services.filter(|s| selects(s, &pod.head.labels)).map(|service| service.key()));
        }
    }
    if moved || ready(change.old) != ready(change.new) {
        let services = change.state.list(id::SERVICE).filter_map(Typed::<Service>::read);
        out.extend(services.filter(|s| topology::is_asked_for(s)).map(|service| service.key()));
    }
}

/// What is remembered of a service from one reconcile to the next.
#[derive(Default, Clone)]
struct Memory {
    triggers: TriggerTimes,
    /// By address type: what was said last about topology aware hints.
    told: BTreeMap<&'static str, String>,
}

impl Controller for EndpointSliceController {
    fn name(&self) -> &'static str {
        "endpointslice"
    }

    fn component(&self) -> &'static str {
        "endpoint-slice-controller"
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(service) = world.get::<Service>(key) else { return Plan::empty() };
        let managed = !service.spec.selector.is_empty() && service.spec.r#type != "ExternalName";
        if service.head().is_deleting() || !managed {
            return Plan::empty();
        }
        let mine = |slice: &&Arc<Object>| {
            slice.head.labels.get(SERVICE_NAME) == Some(service.name())
                && slice.head.labels.get(MANAGED_BY) == Some(MANAGER)
                && !slice.head.is_deleting()
        };
        let slices = world.state.list_in(id::ENDPOINT_SLICE, service.namespace()).filter(mine);
        let slices: Vec<Slice> = slices.map(|slice| (slice.clone(), slice.to_tree())).collect();
        let pods = pods_of(world, &service);
        let known = world.kept::<Memory>();
        let (triggers, trigger) = TriggerTimes::observe(known.map(|m| &m.triggers), &service, &pods);
        let mut memory = Memory { triggers, told: known.map(|m| m.told.clone()).unwrap_or_default() };
        let mut plan = Plan::empty();
        let mut actions = Vec::new();
        let families = families(&service);
        for family in &families {
            let family = Family { world, service: &service, family, trigger: trigger.as_deref() };
            plan.events.extend(family.reconcile(&pods, &slices, &mut memory, &mut actions));
        }
        let stale = slices.iter().filter(|(_, tree)| !families.contains(&tree.str_at("addressType")));
        actions.extend(stale.map(|(slice, _)| Action::delete(slice)));
        plan.stage(actions);
        plan.keep = Some(Arc::new(memory));
        plan
    }
}

fn families(service: &Service) -> Vec<&'static str> {
    let known = |family: &str| match family {
        "IPv4" => Some("IPv4"),
        "IPv6" => Some("IPv6"),
        _ => None,
    };
    let found: Vec<&'static str> = service.spec.ip_families.iter().filter_map(|f| known(f)).collect();
    if !found.is_empty() {
        return found;
    }
    if service.spec.cluster_ip.contains(':') { vec!["IPv6"] } else { vec!["IPv4"] }
}

/// A slice that is there.
type Slice = (Arc<Object>, Tree);

/// The slices of one address family.
struct Family<'f> {
    world: &'f World<'f>,
    service: &'f Typed<Service>,
    family: &'static str,
    /// When what is to be written was caused, if that is known.
    trigger: Option<&'f str>,
}

/// A slice as it is to become.
struct Draft<'d> {
    /// What it is now; `None` makes a new one.
    slice: Option<&'d Slice>,
    ports: Tree,
    endpoints: Vec<Tree>,
    /// Whether its endpoints (but for their hints) are others than now.
    changed: bool,
}

impl<'d> Draft<'d> {
    fn new(ports: &Tree, endpoints: Vec<Tree>) -> Draft<'d> {
        Draft { slice: None, ports: ports.clone(), endpoints, changed: true }
    }
}

fn is_ready(endpoint: &Tree) -> bool {
    endpoint.bool_at("conditions.ready")
}

/// What makes two endpoints the same one.
fn identity(endpoint: &Tree) -> &str {
    endpoint.str_at("targetRef.uid")
}

impl Family<'_> {
    /// The events about it; `reconcileByAddressType`.
    fn reconcile(
        &self,
        pods: &[Typed<Pod>],
        slices: &[Slice],
        memory: &mut Memory,
        actions: &mut Vec<Action>,
    ) -> Option<EventNote> {
        // Pods by their ports: named ports may differ from pod to pod.
        let mut wanted: BTreeMap<String, (Tree, Vec<Tree>)> = BTreeMap::new();
        for pod in pods.iter().filter(|p| is_listed(p)) {
            let Some(endpoint) = self.endpoint(pod) else { continue };
            let ports = Tree::List(ports_on(self.service, pod));
            wanted.entry(ports.to_string()).or_insert_with(|| (ports, Vec::new())).1.push(endpoint);
        }
        let mut rest: Vec<&Slice> = slices.iter().filter(|(_, t)| t.str_at("addressType") == self.family).collect();
        // Those of a service of the same name that was there before are not the service's own.
        let own = |slice: &Slice| slice.0.head.owners.iter().any(|o| *o.uid == *self.service.uid());
        let strangers = rest.extract_if(.., |slice| !own(slice));
        actions.extend(strangers.map(|(slice, _)| Action::delete(slice)));
        let (mut drafts, mut unused) = (Vec::new(), Vec::new());
        for (ports, endpoints) in wanted.into_values() {
            let none = Tree::List(Vec::new());
            let fits = |slice: &mut &Slice| slice.1.path("ports").unwrap_or(&none).semantically_equal(&ports);
            let group: Vec<&Slice> = rest.extract_if(.., fits).collect();
            place(&ports, &endpoints, group, &mut drafts, &mut unused);
        }
        unused.extend(rest);
        if drafts.is_empty() {
            // One slice without endpoints says that there are none.
            drafts.push(Draft::new(&Tree::List(Vec::new()), Vec::new()));
        }
        let event = self.add_hints(&mut drafts, memory);
        // What would be deleted becomes what would be made.
        for draft in drafts.iter_mut().filter(|d| d.slice.is_none()) {
            draft.slice = unused.pop();
        }
        actions.extend(unused.iter().map(|(slice, _)| Action::delete(slice)));
        actions.extend(drafts.into_iter().filter_map(|draft| self.write(draft)));
        event
    }

    /// Says whom each endpoint is for; the event is about hints by zones' CPUs, once for each change of what there is to say.
    fn add_hints(&self, drafts: &mut [Draft<'_>], memory: &mut Memory) -> Option<EventNote> {
        let told = memory.told.remove(self.family);
        let event = |message: &str, note: fn(&Arc<Object>, &'static str, String) -> EventNote, reason| {
            let text = format!("{message}, addressType: {}", self.family);
            (told.as_deref() != Some(message)).then(|| note(&self.service.object, reason, text))
        };
        let endpoints = |drafts: &mut [Draft<'_>], change: &dyn Fn(&mut Tree)| {
            drafts.iter_mut().flat_map(|d| &mut d.endpoints).for_each(change);
        };
        if topology::is_asked_for(self.service) {
            let assigned = topology::assign(self.world, drafts);
            if assigned.is_err() {
                endpoints(drafts, &|endpoint| drop(endpoint.remove("hints")));
            }
            let message = assigned.clone().err().unwrap_or_else(|| topology::ENABLED.into());
            let event = match assigned {
                Ok(()) => event(&message, EventNote::normal, "TopologyAwareHintsEnabled"),
                Err(_) => event(&message, EventNote::warning, "TopologyAwareHintsDisabled"),
            };
            memory.told.insert(self.family, message);
            return event;
        }
        endpoints(drafts, &|endpoint| self.distribute(endpoint));
        let was_on = told.as_deref() == Some(topology::ENABLED);
        was_on.then(|| event(topology::DISABLED, EventNote::warning, "TopologyAwareHintsDisabled")).flatten()
    }

    /// Whom an endpoint is for, by the service's traffic distribution (`k8s.io/endpointslice/trafficdist`).
    fn distribute(&self, endpoint: &mut Tree) {
        let with_nodes = match self.service.spec.traffic_distribution.as_deref() {
            Some("PreferClose" | "PreferSameZone") => false,
            Some("PreferSameNode") => true,
            _ => return drop(endpoint.remove("hints")),
        };
        if !is_ready(endpoint) {
            return;
        }
        let mut hints = Tree::map();
        for (field, from, is_on) in [("forNodes", "nodeName", with_nodes), ("forZones", "zone", true)] {
            let name = endpoint.str_at(from);
            if is_on && !name.is_empty() {
                hints.insert(field, tree!([{"name": (name)}]));
            }
        }
        if hints.fields().is_empty() {
            endpoint.remove("hints");
        } else {
            endpoint.insert("hints", hints);
        }
    }

    fn labels(&self) -> Tree {
        let mut labels = Tree::map();
        for (key, value) in &self.service.metadata.labels {
            if ![SERVICE_NAME, MANAGED_BY, HEADLESS].contains(&key.as_str()) {
                labels.insert(key.clone(), value.as_str());
            }
        }
        labels.insert(MANAGED_BY, MANAGER);
        labels.insert(SERVICE_NAME, self.service.name());
        if self.service.is_headless() {
            labels.insert(HEADLESS, "");
        }
        labels
    }

    /// The write that makes of a slice what it is to become, if it is not that already.
    fn write(&self, draft: Draft<'_>) -> Option<Action> {
        let Some((object, before)) = draft.slice else { return Some(self.create(draft)) };
        let mut patch = Tree::map();
        let none = Tree::List(Vec::new());
        for (field, after) in [("endpoints", Tree::List(draft.endpoints)), ("ports", draft.ports)] {
            if !before.path(field).unwrap_or(&none).semantically_equal(&after) {
                patch.insert(field, after);
            }
        }
        let labels = before.path("metadata.labels").cloned().unwrap_or_default();
        if let Some(labels) = crate::status::diff(&labels, &self.labels()) {
            patch.set("metadata.labels", labels);
        }
        if patch.fields().is_empty() {
            return None;
        }
        let had = before.at(&["metadata", "annotations", LAST_CHANGE]).map_or("", |at| at.as_str().unwrap_or_default());
        if had != self.trigger.unwrap_or_default() {
            patch.make_map_at("metadata.annotations").insert(LAST_CHANGE, self.trigger.map_or(Tree::Null, Tree::from));
        }
        Some(Action::patch(object, patch))
    }

    fn create(&self, draft: Draft<'_>) -> Action {
        let prefix = format!("{}-", self.service.name());
        let name = self.world.generate_name(&prefix);
        let mut body = tree!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "generateName": (prefix),
                "labels": (self.labels()),
                "ownerReferences": [(owners::controller_reference(self.world, &self.service.object))]
            },
            "addressType": (self.family),
            "endpoints": (draft.endpoints),
            "ports": (draft.ports)
        });
        if let Some(trigger) = self.trigger {
            body.make_map_at("metadata.annotations").insert(LAST_CHANGE, trigger);
        }
        let key = ObjectKey::new(id::ENDPOINT_SLICE, self.service.namespace(), &name);
        let (namespace, service) = (self.service.namespace(), self.service.name());
        let failed = format!("Error updating Endpoint Slices for Service {namespace}/{service}: ");
        Action::create(key, body).while_alive(&self.service.object).on_failure(EventNote::warning(
            &self.service.object,
            "FailedToUpdateEndpointSlices",
            failed,
        ))
    }

    /// A pod as an endpoint of this family, still without hints (`podToEndpoint`); `None` if it has no such address, or is on no
    /// node that is there.
    fn endpoint(&self, pod: &Typed<Pod>) -> Option<Tree> {
        let v6 = self.family == "IPv6";
        let address = ips(pod).into_iter().find(|ip| ip.contains(':') == v6)?;
        let publish = self.service.spec.publish_not_ready_addresses;
        let node = self.world.find::<Node>(id::NODE, "", &pod.spec.node_name);
        if node.is_none() && !publish {
            return None;
        }
        let (serving, terminating) = (pod.is_ready(), pod.is_terminating());
        let ready = publish || (serving && !terminating);
        let mut out = tree!({
            "addresses": [(address)],
            "conditions": {"ready": (ready), "serving": (serving), "terminating": (terminating)},
            "targetRef": (target_ref(pod))
        });
        let host = hostname(self.service, pod);
        if !host.is_empty() {
            out.insert("hostname", host);
        }
        if pod.is_scheduled() {
            out.insert("nodeName", pod.spec.node_name.as_str());
        }
        if let Some(zone) = node.as_ref().and_then(|n| n.head().labels.get(ZONE)).filter(|zone| !zone.is_empty()) {
            out.insert("zone", zone);
        }
        Some(out)
    }
}

/// Puts the endpoints of some ports into slices with these ports: they stay where they are; the others fill the slices that
/// change anyway, the fullest first, then a single one in which they have room, then new ones (`reconcileByPortMapping`).
fn place<'d>(
    ports: &Tree,
    endpoints: &[Tree],
    slices: Vec<&'d Slice>,
    drafts: &mut Vec<Draft<'d>>,
    unused: &mut Vec<&'d Slice>,
) {
    let mut new: HashMap<&str, &Tree> = endpoints.iter().map(|e| (identity(e), e)).collect();
    let mut placed: Vec<Draft<'d>> = Vec::new();
    for slice in slices {
        let old = slice.1.list_at("endpoints");
        let kept: Vec<(&Tree, &Tree)> = old.iter().filter_map(|e| Some((e, new.remove(identity(e))?))).collect();
        let changed = kept.len() < old.len() || kept.iter().any(|(old, new)| !same_but_hints(old, new));
        if changed && kept.is_empty() {
            unused.push(slice);
            continue;
        }
        // Endpoints that stay keep the hints that they have.
        let endpoints = kept.into_iter().map(|(old, new)| if changed { new.clone() } else { old.clone() });
        placed.push(Draft { slice: Some(slice), ports: ports.clone(), endpoints: endpoints.collect(), changed });
    }
    let mut rest: Vec<Tree> = endpoints.iter().filter(|e| new.contains_key(identity(e))).cloned().collect();
    let mut changing: Vec<&mut Draft<'d>> = placed.iter_mut().filter(|d| d.changed).collect();
    changing.sort_by_key(|draft| Reverse(draft.endpoints.len()));
    for draft in changing {
        let room = ENDPOINTS_MAX.saturating_sub(draft.endpoints.len());
        draft.endpoints.extend(rest.drain(..rest.len().min(room)));
    }
    while !rest.is_empty() {
        let fits = |d: &&mut Draft<'d>| !d.changed && d.endpoints.len() + rest.len() <= ENDPOINTS_MAX;
        match placed.iter_mut().filter(fits).max_by_key(|d| d.endpoints.len()) {
            Some(draft) => {
                draft.endpoints.append(&mut rest);
                draft.changed = true;
            }
            None => placed.push(Draft::new(ports, rest.drain(..rest.len().min(ENDPOINTS_MAX)).collect())),
        }
    }
    drafts.append(&mut placed);
}

/// Whether an endpoint is as it was, whomever it is for.
fn same_but_hints(old: &Tree, new: &Tree) -> bool {
    if old.get("hints").is_none() {
        return old.semantically_equal(new);
    }
    let mut old = old.clone();
    old.remove("hints");
    old.semantically_equal(new)
}
