//! A schema as CEL sees it (`apiserver/pkg/cel/common/schemas.go` `SchemaDeclType`).

use std::sync::{Arc, LazyLock};

use corten_cel::{Decl, Format, ListKind, Type};
use corten_schema::ListType;
use corten_schema::structural::{Additional, Props, Type as SchemaType};
use corten_tree::tree;

/// Bytes of the largest request.
pub(super) const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;
const DURATION_MAX: u64 = 32;
const DURATION_MIN: u64 = 3;
const DATE_SIZE: u64 = 12;
const DATE_TIME_MAX: u64 = 32;
const DATE_TIME_MIN: u64 = 21;

/// What is always there in an object, whatever its schema says.
static OBJECT: LazyLock<Props> = LazyLock::new(|| {
    Props::parse(&tree!({"type": "object", "properties": {
        "kind": {"type": "string"},
        "apiVersion": {"type": "string"},
        "metadata": {"type": "object", "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}}}
    }}))
});

/// The declaration of a node; `None` for what rules cannot see. `object`: it is a whole object.
pub(super) fn declare(props: &Props, object: bool) -> Option<Decl> {
    let mut decl = if props.int_or_string {
        let max = props.max_length.map_or(REQUEST_BYTES_MAX - 2, |max| count(max).saturating_mul(4));
        Decl { int_or_string: true, max_elements: max, ..Decl::dynamic() }
    } else {
        match props.ty {
            SchemaType::Array => list(props)?,
            SchemaType::Object => map_or_object(props, object)?,
            SchemaType::String => text(props),
            SchemaType::Boolean => Decl::simple(Type::Bool, 4),
            SchemaType::Number => Decl::simple(Type::Double, 1),
            SchemaType::Integer => Decl::simple(Type::Int, 1),
            SchemaType::Any | SchemaType::Unknown => return None,
        }
    };
    decl.nullable = props.nullable;
    Some(decl)
}

pub(super) fn count(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn list(props: &Props) -> Option<Decl> {
    let items = props.items.as_deref()?;
    let item = declare(items, items.embedded)?;
    let max = props.max_items.map_or((REQUEST_BYTES_MAX - 2) / (item.min_serialized_size + 1), count);
    let mut decl = Decl::list(item, max);
    decl.list = match props.list_type {
        ListType::Set => ListKind::Set,
        ListType::Map => ListKind::Map(props.list_keys.clone()),
        _ => ListKind::Atomic,
    };
    Some(decl)
}

fn map_or_object(props: &Props, object: bool) -> Option<Decl> {
    if let Additional::Schema(value) = &props.additional {
        let value = declare(value, value.embedded)?;
        let max = props.max_properties.map_or((REQUEST_BYTES_MAX - 2) / (value.min_serialized_size + 6), count);
        return Some(Decl::map(value, max));
    }
    let mut size = 2;
    let mut fields = Vec::new();
    let always = OBJECT.properties.iter().filter(|_| object);
    let own = props.properties.iter().filter(|(name, _)| !object || OBJECT.property(name).is_none());
    for (name, property) in own.chain(always) {
        let Some(decl) = declare(property, property.embedded) else { continue };
        if props.required.contains(name) && property.default.is_none() {
            size += name.len() as u64 + decl.min_serialized_size + 4;
        }
        fields.push((name.clone(), decl));
    }
    Some(Decl { min_serialized_size: size, ..Decl::object("object", fields) })
}

fn text(props: &Props) -> Decl {
    let given = props.max_length.map(count);
    let timed =
        |ty: Type, format: Format, min: u64, max: u64| Decl { max_elements: max, format, ..Decl::simple(ty, min) };
    match props.format.as_str() {
        "byte" => Decl {
            max_elements: given.unwrap_or(REQUEST_BYTES_MAX - 2),
            format: Format::Byte,
            ..Decl::simple(Type::Bytes, 2)
        },
        "duration" => timed(Type::Duration, Format::Duration, DURATION_MIN, DURATION_MAX),
        "date" => timed(Type::Timestamp, Format::Date, DATE_SIZE, DATE_SIZE),
        "date-time" => timed(Type::Timestamp, Format::DateTime, DATE_TIME_MIN, DATE_TIME_MAX),
        _ => {
            let longest = props.values.iter().filter_map(|v| v.as_str()).map(|v| v.len() as u64).max().unwrap_or(0);
            Decl::string(match (given, props.values.is_empty()) {
                (Some(max), _) => max.saturating_mul(4),
                (None, false) => longest,
                (None, true) => REQUEST_BYTES_MAX - 2,
            })
        }
    }
}

/// The declaration of a member: by its escaped name, or of any value of a map.
pub(super) fn member(decl: &Decl, name: &str, property: &Props) -> Option<Arc<Decl>> {
    match corten_cel::escape(name) {
        Some(escaped) => decl.field(&escaped).map(|field| Arc::new(field.decl.clone())),
        // What rules cannot name may still have rules of its own.
        None => declare(property, property.embedded).map(Arc::new),
    }
}
