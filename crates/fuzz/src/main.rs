//! Runs fuzz targets and tells what broke: `cargo xtask fuzz` builds this with checks of overflow and starts it.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use corten_fuzz::runner::{self, Plan};
use corten_fuzz::targets::TARGETS;

/// Fuzz what reads input from outside.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only targets whose name contains this; several with commas
    #[arg(long, default_value = "")]
    target: String,
    /// Seconds for each target
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Inputs for each target, at most
    #[arg(long, default_value_t = u64::MAX)]
    executions: u64,
    /// Begin of the order of mutations: the same number gives the same inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run one input from a file
    #[arg(long, value_name = "FILE")]
    input: Option<std::path::PathBuf>,
    /// Write each input to a file before it runs, for faults that end the process
    #[arg(long)]
    trace: bool,
    /// Show the text of panics as they happen
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let args = Arguments::parse();
    let wanted = |name: &str| args.target.split(',').any(|part| name.contains(part));
    if let Some(file) = &args.input {
        for target in TARGETS.iter().filter(|t| wanted(t.name)) {
            match std::fs::read(file) {
                Ok(input) => println!("{}: {:x}", target.name, (target.run)(&input)),
                Err(error) => eprintln!("{}: {error}", file.display()),
            }
        }
        return ExitCode::SUCCESS;
    }
    if !args.verbose {
        // They are told at the end, each once.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let plan = Plan {
        seed: args.seed,
        executions: args.executions,
        time: Duration::from_secs(args.seconds),
        findings: corten_testkit::cache_dir().join("fuzz"),
        trace: args.trace,
    };
    if let Err(error) = std::fs::create_dir_all(&plan.findings) {
        eprintln!("{}: {error}", plan.findings.display());
    }
    println!("| target | executions | seconds | outcomes | slowest | faults |\n|---|---|---|---|---|---|");
    let mut broken = false;
    for target in TARGETS.iter().filter(|t| wanted(t.name)) {
        let report = runner::run(target, &plan);
        println!(
            "| {} | {} | {:.0} | {} | {:.1} ms | {} |",
            target.name,
            report.executions,
            report.time.as_secs_f64(),
            report.classes,
            report.slowest.as_secs_f64() * 1000.0,
            report.faults.len()
        );
        for (file, text) in &report.faults {
            broken = true;
            let text: String = text.chars().take(600).collect();
            eprintln!("{}: {text}\n  {}", target.name, file.display());
        }
    }
    if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
