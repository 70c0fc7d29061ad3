//! How the parts become a server: made in order, wired, stopped in reverse.

use std::fs;

use anyhow::{Context as _, Result};

use crate::paths::Cluster;

/// Removes everything that the cluster's node has made: containers, namespaces, mounts, cgroups, links, rules.
///
/// # Errors
/// The first thing that does not go away; everything else has been tried.
pub fn teardown(cluster: &Cluster) -> Result<()> {
    let runtime = corten_runtime::Runtime::new(runtime_config(cluster)?).context("the container runtime")?;
    let containers = runtime.shutdown().context("containers");
    let network = corten_net::teardown_all(&cluster.name, &cluster.run.join("network")).context("network");
    containers.and(network)?;
    match fs::remove_dir_all(&cluster.run) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| cluster.run.display().to_string())?
        }
        _ => {}
    }
    if let Some(root) = cluster.run.parent() {
        // Removed only when it is empty, that is, when this was the last cluster.
        let _ = fs::remove_dir(root);
    }
    Ok(())
}

/// The container runtime of a cluster.
///
/// # Errors
/// If the running program cannot be found.
pub fn runtime_config(cluster: &Cluster) -> Result<corten_runtime::RuntimeConfig> {
    Ok(corten_runtime::RuntimeConfig {
        state_dir: cluster.run.join("containers"),
        exe: std::env::current_exe().context("where is this program?")?,
        cgroup_root: format!("corten-{}", cluster.name),
    })
}
