//! Managed fields and server-side apply: which manager owns which fields of an object, what a write changes about that, and
//! how an applied configuration is merged.
//!
//! Pure functions on trees at the request's version. [`update`] is for every write but apply, [`apply`] for that one; both give
//! the new `metadata.managedFields`. Rules: `apimachinery/pkg/util/managedfields/internal`, `structured-merge-diff/v6/merge/update.go`.

mod apply;
mod atom;
mod compare;
mod configuration;
mod conflict;
mod entries;
mod fields_v1;
mod merge;
mod scale;
mod set;
mod update;

use corten_base::Timestamp;
use corten_schema::{Schema, TypeId};
use corten_tree::Tree;

pub use apply::{Applied, ApplyError, apply};
pub use configuration::merge_configuration;
pub use entries::check_managed_fields;
pub use scale::{ReplicasPath, scale_to_parent, scale_to_subresource};
pub use set::{Element, Set};
pub use update::{keep_times, update};

/// The versions of a kind: field sets are kept at the version that they were written at.
pub trait Versions {
    /// The type of the kind at an `apiVersion`; `None` if it is not served.
    fn type_of(&self, api_version: &str) -> Option<TypeId>;

    /// Why a version that is not served cannot even be named: it is none of the kind's (custom resources only; what names one of
    /// a built-in kind is forgotten).
    fn unknown(&self, _api_version: &str) -> Option<String> {
        None
    }

    /// A state of the object at another version; `None` if that is not served.
    fn convert(&self, tree: &Tree, from: &str, to: &str) -> Option<Tree>;
}

/// Which fields a write through an endpoint may own; the others it resets (strategies' `GetResetFields`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ownable<'a> {
    /// All.
    #[default]
    All,
    /// All but what is on or below these dotted paths.
    Except(&'a [&'a str]),
    /// Only what is on, above or below these dotted paths; `*` is any element.
    Only(&'a [&'a str]),
}

impl Context<'_> {
    /// What a write may own at another version of the kind. Of custom resources themselves upstream knows it at the request's
    /// version only (`apiextensions-apiserver/pkg/apiserver/customresource_handler.go`, `getStatusResetFields` and its caller).
    fn ownable_at(&self, api_version: &str) -> Ownable<'_> {
        let elsewhere = api_version != self.api_version && self.subresource.is_empty();
        if self.schema_changes && elsewhere { Ownable::All } else { self.ownable }
    }
}

impl Ownable<'_> {
    fn filter<'s>(self, set: Set<'s>) -> Set<'s> {
        match self {
            Ownable::All => set,
            Ownable::Except(paths) => paths
                .iter()
                .fold(set, |set, path| if set.is_empty() { set } else { set.recursive_difference(&Set::of(path)) }),
            Ownable::Only(patterns) => set.only(patterns),
        }
    }
}

/// What a write's managed fields depend on besides the states.
#[derive(Clone, Copy)]
pub struct Context<'c> {
    /// The schema of the kind's types.
    pub schema: &'c Schema,
    /// The kind's versions.
    pub versions: &'c dyn Versions,
    /// The request's `apiVersion`.
    pub api_version: &'c str,
    /// The kind.
    pub kind: &'c str,
    /// The subresource that is written through; empty for the object itself.
    pub subresource: &'c str,
    /// What the endpoint may own.
    pub ownable: Ownable<'c>,
    /// The request's time.
    pub now: Timestamp,
    /// Whether the schema may have changed since the field sets were written (custom resources).
    pub schema_changes: bool,
}
