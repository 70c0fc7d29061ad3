//! Schemas of custom resources: read from a definition, lowered to the types that every interpreter reads, and what only they
//! have: defaults in the data, nulls that mean something, embedded objects.
//!
//! A [`Props`] is one node of `openAPIV3Schema` (`JSONSchemaProps`). Its structure becomes types of a [`crate::Schema`]
//! ([`lower`]); its value rules are checked by the kinds crate; its defaults are filled in by [`Props::fill`].
//! Upstream: `apiextensions-apiserver/pkg/apiserver/schema`.

mod fill;
mod lower;
mod props;

pub use lower::{LowerError, lower};
pub use props::{Additional, Props, Type, ValidationRule};
