//! Metrics of this process, under the names that Go's client library gives them (`prometheus/procfs`).

use std::fmt::Write as _;

/// Prometheus' text; what the kernel does not tell is left out.
pub(crate) fn text() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let descriptors = std::fs::read_dir("/proc/self/fd").map(Iterator::count).unwrap_or_default();
    let found = Process {
        stat: &read("/proc/self/stat"),
        limits: &read("/proc/self/limits"),
        boot: &read("/proc/stat"),
        descriptors,
        ticks: rustix::param::clock_ticks_per_second(),
        page: rustix::param::page_size() as u64,
    };
    found.text()
}

/// What the kernel says.
struct Process<'p> {
    stat: &'p str,
    limits: &'p str,
    boot: &'p str,
    descriptors: usize,
    /// Ticks of a second.
    ticks: u64,
    /// Bytes of a page.
    page: u64,
}

impl Process<'_> {
    fn text(&self) -> String {
        // The program's name may hold anything; fields are counted from behind it, the state being the third of all.
        let fields: Vec<&str> = self.stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let field = |place: usize| fields.get(place - 3).and_then(|text| text.parse::<u64>().ok());
        let seconds = |ticks: u64| ticks as f64 / self.ticks.max(1) as f64;
        let boot = self.boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<u64>().ok());
        let limit = self.limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
        let cpu = field(14).zip(field(15)).map(|(user, system)| seconds(user + system));
        let mut out = String::new();
        for (name, kind, value) in [
            ("process_cpu_seconds_total", "counter", cpu),
            ("process_max_fds", "gauge", limit.and_then(|limit| limit.parse().ok())),
            ("process_open_fds", "gauge", Some(self.descriptors as f64)),
            ("process_resident_memory_bytes", "gauge", field(24).map(|pages| (pages * self.page) as f64)),
            ("process_start_time_seconds", "gauge", field(22).zip(boot).map(|(at, boot)| boot as f64 + seconds(at))),
            ("process_virtual_memory_bytes", "gauge", field(23).map(|bytes| bytes as f64)),
        ] {
            if let Some(value) = value {
                let _ = writeln!(out, "# TYPE {name} {kind}\n{name} {value}");
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_metrics_are_read_from_the_kernels_files() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 1 2 3 4 250 50 0 0 20 0 9 0 1000 4096000 300 18446744073709551615";
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 4096                 files\n";
        let process =
            Process { stat, limits, boot: "cpu 1\nbtime 1700000000\n", descriptors: 5, ticks: 100, page: 4096 };
        assert_eq!(
            process.text().lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>(),
            [
                "process_cpu_seconds_total 3",
                "process_max_fds 1024",
                "process_open_fds 5",
                "process_resident_memory_bytes 1228800",
                "process_start_time_seconds 1700000010",
                "process_virtual_memory_bytes 4096000"
            ]
        );
        assert!(text().contains("process_resident_memory_bytes "), "{}", text());
    }
}
