//! What a call costs, by its arguments (`interpreter/runtimecost.go`, `pkg/cel/library/cost.go`, `ext/lists.go`, `ext/sets.go`).

use super::{CHECK, LIST_CREATE, REGEX, STRUCT_CREATE, TRAVERSAL, times};
use crate::value::Value;

/// The size that counts: characters, bytes, items, entries; 1 for what has none.
fn size(value: &Value<'_>) -> u64 {
    match value {
        Value::Ip(ip) if ip.is_ipv4() => 4,
        Value::Ip(_) => 16,
        Value::Cidr(cidr) => cidr.size(),
        Value::Optional(Some(inner)) => size(inner),
        other => other.size().unwrap_or(1),
    }
}

/// Going over a value and all in it (`traversalCost`).
fn traversal(value: &Value<'_>) -> u64 {
    match value {
        Value::Str(text) => (text.len() as f64 * TRAVERSAL) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * TRAVERSAL) as u64,
        other => match (other.as_list(), other.as_map()) {
            (Some(list), _) => (0..list.len()).filter_map(|at| list.get(at).ok()).map(|item| traversal(&item)).sum(),
            (_, Some(map)) => map
                .keys()
                .iter()
                .map(|key| traversal(key) + map.find(key).ok().flatten().map_or(0, |value| traversal(&value)))
                .sum(),
            _ => 1,
        },
    }
}

/// `==` or `!=`.
pub(crate) fn equality(left: &Value<'_>, right: &Value<'_>, equal: bool) -> u64 {
    let library = matches!(
        left,
        Value::Quantity(_)
            | Value::Ip(_)
            | Value::Cidr(_)
            | Value::Format(_)
            | Value::Url(_)
            | Value::Semver(_)
            | Value::Authz(_)
    );
    if equal && library { 1 } else { times(size(left).min(size(right)), TRAVERSAL) }
}

/// A call with these arguments; `overload` is empty if several fit when checking.
pub(crate) fn call(function: &str, overload: &str, args: &[Value<'_>], result: Option<&Value<'_>>) -> u64 {
    if let Some(cost) = extension(overload, args, result) {
        return cost;
    }
    if let Some(cost) = kubernetes(function, overload, args, result) {
        return cost;
    }
    let arg = |at: usize| args.get(at).map_or(1, size);
    match overload {
        "starts_with_string" | "ends_with_string" => times(arg(1), TRAVERSAL),
        "string_to_bytes" | "bytes_to_string" | "strings_quote" | "string_format" => times(arg(0), TRAVERSAL),
        "in_list" => arg(1),
        "less_string"
        | "greater_string"
        | "less_equals_string"
        | "greater_equals_string"
        | "less_bytes"
        | "greater_bytes"
        | "less_equals_bytes"
        | "greater_equals_bytes" => times(arg(0).min(arg(1)), TRAVERSAL),
        "add_string" | "add_bytes" => times(arg(0).saturating_add(arg(1)), TRAVERSAL),
        "matches" | "matches_string" => times(arg(0).saturating_add(1), TRAVERSAL).saturating_mul(times(arg(1), REGEX)),
        "contains_string" => times(arg(0), TRAVERSAL).saturating_mul(times(arg(1), TRAVERSAL)),
        _ => 1,
    }
}

/// Lists and sets of cel-go's extensions.
fn extension(overload: &str, args: &[Value<'_>], result: Option<&Value<'_>>) -> Option<u64> {
    let arg = |at: usize| args.get(at).map_or(1, size);
    let allocating = |factor: f64, count: u64| ((count as f64 * factor) as u64).saturating_add(1 + LIST_CREATE);
    let compared = |list: &Value<'_>| {
        let count = size(list);
        let first = list.as_list().filter(|list| !list.is_empty()).and_then(|list| list.get(0).ok());
        let text = matches!(first, Some(Value::Str(_) | Value::Bytes(_)));
        allocating(if text { 2.0 + TRAVERSAL } else { 2.0 }, count.saturating_mul(count))
    };
    Some(match overload {
        "list_sets_contains_list" | "list_sets_intersects_list" => arg(0).saturating_mul(arg(1)).saturating_add(1),
        "list_sets_equivalent_list" => arg(0).saturating_mul(arg(1)).saturating_mul(2).saturating_add(1),
        "list_slice" | "lists_range" | "list_reverse" => allocating(1.0, result.map_or(1, size)),
        "list_distinct" => compared(args.first()?),
        "list_flatten" => allocating(1.0, arg(0)),
        "list_flatten_int" => match args.get(1) {
            Some(Value::Int(depth)) if *depth >= 0 => allocating(*depth as f64, arg(0)),
            _ => allocating(1.0, arg(0)),
        },
        other if other.ends_with("_sort") => compared(args.first()?),
        other if other.ends_with("_sortByAssociatedKeys") => compared(args.get(1)?),
        _ => return None,
    })
}

/// Kubernetes' libraries (`CostEstimator.CallCost`).
fn kubernetes(function: &str, overload: &str, args: &[Value<'_>], result: Option<&Value<'_>>) -> Option<u64> {
    let arg = |at: usize| args.get(at).map_or(1, size);
    Some(match function {
        "check" => CHECK,
        "serviceAccount" | "path" | "group" | "resource" | "subresource" | "namespace" | "name" | "allowed"
        | "reason" | "error" | "errored" => 1,
        "fieldSelector" | "labelSelector" => {
            let length = arg(1);
            let requirements = times(times(length, 0.5), (LIST_CREATE + STRUCT_CREATE) as f64);
            LIST_CREATE.saturating_add(times(length, TRAVERSAL)).saturating_add(requirements)
        }
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "includes" => {
            args.first().map_or(0, traversal)
        }
        "url" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "jsonpatch.escapeKey" => times(arg(0), TRAVERSAL),
        "replace" | "split" => times(arg(0), 2.0 * TRAVERSAL),
        "join" => times(result.map_or(1, size), 2.0 * TRAVERSAL),
        "find" | "findAll" => times(arg(0).saturating_add(1), TRAVERSAL).saturating_mul(times(arg(1), REGEX)),
        "cidr" | "isIP" | "isCIDR" => times(arg(0), TRAVERSAL),
        "ip" if overload == "cidr_ip" => 1,
        "ip" => times(arg(0), TRAVERSAL),
        "ip.isCanonical" => times(arg(0), 2.0 * TRAVERSAL),
        "masked"
        | "prefixLength"
        | "family"
        | "isUnspecified"
        | "isLoopback"
        | "isLinkLocalMulticast"
        | "isLinkLocalUnicast"
        | "isGlobalUnicast" => 1,
        "containsIP" => {
            let parse = if overload == "cidr_contains_ip_string" { times(arg(1), TRAVERSAL) } else { 0 };
            times(arg(0) * 2, TRAVERSAL) + parse
        }
        "containsCIDR" => {
            let parse = if overload == "cidr_contains_cidr_string" { times(arg(1), TRAVERSAL) } else { 0 };
            times(arg(0) * 2, TRAVERSAL) + times(arg(0), TRAVERSAL) + 1 + parse
        }
        "quantity" | "isQuantity" | "semver" | "isSemver" => times(arg(0), TRAVERSAL),
        "validate" => match args {
            [Value::Format(format), text] => {
                times(size(text).saturating_add(1), TRAVERSAL).saturating_mul(times(format.regex_size, REGEX))
            }
            _ => return None,
        },
        "format.named" | "sign" | "asInteger" | "isInteger" | "asApproximateFloat" | "isGreaterThan" | "isLessThan"
        | "compareTo" | "add" | "sub" | "major" | "minor" | "patch" => 1,
        "getScheme" | "getHostname" | "getHost" | "getPort" | "getEscapedPath" | "getQuery" => 1,
        _ => return None,
    })
}
