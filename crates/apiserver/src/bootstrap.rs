//! The objects that every cluster has, made when they are missing.

use std::net::IpAddr;
use std::sync::Arc;

use corten_auth::User;
use corten_auth::bootstrap::{self as policy, Reconciled};
use corten_kinds::id;
use corten_object::{KindId, ObjectKey, Status};
use corten_tree::{Tree, tree};
use futures::stream::{self, StreamExt};

use crate::aggregation::register;
use crate::core::Core;
use crate::local::LocalApi;
use crate::own::Own;
use crate::pipeline::{Body, DeleteParameters};

/// The version that `/version` answers: the API is that of Kubernetes v1.37.2.
pub const VERSION: &str = "v1.37.2+corten.0";

/// How many objects are written at once: enough for the store to group them into few commits.
const AT_ONCE: usize = 64;
/// How often a role or a binding is mended while others change it.
const RECONCILE_ATTEMPTS: usize = 5;

/// `/version`
pub(crate) fn version() -> Tree {
    tree!({"major": "1", "minor": "37", "emulationMajor": "1", "emulationMinor": "37", "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "36", "gitVersion": VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": (format!("{}/{}", std::env::consts::OS, arch()))})
}

/// The machine's architecture in Go's words.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Makes what is missing. On a cluster that has everything this only looks.
pub(crate) async fn ensure(core: &Arc<Core>, advertise: IpAddr, port: u16) -> Result<(), Status> {
    // The range comes first and is ready before any Service asks for an address in it: also after a crash in between.
    let mut first = namespaces();
    first.push(service_range(core));
    ensure_all(core, first).await?;
    ensure_range_ready(core).await?;
    let mut rest = policy::objects();
    rest.extend(priority_classes());
    rest.push(storage_class());
    rest.push(authentication_config(core));
    if let Some(ip) = core.services.range().nth(1) {
        rest.push(kubernetes_service(&ip.to_string(), port));
    }
    ensure_all(core, rest).await?;
    reconcile_policy(core).await?;
    register::at_start(core, &LocalApi::new(core.clone(), User::apiserver())).await?;
    core.repair_addresses().await;
    crate::flow::settings::ensure(core).await?;
    ensure_endpoints(core, advertise, port).await
}

/// The server's own ServiceCIDR is ready unless somebody has said otherwise, or its range has changed.
/// (`pkg/controlplane/controller/defaultservicecidr` `syncStatus`)
async fn ensure_range_ready(core: &Arc<Core>) -> Result<(), Status> {
    let key = ObjectKey::new(id::SERVICE_CIDR, "", corten_admission::DEFAULT_RANGE);
    let Some(object) = core.cache.get(&key).filter(|object| !object.head.is_deleting()) else { return Ok(()) };
    let mut tree = object.to_tree();
    let own = tree.list_at("spec.cidrs").first().and_then(Tree::as_str) == Some(&core.services.range().to_string());
    let known = tree.list_at("status.conditions").iter().any(|c| c.str_at("type") == "Ready");
    if !own || known {
        return Ok(());
    }
    let now = corten_object::time::format(core.clock.now());
    tree.set(
        "status.conditions",
        vec![tree!({"type": "Ready", "status": "True", "lastTransitionTime": now, "reason": "",
            "message": "Kubernetes default Service CIDR is ready"})],
    );
    core.update(Own::of(core, key.kind).request(&key, "status"), Body::Tree(tree)).await.map(drop)
}

fn kind_of(core: &Core, object: &Tree) -> Result<KindId, Status> {
    let (api_version, kind) = (object.str_at("apiVersion"), object.str_at("kind"));
    let found = core.registry.gvk(api_version, kind);
    found.map(|k| k.id).ok_or_else(|| Status::internal(format!("no kind {api_version} {kind}")))
}

async fn ensure_all(core: &Arc<Core>, objects: Vec<Tree>) -> Result<(), Status> {
    let mut missing = Vec::new();
    for object in objects {
        let (namespace, name) = (object.str_at("metadata.namespace"), object.str_at("metadata.name"));
        let key = ObjectKey::new(kind_of(core, &object)?, namespace, name);
        if core.cache.get(&key).is_none() {
            missing.push((key, object));
        }
    }
    let made = stream::iter(missing).map(|(key, object)| create(core, key, object)).buffer_unordered(AT_ONCE);
    let results: Vec<Result<(), Status>> = made.collect().await;
    results.into_iter().collect()
}

/// Adds to the roles and bindings that everybody has what they lack.
async fn reconcile_policy(core: &Arc<Core>) -> Result<(), Status> {
    for expected in policy::objects() {
        let (namespace, name) = (expected.str_at("metadata.namespace"), expected.str_at("metadata.name"));
        let key = ObjectKey::new(kind_of(core, &expected)?, namespace, name);
        let own = Own::of(core, key.kind);
        let request = own.request(&key, "");
        for attempt in 0..RECONCILE_ATTEMPTS {
            let Some(existing) = core.cache.get(&key) else {
                own.create(core, &key, expected.clone()).await?;
                break;
            };
            let written = match policy::reconciled(&existing.to_tree(), &expected) {
                Reconciled::Same => break,
                Reconciled::Update(new) => {
                    tracing::info!(name = %key.name, "a bootstrap role or binding gets back what it lacks");
                    core.update(request, Body::Tree(new)).await.map(drop)
                }
                Reconciled::Recreate => core.delete(request, &DeleteParameters::default()).await.map(drop),
            };
            match written {
                // It has changed meanwhile: once more.
                Err(status) if (status.is_conflict() || status.is_not_found()) && attempt + 1 < RECONCILE_ATTEMPTS => {}
                Err(status) => return Err(status),
                Ok(()) => {}
            }
        }
    }
    Ok(())
}

async fn create(core: &Arc<Core>, key: ObjectKey, object: Tree) -> Result<(), Status> {
    Own::of(core, key.kind).create(core, &key, object).await
}

fn namespaces() -> Vec<Tree> {
    let make = |name: &str| {
        tree!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name,
            "labels": {"kubernetes.io/metadata.name": name}}, "spec": {"finalizers": ["kubernetes"]}})
    };
    ["default", "kube-system", "kube-public", "kube-node-lease"].into_iter().map(make).collect()
}

/// `pkg/apis/scheduling/v1/helpers.go`
fn priority_classes() -> Vec<Tree> {
    let make = |name: &str, value: i64, description: &str| {
        tree!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "description": description})
    };
    vec![
        make("system-node-critical", 2_000_001_000, "For pods that must not move from the node that they serve."),
        make("system-cluster-critical", 2_000_000_000, "For pods that the cluster cannot work without."),
    ]
}

fn service_range(core: &Core) -> Tree {
    tree!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": (corten_admission::DEFAULT_RANGE)}, "spec": {"cidrs": [(core.services.range().to_string())]}})
}

fn storage_class() -> Tree {
    tree!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "local-path",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "corten.dev/local-path", "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer"})
}

/// Lets servers in the cluster check client certificates (`pkg/controlplane/controller/clusterauthenticationtrust`).
fn authentication_config(core: &Core) -> Tree {
    let mut data = tree!({"client-ca-file": (core.material.ca_cert_pem.as_str())});
    if let Some(proxy) = &core.request_header {
        data.insert("requestheader-client-ca-file", core.material.proxy_ca_pem.as_str());
        for (key, list) in [
            ("allowed-names", &proxy.allowed_names),
            ("username-headers", &proxy.username_headers),
            ("uid-headers", &proxy.uid_headers),
            ("group-headers", &proxy.group_headers),
            ("extra-headers-prefix", &proxy.extra_prefixes),
        ] {
            let list = Tree::List(list.iter().map(Tree::from).collect());
            data.insert(format!("requestheader-{key}"), list.to_json_string());
        }
    }
    tree!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"}, "data": data})
}

/// `pkg/controlplane/controller/kubernetesservice`
fn kubernetes_service(ip: &str, port: u16) -> Tree {
    tree!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kubernetes", "namespace": "default",
        "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": (i64::from(port))}]}})
}

/// The one endpoint of the `kubernetes` Service; it may have moved since the last start.
async fn ensure_endpoints(core: &Arc<Core>, advertise: IpAddr, port: u16) -> Result<(), Status> {
    let (ip, port) = (advertise.to_string(), i64::from(port));
    let labels = tree!({"endpointslice.kubernetes.io/skip-mirror": "true"});
    let endpoints = tree!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "subsets": [{"addresses": [{"ip": (ip.as_str())}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}]});
    let family = if advertise.is_ipv6() { "IPv6" } else { "IPv4" };
    let slice = tree!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family, "endpoints": [{"addresses": [(ip.as_str())], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}]});
    for (kind, object, path) in [(id::ENDPOINTS, endpoints, "subsets"), (id::ENDPOINT_SLICE, slice, "endpoints")] {
        let key = ObjectKey::new(kind, "default", "kubernetes");
        let Some(old) = core.cache.get(&key) else {
            create(core, key, object).await?;
            continue;
        };
        let old = old.to_tree();
        let same = |part: &str| {
            old.get(part).unwrap_or(&Tree::Null).semantically_equal(object.get(part).unwrap_or(&Tree::Null))
        };
        if same(path) && same("ports") {
            continue;
        }
        core.update(Own::of(core, kind).request(&key, ""), Body::Tree(object)).await?;
    }
    Ok(())
}
