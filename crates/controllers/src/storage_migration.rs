//! StorageVersionMigrations: all objects of a resource are written once more, so that each lies in the store as it is stored today.
//!
//! Upstream: `pkg/controller/storageversionmigrator`, three controllers: which migration of a resource runs (`migrationrunner.go`),
//! from which revision on objects need nothing (`resourceversion.go`), and the writes (`storageversionmigrator.go`). Here one
//! reconcile derives all of it.

use std::sync::Arc;
use std::time::Duration;

use corten_kinds::{Kind, Verbs, id};
use corten_object::{Object, ObjectKey, Reason, time};
use corten_tree::{Tree, tree};

use crate::{Action, Changed, Controller, Key, Plan, Verb, Wake, Watch, World, status};

/// The controller.
pub struct StorageMigration;

/// How long a resource that nobody serves may still come.
const RESOURCE_WITHIN: Duration = Duration::from_secs(60);
/// Objects of one stage: a failure in it ends the plan.
const BATCH: usize = 500;

const RUNNING: &str = "Running";
const SUCCEEDED: &str = "Succeeded";
const FAILED: &str = "Failed";

const WATCHES: &[Watch] = &[
    Watch { kind: Some(id::STORAGE_VERSION_MIGRATION), wake: Wake::By(migration_changed) },
    Watch { kind: Some(id::CUSTOM_RESOURCE_DEFINITION), wake: Wake::By(definition_changed) },
];

/// A migration wakes itself and all of its resource: they run one after the other.
fn migration_changed(change: &Changed<'_>, out: &mut Vec<Key>) {
    out.push(change.object().key());
    let resource = resource_of(&change.object().to_tree());
    out.extend(migrations(change, |other| *other == resource));
}

/// A definition wakes the migrations that wait for its resource.
fn definition_changed(change: &Changed<'_>, out: &mut Vec<Key>) {
    let name = change.object().head.name.as_str();
    out.extend(migrations(change, |(group, resource)| format!("{resource}.{group}") == name));
}

fn migrations<'c>(change: &Changed<'c>, wanted: impl Fn(&(String, String)) -> bool) -> Vec<Key> {
    let all = change.state.list(id::STORAGE_VERSION_MIGRATION);
    all.filter(|other| wanted(&resource_of(&other.to_tree()))).map(|other| other.key()).collect()
}

/// Group and plural name.
fn resource_of(migration: &Tree) -> (String, String) {
    let text = |field| migration.str_at(field).to_owned();
    (text("spec.resource.group"), text("spec.resource.resource"))
}

impl Controller for StorageMigration {
    fn name(&self) -> &'static str {
        "storage-version-migrator"
    }

    fn component(&self) -> &'static str {
        "storage-version-migrator-controller"
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(object) = world.state.get(key) else { return Plan::empty() };
        let tree = object.to_tree();
        let ended = is(&tree, SUCCEEDED) || is(&tree, FAILED);
        match (is(&tree, RUNNING), ended) {
            (true, true) => finish(world, object, &tree),
            (false, true) => Plan::empty(),
            (false, false) if is_next(world, object, &tree) => begin(world, object, &tree),
            (false, false) => Plan::empty(),
            (true, false) => run(world, object, &tree),
        }
    }
}

fn is(migration: &Tree, condition: &str) -> bool {
    let conditions = migration.list_at("status.conditions").iter();
    conditions.into_iter().any(|c| c.str_at("type") == condition && c.str_at("status") == "True")
}

/// Whether this migration is the one of its resource to run now: none does, and it is the oldest. (`getSVMsForResource`)
fn is_next(world: &World<'_>, object: &Arc<Object>, tree: &Tree) -> bool {
    let resource = resource_of(tree);
    let age = |object: &Object| (object.head.created, object.head.name.clone());
    world.state.list(id::STORAGE_VERSION_MIGRATION).filter(|other| other.head.uid != object.head.uid).all(|other| {
        let other_tree = other.to_tree();
        let ended = is(&other_tree, SUCCEEDED) || is(&other_tree, FAILED);
        resource_of(&other_tree) != resource || ended || !is(&other_tree, RUNNING) && age(object) < age(other)
    })
}

/// (`markAsActive`)
fn begin(world: &World<'_>, object: &Arc<Object>, tree: &Tree) -> Plan {
    let mut plan = Plan::default();
    let said = format!("Migration {} is running", object.head.name);
    plan.stage(definition(world, tree).map(|definition| {
        let generation = definition.head.generation;
        let condition = condition(world, "StorageMigrating", "True", "MigrationRunning", &said, generation);
        let mut after = status::of(&definition.to_tree());
        set(&mut after, condition);
        Action::patch_status(definition, tree!({"conditions": (after.list_at("conditions").to_vec())})).sent_as_patch()
    }));
    let mut after = status::of(tree);
    set_running(world, &mut after, &running_message(None, ""));
    plan.stage(status::write(object, &status::of(tree), &after));
    plan
}

/// (`cleanupAdmission`, `finishCRDMigration`)
fn finish(world: &World<'_>, object: &Arc<Object>, tree: &Tree) -> Plan {
    let mut plan = Plan::default();
    plan.stage(definition(world, tree).map(|definition| {
        let (generation, crd) = (definition.head.generation, definition.to_tree());
        let mut after = status::of(&crd);
        let observed = after.list_at("conditions").iter().find(|c| c.str_at("type") == "StorageMigrating");
        let same = observed.and_then(|c| c.i64_at("observedGeneration")) == Some(generation);
        let (reason, said) = match (is(tree, SUCCEEDED), same) {
            (true, true) => {
                ("MigrationSucceeded", "The migration has succeeded and the stored versions have been updated")
            }
            (true, false) => (
                "MigrationSucceeded",
                "The migration has succeeded but the stored versions have not been updated due to a generation mismatch",
            ),
            (false, _) => ("MigrationFailed", "The migration has failed"),
        };
        set(&mut after, condition(world, "StorageMigrating", "False", reason, said, generation));
        let mut patch = tree!({"conditions": (after.list_at("conditions").to_vec())});
        let storage = crd.list_at("spec.versions").iter().find(|v| v.get("storage") == Some(&Tree::Bool(true)));
        if let Some(version) = storage.filter(|_| same) {
            patch.insert("storedVersions", vec![Tree::from(version.str_at("name"))]);
        }
        Action::patch_status(definition, patch).sent_as_patch()
    }));
    let mut after = status::of(tree);
    let generation = object.head.generation;
    set(&mut after, condition(world, RUNNING, "False", "MigrationCompleted", "Migration completed", generation));
    plan.stage(status::write(object, &status::of(tree), &after));
    plan
}

/// The definition of the resource, if it is a custom one.
fn definition<'w>(world: &World<'w>, migration: &Tree) -> Option<&'w Arc<Object>> {
    let (group, resource) = resource_of(migration);
    world.state.get(&ObjectKey::new(id::CUSTOM_RESOURCE_DEFINITION, "", format!("{resource}.{group}").as_str()))
}

fn run(world: &World<'_>, object: &Arc<Object>, tree: &Tree) -> Plan {
    let before = status::of(tree);
    let mut after = before.clone();
    let (group, plural) = resource_of(tree);
    let until = before.str_at("resourceVersion").parse::<u64>().ok();
    let Some(kind) = world.state.registry().group_resource(&group, &plural) else {
        let left = object.head.created.map(|at| at + RESOURCE_WITHIN).filter(|end| *end > world.now);
        if let Some(end) = left {
            return Plan { requeue: Some(end.duration_since(world.now).unsigned_abs()), ..Plan::default() };
        }
        match until {
            None => fail(world, &mut after, "resource does not exist in discovery"),
            Some(_) => {
                fail(world, &mut after, "migration encountered unhandled error: unable to obtain GVR from discovery");
            }
        }
        return Plan::of(status::write(object, &before, &after).into_iter().collect());
    };
    let Some(until) = until else {
        if matches!(kind.verbs, Verbs::All | Verbs::OneByOne) {
            after.insert("resourceVersion", world.state.revision().to_string());
        } else {
            let version = kind.versions.first().map_or("", |version| version);
            let why = format!(
                "resource {:?} does not support discovery operations: [update patch list]",
                format!("{group}/{version}, Resource={plural}")
            );
            fail(world, &mut after, &why);
        }
        return Plan::of(status::write(object, &before, &after).into_iter().collect());
    };
    migrate(world, object, (before, after), kind, until)
}

/// (`runMigration`)
fn migrate(
    world: &World<'_>,
    object: &Arc<Object>,
    (before, mut after): (Tree, Tree),
    kind: &Arc<Kind>,
    until: u64,
) -> Plan {
    let stored = world.state.registry().get(kind.stored_as.unwrap_or(kind.id));
    let mut total = 0;
    let mut old = Vec::new();
    for candidate in world.state.list(stored.id) {
        total += 1;
        if candidate.head.revision.0 <= until {
            old.push(candidate);
        }
    }
    let failures = world.last.map(|last| last.failures.as_slice()).unwrap_or_default();
    let failed = || failures.iter().filter(|f| f.verb == Verb::Patch && f.key.kind == stored.id);
    let error = failed().find(|f| !f.status.is_conflict() && !f.status.is_not_found());
    if let Some(error) = error.filter(|error| !is_retriable(error.status.reason)) {
        let rest = failed().count();
        set_running(world, &mut after, &running_message(Some((rest, total)), ""));
        let why =
            format!("{rest}/{total} not yet migrated. migration encountered unhandled error: {}", error.status.message);
        fail(world, &mut after, &why);
        return Plan::of(status::write(object, &before, &after).into_iter().collect());
    }
    let mut plan = Plan::default();
    if let Some(error) = error {
        let mut retried = after.clone();
        let said = running_message(Some((failed().count(), total)), &error.status.message);
        set_running(world, &mut retried, &said);
        if let Some(write) = status::write(object, &before, &retried) {
            // The next round starts from the status that says so.
            return Plan { requeue: Some(Duration::from_secs(1)), ..Plan::of(vec![write]) };
        }
    }
    let typed = tree!({"apiVersion": (stored.api_version()), "kind": (stored.kind.clone())});
    for batch in old.chunks(BATCH) {
        plan.stage(batch.iter().map(|candidate| Action::patch(candidate, typed.clone()).sent_as_patch()));
    }
    set_running(world, &mut after, &running_message(Some((0, total)), ""));
    let done = condition(world, SUCCEEDED, "True", "StorageVersionMigrationSucceeded", "Migration completed", 0);
    set(&mut after, done);
    plan.stage(status::write(object, &before, &after));
    plan
}

/// (`isRetriableError`)
fn is_retriable(reason: Reason) -> bool {
    use Reason::{InternalError, ServerTimeout, ServiceUnavailable, Timeout, TooManyRequests};
    matches!(reason, InternalError | ServerTimeout | ServiceUnavailable | Timeout | TooManyRequests)
}

/// (`migrationRunningMessage`)
fn running_message(counts: Option<(usize, usize)>, transient: &str) -> String {
    let mut out = String::from("The migration is running");
    match counts {
        Some((_, 0)) | None => {}
        Some((0, total)) => out.push_str(&format!(", {total} objects verified migrated")),
        Some((rest, total)) => out.push_str(&format!(", {rest}/{total} objects not yet migrated")),
    }
    if !transient.is_empty() {
        out.push_str(&format!("; transient error: {transient}"));
    }
    out
}

fn set_running(world: &World<'_>, status: &mut Tree, message: &str) {
    set(status, condition(world, RUNNING, "True", "MigrationRunning", message, 0));
}

fn fail(world: &World<'_>, status: &mut Tree, message: &str) {
    set(status, condition(world, FAILED, "True", "StorageVersionMigrationFailed", message, 0));
}

/// A condition as of now; a generation of 0 is not said.
fn condition(world: &World<'_>, kind: &str, status: &str, reason: &str, message: &str, generation: i64) -> Tree {
    let mut made = tree!({"type": kind, "status": status});
    if generation != 0 {
        made.insert("observedGeneration", generation);
    }
    made.insert("lastTransitionTime", time::format(world.now));
    made.insert("reason", reason);
    made.insert("message", message);
    made
}

/// Sets a condition in its place, or behind the others; its time stays while its status does. (`meta.SetStatusCondition`)
fn set(status: &mut Tree, mut made: Tree) {
    let mut all = status.list_at("conditions").to_vec();
    match all.iter_mut().find(|c| c.str_at("type") == made.str_at("type")) {
        Some(old) => {
            if old.str_at("status") == made.str_at("status") {
                made.insert("lastTransitionTime", old.str_at("lastTransitionTime"));
            }
            *old = made;
        }
        None => all.push(made),
    }
    status.insert("conditions", all);
}
