//! What a component may ask of the API.

use std::sync::Arc;

use corten_base::BoxFuture;
use corten_object::{FieldSelector, KindId, LabelSelector, Object, ObjectKey, Revision, Status};
use corten_tree::Tree;
use futures::stream::BoxStream;

/// Which objects a list or watch is about.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Only this namespace; all if empty.
    pub namespace: String,
    /// Only objects with these labels.
    pub labels: Option<LabelSelector>,
    /// Only objects with these fields.
    pub fields: FieldSelector,
}

/// A list at one revision.
#[derive(Debug, Clone)]
pub struct ApiList {
    /// The objects, ordered by namespace and name.
    pub items: Vec<Arc<Object>>,
    /// The revision that the list shows; a watch goes on after it.
    pub revision: Revision,
}

/// What happened to an object, as the watcher's selector sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchEventKind {
    /// It came into being or into the selection.
    Added,
    /// It changed.
    Modified,
    /// It went, or left the selection. The object is its last state with the revision of the deletion.
    Deleted,
    /// Nothing happened up to the revision in the object's place.
    Bookmark,
}

/// One event of a watch.
#[derive(Debug, Clone)]
pub struct WatchEvent {
    /// What happened.
    pub kind: WatchEventKind,
    /// To which object; `None` for a bookmark.
    pub object: Option<Arc<Object>>,
    /// At which revision.
    pub revision: Revision,
}

/// How a patch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902; the body is a list.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own, with merge keys.
    Strategic,
    /// Server-side apply.
    Apply,
}

/// Names the object of a write, and its subresource (empty: the object itself).
#[derive(Debug, Clone)]
pub struct Target {
    /// The object.
    pub key: ObjectKey,
    /// The subresource, as `status`.
    pub subresource: &'static str,
}

impl Target {
    /// The object itself.
    pub fn object(key: ObjectKey) -> Target {
        Target { key, subresource: "" }
    }

    /// The object's status.
    pub fn status(key: ObjectKey) -> Target {
        Target { key, subresource: "status" }
    }
}

/// Options of every write.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Runs everything but the commit.
    pub dry_run: bool,
    /// Name for managedFields.
    pub field_manager: String,
    /// Takes conflicting fields over (apply only).
    pub force: bool,
    /// `Strict`, `Warn` or `Ignore`; empty is the server's default.
    pub field_validation: String,
    /// Other objects that must still have this uid and must not be in deletion, checked in the same commit.
    pub owners_alive: Vec<(ObjectKey, String)>,
}

/// What becomes of an object's dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They lose the owner reference.
    Orphan,
    /// They are deleted after it.
    Background,
    /// They are deleted before it.
    Foreground,
}

/// Options of a delete.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// Seconds of grace; 0 forces, `None` is the kind's default.
    pub grace_seconds: Option<i64>,
    /// What becomes of dependents; `None` is the kind's default.
    pub propagation: Option<Propagation>,
    /// The object must have this uid.
    pub uid: Option<String>,
    /// The object must be at this revision.
    pub revision: Option<Revision>,
    /// Runs everything but the commit.
    pub dry_run: bool,
}

/// A write.
#[derive(Debug, Clone)]
pub enum Write {
    /// Makes an object; with a subresource, acts on one (`binding`, `eviction`, `token`). For generateName the key's name is empty.
    Create {
        /// What is made, or acted on.
        target: Target,
        /// The body.
        body: Tree,
    },
    /// Replaces an object; `metadata.resourceVersion` in the body makes it conditional.
    Update {
        /// What is replaced.
        target: Target,
        /// The new state.
        body: Tree,
    },
    /// Changes an object.
    Patch {
        /// What is changed.
        target: Target,
        /// How the patch is written.
        patch: PatchKind,
        /// The patch.
        body: Tree,
    },
    /// Deletes an object.
    Delete {
        /// What is deleted.
        key: ObjectKey,
        /// How.
        options: DeleteOptions,
    },
}

/// A write that succeeded: durable, and applied to the cache.
#[derive(Debug, Clone)]
pub struct Written {
    /// The object after the write; `None` for actions that answer with something else, and for completed deletes.
    pub object: Option<Arc<Object>>,
    /// The answer's body where it is not a stored object (a TokenRequest's, a Scale).
    pub answer: Option<Tree>,
    /// The revision of the commit, or the store's present one if nothing changed.
    pub revision: Revision,
}

/// A write that failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{status}")]
pub struct Failure {
    /// Why.
    pub status: Status,
    /// The store's revision when the answer was made: who waits for the cache to reach it sees why the write failed.
    pub revision: Revision,
}

/// The API as one user sees it.
pub trait Api: Send + Sync + 'static {
    /// Reads one object.
    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Arc<Object>, Status>>;

    /// Lists objects at the present revision.
    fn list(&self, kind: KindId, options: ListOptions) -> BoxFuture<'_, Result<ApiList, Status>>;

    /// Follows changes after a revision. An `Expired` status (410) in the stream means: list again.
    #[allow(clippy::type_complexity)]
    fn watch(
        &self,
        kind: KindId,
        options: ListOptions,
        after: Revision,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<WatchEvent, Status>>, Status>>;

    /// Reads the document at a path of the API, `/apis/GROUP/VERSION/…` with its query: also where another server answers.
    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Tree, Status>> {
        let _ = path;
        Box::pin(async { Err(Status::no_such_resource()) })
    }

    /// Writes.
    fn write(&self, write: Write, options: WriteOptions) -> BoxFuture<'_, Result<Written, Failure>>;
}
