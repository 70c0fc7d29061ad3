//! The OpenAPI v2 document (Swagger): one for all group versions, made of their v3 documents.
//!
//! What the older form cannot say is left out as upstream leaves it out: defaults, alternatives, kinds of custom fields
//! (`apiserver/pkg/server/routes/openapi.go`, `kube-openapi/pkg/schemaconv`, `apiextensions-apiserver/pkg/controller/openapi/v2`).

use std::collections::BTreeMap;

use corten_tree::{Key, Map, Tree, tree};

use super::{CustomType, Form, MetaReferences, component_name, custom_component_name};

const GVK: &str = "x-kubernetes-group-version-kind";
const SCHEMAS: &str = "#/components/schemas/";

/// The document of all group versions. `custom` are the kinds that definitions made, at each of their served versions.
pub fn document(documents: &[Tree], custom: &[CustomType<'_>], version: &str) -> Tree {
    let (mut paths, mut definitions) = (BTreeMap::new(), BTreeMap::<String, Tree>::new());
    for document in documents {
        for (path, item) in document.map_at("paths").iter() {
            paths.insert(path.to_owned(), path_item(item));
        }
        for (name, component) in document.map_at("components.schemas").iter() {
            let mut found = schema(component);
            if let Some(before) = definitions.get(name) {
                found = with_kinds_of(found, before);
            }
            definitions.insert(name.to_owned(), found);
        }
    }
    let reference = |name: &str| tree!({"$ref": (format!("#/definitions/{name}"))});
    let meta = MetaReferences {
        object: reference(&component_name("meta.v1.ObjectMeta")),
        list: reference(&component_name("meta.v1.ListMeta")),
    };
    for kind in custom {
        let name = |kind_name: &str| custom_component_name(kind.group, kind.version, kind_name);
        let list = kind.list_component(Form::V2, reference(&name(kind.kind)), &meta);
        definitions.insert(name(kind.kind), kind.component(Form::V2, &meta));
        definitions.insert(name(kind.list_kind), list);
    }
    let map = |entries: BTreeMap<String, Tree>| {
        Tree::Map(Map::from_entries(entries.into_iter().map(|(key, value)| (Key::from(key), value)).collect()))
    };
    tree!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": (map(paths)),
        "definitions": (map(definitions)),
        "securityDefinitions": {"BearerToken": {
            "description": "Bearer Token authentication", "type": "apiKey", "name": "authorization", "in": "header"
        }},
        "security": [{"BearerToken": []}]
    })
}

/// A type that several group versions have (DeleteOptions) stands for the kinds of all of them.
fn with_kinds_of(mut found: Tree, before: &Tree) -> Tree {
    let mut kinds = before.get(GVK).and_then(Tree::as_list).unwrap_or_default().to_vec();
    for kind in found.get(GVK).and_then(Tree::as_list).unwrap_or_default() {
        if !kinds.contains(kind) {
            kinds.push(kind.clone());
        }
    }
    if !kinds.is_empty() {
        found.insert(GVK, kinds);
    }
    found
}

/// A schema in the older form.
fn schema(node: &Tree) -> Tree {
    let Tree::Map(map) = node else { return node.clone() };
    let mut out = Map::new();
    for (key, value) in map.iter() {
        match key {
            "default" | "nullable" => {}
            "$ref" => {
                let name = value.as_str().unwrap_or_default().trim_start_matches(SCHEMAS);
                out.insert("$ref", format!("#/definitions/{name}"));
            }
            // The newer form wraps a reference that has words of its own.
            "allOf" if value.as_list().is_some_and(|all| all.len() == 1) => {
                for (key, value) in schema(&value.as_list().unwrap_or_default()[0]).fields().iter() {
                    out.insert(key.to_owned(), value.clone());
                }
            }
            // Quantities, and numbers or texts: clients send text.
            "oneOf" | "anyOf" => {
                out.insert("type", "string");
            }
            "properties" => {
                let each = value.fields().iter().map(|(name, value)| (Key::from(name.to_owned()), schema(value)));
                out.insert("properties", Tree::Map(Map::from_entries(each.collect())));
            }
            "items" | "additionalProperties" => {
                out.insert(key.to_owned(), schema(value));
            }
            _ => {
                out.insert(key.to_owned(), value.clone());
            }
        }
    }
    Tree::Map(out)
}

fn path_item(item: &Tree) -> Tree {
    let mut out = Map::new();
    for (key, value) in item.fields().iter() {
        match key {
            "parameters" => out.insert("parameters", parameters(value)),
            _ => out.insert(key.to_owned(), operation(value)),
        };
    }
    Tree::Map(out)
}

fn parameters(list: &Tree) -> Vec<Tree> {
    list.as_list().unwrap_or_default().iter().map(parameter).collect()
}

/// A parameter has its type itself, not in a schema.
fn parameter(parameter: &Tree) -> Tree {
    let mut out = Map::new();
    for (key, value) in parameter.fields().iter() {
        match key {
            "schema" => {
                for (key, value) in value.fields().iter() {
                    out.insert(key.to_owned(), value.clone());
                }
            }
            _ => {
                out.insert(key.to_owned(), value.clone());
            }
        }
    }
    Tree::Map(out)
}

fn operation(operation: &Tree) -> Tree {
    let mut out = Map::new();
    let mut all = operation.get("parameters").map(parameters).unwrap_or_default();
    if let Some(body) = operation.get("requestBody") {
        let (types, found) = content(body);
        let mut parameter = tree!({"in": "body", "name": "body", "schema": found});
        if body.bool_at("required") {
            parameter.insert("required", true);
        }
        all.insert(0, parameter);
        out.insert("consumes", types);
    }
    let (mut responses, mut produces) = (Map::new(), Vec::new());
    for (code, response) in operation.map_at("responses").iter() {
        let mut shown = tree!({"description": (response.str_at("description"))});
        if response.get("content").is_some() {
            let (types, found) = content(response);
            shown.insert("schema", found);
            produces = types;
        }
        responses.insert(code.to_owned(), shown);
    }
    for (key, value) in operation.fields().iter() {
        if !matches!(key, "parameters" | "requestBody" | "responses") {
            out.insert(key.to_owned(), value.clone());
        }
    }
    if !all.is_empty() {
        out.insert("parameters", all);
    }
    if !produces.is_empty() {
        out.insert("produces", produces);
    }
    out.insert("responses", responses);
    out.insert("schemes", vec!["https"]);
    Tree::Map(out)
}

/// The media types of a body, and its schema, which is the same in all of them.
fn content(body: &Tree) -> (Vec<Tree>, Tree) {
    let content = body.map_at("content");
    let found = content.values().next().and_then(|c| c.get("schema")).map(schema).unwrap_or_else(Tree::map);
    (content.keys().map(Tree::from).collect(), found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_tree::json;

    #[test]
    fn openapi_v2_says_what_v3_says_in_the_older_form() {
        let v3 = br##"{"paths":{"/api/v1/x/{name}":{
            "parameters":[{"in":"path","name":"name","required":true,"schema":{"type":"string","uniqueItems":true}}],
            "post":{"operationId":"createX","requestBody":{"content":{"*/*":{"schema":{"$ref":"#/components/schemas/X"}}},"required":true},
                "responses":{"200":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/X"}}},"description":"OK"}}}}},
            "components":{"schemas":{"X":{"properties":{
                "a":{"allOf":[{"$ref":"#/components/schemas/Y"}],"default":{},"description":"words"},
                "q":{"oneOf":[{"type":"string"},{"type":"number"}]},
                "l":{"items":{"$ref":"#/components/schemas/Y"},"type":"array"}},"type":"object"}}}}"##;
        let document = document(&[json::parse(v3).unwrap()], &[], "v1");
        let shown = |path: &[&str]| document.at(path).unwrap().to_json_string();
        assert_eq!(
            shown(&["definitions", "X", "properties"]),
            r##"{"a":{"$ref":"#/definitions/Y","description":"words"},"q":{"type":"string"},"l":{"items":{"$ref":"#/definitions/Y"},"type":"array"}}"##
        );
        assert_eq!(
            shown(&["paths", "/api/v1/x/{name}", "post"]),
            r##"{"consumes":["*/*"],"operationId":"createX","parameters":[{"in":"body","name":"body","schema":{"$ref":"#/definitions/X"},"required":true}],"produces":["application/json"],"responses":{"200":{"description":"OK","schema":{"$ref":"#/definitions/X"}}},"schemes":["https"]}"##
        );
        assert_eq!(
            shown(&["paths", "/api/v1/x/{name}", "parameters"]),
            r#"[{"in":"path","name":"name","required":true,"type":"string","uniqueItems":true}]"#
        );
    }
}
