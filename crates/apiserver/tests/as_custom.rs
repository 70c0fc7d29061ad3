//! Built-in kinds again as custom resources: their published schema is registered as a definition, and the same requests get the
//! same answers from both.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use common::Fixture;
use common::caller::Caller;
use corten_tree::{Tree, tree};
use hyper::Method;

const GROUP: &str = "copy.example.com";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";

/// A kind and its copy.
struct Copied {
    kind: &'static str,
    plural: &'static str,
    api_version: &'static str,
    component: &'static str,
}

const CONFIG_MAP: Copied =
    Copied { kind: "ConfigMap", plural: "configmaps", api_version: "v1", component: "io.k8s.api.core.v1.ConfigMap" };
const ROLE: Copied = Copied {
    kind: "Role",
    plural: "roles",
    api_version: "rbac.authorization.k8s.io/v1",
    component: "io.k8s.api.rbac.v1.Role",
};
const DEPLOYMENT: Copied = Copied {
    kind: "Deployment",
    plural: "deployments",
    api_version: "apps/v1",
    component: "io.k8s.api.apps.v1.Deployment",
};

impl Copied {
    fn root(&self) -> String {
        match self.api_version.contains('/') {
            true => format!("/apis/{}", self.api_version),
            false => format!("/api/{}", self.api_version),
        }
    }

    /// Where the objects are: those of the kind, and those of its copy.
    fn collections(&self) -> [String; 2] {
        let plural = self.plural;
        [
            format!("{}/namespaces/default/{plural}", self.root()),
            format!("/apis/{GROUP}/v1/namespaces/default/{plural}"),
        ]
    }

    /// What the copy says, in the words of the kind.
    fn translated(&self, text: &str) -> String {
        let group = self.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let resource =
            |group: &str| if group.is_empty() { self.plural.to_owned() } else { format!("{}.{group}", self.plural) };
        let dot = if group.is_empty() { String::new() } else { format!(".{group}") };
        text.replace(&resource(GROUP), &resource(group))
            .replace(&format!("{}.{GROUP}", self.kind), &format!("{}{dot}", self.kind))
            .replace(&format!("{GROUP}/v1, Kind"), &format!("{group}/v1, Kind"))
            .replace(&format!("{GROUP}/v1"), self.api_version)
            .replace(&format!("\"group\":\"{GROUP}\""), &format!("\"group\":\"{group}\""))
            .replace("\"group\":\"\",", "")
    }
}

/// The schema of a component with all that it refers to in its place, in the form of definitions.
fn inlined(components: &Tree, schema: &Tree) -> Tree {
    let reference = |tree: &Tree| tree.str_at("$ref").rsplit('/').next().unwrap_or_default().to_owned();
    let inner = schema.list_at("allOf").first().map(reference).filter(|name| !name.is_empty());
    let mut out = match (reference(schema), inner) {
        (name, _) if !name.is_empty() => inlined(components, components.get(&name).unwrap()),
        (_, Some(name)) => inlined(components, components.get(&name).unwrap()),
        _ => schema.clone(),
    };
    let extensions = schema.as_map().unwrap().iter().filter(|(key, _)| key.starts_with("x-kubernetes-"));
    extensions.for_each(|(key, value)| drop(out.as_map_mut().unwrap().insert(key.to_owned(), value.clone())));
    for key in [
        "x-kubernetes-group-version-kind",
        "x-kubernetes-patch-merge-key",
        "x-kubernetes-patch-strategy",
        "x-kubernetes-unions",
        "default",
        "description",
    ] {
        out.as_map_mut().unwrap().remove(key);
    }
    if ["int-or-string", "quantity"].contains(&out.str_at("format")) || !out.list_at("oneOf").is_empty() {
        return tree!({"x-kubernetes-int-or-string": true});
    }
    if let Some(items) = out.get("items").cloned() {
        let mut item = inlined(components, &items);
        // A definition wants to know what an item without one of its keys is.
        for key in out.list_at("x-kubernetes-list-map-keys").iter().filter_map(Tree::as_str) {
            if key == "protocol" {
                item.make_map_at("properties").map_at(key.to_owned()).insert("default", "TCP");
                continue;
            }
            let mut required = item.list_at("required").to_vec();
            if !required.iter().any(|known| known.as_str() == Some(key)) {
                required.push(key.into());
            }
            item.insert("required", required);
        }
        out.insert("items", item);
    }
    if let Some(values) = out.get("additionalProperties").filter(|v| v.as_map().is_some()).cloned() {
        out.insert("additionalProperties", inlined(components, &values));
    }
    for (name, property) in out.map_at("properties").clone().iter() {
        let made = inlined(components, property);
        out.make_map_at("properties").insert(name.to_owned(), made);
    }
    out
}

async fn define(fixture: &Fixture, caller: &mut Caller, copied: &Copied) {
    let (code, document) = caller.get(&format!("/openapi/v3{}", copied.root())).await;
    assert_eq!(code, 200);
    let components = document.at(&["components", "schemas"]).unwrap();
    let mut schema = inlined(components, components.get(copied.component).unwrap());
    schema.make_map_at("properties").insert("metadata", tree!({"type": "object"}));
    let mut version = tree!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": (schema)}});
    if copied.kind == "Deployment" {
        let scale = tree!({"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"});
        version.insert("subresources", tree!({"status": {}, "scale": (scale)}));
    }
    let definition = tree!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": (format!("{}.{GROUP}", copied.plural))},
        "spec": {"group": GROUP, "scope": "Namespaced",
            "names": {"plural": (copied.plural), "kind": (copied.kind)}, "versions": [version]}});
    fixture.define(caller, &definition).await;
}

/// What is asked: method, path below the collection, type of the body, body.
type Ask = (Method, &'static str, &'static str, Tree);

/// An answer without what differs between any two objects, and without what only kinds with a generation have.
fn neutral(code: u16, answer: &Tree) -> String {
    let mut answer = answer.clone();
    let clean = |tree: &mut Tree| {
        for key in ["uid", "resourceVersion", "creationTimestamp", "generation", "deletionGracePeriodSeconds"] {
            tree.remove(&format!("metadata.{key}"));
        }
        tree.remove("details.uid");
        let Some(Tree::List(entries)) = tree.path_mut("metadata.managedFields") else { return };
        entries.iter_mut().for_each(|entry| drop(entry.remove("time")));
    };
    clean(&mut answer);
    if let Some(Tree::List(items)) = answer.path_mut("items") {
        items.iter_mut().for_each(clean);
        // Custom resources tell their kind and version in lists, too; objects of Go types leave it to the list.
        items.iter_mut().for_each(|item| item.make_map().retain(|key, _| key != "kind" && key != "apiVersion"));
    }
    answer.sort_keys();
    format!("{code} {}", answer.to_json_string())
}

/// Puts the requests to both, and compares.
async fn same(copied: &Copied, asks: &[Ask], shown: impl Fn(&Tree) -> Tree) {
    let fixture = Fixture::start().await;
    fixture.start_definitions();
    let mut caller = Caller::admin(&fixture).await;
    define(&fixture, &mut caller, copied).await;
    let [built_in, custom] = copied.collections();
    for (method, path, kind, body) in asks {
        let mut answers = Vec::new();
        for (collection, api_version) in [(&built_in, copied.api_version.to_owned()), (&custom, format!("{GROUP}/v1"))]
        {
            let mut body = body.clone();
            if body.as_map().is_some() && body.get("apiVersion").is_none() && *kind != MERGE {
                body.insert("apiVersion", api_version);
                body.insert("kind", copied.kind);
            }
            let text = if body.is_null() { String::new() } else { body.to_string() };
            let (code, headers, answer) =
                caller.send(method.clone(), &format!("{collection}{path}"), kind, &text).await;
            let warnings: Vec<_> = headers.get_all("warning").iter().map(|w| w.to_str().unwrap().to_owned()).collect();
            answers.push(format!("{} {warnings:?}", neutral(code, &shown(&answer))));
        }
        assert_eq!(copied.translated(&answers[1]), answers[0], "{method} {path} {body}");
    }
}

#[tokio::test]
async fn a_built_in_schema_as_crd_answers_as_the_config_map_does() {
    let named = |name: &str, data: Tree| tree!({"metadata": {"name": name, "labels": {"a": name}}, "data": data});
    let put = |data: Tree| tree!({"metadata": {"name": "x", "resourceVersion": "1"}, "data": data});
    let json = "application/json";
    let asks: Vec<Ask> = vec![
        (Method::GET, "/x", "", Tree::Null),
        (Method::GET, "", "", Tree::Null),
        (Method::POST, "?dryRun=All", json, named("x", tree!({"k": "1"}))),
        (Method::GET, "/x", "", Tree::Null),
        (Method::POST, "?fieldManager=c", json, named("x", tree!({"k": "1"}))),
        (Method::POST, "", json, named("x", tree!({}))),
        (Method::POST, "", json, named("X_", tree!({}))),
        (Method::POST, "?fieldValidation=Strict", json, tree!({"metadata": {"name": "y"}, "nothing": 1})),
        (Method::POST, "?fieldValidation=Warn", json, tree!({"metadata": {"name": "y"}, "nothing": 1})),
        (Method::GET, "?labelSelector=a%3Dx", "", Tree::Null),
        (Method::GET, "?fieldSelector=metadata.name%3Dy", "", Tree::Null),
        (Method::GET, "?limit=1", "", Tree::Null),
        (Method::GET, "?labelSelector=a%3D%3D%3Dx", "", Tree::Null),
        (Method::PATCH, "/x?fieldManager=m", MERGE, tree!({"data": {"l": "2"}})),
        (Method::PATCH, "/x?fieldManager=m", MERGE, tree!({"data": {"l": null}, "metadata": {"labels": {"b": "2"}}})),
        (Method::PATCH, "/x?fieldManager=j", JSON_PATCH, tree!([{"op": "add", "path": "/data/n", "value": "3"}])),
        (Method::PATCH, "/x?fieldManager=j", JSON_PATCH, tree!([{"op": "test", "path": "/data/n", "value": "4"}])),
        (Method::PATCH, "/x?fieldManager=j", JSON_PATCH, tree!([{"op": "remove", "path": "/data/none"}])),
        (Method::PATCH, "/x?fieldManager=a", APPLY, named("x", tree!({"k": "9"}))),
        (Method::PATCH, "/x?fieldManager=a&force=true", APPLY, named("x", tree!({"k": "9"}))),
        (Method::PATCH, "/x?fieldManager=b", APPLY, named("x", tree!({"o": "5"}))),
        (Method::PATCH, "/x?fieldManager=b", APPLY, tree!({"metadata": {"name": "x"}})),
        (Method::PATCH, "/x?fieldManager=b", APPLY, tree!({"metadata": {"name": "x"}, "data": {"p": 1}})),
        (Method::PATCH, "/x", APPLY, tree!({"metadata": {"name": "x"}})),
        (Method::PATCH, "/new?fieldManager=b", APPLY, tree!({"metadata": {"name": "new"}, "data": {"q": "6"}})),
        (Method::PUT, "/x", json, put(tree!({"k": "7"}))),
        (Method::PUT, "/none", json, tree!({"metadata": {"name": "none"}})),
        (Method::PUT, "/x", json, tree!({"metadata": {"name": "y"}})),
        (Method::POST, "/x", json, tree!({})),
        (Method::PATCH, "/x", MERGE, tree!({"metadata": {"finalizers": ["a/b"]}})),
        (
            Method::DELETE,
            "/x",
            json,
            tree!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "1"}}),
        ),
        (Method::PATCH, "/x", MERGE, tree!({"metadata": {"finalizers": null}})),
        (Method::DELETE, "/y", "", Tree::Null),
        (Method::DELETE, "/y", "", Tree::Null),
        (Method::DELETE, "", "", Tree::Null),
        (Method::GET, "", "", Tree::Null),
    ];
    // Uids in messages are of the objects, and so are the revisions of lists.
    let shown = |answer: &Tree| {
        let mut answer = answer.clone();
        if answer.str_at("message").contains("the UID in ") {
            answer.remove("message");
        }
        answer.remove("metadata.continue");
        answer
    };
    same(&CONFIG_MAP, &asks, shown).await;
}

#[tokio::test]
async fn a_built_in_schema_as_crd_answers_as_the_role_does() {
    let rules = |verb: &str| tree!([{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}]);
    let named = |verb: &str| tree!({"metadata": {"name": "x"}, "rules": (rules(verb))});
    let asks: Vec<Ask> = vec![
        (Method::PATCH, "/x?fieldManager=a", APPLY, named("get")),
        (Method::PATCH, "/x?fieldManager=b", APPLY, named("list")),
        (Method::PATCH, "/x?fieldManager=b&force=true", APPLY, named("list")),
        (Method::PATCH, "/x?fieldManager=u", MERGE, tree!({"rules": (rules("watch"))})),
        (Method::PATCH, "/x?fieldManager=b", APPLY, tree!({"metadata": {"name": "x"}, "rules": "none"})),
        (Method::GET, "/x", "", Tree::Null),
    ];
    same(&ROLE, &asks, Tree::clone).await;
}

#[tokio::test]
async fn a_built_in_schema_as_crd_owns_and_merges_fields_as_the_deployment_does() {
    let container = |name: &str, image: &str| tree!({"name": name, "image": image});
    let named = |containers: Vec<Tree>| {
        tree!({"metadata": {"name": "x"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}}}})
    };
    let ports = |port: i64| {
        let mut x = container("x", "x:1");
        x.insert("ports", tree!([{"containerPort": port, "protocol": "TCP"}]));
        named(vec![x])
    };
    let asks: Vec<Ask> = vec![
        (Method::PATCH, "/x?fieldManager=a", APPLY, named(vec![container("x", "x:1"), container("y", "y:1")])),
        (Method::PATCH, "/x?fieldManager=b", APPLY, named(vec![container("y", "y:2"), container("z", "z:1")])),
        (
            Method::PATCH,
            "/x?fieldManager=b&force=true",
            APPLY,
            named(vec![container("y", "y:2"), container("z", "z:1")]),
        ),
        (Method::PATCH, "/x?fieldManager=c", APPLY, ports(80)),
        (Method::PATCH, "/x?fieldManager=c", APPLY, ports(81)),
        (Method::PATCH, "/x?fieldManager=a", APPLY, named(vec![container("x", "x:1")])),
        (
            Method::PATCH,
            "/x/status?fieldManager=s",
            APPLY,
            tree!({"metadata": {"name": "x"}, "status": {"conditions": [{"type": "A", "status": "True"}]}}),
        ),
        (Method::GET, "/x", "", Tree::Null),
    ];
    // Defaults of Deployments are code: compared are owners, conflicts, and the containers that were sent.
    let shown = |answer: &Tree| {
        if answer.str_at("kind") == "Status" {
            return answer.clone();
        }
        let containers = answer.list_at("spec.template.spec.containers");
        let images: Vec<String> =
            containers.iter().map(|c| format!("{}={}", c.str_at("name"), c.str_at("image"))).collect();
        let mut applied = answer.path("metadata.managedFields").cloned().unwrap_or_default();
        if let Tree::List(entries) = &mut applied {
            entries.retain(|entry| entry.str_at("operation") == "Apply");
        }
        tree!({"metadata": {"managedFields": applied}, "images": images})
    };
    same(&DEPLOYMENT, &asks, shown).await;
}
