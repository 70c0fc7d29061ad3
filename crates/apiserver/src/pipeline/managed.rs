//! Who owns which fields: the one place of all verbs where managed fields are kept.
//!
//! A write is tracked between decoding and admission, as upstream does it (`apiserver/pkg/endpoints/handlers/{create,update,patch}.go`).

use std::sync::Arc;

use corten_base::Timestamp;
use corten_kinds::Kind;
use corten_object::managed::{self, Context, ReplicasPath, Versions};
use corten_object::{GroupVersionKind, Status};
use corten_schema::{Options, Schema, TypeId, UnknownFields, canonicalise};
use corten_tree::{Tree, json, tree};

use super::{Body, Request, yaml};
use crate::core::{Core, from_storage, is_at_version};

/// Where managed fields are.
pub(super) const PATH: [&str; 2] = ["metadata", "managedFields"];

/// The `apiVersion` of a Scale.
const SCALE: &str = "autoscaling/v1";

/// A kind's versions, and conversion between them.
struct KindVersions<'a> {
    core: &'a Core,
    kind: &'a Arc<Kind>,
}

impl KindVersions<'_> {
    /// The kind that serves an `apiVersion` of the same objects, and the version.
    fn resolve(&self, api_version: &str) -> Option<(Arc<Kind>, String)> {
        let gvk = GroupVersionKind::parse(api_version, &self.kind.kind);
        if *gvk.group == *self.kind.group {
            return self.kind.serves(&gvk.version).then(|| (self.kind.clone(), gvk.version));
        }
        let stored = self.core.stored(self.kind).id;
        let registry = self.core.registry.now();
        let other = registry.gvk(api_version, &self.kind.kind).filter(|other| self.core.stored(other).id == stored)?;
        Some((other.clone(), gvk.version))
    }
}

impl Versions for KindVersions<'_> {
    fn type_of(&self, api_version: &str) -> Option<TypeId> {
        let (kind, version) = self.resolve(api_version)?;
        kind.type_of(&version)
    }

    fn unknown(&self, api_version: &str) -> Option<String> {
        self.kind.custom.as_ref()?;
        let gvk = GroupVersionKind::parse(api_version, &self.kind.kind);
        let known =
            *gvk.group == *self.kind.group && self.kind.versions.iter().any(|version| **version == *gvk.version);
        (!known).then(|| format!("request to convert CR to an invalid group/version: {api_version}"))
    }

    fn convert(&self, tree: &Tree, from: &str, to: &str) -> Option<Tree> {
        let (source, target) = (self.resolve(from)?, self.resolve(to)?);
        let mut tree = tree.clone();
        if self.kind.custom.is_some() {
            // Nothing is dropped, nulls included: they tell an emptied map from an absent one.
            tree.set("apiVersion", to);
            return Some(tree);
        }
        self.core.to_storage(&source.0, &source.1, &mut tree).ok()?;
        from_storage(&target.0, &target.1, &mut tree);
        Some(tree)
    }
}

/// A Scale has one version.
struct ScaleVersions<'a>(&'a Schema);

impl Versions for ScaleVersions<'_> {
    fn type_of(&self, api_version: &str) -> Option<TypeId> {
        (api_version == SCALE).then(|| self.0.gvk("autoscaling", "v1", "Scale"))?
    }

    fn convert(&self, _: &Tree, _: &str, _: &str) -> Option<Tree> {
        None
    }
}

impl Core {
    /// Keeps the managed fields of a write: `old` became `new` (as working trees: those of a custom resource are at the request's version).
    pub(crate) fn track(&self, request: &Request<'_>, old: Option<&Tree>, new: &mut Tree, now: Timestamp) {
        let versions = KindVersions { core: self, kind: request.kind };
        let same = request.kind.custom.is_some() || is_at_version(request.kind, request.version);
        let at_request = |tree: &Tree| {
            let mut tree = tree.clone();
            from_storage(request.kind, request.version, &mut tree);
            tree
        };
        let empty;
        let old = match old {
            Some(old) => old,
            None => {
                empty = empty_object(request);
                &empty
            }
        };
        let manager = &request.options.field_manager;
        let kept = || old.at(&PATH).cloned();
        let gvk = request.kind.gvk(request.version);
        let api_version = gvk.api_version();
        let context = context(request, &versions, &api_version, now);
        let managed = if same {
            managed::update(&context, old, new, manager)
        } else if old.str_at("metadata.uid").is_empty() {
            managed::update(&context, old, &at_request(new), manager)
        } else {
            managed::update(&context, &at_request(old), &at_request(new), manager)
        };
        let managed = managed.unwrap_or_else(|why| {
            tracing::warn!(kind = %request.kind.kind, name = request.name, %why, "managed fields are not updated");
            kept()
        });
        set(new, managed);
    }

    /// Applies a configuration to the object (at the request's version), or to nothing.
    pub(super) fn applied(
        &self,
        request: &Request<'_>,
        live: Option<&Tree>,
        body: &Tree,
        now: Timestamp,
    ) -> Result<Tree, Status> {
        let versions = KindVersions { core: self, kind: request.kind };
        let api_version = request.kind.gvk(request.version).api_version();
        let context = context(request, &versions, &api_version, now);
        let empty = empty_object(request);
        let options = request.options;
        let live = live.unwrap_or(&empty);
        let applied = managed::apply(&context, &empty, live, body, &options.field_manager, options.force)?;
        Ok(applied.tree)
    }

    /// The managed fields of an object's Scale, before a write to it.
    pub(super) fn scale_fields(&self, request: &Request<'_>, object: &Tree, path: &str) -> Option<Tree> {
        let api_versions = api_versions(request.kind);
        let api_version = request.kind.gvk(request.version).api_version();
        let replicas = ReplicasPath { path, api_versions: &api_versions, api_version: &api_version };
        managed::scale_to_subresource(object.at(&PATH)?, &replicas)
    }

    /// Keeps the managed fields of a write to a Scale.
    pub(super) fn track_scale(&self, request: &Request<'_>, old: &Tree, new: &mut Tree, now: Timestamp) {
        let versions = ScaleVersions(self.schema);
        let context = Context { kind: "Scale", schema_changes: false, ..context(request, &versions, SCALE, now) };
        let context = Context { schema: self.schema, ..context };
        let managed = managed::update(&context, old, new, &request.options.field_manager);
        set(new, managed.unwrap_or_else(|_| old.at(&PATH).cloned()));
    }

    /// Applies a configuration to a Scale.
    pub(super) fn applied_scale(
        &self,
        request: &Request<'_>,
        live: &Tree,
        body: &Tree,
        now: Timestamp,
    ) -> Result<Tree, Status> {
        if request.kind.custom.is_some() && live.at(&PATH).is_none() {
            // Upstream's conversion of custom resources meets the empty Scale that the fields so far are compared with.
            let why = "failed to create manager for existing fields: failed to convert live object (/; autoscaling/v1, \
                       Kind=Scale) to proper version: request to convert CR to an invalid group/version: autoscaling/v1";
            return Err(Status::new(corten_object::Reason::Unknown, why));
        }
        let versions = ScaleVersions(self.schema);
        let context = Context { kind: "Scale", schema_changes: false, ..context(request, &versions, SCALE, now) };
        let context = Context { schema: self.schema, ..context };
        let empty =
            tree!({"kind": "Scale", "apiVersion": SCALE, "metadata": {}, "spec": {}, "status": {"replicas": 0}});
        let options = request.options;
        Ok(managed::apply(&context, &empty, live, body, &options.field_manager, options.force)?.tree)
    }

    /// Gives the object the managed fields that its Scale has after a write.
    pub(super) fn take_scale_fields(&self, request: &Request<'_>, scale: &Tree, object: &mut Tree, path: &str) {
        let api_versions = api_versions(request.kind);
        let api_version = request.kind.gvk(request.version).api_version();
        let replicas = ReplicasPath { path, api_versions: &api_versions, api_version: &api_version };
        let null = Tree::Null;
        let (parent, scale) = (object.at(&PATH).unwrap_or(&null), scale.at(&PATH).unwrap_or(&null));
        let managed = managed::scale_to_parent(parent, scale, &replicas);
        set(object, managed);
    }
}

fn context<'c>(
    request: &'c Request<'_>,
    versions: &'c dyn Versions,
    api_version: &'c str,
    now: Timestamp,
) -> Context<'c> {
    Context {
        schema: &request.kind.schema,
        versions,
        api_version,
        kind: &request.kind.kind,
        subresource: request.subresource,
        ownable: request.kind.ownable(request.sub()),
        now,
        schema_changes: request.kind.custom.is_some(),
    }
}

fn api_versions(kind: &Kind) -> Vec<String> {
    kind.versions.iter().map(|version| kind.gvk(version).api_version()).collect()
}

/// What an object is before it is made: its type and the fields that are always printed.
fn empty_object(request: &Request<'_>) -> Tree {
    let gvk = request.kind.gvk(request.version);
    let typed = tree!({"kind": (gvk.kind.as_str()), "apiVersion": (gvk.api_version())});
    let options = Options { unknown: UnknownFields::Ignore, ..Options::default() };
    let decoded =
        request.kind.type_of(request.version).map(|ty| canonicalise(&request.kind.schema, ty, &typed, options));
    match decoded {
        Some(Ok(decoded)) => decoded.tree,
        _ => typed,
    }
}

/// Sets an object's managed fields.
pub(super) fn set(tree: &mut Tree, managed: Option<Tree>) {
    let metadata = tree.make_map_at("metadata");
    match managed {
        Some(managed) => {
            metadata.insert(PATH[1], managed);
        }
        None => {
            metadata.remove(PATH[1]);
        }
    }
}

/// Makes an empty list of managed fields one with an empty entry: both reset them, and the first does not outlive decoding.
pub(super) fn mark_reset(tree: &mut Tree) {
    if is_reset(tree) {
        reset(tree);
    }
}

/// Makes the managed fields such as reset those of the object that is written to.
pub(super) fn reset(tree: &mut Tree) {
    set(tree, Some(Tree::List(vec![Tree::map()])));
}

fn is_reset(tree: &Tree) -> bool {
    tree.at(&PATH).and_then(Tree::as_list).is_some_and(<[Tree]>::is_empty)
}

/// Whether a body has an empty list of managed fields.
pub(super) fn resets(body: &Body) -> bool {
    let bytes = match body {
        Body::Tree(tree) => return is_reset(tree),
        Body::Json(bytes) | Body::Yaml(bytes) => bytes,
        // There an empty list is none.
        Body::Protobuf(_) => return false,
    };
    let word = PATH[1].as_bytes();
    // A list that is not empty has a manager's name or an apiVersion in it: only bodies that may be meant are read a second time.
    let mentions =
        |part: &[u8]| part.starts_with(word) && part.iter().skip(word.len()).take(8).any(|byte| *byte == b']');
    let may = bytes.windows(word.len() + 8).any(mentions) || (bytes.len() < word.len() + 8);
    match body {
        _ if !may => false,
        Body::Yaml(bytes) => yaml::parse(bytes).is_ok_and(|yaml| is_reset(&yaml.tree)),
        _ => json::parse(bytes).is_ok_and(|tree| is_reset(&tree)),
    }
}

/// Lets admission change managed fields only to what can be read; returns the warning if it did otherwise
/// (`handlers/fieldmanager/admission.go`).
pub(super) fn keep_readable(tree: &mut Tree, before: Option<Tree>) -> Option<String> {
    if tree.at(&PATH) == before.as_ref() {
        return None;
    }
    let why = managed::check_managed_fields(tree).err()?;
    set(tree, before);
    Some(format!(
        ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating \
         admission controller; please fix your requests: {why}"
    ))
}
