//! Update and patch, of objects and of their status: both replace what is there by what a change makes of it.

use bytes::Bytes;
use corten_admission::{Operation, Reservation};
use corten_audit::trail;
use corten_cache::keys;
use corten_client::PatchKind;
use corten_kinds::{Kind, Subresource, SubresourceKind, WriteContext};
use corten_object::{Object, Reason, Status};
use corten_schema::{Options, canonicalise};
use corten_tree::Tree;

use super::apply::Applied;
use super::commit::{Commit, CommitError};
use super::create::Fields;
use super::{Answer, Body, Request, managed, metadata, unstored};
use crate::core::{Core, attributes, store_error};

/// How often a change is applied to a newer state when another write came between
/// (`apiserver/pkg/endpoints/handlers/patch.go`, `maxRetryWhenPatchConflicts`).
const CONFLICT_RETRIES: usize = 5;

/// A patch that says this may look into field sets.
const FIELDS: &[u8] = b"fieldsV1";

/// A patch as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct PatchBody {
    pub kind: PatchKind,
    pub body: Bytes,
}

impl PatchBody {
    /// The patch as a tree, if it can be read.
    pub fn to_tree(&self) -> Option<Tree> {
        match self.kind {
            PatchKind::Apply => super::decode::apply_body(&self.body).ok().map(|(tree, _)| tree),
            _ => corten_tree::json::parse(&self.body).ok(),
        }
    }
}

/// What makes a new state of an old one.
pub(super) enum Change {
    /// This is the new state (at the storage version).
    Put(Tree),
    /// A patch of the state at the request's version.
    Patch(PatchBody),
    /// A configuration to merge into the state at the request's version.
    Apply(Applied),
}

/// What goes through admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admit {
    /// The object.
    Object,
    /// Nothing any more: something that stands for the change has been through.
    Done,
}

impl Core {
    /// Replaces an object or its status.
    pub async fn update(&self, request: Request<'_>, body: Body) -> Result<Answer, Status> {
        let names = (request.namespace, request.name, request.subresource);
        self.authorize(&attributes(request.user, "update", request.kind, names)).await?;
        // Metadata of custom resources is read in another way, which takes an empty list for none.
        let reset = request.kind.custom.is_none() && managed::resets(&body);
        let mut decoded = self.decode(&request, body)?;
        if reset {
            managed::reset(&mut decoded.tree);
        }
        let create = request.kind.create_on_update && request.subresource.is_empty();
        if create && self.fresh().await.is_ok() && self.cache.get(&request.key(self.stored(request.kind))).is_none() {
            self.authorize(&attributes(request.user, "create", request.kind, (request.namespace, request.name, "")))
                .await?;
            let mut tree = decoded.tree;
            tree.remove("metadata.resourceVersion");
            return self.create_decoded(request, tree, decoded.warnings, Fields::Untracked).await;
        }
        self.replace(request, Change::Put(decoded.tree), decoded.warnings, Admit::Object).await
    }

    /// Patches an object or its status.
    pub async fn patch(&self, request: Request<'_>, patch: PatchBody) -> Result<Answer, Status> {
        let names = (request.namespace, request.name, request.subresource);
        self.authorize(&attributes(request.user, "patch", request.kind, names)).await?;
        trail::request_patch(|| patch.to_tree());
        if patch.kind == PatchKind::Apply {
            let (body, strict) = super::decode::apply_body(&patch.body)?;
            return self.apply(request, body, strict).await;
        }
        self.replace(request, Change::Patch(patch), Vec::new(), Admit::Object).await
    }

    /// Replaces an object by a state that was made of its present one; the state's resourceVersion is the condition.
    /// The caller has authorized the request.
    pub(super) async fn replace_with(&self, request: Request<'_>, new: Tree, admit: Admit) -> Result<Answer, Status> {
        let decoded = self.decode(&request, Body::Tree(new))?;
        self.replace(request, Change::Put(decoded.tree), decoded.warnings, admit).await
    }

    pub(super) async fn replace(
        &self,
        request: Request<'_>,
        change: Change,
        warnings: Vec<String>,
        admit: Admit,
    ) -> Result<Answer, Status> {
        let mut found = Vec::new();
        match self.replace_warning(request, change, &warnings, &mut found, admit).await {
            Ok(answer) => Ok(Answer { warnings: found, ..answer }),
            Err(status) => Err(status.with_warnings(found)),
        }
    }

    async fn replace_warning(
        &self,
        request: Request<'_>,
        change: Change,
        warnings: &[String],
        found: &mut Vec<String>,
        admit: Admit,
    ) -> Result<Answer, Status> {
        let stored = self.stored(request.kind).clone();
        let key = request.key(&stored);
        let modified = || Status::modified(&request.kind.group, &request.kind.plural, request.name);
        for _ in 0..CONFLICT_RETRIES {
            self.fresh().await?;
            let old = self.cache.get(&key).ok_or_else(|| request.not_found())?;
            *found = warnings.to_vec();
            let old_tree = self.working_tree(&request, &old).await?;
            let shown = match &change {
                Change::Put(_) => Tree::Null,
                Change::Patch(_) | Change::Apply(_) if stored.custom.is_some() => old_tree.clone(),
                Change::Patch(_) | Change::Apply(_) => self.request_tree(&request, &old).await?,
            };
            let (mut new, conditional) = self.changed(&request, &stored, &change, (&old, shown), found)?;
            let admitting = self.admitting(&request, Operation::Update);
            if admit == Admit::Object {
                stored.fill_defaults(&mut new);
                if !matches!(change, Change::Apply(_)) {
                    self.track(&request, Some(&old_tree), &mut new, admitting.now);
                }
                let managed = new.at(&managed::PATH).cloned();
                admitting.mutate(Some(&mut new), Some(&old_tree)).await?;
                found.extend(managed::keep_readable(&mut new, managed));
                metadata::match_request(&request, &stored, &mut new)?;
            }
            let now = admitting.now;
            let reservation = self
                .prepare_changed(&request, &stored, &mut new, &old_tree, now, found)
                .map_err(|status| admitting.warned(status))?;
            if admit == Admit::Object {
                admitting.validate(Some(&new), Some(&old_tree)).await?;
            }
            found.extend(admitting.notes.take_warnings());
            let bookings = match admit {
                Admit::Object => admitting.book(&new, Some(&old_tree))?,
                Admit::Done => Vec::new(),
            };
            let json = match self.unchanged(&stored, &old, &old_tree, &mut new).await? {
                None => return Ok(Answer::of(200, old, self.cache.revision(), Vec::new())),
                Some(json) => json,
            };
            if request.options.dry_run {
                let shown = unstored(&stored, json, old.head.revision)?;
                return Ok(Answer::of(200, shown, self.cache.revision(), Vec::new()));
            }
            let gone = goes_now(&new);
            let commit = Commit {
                kind: &stored,
                key: key.clone(),
                expected: old.head.revision,
                value: (!gone).then(|| json.clone()),
                owners_alive: &request.options.owners_alive,
                bookings: &bookings,
            };
            match self.commit(commit).await {
                Ok(revision) if gone => {
                    drop(reservation);
                    self.note_addresses(&key, self.services.release(&key)).await;
                    self.repair_address(&key).await;
                    return Ok(Answer::of(200, unstored(&stored, json, revision)?, revision, Vec::new()));
                }
                Ok(revision) => {
                    self.note_addresses(&key, reservation.keep()).await;
                    let object = self.committed(&stored, &key, json, revision)?;
                    return Ok(Answer::of(200, object, revision, Vec::new()));
                }
                // A quota that has changed is no fault of the condition: the next round sees whether the object has.
                Err(CommitError::Conflict) if conditional && bookings.is_empty() => return Err(modified()),
                Err(CommitError::Conflict) => {}
                Err(CommitError::Status(status)) => return Err(*status),
            }
        }
        Err(modified())
    }

    /// The bytes of the new state; `None` if it is the old one but for the times of its managed fields, and lies in the store as it
    /// would be stored today: an unchanged write is how an object gets new defaults and a new storage version there.
    async fn unchanged(
        &self,
        stored: &std::sync::Arc<Kind>,
        old: &Object,
        old_tree: &Tree,
        new: &mut Tree,
    ) -> Result<Option<Bytes>, Status> {
        let managed = new.at(&managed::PATH).cloned();
        if corten_object::managed::keep_times(old_tree, new) {
            let json = self.encode_at_rest(stored, new).await?;
            if old.is_stored_as(&json) {
                return Ok((!self.lies_as(stored, old, &json).await?).then_some(json));
            }
            managed::set(new, managed);
        }
        let json = self.encode_at_rest(stored, new).await?;
        let same = old.is_stored_as(&json) && self.lies_as(stored, old, &json).await?;
        Ok((!same).then_some(json))
    }

    /// Whether the store has these bytes for an object that reads like them. Only custom resources are read otherwise than they lie.
    async fn lies_as(&self, stored: &Kind, old: &Object, json: &Bytes) -> Result<bool, Status> {
        if stored.custom.is_none() {
            return Ok(true);
        }
        let key = keys::object(stored, &old.head.namespace, &old.head.name);
        let entry = self.store.get(&key).await.map_err(store_error)?;
        Ok(entry.entry.is_none_or(|entry| entry.mod_revision != old.head.revision || entry.value == *json))
    }

    /// The state that the change makes of `old`, at the storage version, and whether it insists on the old's revision.
    fn changed(
        &self,
        request: &Request<'_>,
        stored: &Kind,
        change: &Change,
        (old, shown): (&Object, Tree),
        warnings: &mut Vec<String>,
    ) -> Result<(Tree, bool), Status> {
        let mut new = match change {
            Change::Put(tree) => tree.clone(),
            Change::Patch(patch) => {
                let decoded = self.patched(request, patch, shown)?;
                warnings.extend(decoded.warnings);
                decoded.tree
            }
            Change::Apply(Applied { body, refusal }) => {
                let tree = self.applied(request, Some(&shown), body, self.clock.now())?;
                refusal.clone().map_or(Ok(()), Err)?;
                let options =
                    corten_client::WriteOptions { field_validation: "Ignore".into(), ..request.options.clone() };
                self.decode(&Request { options: &options, ..*request }, Body::Tree(tree))?.tree
            }
        };
        if matches!(change, Change::Put(_)) {
            metadata::check_namespace(request, &new)?;
        }
        metadata::check_name(request, &new)?;
        metadata::match_request(request, stored, &mut new)?;
        let wanted = new.str_at("metadata.resourceVersion");
        if !wanted.is_empty() && wanted.parse::<u64>().is_err() {
            let why = format!("strconv.ParseUint: parsing {wanted:?}: invalid syntax");
            return Err(Status::unexplained(500, why));
        }
        let conditional = match change {
            Change::Put(_) => !wanted.is_empty() && wanted != "0",
            // A patch works on the state that it finds; its resourceVersion is that one's unless the patch sets it.
            Change::Patch(_) | Change::Apply(_) => wanted != old.head.revision.to_string() && !wanted.is_empty(),
        };
        let (group, plural) = (&request.kind.group, &request.kind.plural);
        if conditional && wanted != old.head.revision.to_string() {
            return Err(Status::modified(group, plural, request.name));
        }
        let uid = new.str_at("metadata.uid");
        if !uid.is_empty() && old.head.uid != uid {
            let found = &old.head.uid;
            let key =
                format!("/{}/{}", stored.plural, [request.namespace, request.name].join("/").trim_start_matches('/'));
            let why = format!(
                "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID \
                 in precondition: {uid}, UID in object meta: {found}"
            );
            return Err(Status::conflict(group, plural, request.name, why));
        }
        if matches!(change, Change::Put(_)) && !conditional && !stored.unconditional_update {
            let path = corten_tree::FieldPath::of("metadata.resourceVersion");
            let fault = corten_object::FieldError::invalid(&path, &Tree::Int(0), "must be specified for an update");
            // Upstream names the resource where it means the kind.
            return Err(Status::invalid(group, plural, request.name, &[fault]));
        }
        // An update that names no revision is one of the present state (`doUnconditionalUpdate` in upstream's store).
        new.set("metadata.resourceVersion", old.head.revision.to_string());
        Ok((new, conditional))
    }

    /// The patched object, decoded as a body would be.
    fn patched(
        &self,
        request: &Request<'_>,
        patch: &PatchBody,
        mut tree: Tree,
    ) -> Result<super::decode::Decoded, Status> {
        if patch.body.windows(FIELDS.len()).any(|part| part == FIELDS) {
            tree.read_raw();
        }
        let ty = request.kind.type_of(request.version).ok_or_else(Status::no_such_resource)?;
        let (mut patched, strict) = self.apply_patch(request, patch, tree, (&request.kind.schema, ty))?;
        managed::mark_reset(&mut patched);
        self.decode_patched(request, ty, &patched, strict, || match patch.kind {
            PatchKind::Strategic => corten_object::patch::shown(&patch.body),
            PatchKind::Merge => {
                let mut shown = patched.clone();
                let body = corten_tree::json::parse(&patch.body).unwrap_or_default();
                sort_touched(&mut shown, &body);
                shown.to_json_string()
            }
            _ => patched.to_json_string(),
        })
    }

    /// Applies a patch to a tree of a type. Also returns the strict errors of the patch itself.
    pub(super) fn apply_patch(
        &self,
        request: &Request<'_>,
        patch: &PatchBody,
        tree: Tree,
        (schema, ty): (&corten_schema::Schema, corten_schema::TypeId),
    ) -> Result<(Tree, Vec<String>), Status> {
        use corten_object::patch::{self, PatchKind as Form};
        if patch.kind == PatchKind::Strategic && request.kind.custom.is_some() && schema.has_custom_types() {
            let why = "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
            return Err(Status::new(Reason::UnsupportedMediaType, why));
        }
        let form = match patch.kind {
            PatchKind::Json => Form::Json,
            PatchKind::Merge => Form::Merge,
            PatchKind::Strategic => Form::Strategic,
            PatchKind::Apply => {
                let why = "server-side apply is not supported for this subresource";
                return Err(Status::new(Reason::UnsupportedMediaType, why));
            }
        };
        let patched = patch::apply(form, schema, ty, tree, &patch.body).map_err(|e| patch_status(&e))?;
        match request.options.field_validation.as_str() {
            "Ignore" => Ok((patched.tree, Vec::new())),
            _ => Ok((patched.tree, patched.strict)),
        }
    }

    /// Everything between mutating and validating admission of a changed object.
    fn prepare_changed(
        &self,
        request: &Request<'_>,
        stored: &Kind,
        new: &mut Tree,
        old: &Tree,
        now: corten_base::Timestamp,
        warnings: &mut Vec<String>,
    ) -> Result<Reservation<'_>, Status> {
        let mut errors = Vec::new();
        let managed = new.at(&managed::PATH).cloned();
        metadata::keep_system_fields(new, old);
        let part = request.sub().map(|s| s.kind);
        match part {
            None => {
                if stored.has_status_at(new) {
                    copy_or_remove(new, old, "status");
                }
            }
            Some(SubresourceKind::Status) => keep_all_but_status(new, old, request.sub()),
            Some(SubresourceKind::Update) => {
                let merge = stored.hooks.subresource.ok_or_else(Status::method_not_allowed)?;
                merge(request.subresource, new, old, &mut errors);
            }
            Some(_) => return Err(Status::method_not_allowed()),
        }
        managed::set(new, managed);
        stored.fill_defaults(new);
        let prepare = match part {
            None => stored.hooks.prepare_update,
            Some(SubresourceKind::Status) => stored.hooks.prepare_status,
            Some(_) => stored.hooks.prepare_subresource,
        };
        stored.drop_disabled(new, Some(old));
        if let Some(prepare) = prepare {
            prepare(new, old, &WriteContext { now });
        }
        if part.is_none() {
            self.fill_token_secret(stored, new)?;
        }
        // What was a change of form only is none: the generation counts decoded, defaulted states.
        *new = self.canonical(stored, new)?;
        // A write of the status may change annotations, which count for some kinds, but not when they come this way.
        let counted = part != Some(SubresourceKind::Status);
        if counted && metadata::generation_moves(stored.generation_at(new), new, old) {
            new.set("metadata.generation", old.i64_at("metadata.generation").unwrap_or(0) + 1);
        }
        let key = request.key(stored);
        let invalid =
            |errors: &[corten_object::FieldError]| Status::invalid(&stored.group, &stored.kind, request.name, errors);
        let reservation = self.services.reserve(&key, new, Some(old), self).map_err(|e| invalid(&e))?;
        if part.is_none() {
            self.check_escalation(request, stored, new, Some(old))?;
        }
        errors.extend(self.namespace_faults(stored, new, Some(old)));
        errors.extend(match part {
            None => stored.update_faults(request.kind, new, old, warnings),
            Some(SubresourceKind::Status) => stored.status_faults(new, old, &WriteContext { now }, warnings),
            Some(_) => stored.metadata_faults(new, old),
        });
        if part.is_none() && errors.is_empty() {
            errors = self.unreadable_params(request, stored, new, Some(old));
        }
        if !errors.is_empty() {
            stored.show_as_upstream(new, &mut errors);
            return Err(invalid(&errors));
        }
        if part.is_none() {
            warnings.extend(stored.warnings(new, Some(old)));
            self.warn_unserved(stored, warnings);
        }
        Ok(reservation)
    }

    /// A stored kind's tree in canonical form.
    pub(super) fn canonical(&self, stored: &Kind, tree: &Tree) -> Result<Tree, Status> {
        let ty = stored.type_for(tree).ok_or_else(Status::no_such_resource)?;
        let options = Options { unknown: corten_schema::UnknownFields::Ignore, ..Options::default() };
        canonicalise(&stored.schema, ty, tree, options).map(|d| d.tree).map_err(Status::internal)
    }
}

/// Sorts the maps that a merge patch went into: upstream prints what it has decoded on the way by key, the rest as it was.
fn sort_touched(tree: &mut Tree, patch: &Tree) {
    let (Tree::Map(map), Tree::Map(touched)) = (tree, patch) else { return };
    map.sort_keys();
    for (key, patch) in touched.iter() {
        if let Some(value) = map.get_mut(key) {
            sort_touched(value, patch);
        }
    }
}

fn patch_status(error: &corten_object::patch::PatchError) -> Status {
    use corten_object::patch::PatchError;
    let reason = match error {
        PatchError::BadRequest(_) => Reason::BadRequest,
        // Upstream keeps the cause to itself.
        PatchError::Unprocessable(_) => {
            let status = Status::new(Reason::Invalid, "the server rejected our request due to an error in our request");
            return Status { bare_details: true, ..status };
        }
        PatchError::TooLarge(_) => Reason::RequestEntityTooLarge,
        // Upstream gives no reason here.
        PatchError::Internal(why) => return Status::unexplained(500, why),
    };
    Status::new(reason, error.to_string())
}

/// A write through `status` changes the status and what of the metadata clients can write at all; of kinds whose row says so, the
/// status only.
fn keep_all_but_status(new: &mut Tree, old: &Tree, sub: Option<&Subresource>) {
    const METADATA: [&str; 4] = ["labels", "annotations", "finalizers", "ownerReferences"];
    let mut kept = old.clone();
    match new.get("status") {
        Some(status) => kept.insert("status", status.clone()),
        None => {
            kept.remove("status");
        }
    }
    let only_status = sub.is_some_and(|sub| sub.keeps_metadata);
    let metadata = if only_status { &[][..] } else { &METADATA[..] };
    for key in metadata.iter().chain(&["resourceVersion"]) {
        match new.at(&["metadata", key]).cloned() {
            Some(value) => {
                kept.make_map_at("metadata").insert((*key).to_owned(), value);
            }
            None => {
                kept.make_map_at("metadata").remove(key);
            }
        }
    }
    *new = kept;
}

fn copy_or_remove(new: &mut Tree, old: &Tree, key: &'static str) {
    match old.get(key) {
        Some(value) => new.insert(key, value.clone()),
        None => {
            new.remove(key);
        }
    }
}

/// Whether nothing holds an object in deletion any more: the write that took the last finalizer off removes it
/// (`registry/generic/registry/store.go`, `ShouldDeleteDuringUpdate`).
fn goes_now(tree: &Tree) -> bool {
    tree.path("metadata.deletionTimestamp").is_some()
        && tree.i64_at("metadata.deletionGracePeriodSeconds").unwrap_or(0) == 0
        && metadata::finalizers_of(tree).is_empty()
        && tree.list_at("spec.finalizers").is_empty()
}
