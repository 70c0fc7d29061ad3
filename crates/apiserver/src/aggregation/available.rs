//! Whether the server of an APIService answers (`kube-aggregator/pkg/controllers/status`).

use corten_client::{Api, PatchKind, Target, Write, WriteOptions};
use corten_kinds::id;
use corten_object::{ObjectKey, Status, time};
use corten_tree::{Tree, tree};
use futures::stream::{FuturesUnordered, StreamExt as _};

use super::backend::{ANSWER_MAX, destination, get, path_of};
use super::table::condition;
use super::{ApiService, Backend};
use crate::core::Core;

/// How often a server is asked before it counts as silent: its endpoints are chosen anew each time.
const ATTEMPTS: usize = 5;
/// The label of EndpointSlices that names their Service.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The `Available` condition as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Available {
    pub status: &'static str,
    pub reason: &'static str,
    pub message: String,
}

impl Available {
    fn no(reason: &'static str, message: String) -> Available {
        Available { status: "False", reason, message }
    }

    /// Of a group version that this server serves itself.
    pub fn local() -> Available {
        let message = "Local APIServices are always available".into();
        Available { status: "True", reason: "Local", message }
    }

    /// Whether it should be looked at again soon.
    pub fn failed(&self) -> bool {
        self.reason == "FailedDiscoveryCheck"
    }
}

/// Looks whether a server is there, and asks it.
pub(super) async fn check(core: &Core, service: &ApiService) -> Available {
    let Some(backend) = &service.backend else { return Available::local() };
    if let Err(missing) = endpoints(core, backend) {
        return missing;
    }
    let path = path_of(service);
    let mut answer = ask(core, backend, &path).await;
    if answer.is_err() {
        let mut others: FuturesUnordered<_> = (1..ATTEMPTS).map(|_| ask(core, backend, &path)).collect();
        while let (Err(_), Some(next)) = (&answer, others.next().await) {
            answer = next;
        }
    }
    match answer {
        Ok(()) => Available { status: "True", reason: "Passed", message: "all checks passed".into() },
        Err(why) => Available::no("FailedDiscoveryCheck", why),
    }
}

/// Whether there is a Service with the port, and an endpoint of it.
fn endpoints(core: &Core, backend: &Backend) -> Result<(), Available> {
    let Backend { namespace, name, port, .. } = backend;
    let world = core.cache.read();
    let Some(service) = world.find(id::SERVICE, namespace, name) else {
        return Err(Available::no("ServiceNotFound", format!("service/{name} in {namespace:?} is not present")));
    };
    let service = service.to_tree();
    if service.str_at("spec.type") != "ClusterIP" {
        return Ok(());
    }
    let found = service.list_at("spec.ports").iter().find(|p| p.i64_at("port") == Some((*port).into()));
    let Some(found) = found else {
        let why = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Err(Available::no("ServicePortError", why));
    };
    let slices = world.list_in(id::ENDPOINT_SLICE, namespace);
    let slices: Vec<Tree> =
        slices.filter(|s| s.head.labels.get(SERVICE_NAME) == Some(name)).map(|s| s.to_tree()).collect();
    if slices.is_empty() {
        let why = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Err(Available::no("EndpointsNotFound", why));
    }
    let port_name = found.str_at("name");
    let is_ready = |e: &Tree| e.path("conditions.ready").and_then(Tree::as_bool).unwrap_or(true);
    let serves = |slice: &Tree| {
        let ports = slice.list_at("ports");
        slice.list_at("endpoints").iter().any(is_ready)
            && ports.iter().any(|p| p.str_at("name") == port_name && p.path("port").is_some())
    };
    if slices.iter().any(serves) {
        return Ok(());
    }
    let why =
        format!("endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}");
    Err(Available::no("MissingEndpoints", why))
}

/// Reads what every API server must serve.
async fn ask(core: &Core, backend: &Backend, path: &str) -> Result<(), String> {
    let to = destination(core, backend)?;
    let url = format!("https://{}{path}", to.authority);
    let failed = |why: String| format!("failing or missing response from {url}: {why}");
    let answer = get(core, &to, path, &[], ANSWER_MAX).await.map_err(|why| failed(format!("Get {url:?}: {why}")))?;
    match answer.code {
        200..300 => Ok(()),
        code => Err(failed(format!("bad status from {url}: {code}"))),
    }
}

/// Writes the condition, if it is another one.
pub(super) async fn write(core: &Core, api: &dyn Api, name: &str, available: &Available) -> Result<(), Status> {
    let key = ObjectKey::new(id::API_SERVICE, "", name);
    let Some(object) = core.cache.get(&key) else { return Ok(()) };
    let tree = object.to_tree();
    let old = condition(&tree);
    let text = |field: &str| old.map_or("", |c| c.str_at(field));
    if (text("status"), text("reason"), text("message")) == (available.status, available.reason, &available.message) {
        return Ok(());
    }
    let since = match text("status") == available.status {
        true => text("lastTransitionTime").to_owned(),
        false => time::format(core.clock.now()),
    };
    let new = tree!({"type": "Available", "status": (available.status), "lastTransitionTime": since,
        "reason": (available.reason), "message": (available.message.as_str())});
    let mut conditions = tree.list_at("status.conditions").to_vec();
    match conditions.iter_mut().find(|c| c.str_at("type") == "Available") {
        Some(place) => *place = new,
        None => conditions.push(new),
    }
    let revision = object.head.revision.to_string();
    let body = tree!({"metadata": {"resourceVersion": revision}, "status": {"conditions": (Tree::List(conditions))}});
    let patch = Write::Patch { target: Target::status(key), patch: PatchKind::Merge, body };
    match api.write(patch, WriteOptions::default()).await.map_err(|failure| failure.status) {
        // It has changed: that is an event, and it is looked at again.
        Err(status) if status.is_conflict() || status.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}
