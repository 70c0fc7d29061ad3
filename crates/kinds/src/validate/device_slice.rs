//! Slices of devices. (`ValidateResourceSlice` in `pkg/apis/resource/validation/validation.go`)

use corten_object::{CauseKind, FieldError};
use corten_schema::scalars::Quantity;
use corten_tree::Tree;

use super::device_claim::{binding_conditions, pool_name, validate_taint};
use super::{NOT_POSITIVE, Spot, affinity, fault, names, quantity, volume};
use crate::Errors;

/// The most devices of a slice, and of one with taints, counters or lists.
const DEVICES_MAX: usize = 128;
const ADVANCED_DEVICES_MAX: usize = 64;
/// The most attributes and capacities of a device, and the most values of its attributes.
const ENTRIES_MAX: usize = 32;
const VALUES_MAX: usize = 48;
/// The longest value of an attribute, in bytes.
const VALUE_BYTES_MAX: usize = 64;
/// The longest identifier.
const IDENTIFIER_MAX: usize = 32;
const TAINTS_MAX: usize = 16;
/// The most counters of a set.
const COUNTERS_MAX: usize = 32;
/// The most values that a capacity may be asked for.
const OPTIONS_MAX: usize = 10;

const NODES: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";

/// Finds the faults of a slice, new or changed.
pub(crate) fn validate(slice: &Tree, old: Option<&Tree>, errors: &mut Errors) {
    let spec = Spot::of(slice, "spec");
    let before = old.map(|old| Spot::of(old, "spec"));
    volume::csi_driver_name(&spec, "driver", errors);
    let pool = spec.child("pool");
    pool_name(&pool, "name", errors);
    if pool.int("resourceSliceCount").unwrap_or_default() <= 0 {
        pool.invalid("resourceSliceCount", NOT_POSITIVE, errors);
    }
    if pool.int("generation").unwrap_or_default() < 0 {
        pool.invalid("generation", "must be greater than or equal to zero", errors);
    }
    if let Some(before) = &before {
        for field in ["pool.name", "driver", "nodeName"] {
            spec.immutable(before, field, errors);
        }
    }
    nodes(&spec, errors);
    if spec.has("sharedCounters") && spec.has("devices") {
        spec.invalid_as("", "", "only one of `sharedCounters` or `devices` is allowed", errors);
    }
    let advanced = |device: &Tree| {
        !device.list_at("taints").is_empty()
            || !device.list_at("consumesCounters").is_empty()
            || device.map_at("attributes").values().any(|a| LISTS.iter().any(|list| a.get(list).is_some()))
    };
    let max = if spec.list("devices").iter().any(advanced) { ADVANCED_DEVICES_MAX } else { DEVICES_MAX };
    if spec.list("devices").len() > max {
        spec.too_many("devices", max, errors);
    } else {
        devices(&spec, before.as_ref(), errors);
    }
    for set in spec.items("sharedCounters") {
        counters(&set, errors);
    }
}

/// Exactly one way of saying which nodes have the devices.
fn nodes(spec: &Spot<'_>, errors: &mut Errors) {
    let mut set = Vec::new();
    if spec.has("nodeName") {
        match spec.str("nodeName") {
            "" => spec.invalid("nodeName", "must be either unset or set to a non-empty string", errors),
            name => {
                set.push("`nodeName`");
                spec.each("nodeName", names::dns_subdomain(name), errors);
            }
        }
    }
    if let Some(selector) = spec.some("nodeSelector") {
        set.push("`nodeSelector`");
        affinity::validate_node_selector(&selector, errors);
        if selector.list("nodeSelectorTerms").len() != 1 {
            selector.invalid("nodeSelectorTerms", "must have exactly one node selector term", errors);
        }
    }
    for (field, name) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        match spec.child(field).tree {
            Tree::Bool(true) => set.push(name),
            Tree::Bool(false) => spec.invalid(field, "must be either unset or set to true", errors),
            _ => {}
        }
    }
    match set.len() {
        0 => spec.required("", NODES, errors),
        1 => {}
        _ => {
            let detail = format!("{NODES}, but multiple fields are set");
            spec.invalid_as("", format!("{{{}}}", set.join(", ")), detail, errors);
        }
    }
}

fn devices(spec: &Spot<'_>, before: Option<&Spot<'_>>, errors: &mut Errors) {
    let all = spec.items("devices");
    for device in &all {
        let old = before.and_then(|old| old.list("devices").iter().find(|d| d.get("name") == device.tree.get("name")));
        validate_device(device, old, spec.bool("perDeviceNodeSelection"), errors);
    }
    for (i, device) in all.iter().enumerate() {
        if all[..i].iter().any(|other| other.str("name") == device.str("name")) {
            errors.push(FieldError::duplicate(&device.path, &Tree::from(device.str("name"))));
        }
    }
}

fn validate_device(device: &Spot<'_>, old: Option<&Tree>, own_nodes: bool, errors: &mut Errors) {
    match device.str("name") {
        "" => device.required("name", "", errors),
        name => device.each("name", names::dns_label(name), errors),
    }
    let attributes = device.map("attributes");
    let entries = attributes.len() + device.map("capacity").len();
    if entries > ENTRIES_MAX {
        let detail = format!("the total number of attributes and capacities must not exceed {ENTRIES_MAX}");
        device.invalid_as("", entries as i64, detail, errors);
    }
    let count = |a: &Tree| LISTS.iter().map(|list| a.list_at(list).len()).sum::<usize>().max(1);
    let values: usize = attributes.values().map(count).sum();
    if values > VALUES_MAX {
        let detail = format!("the total number of attribute values must not exceed {VALUES_MAX}");
        device.invalid_as("", values as i64, detail, errors);
    }
    keyed(device, "attributes", errors, validate_attribute);
    let changed = |field: &str| {
        old.is_none_or(|old| {
            let (old, new) = (old.get(field).unwrap_or(&Tree::Null), device.tree.get(field).unwrap_or(&Tree::Null));
            !old.semantically_equal(new)
        })
    };
    if changed("capacity") {
        let shared = device.bool("allowMultipleAllocations");
        keyed(device, "capacity", errors, |capacity, errors| match capacity.some("requestPolicy") {
            Some(policy) if shared => request_policy(&policy, capacity, errors),
            Some(policy) => policy.forbidden("", "allowMultipleAllocations must be true", errors),
            None => {}
        });
    }
    if changed("taints") {
        if device.list("taints").len() > TAINTS_MAX {
            device.too_many("taints", TAINTS_MAX, errors);
        } else {
            device.items("taints").iter().for_each(|taint| validate_taint(taint, errors));
        }
    }
    for consumption in device.items("consumesCounters") {
        counters(&consumption, errors);
    }
    device_nodes(device, own_nodes, errors);
    binding_conditions(device, errors);
}

fn device_nodes(device: &Spot<'_>, own: bool, errors: &mut Errors) {
    const FIELDS: [&str; 3] = ["nodeName", "nodeSelector", "allNodes"];
    if !own {
        if FIELDS.iter().any(|field| device.has(field)) {
            let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to \
                          true in the ResourceSlice spec";
            device.invalid_as("", Tree::Null, detail, errors);
        }
        return;
    }
    let mut set = Vec::new();
    if device.has("nodeName") {
        match device.str("nodeName") {
            "" => device.invalid("nodeName", "must not be empty", errors),
            name => {
                set.push("`nodeName`");
                device.each("nodeName", names::dns_subdomain(name), errors);
            }
        }
    }
    if let Some(selector) = device.some("nodeSelector") {
        set.push("`nodeSelector`");
        affinity::validate_node_selector(&selector, errors);
    }
    match device.child("allNodes").tree {
        Tree::Bool(true) => set.push("`allNodes`"),
        Tree::Bool(false) => device.invalid("allNodes", "must be either unset or set to true", errors),
        _ => {}
    }
    let detail = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set \
                  to true in the ResourceSlice spec";
    match set.len() {
        0 => device.required("", detail, errors),
        1 => {}
        _ => {
            let detail = format!("{detail}, but multiple fields are set");
            device.invalid_as("", format!("{{{}}}", set.join(", ")), detail, errors);
        }
    }
}

/// Checks the names and values of a map.
fn keyed(device: &Spot<'_>, field: &str, errors: &mut Errors, check: impl Fn(&Spot<'_>, &mut Errors)) {
    let map = device.child(field);
    for (key, value) in map.map("").iter() {
        qualified_name(key, &map, errors);
        check(&Spot::at(value, map.path.key(key)), errors);
    }
}

/// `validateQualifiedName`: an identifier, with the domain of its driver before it if it has one.
fn qualified_name(name: &str, at: &Spot<'_>, errors: &mut Errors) {
    let identifier = |id: &str, errors: &mut Errors| {
        if id.len() > IDENTIFIER_MAX {
            at.too_long("", IDENTIFIER_MAX, errors);
        }
        for message in names::c_identifier(id) {
            at.invalid_as("", id, message, errors);
        }
    };
    match name.split('/').collect::<Vec<_>>()[..] {
        [id] => identifier(id, errors),
        [domain, id] => {
            if domain.is_empty() {
                at.invalid_as("", "", "the domain must not be empty", errors);
            } else {
                let tree = Tree::from(domain);
                volume::csi_driver_name(&Spot::at(&tree, at.path.clone()), "", errors);
            }
            if id.is_empty() {
                at.invalid_as("", "", "the name must not be empty", errors);
            } else {
                identifier(id, errors);
            }
        }
        // Upstream lets more slashes pass.
        _ => {}
    }
}

const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];

/// `validateDeviceAttribute`; that exactly one value is there is declared.
fn validate_attribute(attribute: &Spot<'_>, errors: &mut Errors) {
    let too_long = |spot: &Spot<'_>, field: &str, errors: &mut Errors| {
        if spot.str(field).len() > VALUE_BYTES_MAX {
            spot.too_long(field, VALUE_BYTES_MAX, errors);
        }
    };
    let version = |spot: &Spot<'_>, field: &str, errors: &mut Errors| {
        if corten_cel::Semver::parse(spot.str(field)).is_err() {
            spot.invalid(field, "must be a string compatible with semver.org spec 2.0.0", errors);
        }
        too_long(spot, field, errors);
    };
    too_long(attribute, "string", errors);
    if attribute.has("version") {
        version(attribute, "version", errors);
    }
    for list in LISTS.iter().filter(|list| attribute.has(list) && attribute.list(list).is_empty()) {
        attribute.invalid(list, "must not be empty if specified", errors);
    }
    attribute.items("strings").iter().for_each(|item| too_long(item, "", errors));
    attribute.items("versions").iter().for_each(|item| version(item, "", errors));
}

/// The size of a map of counters; names are declared.
fn counters(set: &Spot<'_>, errors: &mut Errors) {
    let size = set.map("counters").len();
    if size > COUNTERS_MAX {
        errors.push(FieldError::too_many(&set.path.child("counters"), size, COUNTERS_MAX));
    }
}

/// `validateRequestPolicy`
fn request_policy(policy: &Spot<'_>, capacity: &Spot<'_>, errors: &mut Errors) {
    let Some(max) = quantity(capacity.child("value").tree) else { return };
    let default = quantity(policy.child("default").tree);
    let values = policy.items("validValues");
    match (values.is_empty(), policy.some("validRange"), default) {
        (false, Some(_), _) => {
            let detail = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
            policy.forbidden("", detail, errors);
        }
        (false, None, None) => policy.required("default", "required when validValues is defined", errors),
        (true, Some(_), None) => policy.required("default", "required when validRange is defined", errors),
        (false, None, Some(default)) => valid_values(&policy.child("validValues"), &values, &default, &max, errors),
        (true, Some(range), Some(default)) => valid_range(&range, &default, &max, errors),
        (true, None, _) => {}
    }
}

/// `validateRequestPolicyValidValues`
fn valid_values(list: &Spot<'_>, values: &[Spot<'_>], default: &Quantity, max: &Quantity, errors: &mut Errors) {
    let parsed: Vec<Quantity> = values.iter().filter_map(|value| quantity(value.tree)).collect();
    for (i, pair) in parsed.windows(2).enumerate() {
        if pair[0] > pair[1] {
            let path = list.path.index(i + 1);
            let shown = Tree::from(pair[1].to_string());
            errors.push(FieldError::invalid(&path, &shown, "values must be sorted in ascending order"));
        }
    }
    if values.len() > OPTIONS_MAX {
        list.too_many("", OPTIONS_MAX, errors);
    } else {
        for (value, spot) in parsed.iter().zip(values).filter(|(value, _)| *value > max) {
            let detail = format!("option is larger than capacity value: {max}");
            spot.invalid_as("", value.to_string(), detail, errors);
        }
        for (i, (value, spot)) in parsed.iter().zip(values).enumerate() {
            if parsed[..i].contains(value) {
                errors.push(FieldError::duplicate(&spot.path, &Tree::from(value.to_string())));
            }
        }
    }
    if values.len() > OPTIONS_MAX || !parsed.contains(default) {
        let detail = "default value is not valid according to the requestPolicy";
        list.invalid_as("", default.to_string(), detail, errors);
    }
}

/// `validateRequestPolicyRange`
fn valid_range(range: &Spot<'_>, default: &Quantity, capacity: &Quantity, errors: &mut Errors) {
    let of = |field: &str| quantity(range.child(field).tree);
    let wrong = |field: &str, value: &Quantity, detail: String, errors: &mut Errors| {
        range.invalid_as(field, value.to_string(), detail, errors);
    };
    let Some(min) = of("min") else {
        range.required("min", "required when validRange is defined", errors);
        return;
    };
    let max = of("max");
    if min > *capacity {
        wrong("min", &min, format!("min is larger than capacity value: {capacity}"), errors);
    }
    if *default < min {
        wrong("default", default, format!("default is less than min: {min}"), errors);
    }
    if let Some(max) = &max {
        if min > *max {
            wrong("max", &min, format!("min is larger than max: {max}"), errors);
        }
        if max > capacity {
            wrong("max", max, format!("max is larger than capacity value: {capacity}"), errors);
        }
        if default > max {
            wrong("default", default, format!("default is more than max: {max}"), errors);
        }
    }
    let Some(step) = of("step") else { return };
    if step.sign() <= 0 {
        wrong("step", &step, NOT_POSITIVE.to_owned(), errors);
        return;
    }
    let added = min.plus(&step);
    if added > *capacity {
        wrong("step", &step, format!("one step {added} is larger than capacity value: {capacity}"), errors);
    }
    // Thousandths where any number has them; steps are counted in whole numbers.
    let all: Vec<&Quantity> = [Some(default), Some(&min), max.as_ref(), Some(&step)].into_iter().flatten().collect();
    let fractional = all.iter().any(|q| !q.is_whole_at(0));
    let number = |q: &Quantity| if fractional { q.milli_value() } else { q.value() };
    if fractional && all.iter().any(|q| !q.is_whole_at(-3)) {
        errors.push(fault(&range.path, CauseKind::Invalid, "value cannot be represented as a milli value"));
        return;
    }
    for value in [Some(default), max.as_ref()].into_iter().flatten() {
        let rest = number(value).checked_sub(number(&min)).and_then(|above| above.checked_rem(number(&step)));
        if rest != Some(0) {
            wrong("step", value, format!("value is not a multiple of a given step ({step}) from ({min})"), errors);
        }
    }
}

/// Drops what v1.37 does not serve by default: lists of values, node allocatable resources, groups and skipped operations.
pub(crate) fn drop_disabled(slice: &mut Tree) {
    slice.remove("spec.skipNodeOperations");
    crate::defaults::each(slice, "spec.devices", |device| {
        device.remove("nodeAllocatableResources");
        crate::defaults::each(device, "consumesCounters", |consumption| {
            consumption.remove("compatibilityGroups");
        });
        let attributes = device.path_mut("attributes").and_then(Tree::as_map_mut);
        for (_, attribute) in attributes.into_iter().flat_map(|map| map.iter_mut()) {
            for list in LISTS {
                attribute.remove(list);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_tree::tree;

    fn faults(device: Tree) -> Vec<String> {
        let slice = tree!({"spec": {"driver": "a.b", "nodeName": "n",
            "pool": {"name": "p", "resourceSliceCount": 1}, "devices": [(device)]}});
        let mut errors = Errors::new();
        validate(&slice, None, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn resource_slice_request_policy_is_checked() {
        let device = |policy: Tree| {
            tree!({"name": "d", "allowMultipleAllocations": true,
                "capacity": {"mem": {"value": "10Gi", "requestPolicy": (policy)}}})
        };
        assert_eq!(faults(device(tree!({"default": "1Gi", "validValues": ["1Gi", "2Gi"]}))), Vec::<String>::new());
        let at = "spec.devices[0].capacity[mem].requestPolicy";
        assert_eq!(
            faults(device(tree!({"default": "3Gi", "validValues": ["2Gi", "20Gi"]}))),
            [
                format!("{at}.validValues[1]: Invalid value: \"20Gi\": option is larger than capacity value: 10Gi"),
                format!(
                    "{at}.validValues: Invalid value: \"3Gi\": default value is not valid according to the requestPolicy"
                ),
            ]
        );
        assert_eq!(
            faults(device(tree!({"default": "3Gi", "validRange": {"min": "1Gi", "step": "4Gi"}}))),
            [format!(
                "{at}.validRange.step: Invalid value: \"3Gi\": value is not a multiple of a given step (4Gi) from (1Gi)"
            )]
        );
        let single = tree!({"name": "d", "capacity": {"mem": {"value": "1", "requestPolicy": {}}}});
        assert_eq!(faults(single), [format!("{at}: Forbidden: allowMultipleAllocations must be true")]);
    }

    #[test]
    fn resource_slice_nodes_are_said_once() {
        let mut errors = Errors::new();
        let slice = tree!({"spec": {"driver": "a.b", "nodeName": "n", "allNodes": true,
            "pool": {"name": "p", "resourceSliceCount": 1}}});
        validate(&slice, None, &mut errors);
        let text = format!("spec: Invalid value: \"{{`nodeName`, `allNodes`}}\": {NODES}, but multiple fields are set");
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [text]);
    }
}
