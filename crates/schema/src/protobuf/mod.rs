//! Kubernetes' protobuf form, driven by the schema: message bytes, and the `k8s\0` envelope around them.
//!
//! Upstream's generated code decides what is on the wire: scalars that are not pointers are always written, zero or not,
//! fields go in the order of their numbers, maps in the order of their keys. (`apimachinery/pkg/runtime/serializer/protobuf`)

mod decode;
mod encode;
mod transcode;
mod wire;

use corten_tree::{Key, Map, Tree};

use crate::{Schema, TypeId};
use wire::{Reader, Value};

pub use decode::decode;
pub use encode::{encode, encode_to};
pub(crate) use transcode::Layout;
pub use transcode::{LIST_TAIL, from_json, list_head, list_item, list_item_bytes};

/// The first four bytes of every object in protobuf form.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// What is wrong with protobuf bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The bytes end within a value.
    #[error("unexpected EOF")]
    End,
    /// A number of more than 64 bits.
    #[error("proto: integer overflow")]
    Overflow,
    /// A field number of 0, or an unknown wire type.
    #[error("proto: illegal tag {0} (wire type {1})")]
    Tag(u64, u8),
    /// A field in another wire form than its type has.
    #[error("proto: wrong wireType = {got} for field {field}")]
    WireType {
        /// The wire type found.
        got: u8,
        /// The field's JSON name.
        field: String,
    },
    /// Messages nest too deep.
    #[error("proto: exceeded max depth")]
    Depth,
    /// Embedded JSON that is none.
    #[error("{0}")]
    Json(String),
    /// Bytes without the envelope's first four bytes.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    /// No such kind.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind {
        /// `apiVersion`.
        api_version: String,
        /// `kind`.
        kind: String,
    },
}

/// The envelope (`runtime.Unknown`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Envelope<'a> {
    /// `apiVersion` (`v1`, `apps/v1`).
    pub api_version: &'a str,
    /// `kind`.
    pub kind: &'a str,
    /// The message's bytes.
    pub raw: &'a [u8],
    /// Content encoding; empty.
    pub content_encoding: &'a str,
    /// Content type of `raw`; empty means protobuf.
    pub content_type: &'a str,
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

impl<'a> Envelope<'a> {
    /// Reads an envelope with its [`MAGIC`].
    pub fn read(bytes: &'a [u8]) -> Result<Envelope<'a>, ProtobufError> {
        let mut reader = Reader::new(bytes.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?);
        let mut envelope = Envelope::default();
        while let Some((number, value)) = reader.next()? {
            match (number, value) {
                (1, Value::Bytes(meta)) => {
                    let mut meta = Reader::new(meta);
                    while let Some((number, value)) = meta.next()? {
                        match (number, value) {
                            (1, Value::Bytes(bytes)) => envelope.api_version = text(bytes),
                            (2, Value::Bytes(bytes)) => envelope.kind = text(bytes),
                            _ => {}
                        }
                    }
                }
                (2, Value::Bytes(bytes)) => envelope.raw = bytes,
                (3, Value::Bytes(bytes)) => envelope.content_encoding = text(bytes),
                (4, Value::Bytes(bytes)) => envelope.content_type = text(bytes),
                _ => {}
            }
        }
        Ok(envelope)
    }

    /// Writes it with its [`MAGIC`].
    pub fn write(&self) -> Vec<u8> {
        let mut out = wire::Writer::with_capacity(self.raw.len() + self.kind.len() + self.api_version.len() + 32);
        out.bytes_field(4, self.content_type.as_bytes());
        out.bytes_field(3, self.content_encoding.as_bytes());
        out.bytes_field(2, self.raw);
        let mark = out.len();
        out.bytes_field(2, self.kind.as_bytes());
        out.bytes_field(1, self.api_version.as_bytes());
        out.close_message(1, mark);
        out.raw(MAGIC);
        out.into_bytes()
    }
}

/// An object in its envelope as canonical tree with `kind` and `apiVersion`, and its type.
pub fn decode_object(schema: &Schema, bytes: &[u8]) -> Result<(TypeId, Tree), ProtobufError> {
    let envelope = Envelope::read(bytes)?;
    let ty = schema.api_version_kind(envelope.api_version, envelope.kind).ok_or_else(|| {
        ProtobufError::UnknownKind { api_version: envelope.api_version.to_owned(), kind: envelope.kind.to_owned() }
    })?;
    Ok((ty, decode_enveloped(schema, ty, &envelope)?))
}

/// The message of an envelope as type `ty` (which the caller took from the request), with the envelope's `kind` and `apiVersion`.
pub fn decode_enveloped(schema: &Schema, ty: TypeId, envelope: &Envelope<'_>) -> Result<Tree, ProtobufError> {
    let tree = decode(schema, ty, envelope.raw)?;
    let Tree::Map(map) = tree else { return Ok(tree) };
    let mut entries: Vec<(Key, Tree)> = Vec::with_capacity(map.len() + 2);
    for (name, value) in [("kind", envelope.kind), ("apiVersion", envelope.api_version)] {
        if !value.is_empty() {
            entries.push((name.into(), value.into()));
        }
    }
    entries.extend(map.into_iter().filter(|(key, _)| !matches!(&**key, "kind" | "apiVersion")));
    Ok(Tree::Map(Map::from_entries(entries)))
}

/// An object with `kind` and `apiVersion` in the tree as enveloped bytes.
pub fn encode_object(schema: &Schema, ty: TypeId, tree: &Tree) -> Vec<u8> {
    let raw = encode(schema, ty, tree);
    let (api_version, kind) = (tree.str_at("apiVersion"), tree.str_at("kind"));
    Envelope { api_version, kind, raw: &raw, ..Envelope::default() }.write()
}

#[cfg(test)]
mod tests;
