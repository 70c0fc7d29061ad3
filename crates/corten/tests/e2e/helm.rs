//! The real helm: a chart with hooks and definitions of its own.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use corten_testkit::cluster::Cluster;
use corten_testkit::{text, tools};

use crate::{contains, jsonpath, namespace};

const NAMESPACE: &str = "helm";

/// Installs, upgrades, rolls back, tests and uninstalls the chart beside this file.
pub(crate) fn chart(cluster: &mut Cluster) -> Result<()> {
    namespace(cluster, NAMESPACE)?;
    let program = tools::helm()?;
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/chart");
    let chart = chart.to_string_lossy();
    let helm = |args: &[&str]| {
        let mut command = std::process::Command::new(&program);
        command.args(args).args(["--namespace", NAMESPACE]);
        command.env("KUBECONFIG", cluster.kubeconfig()).env("HOME", cluster.data().join("home"));
        text(&mut command)
    };
    let wait = ["--wait", "--timeout", "90s"];
    let hook_ran = |hook: &str, revision: &str| {
        let job = format!("job/shop-{hook}");
        if jsonpath(cluster, NAMESPACE, &job, ".status.succeeded")? != "1" {
            bail!("the hook {hook} did not succeed");
        }
        let of = jsonpath(cluster, NAMESPACE, &job, ".metadata.labels.revision")?;
        if of != revision { bail!("the hook {hook} ran for revision {of}, not {revision}") } else { Ok(()) }
    };
    let greeting = || {
        let data = jsonpath(cluster, NAMESPACE, "configmap/shop-settings", ".data.greeting")?;
        let own = jsonpath(cluster, NAMESPACE, "counter/shop", ".spec.greeting")?;
        if data != own { bail!("the ConfigMap says {data:?}, the Counter {own:?}") } else { Ok(data) }
    };
    let replicas = || jsonpath(cluster, NAMESPACE, "deployment/shop", ".status.availableReplicas");

    contains(&helm(&[&["install", "shop", &chart], &wait[..]].concat())?, "STATUS: deployed")?;
    hook_ran("pre-install", "1")?;
    hook_ran("post-install", "1")?;
    contains(&greeting()?, "hello")?;
    contains(&replicas()?, "1")?;
    contains(&jsonpath(cluster, NAMESPACE, "counter/shop", ".spec.limit")?, "10")
        .context("the definition's default")?;
    contains(&helm(&["list"])?, "shop-1.0.0")?;
    contains(&helm(&["get", "manifest", "shop"])?, "kind: Counter")?;

    let values = ["--set", "greeting=good evening,replicas=2,image=corten.dev/web:v2"];
    contains(&helm(&[&["upgrade", "shop", &chart], &values[..], &wait[..]].concat())?, "STATUS: deployed")?;
    hook_ran("pre-upgrade", "2")?;
    hook_ran("post-upgrade", "2")?;
    contains(&greeting()?, "good evening")?;
    contains(&replicas()?, "2")?;

    contains(&helm(&["test", "shop", "--timeout", "60s"])?, "Phase:          Succeeded")?;

    contains(&helm(&[&["rollback", "shop", "1"], &wait[..]].concat())?, "success")?;
    // The hooks are those of the revision that is gone back to, as they were rendered then.
    hook_ran("pre-rollback", "1")?;
    contains(&greeting()?, "hello")?;
    contains(&replicas()?, "1")?;
    let image = jsonpath(cluster, NAMESPACE, "deployment/shop", ".spec.template.spec.containers[0].image")?;
    contains(&image, "web:v1")?;
    contains(&helm(&["history", "shop"])?, "Rollback to 1")?;

    contains(&helm(&[&["uninstall", "shop"], &wait[..]].concat())?, "uninstalled")?;
    hook_ran("pre-delete", "1")?;
    hook_ran("post-delete", "1")?;
    for gone in ["deployment/shop", "service/shop", "configmap/shop-settings", "counter/shop"] {
        contains(&cluster.kubectl_fails(&["get", "-n", NAMESPACE, gone], "")?, "not found")?;
    }
    // helm leaves definitions alone, for they may have objects of others.
    contains(&cluster.kubectl(&["delete", "crd", "counters.shop.example.com", "--timeout=30s"])?, "deleted")?;
    cluster.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=60s"]).map(drop)
}
