//! What objects use of a ResourceQuota (`pkg/quota/v1/evaluator`, `apiserver/pkg/quota/v1`).
//!
//! A kind's row says how its objects are counted ([`Counting`]); what a quota covers, and how much an object uses of it, is
//! computed here, for admission and for the controller alike.

mod claims;
mod list;
mod pods;
mod services;

pub use list::ResourceList;
pub(crate) use pods::{container_limits, container_requests, is_pod_level};
pub use pods::{pod_limits, pod_requests};

use corten_base::Timestamp;
use corten_schema::scalars::{Quantity, QuantityFormat};
use corten_tree::Tree;

use crate::Kind;

/// How objects of a kind count against quotas.
#[derive(Debug, Clone, Copy, Default)]
pub enum Counting {
    /// Not at all (events).
    Nothing,
    /// As `count/PLURAL.GROUP`.
    #[default]
    Objects,
    /// As that, and as the plural alone, as in the days before.
    ObjectsAndPlural,
    /// By what is in them.
    Evaluated(&'static Evaluator),
}

/// How the objects of a kind with rules of its own are counted (`quota.Evaluator`).
#[derive(Debug)]
pub struct Evaluator {
    /// Whether a quota's resource is about this kind (`MatchingResources`), besides its object count.
    pub covers: fn(&str) -> bool,
    /// What one object uses, besides its object count (`Usage`).
    pub usage: fn(&Tree, Timestamp) -> ResourceList,
    /// Whether an object is in a scope, given as a requirement of a scope selector.
    pub in_scope: fn(&Tree, &Tree) -> bool,
    /// Whether an update of this subresource (new, old) can change what is used (`Handles`).
    pub update_counts: fn(&str, &Tree, &Tree) -> bool,
    /// What an object must say for itself because the quota covers these resources (`Constraints`).
    pub constraints: fn(&[&str], &Tree) -> Result<(), String>,
}

impl Evaluator {
    /// Whatever a kind has no rules for.
    const NONE: Evaluator = Evaluator {
        covers: |_| false,
        usage: |_, _| ResourceList::default(),
        in_scope: |_, _| false,
        update_counts: |_, _, _| false,
        constraints: |_, _| Ok(()),
    };
}

/// Of `v1 Pod`.
pub const PODS: Evaluator = pods::EVALUATOR;
/// Of `v1 Service`.
pub const SERVICES: Evaluator = services::EVALUATOR;
/// Of `v1 PersistentVolumeClaim`.
pub const VOLUME_CLAIMS: Evaluator = claims::VOLUME_CLAIMS;
/// Of `resource.k8s.io/v1 ResourceClaim`.
pub const RESOURCE_CLAIMS: Evaluator = claims::RESOURCE_CLAIMS;

/// One of something.
pub(crate) fn one() -> Quantity {
    count(1)
}

pub(crate) fn count(n: i64) -> Quantity {
    Quantity::from_int(n, QuantityFormat::DecimalSi)
}

impl Kind {
    /// `count/PLURAL.GROUP`
    pub fn count_name(&self) -> String {
        format!("count/{}", self.qualified())
    }

    /// Whether objects of this kind count against quotas at all.
    pub fn is_counted(&self) -> bool {
        let view = self.stored_as.is_some();
        self.namespaced() && self.verbs.stored() && !view && !matches!(self.counting, Counting::Nothing)
    }

    /// Whether a quota's resource is about this kind.
    pub fn covered_by(&self, resource: &str) -> bool {
        let counted = resource == self.count_name();
        match self.counting {
            Counting::Nothing => false,
            Counting::Objects => counted,
            Counting::ObjectsAndPlural => counted || resource == &*self.plural,
            Counting::Evaluated(evaluator) => counted || (evaluator.covers)(resource),
        }
    }

    /// What an object uses.
    pub fn usage(&self, object: &Tree, now: Timestamp) -> ResourceList {
        let mut usage = match self.counting {
            Counting::Nothing => return ResourceList::default(),
            Counting::Evaluated(evaluator) => (evaluator.usage)(object, now),
            Counting::Objects | Counting::ObjectsAndPlural => ResourceList::default(),
        };
        if let Counting::ObjectsAndPlural = self.counting {
            usage.set(&self.plural, one());
        }
        usage.set(&self.count_name(), one());
        usage
    }

    /// Whether an object is in all scopes of a quota (`generic.Matches`).
    pub fn in_scopes(&self, quota: &Tree, object: &Tree) -> bool {
        let scopes = scopes(quota);
        match self.counting {
            Counting::Evaluated(evaluator) => scopes.iter().all(|scope| (evaluator.in_scope)(scope, object)),
            _ => scopes.is_empty(),
        }
    }

    /// Whether a write may change what is used: a create, or an update of this subresource.
    pub fn write_counts(&self, subresource: &str, new: &Tree, old: Option<&Tree>) -> bool {
        match (old, self.counting) {
            (None, _) => subresource.is_empty(),
            (Some(old), Counting::Evaluated(evaluator)) => (evaluator.update_counts)(subresource, new, old),
            (Some(_), _) => false,
        }
    }

    /// What an object lacks that a quota for these resources insists on.
    ///
    /// # Errors
    /// Upstream's words for it.
    pub fn quota_constraints(&self, resources: &[&str], object: &Tree) -> Result<(), String> {
        match self.counting {
            Counting::Evaluated(evaluator) => (evaluator.constraints)(resources, object),
            _ => Ok(()),
        }
    }
}

/// The scopes of a quota as requirements of a scope selector (`getScopeSelectorsFromQuota`).
fn scopes(quota: &Tree) -> Vec<Tree> {
    let plain = quota.list_at("spec.scopes").iter().map(|scope| {
        let mut requirement = Tree::map();
        requirement.insert("scopeName", scope.clone());
        requirement.insert("operator", "Exists");
        requirement
    });
    plain.chain(quota.list_at("spec.scopeSelector.matchExpressions").iter().cloned()).collect()
}

/// Whether one of the values that a scope's label has satisfies a requirement; without a value the label is absent.
fn fits(requirement: &Tree, values: &[&str]) -> bool {
    let wanted: Vec<&str> = requirement.list_at("values").iter().filter_map(Tree::as_str).collect();
    let fits = |value: Option<&str>| match requirement.str_at("operator") {
        "In" => value.is_some_and(|v| wanted.contains(&v)),
        "NotIn" => value.is_none_or(|v| !wanted.contains(&v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    };
    if values.is_empty() { fits(None) } else { values.iter().any(|value| fits(Some(value))) }
}
