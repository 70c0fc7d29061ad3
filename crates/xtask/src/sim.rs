//! `cargo xtask sim`.

use anyhow::{Result, bail};
use clap::Args;

/// Arguments of `sim`.
#[derive(Debug, Args)]
pub(crate) struct SimArgs {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one after the other
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// How many things users do in each run
    #[arg(long, default_value_t = 20)]
    steps: usize,
}

/// Simulates whole clusters and tells what broke.
pub(crate) fn run(args: &SimArgs) -> Result<()> {
    let mut broken = Vec::new();
    for seed in args.seed..args.seed + args.runs {
        let report = corten_sim::run(seed, args.steps);
        println!(
            "seed {seed}: {} revisions, {} s of virtual time, {} faults",
            report.revisions,
            report.seconds,
            report.faults.len()
        );
        report.faults.iter().for_each(|fault| println!("  {fault}"));
        if !report.faults.is_empty() {
            broken.push(seed.to_string());
        }
    }
    if broken.is_empty() { Ok(()) } else { bail!("broken seeds: {}", broken.join(", ")) }
}
