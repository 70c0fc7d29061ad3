//! `cargo xtask bench api`: Corten's API server and upstream's, each with its durable store, on one machine in one run.
//!
//! Both run all the time, one at a time is under load; rounds alternate, so that what else the machine does meets both.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use corten_base::{Clock as _, SystemClock};
use corten_client::HttpClient;
use corten_client::kubeconfig::Connection;
use corten_load::{Pace, Sample, Target, Template, Until, Work, thousands};
use corten_testkit::{cache_dir, root};
use corten_tree::tree;
use hyper::Method;

use super::client::load;
use super::page::{self, Figures, Row};
use super::{Bench, cluster_processes, config_map, pss_kib};
use crate::interrupt::unless_interrupted;
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
    /// Make the load with an existing build of the client
    #[arg(long)]
    client: Option<PathBuf>,
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
    /// Before each round, uncounted.
    warm: Duration,
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
    let size = match args.quick {
        false => Size {
            warm: Duration::from_millis(500),
            round: Duration::from_secs(args.seconds),
            rounds: args.rounds,
            pods: 10_000,
            rest: Duration::from_secs(10),
            fans: &[(1, 100, 400), (100, 100, 200), (1000, 60, 60)],
        },
        true => Size {
            warm: Duration::from_millis(100),
            round: Duration::from_millis(500),
            rounds: 1,
            pods: 500,
            rest: Duration::from_secs(1),
            fans: &[(1, 10, 20), (100, 10, 20)],
        },
    };
    let binary = super::release_binary("corten", args.binary.as_deref())?;
    let program = super::release_binary("corten-load", args.client.as_deref())?;
    let dir = cache_dir().join(format!("bench-api-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("pki"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut ours = Bench::new(&binary, "bench-api")?;
    ours.clean()?;
    let outcome = runtime.block_on(unless_interrupted(async {
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
        for side in &sides {
            side.prepare().await?;
        }
        compare(&program, &sides, &size).await
    }));
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
         `synchronous=FULL`). Corten runs its controllers and scheduler, too. Each figure is of {} rounds of {:.0} s, alternating, each after {:.1} s that are not counted.",
        date.trim(),
        size.rounds,
        size.round.as_secs_f64(),
        size.warm.as_secs_f64(),
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

    fn target(&self) -> Target {
        Target::new(&self.connection, &self.processes)
    }
}

/// A pod as a Deployment of a web program has them; no scheduler takes it.
fn pod() -> String {
    let probe = r#"{"httpGet":{"path":"/healthz","port":"http"},"initialDelaySeconds":5,"periodSeconds":10}"#;
    let env = r#"[{"name":"LOG_LEVEL","value":"info"},{"name":"POD_IP","valueFrom":{"fieldRef":{"fieldPath":"status.podIP"}}},{"name":"PASSWORD","valueFrom":{"secretKeyRef":{"name":"web","key":"password"}}}]"#;
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"web-7d9c5b8f6-{{n}}","labels":{{"app.kubernetes.io/name":"web","app.kubernetes.io/part-of":"shop","pod-template-hash":"7d9c5b8f6"}},"annotations":{{"prometheus.io/scrape":"true"}}}},"spec":{{"schedulerName":"nobody","containers":[{{"name":"web","image":"registry.example/shop/web:1.42.0","ports":[{{"name":"http","containerPort":8080}}],"env":{env},"resources":{{"requests":{{"cpu":"100m","memory":"128Mi"}},"limits":{{"memory":"256Mi"}}}},"livenessProbe":{probe},"readinessProbe":{probe},"volumeMounts":[{{"name":"config","mountPath":"/etc/web"}}]}}],"volumes":[{{"name":"config","configMap":{{"name":"web"}}}}]}}}}"#
    )
}

async fn compare(program: &Path, sides: &[Side; 2], size: &Size) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let pods = thousands(size.pods as f64);
    let rate = |work: String, target, theirs, ours| Row { work, figures: Figures::Rate(theirs, ours), target };
    let path = format!("/api/v1/namespaces/{NAMESPACE}");
    let make = Work::Requests {
        clients: MAKERS,
        warm: Duration::ZERO,
        until: Until::Count(size.pods as u64),
        request: Template::post(format!("{path}/pods"), pod()),
    };
    let [theirs, ours] = alternate(program, sides, 1, |_| make.clone())?;
    SystemClock.sleep(size.rest).await;
    let [memory_theirs, memory_ours] = [0, 1].map(|i| pss_kib(&sides[i].processes));
    let memory = format!("memory (PSS) with {pods} pods");
    rows.push(Row { work: memory, figures: Figures::Memory(memory_theirs, memory_ours), target: Some(8.0) });
    rows.push(rate(format!("CREATE {pods} pods, {MAKERS} clients"), Some(3.0), theirs, ours));
    for (work, clients, target, request) in loads(&pods, &path) {
        eprintln!("{work}");
        let [theirs, ours] = alternate(program, sides, size.rounds, |round| {
            let mut request = request.clone();
            for text in [&mut request.path, &mut request.body] {
                *text = text.replace("{round}", &round.to_string());
            }
            Work::Requests { clients, warm: size.warm, until: Until::Span(size.round), request }
        })?;
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
            let fan = Work::Fan { namespace: "bench-fan".into(), watchers, writes, pace };
            let [theirs, ours] = alternate(program, sides, size.rounds.min(2), |_| fan.clone())?;
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
fn alternate(program: &Path, sides: &[Side; 2], rounds: u32, work: impl Fn(u32) -> Work) -> Result<[Sample; 2]> {
    let mut samples = [Sample::default(), Sample::default()];
    for round in 0..rounds {
        for turn in 0..2 {
            let which = (round as usize + turn) % 2;
            let sample = load(program, sides[which].target(), work(round))?;
            samples[which] = std::mem::take(&mut samples[which]).and(sample);
        }
    }
    Ok(samples)
}

/// The loads: what, by how many clients, the ratio that is aimed at, and the request, in which `{round}` stands for the round.
fn loads(pods: &str, path: &str) -> Vec<(String, usize, f64, Template)> {
    let mut loads = Vec::new();
    let clients_of = |n: usize| if n == 1 { "1 client".to_owned() } else { format!("{n} clients") };
    let protobuf = "application/vnd.kubernetes.protobuf";
    for (form, accept, target) in [("JSON", "application/json", 5.0), ("protobuf", protobuf, 2.0)] {
        for clients in [1, 4] {
            let list = Template { accept: accept.into(), ..Template::get(format!("{path}/pods")) };
            loads.push((format!("LIST {pods} pods, {form}, {}", clients_of(clients)), clients, target, list));
        }
    }
    for clients in [1, 16, 64] {
        let get = Template::get(format!("{path}/configmaps/read"));
        loads.push((format!("GET ConfigMap, {}", clients_of(clients)), clients, 5.0, get));
    }
    for clients in [1, 16] {
        let body = r#"{"data":{"n":"{round}-{n}"}}"#;
        let patch =
            Template::patch(format!("{path}/configmaps/patched-{{client}}"), "application/merge-patch+json", body);
        loads.push((format!("PATCH ConfigMap (merge), {}", clients_of(clients)), clients, 3.0, patch));
    }
    for clients in [1, 16] {
        let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"applied-{client}"},"data":{"n":"{round}-{n}","m":"same"}}"#;
        let path = format!("{path}/configmaps/applied-{{client}}?fieldManager=bench&force=true");
        let apply = Template::patch(path, "application/apply-patch+yaml", body);
        loads.push((format!("server-side apply, ConfigMap, {}", clients_of(clients)), clients, 3.0, apply));
    }
    for clients in [1, 16, 64] {
        let body = config_map(&format!("made-{clients}-{{round}}-{{n}}")).to_json_string();
        let create = Template::post(format!("{path}/configmaps"), body);
        loads.push((format!("CREATE ConfigMap, {}", clients_of(clients)), clients, 3.0, create));
    }
    loads
}
