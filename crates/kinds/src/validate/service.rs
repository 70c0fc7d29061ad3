//! Services. (`validateService` in `pkg/apis/core/validation/validation.go`)

use std::collections::HashSet;
use std::net::IpAddr;

use corten_tree::{Tree, tree};

use super::probe::port_or_name;
use super::{Spot, labels, names};
use crate::Errors;

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
/// The longest session affinity: a day.
const AFFINITY_SECONDS_MAX: i64 = 86_400;

fn is_headless(spec: &Spot<'_>) -> bool {
    matches!(spec.list("clusterIPs"), [one] if one.as_str() == Some("None"))
}

/// Whether clients outside the cluster may reach the service.
fn externally_accessible(spec: &Spot<'_>) -> bool {
    match spec.str("type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !spec.list("externalIPs").is_empty(),
        _ => false,
    }
}

/// Finds the faults of a service.
pub(crate) fn validate(service: &Tree, errors: &mut Errors) {
    let spec = Spot::of(service, "spec");
    let kind = spec.str("type");
    let headless = is_headless(&spec);
    topology_mode(service, errors);
    if spec.list("ports").is_empty() && !headless && kind != "ExternalName" {
        spec.required("ports", "", errors);
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let first = &spec.items("clusterIPs")[0];
            first.invalid("", format!("may not be set to 'None' for {kind} services"), errors);
        }
        "ExternalName" => external_name(&spec, errors),
        _ => {}
    }
    let mut seen = HashSet::new();
    let several = spec.list("ports").len() > 1;
    for port in spec.items("ports") {
        service_port(&port, several, &mut seen, errors);
    }
    labels::validate_labels(&spec.child("selector"), errors);
    affinity(&spec, errors);
    if kind != "ExternalName" {
        addresses(&spec, errors);
    }
    for ip in spec.items("externalIPs") {
        let faults = names::ip(ip.str(""));
        if faults.is_empty() {
            endpoint_ip(&ip, "", errors);
        }
        ip.each("", faults, errors);
    }
    spec.one_of("type", TYPES, errors);
    ports(&spec, errors);
    load_balancer(service, &spec, errors);
    traffic(&spec, errors);
}

/// The old and the new annotation for topology must agree.
fn topology_mode(service: &Tree, errors: &mut Errors) {
    let annotations = Spot::of(service, "metadata.annotations");
    let (old, new) = (annotations.map("").get(TOPOLOGY_HINTS), annotations.map("").get(TOPOLOGY_MODE));
    if let (Some(old), Some(new)) = (old, new)
        && old != new
    {
        let detail = format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified");
        Spot::at(new, annotations.path.key(TOPOLOGY_MODE)).invalid("", detail, errors);
    }
}

pub(crate) const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
pub(crate) const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";

fn external_name(spec: &Spot<'_>, errors: &mut Errors) {
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if spec.has(field) && !spec.child(field).tree.is_empty_value() {
            spec.forbidden(field, "may not be set for ExternalName services", errors);
        }
    }
    let name = spec.str("externalName");
    match name.strip_suffix('.').unwrap_or(name) {
        "" => spec.required("externalName", "", errors),
        name => {
            for message in names::dns_subdomain(name) {
                spec.invalid_as("externalName", name, message, errors);
            }
        }
    }
}

fn service_port<'t>(port: &Spot<'t>, name_needed: bool, seen: &mut HashSet<&'t str>, errors: &mut Errors) {
    match port.str("name") {
        "" if name_needed => port.required("name", "", errors),
        "" => {}
        name => {
            port.each("name", names::dns_label(name), errors);
            if !seen.insert(name) {
                port.duplicate("name", errors);
            }
        }
    }
    let number = port.int("port").unwrap_or_default();
    for message in names::port_number(number) {
        port.invalid_as("port", number, message, errors);
    }
    port.one_of("protocol", &["SCTP", "TCP", "UDP"], errors);
    port_or_name(port, "targetPort", errors);
    if port.has("appProtocol") {
        port.each("appProtocol", names::label_key(port.str("appProtocol")), errors);
    }
}

fn affinity(spec: &Spot<'_>, errors: &mut Errors) {
    spec.one_of("sessionAffinity", &["ClientIP", "None"], errors);
    match spec.str("sessionAffinity") {
        "ClientIP" => {
            let detail = "when session affinity type is ClientIP";
            for field in [
                "sessionAffinityConfig",
                "sessionAffinityConfig.clientIP",
                "sessionAffinityConfig.clientIP.timeoutSeconds",
            ] {
                if !spec.has(field) {
                    spec.required(field, detail, errors);
                    return;
                }
            }
            let field = "sessionAffinityConfig.clientIP.timeoutSeconds";
            if spec.int(field).is_some_and(|s| s <= 0 || s > AFFINITY_SECONDS_MAX) {
                let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
                spec.invalid(field, detail, errors);
            }
        }
        "None" if spec.has("sessionAffinityConfig") => {
            let detail = "must not be set when session affinity is None";
            spec.forbidden("sessionAffinityConfig", detail, errors);
        }
        _ => {}
    }
}

/// The faults of a Service's addresses and address families: found before addresses are given out, too.
pub fn address_faults(service: &Tree) -> Errors {
    let mut errors = Errors::new();
    let spec = Spot::of(service, "spec");
    if spec.str("type") != "ExternalName" {
        addresses(&spec, &mut errors);
    }
    errors
}

/// `ValidateServiceClusterIPsRelatedFields`
fn addresses(spec: &Spot<'_>, errors: &mut Errors) {
    let ips = spec.list("clusterIPs");
    match (spec.str("clusterIP"), ips.first().and_then(Tree::as_str)) {
        ("", Some(_)) => spec.invalid("clusterIPs", "must be empty when `clusterIP` is not specified", errors),
        ("", None) => {}
        (_, None) => spec.required("clusterIPs", "", errors),
        (ip, Some(first)) if ip != first => {
            spec.invalid("clusterIPs", "first value must match `clusterIP`", errors);
        }
        _ => {}
    }
    let mut seen = HashSet::new();
    for family in spec.items("ipFamilies") {
        if !matches!(family.str(""), "IPv4" | "IPv6") {
            family.unsupported("", &["IPv4", "IPv6"], errors);
        }
        if !seen.insert(family.str("")) {
            family.duplicate("", errors);
        }
    }
    spec.optional_one_of("ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"], errors);
    let before = errors.len();
    for (i, ip) in spec.items("clusterIPs").iter().enumerate() {
        if i == 0 && ip.str("") == "None" {
            if ips.len() > 1 {
                spec.invalid("clusterIPs", "'None' must be the first and only value", errors);
            }
            continue;
        }
        ip.each("", names::ip(ip.str("")), errors);
    }
    let malformed = errors.len() > before;
    if ips.len() > 2 {
        spec.invalid("clusterIPs", "may only hold up to 2 values", errors);
    }
    if malformed || is_headless(spec) {
        return;
    }
    let is_v6 = |ip: &Tree| matches!(ip.as_str().unwrap_or_default().parse(), Ok(IpAddr::V6(_)));
    if ips.len() == 2 && is_v6(&ips[0]) == is_v6(&ips[1]) {
        spec.invalid("clusterIPs", "may specify no more than one IP for each IP family", errors);
    }
    for (i, (ip, family)) in spec.items("clusterIPs").iter().zip(spec.list("ipFamilies")).enumerate() {
        let expected = family.as_str().unwrap_or_default();
        let actual = if is_v6(ip.tree) { "IPv6" } else { "IPv4" };
        if matches!(expected, "IPv4" | "IPv6") && expected != actual {
            ip.invalid("", format!("expected an {expected} value as indicated by `ipFamilies[{i}]`"), errors);
        }
    }
}

/// `ValidateEndpointIP`: an address that traffic can go to.
pub(crate) fn endpoint_ip(spot: &Spot<'_>, field: &str, errors: &mut Errors) {
    let text = spot.str(field);
    // Go's lenient parser reads octets with leading zeros as decimal.
    let Ok(ip) = names::without_leading_zeros(text).parse::<IpAddr>() else {
        spot.invalid(field, "must be a valid IP address", errors);
        return;
    };
    if ip.is_unspecified() {
        spot.invalid(field, format!("may not be unspecified ({text})"), errors);
    }
    if ip.is_loopback() {
        spot.invalid(field, "may not be in the loopback range (127.0.0.0/8, ::1/128)", errors);
    }
    let (link_local, multicast) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local {
        spot.invalid(field, "may not be in the link-local range (169.254.0.0/16, fe80::/10)", errors);
    }
    if multicast {
        spot.invalid(field, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)", errors);
    }
}

fn ports(spec: &Spot<'_>, errors: &mut Errors) {
    let all = spec.items("ports");
    let (mut node_ports, mut numbers) = (HashSet::new(), HashSet::new());
    for port in &all {
        let node_port = port.int("nodePort").unwrap_or_default();
        if node_port != 0 && spec.str("type") == "ClusterIP" {
            port.forbidden("nodePort", "may not be used when `type` is 'ClusterIP'", errors);
        }
        if node_port != 0 && !node_ports.insert((port.str("protocol"), node_port)) {
            port.duplicate("nodePort", errors);
        }
    }
    for port in &all {
        let number = port.int("port").unwrap_or_default();
        if !numbers.insert((port.str("protocol"), number)) {
            // Upstream shows the key that it compares: an otherwise empty port.
            let key = tree!({"Name": "", "Protocol": (port.str("protocol")), "AppProtocol": null, "Port": number,
                "TargetPort": 0, "NodePort": 0});
            errors.push(corten_object::FieldError::duplicate(&port.path, &key).as_shown());
        }
    }
}

const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";

fn load_balancer(service: &Tree, spec: &Spot<'_>, errors: &mut Errors) {
    let is_one = spec.str("type") == "LoadBalancer";
    let ranges = spec.items("loadBalancerSourceRanges");
    // The capital letter is upstream's.
    let path = spec.path.child("LoadBalancerSourceRanges");
    if !ranges.is_empty() && !is_one {
        Spot::at(service, path.clone()).forbidden("", ONLY_LOAD_BALANCER, errors);
    }
    for (i, range) in ranges.iter().enumerate() {
        let text = Tree::from(range.str("").trim());
        Spot::at(&text, path.index(i)).each("", names::cidr(range.str("").trim()), errors);
    }
    let annotations = Spot::of(service, "metadata.annotations");
    if let Some(value) = annotations.map("").get(SOURCE_RANGES).filter(|_| ranges.is_empty()) {
        let at = Spot::at(value, annotations.path.key(SOURCE_RANGES));
        if !is_one {
            at.forbidden("", ONLY_LOAD_BALANCER, errors);
        }
        for range in at.str("").split(',').map(str::trim).filter(|_| !at.str("").trim().is_empty()) {
            for message in names::cidr(range) {
                at.invalid_as("", range, message, errors);
            }
        }
    }
    if spec.has("allocateLoadBalancerNodePorts") && !is_one {
        spec.forbidden("allocateLoadBalancerNodePorts", ONLY_LOAD_BALANCER, errors);
    }
    if spec.has("loadBalancerClass") {
        if is_one {
            spec.each("loadBalancerClass", names::label_key(spec.str("loadBalancerClass")), errors);
        } else {
            spec.forbidden("loadBalancerClass", ONLY_LOAD_BALANCER, errors);
        }
    }
}

const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

fn traffic(spec: &Spot<'_>, errors: &mut Errors) {
    if externally_accessible(spec) {
        spec.one_of("externalTrafficPolicy", &["Cluster", "Local"], errors);
    } else if !spec.str("externalTrafficPolicy").is_empty() {
        let detail = "may only be set for externally-accessible services";
        spec.invalid("externalTrafficPolicy", detail, errors);
    }
    let checks_health = spec.str("type") == "LoadBalancer" && spec.str("externalTrafficPolicy") == "Local";
    let port = spec.int("healthCheckNodePort").unwrap_or_default();
    if !checks_health && port != 0 {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        spec.invalid("healthCheckNodePort", detail, errors);
    } else if checks_health {
        match port {
            0 => spec.required("healthCheckNodePort", "", errors),
            port => spec.each("healthCheckNodePort", names::port_number(port), errors),
        }
    }
    if !spec.has("internalTrafficPolicy") && matches!(spec.str("type"), "ClusterIP" | "NodePort" | "LoadBalancer") {
        spec.required("internalTrafficPolicy", "", errors);
    }
    spec.optional_one_of("internalTrafficPolicy", &["Cluster", "Local"], errors);
    let distributions = &["PreferClose", "PreferSameZone", "PreferSameNode"];
    spec.optional_one_of("trafficDistribution", distributions, errors);
}

/// Finds the faults of a change: addresses and families of a service stay, but for the second ones.
pub(crate) fn validate_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    let (spec, before) = (Spot::of(new, "spec"), Spot::of(old, "spec"));
    let named = |spot: &Spot<'_>| spot.str("type") == "ExternalName";
    if !named(&spec) && !named(&before) {
        let headless = (is_headless(&spec), is_headless(&before));
        if headless != (true, true) {
            stays(&spec, &before, "clusterIPs", "clusterIP", errors);
        }
        if headless == (false, false) {
            stays(&spec, &before, "ipFamilies", "ipFamily", errors);
        }
    }
    let balanced = |spot: &Spot<'_>| spot.str("type") == "LoadBalancer";
    if balanced(&spec)
        && balanced(&before)
        && spec.child("loadBalancerClass").tree != before.child("loadBalancerClass").tree
    {
        spec.invalid("loadBalancerClass", "may not change once set", errors);
    }
    let checks = |spot: &Spot<'_>| balanced(spot) && spot.str("externalTrafficPolicy") == "Local";
    if checks(&spec) && checks(&before) && spec.int("healthCheckNodePort") != before.int("healthCheckNodePort") {
        spec.forbidden("healthCheckNodePort", "field is immutable", errors);
    }
}

/// Finds the faults of a changed status. (`ValidateLoadBalancerStatus`)
pub(crate) fn validate_status(new: &Tree, old: &Tree, errors: &mut Errors) {
    let balancer = Spot::of(new, "status.loadBalancer");
    if new.str_at("spec.type") != "LoadBalancer" && !balancer.list("ingress").is_empty() {
        balancer.forbidden("ingress", "may only be used when `spec.type` is 'LoadBalancer'", errors);
        return;
    }
    for ingress in balancer.items("ingress") {
        let (ip, host) = (ingress.str("ip"), ingress.str("hostname"));
        let known = old.list_at("status.loadBalancer.ingress").iter().any(|i| i.str_at("ip") == ip);
        if !ip.is_empty() && !known {
            ingress.each("ip", names::ip(ip), errors);
        }
        match (ingress.has("ipMode"), ip.is_empty()) {
            (false, false) => ingress.required("ipMode", "must be specified when `ip` is set", errors),
            (true, true) => ingress.forbidden("ipMode", "may not be specified when `ip` is not set", errors),
            _ => ingress.optional_one_of("ipMode", &["Proxy", "VIP"], errors),
        }
        if !host.is_empty() {
            ingress.each("hostname", names::dns_subdomain(host), errors);
            if host.parse::<IpAddr>().is_ok() {
                ingress.invalid("hostname", "must be a DNS name, not an IP address", errors);
            }
        }
    }
}

fn stays(spec: &Spot<'_>, before: &Spot<'_>, list: &str, item: &str, errors: &mut Errors) {
    let (now, was) = (spec.list(list), before.list(list));
    let at = |i: usize| Spot::at(spec.child(list).tree, spec.path.child(list).index(i));
    if now.len() == was.len() {
        for (i, _) in now.iter().zip(was).enumerate().filter(|(_, (now, was))| now != was) {
            let i = if list == "ipFamilies" { 0 } else { i };
            at(i).invalid("", "may not change once set", errors);
        }
        return;
    }
    if now.is_empty() {
        at(0).invalid("", format!("primary {item} can not be unset"), errors);
    } else if !was.is_empty() && now[0] != was[0] {
        at(0).invalid("", "may not change once set", errors);
    }
    if was.len() > now.len() && now.len() == 1 && spec.str("ipFamilyPolicy") != "SingleStack" {
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {item}");
        spec.invalid("ipFamilyPolicy", detail, errors);
    }
}
