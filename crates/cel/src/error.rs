//! Why an evaluation has no value.

use std::fmt;

/// Why an evaluation failed. Prints upstream's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvalError {
    message: String,
    over_budget: bool,
}

impl EvalError {
    /// An error with this text.
    pub fn new(message: impl Into<String>) -> EvalError {
        EvalError { message: message.into(), over_budget: false }
    }

    /// The evaluation cost more than it may: nothing absorbs this one.
    pub(crate) fn over_budget() -> EvalError {
        EvalError { message: "operation cancelled: actual cost limit exceeded".into(), over_budget: true }
    }

    pub(crate) fn no_such_overload() -> EvalError {
        EvalError::new("no such overload")
    }

    pub(crate) fn no_such_key(key: impl fmt::Display) -> EvalError {
        EvalError::new(format!("no such key: {key}"))
    }

    pub(crate) fn conversion(from: &str, to: &str) -> EvalError {
        EvalError::new(format!("type conversion error from '{from}' to '{to}'"))
    }

    /// Whether the evaluation was ended because it cost too much.
    pub fn is_over_budget(&self) -> bool {
        self.over_budget
    }

    /// The text.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EvalError {}
