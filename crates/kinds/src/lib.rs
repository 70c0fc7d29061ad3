//! The kind table: one file per kind with all that is special about it.
