//! Control groups, v1 (also hybrid) and v2: always and only below one root cgroup that this crate made.
//!
//! Paths are relative to that root: `""` is the root itself, `burstable/pod1` a sandbox.

mod devices;
mod limits;

pub use devices::DeviceRule;

use crate::{Error, Resources, Result, Stats};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Controllers that we use on v1, where each may have its own tree.
const V1_CONTROLLERS: [&str; 7] = ["cpu", "cpuacct", "memory", "pids", "devices", "freezer", "hugetlb"];
/// Controllers that we need on v2.
const V2_CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// One that we use where it is given to us.
const V2_OPTIONAL: &str = "hugetlb";

/// Where this machine's cgroups are and where our root is in each tree.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cgroups {
    layout: Layout,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Layout {
    V1 {
        trees: Vec<Tree>,
        /// Our root in the v2 tree of a hybrid machine, for killing and placing atomically.
        unified: Option<PathBuf>,
    },
    V2 {
        root: PathBuf,
    },
}

/// One v1 hierarchy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tree {
    /// As mounted, for example `["cpu", "cpuacct"]`.
    pub controllers: Vec<String>,
    /// Our root in it.
    root: PathBuf,
}

/// What a mount of a cgroup file system inside a container needs.
pub enum View {
    V1(Vec<Vec<String>>),
    V2,
}

impl Cgroups {
    /// Finds the hierarchies and makes the root cgroup `name` in each.
    pub fn open(name: &str) -> Result<Cgroups> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|e| Error::file("/proc/self/mountinfo", e))?;
        let (trees, v2) = hierarchies(&mounts, name);
        let has = |c: &str| trees.iter().any(|t| t.controllers.iter().any(|k| k == c));
        let layout = if V2_CONTROLLERS.iter().all(|c| has(c)) && has("devices") {
            Layout::V1 { trees, unified: v2.map(|mount| mount.join(name)) }
        } else if let Some(mount) = v2 {
            Layout::V2 { root: v2_parent(&mount)?.join(name) }
        } else {
            let sentence = "no cgroup file system with the controllers cpu, memory and pids is mounted";
            return Err(Error::Unsupported(sentence.into()));
        };
        let cgroups = Cgroups { layout };
        cgroups.create("")?;
        Ok(cgroups)
    }

    pub fn is_v2(&self) -> bool {
        matches!(self.layout, Layout::V2 { .. })
    }

    /// What to mount at `/sys/fs/cgroup`.
    pub fn view(&self) -> View {
        match &self.layout {
            Layout::V1 { trees, .. } => View::V1(trees.iter().map(|t| t.controllers.clone()).collect()),
            Layout::V2 { .. } => View::V2,
        }
    }

    /// All directories of one cgroup, one per tree.
    fn directories(&self, path: &str) -> Vec<PathBuf> {
        match &self.layout {
            Layout::V1 { trees, unified } => {
                trees.iter().map(|t| &t.root).chain(unified).map(|root| join(root, path)).collect()
            }
            Layout::V2 { root } => vec![join(root, path)],
        }
    }

    /// The v2 directory, where there is one.
    fn unified(&self, path: &str) -> Option<PathBuf> {
        match &self.layout {
            Layout::V1 { unified, .. } => unified.as_ref().map(|root| join(root, path)),
            Layout::V2 { root } => Some(join(root, path)),
        }
    }

    /// The directory that has a controller's files.
    fn controller(&self, path: &str, controller: &str) -> Option<PathBuf> {
        match &self.layout {
            Layout::V1 { trees, .. } => {
                trees.iter().find(|t| t.controllers.iter().any(|c| c == controller)).map(|t| join(&t.root, path))
            }
            Layout::V2 { root } => Some(join(root, path)),
        }
    }

    /// Makes a cgroup with all levels above it. Fine if it is there.
    pub fn create(&self, path: &str) -> Result<()> {
        check_path(path)?;
        if let Layout::V2 { root } = &self.layout {
            make(root)?;
            let mut at = root.clone();
            for part in path.split('/').filter(|p| !p.is_empty()) {
                enable_controllers(&at)?;
                at.push(part);
                make(&at)?;
            }
            return Ok(());
        }
        self.directories(path).iter().try_for_each(|d| make(d))
    }

    /// Removes a cgroup and all below it; kills what still runs in it. Fine if it is gone.
    pub fn remove(&self, path: &str) -> Result<()> {
        check_path(path)?;
        let present: Vec<PathBuf> = self.directories(path).into_iter().filter(|d| d.exists()).collect();
        if present.is_empty() {
            return Ok(());
        }
        if present.iter().any(|d| remove_tree(d).is_err()) {
            self.kill(path)?;
            for directory in &present {
                retry_busy(|| remove_tree(directory)).map_err(|e| Error::file(directory, e))?;
            }
        }
        Ok(())
    }

    /// Opens the cgroup for `clone_process` and for joining: the v2 directory, and the v1 `cgroup.procs` files.
    pub fn handles(&self, path: &str) -> Result<Handles> {
        let unified = match self.unified(path) {
            Some(directory) => Some(OwnedFd::from(fs::File::open(&directory).map_err(|e| Error::file(&directory, e))?)),
            None => None,
        };
        let mut procs = Vec::new();
        if let Layout::V1 { trees, .. } = &self.layout {
            for tree in trees {
                let file = join(&tree.root, path).join("cgroup.procs");
                let open = fs::OpenOptions::new().write(true).open(&file).map_err(|e| Error::file(&file, e))?;
                procs.push(OwnedFd::from(open));
            }
        }
        Ok(Handles { unified, procs })
    }

    /// Sends SIGKILL to everything in a cgroup and below, and waits until it has happened.
    pub fn kill(&self, path: &str) -> Result<()> {
        check_path(path)?;
        if path.is_empty() {
            return Err(Error::Invalid("the root cgroup is never killed as a whole".into()));
        }
        let Some(directory) = self.unified(path).filter(|d| d.join("cgroup.kill").exists()) else {
            return self.kill_one_by_one(path);
        };
        match fs::write(directory.join("cgroup.kill"), "1") {
            Ok(()) => wait_empty(&directory),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound) => Ok(()),
            Err(e) => Err(Error::file(directory.join("cgroup.kill"), e)),
        }
    }

    /// Without `cgroup.kill`: freeze so that nothing can fork, kill, thaw, until nothing is left.
    fn kill_one_by_one(&self, path: &str) -> Result<()> {
        let Some(freezer) = self.controller(path, "freezer") else { return Ok(()) };
        retry_busy(|| {
            let _ = fs::write(freezer.join("freezer.state"), "FROZEN");
            let mut left = Vec::new();
            collect_processes(&freezer, &mut left);
            for &pid in &left {
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            let _ = fs::write(freezer.join("freezer.state"), "THAWED");
            if left.is_empty() { Ok(()) } else { Err(io::ErrorKind::ResourceBusy.into()) }
        })
        .map_err(|e| Error::system(format!("kill the processes of cgroup {path}"), e))
    }

    /// Applies limits; what is `None` stays as it is.
    pub fn set(&self, path: &str, resources: &Resources) -> Result<()> {
        check_path(path)?;
        limits::set(self, path, resources)
    }

    /// Lets only the listed devices be opened.
    pub fn restrict_devices(&self, path: &str, rules: &[DeviceRule]) -> Result<()> {
        match &self.layout {
            Layout::V1 { .. } => {
                let directory = self.controller(path, "devices").expect("open() requires the devices controller on v1");
                devices::restrict_v1(&directory, rules)
            }
            Layout::V2 { root } => devices::restrict_v2(&join(root, path), rules),
        }
    }

    /// On v2 the OOM killer takes all of a container; v1 knows no such thing.
    pub fn kill_together_on_oom(&self, path: &str) -> Result<()> {
        match &self.layout {
            Layout::V1 { .. } => Ok(()),
            Layout::V2 { root } => limits::group_oom(&join(root, path)),
        }
    }

    /// Removes the root cgroup with the empty levels below it; fails while a process is in it.
    pub fn remove_root(&self) -> Result<()> {
        self.directories("")
            .iter()
            .filter(|d| d.exists())
            .try_for_each(|directory| retry_busy(|| remove_tree(directory)).map_err(|e| Error::file(directory, e)))
    }

    /// How often the kernel's OOM killer struck in the cgroup itself.
    pub fn oom_kills(&self, path: &str) -> u64 {
        limits::oom_kills(self, path)
    }

    pub fn stats(&self, path: &str) -> Result<Stats> {
        check_path(path)?;
        limits::stats(self, path)
    }
}

/// Open handles of one cgroup.
pub struct Handles {
    /// For `CLONE_INTO_CGROUP`.
    pub unified: Option<OwnedFd>,
    /// Writing `0` moves the writer. Empty on v2.
    pub procs: Vec<OwnedFd>,
}

fn join(root: &Path, path: &str) -> PathBuf {
    if path.is_empty() { root.to_path_buf() } else { root.join(path) }
}

fn check_path(path: &str) -> Result<()> {
    if path.starts_with('/') || (!path.is_empty() && path.split('/').any(|p| p.is_empty() || p == "." || p == "..")) {
        return Err(Error::Invalid(format!("cgroup path {path:?} must be relative and plain")));
    }
    Ok(())
}

/// v1 trees that we use, with our root in them, and the v2 mount.
fn hierarchies(mountinfo: &str, name: &str) -> (Vec<Tree>, Option<PathBuf>) {
    let (mut trees, mut v2) = (Vec::<Tree>::new(), None);
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (Some(mount), mut right) = (left.split(' ').nth(4), right.split(' ')) else { continue };
        match right.next() {
            Some("cgroup2") => v2 = v2.or(Some(PathBuf::from(mount))),
            Some("cgroup") => {
                let options = right.nth(1).unwrap_or("");
                let controllers: Vec<String> =
                    options.split(',').filter(|o| V1_CONTROLLERS.contains(o)).map(str::to_string).collect();
                if !controllers.is_empty() && !trees.iter().any(|t| t.controllers == controllers) {
                    trees.push(Tree { controllers, root: Path::new(mount).join(name) });
                }
            }
            _ => {}
        }
    }
    (trees, v2)
}

/// Where on a pure v2 machine our root may be made: in our own cgroup if it was delegated to us, else at the top if the
/// controllers are already given to children there. Somebody else's `cgroup.subtree_control` is never written.
fn v2_parent(mount: &Path) -> Result<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|l| l.strip_prefix("0::/")).unwrap_or("");
    let mut candidate = mount.join(own);
    if candidate.ends_with("corten-server") {
        candidate.pop();
    }
    if candidate != mount && is_delegated(&candidate) {
        // Processes and controllers exclude each other in one cgroup: step aside first.
        let aside = candidate.join("corten-server");
        make(&aside)?;
        let procs = fs::read_to_string(candidate.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines() {
            let file = aside.join("cgroup.procs");
            fs::write(&file, pid).map_err(|e| Error::file(&file, e))?;
        }
        enable_controllers(&candidate)?;
        return Ok(candidate);
    }
    let enabled = fs::read_to_string(mount.join("cgroup.subtree_control")).unwrap_or_default();
    let missing: Vec<&str> =
        V2_CONTROLLERS.into_iter().filter(|c| !enabled.split_whitespace().any(|e| e == *c)).collect();
    if missing.is_empty() {
        return Ok(mount.to_path_buf());
    }
    Err(Error::Unsupported(format!(
        "the cgroup controllers {} are not given to children in {}: start from a scope with Delegate=yes, or enable them \
         there",
        missing.join(", "),
        mount.join("cgroup.subtree_control").display()
    )))
}

/// systemd marks what it delegates.
fn is_delegated(directory: &Path) -> bool {
    ["trusted.delegate", "user.delegate"].iter().any(|name| {
        let mut value = [0u8; 8];
        matches!(rustix::fs::getxattr(directory, *name, &mut value), Ok(1)) && value[0] == b'1'
    })
}

fn enable_controllers(directory: &Path) -> Result<()> {
    let file = directory.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&file).map_err(|e| Error::file(&file, e))?;
    let given = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    let optional = given.split_whitespace().find(|c| *c == V2_OPTIONAL);
    let missing: Vec<String> = V2_CONTROLLERS
        .into_iter()
        .chain(optional)
        .filter(|c| !enabled.split_whitespace().any(|e| e == *c))
        .map(|c| format!("+{c}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    fs::write(&file, missing.join(" ")).map_err(|e| Error::file(&file, e))
}

fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).map_err(|e| Error::file(directory, e))
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        done => return done,
    }
    let children = fs::read_dir(directory)?.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    let mut any = false;
    for child in children {
        any = true;
        remove_tree(&child.path())?;
    }
    if any { fs::remove_dir(directory) } else { Err(io::ErrorKind::ResourceBusy.into()) }
}

fn collect_processes(directory: &Path, into: &mut Vec<i32>) {
    let procs = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    into.extend(procs.lines().filter_map(|l| l.parse::<i32>().ok()));
    for child in fs::read_dir(directory).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|t| t.is_dir()) {
            collect_processes(&child.path(), into);
        }
    }
}

/// Waits for the kernel's notice that no process is left: bounded, a killed process may hang in the kernel.
fn wait_empty(directory: &Path) -> Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    use std::io::{Read, Seek};
    const WAITS_MAX: usize = 20;
    const WAIT: rustix::time::Timespec = rustix::time::Timespec { tv_sec: 0, tv_nsec: 500_000_000 };
    let path = directory.join("cgroup.events");
    let Ok(mut events) = fs::File::open(&path) else { return Ok(()) };
    for _ in 0..WAITS_MAX {
        let mut text = String::new();
        let read = events.rewind().and_then(|()| events.read_to_string(&mut text));
        if read.is_err() || text.contains("populated 0") {
            return Ok(());
        }
        let _ = poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&WAIT));
    }
    Err(Error::Unsupported(format!("processes in {} did not end after SIGKILL", directory.display())))
}

/// For trees without such a notice: a few tries, some milliseconds apart.
fn retry_busy(mut attempt: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    const TRIES: u32 = 500;
    let mut tries = 0;
    loop {
        tries += 1;
        match attempt() {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && tries < TRIES => {
                let _ = rustix::event::poll(&mut [], Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 2_000_000 }));
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_hierarchies() {
        let text = "25 1 0:20 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            32 25 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let (trees, v2) = hierarchies(text, "corten-x");
        let found: Vec<String> =
            trees.iter().map(|t| format!("{} {}", t.controllers.join("+"), t.root.display())).collect();
        assert_eq!(found, ["cpu+cpuacct /sys/fs/cgroup/cpu,cpuacct/corten-x", "memory /sys/fs/cgroup/memory/corten-x"]);
        assert_eq!(v2, Some(PathBuf::from("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn refuses_paths_that_leave_the_root() {
        for path in ["/a", "a/../b", "a//b", ".", "a/"] {
            assert!(check_path(path).is_err(), "{path}");
        }
        assert!(check_path("").is_ok() && check_path("burstable/pod1/c").is_ok());
    }
}
