//! The managed fields of a scale subresource: the one field that it shows, at the place where a Scale has it, and back.
//!
//! Rules: `apimachinery/pkg/util/managedfields/scalehandler.go`.

use std::borrow::Cow;

use corten_tree::Tree;

use super::entries::{Entries, Fields};
use super::set::Set;

/// Where an object has its replicas, and at which versions.
#[derive(Debug, Clone, Copy)]
pub struct ReplicasPath<'a> {
    /// Dotted path.
    pub path: &'a str,
    /// The `apiVersion`s of the kind.
    pub api_versions: &'a [String],
    /// The request's `apiVersion` of the object.
    pub api_version: &'a str,
}

const SCALE_VERSION: &str = "autoscaling/v1";
const SCALE_REPLICAS: &str = "spec.replicas";

/// The managed fields of the Scale of an object with these managed fields.
pub fn scale_to_subresource(parent: &Tree, replicas: &ReplicasPath<'_>) -> Option<Tree> {
    let mut entries = Entries::read(parent, true).unwrap_or_default();
    entries.0.retain(|entry| {
        replicas.api_versions.iter().any(|v| **v == *entry.owner.api_version)
            && entry.fields.to_set().has(replicas.path)
    });
    for entry in &mut entries.0 {
        entry.owner.api_version = Cow::Borrowed(SCALE_VERSION);
        entry.fields = Fields::Set(Set::of(SCALE_REPLICAS));
    }
    entries.into_tree()
}

/// The managed fields of the object after its Scale had these.
pub fn scale_to_parent(parent: &Tree, scale: &Tree, replicas: &ReplicasPath<'_>) -> Option<Tree> {
    let mut entries = Entries::read(parent, true).unwrap_or_default();
    let mut scaled = Entries::read(scale, true).unwrap_or_default();
    // An update's identity has the version in it, which a Scale's never shares with the object's: only appliers keep their entries,
    // all others lose the field and get it back in an entry of its own.
    entries.0.retain_mut(|entry| {
        if !replicas.api_versions.iter().any(|v| **v == *entry.owner.api_version) {
            return false;
        }
        let set = entry.fields.to_set();
        if !set.has(replicas.path) {
            return true;
        }
        match scaled.position(&entry.owner) {
            Some(at) => {
                scaled.0.remove(at);
                true
            }
            None => {
                let left = set.difference(&Set::of(replicas.path));
                let keep = !left.is_empty();
                entry.fields = Fields::Set(left);
                keep
            }
        }
    });
    for mut entry in scaled.0 {
        if !entry.fields.to_set().has(SCALE_REPLICAS) {
            continue;
        }
        entry.fields = Fields::Set(Set::of(replicas.path));
        // Upstream looks the time up among the object's entries, where a new manager has none.
        let known = entries.position(&entry.owner);
        entry.owner.api_version = Cow::Borrowed(replicas.api_version);
        entry.time = None;
        match known {
            Some(at) => {
                entry.time = entries.0[at].time.clone();
                entries.0[at] = entry;
            }
            None => entries.0.push(entry),
        }
    }
    entries.into_tree()
}
