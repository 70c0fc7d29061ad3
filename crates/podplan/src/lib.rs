//! What a node must do for a pod, without doing it.
//!
//! [`plan`] takes the pod, what was observed of its sandbox and containers, the time and a small [`Memory`], and gives
//! [`Action`]s, the pod's status and when to look again. The node executes actions, notes their outcome in the memory and plans
//! again. A settled pod gives an empty list of actions and its present status.
//!
//! Everything else here is the arithmetic around it, each part a pure function: the environment ([`env`]), downward API
//! ([`downward`]), cgroup values and QoS ([`resources`]), who a container runs as and what it may do ([`security`]), contents of
//! volumes ([`volumes`]), `/etc/hosts` and host names ([`hosts`]), probes ([`probe`]), and which fields are not implemented
//! ([`support`]: such a pod is refused with the field's path, never run with the field ignored).
//!
//! Behaviour follows upstream's kubelet: `pkg/kubelet/kuberuntime/kuberuntime_manager.go` `computePodActions`,
//! `pkg/kubelet/kubelet_pods.go` (status), `pkg/kubelet/status/generate.go` (conditions), `pkg/kubelet/pod_workers.go`
//! (the lifecycle that only goes forward).

mod allotment;
pub mod asked;
mod conditions;
pub mod downward;
pub mod env;
pub mod env_file;
pub mod eviction;
pub mod hosts;
pub mod huge_pages;
mod level;
mod memory;
mod observed;
mod phase;
mod plan;
pub mod preempt;
pub mod probe;
mod resize;
pub mod resources;
mod restart;
pub mod runtime_class;
pub mod security;
pub mod shutdown;
mod status;
pub mod support;
mod terminate;
pub mod volumes;

pub use allotment::Allotment;
pub use memory::{Ending, Lifecycle, Memory, StartFailure};
pub use observed::{Observed, ObservedContainer, ObservedSandbox, Run};
pub use plan::{Action, ContainerKind, Event, NodeFacts, Plan, ProbeKind, ProbeWanted, WhyKill, plan};
pub use resize::ResizeStep;

/// `name_namespace(uid)`, as upstream's messages name a pod (`pkg/kubelet/util/format` `Pod`).
pub fn format_pod(pod: &corten_views::Pod) -> String {
    format!("{}_{}({})", pod.metadata.name, pod.metadata.namespace, pod.metadata.uid)
}

/// A container of a pod by name, whatever its sort.
pub fn container_of<'p>(pod: &'p corten_views::Pod, name: &str) -> Option<&'p corten_views::Container> {
    let spec = &pod.spec;
    spec.containers.iter().chain(&spec.init_containers).chain(&spec.ephemeral_containers).find(|c| c.name == name)
}
