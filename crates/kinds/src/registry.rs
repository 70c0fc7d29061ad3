//! The kinds of this process: the rows of the table, and what CustomResourceDefinitions add.
//!
//! A [`Registry`] is immutable and replaced as a whole when a definition changes: a reader holds one and sees one state. Ids are
//! given once: a kind keeps its id as long as the process lives, also when its definition comes and goes, and no other
//! kind gets it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use corten_object::{GroupVersionKind, KindId, Object};

use crate::custom;
use crate::kind::Kind;
use crate::table;

/// All kinds at one moment.
#[derive(Clone)]
pub struct Registry {
    /// By id, those that are gone included.
    kinds: Vec<Arc<Kind>>,
    /// By id: whether the kind is gone.
    gone: Vec<bool>,
    by_resource: HashMap<(Arc<str>, Arc<str>), KindId>,
    by_kind: HashMap<(Arc<str>, Arc<str>), KindId>,
}

impl Registry {
    /// The built-in kinds.
    pub fn builtin() -> Registry {
        let mut registry =
            Registry { kinds: Vec::new(), gone: Vec::new(), by_resource: HashMap::new(), by_kind: HashMap::new() };
        for (i, spec) in table::KINDS.iter().enumerate() {
            registry.put(Kind::builtin(KindId(i as u32), spec));
        }
        registry
    }

    /// Puts a kind in the place of its id, or behind all others.
    fn put(&mut self, kind: Kind) {
        let at = kind.id.0 as usize;
        if let Some(old) = self.kinds.get(at).cloned() {
            self.by_kind.remove(&(old.group.clone(), old.kind.clone()));
        }
        self.by_resource.insert((kind.group.clone(), kind.plural.clone()), kind.id);
        self.by_kind.insert((kind.group.clone(), kind.kind.clone()), kind.id);
        if at == self.kinds.len() {
            self.kinds.push(Arc::new(kind));
            self.gone.push(false);
        } else {
            self.kinds[at] = Arc::new(kind);
            self.gone[at] = false;
        }
    }

    /// Whether objects of a kind define kinds.
    pub fn defines(&self, kind: KindId) -> bool {
        self.get(kind).spec.is_some_and(|row| row.defines_kinds)
    }

    /// The registry after a definition was written (`gone`: removed); `None` if that changes no kind.
    pub fn with_definition(&self, definition: &Object, gone: bool) -> Option<Registry> {
        let tree = definition.to_tree();
        let (group, plural) = (tree.str_at("spec.group"), tree.str_at("spec.names.plural"));
        let known = self.id_of(group, plural);
        let old = known.filter(|id| !self.gone[id.0 as usize]).map(|id| self.get(id));
        if old.is_some_and(|kind| kind.custom.is_none()) {
            // A built-in kind is not taken over.
            return None;
        }
        if gone || !custom::is_established(&tree) {
            let id = old?.id;
            let mut next = self.clone();
            next.gone[id.0 as usize] = true;
            return Some(next);
        }
        let digest = custom::digest(&tree);
        let kept = known.map(|id| self.get(id)).and_then(|kind| kind.custom.as_ref());
        if let Some(id) = known.filter(|_| old.is_none() && kept.is_some_and(|custom| custom.digest == digest)) {
            let mut next = self.clone();
            next.gone[id.0 as usize] = false;
            return Some(next);
        }
        if old.and_then(|kind| kind.custom.as_ref()).is_some_and(|custom| custom.digest == digest) {
            return None;
        }
        let id = known.unwrap_or(KindId(self.kinds.len() as u32));
        match custom::kind(id, &tree, digest) {
            Ok(kind) => {
                let mut next = self.clone();
                next.put(kind);
                Some(next)
            }
            // It was checked when it was written: what is wrong with it came from elsewhere. It is served as it was before.
            Err(_) => None,
        }
    }

    /// The registry as these definitions make it, and no others: for a start, and for who has lost track.
    #[must_use]
    pub fn with_definitions(&self, definitions: &[Arc<Object>]) -> Registry {
        let mut next = self.clone();
        for (kind, gone) in next.kinds.iter().zip(&mut next.gone) {
            *gone |= kind.custom.is_some();
        }
        for definition in definitions {
            if let Some(more) = next.with_definition(definition, false) {
                next = more;
            }
        }
        next
    }

    fn id_of(&self, group: &str, plural: &str) -> Option<KindId> {
        self.by_resource.get(&(group.into(), plural.into())).copied()
    }

    /// The kind of an id of this process, be it gone by now.
    ///
    /// # Panics
    /// If the id did not come from this registry.
    pub fn get(&self, id: KindId) -> &Arc<Kind> {
        &self.kinds[id.0 as usize]
    }

    /// Whether the kind of an id is there, and not gone.
    pub fn has(&self, id: KindId) -> bool {
        self.gone.get(id.0 as usize).is_some_and(|gone| !gone)
    }

    /// How many ids were given: all are below this.
    pub fn ids(&self) -> usize {
        self.kinds.len()
    }

    /// The kind under which objects of `kind` are stored: itself, but for views of another kind.
    pub fn stored<'r>(&'r self, kind: &'r Arc<Kind>) -> &'r Arc<Kind> {
        kind.stored_as.map_or(kind, |id| self.get(id))
    }

    /// The kind that serves `/apis/group/version/plural`.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.group_resource(group, plural).filter(|kind| kind.serves(version))
    }

    /// The kind of a group and a plural, whatever the version.
    pub fn group_resource(&self, group: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.id_of(group, plural).filter(|id| self.has(*id)).map(|id| self.get(id))
    }

    /// The kind of a group and a kind name, whatever the version.
    pub fn group_kind(&self, group: &str, kind: &str) -> Option<&Arc<Kind>> {
        let id = *self.by_kind.get(&(group.into(), kind.into()))?;
        self.has(id).then(|| self.get(id))
    }

    /// The kind of an `apiVersion` and `kind`.
    pub fn gvk(&self, api_version: &str, kind: &str) -> Option<&Arc<Kind>> {
        let gvk = GroupVersionKind::parse(api_version, kind);
        self.group_kind(&gvk.group, kind).filter(|found| found.serves(&gvk.version))
    }

    /// A kind by any of the names that people type: `po`, `pods`, `pod`, `deployments.apps`, `Deployment`.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Kind>> {
        let lower = name.to_lowercase();
        let (resource, group) = lower.split_once('.').unwrap_or((&lower, ""));
        self.iter().find(|k| {
            let group_fits = group.is_empty() || *k.group == *group;
            group_fits
                && (*k.plural == *resource || *k.singular == *resource || k.short.iter().any(|s| **s == *resource))
        })
    }

    /// All kinds that are there.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.iter().zip(&self.gone).filter(|(_, gone)| !**gone).map(|(kind, _)| kind)
    }
}

/// The current registry, for who needs one kind at a time; clones share it.
#[derive(Clone)]
pub struct Kinds(Arc<RwLock<Arc<Registry>>>);

impl Kinds {
    /// Beginning with a registry.
    pub fn new(registry: Arc<Registry>) -> Kinds {
        Kinds(Arc::new(RwLock::new(registry)))
    }

    /// All kinds as they are now. Take it once where several questions must have answers that fit.
    pub fn now(&self) -> Arc<Registry> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another registry in place. Only the cache does, as it applies definitions.
    pub fn set(&self, registry: Arc<Registry>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = registry;
    }

    /// As [`Registry::get`].
    pub fn get(&self, id: KindId) -> Arc<Kind> {
        self.now().get(id).clone()
    }

    /// As [`Registry::resource`].
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        self.now().resource(group, version, plural).cloned()
    }

    /// As [`Registry::group_kind`].
    pub fn group_kind(&self, group: &str, kind: &str) -> Option<Arc<Kind>> {
        self.now().group_kind(group, kind).cloned()
    }

    /// As [`Registry::gvk`].
    pub fn gvk(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        self.now().gvk(api_version, kind).cloned()
    }
}
