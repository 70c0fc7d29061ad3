//! Death of everybody: containers, shims, servers.

use crate::machine::{Machine, config, readable};
use corten_runtime::*;
use std::io::BufRead;
use std::path::Path;
use std::process::{Command, Stdio};

pub const TESTS: &[crate::Test] = &[
    ("kill", kill),
    ("adoption", adoption),
    ("lost_shim", lost_shim),
    ("lost_maker", lost_maker),
    ("shared_pid_namespace", shared_pid_namespace),
    ("remove_with_running_containers", remove_with_running_containers),
    ("unfinished_creations", unfinished_creations),
    ("delegated_scope", delegated_scope),
];

fn kill(m: &Machine) {
    m.sandbox("s");
    let shim = m.start(&m.spec("s", "c", "trap 'echo bye; exit 4' TERM; echo ready; while :; do sleep 0.01; done"));
    let attachment = m.runtime.attach("c").unwrap();
    let _ = readable(&attachment.stdout, 0);
    // The log is the event that does not depend on when we attached.
    while !m.log("c").contains("ready") {
        assert!(!readable(&shim.pidfd, 0));
    }
    m.runtime.kill("c", 15).unwrap();
    assert_eq!(m.wait("c", &shim).exit_code, 4);
    m.runtime.kill("c", 9).unwrap();
    let shim = m.start(&m.spec("s", "d", "(sleep 1000 & sleep 1000) & sleep 1000"));
    m.runtime.kill_all("d").unwrap();
    assert_eq!(m.wait("d", &shim).signal, 9);
    m.runtime.kill_all("d").unwrap();
}

/// A server makes a container and is killed; the next one finds it, streams included, and sees its end.
fn adoption(m: &Machine) {
    let mut server = Command::new("/proc/self/exe")
        .args(["server-to-kill", m.base.to_str().unwrap(), "c"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "started\n");
    server.kill().unwrap();
    server.wait().unwrap();
    let runtime = Runtime::new(config(&m.base)).unwrap();
    let sandboxes = runtime.list_sandboxes().unwrap();
    assert!(sandboxes.len() == 1 && sandboxes[0].ready);
    let containers = runtime.list_containers().unwrap();
    assert_eq!(containers.len(), 1);
    assert_eq!(containers[0].labels.get("pod").map(String::as_str), Some("p"));
    let ContainerStatus::Running { pid, .. } = containers[0].status else { panic!("{containers:?}") };
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    let shim = runtime.running_shim("c").unwrap().unwrap();
    let exec = ExecSpec { args: ["sh", "-c", "echo > /tmp/f"].map(String::from).to_vec(), ..ExecSpec::default() };
    // It may be killed with the container that it lets end.
    runtime.exec("c", &exec).unwrap().wait().unwrap();
    assert_eq!(m.wait("c", &shim).exit_code, 9);
    assert_eq!(m.log("c"), "stdout F before\nstdout F after\n");
}

/// The server of [`adoption`], in a process of its own.
pub fn server_to_kill(base: &Path, id: &str) -> ! {
    let runtime = Runtime::new(config(base)).unwrap();
    let m = Machine::of(base, runtime);
    m.sandbox("s");
    let mut spec = m.spec("s", id, "mkfifo /tmp/f; echo before; read x < /tmp/f; echo after; exit 9");
    spec.labels.insert("pod".into(), "p".into());
    m.start(&spec);
    let attachment = m.runtime.attach(id).unwrap();
    drop(attachment);
    while !m.log(id).contains("before") {}
    println!("started");
    loop {
        rustix::event::pause();
    }
}

fn lost_shim(m: &Machine) {
    m.sandbox("s");
    let shim = m.start(&m.spec("s", "c", "sleep 1000"));
    let ContainerStatus::Running { pid, .. } = m.runtime.container("c").unwrap().status else { panic!() };
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let container = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    rustix::process::pidfd_send_signal(&shim.pidfd, rustix::process::Signal::KILL).unwrap();
    assert!(readable(&shim.pidfd, 10));
    let exit = m.runtime.exit_info("c").unwrap().unwrap();
    assert_eq!(exit.exit_code, 255);
    assert!(exit.message.contains("was lost"), "{}", exit.message);
    assert!(readable(&container, 10), "a container does not outlive its shim");
}

/// The maker of shims may be killed at any time: shims do not notice, and the next start makes a new one.
fn lost_maker(m: &Machine) {
    m.sandbox("s");
    let shim = m.start(&m.spec("s", "c", "sleep 1000"));
    let own = std::process::id();
    let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap();
    let makers: Vec<i32> = children
        .split_whitespace()
        .filter(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.starts_with(b"corten-shims\0")))
        .map(|pid| pid.parse().unwrap())
        .collect();
    assert_eq!(makers.len(), 1, "children: {children}");
    let maker = rustix::process::Pid::from_raw(makers[0]).unwrap();
    let pidfd = rustix::process::pidfd_open(maker, rustix::process::PidfdFlags::empty()).unwrap();
    rustix::process::kill_process(maker, rustix::process::Signal::KILL).unwrap();
    assert!(readable(&pidfd, 10));
    assert!(!readable(&shim.pidfd, 0));
    assert_eq!(m.run(&m.spec("s", "d", "exit 6")).exit_code, 6);
}

fn shared_pid_namespace(m: &Machine) {
    let sandbox = m.runtime.create_sandbox(&SandboxSpec { shared_pid: true, ..m.sandbox_spec("s") }).unwrap();
    assert!(sandbox.ready);
    let mut one = m.spec("s", "one", "sleep 1000");
    one.pid = PidNamespace::Sandbox;
    m.start(&one);
    let mut two = m.spec("s", "two", "cat /proc/1/comm; ls /proc/1/root 2>&1 | wc -l; ps | grep -c 'sleep 100[0]'; [ $$ != 1 ] && echo other; sleep 1000 & exit 3");
    two.pid = PidNamespace::Sandbox;
    two.args[2] += "";
    let exit = m.run(&two);
    assert_eq!(exit.exit_code, 3);
    let log = m.log("two");
    assert!(log.starts_with("stdout F corten-init\n") && log.contains("stdout F other\n"), "{log}");
    assert_eq!(m.runtime.container_stats("two").unwrap().pids, 0, "what it left running is gone with it");
    let mut debug = m.spec("s", "debug", "cat /proc/1/comm; echo $$");
    let mut own = m.spec("s", "own", "sleep 1000");
    own.pid = PidNamespace::Own;
    m.start(&own);
    debug.pid = PidNamespace::Container("own".into());
    let out = m.output(&debug);
    assert!(out.starts_with("sleep\n") || out.starts_with("sh\n"), "{out}");
}

fn remove_with_running_containers(m: &Machine) {
    m.sandbox("s");
    m.start(&m.spec("s", "a", "sleep 1000"));
    m.start(&m.spec("s", "b", "trap '' TERM; sleep 1000"));
    m.runtime.create_container(&m.spec("s", "c", "true")).unwrap();
    m.runtime.remove_sandbox("s").unwrap();
    m.runtime.remove_sandbox("s").unwrap();
    assert!(m.runtime.list_containers().unwrap().is_empty() && m.runtime.list_sandboxes().unwrap().is_empty());
}

fn unfinished_creations(m: &Machine) {
    m.sandbox("s");
    m.runtime.create_container(&m.spec("s", "c", "true")).unwrap();
    std::fs::remove_file(m.base.join("run/sandboxes/s/sandbox.json")).unwrap();
    std::fs::remove_file(m.base.join("run/containers/c/container.json")).unwrap();
    let again = Runtime::new(config(&m.base)).unwrap();
    assert!(!m.base.join("run/sandboxes/s").exists() && !m.base.join("run/containers/c").exists());
    assert!(again.list_sandboxes().unwrap().is_empty());
}

/// With cgroup v2 a runtime inside a delegated scope keeps to it, and so does the next one after a restart. Of use in the
/// virtual machine only: `cargo xtask vm`.
fn delegated_scope(m: &Machine) {
    let tree = Path::new("/sys/fs/cgroup");
    if !tree.join("cgroup.controllers").exists() {
        return;
    }
    let scope = tree.join(format!("corten-test-{}.scope", std::process::id()));
    std::fs::create_dir(&scope).unwrap();
    rustix::fs::setxattr(&scope, "trusted.delegate", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    let own = || std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let before = own().trim().trim_start_matches("0::").to_string();
    std::fs::write(scope.join("cgroup.procs"), "0").unwrap();
    let name = "corten-in-scope";
    for _ in 0..2 {
        let config = RuntimeConfig { state_dir: m.base.join("scope"), cgroup_root: name.into(), ..config(&m.base) };
        let runtime = Runtime::new(config).unwrap();
        assert!(own().trim().ends_with(".scope/corten-server"), "{}", own());
        runtime.create_sandbox(&m.sandbox_spec("s")).unwrap();
        runtime.create_container(&m.spec("s", "c", "sleep 1000")).unwrap();
        runtime.start_container("c").unwrap();
        let procs = scope.join(name).join("burstable/pod-s/c/cgroup.procs");
        assert_eq!(std::fs::read_to_string(procs).unwrap().lines().count(), 1);
        runtime.shutdown().unwrap();
        assert!(!scope.join(name).exists());
    }
    std::fs::write(tree.join(before.trim_start_matches('/')).join("cgroup.procs"), "0").unwrap();
    std::fs::remove_dir(scope.join("corten-server")).unwrap();
    std::fs::remove_dir(&scope).unwrap();
}
