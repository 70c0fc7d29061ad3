//! One pod: its worker and the jobs that the worker starts.

pub mod hooks;
pub mod image;
pub mod kill;
pub mod observe;
pub mod probes;
mod resize;
pub mod sandbox;
pub mod spec;
pub mod start;
pub mod teardown;
mod worker;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use corten_podplan::ObservedContainer;
use corten_views::Pod;
use futures::future::AbortHandle;

use crate::events::About;
use crate::shared::Shared;

pub use worker::{Inventory, Origin, Update, Worker};

/// Results of jobs that wait for their worker; a full queue makes the jobs wait.
pub const INBOX_MAX: usize = 64;

/// What a job tells its worker.
pub enum Message {
    /// A container has ended.
    Exited(String),
    /// The sandbox is there, or not.
    Sandbox(Result<corten_podplan::ObservedSandbox, String>),
    /// A container exists, or has changed its state.
    Container(Box<ObservedContainer>),
    /// How far a container's image has come.
    Progress(String, String),
    /// A start is over.
    Started(String, Result<(), corten_podplan::StartFailure>),
    /// A container's record is gone.
    Removed(String),
    /// A probe has run.
    Probe { id: String, container: String, kind: corten_podplan::ProbeKind, answer: probes::Answer },
    /// The node needs what the pod uses.
    Evict(corten_podplan::eviction::Eviction),
    /// The machine goes down: end within so many seconds.
    ShutDown { grace_seconds: i64 },
    /// So many steps of a resize have been made, and then this went wrong.
    Resized(usize, Option<String>),
    /// Everything is taken away, or not.
    TornDown(Result<(), String>),
}

/// The workers that run, by uid of their pods.
#[derive(Default)]
pub struct Mailboxes(Mutex<HashMap<String, tokio::sync::mpsc::Sender<Message>>>);

impl Mailboxes {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, tokio::sync::mpsc::Sender<Message>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a pod has a worker that still makes it run.
    pub fn has(&self, uid: &str) -> bool {
        self.lock().contains_key(uid)
    }

    fn open(&self, uid: &str, outbox: tokio::sync::mpsc::Sender<Message>) {
        self.lock().insert(uid.to_owned(), outbox);
    }

    fn close(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Tells a pod's worker; nothing if there is none.
    pub async fn send(&self, uid: &str, message: Message) {
        let outbox = self.lock().get(uid).cloned();
        if let Some(outbox) = outbox {
            let _ = outbox.send(message).await;
        }
    }
}

/// A pod as its jobs know it.
#[derive(Clone)]
pub struct PodContext {
    pub shared: Arc<Shared>,
    pub pod: Arc<Pod>,
    pub outbox: tokio::sync::mpsc::Sender<Message>,
    /// Whether the pod is being ended: what it waits for is of no use any more.
    pub ending: tokio::sync::watch::Receiver<bool>,
}

impl PodContext {
    /// Completes when the pod is being ended.
    pub async fn ended(&self) {
        if self.ending.clone().wait_for(|ending| *ending).await.is_err() {
            std::future::pending().await
        }
    }

    pub fn uid(&self) -> &str {
        &self.pod.metadata.uid
    }

    pub fn dir(&self) -> PathBuf {
        self.shared.config.pod_dir(self.uid())
    }

    pub fn log_dir(&self) -> PathBuf {
        let meta = &self.pod.metadata;
        self.shared.config.log_dir(&meta.namespace, &meta.name, &meta.uid)
    }

    /// Records an event about the pod, or about one of its containers.
    pub fn event(&self, container: &str, warning: bool, reason: &str, message: impl Into<String>) {
        let spec = &self.pod.spec;
        let is_in = |list: &[corten_views::Container]| list.iter().any(|c| c.name == container);
        let field_path = match container {
            "" => String::new(),
            name if is_in(&spec.init_containers) => format!("spec.initContainers{{{name}}}"),
            name if is_in(&spec.ephemeral_containers) => format!("spec.ephemeralContainers{{{name}}}"),
            name => format!("spec.containers{{{name}}}"),
        };
        let meta = &self.pod.metadata;
        let about = About {
            kind: "Pod",
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            field_path,
        };
        self.shared.events.record(about, warning, reason, message);
    }

    /// Tells the worker; fine if it has ended.
    pub async fn tell(&self, message: Message) {
        let _ = self.outbox.send(message).await;
    }
}

/// Stops a task when it is dropped.
pub struct Stopper(pub AbortHandle);

impl Drop for Stopper {
    fn drop(&mut self) {
        self.0.abort();
    }
}
