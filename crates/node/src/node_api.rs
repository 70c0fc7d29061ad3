//! What the API server may ask of this node.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use corten_base::BoxFuture;
use corten_client::{
    ByteStream, ExecRequest, ExecSession, LogRequest, NodeAnswer, NodeApi, NodeRequest, PodTarget, PortForwardRequest,
};
use corten_object::{Object, Reason, Status};
use corten_runtime::{Container, ContainerStatus, Sandbox};
use corten_views::Pod;

use crate::pods::PodTable;
use crate::shared::Shared;
use crate::{exec, forward, labels, logs, server};

/// How long a question about a pod that is not known waits for the first list of the pods, after a start.
const FIRST_LIST_MAX: Duration = Duration::from_secs(10);

/// Answers for the pods of this node.
pub struct LocalNode {
    pub shared: Arc<Shared>,
    pub pods: PodTable,
}

/// A container that was asked for.
struct Found {
    pod: Arc<Pod>,
    name: String,
    /// Its instances that the runtime still knows, the newest first.
    instances: Vec<Container>,
}

impl LocalNode {
    /// A pod. Just after the start a pod that runs here may not be known yet: then this waits for the list.
    async fn pod(&self, namespace: &str, name: &str) -> Result<(Arc<Object>, Arc<Pod>), Status> {
        let mut found = self.pods.find(namespace, name);
        if found.is_none() {
            tokio::select! {
                () = self.pods.listed() => found = self.pods.find(namespace, name),
                () = self.shared.clock.sleep(FIRST_LIST_MAX) => {
                    let message = "the node has just started and does not know its pods yet";
                    return Err(Status::new(Reason::ServiceUnavailable, message));
                }
            }
        }
        let object = found.ok_or_else(|| Status::not_found("", "pods", name))?;
        let view = object.view::<Pod>().map_err(Status::internal)?;
        Ok((object, view))
    }

    async fn find(&self, target: &PodTarget) -> Result<Found, Status> {
        let (_, pod) = self.pod(&target.namespace, &target.pod).await?;
        let name = default_container(&pod, &target.container)?;
        let (uid, wanted) = (pod.metadata.uid.clone(), name.clone());
        let listed = self.shared.blocking(move |s| {
            let mut found = s.runtime.list_containers()?;
            found.retain(|c| {
                labels::get(&c.labels, labels::POD_UID) == uid && labels::get(&c.labels, labels::CONTAINER) == wanted
            });
            Ok::<_, corten_runtime::Error>(found)
        });
        let mut instances = listed.await.map_err(Status::internal)?.map_err(Status::internal)?;
        instances.sort_by_key(|c| std::cmp::Reverse(labels::number(&c.labels, labels::ATTEMPT)));
        Ok(Found { pod, name, instances })
    }

    async fn running(&self, target: &PodTarget) -> Result<Container, Status> {
        let found = self.find(target).await?;
        let is_running = |c: &Container| matches!(c.status, ContainerStatus::Running { .. });
        let name = found.name.clone();
        found
            .instances
            .into_iter()
            .find(is_running)
            .ok_or_else(|| Status::bad_request(format!("container {name:?} is not running in pod {:?}", target.pod)))
    }

    async fn open_log(&self, request: LogRequest) -> Result<ByteStream, Status> {
        let found = self.find(&request.target).await?;
        let meta = &found.pod.metadata;
        let dir = self.shared.config.log_dir(&meta.namespace, &meta.name, &meta.uid).join(&found.name);
        let attempts = attempts(&dir);
        let newest = found.instances.first().map(|c| labels::number(&c.labels, labels::ATTEMPT));
        let newest = newest.or(attempts.iter().max().copied());
        let wanted = match (request.previous, newest) {
            (false, Some(n)) => n,
            (true, Some(n)) if attempts.iter().any(|a| *a < n) => {
                attempts.iter().filter(|a| **a < n).max().copied().unwrap_or(0)
            }
            (true, _) => {
                let (name, pod) = (&found.name, &request.target.pod);
                return Err(Status::bad_request(format!(
                    "previous terminated container {name:?} in pod {pod:?} not found"
                )));
            }
            (false, None) => return Err(waiting(&found)),
        };
        let running = found.instances.first().filter(|c| {
            labels::number(&c.labels, labels::ATTEMPT) == wanted && matches!(c.status, ContainerStatus::Running { .. })
        });
        let alive = match running {
            Some(container) if request.follow => {
                let id = container.id.clone();
                let shim =
                    self.shared.blocking(move |s| s.runtime.running_shim(&id)).await.map_err(Status::internal)?;
                shim.map_err(Status::internal)?.map(|s| s.pidfd)
            }
            _ => None,
        };
        logs::open(&self.shared, logs::Source { path: dir.join(format!("{wanted}.log")), alive }, request)
    }

    async fn netns(&self, namespace: &str, name: &str) -> Result<Option<PathBuf>, Status> {
        let (object, pod) = self.pod(namespace, name).await?;
        if pod.spec.host_network {
            return Ok(None);
        }
        let uid = object.head.uid.to_string();
        let listed = self.shared.blocking(move |s| {
            let mut found = s.runtime.list_sandboxes()?;
            found.retain(|b| b.ready && labels::get(&b.labels, labels::POD_UID) == uid);
            Ok::<Vec<Sandbox>, corten_runtime::Error>(found)
        });
        let found = listed.await.map_err(Status::internal)?.map_err(Status::internal)?;
        let sandbox = found.into_iter().max_by_key(|b| b.created_at);
        let sandbox = sandbox.ok_or_else(|| Status::bad_request(format!("pod {name:?} is not running")))?;
        sandbox.netns.map(Some).ok_or_else(|| Status::internal("the pod has no network namespace"))
    }
}

/// The attempts that have a log.
fn attempts(dir: &std::path::Path) -> Vec<u32> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let number = |e: std::fs::DirEntry| e.file_name().to_str()?.strip_suffix(".log")?.parse().ok();
    entries.filter_map(number).collect()
}

fn waiting(found: &Found) -> Status {
    let (name, pod) = (&found.name, &found.pod.metadata.name);
    let state = found.pod.container_status(name).and_then(|s| s.state.waiting.as_ref());
    let message = match state.map(|w| w.reason.as_str()).filter(|r| !r.is_empty()) {
        Some(reason @ ("ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull")) => {
            format!(
                "container {name:?} in pod {pod:?} is waiting to start: trying and failing to pull image ({reason})"
            )
        }
        Some(reason) => format!("container {name:?} in pod {pod:?} is waiting to start: {reason}"),
        None => format!("container {name:?} in pod {pod:?} is not available"),
    };
    Status::bad_request(message)
}

/// The container that was named, or the default one.
fn default_container(pod: &Pod, wanted: &str) -> Result<String, Status> {
    let spec = &pod.spec;
    let all = || spec.containers.iter().chain(&spec.init_containers).chain(&spec.ephemeral_containers);
    if !wanted.is_empty() {
        let known = all().any(|c| c.name == wanted);
        let message = || format!("container {wanted} is not valid for pod {}", pod.metadata.name);
        return known.then(|| wanted.to_owned()).ok_or_else(|| Status::bad_request(message()));
    }
    let annotated = pod.metadata.annotations.get("kubectl.kubernetes.io/default-container");
    let annotated = annotated.filter(|name| all().any(|c| c.name == **name));
    match (annotated, spec.containers.as_slice()) {
        (Some(name), _) => Ok(name.clone()),
        (None, [only]) => Ok(only.name.clone()),
        (None, several) => {
            let names: Vec<&str> = several.iter().map(|c| c.name.as_str()).collect();
            Err(Status::bad_request(format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                pod.metadata.name,
                names.join(" ")
            )))
        }
    }
}

impl NodeApi for LocalNode {
    fn logs(&self, request: LogRequest) -> BoxFuture<'_, Result<ByteStream, Status>> {
        Box::pin(self.open_log(request))
    }

    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecSession, Status>> {
        Box::pin(async move {
            let container = self.running(&request.target).await?;
            match request.command {
                Some(_) => exec::run(&self.shared, &container.id, request).await,
                None => exec::attach(&self.shared, &container.id, request).await,
            }
        })
    }

    fn port_forward(
        &self,
        request: PortForwardRequest,
    ) -> BoxFuture<'_, Result<Pin<Box<dyn corten_client::Duplex>>, Status>> {
        Box::pin(async move {
            let netns = self.netns(&request.namespace, &request.pod).await?;
            let stream = forward::connect(netns, request.port).await?;
            Ok(Box::pin(stream) as Pin<Box<dyn corten_client::Duplex>>)
        })
    }

    fn usage(&self) -> Vec<Arc<corten_kinds::usage::NodeUsage>> {
        self.shared.measured.last().into_iter().collect()
    }

    fn http(&self, request: NodeRequest) -> BoxFuture<'_, Result<NodeAnswer, Status>> {
        Box::pin(server::answer(self, request))
    }
}
