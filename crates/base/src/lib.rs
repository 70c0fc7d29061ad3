//! Clock, backoff, interning, the task tree: what std lacks.
