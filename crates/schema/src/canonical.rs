//! What the canonical tree of a type holds: which zero values are printed, and in which form.

use corten_tree::{Key, Map, Tree};

use crate::model::{Field, FieldType, Member, Scalar, Schema, TypeDef, TypeId};

/// A member's value on its way into a map: its position, key and value.
pub(crate) type Slot = (u16, Key, Tree);

/// The position of a key that the type does not have, kept in open types.
pub(crate) const UNKNOWN: u16 = u16::MAX;

/// Whether a present value stays in the canonical form of its member.
pub(crate) fn keeps(member: &Member, field: &Field, value: &Tree, drop_empty: bool) -> bool {
    if field.pointer {
        return !value.is_null();
    }
    let zero = match (&field.ty, value) {
        (_, Tree::Null) => return false,
        (FieldType::List(_), Tree::List(items)) => {
            return !(items.is_empty() && (drop_empty || !member.emit_zero));
        }
        (FieldType::Scalar(Scalar::Strings), Tree::List(items)) => return !items.is_empty() || member.emit_zero,
        (FieldType::Map(_), Tree::Map(map)) => return !(map.is_empty() && (drop_empty || !member.emit_zero)),
        (FieldType::Scalar(_), Tree::Bool(b)) => !b,
        (FieldType::Scalar(_), Tree::Int(n)) => *n == 0,
        (FieldType::Scalar(_), Tree::Float(n)) => *n == 0.0,
        (FieldType::Scalar(_), Tree::Str(s)) => s.is_empty(),
        _ => false,
    };
    member.emit_zero || !zero
}

/// The zero value of a type as upstream prints it inside a list or map.
pub(crate) fn zero(schema: &Schema, ty: &FieldType) -> Tree {
    match ty {
        FieldType::Struct(inner) => Tree::Map(zero_struct(schema, *inner)),
        FieldType::List(_) | FieldType::Map(_) => Tree::Null,
        FieldType::Scalar(scalar) => match scalar {
            Scalar::Str => Tree::Str(String::new()),
            Scalar::Bool | Scalar::SchemaOrBool => Tree::Bool(false),
            Scalar::Int32 | Scalar::Int64 | Scalar::Float64 | Scalar::IntOrString => Tree::Int(0),
            Scalar::Duration => Tree::Str("0s".into()),
            Scalar::Quantity => Tree::Str("0".into()),
            _ => Tree::Null,
        },
    }
}

/// The zero value of a field as upstream prints it.
pub(crate) fn zero_member(schema: &Schema, field: &Field) -> Tree {
    if field.is_nullable() { Tree::Null } else { zero(schema, &field.ty) }
}

fn zero_struct(schema: &Schema, ty: TypeId) -> Map {
    let def = schema.def(ty);
    let entry = |at: &u16| {
        let field = schema.member(&def.members[usize::from(*at)]);
        (field.name.clone(), zero_member(schema, field))
    };
    Map::from_entries(def.printed_zeros.iter().map(entry).collect())
}

/// Takes the slots from `start` on as the map of a struct: in order, with the zero values that are printed.
pub(crate) fn finish_struct(schema: &Schema, def: &TypeDef, slots: &mut Vec<Slot>, start: usize) -> Map {
    let own = &mut slots[start..];
    if def.open || def.custom {
        own.sort_by(|a, b| a.1.cmp(&b.1));
    } else if !own.is_sorted_by_key(|slot| slot.0) {
        own.sort_by_key(|slot| slot.0);
    }
    let mut zeros = def.printed_zeros.as_slice();
    let mut entries = Vec::with_capacity(own.len() + zeros.len());
    for (at, key, value) in slots.drain(start..) {
        while let Some((first, rest)) = zeros.split_first().filter(|(first, _)| **first <= at) {
            if *first < at {
                entries.push(zero_entry(schema, def, *first));
            }
            zeros = rest;
        }
        entries.push((key, value));
    }
    entries.extend(zeros.iter().map(|at| zero_entry(schema, def, *at)));
    Map::from_entries(entries)
}

fn zero_entry(schema: &Schema, def: &TypeDef, at: u16) -> (Key, Tree) {
    let field = schema.member(&def.members[usize::from(at)]);
    (field.name.clone(), zero_member(schema, field))
}

/// Which members a struct has had.
#[derive(Default)]
pub(crate) struct Seen {
    low: u128,
    high: Vec<u16>,
}

impl Seen {
    /// Notes a member; whether it was there before.
    pub(crate) fn again(&mut self, at: u16) -> bool {
        if at < 128 {
            let bit = 1 << at;
            let seen = self.low & bit != 0;
            self.low |= bit;
            return seen;
        }
        let seen = self.high.contains(&at);
        if !seen {
            self.high.push(at);
        }
        seen
    }
}
