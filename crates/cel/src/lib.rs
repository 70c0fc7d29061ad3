//! CEL, the expression language of Kubernetes' rules and policies: typed, bounded in cost, with Kubernetes' libraries.
//!
//! An [`Env`] says which variables and types an expression may use and which version's libraries. It compiles a source to a
//! [`Program`], or to [`Issues`] in upstream's words. A program is evaluated over [`Vars`] within a [`Budget`]; documents are
//! read in place ([`Value::of_tree`], [`Value::declared`]).
//!
//! What is exact here is part of the API: error texts that users see, costs that decide which rules are accepted, and results.
//! The sources are cel-go v0.32 and `k8s.io/apiserver/pkg/cel` v0.37.

mod ast;
mod authz;
mod check;
mod collection;
mod compare;
mod convert;
mod cost;
mod decl;
mod env;
mod error;
mod escape;
mod eval;
mod function;
mod issues;
mod lex;
mod library;
mod macros;
mod parse;
mod plan;
mod program;
mod read;
mod time;
mod types;
mod unify;
mod validate;
mod value;

pub use authz::{AUTHORIZER, Authorizer, Authz, Check, Decision, RESOURCE_CHECK};
pub use collection::{ListView, MapValue, MapView};
pub use cost::{CostEstimate, SizeEstimate, SizeEstimator};
pub use decl::{Decl, Format, ListKind};
pub use env::{Env, Version};
pub use error::EvalError;
pub use escape::{escape, unescape};
pub use issues::{Issue, Issues};
pub use library::{named_format::NamedFormat, net::Cidr, semver::Semver, url::Url};
pub use program::{Budget, PER_CALL_LIMIT, Program, Vars};
pub use time::{Timestamp, duration_text, parse_duration};
pub use types::{Field, Object, Type};
pub use value::{Lazy, Literal, StructValue, Text, Value};
