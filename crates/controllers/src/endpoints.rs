//! Endpoints of services with a selector, for clients that do not know slices (`pkg/controller/endpoint`).

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_kinds::id;
use corten_object::{Object, ObjectKey};
use corten_tree::{Tree, tree};
use corten_views::{Pod, Service};

use crate::service_pods::{
    LAST_CHANGE, TriggerTimes, hostname, ips, is_listed, pod_changed, pods_of, ports_on, target_ref,
};
use crate::{Action, Changed, Controller, Key, Plan, Typed, Watch, World, status};

/// The controller.
pub struct EndpointsController;

/// How many addresses are named at most; the object says so if there are more.
const ADDRESSES_MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";

const WATCHES: &[Watch] =
    &[Watch::itself(id::SERVICE), Watch::by(id::POD, pod_changed), Watch::by(id::ENDPOINTS, endpoints_changed)];

fn endpoints_changed(change: &Changed<'_>, out: &mut Vec<Key>) {
    let head = &change.object().head;
    out.push(ObjectKey::new(id::SERVICE, &head.namespace, &head.name));
}

impl Controller for EndpointsController {
    fn name(&self) -> &'static str {
        "endpoint"
    }

    fn component(&self) -> &'static str {
        "endpoint-controller"
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let endpoints_key = ObjectKey::new(id::ENDPOINTS, &key.namespace, &key.name);
        let existing = world.state.get(&endpoints_key);
        let Some(service) = world.get::<Service>(key) else {
            // Endpoints that somebody else made stay.
            let own = existing.filter(|e| e.head.labels.get(MANAGED_BY) == Some(MANAGER) && !e.head.is_deleting());
            return Plan::of(own.map(|e| Action::delete(e)).into_iter().collect());
        };
        let managed = !service.spec.selector.is_empty() && service.spec.r#type != "ExternalName";
        if !managed || service.head().is_deleting() {
            return Plan::empty();
        }
        let pods = pods_of(world, &service);
        let (triggers, trigger) = TriggerTimes::observe(world.kept(), &service, &pods);
        let after = Desired::new(&service, &pods, trigger);
        let write = match existing {
            Some(existing) => after.update(existing),
            None => Some(after.create(endpoints_key, &service)),
        };
        Plan { keep: Some(Arc::new(triggers)), ..Plan::of(write.into_iter().collect()) }
    }
}

/// What a service's endpoints are to be.
struct Desired {
    subsets: Tree,
    labels: Tree,
    /// The annotations that are the controller's; null where there is to be none.
    annotations: [(&'static str, Tree); 2],
}

impl Desired {
    fn new(service: &Typed<Service>, pods: &[Typed<Pod>], trigger: Option<String>) -> Desired {
        let (subsets, over) = subsets(service, pods);
        let over = if over { Tree::from("truncated") } else { Tree::Null };
        let annotations = [(LAST_CHANGE, trigger.map_or(Tree::Null, Tree::from)), (OVER_CAPACITY, over)];
        Desired { subsets, labels: labels(service), annotations }
    }

    fn create(self, key: ObjectKey, service: &Typed<Service>) -> Action {
        let mut metadata = tree!({"labels": (self.labels)});
        for (name, value) in self.annotations.into_iter().filter(|(_, value)| !value.is_null()) {
            metadata.make_map_at("annotations").insert(name, value);
        }
        let body = tree!({"apiVersion": "v1", "kind": "Endpoints", "metadata": (metadata), "subsets": (self.subsets)});
        Action::create(key, body).while_alive(&service.object)
    }

    fn update(self, existing: &Arc<Object>) -> Option<Action> {
        let before = existing.to_tree();
        let had = |name: &str| before.at(&["metadata", "annotations", name]).unwrap_or(&Tree::Null);
        let mut patch = Tree::map();
        if !Tree::List(before.list_at("subsets").to_vec()).semantically_equal(&self.subsets) {
            patch.insert("subsets", self.subsets);
        }
        if let Some(labels) = status::diff(&before.path("metadata.labels").cloned().unwrap_or_default(), &self.labels) {
            patch.set("metadata.labels", labels);
        }
        let [_, (_, over)] = &self.annotations;
        // When something changed is no change by itself.
        if patch.fields().is_empty() && had(OVER_CAPACITY) == over {
            return None;
        }
        for (name, value) in self.annotations.into_iter().filter(|(name, value)| had(name) != value) {
            patch.make_map_at("metadata.annotations").insert(name, value);
        }
        Some(Action::patch(existing, patch))
    }
}

fn labels(service: &Typed<Service>) -> Tree {
    let mut labels = Tree::map();
    for (key, value) in &service.metadata.labels {
        labels.insert(key.clone(), value.as_str());
    }
    labels.insert(MANAGED_BY, MANAGER);
    if service.is_headless() {
        labels.insert(HEADLESS, "");
    } else {
        labels.make_map().remove(HEADLESS);
    }
    labels
}

/// Addresses by the ports they serve, in a stable order, and whether some had to be left out.
fn subsets(service: &Typed<Service>, pods: &[Typed<Pod>]) -> (Tree, bool) {
    let v6 = service.spec.ip_families.first().is_some_and(|f| f == "IPv6");
    let publish = service.spec.publish_not_ready_addresses;
    let mut groups: BTreeMap<String, (Tree, Vec<Tree>, Vec<Tree>)> = BTreeMap::new();
    let mut count = 0;
    for pod in pods.iter().filter(|p| is_listed(p)) {
        if pod.is_terminating() && !publish {
            continue;
        }
        let Some(ip) = ips(pod).into_iter().find(|ip| ip.contains(':') == v6) else { continue };
        count += 1;
        if count > ADDRESSES_MAX {
            continue;
        }
        let mut ports = ports_on(service, pod);
        for port in &mut ports {
            if port.str_at("name").is_empty() {
                port.remove("name");
            }
        }
        ports.sort_by_key(Tree::to_string);
        let ports = Tree::List(ports);
        let group = groups.entry(ports.to_string()).or_insert_with(|| (ports, Vec::new(), Vec::new()));
        let mut address = tree!({"ip": (ip)});
        let host = hostname(service, pod);
        if !host.is_empty() {
            address.insert("hostname", host);
        }
        if pod.is_scheduled() {
            address.insert("nodeName", pod.spec.node_name.as_str());
        }
        address.insert("targetRef", target_ref(pod));
        if pod.is_ready() || publish { group.1.push(address) } else { group.2.push(address) }
    }
    let subset = |(ports, mut ready, mut not_ready): (Tree, Vec<Tree>, Vec<Tree>)| {
        let mut out = Tree::map();
        for (field, list) in [("addresses", &mut ready), ("notReadyAddresses", &mut not_ready)] {
            if !list.is_empty() {
                list.sort_by(|a, b| a.str_at("ip").cmp(b.str_at("ip")));
                out.set(field, std::mem::take(list));
            }
        }
        if !ports.is_empty_value() {
            out.insert("ports", ports);
        }
        out
    };
    (Tree::List(groups.into_values().map(subset).collect()), count > ADDRESSES_MAX)
}
