//! Snapshot, queue, plugins: pod in, decision out.
