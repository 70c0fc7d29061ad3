//! The server is told to stop, and takes its time as it was told.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use corten_testkit::cluster::Cluster;
use rustix::process::{Pid, Signal, kill_process};

/// How long the server goes on answering.
const DELAY: Duration = Duration::from_secs(5);

/// SIGTERM with `--shutdown-delay-duration`: not ready at once, but answering; then the end, without an error.
pub(crate) fn shutdown_delay(cluster: &mut Cluster) -> Result<()> {
    let dir = cluster.data().join("drain");
    std::fs::create_dir_all(&dir)?;
    let kubeconfig = dir.join("kubeconfig");
    let mut server = Command::new(env!("CARGO_BIN_EXE_corten"));
    server.args(["server", "--name", "e2e-drain", "--disable-agent", "--datastore-endpoint", "memory"]);
    server.args(["--bind-address", "127.0.0.1", "--shutdown-delay-duration", &format!("{}s", DELAY.as_secs())]);
    server.arg("--data-dir").arg(dir.join("data")).arg("--write-kubeconfig").arg(&kubeconfig);
    let mut server = server.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (began, told) = std::sync::mpsc::channel();
    let mut readers = Vec::new();
    let streams: [Box<dyn std::io::Read + Send>; 2] =
        [Box::new(server.stdout.take().context("stdout")?), Box::new(server.stderr.take().context("stderr")?)];
    for stream in streams {
        let began = began.clone();
        // Both are read to the end, so that the server never waits for a reader.
        readers.push(std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if line.ends_with("ready") {
                    let _ = began.send(());
                }
            }
        }));
    }
    let outcome = told.recv_timeout(Duration::from_secs(60)).context("the server did not get ready");
    let pid = Pid::from_child(&server);
    let outcome = outcome.and_then(|()| watch_it_stop(cluster, &kubeconfig.to_string_lossy(), pid));
    if outcome.is_err() {
        let _ = server.kill();
    }
    let status = server.wait()?;
    readers.into_iter().for_each(|reader| drop(reader.join()));
    let mut down = Command::new(env!("CARGO_BIN_EXE_corten"));
    down.args(["down", "--purge", "--name", "e2e-drain", "--data-dir"]).arg(dir.join("data"));
    down.env("KUBECONFIG", &kubeconfig);
    let down = down.stdout(Stdio::null()).status()?;
    std::fs::remove_dir_all(&dir)?;
    let told = outcome?;
    ensure!(down.success(), "what the server had made could not be taken away: {down}");
    ensure!(status.success(), "the server ended with {status}");
    ensure!(told.elapsed() >= DELAY, "the server did not wait {DELAY:?}");
    Ok(())
}

/// Tells the server to stop, and returns when it was told.
fn watch_it_stop(cluster: &Cluster, kubeconfig: &str, pid: Pid) -> Result<Instant> {
    let kubectl = |args: &[&str]| cluster.kubectl(&[&["--kubeconfig", kubeconfig], args].concat());
    let ready = kubectl(&["get", "--raw", "/readyz?verbose"])?;
    ensure!(ready.contains("[+]shutdown ok"), "{ready}");
    let told = Instant::now();
    kill_process(pid, Signal::TERM)?;
    loop {
        match kubectl(&["get", "--raw", "/readyz"]) {
            // The signal is on its way.
            Ok(_) if told.elapsed() < DELAY => {}
            Ok(_) => bail!("it stayed ready"),
            Err(why) if format!("{why:#}").contains("[-]shutdown failed") => break,
            Err(why) => return Err(why),
        }
    }
    ensure!(kubectl(&["get", "--raw", "/livez"])? == "ok", "it is alive");
    kubectl(&["create", "namespace", "late"])?;
    Ok(told)
}
