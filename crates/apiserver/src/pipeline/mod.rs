//! One function per verb, for every kind and every caller.
//!
//! The order is everywhere: flow control, authorization, decode, mutate, default, validate, admit, commit. Steps are added
//! here and nowhere else; a kind takes part through its row's hooks only.

mod admit;
mod apply;
mod commit;
mod convert;
mod create;
mod decode;
mod delete;
mod guard;
mod managed;
mod measured;
mod metadata;
mod read;
mod replace;
mod scale;
mod watch;
pub(crate) mod yaml;

use std::sync::Arc;

use bytes::Bytes;
use corten_auth::User;
use corten_base::Revision;
use corten_client::{Propagation, WriteOptions};
use corten_kinds::{Kind, Subresource};
use corten_object::{Object, ObjectKey, Status};
use corten_tree::Tree;

pub(crate) use commit::{Commit, CommitError};
pub(crate) use convert::is_by_webhook;
pub(crate) use decode::Body;
pub(crate) use delete::{check_preconditions, parameters_of};
pub(crate) use metadata::check_namespace;
pub(crate) use read::{ListRequest, Listed, RevisionMatch, parse_continue};
pub(crate) use replace::PatchBody;
pub(crate) use watch::{WatchItem, WatchRequest, WatchStart, Watching};

/// Which object a request is about, and for whom.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub user: &'a User,
    /// The kind as it was asked for; where its objects are stored is the registry's business.
    pub kind: &'a Arc<Kind>,
    /// The version as it was asked for.
    pub version: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub options: &'a WriteOptions,
}

impl<'a> Request<'a> {
    pub fn sub(&self) -> Option<&'a Subresource> {
        self.kind.subresource_at(self.version, self.subresource)
    }

    pub fn not_found(&self) -> Status {
        Status::not_found(&self.kind.group, &self.kind.plural, self.name)
    }

    /// The key of the stored object.
    pub fn key(&self, stored: &Kind) -> ObjectKey {
        let namespace = if stored.namespaced() { self.namespace } else { "" };
        ObjectKey::new(stored.id, namespace, self.name)
    }

    /// `Pod in version "v1" cannot be handled as a Pod: why`
    pub fn undecodable(&self, gvk_version: &str, kind: &str, why: impl std::fmt::Display) -> Status {
        Status::bad_request(format!("{kind} in version {gvk_version:?} cannot be handled as a {kind}: {why}"))
    }
}

/// What a successful request answers.
#[derive(Debug)]
pub(crate) struct Answer {
    /// HTTP code.
    pub code: u16,
    /// The stored object, at its storage version.
    pub object: Option<Arc<Object>>,
    /// What is answered instead of a stored object.
    pub tree: Option<Tree>,
    /// Texts for Warning headers.
    pub warnings: Vec<String>,
    pub revision: Revision,
}

impl Answer {
    pub fn of(code: u16, object: Arc<Object>, revision: Revision, warnings: Vec<String>) -> Answer {
        Answer { code, object: Some(object), tree: None, warnings, revision }
    }

    pub fn tree(code: u16, tree: Tree, revision: Revision) -> Answer {
        Answer { code, object: None, tree: Some(tree), warnings: Vec::new(), revision }
    }
}

/// What a delete says.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteParameters {
    pub grace_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub dry_run: bool,
    /// Answers 202 where the object is marked only: for clients that say `orphanDependents: false`.
    pub accepted_if_marked: bool,
}

/// An object that was made by the pipeline but not stored (dry run): the given bytes under the given revision.
fn unstored(kind: &Kind, json: Bytes, revision: Revision) -> Result<Arc<Object>, Status> {
    Object::parse(kind.id, json, revision, &kind.fact_paths).map(Arc::new).map_err(Status::internal)
}
