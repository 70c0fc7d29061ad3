//! The admission stage: what plugins, policies and webhooks get to know of a request, and of this server.

use std::sync::Arc;

use corten_admission::quota::Booking;
use corten_admission::{self as admission, Notes, Operation};
use corten_audit::{Level, trail};
use corten_auth::{Attributes, Decision};
use corten_base::{BoxFuture, Timestamp};
use corten_kinds::{Kind, Registry};
use corten_object::{GroupVersionKind, KindId, Object, Status};
use corten_schema::{Options, UnknownFields, canonicalise};
use corten_tree::{Tree, tree};
use corten_webhook::Caller;

use super::{DeleteParameters, Request, is_by_webhook};
use crate::core::{Core, from_storage};

/// A request on its way through admission.
pub(crate) struct Admitting<'a> {
    core: &'a Core,
    request: Request<'a>,
    stored: Arc<Kind>,
    operation: Operation,
    /// The object's name as far as it is known.
    name: String,
    body: Option<GroupVersionKind>,
    options: Tree,
    dry_run: bool,
    /// The request's time.
    pub now: Timestamp,
    /// What was said besides.
    pub notes: Notes,
}

impl Core {
    /// Begins the admission of a request.
    pub(crate) fn admitting<'a>(&'a self, request: &Request<'a>, operation: Operation) -> Admitting<'a> {
        Admitting {
            core: self,
            request: *request,
            stored: self.stored(request.kind).clone(),
            operation,
            name: request.name.to_owned(),
            body: None,
            options: write_options(request, operation),
            dry_run: request.options.dry_run,
            now: self.clock.now(),
            notes: Notes::default(),
        }
    }
}

impl Admitting<'_> {
    /// The object under admission is of another kind than the request's: the body of a subresource.
    #[must_use]
    pub fn with_body(mut self, group: &str, version: &str, kind: &str) -> Self {
        self.body = Some(GroupVersionKind { group: group.into(), version: version.into(), kind: kind.into() });
        self
    }

    /// The options of a delete. One of a collection has no name.
    #[must_use]
    pub fn deleting(mut self, parameters: &DeleteParameters, collection: bool) -> Self {
        self.options = delete_options(parameters, self.dry_run);
        self.dry_run |= parameters.dry_run;
        if collection {
            self.name = String::new();
        }
        self
    }

    /// The name is known now.
    pub fn name(&mut self, name: &str) {
        self.name = name.to_owned();
    }

    /// Lets everybody change the object.
    pub async fn mutate(&self, object: Option<&mut Tree>, old: Option<&Tree>) -> Result<(), Status> {
        let admitted = self.core.admission.mutate(&self.view(), object, old).await;
        self.record();
        admitted.map_err(|status| self.warned(status))
    }

    /// Asks everybody for their consent.
    pub async fn validate(&self, object: Option<&Tree>, old: Option<&Tree>) -> Result<(), Status> {
        let admitted = self.core.admission.validate(&self.view(), object, old).await;
        self.record();
        admitted.map_err(|status| self.warned(status))
    }

    /// A refusal with what was to be warned of until then.
    pub fn warned(&self, status: Status) -> Status {
        status.with_warnings(self.notes.take_warnings())
    }

    /// Puts what was noted into the request's record.
    fn record(&self) {
        if trail::wants(Level::Metadata) {
            for (key, value) in self.notes.annotations() {
                trail::annotate(&key, &value);
            }
        }
    }

    /// What the object uses of the quotas of its namespace, to be written with it. Asked last of all.
    pub fn book(&self, object: &Tree, old: Option<&Tree>) -> Result<Vec<Booking>, Status> {
        admission::quota::book(&self.view(), object, old)
    }

    fn view(&self) -> admission::Request<'_> {
        let itself = self.stored.id == corten_kinds::id::NAMESPACE;
        admission::Request {
            operation: self.operation,
            kind: &self.stored,
            asked: self.request.kind,
            version: self.request.version,
            body: self.body.as_ref(),
            namespace: match self.stored.namespaced() {
                true => self.request.namespace,
                false if itself => &self.name,
                false => "",
            },
            name: &self.name,
            subresource: self.request.subresource,
            user: self.request.user,
            options: &self.options,
            dry_run: self.dry_run,
            now: self.now,
            entropy: &*self.core.entropy,
            cluster: self.core,
            notes: &self.notes,
        }
    }
}

/// `CreateOptions` or `UpdateOptions` of a request, as webhooks and policies see them.
fn write_options(request: &Request<'_>, operation: Operation) -> Tree {
    let kind = match operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => return Tree::Null,
    };
    let mut options = tree!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if request.options.dry_run {
        options.insert("dryRun", vec!["All"]);
    }
    let texts =
        [("fieldManager", &request.options.field_manager), ("fieldValidation", &request.options.field_validation)];
    for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        options.insert(key, text.as_str());
    }
    options
}

fn delete_options(parameters: &DeleteParameters, dry_run: bool) -> Tree {
    let mut options = tree!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
    if let Some(seconds) = parameters.grace_seconds {
        options.insert("gracePeriodSeconds", seconds);
    }
    if let Some(uid) = &parameters.uid {
        options.set("preconditions.uid", uid.as_str());
    }
    if let Some(version) = &parameters.resource_version {
        options.set("preconditions.resourceVersion", version.as_str());
    }
    if let Some(propagation) = parameters.propagation {
        // The policies' names are those on the wire.
        options.insert("propagationPolicy", format!("{propagation:?}"));
    }
    if dry_run || parameters.dry_run {
        options.insert("dryRun", vec!["All"]);
    }
    options
}

impl admission::Cluster for Core {
    fn registry(&self) -> Arc<Registry> {
        self.cache.registry()
    }

    fn objects_in(&self, kind: KindId, namespace: &str) -> Vec<Arc<Object>> {
        self.cache.read().list_in(kind, namespace).cloned().collect()
    }

    fn to_version<'a>(
        &'a self,
        kind: &'a Arc<Kind>,
        version: &'a str,
        tree: &'a Tree,
    ) -> BoxFuture<'a, Result<Tree, Status>> {
        Box::pin(async move {
            let mut shown = tree.clone();
            if is_by_webhook(kind) {
                return self.tree_at(kind, version, shown).await;
            }
            if kind.custom.is_some() {
                // A custom resource may be at any version here.
                if shown.str_at("apiVersion") != kind.gvk(version).api_version() {
                    kind.rename_version(&mut shown, version);
                }
            } else if kind.stored_as.is_some() || *kind.versions[0] != *version {
                from_storage(kind, version, &mut shown);
            }
            Ok(shown)
        })
    }

    fn from_version<'a>(
        &'a self,
        kind: &'a Arc<Kind>,
        version: &'a str,
        tree: Tree,
    ) -> BoxFuture<'a, Result<Tree, Status>> {
        Box::pin(async move {
            let ty = kind.type_of(version).ok_or_else(Status::no_such_resource)?;
            let options = Options { unknown: UnknownFields::Ignore, ..Options::default() };
            let mut new = canonicalise(&kind.schema, ty, &tree, options).map_err(Status::internal)?.tree;
            self.to_storage(kind, version, &mut new)?;
            self.stored(kind).fill_defaults(&mut new);
            Ok(new)
        })
    }

    fn decode_body(&self, body: &GroupVersionKind, tree: &Tree) -> Result<Tree, Status> {
        let ty = self.schema.gvk(&body.group, &body.version, &body.kind).ok_or_else(Status::no_such_resource)?;
        let options = Options { unknown: UnknownFields::Ignore, ..Options::default() };
        canonicalise(self.schema, ty, tree, options).map(|decoded| decoded.tree).map_err(Status::internal)
    }

    fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        self.decide_now(attributes)
    }

    fn caller(&self) -> &Caller {
        &self.caller
    }
}
