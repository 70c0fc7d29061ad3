//! The workload kinds on their main path, and what a pod offers its processes.

use anyhow::{Result, bail};
use corten_testkit::cluster::Cluster;

use crate::{contains, jsonpath, namespace, shell_pod};

pub(crate) fn examples(cluster: &mut Cluster) -> Result<()> {
    namespace(cluster, "examples")?;
    let n = |args: &[&str]| cluster.kubectl(&[&["-n", "examples"], args].concat());
    let dir = corten_testkit::root().join("examples/workloads");
    n(&["apply", "-f", &dir.to_string_lossy()])?;
    n(&["rollout", "status", "statefulset/db", "--timeout=60s"])?;
    n(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    n(&["rollout", "status", "daemonset/agent", "--timeout=60s"])?;
    n(&["wait", "--for=condition=Ready", "pod/shop", "--timeout=90s"])?;
    n(&["wait", "--for=condition=complete", "job/report", "--timeout=60s"])?;
    n(&["wait", "--for=jsonpath={.status.lastSuccessfulTime}", "cronjob/clock", "--timeout=90s"])?;
    contains(&n(&["logs", "shop", "-c", "log"])?, "GET /")?;
    contains(
        &n(&["exec", "shop", "-c", "shop", "--", "wget", "-q", "-O", "-", "http://db-0.db-service:5432/"])?,
        "db-0",
    )?;
    contains(&n(&["get", "pvc"])?, "data-db-1")?;
    n(&["scale", "statefulset/db", "--replicas=1"])?;
    n(&["wait", "--for=delete", "pod/db-1", "--timeout=30s"])?;
    n(&["delete", "-f", &dir.to_string_lossy(), "--timeout=60s"])?;
    cluster.kubectl(&["delete", "namespace", "examples", "--timeout=60s"]).map(drop)
}

/// Environment, volumes, limits, identity: asked of a process inside.
pub(crate) fn pod_features(cluster: &mut Cluster) -> Result<()> {
    namespace(cluster, "features")?;
    let n = |args: &[&str]| cluster.kubectl(&[&["-n", "features"], args].concat());
    n(&["create", "configmap", "settings", "--from-literal=COLOR=blue"])?;
    n(&["create", "secret", "generic", "hidden", "--from-literal=PASSWORD=s3cret"])?;
    cluster.kubectl_with(&["-n", "features", "apply", "-f", "-"], PROBE)?;
    n(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/probe", "--timeout=60s"])?;
    let log = n(&["logs", "probe"])?;
    for part in [
        "color=blue",
        "password=s3cret",
        "name=probe",
        "memory=67108864",
        "expanded=probe-x",
        "file=blue",
        "secret-mode=440",
        "uid=1000 gid=1000",
        "fsgroup=2000",
        "token=2",
        "readonly=yes",
        "caps=0000000000000000",
        "nnp=1",
        "host=probe",
    ] {
        contains(&log, part)?;
    }
    cluster.kubectl_with(&["-n", "features", "apply", "-f", "-"], &shell_pod("oneshot", "echo done; exit 3"))?;
    n(&["wait", "--for=jsonpath={.status.phase}=Failed", "pod/oneshot", "--timeout=30s"])?;
    let code = jsonpath(cluster, "features", "pod/oneshot", ".status.containerStatuses[0].state.terminated.exitCode")?;
    if code != "3" {
        bail!("exit code {code}");
    }
    cluster.kubectl(&["delete", "namespace", "features", "--timeout=60s"]).map(drop)
}

const PROBE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: probe}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000}
  volumes:
  - {name: settings, configMap: {name: settings}}
  - {name: hidden, secret: {secretName: hidden, defaultMode: 0400}}
  - {name: scratch, emptyDir: {}}
  containers:
  - name: main
    image: test.local/busybox:1
    resources: {limits: {memory: 64Mi, cpu: 500m}}
    securityContext:
      readOnlyRootFilesystem: true
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL]}
      seccompProfile: {type: RuntimeDefault}
    envFrom:
    - configMapRef: {name: settings}
    env:
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: hidden, key: PASSWORD}}}
    - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
    - {name: EXPANDED, value: $(NAME)-x}
    volumeMounts:
    - {name: settings, mountPath: /settings}
    - {name: hidden, mountPath: /hidden}
    - {name: scratch, mountPath: /scratch}
    command: [sh, -c]
    args:
    - |
      echo color=$COLOR; echo password=$PASSWORD; echo name=$NAME; echo memory=$MEMORY; echo expanded=$EXPANDED
      echo file=$(cat /settings/COLOR); echo secret-mode=$(stat -L -c %a /hidden/PASSWORD)
      echo uid=$(id -u) gid=$(id -g)
      touch /scratch/f && echo fsgroup=$(stat -c %g /scratch/f)
      echo token=$(tr -cd . < /var/run/secrets/kubernetes.io/serviceaccount/token | wc -c)
      touch /nope 2>/dev/null || echo readonly=yes
      echo caps=$(grep CapEff /proc/self/status | cut -f2); echo nnp=$(grep NoNewPrivs /proc/self/status | cut -f2)
      echo host=$(hostname)
"#;
