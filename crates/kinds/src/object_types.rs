//! The types of kinds' objects as expressions see them (`apiserver/pkg/cel/common/schemas.go`, SchemaDeclType).

use corten_cel::{Decl, Field as CelField, Format, Object, Type, escape};
use corten_schema::{FieldType, Scalar, Schema, TypeId};

use crate::Kind;

/// The deepest that types are followed: what is below, and a type within itself, is of any type.
const DEPTH_MAX: usize = 24;

/// The type of objects of a version of a kind; its name, and those of the messages in it, begin with the kind's.
pub fn object_type(kind: &Kind, version: &str) -> Option<Type> {
    let ty = kind.type_of(version)?;
    let decl = message(&kind.schema, ty, &mut Vec::new());
    Some(decl.named(&kind.kind).ty)
}

fn message(schema: &Schema, ty: TypeId, within: &mut Vec<TypeId>) -> Decl {
    if within.contains(&ty) || within.len() >= DEPTH_MAX || schema.def(ty).open {
        return Decl::dynamic();
    }
    within.push(ty);
    let fields = schema.members(ty).filter_map(|field| {
        let name = escape(&field.name)?;
        Some((name, CelField { key: field.name.to_string(), decl: value(schema, &field.ty, within) }))
    });
    let object = Object { name: "object".into(), fields: fields.collect(), open: false };
    within.pop();
    Decl::simple(Type::Object(object.into()), 2)
}

fn value(schema: &Schema, ty: &FieldType, within: &mut Vec<TypeId>) -> Decl {
    let scalar = |ty: Type| Decl::simple(ty, 1);
    match ty {
        FieldType::Struct(ty) => message(schema, *ty, within),
        FieldType::List(item) => Decl::list(value(schema, item, within), 0),
        FieldType::Map(item) => Decl::map(value(schema, item, within), 0),
        FieldType::Scalar(of) => match of {
            Scalar::Str | Scalar::Duration | Scalar::Quantity => scalar(Type::String),
            Scalar::Bool => scalar(Type::Bool),
            Scalar::Int32 | Scalar::Int64 => scalar(Type::Int),
            Scalar::Float64 => scalar(Type::Double),
            Scalar::Bytes => Decl { format: Format::Byte, ..scalar(Type::Bytes) },
            Scalar::Time | Scalar::MicroTime => Decl { format: Format::DateTime, ..scalar(Type::Timestamp) },
            Scalar::Strings => Decl::list(scalar(Type::String), 0),
            _ => Decl::dynamic(),
        },
    }
}

#[cfg(test)]
mod tests {
    use corten_cel::{Env, Version};

    use super::*;
    use crate::Registry;

    #[test]
    fn object_types_of_kinds_know_their_fields() {
        let registry = Registry::builtin();
        let kind = registry.gvk("apps/v1", "Deployment").unwrap();
        let env = Env::new(Version::STORED).variable("object", object_type(kind, "v1").unwrap());
        let first = |source: &str| {
            env.compile(source).map_err(|issues| issues.list()[0].message.clone()).map(|p| p.result_type().clone())
        };
        assert_eq!(first("object.spec.replicas > 1"), Ok(Type::Bool));
        assert_eq!(first("object.metadata.creationTimestamp"), Ok(Type::Timestamp));
        assert_eq!(
            first("object.spec.template.spec.containers[0].ports.map(p, p.containerPort)"),
            Ok(Type::list(Type::Int))
        );
        let why = "found no matching overload for '_>_' applied to '(int, string)'";
        assert_eq!(first("object.spec.replicas > '1'"), Err(why.into()));
        assert_eq!(first("object.spec.maxRetries"), Err("undefined field 'maxRetries'".into()));
    }
}
