//! Object, head, selectors, patches and Status errors.
//!
//! An [`Object`] is what the store keeps, the cache serves and a watch sends: immutable canonical JSON bytes without a
//! resourceVersion, and a small decoded [`Head`]. A write's working form is a `Tree`; it becomes an object again through its bytes.

pub mod conditions;
mod head;
mod id;
pub mod managed;
mod object;
pub mod patch;
pub mod selector;
mod status;
mod text;
pub mod time;

pub use head::{Head, Labels, OwnerReference};
pub use id::{GroupVersionKind, KindId, ObjectKey, Revision};
pub use object::{Object, ObjectError, View};
pub use selector::{FieldSelector, FieldTerm, LabelSelector};
pub use status::{Cause, CauseKind, FieldError, Reason, Status};
pub use text::Models;
