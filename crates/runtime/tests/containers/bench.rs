//! Figures, printed with every run: start latency, memory of a shim.

use crate::machine::Machine;
use std::fs;
use std::time::Instant;

pub const TESTS: &[crate::Test] = &[("figures", figures)];

fn figures(m: &Machine) {
    const N: usize = 30;
    let (mut sandboxes, mut starts, mut deletes) = (vec![], vec![], vec![]);
    let (mut pss, mut private) = (0, 0);
    for n in 0..N {
        let (sandbox, id) = (format!("s{n}"), format!("c{n}"));
        let began = Instant::now();
        m.sandbox(&sandbox);
        sandboxes.push(began.elapsed());
        let mut spec = m.spec(&sandbox, &id, "");
        spec.args = ["/bin/sleep", "1000"].map(String::from).to_vec();
        let began = Instant::now();
        m.start(&spec);
        starts.push(began.elapsed());
        let rollup = shim_memory(m, &id);
        pss = pss.max(kilobytes(&rollup, "Pss:"));
        private = private.max(kilobytes(&rollup, "Private_Dirty:") + kilobytes(&rollup, "Private_Clean:"));
        let began = Instant::now();
        m.runtime.delete_container(&id).unwrap();
        deletes.push(began.elapsed());
        m.runtime.remove_sandbox(&sandbox).unwrap();
    }
    let middle = |times: &mut Vec<std::time::Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    println!(
        "p50 of {N}: sandbox {:?}, create to running {:?}, delete {:?}; a shim's memory at most {pss} kB PSS, {private} kB of its own",
        middle(&mut sandboxes),
        middle(&mut starts),
        middle(&mut deletes)
    );
}

fn shim_memory(m: &Machine, id: &str) -> String {
    let state = fs::read(m.base.join("run/containers").join(id).join("state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{}", state["shim"]["pid"]));
    let title = fs::read_to_string(process.join("cmdline")).unwrap();
    assert!(
        title.starts_with("corten-shim container-shim /") && title.trim_end_matches('\0').ends_with(id),
        "{title:?}"
    );
    fs::read_to_string(process.join("smaps_rollup")).unwrap()
}

fn kilobytes(rollup: &str, key: &str) -> u64 {
    let value = rollup.lines().find_map(|l| l.strip_prefix(key)).unwrap();
    value.trim().trim_end_matches(" kB").parse().unwrap()
}
