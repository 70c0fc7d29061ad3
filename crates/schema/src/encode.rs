//! A tree as upstream's JSON bytes.

use corten_tree::json::{write, write_str};
use corten_tree::{Map, Tree};

use crate::canonical;
use crate::model::{FieldType, Scalar, Schema, TypeId};
use crate::scalars::quantity;

/// Writes a tree of type `ty` as upstream would print it: field order, omitted and printed zero values, sorted maps,
/// canonical quantities. Keys that the type does not have are left out.
///
/// The values must be of their types, as those of a decoded and then edited tree are; others are written as they stand.
pub fn encode_json(schema: &Schema, ty: TypeId, tree: &Tree) -> Vec<u8> {
    let mut out = Vec::with_capacity(2048);
    encode_json_to(&mut out, schema, ty, tree);
    out
}

/// As [`encode_json`], appended to `out`.
pub fn encode_json_to(out: &mut Vec<u8>, schema: &Schema, ty: TypeId, tree: &Tree) {
    value(out, schema, &FieldType::Struct(ty), tree);
}

fn value(out: &mut Vec<u8>, schema: &Schema, ty: &FieldType, tree: &Tree) {
    match (ty, tree) {
        (_, Tree::Null) => write(out, &canonical::zero(schema, ty)),
        (FieldType::Struct(inner), Tree::Map(map)) => structure(out, schema, *inner, map),
        (FieldType::List(item), Tree::List(items)) => list(out, schema, item, items),
        (FieldType::Map(item), Tree::Map(map)) => sorted_map(out, schema, item, map),
        (FieldType::Scalar(Scalar::Quantity), Tree::Str(text)) => match quantity::canonical(text) {
            Ok(canonical) => write_str(out, &canonical),
            Err(_) => write_str(out, text),
        },
        (FieldType::Scalar(Scalar::SchemaOrArray), Tree::List(items)) => match schema.json_schema() {
            Some(inner) => list(out, schema, &FieldType::Struct(inner), items),
            None => write(out, tree),
        },
        (FieldType::Scalar(Scalar::SchemaOrBool | Scalar::SchemaOrArray | Scalar::SchemaOrStrings), Tree::Map(map)) => {
            match schema.json_schema() {
                Some(inner) => structure(out, schema, inner, map),
                None => write(out, tree),
            }
        }
        _ => write(out, tree),
    }
}

fn list(out: &mut Vec<u8>, schema: &Schema, item: &FieldType, items: &[Tree]) {
    in_brackets(out, items, |out, tree| value(out, schema, item, tree));
}

fn sorted_map(out: &mut Vec<u8>, schema: &Schema, item: &FieldType, map: &Map) {
    in_order(out, map, |out, key, tree| {
        name(out, key);
        value(out, schema, item, tree);
    });
}

/// A name that needs no escapes, with its quotes and colon, and a comma before it unless it is the first.
fn name(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    write_str(out, name);
    out.push(b':');
}

fn structure(out: &mut Vec<u8>, schema: &Schema, ty: TypeId, map: &Map) {
    let def = schema.def(ty);
    if def.custom {
        return custom_structure(out, schema, ty, map);
    }
    let mut kept: Vec<(u16, &Tree)> = Vec::with_capacity(map.len());
    for (key, tree) in map.iter() {
        if let Some(at) = schema.member_at(def, key) {
            let member = &def.members[usize::from(at)];
            if canonical::keeps(member, schema.member(member), tree, false) {
                kept.push((at, tree));
            }
        }
    }
    if !kept.is_sorted_by_key(|(at, _)| *at) {
        kept.sort_by_key(|(at, _)| *at);
    }
    let mut zeros = def.printed_zeros.as_slice();
    let print_zero = |out: &mut Vec<u8>, at: u16| {
        let field = schema.member(&def.members[usize::from(at)]);
        name(out, &field.name);
        write(out, &canonical::zero_member(schema, field));
    };
    out.push(b'{');
    for (at, tree) in kept {
        while let Some((first, rest)) = zeros.split_first().filter(|(first, _)| **first <= at) {
            if *first < at {
                print_zero(out, *first);
            }
            zeros = rest;
        }
        let field = schema.member(&def.members[usize::from(at)]);
        name(out, &field.name);
        value(out, schema, &field.ty, tree);
    }
    zeros.iter().for_each(|at| print_zero(out, *at));
    out.push(b'}');
}

/// A struct of a custom resource: its keys ordered by name, its values as they are.
fn custom_structure(out: &mut Vec<u8>, schema: &Schema, ty: TypeId, map: &Map) {
    let open = schema.def(ty).open;
    in_order(out, map, |out, key, tree| match schema.field(ty, key) {
        Some(field) => {
            name(out, key);
            custom_value(out, schema, &field.ty, tree);
        }
        None if open => {
            name(out, key);
            plain(out, tree);
        }
        None => {}
    });
}

fn custom_value(out: &mut Vec<u8>, schema: &Schema, ty: &FieldType, tree: &Tree) {
    match (ty, tree) {
        (FieldType::Struct(inner), Tree::Map(map)) => structure(out, schema, *inner, map),
        (FieldType::Map(item), Tree::Map(map)) => in_order(out, map, |out, key, tree| {
            name(out, key);
            custom_value(out, schema, item, tree);
        }),
        (FieldType::List(item), Tree::List(items)) => {
            in_brackets(out, items, |out, tree| custom_value(out, schema, item, tree));
        }
        _ => plain(out, tree),
    }
}

/// A value without a schema, its maps ordered by name.
fn plain(out: &mut Vec<u8>, tree: &Tree) {
    match tree {
        Tree::Map(map) => in_order(out, map, |out, key, tree| {
            name(out, key);
            plain(out, tree);
        }),
        Tree::List(items) => in_brackets(out, items, plain),
        scalar => write(out, scalar),
    }
}

fn in_order(out: &mut Vec<u8>, map: &Map, mut entry: impl FnMut(&mut Vec<u8>, &str, &Tree)) {
    out.push(b'{');
    if map.as_slice().is_sorted_by(|a, b| a.0 <= b.0) {
        map.iter().for_each(|(key, tree)| entry(out, key, tree));
    } else {
        let mut entries: Vec<_> = map.iter().collect();
        entries.sort_by_key(|(key, _)| *key);
        entries.into_iter().for_each(|(key, tree)| entry(out, key, tree));
    }
    out.push(b'}');
}

fn in_brackets(out: &mut Vec<u8>, items: &[Tree], mut item: impl FnMut(&mut Vec<u8>, &Tree)) {
    out.push(b'[');
    for (i, tree) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        item(out, tree);
    }
    out.push(b']');
}
