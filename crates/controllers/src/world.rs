//! What a reconcile reads.

use std::ops::Deref;
use std::sync::Arc;

use corten_base::{Entropy, Timestamp};
use corten_cache::Objects;
use corten_object::{Head, KindId, Object, ObjectKey, View};
use corten_tree::Tree;

use crate::{Kept, Outcome};

/// The objects of a kind in a namespace whose managing controller has this uid; with an empty uid those that have none.
pub fn controlled<'o>(objects: &'o Objects, kind: KindId, namespace: &str, uid: &str) -> Vec<&'o Arc<Object>> {
    if uid.is_empty() {
        return objects.unmanaged(kind, namespace).collect();
    }
    let own =
        |o: &&Arc<Object>| o.head.namespace == *namespace && o.head.controller().is_some_and(|owner| owner.uid == *uid);
    objects.owned(uid, kind).filter(own).collect()
}

/// The input of a reconcile.
#[derive(Clone, Copy)]
pub struct World<'w> {
    /// All objects at one revision.
    pub state: &'w Objects,
    /// The time of the reconcile.
    pub now: Timestamp,
    /// Randomness.
    pub entropy: &'w dyn Entropy,
    /// What became of the key's last plan; `None` when this process has not executed one yet, or it was empty.
    pub last: Option<&'w Outcome>,
    /// What the key's last plan wanted remembered.
    pub kept: Option<&'w Kept>,
}

impl<'w> World<'w> {
    /// One object with its view; `None` if it is not there or cannot be read as that.
    pub fn get<V: View>(&self, key: &ObjectKey) -> Option<Typed<V>> {
        Typed::read(self.state.get(key)?)
    }

    /// One object with its view, by kind and name.
    pub fn find<V: View>(&self, kind: KindId, namespace: &str, name: &str) -> Option<Typed<V>> {
        self.get(&ObjectKey::new(kind, namespace, name))
    }

    /// The objects of a kind in a namespace (empty: in all) with their views.
    pub fn list<V: View>(&self, kind: KindId, namespace: &str) -> Vec<Typed<V>> {
        read(self.state.list_in(kind, namespace))
    }

    /// Those objects of a kind in a namespace (empty: in all) of which the function says so by what is not their view, with their
    /// views: no more are decoded than are wanted.
    pub fn list_where<V: View>(
        &self,
        kind: KindId,
        namespace: &str,
        wanted: impl Fn(&Object) -> bool,
    ) -> Vec<Typed<V>> {
        read(self.state.list_in(kind, namespace).filter(|object| wanted(object)))
    }

    /// The objects of a kind that the object with this uid controls.
    pub fn controlled<V: View>(&self, kind: KindId, namespace: &str, uid: &str) -> Vec<Typed<V>> {
        read(controlled(self.state, kind, namespace, uid))
    }

    /// The objects of a kind with this value of an indexed fact.
    pub fn with_fact<V: View>(&self, kind: KindId, path: &str, value: &str) -> Vec<Typed<V>> {
        read(self.state.by_index(kind, path, value))
    }

    /// What the key's last plan wanted remembered, if it is of this type.
    pub fn kept<T: 'static>(&self) -> Option<&'w T> {
        self.kept?.downcast_ref()
    }

    /// A name with a random suffix, as the server makes them from `generateName`.
    pub fn generate_name(&self, prefix: &str) -> String {
        const NAME_MAX: usize = 63;
        const SUFFIX: usize = 5;
        let end = prefix.len().min(NAME_MAX - SUFFIX);
        format!("{}{}", prefix.get(..end).unwrap_or(prefix), self.entropy.suffix(SUFFIX))
    }
}

/// The readable ones of some objects, with their views.
pub fn read<'o, V: View>(objects: impl IntoIterator<Item = &'o Arc<Object>>) -> Vec<Typed<V>> {
    objects.into_iter().filter_map(Typed::read).collect()
}

/// An object with its view.
pub struct Typed<V> {
    /// The object.
    pub object: Arc<Object>,
    view: Arc<V>,
}

impl<V: View> Typed<V> {
    /// Reads an object; `None` if it does not fit the view.
    pub fn read(object: &Arc<Object>) -> Option<Typed<V>> {
        Some(Typed { view: object.view().ok()?, object: object.clone() })
    }
}

impl<V> Typed<V> {
    /// The object's head.
    pub fn head(&self) -> &Head {
        &self.object.head
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        &self.object.head.name
    }

    /// The object's namespace.
    pub fn namespace(&self) -> &str {
        &self.object.head.namespace
    }

    /// The object's uid.
    pub fn uid(&self) -> &str {
        &self.object.head.uid
    }

    /// The object's key.
    pub fn key(&self) -> ObjectKey {
        self.object.key()
    }

    /// A tree of the object to work on.
    pub fn tree(&self) -> Tree {
        self.object.to_tree()
    }
}

impl<V> Clone for Typed<V> {
    fn clone(&self) -> Typed<V> {
        Typed { object: self.object.clone(), view: self.view.clone() }
    }
}

impl<V> Deref for Typed<V> {
    type Target = V;
    fn deref(&self) -> &V {
        &self.view
    }
}

impl<V> std::fmt::Debug for Typed<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.object.fmt(f)
    }
}
