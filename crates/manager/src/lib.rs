//! Runs controllers and scheduler: queue, one reconcile per key, revision barrier.
