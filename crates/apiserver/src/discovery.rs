//! What is served: the lists that clients read first. All of it is computed from the registry and the APIServices.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use corten_kinds::{Kind, Registry, Subresource, SubresourceKind};
use corten_tree::{Tree, tree};

use crate::aggregation::{Group, Served};
use crate::http::Clause;

/// The aggregated forms of `/api` and `/apis`, made once for each state of them.
#[derive(Default)]
pub(crate) struct Discovery(Mutex<Option<Made>>);

struct Made {
    of: Served,
    core: Bytes,
    groups: Bytes,
}

impl Discovery {
    /// The form of `/api` (`core`) or `/apis`.
    pub fn aggregated(&self, served: Served, core: bool) -> Bytes {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if made.as_ref().is_none_or(|made| !made.of.same(&served)) {
            let (core, groups) = (aggregated(&served, true), aggregated(&served, false));
            *made = Some(Made { of: served, core, groups });
        }
        let made = made.as_ref().expect("it was just made");
        if core { made.core.clone() } else { made.groups.clone() }
    }
}

/// Whether the client takes the aggregated form.
pub(crate) fn wants_aggregated(accepted: &[Clause]) -> bool {
    accepted.iter().any(|clause| {
        matches!(&*clause.media, "application/json" | "application/*" | "*/*")
            && clause.param("g") == "apidiscovery.k8s.io"
            && clause.param("v") == "v2"
            && clause.param("as") == "APIGroupDiscoveryList"
    })
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// `/api`
pub(crate) fn core_versions() -> Tree {
    tree!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

fn group_tree(group: &Group) -> Tree {
    let version = |v: &String| tree!({"groupVersion": (group_version(&group.name, v)), "version": (v.as_str())});
    let all: Vec<Tree> = group.versions.iter().map(version).collect();
    let preferred = all.first().cloned().unwrap_or_default();
    tree!({"name": (group.name.as_str()), "versions": (Tree::List(all)), "preferredVersion": preferred})
}

/// `/apis`
pub(crate) fn groups(served: &Served) -> Tree {
    let groups = served.groups();
    let groups = groups.iter().filter(|group| !group.name.is_empty()).map(group_tree).collect();
    tree!({"kind": "APIGroupList", "apiVersion": "v1", "groups": (Tree::List(groups))})
}

/// `/apis/GROUP`
pub(crate) fn group(served: &Served, group: &str) -> Option<Tree> {
    let group = served.groups().into_iter().find(|known| known.name == group)?;
    let mut out = tree!({"kind": "APIGroup", "apiVersion": "v1"});
    if let Tree::Map(map) = group_tree(&group) {
        for (key, value) in map {
            out.insert(key, value);
        }
    }
    Some(out)
}

fn kinds<'r>(registry: &'r Registry, group: &'r str, version: &'r str) -> impl Iterator<Item = &'r Kind> {
    let served = move |k: &&std::sync::Arc<Kind>| *k.group == *group && k.serves(version);
    registry.iter().filter(served).map(|k| &**k)
}

fn subresources<'k>(kind: &'k Kind, version: &'k str) -> impl Iterator<Item = &'k Subresource> {
    kind.subresources.iter().filter(move |sub| kind.subresource_at(version, sub.name).is_some())
}

fn texts<S: AsRef<str>>(list: impl IntoIterator<Item = S>) -> Tree {
    Tree::List(list.into_iter().map(|t| Tree::from(t.as_ref())).collect())
}

/// `/api/v1`, `/apis/GROUP/VERSION`
pub(crate) fn resources(registry: &Registry, group: &str, version: &str) -> Option<Tree> {
    let mut list = Vec::new();
    for kind in kinds(registry, group, version) {
        let mut out = tree!({"name": (&kind.plural), "singularName": (&kind.singular),
            "namespaced": (kind.namespaced()), "kind": (&kind.kind), "verbs": (texts(kind.verbs.names()))});
        if !kind.short.is_empty() {
            out.insert("shortNames", texts(&kind.short));
        }
        if !kind.categories.is_empty() {
            out.insert("categories", texts(&kind.categories));
        }
        list.push(out);
        for sub in subresources(kind, version) {
            let name = format!("{}/{}", kind.plural, sub.name);
            let mut out = tree!({"name": name, "singularName": "", "namespaced": (kind.namespaced())});
            let (g, v, k) = sub.body.unwrap_or(("", "", ""));
            if !v.is_empty() && (g, v) != (group, version) {
                out.insert("group", g);
                out.insert("version", v);
            }
            out.insert("kind", if k.is_empty() { &*kind.kind } else { k });
            out.insert("verbs", texts(sub.verbs));
            list.push(out);
        }
    }
    (!list.is_empty()).then(|| {
        tree!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": (group_version(group, version)),
            "resources": (Tree::List(list))})
    })
}

/// `/api` and `/apis` in one piece (`apidiscovery.k8s.io/v2 APIGroupDiscoveryList`).
fn aggregated(served: &Served, core: bool) -> Bytes {
    let mut items = Vec::new();
    for group in served.groups().iter().filter(|group| group.name.is_empty() == core) {
        let versions: Vec<Tree> =
            group.versions.iter().filter_map(|version| aggregated_version(served, &group.name, version)).collect();
        if versions.is_empty() {
            continue;
        }
        let metadata = if core { tree!({}) } else { tree!({"name": (group.name.as_str())}) };
        items.push(tree!({"metadata": metadata, "versions": versions}));
    }
    let list = tree!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": (Tree::List(items))});
    list.to_json().into()
}

/// What is served here, or what another server has said of itself; `None` if there is only an APIService that says so.
fn aggregated_version(served: &Served, group: &str, version: &str) -> Option<Tree> {
    if let Some(service) = served.table.remote(group, version) {
        let said = served.documents.get(&service.name);
        let mut out = tree!({"version": version});
        let resources = said.and_then(|said| said.discovery.get("resources"));
        if let Some(resources) = resources.filter(|r| !r.is_empty_value()) {
            out.insert("resources", with_response_kinds(resources));
        }
        out.insert("freshness", if said.is_some_and(|said| said.current) { "Current" } else { "Stale" });
        return Some(out);
    }
    let resources: Vec<Tree> =
        kinds(&served.registry, group, version).map(|kind| aggregated_resource(kind, group, version)).collect();
    let out = tree!({"version": version, "resources": (resources.clone()), "freshness": "Current"});
    (!resources.is_empty()).then_some(out)
}

/// Older clients break on resources without a kind (`fetchFreshDiscoveryForService`).
fn with_response_kinds(resources: &Tree) -> Tree {
    let nothing = || tree!({"group": "", "version": "", "kind": ""});
    let mut resources = resources.clone();
    for resource in resources.as_list_mut().into_iter().flatten() {
        resource.set_default("responseKind", nothing());
        for sub in resource.get_mut("subresources").and_then(Tree::as_list_mut).into_iter().flatten() {
            sub.set_default("responseKind", nothing());
        }
    }
    resources
}

fn aggregated_resource(kind: &Kind, group: &str, version: &str) -> Tree {
    let gvk = |(g, v, k): (&str, &str, &str)| tree!({"group": g, "version": v, "kind": k});
    let scope = if kind.namespaced() { "Namespaced" } else { "Cluster" };
    let mut out = tree!({"resource": (&kind.plural), "responseKind": (gvk((group, version, &kind.kind))),
        "scope": scope, "singularResource": (&kind.singular), "verbs": (texts(kind.verbs.names()))});
    if !kind.short.is_empty() {
        out.insert("shortNames", texts(&kind.short));
    }
    if !kind.categories.is_empty() {
        out.insert("categories", texts(&kind.categories));
    }
    let subresources = subresources(kind, version).map(|sub| {
        let own = (group, version, &*kind.kind);
        let body = match (sub.kind, sub.body) {
            (SubresourceKind::Connect, Some((_, _, body))) => ("", "v1", body),
            (_, Some(body)) => body,
            (_, None) => own,
        };
        tree!({"subresource": (sub.name), "responseKind": (gvk(body)), "verbs": (texts(sub.verbs))})
    });
    let subresources: Vec<Tree> = subresources.collect();
    if !subresources.is_empty() {
        out.insert("subresources", Tree::List(subresources));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn every_kind_is_in_both_forms() {
        let registry = Arc::new(Registry::builtin());
        let served = Served { registry: registry.clone(), table: Arc::default(), documents: Arc::default() };
        let aggregated = String::from_utf8(aggregated(&served, false).to_vec()).unwrap();
        for kind in registry.iter() {
            for version in &kind.versions {
                let list = resources(&registry, &kind.group, version).unwrap().to_json_string();
                assert!(list.contains(&format!("\"name\":\"{}\"", kind.plural)));
            }
            assert!(kind.group.is_empty() || aggregated.contains(&format!("\"resource\":\"{}\"", kind.plural)));
        }
    }
}
