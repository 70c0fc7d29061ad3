//! A revisioned, ordered map from key to bytes: the trait, memory, embedded, and a fault-injecting wrapper.
