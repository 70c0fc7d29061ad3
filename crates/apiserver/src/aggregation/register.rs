//! The APIServices of this server's own groups (`kube-aggregator/pkg/controllers/autoregister`,
//! `pkg/controlplane/controller/crdregistration`).

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_client::{Api, DeleteOptions, Target, Write, WriteOptions};
use corten_kinds::{Registry, id};
use corten_object::{Object, ObjectKey, Status};
use corten_tree::{Tree, tree};

use super::priorities;
use crate::core::Core;

/// The label of APIServices that are kept in line with what is served.
pub(super) const LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";
/// Made, put right and removed once, at a start.
const ON_START: &str = "onstart";
/// Kept as it should be at any time.
const ALWAYS: &str = "true";

/// The wanted APIServices by name.
type Wanted = BTreeMap<String, Tree>;

/// An APIService of a group version of this server.
fn service(group: &str, version: &str, (of_group, of_version): (i64, i64), managed: &str) -> (String, Tree) {
    let name = format!("{version}.{group}");
    let mut spec = tree!({});
    if !group.is_empty() {
        spec.insert("group", group);
    }
    spec.insert("version", version);
    spec.insert("groupPriorityMinimum", of_group);
    spec.insert("versionPriority", of_version);
    let tree = tree!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": (name.as_str()), "labels": {LABEL: managed}}, "spec": spec});
    (name, tree)
}

/// Those of built-in groups.
fn builtin(registry: &Registry) -> Wanted {
    let kinds = registry.iter().filter(|kind| kind.custom.is_none());
    let versions = kinds.flat_map(|kind| kind.served_versions().map(move |version| (&*kind.group, &**version)));
    let with_priority = versions.filter_map(|(g, v)| Some(service(g, v, priorities::of(g, v)?, ON_START)));
    with_priority.collect()
}

/// Those of definitions' groups; a version of a built-in group has its own already.
fn custom(registry: &Registry) -> Wanted {
    let kinds = registry.iter().filter(|kind| kind.custom.is_some());
    let versions = kinds.flat_map(|kind| kind.served_versions().map(move |version| (&*kind.group, &**version)));
    let mut all: Wanted = versions.map(|(g, v)| service(g, v, priorities::CUSTOM, ALWAYS)).collect();
    for name in builtin(registry).keys() {
        all.remove(name);
    }
    all
}

/// What has to be written so that the managed objects are as wanted (`checkAPIService`).
fn plan(wanted: &Wanted, there: &[Arc<Object>], managed: &str) -> Vec<Write> {
    let mut writes = Vec::new();
    let key = |name: &str| ObjectKey::new(id::API_SERVICE, "", name);
    for object in there {
        let automanaged = object.head.labels.get(LABEL) == Some(managed);
        let name = object.head.name.as_str();
        match wanted.get(name) {
            _ if !automanaged => {}
            None => {
                let options = DeleteOptions { uid: Some(object.head.uid.to_string()), ..DeleteOptions::default() };
                writes.push(Write::Delete { key: key(name), options });
            }
            Some(tree) => {
                let mut now = object.to_tree();
                let spec = tree.path("spec").cloned().unwrap_or_default();
                if !now.path("spec").is_some_and(|have| have.semantically_equal(&spec)) {
                    now.insert("spec", spec);
                    writes.push(Write::Update { target: Target::object(key(name)), body: now });
                }
            }
        }
    }
    for (name, tree) in wanted {
        if !there.iter().any(|object| object.head.name.as_str() == name) {
            writes.push(Write::Create { target: Target::object(key(name)), body: tree.clone() });
        }
    }
    writes
}

fn there(core: &Core) -> Vec<Arc<Object>> {
    core.cache.read().list(id::API_SERVICE).cloned().collect()
}

async fn execute(api: &dyn Api, writes: Vec<Write>) -> Result<(), Status> {
    let done = writes.into_iter().map(|write| async move {
        match api.write(write, WriteOptions::default()).await.map_err(|failure| failure.status) {
            // Somebody was faster: that is an event, and it is looked at again.
            Err(status) if status.is_already_exists() || status.is_not_found() || status.is_conflict() => Ok(()),
            other => other.map(drop),
        }
    });
    futures::future::join_all(done).await.into_iter().collect()
}

/// Puts the APIServices of built-in groups right.
pub(crate) async fn at_start(core: &Core, api: &dyn Api) -> Result<(), Status> {
    execute(api, plan(&builtin(&core.registry.now()), &there(core), ON_START)).await
}

/// Puts the APIServices of definitions' groups right.
pub(super) async fn definitions(core: &Core, api: &dyn Api) -> Result<(), Status> {
    execute(api, plan(&custom(&core.registry.now()), &there(core), ALWAYS)).await
}

#[cfg(test)]
mod tests {
    use corten_base::Revision;

    use super::*;

    fn object(tree: &Tree) -> Arc<Object> {
        Arc::new(Object::parse(id::API_SERVICE, tree.to_json().into(), Revision(3), &[] as &[&str]).unwrap())
    }

    fn shown(writes: &[Write]) -> Vec<String> {
        let one = |write: &Write| match write {
            Write::Create { target, .. } => format!("create {}", target.key.name),
            Write::Update { target, body } => format!("update {} {}", target.key.name, body.path("spec").unwrap()),
            Write::Delete { key, .. } => format!("delete {}", key.name),
            Write::Patch { .. } => "patch".into(),
        };
        writes.iter().map(one).collect()
    }

    #[test]
    fn apiservice_registration_makes_mends_and_removes_what_it_manages() {
        let wanted: Wanted =
            [service("a.b", "v1", (1000, 100), ALWAYS), service("a.b", "v2", (1000, 100), ALWAYS)].into();
        let one = |name: &str, group: &str, managed: &str| {
            object(&tree!({"metadata": {"name": name, "uid": "u", "labels": {LABEL: managed}},
                "spec": {"group": group, "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 100}}))
        };
        assert_eq!(shown(&plan(&wanted, &[one("v1.a.b", "a.b", ALWAYS)], ALWAYS)), ["create v2.a.b"]);
        let mended = plan(&wanted, &[one("v1.a.b", "x", ALWAYS), one("v2.a.b", "x", "false")], ALWAYS);
        let spec = r#"{"group":"a.b","version":"v1","groupPriorityMinimum":1000,"versionPriority":100}"#;
        assert_eq!(shown(&mended), [format!("update v1.a.b {spec}")]);
        let gone = [one("v1.c", "c", ALWAYS), one("v1.d", "d", ON_START)];
        assert_eq!(shown(&plan(&Wanted::new(), &gone, ALWAYS)), ["delete v1.c"]);
    }

    #[test]
    fn apiservice_registration_covers_every_builtin_group_but_its_own() {
        let wanted = builtin(&Registry::builtin());
        assert_eq!(wanted["v2.autoscaling"].i64_at("spec.versionPriority"), Some(30));
        assert!(wanted.contains_key("v1.") && !wanted.contains_key("v1.apiregistration.k8s.io"));
        for kind in Registry::builtin().iter().filter(|k| *k.group != *"apiregistration.k8s.io") {
            for version in kind.served_versions() {
                let name = format!("{version}.{}", kind.group);
                assert!(wanted.contains_key(&name), "{name} has no priority");
            }
        }
    }
}
