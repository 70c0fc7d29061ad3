//! `cargo xtask fuzz`: the targets of the `fuzz` crate, in a build of their own.

use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

/// Arguments of `fuzz`.
#[derive(Debug, Args)]
pub(crate) struct FuzzArgs {
    /// The runner's options
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Builds and runs the targets.
pub(crate) fn run(args: &FuzzArgs) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["run", "--quiet", "--profile", "fuzz", "--package", "corten-fuzz", "--"]).args(&args.options);
    if !cargo.current_dir(corten_testkit::root()).status()?.success() {
        bail!("an input broke a law, or the build failed");
    }
    Ok(())
}
