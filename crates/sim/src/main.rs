//! `corten-sim`: simulates clusters from seeds and tells what broke, how far it got, and how fast. `cargo xtask sim` builds and
//! runs it.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use clap::Parser;
use corten_sim::{Report, Script, run, run_to_fault, shrink};

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
    /// How many seeds run at once (as many as there are processors)
    #[arg(long)]
    jobs: Option<NonZero<usize>>,
    /// Tell only what broke, as `seed<TAB>invariant<TAB>virtual seconds<TAB>text`, and how long it took; with `--stop` a run ends there
    #[arg(long)]
    terse: bool,
    /// What to log (as `corten_manager=debug`)
    #[arg(long, default_value = "off")]
    log: String,
}

/// What has been run so far.
struct Told<'o> {
    options: &'o Options,
    runs: u64,
    node_seconds: i64,
    seconds: i64,
    broken: Vec<String>,
}

impl Told<'_> {
    fn wants_more(&self) -> bool {
        let more = match self.options.node_hours {
            Some(hours) => self.node_seconds < i64::try_from(hours).unwrap_or(i64::MAX).saturating_mul(3600),
            None => self.runs < self.options.runs,
        };
        more && (!self.options.stop || self.broken.is_empty())
    }

    fn tell(&mut self, report: &Report) {
        let seed = self.options.seed + self.runs;
        self.runs += 1;
        self.node_seconds += report.node_seconds;
        self.seconds += report.seconds;
        if !self.options.terse {
            println!("{report}");
        }
        let Some(fault) = report.faults.first() else { return };
        self.broken.push(seed.to_string());
        if self.options.terse {
            println!("{seed}\t{}\t{}\t{}", fault.invariant, fault.second, fault.text);
        } else if !self.options.no_shrink {
            let shorter = shrink(report);
            println!("shorter: {}{shorter}", shorter.script);
        }
    }
}

/// Lets the others stop when one run panics: its seed would be waited for in vain.
struct EndsAll<'d>(&'d AtomicBool);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs seeds, several at once, and tells of them in their order. A run is one thread's, so they do not see each other.
fn run_all(options: &Options) -> Told<'_> {
    let mut told = Told { options, runs: 0, node_seconds: 0, seconds: 0, broken: Vec::new() };
    let (next, done) = (AtomicU64::new(options.seed), AtomicBool::new(false));
    // What is logged is to be read in its order.
    let many = if options.log == "off" { std::thread::available_parallelism().map_or(1, NonZero::get) } else { 1 };
    let jobs = options.jobs.map_or(many, NonZero::get);
    // Of a seed that breaks, nobody wants to know what else does.
    let run = if options.terse && options.stop { run_to_fault } else { run };
    std::thread::scope(|threads| {
        let (send, receive) = mpsc::sync_channel(jobs);
        for _ in 0..jobs {
            let (send, next, done) = (send.clone(), &next, &done);
            threads.spawn(move || {
                let _ends = EndsAll(done);
                while !done.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // Who receives no more has seen enough.
                    if send.send((seed, run(&Script::new(seed, options.steps)))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        let mut early = BTreeMap::new();
        while told.wants_more() {
            let Ok((seed, report)) = receive.recv() else { break };
            early.insert(seed, report);
            while told.wants_more()
                && let Some(report) = early.remove(&(options.seed + told.runs))
            {
                told.tell(&report);
            }
        }
        done.store(true, Ordering::Relaxed);
        drop(receive);
    });
    told
}

fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt().with_env_filter(&options.log).with_ansi(false).init();
    let began = Instant::now();
    let Told { runs, node_seconds, seconds, broken, .. } = run_all(&options);
    let real = began.elapsed().as_secs_f64();
    println!(
        "{runs} runs, {:.1} node-hours and {:.1} cluster-hours of virtual time in {real:.1} s: {:.0} node-hours a minute; {} broken{}{}",
        node_seconds as f64 / 3600.0,
        seconds as f64 / 3600.0,
        node_seconds as f64 / 60.0 / real,
        broken.len(),
        if broken.is_empty() { "" } else { ": seeds " },
        broken.join(", "),
    );
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
