//! What `explain` tells of a type: its fields, their types, what is required, and the values of enumerations.

use crate::model::{Field, FieldType, Scalar, Schema, TypeId};
use crate::openapi::{field_description, type_description};

/// A field as `explain` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainedField {
    /// JSON name.
    pub name: String,
    /// Type as kubectl prints it, without brackets: `[]Container`, `map[string]string`, `integer`.
    pub ty: String,
    /// Whether it must be there.
    pub required: bool,
    /// The values of an enumeration; empty for other fields.
    pub values: Vec<&'static str>,
    /// Declared default as JSON text; empty if none.
    pub default: std::borrow::Cow<'static, str>,
    /// One line about it in our own words, if there is one.
    pub description: Option<&'static str>,
    /// The struct inside, if there is one.
    pub inner: Option<TypeId>,
}

/// A type, or a field of it, with the fields inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// One line about the type, in our own words, if there is one.
    pub description: Option<&'static str>,
    /// The field that the path led to; `None` for an empty path.
    pub field: Option<ExplainedField>,
    /// The fields inside, by name; empty if there are none.
    pub fields: Vec<ExplainedField>,
}

/// Explains what is at a path of field names below a type; `Err` has the name that does not exist.
pub fn explain<'p>(schema: &Schema, ty: TypeId, path: &[&'p str]) -> Result<Explained, &'p str> {
    let mut at = Some(ty);
    let mut field = None;
    for name in path {
        let owner = at.ok_or(*name)?;
        let found = schema.field(owner, name).ok_or(*name)?;
        field = Some(describe(schema, owner, found));
        at = found.ty.leaf().as_struct();
    }
    let inside = |ty| schema.members(ty).map(|field| describe(schema, ty, field)).collect();
    let mut fields: Vec<ExplainedField> = at.map(inside).unwrap_or_default();
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    let description = at.and_then(|ty| type_description(&schema.def(ty).name));
    Ok(Explained { description, field, fields })
}

fn describe(schema: &Schema, owner: TypeId, field: &Field) -> ExplainedField {
    ExplainedField {
        description: field_description(&schema.def(owner).name, &field.name),
        name: field.name.to_string(),
        ty: type_text(schema, &field.ty),
        required: field.required,
        values: field.enum_values().collect(),
        default: field.default.clone(),
        inner: field.ty.leaf().as_struct(),
    }
}

fn type_text(schema: &Schema, ty: &FieldType) -> String {
    match ty {
        FieldType::Struct(inner) => schema.def(*inner).go_name().to_owned(),
        FieldType::List(item) => format!("[]{}", type_text(schema, item)),
        FieldType::Map(item) => format!("map[string]{}", type_text(schema, item)),
        FieldType::Scalar(scalar) => match scalar {
            Scalar::Str | Scalar::Bytes | Scalar::Time | Scalar::MicroTime | Scalar::Duration => "string",
            Scalar::Bool => "boolean",
            Scalar::Int32 | Scalar::Int64 => "integer",
            Scalar::Float64 => "number",
            Scalar::Strings => "[]string",
            Scalar::Quantity => "Quantity",
            Scalar::IntOrString => "IntOrString",
            Scalar::FieldsV1 => "FieldsV1",
            Scalar::Json => "JSON",
            Scalar::SchemaOrBool => "JSONSchemaPropsOrBool",
            Scalar::SchemaOrArray => "JSONSchemaPropsOrArray",
            Scalar::SchemaOrStrings => "JSONSchemaPropsOrStringArray",
            Scalar::Raw | Scalar::Any => "Object",
        }
        .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;

    #[test]
    fn a_path_is_followed() {
        let pod = builtin().gvk("", "v1", "Pod").unwrap();
        let containers = explain(builtin(), pod, &["spec", "containers"]).unwrap();
        let field = containers.field.unwrap();
        assert_eq!((field.ty.as_str(), field.required), ("[]Container", true));
        let policy = containers.fields.iter().find(|field| field.name == "imagePullPolicy").unwrap();
        assert_eq!(policy.values, ["Always", "IfNotPresent", "Never"]);
        assert_eq!(explain(builtin(), pod, &["spec", "frob", "x"]).unwrap_err(), "frob");
        let limits = explain(builtin(), pod, &["spec", "containers", "resources", "limits"]).unwrap();
        assert_eq!((limits.field.unwrap().ty.as_str(), limits.fields.len()), ("map[string]Quantity", 0));
    }
}
