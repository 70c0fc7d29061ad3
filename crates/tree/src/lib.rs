//! A JSON document as an ordered tree: parse, path, edit, write as Go does.
//!
//! [`Tree`] is the working form of an object for the length of one request: decoded once, patched, defaulted,
//! validated, and written back as canonical bytes. Maps keep their order; the schema crate decides the canonical one.
//! Numbers keep what Go's decoder into `interface{}` of apimachinery keeps: integers are `i64`, all others `f64`.

mod builder;
mod edit;
mod field_path;
pub mod json;
mod value;

pub use builder::MapBuilder;
pub use field_path::FieldPath;
pub use value::{Key, Map, RawJson, Tree};

/// Builds a [`Tree`] from a literal: `tree!({"a": 1, "b": [true, null], "c": (expression)})`.
///
/// A value is one token tree: a literal, a nested `{}` or `[]`, or an expression in parentheses that converts into [`Tree`].
#[macro_export]
macro_rules! tree {
    (null) => { $crate::Tree::Null };
    ([ $($e:tt),* $(,)? ]) => { $crate::Tree::List(vec![ $( $crate::tree!($e) ),* ]) };
    ({ $($k:tt : $v:tt),* $(,)? }) => {{
        #[allow(unused_mut)]
        let mut map = $crate::Map::new();
        $( map.insert($k, $crate::tree!($v)); )*
        $crate::Tree::Map(map)
    }};
    ($other:expr) => { $crate::Tree::from($other) };
}
