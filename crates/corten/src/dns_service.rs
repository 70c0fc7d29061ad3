//! The `kube-dns` Service: the name under which pods find the cluster's DNS, which the node serves on its gateway address.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use corten_client::{Api, PatchKind, Target, Write, WriteOptions};
use corten_kinds::id;
use corten_object::ObjectKey;
use corten_tree::{Tree, tree};

/// Makes the Service at its fixed address, and points it at `server`.
///
/// # Errors
/// If the API refuses, for example because the address is another Service's.
pub async fn publish(api: &Arc<dyn Api>, address: Ipv4Addr, server: Ipv4Addr) -> Result<()> {
    let name = "kube-dns";
    let metadata =
        tree!({"name": name, "namespace": "kube-system", "labels": {"k8s-app": name, "kubernetes.io/name": "CoreDNS"}});
    let service = tree!({
        "apiVersion": "v1", "kind": "Service", "metadata": (metadata),
        "spec": {
            "clusterIP": (address.to_string()),
            "ports": [
                {"name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "targetPort": 53, "protocol": "TCP"}
            ]
        }
    });
    let slice = tree!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "kube-system", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [(server.to_string())], "conditions": {"ready": true}}],
        "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    });
    ensure(api, ObjectKey::new(id::SERVICE, "kube-system", name), service, None)
        .await
        .context("the Service kube-dns")?;
    let endpoints = slice.get("endpoints").cloned().unwrap_or_default();
    let patch = tree!({"endpoints": endpoints});
    let key = ObjectKey::new(id::ENDPOINT_SLICE, "kube-system", name);
    ensure(api, key, slice, Some(patch)).await.context("the EndpointSlice kube-dns")
}

/// Creates an object, or patches the one that is there.
async fn ensure(api: &Arc<dyn Api>, key: ObjectKey, body: Tree, patch: Option<Tree>) -> Result<()> {
    let create = Write::Create { target: Target::object(key.clone()), body };
    match api.write(create, WriteOptions::default()).await {
        Ok(_) => return Ok(()),
        Err(failure) if failure.status.is_already_exists() => {}
        Err(failure) => return Err(failure.into()),
    }
    if let Some(body) = patch {
        let patch = Write::Patch { target: Target::object(key), patch: PatchKind::Merge, body };
        api.write(patch, WriteOptions::default()).await?;
    }
    Ok(())
}
