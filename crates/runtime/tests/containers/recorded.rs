//! What older versions have left: recorded state directories, and what their shims say on the wire.
//!
//! `tests/recorded/vN` is the state that version N of the protocol wrote, with `@BASE@` and `@NAME@` for the machine's own.
//! After a change of `proto::VERSION`, record the new one with
//! `CORTEN_RECORD=1 cargo test -p corten-runtime --test containers record_this_version` (as root) and add a row to [`VERSIONS`];
//! older ones stay.

use crate::machine::{Machine, config};
use corten_runtime::*;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

pub const TESTS: &[crate::Test] = &[
    ("record_this_version", record_this_version),
    ("adopts_state_of_older_versions", adopts_state_of_older_versions),
    ("speaks_the_protocol_of_an_older_shim", speaks_the_protocol_of_an_older_shim),
];

/// The records of a version, by their paths below the state directory.
macro_rules! version {
    ($name:literal) => {
        version!($name: "sandboxes/s/sandbox.json", "containers/ended/container.json", "containers/ended/state.json",
            "containers/ended/exit.json", "containers/running/container.json", "containers/running/state.json")
    };
    ($name:literal: $($file:literal),*) => {
        ($name, &[$(($file, include_str!(concat!("../recorded/", $name, "/", $file)))),*])
    };
}

/// A version and its files.
type Version = (&'static str, &'static [(&'static str, &'static str)]);
const VERSIONS: &[Version] = &[version!("v1")];

fn name(m: &Machine) -> String {
    m.base.file_name().unwrap().to_string_lossy().into_owned()
}

/// Always makes the state; keeps it only when it is asked to.
fn record_this_version(m: &Machine) {
    m.sandbox("s");
    let ended = m.run(&m.spec("s", "ended", "echo recorded; exit 7"));
    assert_eq!(ended.exit_code, 7);
    let _shim = m.start(&m.spec("s", "running", "sleep 1000"));
    let state = config(&m.base).state_dir;
    let sandbox: Value = serde_json::from_slice(&fs::read(state.join("sandboxes/s/sandbox.json")).unwrap()).unwrap();
    let version = format!("v{}", sandbox["version"]);
    if std::env::var_os("CORTEN_RECORD").is_none() {
        assert!(VERSIONS.iter().any(|(v, _)| *v == version), "{version} is not recorded");
        return;
    }
    for (file, _) in VERSIONS[0].1 {
        let text = fs::read_to_string(state.join(file)).unwrap();
        let text = text.replace(m.base.to_str().unwrap(), "@BASE@").replace(&name(m), "@NAME@");
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded").join(&version).join(file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, text + "\n").unwrap();
    }
}

/// Puts a recorded state in place; the running container's processes become `pid`.
fn place(m: &Machine, version: &Version, pid: u32) {
    let state = config(&m.base).state_dir;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let start: u64 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
    for (file, text) in version.1 {
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
    }
}

/// A process that stands for a container's; it ends with the test, however that ends.
struct Standin(std::process::Child);

impl Standin {
    fn start() -> Standin {
        Standin(std::process::Command::new("sleep").arg("1000").spawn().unwrap())
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).unwrap();
    }
}

fn adopts_state_of_older_versions(m: &Machine) {
    for version in VERSIONS {
        let process = Standin::start();
        place(m, version, process.0.id());
        let runtime = Runtime::new(config(&m.base)).unwrap();
        let ended = runtime.container("ended").unwrap();
        assert!(matches!(&ended.status, ContainerStatus::Exited(exit) if exit.exit_code == 7), "{ended:?}");
        let running = runtime.container("running").unwrap();
        assert!(matches!(running.status, ContainerStatus::Running { .. }), "{running:?}");
        assert_eq!(runtime.list_sandboxes().unwrap().len(), 1);
        assert!(!runtime.sandbox("s").unwrap().ready, "its namespaces went with the machine that recorded it");
        drop(process);
        runtime.remove_sandbox("s").unwrap();
        assert!(runtime.list_containers().unwrap().is_empty());
    }
}

/// The words of version 1, byte by byte: its shims live as long as their containers.
fn speaks_the_protocol_of_an_older_shim(m: &Machine) {
    let process = Standin::start();
    place(m, &VERSIONS[0], process.0.id());
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
    drop(process);
    m.runtime.remove_sandbox("s").unwrap();
}
