//! The cache: fed by one task from the store's changes, read by everyone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use corten_base::Revision;
use corten_kinds::{Kind, Kinds, Registry};
use corten_object::{KindId, Models, Object, ObjectKey};
use corten_store::{Changes, Store, Watch};
use futures::FutureExt;
use tokio::sync::watch;

use crate::applied::Applied;
use crate::ring::Ring;
use crate::{Cursor, Event, Filter, Gone, Objects, RingLimits, Scope, Watcher, World, keys};

/// How many entries are read from the store at a time.
const PAGE: usize = 1000;
/// How many revisions are applied under one lock, at most.
const GROUP_MAX: usize = 256;

/// Opens what was sealed at rest: from the stored bytes of an object of a kind under a key to its canonical JSON.
pub type Unseal = Arc<dyn Fn(&Kind, &[u8], Bytes) -> Result<Bytes, String> + Send + Sync>;

/// How to make a cache.
#[derive(Clone, Default)]
pub struct CacheOptions {
    pub ring: RingLimits,
    /// `None`: nothing is sealed.
    pub unseal: Option<Unseal>,
    /// How many of the store's latest revisions are replayed into the ring at the start, so that clients that watched before a
    /// restart can go on without listing again.
    pub replay_revisions: u64,
}

/// A list at one revision.
#[derive(Clone, Debug)]
pub struct List {
    /// Ordered by namespace and name.
    pub items: Vec<Arc<Object>>,
    pub revision: Revision,
}

/// The watch cache of a process; clones share it.
#[derive(Clone)]
pub struct Cache {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    kinds: Kinds,
    /// What lies in the store under no kind's prefix: a definition may come (again) that it belongs to.
    strays: Mutex<Strays>,
    /// What the bytes of new objects are told by, of each kind. Only who feeds the cache uses them.
    models: Mutex<BTreeMap<KindId, Models>>,
    options: CacheOptions,
    /// Locked before the ring, and until the ring has it too: a list's revision is always one to go on from.
    objects: RwLock<Objects>,
    ring: RwLock<Ring>,
    /// The applied revision.
    applied: Applied,
    /// Told whenever the ring moved: for cursors over everything, per kind, and per set of kinds that is followed.
    moved_any: watch::Sender<u64>,
    moved: RwLock<Vec<watch::Sender<u64>>>,
    moved_sets: RwLock<Vec<(Arc<[KindId]>, watch::Sender<u64>)>>,
    /// Told whenever the registry was replaced.
    kinds_moved: watch::Sender<u64>,
}

/// Stored values by key, each with its revision.
type Strays = BTreeMap<Bytes, (Bytes, Revision)>;

impl Cache {
    /// An empty cache at revision zero.
    pub fn new(registry: Arc<Registry>, options: CacheOptions) -> Cache {
        let kinds = registry.ids();
        let shared = Shared {
            objects: RwLock::new(Objects::new(registry.clone())),
            ring: RwLock::new(Ring::new(kinds, options.ring)),
            applied: Applied::new(),
            moved_any: watch::Sender::new(0),
            moved: RwLock::new((0..kinds).map(|_| watch::Sender::new(0)).collect()),
            moved_sets: RwLock::default(),
            kinds_moved: watch::Sender::new(0),
            strays: Mutex::default(),
            models: Mutex::default(),
            kinds: Kinds::new(registry),
            options,
        };
        Cache { shared: Arc::new(shared) }
    }

    /// The kinds as they are now. [`World`] has those of its revision.
    pub fn registry(&self) -> Arc<Registry> {
        self.shared.kinds.now()
    }

    /// The kinds as they are whenever it is asked.
    pub fn kinds(&self) -> &Kinds {
        &self.shared.kinds
    }

    /// Told whenever a definition has changed the kinds.
    pub fn kinds_moved(&self) -> watch::Receiver<u64> {
        self.shared.kinds_moved.subscribe()
    }

    /// All objects at one revision. Hold it for one decision only, and never across an await.
    pub fn read(&self) -> World<'_> {
        World::guard(self.shared.objects())
    }

    /// The revision that has been applied.
    pub fn revision(&self) -> Revision {
        self.shared.applied.get()
    }

    /// One object, as it is now.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.read().get(key).cloned()
    }

    /// One object, by texts.
    pub fn find(&self, kind: KindId, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.read().find(kind, namespace, name).cloned()
    }

    /// The selected objects, all at one revision.
    pub fn list(&self, filter: &Filter) -> List {
        let world = self.read();
        let items = if filter.is_everything() {
            let mut items = Vec::with_capacity(world.count(filter.kind()));
            items.extend(world.list_in(filter.kind(), filter.namespace()).cloned());
            items
        } else {
            world.select(filter).cloned().collect()
        };
        List { items, revision: world.revision() }
    }

    /// Waits until everything up to a revision has been applied. Wait for the store's current revision to read your own
    /// writes. Never completes if the store never gets there.
    pub async fn wait_for(&self, revision: Revision) {
        self.shared.applied.reached(revision).await;
    }

    /// Follows all changes after a revision, which has been applied (else [`Cache::wait_for`] it first).
    pub fn cursor(&self, scope: Scope, after: Revision) -> Result<Cursor, Gone> {
        Cursor::new(self.shared.clone(), scope, after)
    }

    /// Follows what a selection sees after a revision, which has been applied (else [`Cache::wait_for`] it first).
    pub fn watch(&self, filter: Filter, after: Revision) -> Result<Watcher, Gone> {
        let cursor = self.cursor(Scope::Kind(filter.kind()), after)?;
        Ok(Watcher::new(cursor, filter))
    }

    /// Applies changes, which must be those right after what has been applied, in order.
    pub fn apply(&self, changes: &[Arc<Changes>]) {
        let Some(last) = changes.last() else { return };
        // Decoding is the work, and is done before the lock is taken. Kinds that a definition among the changes makes are
        // there for the changes after it.
        let before = self.registry();
        let mut registry = before.clone();
        let mut decoded = Vec::new();
        for changes in changes {
            for change in &changes.changes {
                self.decode(&mut registry, change, changes.revision, &mut decoded);
            }
        }
        let mut touched: Vec<KindId> = decoded.iter().map(|change| change.key.kind).collect();
        touched.sort_unstable();
        touched.dedup();
        let mut objects = self.shared.objects_mut();
        let mut ring = self.shared.ring_mut();
        if !Arc::ptr_eq(&before, &registry) {
            self.replace_registry(&mut objects, &mut ring, &before, &registry);
        }
        for Decoded { revision, key, object } in decoded {
            let previous = match &object {
                Some(object) => objects.put(object.clone()),
                None => objects.remove(&key),
            };
            if object.is_some() || previous.is_some() {
                ring.push(Arc::new(Event::new(revision, key.kind, object, previous)));
            }
        }
        objects.set_revision(last.revision);
        ring.advance(last.revision);
        drop(ring);
        drop(objects);
        self.shared.announce(last.revision, &touched);
    }

    /// Puts the registry that definitions have made in place, with the objects of the kinds that changed in their new form.
    fn replace_registry(&self, objects: &mut Objects, ring: &mut Ring, before: &Registry, registry: &Arc<Registry>) {
        let changed: Vec<KindId> = (0..registry.ids())
            .map(|id| KindId(id as u32))
            .filter(|id| {
                let same = before.has(*id) && registry.has(*id) && Arc::ptr_eq(before.get(*id), registry.get(*id));
                !same && (before.has(*id) || registry.has(*id))
            })
            .collect();
        ring.grow(registry.ids());
        self.shared.grow(registry.ids());
        self.shared.models.lock().unwrap_or_else(PoisonError::into_inner).retain(|kind, _| !changed.contains(kind));
        let taken = objects.set_registry(registry.clone(), &changed);
        let mut strays = self.shared.strays();
        for object in taken {
            let kind = registry.get(object.kind);
            let key = keys::object(kind, &object.head.namespace, &object.head.name);
            strays.insert(key, (object.stored(), object.head.revision));
        }
        for kind in changed.iter().filter(|id| registry.has(**id)).map(|id| registry.get(*id)) {
            let range = keys::kind(kind);
            let found: Vec<Bytes> = strays
                .range(range.start.clone()..)
                .map(|(key, _)| key.clone())
                .take_while(|key| range.contains(key))
                .collect();
            for key in found {
                let Some((value, revision)) = strays.remove(&key) else { continue };
                if let Some(object) = self.parse(registry, &key, &value, revision) {
                    objects.put(self.fold(object));
                }
            }
        }
        drop(strays);
        self.shared.kinds.set(registry.clone());
        self.shared.kinds_moved.send_modify(|n| *n += 1);
    }

    /// A change as an object of a kind of `registry`, which goes on with the kinds that the object defines, if it does.
    fn decode(
        &self,
        registry: &mut Arc<Registry>,
        change: &corten_store::Change,
        revision: Revision,
        out: &mut Vec<Decoded>,
    ) {
        let Some(kind) = self.kind_of(registry, &change.key) else {
            let mut strays = self.shared.strays();
            match &change.value {
                Some(value) => drop(strays.insert(change.key.clone(), (value.clone(), revision))),
                None => drop(strays.remove(&change.key)),
            }
            return;
        };
        let object = match &change.value {
            None => None,
            Some(value) => match self.parse(registry, &change.key, value, revision) {
                Some(object) => Some(self.fold(object)),
                None => return,
            },
        };
        let Some(key) = object.as_ref().map(|object| object.key()).or_else(|| object_key(registry, &change.key)) else {
            return;
        };
        if registry.defines(kind) {
            let gone = object.is_none().then(|| self.get_pending(&key, out)).flatten();
            let definition = object.as_ref().or(gone.as_ref());
            let next = definition.and_then(|definition| registry.with_definition(definition, object.is_none()));
            if let Some(next) = next {
                *registry = Arc::new(next);
            }
        }
        out.push(Decoded { revision, key, object });
    }

    /// An object as it is after the changes decoded so far.
    fn get_pending(&self, key: &ObjectKey, decoded: &[Decoded]) -> Option<Arc<Object>> {
        match decoded.iter().rev().find(|change| change.key == *key) {
            Some(change) => change.object.clone(),
            None => self.get(key),
        }
    }

    fn kind_of(&self, registry: &Registry, key: &[u8]) -> Option<KindId> {
        let parts = keys::parse(key)?;
        registry.group_resource(parts.group, parts.plural).map(|kind| kind.id)
    }

    /// An object from its stored form. What nobody can read is as good as absent, but not quietly.
    fn parse(&self, registry: &Registry, key: &Bytes, value: &Bytes, revision: Revision) -> Option<Object> {
        let parts = keys::parse(key)?;
        let kind = registry.group_resource(parts.group, parts.plural)?;
        let opened = match &self.shared.options.unseal {
            None => Ok(value.clone()),
            Some(unseal) => unseal(kind, key, value.clone()),
        };
        let parsed = opened.and_then(|json| {
            let json = kind.as_read(json);
            Object::parse(kind.id, json, revision, &kind.fact_paths).map_err(|error| error.to_string())
        });
        match parsed {
            Ok(object) if *object.head.name == *parts.name && *object.head.namespace == *parts.namespace => {
                Some(object)
            }
            Ok(object) => {
                tracing::error!(key = %String::from_utf8_lossy(key), found = %object.key(), "an object under another's key is ignored");
                None
            }
            Err(error) => {
                tracing::error!(key = %String::from_utf8_lossy(key), %error, "an unreadable object is ignored");
                None
            }
        }
    }

    /// An entry of the store as an object: for pages of older revisions, which the cache does not have.
    ///
    /// `None` for what is no object of a known kind, or cannot be read (which is logged).
    pub fn decode_entry(&self, entry: &corten_store::Entry) -> Option<Arc<Object>> {
        self.parse(&self.registry(), &entry.key, &entry.value, entry.mod_revision).map(Arc::new)
    }

    /// An object that stays here for long.
    fn fold(&self, object: Object) -> Arc<Object> {
        let mut models = self.shared.models.lock().unwrap_or_else(PoisonError::into_inner);
        let models = models.entry(object.kind).or_default();
        Arc::new(object.folded(models))
    }

    /// Reads everything from the store, then the changes since, and returns the watch that goes on from there.
    ///
    /// All cursors from before are gone afterwards.
    pub async fn load(&self, store: &dyn Store) -> corten_store::Result<Watch> {
        loop {
            match self.try_load(store).await {
                // History went by while it was read: begin again, at a newer revision.
                Err(corten_store::Error::Compacted { .. }) => {}
                result => return result,
            }
        }
    }

    async fn try_load(&self, store: &dyn Store) -> corten_store::Result<Watch> {
        let current = store.current_revision().await?;
        let oldest = store.compacted_revision().await?.max(Revision::EMPTY);
        let at = Revision(current.0.saturating_sub(self.shared.options.replay_revisions)).max(oldest);
        let registry = self.defined(store, at).await?;
        let mut objects = Objects::new(registry.clone());
        let mut strays = Strays::new();
        let mut range = keys::all();
        loop {
            let page = store.scan(range.clone(), Some(at), PAGE).await?;
            for entry in &page.entries {
                if self.kind_of(&registry, &entry.key).is_none() {
                    strays.insert(entry.key.clone(), (entry.value.clone(), entry.mod_revision));
                } else if let Some(object) = self.parse(&registry, &entry.key, &entry.value, entry.mod_revision) {
                    objects.put(self.fold(object));
                }
            }
            match page.entries.last() {
                Some(last) if page.more => range = range.after(&last.key),
                _ => break,
            }
        }
        objects.set_revision(at);
        let mut watch = store.watch(at).await?;
        {
            let mut held = self.shared.objects_mut();
            let mut ring = self.shared.ring_mut();
            *held = objects;
            ring.reset(at);
            ring.grow(registry.ids());
            self.shared.grow(registry.ids());
            *self.shared.strays() = strays;
            self.shared.kinds.set(registry);
            self.shared.kinds_moved.send_modify(|n| *n += 1);
        }
        while self.shared.ring().revision() < current {
            self.apply_next(&mut watch).await?;
        }
        let kinds: Vec<KindId> = self.registry().iter().map(|kind| kind.id).collect();
        self.shared.announce(self.shared.ring().revision(), &kinds);
        Ok(watch)
    }

    /// The kinds as the definitions in the store at a revision make them.
    async fn defined(&self, store: &dyn Store, at: Revision) -> corten_store::Result<Arc<Registry>> {
        let mut registry = self.registry();
        let defining: Vec<Arc<Kind>> = registry.iter().filter(|kind| registry.defines(kind.id)).cloned().collect();
        for kind in defining {
            let mut range = keys::kind(&kind);
            let mut found = Vec::new();
            loop {
                let page = store.scan(range.clone(), Some(at), PAGE).await?;
                let entries = page.entries.iter();
                found.extend(
                    entries
                        .filter_map(|entry| self.parse(&registry, &entry.key, &entry.value, entry.mod_revision))
                        .map(Arc::new),
                );
                match page.entries.last() {
                    Some(last) if page.more => range = range.after(&last.key),
                    _ => break,
                }
            }
            registry = Arc::new(registry.with_definitions(&found));
        }
        Ok(registry)
    }

    /// Waits for changes and applies all that are there.
    async fn apply_next(&self, watch: &mut Watch) -> corten_store::Result<()> {
        let mut group = Vec::new();
        let mut next = watch.recv().await;
        let ended = loop {
            match next {
                Some(Ok(changes)) => group.push(changes),
                Some(Err(error)) => break Some(error),
                None => break Some(corten_store::Error::Closed),
            }
            if group.len() == GROUP_MAX {
                break None;
            }
            next = match watch.recv().now_or_never() {
                Some(next) => next,
                None => break None,
            };
        };
        self.apply(&group);
        ended.map_or(Ok(()), Err)
    }

    /// Feeds the cache until the store ends. Begins with a watch from [`Cache::load`]; loads again if it falls behind.
    /// Returns why it ended: `Closed` after an orderly stop.
    pub async fn run(&self, store: Arc<dyn Store>, mut watch: Watch) -> corten_store::Error {
        loop {
            match self.apply_next(&mut watch).await {
                Ok(()) => {}
                Err(corten_store::Error::Compacted { .. }) => {
                    tracing::warn!("the cache fell behind the store's history and loads again");
                    match self.load(&*store).await {
                        Ok(again) => watch = again,
                        Err(error) => return error,
                    }
                }
                Err(error) => return error,
            }
        }
    }
}

fn object_key(registry: &Registry, key: &[u8]) -> Option<ObjectKey> {
    let parts = keys::parse(key)?;
    let kind = registry.group_resource(parts.group, parts.plural)?;
    Some(ObjectKey::new(kind.id, parts.namespace, parts.name))
}

struct Decoded {
    revision: Revision,
    key: ObjectKey,
    object: Option<Arc<Object>>,
}

impl Shared {
    fn objects(&self) -> RwLockReadGuard<'_, Objects> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn objects_mut(&self) -> RwLockWriteGuard<'_, Objects> {
        self.objects.write().expect("applying changes does not panic")
    }

    pub(crate) fn ring(&self) -> RwLockReadGuard<'_, Ring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring_mut(&self) -> RwLockWriteGuard<'_, Ring> {
        self.ring.write().expect("applying changes does not panic")
    }

    fn strays(&self) -> MutexGuard<'_, Strays> {
        self.strays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for more kinds.
    fn grow(&self, kinds: usize) {
        let mut moved = self.moved.write().unwrap_or_else(PoisonError::into_inner);
        while moved.len() < kinds {
            moved.push(watch::Sender::new(0));
        }
    }

    /// Told whenever the ring has moved within a scope.
    pub(crate) fn moved(&self, scope: &Scope) -> watch::Receiver<u64> {
        match scope {
            Scope::Everything => self.moved_any.subscribe(),
            Scope::Kind(kind) => self.moved.read().unwrap_or_else(PoisonError::into_inner)[kind.0 as usize].subscribe(),
            Scope::Kinds(kinds) => {
                let mut sets = self.moved_sets.write().unwrap_or_else(PoisonError::into_inner);
                if let Some((_, moved)) = sets.iter().find(|(set, _)| set == kinds) {
                    return moved.subscribe();
                }
                sets.retain(|(_, moved)| moved.receiver_count() > 0);
                let (moved, receiver) = watch::channel(0);
                sets.push((kinds.clone(), moved));
                receiver
            }
        }
    }

    /// Wakes who waits for a revision, and who follows these kinds.
    fn announce(&self, revision: Revision, kinds: &[KindId]) {
        let moved = self.moved.read().unwrap_or_else(PoisonError::into_inner);
        for kind in kinds {
            moved[kind.0 as usize].send_modify(|n| *n += 1);
        }
        drop(moved);
        let sets = self.moved_sets.read().unwrap_or_else(PoisonError::into_inner);
        for (_, moved) in sets.iter().filter(|(set, _)| kinds.iter().any(|kind| set.contains(kind))) {
            moved.send_modify(|n| *n += 1);
        }
        drop(sets);
        if !kinds.is_empty() {
            self.moved_any.send_modify(|n| *n += 1);
        }
        self.applied.set(revision);
    }
}
