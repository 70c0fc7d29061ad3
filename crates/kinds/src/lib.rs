//! The kind table: one file per kind with all that is special about it.
//!
//! A row ([`KindSpec`]) is data plus function pointers. The [`Registry`] builds a runtime [`Kind`] from each row, and later
//! from each CustomResourceDefinition: past the registry nothing can tell the two apart, and nothing matches on a kind's name.

pub mod beyond;
mod column;
pub mod cron;
pub mod custom;
pub mod defaults;
mod difference;
pub mod expressions;
mod gates;
mod key_pair;
mod kind;
pub mod object_types;
mod pod_level;
pub mod print;
pub mod qos;
pub mod quota;
pub mod references;
mod registry;
mod spec;
pub mod table;
pub mod usage;
pub mod validate;
mod warnings;
mod write;
pub mod x509;

pub use column::{
    Cell, Column, ColumnType, Count, Number, Of, Path, Row, RowContext, RuntimeColumn, Since, TextOr, Typed, column,
    wide,
};
pub use kind::{FieldLabel, Kind, RuntimeFact, ScalePaths};
pub use registry::{Kinds, Registry};
pub use spec::{
    BodyKind, Conversion, DeleteRequest, Errors, Fact, Generation, Graceful, Hooks, KindSpec, Scope, Subresource,
    SubresourceKind, Verbs, Version, WriteContext,
};
pub use table::id;
