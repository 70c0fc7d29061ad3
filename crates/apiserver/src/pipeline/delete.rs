//! Delete and deletecollection.
//!
//! Upstream: `apiserver/pkg/registry/rest/delete.go`, `pkg/registry/generic/registry/store.go`.

use std::sync::Arc;

use corten_admission::Operation;
use corten_base::{Revision, Timestamp};
use corten_client::{Propagation, WriteOptions};
use corten_kinds::{DeleteRequest, Graceful, Kind};
use corten_object::{Object, Status, time};
use corten_tree::{Tree, tree};
use futures::stream::{self, StreamExt as _};

use super::commit::{Commit, CommitError};
use super::metadata::{FOREGROUND, ORPHAN, finalizers_of};
use super::{Answer, DeleteParameters, ListRequest, Listed, Request, unstored};
use crate::core::{Core, attributes};

/// How often a delete without preconditions is tried against newer states.
const CONFLICT_RETRIES: usize = 10;

/// Deletes of one deletecollection that are under way at a time (upstream's `--delete-collection-workers` is 1, with a store that
/// answers sooner than a disk).
const COLLECTION_AT_ONCE: usize = 16;

/// What a delete does to an object.
enum Fate {
    /// It goes at once.
    Gone,
    /// It stays, changed: it is marked, or its grace period is shorter.
    Marked(Tree),
    /// It is going already, and nothing changes.
    Waiting,
}

impl Core {
    /// Deletes an object, or marks it for deletion.
    pub async fn delete(&self, request: Request<'_>, parameters: &DeleteParameters) -> Result<Answer, Status> {
        let names = (request.namespace, request.name, request.subresource);
        self.authorize(&attributes(request.user, "delete", request.kind, names)).await?;
        self.delete_authorized(request, parameters, false).await
    }

    /// A delete after authorization; `collection` says whether it is one of many.
    pub(crate) async fn delete_authorized(
        &self,
        request: Request<'_>,
        parameters: &DeleteParameters,
        collection: bool,
    ) -> Result<Answer, Status> {
        let stored = self.stored(request.kind).clone();
        let key = request.key(&stored);
        for _ in 0..CONFLICT_RETRIES {
            self.fresh().await?;
            let old = self.cache.get(&key).ok_or_else(|| request.not_found())?;
            check_preconditions(&request, parameters, (&old.head.uid, &old.head.revision.to_string()))?;
            let old_tree = old.to_tree();
            let admitting = self.admitting(&request, Operation::Delete).deleting(parameters, collection);
            admitting.mutate(None, Some(&old_tree)).await?;
            admitting.validate(None, Some(&old_tree)).await?;
            let warnings = admitting.notes.take_warnings();
            let fate = fate(&stored, &old_tree, parameters, admitting.now);
            let revision = self.cache.revision();
            let (expected, dry_run) = (old.head.revision, request.options.dry_run || parameters.dry_run);
            let marked = if parameters.accepted_if_marked { 202 } else { 200 };
            let outcome = match fate {
                Fate::Waiting => return Ok(Answer::of(marked, old, revision, warnings)),
                Fate::Gone if dry_run => {
                    return Ok(Answer { warnings, ..self.deleted(&request, &old, revision, old.head.revision) });
                }
                Fate::Gone => {
                    let commit = Commit {
                        kind: &stored,
                        key: key.clone(),
                        expected,
                        value: None,
                        owners_alive: &[],
                        bookings: &[],
                    };
                    match self.commit(commit).await {
                        Ok(revision) => {
                            self.note_addresses(&key, self.services.release(&key)).await;
                            self.repair_address(&key).await;
                            return Ok(Answer { warnings, ..self.deleted(&request, &old, revision, revision) });
                        }
                        Err(error) => error,
                    }
                }
                Fate::Marked(mut tree) => {
                    let json = self.encode(&stored, &mut tree)?;
                    if dry_run {
                        return Ok(Answer::of(marked, unstored(&stored, json, expected)?, revision, warnings));
                    }
                    let value = Some(json.clone());
                    let commit =
                        Commit { kind: &stored, key: key.clone(), expected, value, owners_alive: &[], bookings: &[] };
                    match self.commit(commit).await {
                        Ok(revision) => {
                            let object = self.committed(&stored, &key, json, revision)?;
                            return Ok(Answer::of(marked, object, revision, warnings));
                        }
                        Err(error) => error,
                    }
                }
            };
            match outcome {
                // Read again: the preconditions decide whether the newer state may go, too.
                CommitError::Conflict => {}
                CommitError::Status(status) => return Err(*status),
            }
        }
        Err(Status::modified(&request.kind.group, &request.kind.plural, request.name))
    }

    /// The answer to a delete that has removed the object: what it was, under the revision `shown`, or that it has gone.
    fn deleted(&self, request: &Request<'_>, old: &Object, revision: Revision, shown: Revision) -> Answer {
        if self.stored(request.kind).returns_deleted {
            return Answer::of(200, Arc::new(old.at_revision(shown)), revision, Vec::new());
        }
        let mut details = tree!({"name": (request.name)});
        if !request.kind.group.is_empty() {
            details.insert("group", &*request.kind.group);
        }
        details.insert("kind", &*request.kind.plural);
        details.insert("uid", old.head.uid.as_str());
        let tree =
            tree!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
        Answer::tree(200, tree, revision)
    }

    /// Deletes what a list selects (with a limit: its page); answers with the list.
    pub async fn delete_collection(
        &self,
        user: &corten_auth::User,
        kind: &Arc<Kind>,
        version: &str,
        list: &ListRequest,
        parameters: &DeleteParameters,
        options: &WriteOptions,
    ) -> Result<Listed, Status> {
        let about = attributes(user, "deletecollection", kind, (&list.namespace, "", ""));
        self.authorize(&corten_auth::Attributes { fields: &list.fields.terms, ..about }).await?;
        let listed = self.list_authorized((kind, version), list).await?;
        let deletes = listed.items.iter().map(|object| {
            let request = Request {
                user,
                kind,
                version,
                namespace: &object.head.namespace,
                name: &object.head.name,
                subresource: "",
                options,
            };
            self.delete_authorized(request, parameters, true)
        });
        // Several at a time: their commits wait for the disk together.
        let mut deletes = stream::iter(deletes.collect::<Vec<_>>()).buffer_unordered(COLLECTION_AT_ONCE);
        while let Some(outcome) = deletes.next().await {
            match outcome {
                Err(status) if !status.is_not_found() => return Err(status),
                _ => {}
            }
        }
        drop(deletes);
        Ok(listed)
    }
}

/// Whether an object with this uid and resourceVersion is the one that a delete means.
pub(crate) fn check_preconditions(
    request: &Request<'_>,
    parameters: &DeleteParameters,
    (uid, revision): (&str, &str),
) -> Result<(), Status> {
    let conflict = |why: String| Err(Status::conflict(&request.kind.group, &request.kind.kind, request.name, why));
    if let Some(wanted) = &parameters.uid
        && wanted != uid
    {
        return conflict(format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been \
             deleted and then recreated"
        ));
    }
    if let Some(wanted) = &parameters.resource_version
        && wanted != revision
    {
        return conflict(format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({revision}). The \
             object might have been modified"
        ));
    }
    Ok(())
}

/// Decides: grace first (`BeforeDelete`), then finalizers (`updateForGracefulDeletionAndFinalizers`).
fn fate(kind: &Kind, old: &Tree, parameters: &DeleteParameters, now: Timestamp) -> Fate {
    let mut new = old.clone();
    let deleting = old.path("metadata.deletionTimestamp").is_some();
    if let Some(hook) = kind.hooks.deleting.filter(|_| !deleting) {
        hook(&mut new, now);
    }
    let pending = old.i64_at("metadata.deletionGracePeriodSeconds").unwrap_or(0);
    let grace = parameters.grace_seconds.map(|g| if g < 0 { 1 } else { g });
    let mut graceful = false;
    if deleting && pending > 0 {
        match grace {
            Some(shorter) if shorter < pending => {
                let began = time::parse(old.str_at("metadata.deletionTimestamp")).unwrap_or(now);
                let mut at = began + std::time::Duration::from_secs(shorter.unsigned_abs());
                at -= std::time::Duration::from_secs(pending.unsigned_abs());
                let late = at < now;
                let seconds = if late && shorter != 0 { 1 } else { shorter };
                mark(&mut new, if late { now } else { at }, seconds);
                graceful = shorter > 0;
            }
            _ => return Fate::Waiting,
        }
    } else if !deleting
        && let Some(hook) = kind.hooks.graceful
        && let Graceful::After(seconds) = hook(old, &DeleteRequest { grace_seconds: grace })
        && seconds > 0
    {
        bump_generation(&mut new);
        mark(&mut new, now + std::time::Duration::from_secs(seconds.unsigned_abs()), seconds);
        graceful = true;
    }
    let finalizers_changed = propagate(&mut new, parameters.propagation, kind.orphans_by_default);
    if graceful {
        return Fate::Marked(new);
    }
    if finalizers_of(&new).is_empty() && new.list_at("spec.finalizers").is_empty() {
        return Fate::Gone;
    }
    if deleting && pending == 0 && !finalizers_changed {
        return Fate::Waiting;
    }
    if !deleting {
        bump_generation(&mut new);
    }
    let until = time::parse(new.str_at("metadata.deletionTimestamp")).filter(|at| *at <= now);
    mark(&mut new, until.unwrap_or(now), 0);
    if kind.namespaced() || new.list_at("spec.finalizers").is_empty() {
        return Fate::Marked(new);
    }
    // What has finalizers in its spec (a Namespace) shows that it is going in its phase, too.
    new.set("status.phase", "Terminating");
    Fate::Marked(new)
}

fn bump_generation(tree: &mut Tree) {
    if let Some(generation) = tree.i64_at("metadata.generation").filter(|g| *g > 0) {
        tree.set("metadata.generation", generation + 1);
    }
}

fn mark(tree: &mut Tree, at: Timestamp, seconds: i64) {
    tree.set("metadata.deletionTimestamp", time::format(at));
    tree.set("metadata.deletionGracePeriodSeconds", seconds);
}

/// Sets the finalizers that stand for the propagation policy; true if that changed them
/// (`deletionFinalizersForGarbageCollection`). Without a policy, finalizers of an earlier delete stay, else the kind decides.
fn propagate(tree: &mut Tree, propagation: Option<Propagation>, orphans_by_default: bool) -> bool {
    let before: Vec<String> = finalizers_of(tree).into_iter().map(str::to_owned).collect();
    let (orphan, foreground) = match propagation {
        Some(Propagation::Orphan) => (true, false),
        Some(Propagation::Foreground) => (false, true),
        Some(Propagation::Background) => (false, false),
        None => {
            let has = |finalizer| before.iter().any(|f| f == finalizer);
            (has(ORPHAN) || (orphans_by_default && !has(FOREGROUND)), has(FOREGROUND))
        }
    };
    let mut after: Vec<String> = before.iter().filter(|f| *f != ORPHAN && *f != FOREGROUND).cloned().collect();
    after.extend(orphan.then(|| ORPHAN.to_owned()));
    after.extend(foreground.then(|| FOREGROUND.to_owned()));
    let same = before.len() == after.len() && after.iter().all(|f| before.contains(f));
    if same {
        return false;
    }
    if after.is_empty() {
        tree.remove("metadata.finalizers");
    } else {
        tree.set("metadata.finalizers", after);
    }
    true
}

/// Parameters of a component's delete.
pub(crate) fn parameters_of(options: &corten_client::DeleteOptions) -> DeleteParameters {
    DeleteParameters {
        grace_seconds: options.grace_seconds,
        propagation: options.propagation,
        uid: options.uid.clone(),
        resource_version: options.revision.map(|r| r.to_string()),
        dry_run: options.dry_run,
        accepted_if_marked: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(fate: &Fate) -> String {
        match fate {
            Fate::Gone => "gone".into(),
            Fate::Waiting => "waiting".into(),
            Fate::Marked(tree) => tree.get("metadata").map(ToString::to_string).unwrap_or_default(),
        }
    }

    #[test]
    fn finalizers_hold_and_policies_become_finalizers() {
        let registry = corten_kinds::Registry::builtin();
        let kind = registry.get(corten_kinds::id::CONFIG_MAP);
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let with = |propagation| DeleteParameters { propagation, ..DeleteParameters::default() };
        let plain = tree!({"metadata": {"name": "a"}});
        assert_eq!(shown(&fate(kind, &plain, &with(None), now)), "gone");
        assert_eq!(
            shown(&fate(kind, &plain, &with(Some(Propagation::Foreground)), now)),
            r#"{"name":"a","finalizers":["foregroundDeletion"],"deletionTimestamp":"2026-01-02T03:04:05Z","deletionGracePeriodSeconds":0}"#
        );
        let going = tree!({"metadata": {"finalizers": ["x/y"], "deletionTimestamp": "2026-01-02T03:04:00Z",
            "deletionGracePeriodSeconds": 0}});
        assert_eq!(shown(&fate(kind, &going, &with(None), now)), "waiting");
    }
}
