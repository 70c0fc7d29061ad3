//! The API's fields as data, and its interpreters: decode, prune, protobuf, OpenAPI, explain.
