//! What the node, its pods, their containers and volumes use: for eviction, `/stats/summary` and the metrics.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use corten_object::{Object, Status};
use corten_podplan::eviction::{ContainerUse, PodUse, Reading, Readings, Signal};
use corten_podplan::volumes::{VolumeKind, kind};
use corten_runtime::{Container, ContainerStatus, Stats};
use corten_views::Pod;

use crate::labels;
use crate::shared::Shared;

/// How old a walk over a directory may be for answers; eviction walks anew.
const DISK_AGE_MAX: Duration = Duration::from_secs(60);
/// Directories whose use is remembered.
const DISKS_MAX: usize = 8192;
/// A rate of CPU use is taken over at least this long.
const RATE_NANOSECONDS_MIN: u64 = 5_000_000_000;
/// Ticks of `/proc/stat` in a second (`USER_HZ`, the same on all of Linux).
const TICK_NANOSECONDS: u64 = 10_000_000;

/// A file system, or a directory's part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsUse {
    /// Of the file system, in bytes.
    pub capacity: u64,
    pub available: u64,
    pub inodes: u64,
    pub inodes_free: u64,
    /// Of what was asked for: bytes and inodes.
    pub used: u64,
    pub inodes_used: u64,
}

/// Counters of a network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub received: [u64; 2],
    pub sent: [u64; 2],
}

/// A container that runs, and what it uses.
pub struct Used {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub container: String,
    pub started_at: u64,
    pub pid: i32,
    pub stats: Stats,
}

/// What runs, and what it uses.
pub struct Usage {
    pub node: Stats,
    pub containers: Vec<Used>,
    pub sandboxes: usize,
}

/// What is remembered between two looks.
#[derive(Default)]
pub struct Samples {
    disks: Mutex<HashMap<PathBuf, (Instant, corten_volumes::Usage)>>,
    /// By cgroup: when it was read, its CPU time then, and the rate before that.
    rates: Mutex<HashMap<String, (u64, u64, u64)>>,
}

impl Samples {
    /// What a directory takes; nothing if it is not there.
    fn disk(&self, path: &Path, age_max: Duration) -> corten_volumes::Usage {
        let known = self.disks.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied();
        if let Some((at, usage)) = known
            && at.elapsed() < age_max
        {
            return usage;
        }
        let usage = corten_volumes::usage(path).unwrap_or_default();
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        if disks.len() >= DISKS_MAX {
            disks.retain(|_, (at, _)| at.elapsed() < DISK_AGE_MAX);
        }
        if disks.len() < DISKS_MAX {
            disks.insert(path.to_owned(), (Instant::now(), usage));
        }
        usage
    }

    /// Billionths of a CPU that are in use, since the look before; 0 at the first.
    pub fn rate(&self, key: &str, stats: &Stats) -> u64 {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if rates.len() >= DISKS_MAX {
            rates.clear();
        }
        let Some((at, cpu, rate)) = rates.get(key).copied() else {
            rates.insert(key.to_owned(), (stats.at, stats.cpu_usage, 0));
            return 0;
        };
        let passed = stats.at.saturating_sub(at);
        if passed < RATE_NANOSECONDS_MIN {
            return rate;
        }
        let used = u128::from(stats.cpu_usage.saturating_sub(cpu));
        let rate = (used * 1_000_000_000 / u128::from(passed)) as u64;
        rates.insert(key.to_owned(), (stats.at, stats.cpu_usage, rate));
        rate
    }
}

/// What runs on the node now.
pub async fn observe(shared: &Arc<Shared>) -> Result<Usage, Status> {
    let read = shared.blocking(|shared| {
        let runtime = &shared.runtime;
        let used = |container: Container| {
            let ContainerStatus::Running { started_at, pid } = container.status else { return None };
            let label = |key| labels::get(&container.labels, key).to_owned();
            Some(Used {
                namespace: label(labels::POD_NAMESPACE),
                pod: label(labels::POD_NAME),
                uid: label(labels::POD_UID),
                container: label(labels::CONTAINER),
                started_at,
                pid,
                // It may have ended since.
                stats: runtime.container_stats(&container.id).ok()?,
            })
        };
        let mut containers: Vec<Used> = runtime.list_containers()?.into_iter().filter_map(used).collect();
        containers.sort_by(|a, b| (&a.namespace, &a.pod, &a.container).cmp(&(&b.namespace, &b.pod, &b.container)));
        let sandboxes = runtime.list_sandboxes()?.iter().filter(|s| s.ready).count();
        Ok::<_, corten_runtime::Error>(Usage { node: machine(), containers, sandboxes })
    });
    read.await.map_err(Status::internal)?.map_err(Status::internal)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// A number of `/proc/meminfo` in bytes, or of `/proc/vmstat` as it is.
fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|l| l.strip_prefix(name));
    let value = line.and_then(|l| l.trim_start_matches(':').split_whitespace().next()?.parse().ok()).unwrap_or(0_u64);
    if line.is_some_and(|l| l.ends_with("kB")) { value * 1024 } else { value }
}

/// What the whole machine uses, as the kubelet takes it from the root cgroup.
fn machine() -> Stats {
    let (memory, vm, cpu) = (text("/proc/meminfo"), text("/proc/vmstat"), text("/proc/stat"));
    let usage = number(&memory, "MemTotal").saturating_sub(number(&memory, "MemFree"));
    Stats {
        at: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64),
        cpu_usage: busy_ticks(&cpu) * TICK_NANOSECONDS,
        memory_usage: usage,
        memory_working_set: usage.saturating_sub(number(&memory, "Inactive(file)")),
        memory_rss: number(&memory, "AnonPages"),
        page_faults: number(&vm, "pgfault "),
        major_page_faults: number(&vm, "pgmajfault "),
        pids: processes().0,
    }
}

/// User, nice, system, interrupts and stolen time of `/proc/stat`.
fn busy_ticks(stat: &str) -> u64 {
    let first = stat.lines().next().unwrap_or_default();
    let fields: Vec<u64> = first.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    [0, 1, 2, 5, 6, 7].into_iter().filter_map(|i| fields.get(i)).sum()
}

/// How many processes there are, and how many there may be.
pub fn processes() -> (u64, u64) {
    let load = text("/proc/loadavg");
    let count = load.split_whitespace().nth(3).and_then(|f| f.split_once('/')?.1.parse().ok()).unwrap_or(0);
    let limit = |path| text(path).trim().parse::<u64>().unwrap_or(u64::MAX);
    (count, limit("/proc/sys/kernel/pid_max").min(limit("/proc/sys/kernel/threads-max")))
}

/// The file system that holds a path, with nothing used by it.
pub fn file_system(path: &Path) -> Option<FsUse> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(FsUse {
        capacity: found.f_blocks * found.f_frsize,
        available: found.f_bavail * found.f_frsize,
        inodes: found.f_files,
        inodes_free: found.f_ffree,
        used: (found.f_blocks - found.f_bfree) * found.f_frsize,
        inodes_used: found.f_files - found.f_ffree,
    })
}

/// What all eviction signals say now.
pub fn readings(shared: &Shared) -> Readings {
    let mut out = Readings::new();
    let mut put = |signal, available: u64, capacity: u64| {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        // A file system that does not count its inodes has none to run out of.
        if capacity > 0 {
            out.insert(signal, Reading { available: number(available), capacity: number(capacity) });
        }
    };
    let memory = text("/proc/meminfo");
    let available = number(&memory, "MemFree") + number(&memory, "Inactive(file)");
    put(Signal::Memory, available, number(&memory, "MemTotal"));
    let (processes, processes_max) = processes();
    put(Signal::Pid, processes_max.saturating_sub(processes), processes_max);
    // Images and containers' own files are in the same directory.
    if let Some(fs) = file_system(&shared.config.data_dir) {
        for (bytes, inodes) in [(Signal::NodeFs, Signal::NodeFsInodes), (Signal::ImageFs, Signal::ImageFsInodes)] {
            put(bytes, fs.available, fs.capacity);
            put(inodes, fs.inodes_free, fs.inodes);
        }
    }
    out
}

/// A directory of a pod, on its file system.
fn part(shared: &Shared, path: &Path, age_max: Duration) -> FsUse {
    let of = shared.samples.disk(path, age_max);
    let whole = file_system(path).or_else(|| file_system(&shared.config.data_dir)).unwrap_or_default();
    FsUse { used: of.bytes, inodes_used: of.inodes, ..whole }
}

/// What a container of a pod has written beside its volumes, and its log.
pub fn container_disk(shared: &Shared, pod: &Pod, container: &str, age_max: Duration) -> (FsUse, FsUse) {
    let meta = &pod.metadata;
    let root = shared.config.pod_dir(&meta.uid).join("containers").join(container);
    let log = shared.config.log_dir(&meta.namespace, &meta.name, &meta.uid).join(container);
    (part(shared, &root, age_max), part(shared, &log, age_max))
}

/// A claim's volume that a pod uses.
pub struct ClaimUse {
    /// The volume's name in the pod.
    pub volume: String,
    /// The claim's name.
    pub claim: String,
    /// Its file system as a whole, as for all local volumes (`NewMetricsStatFS`).
    pub fs: FsUse,
}

/// A pod's claims whose volumes are local and mounted. Nothing is measured of `hostPath` volumes (`MetricsNil`).
pub fn claims(shared: &Shared, pod: &Pod) -> Vec<ClaimUse> {
    let dir = shared.config.pod_dir(&pod.metadata.uid);
    let one = |volume: &corten_views::volume::Volume| {
        let Ok(VolumeKind::Claim { name, .. }) = kind(pod, volume) else { return None };
        let fs = file_system(&crate::volumes::claim_path(&dir, &volume.name)?)?;
        Some(ClaimUse { volume: volume.name.clone(), claim: name, fs })
    };
    pod.spec.volumes.iter().filter_map(one).collect()
}

/// A pod's local volumes that are there, but for images, of which nothing is measured (`MetricsNil`): name, whether it is in memory, and what it takes.
pub fn volumes(shared: &Shared, pod: &Pod, age_max: Duration) -> Vec<(String, bool, FsUse)> {
    let root = shared.config.pod_dir(&pod.metadata.uid).join("volumes");
    let one = |volume: &corten_views::volume::Volume| {
        let path = root.join(&volume.name);
        if volume.image.is_some() {
            return None;
        }
        let in_memory = volume.empty_dir.as_ref().is_some_and(|v| !v.medium.is_empty());
        let measured = path.is_dir().then(|| part(shared, &path, age_max))?;
        Some((volume.name.clone(), in_memory, measured))
    };
    pod.spec.volumes.iter().filter_map(one).collect()
}

/// What answers may be made of.
pub const ANSWER_AGE_MAX: Duration = DISK_AGE_MAX;

/// What a pod uses, for eviction; disks are walked only `with_disk`.
pub fn of_pod(shared: &Shared, usage: &Usage, pod: &Pod, with_disk: bool) -> PodUse {
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let mut out = PodUse::default();
    let all = pod.spec.containers.iter().chain(&pod.spec.init_containers).chain(&pod.spec.ephemeral_containers);
    for container in all {
        let mut used = ContainerUse { name: container.name.clone(), ..ContainerUse::default() };
        let running = |u: &&Used| u.uid == pod.metadata.uid && u.container == container.name;
        if let Some(found) = usage.containers.iter().find(running) {
            used.memory = signed(found.stats.memory_working_set);
            out.memory += used.memory;
            out.pids += signed(found.stats.pids);
        }
        if with_disk {
            let (root, log) = container_disk(shared, pod, &container.name, Duration::ZERO);
            used.disk = signed(root.used + log.used);
            used.inodes = signed(root.inodes_used + log.inodes_used);
        }
        out.containers.push(used);
    }
    if with_disk {
        let local = volumes(shared, pod, Duration::ZERO).into_iter().filter(|(_, in_memory, _)| !in_memory);
        out.volumes = local.map(|(name, _, fs)| (name, signed(fs.used), signed(fs.inodes_used))).collect();
    }
    out
}

/// The interfaces that a process sees, without the loopback.
pub fn interfaces(pid: i32) -> Vec<Interface> {
    let table = text(&format!("/proc/{pid}/net/dev"));
    let one = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<u64> = counters.split_whitespace().filter_map(|c| c.parse().ok()).collect();
        let (Some(&[bytes, _, errors]), Some(&[sent, _, failed])) =
            (counters.get(..3).and_then(|c| c.first_chunk()), counters.get(8..11).and_then(|c| c.first_chunk()))
        else {
            return None;
        };
        let (received, sent) = ([bytes, errors], [sent, failed]);
        Some(Interface { name: name.trim().to_owned(), received, sent }).filter(|i| i.name != "lo")
    };
    table.lines().skip(2).filter_map(one).collect()
}

/// The pods of the node that have not ended.
pub fn active(pods: &[Arc<Object>]) -> Vec<Arc<Pod>> {
    let views = pods.iter().filter_map(|o| o.view::<Pod>().ok());
    views.filter(|pod| !pod.is_terminal()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_reads_what_proc_says() {
        let memory = "MemTotal:        1000 kB\nMemFree:          400 kB\nInactive(file):   100 kB\n";
        assert_eq!(number(memory, "MemTotal"), 1_024_000);
        assert_eq!(number(memory, "Inactive(file)"), 102_400);
        assert_eq!(number("pgfault 7\npgmajfault 3\n", "pgmajfault "), 3);
        assert_eq!(busy_ticks("cpu  1 2 3 1000 2000 4 5 6 7 8\n"), 1 + 2 + 3 + 4 + 5 + 6);
    }

    #[test]
    fn summary_rates_are_taken_between_looks() {
        let samples = Samples::default();
        let at = |seconds: u64, cpu: u64| Stats {
            at: seconds * 1_000_000_000,
            cpu_usage: cpu * 1_000_000_000,
            ..Stats::default()
        };
        assert_eq!(samples.rate("a", &at(0, 0)), 0);
        assert_eq!(samples.rate("a", &at(10, 5)), 500_000_000);
        assert_eq!(samples.rate("a", &at(12, 9)), 500_000_000, "too soon for another");
        assert_eq!(samples.rate("a", &at(20, 25)), 2_000_000_000);
    }
}
