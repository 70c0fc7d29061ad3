//! Executes pod plans: workers, probes, logs, the exec and log server.
