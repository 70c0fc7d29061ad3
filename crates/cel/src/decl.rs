//! Declared data: a type together with what a schema says of sizes and of how a document is to be read.
//!
//! (`k8s.io/apiserver/pkg/cel/types.go` DeclType, `pkg/cel/common/schemas.go`)

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::{Field, Object, Type};

/// How the items of a declared list are told apart (`x-kubernetes-list-type`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ListKind {
    /// By place.
    #[default]
    Atomic,
    /// By value; order does not matter to `==`, and `+` adds what is missing.
    Set,
    /// By these keys; order does not matter to `==`, and `+` replaces what is there.
    Map(Vec<String>),
}

/// How a text of a document becomes a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// As it is.
    #[default]
    Plain,
    /// `format: byte`.
    Byte,
    /// `format: duration`.
    Duration,
    /// `format: date`.
    Date,
    /// `format: date-time`.
    DateTime,
}

/// A type with sizes and rules for reading a document as it.
#[derive(Debug, Clone)]
pub struct Decl {
    /// What the checker sees.
    pub ty: Type,
    /// The most characters, bytes, items or entries that a value may have; 0 for what has no size.
    pub max_elements: u64,
    /// The fewest bytes of a value's JSON text.
    pub min_serialized_size: u64,
    /// Whether `null` is a value rather than an error.
    pub nullable: bool,
    /// Whether an integer is an integer and a text a text (`x-kubernetes-int-or-string`).
    pub int_or_string: bool,
    /// Whether the value is kept as it came, to be compared and nothing else (`x-kubernetes-preserve-unknown-fields` without a type).
    pub preserved: bool,
    /// The declaration of list items or map values.
    pub elem: Option<Arc<Decl>>,
    /// The declaration of map keys.
    pub key: Option<Arc<Decl>>,
    /// How list items are told apart.
    pub list: ListKind,
    /// How a text is read.
    pub format: Format,
}

impl Decl {
    /// A type without sizes.
    pub fn simple(ty: Type, min_serialized_size: u64) -> Decl {
        Decl {
            ty,
            max_elements: 0,
            min_serialized_size,
            nullable: false,
            int_or_string: false,
            preserved: false,
            elem: None,
            key: None,
            list: ListKind::Atomic,
            format: Format::Plain,
        }
    }

    /// Any type.
    pub fn dynamic() -> Decl {
        Decl::simple(Type::Dyn, 1)
    }

    /// A text of at most `max_elements` characters.
    pub fn string(max_elements: u64) -> Decl {
        Decl { max_elements, ..Decl::simple(Type::String, 2) }
    }

    /// A list.
    pub fn list(elem: Decl, max_elements: u64) -> Decl {
        Decl { max_elements, elem: Some(Arc::new(elem.clone())), ..Decl::simple(Type::list(elem.ty), 2) }
    }

    /// A map with text keys.
    pub fn map(elem: Decl, max_elements: u64) -> Decl {
        let key = Decl::simple(Type::String, 2);
        Decl {
            max_elements,
            key: Some(Arc::new(key)),
            elem: Some(Arc::new(elem.clone())),
            ..Decl::simple(Type::map(Type::String, elem.ty), 2)
        }
    }

    /// A message. The names are the document's keys; those that cannot be written in an expression are left out.
    pub fn object(name: impl Into<String>, fields: impl IntoIterator<Item = (String, Decl)>) -> Decl {
        let fields: BTreeMap<String, Field> = fields
            .into_iter()
            .filter_map(|(key, decl)| Some((crate::escape::escape(&key)?, Field { key, decl })))
            .collect();
        Decl::simple(Type::Object(Arc::new(Object { name: name.into(), fields, open: false })), 2)
    }

    /// The declaration of a field of this message, by the name that an expression uses.
    pub fn field(&self, name: &str) -> Option<&Field> {
        match &self.ty {
            Type::Object(object) => object.fields.get(name),
            _ => None,
        }
    }

    /// Gives each nested message named `object` a name from its place below `name` (DeclType.MaybeAssignTypeName).
    #[must_use]
    pub fn named(&self, name: &str) -> Decl {
        let mut out = self.clone();
        match &self.ty {
            Type::Object(object) => {
                let name = if object.name == "object" { name } else { object.name.as_str() };
                let fields = object
                    .fields
                    .iter()
                    .map(|(field, of)| {
                        let decl = of.decl.named(&format!("{name}.{field}"));
                        (field.clone(), Field { key: of.key.clone(), decl })
                    })
                    .collect();
                out.ty = Type::Object(Arc::new(Object { name: name.to_owned(), fields, open: object.open }));
            }
            Type::Map(key, _) => {
                let elem = self.elem.as_deref().map(|elem| Arc::new(elem.named(&format!("{name}.@elem"))));
                if let Some(elem) = &elem {
                    out.ty = Type::Map(key.clone(), Arc::new(elem.ty.clone()));
                }
                out.elem = elem;
            }
            Type::List(_) => {
                let elem = self.elem.as_deref().map(|elem| Arc::new(elem.named(&format!("{name}.@idx"))));
                if let Some(elem) = &elem {
                    out.ty = Type::List(Arc::new(elem.ty.clone()));
                }
                out.elem = elem;
            }
            _ => {}
        }
        out
    }

    /// The declaration at a path below this one: field names, `@items`, `@values`, `@keys`.
    pub(crate) fn at(&self, path: &[String]) -> Option<&Decl> {
        path.iter().try_fold(self, |decl, step| match step.as_str() {
            "@items" | "@values" => decl.elem.as_deref(),
            "@keys" => decl.key.as_deref(),
            field => decl.field(field).map(|field| &field.decl),
        })
    }
}
