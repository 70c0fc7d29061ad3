//! A schema as types: what decoding, pruning, patches, field ownership and canonical form need of it.

use std::borrow::Cow;

use corten_tree::Key;

use super::{Additional, Props, Type};
use crate::model::{Field, FieldType, Scalar, SchemaBuilder, TypeId, builtin};

/// A definition that no types can be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LowerError {
    /// An object names more members than there are numbers for.
    #[error("{0} has more than {MEMBERS_MAX} properties")]
    TooManyMembers(String),
}

/// Members that one object may name.
const MEMBERS_MAX: usize = 60_000;

/// The type of an object's metadata.
const OBJECT_META: &str = "meta.v1.ObjectMeta";

/// Makes the types of a kind's objects at one version: `name` must be unique in the builder. Without a schema all is kept.
///
/// # Errors
/// See [`LowerError`].
pub fn lower(builder: &mut SchemaBuilder, name: &str, root: Option<&Props>) -> Result<TypeId, LowerError> {
    let open = Props { preserve_unknown: true, ..Props::default() };
    structure(builder, name, root.unwrap_or(&open), true)
}

fn structure(builder: &mut SchemaBuilder, name: &str, props: &Props, object: bool) -> Result<TypeId, LowerError> {
    if props.properties.len() > MEMBERS_MAX {
        return Err(LowerError::TooManyMembers(name.to_owned()));
    }
    let ty = builder.reserve(name.to_owned());
    let mut fields = Vec::with_capacity(props.properties.len() + 3);
    if object {
        for key in ["apiVersion", "kind"] {
            fields.push(member(key.to_owned(), FieldType::Scalar(Scalar::Str)));
        }
        let meta = builtin().type_by_name(OBJECT_META).expect("the table has every object's metadata");
        let meta = builder.import(builtin(), meta);
        fields.push(member("metadata".into(), FieldType::Struct(meta)));
    }
    for (key, property) in &props.properties {
        if object && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        let mut field = member(key.clone(), FieldType::Scalar(Scalar::Any));
        field.ty = value(builder, &format!("{name}.{key}"), property)?;
        field.list_type = property.list_type;
        field.list_keys = Cow::Owned(property.list_keys.join(","));
        field.atomic = property.atomic_map;
        // Server-side apply tells items by it that have no such key.
        field.default = property.default.as_ref().map_or(Cow::Borrowed(""), |value| Cow::Owned(value.to_json_string()));
        field.required = props.required.contains(key);
        fields.push(field);
    }
    let def = builder.define(ty);
    def.fields = fields;
    def.custom = true;
    def.open = props.preserve_unknown;
    def.atomic = props.atomic_map;
    Ok(ty)
}

/// A member as custom resources have them: told apart from an absent one whatever its value.
fn member(name: String, ty: FieldType) -> Field {
    Field { pointer: true, omit_empty: true, ..Field::new(Key::from(name), ty) }
}

fn value(builder: &mut SchemaBuilder, name: &str, props: &Props) -> Result<FieldType, LowerError> {
    let list = |item| FieldType::List(Box::new(item));
    if props.int_or_string {
        return Ok(FieldType::Scalar(Scalar::IntOrString));
    }
    Ok(match (props.ty, &props.additional, &props.items) {
        (Type::Array, _, Some(items)) => list(value(builder, &format!("{name}[]"), items)?),
        (Type::Array, ..) if props.preserve_unknown => list(FieldType::Scalar(Scalar::Any)),
        (Type::Array, ..) => {
            list(FieldType::Struct(structure(builder, &format!("{name}[]"), &Props::default(), false)?))
        }
        (Type::String, ..) => FieldType::Scalar(Scalar::Str),
        (Type::Integer, ..) => FieldType::Scalar(Scalar::Int64),
        (Type::Number, ..) => FieldType::Scalar(Scalar::Float64),
        (Type::Boolean, ..) => FieldType::Scalar(Scalar::Bool),
        (_, Additional::Schema(item), _) if props.properties.is_empty() => {
            FieldType::Map(Box::new(value(builder, &format!("{name}{{}}"), item)?))
        }
        (_, Additional::Allowed(true), _) if props.properties.is_empty() && !props.preserve_unknown => {
            let nothing = structure(builder, &format!("{name}{{}}"), &Props::default(), false)?;
            FieldType::Map(Box::new(FieldType::Struct(nothing)))
        }
        _ => FieldType::Struct(structure(builder, name, props, props.embedded)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, Schema, canonicalise, decode_json, encode_json};
    use corten_tree::{Tree, tree};

    fn schema(root: &Tree) -> (Schema, TypeId) {
        let mut builder = SchemaBuilder::default();
        let ty = lower(&mut builder, "v1", Some(&Props::parse(root))).unwrap();
        (builder.build(), ty)
    }

    fn example() -> Tree {
        tree!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "zero": {"type": "integer"},
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
                "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"closed": {"type": "object", "properties": {"x": {"type": "string"}}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"v": {"type": "integer"}}}},
                "embedded": {"type": "object", "x-kubernetes-embedded-resource": true,
                    "properties": {"spec": {"type": "object"}}},
                "port": {"x-kubernetes-int-or-string": true},
                "none": {"type": "object"}
            }}
        }})
    }

    #[test]
    fn pruning_reports_what_it_drops() {
        let (schema, ty) = schema(&example());
        let text = br#"{"kind":"K","apiVersion":"g/v1","metadata":{"name":"n","creationTimestamp":null,"frob":1},"extra":1,
            "spec":{"zero":0,"list":[{"a":"1","b":2},{"a":""}],"open":{"q":{"w":null},"closed":{"x":"1","y":2}},
            "map":{"k":{"v":1,"u":2}},"embedded":{"kind":"P","apiVersion":"v1","metadata":{"name":"e","bad":1},"spec":{"a":1},"z":1},
            "port":"http","none":{"gone":1},"list":[]}}"#;
        let decoded = decode_json(&schema, ty, text, Options::default()).unwrap();
        assert_eq!(
            decoded.tree.to_json_string(),
            r#"{"apiVersion":"g/v1","kind":"K","metadata":{"name":"n"},"spec":{"embedded":{"apiVersion":"v1","kind":"P","metadata":{"name":"e"},"spec":{}},"list":[],"map":{"k":{"v":1}},"none":{},"open":{"closed":{"x":"1"},"q":{"w":null}},"port":"http","zero":0}}"#
        );
        for strict in ["metadata.frob", "extra", "spec.open.closed.y", "spec.map.k.u", "spec.embedded.metadata.bad"] {
            assert!(decoded.strict.contains(&format!("unknown field {strict:?}")), "{strict}: {:?}", decoded.strict);
        }
        assert!(decoded.strict.contains(&"duplicate field \"spec.list\"".to_owned()), "{:?}", decoded.strict);
        let again = canonicalise(&schema, ty, &decoded.tree, Options::default()).unwrap();
        assert_eq!(again.tree, decoded.tree);
        assert_eq!(encode_json(&schema, ty, &decoded.tree), decoded.tree.to_json());
    }

    #[test]
    fn wrong_types_stay_for_validation_and_wrong_metadata_is_refused() {
        let (schema, ty) = schema(&example());
        let wrong =
            tree!({"metadata": {"name": "n"}, "spec": {"zero": "0", "list": {"a": 1}, "map": [1], "none": null}});
        let decoded = canonicalise(&schema, ty, &wrong, Options::default()).unwrap();
        assert_eq!(
            decoded.tree.get("spec").unwrap().to_json_string(),
            r#"{"list":{},"map":[1],"none":null,"zero":"0"}"#
        );
        let refused = canonicalise(&schema, ty, &tree!({"metadata": {"labels": 1}}), Options::default()).unwrap_err();
        assert!(refused.to_string().starts_with("json: cannot unmarshal number into Go struct field"), "{refused}");
    }

    #[test]
    fn keys_are_written_in_order() {
        let (schema, ty) = schema(&example());
        let edited = tree!({"spec": {"zero": 1, "open": {"z": {"b": 1, "a": [{"d": 1, "c": null}]}}}, "metadata": {"name": "n"}, "kind": "K"});
        assert_eq!(
            String::from_utf8(encode_json(&schema, ty, &edited)).unwrap(),
            r#"{"kind":"K","metadata":{"name":"n"},"spec":{"open":{"z":{"a":[{"c":null,"d":1}],"b":1}},"zero":1}}"#
        );
    }
}
