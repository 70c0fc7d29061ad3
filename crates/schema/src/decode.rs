//! JSON bytes or a patched tree into the canonical tree, checked against a type.
//!
//! One pass: unknown fields are dropped and reported, values are checked as Go's decoder checks them and brought to the
//! form in which upstream prints them. Messages follow `sigs.k8s.io/json` (a fork of Go's decoder), whose type errors name
//! the struct, the dotted path without indexes, and the Go type.

use std::borrow::Cow;

use corten_tree::json::{JsonError, Kind, Reader};
use corten_tree::{Key, Map, Tree};

use crate::canonical::{self, Seen, Slot, UNKNOWN};
use crate::input::{Input, TreeReader};
use crate::model::{Field, FieldType, Scalar, Schema, TypeDef, TypeId};
use crate::scalars::{base64, duration, quantity, time};

/// What happens to fields that the type does not have, and to repeated ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownFields {
    /// They are dropped and reported in [`Decoded::strict`] (the caller refuses or warns).
    #[default]
    Report,
    /// They are dropped without a word.
    Ignore,
}

/// How to decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Unknown and repeated fields.
    pub unknown: UnknownFields,
    /// Empty lists and maps become absent, as upstream's protobuf storage makes them. (Default: true.)
    pub drop_empty: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { unknown: UnknownFields::Report, drop_empty: true }
    }
}

/// A decoded object.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The canonical tree.
    pub tree: Tree,
    /// Upstream's strict errors in document order, at most 100: `unknown field "spec.foo"`, `duplicate field "spec.bar"`.
    /// For `fieldValidation=Strict` join them with `, ` behind `strict decoding error: `; for `Warn` each is a warning.
    pub strict: Vec<String>,
}

/// Why an object could not be decoded. The text is upstream's, without the outer
/// `Pod in version "v1" cannot be handled as a Pod: `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON.
    #[error("{0}")]
    Syntax(String),
    /// A value of the wrong type or form.
    #[error("{0}")]
    Value(String),
}

/// Decodes JSON bytes as a value of type `ty`.
pub fn decode_json(schema: &Schema, ty: TypeId, bytes: &[u8], options: Options) -> Result<Decoded, DecodeError> {
    run(schema, ty, Reader::new(bytes), options).map_err(|fail| {
        // Go checks the whole text's syntax first, so a fault in it wins over a wrong value before it.
        let mut reader = Reader::new(bytes);
        match reader.skip().map(drop).and_then(|()| reader.end()) {
            Err(error) => DecodeError::Syntax(error.message),
            Ok(()) => fail,
        }
    })
}

/// Checks and normalises a tree (a patch's result, YAML) as [`decode_json`] does bytes.
pub fn canonicalise(schema: &Schema, ty: TypeId, tree: &Tree, options: Options) -> Result<Decoded, DecodeError> {
    run(schema, ty, TreeReader::new(tree), options)
}

/// Upstream's bound of reported strict errors.
const STRICT_MAX: usize = 100;

fn run<'a>(schema: &Schema, ty: TypeId, input: impl Input<'a>, options: Options) -> Result<Decoded, DecodeError> {
    let slots = Vec::with_capacity(64);
    let mut decoder = Decoder { schema, input, options, strict: Vec::new(), slots, custom: false };
    let tree = decoder.root(ty).map_err(|fail| fail.into_error(schema, ty))?;
    let mut strict: Vec<String> = Vec::new();
    for found in decoder.strict {
        let text = format!("{} field {:?}", if found.duplicate { "duplicate" } else { "unknown" }, found.path);
        if strict.len() < STRICT_MAX && !strict.contains(&text) {
            strict.push(text);
        }
    }
    Ok(Decoded { tree, strict })
}

/// A strict error; its path grows towards the root as the calls return.
struct Strict {
    duplicate: bool,
    path: String,
}

/// Why decoding stopped.
enum Fail {
    Json(JsonError),
    /// The value's own decoder refused it.
    Form(String),
    Type(TypeFault),
}

/// Go's `UnmarshalTypeError`, filled in as the calls return.
struct TypeFault {
    /// What was found: `string`, `number 1.5`.
    value: String,
    /// Lists and maps between the field and the value.
    levels: usize,
    /// The struct and the Go type, once the field is known.
    target: Option<(String, String)>,
    path: String,
}

impl From<JsonError> for Box<Fail> {
    fn from(error: JsonError) -> Box<Fail> {
        Box::new(Fail::Json(error))
    }
}

type Outcome<T> = Result<T, Box<Fail>>;

fn wrong_type<T>(value: impl Into<String>) -> Outcome<T> {
    Err(Box::new(Fail::Type(TypeFault { value: value.into(), levels: 0, target: None, path: String::new() })))
}

fn wrong_form<T>(message: impl Into<String>) -> Outcome<T> {
    Err(Box::new(Fail::Form(message.into())))
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Null => "null",
        Kind::Bool => "bool",
        Kind::Number => "number",
        Kind::Str => "string",
        Kind::List => "array",
        Kind::Map => "object",
    }
}

impl Fail {
    /// Adds the list or map that the value is in.
    fn outwards(mut self: Box<Fail>) -> Box<Fail> {
        if let Fail::Type(fault) = &mut *self {
            fault.levels += 1;
        }
        self
    }

    /// Adds the field that the value is in.
    fn in_field(mut self: Box<Fail>, def: &TypeDef, via: &str, field: &Field) -> Box<Fail> {
        if let Fail::Type(fault) = &mut *self {
            if fault.target.is_none() {
                fault.target = Some((def.go_name().to_owned(), field.go_type(fault.levels)));
            }
            let dot = |a: &str| if a.is_empty() { "" } else { "." };
            fault.path = format!("{via}{}{}{}{}", dot(via), &*field.name, dot(&fault.path), fault.path);
        }
        self
    }

    fn into_error(self, schema: &Schema, ty: TypeId) -> DecodeError {
        match self {
            Fail::Json(error) => DecodeError::Syntax(error.message),
            Fail::Form(message) => DecodeError::Value(message),
            Fail::Type(TypeFault { value, target: Some((owner, go_type)), path, .. }) => DecodeError::Value(format!(
                "json: cannot unmarshal {value} into Go struct field {owner}.{path} of type {go_type}"
            )),
            Fail::Type(fault) => {
                let name = &schema.def(ty).name;
                let go_type = name.split_once('.').map_or(&**name, |(_, short)| short);
                DecodeError::Value(format!("json: cannot unmarshal {} into Go value of type {go_type}", fault.value))
            }
        }
    }
}

struct Decoder<'s, I> {
    schema: &'s Schema,
    input: I,
    options: Options,
    strict: Vec<Strict>,
    /// The members read so far of all open structs and maps: one stack, so that each map is allocated once, full size.
    slots: Vec<Slot>,
    /// Whether the value being read belongs to a custom resource's schema: see [`TypeDef::custom`].
    custom: bool,
}

impl<'a, I: Input<'a>> Decoder<'_, I> {
    fn root(&mut self, ty: TypeId) -> Outcome<Tree> {
        let tree = match self.input.peek()? {
            Kind::Null => {
                self.input.null()?;
                canonical::zero(self.schema, &FieldType::Struct(ty))
            }
            _ => self.structure(ty)?,
        };
        self.input.end()?;
        Ok(tree)
    }

    fn expect(&mut self, wanted: Kind) -> Outcome<()> {
        match self.input.peek()? {
            kind if kind == wanted => Ok(()),
            kind => wrong_type(kind_name(kind)),
        }
    }

    fn report(&mut self, duplicate: bool, path: &str) {
        if self.options.unknown == UnknownFields::Report && self.strict.len() < STRICT_MAX {
            self.strict.push(Strict { duplicate, path: path.to_owned() });
        }
    }

    /// Puts `part` before the paths of the strict errors found since `mark`.
    #[inline]
    fn prefix(&mut self, mark: usize, part: impl FnOnce() -> String) {
        if self.strict.len() > mark {
            let part = part();
            for found in &mut self.strict[mark..] {
                let dot = if found.path.starts_with('[') { "" } else { "." };
                found.path = format!("{part}{dot}{}", found.path);
            }
        }
    }

    fn structure(&mut self, ty: TypeId) -> Outcome<Tree> {
        self.expect(Kind::Map)?;
        self.input.begin_map()?;
        let schema = self.schema;
        let def = schema.def(ty);
        let outer = std::mem::replace(&mut self.custom, def.custom);
        let start = self.slots.len();
        let mut seen = Seen::default();
        while let Some(key) = self.input.next_key()? {
            let Some(at) = schema.member_at(def, &key) else {
                self.unknown(def, key)?;
                continue;
            };
            let repeated = seen.again(at);
            if repeated {
                self.report(true, &key);
                if let Some(old) = self.slots[start..].iter().position(|slot| slot.0 == at) {
                    self.slots.remove(start + old);
                }
            }
            if self.input.peek()? == Kind::Null {
                self.input.null()?;
                let member = &def.members[usize::from(at)];
                let field = schema.member(member);
                if matches!(field.ty, FieldType::Scalar(Scalar::Duration)) {
                    // Go's reader takes null for an empty text here, which is no duration.
                    let none = wrong_form("time: invalid duration \"\"".to_owned());
                    return none.map_err(|fail: Box<Fail>| fail.in_field(def, &member.via, field));
                }
                let typed = |ty: &FieldType| ty.as_struct().is_some_and(|ty| !schema.def(ty).custom);
                if def.custom && !typed(&field.ty) {
                    self.slots.push((at, field.name.clone(), Tree::Null));
                }
                continue;
            }
            let member = &def.members[usize::from(at)];
            let field = schema.member(member);
            let mark = self.strict.len();
            let value = self.value(&field.ty).map_err(|fail| fail.in_field(def, &member.via, field))?;
            self.prefix(mark, || field.name.to_string());
            if canonical::keeps(member, field, &value, self.options.drop_empty) {
                self.slots.push((at, field.name.clone(), value));
            }
        }
        self.custom = outer;
        if def.open {
            self.order_by_key(start);
        }
        Ok(Tree::Map(canonical::finish_struct(schema, def, &mut self.slots, start)))
    }

    fn unknown(&mut self, def: &TypeDef, key: Cow<'a, str>) -> Outcome<()> {
        if def.open {
            let value = self.input.tree()?;
            self.slots.push((UNKNOWN, Key::from(key.into_owned()), value));
        } else {
            self.report(false, &key);
            self.input.skip()?;
        }
        Ok(())
    }

    /// A value that is not null.
    fn value(&mut self, ty: &FieldType) -> Outcome<Tree> {
        if self.custom
            && let Some(value) = self.unfit(ty)?
        {
            return Ok(value);
        }
        match ty {
            FieldType::Scalar(scalar) => self.scalar(*scalar),
            FieldType::Struct(inner) => self.structure(*inner),
            FieldType::List(item) => self.list(item),
            FieldType::Map(item) => self.map(item),
        }
    }

    /// In a custom resource, a value that is not of the form that its type has: it is kept for validation to find, without
    /// the members that no schema describes. (`apiextensions-apiserver/pkg/apiserver/schema/pruning`)
    fn unfit(&mut self, ty: &FieldType) -> Outcome<Option<Tree>> {
        let kind = self.input.peek()?;
        match (ty, kind) {
            (FieldType::Struct(inner), _) if !self.schema.def(*inner).custom => Ok(None),
            (FieldType::Struct(_) | FieldType::Map(_), Kind::Map) | (FieldType::List(_), Kind::List) => Ok(None),
            (FieldType::Struct(inner), Kind::List) if self.schema.def(*inner).open => Ok(Some(self.input.tree()?)),
            (FieldType::Scalar(Scalar::Any), _) => Ok(Some(self.input.tree()?)),
            _ => self.undescribed().map(Some),
        }
    }

    /// A value that no schema describes: scalars stay, members of maps go.
    fn undescribed(&mut self) -> Outcome<Tree> {
        match self.input.peek()? {
            Kind::Map => {
                self.input.begin_map()?;
                while let Some(key) = self.input.next_key()? {
                    self.report(false, &key);
                    self.input.skip()?;
                }
                Ok(Tree::map())
            }
            Kind::List => {
                self.input.begin_list()?;
                let mut items = Vec::new();
                while self.input.next_item()? {
                    let mark = self.strict.len();
                    items.push(self.undescribed()?);
                    self.prefix(mark, || format!("[{}]", items.len() - 1));
                }
                Ok(Tree::List(items))
            }
            _ => Ok(self.input.tree()?),
        }
    }

    fn value_or_zero(&mut self, ty: &FieldType) -> Outcome<Tree> {
        if self.input.peek()? == Kind::Null {
            self.input.null()?;
            if self.custom {
                return Ok(Tree::Null);
            }
            return Ok(match ty {
                // In protobuf storage an entry without bytes has no bytes, not nil; so has one without texts.
                FieldType::Scalar(Scalar::Bytes) if self.options.drop_empty => Tree::Str(String::new()),
                FieldType::Scalar(Scalar::Strings) if self.options.drop_empty => Tree::List(Vec::new()),
                _ => canonical::zero(self.schema, ty),
            });
        }
        self.value(ty)
    }

    fn list(&mut self, item: &FieldType) -> Outcome<Tree> {
        self.expect(Kind::List)?;
        self.input.begin_list()?;
        let mut items = Vec::new();
        while self.input.next_item()? {
            let mark = self.strict.len();
            items.push(self.value_or_zero(item).map_err(Fail::outwards)?);
            self.prefix(mark, || format!("[{}]", items.len() - 1));
        }
        Ok(Tree::List(items))
    }

    /// A map, ordered by key as Go prints it. Of a repeated key the last value counts.
    fn map(&mut self, item: &FieldType) -> Outcome<Tree> {
        self.expect(Kind::Map)?;
        self.input.begin_map()?;
        let start = self.slots.len();
        while let Some(key) = self.input.next_key()? {
            let mark = self.strict.len();
            let value = self.value_or_zero(item).map_err(Fail::outwards)?;
            self.prefix(mark, || key.to_string());
            self.slots.push((0, Key::from(key.into_owned()), value));
        }
        self.order_by_key(start);
        Ok(Tree::Map(Map::from_entries(self.slots.drain(start..).map(|(_, key, value)| (key, value)).collect())))
    }

    /// Orders the slots from `start` on by key; of a repeated key the last counts.
    fn order_by_key(&mut self, start: usize) {
        let own = &mut self.slots[start..];
        if own.is_sorted_by(|a, b| a.1 < b.1) {
            return;
        }
        own.sort_by(|a, b| a.1.cmp(&b.1));
        let mut repeated = Vec::new();
        let sorted: Vec<Slot> = self.slots.drain(start..).collect();
        for slot in sorted {
            match self.slots[start..].last_mut() {
                Some(last) if last.1 == slot.1 => {
                    repeated.push(slot.1.clone());
                    *last = slot;
                }
                _ => self.slots.push(slot),
            }
        }
        repeated.iter().for_each(|key| self.report(true, key));
    }

    fn scalar(&mut self, scalar: Scalar) -> Outcome<Tree> {
        match scalar {
            Scalar::Str => {
                self.expect(Kind::Str)?;
                Ok(Tree::Str(self.input.string()?.into_owned()))
            }
            Scalar::Bool => {
                self.expect(Kind::Bool)?;
                Ok(Tree::Bool(self.input.bool()?))
            }
            Scalar::Int32 => self.integer(i32::MIN.into(), i32::MAX.into()),
            Scalar::Int64 => self.integer(i64::MIN, i64::MAX),
            Scalar::Float64 => self.float(),
            Scalar::Bytes => self.bytes(),
            Scalar::Strings => self.list(&FieldType::Scalar(Scalar::Str)),
            Scalar::Time | Scalar::MicroTime => self.time(scalar),
            Scalar::Duration => self.duration(),
            Scalar::Quantity => self.quantity(),
            Scalar::IntOrString => match self.input.peek()? {
                Kind::Str => Ok(Tree::Str(self.input.string()?.into_owned())),
                _ => self.integer(i32::MIN.into(), i32::MAX.into()),
            },
            Scalar::FieldsV1 if self.input.peek()? == Kind::Map => Ok(self.input.raw()?),
            Scalar::Raw | Scalar::FieldsV1 | Scalar::Json | Scalar::Any => Ok(self.input.tree()?),
            Scalar::SchemaOrBool | Scalar::SchemaOrArray | Scalar::SchemaOrStrings => self.schema_or(scalar),
        }
    }

    fn integer(&mut self, min: i64, max: i64) -> Outcome<Tree> {
        self.expect(Kind::Number)?;
        let text = self.input.number_text()?;
        match text.parse::<i64>() {
            Ok(n) if (min..=max).contains(&n) => Ok(Tree::Int(n)),
            _ => wrong_type(format!("number {text}")),
        }
    }

    fn float(&mut self) -> Outcome<Tree> {
        self.expect(Kind::Number)?;
        let text = self.input.number_text()?;
        if let Ok(n) =
            text.parse::<i64>().map_err(drop).and_then(|n| if n.unsigned_abs() < 1 << 53 { Ok(n) } else { Err(()) })
        {
            return Ok(Tree::Int(n));
        }
        match text.parse::<f64>() {
            Ok(n) if n.is_finite() => Ok(Tree::Float(n)),
            _ => wrong_type(format!("number {text}")),
        }
    }

    fn bytes(&mut self) -> Outcome<Tree> {
        if self.input.peek()? == Kind::List {
            return self.byte_list();
        }
        self.expect(Kind::Str)?;
        let text = self.input.string()?;
        if base64::is_canonical(&text) {
            return Ok(Tree::Str(text.into_owned()));
        }
        match base64::decode(&text) {
            Ok(bytes) => Ok(Tree::Str(base64::encode(&bytes))),
            Err(message) => wrong_form(message),
        }
    }

    /// Go takes an array of small numbers for bytes, too.
    fn byte_list(&mut self) -> Outcome<Tree> {
        let mut bytes = Vec::new();
        self.input.begin_list()?;
        while self.input.next_item()? {
            if self.input.peek()? == Kind::Null {
                self.input.null()?;
                bytes.push(0);
            } else if let Tree::Int(n) = self.integer(0, 255).map_err(Fail::outwards)? {
                bytes.push(n as u8);
            }
        }
        Ok(Tree::Str(base64::encode(&bytes)))
    }

    fn time(&mut self, scalar: Scalar) -> Outcome<Tree> {
        self.expect(Kind::Str)?;
        let text = self.input.string()?;
        if scalar == Scalar::Time && time::is_canonical_seconds(&text) {
            return Ok(Tree::Str(text.into_owned()));
        }
        let layout = if scalar == Scalar::Time { time::Layout::Seconds } else { time::Layout::Micros };
        match time::parse(&text, layout) {
            Ok(moment) if moment.is_zero() => Ok(Tree::Null),
            Ok(moment) if scalar == Scalar::Time => Ok(Tree::Str(moment.to_seconds_text())),
            Ok(moment) => Ok(Tree::Str(moment.to_micros_text())),
            Err(message) => wrong_form(message),
        }
    }

    fn duration(&mut self) -> Outcome<Tree> {
        self.expect(Kind::Str)?;
        match duration::parse(&self.input.string()?) {
            Ok(nanos) => Ok(Tree::Str(duration::format(nanos))),
            Err(message) => wrong_form(message),
        }
    }

    fn quantity(&mut self) -> Outcome<Tree> {
        let text = match self.input.peek()? {
            Kind::Str => self.input.string()?,
            Kind::Number => self.input.number_text()?,
            _ => return wrong_form(quantity::QuantityError::Format.to_string()),
        };
        match quantity::canonical(text.trim()) {
            Ok(canonical) => Ok(Tree::Str(canonical.into_owned())),
            Err(error) => wrong_form(error.to_string()),
        }
    }

    /// The three JSON-schema unions, which upstream decodes by themselves: without strict errors from inside.
    fn schema_or(&mut self, scalar: Scalar) -> Outcome<Tree> {
        let mark = self.strict.len();
        let kind = self.input.peek()?;
        let inner = self.schema.json_schema().map(FieldType::Struct);
        let value = match (kind, inner, scalar) {
            (Kind::Map, Some(schema), _) => self.value(&schema),
            (Kind::Bool, _, Scalar::SchemaOrBool) => Ok(Tree::Bool(self.input.bool()?)),
            (_, _, Scalar::SchemaOrBool) => return wrong_form("boolean or JSON schema expected"),
            (Kind::List, Some(schema), Scalar::SchemaOrArray) => self.list(&schema),
            (Kind::List, _, Scalar::SchemaOrStrings) => self.list(&FieldType::Scalar(Scalar::Str)),
            _ => {
                self.input.skip()?;
                Ok(Tree::Null)
            }
        };
        self.strict.truncate(mark);
        // An empty list is neither a schema nor a list to upstream.
        value.map(|value| if value.as_list().is_some_and(<[Tree]>::is_empty) { Tree::Null } else { value })
    }
}

#[cfg(test)]
mod tests;
