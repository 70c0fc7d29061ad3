//! The schemas of types: `components.schemas` of a document.

use std::collections::BTreeMap;

use corten_tree::{Key, Map, Tree, json, tree};

use super::custom::{CustomType, Form, MetaReferences, custom_component_name};
use super::{field_description, reference, type_description};
use crate::model::{Field, FieldType, ListType, Scalar, Schema, TypeId};

const APIMACHINERY: &str = "io.k8s.apimachinery.pkg";
const APIEXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";

/// Upstream's name of a type's component (`io.k8s.api.core.v1.Pod`).
pub fn component_name(type_name: &str) -> String {
    if type_name.starts_with("meta.") {
        format!("{APIMACHINERY}.apis.{type_name}")
    } else if type_name.starts_with("apiextensions.") {
        format!("io.k8s.apiextensions-apiserver.pkg.apis.{type_name}")
    } else if type_name.starts_with("apiregistration.") {
        format!("io.k8s.kube-aggregator.pkg.apis.{type_name}")
    } else {
        format!("io.k8s.api.{type_name}")
    }
}

/// The component of a scalar that has one, and its schema.
fn scalar_component(scalar: Scalar) -> Option<(String, Tree)> {
    let text_date = || tree!({"type": "string", "format": "date-time"});
    Some(match scalar {
        Scalar::Time => (format!("{APIMACHINERY}.apis.meta.v1.Time"), text_date()),
        Scalar::MicroTime => (format!("{APIMACHINERY}.apis.meta.v1.MicroTime"), text_date()),
        Scalar::Duration => (format!("{APIMACHINERY}.apis.meta.v1.Duration"), tree!({"type": "string"})),
        Scalar::FieldsV1 => (format!("{APIMACHINERY}.apis.meta.v1.FieldsV1"), tree!({"type": "object"})),
        Scalar::Raw => (format!("{APIMACHINERY}.runtime.RawExtension"), tree!({"type": "object"})),
        Scalar::Quantity => (
            format!("{APIMACHINERY}.api.resource.Quantity"),
            tree!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        ),
        Scalar::IntOrString => (
            format!("{APIMACHINERY}.util.intstr.IntOrString"),
            tree!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
        ),
        Scalar::Json => (format!("{APIEXTENSIONS}.JSON"), Tree::map()),
        Scalar::SchemaOrBool => (format!("{APIEXTENSIONS}.JSONSchemaPropsOrBool"), Tree::map()),
        Scalar::SchemaOrArray => (format!("{APIEXTENSIONS}.JSONSchemaPropsOrArray"), Tree::map()),
        Scalar::SchemaOrStrings => (format!("{APIEXTENSIONS}.JSONSchemaPropsOrStringArray"), Tree::map()),
        _ => return None,
    })
}

/// The components that a document uses.
pub(super) struct Used<'s> {
    schema: &'s Schema,
    types: BTreeMap<TypeId, ()>,
    pending: Vec<TypeId>,
    others: BTreeMap<String, Tree>,
}

impl<'s> Used<'s> {
    pub(super) fn new(schema: &'s Schema) -> Used<'s> {
        Used { schema, types: BTreeMap::new(), pending: Vec::new(), others: BTreeMap::new() }
    }

    /// A reference to a type, which becomes a component.
    pub(super) fn type_reference(&mut self, ty: TypeId) -> Tree {
        if self.types.insert(ty, ()).is_none() {
            self.pending.push(ty);
        }
        reference(&component_name(&self.schema.def(ty).name))
    }

    /// A reference to the type of a name in the table.
    pub(super) fn named_reference(&mut self, name: &str) -> Tree {
        match self.schema.type_by_name(name) {
            Some(ty) => self.type_reference(ty),
            None => tree!({"type": "object"}),
        }
    }

    /// References to a kind that a definition made, and to its lists.
    pub(super) fn custom_references(&mut self, custom: &CustomType<'_>) -> (Tree, Tree) {
        let meta = MetaReferences {
            object: self.named_reference("meta.v1.ObjectMeta"),
            list: self.named_reference("meta.v1.ListMeta"),
        };
        let name = |kind: &str| custom_component_name(custom.group, custom.version, kind);
        let object = self.other_reference(&name(custom.kind), custom.component(Form::V3, &meta));
        let list = custom.list_component(Form::V3, object.clone(), &meta);
        (object, self.other_reference(&name(custom.list_kind), list))
    }

    /// A reference to a component that is not a type of the table.
    pub(super) fn other_reference(&mut self, name: &str, schema: Tree) -> Tree {
        self.others.insert(name.to_owned(), schema);
        reference(name)
    }

    /// All components, those that they refer to included.
    pub(super) fn schemas(mut self, group: &str, version: &str) -> Tree {
        let mut found = BTreeMap::new();
        while let Some(ty) = self.pending.pop() {
            let schema = self.structure(ty, group, version);
            found.insert(component_name(&self.schema.def(ty).name), schema);
        }
        found.append(&mut self.others);
        Tree::Map(Map::from_entries(found.into_iter().map(|(name, schema)| (Key::from(name), schema)).collect()))
    }

    fn structure(&mut self, ty: TypeId, group: &str, version: &str) -> Tree {
        let schema = self.schema;
        let def = schema.def(ty);
        let mut properties: Vec<(Key, Tree)> = Vec::new();
        let mut required = Vec::new();
        for field in schema.members(ty) {
            properties.push((field.name.clone(), self.property(&def.name, field)));
            if field.required {
                required.push(&*field.name);
            }
        }
        properties.sort_by(|a, b| a.0.cmp(&b.0));
        let mut out = Map::new();
        if let Some(words) = type_description(&def.name) {
            out.insert("description", words);
        }
        if !properties.is_empty() {
            out.insert("properties", Map::from_entries(properties));
        }
        if !required.is_empty() {
            out.insert("required", required);
        }
        out.insert("type", "object");
        let gvks = group_version_kinds(schema, ty, group, version);
        if !gvks.is_empty() {
            out.insert("x-kubernetes-group-version-kind", gvks);
        }
        if let Some(map_type) = map_type(def.atomic, def.granular) {
            out.insert("x-kubernetes-map-type", map_type);
        }
        Tree::Map(out)
    }

    fn property(&mut self, owner: &str, field: &Field) -> Tree {
        let mut out = Map::new();
        let value = self.value(&field.ty);
        let default = default_of(field);
        let extensions = extensions(field);
        let words = field_description(owner, &field.name);
        let alone = default.is_none() && extensions.is_empty() && words.is_none();
        match value {
            // What stands beside a reference is ignored, so the reference goes into a list of one.
            Tree::Map(map) if map.contains("$ref") && !alone => {
                out.insert("allOf", vec![Tree::Map(map)]);
            }
            Tree::Map(map) => out = map,
            _ => {}
        }
        if let Some(words) = words {
            out.insert("description", words);
        }
        if let Some(default) = default {
            out.insert("default", default);
        }
        for (key, value) in extensions {
            out.insert(key, value);
        }
        out.sort_keys();
        Tree::Map(out)
    }

    fn value(&mut self, ty: &FieldType) -> Tree {
        match ty {
            FieldType::Struct(inner) => self.type_reference(*inner),
            FieldType::List(item) => tree!({"items": (self.value(item)), "type": "array"}),
            FieldType::Map(item) => tree!({"additionalProperties": (self.value(item)), "type": "object"}),
            FieldType::Scalar(scalar) => match scalar {
                Scalar::Str => tree!({"type": "string"}),
                Scalar::Bool => tree!({"type": "boolean"}),
                Scalar::Int32 => tree!({"format": "int32", "type": "integer"}),
                Scalar::Int64 => tree!({"format": "int64", "type": "integer"}),
                Scalar::Float64 => tree!({"format": "double", "type": "number"}),
                Scalar::Bytes => tree!({"format": "byte", "type": "string"}),
                Scalar::Strings => tree!({"items": {"type": "string"}, "type": "array"}),
                Scalar::Any => tree!({"type": "object"}),
                other => match scalar_component(*other) {
                    Some((name, schema)) => self.other_reference(&name, schema),
                    None => Tree::map(),
                },
            },
        }
    }
}

/// The kinds that a type stands for; types of every group version (`DeleteOptions`) also the
/// document's.
fn group_version_kinds(schema: &Schema, ty: TypeId, group: &str, version: &str) -> Vec<Tree> {
    let entry =
        |group: &str, version: &str, kind: &str| tree!({"group": (group), "kind": (kind), "version": (version)});
    let everywhere = matches!(&*schema.def(ty).name, "meta.v1.DeleteOptions" | "meta.v1.WatchEvent");
    let own: Vec<_> = schema.gvks().iter().filter(|gvk| gvk.ty == ty).collect();
    let mut found: Vec<Tree> = own.iter().map(|gvk| entry(gvk.group, gvk.version, gvk.kind)).collect();
    if everywhere && (group, version) != ("", "v1") {
        found.extend(own.iter().map(|gvk| entry(group, version, gvk.kind)));
    }
    found
}

/// The default that upstream's generator prints: the declared one, or the zero value of what Go always has.
/// (`kube-openapi/pkg/generators/openapi.go` `mustEnforceDefault`)
fn default_of(field: &Field) -> Option<Tree> {
    if !field.default.is_empty() {
        return json::parse(field.default.as_bytes()).ok();
    }
    if field.pointer {
        return None;
    }
    match field.ty {
        FieldType::Struct(_) => Some(Tree::map()),
        FieldType::Scalar(_) if field.omit_empty => None,
        FieldType::Scalar(Scalar::Str) => Some("".into()),
        FieldType::Scalar(Scalar::Bool) => Some(false.into()),
        FieldType::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Float64) => Some(0.into()),
        _ => None,
    }
}

fn map_type(atomic: bool, granular: bool) -> Option<&'static str> {
    if atomic { Some("atomic") } else { granular.then_some("granular") }
}

fn extensions(field: &Field) -> Vec<(&'static str, Tree)> {
    let mut found: Vec<(&'static str, Tree)> = Vec::new();
    let list_type = match field.list_type {
        ListType::None => None,
        ListType::Atomic => Some("atomic"),
        ListType::Set => Some("set"),
        ListType::Map => Some("map"),
    };
    let keys: Vec<&str> = field.list_keys().collect();
    if !keys.is_empty() {
        found.push(("x-kubernetes-list-map-keys", keys.into()));
    }
    if let Some(list_type) = list_type {
        found.push(("x-kubernetes-list-type", list_type.into()));
    }
    if let Some(map_type) = map_type(field.atomic, field.granular) {
        found.push(("x-kubernetes-map-type", map_type.into()));
    }
    if !field.merge_key.is_empty() {
        found.push(("x-kubernetes-patch-merge-key", field.merge_key.into()));
    }
    let strategies =
        [(field.patch.merge, "merge"), (field.patch.replace, "replace"), (field.patch.retain_keys, "retainKeys")];
    let strategies: Vec<&str> = strategies.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
    if !strategies.is_empty() {
        found.push(("x-kubernetes-patch-strategy", strategies.join(",").into()));
    }
    found
}
