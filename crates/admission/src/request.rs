//! What admission knows of a request, of the cluster, and what it notes for the answer.

use std::sync::{Arc, Mutex, PoisonError};

use corten_auth::{Attributes, Decision, Source, User};
use corten_base::{BoxFuture, Entropy, Timestamp};
use corten_kinds::{Kind, Registry};
use corten_object::{GroupVersionKind, KindId, Object, ObjectKey, Status};
use corten_tree::Tree;
use corten_webhook::Caller;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Makes an object, or acts on one through a subresource.
    Create,
    /// Changes one.
    Update,
    /// Deletes one.
    Delete,
    /// Opens a stream, or goes through a proxy.
    Connect,
}

impl Operation {
    /// The text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// What admission asks of the server besides objects.
pub trait Cluster: Source {
    /// All kinds of this moment.
    fn registry(&self) -> Arc<Registry>;

    /// The objects of a kind in a namespace.
    fn objects_in(&self, kind: KindId, namespace: &str) -> Vec<Arc<Object>>;

    /// Turns a tree of a kind's storage version into what `version` of `kind` shows; `kind` may be a view of the stored one.
    fn to_version<'a>(
        &'a self,
        kind: &'a Arc<Kind>,
        version: &'a str,
        tree: &'a Tree,
    ) -> BoxFuture<'a, Result<Tree, Status>>;

    /// Decodes a tree of a version of a kind (unknown fields are dropped), sets defaults, and turns it into the storage version.
    #[expect(clippy::wrong_self_convention, reason = "it is the tree that comes from the version")]
    fn from_version<'a>(
        &'a self,
        kind: &'a Arc<Kind>,
        version: &'a str,
        tree: Tree,
    ) -> BoxFuture<'a, Result<Tree, Status>>;

    /// Decodes a body that is no object of a kind (a Scale, an Eviction, PodExecOptions).
    fn decode_body(&self, body: &GroupVersionKind, tree: &Tree) -> Result<Tree, Status>;

    /// Whether something is allowed, and why or why not.
    fn decide(&self, attributes: &Attributes<'_>) -> Decision;

    /// The client for webhooks.
    fn caller(&self) -> &Caller;
}

/// What plugins know of a request.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// What it does.
    pub operation: Operation,
    /// The stored kind.
    pub kind: &'a Arc<Kind>,
    /// The kind as it was asked for: itself a view of the stored one, or the same.
    pub asked: &'a Arc<Kind>,
    /// The version as it was asked for.
    pub version: &'a str,
    /// What the object under admission is, if not an object of the kind: a Scale, a Binding, PodExecOptions.
    pub body: Option<&'a GroupVersionKind>,
    /// Empty for cluster-scoped kinds; for a Namespace its own name.
    pub namespace: &'a str,
    /// The object's name; empty if it will be generated, and for deletecollection.
    pub name: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// Who asks.
    pub user: &'a User,
    /// `CreateOptions`, `UpdateOptions` or `DeleteOptions`; null for a connect.
    pub options: &'a Tree,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// The request's time.
    pub now: Timestamp,
    /// For generated names.
    pub entropy: &'a dyn Entropy,
    /// The cluster's objects, and what else the server knows.
    pub cluster: &'a dyn Cluster,
    /// What the answer says besides.
    pub notes: &'a Notes,
}

impl Request<'_> {
    /// Whether this is about objects of a kind themselves, not a subresource.
    pub fn is(&self, kind: KindId) -> bool {
        self.kind.id == kind && self.subresource.is_empty()
    }

    /// Whether this is a create or an update.
    pub fn writes(&self) -> bool {
        matches!(self.operation, Operation::Create | Operation::Update)
    }

    /// 403 `pods "x" is forbidden: why`
    pub fn forbidden(&self, why: impl std::fmt::Display) -> Status {
        Status::forbidden(&self.asked.group, &self.asked.plural, self.name, why)
    }

    /// An object of the cluster.
    pub fn find(&self, kind: KindId, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.cluster.object(&ObjectKey::new(kind, namespace, name))
    }

    /// The group, version and kind of the object under admission, as the request names it.
    pub fn gvk(&self) -> GroupVersionKind {
        self.body.cloned().unwrap_or_else(|| self.asked.gvk(self.version))
    }
}

/// What plugins, policies and webhooks say besides yes and no. Shared by those that run in parallel.
#[derive(Debug, Default)]
pub struct Notes(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    warnings: Vec<String>,
    annotations: Vec<(String, String)>,
}

impl Notes {
    /// Adds a text for a Warning header; one that is there already is not repeated.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !text.is_empty() && !noted.warnings.contains(&text) {
            noted.warnings.push(text);
        }
    }

    /// Adds an audit annotation; the first value of a key stays.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        let key = key.into();
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !noted.annotations.iter().any(|(have, _)| *have == key) {
            noted.annotations.push((key, value.into()));
        }
    }

    /// The texts for Warning headers, in order; they are taken out.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).warnings)
    }

    /// The audit annotations so far.
    pub fn annotations(&self) -> Vec<(String, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).annotations.clone()
    }
}
