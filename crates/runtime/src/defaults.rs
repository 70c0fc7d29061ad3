//! The defaults that container runtimes agree on, for callers to start from.

/// Hidden unless `procMount: Unmasked`. Facts as in containerd `pkg/oci/spec.go` `populateDefaultUnixSpec`.
pub const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Read-only unless `procMount: Unmasked`.
pub const READONLY_PATHS: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// `PATH` where the image has none.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Size of a pod's `/dev/shm` in bytes.
pub const SHM_BYTES: u64 = 64 << 20;

/// Exit code of a container that could not be started.
pub const EXIT_CODE_START_ERROR: i32 = 128;
