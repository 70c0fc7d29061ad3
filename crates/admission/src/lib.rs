//! Built-in admission plugins as one ordered list: all mutating ones, then all validating ones.
//!
//! A plugin is a function; its place in [`PLUGINS`] is upstream's (`pkg/kubeapiserver/options/plugins.go`). Plugins see a
//! request through [`Request`] and the cluster through [`Source`]; they wait for nothing and keep nothing. What has to be kept
//! (addresses and ports of Services) is in [`ServiceAllocator`], which the pipeline calls itself.

mod cidr;
mod namespace;
mod node;
mod pod;
mod service_account;
mod services;
mod storage;

pub use cidr::{Cidr, CidrError};
pub use services::{Reservation, ServiceAllocator};

use corten_auth::{Source, User};
use corten_base::{Entropy, Timestamp};
use corten_kinds::Kind;
use corten_object::{KindId, Status};
use corten_tree::Tree;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Makes an object, or acts on one through a subresource.
    Create,
    /// Changes one.
    Update,
    /// Deletes one.
    Delete,
    /// Opens a stream.
    Connect,
}

/// What plugins know of a request.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// What it does.
    pub operation: Operation,
    /// The stored kind.
    pub kind: &'a Kind,
    /// Empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// The object's name.
    pub name: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// Who asks.
    pub user: &'a User,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// The request's time.
    pub now: Timestamp,
    /// For generated names.
    pub entropy: &'a dyn Entropy,
    /// The cluster's objects.
    pub source: &'a dyn Source,
}

impl Request<'_> {
    /// Whether this is about objects of a kind themselves, not a subresource.
    fn is(&self, kind: KindId) -> bool {
        self.kind.id == kind && self.subresource.is_empty()
    }

    /// 403 `pods "x" is forbidden: why`
    fn forbidden(&self, why: impl std::fmt::Display) -> Status {
        Status::forbidden(&self.kind.group, &self.kind.plural, self.name, why)
    }
}

type Mutate = fn(&Request<'_>, &mut Tree, Option<&Tree>) -> Result<Vec<String>, Status>;
type Validate = fn(&Request<'_>, Option<&Tree>, Option<&Tree>) -> Result<Vec<String>, Status>;

/// One plugin.
struct Plugin {
    /// Upstream's name.
    #[allow(dead_code)]
    name: &'static str,
    mutate: Option<Mutate>,
    validate: Option<Validate>,
}

const fn mutating(name: &'static str, mutate: Mutate) -> Plugin {
    Plugin { name, mutate: Some(mutate), validate: None }
}

const fn validating(name: &'static str, validate: Validate) -> Plugin {
    Plugin { name, mutate: None, validate: Some(validate) }
}

static PLUGINS: &[Plugin] = &[
    // Upstream's NamespaceLifecycle validates, too, but runs first.
    mutating("NamespaceLifecycle", namespace::lifecycle),
    Plugin { name: "ServiceAccount", mutate: Some(service_account::mutate), validate: Some(service_account::validate) },
    mutating("NodeRestriction", node::restrict),
    mutating("TaintNodesByCondition", node::taint),
    mutating("Priority", pod::priority),
    mutating("DefaultTolerationSeconds", pod::default_tolerations),
    mutating("StorageObjectInUseProtection", storage::protect),
    mutating("DefaultStorageClass", storage::default_class),
    mutating("RuntimeClass", pod::runtime_class),
    validating("NamespaceLifecycle", namespace::immortal),
    validating("NodeRestriction", node::restrict_delete),
];

/// Lets the mutating plugins change an object that is to be created or updated. Returns texts for Warning headers.
pub fn mutate(request: &Request<'_>, object: &mut Tree, old: Option<&Tree>) -> Result<Vec<String>, Status> {
    let mut warnings = Vec::new();
    for plugin in PLUGINS {
        if let Some(mutate) = plugin.mutate {
            warnings.extend(mutate(request, object, old)?);
        }
    }
    Ok(warnings)
}

/// Asks the validating plugins. `object` is `None` for a delete.
pub fn validate(request: &Request<'_>, object: Option<&Tree>, old: Option<&Tree>) -> Result<Vec<String>, Status> {
    let mut warnings = Vec::new();
    for plugin in PLUGINS {
        if let Some(validate) = plugin.validate {
            warnings.extend(validate(request, object, old)?);
        }
    }
    Ok(warnings)
}
