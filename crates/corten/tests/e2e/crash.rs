//! The server dies; its containers do not.

use anyhow::{Result, bail};
use corten_testkit::cluster::Cluster;

use crate::{contains, jsonpath, namespace, shell_pod};

pub(crate) fn containers_survive_the_server(cluster: &mut Cluster) -> Result<()> {
    namespace(cluster, "crash")?;
    let pod = shell_pod("steady", "echo began; trap 'exit 0' TERM; while true; do sleep 1; done");
    cluster.kubectl_with(&["-n", "crash", "apply", "-f", "-"], &pod)?;
    cluster.kubectl(&["-n", "crash", "wait", "--for=condition=Ready", "pod/steady", "--timeout=30s"])?;
    let identity = |cluster: &Cluster| -> Result<String> {
        let status = ".status.containerStatuses[0]";
        let id = jsonpath(cluster, "crash", "pod/steady", &format!("{status}.containerID"))?;
        Ok(id + "/" + &jsonpath(cluster, "crash", "pod/steady", &format!("{status}.restartCount"))?)
    };
    let before = identity(cluster)?;
    cluster.kill_server()?;
    cluster.start()?;
    cluster.kubectl(&["-n", "crash", "wait", "--for=condition=Ready", "pod/steady", "--timeout=30s"])?;
    if identity(cluster)? != before {
        bail!("the container was replaced: {before} became {}", identity(cluster)?);
    }
    contains(&cluster.kubectl(&["-n", "crash", "logs", "steady"])?, "began")?;
    contains(&cluster.kubectl(&["-n", "crash", "exec", "steady", "--", "echo", "alive"])?, "alive")?;
    cluster.kubectl(&["delete", "namespace", "crash", "--timeout=60s"]).map(drop)
}
