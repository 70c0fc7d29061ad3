//! EndpointSlices for Endpoints that somebody made by hand (`pkg/controller/endpointslicemirroring`): of services without a
//! selector.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use corten_kinds::id;
use corten_object::{Object, ObjectKey};
use corten_tree::{Tree, tree};
use corten_views::discovery::{EndpointAddress, EndpointPort, EndpointSubset};
use corten_views::{Endpoints, Service};

use crate::{Action, Changed, Controller, EventNote, Key, Plan, Typed, Watch, World, owners, status};

/// The controller.
pub struct EndpointSliceMirroring;

/// How many addresses of a subset are mirrored at most.
const ADDRESSES_MAX: usize = 1000;
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations of the Endpoints alone.
const OWN_ANNOTATIONS: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];

const WATCHES: &[Watch] = &[
    Watch::itself(id::ENDPOINTS),
    Watch::by(id::SERVICE, service_changed),
    Watch::by(id::ENDPOINT_SLICE, slice_changed),
];

fn service_changed(change: &Changed<'_>, out: &mut Vec<Key>) {
    let head = &change.object().head;
    out.push(ObjectKey::new(id::ENDPOINTS, &head.namespace, &head.name));
}

fn slice_changed(change: &Changed<'_>, out: &mut Vec<Key>) {
    let head = &change.object().head;
    if head.labels.get(MANAGED_BY) == Some(MANAGER) {
        out.extend(head.labels.get(SERVICE_NAME).map(|name| ObjectKey::new(id::ENDPOINTS, &head.namespace, name)));
    }
}

/// What one slice is to hold: the address family, the ports and the endpoints.
struct Wanted {
    family: &'static str,
    ports: Tree,
    endpoints: Vec<Tree>,
}

impl Controller for EndpointSliceMirroring {
    fn name(&self) -> &'static str {
        "endpointslicemirroring"
    }

    fn component(&self) -> &'static str {
        "endpoint-slice-mirroring-controller"
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let mine = |slice: &&Arc<Object>| {
            slice.head.labels.get(SERVICE_NAME) == Some(key.name.as_str())
                && slice.head.labels.get(MANAGED_BY) == Some(MANAGER)
                && !slice.head.is_deleting()
        };
        let slices: Vec<&Arc<Object>> = world.state.list_in(id::ENDPOINT_SLICE, &key.namespace).filter(mine).collect();
        let service = world.find::<Service>(id::SERVICE, &key.namespace, &key.name);
        let endpoints = world.get::<Endpoints>(key).filter(mirrored);
        let (Some(endpoints), Some(_)) = (endpoints, service.filter(|s| s.spec.selector.is_empty())) else {
            return Plan::of(slices.into_iter().map(|slice| Action::delete(slice)).collect());
        };
        let (wanted, notes) = wanted(&endpoints);
        let mut left: Vec<(&Arc<Object>, Tree)> = slices.into_iter().map(|slice| (slice, slice.to_tree())).collect();
        let mut actions = Vec::new();
        for want in &wanted {
            let fits = |(_, tree): &(&Arc<Object>, Tree)| {
                let none = Tree::List(Vec::new());
                tree.str_at("addressType") == want.family
                    && tree.path("ports").unwrap_or(&none).semantically_equal(&want.ports)
            };
            match left.iter().position(fits) {
                Some(at) => {
                    let (slice, before) = left.swap_remove(at);
                    actions.extend(update(&endpoints, want, slice, &before));
                }
                None if endpoints.head().is_deleting() => {}
                None => actions.push(create(world, &endpoints, want)),
            }
        }
        actions.extend(left.iter().map(|(slice, _)| Action::delete(slice)));
        // Said with a change of the mirror only, so that a settled one is silent.
        if let Some(first) = actions.pop() {
            actions.push(notes.into_iter().fold(first, Action::on_success));
        }
        Plan::of(actions)
    }
}

fn mirrored(endpoints: &Typed<Endpoints>) -> bool {
    endpoints.head().labels.get(SKIP) != Some("true") && !endpoints.metadata.annotations.contains_key(LEADER)
}

/// The slices that mirror all subsets, in a stable order, and what is to be said of addresses that are left out.
fn wanted(endpoints: &Typed<Endpoints>) -> (Vec<Wanted>, Vec<EventNote>) {
    let mut groups: BTreeMap<(&'static str, String), Wanted> = BTreeMap::new();
    let (mut invalid, mut skipped) = (0, 0);
    for subset in &endpoints.subsets {
        let ports = ports(subset);
        let ready = subset.addresses.iter().map(|a| (a, true));
        let all = ready.chain(subset.not_ready_addresses.iter().map(|a| (a, false)));
        let mut added = 0;
        for (address, ready) in all {
            let Ok(ip) = address.ip.parse::<IpAddr>() else {
                invalid += 1;
                continue;
            };
            if added == ADDRESSES_MAX {
                skipped += 1;
                continue;
            }
            added += 1;
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let group = groups.entry((family, ports.to_string()));
            let group = group.or_insert_with(|| Wanted { family, ports: ports.clone(), endpoints: Vec::new() });
            group.endpoints.push(endpoint(address, ip, ready));
        }
    }
    let mut notes = Vec::new();
    if invalid > 0 {
        let message = format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
        notes.push(EventNote::warning(&endpoints.object, "InvalidIPAddress", message));
    }
    if skipped > 0 {
        let message = format!(
            "A max of {ADDRESSES_MAX} addresses can be mirrored to EndpointSlices per Endpoints subset. {} addresses were \
             skipped",
            skipped + invalid
        );
        notes.push(EventNote::warning(&endpoints.object, "TooManyAddressesToMirror", message));
    }
    (groups.into_values().collect(), notes)
}

fn ports(subset: &EndpointSubset) -> Tree {
    let one = |port: &EndpointPort| {
        let mut out = tree!({"name": (port.name.clone().unwrap_or_default())});
        out.insert("protocol", port.protocol.as_deref().unwrap_or("TCP"));
        if let Some(number) = port.port {
            out.insert("port", i64::from(number));
        }
        if let Some(protocol) = &port.app_protocol {
            out.insert("appProtocol", protocol.as_str());
        }
        out
    };
    Tree::List(subset.ports.iter().map(one).collect())
}

/// `addressToEndpoint`
fn endpoint(address: &EndpointAddress, ip: IpAddr, ready: bool) -> Tree {
    let mut out = tree!({"addresses": [(ip.to_string())], "conditions": {"ready": (ready)}});
    if !address.hostname.is_empty() {
        out.insert("hostname", address.hostname.as_str());
    }
    if let Some(target) = &address.target_ref {
        let mut reference = Tree::map();
        let fields = [
            ("kind", &target.kind),
            ("namespace", &target.namespace),
            ("name", &target.name),
            ("uid", &target.uid),
            ("apiVersion", &target.api_version),
            ("resourceVersion", &target.resource_version),
            ("fieldPath", &target.field_path),
        ];
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            reference.insert(name, value.as_str());
        }
        out.insert("targetRef", reference);
    }
    if let Some(node) = &address.node_name {
        out.insert("nodeName", node.as_str());
    }
    out
}

fn labels(endpoints: &Typed<Endpoints>) -> Tree {
    let mut labels = Tree::map();
    for (key, value) in &endpoints.metadata.labels {
        labels.insert(key.clone(), value.as_str());
    }
    labels.insert(SERVICE_NAME, endpoints.name());
    labels.insert(MANAGED_BY, MANAGER);
    labels
}

fn annotations(endpoints: &Typed<Endpoints>) -> Tree {
    let mut annotations = Tree::map();
    for (key, value) in &endpoints.metadata.annotations {
        if !OWN_ANNOTATIONS.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.as_str());
        }
    }
    annotations
}

fn update(endpoints: &Typed<Endpoints>, want: &Wanted, slice: &Object, before: &Tree) -> Option<Action> {
    let mut patch = Tree::map();
    let wanted = Tree::List(want.endpoints.clone());
    if !before.path("endpoints").is_some_and(|e| e.semantically_equal(&wanted)) {
        patch.insert("endpoints", wanted);
    }
    for (path, wanted) in [("metadata.labels", labels(endpoints)), ("metadata.annotations", annotations(endpoints))] {
        if let Some(change) = status::diff(&before.path(path).cloned().unwrap_or_else(Tree::map), &wanted) {
            patch.set(path, change);
        }
    }
    patch.as_map().is_some_and(|p| !p.is_empty()).then(|| Action::patch(slice, patch))
}

fn create(world: &World<'_>, endpoints: &Typed<Endpoints>, want: &Wanted) -> Action {
    let prefix = format!("{}-", endpoints.name());
    let name = world.generate_name(&prefix);
    let mut body = tree!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": (prefix),
            "labels": (labels(endpoints)),
            "ownerReferences": [(owners::controller_reference(world, &endpoints.object))]
        },
        "addressType": (want.family),
        "endpoints": (want.endpoints.clone()),
        "ports": (want.ports.clone())
    });
    let annotations = annotations(endpoints);
    if annotations.as_map().is_some_and(|a| !a.is_empty()) {
        body.set("metadata.annotations", annotations);
    }
    let key = ObjectKey::new(id::ENDPOINT_SLICE, endpoints.namespace(), &name);
    Action::create(key, body).while_alive(&endpoints.object)
}
