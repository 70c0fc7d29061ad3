//! Canonical JSON as protobuf bytes, with no tree between: one pass over the text, driven by the schema.
//!
//! Protobuf wants a message's length before it, its fields in the order of their numbers, and the zero values of scalars that
//! JSON leaves out. So the members of a struct are written as they come, and put in order at its end, with runs of zero values
//! between them that each type has ready.

use std::sync::OnceLock;

use corten_tree::Tree;
use corten_tree::json::{JsonError, Kind, Number, Reader};

use super::encode::{one_field, scalar_value, value};
use super::wire::Writer;
use crate::model::{FieldType, Scalar, Schema, TypeDef, TypeId};
use crate::scalars::{base64, duration, quantity, time};

/// The message bytes of canonical JSON (as [`crate::encode_json`] writes it) of a value of type `ty`: those that
/// [`super::encode`] makes of its tree.
///
/// # Errors
/// If the text is not JSON, or a value in it is not of its type. Text that is not canonical is not always found out.
pub fn from_json(schema: &Schema, ty: TypeId, json: &[u8]) -> Result<Vec<u8>, JsonError> {
    let out = Vec::with_capacity(json.len() * 2);
    let mut transcoder = Transcoder { schema, reader: Reader::new(json), out, parts: Vec::with_capacity(64) };
    transcoder.message(ty, None)?;
    transcoder.reader.end()?;
    Ok(transcoder.out)
}

/// What a type knows of its messages. Made when it is first written.
#[derive(Debug, Default)]
pub(crate) struct Layout(OnceLock<Ready>);

#[derive(Debug)]
struct Ready {
    /// For each member the place of its field (of the inlined struct that it is in) among those of protobuf, by number.
    places: Vec<u16>,
    /// The message of an empty value.
    zeros: Vec<u8>,
    /// Where the field of each place begins in `zeros`; one more for the end.
    starts: Vec<u32>,
}

/// The place of a member that protobuf does not have.
const NOWHERE: u16 = u16::MAX;

impl Layout {
    fn of<'s>(schema: &'s Schema, def: &'s TypeDef) -> &'s Ready {
        def.layout.0.get_or_init(|| Ready::new(schema, def))
    }
}

impl Ready {
    fn new(schema: &Schema, def: &TypeDef) -> Ready {
        let mut places = vec![NOWHERE; def.members.len()];
        let (mut zeros, mut starts) = (Vec::new(), vec![0]);
        for (place, at) in def.by_number.iter().enumerate() {
            let field = &def.fields[usize::from(*at)];
            let base = usize::from(def.bases[usize::from(*at)]);
            let mut writer = Writer::with_capacity(16);
            let count = match &field.ty {
                FieldType::Struct(inner) if field.inline => {
                    value(&mut writer, schema, field.number, &field.ty, &Tree::Null);
                    schema.def(*inner).members.len()
                }
                ty => {
                    one_field(&mut writer, schema, field, ty, None);
                    1
                }
            };
            places[base..base + count].fill(place as u16);
            zeros.extend_from_slice(&writer.into_bytes());
            starts.push(zeros.len() as u32);
        }
        Ready { places, zeros, starts }
    }

    /// The zero values of the fields from one place to before another.
    fn zeros(&self, from: usize, to: usize) -> &[u8] {
        &self.zeros[self.starts[from] as usize..self.starts[to] as usize]
    }
}

/// A field that was written: where it belongs, and where it is.
#[derive(Clone, Copy)]
struct Part {
    /// The member of the struct that is being read; then its field's place.
    at: u16,
    start: usize,
    end: usize,
}

struct Transcoder<'s, 'j> {
    schema: &'s Schema,
    reader: Reader<'j>,
    out: Vec<u8>,
    /// The fields so far of all structs that are open.
    parts: Vec<Part>,
}

type Outcome = Result<(), JsonError>;

impl<'s> Transcoder<'s, '_> {
    /// A struct: as field `number`, or by itself.
    fn message(&mut self, ty: TypeId, number: Option<u32>) -> Outcome {
        let schema = self.schema;
        let def = schema.def(ty);
        let layout = Layout::of(schema, def);
        let (mark, first) = (self.out.len(), self.parts.len());
        self.reader.begin_map()?;
        while let Some(key) = self.reader.next_key()? {
            let at = schema.member_at(def, &key).filter(|at| layout.places[usize::from(*at)] != NOWHERE);
            let Some(at) = at else {
                self.reader.skip()?;
                continue;
            };
            if self.reader.peek()? == Kind::Null {
                self.reader.null()?;
                continue;
            }
            let start = self.out.len();
            let field = schema.member(&def.members[usize::from(at)]);
            if field.number > 0 {
                self.field(field.number, &field.ty)?;
            } else {
                self.reader.skip()?;
            }
            self.parts.push(Part { at, start, end: self.out.len() });
        }
        let assembled = self.assemble(def, 0, first, number);
        self.parts.truncate(first);
        let size = self.out.len() - assembled;
        self.out.copy_within(assembled.., mark);
        self.out.truncate(mark + size);
        Ok(())
    }

    /// Appends a message of the parts from `first` on, which are members of `def`, counted from `base`. Returns where it begins.
    fn assemble(&mut self, def: &'s TypeDef, base: u16, first: usize, number: Option<u32>) -> usize {
        let layout = Layout::of(self.schema, def);
        let place = |part: &Part| layout.places[usize::from(part.at - base)];
        if !self.parts[first..].is_sorted_by_key(place) {
            self.parts[first..].sort_by_key(place);
        }
        // Those of inlined structs become one.
        let (mut kept, mut next, count) = (first, first, self.parts.len());
        while next < count {
            let at = place(&self.parts[next]);
            let field_at = usize::from(def.by_number[usize::from(at)]);
            let field = &def.fields[field_at];
            let mut part = Part { at, ..self.parts[next] };
            let end = next + self.parts[next..].iter().take_while(|part| place(part) == at).count();
            if let (true, FieldType::Struct(inner)) = (field.inline, &field.ty) {
                let own = self.parts.len();
                self.parts.extend_from_within(next..end);
                let base = base + def.bases[field_at];
                part.start = self.assemble(self.schema.def(*inner), base, own, Some(field.number));
                part.end = self.out.len();
                self.parts.truncate(own);
            }
            self.parts[kept] = part;
            (kept, next) = (kept + 1, end);
        }
        self.parts.truncate(kept);
        let present = |part: &Part| {
            let at = usize::from(part.at);
            (part.end - part.start, layout.zeros(at, at + 1).len())
        };
        let (written, absent) =
            self.parts[first..].iter().map(present).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let start = self.out.len();
        if let Some(number) = number {
            put_header(&mut self.out, number, layout.zeros.len() - absent + written);
        }
        let mut done = 0;
        for part in &self.parts[first..] {
            let at = usize::from(part.at);
            self.out.extend_from_slice(layout.zeros(done, at));
            self.out.extend_from_within(part.start..part.end);
            done = at + 1;
        }
        self.out.extend_from_slice(layout.zeros(done, layout.starts.len() - 1));
        start
    }

    /// A member that is there.
    fn field(&mut self, number: u32, ty: &FieldType) -> Outcome {
        match ty {
            FieldType::List(item) => {
                self.reader.begin_list()?;
                while self.reader.next_item()? {
                    self.value(number, item)?;
                }
                Ok(())
            }
            FieldType::Map(item) => {
                self.reader.begin_map()?;
                while let Some(key) = self.reader.next_key()? {
                    let mark = self.open();
                    put_bytes(&mut self.out, 1, key.as_bytes());
                    let no_bytes = matches!(**item, FieldType::Scalar(Scalar::Bytes));
                    match self.reader.peek()? {
                        // Upstream leaves nil bytes in a map's entry out.
                        Kind::Null if no_bytes => self.reader.null()?,
                        _ => self.value(2, item)?,
                    }
                    self.close(number, mark);
                }
                Ok(())
            }
            ty => self.value(number, ty),
        }
    }

    fn value(&mut self, number: u32, ty: &FieldType) -> Outcome {
        if self.reader.peek()? == Kind::Null {
            self.reader.null()?;
            return self.by_tree(number, ty, &Tree::Null);
        }
        match ty {
            FieldType::Struct(inner) => self.message(*inner, Some(number)),
            FieldType::Scalar(scalar) => self.scalar(number, *scalar),
            // Upstream has no lists of lists or maps of maps in protobuf.
            FieldType::List(_) | FieldType::Map(_) => self.reader.skip().map(drop),
        }
    }

    /// What is rare.
    fn by_tree(&mut self, number: u32, ty: &FieldType, tree: &Tree) -> Outcome {
        let mut writer = Writer::with_capacity(64);
        match ty {
            FieldType::Scalar(scalar) => scalar_value(&mut writer, self.schema, number, *scalar, tree),
            ty => value(&mut writer, self.schema, number, ty, tree),
        }
        self.out.extend_from_slice(&writer.into_bytes());
        Ok(())
    }

    fn scalar(&mut self, number: u32, scalar: Scalar) -> Outcome {
        match scalar {
            Scalar::Str => {
                let text = self.reader.string()?;
                put_bytes(&mut self.out, number, text.as_bytes());
            }
            Scalar::Bool => {
                let value = self.reader.bool()?;
                put_varint_field(&mut self.out, number, value.into());
            }
            Scalar::Int32 | Scalar::Int64 => {
                let value = self.int()?;
                put_varint_field(&mut self.out, number, value as u64);
            }
            Scalar::Float64 => {
                let value = match self.reader.number()? {
                    Number::Int(n) => n as f64,
                    Number::Float(n) => n,
                };
                put_varint(&mut self.out, u64::from(number) << 3 | 1);
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            Scalar::Bytes => {
                let text = self.reader.string()?;
                put_bytes(&mut self.out, number, &base64::decode(&text).unwrap_or_default());
            }
            Scalar::Any => drop(self.reader.skip()?),
            Scalar::SchemaOrBool | Scalar::SchemaOrArray | Scalar::SchemaOrStrings => {
                let tree = self.reader.tree()?;
                return self.by_tree(number, &FieldType::Scalar(scalar), &tree);
            }
            _ => {
                let mark = self.open();
                self.wrapped(scalar)?;
                self.close(number, mark);
            }
        }
        Ok(())
    }

    fn int(&mut self) -> Result<i64, JsonError> {
        Ok(match self.reader.number()? {
            Number::Int(n) => n,
            Number::Float(n) => Tree::Float(n).as_i64().unwrap_or_default(),
        })
    }

    /// A scalar that protobuf has a message for.
    fn wrapped(&mut self, scalar: Scalar) -> Outcome {
        match scalar {
            Scalar::Strings => {
                self.reader.begin_list()?;
                while self.reader.next_item()? {
                    let text = self.reader.string()?;
                    put_bytes(&mut self.out, 1, text.as_bytes());
                }
            }
            Scalar::Time | Scalar::MicroTime => {
                let micro = scalar == Scalar::MicroTime;
                let layout = if micro { time::Layout::Micros } else { time::Layout::Seconds };
                if let Ok(moment) = time::parse(&self.reader.string()?, layout) {
                    put_varint_field(&mut self.out, 1, moment.seconds as u64);
                    put_varint_field(&mut self.out, 2, if micro { u64::from(moment.nanos / 1000 * 1000) } else { 0 });
                }
            }
            Scalar::Duration => {
                let nanos = duration::parse(&self.reader.string()?).unwrap_or_default();
                put_varint_field(&mut self.out, 1, nanos as u64);
            }
            Scalar::Quantity => {
                let text = self.reader.string()?;
                let canonical = quantity::canonical(&text).unwrap_or("0".into());
                put_bytes(&mut self.out, 1, canonical.as_bytes());
            }
            Scalar::IntOrString => {
                let is_text = self.reader.peek()? == Kind::Str;
                let (int, text) = match is_text {
                    true => (0, self.reader.string()?),
                    false => (self.int()?, "".into()),
                };
                put_varint_field(&mut self.out, 1, is_text.into());
                put_varint_field(&mut self.out, 2, int as u64);
                put_bytes(&mut self.out, 3, text.as_bytes());
            }
            _ => {
                let json = self.reader.skip()?;
                put_bytes(&mut self.out, 1, json);
            }
        }
        Ok(())
    }

    /// Begins a message whose header, as most, has two bytes.
    fn open(&mut self) -> usize {
        self.out.extend_from_slice(&[0; 2]);
        self.out.len()
    }

    /// Puts the header before what was written since the mark.
    fn close(&mut self, number: u32, mark: usize) {
        let length = self.out.len() - mark;
        if number < 16 && length < 0x80 {
            self.out[mark - 2] = (number << 3 | 2) as u8;
            self.out[mark - 1] = length as u8;
            return;
        }
        let end = self.out.len();
        put_header(&mut self.out, number, length);
        let header = self.out.len() - end;
        self.out[mark - 2..].rotate_right(header);
        self.out.drain(mark - 2 + header..mark + header);
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_header(out: &mut Vec<u8>, number: u32, length: usize) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, length as u64);
}

fn put_varint_field(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_header(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// A list in its envelope, for who has the messages of its items: what comes before the items, if the list's type is laid out as
/// lists are. `list` has kind, version and metadata; `items_bytes` is the length of all items as [`list_item`] writes them.
pub fn list_head(schema: &Schema, ty: TypeId, list: &Tree, items_bytes: usize) -> Option<Vec<u8>> {
    let items = schema.field(ty, "items")?;
    let last = schema.members(ty).all(|field| field.number <= items.number);
    if items.number != ITEMS || !last || items.ty.leaf().as_struct().is_none() {
        return None;
    }
    let metadata = super::encode(schema, ty, list);
    let mut out = super::MAGIC.to_vec();
    let mut meta = Vec::new();
    put_bytes(&mut meta, 1, list.str_at("apiVersion").as_bytes());
    put_bytes(&mut meta, 2, list.str_at("kind").as_bytes());
    put_bytes(&mut out, 1, &meta);
    put_header(&mut out, 2, metadata.len() + items_bytes);
    out.extend_from_slice(&metadata);
    Some(out)
}

/// The number of `items` in lists.
const ITEMS: u32 = 2;

/// What comes after the items of a list in its envelope.
pub const LIST_TAIL: &[u8] = &[0x1a, 0, 0x22, 0];

/// Appends an item's header; its message follows.
pub fn list_item(out: &mut Vec<u8>, message_bytes: usize) {
    put_header(out, ITEMS, message_bytes);
}

/// The length of an item with its header.
pub fn list_item_bytes(message_bytes: usize) -> usize {
    let bits = (usize::BITS - message_bytes.leading_zeros()).max(1);
    1 + bits.div_ceil(7) as usize + message_bytes
}
