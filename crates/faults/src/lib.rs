//! Manifests with one fault each, and what an API server says of them.
//!
//! The cases are data (`cases/*.faults`, see [`case`]). `cargo xtask faults` puts them to upstream's kube-apiserver and to Corten's
//! API server and compares the answers; what upstream said is recorded in `golden/`, so that `cargo test` needs no upstream.

pub mod ask;
pub mod case;
pub mod outcome;
pub mod recorded;
pub mod sequence;
pub mod server;
pub mod stored;

use std::path::{Path, PathBuf};

/// The directory of the case files.
pub fn cases_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
}

/// The directory of the recorded answers.
pub fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}
