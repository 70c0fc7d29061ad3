//! Protobuf bytes into the canonical tree.

use corten_tree::{Key, Map, Tree, json};

use super::ProtobufError;
use super::wire::{Reader, Value};
use crate::canonical::{self, Seen, Slot};
use crate::model::{FieldType, Scalar, Schema, TypeDef, TypeId};
use crate::scalars::time::ZERO_SECONDS;
use crate::scalars::{Timestamp, base64, duration, quantity};

/// How deep messages may nest; as deep as JSON may.
const DEPTH_MAX: usize = json::DEPTH_MAX;

/// A message of type `ty` as canonical tree (without `kind` and `apiVersion`, which only the envelope has).
pub fn decode(schema: &Schema, ty: TypeId, bytes: &[u8]) -> Result<Tree, ProtobufError> {
    Decoder { schema, slots: Vec::with_capacity(64), depth: 0 }.structure(ty, bytes)
}

struct Decoder<'s> {
    schema: &'s Schema,
    /// The members read so far of all open messages, as in the JSON decoder.
    slots: Vec<Slot>,
    depth: usize,
}

type Outcome<T> = Result<T, ProtobufError>;

fn mismatch<T>(value: Value<'_>) -> Outcome<T> {
    Err(ProtobufError::WireType { got: value.wire_type(), field: String::new() })
}

fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// The bytes of field `number` in a message that wraps one value.
fn wrapped(bytes: &[u8], number: u32) -> Outcome<Option<&[u8]>> {
    let mut reader = Reader::new(bytes);
    let mut found = None;
    while let Some((n, value)) = reader.next()? {
        if let (true, Value::Bytes(inner)) = (n == number, value) {
            found = Some(inner);
        }
    }
    Ok(found)
}

impl Decoder<'_> {
    fn structure(&mut self, ty: TypeId, bytes: &[u8]) -> Outcome<Tree> {
        if self.depth == DEPTH_MAX {
            return Err(ProtobufError::Depth);
        }
        self.depth += 1;
        let start = self.slots.len();
        let def = self.schema.def(ty);
        self.fields(def, def, 0, start, bytes, &mut Seen::default())?;
        self.depth -= 1;
        self.finish_collections(def, start);
        Ok(Tree::Map(canonical::finish_struct(self.schema, def, &mut self.slots, start)))
    }

    /// The fields of `def`, whose members begin at `base` among those of `outer`, which has its slots from `start` on.
    fn fields(
        &mut self,
        outer: &TypeDef,
        def: &TypeDef,
        base: u16,
        start: usize,
        bytes: &[u8],
        seen: &mut Seen,
    ) -> Outcome<()> {
        let mut reader = Reader::new(bytes);
        let mut next = 0;
        while let Some((number, value)) = reader.next()? {
            // Fields mostly come in order: look at the next one first.
            let number_at = |at: &u16| def.fields[usize::from(*at)].number;
            while def.by_number.get(next).is_some_and(|at| number_at(at) < number) {
                next += 1;
            }
            if def.by_number.get(next).is_none_or(|at| number_at(at) != number) {
                match def.by_number.binary_search_by_key(&number, number_at) {
                    Ok(found) => next = found,
                    Err(_) => continue,
                }
            }
            let at = usize::from(def.by_number[next]);
            let field = &def.fields[at];
            let position = base + def.bases[at];
            let outcome = match (&field.ty, value) {
                (FieldType::Struct(inner), Value::Bytes(bytes)) if field.inline => {
                    if self.depth == DEPTH_MAX {
                        return Err(ProtobufError::Depth);
                    }
                    self.depth += 1;
                    self.fields(outer, self.schema.def(*inner), position, start, bytes, seen)?;
                    self.depth -= 1;
                    continue;
                }
                (FieldType::List(item), value) => self.list_item(position, &field.name, item, value, start),
                (FieldType::Map(item), value) => self.map_entry(position, &field.name, item, value, start),
                (ty, value) => self.value(ty, value).map(|tree| {
                    let member = &outer.members[usize::from(position)];
                    if seen.again(position) {
                        // Of a repeated field the last value counts.
                        if let Some(old) = self.slots[start..].iter().position(|slot| slot.0 == position) {
                            self.slots.remove(start + old);
                        }
                    }
                    if canonical::keeps(member, field, &tree, true) {
                        self.slots.push((position, field.name.clone(), tree));
                    }
                }),
            };
            outcome.map_err(|error| match error {
                ProtobufError::WireType { got, field: name } if name.is_empty() => {
                    ProtobufError::WireType { got, field: field.name.to_string() }
                }
                other => other,
            })?;
        }
        Ok(())
    }

    /// The slot of a list or map, made if this is its first item.
    fn collection(&mut self, position: u16, name: &Key, start: usize, new: fn() -> Tree) -> &mut Tree {
        let at = match self.slots[start..].iter().rposition(|slot| slot.0 == position) {
            Some(at) => start + at,
            None => {
                self.slots.push((position, name.clone(), new()));
                self.slots.len() - 1
            }
        };
        &mut self.slots[at].2
    }

    fn list_item(
        &mut self,
        position: u16,
        name: &Key,
        item: &FieldType,
        value: Value<'_>,
        start: usize,
    ) -> Outcome<()> {
        let packable = matches!(item, FieldType::Scalar(Scalar::Bool | Scalar::Int32 | Scalar::Int64));
        let mut items = Vec::new();
        match value {
            Value::Bytes(packed) if packable => {
                let mut reader = Reader::new(packed);
                while !reader.is_empty() {
                    let value = Value::Varint(reader.varint()?);
                    items.push(self.value(item, value)?);
                }
            }
            value => items.push(self.value(item, value)?),
        }
        if let Tree::List(list) = self.collection(position, name, start, || Tree::List(Vec::new())) {
            list.append(&mut items);
        }
        Ok(())
    }

    fn map_entry(
        &mut self,
        position: u16,
        name: &Key,
        item: &FieldType,
        value: Value<'_>,
        start: usize,
    ) -> Outcome<()> {
        let Value::Bytes(bytes) = value else { return mismatch(value) };
        let mut reader = Reader::new(bytes);
        let (mut key, mut found) = (String::new(), None);
        while let Some((number, value)) = reader.next()? {
            match (number, value) {
                (1, Value::Bytes(bytes)) => key = text(bytes),
                (2, value) => found = Some(self.value(item, value)?),
                _ => {}
            }
        }
        let tree = found.unwrap_or_else(|| match item {
            FieldType::Scalar(Scalar::Bytes) => Tree::Str(String::new()),
            _ => canonical::zero(self.schema, item),
        });
        if let Tree::Map(map) = self.collection(position, name, start, Tree::map) {
            map.push_unchecked(Key::from(key), tree);
        }
        Ok(())
    }

    /// Orders maps by key; of a repeated key the last value counts.
    fn finish_collections(&mut self, def: &TypeDef, start: usize) {
        for (at, _, tree) in &mut self.slots[start..] {
            let is_map = matches!(self.schema.member(&def.members[usize::from(*at)]).ty, FieldType::Map(_));
            let Tree::Map(map) = tree else { continue };
            if is_map && !map.as_slice().is_sorted_by(|a, b| a.0 < b.0) {
                let mut entries: Vec<(Key, Tree)> = std::mem::take(map).into_iter().collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                entries.reverse();
                entries.dedup_by(|a, b| a.0 == b.0);
                entries.reverse();
                *map = Map::from_entries(entries);
            }
        }
    }

    fn value(&mut self, ty: &FieldType, value: Value<'_>) -> Outcome<Tree> {
        match (ty, value) {
            (FieldType::Struct(inner), Value::Bytes(bytes)) => self.structure(*inner, bytes),
            (FieldType::Scalar(scalar), value) => self.scalar(*scalar, value),
            (_, value) => mismatch(value),
        }
    }

    fn scalar(&mut self, scalar: Scalar, value: Value<'_>) -> Outcome<Tree> {
        Ok(match (scalar, value) {
            (Scalar::Str, Value::Bytes(bytes)) => Tree::Str(text(bytes)),
            (Scalar::Bool, Value::Varint(n)) => Tree::Bool(n != 0),
            (Scalar::Int32, Value::Varint(n)) => Tree::Int((n as i32).into()),
            (Scalar::Int64, Value::Varint(n)) => Tree::Int(n as i64),
            (Scalar::Float64, Value::Fixed64(bits)) => float(f64::from_bits(bits)),
            (Scalar::Bytes, Value::Bytes(bytes)) => Tree::Str(base64::encode(bytes)),
            (Scalar::Strings, Value::Bytes(bytes)) => {
                let mut reader = Reader::new(bytes);
                let mut items = Vec::new();
                while let Some((number, value)) = reader.next()? {
                    if let (1, Value::Bytes(item)) = (number, value) {
                        items.push(Tree::Str(text(item)));
                    }
                }
                Tree::List(items)
            }
            (Scalar::Time | Scalar::MicroTime, Value::Bytes(bytes)) => time(scalar, bytes)?,
            (Scalar::Duration, Value::Bytes(bytes)) => Tree::Str(duration::format(first_varint(bytes)?)),
            (Scalar::Quantity, Value::Bytes(bytes)) => quantity(bytes)?,
            (Scalar::IntOrString, Value::Bytes(bytes)) => int_or_string(bytes)?,
            (Scalar::Raw | Scalar::FieldsV1 | Scalar::Json, Value::Bytes(bytes)) => match wrapped(bytes, 1)? {
                Some(raw) if scalar == Scalar::FieldsV1 && raw.first() == Some(&b'{') => {
                    let mut reader = json::Reader::new(raw);
                    let read = reader.raw().and_then(|tree| reader.end().map(|()| tree));
                    read.map_err(|error| ProtobufError::Json(error.message.clone()))?
                }
                Some(raw) if !raw.is_empty() => {
                    json::parse(raw).map_err(|error| ProtobufError::Json(error.message.clone()))?
                }
                _ => Tree::Null,
            },
            (Scalar::SchemaOrBool | Scalar::SchemaOrArray | Scalar::SchemaOrStrings, Value::Bytes(bytes)) => {
                self.schema_or(scalar, bytes)?
            }
            (_, value) => return mismatch(value),
        })
    }

    fn schema_or(&mut self, scalar: Scalar, bytes: &[u8]) -> Outcome<Tree> {
        let Some(inner) = self.schema.json_schema() else { return Ok(Tree::Null) };
        let mut reader = Reader::new(bytes);
        let (mut single, mut items, mut allows) = (None, Vec::new(), false);
        while let Some((number, value)) = reader.next()? {
            match (scalar, number, value) {
                (Scalar::SchemaOrBool, 1, Value::Varint(n)) => allows = n != 0,
                (Scalar::SchemaOrBool, 2, Value::Bytes(bytes)) | (_, 1, Value::Bytes(bytes)) => {
                    single = Some(self.structure(inner, bytes)?);
                }
                (Scalar::SchemaOrArray, 2, Value::Bytes(bytes)) => items.push(self.structure(inner, bytes)?),
                (Scalar::SchemaOrStrings, 2, Value::Bytes(bytes)) => items.push(Tree::Str(text(bytes))),
                _ => {}
            }
        }
        Ok(match single {
            _ if !items.is_empty() => Tree::List(items),
            Some(schema) => schema,
            None if scalar == Scalar::SchemaOrBool => Tree::Bool(allows),
            None => Tree::Null,
        })
    }
}

fn float(n: f64) -> Tree {
    if !n.is_finite() {
        return Tree::Int(0);
    }
    if n.fract() == 0.0 && n.abs() < 9.0e15 { Tree::Int(n as i64) } else { Tree::Float(n) }
}

fn first_varint(bytes: &[u8]) -> Outcome<i64> {
    let mut reader = Reader::new(bytes);
    let mut found = 0;
    while let Some((number, value)) = reader.next()? {
        if let (1, Value::Varint(n)) = (number, value) {
            found = n as i64;
        }
    }
    Ok(found)
}

/// An empty message is the zero time: `null`.
fn time(scalar: Scalar, bytes: &[u8]) -> Outcome<Tree> {
    if bytes.is_empty() {
        return Ok(Tree::Null);
    }
    let mut reader = Reader::new(bytes);
    let (mut seconds, mut nanos) = (0, 0);
    while let Some((number, value)) = reader.next()? {
        match (number, value) {
            (1, Value::Varint(n)) => seconds = n as i64,
            (2, Value::Varint(n)) => nanos = (n as u32).min(999_999_999),
            _ => {}
        }
    }
    let moment = Timestamp { seconds, nanos };
    Ok(match scalar {
        _ if seconds == ZERO_SECONDS && nanos == 0 => Tree::Null,
        Scalar::Time => Tree::Str(moment.to_seconds_text()),
        _ => Tree::Str(moment.to_micros_text()),
    })
}

fn quantity(bytes: &[u8]) -> Outcome<Tree> {
    let text = text(wrapped(bytes, 1)?.unwrap_or_default());
    if text.is_empty() {
        return Ok(Tree::Str("0".into()));
    }
    match quantity::canonical(&text) {
        Ok(canonical) => Ok(Tree::Str(canonical.into_owned())),
        Err(error) => Err(ProtobufError::Json(error.to_string())),
    }
}

fn int_or_string(bytes: &[u8]) -> Outcome<Tree> {
    let mut reader = Reader::new(bytes);
    let (mut is_text, mut int, mut string) = (false, 0, String::new());
    while let Some((number, value)) = reader.next()? {
        match (number, value) {
            (1, Value::Varint(n)) => is_text = n == 1,
            (2, Value::Varint(n)) => int = n as i32,
            (3, Value::Bytes(bytes)) => string = text(bytes),
            _ => {}
        }
    }
    Ok(if is_text { Tree::Str(string) } else { Tree::Int(int.into()) })
}
