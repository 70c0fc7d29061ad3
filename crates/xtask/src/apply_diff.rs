//! `cargo xtask apply-diff`: random writes by several managers, put to upstream's kube-apiserver and to Corten's API server.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use corten_faults::ask::Asker;
use corten_faults::sequence::{Pair, space::Dice, subjects};
use corten_faults::server;
use corten_testkit::cache_dir;

use crate::interrupt::unless_interrupted;
use crate::oracle::{Disk, Oracle};

/// The options of `cargo xtask apply-diff`.
#[derive(Debug, clap::Args)]
pub struct ApplyDiffArgs {
    /// Seed of the first sequence
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Sequences of each kind
    #[arg(long, default_value_t = 20)]
    sequences: u64,
    /// Writes in a sequence
    #[arg(long, default_value_t = 12)]
    steps: usize,
    /// Only kinds whose name contains this text
    #[arg(long, default_value = "")]
    kind: String,
    /// How many differences are shown
    #[arg(long, default_value_t = 20)]
    show: usize,
}

/// Runs the sequences.
///
/// # Errors
/// If the servers differ.
pub fn run(args: &ApplyDiffArgs) -> Result<()> {
    let dir = cache_dir().join(format!("apply-diff-{}", std::process::id()));
    let pki = dir.join("pki");
    std::fs::create_dir_all(&pki)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(unless_interrupted(compare(args, &dir, &pki)));
    std::fs::remove_dir_all(&dir)?;
    outcome
}

async fn compare(args: &ApplyDiffArgs, dir: &Path, pki: &Path) -> Result<()> {
    let material = server::material(pki)?;
    let oracle = Oracle::start(dir, &material, Disk::Unsafe).await?;
    let alone = server::start(material.clone()).await?;
    let theirs = Asker::connect(oracle.address, &material).await?;
    let ours = Asker::connect(alone.address, &material).await?;
    let mut pair = Pair { theirs, ours };
    pair.prepare().await?;
    let (mut writes, mut shown) = (0, 0);
    let mut differ: BTreeMap<String, u64> = BTreeMap::new();
    for subject in subjects()?.iter().filter(|subject| subject.name.contains(&args.kind)) {
        differ.insert(subject.name.clone(), 0);
        for seed in args.seed..args.seed + args.sequences {
            let (done, found) = pair.run(subject, args.steps, &mut Dice::new(seed)).await?;
            writes += done;
            let Some(found) = found else { continue };
            *differ.entry(subject.name.clone()).or_default() += 1;
            shown += 1;
            if shown <= args.show {
                println!("{} seed {seed}:", subject.name);
                found.steps.iter().for_each(|step| println!("  {step}"));
                println!("    before: {}", found.before);
                found.lines.iter().for_each(|line| println!("    {line}"));
            }
        }
    }
    println!("| kind | sequences | differ |\n|---|---|---|");
    differ.iter().for_each(|(kind, count)| println!("| {kind} | {} | {count} |", args.sequences));
    println!("{writes} writes");
    match shown {
        0 => Ok(()),
        shown => bail!("{shown} sequences are answered differently"),
    }
}
