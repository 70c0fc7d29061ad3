//! `cargo xtask bench`: the figures of a release build on this machine, from one command.
//!
//! Client and server share the machine's cores: throughput is that of both together.

mod api;
mod client;
mod many;
mod node;
mod page;
mod unpack;
mod workloads;

use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use corten_base::{Clock as _, OnStop, SystemClock, Tasks};
use corten_client::kubeconfig::{self, Connection};
use corten_client::{HttpClient, http};
use corten_load::{Target, Template, Until, Work, cpu_ticks};
use corten_testkit::{cache_dir, root};
use corten_tree::{Tree, tree};
use futures::StreamExt as _;
use hyper::Method;
use rustix::process::{Pid, Signal, kill_process};

use crate::interrupt::unless_interrupted;
use client::load;

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    #[command(flatten)]
    product: ProductArgs,
}

/// What else can be measured.
#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Compare the API server with upstream's kube-apiserver and etcd, side by side, and write the table in docs/benchmarks.md
    Api(api::ApiArgs),
    /// Measure pods on a node, beside Debian's containerd and runc, and write the table in docs/benchmarks.md
    Node(node::NodeArgs),
    /// Compare controllers and scheduler with upstream's, on the same pretended nodes, and write the table in docs/benchmarks.md
    Workloads(workloads::WorkloadArgs),
}

/// Arguments of `bench` alone.
#[derive(Debug, Args)]
struct ProductArgs {
    /// Seconds of each load
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Seconds of rest before the idle figures
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
    /// Measure an existing binary instead of building one
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Make the load with an existing build of the client
    #[arg(long)]
    client: Option<PathBuf>,
}

/// A server under measurement.
struct Bench {
    binary: PathBuf,
    data: PathBuf,
    name: &'static str,
    child: Option<Child>,
}

pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    match &args.command {
        Some(BenchCommand::Api(args)) => api::run(args),
        Some(BenchCommand::Node(args)) => node::run_all(args),
        Some(BenchCommand::Workloads(args)) => workloads::run(args),
        None => product(&args.product),
    }
}

/// The figures of the product alone.
fn product(args: &ProductArgs) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the benchmark runs pods: run it as root");
    }
    let binary = release_binary("corten", args.binary.as_deref())?;
    let program = release_binary("corten-load", args.client.as_deref())?;
    println!("| figure | value |\n|---|---|");
    row("binary size", format!("{:.1} MiB", fs::metadata(&binary)?.len() as f64 / f64::from(1 << 20)));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(unless_interrupted(async {
        let mut node = Bench::new(&binary, "bench")?;
        node.clean()?;
        node.starts(args).await?;
        node.clean()?;
        let mut api = Bench::new(&binary, "bench-api")?;
        api.clean()?;
        api.loads(args, &program).await?;
        api.clean()
    }))
}

fn row(figure: &str, value: String) {
    println!("| {figure} | {value} |");
}

/// The binary that was named, or a release build of a package of this source.
fn release_binary(package: &str, named: Option<&Path>) -> Result<PathBuf> {
    if let Some(binary) = named {
        return Ok(binary.to_owned());
    }
    let status =
        Command::new("cargo").args(["build", "--quiet", "--release", "-p", package]).current_dir(root()).status()?;
    if !status.success() {
        bail!("the release build failed");
    }
    let target = cache_dir().parent().context("the cache is below target/")?.to_owned();
    Ok(target.join("release").join(package))
}

impl Drop for Bench {
    /// What was interrupted leaves nothing.
    fn drop(&mut self) {
        if self.child.is_some()
            && let Err(error) = self.clean()
        {
            eprintln!("the cluster {:?} is still there: {error:#}", self.name);
        }
    }
}

impl Bench {
    fn new(binary: &Path, name: &'static str) -> Result<Bench> {
        let data = cache_dir().join("clusters").join(name);
        Ok(Bench { binary: fs::canonicalize(binary)?, data, name, child: None })
    }

    fn clean(&mut self) -> Result<()> {
        self.stop()?;
        let mut down = Command::new(&self.binary);
        down.args(["down", "--purge", "--name", self.name, "--data-dir"]).arg(&self.data);
        corten_testkit::run(down.env("KUBECONFIG", self.data.join("unused"))).map(drop)
    }

    /// Starts the server and returns when each stage was reached.
    fn start(&mut self, more: &[&str]) -> Result<Vec<(String, Duration)>> {
        use std::io::BufRead as _;
        fs::create_dir_all(&self.data)?;
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty())?;
        let log = fs::File::create(self.data.join("bench.log"))?;
        let mut command = Command::new(&self.binary);
        command
            .args(["server", "--name", self.name, "--bind-address", "127.0.0.1", "--data-dir"])
            .arg(&self.data)
            .args(more);
        command
            .args(["--ready-fd", &writer.as_raw_fd().to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let began = Instant::now();
        self.child = Some(command.spawn()?);
        drop(writer);
        let mut stages = Vec::new();
        for line in std::io::BufReader::new(fs::File::from(reader)).lines() {
            stages.push((line?, began.elapsed()));
            if stages.last().is_some_and(|(stage, _)| stage == "ready") {
                return Ok(stages);
            }
        }
        bail!("the server did not start: see {}", self.data.join("bench.log").display())
    }

    /// Asks the server to stop, and waits.
    fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        kill_process(Pid::from_child(&child), Signal::TERM)?;
        child.wait()?;
        Ok(())
    }

    fn connection(&self) -> Result<Connection> {
        Ok(kubeconfig::load(&[self.data.join("kubeconfig")], "")?)
    }

    fn client(&self) -> Result<HttpClient> {
        Ok(HttpClient::new(&self.connection()?)?)
    }

    /// Start times, pods, idleness.
    async fn starts(&mut self, args: &ProductArgs) -> Result<()> {
        let began = Instant::now();
        let fresh = self.start(&[])?;
        show_stages("new data directory", &fresh);
        let client = self.client()?;
        pod(&client, "first").await?;
        row("new data directory: start to first pod Running", ms(began.elapsed()));
        delete_pods(&client).await?;
        self.stop()?;
        show_stages("existing data directory", &self.start(&[])?);
        let client = self.client()?;
        let mut times = Vec::new();
        for i in 0..50 {
            times.push(pod(&client, &format!("p{i}")).await?);
        }
        times.sort_unstable();
        row(
            "pod create to Running, 50 pods one after the other",
            format!("p50 {}, p99 {}", ms(times[25]), ms(times[49])),
        );
        delete_pods(&client).await?;
        drop(client);
        self.stop()?;
        self.start(&[])?;
        SystemClock.sleep(Duration::from_secs(args.idle_seconds)).await;
        self.idle().await
    }

    /// Memory of all processes of the cluster, and the server's CPU over ten seconds.
    async fn idle(&self) -> Result<()> {
        let pids: Vec<i32> = cluster_processes(self.name)?;
        let pss = pss_kib(&pids);
        row("idle memory, PSS of all processes", format!("{:.1} MiB ({} processes)", pss as f64 / 1024.0, pids.len()));
        let ticks = || cpu_ticks(&pids);
        let (before, span) = (ticks(), 10);
        SystemClock.sleep(Duration::from_secs(span)).await;
        let percent = (ticks() - before) as f64 / span as f64;
        row("idle CPU", format!("{percent:.2} % of a core"));
        Ok(())
    }

    /// Reads, writes and lists on a server without a node.
    async fn loads(&mut self, args: &ProductArgs, program: &Path) -> Result<()> {
        self.start(&["--disable-agent"])?;
        let (client, connection) = (self.client()?, self.connection()?);
        let path = "/api/v1/namespaces/default/configmaps";
        let body = config_map("bench");
        client.json(Method::POST, path, "application/json", Some(&body)).await?;
        let target = Target::new(&connection, &cluster_processes(self.name)?);
        let (warm, until) = (Duration::from_millis(500), Until::Span(Duration::from_secs(args.seconds)));
        for (name, clients) in [("GET", 1), ("GET", 16), ("CREATE", 1), ("CREATE", 16)] {
            let request = match name {
                "GET" => Template::get(format!("{path}/bench")),
                _ => Template::post(path, config_map(&format!("c-{clients}-{{n}}")).to_json_string()),
            };
            let sample = load(program, target.clone(), Work::Requests { clients, warm, until, request })?;
            row(&format!("{name} ConfigMap, {clients} clients"), sample.to_string());
        }
        self.list(&client).await
    }

    async fn list(&self, client: &HttpClient) -> Result<()> {
        let tasks = Tasks::tokio();
        for worker in 0..16 {
            let client = self.client()?;
            tasks.spawn("create pods", OnStop::Drain, async move {
                for i in 0..625 {
                    let mut body = pod_body(&format!("list-{worker}-{i}"));
                    body.set("spec.schedulerName", "nobody");
                    let made = client.json(Method::POST, PODS, "application/json", Some(&body)).await;
                    if let Err(status) = made {
                        eprintln!("pod {worker}/{i}: {status}");
                    }
                }
            });
        }
        tasks.stop(Duration::from_secs(120)).await;
        let mut times = Vec::new();
        let mut bytes = 0;
        for _ in 0..5 {
            let began = Instant::now();
            let answer = client.send(Method::GET, PODS, &[("accept", "application/json")], bytes::Bytes::new()).await?;
            let mut body = http::byte_stream(answer);
            bytes = 0;
            while let Some(chunk) = body.next().await {
                bytes += chunk?.len();
            }
            times.push(began.elapsed());
        }
        times.sort_unstable();
        row("LIST 10,000 pods", format!("p50 {}, {:.1} MiB", ms(times[2]), bytes as f64 / f64::from(1 << 20)));
        Ok(())
    }
}

const PODS: &str = "/api/v1/namespaces/default/pods";

fn show_stages(which: &str, stages: &[(String, Duration)]) {
    for (stage, at) in stages.iter().filter(|(s, _)| s != "ready") {
        row(&format!("{which}: {stage}"), ms(*at));
    }
}

fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}

/// 1.5 kB, as a ConfigMap of a small program.
fn config_map(name: &str) -> Tree {
    let text = "key = value with some text that fills a line of a configuration file\n".repeat(20);
    tree!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"app.conf": text}})
}

fn pod_body(name: &str) -> Tree {
    tree!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "corten.dev/toolbox:latest", "command": ["sleep", "infinity"]}]
        }
    })
}

/// Creates a pod and waits until it runs.
async fn pod(client: &HttpClient, name: &str) -> Result<Duration> {
    // The default service account comes moments after a new cluster's namespace.
    let began = loop {
        let began = Instant::now();
        match client.json(Method::POST, PODS, "application/json", Some(&pod_body(name))).await {
            Ok(_) => break began,
            Err(status) if status.message.contains("service account") => {
                SystemClock.sleep(Duration::from_millis(5)).await;
            }
            Err(status) => return Err(status.into()),
        }
    };
    let mut events =
        client.lines(&format!("{PODS}?watch=true&fieldSelector=metadata.name%3D{name}"), "application/json").await?;
    while let Some(event) = events.next().await {
        if event?.str_at("object.status.phase") == "Running" {
            return Ok(began.elapsed());
        }
    }
    bail!("the watch ended before {name} ran")
}

async fn delete_pods(client: &HttpClient) -> Result<()> {
    client.json(Method::DELETE, PODS, "", None).await?;
    let list = client.json(Method::GET, PODS, "", None).await?;
    let mut left = list.list_at("items").len();
    if left == 0 {
        return Ok(());
    }
    let revision = list.str_at("metadata.resourceVersion");
    let mut events = client.lines(&format!("{PODS}?watch=true&resourceVersion={revision}"), "application/json").await?;
    while let Some(event) = events.next().await {
        left -= usize::from(event?.str_at("type") == "DELETED");
        if left == 0 {
            return Ok(());
        }
    }
    bail!("the watch ended before the pods were gone")
}

/// The server and its shims: processes whose command line names the cluster.
fn cluster_processes(name: &str) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains("corten") && command.contains(&format!("{name} ")) && !command.contains("xtask") {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Memory of processes, each page shared by n of them counted as 1/n, in KiB.
fn pss_kib(pids: &[i32]) -> u64 {
    let of = |pid: &i32| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = rollup.lines().find_map(|l| l.strip_prefix("Pss:"));
        line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    pids.iter().map(of).sum()
}
