//! `cargo xtask planted`: plants bugs in a copy of the controllers, one at a time, and lets the simulator find them.
//!
//! All bugs are compiled into the copy at once, each behind a switch that an environment variable sets at the start, so that
//! the copy is built once; the product's own sources have no such switch.

mod list;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use corten_testkit::{cache_dir, root};
use list::{BUGS, Bug};

/// Tells the copy which bug it has.
const SWITCH: &str = "CORTEN_PLANTED";
const PAGE: &str = "docs/planted-bugs.md";

/// Arguments of `planted`.
#[derive(Debug, Args)]
pub(crate) struct PlantedArgs {
    /// Only bugs whose name contains this text
    #[arg(long, default_value = "")]
    filter: String,
    /// How many seeds are tried for each bug, from 1 on
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// How many things happen in each run
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// Do not write the page
    #[arg(long)]
    no_report: bool,
    /// Use the program that the last run has built
    #[arg(long)]
    built: bool,
}

/// How a bug was found.
struct Found {
    seed: u64,
    invariant: String,
    virtual_seconds: String,
    real_seconds: f64,
}

/// Plants and finds.
pub(crate) fn run(args: &PlantedArgs) -> Result<()> {
    let program = if args.built { cache_dir().join("planted/corten-sim") } else { build()? };
    let mut last = 1;
    let mut rows = String::new();
    let mut missed = Vec::new();
    for (number, bug) in BUGS.iter().enumerate().filter(|(_, bug)| bug.name.contains(&args.filter)) {
        match look(&program, Some(number), args.seeds, args)? {
            Some(found) => {
                last = last.max(found.seed);
                let Found { seed, invariant, virtual_seconds, real_seconds } = found;
                let row = format!(
                    "| {} | `{}` | {seed} | {invariant} | {virtual_seconds} s | {real_seconds:.1} s |",
                    bug.name, bug.file
                );
                println!("{row}");
                writeln!(rows, "{row}")?;
            }
            None => {
                println!("| {} | `{}` | not found | | | |", bug.name, bug.file);
                missed.push(bug.name);
            }
        }
    }
    // What breaks without a bug as well has found none.
    if let Some(found) = look(&program, None, last, args)? {
        bail!("without any bug, seed {} already breaks \"{}\"", found.seed, found.invariant);
    }
    if args.filter.is_empty() && !args.no_report {
        fs::write(root().join(PAGE), page(&rows, args, last, &missed))?;
    }
    ensure!(missed.is_empty(), "not found: {}", missed.join(", "));
    Ok(())
}

fn page(rows: &str, args: &PlantedArgs, last: u64, missed: &[&str]) -> String {
    let found = rows.lines().count();
    let missed = if missed.is_empty() { String::new() } else { format!("\nNot found: {}.\n", missed.join(", ")) };
    format!(
        "# Planted bugs\n\n`cargo xtask planted` changes one expression of a copy of the controllers at a time \
         (`crates/xtask/src/planted/list.rs`) and runs\nthe simulator from seed 1 on, at most {} seeds of {} steps, until an \
         invariant breaks; without a bug seeds 1 to {last} break none.\n{found} of {} bugs are found. *Virtual* is the cluster's time \
         when it broke, *real* the time from seed 1 on.\n{missed}\n| bug | file | seed | broken invariant | virtual | \
         real |\n|---|---|---|---|---|---|\n{rows}",
        args.seeds,
        args.steps,
        BUGS.len()
    )
}

/// Runs seeds from 1 on until one breaks.
fn look(program: &Path, bug: Option<usize>, seeds: u64, args: &PlantedArgs) -> Result<Option<Found>> {
    let began = Instant::now();
    let mut command = Command::new(program);
    command.args(["--seed", "1", "--runs", &seeds.to_string(), "--steps", &args.steps.to_string()]);
    command.args(["--stop", "--terse"]);
    if let Some(number) = bug {
        command.env(SWITCH, number.to_string());
    }
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ok(None);
    }
    let line = text.lines().next().unwrap_or_default();
    let mut fields = line.split('\t').map(str::to_owned);
    let (Some(seed), Some(invariant), Some(virtual_seconds)) = (fields.next(), fields.next(), fields.next()) else {
        bail!("the simulator failed: {text}{}", String::from_utf8_lossy(&output.stderr));
    };
    let seed = seed.parse().with_context(|| format!("the seed in {line:?}"))?;
    Ok(Some(Found { seed, invariant, virtual_seconds, real_seconds: began.elapsed().as_secs_f64() }))
}

/// Copies the workspace, plants all bugs behind their switches, and builds the simulator there.
fn build() -> Result<PathBuf> {
    let copy = cache_dir().join("planted");
    let listed = corten_testkit::text(
        Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others"])
            .args(["--exclude-standard", "Cargo.toml", "Cargo.lock", "crates"])
            .current_dir(root()),
    )?;
    let files: BTreeSet<&str> = listed.split('\0').filter(|f| !f.is_empty() && root().join(f).is_file()).collect();
    remove_others(&copy, &copy.join("crates"), &files)?;
    for file in files {
        let (from, to) = (root().join(file), copy.join(file));
        let controllers = file.starts_with("crates/controllers/src/");
        let fresh = || Some(fs::metadata(&to).ok()?.modified().ok()? >= fs::metadata(&from).ok()?.modified().ok()?);
        // What has not changed keeps its time, so that it is not built again.
        if !controllers && fresh() == Some(true) {
            continue;
        }
        fs::create_dir_all(to.parent().context("a file is in a directory")?)?;
        fs::copy(&from, &to).with_context(|| format!("{} could not be copied", from.display()))?;
    }
    let sources = copy.join("crates/controllers/src");
    for (number, bug) in BUGS.iter().enumerate() {
        let path = sources.join(bug.file);
        let text = fs::read_to_string(&path)?;
        fs::write(&path, planted(&text, number, bug).with_context(|| format!("\"{}\" in {}", bug.name, bug.file))?)?;
    }
    let switch = format!(
        "//! Which bug is planted.\n\n/// Whether it is this one.\npub(crate) fn is(number: usize) -> bool {{\n    \
         static PLANTED: std::sync::OnceLock<usize> = std::sync::OnceLock::new();\n    \
         let read = || std::env::var(\"{SWITCH}\").ok().and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);\n    \
         *PLANTED.get_or_init(read) == number\n}}\n"
    );
    fs::write(sources.join("planted.rs"), switch)?;
    let lib = sources.join("lib.rs");
    let text = fs::read_to_string(&lib)?;
    // The attribute of the whole crate belongs before its first item.
    let (comment, items) = text.split_once("\n\n").context("the crate's comment ends with an empty line")?;
    fs::write(&lib, format!("{comment}\n\n#![allow(unused_parens)]\nmod planted;\n{items}"))?;
    let target = cache_dir().parent().context("the cache is below target/")?.to_owned();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--profile", "fuzz", "--package", "corten-sim", "--target-dir"]).arg(&target);
    ensure!(cargo.current_dir(&copy).status()?.success(), "the copy with the planted bugs does not build");
    let program = copy.join("corten-sim");
    fs::copy(target.join("fuzz/corten-sim"), &program)?;
    Ok(program)
}

/// Removes from the copy what an earlier one has left there of files that have moved since.
fn remove_others(copy: &Path, dir: &Path, files: &BTreeSet<&str>) -> Result<()> {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry?.path();
        let listed = path.strip_prefix(copy).ok().and_then(Path::to_str).is_some_and(|name| files.contains(name));
        if path.is_dir() {
            remove_others(copy, &path, files)?;
        } else if !listed {
            fs::remove_file(&path).with_context(|| format!("{} could not be removed", path.display()))?;
        }
    }
    Ok(())
}

/// A source with one bug behind its switch.
fn planted(text: &str, number: usize, bug: &Bug) -> Result<String> {
    ensure!(text.matches(bug.at).count() == 1, "{:?} is there {} times", bug.at, text.matches(bug.at).count());
    ensure!(bug.at.matches(bug.right).count() == 1, "{:?} is not there once in its place", bug.right);
    let switched = format!("(if crate::planted::is({number}) {{ {} }} else {{ {} }})", bug.wrong, bug.right);
    Ok(text.replacen(bug.at, &bug.at.replacen(bug.right, &switched, 1), 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who changes one of these expressions changes the list, too.
    #[test]
    fn each_planted_bug_has_its_place() {
        for (number, bug) in BUGS.iter().enumerate() {
            let text = fs::read_to_string(root().join("crates/controllers/src").join(bug.file)).unwrap();
            planted(&text, number, bug).unwrap_or_else(|error| panic!("{}: {error}", bug.name));
        }
    }
}
