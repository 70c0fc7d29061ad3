//! What a node must do for a pod: actions, status, restarts, probes, environment.
