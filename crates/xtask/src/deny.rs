//! `cargo xtask deny`.

use std::process::Command;

use anyhow::{Result, bail};
use corten_testkit::{cache_dir, root};

const VERSION: &str = "^0.19";

/// Runs cargo-deny on licences, bans and sources, installing it first if it is missing.
pub(crate) fn run() -> Result<()> {
    let home = cache_dir().join("cargo-deny");
    let program = home.join("bin/cargo-deny");
    if !program.exists() {
        eprintln!("installing cargo-deny {VERSION} (some minutes)");
        let mut install = Command::new("cargo");
        install.args(["install", "--quiet", "--locked", "cargo-deny", "--version", VERSION, "--root"]).arg(&home);
        if !install.current_dir(root()).status()?.success() {
            bail!("cargo-deny could not be installed");
        }
    }
    let checks = ["check", "licenses", "bans", "sources"];
    if !Command::new(program).args(checks).current_dir(root()).status()?.success() {
        bail!("cargo-deny has findings");
    }
    Ok(())
}
