//! `cargo xtask tidy`: what matters in the code's shape, checked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use corten_testkit::root;

/// The layers, bottom up. A crate may depend on crates of its own layer and below; `dev` crates on all, and none on them.
const LAYERS: &[(&str, &[&str])] = &[
    ("base", &["base"]),
    ("model", &["tree", "schema", "object", "kinds", "views", "cel"]),
    ("state", &["store", "cache", "client"]),
    ("logic", &["controllers", "flowcontrol", "scheduler", "podplan"]),
    (
        "effects",
        &[
            "apiserver",
            "audit",
            "auth",
            "federation",
            "admission",
            "manager",
            "node",
            "runtime",
            "images",
            "volumes",
            "net",
            "dns",
            "toolbox",
            "webhook",
        ],
    ),
    ("surface", &["corten", "cli", "console"]),
    ("dev", &["sim", "testkit", "faults", "fuzz", "load", "xtask"]),
];

/// Layers whose code decides only: no I/O, no clock, no threads, no randomness.
const PURE: &[&str] = &["model", "logic"];

/// What pure code may not say.
const IMPURE: &[&str] = &[
    "tokio::",
    "std::fs",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "ToSocketAddrs",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "SystemTime",
    "Timestamp::now",
    "Zoned::now",
    "SystemClock",
    "SystemEntropy",
    "rand::",
];

/// Crates that may hold unsafe code.
const UNSAFE: &[&str] = &["base", "runtime", "net"];

/// Crates that may name the kinds that they serve.
const NAMES_KINDS: &[&str] = &[
    "kinds",
    "views",
    "controllers",
    "scheduler",
    "podplan",
    "node",
    "admission",
    "auth",
    "flowcontrol",
    "manager",
    "sim",
    "cli",
    "corten",
    "testkit",
    "faults",
    "fuzz",
    "xtask",
];

/// Kinds that generic code would be tempted to name.
const KINDS: &[&str] = &[
    "Pod",
    "Deployment",
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "Service",
    "Node",
    "Namespace",
    "Secret",
    "ConfigMap",
    "Endpoints",
    "PersistentVolumeClaim",
    "ServiceAccount",
    "Event",
    "Lease",
];

/// What no file of the repository may say: paths of one machine, hosts of package registries.
const STRAYS: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/go"),
    concat!("/ro", "ot/.cargo"),
    concat!("pypi", ".org"),
    concat!("crates", ".io"),
    concat!("proxy.gol", "ang.org"),
    concat!("deb.deb", "ian.org"),
    concat!("registry.npm", "js.org"),
];

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 100;

/// Runs all checks and tells every finding.
pub(crate) fn run() -> Result<()> {
    let mut findings = Vec::new();
    let crates = root().join("crates");
    let layers: BTreeMap<&str, usize> =
        LAYERS.iter().enumerate().flat_map(|(i, (_, names))| names.iter().map(move |n| (*n, i))).collect();
    for entry in fs::read_dir(&crates)? {
        let dir = entry?.path();
        let name = dir.file_name().context("a directory has a name")?.to_string_lossy().into_owned();
        let Some(layer) = layers.get(name.as_str()) else {
            findings.push(format!("crates/{name}: in no layer; add it to LAYERS in tidy"));
            continue;
        };
        edges(&dir, &name, *layer, &layers, &mut findings)?;
        let mut sources = Vec::new();
        rust_files(&dir.join("src"), &mut sources)?;
        for source in sources {
            check_source(&source, &name, LAYERS[*layer].0, &mut findings)?;
        }
    }
    strays(&mut findings)?;
    crate::checklist::check(&mut findings)?;
    crate::checklist::check_security(&mut findings)?;
    if findings.is_empty() {
        return Ok(());
    }
    findings.sort();
    bail!("tidy finds {}:\n  {}", findings.len(), findings.join("\n  "))
}

/// Dependencies go down only.
fn edges(
    dir: &Path,
    name: &str,
    layer: usize,
    layers: &BTreeMap<&str, usize>,
    findings: &mut Vec<String>,
) -> Result<()> {
    let manifest = fs::read_to_string(dir.join("Cargo.toml"))?;
    let normal = manifest.split("[dependencies]").nth(1).unwrap_or_default();
    let normal = normal.split("\n[").next().unwrap_or_default();
    for line in normal.lines() {
        let Some(dependency) = line.strip_prefix("corten-").and_then(|l| l.split(['.', ' ']).next()) else { continue };
        match layers.get(dependency) {
            Some(below) if *below > layer => {
                findings.push(format!("crates/{name}: depends on {dependency}, which is above it"))
            }
            None => findings.push(format!("crates/{name}: depends on {dependency}, which is in no layer")),
            _ => {}
        }
    }
    Ok(())
}

fn rust_files(dir: &Path, out: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, out)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    Ok(())
}

fn check_source(path: &Path, name: &str, layer: &str, findings: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(path)?;
    let shown = path.strip_prefix(root()).unwrap_or(path).display().to_string();
    let exempt = shown.contains("/table")
        || shown.contains("/generated")
        || shown.ends_with("tests.rs")
        || shown.contains("/tests/");
    let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or(&text);
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX && !exempt {
        findings.push(format!("{shown}: {lines} lines; {FILE_LINES_MAX} is the limit"));
    }
    if !text.starts_with("//!") && !exempt {
        findings.push(format!("{shown}: begins without a module comment"));
    }
    if !exempt {
        long_functions(code, &shown, findings);
    }
    for (i, line) in code.lines().enumerate() {
        let statement = line.trim_start();
        if statement.starts_with("//") {
            continue;
        }
        let at = format!("{shown}:{}", i + 1);
        if PURE.contains(&layer)
            && let Some(call) = IMPURE.iter().find(|c| says(statement, c))
        {
            findings.push(format!("{at}: {call} in pure code"));
        }
        let says_unsafe =
            ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"].iter().any(|u| statement.contains(u));
        if says_unsafe && !UNSAFE.contains(&name) && name != "xtask" {
            findings.push(format!("{at}: unsafe outside {}", UNSAFE.join(", ")));
        }
        if statement.contains(concat!("#[", "ignore")) {
            findings.push(format!("{at}: an ignored test"));
        }
        let names_kind =
            |k: &&&str| statement.contains(&format!("== \"{k}\"")) || statement.contains(&format!("\"{k}\" =>"));
        if !NAMES_KINDS.contains(&name)
            && let Some(kind) = KINDS.iter().find(names_kind)
        {
            findings.push(format!("{at}: generic code decides by the kind {kind}; put it into the kind's row"));
        }
    }
    Ok(())
}

/// Whether a line says a path: `rand::` is not said by `operand::`.
fn says(statement: &str, path: &str) -> bool {
    let ends_word = |before: &str| before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    statement.match_indices(path).any(|(at, _)| !ends_word(&statement[..at]))
}

fn long_functions(code: &str, shown: &str, findings: &mut Vec<String>) {
    let mut open: Option<(usize, usize, String)> = None;
    for (i, line) in code.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let head = line.trim_start().trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ");
        let head = head.trim_start_matches("pub ").trim_start_matches("const ").trim_start_matches("async ");
        let head = head.trim_start_matches("unsafe ");
        if open.is_none() && head.starts_with("fn ") {
            open = Some((i, indent, head.chars().skip(3).take_while(|c| *c != '(' && *c != '<').collect()));
        }
        let ends = open.as_ref().is_some_and(|(_, at, _)| indent == *at && line.trim_start().starts_with('}'));
        let one_line =
            open.as_ref().is_some_and(|(start, ..)| *start == i && (line.ends_with('}') || line.ends_with(';')));
        if (ends || one_line)
            && let Some((start, _, name)) = open.take()
            && i - start + 1 > FUNCTION_LINES_MAX
        {
            findings.push(format!(
                "{shown}:{}: function {name} has {} lines; {FUNCTION_LINES_MAX} is the limit",
                start + 1,
                i - start + 1
            ));
        }
    }
}

/// Every tracked text file is free of what names one machine or a registry's host.
fn strays(findings: &mut Vec<String>) -> Result<()> {
    let listing = corten_testkit::text(std::process::Command::new("git").args(["ls-files"]).current_dir(root()))?;
    for file in listing.lines().filter(|f| !f.ends_with(".lock") && !f.ends_with("go.sum")) {
        let Ok(text) = fs::read_to_string(root().join(file)) else { continue };
        for (i, line) in text.lines().enumerate() {
            if let Some(stray) = STRAYS.iter().find(|s| line.contains(**s)) {
                findings.push(format!("{file}:{}: says {stray}", i + 1));
            }
        }
    }
    Ok(())
}
