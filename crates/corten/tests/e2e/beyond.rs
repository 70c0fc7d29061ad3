//! What Corten does beyond Kubernetes (`docs/beyond.md`), seen by the stock kubectl.

use anyhow::{Result, bail};
use corten_testkit::cluster::Cluster;

use crate::{contains, jsonpath, namespace};

const NS: &str = "beyond";
const BROKEN: &str = "test.local/nothing:1";

fn kubectl(cluster: &Cluster, args: &[&str]) -> Result<String> {
    cluster.kubectl(&[&["-n", NS], args].concat())
}

fn wait_for(cluster: &Cluster, object: &str, path: &str) -> Result<()> {
    kubectl(cluster, &["wait", object, &format!("--for=jsonpath={path}"), "--timeout=60s"]).map(drop)
}

fn apply(cluster: &Cluster, manifest: &str) -> Result<()> {
    cluster.kubectl_with(&["-n", NS, "apply", "-f", "-"], manifest).map(drop)
}

/// A workload of one pod whose image is never pulled.
fn workload(kind: &str, name: &str, annotations: &str, spec: &str, container: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}, annotations: {{{annotations}}}}}\nspec:\n  {spec}\n  \
         replicas: 1\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    \
         spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - {{name: main, image: corten.dev/web:v1, \
         imagePullPolicy: Never{container}}}\n"
    )
}

/// `corten.dev/explain-rollout` and `corten.dev/auto-rollback`.
pub(crate) fn rollouts(cluster: &mut Cluster) -> Result<()> {
    namespace(cluster, NS)?;
    let annotations = "corten.dev/explain-rollout: 'true', corten.dev/auto-rollback: 'true'";
    apply(cluster, &workload("Deployment", "web", annotations, "progressDeadlineSeconds: 8", ""))?;
    kubectl(cluster, &["rollout", "status", "deployment/web", "--timeout=60s"])?;
    let first = kubectl(cluster, &["get", "replicasets", "-o", "jsonpath={.items[0].metadata.name}"])?;
    wait_for(
        cluster,
        "deployment/web",
        &format!("{{.metadata.annotations.corten\\.dev/complete-replica-set}}={first}"),
    )?;
    kubectl(cluster, &["set", "image", "deployment/web", &format!("main={BROKEN}")])?;
    let reason = "{.status.conditions[?(@.type==\"Progressing\")].reason}";
    wait_for(cluster, "deployment/web", &format!("{reason}=ErrImageNeverPull"))?;
    contains(&kubectl(cluster, &["describe", "deployment", "web"])?, "RolloutBlocked")?;
    // Out of time: what was complete comes back, as a new revision.
    wait_for(cluster, "deployment/web", "{.spec.template.spec.containers[0].image}=corten.dev/web:v1")?;
    let done = kubectl(cluster, &["rollout", "status", "deployment/web", "--timeout=60s"])?;
    contains(&done, "successfully rolled out")?;
    wait_for(cluster, "deployment/web", "{.metadata.annotations.deployment\\.kubernetes\\.io/revision}=3")?;
    contains(&kubectl(cluster, &["get", "events"])?, "Rolled back deployment \"web\" from replica set")?;
    // Undo goes to where it came from, and the same happens again.
    kubectl(cluster, &["rollout", "undo", "deployment/web"])?;
    let image = jsonpath(cluster, NS, "deployment/web", ".spec.template.spec.containers[0].image")?;
    contains(&image, BROKEN)?;
    wait_for(cluster, "deployment/web", "{.metadata.annotations.deployment\\.kubernetes\\.io/revision}=5")?;
    kubectl(cluster, &["rollout", "status", "deployment/web", "--timeout=60s"])?;
    kubectl(cluster, &["delete", "deployment", "web", "--cascade=foreground", "--timeout=60s"]).map(drop)
}

/// `corten.dev/roll-on-config` and `corten.dev/replace-broken`.
pub(crate) fn repairs(cluster: &mut Cluster) -> Result<()> {
    kubectl(cluster, &["create", "configmap", "colours", "--from-literal=COLOUR=blue"])?;
    let from = ", envFrom: [{configMapRef: {name: colours}}]";
    apply(cluster, &workload("Deployment", "painter", "corten.dev/roll-on-config: 'true'", "strategy: {}", from))?;
    kubectl(cluster, &["rollout", "status", "deployment/painter", "--timeout=60s"])?;
    wait_for(cluster, "deployment/painter", "{.metadata.annotations.corten\\.dev/config-hash}")?;
    kubectl(cluster, &["patch", "configmap", "colours", "-p", "{\"data\":{\"COLOUR\":\"red\"}}"])?;
    wait_for(cluster, "deployment/painter", "{.metadata.annotations.deployment\\.kubernetes\\.io/revision}=2")?;
    kubectl(cluster, &["rollout", "status", "deployment/painter", "--timeout=60s"])?;
    let painted = kubectl(cluster, &["exec", "deployment/painter", "--", "env"])?;
    contains(&painted, "COLOUR=red")?;

    let broken =
        |on: &str| workload("StatefulSet", "db", on, "serviceName: db", "").replace("corten.dev/web:v1", BROKEN);
    let on = "corten.dev/replace-broken: 'true'";
    apply(cluster, &broken(on))?;
    wait_for(cluster, "pod/db-0", "{.status.containerStatuses[0].state.waiting.reason}=ErrImageNeverPull")?;
    kubectl(cluster, &["set", "image", "statefulset/db", "main=corten.dev/web:v1"])?;
    kubectl(cluster, &["rollout", "status", "statefulset/db", "--timeout=60s"])?;
    kubectl(cluster, &["delete", "deployment/painter", "statefulset/db", "--cascade=foreground", "--timeout=60s"])
        .map(drop)
}

/// `corten run cronjob/x` and `corten restart pod/x -c app`.
pub(crate) fn on_demand(cluster: &mut Cluster) -> Result<()> {
    kubectl(
        cluster,
        &["create", "cronjob", "report", "--schedule=0 0 1 1 *", "--image=test.local/busybox:1", "--", "true"],
    )?;
    let made = cluster.corten(&["run", "cronjob/report", "--name", "report-now", "-n", NS])?;
    contains(&made, "job.batch/report-now created")?;
    kubectl(cluster, &["wait", "--for=condition=complete", "job/report-now", "--timeout=60s"])?;
    let owner = jsonpath(cluster, NS, "job/report-now", ".metadata.ownerReferences[0].name")?;
    contains(&owner, "report")?;

    apply(
        cluster,
        "apiVersion: v1\nkind: Pod\nmetadata: {name: two}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  \
         - {name: app, image: 'corten.dev/web:v1'}\n  - {name: other, image: 'corten.dev/web:v1', args: [--port, '8081']}\n",
    )?;
    kubectl(cluster, &["wait", "--for=jsonpath={.status.phase}=Running", "pod/two", "--timeout=60s"])?;
    let path = |name: &str| format!(".status.containerStatuses[?(@.name==\"{name}\")].restartCount");
    let others = jsonpath(cluster, NS, "pod/two", &path("other"))?;
    cluster.corten(&["restart", "pod/two", "-c", "app", "--why", "lost its connection", "-n", NS])?;
    wait_for(cluster, "pod/two", &format!("{{{}}}=1", path("app")))?;
    if jsonpath(cluster, NS, "pod/two", &path("other"))? != others {
        bail!("the other container was restarted, too");
    }
    contains(&kubectl(cluster, &["get", "events"])?, "lost its connection")?;
    cluster.kubectl(&["delete", "namespace", NS, "--timeout=60s"]).map(drop)
}
