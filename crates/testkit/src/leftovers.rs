//! What is on the machine before and after: processes, mounts, namespaces, links, nft tables, cgroups; all of it, or what a node keeps of
//! its pods.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{text, tools};

/// What could be left behind, one line each.
#[derive(Debug, Clone, Default)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Looks at the machine.
    pub fn take() -> Snapshot {
        let mut seen = BTreeSet::new();
        processes(&mut seen);
        for line in fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
            let target = line.split(' ').nth(4).unwrap_or_default();
            seen.insert(format!("mount {target}"));
        }
        for (what, dir) in [("link", "/sys/class/net"), ("netns", "/run/netns"), ("run directory", "/run/corten")] {
            for name in names(Path::new(dir)) {
                seen.insert(format!("{what} {name}"));
            }
        }
        if let Some(nft) = tools::which("nft") {
            for table in text(Command::new(nft).args(["list", "tables"])).unwrap_or_default().lines() {
                seen.insert(format!("nft {table}"));
            }
        }
        cgroups(Path::new("/sys/fs/cgroup"), 3, &mut seen);
        Snapshot(seen)
    }

    /// What is here now and was not in `before`.
    pub fn since(&self, before: &Snapshot) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}

/// What a node keeps of its pods in kernel and file system, one line each: all that must go when they go, while the cluster runs on.
#[derive(Debug, Clone, Default)]
pub struct PodsKept(BTreeSet<String>);

impl PodsKept {
    /// Looks at what the cluster of a name has, whose data are in `data`.
    ///
    /// # Errors
    /// If the kernel does not say what is mounted.
    pub fn look(cluster: &str, data: &Path) -> Result<PodsKept> {
        let mut seen = BTreeSet::new();
        let run = Path::new("/run/corten").join(cluster);
        let pods = data.join("pods");
        // State of containers and sandboxes, addresses, directories and logs of pods.
        let state = ["runtime/containers", "runtime/sandboxes", "net/pods"].map(|part| run.join(part));
        for dir in state.into_iter().chain([pods.clone(), pods.join("logs")]) {
            seen.extend(names(&dir).iter().map(|name| format!("state {}", dir.join(name).display())));
        }
        // The place of all logs stays.
        seen.remove(&format!("state {}", pods.join("logs").display()));
        let ours = [run.to_string_lossy().into_owned(), data.to_string_lossy().into_owned()];
        for line in fs::read_to_string("/proc/self/mountinfo").context("what is mounted")?.lines() {
            let target = line.split(' ').nth(4).unwrap_or_default();
            if ours.iter().any(|o| target.starts_with(o)) {
                seen.insert(format!("mount {target}"));
            }
        }
        pod_cgroups(Path::new("/sys/fs/cgroup"), &format!("corten-{cluster}"), false, &mut seen);
        for pid in names(Path::new("/proc")) {
            let command = fs::read(Path::new("/proc").join(&pid).join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if command.starts_with("corten-shim ") && command.contains(&*ours[0]) {
                seen.insert(format!("process {pid} {command}"));
            }
        }
        seen.extend(names(Path::new("/sys/class/net")).iter().map(|name| format!("link {name}")));
        Ok(PodsKept(seen))
    }

    /// What is here now and was not in `before`.
    pub fn since(&self, before: &PodsKept) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}

/// Cgroups of pods below the cluster's.
fn pod_cgroups(dir: &Path, root: &str, below: bool, seen: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        if below && name.starts_with("pod") {
            seen.insert(format!("cgroup {}", entry.path().display()));
        }
        pod_cgroups(&entry.path(), root, below || name == root, seen);
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

/// Processes whose executable or name is Corten's. Others come and go on any machine.
fn processes(seen: &mut BTreeSet<String>) {
    for pid in names(Path::new("/proc")).into_iter().filter(|n| n.bytes().all(|b| b.is_ascii_digit())) {
        let dir = Path::new("/proc").join(&pid);
        let command = fs::read(dir.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let exe = fs::read_link(dir.join("exe")).unwrap_or_default();
        let ours = exe.file_name().is_some_and(|n| n == "corten") || command.starts_with("corten-shim");
        if ours && pid != std::process::id().to_string() {
            seen.insert(format!("process {pid} {command}"));
        }
    }
}

fn cgroups(dir: &Path, depth: usize, seen: &mut BTreeSet<String>) {
    for name in names(dir) {
        let path = dir.join(&name);
        if !path.is_dir() {
            continue;
        }
        if name.starts_with("corten") {
            seen.insert(format!("cgroup {}", path.display()));
        }
        if depth > 0 {
            cgroups(&path, depth - 1, seen);
        }
    }
}
