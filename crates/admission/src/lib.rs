//! Built-in admission plugins as one ordered list.
