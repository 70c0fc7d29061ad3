//! Drives a target: mutations of seeds, in an order that a number decides, until time or count is up.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::Target;
use crate::mutate::{Numbers, mutate};

/// Inputs kept to mutate further.
const CORPUS_MAX: usize = 4096;
/// An input that takes longer than this hangs.
const HANG: Duration = Duration::from_secs(10);
/// An input that takes longer than this is told as slow.
const SLOW: Duration = Duration::from_millis(500);
/// Faults of a target that are kept.
const FAULTS_MAX: usize = 20;

/// When a run ends, and where it leaves what it finds.
pub struct Plan {
    /// Where the order of mutations begins.
    pub seed: u64,
    /// After so many inputs,
    pub executions: u64,
    /// or after so long.
    pub time: Duration,
    /// Directory for inputs that break a law.
    pub findings: PathBuf,
    /// Write each input to a file before it runs: for faults that end the process.
    pub trace: bool,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Inputs that ran.
    pub executions: u64,
    /// Different outcomes seen.
    pub classes: usize,
    /// How long it took.
    pub time: Duration,
    /// The slowest input's time.
    pub slowest: Duration,
    /// What broke: where the input lies, and the panic's text.
    pub faults: Vec<(PathBuf, String)>,
}

/// Runs a target.
///
/// # Panics
/// Never for what a target does; if a thread cannot be started.
pub fn run(target: &Target, plan: &Plan) -> Report {
    let (beats, watch) = channel::<Option<Vec<u8>>>();
    let name = target.name;
    let findings = plan.findings.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || watchdog(name, &findings, &watch));
        work(target, plan, &beats)
    })
}

/// Ends the process when an input hangs: a thread cannot be ended from outside. It hears of inputs now and then, not of each.
fn watchdog(name: &str, findings: &Path, watch: &std::sync::mpsc::Receiver<Option<Vec<u8>>>) {
    let mut last = None;
    loop {
        match watch.recv_timeout(HANG) {
            Ok(Some(input)) => last = Some(input),
            Ok(None) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let file = save(findings, name, last.as_deref().unwrap_or_default());
                eprintln!(
                    "{name}: an input at or soon after the one in {} hangs; find it with --trace",
                    file.display()
                );
                std::process::exit(2);
            }
        }
    }
}

fn save(findings: &Path, name: &str, input: &[u8]) -> PathBuf {
    let file = findings
        .join(format!("{name}-{:016x}", crate::class(name, &String::from_utf8_lossy(input)) ^ input.len() as u64));
    if let Err(error) = std::fs::create_dir_all(findings).and_then(|()| std::fs::write(&file, input)) {
        eprintln!("{}: {error}", file.display());
    }
    file
}

fn work(target: &Target, plan: &Plan, beats: &Sender<Option<Vec<u8>>>) -> Report {
    let began = Instant::now();
    let mut numbers = Numbers::new(plan.seed);
    let mut corpus = (target.seeds)();
    if corpus.is_empty() {
        corpus.push(Vec::new());
    }
    let seeds = corpus.len();
    let (mut classes, mut texts) = (HashSet::new(), HashSet::new());
    let mut report = Report::default();
    while report.executions < plan.executions && began.elapsed() < plan.time && report.faults.len() < FAULTS_MAX {
        let number = report.executions as usize;
        // The seeds themselves come first.
        let input = match corpus.get(number) {
            Some(seed) if number < seeds => seed.clone(),
            _ => {
                let (one, other) = (numbers.below(corpus.len()), numbers.below(corpus.len()));
                mutate(&mut numbers, target.shape, &corpus[one], &corpus[other])
            }
        };
        if plan.trace {
            let _ = std::fs::write(plan.findings.join(format!("{}-trace", target.name)), &input);
        }
        if number.is_multiple_of(64) {
            let _ = beats.send(Some(input.clone()));
        }
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
        let time = start.elapsed();
        if time > SLOW && time > report.slowest {
            eprintln!("{}: {time:?} for {}", target.name, save(&plan.findings, "slow", &input).display());
        }
        report.slowest = report.slowest.max(time);
        report.executions += 1;
        match outcome {
            Ok(class) => {
                if classes.insert(class) && number >= seeds && corpus.len() < CORPUS_MAX {
                    corpus.push(input);
                }
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned())).unwrap_or_default();
                if texts.insert(crate::class("panic", &text)) {
                    report.faults.push((save(&plan.findings, target.name, &input), text));
                }
            }
        }
    }
    let _ = beats.send(None);
    report.classes = classes.len();
    report.time = began.elapsed();
    report
}
