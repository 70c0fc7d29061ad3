//! A node with settings of its own: manifests of static pods, and the machine's shutdown.

use anyhow::{Result, bail, ensure};
use corten_testkit::cluster::Cluster;
use rustix::process::Signal;

use crate::contains;
use crate::own_server::OwnServer;

const NODE: &str = "e2e-node";
const EVICTION: &str = "--eviction-hard=memory.available<50Mi,nodefs.available<1%";

fn field(cluster: &Cluster, server: &OwnServer, object: &str, path: &str) -> Result<String> {
    server.kubectl(cluster, &["get", object, "-o", &format!("jsonpath={{{path}}}")])
}

fn wait(cluster: &Cluster, server: &OwnServer, object: &str, what: &str) -> Result<()> {
    server.kubectl(cluster, &["wait", object, &format!("--for={what}"), "--timeout=60s"]).map(drop)
}

/// A manifest's pod is seen, read and entered through its mirror like any other; whoever deletes the mirror deletes nothing; a wrong
/// manifest is an event; the manifest's removal is the pod's end.
pub(crate) fn static_pods(cluster: &mut Cluster) -> Result<()> {
    let mut server = OwnServer::new(cluster, "e2e-node")?;
    let dir = server.dir().join("manifests");
    std::fs::create_dir(&dir)?;
    let web = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: web}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
         containers:\n  - name: main\n    image: corten.dev/web:v1\n    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}\n";
    std::fs::write(dir.join("web.yaml"), web)?;
    server.start(&["--node-name", NODE, "--pod-manifest-path", &dir.to_string_lossy(), EVICTION])?;
    let pod = "pod/web-e2e-node";
    wait(cluster, &server, pod, "create")?;
    wait(cluster, &server, pod, "condition=Ready")?;
    let id = |server: &OwnServer| field(cluster, server, pod, ".status.containerStatuses[0].containerID");
    let (before, uid) = (id(&server)?, field(cluster, &server, pod, ".metadata.uid")?);
    contains(&field(cluster, &server, pod, ".metadata.ownerReferences[0].kind")?, "Node")?;
    contains(&server.kubectl(cluster, &["exec", "web-e2e-node", "--", "hostname"])?, "web-e2e-node")?;
    contains(&server.kubectl(cluster, &["describe", "pod", "web-e2e-node"])?, "Started")?;
    server.kubectl(cluster, &["delete", pod, "--wait=false"])?;
    let mut again = uid.clone();
    for _ in 0..200 {
        again = field(cluster, &server, pod, ".metadata.uid").unwrap_or_default();
        if !again.is_empty() && again != uid {
            break;
        }
    }
    ensure!(again != uid && !again.is_empty(), "the mirror did not come back");
    wait(cluster, &server, pod, "condition=Ready")?;
    ensure!(id(&server)? == before, "the pod was started anew");
    std::fs::write(dir.join("wrong.yaml"), "apiVersion: v1\nkind: Pod\nmetadata: {name: wrong}\n")?;
    std::fs::remove_file(dir.join("web.yaml"))?;
    wait(cluster, &server, pod, "delete")?;
    let events = server.kubectl(cluster, &["get", "events", "--field-selector", "reason=InvalidStaticPod"])?;
    contains(&events, "wrong.yaml: invalid pod: spec.containers: Required value")?;
    server.signal(Signal::TERM)?;
    let status = server.wait()?;
    ensure!(status.success(), "the server ended with {status}");
    server.down()
}

/// SIGPWR: ordinary pods end before critical ones, all say why; meanwhile the node is not ready and takes nothing; then the server ends.
/// When the machine is up again, static pods are, too.
pub(crate) fn graceful_node_shutdown(cluster: &mut Cluster) -> Result<()> {
    let mut server = OwnServer::new(cluster, "e2e-node")?;
    let dir = server.dir().join("manifests");
    std::fs::create_dir(&dir)?;
    let pod = |name: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n{more}  terminationGracePeriodSeconds: 6\n  containers:\n  - name: main\n    image: \
             corten.dev/toolbox:latest\n    lifecycle: {{preStop: {{sleep: {{seconds: 4}}}}}}\n"
        )
    };
    std::fs::write(dir.join("fixed.yaml"), pod("fixed", ""))?;
    let manifests = dir.to_string_lossy().into_owned();
    let flags = ["--node-name", NODE, "--pod-manifest-path", &manifests, "--shutdown-grace-period=40s", EVICTION];
    let flags = [&flags[..], &["--shutdown-grace-period-critical-pods=20s"]].concat();
    server.start(&flags)?;
    wait(cluster, &server, "serviceaccount/default", "create")?;
    server.kubectl_with(cluster, &["apply", "-f", "-"], &pod("plain", ""))?;
    server.kubectl_with(
        cluster,
        &["apply", "-f", "-"],
        &pod("critical", "  priorityClassName: system-cluster-critical\n"),
    )?;
    wait(cluster, &server, "pod/fixed-e2e-node", "create")?;
    for name in ["pod/plain", "pod/critical", "pod/fixed-e2e-node"] {
        wait(cluster, &server, name, "condition=Ready")?;
    }
    server.signal(Signal::POWER)?;
    wait(cluster, &server, "node/e2e-node", "condition=Ready=False")?;
    let ready = ".status.conditions[?(@.type==\"Ready\")].message";
    contains(&field(cluster, &server, "node/e2e-node", ready)?, "node is shutting down")?;
    // Without a scheduler, which puts nothing on a node that is not ready.
    server.kubectl_with(cluster, &["apply", "-f", "-"], &pod("late", "  nodeName: e2e-node\n"))?;
    wait(cluster, &server, "pod/late", "jsonpath={.status.phase}=Failed")?;
    contains(&field(cluster, &server, "pod/late", ".status.reason")?, "NodeShutdown")?;
    let status = server.wait()?;
    ensure!(status.success(), "the server ended with {status}");

    server.start(&flags)?;
    wait(cluster, &server, "node/e2e-node", "condition=Ready")?;
    let mut ends = Vec::new();
    for name in ["pod/plain", "pod/critical"] {
        let of = |path: &str| field(cluster, &server, name, path);
        let said = format!("{} {}: {}", of(".status.phase")?, of(".status.reason")?, of(".status.message")?);
        ensure!(
            said == "Failed Terminated: Pod was terminated in response to imminent node shutdown.",
            "{name}: {said}"
        );
        contains(&of(".status.conditions[?(@.type==\"DisruptionTarget\")].reason")?, "TerminationByKubelet")?;
        ends.push(of(".status.containerStatuses[0].state.terminated.finishedAt")?);
    }
    if ends[0] >= ends[1] {
        bail!("ordinary pods end before critical ones: {ends:?}");
    }
    wait(cluster, &server, "pod/fixed-e2e-node", "condition=Ready")?;
    server.down()
}
