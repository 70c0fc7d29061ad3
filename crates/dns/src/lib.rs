//! Cluster DNS from a record source.
