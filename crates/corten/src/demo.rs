//! `corten demo`: every workload kind on a cluster of its own, a rolling update and its rollback, live.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use corten_base::{Clock as _, SystemClock};
use corten_cli::{ConnectArgs, Session, apply, manifest, rollout};
use corten_client::{collection_path, query_escape};
use corten_tree::{Tree, tree};
use futures::StreamExt as _;
use hyper::Method;

use crate::api_args::ApiArgs;
use crate::args::{AddressArgs, DemoArgs, DownArgs, NameArgs, UpArgs};
use crate::host;
use crate::lifecycle;
use crate::paths::Cluster;
use crate::progress::Step;

/// The manifests, part of the binary so that the demo runs anywhere.
const MANIFESTS: &[(&str, &str)] = &[
    ("1-statefulset.yaml", include_str!("../../../examples/workloads/1-statefulset.yaml")),
    ("2-pod.yaml", include_str!("../../../examples/workloads/2-pod.yaml")),
    ("3-deployment.yaml", include_str!("../../../examples/workloads/3-deployment.yaml")),
    ("4-daemonset.yaml", include_str!("../../../examples/workloads/4-daemonset.yaml")),
    ("5-job.yaml", include_str!("../../../examples/workloads/5-job.yaml")),
    ("6-cronjob.yaml", include_str!("../../../examples/workloads/6-cronjob.yaml")),
];

/// Runs the demo.
///
/// # Errors
/// What went wrong; the cluster is taken down all the same unless it is to be kept.
pub fn run(args: DemoArgs) -> Result<()> {
    host::become_root()?;
    let name = NameArgs { name: args.name.clone(), data_dir: None };
    let cluster = Cluster::new(&name)?;
    lifecycle::up(UpArgs { cluster: name.clone(), addresses: AddressArgs::default(), api: ApiArgs::default() })?;
    let outcome = crate::async_runtime()?.block_on(show(&cluster));
    if args.keep {
        println!("\nThe cluster goes on. Some things to try:");
        println!("  kubectl get all");
        println!("  kubectl logs shop -c log -f");
        println!("  kubectl exec -it db-0 -- ls -l /data");
        println!("  kubectl scale deployment web --replicas=5");
        println!("  corten down --name {} --purge", args.name);
    } else {
        lifecycle::down(DownArgs { cluster: name, purge: true })?;
    }
    outcome
}

async fn show(cluster: &Cluster) -> Result<()> {
    let connect = ConnectArgs { kubeconfig: Some(cluster.kubeconfig()), ..ConnectArgs::default() };
    let session = Session::open(&connect)?;
    let mut objects = Vec::new();
    for (file, text) in MANIFESTS {
        manifest::parse(&session, text, Path::new(file), &mut objects)?;
    }
    for object in &objects {
        apply::apply(&session, object).await.with_context(|| format!("{} {}", object.kind.kind, object.name))?;
        println!("applied {} {}", object.kind.kind, object.name);
    }
    for kind in ["StatefulSet", "Deployment", "DaemonSet"] {
        for object in objects.iter().filter(|o| *o.kind.kind == *kind) {
            follow_rollout(&session, kind, &object.name).await?;
        }
    }
    until(&session, "pods", "shop", "pod shop: waited for the database, then started with its sidecar", ready).await?;
    until(&session, "jobs", "report", "job report: three completions", |job| {
        let done = job.i64_at("status.succeeded").unwrap_or(0);
        (done >= 3 && condition(job, "Complete"), format!("{done} of 3 done"))
    })
    .await?;
    rolling(&session).await?;
    until(&session, "cronjobs", "clock", "cronjob clock: runs when the minute turns", |cron| {
        let seconds = 60 - SystemClock.now().as_second() % 60;
        (cron.path("status.lastSuccessfulTime").is_some(), format!("next run in {seconds} s"))
    })
    .await?;
    println!("\nAll workload kinds ran, the rollout and its rollback included.");
    Ok(())
}

async fn follow_rollout(session: &Session, kind: &str, name: &str) -> Result<()> {
    let step = Step::begin(format!("{} {name}", kind.to_lowercase()));
    let kind = session.kind(&kind.to_lowercase())?;
    rollout::status(session, &kind, name, |line| step.note(line)).await?;
    step.done();
    Ok(())
}

/// Changes the Deployment's image, and changes it back.
async fn rolling(session: &Session) -> Result<()> {
    let kind = session.kind("deployments")?;
    let path = session.object_path(&kind, "web");
    let image =
        tree!({"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "corten.dev/web:v2"}]}}}});
    session.client.json(Method::PATCH, &path, "application/strategic-merge-patch+json", Some(&image)).await?;
    println!("\nweb is set to image corten.dev/web:v2: a rolling update");
    follow_rollout(session, "Deployment", "web").await?;
    rollout::undo(session, &kind, "web", 0).await?;
    println!("undone: the rollback");
    follow_rollout(session, "Deployment", "web").await
}

fn condition(object: &Tree, name: &str) -> bool {
    let conditions = object.list_at("status.conditions");
    conditions.iter().any(|c| c.str_at("type") == name && c.str_at("status") == "True")
}

fn ready(pod: &Tree) -> (bool, String) {
    let all = || pod.list_at("status.initContainerStatuses").iter().chain(pod.list_at("status.containerStatuses"));
    let waiting = all().find_map(|c| Some((c.str_at("name"), c.path("state.waiting.reason")?.as_str()?)));
    let detail = waiting.map_or_else(|| pod.str_at("status.phase").to_owned(), |(name, why)| format!("{name}: {why}"));
    (condition(pod, "Ready"), detail)
}

/// Follows one object until it is as wanted.
async fn until(
    session: &Session,
    kind: &str,
    name: &str,
    what: &str,
    judge: impl Fn(&Tree) -> (bool, String),
) -> Result<()> {
    let step = Step::begin(what);
    let kind = session.kind(kind)?;
    let query = query_escape(&format!("metadata.name={name}"));
    let path = format!("{}?fieldSelector={query}", collection_path(&kind, &session.namespace));
    let mut events = session.client.lines(&format!("{path}&watch=true"), "application/json").await?;
    while let Some(event) = events.next().await {
        let event = event?;
        let (done, detail) = judge(event.get("object").unwrap_or(&Tree::Null));
        if done {
            step.done();
            return Ok(());
        }
        step.note(&detail);
    }
    bail!("the watch of {} {name} ended", kind.kind)
}
