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

/// How many entries are looked at together when they are sealed anew.
const RESEAL_PAGE: usize = 500;

/// Why a commit did not happen.
pub(crate) enum CommitError {
    /// Someone else was faster: read again.
    Conflict,
    /// It cannot be done.
    Status(Box<Status>),
}

impl From<Status> for CommitError {
    fn from(status: Status) -> CommitError {
        CommitError::Status(Box::new(status))
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
            Some(value) => {
                let value = self.at_rest(commit.kind, &key, value)?;
                batch.put(key, value)
            }
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

    /// An object's bytes as they are kept under a key.
    fn at_rest(&self, kind: &Kind, key: &[u8], json: Bytes) -> Result<Bytes, Status> {
        match &self.sealer {
            Some(sealer) if kind.sealed() => sealer.seal(key, &json).map_err(Status::internal),
            _ => Ok(json),
        }
    }

    /// Seals what lies open, or under an older key: once, at the start. Nothing of the objects changes.
    pub async fn reseal(&self) -> Result<(), Status> {
        let Some(sealer) = &self.sealer else { return Ok(()) };
        let kinds: Vec<Arc<Kind>> = self.registry.now().iter().filter(|kind| kind.sealed()).cloned().collect();
        for kind in kinds {
            let mut range = keys::kind(&kind);
            loop {
                let page = self.store.scan(range.clone(), None, RESEAL_PAGE).await.map_err(store_error)?;
                for entry in page.entries.iter().filter(|entry| !sealer.is_current(&entry.value)) {
                    let sealed = sealer
                        .open(&entry.key, entry.value.clone())
                        .and_then(|json| sealer.seal(&entry.key, &json))
                        .map_err(Status::internal)?;
                    let batch =
                        Batch::new().expect(entry.key.clone(), entry.mod_revision).put(entry.key.clone(), sealed);
                    match self.store.commit(batch).await {
                        // Who was faster has sealed it.
                        Ok(_) | Err(corten_store::Error::Conflict(_)) => {}
                        Err(other) => return Err(store_error(other)),
                    }
                }
                match page.entries.last() {
                    Some(last) if page.more => range = range.after(&last.key),
                    _ => break,
                }
            }
        }
        Ok(())
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
            Err(CommitError::Status(status)) => Err(*status),
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
