//! What the node sees of a pod.

use corten_base::Timestamp;

/// A pod's sandbox and containers as the runtime has them.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The newest sandbox.
    pub sandbox: Option<ObservedSandbox>,
    /// All containers, in any order.
    pub containers: Vec<ObservedContainer>,
    /// Names of containers whose start is under way (image, creation, postStart hook).
    pub starting: Vec<String>,
    /// Whether making the sandbox is under way.
    pub sandbox_starting: bool,
    /// Whether taking the pod's things away has succeeded.
    pub torn_down: bool,
}

/// A pod's sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedSandbox {
    /// The runtime's id.
    pub id: String,
    /// How many there were before it.
    pub attempt: u32,
    /// Whether it can hold containers and has its network.
    pub ready: bool,
    /// The pod's addresses; empty with the host's network.
    pub ips: Vec<String>,
}

/// A container instance.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedContainer {
    /// The runtime's id.
    pub id: String,
    /// The container's name in the pod.
    pub name: String,
    /// How many instances there were before it.
    pub attempt: u32,
    /// The sandbox it lives in.
    pub sandbox: String,
    /// Its state.
    pub run: Run,
    /// When it was made.
    pub created_at: Timestamp,
    /// The image's name as the spec had it.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// The image that the container's spec named when it was started, to see a change.
    pub spec_image: String,
    /// The termination message.
    pub message: String,
    /// The first process's ids: user, group, supplementary groups.
    pub user: Option<(u32, u32, Vec<u32>)>,
}

/// A container instance's state.
#[derive(Debug, Clone, PartialEq)]
pub enum Run {
    /// Made, not started.
    Created,
    /// Running.
    Running {
        /// Since when.
        started_at: Timestamp,
    },
    /// Ended.
    Exited {
        /// Its code.
        exit_code: i32,
        /// The signal that ended it, 0 for none.
        signal: i32,
        /// The kernel's OOM killer ended it.
        oom_killed: bool,
        /// When it started; `None` if it could not.
        started_at: Option<Timestamp>,
        /// When it ended.
        finished_at: Timestamp,
    },
}

impl ObservedContainer {
    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        matches!(self.run, Run::Running { .. })
    }

    /// The exit code, if it has ended.
    pub fn exit_code(&self) -> Option<i32> {
        match self.run {
            Run::Exited { exit_code, .. } => Some(exit_code),
            _ => None,
        }
    }
}

impl Observed {
    /// The newest instance of a container.
    pub fn latest(&self, name: &str) -> Option<&ObservedContainer> {
        self.containers.iter().filter(|c| c.name == name).max_by_key(|c| (c.attempt, c.created_at))
    }

    /// The newest instance in the present sandbox (upstream's "active" status).
    pub fn active(&self, name: &str) -> Option<&ObservedContainer> {
        let sandbox = &self.sandbox.as_ref()?.id;
        let of = self.containers.iter().filter(|c| c.name == name && c.sandbox == *sandbox);
        of.max_by_key(|c| (c.attempt, c.created_at))
    }

    /// Whether a start is under way.
    pub fn is_starting(&self, name: &str) -> bool {
        self.starting.iter().any(|n| n == name)
    }
}
