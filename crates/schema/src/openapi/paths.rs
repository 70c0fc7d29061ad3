//! The paths of a document: an operation per verb, with its kind, parameters and content types.

use std::collections::BTreeMap;

use corten_tree::{Key, Map, Tree, tree};

use super::components::Used;
use super::{Resource, Subresource, document_path};
use crate::TypeId;

/// Content types of objects, in and out.
const CONTENT: [&str; 3] = ["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];
const CUSTOM_CONTENT: [&str; 2] = ["application/json", "application/yaml"];
/// Forms of patches; the last is for built-in kinds only.
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

const WRITE: &[(&str, &str)] = &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const PATCH: &[(&str, &str)] =
    &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")];
const DELETE: &[(&str, &str)] = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const LIST: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];

fn parameters(of: &[(&str, &str)]) -> Vec<Tree> {
    let query = |(name, ty): &(&str, &str)| tree!({"in": "query", "name": (*name), "schema": {"type": (*ty), "uniqueItems": true}});
    of.iter().map(query).collect()
}

fn path_parameter(name: &str) -> Tree {
    tree!({"in": "path", "name": (name), "required": true, "schema": {"type": "string", "uniqueItems": true}})
}

/// A group version's part of operation ids: `AppsV1`, `CoreV1`, `RbacAuthorizationV1`.
fn id_part(group: &str, version: &str) -> String {
    let group = group.strip_suffix(".k8s.io").unwrap_or(if group.is_empty() { "core" } else { group });
    group.split(['.', '-']).chain([version]).map(capitalised).collect()
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// What all operations of one kind have in common.
struct Kind<'a> {
    gvk: (&'a str, &'a str, &'a str),
    tag: String,
    /// Reference to the kind's schema.
    object: Tree,
    /// A definition made it: its objects have no protobuf form and no strategic merge patch.
    custom: bool,
}

fn content(types: &[&str], schema: &Tree) -> Tree {
    let entry = |ty: &&str| (Key::from((*ty).to_owned()), tree!({"schema": (schema.clone())}));
    Tree::Map(Map::from_entries(types.iter().map(entry).collect()))
}

impl Kind<'_> {
    fn operation(
        &self,
        action: &str,
        id: String,
        query: &[(&str, &str)],
        answers: &[(&'static str, &str, &Tree)],
    ) -> Map {
        let (group, version, kind) = self.gvk;
        let mut responses = Map::new();
        for (code, text, schema) in answers {
            let types = if self.custom { &CUSTOM_CONTENT[..] } else { &CONTENT[..] };
            responses.insert(*code, tree!({"content": (content(types, schema)), "description": (*text)}));
        }
        responses.insert("401", tree!({"description": "Unauthorized"}));
        let mut operation = Map::new();
        operation.insert("operationId", id);
        if !query.is_empty() {
            operation.insert("parameters", parameters(query));
        }
        operation.insert("responses", responses);
        operation.insert("tags", vec![self.tag.as_str()]);
        operation.insert("x-kubernetes-action", action);
        let gvk = tree!({"group": (group), "kind": (kind), "version": (version)});
        operation.insert("x-kubernetes-group-version-kind", gvk);
        operation
    }

    fn with_body(mut operation: Map, types: &[&str], schema: &Tree, required: bool) -> Map {
        let mut body = Map::new();
        body.insert("content", content(types, schema));
        if required {
            body.insert("required", true);
        }
        operation.insert("requestBody", body);
        operation.sort_keys();
        operation
    }

    fn create(&self, id: String) -> Map {
        let object = &self.object;
        let answers = [("200", "OK", object), ("201", "Created", object), ("202", "Accepted", object)];
        Kind::with_body(self.operation("post", id, WRITE, &answers), &["*/*"], object, true)
    }

    fn replace(&self, id: String) -> Map {
        let answers = [("200", "OK", &self.object), ("201", "Created", &self.object)];
        Kind::with_body(self.operation("put", id, WRITE, &answers), &["*/*"], &self.object, true)
    }

    fn patch(&self, id: String, patch: &Tree) -> Map {
        let answers = [("200", "OK", &self.object), ("201", "Created", &self.object)];
        let types = if self.custom { &PATCHES[..3] } else { &PATCHES[..] };
        Kind::with_body(self.operation("patch", id, PATCH, &answers), types, patch, true)
    }
}

/// References that the paths of every kind use.
struct Shared {
    status: Tree,
    delete_options: Tree,
    patch: Tree,
}

/// All paths of a group version.
pub(super) fn paths(used: &mut Used<'_>, group: &str, version: &str, resources: &[Resource<'_>]) -> Tree {
    let root = format!("/{}", document_path(group, version));
    let id = id_part(group, version);
    let tag = id[..1].to_lowercase() + &id[1..id.len() - version.len()] + "_" + version;
    let shared = Shared {
        status: used.named_reference("meta.v1.Status"),
        delete_options: used.named_reference("meta.v1.DeleteOptions"),
        patch: used.other_reference("io.k8s.apimachinery.pkg.apis.meta.v1.Patch", tree!({"type": "object"})),
    };
    let mut found = BTreeMap::new();
    let resources_list = used.named_reference("meta.v1.APIResourceList");
    found.insert(
        format!("{root}/"),
        tree!({"get": {
            "operationId": (format!("get{id}APIResources")),
            "responses": {
                "200": {"content": (content(&CONTENT, &resources_list)), "description": "OK"},
                "401": {"description": "Unauthorized"},
            },
            "tags": [(tag.as_str())],
        }}),
    );
    for resource in resources {
        resource_paths(used, &mut found, &Place { root: &root, id: &id, tag: &tag, group, version }, resource, &shared);
    }
    Tree::Map(Map::from_entries(found.into_iter().map(|(path, item)| (Key::from(path), item)).collect()))
}

struct Place<'a> {
    root: &'a str,
    id: &'a str,
    tag: &'a str,
    group: &'a str,
    version: &'a str,
}

fn resource_paths(
    used: &mut Used<'_>,
    found: &mut BTreeMap<String, Tree>,
    place: &Place<'_>,
    resource: &Resource<'_>,
    shared: &Shared,
) {
    let any = tree!({"type": "object"});
    let (object, list) = match &resource.custom {
        Some(custom) => used.custom_references(custom),
        None => {
            let mut reference = |ty: Option<TypeId>| ty.map_or(any.clone(), |ty| used.type_reference(ty));
            (reference(resource.ty), reference(resource.list_ty))
        }
    };
    let gvk = (place.group, place.version, resource.kind);
    let custom = resource.custom.is_some();
    let kind = Kind { gvk, tag: place.tag.to_owned(), object, custom };
    let scope = if resource.namespaced { "Namespaced" } else { "" };
    let name = |verb: &str, rest: &str| format!("{verb}{}{rest}{scope}{}", place.id, resource.kind);
    let serves = |verb: &str| resource.verbs.contains(&verb);
    let within = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{}{within}/{}", place.root, resource.plural);
    let mut common = Vec::new();
    if resource.namespaced {
        common.push(path_parameter("namespace"));
    }
    let pretty = parameters(&[("pretty", "string")]);

    let mut item = Map::new();
    if serves("deletecollection") {
        let query: Vec<_> = DELETE.iter().chain(&LIST[1..9]).copied().collect();
        let operation =
            kind.operation("deletecollection", name("delete", "Collection"), &query, &[("200", "OK", &shared.status)]);
        item.insert("delete", Kind::with_body(operation, &["*/*"], &shared.delete_options, false));
    }
    if serves("list") {
        item.insert("get", kind.operation("list", name("list", ""), LIST, &[("200", "OK", &list)]));
    }
    if serves("create") {
        item.insert("post", kind.create(name("create", "")));
    }
    put(found, &collection, item, [common.clone(), pretty.clone()].concat());

    if resource.namespaced && serves("list") {
        let id = format!("list{}{}ForAllNamespaces", place.id, resource.kind);
        let mut item = Map::new();
        item.insert("get", kind.operation("list", id, LIST, &[("200", "OK", &list)]));
        put(found, &format!("{}/{}", place.root, resource.plural), item, pretty.clone());
    }

    let single = format!("{collection}/{{name}}");
    let common = [vec![path_parameter("name")], common, pretty].concat();
    let mut item = Map::new();
    if serves("delete") {
        let answers = [("200", "OK", &shared.status), ("202", "Accepted", &shared.status)];
        let operation = kind.operation("delete", name("delete", ""), DELETE, &answers);
        item.insert("delete", Kind::with_body(operation, &["*/*"], &shared.delete_options, false));
    }
    if serves("get") {
        item.insert("get", kind.operation("get", name("read", ""), &[], &[("200", "OK", &kind.object)]));
    }
    if serves("patch") {
        item.insert("patch", kind.patch(name("patch", ""), &shared.patch));
    }
    if serves("update") {
        item.insert("put", kind.replace(name("replace", "")));
    }
    put(found, &single, item, common.clone());

    for subresource in &resource.subresources {
        let item = subresource_item(used, &kind, subresource, &shared.patch, |verb| {
            format!("{}{}", name(verb, ""), capitalised(subresource.name))
        });
        put(found, &format!("{single}/{}", subresource.name), item, common.clone());
    }
}

fn subresource_item(
    used: &mut Used<'_>,
    kind: &Kind<'_>,
    subresource: &Subresource<'_>,
    patch: &Tree,
    name: impl Fn(&str) -> String,
) -> Map {
    let object = subresource.ty.map_or(tree!({"type": "string"}), |ty| used.type_reference(ty));
    let own = kind.custom && subresource.gvk == kind.gvk;
    let object = if own { kind.object.clone() } else { object };
    let kind = Kind { gvk: subresource.gvk, tag: kind.tag.clone(), object, custom: kind.custom };
    let mut item = Map::new();
    for verb in subresource.verbs {
        match *verb {
            "get" => item.insert("get", kind.operation("get", name("read"), &[], &[("200", "OK", &kind.object)])),
            "create" => item.insert("post", kind.create(name("create"))),
            "update" => item.insert("put", kind.replace(name("replace"))),
            "patch" => item.insert("patch", kind.patch(name("patch"), patch)),
            _ => None,
        };
    }
    item
}

fn put(found: &mut BTreeMap<String, Tree>, path: &str, mut item: Map, common: Vec<Tree>) {
    if item.is_empty() {
        return;
    }
    item.insert("parameters", common);
    item.sort_keys();
    found.insert(path.to_owned(), Tree::Map(item));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;
    use crate::openapi::{document, index};

    #[test]
    fn a_document_has_what_kubectl_looks_for() {
        let schema = builtin();
        let ty = |kind| schema.gvk("apps", "v1", kind);
        let verbs = ["get", "list", "create", "update", "patch", "delete", "deletecollection"];
        let resource = Resource {
            plural: "deployments",
            kind: "Deployment",
            ty: ty("Deployment"),
            list_ty: ty("DeploymentList"),
            custom: None,
            namespaced: true,
            verbs: &verbs,
            subresources: vec![Subresource {
                name: "scale",
                gvk: ("autoscaling", "v1", "Scale"),
                ty: schema.gvk("autoscaling", "v1", "Scale"),
                verbs: &["get", "update", "patch"],
            }],
        };
        let bytes = document(schema, "apps", "v1", &[resource]);
        let document = corten_tree::json::parse(&bytes).unwrap();
        let paths: Vec<&str> = document.map_at("paths").keys().collect();
        let collection = "/apis/apps/v1/namespaces/{namespace}/deployments";
        let (single, scale) = (format!("{collection}/{{name}}"), format!("{collection}/{{name}}/scale"));
        assert_eq!(paths, ["/apis/apps/v1/", "/apis/apps/v1/deployments", collection, &single, &scale]);
        let patch = document.at(&["paths", &single, "patch"]).unwrap();
        assert_eq!(
            patch.get("x-kubernetes-group-version-kind").unwrap().to_string(),
            r#"{"group":"apps","kind":"Deployment","version":"v1"}"#
        );
        assert_eq!(patch.str_at("operationId"), "patchAppsV1NamespacedDeployment");
        assert_eq!(patch.list_at("tags")[0].as_str(), Some("apps_v1"));
        let names: Vec<&str> = patch.list_at("parameters").iter().map(|p| p.str_at("name")).collect();
        assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
        let schemas = document.map_at("components.schemas");
        let container = schemas.get("io.k8s.api.core.v1.Container").unwrap();
        assert_eq!(
            container.at(&["properties", "env"]).unwrap().to_string(),
            r##"{"description":"Environment variables.","items":{"$ref":"#/components/schemas/io.k8s.api.core.v1.EnvVar"},"type":"array","x-kubernetes-list-map-keys":["name"],"x-kubernetes-list-type":"map","x-kubernetes-patch-merge-key":"name","x-kubernetes-patch-strategy":"merge"}"##
        );
        let mut references = Vec::new();
        collect_references(&document, &mut references);
        for name in references {
            assert!(schemas.contains(name.strip_prefix("#/components/schemas/").unwrap()), "{name} is missing");
        }
        let listed =
            index([("apis/apps/v1", "/openapi/v3/apis/apps/v1?hash=AB"), ("api/v1", "/openapi/v3/api/v1?hash=CD")]);
        assert_eq!(
            String::from_utf8(listed).unwrap(),
            r#"{"paths":{"api/v1":{"serverRelativeURL":"/openapi/v3/api/v1?hash=CD"},"apis/apps/v1":{"serverRelativeURL":"/openapi/v3/apis/apps/v1?hash=AB"}}}"#
        );
    }

    fn collect_references(tree: &Tree, found: &mut Vec<String>) {
        match tree {
            Tree::Map(map) => {
                for (key, value) in map.iter() {
                    match value {
                        Tree::Str(name) if key == "$ref" => found.push(name.clone()),
                        other => collect_references(other, found),
                    }
                }
            }
            Tree::List(items) => items.iter().for_each(|item| collect_references(item, found)),
            _ => {}
        }
    }
}
