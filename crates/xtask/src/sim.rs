//! `cargo xtask sim`: the simulator, in a build of its own.

use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

/// Arguments of `sim`.
#[derive(Debug, Args)]
pub(crate) struct SimArgs {
    /// The simulator's options
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Builds and runs it, optimised but with checks of overflow.
pub(crate) fn run(args: &SimArgs) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["run", "--quiet", "--profile", "fuzz", "--package", "corten-sim", "--"]).args(&args.options);
    if !cargo.current_dir(corten_testkit::root()).status()?.success() {
        bail!("an invariant was broken, or the build failed");
    }
    Ok(())
}
