//! Loads are made by a small program of its own, in a release build: this one would measure itself.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use corten_load::{Job, Sample, Target, Work};

/// Puts a load on a server.
///
/// # Errors
/// If a request of it fails.
pub(super) fn load(program: &Path, target: Target, work: Work) -> Result<Sample> {
    let mut command = Command::new(program);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| program.display().to_string())?;
    let stdin = child.stdin.take().context("its standard input was piped")?;
    serde_json::to_writer(stdin, &Job { target, work })?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the load failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}
