//! `up` and `down`: a cluster in the background.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use corten_client::kubeconfig;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::args::{DownArgs, UpArgs};
use crate::host::{self, Caller};
use crate::paths::{Addresses, Cluster, read_tree};
use crate::progress::Step;
use crate::{assembly, server};

/// How long the server may take to stop, in seconds, before it is killed.
const STOP_SECONDS_MAX: i64 = 30;

/// Starts a cluster in the background and waits until its node is ready.
///
/// # Errors
/// What keeps it from starting, in one sentence.
pub fn up(args: UpArgs) -> Result<()> {
    host::become_root()?;
    let cluster = Cluster::new(&args.cluster)?;
    if running(&cluster)?.is_some() {
        eprintln!("cluster {:?} is running already", cluster.name);
    } else {
        let addresses = Addresses::decide(&cluster, &args.addresses)?;
        host::check_kernel()?;
        host::check_disk(&cluster.data)?;
        host::check_port([127, 0, 0, 1].into(), addresses.port)?;
        start(&cluster, &args)?;
    }
    let context = publish_kubeconfig(&cluster)?;
    println!("kubectl is pointed at the cluster (context {context:?}). Next:");
    println!("  kubectl get nodes");
    println!("  kubectl create deployment web --image=corten.dev/web:v1 --replicas=3");
    let name = if cluster.name == "default" { String::new() } else { format!(" --name {}", cluster.name) };
    println!("  corten down{name}");
    Ok(())
}

/// Starts the server process and follows the stages that it reports.
fn start(cluster: &Cluster, args: &UpArgs) -> Result<()> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let log = OpenOptions::new().create(true).append(true).open(cluster.log()).context("the server's log")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["server", "--name", &cluster.name, "--bind-address", "127.0.0.1", "--data-dir"]).arg(&cluster.data);
    for (flag, value) in
        [("--cluster-cidr", &args.addresses.cluster_cidr), ("--service-cidr", &args.addresses.service_cidr)]
    {
        if let Some(value) = value {
            command.args([flag, value]);
        }
    }
    if let Some(port) = args.addresses.https_listen_port {
        command.args(["--https-listen-port", &port.to_string()]);
    }
    if let Some(pods) = args.addresses.max_pods {
        command.args(["--max-pods", &pods.to_string()]);
    }
    command.args(crate::api_args::pass_on(std::env::args().skip(1)));
    // The child inherits this one descriptor; everything else is closed on exec.
    rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty())?;
    command.args(["--ready-fd", &writer.as_raw_fd().to_string()]);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/").process_group(0);
    let mut child = command.spawn().context("the server could not be started")?;
    drop(writer);
    let step = Step::begin(format!("starting cluster {:?}", cluster.name));
    if follow(reader, &step)? {
        step.done();
        return Ok(());
    }
    let status = child.wait()?;
    bail!("the server ended with {status} while starting. Its last words:\n{}", last_lines(cluster, 12))
}

/// Shows the stages; true once the server says that all is ready.
fn follow(reader: OwnedFd, step: &Step) -> Result<bool> {
    for line in BufReader::new(File::from(reader)).lines() {
        match line?.as_str() {
            "ready" => return Ok(true),
            warning if warning.starts_with(assembly::WARNING) => step.warn(warning),
            stage => step.note(stage),
        }
    }
    Ok(false)
}

fn last_lines(cluster: &Cluster, count: usize) -> String {
    let text = fs::read_to_string(cluster.log()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Merges the administrator's kubeconfig into the caller's, in their home and theirs.
fn publish_kubeconfig(cluster: &Cluster) -> Result<String> {
    let caller = Caller::find();
    let context = cluster.context();
    let paths = kubeconfig::default_paths(&caller.home);
    let target = paths.first().context("KUBECONFIG names no file")?;
    let connection = kubeconfig::load(&[cluster.kubeconfig()], "")?;
    kubeconfig::merge_into(target, &kubeconfig::single(&context, &connection))?;
    caller.own(target)?;
    if let Some(parent) = target.parent().filter(|p| *p == caller.home.join(".kube")) {
        caller.own(parent)?;
    }
    Ok(context)
}

/// Stops a cluster and leaves nothing of it in the kernel.
///
/// # Errors
/// If something does not go away; what is left is named.
pub fn down(args: DownArgs) -> Result<()> {
    host::become_root()?;
    let cluster = Cluster::new(&args.cluster)?;
    stop_server(&cluster)?;
    let step = Step::begin("removing pods, links, rules and mounts");
    assembly::teardown(&cluster)?;
    step.done();
    let caller = Caller::find();
    for path in kubeconfig::default_paths(&caller.home) {
        if path.exists() {
            kubeconfig::remove_from(&path, &cluster.context())?;
            caller.own(&path)?;
        }
    }
    if args.purge {
        let step = Step::begin(format!("removing {}", cluster.data.display()));
        match fs::remove_dir_all(&cluster.data) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).with_context(|| cluster.data.display().to_string());
            }
            _ => step.done(),
        }
        if let Some(root) = cluster.data.parent().filter(|p| p.ends_with("corten")) {
            // Removed only when it is empty, that is, when this was the last cluster.
            let _ = fs::remove_dir(root);
        }
    }
    Ok(())
}

/// Asks the server to stop, waits, and kills it if it takes too long.
fn stop_server(cluster: &Cluster) -> Result<()> {
    let Some(pid) = running(cluster)? else {
        eprintln!("cluster {:?} is not running", cluster.name);
        return Ok(());
    };
    let step = Step::begin(format!("stopping cluster {:?}", cluster.name));
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    pidfd_send_signal(&pidfd, Signal::TERM)?;
    let limit = Timespec { tv_sec: STOP_SECONDS_MAX, tv_nsec: 0 };
    if poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit))? == 0 {
        step.note("it takes long: killing it");
        pidfd_send_signal(&pidfd, Signal::KILL)?;
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit))?;
    }
    step.done();
    Ok(())
}

/// The server's process, if it runs: the pid file's process must be ours, not a stranger with a reused number.
fn running(cluster: &Cluster) -> Result<Option<Pid>> {
    let Some(file) = read_tree(&cluster.pid_file()) else { return Ok(None) };
    let pid = file.i64_at("pid").and_then(|p| i32::try_from(p).ok()).and_then(Pid::from_raw);
    let Some(pid) = pid else { return Ok(None) };
    let started = server::start_time(pid.as_raw_nonzero().get());
    Ok((started.is_some() && started == file.i64_at("startTime")).then_some(pid))
}
