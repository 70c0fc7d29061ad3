//! Ways through the API server to pods and nodes: `proxy` and `port-forward`, and attach.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use corten_testkit::cluster::Cluster;

use crate::{contains, jsonpath, namespace, shell_pod};

pub(crate) fn proxies(cluster: &mut Cluster) -> Result<()> {
    namespace(cluster, "proxies")?;
    let page = "<a href=\\\"/next\\\">there</a>";
    let web =
        shell_pod("web", &format!("mkdir /www; echo \"{page}\" > /www/index.html; exec httpd -f -p 8080 -h /www"));
    cluster.kubectl_with(&["-n", "proxies", "apply", "-f", "-"], &web)?;
    cluster.kubectl(&["-n", "proxies", "wait", "--for=condition=Ready", "pod/web", "--timeout=30s"])?;
    cluster.kubectl(&["-n", "proxies", "expose", "pod", "web", "--port=80", "--target-port=8080"])?;
    let raw = |path: &str| cluster.kubectl(&["get", "--raw", path]);
    let pod = "/api/v1/namespaces/proxies/pods/web:8080/proxy";
    contains(&raw(&format!("{pod}/index.html"))?, &format!("<a href=\"{pod}/next\">there</a>"))?;
    contains(&cluster.kubectl_fails(&["get", "--raw", &format!("{pod}/none")], "")?, "not find")?;
    let closed = cluster.kubectl_fails(&["get", "--raw", &pod.replace("8080", "81")], "")?;
    contains(&closed, "error trying to reach service: dial tcp")?;
    contains(&closed, "connect: connection refused")?;
    // The endpoint comes with the pod's readiness; wait for it as everybody does.
    let slice = ["wait", "-n", "proxies", "endpointslice", "-l", "kubernetes.io/service-name=web", "--timeout=30s"];
    cluster.kubectl(&[&slice[..], &["--for=jsonpath={.endpoints[0].conditions.ready}=true"]].concat())?;
    contains(&raw("/api/v1/namespaces/proxies/services/web/proxy/index.html")?, "there")?;
    contains(&raw("/api/v1/namespaces/proxies/services/http:web:80/proxy/")?, "there")?;
    node(cluster)?;
    cluster.kubectl(&["delete", "namespace", "proxies", "--timeout=60s"]).map(drop)
}

/// What a node says of itself.
fn node(cluster: &Cluster) -> Result<()> {
    let name = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"])?;
    let raw = |path: &str| cluster.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{name}/proxy/{path}")]);
    contains(&raw("healthz")?, "ok")?;
    contains(&raw("pods")?, "\"name\":\"web\"")?;
    contains(&raw("configz")?, "cluster.local")?;
    contains(&raw("metrics")?, "kubelet_running_pods")?;
    contains(&raw("metrics/cadvisor")?, "container_memory_working_set_bytes{container=\"main\",namespace=\"proxies\"")?;
    contains(&raw("metrics/resource")?, "node_cpu_usage_seconds_total")?;
    contains(&raw("stats/summary")?, "\"podRef\":{\"name\":\"web\",\"namespace\":\"proxies\"")?;
    contains(&raw("logs/")?, "<pre>")?;
    raw("containerLogs/proxies/web/main")?;
    let other = cluster.kubectl_fails(&["get", "--raw", &format!("/api/v1/nodes/{name}/proxy/nothing")], "")?;
    contains(&other, "not find")
}

pub(crate) fn port_forward(cluster: &mut Cluster) -> Result<()> {
    namespace(cluster, "forward")?;
    let web = shell_pod("web", "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 8080 -h /www");
    cluster.kubectl_with(&["-n", "forward", "apply", "-f", "-"], &web)?;
    cluster.kubectl(&["-n", "forward", "wait", "--for=condition=Ready", "pod/web", "--timeout=30s"])?;
    cluster.kubectl(&["-n", "forward", "expose", "pod", "web", "--port=80", "--target-port=8080"])?;
    // Over WebSockets, as kubectl does by itself, and over SPDY, as it did before.
    for (websockets, target, port) in
        [("true", "pod/web", "8080"), ("false", "pod/web", "8080"), ("true", "service/web", "80")]
    {
        let mut forward = Forward::start(cluster, websockets, target, port)?;
        for _ in 0..3 {
            contains(&get(forward.port)?, "hello")?;
        }
        forward.stop()?;
    }
    let mut forward = Forward::start(cluster, "true", "pod/web", "81")?;
    if get(forward.port).is_ok_and(|answer| !answer.is_empty()) {
        bail!("a closed port answers");
    }
    contains(&forward.complaint()?, "error forwarding port 81 to pod web")?;
    forward.stop()?;
    cluster.kubectl(&["delete", "namespace", "forward", "--timeout=60s"]).map(drop)
}

/// A running `kubectl port-forward`.
struct Forward {
    child: Child,
    port: u16,
    /// kubectl goes on telling of connections: closed, it would end at the next.
    _told: BufReader<ChildStdout>,
}

impl Forward {
    fn start(cluster: &Cluster, websockets: &str, target: &str, port: &str) -> Result<Forward> {
        let mut command = cluster.kubectl_command(&["-n", "forward", "port-forward", target, &format!(":{port}")]);
        command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let mut told = BufReader::new(child.stdout.take().context("stdout is piped")?);
        told.read_line(&mut line)?;
        let own = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next());
        let mut forward = Forward { child, port: 0, _told: told };
        match own.and_then(|port| port.parse().ok()) {
            Some(own) => forward.port = own,
            None => {
                forward.stop()?;
                let mut said = String::new();
                forward.child.stderr.take().context("stderr is piped")?.read_to_string(&mut said)?;
                bail!("port-forward of {target} (WebSockets: {websockets}) says {line:?} {said:?}");
            }
        }
        Ok(forward)
    }

    /// The next line of what it complains of.
    fn complaint(&mut self) -> Result<String> {
        let mut line = String::new();
        BufReader::new(self.child.stderr.take().context("stderr is piped")?).read_line(&mut line)?;
        Ok(line)
    }

    fn stop(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

fn get(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

pub(crate) fn attach(cluster: &mut Cluster) -> Result<()> {
    namespace(cluster, "attach")?;
    let echo = shell_pod("echo", "while read line; do echo got $line; [ $line = end ] && exit 0; done");
    let echo = echo.replace("    command:", "    stdin: true\n    command:");
    // Over WebSockets, as kubectl does by itself, and over SPDY, as it did before.
    for websockets in ["true", "false"] {
        cluster.kubectl_with(&["-n", "attach", "apply", "-f", "-"], &echo)?;
        cluster.kubectl(&["-n", "attach", "wait", "--for=condition=Ready", "pod/echo", "--timeout=30s"])?;
        let file = cluster.data().join("lines");
        std::fs::write(&file, "one\nend\n")?;
        let mut attach = cluster.kubectl_command(&["-n", "attach", "attach", "-i", "echo"]);
        attach.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets).stdin(std::fs::File::open(file)?);
        contains(&corten_testkit::text(&mut attach)?, "got one\ngot end")?;
        let phase = "--for=jsonpath={.status.phase}=Succeeded";
        cluster.kubectl(&["-n", "attach", "wait", phase, "pod/echo", "--timeout=30s"])?;
        if jsonpath(cluster, "attach", "pod/echo", ".status.phase")? != "Succeeded" {
            bail!("the pod goes on");
        }
        cluster.kubectl(&["-n", "attach", "delete", "pod", "echo", "--timeout=60s"])?;
    }
    cluster.kubectl(&["delete", "namespace", "attach", "--timeout=60s"]).map(drop)
}
