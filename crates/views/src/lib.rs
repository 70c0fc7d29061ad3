//! Read-only typed views of the kinds that components read.
