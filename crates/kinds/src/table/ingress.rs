//! Ingress.

use corten_tree::Tree;

use super::service::load_balancer_addresses;
use crate::Errors;
use crate::spec::{Generation, Hooks, KindSpec, Subresource};
use crate::validate::{Spot, names};
use crate::{Column, Of, RowContext, TextOr, column};

/// `networking.k8s.io/v1 Ingress`
pub(crate) const INGRESS: KindSpec = KindSpec {
    group: "networking.k8s.io",
    kind: "Ingress",
    plural: "ingresses",
    short: &["ing"],
    generation: Generation::OnChangeOf(&["spec"]),
    subresources: &[Subresource::STATUS],
    columns: &[
        Column::NAME,
        column("Class", &TextOr("spec.ingressClassName", "<none>")),
        column("Hosts", &Of(hosts)),
        column("Address", &Of(|o, _| Tree::from(load_balancer_addresses(o).join(",")))),
        column("Ports", &Of(|o, _| Tree::from(if o.list_at("spec.tls").is_empty() { "80" } else { "80, 443" }))),
        Column::AGE,
    ],
    hooks: Hooks {
        validate: Some(validate),
        validate_create: Some(validate_create),
        validate_status: Some(load_balancer_status),
        warnings: Some(class_warning),
        ..Hooks::NONE
    },
    ..KindSpec::NAMESPACED
};

/// How many hosts show.
const SHOWN: usize = 3;

/// `formatHosts`: the count of further rules, as upstream has it, is of all rules past the third.
fn hosts(ingress: &Tree, _: &RowContext) -> Tree {
    let rules = ingress.list_at("spec.rules");
    let mut shown: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= shown.len() == SHOWN;
        let host = rule.str_at("host");
        if !more && !host.is_empty() {
            shown.push(host);
        }
    }
    Tree::from(match more {
        _ if shown.is_empty() => "*".to_owned(),
        true => format!("{} + {} more...", shown.join(","), rules.len() - SHOWN),
        false => shown.join(","),
    })
}

/// `ValidateIngressSpec`
fn validate(ingress: &Tree, errors: &mut Errors) {
    let spec = Spot::of(ingress, "spec");
    if spec.list("rules").is_empty() && !spec.has("defaultBackend") {
        spec.invalid_as("", Tree::Null, "either `defaultBackend` or `rules` must be specified", errors);
    }
    if let Some(default) = spec.some("defaultBackend") {
        backend(&default, errors);
    }
    for rule in spec.items("rules") {
        let host = rule.str("host");
        if host.parse::<std::net::IpAddr>().is_ok() {
            rule.invalid("host", "must be a DNS name, not an IP address", errors);
        }
        if !host.is_empty() {
            rule.each("host", host_faults(host), errors);
        }
        let Some(http) = rule.some("http") else { continue };
        if http.list("paths").is_empty() {
            http.required("paths", "", errors);
        }
        for path in http.items("paths") {
            http_path(&path, errors);
        }
    }
    for tls in spec.items("tls") {
        for host in tls.items("hosts") {
            host.each("", host_faults(host.str("")), errors);
        }
        let secret = tls.str("secretName");
        if !secret.is_empty() {
            tls.each("secretName", names::dns_subdomain(secret), errors);
        }
    }
    if spec.has("ingressClassName") {
        spec.each("ingressClassName", names::dns_subdomain(spec.str("ingressClassName")), errors);
    }
}

fn host_faults(host: &str) -> Vec<String> {
    if host.contains('*') { names::wildcard_subdomain(host) } else { names::dns_subdomain(host) }
}

fn http_path(path: &Spot<'_>, errors: &mut Errors) {
    let text = path.str("path");
    match path.str("pathType") {
        "" => {
            path.required("pathType", "pathType must be specified", errors);
            return;
        }
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                path.invalid_as("path", text, "must be an absolute path", errors);
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|part| text.contains(part)) {
                path.invalid("path", format!("must not contain '{part}'"), errors);
            }
            for end in ["/..", "/."].into_iter().filter(|end| text.ends_with(end)) {
                path.invalid("path", format!("cannot end with '{end}'"), errors);
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                path.invalid("path", "must be an absolute path", errors);
            }
        }
        _ => path.unsupported("pathType", &["Exact", "ImplementationSpecific", "Prefix"], errors),
    }
    backend(&path.child("backend"), errors);
}

fn backend(backend: &Spot<'_>, errors: &mut Errors) {
    let service = match (backend.some("service"), backend.has("resource")) {
        (Some(_), true) => {
            backend.invalid_as("", "", "cannot set both resource and service backends", errors);
            return;
        }
        (None, true) => {
            let resource = backend.child("resource");
            if resource.has("apiGroup") {
                resource.each("apiGroup", names::dns_subdomain(resource.str("apiGroup")), errors);
            }
            for field in ["kind", "name"] {
                match resource.str(field) {
                    "" => resource.required(field, "", errors),
                    text => resource.each(field, names::path_segment(text), errors),
                }
            }
            return;
        }
        (None, false) => {
            backend.invalid_as("", "", "resource or service backend is required", errors);
            return;
        }
        (Some(service), false) => service,
    };
    match service.str("name") {
        "" => service.required("name", "", errors),
        name => service.each("name", names::dns_label(name), errors),
    }
    let number = service.int("port.number").unwrap_or_default();
    match (service.str("port.name"), number) {
        ("", 0) => backend.required("", "port name or number is required", errors),
        ("", number) => service.each("port.number", names::port_number(number), errors),
        (name, 0) => service.each("port.name", names::port_name(name), errors),
        _ => backend.invalid_as("", "", "cannot set both port name & port number", errors),
    }
}

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

fn validate_create(ingress: &Tree, errors: &mut Errors) {
    let annotation = ingress.map_at("metadata.annotations").get(CLASS_ANNOTATION).and_then(Tree::as_str);
    let class = ingress.path("spec.ingressClassName").and_then(Tree::as_str);
    if let (Some(annotation), Some(class)) = (annotation, class)
        && annotation != class
    {
        let at = Spot::at(ingress, corten_tree::FieldPath::of("annotations").child(CLASS_ANNOTATION));
        at.invalid_as("", annotation, "must match `ingressClassName` when both are specified", errors);
    }
}

/// `WarningsOnCreate`
fn class_warning(ingress: &Tree, old: Option<&Tree>) -> Vec<String> {
    let annotated = ingress.map_at("metadata.annotations").get(CLASS_ANNOTATION).is_some();
    if old.is_some() || !annotated || ingress.path("spec.ingressClassName").is_some() {
        return Vec::new();
    }
    vec![format!("annotation {CLASS_ANNOTATION:?} is deprecated, please use 'spec.ingressClassName' instead")]
}

/// `ValidateIngressLoadBalancerStatus`: addresses that were there before stay valid.
fn load_balancer_status(new: &Tree, old: &Tree, errors: &mut Errors) {
    let known = old.list_at("status.loadBalancer.ingress");
    for point in Spot::of(new, "status.loadBalancer").items("ingress") {
        let (ip, host) = (point.str("ip"), point.str("hostname"));
        if !ip.is_empty() && !known.iter().any(|before| before.str_at("ip") == ip) {
            point.each("ip", names::ip(ip), errors);
        }
        if !host.is_empty() {
            point.each("hostname", names::dns_subdomain(host), errors);
            if host.parse::<std::net::IpAddr>().is_ok() {
                point.invalid("hostname", "must be a DNS name, not an IP address", errors);
            }
        }
    }
}
