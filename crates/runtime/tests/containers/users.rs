//! Sandboxes with users of their own (`hostUsers: false`): root inside is nobody on the host.

use crate::machine::{Machine, bind, read_all, read_until};
use corten_runtime::*;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

pub const TESTS: &[crate::Test] = &[
    ("users_are_mapped", users_are_mapped),
    ("users_own_all_namespaces", users_own_all_namespaces),
    ("users_have_devices_and_terminals", users_have_devices_and_terminals),
    ("users_share_a_pid_namespace", users_share_a_pid_namespace),
    ("users_that_are_not_mapped", users_that_are_not_mapped),
    ("users_of_a_filesystem_that_cannot_map", users_of_a_filesystem_that_cannot_map),
    ("streams_belong_to_the_user", streams_belong_to_the_user),
];

const IDS: IdRange = IdRange { first: 30 << 16, count: 1 << 16 };

fn sandbox(m: &Machine) {
    m.runtime.create_sandbox(&SandboxSpec { users: Some(IDS), ..m.sandbox_spec("s") }).unwrap();
    assert!(m.runtime.sandbox("s").unwrap().ready);
}

fn users_are_mapped(m: &Machine) {
    sandbox(m);
    let volume = m.base.join("volume");
    fs::create_dir_all(&volume).unwrap();
    fs::write(volume.join("secret"), "of root\n").unwrap();
    fs::set_permissions(volume.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let script = "tr -s ' ' < /proc/self/uid_map; tr -s ' ' < /proc/self/gid_map; id -u; stat -c '%n %u:%g' / /bin /bin/busybox /v/secret /dev /dev/null /dev/shm /sys /proc/self/comm; \
        cat /v/secret; touch /v/new /etc/new /dev/shm/new; chown 7:8 /v/new; stat -c %u:%g /v/new /etc/new /dev/shm/new; echo x >> /etc/passwd && stat -c %u:%g /etc/passwd";
    let mut spec = m.spec("s", "c", script);
    spec.mounts = vec![bind("/v", &volume)];
    let out = m.output(&spec);
    let nobody = "65534:65534";
    assert_eq!(
        out,
        format!(
            " 0 1966080 65536\n 0 1966080 65536\n0\n/ 0:0\n/bin 0:0\n/bin/busybox 0:0\n/v/secret 0:0\n/dev 0:0\n/dev/null 0:0\n/dev/shm 0:0\n\
             /sys {nobody}\n/proc/self/comm 0:0\nof root\n7:8\n0:0\n0:0\n0:0\n"
        )
    );
    // On the host: its writable layer is other users'; a volume keeps its owners.
    let owner = |path: &Path| fs::metadata(path).unwrap().uid();
    assert_eq!(owner(&m.base.join("upper/c/etc/new")), IDS.first);
    assert_eq!(owner(&m.base.join("upper/c/etc/passwd")), IDS.first, "copied up from the mapped layer");
    assert_eq!(owner(&volume.join("new")), 7);
    assert_eq!(owner(&m.base.join("image/etc/passwd")), 0);
    // Its processes are no root on the host, those that come later neither.
    m.start(&m.spec("s", "d", "sleep 1000"));
    let ContainerStatus::Running { pid, .. } = m.runtime.container("d").unwrap().status else { panic!() };
    assert_eq!(owner(Path::new(&format!("/proc/{pid}"))), IDS.first);
    let probe = "id -u; tr -s ' ' < /proc/self/uid_map; cat /proc/1/comm; cat /etc/shadow 2>&1; grep CapEff /proc/self/status | cut -f2";
    let args = ["sh", "-c", probe].map(String::from).to_vec();
    let mut session = m.runtime.exec("d", &ExecSpec { args, stdout: true, ..ExecSpec::default() }).unwrap();
    let out = read_all(session.stdout.take().unwrap());
    assert!(out.starts_with("0\n 0 1966080 65536\nsleep\n") && out.ends_with("00000000a80425fb\n"), "{out}");
    let mut user = m.spec("s", "e", "id -u; id -g; touch /tmp/mine; stat -c %u /tmp/mine");
    user.user = User { uid: 1000, gid: 1001, additional_gids: vec![2000] };
    fs::set_permissions(m.base.join("image/tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(m.output(&user), "1000\n1001\n1000\n");
    assert_eq!(owner(&m.base.join("upper/e/tmp/mine")), IDS.first + 1000);
}

/// What a capability reaches is the pod's own: its host name and network, not the host's clock, modules or sysctls.
fn users_own_all_namespaces(m: &Machine) {
    sandbox(m);
    let probe = "hostname changed && hostname; ip link set lo mtu 1400 && cat /sys/class/net/lo/mtu; mkdir -p /tmp/m && mount -t tmpfs t /tmp/m && echo mounted; \
        umount /proc/kcore /sys 2>&1 | wc -l; date -s 2000-01-01 2>&1 | grep -c ermitted; (echo 1 > /proc/sys/vm/drop_caches) 2>/dev/null || echo no; \
        mknod /tmp/disk b 8 0 2>/dev/null || echo no; (echo x > /proc/sysrq-trigger) 2>/dev/null || echo no; \
        grep -E 'CapEff|CapBnd' /proc/self/status | cut -f2; readlink /proc/self/ns/user";
    let mut spec = m.spec("s", "c", probe);
    spec.capabilities = CapSet::ALL;
    (spec.seccomp, spec.masked_paths, spec.readonly_paths) = (Seccomp::Unconfined, vec![], vec![]);
    let out = m.output(&spec);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..3], ["changed", "1400", "mounted"], "{out}");
    assert_eq!(lines[4..8], ["1", "no", "no", "no"], "{out}");
    let host = fs::read_link("/proc/self/ns/user").unwrap();
    assert_ne!(lines.last().unwrap(), &host.to_str().unwrap());
    // Another container of the sandbox is in the same namespace, another sandbox's is not.
    let ns = |sandbox: &str, id: &str| m.output(&m.spec(sandbox, id, "readlink /proc/self/ns/user"));
    let first = ns("s", "d");
    assert_eq!(first.trim(), *lines.last().unwrap());
    let users = Some(IdRange { first: 31 << 16, count: 1 << 16 });
    m.runtime.create_sandbox(&SandboxSpec { users, ..m.sandbox_spec("t") }).unwrap();
    assert_ne!(ns("t", "e"), first);
}

fn users_have_devices_and_terminals(m: &Machine) {
    sandbox(m);
    let script = "echo x > /dev/null && echo null; head -c4 /dev/zero | wc -c; head -c4 /dev/urandom | wc -c; stat -c %t:%T /dev/null /dev/tty; \
        touch /dev/mqueue/q && echo queue; ls -d /proc/sys/kernel >/dev/null && echo proc; (touch /proc/sys/kernel/x) 2>/dev/null || echo ro; cat /proc/kcore 2>/dev/null | wc -c; \
        ls /sys/fs/cgroup | grep -c .; (mkdir /sys/fs/cgroup/x) 2>/dev/null || echo ro";
    let out = m.output(&m.spec("s", "c", script));
    assert!(out.starts_with("null\n4\n4\n1:3\n5:0\nqueue\nproc\nro\n0\n"), "{out}");
    assert!(out.ends_with("ro\n"), "{out}");
    m.start(&m.spec("s", "d", "sleep 1000"));
    for (uid, shown) in [(0, "0"), (101, "101")] {
        let user = Some(User { uid, gid: 0, additional_gids: vec![] });
        let args =
            ["sh", "-c", "tty; stat -c '%u:%g' $(tty); echo again > $(tty); echo end"].map(String::from).to_vec();
        let spec = ExecSpec { tty: true, args, user, ..ExecSpec::default() };
        let mut session = m.runtime.exec("d", &spec).unwrap();
        let seen = read_until(session.terminal.as_ref().unwrap(), "end");
        assert!(
            seen.contains("/dev/pts/0") && seen.contains(&format!("{shown}:5")) && seen.contains("again"),
            "{seen}"
        );
        session.wait().unwrap();
    }
}

fn users_share_a_pid_namespace(m: &Machine) {
    let spec = SandboxSpec { shared_pid: true, users: Some(IDS), ..m.sandbox_spec("s") };
    assert!(m.runtime.create_sandbox(&spec).unwrap().ready);
    let mut one = m.spec("s", "one", "sleep 1000");
    one.pid = PidNamespace::Sandbox;
    m.start(&one);
    let mut two = m.spec(
        "s",
        "two",
        "stat -c %u /proc/1; cat /proc/1/comm; ps | grep -c 'sleep 100[0]'; kill $(pidof sleep) && echo killed",
    );
    two.pid = PidNamespace::Sandbox;
    assert_eq!(m.output(&two), "0\ncorten-init\n1\nkilled\n");
    let mut own = m.spec("s", "own", "sleep 1000");
    own.pid = PidNamespace::Own;
    m.start(&own);
    let mut debug =
        m.spec("s", "debug", "cat /proc/1/comm; tr -s ' ' < /proc/self/uid_map; ls /proc/1/root/ | grep -c bin");
    debug.pid = PidNamespace::Container("own".into());
    debug.capabilities = debug.capabilities.with(19); // SYS_PTRACE
    assert_eq!(m.output(&debug), "sleep\n 0 1966080 65536\n1\n");
}

fn users_that_are_not_mapped(m: &Machine) {
    sandbox(m);
    let mut spec = m.spec("s", "c", "true");
    spec.user.uid = 65536;
    let message = m.runtime.create_container(&spec).unwrap_err().to_string();
    assert_eq!(message, "cannot set uid to unmapped user in user namespace");
    spec.user = User { uid: 0, gid: 0, additional_gids: vec![70_000] };
    let message = m.runtime.create_container(&spec).unwrap_err().to_string();
    assert_eq!(message, "cannot set gid to unmapped user in user namespace");
}

/// No half measures: a volume that cannot be shown under the pod's users stops the container.
fn users_of_a_filesystem_that_cannot_map(m: &Machine) {
    sandbox(m);
    let mut spec = m.spec("s", "c", "true");
    spec.mounts = vec![bind("/v", Path::new("/sys/kernel"))];
    m.runtime.create_container(&spec).unwrap();
    let message = m.runtime.start_container("c").unwrap_err().to_string();
    let expected = "failed to set MOUNT_ATTR_IDMAP on /sys/kernel: invalid argument (maybe the filesystem used doesn't support idmap mounts on this kernel?)";
    assert!(message.contains(expected), "{message}");
}

/// Programs that log to `/dev/stdout` open their own pipe anew, whoever they run as.
fn streams_belong_to_the_user(m: &Machine) {
    m.sandbox("h");
    sandbox(m);
    for (sandbox, id) in [("h", "c"), ("s", "d")] {
        let mut spec = m.spec(
            sandbox,
            id,
            "echo out > /proc/self/fd/1; echo err > /proc/self/fd/2; stat -L -c %u /proc/self/fd/1",
        );
        spec.user = User { uid: 1000, gid: 1000, additional_gids: vec![] };
        m.run(&spec);
        let log = m.log(id);
        for line in ["stdout F out\n", "stderr F err\n", "stdout F 1000\n"] {
            assert!(log.contains(line), "{id}: {log}");
        }
    }
}
