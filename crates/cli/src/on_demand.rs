//! `corten run` and `corten restart`: what else would happen by itself, now.

use anyhow::{Result, bail};
use clap::Args;
use corten_base::{Clock as _, Entropy as _, SystemClock, SystemEntropy};
use corten_client::collection_path;
use corten_kinds::id;
use corten_object::time;
use corten_tree::{Tree, tree};
use hyper::Method;

use crate::Session;
use crate::session::reference;

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The CronJob to run now, as cronjob/report
    target: String,
    /// Name of the job (default: the CronJob's with a suffix)
    #[arg(long, default_value = "")]
    name: String,
}

/// Arguments of `restart`.
#[derive(Debug, Args)]
pub struct RestartArgs {
    /// The pod, as pod/web-0
    target: String,
    /// The container to restart (default: the pod's only one)
    #[arg(short, long, default_value = "")]
    container: String,
    /// Why, for whoever reads the pod's events
    #[arg(long, default_value = "")]
    why: String,
}

/// Longest prefix of a job's name: the rest of its 63 characters is for the suffixes of its pods.
const PREFIX_MAX: usize = 52;

/// Makes a job of a CronJob's template, as `kubectl create job --from` does.
pub(crate) async fn run(session: &Session, args: RunArgs) -> Result<u8> {
    let (kind, name) = session.kind_and_name(&args.target, None)?;
    if kind.id != id::CRON_JOB {
        bail!("only a CronJob can be run: name one as cronjob/NAME");
    }
    let cron = session.client.json(Method::GET, &session.object_path(&kind, &name), "", None).await?;
    let job = match args.name.as_str() {
        "" => {
            let prefix = name.get(..name.len().min(PREFIX_MAX)).unwrap_or(&name);
            format!("{prefix}-{}", SystemEntropy.suffix(5))
        }
        given => given.to_owned(),
    };
    let jobs = session.registry.get(id::JOB);
    let body = job_of(&cron, &job);
    session
        .client
        .json(Method::POST, &collection_path(jobs, &session.namespace), "application/json", Some(&body))
        .await?;
    println!("{} created", reference(jobs, &job));
    Ok(0)
}

/// The job that a CronJob makes when somebody asks for it.
fn job_of(cron: &Tree, name: &str) -> Tree {
    let template = cron.path("spec.jobTemplate").cloned().unwrap_or_default();
    let mut annotations = template.path("metadata.annotations").cloned().unwrap_or_else(Tree::map);
    annotations.insert("cronjob.kubernetes.io/instantiate", "manual");
    let mut metadata = tree!({"name": name, "annotations": annotations, "ownerReferences": [{
        "apiVersion": "batch/v1", "kind": "CronJob", "name": (cron.str_at("metadata.name")),
        "uid": (cron.str_at("metadata.uid")), "controller": true}]});
    if let Some(labels) = template.path("metadata.labels") {
        metadata.insert("labels", labels.clone());
    }
    let spec = template.path("spec").cloned().unwrap_or_else(Tree::map);
    tree!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})
}

/// Asks the pod's node to restart one container.
pub(crate) async fn restart(session: &Session, args: RestartArgs) -> Result<u8> {
    let (kind, name) = session.kind_and_name(&args.target, Some("pod"))?;
    if kind.id != id::POD {
        bail!(
            "only a container of a pod can be restarted: for a workload use `corten rollout restart {}`",
            args.target
        );
    }
    let path = session.object_path(&kind, &name);
    let pod = session.client.json(Method::GET, &path, "", None).await?;
    let container = container_of(&pod, &args.container)?;
    let review = tree!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let me = session.client.json(Method::POST, reviews, "application/json", Some(&review)).await?;
    let request = tree!({"container": (container.as_str()),
        // To be compared with when the container was started, which may be this second.
        "at": (time::format_micro(SystemClock.now())),
        "by": (me.str_at("status.userInfo.username")), "why": (args.why.as_str())});
    let patch = tree!({"metadata": {"annotations": {"corten.dev/restart": (request.to_json_string())}}});
    session.client.json(Method::PATCH, &path, "application/merge-patch+json", Some(&patch)).await?;
    println!("{} container {container} is being restarted", reference(&kind, &name));
    Ok(0)
}

/// The container that is meant, if it can be restarted.
fn container_of(pod: &Tree, wanted: &str) -> Result<String> {
    let name = pod.str_at("metadata.name");
    let all = pod.list_at("spec.containers");
    let sidecars = pod.list_at("spec.initContainers").iter().filter(|c| c.str_at("restartPolicy") == "Always");
    let names: Vec<&str> = all.iter().chain(sidecars.clone()).map(|c| c.str_at("name")).collect();
    let found = match (wanted, all) {
        ("", [only]) => only.str_at("name"),
        ("", _) => bail!("pod {name} has several containers: name one with -c ({})", names.join(", ")),
        (wanted, _) if names.contains(&wanted) => wanted,
        (wanted, _) => bail!("pod {name} has no container {wanted} that can be restarted: it has {}", names.join(", ")),
    };
    let sidecar = sidecars.into_iter().any(|c| c.str_at("name") == found);
    if pod.str_at("spec.restartPolicy") == "Never" && !sidecar {
        bail!("containers of pod {name} are never restarted (restartPolicy: Never)");
    }
    Ok(found.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_makes_the_job_that_kubectl_makes() {
        let cron = tree!({"metadata": {"name": "report", "uid": "u"}, "spec": {"jobTemplate": {
            "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": {"backoffLimit": 1}}}});
        let expected = r#"{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"now","annotations":{"c":"d","cronjob.kubernetes.io/instantiate":"manual"},"ownerReferences":[{"apiVersion":"batch/v1","kind":"CronJob","name":"report","uid":"u","controller":true}],"labels":{"a":"b"}},"spec":{"backoffLimit":1}}"#;
        assert_eq!(job_of(&cron, "now").to_json_string(), expected);
    }

    #[test]
    fn restart_takes_containers_that_can_be_restarted() {
        let pod = |policy: &str| {
            tree!({"metadata": {"name": "p"}, "spec": {"restartPolicy": policy, "containers": [{"name": "a"}],
                "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]}})
        };
        assert_eq!(container_of(&pod("Always"), "").unwrap(), "a");
        assert_eq!(container_of(&pod("Never"), "s").unwrap(), "s");
        assert!(container_of(&pod("Never"), "a").is_err() && container_of(&pod("Always"), "i").is_err());
    }
}
