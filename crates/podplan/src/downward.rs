//! The downward API: fields of the pod and resources of its containers as texts.

use std::fmt::Write;

use corten_views::container::{ObjectFieldSelector, ResourceFieldSelector};
use corten_views::meta::Texts;
use corten_views::{Container, Pod};

/// What the node adds to what the pod says of itself.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The pod's addresses.
    pub pod_ips: Vec<String>,
    /// The node's addresses.
    pub host_ips: Vec<String>,
    /// The node's allocatable CPU, in thousandths of a core: a container without a limit has this one.
    pub milli_cpu: i64,
    /// The node's allocatable memory in bytes.
    pub memory: i64,
    /// The node's allocatable ephemeral storage in bytes.
    pub ephemeral_storage: i64,
}

/// A field's value (`podFieldSelectorRuntimeValue`, `pkg/fieldpath/fieldpath.go`).
pub fn field(pod: &Pod, selector: &ObjectFieldSelector, facts: &Facts) -> Result<String, String> {
    let meta = &pod.metadata;
    let first = |ips: &[String]| ips.first().cloned().unwrap_or_default();
    let path = selector.field_path.as_str();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let value = |texts: &Texts| texts.get(key).cloned().unwrap_or_default();
        return match map {
            "metadata.labels" => Ok(value(&meta.labels)),
            "metadata.annotations" => Ok(value(&meta.annotations)),
            _ => Err(format!("fieldPath {path:?} does not support subscript")),
        };
    }
    Ok(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => format_map(&meta.labels),
        "metadata.annotations" => format_map(&meta.annotations),
        "spec.nodeName" => pod.spec.node_name.clone(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone(),
        "status.hostIP" => first(&facts.host_ips),
        "status.hostIPs" => facts.host_ips.join(","),
        "status.podIP" => first(&facts.pod_ips),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `key="value"` lines in key order, quoted as Go does.
fn format_map(texts: &Texts) -> String {
    let mut out = String::new();
    for (key, value) in texts {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(key);
        out.push('=');
        quote(&mut out, value);
    }
    out
}

/// As Go's `strconv.Quote`.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c.is_ascii_control() => drop(write!(out, "\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A resource's amount, divided and rounded up (`ExtractContainerResourceValue`). `own` is the container that asks.
pub fn resource(
    pod: &Pod,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    facts: &Facts,
) -> Result<String, String> {
    let container = match selector.container_name.as_str() {
        "" => own,
        name => crate::container_of(pod, name),
    };
    let container = container.ok_or_else(|| format!("container {} not found", selector.container_name))?;
    let (list, name) = match selector.resource.split_once('.') {
        Some(("limits", name)) => (&container.resources.limits, name),
        Some(("requests", name)) => (&container.resources.requests, name),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let amount = list.get(name).filter(|q| !q.is_zero());
    let is_limit = selector.resource.starts_with("limits.");
    let divisor = Some(&selector.divisor).filter(|d| !d.is_zero());
    let node = |value: i64| if is_limit { value } else { 0 };
    let (value, by) = match name {
        "cpu" => (amount.map_or(node(facts.milli_cpu), |q| q.milli()), divisor.map_or(1000, |d| d.milli())),
        "memory" => (amount.map_or(node(facts.memory), |q| q.value()), divisor.map_or(1, |d| d.value())),
        "ephemeral-storage" => {
            (amount.map_or(node(facts.ephemeral_storage), |q| q.value()), divisor.map_or(1, |d| d.value()))
        }
        other if other.starts_with("hugepages-") => (amount.map_or(0, |q| q.value()), divisor.map_or(1, |d| d.value())),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    Ok((i128::from(value) + i128::from(by) - 1).div_euclid(i128::from(by.max(1))).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_resources() {
        let pod: Pod = serde_json::from_str(
            r#"{"metadata":{"name":"p","labels":{"a":"1","b":"x\"y"}},"spec":{"containers":[{"name":"c","resources":
            {"limits":{"memory":"64Mi"},"requests":{"cpu":"250m"}}}]}}"#,
        )
        .unwrap();
        let facts = Facts { milli_cpu: 2000, ..Facts::default() };
        let f =
            |path: &str| field(&pod, &ObjectFieldSelector { field_path: path.into(), ..Default::default() }, &facts);
        assert_eq!(f("metadata.name").unwrap(), "p");
        assert_eq!(f("metadata.labels['a']").unwrap(), "1");
        assert_eq!(f("metadata.labels").unwrap(), "a=\"1\"\nb=\"x\\\"y\"");
        assert_eq!(f("spec.x").unwrap_err(), "unsupported fieldPath: spec.x");
        let r = |name: &str, divisor: &str| {
            let divisor = corten_views::Quantity::parse(divisor).unwrap_or_default();
            let selector = ResourceFieldSelector { resource: name.into(), divisor, ..Default::default() };
            resource(&pod, pod.spec.containers.first(), &selector, &facts).unwrap()
        };
        assert_eq!(r("limits.memory", "1Mi"), "64");
        assert_eq!(r("requests.cpu", ""), "1");
        assert_eq!(r("requests.cpu", "1m"), "250");
        assert_eq!(r("limits.cpu", "0"), "2");
    }
}
