//! Claims of devices, their templates and classes, and device taints. (`pkg/apis/resource/validation/validation.go`)
//!
//! What upstream's types declare (sizes, uniqueness, formats of some names) comes from the schema table; here is the rest.

use std::sync::LazyLock;

use corten_cel::{Decl, Env, Program, Type, Version};
use corten_tree::{Tree, tree};

use super::{NOT_POSITIVE, Spot, affinity, conditions, labels, names};
use crate::Errors;

/// The longest expression, in bytes.
const EXPRESSION_MAX: usize = 10 << 10;
/// The highest cost that a selector may be estimated at.
const SELECTOR_COST_MAX: u64 = 1_000_000;
/// The longest parameters of a driver, in bytes.
const PARAMETERS_MAX: usize = 10 << 10;
/// The most items of the lists here that the types bound; upstream looks at no item of a longer list.
const LIST_MAX: usize = 32;
/// The most devices that a request may name as alternatives.
const ALTERNATIVES_MAX: usize = 8;
/// The most entries of an allocation's configuration: those of the class and those of the claim.
const ALLOCATION_CONFIG_MAX: usize = 64;
/// The most consumers of a claim.
const CONSUMERS_MAX: usize = 256;
/// The most conditions of a device or of a taint rule.
const CONDITIONS_MAX: usize = 8;

const ONE_OF_REQUEST: &str = "exactly one of `exactly` or `firstAvailable` is required";
const REQUEST_NAME: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// `ValidateDeviceClass` (new) and `ValidateDeviceClassUpdate`: what did not change is not compiled again.
pub(crate) fn validate_class(class: &Tree, old: Option<&Tree>, errors: &mut Errors) {
    let spec = Spot::of(class, "spec");
    let same = |field: &str| {
        let path = format!("spec.{field}");
        old.is_some_and(|old| {
            old.path(&path).unwrap_or(&Tree::Null).semantically_equal(class.path(&path).unwrap_or(&Tree::Null))
        })
    };
    selectors(&spec, same("selectors"), errors);
    let stored = same("config");
    for config in bounded(&spec, "config", LIST_MAX) {
        configuration(&config, stored, errors);
    }
}

/// `validateResourceClaimSpec`
pub(crate) fn validate_spec(spec: &Spot<'_>, errors: &mut Errors) {
    let devices = spec.child("devices");
    let requests = Requests::of(devices.tree);
    for request in bounded(&devices, "requests", LIST_MAX) {
        validate_request(&request, errors);
    }
    for constraint in bounded(&devices, "constraints", LIST_MAX) {
        requests.references(&constraint, errors);
        if !constraint.has("matchAttribute") && !constraint.has("distinctAttribute") {
            let detail =
                "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
            constraint.required("", detail, errors);
        }
    }
    for config in bounded(&devices, "config", LIST_MAX) {
        requests.references(&config, errors);
        configuration(&config, false, errors);
    }
}

/// `ValidateResourceClaimTemplate`
pub(crate) fn validate_template(template: &Tree, errors: &mut Errors) {
    let spec = Spot::of(template, "spec");
    super::volume::template_meta(&spec, errors);
    validate_spec(&spec.child("spec"), errors);
}

/// `SetDefaults_ExactDeviceRequest` and `SetDefaults_DeviceSubRequest`, below the path of a claim's spec.
pub(crate) fn default_spec(object: &mut Tree, spec: &str) {
    use crate::defaults::{at, each, text};
    fn mode(request: &mut Tree) {
        text(request, "allocationMode", "ExactCount");
        if request.str_at("allocationMode") == "ExactCount" && request.i64_at("count").unwrap_or_default() == 0 {
            request.set("count", 1);
        }
    }
    each(object, &format!("{spec}.devices.requests"), |request| {
        at(request, "exactly", mode);
        each(request, "firstAvailable", mode);
    });
}

/// Drops what v1.37 does not serve by default (`resourceclaimspec.DropDisabledFields`: `DRADerivedAttributes`).
pub(crate) fn drop_disabled(object: &mut Tree, spec: &str) {
    use crate::defaults::{at, each};
    let drop = |request: &mut Tree| {
        request.remove("derivedAttributes");
    };
    each(object, &format!("{spec}.devices.requests"), |request| {
        at(request, "exactly", drop);
        each(request, "firstAvailable", drop);
    });
}

/// Namespaces with this label, set to `true`, may have claims with admin access.
const ADMIN_LABEL: &str = "resource.kubernetes.io/admin-access";

/// `AuthorizedForAdmin` of a new claim or template whose claim's spec is at a path, `AuthorizedForAdminStatus` of a changed status.
pub(crate) fn admin_access(
    new: &Tree,
    old: Option<&Tree>,
    spec: &str,
    labels: &corten_object::Labels,
    errors: &mut Errors,
) {
    let granted = |tree: &Tree| tree.list_at(RESULTS).iter().position(|result| result.bool_at("adminAccess"));
    let asked = match old {
        None => {
            let requests = format!("{spec}.devices.requests");
            let asks = |request: &Tree| request.bool_at("exactly.adminAccess");
            // Upstream names the field where it stood before, in either kind.
            let at = corten_tree::FieldPath::of("spec.devices.requests");
            new.list_at(&requests).iter().position(asks).map(|i| at.index(i))
        }
        Some(old) if granted(old).is_some() => None,
        Some(_) => granted(new).map(|i| corten_tree::FieldPath::of(RESULTS).index(i)),
    };
    if let Some(at) = asked.filter(|_| labels.get(ADMIN_LABEL).is_none_or(|value| *value != *"true")) {
        let detail =
            format!("admin access to devices requires the `{ADMIN_LABEL}: true` label on the containing namespace");
        errors.push(corten_object::FieldError::forbidden(&at.child("adminAccess"), detail));
    }
}

const RESULTS: &str = "status.allocation.devices.results";

fn bounded<'t>(spot: &Spot<'t>, field: &str, max: usize) -> Vec<Spot<'t>> {
    if spot.list(field).len() > max { Vec::new() } else { spot.items(field) }
}

fn validate_request(request: &Spot<'_>, errors: &mut Errors) {
    request_name(request, "name", errors);
    match (request.some("exactly"), request.list("firstAvailable").is_empty()) {
        (None, true) => request.required("", ONE_OF_REQUEST, errors),
        (Some(_), false) => {
            let detail = format!("{ONE_OF_REQUEST}, but multiple fields are set");
            request.invalid_as("", Tree::Null, detail, errors);
        }
        (Some(exactly), true) => {
            match exactly.str("deviceClassName") {
                "" => exactly.required("deviceClassName", "", errors),
                name => exactly.each("deviceClassName", names::dns_subdomain(name), errors),
            }
            wanted(&exactly, errors);
        }
        (None, false) => {
            for alternative in bounded(request, "firstAvailable", ALTERNATIVES_MAX) {
                request_name(&alternative, "name", errors);
                wanted(&alternative, errors);
            }
        }
    }
}

/// What exact requests and alternatives share.
fn wanted(request: &Spot<'_>, errors: &mut Errors) {
    selectors(request, false, errors);
    let count = request.int("count").unwrap_or_default();
    match request.str("allocationMode") {
        "All" if count != 0 => {
            request.invalid_as("count", count, "must not be specified when allocationMode is 'All'", errors);
        }
        "ExactCount" if count <= 0 => request.invalid_as("count", count, NOT_POSITIVE, errors),
        "All" | "ExactCount" => {}
        _ => request.unsupported("allocationMode", &["All", "ExactCount"], errors),
    }
    request.items("tolerations").iter().for_each(|toleration| validate_toleration(toleration, errors));
}

fn validate_toleration(toleration: &Spot<'_>, errors: &mut Errors) {
    let value = toleration.str("value");
    match toleration.str("operator") {
        "Exists" if !value.is_empty() => {
            toleration.invalid("value", "must be empty for operator `Exists`", errors);
        }
        "Equal" => toleration.each("value", names::label_value(value), errors),
        _ => {}
    }
}

/// A DNS label that must be there (`validateRequestName`).
fn request_name(spot: &Spot<'_>, field: &str, errors: &mut Errors) {
    match spot.str(field) {
        "" => spot.required(field, "", errors),
        name => spot.each(field, names::dns_label(name), errors),
    }
}

/// The names of a claim's requests and of their alternatives.
struct Requests<'t>(Vec<(&'t str, Vec<&'t str>)>);

impl<'t> Requests<'t> {
    fn of(devices: &'t Tree) -> Requests<'t> {
        let name = |tree: &'t Tree| tree.str_at("name");
        let row = |request: &'t Tree| (name(request), request.list_at("firstAvailable").iter().map(name).collect());
        Requests(devices.list_at("requests").iter().map(row).collect())
    }

    fn has(&self, text: &str) -> bool {
        let (request, alternative) = match text.split_once('/') {
            Some((request, alternative)) => (request, Some(alternative)),
            None => (text, None),
        };
        let mut found = self.0.iter().filter(|(name, _)| *name == request);
        found.any(|(_, alternatives)| alternative.is_none_or(|name| alternatives.contains(&name)))
    }

    /// Checks the `requests` of a constraint or configuration.
    fn references(&self, spot: &Spot<'_>, errors: &mut Errors) {
        bounded(spot, "requests", LIST_MAX).iter().for_each(|name| self.reference(name, "", errors));
    }

    /// `validateRequestNameRef`
    fn reference(&self, spot: &Spot<'_>, field: &str, errors: &mut Errors) {
        let text = spot.str(field);
        let parts: Vec<&str> = text.split('/').collect();
        if parts.len() > 2 {
            spot.invalid(field, REQUEST_NAME, errors);
            return;
        }
        let place = spot.child(field);
        for part in parts {
            let part = Tree::from(part);
            request_name(&Spot::at(&part, place.path.clone()), "", errors);
        }
        if !self.has(text) {
            spot.invalid_as(field, text, REQUEST_NAME, errors);
        }
    }
}

/// `validateDeviceConfiguration`
fn configuration(config: &Spot<'_>, stored: bool, errors: &mut Errors) {
    match config.some("opaque") {
        None => config.required("opaque", "", errors),
        Some(opaque) => raw(&opaque, "parameters", stored, errors),
    }
}

/// `validateRawExtension`
fn raw(spot: &Spot<'_>, field: &str, stored: bool, errors: &mut Errors) {
    let value = spot.child(field);
    match value.tree {
        Tree::Null => spot.required(field, "", errors),
        _ if !stored && value.tree.to_json_string().len() > PARAMETERS_MAX => {
            spot.too_long(field, PARAMETERS_MAX, errors);
        }
        Tree::Map(_) => {}
        _ => spot.invalid_as(field, "<value omitted>", "must be a valid JSON object", errors),
    }
}

fn selectors(spot: &Spot<'_>, stored: bool, errors: &mut Errors) {
    for selector in bounded(spot, "selectors", LIST_MAX) {
        match selector.some("cel") {
            None => selector.required("cel", "", errors),
            Some(_) if stored => {}
            Some(cel) => selector_expression(&cel, errors),
        }
    }
}

/// `validateCELExpression` of a selector.
fn selector_expression(cel: &Spot<'_>, errors: &mut Errors) {
    let text = cel.str("expression");
    if text.len() > EXPRESSION_MAX {
        cel.too_long("expression", EXPRESSION_MAX, errors);
        return;
    }
    match device_program(text) {
        Err(why) => cel.invalid_as("expression", text, why, errors),
        Ok(program) if program.cost_estimate().max > SELECTOR_COST_MAX => {
            cel.forbidden("expression", "too complex, exceeds cost limit", errors);
        }
        Ok(_) => {}
    }
}

/// Compiles an expression over a device; the error is upstream's text
/// (`k8s.io/dynamic-resource-allocation/cel/compile.go` `CompileCELExpression`).
pub fn device_program(expression: &str) -> Result<Program, String> {
    static ENV: LazyLock<Env> = LazyLock::new(|| {
        const DOMAIN_MAX: u64 = 63;
        const ENTRIES_MAX: u64 = 32;
        const VALUE_MAX: u64 = 64;
        let sized = |ty: Type, max_elements: u64| Decl { max_elements, ..Decl::simple(ty, 1) };
        let entries = |value: Decl| Decl::map(Decl::map(value, ENTRIES_MAX), ENTRIES_MAX);
        let fields = [
            ("driver", Decl::string(DOMAIN_MAX)),
            ("attributes", entries(sized(Type::Dyn, VALUE_MAX))),
            ("capacity", entries(Decl::simple(Type::Opaque("kubernetes.Quantity"), 1))),
            ("allowMultipleAllocations", sized(Type::Bool, 1)),
        ];
        let fields = fields.map(|(name, decl)| (name.to_owned(), decl));
        Env::new(Version::NEW).with_bindings().declared("device", Decl::object("kubernetes.DRADevice", fields))
    });
    let program = ENV.compile(expression).map_err(|issues| format!("compilation failed: {issues}"))?;
    match program.result_type() {
        Type::Bool | Type::Dyn => Ok(program),
        other => Err(format!("must evaluate to bool or the unknown type, not {other}")),
    }
}

/// `ValidateResourceClaimStatusUpdate`
pub(crate) fn validate_status(new: &Tree, old: &Tree, errors: &mut Errors) {
    let status = Spot::of(new, "status");
    for consumer in bounded(&status, "reservedFor", CONSUMERS_MAX) {
        for field in ["resource", "name", "uid"] {
            if consumer.str(field).is_empty() {
                consumer.required(field, "", errors);
            }
        }
    }
    let consumers = status.items("reservedFor");
    for (i, consumer) in consumers.iter().enumerate() {
        if consumers[..i].iter().any(|before| before.str("uid") == consumer.str("uid")) {
            let body = format!("Duplicate value: {}", consumer.tree.to_json_string());
            errors.push(super::fault(&consumer.path, corten_object::CauseKind::Duplicate, body));
        }
    }
    let allocated = status.list("allocation.devices.results");
    for device in status.items("devices") {
        device_status(&device, allocated, errors);
    }
    if !status.list("reservedFor").is_empty() {
        let before = old.list_at("status.reservedFor");
        if !status.has("allocation") {
            status.forbidden("reservedFor", "may not be specified when `allocated` is not set", errors);
        } else if new.path("metadata.deletionTimestamp").is_some()
            && status.list("reservedFor").iter().any(|consumer| !before.contains(consumer))
        {
            let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            status.forbidden("reservedFor", detail, errors);
        }
    }
    if let (Some(allocation), None) = (status.some("allocation"), old.path("status.allocation")) {
        allocation_result(&allocation, &Requests::of(new.path("spec.devices").unwrap_or(&Tree::Null)), errors);
    }
}

fn allocation_result(allocation: &Spot<'_>, requests: &Requests<'_>, errors: &mut Errors) {
    let devices = allocation.child("devices");
    for result in bounded(&devices, "results", LIST_MAX) {
        requests.reference(&result, "request", errors);
        request_name(&result, "device", errors);
        binding_conditions(&result, errors);
        result.items("tolerations").iter().for_each(|toleration| validate_toleration(toleration, errors));
    }
    for config in bounded(&devices, "config", ALLOCATION_CONFIG_MAX) {
        requests.references(&config, errors);
        configuration(&config, false, errors);
    }
    if let Some(selector) = allocation.some("nodeSelector") {
        affinity::validate_node_selector(&selector, errors);
    }
}

/// `validateDeviceStatus`
fn device_status(device: &Spot<'_>, allocated: &[Tree], errors: &mut Errors) {
    super::volume::csi_driver_name(device, "driver", errors);
    pool_name(device, "pool", errors);
    request_name(device, "device", errors);
    let id = |tree: &Tree| ["driver", "pool", "device", "shareID"].map(|field| tree.str_at(field).to_owned());
    let own = id(device.tree);
    if !allocated.iter().any(|result| id(result) == own) {
        let [driver, pool, name, share] = own;
        let shown = tree!({"Driver": driver, "Pool": pool, "Device": name, "ShareID": share});
        device.invalid_as("", shown, "must be an allocated device in the claim", errors);
    }
    conditions::validate_all(device, "conditions", CONDITIONS_MAX, errors);
    if device.has("data") {
        raw(device, "data", false, errors);
    }
    for address in device.child("networkData").items("ips") {
        address.each("", names::interface_address(address.str("")), errors);
    }
}

/// `validatePoolName`, where no declared rule does it.
pub(crate) fn pool_name(spot: &Spot<'_>, field: &str, errors: &mut Errors) {
    let name = spot.str(field);
    if name.is_empty() {
        spot.required(field, "", errors);
        return;
    }
    if name.len() > names::SUBDOMAIN_MAX {
        spot.too_long(field, names::SUBDOMAIN_MAX, errors);
    }
    for part in name.split('/') {
        for message in names::dns_subdomain(part) {
            spot.invalid_as(field, part, message, errors);
        }
    }
}

/// `validateDeviceBindingParameters`
pub(crate) fn binding_conditions(spot: &Spot<'_>, errors: &mut Errors) {
    const FIELDS: [&str; 2] = ["bindingConditions", "bindingFailureConditions"];
    const MAX: usize = 4;
    for field in FIELDS {
        bounded(spot, field, MAX).iter().for_each(|name| labels::validate_label_name(name, "", errors));
    }
    let [bind, fail] = FIELDS.map(|field| spot.list(field));
    for field in FIELDS {
        for (i, name) in spot.items(field).iter().enumerate() {
            if spot.list(field)[..i].contains(name.tree) {
                name.duplicate("", errors);
            }
            if field == FIELDS[1] && bind.contains(name.tree) {
                name.invalid("", "bindingFailureConditions must not overlap with bindingConditions", errors);
            }
        }
    }
    for (field, empty, other, set) in [(FIELDS[0], bind, FIELDS[1], fail), (FIELDS[1], fail, FIELDS[0], bind)] {
        if empty.is_empty() && !set.is_empty() {
            spot.invalid_as(field, Tree::Null, format!("{field} are required to use {other}"), errors);
        }
    }
}

/// `validateDeviceTaint`; effects are declared.
pub(crate) fn validate_taint(taint: &Spot<'_>, errors: &mut Errors) {
    labels::validate_label_name(taint, "key", errors);
    if !taint.str("value").is_empty() {
        taint.each("value", names::label_value(taint.str("value")), errors);
    }
}

/// `ValidateDeviceTaintRule`
pub(crate) fn validate_taint_rule(rule: &Tree, errors: &mut Errors) {
    let spec = Spot::of(rule, "spec");
    if let Some(selector) = spec.some("deviceSelector") {
        if selector.has("driver") {
            super::volume::csi_driver_name(&selector, "driver", errors);
        }
        if selector.has("pool") {
            pool_name(&selector, "pool", errors);
        }
        if selector.has("device") {
            request_name(&selector, "device", errors);
        }
    }
    validate_taint(&spec.child("taint"), errors);
}

/// `ValidateDeviceTaintRuleStatusUpdate`
pub(crate) fn validate_taint_rule_status(new: &Tree, _: &Tree, errors: &mut Errors) {
    conditions::validate_all(&Spot::of(new, "status"), "conditions", CONDITIONS_MAX, errors);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_selectors_compile_over_a_device() {
        let fine = "cel.bind(dra, device.attributes['a.b'], dra.fast && device.capacity['a.b'].mem.isGreaterThan(quantity('1Gi'))) && \
                    device.driver == 'a.b' && !device.allowMultipleAllocations";
        assert!(device_program(fine).is_ok(), "{:?}", device_program(fine).err());
        assert!(device_program("device.attributes['a.b'].fast").is_ok());
        assert_eq!(
            device_program("device.driver").err().as_deref(),
            Some("must evaluate to bool or the unknown type, not string")
        );
        assert!(device_program("device.nothing").is_err_and(|why| why.contains("undefined field 'nothing'")));
    }

    #[test]
    fn resource_claim_status_names_what_was_allocated() {
        let claim = |status: Tree| tree!({"spec": {"devices": {"requests": [{"name": "r"}]}}, "status": (status)});
        let result = tree!({"request": "x", "driver": "a.b", "pool": "p", "device": "d", "bindingConditions": ["c"]});
        let new = claim(tree!({"allocation": {"devices": {"results": [(result)]}},
            "devices": [{"driver": "a.b", "pool": "p", "device": "e"}], "reservedFor": [{"uid": "u"}]}));
        let mut errors = Errors::new();
        validate_status(&new, &claim(Tree::map()), &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "status.reservedFor[0].resource: Required value",
                "status.reservedFor[0].name: Required value",
                r#"status.devices[0]: Invalid value: {"Driver":"a.b","Pool":"p","Device":"e","ShareID":""}: must be an allocated device in the claim"#,
                &format!("status.allocation.devices.results[0].request: Invalid value: \"x\": {REQUEST_NAME}"),
                "status.allocation.devices.results[0].bindingFailureConditions: Invalid value: null: \
                 bindingFailureConditions are required to use bindingConditions",
            ]
        );
    }
}
