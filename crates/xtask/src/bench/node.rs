//! `cargo xtask bench node`: how fast pods start and what they cost, and the same containers under Debian's containerd and runc.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use corten_base::{OnStop, Tasks};
use corten_client::HttpClient;
use corten_client::exec::{self, ExecEvent};
use corten_testkit::disk::Disk;
use corten_testkit::{cache_dir, debian, root, run, text};
use corten_tree::Tree;
use futures::StreamExt as _;
use hyper::Method;
use rustix::process::{Pid, Signal, kill_process};

use super::unpack::{DISK_MIB, Samples};
use super::{Bench, PODS, delete_pods, many, ms, page, pod, pod_body, pss_kib, release_binary};
use crate::interrupt::unless_interrupted;

const BEGIN: &str = "<!-- written by `cargo xtask bench node`; not edited by hand -->";
const END: &str = "<!-- end -->";
/// Clients that create pods at once.
const CLIENTS: usize = 8;
const EXECS: usize = 50;

/// Arguments of `bench node`.
#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    /// Pods that are created at once
    #[arg(long, default_value_t = 100)]
    pods: usize,
    /// Pods that are created one after the other
    #[arg(long, default_value_t = 50)]
    single: usize,
    /// Measure an existing binary instead of building one
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Pods that fill a node, each answering its probes; 0 leaves them out
    #[arg(long, default_value_t = 500)]
    many: usize,
    /// Nothing but those
    #[arg(long)]
    only_many: bool,
    /// Leave containerd out
    #[arg(long)]
    alone: bool,
    /// Do not write docs/benchmarks.md
    #[arg(long)]
    no_page: bool,
}

/// One line of the table.
pub(super) struct Row {
    pub figure: String,
    pub ours: String,
    pub theirs: String,
    pub target: String,
}

pub(super) fn run_all(args: &NodeArgs) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the benchmark runs pods: run it as root");
    }
    let binary = release_binary("corten", args.binary.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let of_many = || match args.many {
        0 => Ok(Vec::new()),
        count => on_new_node(&runtime, &binary, async |bench| many::measure(bench, count).await),
    };
    if args.only_many {
        return of_many().map(drop);
    }
    let samples = Samples::make()?;
    let theirs = if args.alone { None } else { Some(Containerd::measure(args, &samples)?) };
    let mut rows = on_new_node(&runtime, &binary, async |bench| ours(bench, args, theirs.as_ref()).await)?;
    rows.extend(of_many()?);
    let unpacked = samples.measure(&binary)?;
    let section = section(&rows, &samples.table(&unpacked, theirs.as_ref().map(|f| f.images.as_slice())));
    samples.remove()?;
    println!("{section}");
    if args.no_page {
        return Ok(());
    }
    page::write(&root().join("docs/benchmarks.md"), &section)
}

/// Measures on a cluster of its own, which is taken away in any case.
fn on_new_node(
    runtime: &tokio::runtime::Runtime,
    binary: &Path,
    measure: impl AsyncFnOnce(&mut Bench) -> Result<Vec<Row>>,
) -> Result<Vec<Row>> {
    runtime.block_on(unless_interrupted(async {
        let mut bench = Bench::new(binary, "bench-node")?;
        bench.clean()?;
        let rows = measure(&mut bench).await;
        bench.clean()?;
        // Who waits for the rest sees them, and they are there if that fails.
        rows.inspect(|rows| println!("{}", table(rows)))
    }))
}

async fn ours(bench: &mut Bench, args: &NodeArgs, theirs: Option<&Figures>) -> Result<Vec<Row>> {
    let limit = (args.pods + 10).to_string();
    let more: Vec<&str> = if args.pods > 100 { vec!["--max-pods", &limit] } else { Vec::new() };
    bench.start(&more)?;
    let client = bench.client()?;
    pod(&client, "first").await?;
    let mut single = Vec::new();
    for i in 0..args.single {
        single.push(pod(&client, &format!("p{i}")).await?);
    }
    let starts = starts(bench.name)?;
    let execs = execs(&client).await?;
    delete_pods(&client).await?;
    let runs = |pod: &Tree| pod.str_at("status.phase") == "Running";
    let (all, each) = at_once(bench, &client, args.pods, pod_body, runs).await?;
    let shims = shims(bench.name)?;
    if shims.len() < args.pods {
        bail!("{} pods run, but only {} shims were found", args.pods, shims.len());
    }
    let memory = pss_kib(&shims) as f64 / args.pods as f64 / 1024.0;
    let server = bench.child.as_ref().context("the server runs")?.id();
    let server = pss_kib(&[i32::try_from(server)?]) as f64 / 1024.0;
    let began = Instant::now();
    client.json(Method::DELETE, PODS, "", None).await.context("deleting all pods with one request")?;
    let answered = began.elapsed();
    delete_pods(&client).await?;
    let gone = began.elapsed();
    let of = |pick: &dyn Fn(&Figures) -> String| theirs.map_or_else(|| "—".to_owned(), pick);
    Ok(vec![
        Row {
            figure: format!("{} pods created at once: all Running", args.pods),
            ours: format!("{:.2} s", all.as_secs_f64()),
            theirs: of(&|f| format!("{:.2} s", f.all.as_secs_f64())),
            target: verdict("≤ 4 s", all <= Duration::from_secs(4)),
        },
        Row {
            figure: "of these, create to Running".into(),
            ours: quantiles(&each),
            theirs: String::new(),
            target: String::new(),
        },
        Row {
            figure: format!("{} pods one after the other, create to Running", args.single),
            target: verdict("p50 ≤ 100 ms", quantile(&single, 0.5) <= Duration::from_millis(100)),
            ours: quantiles(&single),
            theirs: of(&|f| quantiles(&f.single)),
        },
        Row {
            figure: "of these, order of a shim to its container's execve".into(),
            target: verdict("p50 ≤ 10 ms", quantile(&starts, 0.5) <= Duration::from_millis(10)),
            ours: quantiles(&starts),
            theirs: String::new(),
        },
        Row {
            figure: format!("exec of `true`, {EXECS} one after the other"),
            ours: quantiles(&execs),
            theirs: of(&|f| quantiles(&f.execs)),
            target: String::new(),
        },
        Row {
            figure: "memory per container: PSS of shim and sandbox".into(),
            ours: format!("{memory:.2} MiB"),
            theirs: of(&|f| format!("{:.2} MiB", f.memory)),
            target: verdict("≤ 1.5 MB", memory * 1.048_576 <= 1.5),
        },
        Row {
            figure: format!("memory of the server with {} pods: PSS", args.pods),
            ours: format!("{server:.1} MiB"),
            theirs: String::new(),
            target: String::new(),
        },
        Row {
            figure: format!("{} pods deleted with one request: answered, all gone", args.pods),
            ours: format!("{:.2} s, {:.2} s", answered.as_secs_f64(), gone.as_secs_f64()),
            theirs: String::new(),
            target: String::new(),
        },
    ])
}

/// Creates pods from several clients: when the last one runs and is `done`, and how long each took from its own creation.
pub(super) async fn at_once(
    bench: &Bench,
    client: &HttpClient,
    count: usize,
    body: fn(&str) -> Tree,
    done: fn(&Tree) -> bool,
) -> Result<(Duration, Vec<Duration>)> {
    let list = client.json(Method::GET, PODS, "", None).await?;
    let revision = list.str_at("metadata.resourceVersion");
    // Pods that do not run are not even sent: this program is no release build, and shares the machine.
    let path = format!("{PODS}?watch=true&fieldSelector=status.phase%3DRunning&resourceVersion={revision}");
    let mut events = client.lines(&path, "application/json").await?;
    let tasks = Tasks::tokio();
    let began = Instant::now();
    let (sender, mut created) = tokio::sync::mpsc::channel(count);
    for worker in 0..CLIENTS {
        let (client, sender) = (bench.client()?, sender.clone());
        tasks.spawn("create pods", OnStop::Drain, async move {
            for i in (worker..count).step_by(CLIENTS) {
                let name = format!("n{i}");
                let at = Instant::now();
                let made = client.json(Method::POST, PODS, "application/json", Some(&body(&name))).await;
                let _ = sender.send((name, at, made.map(drop))).await;
            }
        });
    }
    drop(sender);
    let mut running = BTreeMap::new();
    while running.len() < count {
        let event = events.next().await.context("the watch ended before all pods ran")??;
        if event.str_at("type") != "DELETED" && event.get("object").is_some_and(done) {
            running.entry(event.str_at("object.metadata.name").to_owned()).or_insert_with(Instant::now);
        }
    }
    let all = began.elapsed();
    let mut times = Vec::new();
    while let Some((name, at, made)) = created.recv().await {
        made?;
        times.push(running.get(&name).map_or(Duration::ZERO, |end| end.duration_since(at)));
    }
    times.sort_unstable();
    Ok((all, times))
}

async fn execs(client: &HttpClient) -> Result<Vec<Duration>> {
    let path = format!("{PODS}/first/exec?command=true&stdout=true&stderr=true&container=main");
    let mut times = Vec::new();
    for _ in 0..EXECS {
        let began = Instant::now();
        let (_input, mut output) = exec::open(client, &path).await?;
        loop {
            match output.next().await {
                ExecEvent::Exit(0) => break,
                ExecEvent::Exit(code) => bail!("true ended with {code}"),
                ExecEvent::Failed(status) => return Err(status.into()),
                _ => {}
            }
        }
        times.push(began.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

/// How long each container's shim took from the order to make it, just before which its file for complaints is made, until the
/// container's program ran. Too long by as much as the clock of files is coarse.
fn starts(cluster: &str) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for entry in fs::read_dir(Path::new("/run/corten").join(cluster).join("runtime/containers"))?.flatten() {
        let ordered = fs::metadata(entry.path().join("shim.log"))?.created()?.duration_since(UNIX_EPOCH)?;
        let state: serde_json::Value = serde_json::from_slice(&fs::read(entry.path().join("state.json"))?)?;
        let started = state["started_at"].as_u64().context("a container that runs says since when")?;
        times.push(Duration::from_nanos(started).saturating_sub(ordered));
    }
    times.sort_unstable();
    Ok(times)
}

/// A cluster's shims: their command lines name its containers. They are no children of the server.
pub(super) fn shims(cluster: &str) -> Result<Vec<i32>> {
    let place = format!("/run/corten/{cluster}/");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        if command.starts_with("corten-shim") && command.contains(&place) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// What containerd and runc need for the same containers: without a kubelet, without a network of their own.
struct Figures {
    all: Duration,
    single: Vec<Duration>,
    execs: Vec<Duration>,
    memory: f64,
    /// Import and unpack of the images.
    images: Vec<Duration>,
}

struct Containerd {
    child: Child,
    disk: Disk,
    root: PathBuf,
    image: PathBuf,
}

impl Containerd {
    fn measure(args: &NodeArgs, samples: &Samples) -> Result<Figures> {
        let root = debian::rootfs("containerd", &["containerd", "runc"])?;
        let disk = Disk::mount(&cache_dir().join("containerd"), DISK_MIB)?;
        let image = fs::canonicalize(debian::busybox()?)?;
        let mut here = Containerd { child: start(&root, disk.path())?, root, disk, image };
        let figures = here.figures(args, samples);
        here.end()?;
        figures
    }

    fn ctr(&self, args: &[&str]) -> Command {
        let mut command = program(&self.root, "ctr");
        command.arg("--address").arg(self.disk.path().join("containerd.sock")).args(args);
        command
    }

    fn begin(&self, name: &str) -> Command {
        let mut command = self.ctr(&["run", "--detach", "--null-io", "--rootfs"]);
        command.arg(&self.image).args([name, "/bin/sleep", "1000000"]);
        command
    }

    fn figures(&mut self, args: &NodeArgs, samples: &Samples) -> Result<Figures> {
        let images = samples.measure_ctr(self.disk.path(), &|args| self.ctr(args))?;
        let mut single = Vec::new();
        for i in 0..args.single {
            let began = Instant::now();
            run(&mut self.begin(&format!("p{i}")))?;
            single.push(began.elapsed());
        }
        let mut execs = Vec::new();
        for i in 0..EXECS {
            let began = Instant::now();
            run(&mut self.ctr(&["task", "exec", "--exec-id", &format!("e{i}"), "p0", "/bin/true"]))?;
            execs.push(began.elapsed());
        }
        for i in 0..args.single {
            self.remove(&format!("p{i}"))?;
        }
        let began = Instant::now();
        let mut started: Vec<Child> = Vec::new();
        for i in 0..args.pods {
            if started.len() == CLIENTS {
                wait(started.remove(0))?;
            }
            started.push(self.begin(&format!("n{i}")).stdout(Stdio::null()).spawn()?);
        }
        started.into_iter().try_for_each(wait)?;
        let all = began.elapsed();
        // A shim's process goes from its parent: it is found by its name and by the socket that it was given.
        let memory = pss_kib(&self.shims()?) as f64 / args.pods as f64 / 1024.0;
        for i in 0..args.pods {
            self.remove(&format!("n{i}"))?;
        }
        single.sort_unstable();
        execs.sort_unstable();
        Ok(Figures { all, single, execs, memory, images })
    }

    fn shims(&self) -> Result<Vec<i32>> {
        let socket = self.disk.path().join("containerd.sock").to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).into_owned();
            if command.contains("containerd-shim-runc-v2") && command.contains(&socket) {
                found.push(pid);
            }
        }
        Ok(found)
    }

    fn remove(&self, name: &str) -> Result<()> {
        run(&mut self.ctr(&["task", "delete", "--force", name])).map(drop).ok();
        run(&mut self.ctr(&["container", "delete", name])).map(drop)
    }

    fn end(mut self) -> Result<()> {
        // What a failed measurement left.
        let left = text(&mut self.ctr(&["container", "list", "--quiet"])).unwrap_or_default();
        for name in left.lines() {
            self.remove(name)?;
        }
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        self.child.wait()?;
        self.disk.unmount()
    }
}

fn wait(mut child: Child) -> Result<()> {
    match child.wait()? {
        status if status.success() => Ok(()),
        status => bail!("ctr run ended with {status}"),
    }
}

/// A program of the unpacked packages, with their libraries.
fn program(root: &Path, name: &str) -> Command {
    let bin = root.join("usr/bin");
    let path = format!("{}:{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display(), root.join("usr/sbin").display());
    let mut command = Command::new(bin.join(name));
    command.env("PATH", path).env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"));
    command
}

fn start(root: &Path, dir: &Path) -> Result<Child> {
    let log = fs::File::create(dir.join("log"))?;
    let socket = dir.join("containerd.sock");
    let config = dir.join("config.toml");
    fs::write(&config, "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n")?;
    let mut command = program(root, "containerd");
    command.arg("--config").arg(&config).arg("--address").arg(&socket);
    command.arg("--root").arg(dir.join("root")).arg("--state").arg(dir.join("state"));
    let mut child = command.stdout(log.try_clone()?).stderr(log).spawn().context("containerd")?;
    let began = Instant::now();
    while run(program(root, "ctr").arg("--address").arg(&socket).arg("version")).is_err() {
        if let Some(status) = child.try_wait()? {
            bail!("containerd ended with {status}: see {}", dir.join("log").display());
        }
        if began.elapsed() > Duration::from_secs(30) {
            child.kill()?;
            bail!("containerd does not answer: see {}", dir.join("log").display());
        }
    }
    Ok(child)
}

fn quantile(sorted: &[Duration], part: f64) -> Duration {
    let mut sorted = sorted.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() as f64 * part) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

pub(super) fn quantiles(times: &[Duration]) -> String {
    format!("p50 {}, p99 {}", ms(quantile(times, 0.5)), ms(quantile(times, 0.99)))
}

fn verdict(target: &str, met: bool) -> String {
    format!("{target}: {}", if met { "met" } else { "missed" })
}

fn section(rows: &[Row], unpacked: &str) -> String {
    format!(
        "## Pods on a node\n\n{BEGIN}\n\nThe client, the whole cluster and its pods share the machine. Beside it, on the same machine \
         in the same run: Debian's containerd and runc, told by `ctr` to run the same program from an unpacked directory, without \
         kubelet, API, network or probes.\n\n{}{unpacked}\n{END}\n",
        table(rows)
    )
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from("| figure | Corten | containerd + runc | target |\n|---|---|---|---|\n");
    for row in rows {
        text.push_str(&format!("| {} | {} | {} | {} |\n", row.figure, row.ours, row.theirs, row.target));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_times() {
        let times: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(quantiles(&times), "p50 51.00 ms, p99 100.00 ms");
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }
}
