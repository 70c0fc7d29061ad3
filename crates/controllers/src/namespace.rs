//! Namespace deletion: pods first, then everything else, then the namespace itself
//! (`pkg/controller/namespace/deletion/namespaced_resources_deleter.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_kinds::{Kind, Verbs, id};
use corten_object::{Object, ObjectKey};
use corten_tree::{Tree, tree};
use corten_views::Namespace;

use crate::{Action, Changed, Controller, Key, Plan, Typed, Verb, Wake, Watch, World, Write, status};
use corten_object::conditions::{self, NewCondition};

/// The controller.
pub struct NamespaceController;

/// The finalizer in `spec` that this controller takes away.
const FINALIZER: &str = "kubernetes";
/// The most objects deleted in one plan; their ends wake the key again.
const BURST: usize = 500;

const WATCHES: &[Watch] = &[Watch::itself(id::NAMESPACE), Watch { kind: None, wake: Wake::By(content_changed) }];

/// Content of a namespace that ends has gone, or lost a finalizer, or come in spite of that.
fn content_changed(change: &Changed<'_>, out: &mut Vec<Key>) {
    let object = change.object();
    if object.head.namespace.is_empty() {
        return;
    }
    let same = |old: &Arc<Object>| {
        old.head.finalizers == object.head.finalizers && old.head.is_deleting() == object.head.is_deleting()
    };
    if change.new.is_some() && change.old.is_some_and(same) {
        return;
    }
    let key = ObjectKey::new(id::NAMESPACE, "", &object.head.namespace);
    if change.state.get(&key).is_some_and(|namespace| namespace.head.is_deleting()) {
        out.push(key);
    }
}

impl Controller for NamespaceController {
    fn name(&self) -> &'static str {
        "namespace"
    }

    fn component(&self) -> &'static str {
        "namespace-controller"
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(namespace) = world.get::<Namespace>(key) else { return Plan::empty() };
        if !namespace.head().is_deleting() {
            return Plan::empty();
        }
        let tree = namespace.tree();
        let before = status::of(&tree);
        if namespace.status.phase != "Terminating" {
            return Plan::of(vec![Action::patch_status(&namespace.object, tree!({"phase": "Terminating"}))]);
        }
        if !namespace.spec.finalizers.iter().any(|f| f == FINALIZER) {
            return Plan::empty();
        }
        let content = content(world, namespace.name());
        if content.is_empty() {
            // Others may hold the namespace for longer: it must not say for so long that something remains. One that never said
            // so ends at once.
            let told = conditions::find(&before, "NamespaceContentRemaining").is_some();
            let after = if told { describe(world, &content, &before) } else { before.clone() };
            return match status::write(&namespace.object, &before, &after) {
                Some(write) => Plan::of(vec![write]),
                None => finalize(&namespace, tree),
            };
        }
        let pods_remain = content.iter().any(|(kind, _)| kind.id == id::POD);
        let mut actions: Vec<Action> = content
            .iter()
            .filter(|(kind, _)| !pods_remain || kind.id == id::POD)
            .flat_map(|(_, objects)| objects)
            .filter(|object| !object.head.is_deleting())
            .take(BURST)
            .map(|object| Action::delete_with(object, "Background"))
            .collect();
        let after = describe(world, &content, &before);
        actions.extend(status::write(&namespace.object, &before, &after));
        Plan::of(actions)
    }
}

type Content<'w> = Vec<(&'w Arc<Kind>, Vec<&'w Arc<Object>>)>;

/// What is in the namespace, by kind.
fn content<'w>(world: &World<'w>, name: &str) -> Content<'w> {
    let stored = world.state.registry().iter().filter(|kind| kind.namespaced() && kind.verbs == Verbs::All);
    let of = |kind: &'w Arc<Kind>| (kind, world.state.list_in(kind.id, name).collect::<Vec<_>>());
    let mut seen = std::collections::HashSet::new();
    let mut content: Content<'w> = Vec::new();
    for (kind, mut objects) in stored.map(of) {
        // Two kinds may show the same objects (events).
        objects.retain(|object| seen.insert(object.head.uid.clone()));
        if !objects.is_empty() {
            content.push((kind, objects));
        }
    }
    content
}

fn finalize(namespace: &Typed<Namespace>, mut tree: Tree) -> Plan {
    let rest = namespace.spec.finalizers.iter().filter(|f| *f != FINALIZER);
    let rest: Vec<Tree> = rest.map(|f| Tree::from(f.as_str())).collect();
    tree.set("spec.finalizers", rest);
    let write = Write::Update { key: namespace.key(), subresource: "finalize", body: tree };
    Plan::of(vec![write.into()])
}

/// The conditions that tell what remains.
fn describe(world: &World<'_>, content: &Content<'_>, before: &Tree) -> Tree {
    let mut after = before.clone();
    let mut set = |kind: &str, status: &str, reason: &str, message: String| {
        let same =
            |c: &Tree| c.str_at("status") == status && c.str_at("reason") == reason && c.str_at("message") == message;
        if !conditions::find(&after, kind).is_some_and(same) {
            let condition = NewCondition { kind, status, reason, message };
            conditions::set_in_place(&mut after, &condition, world.now);
        }
    };
    let all_found = "All resources successfully discovered";
    set("NamespaceDeletionDiscoveryFailure", "False", "ResourcesDiscovered", all_found.into());
    let all_parsed = "All legacy kube types successfully parsed";
    set("NamespaceDeletionGroupVersionParsingFailure", "False", "ParsedGroupVersions", all_parsed.into());
    let mut failed: Vec<String> = world
        .last
        .into_iter()
        .flat_map(|outcome| &outcome.failures)
        .filter(|failed| failed.verb == Verb::Delete && !failed.status.is_conflict())
        .map(|failed| failed.status.message.clone())
        .collect();
    failed.sort();
    failed.dedup();
    if failed.is_empty() {
        let deleted = "All content successfully deleted, may be waiting on finalization";
        set("NamespaceDeletionContentFailure", "False", "ContentDeleted", deleted.into());
    } else {
        let (n, list) = (failed.len(), failed.join(", "));
        let message = format!("Failed to delete all resource types, {n} remaining: {list}");
        set("NamespaceDeletionContentFailure", "True", "ContentDeletionFailed", message);
    }
    let mut remaining: Vec<String> = content
        .iter()
        .map(|(kind, objects)| {
            let group = if kind.group.is_empty() { String::from(".") } else { format!(".{}", kind.group) };
            format!("{}{group} has {} resource instances", kind.plural, objects.len())
        })
        .collect();
    remaining.sort();
    if remaining.is_empty() {
        let removed = "All content successfully removed";
        set("NamespaceContentRemaining", "False", "ContentRemoved", removed.into());
    } else {
        let message = format!("Some resources are remaining: {}", remaining.join(", "));
        set("NamespaceContentRemaining", "True", "SomeResourcesRemain", message);
    }
    let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
    for object in content.iter().flat_map(|(_, objects)| objects) {
        for finalizer in &object.head.finalizers {
            *finalizers.entry(finalizer).or_default() += 1;
        }
    }
    if finalizers.is_empty() {
        let gone = "All content-preserving finalizers finished";
        set("NamespaceFinalizersRemaining", "False", "ContentHasNoFinalizers", gone.into());
    } else {
        let list: Vec<String> = finalizers.iter().map(|(f, n)| format!("{f} in {n} resource instances")).collect();
        let message = format!("Some content in the namespace has finalizers remaining: {}", list.join(", "));
        set("NamespaceFinalizersRemaining", "True", "SomeFinalizersRemain", message);
    }
    after
}
