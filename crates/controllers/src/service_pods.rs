//! What EndpointSlices and Endpoints have in common: a service's pods and their ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_base::{Istr, Timestamp};
use corten_kinds::id;
use corten_object::{Labels, Object, time};
use corten_tree::{Tree, tree};
use corten_views::{IntOrString, Pod, Service};

use crate::{Changed, Key, Typed, World};

/// A pod wakes the services that select it, before or after a change that endpoints show.
pub(crate) fn pod_changed(change: &Changed<'_>, out: &mut Vec<Key>) {
    let object = change.object();
    if let (Some(old), Some(new)) = (change.old, change.new)
        && old.head.labels == new.head.labels
        && face(old) == face(new)
    {
        return;
    }
    for service in change.state.list_in(id::SERVICE, &object.head.namespace) {
        let Some(view) = Typed::<Service>::read(service) else { continue };
        if [change.old, change.new].into_iter().flatten().any(|pod| selects(&view, &pod.head.labels)) {
            out.push(service.key());
        }
    }
}

/// What endpoints show of a pod.
type Face = (bool, bool, bool, Vec<String>, String, String, String);

fn face(pod: &Arc<Object>) -> Option<Face> {
    let p = Typed::<Pod>::read(pod)?;
    let ips = ips(&p);
    let spec = &p.spec;
    Some((
        p.is_ready(),
        p.is_terminal(),
        p.is_terminating(),
        ips,
        spec.node_name.clone(),
        spec.hostname.clone(),
        spec.subdomain.clone(),
    ))
}

/// Whether a service selects these labels; one without a selector selects nothing.
pub(crate) fn selects(service: &Service, labels: &Labels) -> bool {
    let selector = &service.spec.selector;
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value.as_str()))
}

/// All addresses of a pod.
pub(crate) fn ips(pod: &Pod) -> Vec<String> {
    let mut all: Vec<String> = pod.status.pod_ips.iter().map(|ip| ip.ip.clone()).collect();
    if all.is_empty() && !pod.status.pod_ip.is_empty() {
        all.push(pod.status.pod_ip.clone());
    }
    all
}

/// The pods that a service selects, by name.
pub(crate) fn pods_of(world: &World<'_>, service: &Typed<Service>) -> Vec<Typed<Pod>> {
    let selected = world.state.list_in(id::POD, service.namespace()).filter(|p| selects(service, &p.head.labels));
    selected.filter_map(Typed::<Pod>::read).collect()
}

/// Whether endpoints show a pod at all: it has an address and has not ended (`ShouldPodBeInEndpoints`).
pub(crate) fn is_listed(pod: &Pod) -> bool {
    !pod.is_terminal() && !ips(pod).is_empty()
}

/// The annotation that says when what caused the last change of endpoints happened.
pub(crate) const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// When a service and its pods changed last as far as endpoints show it; remembered, so that what changed since can be told
/// (`endpointslice/util/trigger_time_tracker.go`).
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct TriggerTimes {
    service: Option<Timestamp>,
    /// By name: since when a pod is ready, or is not.
    pods: BTreeMap<Istr, Timestamp>,
}

impl TriggerTimes {
    /// What to remember, and when the earliest of the changes since `known` happened, as the annotation says it; without any
    /// memory that is when the service was made, as for upstream's controllers after a start.
    pub fn observe(
        known: Option<&TriggerTimes>,
        service: &Typed<Service>,
        pods: &[Typed<Pod>],
    ) -> (TriggerTimes, Option<String>) {
        let since = |p: &Typed<Pod>| Some((p.head().name.clone(), p.ready_condition()?.last_transition_time?));
        let now = TriggerTimes { service: service.head().created, pods: pods.iter().filter_map(since).collect() };
        let trigger = match known {
            None => now.service,
            Some(known) => {
                let newer =
                    |(name, at): (&Istr, &Timestamp)| known.pods.get(name).is_none_or(|old| at > old).then_some(*at);
                now.pods.iter().filter_map(newer).chain(now.service.filter(|_| now.service > known.service)).min()
            }
        };
        (now, trigger.map(time::format))
    }
}

/// The ports of a service on a pod, as trees with name, port, protocol and appProtocol; those that the pod does not have are
/// left out (`FindPort`).
pub(crate) fn ports_on(service: &Service, pod: &Pod) -> Vec<Tree> {
    let port = |p: &corten_views::service::ServicePort| {
        let number = match &p.target_port {
            IntOrString::Int(0) => i64::from(p.port),
            IntOrString::Int(n) => *n,
            IntOrString::Text(name) => named_port(pod, name, &p.protocol)?,
        };
        let mut out = tree!({"name": (p.name.as_str()), "port": (number), "protocol": (p.protocol.as_str())});
        if let Some(app) = &p.app_protocol {
            out.insert("appProtocol", app.as_str());
        }
        Some(out)
    };
    service.spec.ports.iter().filter_map(port).collect()
}

fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i64> {
    let sidecars = pod.spec.init_containers.iter().filter(|c| c.is_sidecar());
    let ports = pod.spec.containers.iter().chain(sidecars).flat_map(|c| &c.ports);
    let same = |p: &&corten_views::container::ContainerPort| {
        p.name == name && (p.protocol == protocol || (p.protocol.is_empty() && protocol == "TCP"))
    };
    ports.into_iter().find(same).map(|p| i64::from(p.container_port))
}

/// The reference to a pod in an endpoint.
pub(crate) fn target_ref(pod: &Typed<Pod>) -> Tree {
    tree!({"kind": "Pod", "namespace": (pod.namespace()), "name": (pod.name()), "uid": (pod.uid())})
}

/// The hostname under which DNS knows the pod in this service; empty if it has none.
pub(crate) fn hostname<'p>(service: &Typed<Service>, pod: &'p Typed<Pod>) -> &'p str {
    if pod.spec.subdomain == service.name() { &pod.spec.hostname } else { "" }
}
