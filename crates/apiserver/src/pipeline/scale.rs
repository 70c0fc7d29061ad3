//! The scale subresource: a few fields of the object as an `autoscaling/v1 Scale`.

use corten_admission::Operation;
use corten_audit::trail;
use corten_client::{PatchKind, WriteOptions};
use corten_kinds::ScalePaths;
use corten_object::{FieldError, Reason, Status};
use corten_tree::{FieldPath, Tree, tree};

use super::read::RevisionMatch;
use super::replace::Admit;
use super::{Answer, Body, PatchBody, Request};
use crate::core::{Core, attributes};

/// How often a change without a revision is tried.
const CONFLICT_RETRIES: usize = 5;

/// Whether the managed fields of a write are still to be found.
#[derive(Clone, Copy, PartialEq)]
enum Tracking {
    /// They are.
    Track,
    /// An apply has set them.
    Tracked,
}

impl Core {
    /// Reads an object's scale.
    pub async fn get_scale(&self, request: Request<'_>) -> Result<Answer, Status> {
        let paths = paths(&request)?;
        let object = self.get(request, RevisionMatch::MostRecent).await?;
        let revision = object.head.revision;
        let tree = self.working_tree(&request, &object).await?;
        if request.kind.custom.is_some() && tree.path(&paths.spec).is_none() {
            return Err(Status::internal(format!("the spec replicas field \".{}\" does not exist", paths.spec)));
        }
        Ok(Answer::tree(200, scale(&tree, &paths), revision))
    }

    /// Replaces an object's scale.
    pub async fn update_scale(&self, request: Request<'_>, body: Body) -> Result<Answer, Status> {
        let names = (request.namespace, request.name, request.subresource);
        self.authorize(&attributes(request.user, "update", request.kind, names)).await?;
        let decoded = self.decode_scale(&request, body)?;
        self.write_scale(request, |_| Ok(decoded.clone()), Tracking::Track).await
    }

    /// Patches an object's scale.
    pub async fn patch_scale(&self, request: Request<'_>, patch: PatchBody) -> Result<Answer, Status> {
        let names = (request.namespace, request.name, request.subresource);
        self.authorize(&attributes(request.user, "patch", request.kind, names)).await?;
        trail::request_patch(|| patch.to_tree());
        paths(&request)?;
        let ty = self.schema.gvk("autoscaling", "v1", "Scale").ok_or_else(Status::no_such_resource)?;
        if patch.kind == PatchKind::Apply {
            let (body, _) = super::decode::apply_body(&patch.body)?;
            let applied = |old: &Tree| {
                let tree = self.applied_scale(&request, old, &body, self.clock.now())?;
                self.decode_scale(&request, Body::Tree(tree))
            };
            return self.write_scale(request, applied, Tracking::Tracked).await;
        }
        let patched = |old: &Tree| {
            let (patched, _) = self.apply_patch(&request, &patch, old.clone(), (self.schema, ty))?;
            self.decode_scale(&request, Body::Tree(patched))
        };
        self.write_scale(request, patched, Tracking::Track).await
    }

    fn decode_scale(&self, request: &Request<'_>, body: Body) -> Result<Tree, Status> {
        let ty = self.schema.gvk("autoscaling", "v1", "Scale").ok_or_else(Status::no_such_resource)?;
        Ok(self.decode_as(request, body, (self.schema, ty), "autoscaling/v1", "Scale")?.tree)
    }

    async fn write_scale(
        &self,
        request: Request<'_>,
        wanted: impl Fn(&Tree) -> Result<Tree, Status>,
        tracking: Tracking,
    ) -> Result<Answer, Status> {
        let paths = paths(&request)?;
        let key = request.key(self.stored(request.kind));
        let mut last = request.not_found();
        for _ in 0..CONFLICT_RETRIES {
            self.fresh().await?;
            let old = self.cache.get(&key).ok_or_else(|| request.not_found())?;
            let mut new = self.working_tree(&request, &old).await?;
            let mut old_scale = scale(&new, &paths);
            super::managed::set(&mut old_scale, self.scale_fields(&request, &new, &paths.spec));
            let mut wanted = wanted(&old_scale)?;
            let admitting = self.admitting(&request, Operation::Update).with_body("autoscaling", "v1", "Scale");
            if tracking == Tracking::Track {
                self.track_scale(&request, &old_scale, &mut wanted, admitting.now);
            }
            admitting.mutate(Some(&mut wanted), Some(&old_scale)).await?;
            let replicas = wanted.i64_at("spec.replicas").unwrap_or(0);
            if replicas < 0 {
                let path = FieldPath::of("spec.replicas");
                let error = FieldError::invalid(&path, &Tree::Int(replicas), "must be greater than or equal to 0");
                return Err(Status::invalid("autoscaling", "Scale", request.name, &[error]));
            }
            let conditional = wanted.str_at("metadata.resourceVersion").to_owned();
            if !conditional.is_empty() && conditional != old.head.revision.to_string() {
                return Err(Status::modified(&request.kind.group, &request.kind.plural, request.name));
            }
            admitting.validate(Some(&wanted), Some(&old_scale)).await?;
            new.set(&paths.spec, replicas);
            self.take_scale_fields(&request, &wanted, &mut new, &paths.spec);
            // The scale's right was checked; the write to the object is the server's own.
            let inner = Request { subresource: "", ..request };
            let options = WriteOptions { field_validation: "Ignore".into(), ..request.options.clone() };
            let inner = Request { options: &options, ..inner };
            match self.replace_with(inner, new, Admit::Done).await {
                Ok(answer) => {
                    let warnings = [admitting.notes.take_warnings(), answer.warnings].concat();
                    let answer = Answer { warnings, ..answer };
                    let tree = match &answer.object {
                        Some(object) => scale(&self.working_tree(&request, object).await?, &paths),
                        None => Tree::Null,
                    };
                    return Ok(Answer { object: None, tree: Some(tree), ..answer });
                }
                // What is conditional finds its condition broken the next time round.
                Err(status) if status.reason == Reason::Conflict => last = status,
                Err(status) => return Err(status),
            }
        }
        Err(last)
    }
}

fn paths(request: &Request<'_>) -> Result<ScalePaths, Status> {
    request.kind.scale_paths(request.version).cloned().ok_or_else(Status::no_such_resource)
}

/// The Scale of an object.
fn scale(object: &Tree, paths: &ScalePaths) -> Tree {
    let mut metadata = Tree::map();
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.at(&["metadata", key]) {
            metadata.insert(key, value.clone());
        }
    }
    let selector = paths.selector_text(object);
    let mut spec = Tree::map();
    if let Some(replicas) = object.i64_at(&paths.spec).filter(|n| *n != 0) {
        spec.insert("replicas", replicas);
    }
    let mut status = tree!({"replicas": (object.i64_at(&paths.status).unwrap_or(0))});
    if !selector.is_empty() {
        status.insert("selector", selector);
    }
    tree!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}
