//! A node with settings of its own: manifests of static pods, and the machine's shutdown.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use corten_testkit::cluster::Cluster;
use rustix::process::Signal;

use crate::kills::pause;
use crate::own_server::OwnServer;
use crate::{contains, namespace};

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

const MAPPED: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: mapped}\nspec:\n  hostUsers: false\n  terminationGracePeriodSeconds: 1\n  \
     volumes:\n  - {name: data, emptyDir: {}}\n  - {name: told, downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}\n  \
     containers:\n  - name: root\n    image: test.local/busybox:1\n    command: [sleep, \"1000\"]\n    \
     volumeMounts: [{name: data, mountPath: /data}, {name: told, mountPath: /told}]\n  \
     - name: user\n    image: test.local/busybox:1\n    command: [sleep, \"1000\"]\n    securityContext: {runAsUser: 1000}\n    \
     volumeMounts: [{name: data, mountPath: /data}]\n";

/// `hostUsers: false`: root in the pod is nobody outside, and the pod's volumes are its own users' all the same.
pub(crate) fn host_users(cluster: &mut Cluster) -> Result<()> {
    namespace(cluster, "users")?;
    cluster.kubectl_with(&["-n", "users", "apply", "-f", "-"], MAPPED)?;
    cluster.kubectl(&["-n", "users", "wait", "pod/mapped", "--for=condition=Ready", "--timeout=60s"])?;
    let exec = |container: &str, script: &str| {
        cluster.kubectl(&["-n", "users", "exec", "mapped", "-c", container, "--", "sh", "-c", script])
    };
    let map = exec("root", "cat /proc/self/uid_map")?;
    let numbers: Vec<u32> = map.split_whitespace().map(str::parse).collect::<Result<_, _>>().context(map.clone())?;
    let [0, first, 65536] = numbers[..] else { bail!("uid_map: {map}") };
    ensure!(first >= 65536, "root is mapped to {first}");
    ensure!(exec("user", "cat /proc/self/uid_map")? == map, "the containers of a pod have the same users");
    let written =
        exec("root", "id -u; cat /told/name; echo; echo one > /data/root && chmod 777 /data && stat -c %u /data/root")?;
    ensure!(written == "0\nmapped\n0\n", "{written:?}");
    let written = exec("user", "id -u; cat /data/root; echo two > /data/user && stat -c %u /data/user")?;
    ensure!(written == "1000\none\n1000\n", "{written:?}");
    // A process that has entered the pod's users for a command is root outside until it becomes the command, and it may be the last
    // command's that has not been reaped yet.
    let began = Instant::now();
    loop {
        let outside = owners_outside(first)?;
        if outside == [first, first + 1000] {
            break;
        }
        let late = began.elapsed() > Duration::from_secs(5);
        ensure!(!late, "the pod's processes belong to {outside:?} of this machine");
        pause(Duration::from_millis(20));
    }
    cluster.kubectl(&["delete", "namespace", "users", "--timeout=60s"]).map(drop)
}

/// To whom the processes belong, as this machine sees it, whose users begin at `first`.
fn owners_outside(first: u32) -> Result<Vec<u32>> {
    let mut owners = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir("/proc")? {
        let dir = entry?.path();
        // A process may have gone meanwhile, and what is no process has neither file.
        let read = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap_or_default();
        if read("uid_map").split_whitespace().nth(1) == Some(&first.to_string()) {
            let status = read("status");
            let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
            owners.extend(line.and_then(|ids| ids.split_whitespace().next()).map(str::parse::<u32>).transpose()?);
        }
    }
    Ok(owners.into_iter().collect())
}
