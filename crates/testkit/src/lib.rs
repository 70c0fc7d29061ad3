//! What tests share: tools, images of Debian packages, clusters, leftovers.
//!
//! Everything is fetched through package registries and kept below `target/`, so that a second run needs no network.

pub mod choice;
pub mod cluster;
pub mod debian;
pub mod disk;
pub mod leftovers;
pub mod registry;
pub mod tools;

use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail};

/// The workspace's root directory.
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map_or(here.clone(), PathBuf::from)
}

/// The directory for what is fetched or made: `target/testkit`.
pub fn cache_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("testkit")
}

/// Runs a command to its end and returns its output.
///
/// # Errors
/// If it cannot be started or fails; the message has the command and its stderr.
pub fn run(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("{command:?} could not be started"))?;
    if !output.status.success() {
        bail!("{command:?} failed with {}:\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(output)
}

/// As [`run`], returning stdout as text.
///
/// # Errors
/// As [`run`].
pub fn text(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&run(command)?.stdout).into_owned())
}
