//! OpenAPI v3 documents: one per group version, and the index of them.
//!
//! Structure, names and extensions are upstream's, as `kubectl` reads them to validate, explain, apply and diff. Upstream's
//! prose is not copied: descriptions are our own, of the common types only. (`kube-openapi/pkg/handler3`, `apiserver/pkg/endpoints/installer.go`)

mod components;
mod custom;
mod descriptions;
pub mod gnostic;
pub mod merge;
mod paths;
pub mod v2;

use corten_tree::{Map, Tree, tree};

use crate::{Schema, TypeId};

pub use components::component_name;
pub use custom::{CustomType, Form, MetaReferences, custom_component_name};
pub use descriptions::{field_description, type_description};

/// What a group version serves under one plural name.
#[derive(Debug, Clone)]
pub struct Resource<'a> {
    /// Lower-case plural: the last part of its path.
    pub plural: &'a str,
    /// Kind of its objects.
    pub kind: &'a str,
    /// Type of its objects in the schema; `None` if the schema has none (only its paths are described then).
    pub ty: Option<TypeId>,
    /// Type of its lists.
    pub list_ty: Option<TypeId>,
    /// The kind as its definition has it, if one made it: instead of types of the schema.
    pub custom: Option<CustomType<'a>>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Served verbs: `get`, `list`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verbs: &'a [&'a str],
    /// What is served below an object.
    pub subresources: Vec<Subresource<'a>>,
}

/// What is served below an object: `status`, `scale`, `log`, …
#[derive(Debug, Clone)]
pub struct Subresource<'a> {
    /// The last part of its path.
    pub name: &'a str,
    /// Group, version and kind of what goes in and out.
    pub gvk: (&'a str, &'a str, &'a str),
    /// Its type in the schema.
    pub ty: Option<TypeId>,
    /// Served verbs: `get`, `create`, `update`, `patch`, `delete`.
    pub verbs: &'a [&'a str],
}

/// The path of a group version's document in the index (`api/v1`, `apis/apps/v1`).
pub fn document_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The document of one group version, as JSON.
pub fn document(schema: &Schema, group: &str, version: &str, resources: &[Resource<'_>]) -> Vec<u8> {
    let mut used = components::Used::new(schema);
    let paths = paths::paths(&mut used, group, version, resources);
    let schemas = used.schemas(group, version);
    let scheme = tree!({"in": "header", "name": "authorization", "type": "apiKey"});
    let document = tree!({
        "components": {"schemas": (schemas), "securitySchemes": {"BearerToken": (scheme)}},
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "openapi": "3.0.0",
        "paths": (paths),
    });
    document.to_json()
}

/// The index at `/openapi/v3`: for each document its path (see [`document_path`]) and where it is, with a hash of its bytes;
/// clients keep a document for as long as its hash stays.
pub fn index<'a>(documents: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut paths: Vec<(&str, &str)> = documents.into_iter().collect();
    paths.sort_unstable();
    let entry = |(path, url): (&str, &str)| (path.to_owned().into(), tree!({"serverRelativeURL": url}));
    tree!({"paths": (Tree::Map(Map::from_entries(paths.into_iter().map(entry).collect())))}).to_json()
}

/// A reference to a component.
fn reference(name: &str) -> Tree {
    tree!({"$ref": (format!("#/components/schemas/{name}"))})
}
