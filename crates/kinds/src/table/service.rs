//! Service.

use std::collections::BTreeSet;

use corten_tree::Tree;

use crate::WriteContext;
use crate::defaults;
use crate::print;
use crate::spec::{Fact, Hooks, KindSpec, PROXY, Subresource};
use crate::validate::{Spot, names, service};
use crate::{Column, Of, RowContext, TextOr, column, wide};

/// `v1 Service`
pub(crate) const SERVICE: KindSpec = KindSpec {
    kind: "Service",
    returns_deleted: true,
    plural: "services",
    short: &["svc"],
    categories: &["all"],
    create_on_update: true,
    name_check: names::dns_label,
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
    counting: crate::quota::Counting::Evaluated(&crate::quota::SERVICES),
    served_by: Some("net"),
    hooks: Hooks {
        default: Some(default),
        prepare_create: Some(prepare_create),
        prepare_update: Some(prepare_update),
        validate: Some(service::validate),
        validate_update: Some(service::validate_update),
        validate_status: Some(service::validate_status),
        warnings: Some(warnings),
        ..Hooks::NONE
    },
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

/// `clusterIP` is the first of `clusterIPs`, and the other way round. (`apiservice.NormalizeClusterIPs` on create)
fn prepare_create(object: &mut Tree, _: &WriteContext) {
    defaults::at(object, "spec", |spec| match spec.str_at("clusterIP").to_owned() {
        ip if !ip.is_empty() && spec.list_at("clusterIPs").is_empty() => spec.set("clusterIPs", vec![ip]),
        _ => {}
    });
    no_internal_traffic(object);
}

/// A mere name has no traffic of its own. (`defaultOnReadInternalTrafficPolicy`)
fn no_internal_traffic(object: &mut Tree) {
    let named = object.str_at("spec.type") == "ExternalName";
    if named && matches!(object.str_at("spec.internalTrafficPolicy"), "Cluster" | "Local") {
        object.remove("spec.internalTrafficPolicy");
    }
}

/// A client that does not know the newer fields must not lose addresses and ports that were given to the service; what the
/// new type has no use for goes. (`patchAllocatedValues`, `dropTypeDependentFields`)
fn prepare_update(object: &mut Tree, old: &Tree, _: &WriteContext) {
    no_internal_traffic(object);
    let Some(before) = old.path("spec").cloned() else { return };
    defaults::at(object, "spec", |spec| {
        let (now, was) = (needs(spec), needs(&before));
        if now.cluster_ip && was.cluster_ip {
            keep_addresses(spec, &before);
        } else if was.cluster_ip && !now.cluster_ip {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if spec.path(field) == before.path(field) {
                    spec.remove(field);
                }
            }
        }
        if now.node_port && was.node_port {
            keep_node_ports(spec, &before);
        } else if was.node_port && !now.node_port && same_node_ports(spec, &before) {
            defaults::each(spec, "ports", |port| drop(port.remove("nodePort")));
        }
        for (field, used) in [
            ("healthCheckNodePort", now.health_check),
            ("allocateLoadBalancerNodePorts", now.load_balancer),
            ("loadBalancerClass", now.load_balancer),
            ("externalTrafficPolicy", now.external),
        ] {
            if !used && spec.path(field) == before.path(field) {
                spec.remove(field);
            }
        }
        if now.health_check
            && was.health_check
            && let Some(port) = before.path("healthCheckNodePort")
        {
            spec.set_default("healthCheckNodePort", port.clone());
        }
    });
}

/// What a service of this type has.
struct Needs {
    cluster_ip: bool,
    node_port: bool,
    health_check: bool,
    load_balancer: bool,
    external: bool,
}

fn needs(spec: &Tree) -> Needs {
    let kind = spec.str_at("type");
    let load_balancer = kind == "LoadBalancer";
    let node_port = kind == "NodePort"
        || (load_balancer && spec.path("allocateLoadBalancerNodePorts").and_then(Tree::as_bool) != Some(false));
    let external = matches!(kind, "NodePort" | "LoadBalancer") || !spec.list_at("externalIPs").is_empty();
    Needs {
        cluster_ip: matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer"),
        node_port,
        health_check: load_balancer && spec.str_at("externalTrafficPolicy") == "Local",
        load_balancer,
        external: external && kind != "ExternalName",
    }
}

fn keep_addresses(spec: &mut Tree, before: &Tree) {
    let (ip, ips) = (spec.str_at("clusterIP").to_owned(), spec.list_at("clusterIPs").to_vec());
    if ip.is_empty() && ips.is_empty() {
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = before.path(field) {
                spec.set(field, value.clone());
            }
        }
    } else if ips.is_empty() {
        let kept = if ip == before.str_at("clusterIP") { before.path("clusterIPs").cloned() } else { None };
        spec.set("clusterIPs", kept.unwrap_or_else(|| Tree::List(vec![Tree::from(ip)])));
    } else if ip.is_empty() {
        spec.set("clusterIP", ips[0].clone());
    } else if ip != before.str_at("clusterIP")
        && Some(ips.as_slice()) == before.path("clusterIPs").and_then(Tree::as_list)
    {
        // Only the old field was changed.
        spec.set("clusterIPs", vec![ip]);
    }
    for field in ["ipFamilies", "ipFamilyPolicy"] {
        if let Some(value) = before.path(field) {
            spec.set_default(field, value.clone());
        }
    }
}

/// Ports that were given to the same port and protocol stay, unless another port asks for them.
fn keep_node_ports(spec: &mut Tree, before: &Tree) {
    let asked: Vec<i64> = spec.list_at("ports").iter().filter_map(|p| p.i64_at("nodePort")).collect();
    defaults::each(spec, "ports", |port| {
        if port.i64_at("nodePort").unwrap_or_default() != 0 {
            return;
        }
        let same = |old: &&Tree| {
            old.i64_at("port") == port.i64_at("port") && old.str_at("protocol") == port.str_at("protocol")
        };
        let given = before.list_at("ports").iter().find(same).and_then(|old| old.i64_at("nodePort"));
        if let Some(number) = given.filter(|n| *n != 0 && !asked.contains(n)) {
            port.set("nodePort", number);
        }
    });
}

fn same_node_ports(spec: &Tree, before: &Tree) -> bool {
    let ports = |tree: &Tree| -> BTreeSet<i64> {
        tree.list_at("ports").iter().filter_map(|p| p.i64_at("nodePort")).filter(|n| *n != 0).collect()
    };
    ports(spec) == ports(before)
}

/// `pkg/api/service/warnings.go`
fn warnings(object: &Tree, _: Option<&Tree>) -> Vec<String> {
    let mut out = Vec::new();
    let Some(spec) = object.path("spec") else { return out };
    if object.map_at("metadata.annotations").contains(service::TOPOLOGY_HINTS) {
        out.push(format!(
            "annotation {} is deprecated, please use {} instead",
            service::TOPOLOGY_HINTS,
            service::TOPOLOGY_MODE
        ));
    }
    let spot = Spot::of(object, "spec");
    for ip in spot.items("clusterIPs") {
        crate::warnings::address(&ip.path, ip.str(""), &mut out);
    }
    let headless = matches!(spec.list_at("clusterIPs"), [one] if one.as_str() == Some("None"));
    let external_ips = !spec.list_at("externalIPs").is_empty();
    let named = spec.str_at("type") == "ExternalName";
    if headless {
        for (set, field) in [
            (!spec.str_at("loadBalancerIP").is_empty(), "loadBalancerIP"),
            (external_ips, "externalIPs"),
            (spec.str_at("sessionAffinity") != "None", "SessionAffinity"),
        ] {
            if set {
                out.push(format!("spec.{field} is ignored for headless services"));
            }
        }
    }
    for ip in spot.items("externalIPs") {
        crate::warnings::address(&ip.path, ip.str(""), &mut out);
    }
    if external_ips && !named && !headless {
        out.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".into());
    }
    if spot.has("loadBalancerIP") {
        crate::warnings::address(&spot.path.child("loadBalancerIP"), spot.str("loadBalancerIP"), &mut out);
    }
    for range in spot.items("loadBalancerSourceRanges") {
        crate::warnings::range(&range.path, range.str(""), &mut out);
    }
    if named && external_ips {
        out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".into());
    }
    if !named && !spec.str_at("externalName").is_empty() {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".into());
    }
    if spec.str_at("trafficDistribution") == "PreferClose" {
        out.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".into());
    }
    out
}
