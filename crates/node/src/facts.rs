//! What the machine is: capacity and system information.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Facts about the machine.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// CPUs.
    pub cpus: i64,
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of huge pages by the size of a page, in bytes. They are part of the memory.
    pub huge_pages: BTreeMap<u64, u64>,
    /// Bytes of the file system that holds the data directory.
    pub storage: i64,
    /// `uname -r`
    pub kernel: String,
    /// `PRETTY_NAME` of os-release.
    pub os_image: String,
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: &'static str,
    /// `/etc/machine-id`
    pub machine_id: String,
    /// DMI's product uuid, else the machine id.
    pub system_uuid: String,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// Swap in bytes.
    pub swap: i64,
    /// Whether the kernel has an SELinux policy.
    pub selinux: bool,
    /// Whether the kernel enforces AppArmor's profiles.
    pub app_armor: bool,
    /// Whether pods can have users of their own.
    pub user_namespaces: bool,
}

/// Reads the machine's facts.
pub fn observe(data_dir: &Path) -> Facts {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let meminfo = text("/proc/meminfo");
    let kib = |name: &str| {
        let line = meminfo.lines().find(|l| l.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<i64>().ok()
    };
    let os_release = text("/etc/os-release");
    let os_image =
        os_release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).map(|v| v.trim_matches('"').to_owned());
    let machine_id = text("/etc/machine-id");
    let uuid = text("/sys/class/dmi/id/product_uuid");
    let storage = rustix::fs::statvfs(data_dir).map_or(0, |s| (s.f_blocks * s.f_frsize) as i64);
    Facts {
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as i64),
        memory: kib("MemTotal:").unwrap_or(0) * 1024,
        huge_pages: huge_pages(Path::new("/sys/kernel/mm/hugepages")),
        storage,
        kernel: text("/proc/sys/kernel/osrelease"),
        os_image: os_image.unwrap_or_else(|| "Linux".into()),
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        },
        system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
        machine_id,
        boot_id: text("/proc/sys/kernel/random/boot_id"),
        swap: kib("SwapTotal:").unwrap_or(0) * 1024,
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        app_armor: text("/sys/module/apparmor/parameters/enabled") == "Y",
        user_namespaces: has_user_namespaces(
            &text("/proc/sys/kernel/osrelease"),
            &text("/proc/sys/user/max_user_namespaces"),
        ),
    }
}

/// What the kernel has set aside: `hugepages-SIZEkB/nr_hugepages` each.
fn huge_pages(directory: &Path) -> BTreeMap<u64, u64> {
    let sizes = fs::read_dir(directory).into_iter().flatten().flatten();
    let one = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let page: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let count: u64 = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
        Some((page * 1024, page * 1024 * count))
    };
    sizes.filter_map(one).collect()
}

/// The first kernel that lays an overlay over layers with mapped owners. Volumes in memory take 6.3.
const MAPPED_LAYERS_SINCE: (u32, u32) = (5, 19);

fn has_user_namespaces(release: &str, most: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= MAPPED_LAYERS_SINCE && most.parse().is_ok_and(|n: u64| n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_namespaces_need_a_kernel_that_maps_layers_and_allows_them() {
        for (release, most, has) in [
            ("6.18.44-fc", "95000", true),
            ("6.1.0-28-cloud-amd64", "7000", true),
            ("5.19.0", "1", true),
            ("5.15.0-91-generic", "7000", false),
            ("6.18.44", "0", false),
            ("6.18.44", "", false),
        ] {
            assert_eq!(has_user_namespaces(release, most), has, "{release} {most}");
        }
    }
}
