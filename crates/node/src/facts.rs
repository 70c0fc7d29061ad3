//! What the machine is: capacity and system information.

use std::fs;
use std::path::Path;

/// Facts about the machine.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// CPUs.
    pub cpus: i64,
    /// Bytes of memory.
    pub memory: i64,
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
    }
}
