//! A tree as protobuf bytes. Written backwards, so the fields go from the last to the first.

use corten_tree::Tree;

use super::wire::Writer;
use crate::model::{Field, FieldType, Scalar, Schema, TypeDef, TypeId};
use crate::scalars::{base64, duration, quantity, time};

/// The message bytes of a tree of type `ty`. The values must be of their types, as a decoded tree's are; a value that is
/// not counts as zero.
pub fn encode(schema: &Schema, ty: TypeId, tree: &Tree) -> Vec<u8> {
    let mut writer = Writer::with_capacity(2048);
    structure(&mut writer, schema, ty, tree);
    writer.into_bytes()
}

/// As [`encode`], appended to `out`.
pub fn encode_to(out: &mut Vec<u8>, schema: &Schema, ty: TypeId, tree: &Tree) {
    out.extend_from_slice(&encode(schema, ty, tree));
}

/// Most structs have fewer members than this.
const MEMBERS_COMMON: usize = 48;

fn structure(out: &mut Writer, schema: &Schema, ty: TypeId, tree: &Tree) {
    let def = schema.def(ty);
    let mut few = [None; MEMBERS_COMMON];
    let mut many = Vec::new();
    let values: &mut [Option<&Tree>] = if def.members.len() <= MEMBERS_COMMON {
        &mut few[..def.members.len()]
    } else {
        many.resize(def.members.len(), None);
        &mut many
    };
    if let Tree::Map(map) = tree {
        for (key, value) in map.iter().filter(|(_, value)| !value.is_null()) {
            if let Some(at) = schema.member_at(def, key) {
                values[usize::from(at)] = Some(value);
            }
        }
    }
    fields(out, schema, def, values);
}

/// The fields of a struct; `values` begins with its first member.
fn fields(out: &mut Writer, schema: &Schema, def: &TypeDef, values: &[Option<&Tree>]) {
    for at in def.by_number.iter().rev().map(|at| usize::from(*at)) {
        let field = &def.fields[at];
        let base = usize::from(def.bases[at]);
        match &field.ty {
            FieldType::Struct(inner) if field.inline => {
                let mark = out.len();
                fields(out, schema, schema.def(*inner), &values[base..]);
                out.close_message(field.number, mark);
            }
            ty => one_field(out, schema, field, ty, values[base]),
        }
    }
}

pub(super) fn one_field(out: &mut Writer, schema: &Schema, field: &Field, ty: &FieldType, tree: Option<&Tree>) {
    match (ty, tree) {
        (FieldType::List(item), Some(Tree::List(items))) => {
            items.iter().rev().for_each(|tree| value(out, schema, field.number, item, tree));
        }
        (FieldType::Map(item), Some(Tree::Map(map))) => {
            if map.as_slice().is_sorted_by(|a, b| a.0 <= b.0) {
                map.as_slice().iter().rev().for_each(|(key, tree)| entry(out, schema, field.number, item, key, tree));
            } else {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                entries.into_iter().rev().for_each(|(key, tree)| entry(out, schema, field.number, item, key, tree));
            }
        }
        (FieldType::List(_) | FieldType::Map(_), _) => {}
        (_, Some(tree)) => value(out, schema, field.number, ty, tree),
        (_, None) if !field.is_nullable() => value(out, schema, field.number, ty, &Tree::Null),
        (_, None) => {}
    }
}

fn entry(out: &mut Writer, schema: &Schema, number: u32, item: &FieldType, key: &str, tree: &Tree) {
    let mark = out.len();
    // Upstream leaves nil bytes in a map's entry out.
    if !(matches!(item, FieldType::Scalar(Scalar::Bytes)) && tree.is_null()) {
        value(out, schema, 2, item, tree);
    }
    out.bytes_field(1, key.as_bytes());
    out.close_message(number, mark);
}

/// A value with its tag; `null` is the type's zero value.
pub(super) fn value(out: &mut Writer, schema: &Schema, number: u32, ty: &FieldType, tree: &Tree) {
    let mark = out.len();
    match ty {
        FieldType::Struct(inner) => structure(out, schema, *inner, tree),
        FieldType::Scalar(scalar) => return scalar_value(out, schema, number, *scalar, tree),
        // Upstream has no lists of lists or maps of maps in protobuf.
        FieldType::List(_) | FieldType::Map(_) => return,
    }
    out.close_message(number, mark);
}

pub(super) fn scalar_value(out: &mut Writer, schema: &Schema, number: u32, scalar: Scalar, tree: &Tree) {
    let text = tree.as_str().unwrap_or_default();
    match scalar {
        Scalar::Str => return out.bytes_field(number, text.as_bytes()),
        Scalar::Bool => return out.varint_field(number, tree.as_bool().unwrap_or_default().into()),
        Scalar::Int32 | Scalar::Int64 => return out.varint_field(number, tree.as_i64().unwrap_or_default() as u64),
        Scalar::Float64 => return out.fixed64_field(number, tree.as_f64().unwrap_or_default().to_bits()),
        Scalar::Bytes => return out.bytes_field(number, &base64::decode(text).unwrap_or_default()),
        Scalar::Any => return,
        _ => {}
    }
    let mark = out.len();
    match scalar {
        Scalar::Strings => {
            for item in tree.as_list().unwrap_or_default().iter().rev() {
                out.bytes_field(1, item.as_str().unwrap_or_default().as_bytes());
            }
        }
        Scalar::Time | Scalar::MicroTime => time_message(out, scalar, text),
        Scalar::Duration => out.varint_field(1, duration::parse(text).unwrap_or_default() as u64),
        Scalar::Quantity => {
            let canonical = quantity::canonical(text).unwrap_or("0".into());
            out.bytes_field(1, canonical.as_bytes());
        }
        Scalar::IntOrString => {
            let (is_text, int) = (tree.as_str().is_some(), tree.as_i64().unwrap_or_default());
            out.bytes_field(3, text.as_bytes());
            out.varint_field(2, int as u64);
            out.varint_field(1, is_text.into());
        }
        Scalar::Raw | Scalar::FieldsV1 | Scalar::Json if !tree.is_null() => out.bytes_field(1, &tree.to_json()),
        Scalar::SchemaOrBool | Scalar::SchemaOrArray | Scalar::SchemaOrStrings => schema_or(out, schema, scalar, tree),
        _ => {}
    }
    out.close_message(number, mark);
}

fn time_message(out: &mut Writer, scalar: Scalar, text: &str) {
    if text.is_empty() {
        return;
    }
    let micro = scalar == Scalar::MicroTime;
    let layout = if micro { time::Layout::Micros } else { time::Layout::Seconds };
    if let Ok(moment) = time::parse(text, layout) {
        out.varint_field(2, if micro { u64::from(moment.nanos / 1000 * 1000) } else { 0 });
        out.varint_field(1, moment.seconds as u64);
    }
}

fn schema_or(out: &mut Writer, schema: &Schema, scalar: Scalar, tree: &Tree) {
    let Some(inner) = schema.json_schema().map(FieldType::Struct) else { return };
    match (scalar, tree) {
        (Scalar::SchemaOrBool, Tree::Map(_)) => {
            value(out, schema, 2, &inner, tree);
            out.varint_field(1, 1);
        }
        (Scalar::SchemaOrBool, _) => out.varint_field(1, tree.as_bool().unwrap_or_default().into()),
        (Scalar::SchemaOrStrings, Tree::List(items)) => {
            items.iter().rev().for_each(|item| value(out, schema, 2, &FieldType::Scalar(Scalar::Str), item));
        }
        (_, Tree::List(items)) => items.iter().rev().for_each(|item| value(out, schema, 2, &inner, item)),
        (_, Tree::Map(_)) => value(out, schema, 1, &inner, tree),
        _ => {}
    }
}
