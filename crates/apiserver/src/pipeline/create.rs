//! Create.

use corten_admission::{Operation, Reservation};
use corten_base::Revision;
use corten_kinds::{Kind, WriteContext};
use corten_object::{ObjectKey, Status};
use corten_tree::Tree;

use super::admit::Admitting;
use super::commit::{Commit, CommitError};
use super::{Answer, Body, Request, managed, metadata, unstored};
use crate::core::{Core, attributes};

/// How often a generated name is tried (`registry/generic/registry/store.go`, `maxNameGenerationCreateAttempts`).
const NAME_ATTEMPTS: usize = 8;
/// How often a create asks quotas that others book on at the same time; each time one of them succeeds.
const BOOKING_ATTEMPTS: usize = 100;
/// Random characters behind a generateName.
const SUFFIX: usize = 5;
/// Longest part of a generateName that is kept (`apiserver/pkg/storage/names/generate.go`).
const GENERATED_BASE_MAX: usize = 58;

/// Whether the managed fields of a new object are still to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fields {
    /// They are.
    Untracked,
    /// An apply has set them.
    Tracked,
}

impl Core {
    /// Makes an object.
    pub async fn create(&self, request: Request<'_>, body: Body) -> Result<Answer, Status> {
        let names = (request.namespace, request.name, "");
        self.authorize(&attributes(request.user, "create", request.kind, names)).await?;
        let decoded = self.decode(&request, body)?;
        self.create_decoded(request, decoded.tree, decoded.warnings, Fields::Untracked).await
    }

    /// The part of a create after authorization and decoding; an apply or an update of a missing object comes here, too.
    pub(super) async fn create_decoded(
        &self,
        request: Request<'_>,
        body: Tree,
        mut warnings: Vec<String>,
        fields: Fields,
    ) -> Result<Answer, Status> {
        match self.create_warning(request, body, &mut warnings, fields).await {
            Ok(answer) => Ok(Answer { warnings, ..answer }),
            Err(status) => Err(status.with_warnings(warnings)),
        }
    }

    async fn create_warning(
        &self,
        request: Request<'_>,
        body: Tree,
        warnings: &mut Vec<String>,
        fields: Fields,
    ) -> Result<Answer, Status> {
        if !body.str_at("metadata.resourceVersion").is_empty() {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        self.fresh().await?;
        let stored = self.stored(request.kind).clone();
        let mut tree = body;
        metadata::match_request(&request, &stored, &mut tree)?;
        metadata::strip_for_create(&mut tree);
        stored.fill_defaults(&mut tree);
        let mut admitting = self.admitting(&request, Operation::Create);
        admitting.name(tree.str_at("metadata.name"));
        if fields == Fields::Untracked {
            self.track(&request, None, &mut tree, admitting.now);
        }
        let managed = tree.at(&managed::PATH).cloned();
        admitting.mutate(Some(&mut tree), None).await?;
        warnings.extend(managed::keep_readable(&mut tree, managed));
        metadata::match_request(&request, &stored, &mut tree)?;
        metadata::strip_for_create(&mut tree);
        let base = tree.str_at("metadata.generateName").to_owned();
        let generate = tree.str_at("metadata.name").is_empty() && !base.is_empty();
        let mut attempts = if generate { NAME_ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            let mut tree = if attempts == 0 { std::mem::take(&mut tree) } else { tree.clone() };
            if generate {
                let cut = base.char_indices().map(|(i, c)| i + c.len_utf8()).take_while(|i| *i <= GENERATED_BASE_MAX);
                let kept = &base[..cut.last().unwrap_or(0)];
                tree.set("metadata.name", format!("{kept}{}", self.entropy.suffix(SUFFIX)));
            }
            admitting.name(tree.str_at("metadata.name"));
            match self.create_once(request, tree, &admitting, warnings).await {
                Err(status) if status.is_already_exists() && attempts > 0 => {}
                outcome => return outcome,
            }
        }
    }

    async fn create_once(
        &self,
        request: Request<'_>,
        mut tree: Tree,
        admitting: &Admitting<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Answer, Status> {
        let stored = self.stored(request.kind).clone();
        if stored.custom.as_ref().is_some_and(|custom| custom.terminating) {
            let why = "create not allowed while custom resource definition is terminating";
            let name = tree.str_at("metadata.name");
            return Err(Status::forbidden(&stored.group, &stored.plural, name, why));
        }
        let name = tree.str_at("metadata.name").to_owned();
        let key = ObjectKey::new(stored.id, tree.str_at("metadata.namespace"), &name);
        let reservation = self
            .prepare_new(&request, &stored, &key, &mut tree, admitting, warnings)
            .map_err(|status| admitting.warned(status))?;
        admitting.validate(Some(&tree), None).await?;
        warnings.extend(admitting.notes.take_warnings());
        let json = self.encode_at_rest(&stored, &mut tree).await?;
        let taken = || Status::already_exists(&request.kind.group, &request.kind.plural, &name);
        let mut attempts = BOOKING_ATTEMPTS;
        let revision = loop {
            attempts -= 1;
            let bookings = admitting.book(&tree, None)?;
            if self.cache.get(&key).is_some() {
                return Err(taken());
            }
            if request.options.dry_run {
                let revision = self.cache.revision();
                return Ok(Answer::of(201, unstored(&stored, json, Revision::ZERO)?, revision, Vec::new()));
            }
            let commit = Commit {
                kind: &stored,
                key: key.clone(),
                expected: Revision::ZERO,
                value: Some(json.clone()),
                owners_alive: &request.options.owners_alive,
                bookings: &bookings,
            };
            match self.commit(commit).await {
                Ok(revision) => break revision,
                Err(CommitError::Conflict) => {}
                Err(CommitError::Status(status)) => return Err(*status),
            }
            // The name is taken, or an owner or a quota has changed: who asks again sees which.
            self.fresh().await?;
            if self.cache.get(&key).is_some() {
                return Err(taken());
            }
            if attempts == 0 || bookings.is_empty() {
                let why = "an owner has changed";
                return Err(Status::conflict(&request.kind.group, &request.kind.plural, &name, why));
            }
        };
        self.note_addresses(&key, reservation.keep()).await;
        Ok(Answer::of(201, self.committed(&stored, &key, json, revision)?, revision, Vec::new()))
    }

    /// Everything between mutating and validating admission: default, prepare, allocate, validate.
    fn prepare_new(
        &self,
        request: &Request<'_>,
        stored: &Kind,
        key: &ObjectKey,
        tree: &mut Tree,
        admitting: &Admitting<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Reservation<'_>, Status> {
        let now = admitting.now;
        metadata::stamp(tree, self.entropy.uid(), now, stored);
        stored.fill_defaults(tree);
        if stored.has_status_at(tree) && !stored.status_on_create {
            tree.remove("status");
        }
        if let Some(requester) = stored.hooks.requester {
            requester(tree, &crate::reviews::user_info(request.user));
        }
        stored.drop_disabled(tree, None);
        if let Some(prepare) = stored.hooks.prepare_create {
            prepare(tree, &WriteContext { now });
        }
        self.fill_token_secret(stored, tree)?;
        let reservation = self
            .services
            .reserve(key, tree, None, self)
            .map_err(|errors| Status::invalid(&stored.group, &stored.kind, key.name.as_str(), &errors))?;
        self.check_escalation(request, stored, tree, None)?;
        let mut errors = self.namespace_faults(stored, tree, None);
        errors.extend(stored.create_faults(request.kind, tree));
        if errors.is_empty() {
            errors = self.unreadable_params(request, stored, tree, None);
        }
        if !errors.is_empty() {
            return Err(Status::invalid(&stored.group, &stored.kind, key.name.as_str(), &errors));
        }
        warnings.extend(stored.warnings(tree, None));
        self.warn_unserved(stored, warnings);
        Ok(reservation)
    }

    /// A kind that nothing acts on yet says so.
    pub(super) fn warn_unserved(&self, stored: &Kind, warnings: &mut Vec<String>) {
        if stored.served_by.is_none() {
            warnings.push(format!("{} is stored, but nothing in Corten acts on it yet", stored.kind));
        }
    }
}
