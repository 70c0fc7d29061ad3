//! EndpointSlices of services with a selector (`k8s.io/endpointslice/reconciler.go`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use corten_kinds::id;
use corten_object::{Object, ObjectKey};
use corten_tree::{Tree, tree};
use corten_views::{Node, Pod, Service};

use crate::service_pods::{hostname, ips, pod_changed, pods_of, ports_on, target_ref};
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

/// A node's zone stands in the endpoints on it.
fn node_changed(change: &Changed<'_>, out: &mut Vec<Key>) {
    let zone = |o: Option<&Arc<Object>>| o.and_then(|o| o.head.labels.get(ZONE).map(str::to_owned));
    if zone(change.old) != zone(change.new) {
        out.extend(change.state.list(id::SERVICE).map(|service| service.key()));
    }
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
        let slices: Vec<(Arc<Object>, Tree)> = slices.map(|slice| (slice.clone(), slice.to_tree())).collect();
        let pods = pods_of(world, &service);
        let families = families(&service);
        let mut actions = Vec::new();
        for family in &families {
            Family { world, service: &service, family }.reconcile(&pods, &slices, &mut actions);
        }
        let stale = slices.iter().filter(|(_, tree)| !families.contains(&tree.str_at("addressType")));
        actions.extend(stale.map(|(slice, _)| Action::delete(slice)));
        Plan::of(actions)
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

/// The slices of one address family.
struct Family<'f> {
    world: &'f World<'f>,
    service: &'f Typed<Service>,
    family: &'static str,
}

/// A slice as it is to become.
struct Draft<'d> {
    object: &'d Arc<Object>,
    before: &'d Tree,
    endpoints: Vec<Tree>,
}

impl Family<'_> {
    fn reconcile(&self, pods: &[Typed<Pod>], slices: &[(Arc<Object>, Tree)], actions: &mut Vec<Action>) {
        // Pods by their ports: named ports may differ from pod to pod.
        let mut wanted: BTreeMap<String, (Tree, Vec<Tree>)> = BTreeMap::new();
        for pod in pods {
            let Some(endpoint) = self.endpoint(pod) else { continue };
            let ports = Tree::List(ports_on(self.service, pod));
            wanted.entry(ports.to_string()).or_insert_with(|| (ports, Vec::new())).1.push(endpoint);
        }
        let own: Vec<_> = slices.iter().filter(|(_, tree)| tree.str_at("addressType") == self.family).collect();
        if wanted.is_empty() {
            // One slice without endpoints says that there are none.
            let ports = own.first().and_then(|(_, t)| t.path("ports").cloned()).unwrap_or(Tree::List(Vec::new()));
            wanted.insert(ports.to_string(), (ports, Vec::new()));
        }
        let mut used = Vec::new();
        for (ports, endpoints) in wanted.values() {
            let fits = |tree: &Tree| tree.path("ports").unwrap_or(&Tree::List(Vec::new())).semantically_equal(ports);
            let group: Vec<_> = own.iter().filter(|(_, tree)| fits(tree)).copied().collect();
            used.extend(group.iter().map(|(slice, _)| slice.head.uid.clone()));
            self.group(ports, endpoints, &group, actions);
        }
        let unused = own.iter().filter(|(slice, _)| !used.contains(&slice.head.uid));
        actions.extend(unused.map(|(slice, _)| Action::delete(slice)));
    }

    /// Endpoints stay in their slices where they can; the others fill the room that there is, then new slices.
    fn group(&self, ports: &Tree, endpoints: &[Tree], slices: &[&(Arc<Object>, Tree)], actions: &mut Vec<Action>) {
        let uid = |endpoint: &Tree| endpoint.str_at("targetRef.uid").to_owned();
        let mut new: HashMap<String, &Tree> = endpoints.iter().map(|e| (uid(e), e)).collect();
        let mut drafts: Vec<Draft<'_>> = Vec::new();
        for (object, before) in slices {
            let kept = before.list_at("endpoints").iter().filter_map(|old| new.remove(&uid(old)).cloned());
            drafts.push(Draft { object, before, endpoints: kept.collect() });
        }
        let mut rest: Vec<Tree> = endpoints.iter().filter(|e| new.contains_key(&uid(e))).cloned().collect();
        // The fullest first, so that few slices change.
        let mut order: Vec<usize> = (0..drafts.len()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(drafts[*i].endpoints.len()));
        for i in order {
            let room = ENDPOINTS_MAX - drafts[i].endpoints.len().min(ENDPOINTS_MAX);
            let take = rest.len().min(room);
            drafts[i].endpoints.extend(rest.drain(..take));
        }
        let all_empty = endpoints.is_empty();
        for (i, draft) in drafts.iter().enumerate() {
            if draft.endpoints.is_empty() && !(all_empty && i == 0) {
                actions.push(Action::delete(draft.object));
            } else {
                actions.extend(self.update(draft));
            }
        }
        if slices.is_empty() && rest.is_empty() {
            actions.push(self.create(ports, Vec::new()));
        }
        for chunk in rest.chunks(ENDPOINTS_MAX) {
            actions.push(self.create(ports, chunk.to_vec()));
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

    fn update(&self, draft: &Draft<'_>) -> Option<Action> {
        let mut patch = Tree::map();
        let endpoints = Tree::List(draft.endpoints.clone());
        let none = Tree::List(Vec::new());
        if !draft.before.path("endpoints").unwrap_or(&none).semantically_equal(&endpoints) {
            patch.insert("endpoints", endpoints);
        }
        let before = draft.before.path("metadata.labels").cloned().unwrap_or_default();
        if let Some(labels) = crate::status::diff(&before, &self.labels()) {
            patch.set("metadata.labels", labels);
        }
        patch.as_map().is_some_and(|p| !p.is_empty()).then(|| Action::patch(draft.object, patch))
    }

    fn create(&self, ports: &Tree, endpoints: Vec<Tree>) -> Action {
        let prefix = format!("{}-", self.service.name());
        let name = self.world.generate_name(&prefix);
        let body = tree!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "generateName": (prefix),
                "labels": (self.labels()),
                "ownerReferences": [(owners::controller_reference(self.world, &self.service.object))]
            },
            "addressType": (self.family),
            "endpoints": (endpoints),
            "ports": (ports.clone())
        });
        let key = ObjectKey::new(id::ENDPOINT_SLICE, self.service.namespace(), &name);
        let (namespace, service) = (self.service.namespace(), self.service.name());
        let failed = format!("Error updating Endpoint Slices for Service {namespace}/{service}: ");
        Action::create(key, body).while_alive(&self.service.object).on_failure(EventNote::warning(
            &self.service.object,
            "FailedToUpdateEndpointSlices",
            failed,
        ))
    }

    /// A pod as an endpoint of this family; `None` if it has no such address (`podToEndpoint`).
    fn endpoint(&self, pod: &Typed<Pod>) -> Option<Tree> {
        let v6 = self.family == "IPv6";
        let address = ips(pod).into_iter().find(|ip| ip.contains(':') == v6)?;
        let (serving, terminating) = (pod.is_ready(), pod.is_terminating());
        let ready = self.service.spec.publish_not_ready_addresses || (serving && !terminating);
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
            let node = self.world.find::<Node>(id::NODE, "", &pod.spec.node_name);
            let zone = node.as_ref().and_then(|n| n.head().labels.get(ZONE));
            if let Some(zone) = zone {
                out.insert("zone", zone);
            }
            if let Some(hints) = self.hints(zone, &pod.spec.node_name).filter(|_| ready) {
                out.insert("hints", hints);
            }
        }
        Some(out)
    }

    /// Whom an endpoint is for, by the service's traffic distribution.
    fn hints(&self, zone: Option<&str>, node: &str) -> Option<Tree> {
        let zones = zone.map(|zone| tree!([{"name": (zone)}]));
        match self.service.spec.traffic_distribution.as_deref()? {
            "PreferClose" | "PreferSameZone" => zones.map(|zones| tree!({"forZones": (zones)})),
            "PreferSameNode" => {
                let mut hints = tree!({"forNodes": [{"name": (node)}]});
                if let Some(zones) = zones {
                    hints.insert("forZones", zones);
                }
                Some(hints)
            }
            _ => None,
        }
    }
}
