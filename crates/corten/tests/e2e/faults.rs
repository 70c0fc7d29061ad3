//! Bad input: what is refused, and what pods say that cannot run.

use anyhow::Result;
use corten_testkit::cluster::Cluster;

use crate::{contains, namespace, shell_pod};

/// One fault each: part of a manifest and what the answer must say.
const REFUSED: &[(&str, &str)] = &[
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: Bad_Name}\nspec: {containers: [{name: a, image: b}]}",
        "The Pod \"Bad_Name\" is invalid: metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain",
    ),
    ("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: []}", "spec.containers: Required value"),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, image: b, ports: [{containerPort: 70000}]}]}",
        "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {restartPolicy: Sometimes, containers: [{name: a, image: b}]}",
        "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, image: b, imagee: c}]}",
        "unknown field \"spec.containers[0].imagee\"",
    ),
    (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: a, image: b}]}}}",
        "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`",
    ),
    (
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: c}\nspec: {schedule: every day, jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: b}]}}}}}",
        "spec.schedule: Invalid value: \"every day\"",
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 0}]}",
        "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
    ),
];

pub(crate) fn refused_manifests(cluster: &mut Cluster) -> Result<()> {
    for (manifest, answer) in REFUSED {
        contains(&cluster.kubectl_fails(&["create", "-f", "-"], manifest)?, answer)?;
    }
    Ok(())
}

pub(crate) fn failing_pods(cluster: &mut Cluster) -> Result<()> {
    namespace(cluster, "failing")?;
    let n = |args: &[&str]| cluster.kubectl(&[&["-n", "failing"], args].concat());
    let reason = |pod: &str, reason: &str| {
        let path = format!("--for=jsonpath={{.status.containerStatuses[0].state.waiting.reason}}={reason}");
        n(&["wait", &path, &format!("pod/{pod}"), "--timeout=40s"])
    };
    n(&["run", "noimage", "--image=test.local/nothing:1", "--image-pull-policy=Never"])?;
    reason("noimage", "ErrImageNeverPull")?;
    n(&["run", "nocommand", "--image=test.local/busybox:1", "--restart=Never", "--command", "--", "/no/such/program"])?;
    n(&[
        "wait",
        "--for=jsonpath={.status.containerStatuses[0].state.terminated.reason}=StartError",
        "pod/nocommand",
        "--timeout=30s",
    ])?;
    n(&["run", "crashing", "--image=test.local/busybox:1", "--command", "--", "false"])?;
    reason("crashing", "CrashLoopBackOff")?;
    contains(&n(&["describe", "pod", "crashing"])?, "Back-off restarting failed container")?;
    let config = shell_pod("noconfig", "true")
        .replace("    command:", "    envFrom: [{configMapRef: {name: nowhere}}]\n    command:");
    cluster.kubectl_with(&["-n", "failing", "apply", "-f", "-"], &config)?;
    reason("noconfig", "CreateContainerConfigError")?;
    let huge =
        shell_pod("huge", "true").replace("    command:", "    resources: {requests: {cpu: 1000}}\n    command:");
    cluster.kubectl_with(&["-n", "failing", "apply", "-f", "-"], &huge)?;
    n(&[
        "wait",
        "--for=jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].reason}=Unschedulable",
        "pod/huge",
        "--timeout=20s",
    ])?;
    contains(
        &n(&["get", "events", "--field-selector", "involvedObject.name=huge"])?,
        "0/1 nodes are available: 1 Insufficient cpu",
    )?;
    let hungry = shell_pod("hungry", "x=x; while true; do x=$x$x; done");
    let hungry = hungry.replace("    command:", "    resources: {limits: {memory: 16Mi}}\n    command:");
    cluster.kubectl_with(&["-n", "failing", "apply", "-f", "-"], &hungry)?;
    n(&[
        "wait",
        "--for=jsonpath={.status.containerStatuses[0].state.terminated.reason}=OOMKilled",
        "pod/hungry",
        "--timeout=40s",
    ])?;
    cluster.kubectl(&["delete", "namespace", "failing", "--timeout=60s"]).map(drop)
}
