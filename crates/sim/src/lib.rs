//! A seeded simulator of a whole cluster.
