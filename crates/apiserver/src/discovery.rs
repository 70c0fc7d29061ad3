//! What is served: the lists that clients read first. All of it is computed from the registry.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use corten_kinds::custom::version_rank;
use corten_kinds::{Kind, Registry, Subresource, SubresourceKind};
use corten_tree::{Tree, tree};

use crate::http::Clause;

/// Groups in the order in which clients look a short name up (`pkg/controlplane/apiserver/aggregator.go`, priorities).
const GROUP_ORDER: &[&str] = &[
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// The aggregated forms of `/api` and `/apis`, made once for each registry.
#[derive(Default)]
pub(crate) struct Discovery(Mutex<Option<Made>>);

struct Made {
    registry: Arc<Registry>,
    core: Bytes,
    groups: Bytes,
}

impl Discovery {
    /// The form of `/api` (`core`) or `/apis`.
    pub fn aggregated(&self, registry: &Arc<Registry>, core: bool) -> Bytes {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if made.as_ref().is_none_or(|made| !Arc::ptr_eq(&made.registry, registry)) {
            let (core, groups) = (aggregated(registry, true), aggregated(registry, false));
            *made = Some(Made { registry: registry.clone(), core, groups });
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

/// The groups that have kinds, in order.
fn group_names(registry: &Registry) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for kind in registry.iter() {
        if !names.iter().any(|n| **n == *kind.group) {
            names.push(kind.group.to_string());
        }
    }
    let rank = |name: &String| match GROUP_ORDER.iter().position(|g| g == name) {
        Some(known) => (known, String::new()),
        None => (GROUP_ORDER.len(), name.clone()),
    };
    names.sort_by_cached_key(rank);
    names
}

/// The versions of a group, newest first.
fn versions(registry: &Registry, group: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for kind in registry.iter().filter(|k| *k.group == *group) {
        for version in kind.served_versions() {
            if !all.iter().any(|v| **v == **version) {
                all.push(version.to_string());
            }
        }
    }
    all.sort_by_cached_key(|v| std::cmp::Reverse(version_rank(v)));
    all
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// `/api`
pub(crate) fn core_versions() -> Tree {
    tree!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

fn group_tree(registry: &Registry, group: &str) -> Tree {
    let version = |v: &String| tree!({"groupVersion": (group_version(group, v)), "version": (v.as_str())});
    let all: Vec<Tree> = versions(registry, group).iter().map(version).collect();
    let preferred = all.first().cloned().unwrap_or_default();
    tree!({"name": group, "versions": (Tree::List(all)), "preferredVersion": preferred})
}

/// `/apis`
pub(crate) fn groups(registry: &Registry) -> Tree {
    let names = group_names(registry);
    let groups = names.iter().filter(|n| !n.is_empty()).map(|n| group_tree(registry, n)).collect();
    tree!({"kind": "APIGroupList", "apiVersion": "v1", "groups": (Tree::List(groups))})
}

/// `/apis/GROUP`
pub(crate) fn group(registry: &Registry, group: &str) -> Option<Tree> {
    registry.iter().any(|k| *k.group == *group).then(|| {
        let mut out = tree!({"kind": "APIGroup", "apiVersion": "v1"});
        if let Tree::Map(map) = group_tree(registry, group) {
            for (key, value) in map {
                out.insert(key, value);
            }
        }
        out
    })
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
fn aggregated(registry: &Registry, core: bool) -> Bytes {
    let mut items = Vec::new();
    for group in group_names(registry).iter().filter(|g| g.is_empty() == core) {
        let versions = versions(registry, group).into_iter().map(|version| {
            let resources = kinds(registry, group, &version).map(|k| aggregated_resource(k, group, &version)).collect();
            tree!({"version": (version.as_str()), "resources": (Tree::List(resources)), "freshness": "Current"})
        });
        let versions = Tree::List(versions.collect());
        let mut metadata = tree!({"creationTimestamp": null});
        if !core {
            metadata = tree!({"name": (group.as_str()), "creationTimestamp": null});
        }
        items.push(tree!({"metadata": metadata, "versions": versions}));
    }
    let list = tree!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": (Tree::List(items))});
    list.to_json().into()
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
    use super::*;

    #[test]
    fn versions_are_ordered_by_stability() {
        let mut all = vec!["v1beta1", "v2", "foo2", "v1alpha3", "v11", "v1", "foo1", "v1beta2", "v11alpha2"];
        all.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
        let wanted = ["v11", "v2", "v1", "v1beta2", "v1beta1", "v11alpha2", "v1alpha3", "foo1", "foo2"];
        assert_eq!(all, wanted);
    }

    #[test]
    fn every_kind_is_in_both_forms() {
        let registry = Registry::builtin();
        let aggregated = String::from_utf8(aggregated(&registry, false).to_vec()).unwrap();
        for kind in registry.iter() {
            for version in &kind.versions {
                let list = resources(&registry, &kind.group, version).unwrap().to_json_string();
                assert!(list.contains(&format!("\"name\":\"{}\"", kind.plural)));
            }
            assert!(kind.group.is_empty() || aggregated.contains(&format!("\"resource\":\"{}\"", kind.plural)));
        }
    }
}
