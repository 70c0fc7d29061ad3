//! The components of kinds that definitions make: their own schema with what every object has, and their lists.
//!
//! (`apiextensions-apiserver/pkg/controller/openapi/builder/builder.go`, and `…/openapi/v2/conversion.go` for what the older form
//! cannot say)

use corten_tree::{Map, Tree, tree};

use super::descriptions::{ANY, field_description};

/// A kind at one version.
#[derive(Debug, Clone)]
pub struct CustomType<'a> {
    /// API group.
    pub group: &'a str,
    /// Version.
    pub version: &'a str,
    /// The kind.
    pub kind: &'a str,
    /// The kind of its lists.
    pub list_kind: &'a str,
    /// Lower-case plural.
    pub plural: &'a str,
    /// `openAPIV3Schema` of the definition, if it has one.
    pub schema: Option<Tree>,
    /// Paths of the fields that clients may select by.
    pub selectable: Vec<String>,
}

/// The form of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// OpenAPI v3.
    V3,
    /// OpenAPI v2 (Swagger), which knows less.
    V2,
}

/// The name of a kind's component: `com.example.v1.Widget`.
pub fn custom_component_name(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = group.split('.').collect();
    parts.reverse();
    format!("{}.{version}.{kind}", parts.join("."))
}

/// Kinds and lists of types with metadata, as references.
pub struct MetaReferences {
    /// To `ObjectMeta`.
    pub object: Tree,
    /// To `ListMeta`.
    pub list: Tree,
}

impl CustomType<'_> {
    /// The component of the kind.
    pub fn component(&self, form: Form, meta: &MetaReferences) -> Tree {
        let open = |schema: &Tree| schema.bool_at("x-kubernetes-preserve-unknown-fields");
        let mut out = match &self.schema {
            // A client that sees some properties would take all others for unknown.
            None => tree!({"type": "object"}),
            Some(schema) if form == Form::V2 && open(schema) => tree!({"type": "object"}),
            Some(schema) => {
                let mut out = published(schema, form, meta);
                object_fields(&mut out, form, meta);
                out
            }
        };
        let gvk = tree!({"group": (self.group), "kind": (self.kind), "version": (self.version)});
        out.insert("x-kubernetes-group-version-kind", vec![gvk]);
        self.select(&mut out, form);
        sorted(out)
    }

    /// The component of the kind's lists; `item` refers to the kind's own.
    pub fn list_component(&self, form: Form, item: Tree, meta: &MetaReferences) -> Tree {
        let gvk = tree!({"group": (self.group), "kind": (self.list_kind), "version": (self.version)});
        let mut out = tree!({
            "description": (format!("{} is a list of {}", self.list_kind, self.kind)),
            "properties": {
                "apiVersion": (text("apiVersion")),
                "items": {"description": (format!("The {} of the list.", self.plural)), "items": item, "type": "array"},
                "kind": (text("kind")),
                "metadata": (described(&meta.list, form))
            },
            "required": ["items"],
            "type": "object",
            "x-kubernetes-group-version-kind": [gvk]
        });
        self.select(&mut out, form);
        sorted(out)
    }

    fn select(&self, out: &mut Tree, form: Form) {
        if form == Form::V3 && !self.selectable.is_empty() {
            let fields = self.selectable.iter().map(|path| tree!({"fieldPath": (path.as_str())}));
            out.insert("x-kubernetes-selectable-fields", fields.collect::<Vec<Tree>>());
        }
    }
}

fn sorted(mut tree: Tree) -> Tree {
    if let Tree::Map(map) = &mut tree {
        map.sort_keys();
    }
    tree
}

/// A text field of every object.
fn text(field: &str) -> Tree {
    tree!({"description": (field_description(ANY, field).unwrap_or_default()), "type": "string"})
}

/// The metadata: a reference, and words about it. What stands beside a reference counts in the older form only.
fn described(reference: &Tree, form: Form) -> Tree {
    let words = field_description(ANY, "metadata").unwrap_or_default();
    match form {
        Form::V3 => tree!({"allOf": [(reference.clone())], "description": words}),
        Form::V2 => {
            let mut out = reference.clone();
            out.insert("description", words);
            sorted(out)
        }
    }
}

/// `apiVersion`, `kind` and `metadata` of an object.
fn object_fields(out: &mut Tree, form: Form, meta: &MetaReferences) {
    let mut properties = out.map_at("properties").clone();
    for (name, schema) in
        [("apiVersion", text("apiVersion")), ("kind", text("kind")), ("metadata", described(&meta.object, form))]
    {
        properties.insert(name, schema);
    }
    properties.sort_keys();
    out.insert("properties", properties);
}

/// A node as it is published.
fn published(schema: &Tree, form: Form, meta: &MetaReferences) -> Tree {
    let Tree::Map(map) = schema else { return schema.clone() };
    let mut out = Map::new();
    for (key, value) in map.iter() {
        let value = match (key, value) {
            ("properties", Tree::Map(properties)) => Tree::Map(
                properties
                    .as_slice()
                    .iter()
                    .map(|(name, property)| (name.clone(), published(property, form, meta)))
                    .collect(),
            ),
            ("items" | "additionalProperties" | "not", value) => published(value, form, meta),
            ("allOf" | "anyOf" | "oneOf", Tree::List(list)) => {
                Tree::List(list.iter().map(|inner| published(inner, form, meta)).collect())
            }
            (_, Tree::Null | Tree::Bool(false)) if key != "default" && key != "additionalProperties" => continue,
            (_, value) => value.clone(),
        };
        out.insert(key.to_owned(), value);
    }
    if schema.bool_at("x-kubernetes-int-or-string") && form == Form::V3 {
        unfold(&mut out);
    }
    if form == Form::V2 {
        narrow(&mut out, schema);
    }
    let mut out = Tree::Map(out);
    let open = schema.bool_at("x-kubernetes-preserve-unknown-fields");
    if schema.bool_at("x-kubernetes-embedded-resource") && !(form == Form::V2 && open) {
        object_fields(&mut out, form, meta);
        let mut required = out.list_at("required").to_vec();
        for name in ["kind", "apiVersion"] {
            if !required.iter().any(|known| known.as_str() == Some(name)) {
                required.push(name.into());
            }
        }
        out.insert("required", required);
    }
    sorted(out)
}

/// Says in plain OpenAPI what `x-kubernetes-int-or-string` says (`schema/unfold.go`).
fn unfold(out: &mut Map) {
    let either = tree!([{"type": "integer"}, {"type": "string"}]);
    let all = out.get("allOf").and_then(Tree::as_list).unwrap_or_default();
    let there = out.get("anyOf").is_some_and(|any| any.semantically_equal(&either))
        || all.first().and_then(|first| first.get("anyOf")).is_some_and(|any| any.semantically_equal(&either));
    if there {
        return;
    }
    if out.get("anyOf").and_then(Tree::as_list).is_none_or(<[Tree]>::is_empty) {
        out.insert("anyOf", either);
    } else {
        let mut all = all.to_vec();
        all.insert(0, tree!({"anyOf": either}));
        out.insert("allOf", all);
    }
}

/// Takes out what the older form cannot say, or what makes kubectl refuse more than the schema does.
fn narrow(out: &mut Map, schema: &Tree) {
    for key in ["allOf", "anyOf", "oneOf", "not", "nullable"] {
        out.remove(key);
    }
    let open = schema.bool_at("x-kubernetes-preserve-unknown-fields");
    if schema.bool_at("nullable") || open {
        out.remove("items");
        out.remove("properties");
    }
    let list = schema.str_at("type") == "array" && !out.contains("items");
    if schema.bool_at("nullable") || list || (open && schema.str_at("type") == "object") {
        out.remove("type");
    }
    let nullable = |name: &str| schema.map_at("properties").get(name).is_some_and(|p| p.bool_at("nullable"));
    if let Some(Tree::List(required)) = out.get_mut("required") {
        required.retain(|name| !name.as_str().is_some_and(nullable));
        if required.is_empty() || schema.bool_at("additionalProperties.nullable") {
            out.remove("required");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> CustomType<'static> {
        CustomType {
            group: "example.com",
            version: "v1",
            kind: "Widget",
            list_kind: "WidgetList",
            plural: "widgets",
            schema: Some(tree!({"type": "object", "description": "d", "properties": {
                "spec": {"type": "object", "required": ["a", "b"], "properties": {
                    "a": {"type": "string", "nullable": true},
                    "b": {"x-kubernetes-int-or-string": true},
                    "c": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"d": {"type": "string"}}},
                    "e": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"f": {"type": "string"}}},
                    "g": {"type": "string", "default": "x", "anyOf": [{"minLength": 1}]}}}}})),
            selectable: vec!["spec.g".into()],
        }
    }

    fn meta() -> MetaReferences {
        MetaReferences { object: tree!({"$ref": "O"}), list: tree!({"$ref": "L"}) }
    }

    /// The text of a schema, with letters for what every object has.
    fn plain(schema: &Tree) -> String {
        let mut shown = schema.to_json_string();
        let forms = [Form::V3, Form::V2].map(|form| ('M', described(&meta().object, form)));
        for (letter, part) in forms.into_iter().chain([('A', text("apiVersion")), ('K', text("kind"))]) {
            shown = shown.replace(&part.to_json_string(), &letter.to_string());
        }
        shown
    }

    #[test]
    fn every_object_is_described_in_both_forms() {
        for (form, head) in [
            (Form::V3, r#"{"allOf":[{"$ref":"O"}],"description":"Standard object's metadata"#),
            (Form::V2, r#"{"$ref":"O","description":"Standard object's metadata"#),
        ] {
            let made = example().component(form, &meta());
            let metadata = made.at(&["properties", "metadata"]).unwrap().to_json_string();
            assert!(metadata.starts_with(head), "{metadata}");
            assert!(made.str_at("properties.apiVersion.description").starts_with("APIVersion defines "));
        }
    }

    #[test]
    fn what_is_published_is_the_schema_and_what_every_object_has() {
        assert_eq!(custom_component_name("example.com", "v1", "Widget"), "com.example.v1.Widget");
        let v3 = example().component(Form::V3, &meta());
        assert_eq!(
            plain(&v3),
            concat!(
                r#"{"description":"d","properties":{"apiVersion":A,"kind":K,"metadata":M,"#,
                r#""spec":{"properties":{"a":{"nullable":true,"type":"string"},"#,
                r#""b":{"anyOf":[{"type":"integer"},{"type":"string"}],"x-kubernetes-int-or-string":true},"#,
                r#""c":{"properties":{"d":{"type":"string"}},"type":"object","x-kubernetes-preserve-unknown-fields":true},"#,
                r#""e":{"properties":{"apiVersion":A,"f":{"type":"string"},"kind":K,"metadata":M},"#,
                r#""required":["kind","apiVersion"],"type":"object","x-kubernetes-embedded-resource":true},"#,
                r#""g":{"anyOf":[{"minLength":1}],"default":"x","type":"string"}},"required":["a","b"],"type":"object"}},"#,
                r#""type":"object","x-kubernetes-group-version-kind":[{"group":"example.com","kind":"Widget","version":"v1"}],"#,
                r#""x-kubernetes-selectable-fields":[{"fieldPath":"spec.g"}]}"#
            )
        );
        let spec = example().component(Form::V2, &meta()).at(&["properties", "spec"]).unwrap().clone();
        assert_eq!(
            plain(&spec),
            concat!(
                r#"{"properties":{"a":{},"b":{"x-kubernetes-int-or-string":true},"#,
                r#""c":{"x-kubernetes-preserve-unknown-fields":true},"#,
                r#""e":{"properties":{"apiVersion":A,"f":{"type":"string"},"kind":K,"metadata":M},"#,
                r#""required":["kind","apiVersion"],"type":"object","x-kubernetes-embedded-resource":true},"#,
                r#""g":{"default":"x","type":"string"}},"required":["b"],"type":"object"}"#
            )
        );
    }
}
