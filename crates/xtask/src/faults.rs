//! `cargo xtask faults`: faulty manifests, put to upstream's kube-apiserver and to Corten's API server side by side.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use corten_faults::ask::Asker;
use corten_faults::recorded::{self, Answers};
use corten_faults::{case, golden_dir, server};
use corten_testkit::cache_dir;

use crate::interrupt::unless_interrupted;
use crate::oracle::{Disk, Oracle};

/// The options of `cargo xtask faults`.
#[derive(Debug, clap::Args)]
pub struct FaultsArgs {
    /// Only cases whose id (`apps/v1 Deployment create: spec.replicas = -1`) contains this text
    #[arg(long, default_value = "")]
    filter: String,
    /// Write what upstream says into the recorded answers
    #[arg(long, conflicts_with = "filter")]
    record: bool,
    /// Make the valid manifests of the cases for real, read them back, and compare the objects field by field
    #[arg(long, conflicts_with = "record")]
    stored: bool,
    /// Leave upstream's data and logs below target/testkit
    #[arg(long)]
    keep: bool,
    /// Show only how many cases of each kind differ
    #[arg(long)]
    summary: bool,
}

/// Runs the comparison.
///
/// # Errors
/// If a difference is not in the list of exceptions, or the recorded answers are stale.
pub fn run(args: &FaultsArgs) -> Result<()> {
    let dir = cache_dir().join(format!("faults-{}", std::process::id()));
    let pki = dir.join("pki");
    std::fs::create_dir_all(&pki)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(unless_interrupted(compare(args, &dir, &pki)));
    match args.keep {
        true => eprintln!("kept: {}", dir.display()),
        false => std::fs::remove_dir_all(&dir)?,
    }
    outcome
}

async fn compare(args: &FaultsArgs, dir: &Path, pki: &Path) -> Result<()> {
    let exceptions = recorded::exceptions()?;
    let material = server::material(pki)?;
    let oracle = Oracle::start(dir, &material, Disk::Unsafe).await?;
    let alone = server::start(material.clone()).await?;
    let mut theirs = Asker::connect(oracle.address, &material).await?;
    let mut ours = Asker::connect(alone.address, &material).await?;
    theirs.prepare().await?;
    ours.prepare().await?;
    let wanted = |id: &str| id.contains(&args.filter);
    let mut table = Table::default();
    let mut stale = Vec::new();
    for (stem, path) in recorded::case_files()? {
        let text = std::fs::read_to_string(&path)?;
        let mut upstream = Answers::new();
        for base in case::parse(&text).with_context(|| path.display().to_string())? {
            let (expected, found) = match args.stored {
                true => (theirs.stored(&base, &wanted).await?, ours.stored(&base, &wanted).await?),
                false => (theirs.ask(&base, &wanted).await?, ours.ask(&base, &wanted).await?),
            };
            for ((id, expected), (_, found)) in expected.iter().zip(&found) {
                table.add(&base.kind, id, expected, found, &exceptions);
            }
            upstream.extend(expected);
        }
        let golden = golden_dir().join(format!("{stem}.txt"));
        let fresh = recorded::write(&upstream);
        if args.record {
            std::fs::write(&golden, fresh)?;
        } else if args.filter.is_empty()
            && !args.stored
            && std::fs::read_to_string(&golden).unwrap_or_default() != fresh
        {
            stale.push(stem);
        }
    }
    table.print(args.summary, &exceptions, args.filter.is_empty() && !args.stored);
    if !stale.is_empty() {
        bail!(
            "recorded answers are stale: {}; run `cargo xtask faults --record` and look at the diff",
            stale.join(", ")
        );
    }
    if table.unexpected > 0 {
        bail!("{} cases differ and are not in the list of exceptions", table.unexpected);
    }
    Ok(())
}

/// What was found.
#[derive(Default)]
struct Table {
    cases: usize,
    agreed: usize,
    excepted: usize,
    unexpected: usize,
    kinds: BTreeMap<String, (usize, usize)>,
    lines: Vec<String>,
    used: Vec<String>,
}

impl Table {
    fn add(&mut self, kind: &str, id: &str, expected: &str, found: &str, exceptions: &BTreeMap<String, String>) {
        self.cases += 1;
        let row = self.kinds.entry(kind.to_owned()).or_default();
        row.0 += 1;
        if expected == found {
            self.agreed += 1;
            return;
        }
        row.1 += 1;
        let note = match exceptions.get(id) {
            Some(reason) => {
                self.excepted += 1;
                self.used.push(id.to_owned());
                format!(" (excepted: {reason})")
            }
            None => {
                self.unexpected += 1;
                String::new()
            }
        };
        let mut lines = vec![format!("{id}{note}")];
        let (expected, found): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
        lines.extend(expected.iter().filter(|l| !found.contains(l)).map(|l| format!("    upstream {l}")));
        lines.extend(found.iter().filter(|l| !expected.contains(l)).map(|l| format!("    Corten   {l}")));
        if lines.len() == 1 {
            lines.push(format!("    order: upstream {expected:?}, Corten {found:?}"));
        }
        self.lines.push(lines.join("\n"));
    }

    fn print(&self, summary: bool, exceptions: &BTreeMap<String, String>, all: bool) {
        if !summary {
            self.lines.iter().for_each(|line| println!("{line}"));
        }
        println!("| kind | cases | differ |\n|---|---|---|");
        for (kind, (cases, differ)) in &self.kinds {
            println!("| {kind} | {cases} | {differ} |");
        }
        println!("{} cases: {} agree, {} excepted, {} differ", self.cases, self.agreed, self.excepted, self.unexpected);
        for id in exceptions.keys().filter(|id| all && !id.starts_with("stored ") && !self.used.contains(id)) {
            println!("an exception that is none any more: {id}");
        }
    }
}
