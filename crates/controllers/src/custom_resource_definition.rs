//! CustomResourceDefinitions: which names they get, when their kind is served, and its end.
//!
//! Upstream: `apiextensions-apiserver/pkg/controller/{status,establish,finalizer,apiapproval,nonstructuralschema}`, five controllers
//! that write one status; here one reconcile derives all of it.

use std::collections::BTreeSet;

use corten_kinds::custom::definition;
use corten_kinds::{Kind, Verbs, id};
use corten_object::{ObjectKey, time};
use corten_tree::{Tree, tree};

use crate::{Action, Changed, Controller, Key, Plan, Wake, Watch, World, Write, status};

/// The controller.
pub struct CustomResourceDefinitionController;

/// Holds a definition until all objects of its kind are gone.
const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// The most objects deleted in one plan; their ends wake the key again.
const BURST: usize = 500;

const WATCHES: &[Watch] = &[
    Watch { kind: Some(id::CUSTOM_RESOURCE_DEFINITION), wake: Wake::By(group_changed) },
    Watch { kind: None, wake: Wake::By(instance_gone) },
];

/// A definition wakes itself and all of its group: a name that it gives up may be another's.
fn group_changed(change: &Changed<'_>, out: &mut Vec<Key>) {
    let object = change.object();
    out.push(object.key());
    let tree = object.to_tree();
    let group = tree.str_at("spec.group");
    for other in change.state.list(id::CUSTOM_RESOURCE_DEFINITION) {
        if other.head.name.split_once('.').is_some_and(|(_, rest)| rest == group) {
            out.push(other.key());
        }
    }
}

/// An object of a kind whose definition waits for the end of all of them.
fn instance_gone(change: &Changed<'_>, out: &mut Vec<Key>) {
    let object = change.object();
    let kind = change.state.registry().get(object.kind);
    if let Some(custom) = kind.custom.as_ref().filter(|custom| custom.terminating) {
        out.push(ObjectKey::new(id::CUSTOM_RESOURCE_DEFINITION, "", &custom.definition));
    }
}

impl Controller for CustomResourceDefinitionController {
    fn name(&self) -> &'static str {
        "custom-resource-definition"
    }

    fn component(&self) -> &'static str {
        "custom-resource-definition-controller"
    }

    /// Upstream's API server does this itself.
    fn user(&self) -> String {
        "system:apiserver".into()
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(object) = world.state.get(key) else { return Plan::empty() };
        let tree = object.to_tree();
        let before = status::of(&tree);
        let mut after = before.clone();
        let mut conditions = Conditions { status: &mut after, now: time::format(world.now) };
        accept_names(world, &tree, &mut conditions);
        judge(&tree, &mut conditions);
        let waits = object.head.finalizers.iter().any(|f| *f == *FINALIZER);
        if !object.head.is_deleting() || !waits {
            return Plan::of(status::write(object, &before, &after).into_iter().collect());
        }
        let established = conditions.is("Established", "True");
        let kind = world.state.registry().group_resource(tree.str_at("spec.group"), tree.str_at("spec.names.plural"));
        let left = kind.filter(|kind| kind.custom.is_some() && established).map(|kind| end_instances(world, kind));
        match left {
            Some(deletes) if !deletes.is_empty() => {
                let message = "CustomResource deletion is in progress";
                conditions.set("Terminating", "True", "InstanceDeletionInProgress", message);
                let mut plan = Plan::of(status::write(object, &before, &after).into_iter().collect());
                plan.stage(deletes.into_iter().flatten());
                plan
            }
            left => {
                let (reason, message) = match left {
                    Some(_) => ("InstanceDeletionCompleted", "removed all instances"),
                    None => ("NeverEstablished", "resource was never established"),
                };
                conditions.set("Terminating", "False", reason, message);
                let mut new = tree.clone();
                new.set("status", after);
                let rest = object.head.finalizers.iter().filter(|f| **f != *FINALIZER);
                new.set("metadata.finalizers", rest.map(|f| Tree::from(f.as_str())).collect::<Vec<Tree>>());
                Plan::of(vec![Write::Update { key: key.clone(), subresource: "status", body: new }.into()])
            }
        }
    }
}

/// The deletes of all objects of a kind, and `None` for each that goes already; empty if there is none left.
fn end_instances(world: &World<'_>, kind: &Kind) -> Vec<Option<Action>> {
    if kind.verbs != Verbs::All {
        return Vec::new();
    }
    let delete = |object: &std::sync::Arc<corten_object::Object>| {
        (!object.head.is_deleting()).then(|| Action::delete_with(object, "Background"))
    };
    world.state.list(kind.id).take(BURST).map(delete).collect()
}

struct Conditions<'s> {
    status: &'s mut Tree,
    now: String,
}

impl Conditions<'_> {
    fn find(&self, kind: &str) -> Option<&Tree> {
        self.status.list_at("conditions").iter().find(|c| c.str_at("type") == kind)
    }

    fn is(&self, kind: &str, status: &str) -> bool {
        self.find(kind).is_some_and(|c| c.str_at("status") == status)
    }

    /// Sets a condition in its place, or behind the others (`apihelpers.SetCRDCondition`).
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let found = self.find(kind).cloned();
        let since = found.as_ref().filter(|c| c.str_at("status") == status).map(|c| c.str_at("lastTransitionTime"));
        let since = since.unwrap_or(&self.now).to_owned();
        let made =
            tree!({"type": kind, "status": status, "lastTransitionTime": since, "reason": reason, "message": message});
        let mut all = self.status.list_at("conditions").to_vec();
        match all.iter_mut().find(|c| c.str_at("type") == kind) {
            Some(old) => *old = made,
            None => all.push(made),
        }
        self.status.insert("conditions", all);
    }
}

/// The names that other definitions of the group have been given.
fn names_in_use(world: &World<'_>, group: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut resources, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for other in world.state.list(id::CUSTOM_RESOURCE_DEFINITION) {
        let other = other.to_tree();
        if other.str_at("spec.group") != group {
            continue;
        }
        let Some(names) = other.path("status.acceptedNames") else { continue };
        for field in ["plural", "singular"] {
            resources.insert(names.str_at(field).to_owned());
        }
        resources.extend(names.list_at("shortNames").iter().filter_map(Tree::as_str).map(str::to_owned));
        for field in ["kind", "listKind"] {
            kinds.insert(names.str_at(field).to_owned());
        }
    }
    (resources, kinds)
}

/// (`controller/status/naming_controller.go` `calculateNamesAndConditions`)
fn accept_names(world: &World<'_>, definition: &Tree, conditions: &mut Conditions<'_>) {
    let wanted = definition.path("spec.names").cloned().unwrap_or_default();
    let accepted = definition.path("status.acceptedNames").cloned().unwrap_or_default();
    if conditions.find("NamesAccepted").is_some() && wanted.semantically_equal(&accepted) {
        return establish(conditions);
    }
    let (resources, kinds) = names_in_use(world, definition.str_at("spec.group"));
    let mut given = accepted.clone();
    given.make_map();
    let mut conflict: Option<(&str, String)> = None;
    let taken = |name: &str| format!("{name:?} is already in use");
    for (field, used, reason) in
        [("plural", &resources, "PluralConflict"), ("singular", &resources, "SingularConflict")]
    {
        let name = wanted.str_at(field);
        if name != accepted.str_at(field) && used.contains(name) {
            conflict = Some((reason, taken(name)));
        } else {
            given.insert(field, name);
        }
    }
    let had: Vec<&str> = accepted.list_at("shortNames").iter().filter_map(Tree::as_str).collect();
    let short: Vec<&str> = wanted.list_at("shortNames").iter().filter_map(Tree::as_str).collect();
    let clashes: Vec<String> =
        short.iter().filter(|n| !had.contains(n) && resources.contains(**n)).map(|n| taken(n)).collect();
    match clashes.as_slice() {
        [] => copy(&mut given, &wanted, "shortNames"),
        [one] => conflict = Some(("ShortNamesConflict", one.clone())),
        many => conflict = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
    }
    for (field, reason) in [("kind", "KindConflict"), ("listKind", "ListKindConflict")] {
        let name = wanted.str_at(field);
        if name != accepted.str_at(field) && kinds.contains(name) {
            conflict = Some((reason, taken(name)));
        } else {
            given.insert(field, name);
        }
    }
    copy(&mut given, &wanted, "categories");
    conditions.status.insert("acceptedNames", given);
    match conflict {
        Some((reason, message)) => {
            conditions.set("NamesAccepted", "False", reason, &message);
            if conditions.find("Established").is_none() {
                conditions.set("Established", "False", "NotAccepted", "not all names are accepted");
            }
        }
        None => {
            conditions.set("NamesAccepted", "True", "NoConflicts", "no conflicts found");
            establish(conditions);
        }
    }
}

fn copy(to: &mut Tree, from: &Tree, field: &'static str) {
    match from.get(field).filter(|value| !value.is_null()) {
        Some(value) => to.insert(field, value.clone()),
        None => drop(to.remove(field)),
    }
}

/// A kind whose names were accepted once is served from then on.
fn establish(conditions: &mut Conditions<'_>) {
    if conditions.is("NamesAccepted", "True") && !conditions.is("Established", "True") {
        conditions.set("Established", "True", "InitialNamesAccepted", "the initial names have been accepted");
    }
}

/// What is said of a definition besides its names.
fn judge(definition: &Tree, conditions: &mut Conditions<'_>) {
    if let Some(found) = definition::approval(definition) {
        let status = if found.approved { "True" } else { "False" };
        let same = |c: &Tree| c.str_at("status") == status && c.str_at("message") == found.message;
        if !conditions.find("KubernetesAPIApprovalPolicyConformant").is_some_and(same) {
            conditions.set("KubernetesAPIApprovalPolicyConformant", status, found.reason, &found.message);
        }
    }
    let faults = definition::structural_faults(definition);
    if !faults.is_empty() {
        let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let message = if texts.len() == 1 { texts[0].clone() } else { format!("[{}]", texts.join(", ")) };
        if conditions.find("NonStructuralSchema").is_none_or(|c| c.str_at("message") != message) {
            conditions.set("NonStructuralSchema", "True", "Violations", &message);
        }
    } else if conditions.find("NonStructuralSchema").is_some() {
        let kept = conditions.status.list_at("conditions").iter().filter(|c| c.str_at("type") != "NonStructuralSchema");
        let kept: Vec<Tree> = kept.cloned().collect();
        conditions.status.insert("conditions", kept);
    }
}
