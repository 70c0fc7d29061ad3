//! `corten rollout`: status, undo, restart, history.

use anyhow::{Result, anyhow, bail};
use clap::{Args, Subcommand};
use corten_base::{Clock as _, SystemClock};
use corten_client::{collection_path, query_escape};
use corten_kinds::Kind;
use corten_object::LabelSelector;
use corten_tree::{Tree, tree};
use futures::StreamExt as _;
use hyper::Method;

use crate::Session;
use crate::session::reference;

const REVISION: &str = "deployment.kubernetes.io/revision";

/// What to do with a rollout.
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// Wait until the rollout is done, saying what it waits for
    Status(RolloutTarget),
    /// List the revisions
    History(RolloutTarget),
    /// Go back to an earlier revision
    Undo(UndoArgs),
    /// Replace all pods
    Restart(RolloutTarget),
}

/// Names a workload.
#[derive(Debug, Args)]
pub struct RolloutTarget {
    /// KIND/NAME, as deploy/web
    target: String,
}

/// Arguments of `rollout undo`.
#[derive(Debug, Args)]
pub struct UndoArgs {
    /// KIND/NAME, as deploy/web
    target: String,
    /// The revision to go back to; 0 is the last one before this
    #[arg(long, default_value_t = 0)]
    to_revision: i64,
}

pub(crate) async fn run(session: &Session, command: RolloutCommand) -> Result<u8> {
    match command {
        RolloutCommand::Status(t) => {
            let (kind, name) = session.kind_and_name(&t.target, None)?;
            status(session, &kind, &name, |line| println!("{line}")).await?;
        }
        RolloutCommand::History(t) => {
            let (kind, name) = session.kind_and_name(&t.target, None)?;
            println!("{}\nREVISION  CHANGE-CAUSE", reference(&kind, &name));
            for revision in revisions(session, &kind, &name).await? {
                println!("{:<9} {}", revision.number, revision.cause);
            }
        }
        RolloutCommand::Undo(args) => {
            let (kind, name) = session.kind_and_name(&args.target, None)?;
            undo(session, &kind, &name, args.to_revision).await?;
            println!("{} rolled back", reference(&kind, &name));
        }
        RolloutCommand::Restart(t) => {
            let (kind, name) = session.kind_and_name(&t.target, None)?;
            let now = SystemClock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let annotations = tree!({"kubectl.kubernetes.io/restartedAt": now});
            let patch = tree!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
            merge(session, &kind, &name, &patch).await?;
            println!("{} restarted", reference(&kind, &name));
        }
    }
    Ok(0)
}

/// Follows a rollout to its end and tells each new state.
///
/// # Errors
/// If the rollout fails (its deadline is exceeded) or the object is gone.
pub async fn status(session: &Session, kind: &Kind, name: &str, mut tell: impl FnMut(&str)) -> Result<()> {
    let query = query_escape(&format!("metadata.name={name}"));
    let path = format!("{}?fieldSelector={query}", collection_path(kind, &session.namespace));
    let list = session.client.json(Method::GET, &path, "", None).await?;
    let object = list.list_at("items").first().ok_or_else(|| anyhow!("{} not found", reference(kind, name)))?;
    let mut last = String::new();
    let mut judge = |object: &Tree| -> Result<bool> {
        let (line, done) = progress(&kind.kind, name, object)?;
        if line != last {
            tell(&line);
        }
        last = line;
        Ok(done)
    };
    if judge(object)? {
        return Ok(());
    }
    let revision = list.str_at("metadata.resourceVersion");
    let mut events =
        session.client.lines(&format!("{path}&watch=true&resourceVersion={revision}"), "application/json").await?;
    while let Some(event) = events.next().await {
        let event = event?;
        match event.str_at("type") {
            "DELETED" => bail!("object has been deleted"),
            "ADDED" | "MODIFIED" if judge(event.get("object").unwrap_or(&Tree::Null))? => return Ok(()),
            _ => {}
        }
    }
    bail!("the watch ended before the rollout did")
}

/// One line on where a rollout stands, in kubectl's words, and whether it is done
/// (`k8s.io/kubectl/pkg/polymorphichelpers/rollout_status.go`).
fn progress(kind: &str, name: &str, o: &Tree) -> Result<(String, bool)> {
    let n = |path: &str| o.i64_at(path).unwrap_or(0);
    let want = o.i64_at("spec.replicas").unwrap_or(1);
    let observed = n("status.observedGeneration") >= n("metadata.generation");
    let line = match kind {
        "Deployment" if observed => {
            let conditions = o.list_at("status.conditions");
            let progressing = conditions.iter().find(|c| c.str_at("type") == "Progressing");
            if progressing.is_some_and(|c| c.str_at("reason") == "ProgressDeadlineExceeded") {
                bail!("deployment {name:?} exceeded its progress deadline");
            }
            let (updated, all, available) =
                (n("status.updatedReplicas"), n("status.replicas"), n("status.availableReplicas"));
            let waiting = format!("Waiting for deployment {name:?} rollout to finish: ");
            if updated < want {
                format!("{waiting}{updated} out of {want} new replicas have been updated...")
            } else if all > updated {
                format!("{waiting}{} old replicas are pending termination...", all - updated)
            } else if available < updated {
                format!("{waiting}{available} of {updated} updated replicas are available...")
            } else {
                return Ok((format!("deployment {name:?} successfully rolled out"), true));
            }
        }
        "DaemonSet" if observed => {
            let (updated, want) = (n("status.updatedNumberScheduled"), n("status.desiredNumberScheduled"));
            let available = n("status.numberAvailable");
            let waiting = format!("Waiting for daemon set {name:?} rollout to finish: ");
            if updated < want {
                format!("{waiting}{updated} out of {want} new pods have been updated...")
            } else if available < want {
                format!("{waiting}{available} of {want} updated pods are available...")
            } else {
                return Ok((format!("daemon set {name:?} successfully rolled out"), true));
            }
        }
        "StatefulSet" if observed => {
            if n("status.readyReplicas") < want {
                format!("Waiting for {} pods to be ready...", want - n("status.readyReplicas"))
            } else if o.str_at("status.updateRevision") != o.str_at("status.currentRevision") {
                let updated = n("status.updatedReplicas");
                format!(
                    "waiting for statefulset rolling update to complete {updated} pods at revision {}...",
                    o.str_at("status.updateRevision")
                )
            } else {
                let revision = o.str_at("status.currentRevision");
                let line = format!(
                    "statefulset rolling update complete {} pods at revision {revision}...",
                    n("status.currentReplicas")
                );
                return Ok((line, true));
            }
        }
        "Deployment" | "DaemonSet" | "StatefulSet" => {
            format!("Waiting for {} spec update to be observed...", kind.to_lowercase())
        }
        other => bail!("no status viewer has been implemented for {other}"),
    };
    Ok((line, false))
}

struct Revision {
    number: i64,
    cause: String,
    /// The merge patch that brings the template back.
    template: Tree,
}

/// The revisions that a workload can go back to, oldest first.
async fn revisions(session: &Session, kind: &Kind, name: &str) -> Result<Vec<Revision>> {
    let owner = session.client.json(Method::GET, &session.object_path(kind, name), "", None).await?;
    let selector = LabelSelector::from_tree(owner.path("spec.selector")).map_err(|e| anyhow!(e))?;
    let deployment = &*kind.kind == "Deployment";
    let holder = session.kind(if deployment { "replicasets" } else { "controllerrevisions" })?;
    let path = collection_path(&holder, &session.namespace);
    let path = format!("{path}?labelSelector={}", query_escape(&selector.to_string()));
    let list = session.client.json(Method::GET, &path, "", None).await?;
    let uid = owner.str_at("metadata.uid");
    let owned = |o: &&Tree| o.list_at("metadata.ownerReferences").iter().any(|r| r.str_at("uid") == uid);
    let mut found: Vec<Revision> =
        list.list_at("items").iter().filter(owned).map(|o| revision(o, deployment)).collect();
    found.sort_by_key(|r| r.number);
    Ok(found)
}

fn revision(holder: &Tree, deployment: bool) -> Revision {
    let annotation =
        |key: &str| holder.at(&["metadata", "annotations", key]).and_then(Tree::as_str).unwrap_or_default();
    let cause = match annotation("kubernetes.io/change-cause") {
        "" => "<none>".to_owned(),
        cause => cause.to_owned(),
    };
    let (number, template) = if deployment {
        let mut template = holder.path("spec.template").cloned().unwrap_or_default();
        template.make_map_at("metadata.labels").remove("pod-template-hash");
        (annotation(REVISION).parse().unwrap_or(0), template)
    } else {
        (holder.i64_at("revision").unwrap_or(0), holder.path("data.spec.template").cloned().unwrap_or_default())
    };
    Revision { number, cause, template }
}

/// Brings an earlier revision's template back.
///
/// # Errors
/// If there is no such revision, or the server refuses.
pub async fn undo(session: &Session, kind: &Kind, name: &str, to: i64) -> Result<()> {
    let all = revisions(session, kind, name).await?;
    let found = match to {
        0 => {
            all.iter().rev().nth(1).ok_or_else(|| anyhow!("no rollout history found for {}", reference(kind, name)))?
        }
        to => all
            .iter()
            .find(|r| r.number == to)
            .ok_or_else(|| anyhow!("unable to find specified revision {to} in history"))?,
    };
    let mut template = found.template.clone();
    template.make_map().remove("$patch");
    let patch = tree!([{"op": "replace", "path": "/spec/template", "value": template}]);
    let path = session.object_path(kind, name);
    session.client.json(Method::PATCH, &path, "application/json-patch+json", Some(&patch)).await?;
    Ok(())
}

async fn merge(session: &Session, kind: &Kind, name: &str, patch: &Tree) -> Result<()> {
    let path = session.object_path(kind, name);
    session.client.json(Method::PATCH, &path, "application/merge-patch+json", Some(patch)).await?;
    Ok(())
}
