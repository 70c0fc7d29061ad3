//! What a schema is: types, their fields, and which group, version and kind names which type.

use corten_tree::Key;

/// A type of one [`Schema`]: an index into its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub(crate) u32);

/// A set of types.
#[derive(Debug, Default)]
pub struct Schema {
    types: Vec<TypeDef>,
}

/// A struct: its fields in the order that upstream prints them.
#[derive(Debug, Default)]
pub struct TypeDef {
    /// Short unique name (`core.v1.PodSpec`).
    pub name: std::borrow::Cow<'static, str>,
    /// The fields; an inlined struct is one field without a name.
    pub fields: Vec<Field>,
    /// Server-side apply treats the whole value as one.
    pub atomic: bool,
    /// Unknown fields are kept (custom resources that say so).
    pub open: bool,
}

/// One field of a struct.
#[derive(Debug)]
pub struct Field {
    /// JSON name; empty for an inlined struct.
    pub name: Key,
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
    /// The key by which strategic merge patch merges its items.
    pub merge_key: &'static str,
    /// How server-side apply treats a list.
    pub list_type: ListType,
    /// The keys of a list of [`ListType::Map`].
    pub list_keys: Vec<&'static str>,
    /// Server-side apply treats the map or struct as one value.
    pub atomic: bool,
    /// The values upstream declares for an enumerated string.
    pub enum_values: Vec<&'static str>,
}

/// The type of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldType {
    /// No fields inside.
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
    /// Any JSON value, kept as it is (`runtime.RawExtension`, `FieldsV1`, `apiextensions.JSON`).
    Any,
}

/// Strategic merge patch's strategy for a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PatchStrategy {
    /// `merge`: lists merge by key (or as sets), else they are replaced.
    pub merge: bool,
    /// `retainKeys`.
    pub retain_keys: bool,
}

/// Server-side apply's list types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListType {
    /// The whole list is one value.
    #[default]
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

/// The schema of every type that v1.37 serves. Parsed on the first call.
pub fn builtin() -> &'static Schema {
    static BUILTIN: std::sync::OnceLock<Schema> = std::sync::OnceLock::new();
    BUILTIN.get_or_init(Schema::default)
}

impl Schema {
    /// The definition of a type of this schema.
    pub fn def(&self, ty: TypeId) -> &TypeDef {
        &self.types[ty.0 as usize]
    }

    /// The type of a group, version and kind (list kinds and options too).
    pub fn gvk(&self, _group: &str, _version: &str, _kind: &str) -> Option<TypeId> {
        None
    }

    /// The type of a short name (`core.v1.PodSpec`).
    pub fn type_by_name(&self, _name: &str) -> Option<TypeId> {
        None
    }

    /// Every group, version and kind.
    pub fn gvks(&self) -> &[Gvk] {
        &[]
    }
}

impl TypeDef {
    /// The field of a JSON name, those of inlined structs included.
    pub fn field(&self, _schema: &Schema, _name: &str) -> Option<&Field> {
        None
    }
}
