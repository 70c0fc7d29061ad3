//! `cargo xtask test`.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use corten_testkit::leftovers::Snapshot;
use corten_testkit::tools;

use crate::tidy;

/// Arguments of `test`.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Leave the end-to-end tests out
    #[arg(long)]
    no_e2e: bool,
    /// Hours of virtual time that simulated nodes live together; 0 leaves the simulation out
    #[arg(long, default_value_t = 200)]
    node_hours: u64,
}

/// Runs all checks and tests, in the order of their cost.
pub(crate) fn run(args: &TestArgs) -> Result<()> {
    let before = Snapshot::take();
    prepare()?;
    step("format", cargo(&["fmt", "--all", "--check"]))?;
    step("clippy", cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    eprintln!("== tidy");
    tidy::run()?;
    // The end-to-end tests are a test of the binary's crate: they run with the others, or are left out by name.
    let mut tests = cargo(&["test", "--quiet", "--workspace"]);
    if args.no_e2e {
        tests.args(["--exclude", "corten"]);
    }
    step("tests", tests)?;
    if args.node_hours > 0 {
        let hours = args.node_hours.to_string();
        let sim = ["run", "--quiet", "--profile", "fuzz", "--package", "corten-sim", "--", "--terse", "--node-hours"];
        step("simulation", cargo(&[&sim[..], &[&hours]].concat()))?;
    }
    let left = Snapshot::take().since(&before);
    if !left.is_empty() {
        bail!("the tests left behind:\n  {}", left.join("\n  "));
    }
    eprintln!("== nothing was left behind");
    Ok(())
}

/// Installs what the tests need.
fn prepare() -> Result<()> {
    tools::apt("nft", &["nftables"])?;
    tools::apt("ip", &["iproute2"])?;
    tools::kubectl().map(drop)
}

fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(corten_testkit::root());
    if !rustix::process::geteuid().is_root() {
        // The build stays the user's; only the test programs run as root.
        let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH).to_uppercase().replace('-', "_");
        command.env(format!("CARGO_TARGET_{target}_RUNNER"), "sudo -E");
    }
    command
}

fn step(name: &str, mut command: Command) -> Result<()> {
    eprintln!("== {name}");
    let began = Instant::now();
    let status = command.status()?;
    if !status.success() {
        bail!("{name} failed: {command:?}");
    }
    eprintln!("== {name}: {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}
