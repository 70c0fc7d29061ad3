//! `cargo xtask bench api`: Corten's API server and upstream's, each with its durable store, on one machine in one run.
//!
//! Both run all the time, one at a time is under load; rounds alternate, so that what else the machine does meets both.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use corten_base::{Clock as _, SystemClock};
use corten_client::HttpClient;
use corten_client::kubeconfig::Connection;
use corten_testkit::{cache_dir, root};
use corten_tree::tree;
use hyper::Method;

use super::fan::{Pace, fan_out};
use super::load::{Request, Sample, load, thousands};
use super::page::{self, Figures, Row};
use super::{Bench, cluster_processes, config_map, cpu_ticks, pss_kib};
use crate::oracle::{Disk, Oracle};

/// Arguments of `bench api`.
#[derive(Debug, Args)]
pub(super) struct ApiArgs {
    /// A short form to see that it works: its figures say little, and the page is not written
    #[arg(long)]
    quick: bool,
    /// Measure an existing binary instead of building one
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Seconds of each round of each load
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Rounds of each load
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Do not touch docs/benchmarks.md
    #[arg(long)]
    no_report: bool,
}

/// How much is done.
struct Size {
    round: Duration,
    rounds: u32,
    pods: usize,
    rest: Duration,
    /// Watchers, writes at a steady pace, writes at once.
    fans: &'static [(usize, usize, usize)],
}

/// Writes of a steady watch load, a second.
const STEADY: u32 = 20;
/// The namespace of all objects.
const NAMESPACE: &str = "bench";
/// Clients that make the pods.
const MAKERS: usize = 16;

pub(super) fn run(args: &ApiArgs) -> Result<()> {
    if cfg!(debug_assertions) && !args.quick {
        return super::again_in_release();
    }
    if cfg!(debug_assertions) {
        eprintln!("this client is a debug build: it measures itself as much as the servers");
    }
    let size = match args.quick {
        false => Size {
            round: Duration::from_secs(args.seconds),
            rounds: args.rounds,
            pods: 10_000,
            rest: Duration::from_secs(10),
            fans: &[(1, 100, 400), (100, 100, 200), (1000, 60, 60)],
        },
        true => Size {
            round: Duration::from_millis(500),
            rounds: 1,
            pods: 500,
            rest: Duration::from_secs(1),
            fans: &[(1, 10, 20), (100, 10, 20)],
        },
    };
    let binary = super::release_binary(args.binary.as_deref())?;
    let dir = cache_dir().join(format!("bench-api-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("pki"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut ours = Bench::new(&binary, "bench-api")?;
    ours.clean()?;
    let outcome = runtime.block_on(async {
        let material = corten_faults::server::material(&dir.join("pki"))?;
        let oracle = Oracle::start(&dir, &material, Disk::Durable).await?;
        ours.start(&["--disable-agent"])?;
        let theirs = Connection {
            server: format!("https://{}", oracle.address),
            ca_pem: material.ca_cert_pem.clone().into_bytes(),
            cert_pem: material.admin.cert_pem.clone().into_bytes(),
            key_pem: material.admin.key_pem.clone().into_bytes(),
            ..Connection::default()
        };
        let sides = [
            Side { connection: theirs, processes: oracle.processes() },
            Side { connection: ours.connection()?, processes: cluster_processes("bench-api")? },
        ];
        compare(&sides, &size).await
    });
    ours.clean()?;
    std::fs::remove_dir_all(&dir)?;
    let section = page::section(&conditions(&size), &outcome?);
    println!("{section}");
    match args.quick || args.no_report {
        true => Ok(()),
        false => page::write(&root().join("docs/benchmarks.md"), &section),
    }
}

/// What a reader must know of the figures.
fn conditions(size: &Size) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let date = corten_testkit::text(std::process::Command::new("date").args(["-u", "+%F"])).unwrap_or_default();
    format!(
        "`cargo xtask bench api` made this on {} with {cores} cores, which the servers share with the client: rates are those of \
         both together, CPU is the server's alone for one request (or one event at one watcher). Both sides: TLS, client \
         certificates, RBAC, default admission, and a store that syncs each write to disk (etcd's default; SQLite with \
         `synchronous=FULL`). Corten runs its controllers and scheduler, too. Each figure is of {} rounds of {:.0} s, alternating.",
        date.trim(),
        size.rounds,
        size.round.as_secs_f64(),
    )
}

/// A server under measurement.
struct Side {
    connection: Connection,
    processes: Vec<i32>,
}

impl Side {
    async fn prepare(&self) -> Result<()> {
        let client = HttpClient::new(&self.connection)?;
        let namespaced = format!("/api/v1/namespaces/{NAMESPACE}");
        let make = |path: String, body| {
            let client = client.clone();
            async move {
                match client.json(Method::POST, &path, "application/json", Some(&body)).await {
                    Ok(_) => Ok(()),
                    // Controllers make some of these, where they run.
                    Err(status) if status.code == 409 => Ok(()),
                    Err(status) => bail!("POST {path}: {status}"),
                }
            }
        };
        let named = |kind: &str, name: &str| tree!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
        make("/api/v1/namespaces".into(), named("Namespace", NAMESPACE)).await?;
        make("/api/v1/namespaces".into(), named("Namespace", "bench-fan")).await?;
        make(format!("{namespaced}/serviceaccounts"), named("ServiceAccount", "default")).await?;
        make(format!("{namespaced}/configmaps"), config_map("read")).await?;
        for client in 0..16 {
            make(format!("{namespaced}/configmaps"), config_map(&format!("patched-{client}"))).await?;
        }
        Ok(())
    }

    /// Runs something and notes the server's CPU.
    async fn measured(&self, work: impl Future<Output = Result<Sample>>) -> Result<Sample> {
        let before = cpu_ticks(&self.processes);
        let mut sample = work.await?;
        sample.ticks = cpu_ticks(&self.processes).saturating_sub(before);
        Ok(sample)
    }

    /// Makes the pods, and returns how long each took.
    async fn make_pods(&self, count: usize) -> Result<Sample> {
        let left = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        let mut makers = Vec::new();
        for _ in 0..MAKERS {
            let (client, left) = (HttpClient::new(&self.connection)?, left.clone());
            makers.push(async move {
                let mut times = Vec::new();
                loop {
                    let number = left.fetch_add(1, Ordering::Relaxed);
                    if number >= count as u64 {
                        return Ok::<_, anyhow::Error>(times);
                    }
                    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
                    let began = Instant::now();
                    Request::post(path, pod(number)).send(&client).await?;
                    times.push(began.elapsed());
                }
            });
        }
        let mut times: Vec<Duration> = futures::future::try_join_all(makers).await?.concat();
        times.sort_unstable();
        Ok(Sample { span: began.elapsed(), times, ..Sample::default() })
    }
}

/// A pod as a Deployment of a web program has them; no scheduler takes it.
fn pod(number: u64) -> String {
    let probe = r#"{"httpGet":{"path":"/healthz","port":"http"},"initialDelaySeconds":5,"periodSeconds":10}"#;
    let env = r#"[{"name":"LOG_LEVEL","value":"info"},{"name":"POD_IP","valueFrom":{"fieldRef":{"fieldPath":"status.podIP"}}},{"name":"PASSWORD","valueFrom":{"secretKeyRef":{"name":"web","key":"password"}}}]"#;
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"web-7d9c5b8f6-{number}","labels":{{"app.kubernetes.io/name":"web","app.kubernetes.io/part-of":"shop","pod-template-hash":"7d9c5b8f6"}},"annotations":{{"prometheus.io/scrape":"true"}}}},"spec":{{"schedulerName":"nobody","containers":[{{"name":"web","image":"registry.example/shop/web:1.42.0","ports":[{{"name":"http","containerPort":8080}}],"env":{env},"resources":{{"requests":{{"cpu":"100m","memory":"128Mi"}},"limits":{{"memory":"256Mi"}}}},"livenessProbe":{probe},"readinessProbe":{probe},"volumeMounts":[{{"name":"config","mountPath":"/etc/web"}}]}}],"volumes":[{{"name":"config","configMap":{{"name":"web"}}}}]}}}}"#
    )
}

/// A load, by what it sends.
type Sends = Arc<dyn Fn(usize, u64) -> Request + Send + Sync>;

async fn compare(sides: &[Side; 2], size: &Size) -> Result<Vec<Row>> {
    for side in sides {
        side.prepare().await?;
    }
    let mut rows = Vec::new();
    let [mut theirs, mut ours] = [Sample::default(), Sample::default()];
    for (side, sample) in sides.iter().zip([&mut theirs, &mut ours]) {
        *sample = side.measured(side.make_pods(size.pods)).await?;
    }
    let pods = thousands(size.pods as f64);
    let rate = |work: String, target, theirs, ours| Row { work, figures: Figures::Rate(theirs, ours), target };
    SystemClock.sleep(size.rest).await;
    let [memory_theirs, memory_ours] = [0, 1].map(|i| pss_kib(&sides[i].processes));
    let memory = format!("memory (PSS) with {pods} pods");
    rows.push(Row { work: memory, figures: Figures::Memory(memory_theirs, memory_ours), target: Some(8.0) });
    rows.push(rate(format!("CREATE {pods} pods, {MAKERS} clients"), Some(3.0), theirs, ours));
    for (work, clients, target, sends) in loads(&pods) {
        eprintln!("{work}");
        let [theirs, ours] = alternate(sides, size.rounds, |side| {
            let sends = sends.clone();
            let load = load(&side.connection, clients, size.round, move |client, n| sends(client, n));
            side.measured(load)
        })
        .await?;
        rows.push(rate(work, Some(target), theirs, ours));
    }
    for &(watchers, steady, burst) in size.fans {
        for (pace, writes) in [(Pace::PerSecond(STEADY), steady), (Pace::AtOnce, burst)] {
            let many =
                if watchers == 1 { "1 watcher".to_owned() } else { format!("{} watchers", thousands(watchers as f64)) };
            let work = match pace {
                Pace::PerSecond(rate) => format!("watch, {many}, {rate} writes/s: write to event"),
                Pace::AtOnce => format!("watch, {many}, writes one after the other: events"),
            };
            eprintln!("{work}");
            let [theirs, ours] = alternate(sides, size.rounds.min(2), |side| {
                side.measured(fan_out(&side.connection, "bench-fan", watchers, writes, pace))
            })
            .await?;
            let figures = match pace {
                Pace::PerSecond(_) => Figures::Times(theirs, ours),
                Pace::AtOnce => Figures::Rate(theirs, ours),
            };
            rows.push(Row { work, figures, target: None });
        }
    }
    let [theirs, ours] = [0, 1].map(|i| pss_kib(&sides[i].processes));
    rows.push(Row {
        work: "memory (PSS) at the end of the run".into(),
        figures: Figures::Memory(theirs, ours),
        target: None,
    });
    Ok(rows)
}

/// Rounds of a load on both sides, each beginning with the other side.
async fn alternate<'a, F, Fut>(sides: &'a [Side; 2], rounds: u32, run: F) -> Result<[Sample; 2]>
where
    F: Fn(&'a Side) -> Fut,
    Fut: Future<Output = Result<Sample>>,
{
    let mut samples = [Sample::default(), Sample::default()];
    for round in 0..rounds {
        for turn in 0..2 {
            let which = (round as usize + turn) % 2;
            let sample = run(&sides[which]).await?;
            samples[which] = std::mem::take(&mut samples[which]).and(sample);
        }
    }
    Ok(samples)
}

/// The loads: what, by how many clients, the ratio that is aimed at, and the requests.
fn loads(pods: &str) -> Vec<(String, usize, f64, Sends)> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}");
    let mut loads: Vec<(String, usize, f64, Sends)> = Vec::new();
    let clients_of = |n: usize| if n == 1 { "1 client".to_owned() } else { format!("{n} clients") };
    let protobuf = "application/vnd.kubernetes.protobuf";
    for (form, accept, target) in [("JSON", "application/json", 5.0), ("protobuf", protobuf, 2.0)] {
        for clients in [1, 4] {
            let list = format!("{path}/pods");
            let sends = move |_, _| Request { accept, ..Request::get(list.clone()) };
            let work = format!("LIST {pods} pods, {form}, {}", clients_of(clients));
            loads.push((work, clients, target, Arc::new(sends)));
        }
    }
    for clients in [1, 16, 64] {
        let get = format!("{path}/configmaps/read");
        let sends = move |_, _| Request::get(get.clone());
        loads.push((format!("GET ConfigMap, {}", clients_of(clients)), clients, 5.0, Arc::new(sends)));
    }
    for clients in [1, 16] {
        let path = path.clone();
        let sends = move |client, n| {
            let path = format!("{path}/configmaps/patched-{client}");
            Request::patch(path, "application/merge-patch+json", format!(r#"{{"data":{{"n":"{n}"}}}}"#))
        };
        loads.push((format!("PATCH ConfigMap (merge), {}", clients_of(clients)), clients, 3.0, Arc::new(sends)));
    }
    for clients in [1, 16] {
        let path = path.clone();
        let sends = move |client, n| {
            let name = format!("applied-{client}");
            let body = format!(
                r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"n":"{n}","m":"same"}}}}"#
            );
            let path = format!("{path}/configmaps/{name}?fieldManager=bench&force=true");
            Request::patch(path, "application/apply-patch+yaml", body)
        };
        loads.push((format!("server-side apply, ConfigMap, {}", clients_of(clients)), clients, 3.0, Arc::new(sends)));
    }
    let counter = Arc::new(AtomicU64::new(0));
    for clients in [1, 16, 64] {
        let (path, counter) = (format!("{path}/configmaps"), counter.clone());
        let sends = move |_, _| {
            let name = format!("made-{}", counter.fetch_add(1, Ordering::Relaxed));
            Request::post(path.clone(), config_map(&name).to_json())
        };
        loads.push((format!("CREATE ConfigMap, {}", clients_of(clients)), clients, 3.0, Arc::new(sends)));
    }
    loads
}
