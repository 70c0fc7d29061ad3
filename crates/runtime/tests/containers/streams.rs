//! exec, attach, terminals.

use crate::machine::{Machine, read_all, read_until, readable};
use corten_runtime::*;
use std::fs::File;
use std::io::Write;

pub const TESTS: &[crate::Test] = &[
    ("exec", exec),
    ("exec_tty", exec_tty),
    ("exec_errors_and_kill", exec_errors_and_kill),
    ("attach", attach),
    ("attach_stdin", attach_stdin),
    ("attach_tty", attach_tty),
];

fn sh(script: &str) -> ExecSpec {
    ExecSpec { args: ["sh", "-c", script].map(String::from).to_vec(), stdout: true, ..ExecSpec::default() }
}

fn exec(m: &Machine) {
    m.sandbox("s");
    m.start(&m.spec("s", "c", "sleep 1000"));
    let mut session = m
        .runtime
        .exec("c", &ExecSpec { stdin: true, stderr: true, ..sh("cat; echo err >&2; hostname; echo $$; exit 3") })
        .unwrap();
    let mut stdin = File::from(session.stdin.take().unwrap());
    stdin.write_all(b"from outside\n").unwrap();
    drop(stdin);
    let out = read_all(session.stdout.take().unwrap());
    assert!(out.starts_with("from outside\nhost-s\n"), "{out}");
    assert_eq!(read_all(session.stderr.take().unwrap()), "err\n");
    assert!(readable(&session.exit, 10));
    assert_eq!(session.try_wait().unwrap(), Some(ExitStatus { exit_code: 3, signal: 0 }));
    assert_eq!(session.wait().unwrap().exit_code, 3);
    // Same restrictions as the container's own program, same cgroup, same view.
    let probe = "grep -E '^(Cap(Eff|Bnd)|NoNewPrivs|Seccomp):' /proc/self/status; cat /proc/self/cgroup; ls /; tail -n +1 /proc/1/comm";
    let mut inside = m.runtime.exec("c", &sh(probe)).unwrap();
    let out = read_all(inside.stdout.take().unwrap());
    assert!(out.contains("CapEff:\t00000000a80425fb") && out.contains("Seccomp:\t2"), "{out}");
    assert!(out.lines().filter(|l| l.contains("memory:") || l.starts_with("0::")).all(|l| l.ends_with(":/")), "{out}");
    // Many at once.
    let mut sessions: Vec<ExecSession> =
        (0..8).map(|n| m.runtime.exec("c", &sh(&format!("exit {n}"))).unwrap()).collect();
    for (n, session) in sessions.iter_mut().enumerate() {
        assert_eq!(session.wait().unwrap().exit_code, n as i32);
    }
    // A large environment does not fit one message.
    let env = Some(vec![("PATH".into(), "/bin".into()), ("BIG".into(), "x".repeat(100_000))]);
    let mut big = m.runtime.exec("c", &ExecSpec { env, ..sh("echo ${#BIG}") }).unwrap();
    assert_eq!(read_all(big.stdout.take().unwrap()), "100000\n");
}

fn exec_tty(m: &Machine) {
    m.sandbox("s");
    m.start(&m.spec("s", "c", "sleep 1000"));
    let size = Some(TerminalSize { width: 132, height: 40 });
    let spec = ExecSpec {
        tty: true,
        stdin: true,
        terminal_size: size,
        ..sh("tty; stty size; echo $TERM; read x; stty size; exit 5")
    };
    let mut session = m.runtime.exec("c", &spec).unwrap();
    let terminal = session.terminal.take().unwrap();
    let seen = read_until(&terminal, "xterm");
    assert!(seen.contains("/dev/pts/0") && seen.contains("40 132"), "{seen}");
    set_terminal_size(&terminal, TerminalSize { width: 90, height: 20 }).unwrap();
    rustix::io::write(&terminal, b"go\n").unwrap();
    read_until(&terminal, "20 90");
    assert_eq!(session.wait().unwrap().exit_code, 5);
}

fn exec_errors_and_kill(m: &Machine) {
    m.sandbox("s");
    m.start(&m.spec("s", "c", "sleep 1000"));
    let error = m.runtime.exec("c", &ExecSpec { args: vec!["nope".into()], ..ExecSpec::default() }).unwrap_err();
    assert_eq!(error.to_string(), "exec: \"nope\": executable file not found in $PATH");
    assert!(error.is_start_error());
    let mut session = m.runtime.exec("c", &sh("echo started; exec sleep 1000")).unwrap();
    read_until(session.stdout.as_ref().unwrap(), "started");
    assert_eq!(session.try_wait().unwrap(), None);
    session.kill(15).unwrap();
    assert_eq!(session.wait().unwrap(), ExitStatus { exit_code: 143, signal: 15 });
    let mut orphan = m.runtime.exec("c", &sh("sleep 1000")).unwrap();
    m.runtime.kill("c", 9).unwrap();
    assert_eq!(orphan.wait().unwrap().signal, 9);
    while m.runtime.exit_info("c").unwrap().is_none() {
        let Some(shim) = m.runtime.running_shim("c").unwrap() else { break };
        assert!(readable(&shim.pidfd, 20));
    }
    let error = m.runtime.exec("c", &sh("true")).unwrap_err();
    assert!(matches!(error, Error::State { .. }), "{error}");
}

fn attach(m: &Machine) {
    m.sandbox("s");
    let spec = m.spec("s", "c", "mkfifo /tmp/a /tmp/b; read x < /tmp/a; echo out; echo err >&2; read x < /tmp/b");
    let shim = m.start(&spec);
    let one = m.runtime.attach("c").unwrap();
    let two = m.runtime.attach("c").unwrap();
    assert!(one.stdin.is_none());
    let go = |fifo: &str| {
        let script = format!("while ! [ -p {fifo} ]; do :; done; echo > {fifo}");
        m.runtime.exec("c", &sh(&script)).unwrap().wait().unwrap()
    };
    go("/tmp/a");
    read_until(&one.stdout, "out\n");
    read_until(one.stderr.as_ref().unwrap(), "err\n");
    read_until(&two.stdout, "out\n");
    drop(two);
    go("/tmp/b");
    assert_eq!(m.wait("c", &shim).exit_code, 0);
    assert_eq!(read_all(one.stdout), "");
    assert!(m.log("c").contains("stdout F out\n"));
}

fn attach_stdin(m: &Machine) {
    m.sandbox("s");
    let mut spec = m.spec("s", "c", "cat; echo end");
    (spec.stdin, spec.stdin_once) = (true, true);
    let shim = m.start(&spec);
    let mut attachment = m.runtime.attach("c").unwrap();
    let mut stdin = File::from(attachment.stdin.take().unwrap());
    stdin.write_all(b"hello\n").unwrap();
    read_until(&attachment.stdout, "hello\n");
    drop(stdin);
    read_until(&attachment.stdout, "end\n");
    assert_eq!(m.wait("c", &shim).exit_code, 0);
}

fn attach_tty(m: &Machine) {
    m.sandbox("s");
    let mut spec = m.spec("s", "c", "read x; stty size; tty; echo got $x; ls -l /dev/console | cut -c1");
    (spec.stdin, spec.tty, spec.terminal_size) = (true, true, Some(TerminalSize { width: 80, height: 24 }));
    let shim = m.start(&spec);
    let attachment = m.runtime.attach("c").unwrap();
    assert!(attachment.stderr.is_none());
    m.runtime.resize("c", TerminalSize { width: 70, height: 30 }).unwrap();
    rustix::io::write(attachment.stdin.as_ref().unwrap(), b"word\n").unwrap();
    let seen = read_until(&attachment.stdout, "\nc");
    assert!(seen.contains("30 70") && seen.contains("/dev/pts/0") && seen.contains("got word"), "{seen}");
    assert_eq!(m.wait("c", &shim).exit_code, 0);
    assert!(m.log("c").contains("stdout F got word"));
}
