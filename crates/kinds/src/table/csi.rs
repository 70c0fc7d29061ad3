//! CSIDriver, CSINode and CSIStorageCapacity.

use corten_tree::Tree;

use crate::print;
use crate::spec::{Generation, Hooks, KindSpec, Subresource};
use crate::validate::{Spot, conditions, labels, names, quantity, volume};
use crate::{Column, Count, Errors, Of, RowContext, column};

const GROUP: &str = "storage.k8s.io";

/// `storage.k8s.io/v1 CSIDriver`
pub(crate) const CSI_DRIVER: KindSpec = KindSpec {
    group: GROUP,
    kind: "CSIDriver",
    returns_deleted: true,
    unconditional_update: false,
    plural: "csidrivers",
    generation: Generation::FromZeroOnChangeOf(&["spec"]),
    columns: &[
        Column::NAME,
        column("AttachRequired", &Of(|o, _| print::flag(o, "spec.attachRequired", true))).boolean(),
        column("PodInfoOnMount", &Of(|o, _| print::flag(o, "spec.podInfoOnMount", false))).boolean(),
        column("StorageCapacity", &Of(|o, _| print::flag(o, "spec.storageCapacity", false))).boolean(),
        column("TokenRequests", &Of(token_requests)),
        column("RequiresRepublish", &Of(|o, _| print::flag(o, "spec.requiresRepublish", false))).boolean(),
        column("Modes", &Of(modes)),
        Column::AGE,
    ],
    hooks: Hooks {
        default: Some(driver_default),
        validate: Some(driver_validate),
        validate_update: Some(driver_validate_update),
        warnings: Some(driver_warnings),
        ..Hooks::NONE
    },
    ..KindSpec::CLUSTER
};

/// `storage.k8s.io/v1 CSINode`
pub(crate) const CSI_NODE: KindSpec = KindSpec {
    group: GROUP,
    kind: "CSINode",
    returns_deleted: true,
    unconditional_update: false,
    plural: "csinodes",
    subresources: &[Subresource::STATUS_WITHOUT_METADATA],
    columns: &[Column::NAME, column("Drivers", &Count("spec.drivers")).integer(), Column::AGE],
    hooks: Hooks {
        validate: Some(node_validate),
        validate_update: Some(node_validate_update),
        validate_status: Some(node_validate_status),
        ..Hooks::NONE
    },
    ..KindSpec::CLUSTER
};

/// `storage.k8s.io/v1 CSIStorageCapacity`
pub(crate) const CSI_STORAGE_CAPACITY: KindSpec = KindSpec {
    group: GROUP,
    kind: "CSIStorageCapacity",
    unconditional_update: false,
    plural: "csistoragecapacities",
    // Upstream has columns for it, but serves the general ones.
    columns: &[Column::NAME, Column::CREATED_AT],
    immutable: &["nodeTopology", "storageClassName"],
    hooks: Hooks { validate_create: Some(capacity_validate), ..Hooks::NONE },
    ..KindSpec::NAMESPACED
};

fn token_requests(driver: &Tree, _: &RowContext) -> Tree {
    match driver.path("spec.tokenRequests").and_then(Tree::as_list) {
        Some(requests) => print::joined_field(requests, "audience"),
        None => Tree::from("<unset>"),
    }
}

fn modes(driver: &Tree, _: &RowContext) -> Tree {
    let modes = print::joined(driver.list_at("spec.volumeLifecycleModes"), ",");
    Tree::from(if modes.is_empty() { "<none>".to_owned() } else { modes })
}

/// `SetDefaults_CSIDriver`.
fn driver_default(driver: &mut Tree) {
    driver.set_default("spec.attachRequired", true);
    driver.set_default("spec.fsGroupPolicy", "ReadWriteOnceWithFSType");
    for flag in
        ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount", "preventPodSchedulingIfMissing"]
    {
        driver.set_default(&format!("spec.{flag}"), false);
    }
    if driver.list_at("spec.volumeLifecycleModes").is_empty() {
        driver.set("spec.volumeLifecycleModes", vec!["Persistent"]);
    }
}

/// The least seconds between updates of a node's volume limits.
const UPDATE_PERIOD_MIN: i64 = 10;
/// The bounds of a token's life, in seconds.
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// `validateCSIDriverSpec` (`pkg/apis/storage/validation/validation.go`); flags that must be there have defaults.
fn driver_validate(driver: &Tree, errors: &mut Errors) {
    let spec = Spot::of(driver, "spec");
    spec.optional_one_of("fsGroupPolicy", &["File", "None", "ReadWriteOnceWithFSType"], errors);
    let mut audiences = Vec::new();
    for request in spec.items("tokenRequests") {
        if audiences.contains(&request.str("audience")) {
            errors.push(corten_object::FieldError::duplicate(
                &request.path.child("audience"),
                &Tree::from(request.str("audience")),
            ));
            continue;
        }
        audiences.push(request.str("audience"));
        match request.int("expirationSeconds") {
            Some(seconds) if seconds < TOKEN_SECONDS_MIN => {
                request.invalid("expirationSeconds", "may not specify a duration less than 10 minutes", errors);
            }
            Some(seconds) if seconds > TOKEN_SECONDS_MAX => {
                request.invalid("expirationSeconds", "may not specify a duration larger than 2^32 seconds", errors);
            }
            _ => {}
        }
    }
    const MODES: [&str; 2] = ["Persistent", "Ephemeral"];
    for mode in spec.items("volumeLifecycleModes").iter().filter(|mode| !MODES.contains(&mode.str(""))) {
        let path = spec.path.child("volumeLifecycleModes");
        errors.push(corten_object::FieldError::not_supported(&path, mode.str(""), &MODES));
    }
    if spec.int("nodeAllocatableUpdatePeriodSeconds").is_some_and(|seconds| seconds < UPDATE_PERIOD_MIN) {
        let detail = "must be greater than or equal to 10 seconds";
        spec.invalid("nodeAllocatableUpdatePeriodSeconds", detail, errors);
    }
    if spec.has("serviceAccountTokenInSecrets") && spec.list("tokenRequests").is_empty() {
        let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        spec.invalid("serviceAccountTokenInSecrets", detail, errors);
    }
}

/// `ValidateCSIDriverUpdate`; the name of the field is upstream's.
fn driver_validate_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    let (spec, before) = (Spot::of(new, "spec"), Spot::of(old, "spec"));
    if spec.bool("attachRequired") != before.bool("attachRequired") {
        Spot::at(new, spec.path.child("attachedRequired")).invalid_as(
            "",
            spec.bool("attachRequired"),
            crate::validate::IMMUTABLE,
            errors,
        );
    }
    spec.immutable(&before, "volumeLifecycleModes", errors);
}

/// `WarningsOnCreate`, `WarningsOnUpdate`
fn driver_warnings(driver: &Tree, old: Option<&Tree>) -> Vec<String> {
    let requests = |tree: &Tree| tree.list_at("spec.tokenRequests").to_vec();
    let set = requests(driver);
    let changed = old.is_none_or(|old| requests(old) != set);
    if set.is_empty() || !changed || driver.path("spec.serviceAccountTokenInSecrets").is_some() {
        return Vec::new();
    }
    vec![TOKENS_IN_SECRETS.to_owned()]
}

const TOKENS_IN_SECRETS: &str = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to \
                                 prevent possible logging of tokens in volume attributes";

/// The longest identifier of a node, in bytes.
const NODE_ID_MAX: usize = 256;

/// `validateCSINodeSpec`
fn node_validate(node: &Tree, errors: &mut Errors) {
    let drivers = Spot::of(node, "spec").items("drivers");
    for (i, driver) in drivers.iter().enumerate() {
        volume::csi_driver_name(driver, "name", errors);
        let id = driver.str("nodeID");
        if id.is_empty() {
            driver.required("nodeID", "", errors);
        }
        if id.len() > NODE_ID_MAX {
            driver.invalid("nodeID", format!("must be {NODE_ID_MAX} characters or less"), errors);
        }
        driver.non_negative("allocatable.count", errors);
        if drivers[..i].iter().any(|other| other.str("name") == driver.str("name")) {
            driver.duplicate("name", errors);
        }
        topology_keys(driver, errors);
    }
}

fn topology_keys(driver: &Spot<'_>, errors: &mut Errors) {
    let keys = driver.list("topologyKeys");
    for (i, key) in keys.iter().enumerate() {
        let text = key.as_str().unwrap_or_default();
        if text.is_empty() {
            driver.required("", "", errors);
        }
        if keys[..i].contains(key) {
            errors.push(corten_object::FieldError::duplicate(&driver.path, key));
        }
        for message in names::label_key(text) {
            driver.invalid_as("", text, message, errors);
        }
    }
}

/// What a driver says of a node stays, but for how many volumes fit. (`ValidateCSINodeUpdate`)
fn node_validate_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    let drivers = |tree: &Tree| tree.list_at("spec.drivers").to_vec();
    for before in drivers(old) {
        for mut after in drivers(new).into_iter().filter(|d| d.str_at("name") == before.str_at("name")) {
            let mut before = before.clone();
            after.remove("allocatable");
            before.remove("allocatable");
            if !after.semantically_equal(&before) {
                let path = corten_tree::FieldPath::of("spec.drivers");
                let schema = corten_schema::builtin();
                let shown = corten_schema::internal::shown_as(schema, "storage.v1.CSINodeDriver", &after);
                errors.push(corten_object::FieldError::invalid(&path, &shown, crate::validate::IMMUTABLE));
            }
        }
    }
}

const HEALTH_CONDITIONS_MAX: usize = 16;
const REASON_MAX: usize = 256;
const MESSAGE_MAX: usize = 1024;

/// `ValidateCSINodeStatusUpdate`
fn node_validate_status(new: &Tree, _: &Tree, errors: &mut Errors) {
    let all = Spot::of(new, "status").items("storageHealth");
    for (i, health) in all.iter().enumerate() {
        if all[..i].iter().any(|other| other.str("name") == health.str("name")) {
            errors.push(corten_object::FieldError::duplicate(&health.path, &Tree::from(health.str("name"))));
        }
        volume::csi_driver_name(health, "name", errors);
        if health.list("healthConditions").len() > HEALTH_CONDITIONS_MAX {
            health.too_many("healthConditions", HEALTH_CONDITIONS_MAX, errors);
            continue;
        }
        health.items("healthConditions").iter().for_each(|condition| health_condition(condition, errors));
    }
}

/// `validateStorageHealthCondition`
fn health_condition(condition: &Spot<'_>, errors: &mut Errors) {
    const STATUSES: &[&str] = &["StorageDegraded", "StorageUnreachable"];
    if !STATUSES.contains(&condition.str("status")) {
        condition.unsupported("status", STATUSES, errors);
    }
    match condition.str("reason") {
        "" => condition.required("reason", "", errors),
        reason => {
            conditions::reason(condition, "reason", errors);
            if reason.len() > REASON_MAX {
                condition.too_long("reason", REASON_MAX, errors);
            }
        }
    }
    if condition.str("message").len() > MESSAGE_MAX {
        condition.too_long("message", MESSAGE_MAX, errors);
    }
    let modes = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    condition.optional_one_of("accessMode", modes, errors);
    condition.optional_one_of("volumeMode", &["Block", "Filesystem"], errors);
}

/// `ValidateCSIStorageCapacity`; of a changed one only what may not change is checked.
fn capacity_validate(capacity: &Tree, errors: &mut Errors) {
    labels::validate_selector(&Spot::of(capacity, "nodeTopology"), errors);
    let class = capacity.str_at("storageClassName");
    for message in names::dns_subdomain(class) {
        Spot::of(capacity, "storageClassName").invalid_as("", class, message, errors);
    }
    let amount = Spot::of(capacity, "capacity");
    if let Some(value) = quantity(amount.tree).filter(|value| value.sign() < 0) {
        amount.invalid_as("", value.to_string(), crate::validate::NEGATIVE, errors);
    }
}
