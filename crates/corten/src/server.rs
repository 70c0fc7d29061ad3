//! `corten server`: everything in the foreground.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use corten_tree::tree;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::args::{AgentArgs, ServerArgs};
use crate::assembly::{self, Plan};
use crate::host;
use crate::paths::{Addresses, Cluster};

/// Runs the server until it is told to stop.
///
/// # Errors
/// What keeps it from starting, or what broke it.
pub fn run(args: ServerArgs) -> Result<u8> {
    let filter = EnvFilter::try_from_env("CORTEN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let cluster = Cluster::new(&args.cluster)?;
    let in_memory = match args.datastore_endpoint.as_str() {
        "sqlite" => false,
        "memory" => true,
        other => bail!("--datastore-endpoint {other:?}: use sqlite (in the data directory) or memory"),
    };
    if !args.disable_agent {
        host::check_kernel()?;
    }
    host::check_disk(&cluster.data)?;
    let addresses = Addresses::decide(&cluster, &args.addresses)?;
    host::check_port(args.bind_address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), addresses.port)?;
    let plan = Plan {
        pods_max: args.addresses.max_pods.unwrap_or(assembly::PODS_MAX),
        kubeconfig: args.write_kubeconfig.clone().unwrap_or_else(|| cluster.kubeconfig()),
        node_name: (!args.disable_agent).then(|| args.node_name.clone().unwrap_or_else(host::node_name)),
        node_ip: host::node_ip(),
        bind: args.bind_address,
        token: args.token.clone(),
        cluster: cluster.clone(),
        in_memory,
        authentication: args.api.authentication()?,
        authorization: args.api.authorization()?,
        audit: args.api.audit(),
        flow: args.api.flow()?,
        shutdown: args.api.shutdown()?,
        open_files: host::raise_open_files(),
        eviction: args.api.eviction()?,
        pod_manifest_path: args.api.pod_manifest_path()?,
        images: args.api.images()?,
        pod_pids_max: args.api.pod_pids_max(),
        event_ttl: args.api.event_ttl(),
        token_keys: args.api.token_keys()?,
        shutdown_delay: args.api.shutdown_delay(),
        addresses,
    };
    let ready = args.ready_fd.map(ready_pipe).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("corten").build()?;
    runtime.block_on(serve(plan, ready))?;
    Ok(0)
}

/// Runs a node that joins a server.
///
/// # Errors
/// Always, for now: joining is not there yet.
pub fn run_agent(args: &AgentArgs) -> Result<u8> {
    bail!("joining {} from another machine is not there yet: run `corten server` on one machine", args.server)
}

async fn serve(plan: Plan, mut ready: Option<File>) -> Result<()> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut power = signal(SignalKind::from_raw(Signal::POWER.as_raw()))?;
    let pid_file = plan.cluster.pid_file();
    let mut tell = |stage: &str| {
        match stage.strip_prefix(assembly::WARNING) {
            Some(warning) => tracing::warn!("{warning}"),
            None => tracing::info!("{stage}"),
        }
        if let Some(pipe) = &mut ready {
            // Whoever waited may have gone.
            let _ = writeln!(pipe, "{stage}");
        }
    };
    write_pid(&pid_file)?;
    let running = assembly::start(plan, &mut tell).await.inspect_err(|_| remove_pid(&pid_file))?;
    tell("ready");
    drop(ready);
    let outcome = tokio::select! {
        _ = term.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = machine_goes(&running, &mut power) => Ok(()),
        reason = running.failed() => Err(anyhow::anyhow!(reason)),
    };
    tracing::info!("stopping; containers that run go on");
    running.stop().await;
    remove_pid(&pid_file);
    outcome
}

/// Waits for SIGPWR, which init systems send when the machine goes down, and ends the node's pods then.
async fn machine_goes(running: &assembly::Running, power: &mut tokio::signal::unix::Signal) {
    power.recv().await;
    running.shut_down_node().await;
}

/// The pipe that `up` waits on: its number came on the command line.
fn ready_pipe(fd: i32) -> Result<File> {
    let path = format!("/proc/self/fd/{fd}");
    let target = fs::read_link(&path).with_context(|| format!("--ready-fd {fd}"))?;
    if !target.to_string_lossy().starts_with("pipe:") {
        bail!("--ready-fd {fd} is not a pipe");
    }
    // Opened anew, close-on-exec, so that shims do not inherit it; the inherited number is closed.
    let pipe = fs::OpenOptions::new().write(true).open(&path).with_context(|| format!("--ready-fd {fd}"))?;
    corten_base::fd::close_inherited(fd);
    Ok(pipe)
}

/// Names this process for `down`: its number and start time.
fn write_pid(file: &Path) -> Result<()> {
    let pid = std::process::id();
    let started = start_time(pid as i32).context("/proc/self/stat")?;
    let text = tree!({"pid": pid, "startTime": started}).to_json();
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    }
    fs::write(file, text).with_context(|| file.display().to_string())
}

/// Removes the file again, unless a next server has written its own.
fn remove_pid(file: &Path) {
    if fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("\"pid\":{},", std::process::id()))) {
        // A stale file does no harm: the start time in it fits no process.
        let _ = fs::remove_file(file);
    }
}

/// The start time of a living process in clock ticks since boot, from `/proc/PID/stat`: with the pid it names a process for
/// good. A process that has ended and was not yet reaped has none.
pub fn start_time(pid: i32) -> Option<i64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces: fields are counted after it. State is field 3, start time field 22.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ended = matches!(fields.first(), Some(&("Z" | "X" | "x")) | None);
    if ended { None } else { fields.get(19)?.parse().ok() }
}
