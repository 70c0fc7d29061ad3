//! `corten-sim`: simulates clusters from seeds and tells what broke, how far it got, and how fast. `cargo xtask sim` builds and
//! runs it.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use corten_sim::{Script, run, shrink};

/// Simulates whole clusters from seeds: real pipeline, cache, controllers and scheduler, virtual time, injected faults
#[derive(Debug, Parser)]
#[command(name = "corten-sim")]
struct Options {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one after the other
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Seeds one after the other until nodes have lived for so many hours of virtual time together
    #[arg(long, conflicts_with = "runs")]
    node_hours: Option<u64>,
    /// How many things happen in each run
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// Stop at the first seed that breaks
    #[arg(long)]
    stop: bool,
    /// Show a broken run as it is, and do not look for a shorter one
    #[arg(long)]
    no_shrink: bool,
    /// Tell only what broke, as `seed<TAB>invariant<TAB>virtual seconds<TAB>text`, and how long it took
    #[arg(long)]
    terse: bool,
    /// What to log (as `corten_manager=debug`)
    #[arg(long, default_value = "off")]
    log: String,
}

fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt().with_env_filter(&options.log).with_ansi(false).init();
    let began = Instant::now();
    let (mut node_seconds, mut seconds, mut seed, mut broken) = (0, 0, options.seed, Vec::new());
    let wants_more = |seed: u64, node_seconds: i64| match options.node_hours {
        Some(hours) => (node_seconds as u64) < hours * 3600,
        None => seed < options.seed + options.runs,
    };
    while wants_more(seed, node_seconds) && (!options.stop || broken.is_empty()) {
        let report = run(&Script::new(seed, options.steps));
        node_seconds += report.node_seconds;
        seconds += report.seconds;
        if !options.terse {
            println!("{report}");
        }
        if let Some(fault) = report.faults.first() {
            broken.push(seed.to_string());
            if options.terse {
                println!("{seed}\t{}\t{}\t{}", fault.invariant, fault.second, fault.text);
            } else if !options.no_shrink {
                let shorter = shrink(&report);
                println!("shorter: {}{shorter}", shorter.script);
            }
        }
        seed += 1;
    }
    let real = began.elapsed().as_secs_f64();
    println!(
        "{} runs, {:.1} node-hours and {:.1} cluster-hours of virtual time in {real:.1} s: {:.0} node-hours a minute; {} broken{}{}",
        seed - options.seed,
        node_seconds as f64 / 3600.0,
        seconds as f64 / 3600.0,
        node_seconds as f64 / 60.0 / real,
        broken.len(),
        if broken.is_empty() { "" } else { ": seeds " },
        broken.join(", "),
    );
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
