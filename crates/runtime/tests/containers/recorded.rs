//! What older versions have left: recorded state directories, and what their shims say on the wire.
//!
//! `tests/recorded/vN` is the state that version N of the protocol wrote, with `@BASE@` and `@NAME@` for the machine's own.
//! After a change of `proto::VERSION`, record the new one with
//! `CORTEN_RECORD=1 cargo test -p corten-runtime --test containers record_this_version` (as root); older ones stay.

use crate::machine::{Machine, config};
use corten_runtime::*;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

pub const TESTS: &[crate::Test] = &[
    ("record_this_version", record_this_version),
    ("adopts_state_of_older_versions", adopts_state_of_older_versions),
    ("speaks_the_protocol_of_an_older_shim", speaks_the_protocol_of_an_older_shim),
];

const FILES: [&str; 4] = ["sandbox.json", "container.json", "state.json", "exit.json"];

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded")
}

fn name(m: &Machine) -> String {
    m.base.file_name().unwrap().to_string_lossy().into_owned()
}

/// Below the state directory, the records of `sandboxes/s`, `containers/ended` and `containers/running`.
fn each(mut visit: impl FnMut(PathBuf)) {
    for directory in ["sandboxes/s", "containers/ended", "containers/running"] {
        for file in FILES {
            visit(Path::new(directory).join(file));
        }
    }
}

/// Always makes the state; keeps it only when it is asked to.
fn record_this_version(m: &Machine) {
    m.sandbox("s");
    let ended = m.run(&m.spec("s", "ended", "echo recorded; exit 7"));
    assert_eq!(ended.exit_code, 7);
    let _shim = m.start(&m.spec("s", "running", "sleep 1000"));
    let state = config(&m.base).state_dir;
    let sandbox: Value = serde_json::from_slice(&fs::read(state.join("sandboxes/s/sandbox.json")).unwrap()).unwrap();
    let target = recorded().join(format!("v{}", sandbox["version"]));
    if std::env::var_os("CORTEN_RECORD").is_none() {
        assert!(target.exists(), "{} is not recorded", target.display());
        return;
    }
    each(|file| {
        let Ok(text) = fs::read_to_string(state.join(&file)) else { return };
        let text = text.replace(m.base.to_str().unwrap(), "@BASE@").replace(&name(m), "@NAME@");
        let target = target.join(file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, text + "\n").unwrap();
    });
}

/// Puts a recorded state in place; the running container's processes become `pid`.
fn place(m: &Machine, version: &Path, pid: u32) {
    let state = config(&m.base).state_dir;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let start: u64 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
    each(|file| {
        let Ok(text) = fs::read_to_string(version.join(&file)) else { return };
        let text = text.replace("@BASE@", m.base.to_str().unwrap()).replace("@NAME@", &name(m));
        let mut value: Value = serde_json::from_str(&text).unwrap();
        if file.ends_with("running/state.json") {
            for process in ["shim", "init"] {
                value[process] = json!({"pid": pid, "start": start, "boot_id": boot.trim()});
            }
        }
        let target = state.join(file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, value.to_string()).unwrap();
    });
}

fn versions() -> Vec<PathBuf> {
    let found: Vec<PathBuf> = fs::read_dir(recorded()).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(!found.is_empty());
    found
}

fn adopts_state_of_older_versions(m: &Machine) {
    for version in versions() {
        let mut process = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        place(m, &version, process.id());
        let runtime = Runtime::new(config(&m.base)).unwrap();
        let ended = runtime.container("ended").unwrap();
        assert!(matches!(&ended.status, ContainerStatus::Exited(exit) if exit.exit_code == 7), "{ended:?}");
        let running = runtime.container("running").unwrap();
        assert!(matches!(running.status, ContainerStatus::Running { .. }), "{running:?}");
        assert_eq!(runtime.list_sandboxes().unwrap().len(), 1);
        assert!(!runtime.sandbox("s").unwrap().ready, "its namespaces went with the machine that recorded it");
        process.kill().unwrap();
        process.wait().unwrap();
        runtime.remove_sandbox("s").unwrap();
        assert!(runtime.list_containers().unwrap().is_empty());
    }
}

/// The words of version 1, byte by byte: its shims live as long as their containers.
fn speaks_the_protocol_of_an_older_shim(m: &Machine) {
    let mut process = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    place(m, &recorded().join("v1"), process.id());
    let path = config(&m.base).state_dir.join("containers/running/shim.sock");
    let listener =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&listener, 1).unwrap();
    let shim = std::thread::spawn(move || {
        let mut heard = Vec::new();
        for answer in [r#""Done""#, r#"{"Exec":{"pid":7}}"#, r#"{"Failed":{"message":"no","start":false}}"#] {
            let socket = rustix::net::accept(&listener).unwrap();
            let mut bytes = [0_u8; 4096];
            let (length, _) = rustix::net::recv(&socket, &mut bytes[..], RecvFlags::empty()).unwrap();
            heard.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
            rustix::net::send(&socket, answer.as_bytes(), SendFlags::empty()).unwrap();
            if answer.starts_with(r#"{"Exec"#) {
                let exited = r#"{"Exited":{"exit_code":3,"signal":0}}"#;
                rustix::net::send(&socket, exited.as_bytes(), SendFlags::empty()).unwrap();
            }
        }
        heard
    });
    m.runtime.reopen_log("running").unwrap();
    let exec = ExecSpec { args: vec!["true".into()], ..ExecSpec::default() };
    assert_eq!(m.runtime.exec("running", &exec).unwrap().wait().unwrap().exit_code, 3);
    let size = TerminalSize { width: 2, height: 3 };
    assert!(m.runtime.resize("running", size).unwrap_err().to_string().contains("no"));
    assert_eq!(
        shim.join().unwrap(),
        [
            r#"{"version":1,"op":"ReopenLog"}"#,
            r#"{"version":1,"op":"Exec"}"#,
            r#"{"version":1,"op":{"Resize":{"size":{"width":2,"height":3}}}}"#
        ]
    );
    process.kill().unwrap();
    process.wait().unwrap();
    m.runtime.remove_sandbox("s").unwrap();
}
