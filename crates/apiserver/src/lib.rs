//! HTTP in, pipeline, HTTP out.
