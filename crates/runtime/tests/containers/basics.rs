//! Start, end, log, environment, users, mounts.

use crate::machine::{Machine, bind};
use corten_runtime::*;
use std::fs;

pub const TESTS: &[crate::Test] = &[
    ("exit_code_and_log", exit_code_and_log),
    ("start_errors", start_errors),
    ("environment_and_user", environment_and_user),
    ("namespaces", namespaces),
    ("mounts", mounts),
    ("read_only_root", read_only_root),
    ("log_rotation", log_rotation),
    ("long_state_directory", long_state_directory),
];

fn exit_code_and_log(m: &Machine) {
    m.sandbox("s");
    let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let exit = m.run(&m.spec("s", "c", "echo one; echo two >&2; printf three; exit 7"));
    assert_eq!((exit.exit_code, exit.signal, exit.oom_killed), (7, 0, false));
    assert!(exit.started_at >= before && exit.finished_at >= exit.started_at);
    let log = m.log("c");
    for line in ["stdout F one\n", "stderr F two\n", "stdout P three\n"] {
        assert!(log.contains(line), "{log}");
    }
    let raw = fs::read_to_string(m.base.join("logs/c/0.log")).unwrap();
    let stamp = raw.split(' ').next().unwrap();
    assert_eq!((stamp.len(), &stamp[10..11], &stamp[29..]), (30, "T", "Z"), "{raw}");
    let killed = m.run(&m.spec("s", "k", "kill -9 $$; kill -TERM 1; sh -c 'kill -9 $$'; exit $?"));
    assert_eq!(killed.exit_code, 137);
    let container = m.runtime.container("c").unwrap();
    assert_eq!(container.status, ContainerStatus::Exited(exit));
    m.runtime.delete_container("c").unwrap();
    m.runtime.delete_container("c").unwrap();
    assert!(m.runtime.container("c").unwrap_err().is_not_found());
}

fn start_errors(m: &Machine) {
    m.sandbox("s");
    for (n, (program, message)) in [
        ("nope", "exec: \"nope\": executable file not found in $PATH"),
        ("/nope", "exec: \"/nope\": stat /nope: no such file or directory"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
        ("/tmp", "exec: \"/tmp\": is a directory"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut spec = m.spec("s", &format!("c{n}"), "");
        spec.args = vec![program.into()];
        m.runtime.create_container(&spec).unwrap();
        let error = m.runtime.start_container(&spec.id).unwrap_err();
        assert!(error.is_start_error());
        assert_eq!(error.to_string(), message);
        let exit = m.runtime.exit_info(&spec.id).unwrap().unwrap();
        assert_eq!((exit.exit_code, exit.message.as_str()), (128, message));
        assert!(m.runtime.start_container(&spec.id).is_err());
    }
    assert!(matches!(m.runtime.create_container(&m.spec("s", "c0", "")), Err(Error::Exists { .. })));
    assert!(m.runtime.create_container(&m.spec("none", "x", "")).unwrap_err().is_not_found());
}

fn environment_and_user(m: &Machine) {
    m.sandbox("s");
    let mut spec =
        m.spec("s", "c", "id -u; id -g; id -G; pwd; echo $A $HOME; touch /root/x 2>/dev/null || echo denied");
    spec.user = user::resolve(&spec.rootfs, "web").unwrap();
    spec.user.additional_gids = vec![102, 7];
    spec.env.extend([("A".into(), "1".into()), ("A".into(), "2".into())]);
    spec.cwd = "/made/for/me".into();
    fs::create_dir_all(m.base.join("image/root")).unwrap();
    assert_eq!(m.output(&spec), "101\n102\n102 7\n/made/for/me\n2 /srv\ndenied\n");
}

fn namespaces(m: &Machine) {
    let sandbox = m.sandbox("s");
    assert!(sandbox.ready && sandbox.netns.as_ref().unwrap().exists());
    let ids =
        "hostname; for n in net ipc uts pid mnt cgroup; do readlink /proc/self/ns/$n; done; ls /sys/class/net; echo $$";
    // Still running while the other one looks: numbers of namespaces are used again.
    m.start(&m.spec("s", "one", "sleep 1000"));
    let look = ExecSpec { args: ["sh", "-c", ids].map(String::from).to_vec(), stdout: true, ..ExecSpec::default() };
    let one = crate::machine::read_all(m.runtime.exec("one", &look).unwrap().stdout.take().unwrap());
    let two = m.output(&m.spec("s", "two", ids));
    let lines = |text: &str| text.lines().map(String::from).collect::<Vec<_>>();
    let (one, two) = (lines(&one), lines(&two));
    assert_eq!(one[..4], two[..4], "host name, network, IPC and UTS namespaces are the sandbox's");
    assert_eq!(one[0], "host-s");
    assert!((4..7).all(|n| one[n] != two[n]), "PID, mount and cgroup namespaces are the container's");
    assert_eq!(two[7..], ["lo", "1"]);
    for (n, name) in ["net", "ipc", "uts", "pid", "mnt", "cgroup"].iter().enumerate() {
        let host = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(one[n + 1], host.to_str().unwrap(), "{name}");
    }
    let host = SandboxSpec { network: Share::Host, ipc: Share::Host, ..m.sandbox_spec("h") };
    assert_eq!(m.runtime.create_sandbox(&host).unwrap().netns, None);
    let mut spec = m.spec("h", "three", ids);
    spec.pid = PidNamespace::Host;
    let three = lines(&m.output(&spec));
    for (n, name) in ["net", "ipc", "uts", "pid"].iter().enumerate() {
        let host = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_eq!(three[n + 1], host.to_str().unwrap(), "{name}");
    }
}

fn mounts(m: &Machine) {
    m.sandbox("s");
    let data = m.base.join("data");
    fs::create_dir_all(data.join("inner")).unwrap();
    fs::write(data.join("file"), "content\n").unwrap();
    let bind = |destination: &str, path: &str, read_only| Mount { read_only, ..bind(destination, &data.join(path)) };
    let script = "cat /data/file /etc/one; echo x > /data/new; echo x > /ro/new || echo ro; touch /etc/one 2>/dev/null || echo ro; \
        grep ' /scratch ' /proc/mounts | cut -d' ' -f3; touch /scratch/x && echo ok; stat -c %a /scratch; \
        ls -l /dev/fd /dev/ptmx | sed 's/.*-> //'; df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2";
    let mut spec = m.spec("s", "c", script);
    let tmpfs = Mount {
        destination: "/scratch".into(),
        source: MountSource::Tmpfs { size: Some(1 << 20), mode: 0o1777 },
        read_only: ReadOnly::No,
        propagation: Propagation::Private,
    };
    spec.mounts = vec![
        bind("/etc/one", "file", ReadOnly::Yes),
        bind("/ro", "inner", ReadOnly::Recursive),
        bind("/data", "", ReadOnly::No),
        tmpfs,
    ];
    let expected = "content\ncontent\nro\nro\ntmpfs\nok\n1777\n/proc/self/fd\npts/ptmx\n65536\n";
    assert_eq!(m.output(&spec), expected, "{}", m.log("c"));
    assert_eq!(fs::read_to_string(data.join("new")).unwrap(), "x\n");
    let mut spec = m.spec("s", "d", "");
    spec.mounts = vec![bind("/proc/sys", "", ReadOnly::No)];
    m.runtime.create_container(&spec).unwrap();
    let message = m.runtime.start_container("d").unwrap_err().to_string();
    assert_eq!(message, "mount at \"/proc/sys\", which is inside /proc: operation not permitted");
}

fn read_only_root(m: &Machine) {
    m.sandbox("s");
    let mut spec = m.spec("s", "c", "touch /x 2>/dev/null || echo ro; touch /dev/shm/x && echo shm");
    spec.rootfs.read_only = true;
    assert_eq!(m.output(&spec), "ro\nshm\n");
    let mut spec = m.spec("s", "d", "touch /x 2>/dev/null || echo ro");
    spec.rootfs.upper = None;
    assert_eq!(m.output(&spec), "ro\n");
    assert!(!m.base.join("image/x").exists());
    let mut spec = m.spec("s", "e", "touch /x && cat /etc/hello");
    let layer = m.base.join("layer, with: odd name");
    fs::create_dir_all(layer.join("etc")).unwrap();
    fs::write(layer.join("etc/hello"), "hello\n").unwrap();
    spec.rootfs.lower.insert(0, layer);
    assert_eq!(m.output(&spec), "hello\n");
    assert!(m.base.join("upper/e/x").exists());
    m.runtime.delete_container("e").unwrap();
    assert!(!m.base.join("upper/e").exists() && !m.base.join("upper/e.work").exists());
}

fn log_rotation(m: &Machine) {
    m.sandbox("s");
    let mut spec = m.spec("s", "c", "for n in $(seq 1 200); do echo line $n; done");
    spec.log.as_mut().unwrap().max_bytes = 2000;
    spec.log.as_mut().unwrap().max_files = 3;
    m.run(&spec);
    assert!(m.log("c").ends_with("stdout F line 200\n"));
    let files = fs::read_dir(m.base.join("logs/c")).unwrap().count();
    assert!(files <= 3, "{files}");
}

/// A socket address has 107 bytes; a path may have more.
fn long_state_directory(m: &Machine) {
    let base = m.base.join("x".repeat(120));
    let config = RuntimeConfig { state_dir: base, ..crate::machine::config(&m.base) };
    let other = Runtime::new(config).unwrap();
    other.create_sandbox(&m.sandbox_spec("s")).unwrap();
    other.create_container(&m.spec("s", "c", "sleep 100")).unwrap();
    other.start_container("c").unwrap();
    let spec = ExecSpec { args: vec!["true".into()], ..ExecSpec::default() };
    assert_eq!(other.exec("c", &spec).unwrap().wait().unwrap().exit_code, 0);
    other.remove_sandbox("s").unwrap();
}
