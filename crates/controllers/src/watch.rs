//! Which changes wake which keys.

use std::sync::Arc;

use corten_object::{KindId, Object};

use corten_cache::Objects;

use crate::Key;

/// One rule: a change of an object of this kind wakes keys.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    /// The kind; `None`: every kind.
    pub kind: Option<KindId>,
    /// Which keys.
    pub wake: Wake,
}

/// Which keys a change wakes.
#[derive(Debug, Clone, Copy)]
pub enum Wake {
    /// The object's own.
    Itself,
    /// That of the object's managing controller (before and after the change) if it is of this kind.
    Controller(KindId),
    /// Those that the function adds.
    By(fn(&Changed<'_>, &mut Vec<Key>)),
}

/// A change of one object.
pub struct Changed<'c> {
    /// All objects after the change.
    pub state: &'c Objects,
    /// The object before; `None` if it is new (or at the start, when everything counts as new).
    pub old: Option<&'c Arc<Object>>,
    /// The object after; `None` if it is gone.
    pub new: Option<&'c Arc<Object>>,
}

impl<'c> Changed<'c> {
    /// The object, after the change if it is still there.
    pub fn object(&self) -> &'c Arc<Object> {
        self.new.or(self.old).expect("a change has an object before or after")
    }

    /// Whether labels or owners changed, or the object is new or gone.
    pub fn selection_changed(&self) -> bool {
        match (self.old, self.new) {
            (Some(old), Some(new)) => old.head.labels != new.head.labels || old.head.owners != new.head.owners,
            _ => true,
        }
    }
}

impl Watch {
    /// Objects of the kind wake themselves.
    pub const fn itself(kind: KindId) -> Watch {
        Watch { kind: Some(kind), wake: Wake::Itself }
    }

    /// Objects of the kind wake their managing controller if it is of the other kind.
    pub const fn controller(kind: KindId, controller: KindId) -> Watch {
        Watch { kind: Some(kind), wake: Wake::Controller(controller) }
    }

    /// Objects of the kind wake what the function says.
    pub const fn by(kind: KindId, wake: fn(&Changed<'_>, &mut Vec<Key>)) -> Watch {
        Watch { kind: Some(kind), wake: Wake::By(wake) }
    }

    /// Adds the keys that a change wakes by this rule.
    pub fn keys(&self, change: &Changed<'_>, out: &mut Vec<Key>) {
        if self.kind.is_some_and(|kind| change.object().kind != kind) {
            return;
        }
        match self.wake {
            Wake::Itself => out.push(change.object().key()),
            Wake::Controller(kind) => {
                for object in [change.old, change.new].into_iter().flatten() {
                    out.extend(controller_key(change.state, object, kind));
                }
            }
            Wake::By(wake) => wake(change, out),
        }
    }
}

/// The key of an object's managing controller if that is of `kind`.
pub fn controller_key(state: &Objects, object: &Object, kind: KindId) -> Option<Key> {
    let owner = object.head.controller()?;
    let row = state.registry().get(kind);
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    (*row.kind == *owner.kind && *row.group == *group).then(|| Key {
        kind,
        namespace: object.head.namespace.clone(),
        name: owner.name.clone(),
    })
}
