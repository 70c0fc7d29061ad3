//! Restrictions: each one asked for is there, and a hostile image gets nowhere.

use crate::machine::Machine;
use corten_runtime::*;
use std::fs;
use std::os::unix::fs::symlink;

pub const TESTS: &[crate::Test] = &[
    ("capabilities", capabilities),
    ("seccomp", seccomp),
    ("masked_paths", masked_paths),
    ("hostile_links", hostile_links),
    ("no_way_through_descriptors", no_way_through_descriptors),
    ("devices", devices),
    ("limits", limits),
    ("oom", oom),
    ("pids", pids),
    ("privileged", privileged),
    ("sysctls", sysctls),
    ("nothing_inherited", nothing_inherited),
];

fn capabilities(m: &Machine) {
    m.sandbox("s");
    let probe = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status | tr '\\t' ' '";
    let one = m.output(&m.spec("s", "one", probe));
    assert_eq!(
        one,
        "CapInh: 0000000000000000\nCapPrm: 00000000a80425fb\nCapEff: 00000000a80425fb\nCapBnd: 00000000a80425fb\n\
         CapAmb: 0000000000000000\nNoNewPrivs: 0\n"
    );
    let mut spec = m.spec("s", "two", probe);
    spec.capabilities = CapSet::resolve(&["NET_ADMIN"], &["ALL"]).unwrap();
    spec.no_new_privs = true;
    let two = m.output(&spec);
    assert!(two.contains("CapBnd: 0000000000001000") && two.contains("NoNewPrivs: 1"), "{two}");
    let mut spec = m.spec("s", "three", probe);
    spec.user = User { uid: 1000, gid: 1000, additional_gids: vec![] };
    let three = m.output(&spec);
    assert!(three.contains("CapEff: 0000000000000000") && three.contains("CapBnd: 00000000a80425fb"), "{three}");
}

fn seccomp(m: &Machine) {
    m.sandbox("s");
    // unshare of a user namespace needs no capability: only the filter stops it.
    let probe = "unshare -U true 2>&1 || echo refused; grep Seccomp: /proc/self/status | tr '\\t' ' '";
    let out = m.output(&m.spec("s", "one", probe));
    assert!(out.contains("refused") && out.contains("Seccomp: 2"), "{out}");
    for (id, no_new_privs, uid) in [("two", true, 0), ("three", true, 1000), ("four", false, 1000)] {
        let mut spec = m.spec("s", id, probe);
        (spec.no_new_privs, spec.user.uid) = (no_new_privs, uid);
        let out = m.output(&spec);
        assert!(out.contains("refused") && out.contains("Seccomp: 2"), "{id}: {out}");
    }
    let mut spec = m.spec("s", "five", "grep Seccomp: /proc/self/status | tr '\\t' ' '");
    spec.seccomp = Seccomp::Unconfined;
    assert_eq!(m.output(&spec), "Seccomp: 0\n");
    let profile = m.base.join("profile.json");
    fs::write(
        &profile,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#,
    )
    .unwrap();
    let mut spec = m.spec("s", "six", "mkdir /tmp/x || echo refused");
    spec.seccomp = Seccomp::Localhost(profile);
    assert_eq!(m.output(&spec), "refused\n");
    let mut spec = m.spec("s", "seven", "true");
    spec.seccomp = Seccomp::Localhost(m.base.join("missing.json"));
    m.runtime.create_container(&spec).unwrap();
    assert!(m.runtime.start_container("seven").is_err(), "fails closed");
}

fn masked_paths(m: &Machine) {
    m.sandbox("s");
    let probe = "cat /proc/kcore /proc/timer_list /proc/keys 2>/dev/null | wc -c; ls /sys/firmware 2>/dev/null | wc -l; (echo 1 > /proc/sys/kernel/domainname) 2>/dev/null || echo ro; \
        (echo h > /proc/sysrq-trigger) 2>/dev/null || echo ro; mount -o remount,rw /proc/sys 2>/dev/null || echo no; touch /sys/x 2>/dev/null || echo ro";
    assert_eq!(m.output(&m.spec("s", "c", probe)), "0\n0\nro\nro\nno\nro\n");
    let mut spec =
        m.spec("s", "d", "touch /sys/fs/cgroup/x 2>/dev/null || echo ro; ls -d /proc/1; ls /proc | grep -c '^[0-9]'");
    spec.masked_paths.clear();
    spec.readonly_paths.clear();
    let out = m.output(&spec);
    assert!(out.starts_with("ro\n/proc/1\n"), "{out}");
}

/// An image whose links point out of it: mounts land inside, or the start is refused; nothing appears on the host.
fn hostile_links(m: &Machine) {
    m.sandbox("s");
    let outside = m.base.join("outside");
    fs::create_dir_all(&outside).unwrap();
    let data = m.base.join("data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("file"), "mine\n").unwrap();
    let hostile = |name: &str, link: &str, target: &std::path::Path| {
        let layer = m.base.join("hostile").join(name);
        fs::create_dir_all(layer.join(link).parent().unwrap()).unwrap();
        symlink(target, layer.join(link)).unwrap();
        layer
    };
    let with = |id: &str, layer: std::path::PathBuf, destination: &str| {
        let mut spec = m.spec("s", id, &format!("cat {destination}/file"));
        spec.rootfs.lower.insert(0, layer);
        spec.mounts = vec![Mount {
            destination: destination.into(),
            source: MountSource::Bind(data.clone()),
            read_only: ReadOnly::No,
            propagation: Propagation::Private,
        }];
        spec
    };
    let spec = with("a", hostile("absolute", "data", &outside), "/data");
    assert_eq!(m.output(&spec), "mine\n");
    let spec = with(
        "b",
        hostile("dots", "data", std::path::Path::new("../../../../../../var/tmp/corten-escape")),
        "/data/sub",
    );
    assert_eq!(m.output(&spec), "mine\n");
    assert!(
        fs::read_dir(&outside).unwrap().next().is_none() && !std::path::Path::new("/var/tmp/corten-escape").exists()
    );
    for (id, name) in [("p", "proc"), ("d", "dev"), ("y", "sys")] {
        let spec = with(id, hostile(name, name, std::path::Path::new("/tmp")), "/data");
        m.runtime.create_container(&spec).unwrap();
        let message = m.runtime.start_container(id).unwrap_err().to_string();
        assert!(message.contains("must not be a link"), "{message}");
    }
    // A working directory through a link of /proc leads nowhere, either.
    let mut spec = m.spec("s", "w", "pwd");
    spec.rootfs.lower.insert(0, hostile("cwd", "work", std::path::Path::new("/proc/self/fd/7")));
    spec.cwd = "/work".into();
    m.runtime.create_container(&spec).unwrap();
    assert!(m.runtime.start_container("w").is_err());
}

/// CVE-2024-21626: a working directory or program by way of a descriptor that the runtime holds of the host.
fn no_way_through_descriptors(m: &Machine) {
    m.sandbox("s");
    m.start(&m.spec("s", "c", "ln -s /proc/self/fd /tmp/fd; for n in $(seq 3 40); do ln -s /proc/self/fd/$n /tmp/link$n; done; touch /tmp/done; sleep 1000"));
    let run = |cwd: Option<String>, program: String| {
        let args = vec![program, "sh".into(), "-c".into(), "pwd".into()];
        m.runtime.exec("c", &ExecSpec { args, cwd, stdout: true, ..ExecSpec::default() })
    };
    while run(None, "/bin/busybox".into()).is_err() || !m.base.join("upper/c/tmp/done").exists() {}
    for n in 3..40 {
        for path in [
            format!("/proc/self/fd/{n}"),
            format!("/tmp/link{n}"),
            format!("/tmp/fd/{n}"),
            format!("/proc/1/fd/{n}/.."),
        ] {
            assert!(run(Some(path.clone()), "/bin/busybox".into()).is_err(), "working directory {path}");
            for up in 0..8 {
                let program = format!("{path}/{}usr/bin/busybox", "../".repeat(up));
                assert!(run(None, program.clone()).is_err(), "program {program}");
            }
        }
    }
}

fn devices(m: &Machine) {
    m.sandbox("s");
    let probe = "head -c 4 /dev/zero | wc -c; echo x > /dev/null && echo null; mknod /tmp/mem c 1 1 && echo made; \
        head -c 1 /tmp/mem >/dev/null 2>&1 || echo refused; mknod /tmp/disk b 254 0 && (head -c 1 /tmp/disk >/dev/null 2>&1 || echo refused); ls /dev | sort | tr '\\n' ' '";
    assert_eq!(
        m.output(&m.spec("s", "c", probe)),
        "4\nnull\nmade\nrefused\nrefused\ncore fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero \n"
    );
    let mut spec = m.spec("s", "d", "head -c 1 /dev/mine | wc -c");
    spec.devices =
        vec![Device { host_path: "/dev/zero".into(), container_path: "/dev/mine".into(), permissions: "rwm".into() }];
    assert_eq!(m.output(&spec), "1\n");
}

fn limits(m: &Machine) {
    m.sandbox("s");
    let mut spec = m.spec("s", "c", "sleep 1000");
    spec.resources = Resources {
        cpu_shares: Some(512),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        memory_max: Some(64 << 20),
        pids_max: Some(50),
        huge_pages: None,
    };
    spec.rlimits = vec![Rlimit { resource: "RLIMIT_NOFILE".into(), soft: 100, hard: 200 }];
    spec.oom_score_adj = 500;
    m.start(&spec);
    let read = || {
        let probe = "cd /sys/fs/cgroup; cat cpu/cpu.shares cpu.weight cpu/cpu.cfs_quota_us cpu.max memory/memory.limit_in_bytes memory.max \
            pids/pids.max pids.max 2>/dev/null; ulimit -n; cat /proc/self/oom_score_adj";
        let exec =
            ExecSpec { args: ["sh", "-c", probe].map(String::from).to_vec(), stdout: true, ..ExecSpec::default() };
        crate::machine::read_all(m.runtime.exec("c", &exec).unwrap().stdout.take().unwrap())
    };
    let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let expected =
        if v2 { "59\n50000 100000\n67108864\n50\n100\n500\n" } else { "512\n50000\n67108864\n50\n100\n500\n" };
    assert_eq!(read(), expected);
    let changed = Resources { memory_max: Some(128 << 20), cpu_quota: Some(-1), ..Resources::default() };
    m.runtime.update_container("c", &changed).unwrap();
    let expected = if v2 { "59\nmax 100000\n134217728\n50\n100\n500\n" } else { "512\n-1\n134217728\n50\n100\n500\n" };
    assert_eq!(read(), expected);
    m.runtime.update_cgroup("burstable", &Resources { cpu_shares: Some(4), ..Resources::default() }).unwrap();
    let stats = m.runtime.container_stats("c").unwrap();
    assert!(stats.pids >= 1 && stats.cpu_usage > 0 && stats.memory_usage > 0, "{stats:?}");
    assert!(stats.memory_working_set <= stats.memory_usage);
    let pod = m.runtime.cgroup_stats("burstable/pod-s").unwrap();
    assert!(pod.memory_usage >= stats.memory_rss, "{pod:?}");
}

fn oom(m: &Machine) {
    m.sandbox("s");
    let mut spec = m.spec("s", "c", "exec tail /dev/zero");
    spec.resources.memory_max = Some(16 << 20);
    let exit = m.run(&spec);
    assert_eq!((exit.exit_code, exit.signal, exit.oom_killed), (137, 9, true));
    let exit = m.run(&m.spec("s", "d", "true"));
    assert!(!exit.oom_killed);
}

fn pids(m: &Machine) {
    m.sandbox("s");
    let mut spec = m.spec("s", "c", "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 100 & done; echo no limit");
    spec.resources.pids_max = Some(8);
    let exit = m.run(&spec);
    assert_ne!(exit.exit_code, 0);
    assert!(m.log("c").contains("can't fork"), "{}", m.log("c"));
}

fn privileged(m: &Machine) {
    m.sandbox("s");
    let mut spec = m.spec(
        "s",
        "c",
        "mount -t tmpfs none /tmp && echo mounted; ls /dev | wc -l; grep Seccomp: /proc/self/status | tr '\\t' ' '",
    );
    spec.privileged = true;
    let out = m.output(&spec);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((lines[0], lines[2]), ("mounted", "Seccomp: 0"), "{}", m.log("c"));
    assert!(lines[1].parse::<u32>().unwrap() > 15, "{out}");
}

fn sysctls(m: &Machine) {
    let mut spec = m.sandbox_spec("s");
    spec.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "80".into());
    spec.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
    m.runtime.create_sandbox(&spec).unwrap();
    let probe = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced";
    assert_eq!(m.output(&m.spec("s", "c", probe)), "80\n1\n");
    for name in ["kernel.panic", "vm.swappiness", "net.../kernel.panic", "kernel.hostname"] {
        let mut spec = m.sandbox_spec("t");
        spec.sysctls.insert(name.into(), "1".into());
        let message = m.runtime.create_sandbox(&spec).unwrap_err().to_string();
        assert!(message.contains("is not of a namespace"), "{message}");
        assert!(m.runtime.sandbox("t").unwrap_err().is_not_found());
    }
}

/// No descriptor, ignored signal, blocked signal or variable of ours reaches a container.
fn nothing_inherited(m: &Machine) {
    m.sandbox("s");
    let probe = "ls /proc/self/fd | tr '\\n' ' '; grep -E '^Sig(Blk|Ign)|^THP' /proc/self/status | tr '\\t' ' '; env | sort | tr '\\n' ' '; umask";
    let mut spec = m.spec("s", "c", "");
    spec.args = ["/bin/busybox", "sh", "-c", probe].map(String::from).to_vec();
    let out = m.output(&spec);
    // 3 is ls's own look at the directory.
    assert!(out.starts_with("0 1 2 3 THP_enabled: 1\nSigBlk: 0000000000000000\nSigIgn: 0000000000000000\n"), "{out}");
    assert!(out.contains("HOME=/root PATH=/bin PWD=/ SHLVL=1 0022"), "{out}");
}
