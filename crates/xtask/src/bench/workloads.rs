//! `cargo xtask bench workloads`: controllers and scheduler beside upstream's kube-controller-manager and kube-scheduler, each on
//! its own API server with its durable store, with the same pretended nodes.
//!
//! The sides run one after the other, so that each has the machine to itself.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use corten_base::{Clock as _, SystemClock};
use corten_client::HttpClient;
use corten_client::kubeconfig::Connection;
use corten_load::{State, Target, cpu_ticks};
use corten_testkit::{cache_dir, root};
use corten_tree::{Tree, tree};
use futures::StreamExt as _;
use hyper::Method;

use super::client::{Follower, Hollow};
use super::page;
use super::{Bench, cluster_processes, pss_kib};
use crate::interrupt::unless_interrupted;
use crate::oracle::{Disk, Limits, Oracle};

/// Arguments of `bench workloads`.
#[derive(Debug, Args)]
pub(super) struct WorkloadArgs {
    /// A tenth of everything, to see that it works; the page is not written
    #[arg(long)]
    quick: bool,
    /// Measure an existing binary instead of building one
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Play the nodes with an existing `corten-load` instead of building one
    #[arg(long)]
    client: Option<PathBuf>,
    /// Leave out upstream with its default client limits (it takes a quarter of an hour, most of it waiting)
    #[arg(long)]
    skip_default: bool,
    /// Leave upstream out: to look at Corten alone
    #[arg(long)]
    skip_upstream: bool,
    /// Do not touch docs/benchmarks.md
    #[arg(long)]
    no_report: bool,
}

/// Where everything is made.
const NAMESPACE: &str = "workloads";
/// How long one scenario may take.
const SCENARIO_MAX: Duration = Duration::from_secs(900);
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/workloads/deployments";
const JOBS: &str = "/apis/batch/v1/namespaces/workloads/jobs";
const CRONS: &str = "/apis/batch/v1/namespaces/workloads/cronjobs";

/// What one scenario took.
#[derive(Debug, Clone, Copy)]
struct Figure {
    time: Duration,
    /// CPU of all processes of the control plane, in ticks of 10 ms.
    ticks: u64,
}

/// What was measured on one side.
struct Column {
    name: &'static str,
    figures: Vec<Figure>,
    memory_kib: u64,
}

pub(super) fn run(args: &WorkloadArgs) -> Result<()> {
    let part = if args.quick { 10 } else { 1 };
    let size = Size { replicas: 500 / part, completions: 1000 / part, crons: 1000 / part };
    let binary = super::release_binary("corten", args.binary.as_deref())?;
    let program = super::release_binary("corten-load", args.client.as_deref())?;
    let dir = cache_dir().join(format!("bench-workloads-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(unless_interrupted(sides(args, &size, (&binary, &program), &dir)));
    std::fs::remove_dir_all(&dir).or_else(|e| if dir.exists() { Err(e) } else { Ok(()) })?;
    let section = section(&size, &outcome?);
    println!("{section}");
    match args.quick || args.no_report || args.skip_upstream {
        true => Ok(()),
        false => page::write(&root().join("docs/benchmarks.md"), &section),
    }
}

async fn sides(args: &WorkloadArgs, size: &Size, (binary, program): (&Path, &Path), dir: &Path) -> Result<Vec<Column>> {
    let mut columns = Vec::new();
    for (name, limits) in [("upstream, default limits", Limits::Default), ("upstream, raised limits", Limits::Raised)] {
        if args.skip_upstream || (args.skip_default && limits == Limits::Default) {
            continue;
        }
        let dir = dir.join(format!("{limits:?}"));
        std::fs::create_dir_all(dir.join("pki"))?;
        let material = corten_faults::server::material(&dir.join("pki"))?;
        let mut oracle = Oracle::start(&dir, &material, Disk::Durable).await?;
        oracle.start_controllers(&dir, limits)?;
        let connection = Connection {
            server: format!("https://{}", oracle.address),
            ca_pem: material.ca_cert_pem.clone().into_bytes(),
            cert_pem: material.admin.cert_pem.clone().into_bytes(),
            key_pem: material.admin.key_pem.clone().into_bytes(),
            ..Connection::default()
        };
        columns.push(measure(name, &connection, &oracle.processes(), program, size).await?);
    }
    let mut ours = Bench::new(binary, "bench-workloads")?;
    ours.clean()?;
    ours.start(&["--disable-agent"])?;
    let column = match ours.connection() {
        Ok(connection) => measure("Corten", &connection, &cluster_processes("bench-workloads")?, program, size).await,
        Err(error) => Err(error),
    };
    ours.clean()?;
    columns.push(column?);
    Ok(columns)
}

/// How much is done.
struct Size {
    replicas: usize,
    completions: usize,
    crons: usize,
}

impl Size {
    fn names(&self) -> [String; 5] {
        [
            format!("Deployment of {} replicas to Available", self.replicas),
            String::from("its image rollout (25% and 25%)"),
            String::from("its deletion, until the last pod is gone"),
            format!("Job of {} completions, {} at a time, to Complete", self.completions, self.parallelism()),
            format!("{} CronJobs firing in the same minute, until their Jobs are Complete", self.crons),
        ]
    }

    fn parallelism(&self) -> usize {
        self.completions / 10
    }
}

/// One side's API server.
struct Side<'s> {
    client: HttpClient,
    hollow: Hollow,
    program: &'s Path,
    target: Target,
    processes: &'s [i32],
}

async fn measure(
    name: &'static str,
    connection: &Connection,
    processes: &[i32],
    program: &Path,
    size: &Size,
) -> Result<Column> {
    let client = HttpClient::new(connection)?;
    let namespace = tree!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    post(&client, "/api/v1/namespaces", &namespace).await?;
    let account = |event: &Tree| event.str_at("object.metadata.name") == "default";
    let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    follow(&client, &accounts, account).await.context("no controller makes the default service account")?;
    let target = Target::new(connection, processes);
    let hollow = Hollow::start(program, target.clone()).await?;
    let side = Side { client, hollow, program, target, processes };
    let mut figures = Vec::new();
    for (number, scenario) in size.names().iter().enumerate() {
        let began = Instant::now();
        let figure = tokio::time::timeout(SCENARIO_MAX, side.scenario(number, size)).await;
        let figure = figure.unwrap_or_else(|_| bail!("not done within {SCENARIO_MAX:?}"));
        let figure = figure.with_context(|| format!("{name}: {scenario}"))?;
        eprintln!("{name}: {scenario}: {} (after {:.0?})", shown(figure), began.elapsed());
        figures.push(figure);
    }
    Ok(Column { name, figures, memory_kib: pss_kib(processes) })
}

async fn post(client: &HttpClient, path: &str, body: &Tree) -> Result<()> {
    client
        .json(Method::POST, path, "application/json", Some(body))
        .await
        .map(drop)
        .map_err(|s| anyhow!("POST {path}: {s}"))
}

/// Watches a collection from its present state on until an event says so.
async fn follow(client: &HttpClient, path: &str, mut done: impl FnMut(&Tree) -> bool) -> Result<()> {
    let mut events =
        client.lines(&format!("{path}?watch=true"), "application/json").await.map_err(|s| anyhow!("{s}"))?;
    while let Some(event) = events.next().await {
        if done(&event.map_err(|s| anyhow!("{s}"))?) {
            return Ok(());
        }
    }
    bail!("the watch of {path} ended")
}

impl Side<'_> {
    fn ticks(&self) -> u64 {
        cpu_ticks(self.processes)
    }

    async fn scenario(&self, number: usize, size: &Size) -> Result<Figure> {
        let (before, began) = (self.ticks(), Instant::now());
        let replicas = size.replicas;
        match number {
            0 => {
                let rolled = self.until(DEPLOYMENTS, 1, State::Rolled { generation: 1, replicas: replicas as i64 })?;
                post(&self.client, DEPLOYMENTS, &deployment(replicas)).await?;
                rolled.done().await?;
            }
            1 => {
                let image =
                    tree!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "web:2"}]}}}});
                let kind = "application/strategic-merge-patch+json";
                let path = format!("{DEPLOYMENTS}/web");
                let patched = self.client.json(Method::PATCH, &path, kind, Some(&image)).await;
                let generation = patched.map_err(|s| anyhow!("{s}"))?.i64_at("metadata.generation").unwrap_or(0);
                let rolled = State::Rolled { generation, replicas: replicas as i64 };
                self.until(DEPLOYMENTS, 1, rolled)?.done().await?;
            }
            2 => {
                let path = format!("{DEPLOYMENTS}/web");
                self.client.json(Method::DELETE, &path, "", None).await.map_err(|s| anyhow!("{s}"))?;
                self.hollow.pods("web", 0).await?;
            }
            3 => {
                let complete = self.until(JOBS, 1, State::Complete)?;
                post(&self.client, JOBS, &job(size)).await?;
                complete.done().await?;
            }
            _ => return self.crons(size.crons).await,
        }
        let time = began.elapsed();
        Ok(Figure { time, ticks: self.ticks() - before })
    }

    /// Follows a collection until so many of it are as they are to be.
    fn until(&self, path: &str, count: usize, state: State) -> Result<Follower> {
        Follower::start(self.program, self.target.clone(), path, count, state)
    }

    /// The time begins when the minute does.
    async fn crons(&self, count: usize) -> Result<Figure> {
        self.client
            .json(Method::DELETE, &format!("{JOBS}/batch?propagationPolicy=Background"), "", None)
            .await
            .map_err(|s| anyhow!("{s}"))?;
        self.hollow.pods("batch", 0).await?;
        // Far enough away that all are there, and that their making is digested.
        let now = SystemClock.now().as_second();
        let at = (now + 60 + count as i64 / 20).div_euclid(60) * 60 + 60;
        let minute = corten_base::Timestamp::from_second(at)?.strftime("%M %H * * *").to_string();
        let made = (0..count).map(|number| {
            let minute = &minute;
            async move { post(&self.client, CRONS, &cron(number, minute)).await }
        });
        let mut made = futures::stream::iter(made).buffer_unordered(16);
        while let Some(one) = made.next().await {
            one?;
        }
        let begin = corten_base::Timestamp::from_second(at)?;
        if SystemClock.now() >= begin {
            bail!("making the cron jobs took longer than expected");
        }
        let complete = self.until(JOBS, count, State::Complete)?;
        SystemClock.sleep_until(begin).await;
        let (before, began) = (self.ticks(), Instant::now());
        complete.done().await?;
        Ok(Figure { time: began.elapsed(), ticks: self.ticks() - before })
    }
}

fn container(name: &str) -> Tree {
    tree!({"name": name, "image": (format!("{name}:1")), "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "env": [{"name": "LOG_LEVEL", "value": "info"}]})
}

fn deployment(replicas: usize) -> Tree {
    tree!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": (replicas as i64), "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [(container("web"))]}}}})
}

fn job(size: &Size) -> Tree {
    tree!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "batch"}, "spec": {
        "completions": (size.completions as i64), "parallelism": (size.parallelism() as i64),
        "template": {"metadata": {"labels": {"app": "batch"}},
            "spec": {"restartPolicy": "Never", "containers": [(container("batch"))]}}}})
}

fn cron(number: usize, minute: &str) -> Tree {
    tree!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": (format!("tick-{number}"))}, "spec": {
        "schedule": minute, "timeZone": "Etc/UTC", "jobTemplate": {"spec": {"template": {"metadata": {"labels": {"app": "tick"}},
            "spec": {"restartPolicy": "Never", "containers": [(container("tick"))]}}}}}})
}

fn shown(figure: Figure) -> String {
    format!("{:.2} s, {:.2} s CPU", figure.time.as_secs_f64(), figure.ticks as f64 / 100.0)
}

/// The section of the page.
fn section(size: &Size, columns: &[Column]) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let date = corten_testkit::text(std::process::Command::new("date").args(["-u", "+%F"])).unwrap_or_default();
    let mut text = format!(
        "## Workloads beside upstream's controllers\n\n{}\n\n`cargo xtask bench workloads` made this on {} with {cores} cores, which \
         each side had to itself but for the client that plays 20 nodes: the same program for all, it reports a pod as running once it \
         is placed, as ended once it ran (Jobs), and deletes it once it is to go. CPU is that of all processes of a control plane. \
         Upstream: etcd, kube-apiserver, kube-controller-manager and kube-scheduler v1.37.2; raised limits are \
         `--kube-api-qps=5000 --kube-api-burst=10000` for both clients. Aim: a fifth of the time of upstream with raised limits, with a \
         fifth of its CPU.\n\n| work |",
        page::BEGIN_WORKLOADS,
        date.trim(),
    );
    columns.iter().for_each(|column| text.push_str(&format!(" {} |", column.name)));
    text.push_str(" time | CPU |\n|---|---|---|");
    columns.iter().for_each(|_| text.push_str("---|"));
    text.push('\n');
    let ours = columns.last();
    let theirs = columns.iter().rev().nth(1);
    let ratio = |theirs: f64, ours: f64| {
        let ratio = theirs / ours.max(1e-9);
        format!("{ratio:.1}×: {}", if ratio >= 5.0 { "met" } else { "missed" })
    };
    for (number, name) in size.names().iter().enumerate() {
        text.push_str(&format!("| {name} |"));
        columns.iter().for_each(|column| text.push_str(&format!(" {} |", shown(column.figures[number]))));
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            let (ours, theirs) = (ours.figures[number], theirs.figures[number]);
            let time = ratio(theirs.time.as_secs_f64(), ours.time.as_secs_f64());
            text.push_str(&format!(" {time} | {} |", ratio(theirs.ticks as f64, ours.ticks as f64)));
        }
        text.push('\n');
    }
    text.push_str("| memory (PSS) at the end |");
    columns.iter().for_each(|column| text.push_str(&format!(" {:.0} MiB |", column.memory_kib as f64 / 1024.0)));
    text.push_str(" | |\n\n");
    text + page::END + "\n"
}
