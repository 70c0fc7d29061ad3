//! From a Service to an address (`apiserver/pkg/util/proxy/proxy.go`, `ResolveEndpoint`, `ResolveCluster`).

use std::net::{IpAddr, SocketAddr};

use corten_cache::Objects;
use corten_kinds::id;
use corten_tree::Tree;

/// The label of EndpointSlices that names their Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// An address of a Service's port, as `host:port`: that of a ready endpoint, chosen by `chance`; the cluster IP if there is no
/// selector that could find any; the outer name of an ExternalName.
///
/// # Errors
/// Upstream's words if there is no such Service, port or address.
pub fn resolve(objects: &Objects, namespace: &str, name: &str, port: u16, chance: u64) -> Result<String, String> {
    let service = objects.find(id::SERVICE, namespace, name).ok_or_else(|| format!("service {name:?} not found"))?;
    let service = service.to_tree();
    match service.str_at("spec.type") {
        "" | "ClusterIP" | "NodePort" | "LoadBalancer" => {}
        "ExternalName" => return Ok(format!("{}:{port}", service.str_at("spec.externalName"))),
        other => return Err(format!("unsupported service type {other:?}")),
    }
    let wanted = service.list_at("spec.ports").iter().find(|p| p.i64_at("port") == Some(port.into()));
    let wanted = wanted.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let wanted = Wanted { namespace, name, port_name: wanted.str_at("name"), chance };
    if let Some(address) = endpoint(objects, &wanted, |_| true) {
        return Ok(address.to_string());
    }
    // Without a selector the endpoints may be anyone's business; the proxy knows.
    let cluster_ip = service.str_at("spec.clusterIP").parse::<IpAddr>();
    match (service.map_at("spec.selector").is_empty(), cluster_ip) {
        (true, Ok(ip)) => Ok(SocketAddr::new(ip, port).to_string()),
        _ => Err(format!("no endpoints available for service {name:?}")),
    }
}

/// Which of a Service's endpoints is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'w> {
    /// The Service's namespace.
    pub namespace: &'w str,
    /// Its name.
    pub name: &'w str,
    /// The name of its port, empty if it has none.
    pub port_name: &'w str,
    /// Which of several it becomes.
    pub chance: u64,
}

/// A ready endpoint of a Service that is taken, too, if there is one (`RandomEndpoint`).
pub fn endpoint(objects: &Objects, wanted: &Wanted<'_>, takes: impl Fn(&Tree) -> bool) -> Option<SocketAddr> {
    let mut found = Vec::new();
    for slice in objects.list_in(id::ENDPOINT_SLICE, wanted.namespace) {
        if slice.head.labels.get(SERVICE_NAME) == Some(wanted.name) {
            ready(&slice.to_tree(), wanted.port_name, &takes, &mut found);
        }
    }
    let at = wanted.chance.checked_rem(found.len() as u64)?;
    found.get(at as usize).copied()
}

fn ready(slice: &Tree, port_name: &str, takes: &impl Fn(&Tree) -> bool, found: &mut Vec<SocketAddr>) {
    let port = slice.list_at("ports").iter().find(|p| p.str_at("name") == port_name);
    let Some(port) = port.and_then(|p| p.i64_at("port")).and_then(|p| u16::try_from(p).ok()) else { return };
    for endpoint in slice.list_at("endpoints") {
        let ready = endpoint.path("conditions.ready").and_then(Tree::as_bool).unwrap_or(true);
        let ip = endpoint.list_at("addresses").first().and_then(Tree::as_str).and_then(|a| a.parse().ok());
        if let (true, Some(ip)) = (ready && takes(endpoint), ip) {
            found.push(SocketAddr::new(ip, port));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use corten_base::Revision;
    use corten_kinds::Registry;
    use corten_object::Object;
    use corten_tree::tree;

    use super::*;

    fn world(objects: &[Tree]) -> Objects {
        let registry = Arc::new(Registry::builtin());
        let mut world = Objects::new(registry.clone());
        for tree in objects {
            let kind = registry.gvk(tree.str_at("apiVersion"), tree.str_at("kind")).unwrap();
            let object = Object::parse(kind.id, tree.to_json().into(), Revision(1), &kind.fact_paths).unwrap();
            world.put(Arc::new(object));
        }
        world
    }

    #[test]
    fn webhook_services_resolve_to_ready_endpoints_of_the_port() {
        let service = tree!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "n"}, "spec": {
            "type": "ClusterIP", "clusterIP": "10.43.0.9", "selector": {"a": "b"},
            "ports": [{"name": "https", "port": 443}, {"name": "other", "port": 444}]}});
        let slice = tree!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "s-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "s"}},
            "ports": [{"name": "https", "port": 8443}],
            "endpoints": [{"addresses": ["10.42.0.3"], "conditions": {"ready": false}}, {"addresses": ["10.42.0.4"]}]});
        let full = world(&[service.clone(), slice]);
        assert_eq!(resolve(&full, "n", "s", 443, 7).unwrap().to_string(), "10.42.0.4:8443");
        assert_eq!(resolve(&full, "n", "s", 444, 0).unwrap_err(), "no endpoints available for service \"s\"");
        assert_eq!(resolve(&full, "n", "s", 1, 0).unwrap_err(), "no service port 1 found for service \"s\"");
        assert_eq!(resolve(&full, "n", "t", 443, 0).unwrap_err(), "service \"t\" not found");
        let mut plain = service.clone();
        plain.remove("spec.selector");
        let plain = world(&[plain]);
        assert_eq!(resolve(&plain, "n", "s", 443, 0).unwrap().to_string(), "10.43.0.9:443");
        let mut external = service;
        external.set("spec.type", "ExternalName");
        external.set("spec.externalName", "a.example");
        let external = world(&[external]);
        assert_eq!(resolve(&external, "n", "s", 443, 0).unwrap(), "a.example:443");
    }
}
