//! The API's fields as data, and its interpreters: decode, prune, protobuf, OpenAPI, explain.
//!
//! [`builtin`] is the schema of every type that v1.37 serves, parsed once from the generated table in `data/`.
//! The interpreters are functions over a [`Schema`] and a [`TypeId`], so a custom resource's schema works the same way.
//!
//! The *canonical tree* of an object is exactly the JSON that upstream prints for it: fields in Go struct order, zero
//! values left out or printed as Go's tags say (`status: {}`, `containers: null`), quantities, times and base64 in
//! their normal form. [`decode_json`], [`canonicalise`] and [`protobuf::decode`] give it; [`encode_json`] writes it from
//! any tree that was edited since.

mod canonical;
mod decode;
mod encode;
pub mod explain;
mod input;
pub mod internal;
mod model;
pub mod names;
pub mod openapi;
pub mod protobuf;
pub mod re2;
pub mod scalars;
pub mod structural;
mod table;

pub use decode::{DecodeError, Decoded, Options, UnknownFields, canonicalise, decode_json};
pub use encode::{encode_json, encode_json_to};
pub use model::{
    Field, FieldType, Gvk, ListType, PatchStrategy, Scalar, Schema, SchemaBuilder, TypeDef, TypeId, builtin,
    builtin_shared,
};
