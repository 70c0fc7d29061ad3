//! The objects of one revision: maps and indexes, and nothing that waits or locks.
//!
//! The cache keeps one of these behind a lock; tests and the simulator may build their own with [`Objects::put`].

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::{Arc, RwLockReadGuard};

use corten_base::{Istr, Revision};
use corten_kinds::{Kind, Registry};
use corten_object::{KindId, Object, ObjectKey};

use crate::Filter;
use crate::keys::segment;

/// All objects of all kinds at one revision, with their indexes.
pub struct Objects {
    registry: Arc<Registry>,
    revision: Revision,
    kinds: Vec<OfKind>,
    by_uid: HashMap<Istr, ObjectKey>,
    /// Objects by the uid of each of their owners, controllers or not.
    by_owner: HashMap<Istr, Index>,
}

/// The objects of one kind.
#[derive(Default)]
struct OfKind {
    /// By namespace, as it stands in keys (so the order is the store's), then by name.
    namespaces: BTreeMap<Box<str>, BTreeMap<Istr, Arc<Object>>>,
    count: usize,
    /// The bytes of all of them, as they are stored.
    bytes: usize,
    /// One per indexed fact: its place in the head, and the objects by value. The empty value is not indexed.
    facts: Vec<(usize, HashMap<Istr, Index>)>,
    /// Those that no controller manages, if the kind's are adopted.
    unmanaged: Option<Index>,
}

type Index = BTreeMap<ObjectKey, Arc<Object>>;

impl Objects {
    /// Nothing, at revision zero.
    pub fn new(registry: Arc<Registry>) -> Objects {
        let kinds = (0..registry.ids()).map(|id| OfKind::new(registry.get(KindId(id as u32)))).collect();
        Objects { registry, revision: Revision::ZERO, kinds, by_uid: HashMap::new(), by_owner: HashMap::new() }
    }

    /// The kinds that these objects are of.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Goes on with another registry, which has all ids that this one has. The objects of `changed` kinds are taken out and
    /// returned: their facts and their form may be others now.
    pub fn set_registry(&mut self, registry: Arc<Registry>, changed: &[KindId]) -> Vec<Arc<Object>> {
        let mut taken = Vec::new();
        for kind in changed {
            let objects: Vec<Arc<Object>> = self.list(*kind).cloned().collect();
            for object in &objects {
                self.remove(&object.key());
            }
            taken.extend(objects);
            if let Some(of) = self.kinds.get_mut(kind.0 as usize) {
                *of = OfKind::new(registry.get(*kind));
            }
        }
        for id in self.kinds.len()..registry.ids() {
            self.kinds.push(OfKind::new(registry.get(KindId(id as u32))));
        }
        self.registry = registry;
        taken
    }

    /// The revision that this shows: everything that was committed up to it, nothing after.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Moves to a later revision; done by the cache, and by who builds a world by hand.
    pub fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.find(key.kind, &key.namespace, &key.name)
    }

    /// One object, by texts.
    pub fn find(&self, kind: KindId, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.of(kind)?.namespaces.get(segment(namespace).as_str())?.get(name)
    }

    /// The object with this uid.
    pub fn by_uid(&self, uid: &str) -> Option<&Arc<Object>> {
        self.get(self.by_uid.get(uid)?)
    }

    /// All objects of a kind, ordered by namespace and name as in the store.
    pub fn list(&self, kind: KindId) -> impl Iterator<Item = &Arc<Object>> {
        self.of(kind).into_iter().flat_map(|of| of.namespaces.values()).flat_map(BTreeMap::values)
    }

    /// The objects of a kind in a namespace (empty: all namespaces), in order.
    pub fn list_in(&self, kind: KindId, namespace: &str) -> impl Iterator<Item = &Arc<Object>> {
        let of = self.of(kind);
        let one = of.filter(|_| !namespace.is_empty()).and_then(|of| of.namespaces.get(segment(namespace).as_str()));
        let all = of.filter(|_| namespace.is_empty()).into_iter().flat_map(|of| of.namespaces.values());
        one.into_iter().chain(all).flat_map(BTreeMap::values)
    }

    /// The objects that a filter lets through, in order; by the narrowest index that fits.
    pub fn select<'a>(&'a self, filter: &'a Filter) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a> {
        if let Some(name) = filter.exact_name().filter(|_| self.is_single(filter)) {
            let found = self.find(filter.kind(), filter.namespace(), name);
            return Box::new(found.into_iter().filter(|object| filter.matches(object)));
        }
        let index = self.of(filter.kind()).and_then(|of| {
            let exact = |(place, index): &'a (usize, HashMap<Istr, Index>)| {
                filter.exact_fact(*place).filter(|value| !value.is_empty()).map(|value| index.get(value))
            };
            of.facts.iter().find_map(exact)
        });
        match index {
            // An index is ordered by namespace and name too, but not quite as the store's keys are.
            Some(index) => {
                let found = index.into_iter().flat_map(BTreeMap::values).filter(|object| filter.matches(object));
                let mut found: Vec<&Arc<Object>> = found.collect();
                found.sort_by_cached_key(|object| (segment(&object.head.namespace), object.head.name.clone()));
                Box::new(found.into_iter())
            }
            None => {
                let all = self.list_in(filter.kind(), filter.namespace());
                Box::new(all.filter(|object| filter.matches(object)))
            }
        }
    }

    /// Whether namespace and name name one object at most.
    fn is_single(&self, filter: &Filter) -> bool {
        !filter.namespace().is_empty() || !self.registry.get(filter.kind()).namespaced()
    }

    /// The objects, of any kind, that have an owner reference with this uid.
    pub fn by_owner(&self, uid: &str) -> impl Iterator<Item = &Arc<Object>> {
        self.by_owner.get(uid).into_iter().flat_map(BTreeMap::values)
    }

    /// The objects of one kind that have an owner reference with this uid, ordered by namespace and name.
    pub fn owned(&self, uid: &str, kind: KindId) -> impl Iterator<Item = &Arc<Object>> {
        let first = ObjectKey { kind, namespace: Istr::default(), name: Istr::default() };
        let index = self.by_owner.get(uid).into_iter();
        index
            .flat_map(move |index| index.range(first.clone()..))
            .map(|(_, object)| object)
            .take_while(move |object| object.kind == kind)
    }

    /// The objects of a kind in a namespace that no controller manages, in order.
    pub fn unmanaged<'a: 'n, 'n>(
        &'a self,
        kind: KindId,
        namespace: &'n str,
    ) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'n> {
        let Some(index) = self.of(kind).and_then(|of| of.unmanaged.as_ref()) else {
            return Box::new(self.list_in(kind, namespace).filter(|object| object.head.controller().is_none()));
        };
        let first = ObjectKey { kind, namespace: namespace.into(), name: Istr::default() };
        let in_it = move |object: &&'a Arc<Object>| namespace.is_empty() || object.head.namespace == *namespace;
        Box::new(index.range(first..).map(|(_, object)| object).take_while(in_it))
    }

    /// The objects of a kind whose indexed fact `path` is `value`; none if the kind's row declares no such index.
    pub fn by_index(&self, kind: KindId, path: &str, value: &str) -> impl Iterator<Item = &Arc<Object>> {
        let place = self.registry.get(kind).fact_index(path);
        let of = self.of(kind);
        let index = of.and_then(|of| of.facts.iter().find(|(at, _)| Some(*at) == place));
        index.and_then(|(_, index)| index.get(value)).into_iter().flat_map(BTreeMap::values)
    }

    /// An object's fact `path`, without decoding the object; empty if the kind's row has no such fact.
    pub fn fact<'o>(&self, object: &'o Object, path: &str) -> &'o str {
        let place = self.registry.get(object.kind).fact_index(path);
        place.and_then(|place| object.head.facts.get(place)).map_or("", Istr::as_str)
    }

    /// How many objects of a kind there are.
    pub fn count(&self, kind: KindId) -> usize {
        self.of(kind).map_or(0, |of| of.count)
    }

    /// How many bytes the objects of a kind have together, as they are stored.
    pub fn bytes(&self, kind: KindId) -> usize {
        self.of(kind).map_or(0, |of| of.bytes)
    }

    /// Puts an object in place of the one with its key, which is returned.
    pub fn put(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        let (key, head) = (object.key(), &object.head);
        let of = self.kinds.get_mut(object.kind.0 as usize)?;
        let names = of.namespaces.entry(segment(&key.namespace).into()).or_default();
        let old = names.insert(key.name.clone(), object.clone());
        of.count += usize::from(old.is_none());
        of.bytes += object.stored_len();
        of.bytes -= old.as_ref().map_or(0, |old| old.stored_len());
        for (place, index) in &mut of.facts {
            let value = head.facts.get(*place);
            if let Some(gone) =
                old.as_ref().and_then(|old| old.head.facts.get(*place)).filter(|gone| Some(*gone) != value)
            {
                take_out(index, gone, &key);
            }
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                index.entry(value.clone()).or_default().insert(key.clone(), object.clone());
            }
        }
        if let Some(unmanaged) = &mut of.unmanaged {
            match head.controller() {
                None => drop(unmanaged.insert(key.clone(), object.clone())),
                Some(_) if old.as_ref().is_some_and(|old| old.head.controller().is_none()) => {
                    unmanaged.remove(&key);
                }
                Some(_) => {}
            }
        }
        let old_owners = old.iter().flat_map(|old| old.head.owners.iter());
        for gone in old_owners.filter(|gone| !head.owners.iter().any(|owner| owner.uid == gone.uid)) {
            take_out(&mut self.by_owner, &gone.uid, &key);
        }
        for owner in &head.owners {
            self.by_owner.entry(owner.uid.clone()).or_default().insert(key.clone(), object.clone());
        }
        if old.as_ref().is_none_or(|old| old.head.uid != head.uid) {
            if let Some(old) = &old {
                self.by_uid.remove(&old.head.uid);
            }
            if !head.uid.is_empty() {
                self.by_uid.insert(head.uid.clone(), key);
            }
        }
        old
    }

    /// Takes an object out.
    pub fn remove(&mut self, key: &ObjectKey) -> Option<Arc<Object>> {
        let of = self.kinds.get_mut(key.kind.0 as usize)?;
        let segment = segment(&key.namespace);
        let names = of.namespaces.get_mut(segment.as_str())?;
        let old = names.remove(&key.name)?;
        if names.is_empty() {
            of.namespaces.remove(segment.as_str());
        }
        of.count -= 1;
        of.bytes -= old.stored_len();
        for (place, index) in &mut of.facts {
            if let Some(value) = old.head.facts.get(*place) {
                take_out(index, value, key);
            }
        }
        if let Some(unmanaged) = &mut of.unmanaged {
            unmanaged.remove(key);
        }
        for owner in &old.head.owners {
            take_out(&mut self.by_owner, &owner.uid, key);
        }
        self.by_uid.remove(&old.head.uid);
        Some(old)
    }

    fn of(&self, kind: KindId) -> Option<&OfKind> {
        self.kinds.get(kind.0 as usize)
    }
}

impl OfKind {
    fn new(kind: &Kind) -> OfKind {
        let indexed = kind.facts.iter().enumerate().filter(|(_, fact)| fact.indexed);
        OfKind {
            facts: indexed.map(|(place, _)| (place, HashMap::new())).collect(),
            unmanaged: kind.spec.is_some_and(|spec| spec.adopted).then(Index::new),
            ..OfKind::default()
        }
    }
}

fn take_out(index: &mut HashMap<Istr, Index>, value: &Istr, key: &ObjectKey) {
    if let Some(found) = index.get_mut(value) {
        found.remove(key);
        if found.is_empty() {
            index.remove(value);
        }
    }
}

/// All objects at one revision, while this is held. Hold it for one decision, never across an await: the feeder waits for it.
pub struct World<'a>(Source<'a>);

enum Source<'a> {
    Cache(RwLockReadGuard<'a, Objects>),
    Built(&'a Objects),
}

impl<'a> World<'a> {
    pub(crate) fn guard(guard: RwLockReadGuard<'a, Objects>) -> World<'a> {
        World(Source::Cache(guard))
    }
}

/// A world that was built by hand.
impl<'a> From<&'a Objects> for World<'a> {
    fn from(objects: &'a Objects) -> World<'a> {
        World(Source::Built(objects))
    }
}

impl Deref for World<'_> {
    type Target = Objects;
    fn deref(&self) -> &Objects {
        match &self.0 {
            Source::Cache(guard) => guard,
            Source::Built(objects) => objects,
        }
    }
}
