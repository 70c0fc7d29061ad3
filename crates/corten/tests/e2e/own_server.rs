//! A server of a case's own, beside the cluster of all cases: in the foreground, with flags of its own.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use corten_testkit::cluster::Cluster;
use rustix::process::{Pid, Signal, kill_process};

/// A server that runs. One that is dropped is killed, and all that it made goes.
pub(crate) struct OwnServer {
    name: &'static str,
    dir: PathBuf,
    running: Option<(Child, Vec<JoinHandle<()>>)>,
}

impl OwnServer {
    /// A server that has not started; it keeps all that it has below the cluster's directory.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub(crate) fn new(cluster: &Cluster, name: &'static str) -> Result<OwnServer> {
        let dir = cluster.data().join(name);
        std::fs::create_dir_all(&dir)?;
        Ok(OwnServer { name, dir, running: None })
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// If it does not get ready.
    pub(crate) fn start(&mut self, flags: &[&str]) -> Result<()> {
        let mut server = Command::new(crate::binary());
        server.args(["server", "--name", self.name, "--bind-address", "127.0.0.1"]).args(flags);
        server.arg("--data-dir").arg(self.dir.join("data")).arg("--write-kubeconfig").arg(self.kubeconfig());
        let mut server = server.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (began, told) = std::sync::mpsc::channel();
        let streams: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(server.stdout.take().context("stdout")?), Box::new(server.stderr.take().context("stderr")?)];
        // Both are read to the end, so that the server never waits for a reader.
        let follow = |stream: Box<dyn std::io::Read + Send>| {
            let began = began.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if line.ends_with("ready") {
                        let _ = began.send(());
                    }
                }
            })
        };
        let readers = streams.into_iter().map(follow).collect();
        self.running = Some((server, readers));
        told.recv_timeout(Duration::from_secs(60)).context("the server did not get ready")
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// Runs kubectl on it.
    ///
    /// # Errors
    /// If it fails.
    pub(crate) fn kubectl(&self, cluster: &Cluster, args: &[&str]) -> Result<String> {
        let kubeconfig = self.kubeconfig();
        cluster.kubectl(&[&["--kubeconfig", &kubeconfig.to_string_lossy()], args].concat())
    }

    /// Runs kubectl on it with a text on its stdin.
    ///
    /// # Errors
    /// If it fails.
    pub(crate) fn kubectl_with(&self, cluster: &Cluster, args: &[&str], stdin: &str) -> Result<String> {
        let kubeconfig = self.kubeconfig();
        cluster.kubectl_with(&[&["--kubeconfig", &kubeconfig.to_string_lossy()], args].concat(), stdin)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it does not run.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let (child, _) = self.running.as_ref().context("it does not run")?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it does not run.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        let (mut child, readers) = self.running.take().context("it does not run")?;
        let status = child.wait()?;
        readers.into_iter().for_each(|reader| drop(reader.join()));
        Ok(status)
    }

    /// Takes away what it has made.
    ///
    /// # Errors
    /// If something is left.
    pub(crate) fn down(mut self) -> Result<()> {
        self.remove()
    }

    fn remove(&mut self) -> Result<()> {
        if let Some((mut child, _)) = self.running.take() {
            child.kill()?;
            child.wait()?;
        }
        if !self.dir.exists() {
            return Ok(());
        }
        let mut down = Command::new(crate::binary());
        down.args(["down", "--purge", "--name", self.name, "--data-dir"]).arg(self.dir.join("data"));
        let status = down.env("KUBECONFIG", self.kubeconfig()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        std::fs::remove_dir_all(&self.dir)?;
        ensure!(status.success(), "what the server had made could not be taken away: {status}");
        Ok(())
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("{}: {error:#}", self.name);
        }
    }
}
