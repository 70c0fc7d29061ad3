//! Limits and usage: the files of both cgroup versions.

use super::{Cgroups, Layout};
use crate::{Error, Resources, Result, Stats};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

const CPU_PERIOD_DEFAULT: u64 = 100_000;

pub(super) fn set(cgroups: &Cgroups, path: &str, resources: &Resources) -> Result<()> {
    if let Some(wanted) = &resources.huge_pages {
        set_huge_pages(cgroups, path, wanted)?;
    }
    match cgroups.layout {
        Layout::V1 { .. } => set_v1(cgroups, path, resources),
        Layout::V2 { .. } => set_v2(cgroups, path, resources),
    }
}

/// Every size that the kernel has gets a limit: what was not asked for is none.
fn set_huge_pages(cgroups: &Cgroups, path: &str, wanted: &BTreeMap<u64, u64>) -> Result<()> {
    let ending = if cgroups.is_v2() { ".max" } else { ".limit_in_bytes" };
    let directory = cgroups.controller(path, "hugetlb");
    let entries = directory.iter().flat_map(|d| fs::read_dir(d).into_iter().flatten().flatten());
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let sizes: Vec<(u64, String)> = names.filter_map(|name| Some((page_size(&name, ending)?, name))).collect();
    if let Some(size) = wanted.keys().find(|size| wanted[size] > 0 && !sizes.iter().any(|(s, _)| s == *size)) {
        let sentence =
            format!("a limit of huge pages of {size} bytes was asked for, but this machine has no cgroups for it");
        return Err(Error::Unsupported(sentence));
    }
    for (size, name) in &sizes {
        let limit = wanted.get(size).copied().unwrap_or(0);
        write(directory.as_deref().unwrap_or(Path::new("")), name, &limit.to_string())?;
    }
    Ok(())
}

/// The bytes of `hugetlb.2MB.max`; `None` for other files.
fn page_size(name: &str, ending: &str) -> Option<u64> {
    let size = name.strip_prefix("hugetlb.")?.strip_suffix(ending)?;
    let (number, bits) = match (size.strip_suffix("KB"), size.strip_suffix("MB"), size.strip_suffix("GB")) {
        (Some(number), _, _) => (number, 10),
        (_, Some(number), _) => (number, 20),
        (_, _, Some(number)) => (number, 30),
        _ => return None,
    };
    Some(number.parse::<u64>().ok()? << bits)
}

fn set_v1(cgroups: &Cgroups, path: &str, resources: &Resources) -> Result<()> {
    let directory = |controller| {
        cgroups.controller(path, controller).ok_or_else(|| {
            Error::Unsupported(format!(
                "a {controller} limit was asked for, but this machine has no {controller} cgroups"
            ))
        })
    };
    if let Some(shares) = resources.cpu_shares {
        write(&directory("cpu")?, "cpu.shares", &shares.clamp(2, 262_144).to_string())?;
    }
    if let Some(period) = resources.cpu_period {
        write(&directory("cpu")?, "cpu.cfs_period_us", &period.to_string())?;
    }
    if let Some(quota) = resources.cpu_quota {
        write(&directory("cpu")?, "cpu.cfs_quota_us", &if quota > 0 { quota } else { -1 }.to_string())?;
    }
    if let Some(pids) = resources.pids_max {
        write(&directory("pids")?, "pids.max", &or_max(pids))?;
    }
    if let Some(memory) = resources.memory_max {
        let directory = directory("memory")?;
        let value = if memory > 0 { memory } else { -1 }.to_string();
        let (limit, with_swap) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
        let swap_counted = directory.join(with_swap).exists();
        // The limit with swap must never be below the plain one: which goes first depends on the direction.
        let raised = write(&directory, limit, &value).is_err();
        if swap_counted {
            write(&directory, with_swap, &value)?;
        }
        if raised {
            write(&directory, limit, &value)?;
        }
    }
    Ok(())
}

fn set_v2(cgroups: &Cgroups, path: &str, resources: &Resources) -> Result<()> {
    let directory = cgroups.unified(path).expect("v2 has one tree");
    if let Some(shares) = resources.cpu_shares {
        write(&directory, "cpu.weight", &weight(shares).to_string())?;
    }
    if resources.cpu_quota.is_some() || resources.cpu_period.is_some() {
        let current = fs::read_to_string(directory.join("cpu.max")).unwrap_or_default();
        let (quota, period) = current.trim().split_once(' ').unwrap_or(("max", ""));
        let quota = resources.cpu_quota.map_or_else(|| quota.to_string(), or_max);
        let period = resources.cpu_period.or_else(|| period.parse().ok()).unwrap_or(CPU_PERIOD_DEFAULT);
        write(&directory, "cpu.max", &format!("{quota} {period}"))?;
    }
    if let Some(pids) = resources.pids_max {
        write(&directory, "pids.max", &or_max(pids))?;
    }
    if let Some(memory) = resources.memory_max {
        write(&directory, "memory.max", &or_max(memory))?;
        if memory > 0 && directory.join("memory.swap.max").exists() {
            write(&directory, "memory.swap.max", "0")?;
        }
    }
    Ok(())
}

fn or_max(value: i64) -> String {
    if value > 0 { value.to_string() } else { "max".to_string() }
}

/// v1 shares (2 to 262144, 1024 is one CPU) to a v2 weight (1 to 10000, 100 is the default): a quadratic in the logarithm
/// through (2, 1), (1024, 100) and (262144, 10000), as runc and kubelet convert since 2025.
pub(crate) fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

/// On v2 the OOM killer takes all processes of a container at once, as kubelet asks for.
pub(super) fn group_oom(directory: &Path) -> Result<()> {
    write(directory, "memory.oom.group", "1")
}

fn write(directory: &Path, file: &str, value: &str) -> Result<()> {
    let path = directory.join(file);
    fs::write(&path, value).map_err(|e| Error::system(format!("write {value:?} to {}", path.display()), e))
}

pub(super) fn oom_kills(cgroups: &Cgroups, path: &str) -> u64 {
    let file = if cgroups.is_v2() { "memory.events" } else { "memory.oom_control" };
    let Some(directory) = cgroups.controller(path, "memory") else { return 0 };
    let text = fs::read_to_string(directory.join(file)).unwrap_or_default();
    field(&text, "oom_kill").unwrap_or(0)
}

pub(super) fn stats(cgroups: &Cgroups, path: &str) -> Result<Stats> {
    let read = |controller: &str, file: &str| -> Result<String> {
        let Some(directory) = cgroups.controller(path, controller) else { return Ok(String::new()) };
        match fs::read_to_string(directory.join(file)) {
            // The top of a v2 tree and cgroups without a controller lack some files.
            Err(e) if e.kind() == io::ErrorKind::NotFound && directory.exists() => Ok(String::new()),
            Err(e) => Err(Error::file(directory.join(file), e)),
            Ok(text) => Ok(text),
        }
    };
    let number = |text: String| text.trim().parse::<u64>().unwrap_or(0);
    let v2 = cgroups.is_v2();
    let memory = read("memory", "memory.stat")?;
    let name = |v1: &'static str, on_v2: &'static str| if v2 { on_v2 } else { v1 };
    let of_memory = |key: &str| field(&memory, key).unwrap_or(0);
    let memory_usage = number(read("memory", name("memory.usage_in_bytes", "memory.current"))?);
    let inactive = of_memory(name("total_inactive_file", "inactive_file"));
    Ok(Stats {
        at: crate::status::now(),
        cpu_usage: if v2 {
            field(&read("cpu", "cpu.stat")?, "usage_usec").unwrap_or(0) * 1000
        } else {
            number(read("cpuacct", "cpuacct.usage")?)
        },
        memory_usage,
        memory_working_set: memory_usage.saturating_sub(inactive),
        memory_rss: of_memory(name("total_rss", "anon")),
        page_faults: of_memory(name("total_pgfault", "pgfault")),
        major_page_faults: of_memory(name("total_pgmajfault", "pgmajfault")),
        pids: number(read("pids", "pids.current")?),
    })
}

/// The value behind a key in a file of `key value` lines.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::{page_size, weight};

    #[test]
    fn hugetlb_files_name_their_pages() {
        assert_eq!(page_size("hugetlb.2MB.max", ".max"), Some(2 << 20));
        assert_eq!(page_size("hugetlb.1GB.limit_in_bytes", ".limit_in_bytes"), Some(1 << 30));
        for other in ["hugetlb.2MB.rsvd.max", "hugetlb.2MB.current", "memory.max"] {
            assert_eq!(page_size(other, ".max"), None, "{other}");
        }
    }

    #[test]
    fn shares_become_weights() {
        for (shares, expected) in [(0, 1), (2, 1), (102, 17), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000)] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }
}
