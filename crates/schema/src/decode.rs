//! JSON bytes or a patched tree into the canonical tree, checked against a type.

use corten_tree::Tree;

use crate::{Schema, TypeId};

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
    let _ = (schema, ty, bytes, options);
    Err(DecodeError::Value("not there yet".into()))
}

/// Checks and normalises a tree (a patch's result, YAML) as [`decode_json`] does bytes.
pub fn canonicalise(schema: &Schema, ty: TypeId, tree: &Tree, options: Options) -> Result<Decoded, DecodeError> {
    let _ = (schema, ty, tree, options);
    Err(DecodeError::Value("not there yet".into()))
}
