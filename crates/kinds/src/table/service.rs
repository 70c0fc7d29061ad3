//! Service.

use std::collections::BTreeSet;

use corten_tree::Tree;

use crate::defaults;
use crate::print;
use crate::spec::{Fact, Hooks, KindSpec, PROXY, Subresource};
use crate::{Column, Of, RowContext, TextOr, column, wide};

/// `v1 Service`
pub(crate) const SERVICE: KindSpec = KindSpec {
    kind: "Service",
    plural: "services",
    short: &["svc"],
    categories: &["all"],
    create_on_update: true,
    subresources: &[Subresource::connect("proxy", "ServiceProxyOptions", PROXY), Subresource::STATUS],
    columns: &[
        Column::NAME,
        column("Type", &TextOr("spec.type", "")),
        column("Cluster-IP", &Of(cluster_ip)),
        column("External-IP", &Of(external_ip)),
        column("Port(s)", &Of(ports)),
        Column::AGE,
        wide("Selector", &Of(|o, _| print::labels(o.map_at("spec.selector")))),
    ],
    facts: &[Fact::selectable("spec.clusterIP"), Fact::selectable("spec.type")],
    served_by: Some("net"),
    hooks: Hooks { default: Some(default), ..Hooks::NONE },
    ..KindSpec::NAMESPACED
};

fn cluster_ip(service: &Tree, _: &RowContext) -> Tree {
    Tree::from(service.list_at("spec.clusterIPs").first().and_then(Tree::as_str).unwrap_or("<none>"))
}

fn external_ip(service: &Tree, _: &RowContext) -> Tree {
    let external: Vec<&str> = service.list_at("spec.externalIPs").iter().filter_map(Tree::as_str).collect();
    Tree::from(match service.str_at("spec.type") {
        "ClusterIP" | "NodePort" if external.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => external.join(","),
        "LoadBalancer" => {
            let mut all = load_balancer_addresses(service);
            all.extend(external.into_iter().map(str::to_owned));
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => service.str_at("spec.externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    })
}

/// The addresses or host names of a load balancer's status, sorted.
pub(super) fn load_balancer_addresses(object: &Tree) -> Vec<String> {
    let address = |ingress: &Tree| {
        let ip = ingress.str_at("ip");
        if ip.is_empty() { ingress.str_at("hostname").to_owned() } else { ip.to_owned() }
    };
    let all: BTreeSet<String> = object.list_at("status.loadBalancer.ingress").iter().map(address).collect();
    all.into_iter().filter(|a| !a.is_empty()).collect()
}

fn ports(service: &Tree, _: &RowContext) -> Tree {
    let one = |port: &Tree| {
        let (number, protocol) = (port.i64_at("port").unwrap_or_default(), port.str_at("protocol"));
        match port.i64_at("nodePort") {
            Some(node) if node > 0 => format!("{number}:{node}/{protocol}"),
            _ => format!("{number}/{protocol}"),
        }
    };
    let all: Vec<String> = service.list_at("spec.ports").iter().map(one).collect();
    Tree::from(if all.is_empty() { "<none>".to_owned() } else { all.join(",") })
}

/// `SetDefaults_Service`.
fn default(service: &mut Tree) {
    defaults::at(service, "spec", |spec| {
        defaults::text(spec, "sessionAffinity", "None");
        match spec.str_at("sessionAffinity") {
            "None" => drop(spec.remove("sessionAffinityConfig")),
            "ClientIP" => defaults::value(spec, "sessionAffinityConfig.clientIP.timeoutSeconds", 10_800),
            _ => {}
        }
        defaults::text(spec, "type", "ClusterIP");
        defaults::each(spec, "ports", |port| {
            defaults::text(port, "protocol", "TCP");
            let unset = match port.path("targetPort") {
                None | Some(Tree::Int(0)) => true,
                Some(target) => target.as_str() == Some(""),
            };
            if unset {
                port.set("targetPort", port.i64_at("port"));
            }
        });
        let kind = spec.str_at("type").to_owned();
        let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer")
            || (kind == "ClusterIP" && !spec.list_at("externalIPs").is_empty());
        if external {
            defaults::text(spec, "externalTrafficPolicy", "Cluster");
        }
        if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
            spec.set_default("internalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            spec.set_default("allocateLoadBalancerNodePorts", true);
        }
    });
    if service.str_at("spec.type") == "LoadBalancer" {
        defaults::each(service, "status.loadBalancer.ingress", |ingress| {
            if !ingress.str_at("ip").is_empty() {
                ingress.set_default("ipMode", "VIP");
            }
        });
    }
}
