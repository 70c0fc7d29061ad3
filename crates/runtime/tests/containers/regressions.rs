//! Published ways out of containers, tried again: `docs/security-regressions.md` says which.

use crate::machine::{Machine, bind, read_all};
use corten_runtime::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

pub const TESTS: &[crate::Test] = &[
    ("own_program_is_never_written", own_program_is_never_written),
    ("no_mount_inside_proc", no_mount_inside_proc),
    ("links_for_devices", links_for_devices),
    ("a_mount_point_that_changes_meanwhile", a_mount_point_that_changes_meanwhile),
    ("no_socket_that_others_reach", no_socket_that_others_reach),
    ("environments_are_apart", environments_are_apart),
    ("groups_are_as_asked", groups_are_as_asked),
    ("attaching_holds_nothing_afterwards", attaching_holds_nothing_afterwards),
];

/// CVE-2019-5736: a container runs `/proc/self/exe`, or opens `/proc/PID/exe` of whatever enters it, to write the runtime's program.
fn own_program_is_never_written(m: &Machine) {
    m.sandbox("s");
    let exe = fs::canonicalize("/proc/self/exe").unwrap();
    let before = (fs::metadata(&exe).unwrap().len(), fs::metadata(&exe).unwrap().modified().unwrap());
    // Only the container's own program may be found there, and that is busy; what enters it is not to be caught.
    let script = "ready=; while :; do for p in /proc/[0-9]*; do (echo overwritten >> $p/exe) 2>/dev/null && touch /tmp/written; done; \
        [ $ready ] || { touch /tmp/ready; ready=1; }; done";
    m.start(&m.spec("s", "c", script));
    let upper = m.base.join("upper/c/tmp");
    while !upper.join("ready").exists() {
        run_in(m, "c", &["/bin/busybox", "true"]);
    }
    for _ in 0..30 {
        run_in(m, "c", &["/bin/busybox", "true"]);
        run_in(m, "c", &["/proc/self/exe", "true"]);
    }
    assert!(!upper.join("written").exists(), "a program was opened for writing");
    let after = (fs::metadata(&exe).unwrap().len(), fs::metadata(&exe).unwrap().modified().unwrap());
    assert_eq!(before, after);
    // As the container's first program it is the runtime's only until the root has been changed.
    let mut spec = m.spec("s", "d", "");
    spec.args = vec!["/proc/self/exe".into(), "x".into()];
    m.runtime.create_container(&spec).unwrap();
    if m.runtime.start_container("d").is_ok() {
        let written = fs::metadata(&exe).unwrap().len();
        assert_eq!(written, before.0);
    }
}

fn run_in(m: &Machine, id: &str, args: &[&str]) {
    let args = args.iter().map(|a| (*a).to_owned()).collect();
    if let Ok(mut session) = m.runtime.exec(id, &ExecSpec { args, stdout: true, ..ExecSpec::default() }) {
        read_all(session.stdout.take().unwrap());
    }
}

/// CVE-2019-16884, CVE-2015-3631: a mount over `/proc` would make labels and masks be written elsewhere.
fn no_mount_inside_proc(m: &Machine) {
    m.sandbox("s");
    let data = m.base.join("data");
    fs::create_dir_all(data.join("attr")).unwrap();
    for (n, destination) in ["/proc", "/proc/self", "/proc/sys", "/proc/../proc/self/attr"].into_iter().enumerate() {
        let id = format!("c{n}");
        let mut spec = m.spec("s", &id, "true");
        spec.mounts = vec![bind(destination, &data)];
        let made = m.runtime.create_container(&spec).and_then(|()| m.runtime.start_container(&id).map(drop));
        assert!(made.is_err(), "{destination} was mounted over");
    }
    let mut spec = m.spec("s", "link", "true");
    let layer = m.base.join("layer");
    fs::create_dir_all(&layer).unwrap();
    symlink("/proc/self", layer.join("way")).unwrap();
    spec.rootfs.lower.insert(0, layer);
    spec.mounts = vec![bind("/way/attr", &data)];
    let made = m.runtime.create_container(&spec).and_then(|()| m.runtime.start_container("link").map(drop));
    assert!(made.is_err(), "a link led a mount into /proc");
}

/// CVE-2025-31133, CVE-2025-52565: an image that has links where devices are bound from or to (`/dev/null`, `/dev/console`).
fn links_for_devices(m: &Machine) {
    m.sandbox("s");
    let layer = m.base.join("layer");
    fs::create_dir_all(layer.join("dev/pts")).unwrap();
    for (name, target) in [
        ("null", "/proc/sys/kernel/core_pattern"),
        ("console", "/proc/sysrq-trigger"),
        ("pts/0", "/proc/sys/kernel/core_pattern"),
        ("ptmx", "/proc/kcore"),
    ] {
        symlink(target, layer.join("dev").join(name)).unwrap();
    }
    let before = fs::read("/proc/sys/kernel/core_pattern").unwrap();
    for tty in [false, true] {
        let id = format!("c{tty}");
        let probe = "test -c /dev/null && test ! -L /dev/null && echo device; cat /proc/kcore /proc/keys 2>/dev/null | wc -c; \
            (echo x > /proc/sys/kernel/core_pattern) 2>/dev/null || echo ro; (echo h > /proc/sysrq-trigger) 2>/dev/null || echo ro; \
            test -L /dev/console || echo no link";
        let mut spec = m.spec("s", &id, probe);
        spec.rootfs.lower.insert(0, layer.clone());
        spec.tty = tty;
        let out = m.output(&spec).replace('\r', "");
        assert_eq!(out, "device\n0\nro\nro\nno link\n", "tty: {tty}");
    }
    assert_eq!(fs::read("/proc/sys/kernel/core_pattern").unwrap(), before);
}

/// CVE-2021-30465, CVE-2024-45310, CVE-2025-52881: a mount point in a volume that another container turns into a link while this one
/// starts. It may fail; nothing may be mounted or made outside.
fn a_mount_point_that_changes_meanwhile(m: &Machine) {
    m.sandbox("s");
    let (volume, outside, data) = (m.base.join("volume"), m.base.join("outside"), m.base.join("data"));
    for dir in [&volume, &outside, &data] {
        fs::create_dir_all(dir).unwrap();
    }
    fs::write(data.join("file"), "mine\n").unwrap();
    // The link names the host's path: if it were followed from the host's root, `outside` would be changed.
    let to = outside.display();
    let flip = format!(
        "touch /v/begun; while :; do rm -rf /v/a /v/c; mkdir /v/a; mv /v/a /v/c; ln -s {to} /v/a; rm -f /v/a; mv /v/c /v/a; done"
    );
    let mut evil = m.spec("s", "evil", &flip);
    evil.mounts = vec![bind("/v", &volume)];
    m.start(&evil);
    while !volume.join("begun").exists() {
        std::thread::yield_now();
    }
    let mut started = 0;
    for n in 0..40 {
        let id = format!("c{n}");
        let mut spec = m.spec("s", &id, "cat /v/a/sub/file; cat /v/a/file");
        spec.mounts = vec![bind("/v", &volume), bind("/v/a/sub", &data)];
        if m.runtime.create_container(&spec).is_ok()
            && let Ok(shim) = m.runtime.start_container(&id)
        {
            m.wait(&id, &shim);
            started += 1;
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something was made outside (after {started} starts)");
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*outside.to_string_lossy()), "something is mounted outside");
}

/// CVE-2020-15257: shims that listened on abstract sockets, which every container in the host's network could reach.
fn no_socket_that_others_reach(m: &Machine) {
    let mut sandbox = m.sandbox_spec("s");
    sandbox.network = Share::Host;
    m.runtime.create_sandbox(&sandbox).unwrap();
    let name = m.base.file_name().unwrap().to_string_lossy().into_owned();
    let out = m.output(&m.spec("s", "c", "cat /proc/net/unix; find / -xdev -type s 2>/dev/null"));
    let abstract_ones: Vec<&str> =
        out.lines().filter(|line| line.contains(" @") && (line.contains("corten") || line.contains(&name))).collect();
    assert!(abstract_ones.is_empty(), "{abstract_ones:?}");
    let mode = fs::metadata(m.base.join("run")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "the state directory is open to others: {mode:o}");
}

/// CVE-2021-21334: what one container's environment has, another's of the same image must not have.
fn environments_are_apart(m: &Machine) {
    m.sandbox("s");
    let mut one = m.spec("s", "one", "env");
    one.env.push(("SECRET".into(), "hush".into()));
    assert!(m.output(&one).contains("SECRET=hush"));
    assert!(!m.output(&m.spec("s", "two", "env; cat /proc/1/environ")).contains("hush"));
}

/// CVE-2025-64329: who attaches and goes away leaves nothing in the shim, however often.
fn attaching_holds_nothing_afterwards(m: &Machine) {
    m.sandbox("s");
    let mut spec = m.spec("s", "c", "sleep 1000");
    spec.stdin = true;
    m.start(&spec);
    let state = fs::read(m.base.join("run/containers/c/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    let held = || fs::read_dir(format!("/proc/{}/fd", state["shim"]["pid"])).unwrap().count();
    let before = held();
    for _ in 0..100 {
        drop(m.runtime.attach("c").unwrap());
    }
    // Each of these goes through the shim, which sees the others' ends before or with it.
    for _ in 0..200 {
        run_in(m, "c", &["/bin/busybox", "true"]);
        if held() <= before {
            break;
        }
    }
    assert!(held() <= before, "{} descriptors instead of {before}", held());
}

/// CVE-2022-36109, CVE-2023-25173: the groups of a process are those asked for, its own among them, and no others.
fn groups_are_as_asked(m: &Machine) {
    m.sandbox("s");
    for (id, groups, expected) in [("none", vec![], "1000"), ("two", vec![7, 1000], "7 1000")] {
        let mut spec = m.spec(
            "s",
            id,
            "grep Groups: /proc/self/status | tr '\\t' ' '; id -G | tr ' ' '\\n' | sort -nu | tr '\\n' ' '",
        );
        spec.user = User { uid: 1000, gid: 1000, additional_gids: groups };
        let out = m.output(&spec);
        assert!(out.trim_end().ends_with(expected), "{id}: {out}");
        assert!(!out.split_whitespace().any(|group| group == "0"), "{id}: {out}");
    }
}
