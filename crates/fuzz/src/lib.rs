//! Fuzzing of everything that reads what comes from outside: no bytes make it panic, hang, or say two things.
//!
//! A [`Target`] is a function of bytes that panics when a law is broken. [`runner`] drives it with mutations of its seeds, from a
//! number, so that a run can be repeated; inputs that once broke something are kept in `regressions/` and run with the tests.

pub mod mutate;
pub mod runner;
pub mod targets;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// What came of an input: inputs with a class that was not seen before are kept to mutate further.
pub type Class = u64;

/// How seeds are mutated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// As bytes.
    Bytes,
    /// As bytes, or as words of a language.
    Words(&'static [&'static str]),
    /// As a JSON document, or as its bytes.
    Json,
}

/// A reader under test.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// How its input looks.
    pub shape: Shape,
    /// Good inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Reads an input; panics if a law is broken.
    pub run: fn(&[u8]) -> Class,
}

/// The class of a text: two messages that differ in digits and in what they quote are of one class.
pub fn class(what: &str, text: &str) -> Class {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    let mut quoted = false;
    for c in text.chars() {
        quoted ^= matches!(c, '"' | '\'' | '`');
        if !quoted && !c.is_ascii_digit() {
            c.hash(&mut hasher);
        }
    }
    hasher.finish()
}
