//! The server is told to stop, and takes its time as it was told.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use corten_testkit::cluster::Cluster;
use rustix::process::Signal;

use crate::own_server::OwnServer;

/// How long the server goes on answering.
const DELAY: Duration = Duration::from_secs(5);

/// SIGTERM with `--shutdown-delay-duration`: not ready at once, but answering; then the end, without an error.
pub(crate) fn shutdown_delay(cluster: &mut Cluster) -> Result<()> {
    let mut server = OwnServer::new(cluster, "e2e-drain")?;
    let delay = format!("{}s", DELAY.as_secs());
    server.start(&["--disable-agent", "--datastore-endpoint", "memory", "--shutdown-delay-duration", &delay])?;
    let told = watch_it_stop(cluster, &server)?;
    let status = server.wait()?;
    ensure!(status.success(), "the server ended with {status}");
    ensure!(told.elapsed() >= DELAY, "the server did not wait {DELAY:?}");
    server.down()
}

/// Tells the server to stop, and returns when it was told.
fn watch_it_stop(cluster: &Cluster, server: &OwnServer) -> Result<Instant> {
    let kubectl = |args: &[&str]| server.kubectl(cluster, args);
    let ready = kubectl(&["get", "--raw", "/readyz?verbose"])?;
    ensure!(ready.contains("[+]shutdown ok"), "{ready}");
    let told = Instant::now();
    server.signal(Signal::TERM)?;
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
