//! The last step of every write: compare and set, then wait until the cache shows it.

use std::sync::Arc;

use bytes::Bytes;
use corten_admission::quota::Booking;
use corten_base::Revision;
use corten_cache::keys;
use corten_kinds::Kind;
use corten_object::{Object, ObjectKey, Status};
use corten_store::Batch;
use corten_tree::Tree;

use crate::core::{Core, store_error};

/// Why a commit did not happen.
pub(crate) enum CommitError {
    /// Someone else was faster: read again.
    Conflict,
    /// It cannot be done.
    Status(Status),
}

impl From<Status> for CommitError {
    fn from(status: Status) -> CommitError {
        CommitError::Status(status)
    }
}

/// What is written under a key that must be at a revision.
pub(crate) struct Commit<'a> {
    pub kind: &'a Kind,
    pub key: ObjectKey,
    /// `Revision::ZERO`: the key must be absent.
    pub expected: Revision,
    /// `None` deletes.
    pub value: Option<Bytes>,
    pub owners_alive: &'a [(ObjectKey, String)],
    /// Quotas that change with it.
    pub bookings: &'a [Booking],
}

impl Core {
    /// Writes, and waits until the cache shows it.
    pub async fn commit(&self, commit: Commit<'_>) -> Result<Revision, CommitError> {
        let key = keys::object(commit.kind, &commit.key.namespace, &commit.key.name);
        let mut batch = Batch::new().expect(key.clone(), commit.expected);
        for (owner, uid) in commit.owners_alive {
            let (owner_key, at) = self.alive(owner, uid)?;
            if owner_key != key {
                batch = batch.expect(owner_key, at);
            }
        }
        let quotas = self.registry.get(corten_kinds::id::RESOURCE_QUOTA);
        for Booking { quota, tree } in commit.bookings {
            let booked = keys::object(&quotas, &quota.head.namespace, &quota.head.name);
            let json = self.encode(&quotas, &mut tree.clone())?;
            batch = batch.expect(booked.clone(), quota.head.revision).put(booked, json);
        }
        batch = match commit.value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        };
        let revision = match self.store.commit(batch).await {
            Ok(revision) => revision,
            Err(corten_store::Error::Conflict(_)) => return Err(CommitError::Conflict),
            Err(other) => return Err(store_error(other).into()),
        };
        self.cache.wait_for(revision).await;
        self.note_write(commit.key.kind);
        Ok(revision)
    }

    /// Writes a changed tree in place of an object; `None` if someone else was faster.
    pub async fn commit_changed(
        &self,
        kind: &Kind,
        key: &ObjectKey,
        old: &Object,
        mut tree: Tree,
    ) -> Result<Option<Revision>, Status> {
        let json = self.encode(kind, &mut tree)?;
        let expected = old.head.revision;
        let commit = Commit { kind, key: key.clone(), expected, value: Some(json), owners_alive: &[], bookings: &[] };
        match self.commit(commit).await {
            Ok(revision) => Ok(Some(revision)),
            Err(CommitError::Conflict) => Ok(None),
            Err(CommitError::Status(status)) => Err(status),
        }
    }

    /// The place and revision of an owner that must exist with this uid and must not be going.
    fn alive(&self, owner: &ObjectKey, uid: &str) -> Result<(Bytes, Revision), Status> {
        let kind = self.registry.get(owner.kind);
        let gone = |why: String| Status::conflict(&kind.group, &kind.plural, &owner.name, why);
        let object = self.cache.get(owner).filter(|o| o.head.uid == uid);
        let object = object.ok_or_else(|| gone(format!("the owner with uid {uid} is gone")))?;
        if object.head.is_deleting() {
            return Err(gone("the owner is being deleted".into()));
        }
        Ok((keys::object(&kind, &owner.namespace, &owner.name), object.head.revision))
    }

    /// The object as a commit left it: the cache's, if nobody has changed it since.
    pub fn committed(
        &self,
        kind: &Kind,
        key: &ObjectKey,
        json: Bytes,
        revision: Revision,
    ) -> Result<Arc<Object>, Status> {
        match self.cache.get(key) {
            Some(object) if object.head.revision == revision => Ok(object),
            _ => super::unstored(kind, json, revision),
        }
    }
}
