//! What a row of the kind table says.

use corten_base::Timestamp;
use corten_object::managed::Ownable;
use corten_object::{FieldError, KindId};
use corten_tree::Tree;

use crate::Column;
use crate::quota::Counting;
use crate::usage::Measured;
use crate::validate::names::{self, NameCheck};

/// Whether objects of a kind live in namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// They do.
    Namespaced,
    /// They do not.
    Cluster,
}

/// One served version of a kind.
#[derive(Debug, Clone, Copy)]
pub struct Version {
    /// Its name, as `v1`.
    pub name: &'static str,
    /// Turns an object of the storage version into this one, and back; `None` where both have the same fields.
    pub convert: Option<Conversion>,
}

/// Conversion between a version and the storage version. The `apiVersion` field is set by the caller.
#[derive(Debug, Clone, Copy)]
pub struct Conversion {
    /// From the storage version.
    pub from_storage: fn(&mut Tree),
    /// To the storage version.
    pub to_storage: fn(&mut Tree),
}

impl Version {
    /// A version with the storage version's fields. The first version of a row is the storage version.
    pub const fn named(name: &'static str) -> Version {
        Version { name, convert: None }
    }

    /// A version with fields of its own.
    pub const fn converted(name: &'static str, from_storage: fn(&mut Tree), to_storage: fn(&mut Tree)) -> Version {
        Version { name, convert: Some(Conversion { from_storage, to_storage }) }
    }
}

/// What clients may do with a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbs {
    /// create, delete, deletecollection, get, list, patch, update, watch: objects are stored.
    All,
    /// As `All`, without deletecollection (Namespace).
    OneByOne,
    /// create only: nothing is stored, the answer is computed (reviews, bindings).
    CreateOnly,
    /// get and list only, computed (ComponentStatus).
    ReadOnly,
}

impl Verbs {
    /// The verbs as discovery lists them.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Verbs::All => &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
            Verbs::OneByOne => &["create", "delete", "get", "list", "patch", "update", "watch"],
            Verbs::CreateOnly => &["create"],
            Verbs::ReadOnly => &["get", "list"],
        }
    }

    /// Whether objects of the kind are in the store.
    pub fn stored(self) -> bool {
        matches!(self, Verbs::All | Verbs::OneByOne)
    }
}

/// When `metadata.generation` grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// The kind has none.
    None,
    /// Starts at 1 and grows when one of these top-level fields changes (and when deletion begins).
    OnChangeOf(&'static [&'static str]),
    /// As `OnChangeOf`, but a new object has none (upstream's CSIDriver).
    FromZeroOnChangeOf(&'static [&'static str]),
    /// Starts at 1 and grows when anything but metadata and status changes.
    OnChange,
    /// Starts at 1 and grows when anything but metadata changes.
    OnAnyChange,
}

/// What a subresource does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubresourceKind {
    /// Reads and writes the object, changing only its status.
    Status,
    /// `autoscaling/v1 Scale`, mapped to dotted paths of the object.
    Scale {
        /// Desired replicas.
        spec: &'static str,
        /// Observed replicas.
        status: &'static str,
        /// The selector: a LabelSelector, a label map or a text.
        selector: &'static str,
    },
    /// Writes the object by its own rules (`finalize`, `approval`, `ephemeralcontainers`, `resize`); see [`Hooks::subresource`].
    Update,
    /// A create of another kind that acts on the object (`binding`, `eviction`, `token`).
    Action {
        /// Group, version and kind of the body.
        gvk: (&'static str, &'static str, &'static str),
    },
    /// A stream or a proxy to the node (`log`, `exec`, `attach`, `portforward`, `proxy`).
    Connect,
}

/// Group, version and kind of a body.
pub type BodyKind = (&'static str, &'static str, &'static str);

/// A subresource of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subresource {
    /// The path segment.
    pub name: &'static str,
    /// What it does.
    pub kind: SubresourceKind,
    /// What clients may do with it, as discovery lists it.
    pub verbs: &'static [&'static str],
    /// Group, version and kind of its body; `None` for the object's own.
    pub body: Option<BodyKind>,
    /// Which fields a write through it may own (strategies' `GetResetFields`).
    pub ownable: Ownable<'static>,
    /// Whether a write through it leaves the metadata alone (`ResetObjectMetaForStatus`).
    pub keeps_metadata: bool,
}

impl Subresource {
    /// `…/status`
    pub const STATUS: Subresource = Subresource {
        ownable: Ownable::Except(&["spec"]),
        ..Subresource::of("status", SubresourceKind::Status, &["get", "patch", "update"])
    };

    /// `…/status` of a kind whose metadata a write through it neither changes nor owns.
    pub const STATUS_WITHOUT_METADATA: Subresource =
        Subresource { keeps_metadata: true, ..Subresource::STATUS.owning(Ownable::Except(&["metadata", "spec"])) };

    /// The same for writers that may own these fields.
    pub const fn owning(self, ownable: Ownable<'static>) -> Subresource {
        Subresource { ownable, ..self }
    }

    /// `…/scale`
    pub const fn scale(spec: &'static str, status: &'static str, selector: &'static str) -> Subresource {
        let kind = SubresourceKind::Scale { spec, status, selector };
        Subresource {
            body: Some(("autoscaling", "v1", "Scale")),
            ..Subresource::of("scale", kind, &["get", "patch", "update"])
        }
    }

    /// A part of the object that is written by its own rules.
    pub const fn update(name: &'static str) -> Subresource {
        Subresource::of(name, SubresourceKind::Update, &["get", "patch", "update"])
    }

    /// A create of another kind that acts on the object.
    pub const fn action(name: &'static str, gvk: BodyKind) -> Subresource {
        Subresource { body: Some(gvk), ..Subresource::of(name, SubresourceKind::Action { gvk }, &["create"]) }
    }

    /// A stream; `options` is the kind of its query parameters.
    pub const fn connect(name: &'static str, options: &'static str, verbs: &'static [&'static str]) -> Subresource {
        Subresource { body: Some(("", "v1", options)), ..Subresource::of(name, SubresourceKind::Connect, verbs) }
    }

    /// A subresource with the object's own kind as body.
    pub const fn of(name: &'static str, kind: SubresourceKind, verbs: &'static [&'static str]) -> Subresource {
        Subresource { name, kind, verbs, body: None, ownable: Ownable::All, keeps_metadata: false }
    }
}

/// The verbs of streams into a container.
pub(crate) const STREAM: &[&str] = &["create", "get"];
/// The verbs of proxies.
pub(crate) const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

/// A value of an object that its head keeps decoded: for field selectors and indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact {
    /// Dotted path (map keys only); `a|b` is what is at `b` where there is nothing at `a`.
    pub path: &'static str,
    /// The name by which clients select; mostly the path.
    pub label: &'static str,
    /// What selectors compare with where the object has no such value (`0`, `false`).
    pub zero: &'static str,
    /// Whether clients may select by it.
    pub selectable: bool,
    /// Whether the cache keeps an index of it.
    pub indexed: bool,
}

impl Fact {
    /// A fact for components only.
    pub const fn kept(path: &'static str) -> Fact {
        Fact { path, label: path, zero: "", selectable: false, indexed: false }
    }

    /// A fact that clients may select by.
    pub const fn selectable(path: &'static str) -> Fact {
        Fact { selectable: true, ..Fact::kept(path) }
    }

    /// A fact that clients may select by and that the cache indexes.
    pub const fn indexed(path: &'static str) -> Fact {
        Fact { indexed: true, ..Fact::selectable(path) }
    }

    /// Selected by another name than the path.
    pub const fn label(self, label: &'static str) -> Fact {
        Fact { label, ..self }
    }

    /// Selected as this text where absent.
    pub const fn zero(self, zero: &'static str) -> Fact {
        Fact { zero, ..self }
    }
}

/// The field errors found so far.
pub type Errors = Vec<FieldError>;

/// What a write's hooks may know besides the object.
#[derive(Debug, Clone, Copy)]
pub struct WriteContext {
    /// The request's time.
    pub now: Timestamp,
}

/// A delete that a kind may turn into a graceful one.
#[derive(Debug, Clone, Copy)]
pub struct DeleteRequest {
    /// `gracePeriodSeconds` of the request, if it has one.
    pub grace_seconds: Option<i64>,
}

/// How an object goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Graceful {
    /// At once (finalizers permitting).
    Now,
    /// After this many seconds, or when its agent deletes it with grace 0.
    After(i64),
}

/// What is special about a kind's writes. All are pure; the generic pipeline does the rest: metadata, generation, keeping
/// status and spec apart, immutability of the row's `immutable` paths.
#[derive(Debug, Clone, Copy)]
pub struct Hooks {
    /// Fills defaults in (after decoding, for create, update and patch alike).
    pub default: Option<fn(&mut Tree)>,
    /// Writes who asks (`authentication.k8s.io/v1 UserInfo`) into a new object, before [`Hooks::prepare_create`].
    pub requester: Option<fn(&mut Tree, &Tree)>,
    /// Changes a new object before validation. Name, namespace, uid and creationTimestamp are there; the status is already dropped.
    pub prepare_create: Option<fn(&mut Tree, &WriteContext)>,
    /// Changes an updated object before validation, knowing the old one.
    pub prepare_update: Option<fn(&mut Tree, &Tree, &WriteContext)>,
    /// Changes a status write before validation, knowing the old object; all but the status was put back before.
    pub prepare_status: Option<fn(&mut Tree, &Tree, &WriteContext)>,
    /// Finds all faults of an object, new or changed, apart from its metadata.
    pub validate: Option<fn(&Tree, &mut Errors)>,
    /// Finds faults that only matter in a new object.
    pub validate_create: Option<fn(&Tree, &mut Errors)>,
    /// Finds faults of a change (new, old), besides those of [`Hooks::validate`].
    pub validate_update: Option<fn(&Tree, &Tree, &mut Errors)>,
    /// The old object as it counts for the row's `immutable` paths (new, old): with what this change may do all the same.
    pub freed: Option<fn(&Tree, &Tree) -> Tree>,
    /// Finds faults of a status change (new, old).
    pub validate_status: Option<fn(&Tree, &Tree, &mut Errors)>,
    /// As [`Hooks::validate_status`], for rules that depend on the time.
    pub validate_status_at: Option<fn(&Tree, &Tree, &WriteContext, &mut Errors)>,
    /// Finds faults that depend on the labels of the object's namespace (new, old if there is one, labels).
    pub validate_in_namespace: Option<fn(&Tree, Option<&Tree>, &corten_object::Labels, &mut Errors)>,
    /// Changes what [`Hooks::subresource`] has merged, knowing the old object.
    pub prepare_subresource: Option<fn(&mut Tree, &Tree, &WriteContext)>,
    /// For [`SubresourceKind::Update`]: merges a write through the named subresource (new, old) into the new object.
    pub subresource: Option<fn(&str, &mut Tree, &Tree, &mut Errors)>,
    /// Says what is deprecated or dubious in an object (new, old): sent as Warning headers.
    pub warnings: Option<fn(&Tree, Option<&Tree>) -> Vec<String>>,
    /// Changes an object when its deletion begins, before it is decided whether it goes at once.
    pub deleting: Option<fn(&mut Tree, Timestamp)>,
    /// Decides whether a delete is graceful.
    pub graceful: Option<fn(&Tree, &DeleteRequest) -> Graceful>,
}

impl Hooks {
    /// Nothing is special.
    pub const NONE: Hooks = Hooks {
        default: None,
        requester: None,
        prepare_create: None,
        prepare_update: None,
        prepare_status: None,
        validate: None,
        validate_create: None,
        validate_update: None,
        freed: None,
        validate_status: None,
        validate_status_at: None,
        validate_in_namespace: None,
        prepare_subresource: None,
        subresource: None,
        warnings: None,
        deleting: None,
        graceful: None,
    };
}

/// A row of the kind table.
#[derive(Clone, Copy)]
pub struct KindSpec {
    /// API group, empty for core.
    pub group: &'static str,
    /// Served versions; the first is the storage version and the preferred one.
    pub versions: &'static [Version],
    /// The kind.
    pub kind: &'static str,
    /// The resource name.
    pub plural: &'static str,
    /// Singular; empty means the kind in lower case.
    pub singular: &'static str,
    /// Short names.
    pub short: &'static [&'static str],
    /// Categories, as `all`.
    pub categories: &'static [&'static str],
    /// Namespaced or not.
    pub scope: Scope,
    /// What clients may do.
    pub verbs: Verbs,
    /// When generation grows.
    pub generation: Generation,
    /// Dotted paths that may not change after creation (`field is immutable`).
    pub immutable: &'static [&'static str],
    /// Whether a PUT of a missing object creates it.
    pub create_on_update: bool,
    /// Subresources. With a status subresource, writes to the object keep status and writes to status keep the rest.
    pub subresources: &'static [Subresource],
    /// All columns in upstream's order, `Column::NAME` included.
    pub columns: &'static [Column],
    /// The dotted paths that the columns read, where a table should not parse the rest; none if they may read all.
    pub columns_read: &'static [&'static str],
    /// Facts kept in the head.
    pub facts: &'static [Fact],
    /// What a Warning header says to who uses the kind, if it has had its day.
    pub deprecated: Option<&'static str>,
    /// Whether something in Corten acts on this kind yet; if not, writes answer with a Warning header that says so.
    pub served_by: Option<&'static str>,
    /// For a kind that is a view of another one's objects (`events.k8s.io Event`): the kind that is stored. The version's
    /// conversion leads from that kind's storage version. Columns and facts are the stored kind's.
    pub stored_as: Option<KindId>,
    /// Field selector names that mean a fact under another name (alias, label of the fact).
    pub label_aliases: &'static [(&'static str, &'static str)],
    /// How objects count against quotas.
    pub counting: Counting,
    /// Which names objects may have.
    pub name_check: NameCheck,
    /// Whether a delete that says nothing about dependents orphans them (upstream's Job and ReplicationController).
    pub orphans_by_default: bool,
    /// Whether an update may leave the resourceVersion out and so overwrite whatever is there.
    pub unconditional_update: bool,
    /// Whether a new object keeps the status that its maker gave it (Node).
    pub status_on_create: bool,
    /// Whether objects of the kind define kinds of their own.
    pub defines_kinds: bool,
    /// Whether a delete that removes the object answers with it, not with a Status (upstream's `ReturnDeletedObject`).
    pub returns_deleted: bool,
    /// Whether controllers adopt objects of the kind by their labels: the cache then finds those without a controller at once.
    pub adopted: bool,
    /// Whether objects are sealed at rest.
    pub sealed: bool,
    /// Where a pod's spec stands in the kind's objects, as a dotted path; empty if there is none.
    pub pod_spec: &'static str,
    /// How many seconds after its last write the server removes an object; `None`: never.
    pub ttl_seconds: Option<i64>,
    /// For a kind that is read only: how its objects are made of what nodes measure.
    pub measured: Option<Measured>,
    /// What is special about writes.
    pub hooks: Hooks,
}

impl KindSpec {
    /// Defaults of a namespaced, stored kind.
    pub const NAMESPACED: KindSpec = KindSpec {
        group: "",
        versions: &[Version::named("v1")],
        kind: "",
        plural: "",
        singular: "",
        short: &[],
        categories: &[],
        scope: Scope::Namespaced,
        verbs: Verbs::All,
        generation: Generation::None,
        immutable: &[],
        create_on_update: false,
        subresources: &[],
        columns: &[Column::NAME, Column::AGE],
        columns_read: &[],
        facts: &[],
        deprecated: None,
        served_by: None,
        stored_as: None,
        label_aliases: &[],
        counting: Counting::Objects,
        name_check: names::dns_subdomain,
        orphans_by_default: false,
        unconditional_update: true,
        status_on_create: false,
        defines_kinds: false,
        returns_deleted: false,
        adopted: false,
        sealed: false,
        pod_spec: "",
        ttl_seconds: None,
        measured: None,
        hooks: Hooks::NONE,
    };

    /// Defaults of a cluster-scoped, stored kind.
    pub const CLUSTER: KindSpec = KindSpec { scope: Scope::Cluster, ..KindSpec::NAMESPACED };
}
