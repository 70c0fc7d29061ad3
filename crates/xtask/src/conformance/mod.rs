//! `cargo xtask conformance`: upstream's own conformance tests on a cluster of this machine, and a report of them.
//!
//! The suite is an ordinary Go dependency (`tools/conformance`), its images are made here, the cluster is the real binary with a data
//! directory of its own. Nothing is left behind.

mod images;
mod report;
mod suite;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use corten_testkit::cluster::Cluster;
use corten_testkit::leftovers::Snapshot;
use corten_testkit::{cache_dir, root, run as run_command, tools};

use suite::{Test, home};

use crate::interrupt::Interrupt;

/// The cluster's name.
const CLUSTER: &str = "conformance";

/// Arguments of `conformance`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cargo xtask conformance --sig auth
  cargo xtask conformance --focus 'ConfigMap.*update' --skip Slow
  cargo xtask conformance --list --sig cli

Rerunning a part updates that part of docs/conformance.md only.")]
pub(crate) struct ConformanceArgs {
    /// Run only tests whose name this expression (Go's syntax) matches
    #[arg(long, value_name = "RE")]
    focus: Option<String>,
    /// Leave tests out whose name this expression matches
    #[arg(long, value_name = "RE")]
    skip: Option<String>,
    /// Run only the tests of this SIG, as `auth`; repeat for several
    #[arg(long, value_name = "NAME")]
    sig: Vec<String>,
    /// Test this binary instead of building one
    #[arg(long, value_name = "PATH")]
    corten: Option<PathBuf>,
    /// The commit that the tested binary was built from (default: what `PATH.commit` says)
    #[arg(long, value_name = "REV", requires = "corten")]
    commit: Option<String>,
    /// Leave the cluster running and say how to go on with it
    #[arg(long)]
    keep: bool,
    /// Show the tests that would run
    #[arg(long)]
    list: bool,
    /// How many tests run side by side; serial ones run alone
    #[arg(long, default_value_t = 1, value_name = "N")]
    procs: u32,
    /// End the run after this many minutes; what did not run by then keeps its last result
    #[arg(long, default_value_t = 240)]
    minutes: u32,
    /// Only make what a run needs: the suite, its images
    #[arg(long)]
    prepare: bool,
    /// Do not touch docs/conformance.md
    #[arg(long)]
    no_report: bool,
}

impl ConformanceArgs {
    /// What selects tests, in ginkgo's words.
    fn selection(&self) -> Vec<String> {
        let sigs: Vec<String> = self.sig.iter().map(|s| format!("sig-{}", s.trim_start_matches("sig-"))).collect();
        let mut labels = "Conformance".to_owned();
        if !sigs.is_empty() {
            labels.push_str(&format!(" && ({})", sigs.join(" || ")));
        }
        let mut flags = vec![format!("--ginkgo.label-filter={labels}")];
        flags.extend(self.focus.iter().map(|re| format!("--ginkgo.focus={re}")));
        flags.extend(self.skip.iter().map(|re| format!("--ginkgo.skip={re}")));
        flags
    }
}

/// Prepares, runs, reports.
pub(crate) fn run(args: &ConformanceArgs) -> Result<()> {
    let e2e = suite::e2e()?;
    if args.list {
        return list(&e2e, args);
    }
    if !rustix::process::geteuid().is_root() {
        bail!("the tests run pods: run this as root");
    }
    let corten = match &args.corten {
        Some(path) => fs::canonicalize(path).with_context(|| path.display().to_string())?,
        None => build()?,
    };
    let commit = match &args.commit {
        Some(commit) => commit.clone(),
        None => fs::read_to_string(corten.with_extension("commit")).map_or("unknown".into(), |c| c.trim().to_owned()),
    };
    let all = suite::tests(&e2e)?;
    let ginkgo = if args.procs > 1 { Some(suite::ginkgo()?) } else { None };
    let store = images::prepare(&corten)?;
    if args.prepare {
        eprintln!("everything is there: {} tests of the set", all.len());
        return Ok(());
    }
    let before = Snapshot::take();
    let interrupt = Interrupt::listen()?;
    let registry = images::serve(&store)?;
    let cluster = Cluster::up_with(&corten, CLUSTER, |data| images::give(&registry, data))?;
    let began = Instant::now();
    let results = interrupt.check().and_then(|()| run_suite(&cluster, &e2e, ginkgo.as_deref(), args, &interrupt));
    let seconds = began.elapsed().as_secs();
    if args.keep {
        eprintln!("the cluster goes on: export KUBECONFIG={}", cluster.kubeconfig().display());
        eprintln!(
            "take it down with: {} down --purge --name {CLUSTER} --data-dir {}",
            corten.display(),
            cluster.data().display()
        );
        eprintln!("end the registry of its images with: kill {}", registry.pid());
        std::mem::forget((cluster, registry));
    } else {
        keep_log(&cluster);
        cluster.down()?;
        let left = Snapshot::take().since(&before);
        if !left.is_empty() {
            eprintln!("left behind:\n  {}", left.join("\n  "));
        }
    }
    let results = results?;
    let failed = results.iter().filter(|r| !r.passed()).count();
    eprintln!("{} passed, {failed} failed in {} min {} s", results.len() - failed, seconds / 60, seconds % 60);
    if !args.no_report {
        report::update(&root().join("docs/conformance.md"), &all, &results, &commit)?;
    }
    interrupt.check()?;
    if failed > 0 { bail!("{failed} tests failed") } else { Ok(()) }
}

/// The binary under test, as it is now: a copy, for the build directory may change meanwhile. Beside it lies what it was built from.
pub(crate) fn build() -> Result<PathBuf> {
    let git = |args: &[&str]| corten_testkit::text(Command::new("git").args(args).current_dir(root()));
    let changed = if git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty() { "" } else { "+changes" };
    let commit = format!("{}{changed}\n", git(&["rev-parse", "--short", "HEAD"])?.trim());
    let mut cargo = Command::new("cargo");
    if !cargo.args(["build", "--quiet", "--package", "corten"]).current_dir(root()).status()?.success() {
        bail!("the build failed");
    }
    let target = cache_dir().parent().context("the cache is below target/")?.to_owned();
    let copy = home().join("bin/corten");
    fs::create_dir_all(home().join("bin"))?;
    if copy.exists() {
        fs::remove_file(&copy)?;
    }
    fs::copy(target.join("debug/corten"), &copy)?;
    fs::write(copy.with_extension("commit"), commit)?;
    Ok(copy)
}

fn list(e2e: &Path, args: &ConformanceArgs) -> Result<()> {
    let dir = home().join("selected");
    fs::create_dir_all(&dir)?;
    let mut dry = Command::new(e2e);
    dry.args(["--provider=skeleton", "--ginkgo.dry-run", "--report-complete-ginkgo", "--report-dir"]).arg(&dir);
    run_command(dry.args(args.selection()).current_dir(&dir))?;
    let mut tests: Vec<Test> = Vec::new();
    for spec in suite::specs(&dir.join("ginkgo/report.json"))? {
        // A dry run passes what it would run.
        if spec["LeafNodeType"] == "It" && spec["State"] == "passed" {
            tests.push(suite::test_of(&spec));
        }
    }
    tests.sort();
    tests.iter().for_each(|test| println!("{}", test.name));
    eprintln!("{} tests", tests.len());
    Ok(())
}

/// The server's log outlives its data directory, for who looks into a failure.
fn keep_log(cluster: &Cluster) {
    let kept = home().join("server.log");
    match fs::copy(cluster.data().join("server.log"), &kept) {
        Ok(_) => eprintln!("the server's log: {}", kept.display()),
        Err(error) => eprintln!("the server's log could not be kept: {error}"),
    }
}

/// Runs the selected tests and returns what came of each that ran.
fn run_suite(
    cluster: &Cluster,
    e2e: &Path,
    ginkgo: Option<&Path>,
    args: &ConformanceArgs,
    interrupt: &Interrupt,
) -> Result<Vec<report::Outcome>> {
    let dir = home().join("run");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let kubeconfig = outside_kubeconfig(cluster, &dir)?;
    let mut command = match ginkgo {
        Some(ginkgo) => {
            let mut command = Command::new(ginkgo);
            command.args(["--no-color", "-v", "--timeout", &format!("{}m", args.minutes)]);
            command.arg(format!("--procs={}", args.procs));
            // The runner's own flags have no prefix.
            command.args(args.selection().iter().map(|flag| flag.replacen("--ginkgo.", "--", 1)));
            command.arg(e2e).arg("--");
            command
        }
        None => {
            let mut command = Command::new(e2e);
            command.args(["--ginkgo.no-color", "--ginkgo.v", &format!("--ginkgo.timeout={}m", args.minutes)]);
            command.args(args.selection());
            command
        }
    };
    command.args(["--provider=skeleton", "--disable-log-dump", "--report-complete-ginkgo", "--report-dir"]).arg(&dir);
    command.arg("--kubeconfig").arg(&kubeconfig).arg("--kubectl-path").arg(tools::kubectl()?);
    command.arg("--e2e-output-dir").arg(&dir).current_dir(&dir).env("HOME", &dir).env("KUBECONFIG", &kubeconfig);
    follow(&mut command, &dir.join("output.log"), interrupt)?;
    let mut outcomes = Vec::new();
    for spec in suite::specs(&dir.join("ginkgo/report.json"))? {
        if let Some(outcome) = report::Outcome::of(&spec) {
            outcomes.push(outcome);
        } else if spec["LeafNodeType"] != "It" && spec["State"] == "failed" {
            bail!("the suite could not start: {}", report::reason(&spec));
        }
    }
    Ok(outcomes)
}

/// A kubeconfig with the address at which pods reach the API server, too: the suite hands it on to them.
fn outside_kubeconfig(cluster: &Cluster, dir: &Path) -> Result<PathBuf> {
    let addresses = cluster.data().join("cluster.json");
    let addresses: serde_json::Value = serde_json::from_slice(&fs::read(&addresses)?)?;
    let pods = addresses["clusterCIDR"].as_str().and_then(|cidr| cidr.split('/').next()).unwrap_or_default();
    let network: Ipv4Addr = pods.parse().with_context(|| format!("the pods' range {pods:?}"))?;
    let gateway = Ipv4Addr::from(u32::from(network) + 1);
    let own = fs::read_to_string(cluster.kubeconfig())?;
    if !own.contains("//127.0.0.1:") {
        bail!("the cluster's kubeconfig does not name 127.0.0.1");
    }
    let path = dir.join("kubeconfig");
    fs::write(&path, own.replace("//127.0.0.1:", &format!("//{gateway}:")))?;
    Ok(path)
}

/// Runs the suite, keeps what it prints, and shows a line for each test.
fn follow(command: &mut Command, log: &Path, interrupt: &Interrupt) -> Result<()> {
    let mut file = File::create(log)?;
    // A group of its own: a signal reaches the runner and all its processes through us, once.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file.try_clone()?).process_group(0);
    let mut child = command.spawn()?;
    interrupt.pass_to(&child);
    eprintln!("running the suite; what it prints: {}", log.display());
    let mut name = String::new();
    let mut verdict: Option<String> = None;
    let mut done = 0;
    let output = child.stdout.take().context("the suite has a stdout")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(file, "{line}")?;
        if line.starts_with("Will run ") || line.starts_with("Running in parallel") {
            eprintln!("{line}");
        }
        if line.starts_with("[sig-") {
            name.clone_from(&line);
            // Beside each other, tests are shown when they end: the verdict comes first.
            if let Some(verdict) = verdict.take() {
                eprintln!("{done:>4} {verdict} {name}");
                name.clear();
            }
        }
        let Some(rest) = line.strip_prefix("• ") else { continue };
        done += 1;
        let told = if rest.starts_with("[FAILED]") { rest.to_owned() } else { format!("ok {rest}") };
        if name.is_empty() {
            verdict = Some(told);
        } else {
            eprintln!("{done:>4} {told} {name}");
            name.clear();
        }
    }
    // It ends with a failure when a test fails: the report tells.
    let ended = child.wait();
    interrupt.ended();
    ended.map(drop).map_err(Into::into)
}
