//! CustomResourceDefinitions and the objects of their kinds, over HTTP as clients see them.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;
mod hook;
mod https;

use std::sync::Arc;

use common::definitions::DEFINITIONS;
use common::{Client, Fixture};
use corten_base::{SystemClock, SystemEntropy};
use corten_controllers::storage_migration::StorageMigration;
use corten_kinds::id;
use corten_manager::Manager;
use corten_object::ObjectKey;
use corten_tree::{Tree, tree};
use hook::Hook;
use http_body_util::BodyExt;

/// A server with the controller that gives definitions their names.
struct Server {
    fixture: Fixture,
    client: Client,
}

const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

impl Server {
    async fn start() -> Server {
        let fixture = Fixture::start().await;
        fixture.start_definitions();
        let client = Client::connect(&fixture, true).await;
        Server { fixture, client }
    }

    /// Makes a definition and waits until its kind is served.
    async fn define(&mut self, definition: &Tree) {
        let (code, made) = self.client.post(DEFINITIONS, &definition.to_json_string()).await;
        assert_eq!(code, 201, "{made}");
        self.established(made.str_at("metadata.name")).await;
    }

    /// Waits until the kind of a definition is served.
    async fn established(&self, name: &str) {
        let (plural, group) = name.split_once('.').unwrap();
        self.until(|server| server.kind(group, plural).is_some()).await;
    }

    fn kind(&self, group: &str, plural: &str) -> Option<Arc<corten_kinds::Kind>> {
        self.fixture.cache.registry().group_resource(group, plural).cloned()
    }

    fn definition(&self, name: &str) -> Tree {
        let key = ObjectKey::new(id::CUSTOM_RESOURCE_DEFINITION, "", name);
        self.fixture.cache.get(&key).map(|object| object.to_tree()).unwrap_or_default()
    }

    /// Waits until the objects are as wanted.
    async fn until(&self, wanted: impl Fn(&Server) -> bool) {
        self.fixture.until_cache(|_| wanted(self)).await;
    }
}

/// The path of an object below that of its collection.
fn path_of(collection: &str, name: &str) -> String {
    format!("{collection}/{name}")
}

fn definition(schema: Tree) -> Tree {
    tree!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wg"], "categories": ["all"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "description": "How big"},
                    {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
                "selectableFields": [{"jsonPath": ".spec.color"}]}]}})
}

fn widget_schema() -> Tree {
    tree!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 10},
            "replicas": {"type": "integer"},
            "color": {"type": "string", "default": "red", "enum": ["red", "green", "blue"]},
            "name": {"type": "string", "maxLength": 5, "pattern": "^[a-z]+$"},
            "when": {"type": "string", "format": "date-time"},
            "port": {"x-kubernetes-int-or-string": true},
            "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set", "maxItems": 3},
            "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"],
                "items": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}, "n": {"type": "integer"}}}},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
        }},
        "status": {"type": "object", "properties": {
            "replicas": {"type": "integer"}, "selector": {"type": "string"},
            "conditions": {"type": "array", "items": {"type": "object", "properties": {
                "type": {"type": "string"}, "status": {"type": "string"}}}}
        }}
    }})
}

fn widget(name: &str, spec: Tree) -> Tree {
    tree!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn custom_resources_are_served_like_all_others() {
    let mut server = Server::start().await;
    server.define(&definition(widget_schema())).await;
    let (_, stored) = server.client.get(&path_of(DEFINITIONS, "widgets.example.com"), &[]).await;
    assert_eq!(stored.list_at("status.storedVersions")[0].as_str(), Some("v1"));
    assert_eq!(stored.str_at("status.acceptedNames.listKind"), "WidgetList");
    let conditions: Vec<String> = stored
        .list_at("status.conditions")
        .iter()
        .map(|c| format!("{}={} {}", c.str_at("type"), c.str_at("status"), c.str_at("reason")))
        .collect();
    assert_eq!(conditions, ["NamesAccepted=True NoConflicts", "Established=True InitialNamesAccepted"]);
    let client = &mut server.client;
    let sent = widget("a", tree!({"size": 3, "any": {"z": {"y": null}}, "frob": 1}));
    let (code, made) = client.post(WIDGETS, &sent.to_json_string()).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made.path("spec").unwrap().to_string(), r#"{"any":{"z":{"y":null}},"color":"red","size":3}"#);
    assert_eq!(made.i64_at("metadata.generation"), Some(1));
    let (code, refused) = client.post(&format!("{WIDGETS}?fieldValidation=Strict"), &sent.to_json_string()).await;
    assert_eq!(code, 400);
    assert!(refused.str_at("message").ends_with(r#"strict decoding error: unknown field "spec.frob""#), "{refused}");
    // Discovery, both forms, and short names.
    let (_, list) = client.get("/apis/example.com/v1", &[]).await;
    let names: Vec<&str> = list.list_at("resources").iter().map(|r| r.str_at("name")).collect();
    assert_eq!(names, ["widgets", "widgets/status", "widgets/scale"]);
    assert_eq!(list.list_at("resources")[0].list_at("shortNames")[0].as_str(), Some("wg"));
    let accept = ("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let (_, groups) = client.get("/apis", &[accept]).await;
    assert!(groups.list_at("items").iter().any(|group| group.str_at("metadata.name") == "example.com"));
    // Lists, tables, selection.
    client.post(WIDGETS, &widget("b", tree!({"size": 1, "color": "blue"})).to_json_string()).await;
    let (_, listed) = client.get(&format!("{WIDGETS}?fieldSelector=spec.color%3Dblue"), &[]).await;
    assert_eq!((listed.str_at("kind"), listed.list_at("items").len()), ("WidgetList", 1));
    let (code, _) = client.get(&format!("{WIDGETS}?fieldSelector=spec.size%3D1"), &[]).await;
    assert_eq!(code, 400);
    let (_, table) = client.get(WIDGETS, &[("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")]).await;
    let columns: Vec<String> = table
        .list_at("columnDefinitions")
        .iter()
        .map(|c| format!("{} {} {}", c.str_at("name"), c.str_at("type"), c.str_at("description")))
        .collect();
    assert_eq!(columns[1], "Size integer How big");
    assert!(columns[2].starts_with("Ready string Custom resource definition column (in JSONPath format): .status"));
    let cells = table.list_at("rows")[0].list_at("cells");
    assert_eq!((cells[0].as_str(), cells[1].as_i64(), cells[2].is_null()), (Some("a"), Some(3), true));
    // OpenAPI.
    let (_, document) = client.get("/openapi/v3/apis/example.com/v1", &[]).await;
    let component = document.at(&["components", "schemas", "com.example.v1.Widget"]).unwrap();
    assert_eq!(component.str_at("properties.spec.properties.color.default"), "red");
    assert!(document.at(&["components", "schemas", "com.example.v1.WidgetList"]).is_some());
    let patch = document.at(&["paths", "/apis/example.com/v1/namespaces/{namespace}/widgets/{name}", "patch"]).unwrap();
    let forms: Vec<&str> = patch.map_at("requestBody.content").keys().collect();
    let wanted = ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
    assert_eq!(forms, wanted, "no strategic merge patch");
    // No protobuf.
    let (code, _) = client.get(WIDGETS, &[("accept", "application/vnd.kubernetes.protobuf")]).await;
    assert_eq!(code, 406);
    let (code, _) = client.get(WIDGETS, &[("accept", "application/vnd.kubernetes.protobuf, application/json")]).await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn custom_resources_are_validated_in_upstreams_words() {
    let mut server = Server::start().await;
    server.define(&definition(widget_schema())).await;
    let cases: &[(Tree, &[(&str, &str, &str)])] = &[
        (
            tree!({"size": "3"}),
            &[(
                "FieldValueTypeInvalid",
                "spec.size",
                r#"Invalid value: "string": spec.size in body must be of type integer: "string""#,
            )],
        ),
        (tree!({}), &[("FieldValueRequired", "spec.size", "Required value")]),
        (
            tree!({"size": 0}),
            &[(
                "FieldValueInvalid",
                "spec.size",
                "Invalid value: 0: spec.size in body should be greater than or equal to 1",
            )],
        ),
        (
            tree!({"size": 11}),
            &[(
                "FieldValueInvalid",
                "spec.size",
                "Invalid value: 11: spec.size in body should be less than or equal to 10",
            )],
        ),
        (
            tree!({"size": 1, "color": "pink"}),
            &[(
                "FieldValueNotSupported",
                "spec.color",
                r#"Unsupported value: "pink": supported values: "red", "green", "blue""#,
            )],
        ),
        (
            tree!({"size": 1, "name": "abcdef"}),
            &[("FieldValueTooLong", "spec.name", "Too long: may not be more than 5 bytes")],
        ),
        (
            tree!({"size": 1, "name": "A"}),
            &[("FieldValueInvalid", "spec.name", r#"Invalid value: "A": spec.name in body should match '^[a-z]+$'"#)],
        ),
        (
            tree!({"size": 1, "when": "now"}),
            &[(
                "FieldValueTypeInvalid",
                "spec.when",
                r#"Invalid value: "now": spec.when in body must be of type date-time: "now""#,
            )],
        ),
        (
            tree!({"size": 1, "port": 1.5}),
            &[(
                "FieldValueTypeInvalid",
                "spec.port",
                r#"Invalid value: "number": spec.port in body must be of type integer,string: "number""#,
            )],
        ),
        (
            tree!({"size": 1, "tags": ["a", "b", "a"]}),
            &[("FieldValueDuplicate", "spec.tags[2]", r#"Duplicate value: "a""#)],
        ),
        (
            tree!({"size": 1, "tags": ["a", "b", "c", "d"]}),
            &[("FieldValueTooMany", "spec.tags", "Too many: 4: must have at most 3 items")],
        ),
        (
            tree!({"size": 1, "parts": [{"id": "x"}, {"id": "x", "n": "1"}]}),
            &[
                (
                    "FieldValueTypeInvalid",
                    "spec.parts[1].n",
                    r#"Invalid value: "string": spec.parts[1].n in body must be of type integer: "string""#,
                ),
                ("FieldValueDuplicate", "spec.parts[1]", r#"Duplicate value: {"id":"x"}"#),
            ],
        ),
    ];
    for (spec, wanted) in cases {
        let (code, status) = server.client.post(WIDGETS, &widget("x", spec.clone()).to_json_string()).await;
        assert_eq!(code, 422, "{spec}: {status}");
        let causes: Vec<(&str, &str, &str)> = status
            .list_at("details.causes")
            .iter()
            .map(|c| (c.str_at("reason"), c.str_at("field"), c.str_at("message")))
            .collect();
        assert_eq!(causes, *wanted, "{spec}");
    }
}

#[tokio::test]
async fn status_scale_generation_and_patches_of_custom_resources() {
    let mut server = Server::start().await;
    server.define(&definition(widget_schema())).await;
    let client = &mut server.client;
    let mut sent = widget("a", tree!({"size": 3, "replicas": 2}));
    sent.set("status", tree!({"replicas": 9}));
    let (_, made) = client.post(WIDGETS, &sent.to_json_string()).await;
    assert!(made.path("status").is_none(), "a new object has no status yet");
    let merge = |body: Tree| (vec![("content-type", "application/merge-patch+json")], body.to_json());
    let path = path_of(WIDGETS, "a");
    let (headers, body) = merge(tree!({"status": {"replicas": 2, "selector": "app=a"}, "spec": {"size": 9}}));
    let (code, status) = client.patch(&format!("{path}/status"), &headers, &body).await;
    assert_eq!(code, 200, "{status}");
    let seen = (status.i64_at("spec.size"), status.i64_at("status.replicas"), status.i64_at("metadata.generation"));
    assert_eq!(seen, (Some(3), Some(2), Some(1)));
    let (headers, body) = merge(tree!({"spec": {"size": 4, "color": null}, "status": {"replicas": 0}}));
    let (_, changed) = client.patch(&path, &headers, &body).await;
    let seen = (changed.i64_at("spec.size"), changed.i64_at("status.replicas"), changed.i64_at("metadata.generation"));
    assert_eq!((seen, changed.str_at("spec.color")), ((Some(4), Some(2), Some(2)), "red"));
    let (headers, body) = (vec![("content-type", "application/strategic-merge-patch+json")], b"{}".to_vec());
    let (code, _) = client.patch(&path, &headers, &body).await;
    assert_eq!(code, 415);
    let (_, scale) = client.get(&format!("{path}/scale"), &[]).await;
    let seen = (scale.str_at("kind"), scale.i64_at("spec.replicas"), scale.str_at("status.selector"));
    assert_eq!(seen, ("Scale", Some(2), "app=a"));
    let (headers, body) = merge(tree!({"spec": {"replicas": 5}}));
    let (code, scale) = client.patch(&format!("{path}/scale"), &headers, &body).await;
    assert_eq!((code, scale.i64_at("spec.replicas")), (200, Some(5)));
    let mut stale = changed.clone();
    stale.remove("metadata.resourceVersion");
    let (code, refused) = client.put(&path, &stale.to_json_string()).await;
    assert_eq!(code, 422);
    assert!(refused.str_at("message").contains("must be specified for an update"), "{refused}");
}

#[tokio::test]
async fn unchanged_values_stay_valid_when_a_schema_gets_stricter() {
    let mut server = Server::start().await;
    server.define(&definition(widget_schema())).await;
    let (_, made) = server.client.post(WIDGETS, &widget("a", tree!({"size": 9, "name": "abc"})).to_json_string()).await;
    let path = path_of(DEFINITIONS, "widgets.example.com");
    let (_, mut stored) = server.client.get(&path, &[]).await;
    let mut schema = widget_schema();
    schema.set("properties.spec.properties.size.maximum", 5);
    schema.set("properties.spec.properties.extra", tree!({"type": "string", "default": "filled"}));
    let mut versions = stored.list_at("spec.versions").to_vec();
    versions[0].set("schema.openAPIV3Schema", schema);
    stored.set("spec.versions", versions);
    let (code, changed) = server.client.put(&path, &stored.to_json_string()).await;
    assert_eq!(code, 200, "{changed}");
    let (_, read) = server.client.get(&path_of(WIDGETS, "a"), &[]).await;
    assert_eq!(read.str_at("spec.extra"), "filled", "a default is there for what was stored before");
    let mut next = read.clone();
    next.set("spec.name", "abd");
    let (code, kept) = server.client.put(&path_of(WIDGETS, "a"), &next.to_json_string()).await;
    assert_eq!(code, 200, "what did not change stays valid: {kept}");
    let mut next = kept.clone();
    next.set("spec.size", 8);
    let (code, refused) = server.client.put(&path_of(WIDGETS, "a"), &next.to_json_string()).await;
    assert_eq!(code, 422, "{refused} {made}");
}

/// The bytes of a widget in the store.
async fn at_rest(server: &Server, name: &str) -> Tree {
    let kind = server.kind("example.com", "widgets").unwrap();
    let got = server.fixture.store.get(&corten_cache::keys::object(&kind, "default", name)).await.unwrap();
    corten_tree::json::parse(&got.entry.unwrap().value).unwrap()
}

/// Changes the versions of the definition, as an administrator does.
async fn redefine(server: &mut Server, change: impl Fn(&mut Vec<Tree>)) {
    let path = path_of(DEFINITIONS, "widgets.example.com");
    let (_, mut stored) = server.client.get(&path, &[]).await;
    let mut versions = stored.list_at("spec.versions").to_vec();
    change(&mut versions);
    stored.set("spec.versions", versions);
    let (code, changed) = server.client.put(&path, &stored.to_json_string()).await;
    assert_eq!(code, 200, "{changed}");
}

#[tokio::test]
async fn an_unchanged_write_stores_defaults_that_were_added_later() {
    let mut server = Server::start().await;
    server.define(&definition(widget_schema())).await;
    server.client.post(WIDGETS, &widget("a", tree!({"size": 9})).to_json_string()).await;
    redefine(&mut server, |versions| {
        let extra = tree!({"type": "string", "default": "filled"});
        versions[0].set("schema.openAPIV3Schema.properties.spec.properties.extra", extra);
    })
    .await;
    assert_eq!(at_rest(&server, "a").await.str_at("spec.extra"), "");
    let (_, read) = server.client.get(&path_of(WIDGETS, "a"), &[]).await;
    let (code, first) = server.client.put(&path_of(WIDGETS, "a"), &read.to_json_string()).await;
    assert_eq!(code, 200, "{first}");
    assert_eq!(at_rest(&server, "a").await.str_at("spec.extra"), "filled");
    assert_ne!(first.str_at("metadata.resourceVersion"), read.str_at("metadata.resourceVersion"));
    let (_, second) = server.client.put(&path_of(WIDGETS, "a"), &first.to_json_string()).await;
    assert_eq!(second.str_at("metadata.resourceVersion"), first.str_at("metadata.resourceVersion"), "then it lies so");
}

#[tokio::test]
async fn a_storage_version_migration_rewrites_custom_resources() {
    const MIGRATIONS: &str = "/apis/storagemigration.k8s.io/v1/storageversionmigrations";
    let mut server = Server::start().await;
    let mut wanted = definition(widget_schema());
    let mut versions = wanted.list_at("spec.versions").to_vec();
    let mut next = versions[0].clone();
    next.set("name", "v2");
    next.set("storage", false);
    versions.push(next);
    wanted.set("spec.versions", versions);
    server.define(&wanted).await;
    for name in ["a", "b"] {
        server.client.post(WIDGETS, &widget(name, tree!({"size": 3})).to_json_string()).await;
    }
    redefine(&mut server, |versions| {
        versions[0].set("storage", false);
        versions[1].set("storage", true);
    })
    .await;
    server.until(|server| server.definition("widgets.example.com").list_at("status.storedVersions").len() == 2).await;
    assert_eq!(at_rest(&server, "b").await.str_at("apiVersion"), "example.com/v1");
    // It may do no more than upstream's role for it says.
    let user = corten_auth::User::service_account("kube-system", "storage-version-migrator-controller");
    let api = server.fixture.server.api_as(user);
    let manager = Manager {
        cache: server.fixture.cache.clone(),
        api: Arc::new(move |_: &str| api.clone()),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
    };
    manager.start_controller(&server.fixture.tasks, Box::new(StorageMigration));
    let migration = tree!({"apiVersion": "storagemigration.k8s.io/v1", "kind": "StorageVersionMigration",
        "metadata": {"name": "m"}, "spec": {"resource": {"group": "example.com", "resource": "widgets"}}});
    let (code, made) = server.client.post(MIGRATIONS, &migration.to_json_string()).await;
    assert_eq!(code, 201, "{made}");
    let key = ObjectKey::new(id::STORAGE_VERSION_MIGRATION, "", "m");
    let conditions = |server: &Server| {
        let tree = server.fixture.cache.get(&key).map(|object| object.to_tree()).unwrap_or_default();
        let one = |c: &Tree| {
            format!("{}={} {}: {}", c.str_at("type"), c.str_at("status"), c.str_at("reason"), c.str_at("message"))
        };
        tree.list_at("status.conditions").iter().map(one).collect::<Vec<String>>()
    };
    server.until(|server| conditions(server).first().is_some_and(|c| c.starts_with("Running=False"))).await;
    assert_eq!(
        conditions(&server),
        [
            "Running=False MigrationCompleted: Migration completed",
            "Succeeded=True StorageVersionMigrationSucceeded: Migration completed"
        ]
    );
    for name in ["a", "b"] {
        assert_eq!(at_rest(&server, name).await.str_at("apiVersion"), "example.com/v2");
    }
    let definition = server.definition("widgets.example.com");
    assert_eq!(definition.path("status.storedVersions").unwrap().to_json_string(), r#"["v2"]"#);
    let said = definition.list_at("status.conditions").iter().find(|c| c.str_at("type") == "StorageMigrating").unwrap();
    assert_eq!(said.str_at("message"), "The migration has succeeded and the stored versions have been updated");
}

#[tokio::test]
async fn versions_of_a_custom_resource_have_schemas_and_columns_of_their_own() {
    let mut server = Server::start().await;
    let mut wanted = definition(widget_schema());
    let mut versions = wanted.list_at("spec.versions").to_vec();
    let schema = tree!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "size": {"type": "integer", "maximum": 2}, "note": {"type": "string", "default": "n"}}}}});
    versions.push(tree!({"name": "v1beta1", "served": true, "storage": false, "deprecated": true,
        "schema": {"openAPIV3Schema": schema}}));
    versions.push(tree!({"name": "v1alpha1", "served": false, "storage": false,
        "schema": {"openAPIV3Schema": {"type": "object"}}}));
    wanted.set("spec.versions", versions);
    server.define(&wanted).await;
    let client = &mut server.client;
    client.post(WIDGETS, &widget("a", tree!({"size": 2, "name": "x"})).to_json_string()).await;
    let beta = WIDGETS.replace("/v1/", "/v1beta1/");
    let response = client.send(hyper::Method::GET, &path_of(&beta, "a"), &[], b"").await;
    let warning = response.headers().get("warning").unwrap().to_str().unwrap().to_owned();
    assert_eq!(warning, r#"299 - "example.com/v1beta1 Widget is deprecated; use example.com/v1 Widget""#);
    let (_, old) = client.get(&path_of(&beta, "a"), &[]).await;
    assert_eq!(old.str_at("apiVersion"), "example.com/v1beta1");
    assert_eq!(old.path("spec").unwrap().to_string(), r#"{"size":2}"#, "the version's schema prunes");
    let (_, table) = client.get(&beta, &[("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")]).await;
    let columns: Vec<&str> = table.list_at("columnDefinitions").iter().map(|c| c.str_at("name")).collect();
    assert_eq!(columns, ["Name", "Age"]);
    let mut too_big = old.clone();
    too_big.set("spec.size", 5);
    let (code, status) = client.put(&path_of(&beta, "a"), &too_big.to_json_string()).await;
    assert_eq!(code, 422, "validated by the request's version: {status}");
    let (code, _) = client.get(&WIDGETS.replace("/v1/", "/v1alpha1/"), &[]).await;
    assert_eq!(code, 404);
    let (code, _) = client.get(&format!("{}/status", path_of(&beta, "a")), &[]).await;
    assert_eq!(code, 404, "the version has no status subresource");
}

#[tokio::test]
async fn deleting_a_definition_deletes_its_objects_first() {
    let mut server = Server::start().await;
    server.define(&definition(widget_schema())).await;
    let mut held = widget("held", tree!({"size": 1}));
    held.set("metadata.finalizers", vec!["example.com/hold"]);
    server.client.post(WIDGETS, &held.to_json_string()).await;
    server.client.post(WIDGETS, &widget("plain", tree!({"size": 1})).to_json_string()).await;
    let path = path_of(DEFINITIONS, "widgets.example.com");
    let (code, going) = server.client.delete(&path).await;
    assert_eq!(code, 200, "{going}");
    assert_eq!(going.list_at("metadata.finalizers")[0].as_str(), Some("customresourcecleanup.apiextensions.k8s.io"));
    let terminating = |server: &Server| {
        let kind = server.kind("example.com", "widgets");
        kind.is_some_and(|kind| kind.custom.as_ref().is_some_and(|custom| custom.terminating))
    };
    server.until(terminating).await;
    let (code, refused) = server.client.post(WIDGETS, &widget("new", tree!({"size": 1})).to_json_string()).await;
    assert_eq!(code, 403);
    let why =
        r#"widgets.example.com "new" is forbidden: create not allowed while custom resource definition is terminating"#;
    assert_eq!(refused.str_at("message"), why);
    let headers = [("content-type", "application/merge-patch+json")];
    let (code, _) =
        server.client.patch(&path_of(WIDGETS, "held"), &headers, br#"{"metadata":{"finalizers":null}}"#).await;
    assert_eq!(code, 200);
    server.until(|server| server.kind("example.com", "widgets").is_none()).await;
    let (code, _) = server.client.get(WIDGETS, &[]).await;
    assert_eq!(code, 404);
    // The same name again, with another scope: nothing of the old kind is left.
    let mut again = definition(widget_schema());
    again.set("spec.scope", "Cluster");
    server.define(&again).await;
    let (code, list) = server.client.get("/apis/example.com/v1/widgets", &[]).await;
    assert_eq!((code, list.list_at("items").len()), (200, 0));
}

#[tokio::test]
async fn names_are_given_to_one_definition_only() {
    let mut server = Server::start().await;
    server.define(&definition(widget_schema())).await;
    let mut other = definition(widget_schema());
    other.set("metadata.name", "others.example.com");
    other.set("spec.names", tree!({"plural": "others", "singular": "other", "kind": "Widget", "shortNames": ["wg"]}));
    let (code, _) = server.client.post(DEFINITIONS, &other.to_json_string()).await;
    assert_eq!(code, 201);
    let condition = |server: &Server| {
        server.definition("others.example.com").list_at("status.conditions").first().cloned().unwrap_or_default()
    };
    server.until(|server| !condition(server).is_null()).await;
    let refused = condition(&server);
    let seen = (refused.str_at("status"), refused.str_at("reason"), refused.str_at("message"));
    assert_eq!(seen, ("False", "ListKindConflict", "\"WidgetList\" is already in use"));
    let (code, _) = server.client.get("/apis/example.com/v1/namespaces/default/others", &[]).await;
    assert_eq!(code, 404);
}

fn remove_selectable(definition: &mut Tree) {
    let mut versions = definition.list_at("spec.versions").to_vec();
    versions[0].remove("selectableFields");
    definition.set("spec.versions", versions);
}

fn ruled(rules: Tree) -> Tree {
    tree!({"type": "object", "properties": {"spec": {"type": "object",
    "x-kubernetes-validations": rules,
    "properties": {
        "min": {"type": "integer"}, "max": {"type": "integer"},
        "name": {"type": "string", "maxLength": 20, "x-kubernetes-validations": [
            {"rule": "self == oldSelf", "message": "name is immutable"}]},
        "list": {"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 10, "x-kubernetes-validations": [
            {"rule": "self != 'bad'", "reason": "FieldValueForbidden"}]}},
        "when": {"type": "string", "format": "date-time"}
    }}}})
}

#[tokio::test]
async fn validation_rules_of_custom_resources() {
    let mut server = Server::start().await;
    let rules = tree!([
        {"rule": "!has(self.min) || !has(self.max) || self.min <= self.max",
            "messageExpression": "self.min > 2 ? 'min is above max, and large' : 'min is above max'", "fieldPath": ".max"},
        {"rule": "!has(self.when) || self.when < timestamp('2030-01-01T00:00:00Z')", "message": "too late"},
        {"rule": "!oldSelf.hasValue() || has(self.min) == has(oldSelf.value().min)", "optionalOldSelf": true}
    ]);
    let mut wanted = definition(ruled(rules));
    remove_selectable(&mut wanted);
    server.define(&wanted).await;
    let client = &mut server.client;
    let causes = |status: &Tree| -> Vec<String> {
        let list = status.list_at("details.causes").iter();
        list.map(|c| format!("{} {} {}", c.str_at("reason"), c.str_at("field"), c.str_at("message"))).collect()
    };
    let sent = widget("x", tree!({"min": 3, "max": 2, "list": ["ok", "bad"], "when": "2031-01-01T00:00:00Z"}));
    let (code, status) = client.post(WIDGETS, &sent.to_json_string()).await;
    assert_eq!(code, 422, "{status}");
    assert_eq!(
        causes(&status),
        [
            "FieldValueInvalid spec.max Invalid value: min is above max, and large",
            "FieldValueInvalid spec Invalid value: too late",
            "FieldValueForbidden spec.list[1] Forbidden: failed rule: self != 'bad'",
        ]
    );
    let (code, made) = client.post(WIDGETS, &widget("x", tree!({"min": 1, "name": "a"})).to_json_string()).await;
    assert_eq!(code, 201, "{made}");
    let mut next = made.clone();
    next.set("spec", tree!({"name": "b"}));
    let (_, status) = client.put(&path_of(WIDGETS, "x"), &next.to_json_string()).await;
    assert_eq!(
        causes(&status),
        [
            "FieldValueInvalid spec Invalid value: failed rule: !oldSelf.hasValue() || has(self.min) == has(oldSelf.value().min)",
            "FieldValueInvalid spec.name Invalid value: \"b\": name is immutable",
        ]
    );
    // What a definition may not say.
    for (rules, wanted) in [
        (tree!([{"rule": "self.nothing == 1"}]), "compilation failed: ERROR: <input>:1:5: undefined field 'nothing'"),
        (tree!([{"rule": "1 + 1"}]), "cel expression must evaluate to a bool"),
        (tree!([{"rule": "true", "messageExpression": "1"}]), "messageExpression must evaluate to a string"),
        (tree!([{"rule": "true", "optionalOldSelf": true}]), "may not be set if oldSelf is not used in rule"),
        (tree!([{"rule": "true", "fieldPath": ".nothing"}]), "must be a valid path"),
        (tree!([{"rule": ""}]), "rule is not specified"),
    ] {
        let mut other = definition(ruled(rules));
        remove_selectable(&mut other);
        other.set("metadata.name", "others.example.com");
        other.set("spec.names", tree!({"plural": "others", "singular": "other", "kind": "Other"}));
        let (code, status) = client.post(&format!("{DEFINITIONS}?dryRun=All"), &other.to_json_string()).await;
        assert_eq!(code, 422, "{status}");
        assert!(status.str_at("message").contains(wanted), "{wanted}: {status}");
        assert!(status.str_at("message").contains("spec.validation.openAPIV3Schema.properties[spec]"), "{status}");
    }
    let costly = tree!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"list": {"type": "array",
        "x-kubernetes-validations": [{"rule": "self.all(x, self.all(y, x == y || x != y))"}],
        "items": {"type": "string"}}}}}});
    let mut other = definition(costly);
    remove_selectable(&mut other);
    other.set("metadata.name", "others.example.com");
    other.set("spec.names", tree!({"plural": "others", "singular": "other", "kind": "Other"}));
    let (code, status) = client.post(DEFINITIONS, &other.to_json_string()).await;
    assert_eq!(code, 422);
    assert!(
        status.str_at("message").contains("estimated rule cost exceeds budget by factor of more than 100x"),
        "{status}"
    );
}

/// The code and the texts of the Warning headers of a write.
async fn warned(client: &mut Client, method: hyper::Method, path: &str, body: &Tree) -> (u16, Vec<String>) {
    let response = client.send(method, path, &[], body.to_json_string().as_bytes()).await;
    let texts = response.headers().get_all("warning").iter().map(|v| v.to_str().unwrap().to_owned());
    let texts = texts.map(|text| text.trim_start_matches("299 - ").replace('\\', "")).collect();
    let code = response.status().as_u16();
    response.into_body().collect().await.unwrap();
    (code, texts)
}

#[tokio::test]
async fn ratcheted_rules_and_dubious_finalizers_are_warned_of() {
    let mut server = Server::start().await;
    let mut wanted = definition(ruled(tree!([])));
    remove_selectable(&mut wanted);
    server.define(&wanted).await;
    let mut sent = widget("x", tree!({"min": 3, "max": 2, "list": ["worse"]}));
    sent.set("metadata.finalizers", tree!(["kubernetes", "example.com", "mine"]));
    let (code, warnings) = warned(&mut server.client, hyper::Method::POST, WIDGETS, &sent).await;
    assert_eq!(code, 201);
    assert_eq!(
        warnings,
        [
            "\"metadata.finalizers: \"example.com\": prefer a domain-qualified finalizer name including a path (/) to avoid \
             accidental conflicts with other finalizer writers\"",
            "\"metadata.finalizers: \"mine\": prefer a domain-qualified finalizer name to avoid accidental conflicts with other \
             finalizer writers\"",
        ]
    );
    redefine(&mut server, |versions| {
        let rules = tree!([{"rule": "self != 'worse'", "message": "not that"}]);
        let item = "schema.openAPIV3Schema.properties.spec.properties.list.items.x-kubernetes-validations";
        versions[0].set(item, rules);
    })
    .await;
    let (_, mut next) = server.client.get(&path_of(WIDGETS, "x"), &[]).await;
    next.set("spec.min", 1);
    let (code, warnings) = warned(&mut server.client, hyper::Method::PUT, &path_of(WIDGETS, "x"), &next).await;
    assert_eq!(code, 200, "an item that stays may stay wrong");
    assert_eq!(warnings, [r#""spec.list[0]: Invalid value: "worse": not that""#]);
}

/// `host` and `port` in v1 are `hostPort` in v2.
fn convert(question: &Tree) -> Tree {
    let wanted = question.str_at("desiredAPIVersion").to_owned();
    let converted = question.list_at("objects").iter().map(|object| {
        let mut object = object.clone();
        object.set("apiVersion", wanted.as_str());
        object.remove("metadata.generation");
        if wanted.ends_with("/v2") {
            let (host, port) = (object.str_at("spec.host").to_owned(), object.str_at("spec.port").to_owned());
            object.set("spec", tree!({"hostPort": (format!("{host}:{port}"))}));
        } else {
            let both = object.str_at("spec.hostPort").to_owned();
            let (host, port) = both.split_once(':').unwrap_or((&both, ""));
            object.set("spec", tree!({"host": host, "port": port}));
        }
        object
    });
    let converted: Vec<Tree> = converted.collect();
    tree!({"result": {"status": "Success"}, "convertedObjects": (Tree::List(converted))})
}

#[tokio::test]
async fn a_webhook_converts_custom_resources_between_versions() {
    let mut server = Server::start().await;
    let hook = Hook::start(&server.fixture, convert).await;
    let schema = |names: &[&str]| {
        let properties = names.iter().map(|name| ((*name).to_owned().into(), tree!({"type": "string"})));
        let properties = Tree::Map(properties.collect());
        tree!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}})
    };
    let mut wanted = definition(widget_schema());
    wanted.set(
        "spec.versions",
        vec![
            tree!({"name": "v1", "served": true, "storage": true, "schema": (schema(&["host", "port"])),
            "selectableFields": [{"jsonPath": ".spec.host"}]}),
            tree!({"name": "v2", "served": true, "storage": false, "schema": (schema(&["hostPort"])),
            "selectableFields": [{"jsonPath": ".spec.hostPort"}]}),
        ],
    );
    wanted.set(
        "spec.conversion",
        tree!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
        "clientConfig": {"url": (hook.url.as_str()), "caBundle": (hook.ca_bundle.as_str())}}}),
    );
    server.define(&wanted).await;
    let second = WIDGETS.replace("/v1/", "/v2/");
    let mut writer = Client::connect(&server.fixture, true).await;
    let client = &mut server.client;
    let mut watch = client.send(hyper::Method::GET, &format!("{second}?watch=true"), &[], b"").await.into_body();
    let sent = widget("a", tree!({"host": "h", "port": "1"}));
    let (code, made) = writer.post(WIDGETS, &sent.to_json_string()).await;
    assert_eq!(code, 201, "{made}");
    let event = watch.frame().await.unwrap().unwrap().into_data().unwrap();
    let event = corten_tree::json::parse(&event).unwrap();
    let seen = (event.str_at("object.apiVersion"), event.str_at("object.spec.hostPort"));
    assert_eq!(seen, ("example.com/v2", "h:1"), "a watcher sees its version");
    drop(watch);
    let client = &mut writer;
    let (_, shown) = client.get(&path_of(&second, "a"), &[]).await;
    assert_eq!(shown.path("spec").unwrap().to_string(), r#"{"hostPort":"h:1"}"#);
    assert_eq!(shown.i64_at("metadata.generation"), Some(1), "metadata is not the webhook's to change");
    let mut other = widget("b", tree!({"hostPort": "x:2"}));
    other.set("apiVersion", "example.com/v2");
    let (code, made) = client.post(&second, &other.to_json_string()).await;
    assert_eq!((code, made.str_at("spec.hostPort")), (201, "x:2"), "{made}");
    let (_, list) = client.get(WIDGETS, &[]).await;
    let hosts: Vec<&str> = list.list_at("items").iter().map(|item| item.str_at("spec.host")).collect();
    assert_eq!(hosts, ["h", "x"]);
    let mut next = made.clone();
    next.set("spec.hostPort", "y:3");
    let (code, changed) = client.put(&path_of(&second, "b"), &next.to_json_string()).await;
    assert_eq!((code, changed.i64_at("metadata.generation")), (200, Some(2)), "{changed}");
    let headers = [("content-type", "application/merge-patch+json")];
    let (_, patched) = client.patch(&path_of(&second, "b"), &headers, br#"{"spec":{"hostPort":"z:4"}}"#).await;
    assert_eq!(patched.str_at("spec.hostPort"), "z:4");
    assert!(!hook.asked().is_empty());
    // Each version has selectable fields of its own.
    let (_, found) = client.get(&format!("{second}?fieldSelector=spec.hostPort%3Dz:4"), &[]).await;
    let names: Vec<&str> = found.list_at("items").iter().map(|item| item.str_at("metadata.name")).collect();
    assert_eq!(names, ["b"], "{found}");
    let (code, _) = client.get(&format!("{WIDGETS}?fieldSelector=spec.hostPort%3Dz:4"), &[]).await;
    assert_eq!(code, 400, "the field of another version");
    let mut selecting = Client::connect(&server.fixture, true).await;
    let path = format!("{second}?watch=true&fieldSelector=spec.hostPort%3Dz:4");
    let mut watch = selecting.send(hyper::Method::GET, &path, &[], b"").await.into_body();
    let mut next_event = async || {
        let event = watch.frame().await.unwrap().unwrap().into_data().unwrap();
        let event = corten_tree::json::parse(&event).unwrap();
        format!("{} {}", event.str_at("type"), event.str_at("object.metadata.name"))
    };
    assert_eq!(next_event().await, "ADDED b");
    client.patch(&path_of(&second, "a"), &headers, br#"{"spec":{"hostPort":"z:4"}}"#).await;
    assert_eq!(next_event().await, "ADDED a", "it came into the selection");
    client.patch(&path_of(&second, "a"), &headers, br#"{"spec":{"hostPort":"h:1"}}"#).await;
    assert_eq!(next_event().await, "DELETED a", "it left the selection");
    // Another storage version: what is stored at the old one is converted when it is read.
    let path = path_of(DEFINITIONS, "widgets.example.com");
    let (_, mut stored) = client.get(&path, &[]).await;
    let mut versions = stored.list_at("spec.versions").to_vec();
    versions[0].set("storage", false);
    versions[1].set("storage", true);
    stored.set("spec.versions", versions);
    let (code, stored) = client.put(&path, &stored.to_json_string()).await;
    assert_eq!(code, 200, "{stored}");
    assert_eq!(stored.path("status.storedVersions").unwrap().to_string(), r#"["v1","v2"]"#);
    for (collection, field, value) in [(WIDGETS, "spec.host", "z"), (second.as_str(), "spec.hostPort", "z:4")] {
        let (_, shown) = client.get(&path_of(collection, "b"), &[]).await;
        assert_eq!(shown.str_at(field), value, "{shown}");
    }
    let (code, _) = client.delete(&path_of(&second, "b")).await;
    assert_eq!(code, 200);
}
