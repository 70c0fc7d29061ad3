//! What a call will cost and how large its result is (`checker/cost.go` functionCost, `pkg/cel/library/cost.go`, `ext/lists.go`).

use super::estimate::{Estimator, Node};
use super::{CHECK, CostEstimate, LIST_CREATE, REGEX, Range, STRUCT_CREATE, SizeEstimate, TRAVERSAL};
use crate::types::Type;
use crate::value::Literal;

/// A call's cost, and its result's size if that is known.
pub(super) struct CallEstimate {
    pub(super) cost: CostEstimate,
    pub(super) size: Option<SizeEstimate>,
}

const ONE: Range = Range::fixed(1);

/// The largest name of a format (`MaxFormatSize`).
const FORMAT_MAX: u64 = 64;
/// The largest pattern of a format (`MaxNameFormatRegexSize`).
const FORMAT_REGEX_MAX: f64 = 128.0;

fn only(cost: CostEstimate) -> Option<CallEstimate> {
    Some(CallEstimate { cost, size: None })
}

fn sized(cost: CostEstimate, size: SizeEstimate) -> Option<CallEstimate> {
    Some(CallEstimate { cost, size: Some(size) })
}

/// The language's own functions, without the cost of the arguments.
pub(super) fn standard(
    of: &Estimator<'_>,
    overload: &str,
    target: Option<&Node<'_>>,
    args: &[Node<'_>],
) -> CallEstimate {
    let known = |node: &Node<'_>| of.known(node);
    let found = match (overload, target, args) {
        ("string_format", Some(target), _) => only(known(target).by(TRAVERSAL)),
        ("string_to_bytes", _, [arg]) => {
            let size = known(arg);
            sized(size.by(TRAVERSAL), Range { min: size.min, max: size.max.saturating_mul(4) })
        }
        ("bytes_to_string", _, [arg]) => {
            let size = known(arg);
            sized(size.by(TRAVERSAL), Range { min: size.min / 4, max: size.max })
        }
        ("strings_quote", _, [arg]) => {
            let size = known(arg);
            let max = size.max.saturating_mul(2).saturating_add(2);
            sized(size.by(TRAVERSAL), Range { min: size.min.saturating_add(2), max })
        }
        ("starts_with_string" | "ends_with_string", _, [arg]) => only(known(arg).by(TRAVERSAL)),
        ("in_list", _, [_, list]) => only(known(list)),
        ("matches_string", Some(text), [pattern]) | ("matches", None, [text, pattern]) => {
            only(known(text).plus(ONE).by(TRAVERSAL).times(known(pattern).by(REGEX)))
        }
        ("contains_string", Some(text), [part]) => only(known(text).by(TRAVERSAL).times(known(part).by(TRAVERSAL))),
        ("add_list", _, [a, b]) => sized(ONE, known(a).plus(known(b))),
        ("add_string" | "add_bytes", _, [a, b]) => {
            let size = known(a).plus(known(b));
            sized(size.by(TRAVERSAL), size)
        }
        (
            "less_string"
            | "greater_string"
            | "less_equals_string"
            | "greater_equals_string"
            | "less_bytes"
            | "greater_bytes"
            | "less_equals_bytes"
            | "greater_equals_bytes"
            | "equals"
            | "not_equals",
            _,
            [a, b],
        ) => {
            let max = known(a).max.min(known(b).max);
            only(Range { min: u64::from(max > 0), max }.by(TRAVERSAL))
        }
        _ => None,
    };
    found.unwrap_or(CallEstimate { cost: ONE, size: None })
}

fn int_or(node: &Node<'_>, otherwise: u64) -> u64 {
    match node.literal {
        Some(Literal::Int(n)) => u64::try_from(*n).unwrap_or(0),
        _ => otherwise,
    }
}

fn allocating(factor: f64, size: SizeEstimate) -> Option<CallEstimate> {
    sized(size.by(factor).plus(Range::fixed(LIST_CREATE)).plus(ONE), size)
}

/// Lists and sets of cel-go's extensions.
pub(super) fn extension(
    of: &Estimator<'_>,
    overload: &str,
    target: Option<&Node<'_>>,
    args: &[Node<'_>],
) -> Option<CallEstimate> {
    let compared = |list: &Node<'_>, text: bool| {
        let size = of.known(list);
        allocating(if text { 2.0 + TRAVERSAL } else { 2.0 }, size.times(size))
    };
    match (overload, target, args) {
        ("list_sets_contains_list" | "list_sets_intersects_list", None, [a, b]) => {
            only(of.known(a).times(of.known(b)).plus(ONE))
        }
        ("list_sets_equivalent_list", None, [a, b]) => only(of.known(a).times(of.known(b)).by(2.0).plus(ONE)),
        ("list_slice", Some(list), [start, end]) => {
            let (start, end) = (int_or(start, 0), int_or(end, of.known(list).max));
            allocating(1.0, Range::fixed(end.wrapping_sub(start)))
        }
        ("lists_range", None, [count]) => allocating(1.0, Range::fixed(int_or(count, u64::MAX))),
        ("list_reverse", Some(list), []) => allocating(1.0, of.known(list)),
        ("list_flatten" | "list_flatten_int", Some(list), args) => {
            let depth = args.first().map_or(1, |depth| int_or(depth, u64::MAX));
            allocating(depth as f64, of.known(list))
        }
        ("list_distinct", Some(list), []) => compared(list, false),
        (sort, Some(list), []) if sort.ends_with("_sort") => {
            compared(list, sort == "list_string_sort" || sort == "list_bytes_sort")
        }
        (sort, Some(_), [keys]) if sort.ends_with("_sortByAssociatedKeys") => {
            compared(keys, sort.starts_with("list_string_") || sort.starts_with("list_bytes_"))
        }
        _ => None,
    }
}

/// Kubernetes' libraries (`CostEstimator.EstimateCallCost`).
pub(super) fn kubernetes(
    of: &Estimator<'_>,
    function: &str,
    overload: &str,
    target: Option<&Node<'_>>,
    args: &[Node<'_>],
) -> Option<CallEstimate> {
    let known = |node: &Node<'_>| of.known(node);
    match function {
        "check" => only(Range::fixed(CHECK)),
        "serviceAccount" | "path" | "group" | "resource" | "subresource" | "namespace" | "name" | "allowed"
        | "reason" | "error" | "errored" => only(ONE),
        "fieldSelector" | "labelSelector" if args.len() == 1 => {
            let length = known(&args[0]);
            let requirements = length.by(0.5).by((LIST_CREATE + STRUCT_CREATE) as f64);
            only(Range::fixed(LIST_CREATE).plus(length.by(TRAVERSAL)).plus(requirements))
        }
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "includes" => searched(of, function, target?),
        "url" | "jsonpatch.escapeKey" if args.len() == 1 => {
            let size = known(&args[0]);
            sized(size.by(TRAVERSAL), size)
        }
        "lowerAscii" | "upperAscii" | "substring" | "trim" => {
            let size = known(target?);
            sized(size.by(TRAVERSAL), size)
        }
        "replace" if args.len() >= 2 => {
            let size = known(target?);
            let result = replaced(size, known(&args[0]), known(&args[1]));
            sized(size.by(2.0 * TRAVERSAL), result)
        }
        "split" => {
            let size = known(target?);
            let max = match args.get(1).and_then(|count| count.literal) {
                Some(Literal::Int(count)) => *count as u64,
                _ => size.max,
            };
            sized(size.by(2.0 * TRAVERSAL), Range { min: 0, max })
        }
        "join" => {
            let list = target?;
            let count = known(list);
            let mut size = match item_type(&list.ty) {
                Some(_) => count.times(of.item_size(list)),
                None => Range::fixed(0),
            };
            if let Some(separator) = args.first() {
                let separators = Range { min: count.min.saturating_sub(1), max: count.max.saturating_sub(1) };
                size = size.plus(known(separator).times(separators));
            }
            sized(size.by(TRAVERSAL), size)
        }
        "find" | "findAll" if !args.is_empty() => {
            let size = known(target?);
            let cost = size.plus(ONE).by(TRAVERSAL).times(known(&args[0]).by(REGEX));
            sized(cost, Range { min: 0, max: size.max })
        }
        "ip" if overload == "cidr_ip" => only(ONE),
        "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" if !args.is_empty() => {
            only(known(&args[0]).by(TRAVERSAL))
        }
        "ip.isCanonical" if !args.is_empty() => only(known(&args[0]).by(2.0 * TRAVERSAL)),
        "masked"
        | "prefixLength"
        | "family"
        | "isUnspecified"
        | "isLoopback"
        | "isLinkLocalMulticast"
        | "isLinkLocalUnicast"
        | "isGlobalUnicast" => only(ONE),
        "containsIP" | "containsCIDR" if !args.is_empty() => {
            let bytes = Range { min: 4, max: 16 };
            let mut cost = bytes.plus(bytes).by(TRAVERSAL);
            if function == "containsCIDR" {
                cost = cost.plus(bytes.by(TRAVERSAL)).plus(ONE);
            }
            if matches!(overload, "cidr_contains_ip_string" | "cidr_contains_cidr_string") {
                cost = cost.plus(known(&args[0]).by(TRAVERSAL));
            }
            only(cost)
        }
        "validate" if !args.is_empty() => only(known(&args[0]).by(TRAVERSAL).by(FORMAT_REGEX_MAX * REGEX)),
        "format.named" | "sign" | "asInteger" | "isInteger" | "asApproximateFloat" | "isGreaterThan" | "isLessThan"
        | "compareTo" | "add" | "sub" | "major" | "minor" | "patch" => only(ONE),
        "getScheme" | "getHostname" | "getHost" | "getPort" | "getEscapedPath" | "getQuery" => only(ONE),
        "_==_" => equality(args),
        _ => None,
    }
}

/// The first parameter of a type.
fn item_type(ty: &Type) -> Option<&Type> {
    match ty {
        Type::List(item) | Type::Optional(item) | Type::Map(item, _) | Type::Type(Some(item)) => Some(item),
        _ => None,
    }
}

fn searched(of: &Estimator<'_>, function: &str, target: &Node<'_>) -> Option<CallEstimate> {
    let size = of.known(target);
    match item_type(&target.ty) {
        Some(Type::String | Type::Bytes) => only(size.times(ONE.plus(of.item_size(target).by(TRAVERSAL)))),
        Some(_) => only(size),
        None if function == "includes" => only(size),
        None => only(size.by(TRAVERSAL)),
    }
}

fn replaced(size: SizeEstimate, old: SizeEstimate, new: SizeEstimate) -> SizeEstimate {
    let parts = |whole: u64, part: u64| (whole as f64 / part as f64).ceil() as u64;
    let (mut count, mut kept) = (Range::fixed(0), Range::fixed(0));
    if old.min == 0 {
        count.max = size.max.saturating_add(1);
        kept.max = size.max;
    } else if new.max <= old.min {
        kept.max = size.max;
    } else {
        count.max = parts(size.max, old.min);
    }
    if old.max == 0 {
        count.min = size.min.saturating_add(1);
        kept.min = size.min;
    } else if old.max <= new.min {
        kept.min = size.min;
    } else {
        count.min = parts(size.min, old.max);
    }
    count.times(new).plus(kept)
}

fn equality(args: &[Node<'_>]) -> Option<CallEstimate> {
    let [left, right] = args else { return None };
    let Type::Opaque(name) = &left.ty else { return None };
    if left.ty != right.ty {
        return None;
    }
    match *name {
        "kubernetes.NamedFormat" => only(Range { min: 1, max: FORMAT_MAX }.by(TRAVERSAL)),
        "kubernetes.URL" => only(Range { min: 1, max: right.size.map_or(1, |size| size.max) }.by(TRAVERSAL)),
        _ => only(ONE),
    }
}
