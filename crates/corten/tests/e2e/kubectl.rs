//! The commands that people type, unmodified.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use corten_testkit::cluster::Cluster;

use crate::{contains, jsonpath, namespace, shell_pod};

pub(crate) fn reads(cluster: &mut Cluster) -> Result<()> {
    let k = |args: &[&str]| cluster.kubectl(args);
    contains(&k(&["version"])?, "Server Version: v1.37.2+corten")?;
    contains(&k(&["get", "nodes", "-o", "wide"])?, "Ready")?;
    contains(&k(&["get", "namespaces"])?, "kube-system")?;
    contains(&k(&["get", "services"])?, "kubernetes")?;
    contains(&k(&["api-resources"])?, "deployments")?;
    contains(&k(&["api-versions"])?, "batch/v1")?;
    contains(&k(&["explain", "deployment.spec.strategy"])?, "rollingUpdate")?;
    contains(&k(&["explain", "pod.spec.containers", "--recursive"])?, "imagePullPolicy")?;
    contains(&k(&["auth", "can-i", "create", "pods"])?, "yes")?;
    contains(&k(&["auth", "whoami"])?, "system:masters")?;
    contains(&k(&["get", "--raw", "/readyz"])?, "ok")?;
    contains(&k(&["get", "--raw", "/metrics"])?, "apiserver_request_total")?;
    contains(&k(&["cluster-info"])?, "is running at")?;
    let robot = ["auth", "can-i", "create", "pods", "--as", "system:serviceaccount:default:default"];
    let denied = cluster.kubectl_command(&robot).output()?;
    if denied.status.success() {
        bail!("a service account without a role may create pods");
    }
    contains(&String::from_utf8_lossy(&denied.stdout), "no")?;
    contains(&cluster.kubectl_fails(&["get", "pod", "nothing"], "")?, "pods \"nothing\" not found")
}

pub(crate) fn writes(cluster: &mut Cluster) -> Result<()> {
    namespace(cluster, "writes")?;
    let n = |args: &[&str]| cluster.kubectl(&[&["-n", "writes"], args].concat());
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, labels: {a: b}}\ndata: {k: v}\n";
    let apply = |text: &str| cluster.kubectl_with(&["-n", "writes", "apply", "-f", "-"], text);
    contains(&apply(manifest)?, "configmap/c created")?;
    contains(&apply(manifest)?, "configmap/c unchanged")?;
    contains(&apply(&manifest.replace("k: v", "k: w"))?, "configmap/c configured")?;
    contains(&n(&["get", "configmap", "c", "-o", "yaml"])?, "k: w")?;
    contains(&n(&["get", "configmap", "c", "-o", "json"])?, "\"k\": \"w\"")?;
    if jsonpath(cluster, "writes", "configmap/c", ".data.k")? != "w" {
        bail!("jsonpath does not give the value");
    }
    contains(&n(&["label", "configmap", "c", "x=y"])?, "labeled")?;
    contains(&n(&["annotate", "configmap", "c", "note=1"])?, "annotated")?;
    contains(&n(&["get", "configmap", "-l", "x=y,a=b"])?, "c ")?;
    contains(&n(&["get", "configmap", "--field-selector", "metadata.name=c"])?, "c ")?;
    contains(&n(&["patch", "configmap", "c", "--type=merge", "-p", r#"{"data":{"m":"1"}}"#])?, "patched")?;
    contains(
        &n(&["patch", "configmap", "c", "--type=json", "-p", r#"[{"op":"remove","path":"/data/m"}]"#])?,
        "patched",
    )?;
    contains(&n(&["patch", "configmap", "c", "-p", r#"{"data":{"s":"2"}}"#])?, "patched")?;
    contains(&n(&["create", "configmap", "dry", "--dry-run=server", "--from-literal=a=b"])?, "created")?;
    contains(&cluster.kubectl_fails(&["-n", "writes", "get", "configmap", "dry"], "")?, "not found")?;
    let mut edit = cluster.kubectl_command(&["-n", "writes", "edit", "configmap", "c"]);
    contains(&corten_testkit::text(edit.env("KUBE_EDITOR", "sed -i s/k:.*/k:\\ edited/"))?, "edited")?;
    if jsonpath(cluster, "writes", "configmap/c", ".data.k")? != "edited" {
        bail!("the edit did not arrive");
    }
    watches(cluster)?;
    let replaced = cluster.kubectl_with(&["-n", "writes", "replace", "-f", "-"], manifest)?;
    contains(&replaced, "configmap/c replaced")?;
    if jsonpath(cluster, "writes", "configmap/c", ".data.k")? != "v" {
        bail!("the replacement did not arrive");
    }
    contains(&n(&["delete", "configmap", "c"])?, "deleted")?;
    contains(&cluster.kubectl_fails(&["-n", "writes", "get", "configmap", "c"], "")?, "not found")?;
    cluster.kubectl(&["delete", "namespace", "writes", "--timeout=60s"]).map(drop)
}

/// `get -w` shows a change that comes after it began.
fn watches(cluster: &Cluster) -> Result<()> {
    let mut watch =
        cluster.kubectl_command(&["-n", "writes", "get", "configmap", "-w", "-l", "x=y", "--request-timeout=30s"]);
    let mut child = watch.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
    let heading = lines.next().context("the watch prints a heading")??;
    contains(&heading, "NAME")?;
    lines.next().context("the watch prints what is there")??;
    cluster.kubectl(&["-n", "writes", "label", "configmap", "c", "seen=yes"])?;
    let change = lines.next().context("the watch prints the change")??;
    child.kill()?;
    child.wait()?;
    contains(&change, "c ")
}

pub(crate) fn generators(cluster: &mut Cluster) -> Result<()> {
    namespace(cluster, "gen")?;
    let create = |args: &[&str]| contains(&cluster.kubectl(&[&["-n", "gen", "create"], args].concat())?, "created");
    create(&["configmap", "c", "--from-literal=a=b"])?;
    create(&["secret", "generic", "s", "--from-literal=a=b"])?;
    create(&["secret", "docker-registry", "r", "--docker-server=x", "--docker-username=u", "--docker-password=p"])?;
    create(&["serviceaccount", "robot"])?;
    create(&["role", "reader", "--verb=get,list", "--resource=pods"])?;
    create(&["rolebinding", "reads", "--role=reader", "--serviceaccount=gen:robot"])?;
    create(&["clusterrole", "e2e-nodes", "--verb=get", "--resource=nodes"])?;
    create(&["clusterrolebinding", "e2e-nodes", "--clusterrole=e2e-nodes", "--serviceaccount=gen:robot"])?;
    create(&["deployment", "d", "--image=test.local/busybox:1", "--replicas=0"])?;
    create(&["service", "clusterip", "svc", "--tcp=80:8080"])?;
    create(&["service", "nodeport", "np", "--tcp=80:8080"])?;
    create(&["service", "externalname", "en", "--external-name=example.com"])?;
    create(&["job", "j", "--image=test.local/busybox:1", "--", "true"])?;
    create(&["cronjob", "cj", "--image=test.local/busybox:1", "--schedule=0 0 1 1 *", "--", "true"])?;
    create(&["job", "from-cron", "--from=cronjob/cj"])?;
    create(&["quota", "q", "--hard=pods=10"])?;
    create(&["poddisruptionbudget", "pdb", "--selector=a=b", "--min-available=1"])?;
    create(&["priorityclass", "e2e-high", "--value=1000"])?;
    create(&["ingress", "ing", "--rule=x.example/*=svc:80"])?;
    let token = cluster.kubectl(&["-n", "gen", "create", "token", "robot"])?;
    if token.trim().split('.').count() != 3 {
        bail!("not a token: {token}");
    }
    let as_robot = ["--as", "system:serviceaccount:gen:robot", "-n", "gen"];
    contains(&cluster.kubectl(&[&["auth", "can-i", "list", "pods"], &as_robot[..]].concat())?, "yes")?;
    let refused = cluster.kubectl_fails(&[&["delete", "pod", "x"], &as_robot[..]].concat(), "")?;
    contains(&refused, "cannot delete resource \"pods\" in API group \"\" in the namespace \"gen\"")?;
    cluster.kubectl(&["wait", "-n", "gen", "--for=condition=complete", "job/j", "--timeout=60s"])?;
    for object in ["clusterrole/e2e-nodes", "clusterrolebinding/e2e-nodes", "priorityclass/e2e-high"] {
        cluster.kubectl(&["delete", object])?;
    }
    cluster.kubectl(&["delete", "namespace", "gen", "--timeout=60s"]).map(drop)
}

pub(crate) fn streams(cluster: &mut Cluster) -> Result<()> {
    namespace(cluster, "streams")?;
    let n = |args: &[&str]| cluster.kubectl(&[&["-n", "streams"], args].concat());
    let pod = shell_pod("p", "i=0; while [ $i -lt 600 ]; do echo line $i; i=$((i+1)); sleep 0.2; done");
    cluster.kubectl_with(&["-n", "streams", "apply", "-f", "-"], &pod)?;
    n(&["wait", "--for=condition=Ready", "pod/p", "--timeout=30s"])?;
    contains(&n(&["describe", "pod", "p"])?, "Started")?;
    contains(&n(&["get", "pods", "-o", "wide"])?, "1/1")?;
    let mut follow = cluster.kubectl_command(&["-n", "streams", "logs", "-f", "p"]);
    let mut child = follow.stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
    for i in 0..5 {
        let line = lines.next().context("the log goes on")??;
        contains(&line, &format!("line {i}"))?;
    }
    child.kill()?;
    child.wait()?;
    if n(&["logs", "p", "--tail=1"])?.lines().count() != 1 {
        bail!("--tail=1 gives other than one line");
    }
    contains(&n(&["exec", "p", "--", "sh", "-c", "echo out; echo err >&2; id -u"])?, "out\n0")?;
    let failed = cluster.kubectl_fails(&["-n", "streams", "exec", "p", "--", "sh", "-c", "exit 7"], "")?;
    contains(&failed, "exit code 7")?;
    contains(
        &cluster.kubectl_with(&["-n", "streams", "exec", "-i", "p", "--", "cat"], "through stdin")?,
        "through stdin",
    )?;
    terminal(cluster)?;
    copies(cluster)?;
    exec_over_spdy(cluster)?;
    cluster.kubectl(&["delete", "namespace", "streams", "--timeout=60s"]).map(drop)
}

/// As kubectl did before it spoke WebSockets.
fn exec_over_spdy(cluster: &Cluster) -> Result<()> {
    let spdy = |args: &[&str]| {
        let mut command = cluster.kubectl_command(&[&["-n", "streams", "exec"], args].concat());
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false");
        command
    };
    let told = spdy(&["p", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]).stdin(Stdio::null()).output()?;
    let (out, err) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    contains(&out, "out\n")?;
    contains(&err, "err\n")?;
    contains(&err, "exit code 7")?;
    let bytes: Vec<u8> = (0..300_000u32).map(|i| b'a' + (i % 23) as u8).collect();
    let file = cluster.data().join("spdy");
    std::fs::write(&file, &bytes)?;
    let echoed = spdy(&["-i", "p", "--", "cat"]).stdin(std::fs::File::open(file)?).output()?;
    if echoed.stdout != bytes {
        bail!(
            "cat gives {} of {} bytes: {}",
            echoed.stdout.len(),
            bytes.len(),
            String::from_utf8_lossy(&echoed.stderr)
        );
    }
    Ok(())
}

/// `exec -it` needs a terminal on our side: `script` gives it one.
fn terminal(cluster: &Cluster) -> Result<()> {
    corten_testkit::tools::apt("script", &["bsdutils"])?;
    let kubectl = cluster.kubectl_command(&["-n", "streams", "exec", "-it", "p", "--", "tty"]);
    let words: Vec<String> =
        std::iter::once(kubectl.get_program()).chain(kubectl.get_args()).map(|w| w.to_string_lossy().into()).collect();
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &words.join(" "), "/dev/null"]).env("KUBECONFIG", cluster.kubeconfig()).stdin(Stdio::null());
    contains(&corten_testkit::text(&mut script)?, "/dev/pts/")
}

fn copies(cluster: &Cluster) -> Result<()> {
    let dir = cluster.data().join("copies");
    std::fs::create_dir_all(&dir)?;
    let (there, back) = (dir.join("there"), dir.join("back"));
    let bytes: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(&there, &bytes)?;
    cluster.kubectl(&["-n", "streams", "cp", &there.to_string_lossy(), "p:/tmp/copied"])?;
    cluster.kubectl(&["-n", "streams", "cp", "p:/tmp/copied", &back.to_string_lossy()])?;
    if std::fs::read(&back)? != bytes {
        bail!("the copy differs");
    }
    Ok(())
}

pub(crate) fn rollout(cluster: &mut Cluster) -> Result<()> {
    namespace(cluster, "rollout")?;
    let n = |args: &[&str]| cluster.kubectl(&[&["-n", "rollout"], args].concat());
    n(&["create", "deployment", "web", "--image=corten.dev/web:v1", "--replicas=2"])?;
    let status = || n(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    contains(&status()?, "successfully rolled out")?;
    n(&["set", "image", "deployment/web", "web=corten.dev/web:v2"])?;
    contains(&status()?, "successfully rolled out")?;
    contains(&n(&["rollout", "history", "deployment/web"])?, "2")?;
    n(&["rollout", "undo", "deployment/web"])?;
    status()?;
    contains(&jsonpath(cluster, "rollout", "deployment/web", ".spec.template.spec.containers[0].image")?, "web:v1")?;
    n(&["rollout", "restart", "deployment/web"])?;
    status()?;
    n(&["rollout", "pause", "deployment/web"])?;
    n(&["rollout", "resume", "deployment/web"])?;
    n(&["scale", "deployment/web", "--replicas=3"])?;
    status()?;
    n(&["wait", "--for=jsonpath={.status.readyReplicas}=3", "deployment/web", "--timeout=30s"])?;
    contains(&n(&["describe", "deployment", "web"])?, "ScalingReplicaSet")?;
    n(&["expose", "deployment", "web", "--port=80", "--target-port=8080"])?;
    contains(&n(&["get", "all"])?, "deployment.apps/web")?;
    n(&["delete", "deployment", "web"])?;
    cluster.kubectl(&["delete", "namespace", "rollout", "--timeout=60s"]).map(drop)
}
