//! What a schema is: types, their fields, and which group, version and kind names which type.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use corten_tree::Key;

use crate::protobuf::Layout;

/// A type of one [`Schema`]: an index into its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub(crate) u32);

/// A set of types. Built by [`SchemaBuilder`], then immutable.
#[derive(Debug, Default)]
pub struct Schema {
    pub(crate) types: Vec<TypeDef>,
    names: HashMap<Cow<'static, str>, TypeId, BuildHasherDefault<NameHasher>>,
    gvks: Vec<Gvk>,
    /// `apiextensions.v1.JSONSchemaProps`, which three special scalars hold.
    json_schema: Option<TypeId>,
}

/// A struct: its fields in the order that upstream prints them.
#[derive(Debug, Default)]
pub struct TypeDef {
    /// Short unique name (`core.v1.PodSpec`).
    pub name: Cow<'static, str>,
    /// The fields as declared; an inlined struct is one field without a name.
    pub fields: Vec<Field>,
    /// Server-side apply treats the whole value as one.
    pub atomic: bool,
    /// Server-side apply is told explicitly that it does not.
    pub granular: bool,
    /// Unknown fields are kept.
    pub open: bool,
    /// It is of a custom resource's schema: values are kept as they came, nulls, zeros and wrong types included (a
    /// validation finds those), and all fields are ordered by name, as Go prints a map.
    pub custom: bool,
    /// The JSON members in order, those of inlined structs in their place.
    pub(crate) members: Vec<Member>,
    index: NameIndex,
    /// Positions in `fields` of what protobuf has, by number.
    pub(crate) by_number: Vec<u16>,
    /// For each field its position in `members`, for an inlined struct that of its first member.
    pub(crate) bases: Vec<u16>,
    /// Positions in `members` of those that are printed although zero.
    pub(crate) printed_zeros: Vec<u16>,
    /// What its protobuf messages are made of.
    pub(crate) layout: Layout,
}

/// One JSON member of a struct: a field of it or of a struct inlined in it.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    owner: TypeId,
    field: u16,
    /// Printed although it is zero.
    pub emit_zero: bool,
    /// Go names of the inlined structs on the way, dotted (`VolumeSource`).
    pub via: Cow<'static, str>,
}

/// One field of a struct.
#[derive(Debug, Clone)]
pub struct Field {
    /// JSON name; for an inlined struct its Go name.
    pub name: Key,
    /// Its members are the owner's members.
    pub inline: bool,
    /// Protobuf field number; 0 if it is not in protobuf.
    pub number: u32,
    /// What it holds.
    pub ty: FieldType,
    /// A Go pointer: absent and zero differ.
    pub pointer: bool,
    /// `omitempty`.
    pub omit_empty: bool,
    /// `omitzero`.
    pub omit_zero: bool,
    /// Must be there (OpenAPI's `required`).
    pub required: bool,
    /// How strategic merge patch treats it.
    pub patch: PatchStrategy,
    /// The key by which strategic merge patch merges its items; empty if none.
    pub merge_key: &'static str,
    /// How server-side apply treats a list.
    pub list_type: ListType,
    /// Server-side apply treats the map or struct as one value.
    pub atomic: bool,
    /// Server-side apply treats its members one by one, whatever its type says.
    pub granular: bool,
    /// Upstream's declared default as JSON text; empty if none. (Most defaults are code, in the kinds crate.)
    pub default: Cow<'static, str>,
    /// Upstream's declared validation rules as the table has them (`required;maxItems=32`); see [`Field::rules`].
    pub(crate) rules: &'static str,
    pub(crate) list_keys: Cow<'static, str>,
    pub(crate) enum_values: &'static str,
    /// The type in the table's notation, for Go's names in error messages.
    pub(crate) notation: &'static str,
}

/// The type of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldType {
    /// No fields inside that the schema knows.
    Scalar(Scalar),
    /// A struct.
    Struct(TypeId),
    /// A list of values.
    List(Box<FieldType>),
    /// A map from text to values.
    Map(Box<FieldType>),
}

/// A value without fields of its own, and the special forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    /// Text.
    Str,
    /// A boolean.
    Bool,
    /// 32-bit integer.
    Int32,
    /// 64-bit integer.
    Int64,
    /// Floating point.
    Float64,
    /// Base64 text in JSON.
    Bytes,
    /// A list of text that protobuf wraps in a message of its own (`ExtraValue`, `Verbs`).
    Strings,
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// Go duration text.
    Duration,
    /// A resource quantity.
    Quantity,
    /// A number or a text (ports, percentages).
    IntOrString,
    /// Any object, kept as it is (`runtime.RawExtension`).
    Raw,
    /// Managed fields (`meta/v1.FieldsV1`).
    FieldsV1,
    /// Any JSON value (`apiextensions.JSON`).
    Json,
    /// Any JSON value without a protobuf form (a table's cells).
    Any,
    /// A boolean or a JSON schema.
    SchemaOrBool,
    /// A JSON schema or a list of them.
    SchemaOrArray,
    /// A JSON schema or a list of texts.
    SchemaOrStrings,
}

/// Strategic merge patch's strategy for a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PatchStrategy {
    /// `merge`: lists merge by key (or as sets), else they are replaced.
    pub merge: bool,
    /// `retainKeys`.
    pub retain_keys: bool,
    /// `replace`: maps and structs are replaced.
    pub replace: bool,
}

/// Server-side apply's list types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListType {
    /// Nothing is declared: the whole list is one value.
    #[default]
    None,
    /// The whole list is one value.
    Atomic,
    /// A set of scalars.
    Set,
    /// Items are told apart by their keys.
    Map,
}

/// A group, version and kind, and the type that has its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gvk {
    /// API group; empty for core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Its type in [`builtin`].
    pub ty: TypeId,
}

/// The schema of every type that v1.37 knows. Parsed from the generated table on the first call (about a millisecond).
pub fn builtin() -> &'static Schema {
    builtin_arc()
}

/// [`builtin`], for who keeps it beside other schemas.
pub fn builtin_shared() -> Arc<Schema> {
    builtin_arc().clone()
}

fn builtin_arc() -> &'static Arc<Schema> {
    static BUILTIN: std::sync::OnceLock<Arc<Schema>> = std::sync::OnceLock::new();
    BUILTIN.get_or_init(|| Arc::new(crate::table::parse(crate::table::BUILTIN)))
}

/// Kinds that every group version has, with meta/v1's types.
const EVERYWHERE: [&str; 7] =
    ["CreateOptions", "DeleteOptions", "GetOptions", "ListOptions", "PatchOptions", "UpdateOptions", "WatchEvent"];

impl Schema {
    /// The definition of a type of this schema.
    pub fn def(&self, ty: TypeId) -> &TypeDef {
        &self.types[ty.0 as usize]
    }

    /// The type of a group, version and kind (list kinds and options too).
    pub fn gvk(&self, group: &str, version: &str, kind: &str) -> Option<TypeId> {
        let found = self.gvks.binary_search_by(|g| (g.group, g.version, g.kind).cmp(&(group, version, kind)));
        match found {
            Ok(at) => Some(self.gvks[at].ty),
            Err(_) if EVERYWHERE.contains(&kind) && (group, version) != ("", "v1") => self.gvk("", "v1", kind),
            Err(_) => None,
        }
    }

    /// The type of an `apiVersion` (`v1`, `apps/v1`) and a kind.
    pub fn api_version_kind(&self, api_version: &str, kind: &str) -> Option<TypeId> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.gvk(group, version, kind)
    }

    /// Whether this is the schema of a custom resource.
    pub fn has_custom_types(&self) -> bool {
        self.types.first().is_some_and(|def| def.custom)
    }

    /// The type of a short name (`core.v1.PodSpec`).
    pub fn type_by_name(&self, name: &str) -> Option<TypeId> {
        self.names.get(name).copied()
    }

    /// Every group, version and kind, in that order.
    pub fn gvks(&self) -> &[Gvk] {
        &self.gvks
    }

    /// Every type.
    pub fn type_ids(&self) -> impl Iterator<Item = TypeId> + use<> {
        (0..self.types.len() as u32).map(TypeId)
    }

    pub(crate) fn json_schema(&self) -> Option<TypeId> {
        self.json_schema
    }

    pub(crate) fn member(&self, member: &Member) -> &Field {
        &self.types[member.owner.0 as usize].fields[usize::from(member.field)]
    }

    /// The position of a JSON name among a type's members.
    #[inline]
    pub(crate) fn member_at(&self, def: &TypeDef, name: &str) -> Option<u16> {
        def.index.find(name, |at| &*self.member(&def.members[usize::from(at)]).name)
    }

    /// The field of a JSON name, those of inlined structs included.
    pub fn field(&self, ty: TypeId, name: &str) -> Option<&Field> {
        let def = self.def(ty);
        self.member_at(def, name).map(|at| self.member(&def.members[usize::from(at)]))
    }

    /// All JSON members of a type in upstream's order, those of inlined structs in their place.
    pub fn members(&self, ty: TypeId) -> impl Iterator<Item = &Field> {
        self.def(ty).members.iter().map(|m| self.member(m))
    }

    /// The type at a dotted path of JSON names; lists and maps are passed through to their items.
    pub fn type_at(&self, ty: TypeId, dotted: &str) -> Option<&FieldType> {
        let mut names = dotted.split('.');
        let mut at = &self.field(ty, names.next()?)?.ty;
        for name in names {
            let FieldType::Struct(inner) = at.leaf() else { return None };
            at = &self.field(*inner, name)?.ty;
        }
        Some(at)
    }
}

impl Field {
    /// The keys of a list of [`ListType::Map`].
    pub fn list_keys(&self) -> impl Iterator<Item = &str> {
        self.list_keys.split(',').filter(|key| !key.is_empty())
    }

    /// The validation rules that upstream declares (`+k8s:` tags) and its server enforces, in order: `required`, `maxItems=32`.
    pub fn rules(&self) -> impl Iterator<Item = &'static str> + Clone + use<> {
        self.rules.split(';').filter(|rule| !rule.is_empty())
    }

    /// Whether there are any such rules.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// The values upstream declares for an enumerated string, sorted.
    pub fn enum_values(&self) -> impl Iterator<Item = &'static str> + use<> {
        let text = self.enum_values;
        text.split('|').take(if text.is_empty() { 0 } else { usize::MAX })
    }

    /// Whether Go holds it as a struct by value, which `omitempty` never omits.
    fn is_go_struct(&self) -> bool {
        use Scalar::{Any, Bool, Bytes, Float64, Int32, Int64, Str, Strings};
        match self.ty {
            FieldType::Struct(_) => !self.pointer,
            FieldType::Scalar(Str | Bool | Int32 | Int64 | Float64 | Bytes | Strings | Any) => false,
            FieldType::Scalar(_) => !self.pointer,
            FieldType::List(_) | FieldType::Map(_) => false,
        }
    }

    /// Whether Go holds it in a form that has nil: absent and `null` are the same, zero is a value.
    pub(crate) fn is_nullable(&self) -> bool {
        self.pointer
            || matches!(
                self.ty,
                FieldType::List(_)
                    | FieldType::Map(_)
                    | FieldType::Scalar(Scalar::Bytes | Scalar::Strings | Scalar::Any)
            )
    }
}

impl FieldType {
    /// The type inside all lists and maps.
    pub fn leaf(&self) -> &FieldType {
        match self {
            FieldType::List(item) | FieldType::Map(item) => item.leaf(),
            other => other,
        }
    }

    /// The struct, if it is one.
    pub fn as_struct(&self) -> Option<TypeId> {
        if let FieldType::Struct(ty) = self { Some(*ty) } else { None }
    }
}

impl TypeDef {
    /// The type's name without its package, as Go's messages say it (`PodSpec`).
    pub fn go_name(&self) -> &str {
        self.name.rsplit_once('.').map_or(&self.name, |(_, name)| name)
    }
}

/// Collects types for a [`Schema`].
#[derive(Debug, Default)]
pub struct SchemaBuilder {
    schema: Schema,
}

impl SchemaBuilder {
    /// The id of a name; its definition may come later.
    pub fn reserve(&mut self, name: impl Into<Cow<'static, str>>) -> TypeId {
        let name = name.into();
        if let Some(ty) = self.schema.names.get(&name) {
            return *ty;
        }
        let ty = TypeId(self.schema.types.len() as u32);
        self.schema.types.push(TypeDef { name: name.clone(), ..TypeDef::default() });
        self.schema.names.insert(name, ty);
        ty
    }

    /// A reserved type, to fill in.
    pub fn define(&mut self, ty: TypeId) -> &mut TypeDef {
        &mut self.schema.types[ty.0 as usize]
    }

    /// Takes over a type of another schema with all types inside it, under their names.
    pub fn import(&mut self, from: &Schema, ty: TypeId) -> TypeId {
        let source = from.def(ty);
        if let Some(known) = self.schema.names.get(&source.name) {
            return *known;
        }
        let made = self.reserve(source.name.clone());
        let fields = source.fields.iter().map(|f| Field { ty: self.import_field(from, &f.ty), ..f.clone() }).collect();
        let (atomic, granular, open, custom) = (source.atomic, source.granular, source.open, source.custom);
        *self.define(made) =
            TypeDef { name: source.name.clone(), fields, atomic, granular, open, custom, ..TypeDef::default() };
        made
    }

    fn import_field(&mut self, from: &Schema, ty: &FieldType) -> FieldType {
        match ty {
            FieldType::Scalar(scalar) => FieldType::Scalar(*scalar),
            FieldType::Struct(inner) => FieldType::Struct(self.import(from, *inner)),
            FieldType::List(item) => FieldType::List(Box::new(self.import_field(from, item))),
            FieldType::Map(item) => FieldType::Map(Box::new(self.import_field(from, item))),
        }
    }

    /// Names a type's group, version and kind.
    pub fn gvk(&mut self, gvk: Gvk) {
        self.schema.gvks.push(gvk);
    }

    /// Builds the indexes.
    pub fn build(self) -> Schema {
        let mut schema = self.schema;
        schema.gvks.sort_by_key(|g| (g.group, g.version, g.kind));
        schema.json_schema = schema.type_by_name("apiextensions.v1.JSONSchemaProps");
        for at in 0..schema.types.len() {
            let count = schema.types[at].fields.len();
            let (mut members, mut bases) = (Vec::with_capacity(count), Vec::with_capacity(count));
            for field in 0..count {
                bases.push(members.len() as u16);
                collect_member(&schema.types, TypeId(at as u32), field, "", &mut members, 0);
            }
            let names: Vec<&str> = members.iter().map(|m| &*schema.member(m).name).collect();
            let index = NameIndex::new(&names);
            let fields = &schema.types[at].fields;
            let mut by_number: Vec<u16> =
                (0..fields.len() as u16).filter(|f| fields[usize::from(*f)].number > 0).collect();
            by_number.sort_by_key(|f| fields[usize::from(*f)].number);
            let printed_zeros = (0..members.len() as u16).filter(|m| members[usize::from(*m)].emit_zero).collect();
            let def = &mut schema.types[at];
            (def.members, def.index, def.by_number) = (members, index, by_number);
            (def.bases, def.printed_zeros) = (bases, printed_zeros);
        }
        schema
    }
}

/// Inlined structs do not nest deeper than this; a cycle ends here.
const INLINE_DEPTH_MAX: usize = 4;

fn collect_member(types: &[TypeDef], ty: TypeId, at: usize, via: &str, out: &mut Vec<Member>, depth: usize) {
    let field = &types[ty.0 as usize].fields[at];
    match field.ty {
        FieldType::Struct(inner) if field.inline => {
            if depth < INLINE_DEPTH_MAX {
                let via = if via.is_empty() { field.name.to_string() } else { format!("{via}.{}", &*field.name) };
                for at in 0..types[inner.0 as usize].fields.len() {
                    collect_member(types, inner, at, &via, out, depth + 1);
                }
            }
        }
        _ => out.push(Member {
            owner: ty,
            field: at as u16,
            emit_zero: if field.is_go_struct() { !field.omit_zero } else { !(field.omit_empty || field.omit_zero) },
            via: if via.is_empty() { Cow::Borrowed("") } else { Cow::Owned(via.to_owned()) },
        }),
    }
}

/// A quick hash for the names of types, which come from a table or a checked custom resource definition.
#[derive(Debug, Default)]
struct NameHasher(u64);

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
    }
}

/// Positions by name: open addressing over a hash of length and three bytes.
#[derive(Debug, Default)]
struct NameIndex(Box<[u16]>);

impl NameIndex {
    const EMPTY: u16 = u16::MAX;

    fn new(names: &[&str]) -> NameIndex {
        if names.is_empty() {
            return NameIndex::default();
        }
        let mut slots = vec![NameIndex::EMPTY; (names.len() * 2).next_power_of_two()].into_boxed_slice();
        for (at, name) in names.iter().enumerate() {
            let mut slot = NameIndex::hash(name) & (slots.len() - 1);
            while slots[slot] != NameIndex::EMPTY {
                slot = (slot + 1) & (slots.len() - 1);
            }
            slots[slot] = at as u16;
        }
        NameIndex(slots)
    }

    fn hash(name: &str) -> usize {
        let bytes = name.as_bytes();
        let at = |i: usize| bytes.get(i).map_or(0, |b| usize::from(*b));
        let mixed = bytes.len() ^ (at(0) << 3) ^ (at(bytes.len() / 2) << 7) ^ (at(bytes.len().saturating_sub(2)) << 11);
        mixed.wrapping_mul(0x9e37_79b9) >> 8
    }

    #[inline]
    fn find<'s>(&self, name: &str, name_of: impl Fn(u16) -> &'s str) -> Option<u16> {
        let mask = self.0.len().checked_sub(1)?;
        let mut slot = NameIndex::hash(name) & mask;
        loop {
            match self.0[slot] {
                NameIndex::EMPTY => return None,
                at if name_of(at) == name => return Some(at),
                _ => slot = (slot + 1) & mask,
            }
        }
    }
}
