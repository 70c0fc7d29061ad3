//! The values with a form of their own: quantities, times, durations, base64, numbers-or-text.

pub mod base64;
pub mod duration;
pub mod int_or_string;
pub mod quantity;
pub mod time;

pub use int_or_string::{IntOrString, Rounding};
pub use quantity::{Quantity, QuantityError, QuantityFormat};
pub use time::Timestamp;
