//! `corten image`: the image store below the data directory, also while a server runs on it.

use anyhow::Result;

use crate::args::ImageCommand;

/// Runs an image command.
///
/// # Errors
/// What is wrong with the image or the store.
pub fn run(command: ImageCommand) -> Result<()> {
    let _ = command;
    anyhow::bail!("images: not wired yet")
}
