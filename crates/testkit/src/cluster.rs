//! A cluster for a test: the real binary, a data directory of its own, the real kubectl.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail};

use crate::{cache_dir, run, text, tools};

/// A running cluster. [`Cluster::down`] takes it down; dropping it does the same, for tests that fail.
pub struct Cluster {
    binary: PathBuf,
    kubectl: PathBuf,
    name: String,
    data: PathBuf,
    up: bool,
}

impl Cluster {
    /// Starts a cluster with `corten up`; its kubeconfig stays below the test's directory.
    ///
    /// # Errors
    /// If this is not root, or the cluster does not start.
    pub fn up(binary: &Path, name: &str) -> Result<Cluster> {
        Cluster::up_with(binary, name, |_| Ok(()))
    }

    /// As [`Cluster::up`], with a data directory that `prepare` has put something in.
    ///
    /// # Errors
    /// As [`Cluster::up`], or if preparing fails.
    pub fn up_with(binary: &Path, name: &str, prepare: impl FnOnce(&Path) -> Result<()>) -> Result<Cluster> {
        if !rustix::process::geteuid().is_root() {
            bail!("this test needs root: it makes namespaces, mounts and cgroups");
        }
        let data = cache_dir().join("clusters").join(name);
        let mut cluster =
            Cluster { binary: binary.into(), kubectl: tools::kubectl()?, name: name.into(), data, up: false };
        if cluster.data.exists() {
            cluster.corten(&["down", "--purge"])?;
        }
        prepare(&cluster.data)?;
        cluster.start()?;
        Ok(cluster)
    }

    /// Runs `corten up` (again).
    ///
    /// # Errors
    /// If the cluster does not start.
    pub fn start(&mut self) -> Result<()> {
        std::fs::create_dir_all(&self.data)?;
        self.up = true;
        // Machines that build have fuller disks than nodes may have.
        self.corten(&["up", "--eviction-hard=memory.available<50Mi,nodefs.available<1%"]).map(drop)
    }

    /// Runs `corten down` and keeps the data.
    ///
    /// # Errors
    /// If something is left behind.
    pub fn stop(&mut self) -> Result<()> {
        self.corten(&["down"])?;
        self.up = false;
        Ok(())
    }

    /// Takes the cluster down with its data.
    ///
    /// # Errors
    /// If something is left behind.
    pub fn down(mut self) -> Result<()> {
        self.corten(&["down", "--purge"])?;
        self.up = false;
        Ok(())
    }

    /// Kills the server process as a crash would (its pods go on), by its pid file.
    ///
    /// # Errors
    /// If there is no server.
    pub fn kill_server(&self) -> Result<()> {
        let file = Path::new("/run/corten").join(&self.name).join("server.pid");
        let tree: serde_json::Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        let pid = tree["pid"].as_i64().and_then(|p| i32::try_from(p).ok()).and_then(rustix::process::Pid::from_raw);
        let pid = pid.context("the pid file names no process")?;
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL)?;
        let mut wait = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut wait, None)?;
        Ok(())
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster's data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data.join("kubeconfig")
    }

    /// A corten command for this cluster.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).env("KUBECONFIG", self.data.join("merged-kubeconfig"));
        if matches!(args.first(), Some(&("up" | "down" | "server" | "image"))) {
            command.args(["--name", &self.name, "--data-dir"]).arg(&self.data);
        }
        command
    }

    /// Runs a corten command for this cluster.
    ///
    /// # Errors
    /// If it fails.
    pub fn corten(&self, args: &[&str]) -> Result<String> {
        text(&mut self.command(args))
    }

    /// A kubectl command on this cluster.
    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.args(args).env("KUBECONFIG", self.kubeconfig()).env("HOME", self.data.join("home"));
        command
    }

    /// Runs kubectl and returns its stdout.
    ///
    /// # Errors
    /// If it fails; the message has its stderr.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        text(&mut self.kubectl_command(args))
    }

    /// Runs kubectl with text on its stdin.
    ///
    /// # Errors
    /// If it fails.
    pub fn kubectl_with(&self, args: &[&str], stdin: &str) -> Result<String> {
        let file = self.data.join("stdin");
        std::fs::write(&file, stdin)?;
        text(self.kubectl_command(args).stdin(std::fs::File::open(file)?))
    }

    /// Runs kubectl, expecting it to fail, and returns its stderr.
    ///
    /// # Errors
    /// If it succeeds.
    pub fn kubectl_fails(&self, args: &[&str], stdin: &str) -> Result<String> {
        let file = self.data.join("stdin");
        std::fs::write(&file, stdin)?;
        let output: Output = self.kubectl_command(args).stdin(std::fs::File::open(file)?).output()?;
        if output.status.success() {
            bail!("kubectl {args:?} succeeded, but should fail:\n{}", String::from_utf8_lossy(&output.stdout));
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Makes an image of a directory.
    ///
    /// # Errors
    /// If it fails.
    pub fn build_image(&self, directory: &Path, tag: &str, more: &[&str]) -> Result<()> {
        let dir = directory.to_string_lossy();
        let mut args = vec!["image", "build", &dir, "-t", tag];
        args.extend(more);
        self.corten(&args).map(drop)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.up
            && let Err(error) = run(&mut self.command(&["down", "--purge"]))
        {
            eprintln!("cluster {}: {error:#}", self.name);
        }
    }
}
