//! The kinds of this process: rows of the table, and later what CustomResourceDefinitions add.

use std::collections::HashMap;
use std::sync::Arc;

use corten_object::{GroupVersionKind, KindId, Object};
use corten_schema::TypeId;
use corten_tree::Tree;

use crate::column::{Row, RowContext, RuntimeColumn};
use crate::spec::{Conversion, Fact, Generation, Hooks, KindSpec, Scope, Subresource, SubresourceKind, Verbs};
use crate::table;
use crate::validate::names::NameCheck;

/// A kind at run time.
#[derive(Clone)]
pub struct Kind {
    /// Its number in this process.
    pub id: KindId,
    /// API group, empty for core.
    pub group: Arc<str>,
    /// Served versions; the first is the storage version.
    pub versions: Vec<Arc<str>>,
    /// The schema's type of each version, in the same order; `None` where the schema lacks it.
    pub types: Vec<Option<TypeId>>,
    /// How each version leads to and from the storage version; `None` where both have the same fields.
    pub conversions: Vec<Option<Conversion>>,
    /// The kind.
    pub kind: Arc<str>,
    /// The resource name.
    pub plural: Arc<str>,
    /// Singular name.
    pub singular: Arc<str>,
    /// Short names.
    pub short: Vec<Arc<str>>,
    /// Categories.
    pub categories: Vec<Arc<str>>,
    /// Namespaced or not.
    pub scope: Scope,
    /// What clients may do.
    pub verbs: Verbs,
    /// When generation grows.
    pub generation: Generation,
    /// Dotted paths that may not change.
    pub immutable: Vec<Arc<str>>,
    /// Whether a PUT of a missing object creates it.
    pub create_on_update: bool,
    /// Subresources.
    pub subresources: Vec<Subresource>,
    /// All columns in order, Name included.
    pub columns: Vec<RuntimeColumn>,
    /// Facts kept in the head.
    pub facts: Vec<Fact>,
    /// Paths of the facts, in the same order, as `Object::parse` wants them.
    pub fact_paths: Vec<&'static str>,
    /// What acts on the kind, if anything does.
    pub served_by: Option<Arc<str>>,
    /// For a view of another kind's objects: the kind that is stored.
    pub stored_as: Option<KindId>,
    /// Which names objects may have.
    pub name_check: NameCheck,
    /// Whether a delete that says nothing about dependents orphans them.
    pub orphans_by_default: bool,
    /// Whether an update may leave the resourceVersion out.
    pub unconditional_update: bool,
    /// Whether a new object keeps the status that its maker gave it.
    pub status_on_create: bool,
    /// What is special about writes.
    pub hooks: Hooks,
    /// The row, for built-in kinds.
    pub spec: Option<&'static KindSpec>,
}

impl Kind {
    fn builtin(id: KindId, spec: &'static KindSpec) -> Kind {
        let all = |texts: &'static [&'static str]| texts.iter().map(|t| Arc::from(*t)).collect::<Vec<Arc<str>>>();
        let singular = if spec.singular.is_empty() { spec.kind.to_lowercase() } else { spec.singular.to_owned() };
        Kind {
            id,
            group: spec.group.into(),
            versions: spec.versions.iter().map(|v| v.name.into()).collect(),
            types: spec.versions.iter().map(|v| corten_schema::builtin().gvk(spec.group, v.name, spec.kind)).collect(),
            conversions: spec.versions.iter().map(|v| v.convert).collect(),
            kind: spec.kind.into(),
            plural: spec.plural.into(),
            singular: singular.into(),
            short: all(spec.short),
            categories: all(spec.categories),
            scope: spec.scope,
            verbs: spec.verbs,
            generation: spec.generation,
            immutable: all(spec.immutable),
            create_on_update: spec.create_on_update,
            subresources: spec.subresources.to_vec(),
            columns: spec.columns.iter().map(RuntimeColumn::from).collect(),
            facts: spec.facts.to_vec(),
            fact_paths: spec.facts.iter().map(|f| f.path).collect(),
            served_by: spec.served_by.map(Into::into),
            stored_as: spec.stored_as,
            name_check: spec.name_check,
            orphans_by_default: spec.orphans_by_default,
            unconditional_update: spec.unconditional_update,
            status_on_create: spec.status_on_create,
            hooks: spec.hooks,
            spec: Some(spec),
        }
    }

    /// Whether objects live in namespaces.
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// `plural` or `plural.group`, as in messages.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `apiVersion` of the storage version.
    pub fn api_version(&self) -> String {
        self.gvk(&self.versions[0]).api_version()
    }

    /// The group, version and kind at a served version.
    pub fn gvk(&self, version: &str) -> GroupVersionKind {
        GroupVersionKind { group: self.group.to_string(), version: version.into(), kind: self.kind.to_string() }
    }

    /// The subresource of this name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Whether status is written through a subresource of its own.
    pub fn has_status(&self) -> bool {
        self.subresources.iter().any(|s| s.kind == SubresourceKind::Status)
    }

    /// The schema's type of a served version.
    pub fn type_of(&self, version: &str) -> Option<TypeId> {
        self.types[self.version_index(version)?]
    }

    /// How a served version leads to and from the storage version; `None` where both have the same fields.
    pub fn conversion(&self, version: &str) -> Option<Conversion> {
        self.conversions[self.version_index(version)?]
    }

    fn version_index(&self, version: &str) -> Option<usize> {
        self.versions.iter().position(|v| **v == *version)
    }

    /// The cells of a stored object, one per column.
    pub fn row(&self, object: &Object, context: &RowContext) -> Vec<Tree> {
        self.cells(&Row::of(object, self.spec.map_or(&[], |s| s.columns_read), context))
    }

    /// The cells of an object that is not stored, one per column.
    pub fn row_of_tree(&self, tree: Tree, context: &RowContext) -> Vec<Tree> {
        self.cells(&Row::of_tree(tree, context))
    }

    fn cells(&self, row: &Row<'_>) -> Vec<Tree> {
        self.columns.iter().map(|column| column.cell.render(row)).collect()
    }

    /// What a field selector's label means; `None` if clients may not select by it.
    pub fn field_label(&self, label: &str) -> Option<FieldLabel> {
        let aliases = self.spec.map_or(&[][..], |s| s.label_aliases);
        let label = aliases.iter().find(|(alias, _)| *alias == label).map_or(label, |(_, fact)| fact);
        match label {
            "metadata.name" => Some(FieldLabel::Name),
            "metadata.namespace" if self.namespaced() => Some(FieldLabel::Namespace),
            _ => {
                let index = self.facts.iter().position(|f| f.selectable && f.label == label)?;
                Some(FieldLabel::Fact { index, zero: self.facts[index].zero })
            }
        }
    }

    /// The index of a fact in the head, by path.
    pub fn fact_index(&self, path: &str) -> Option<usize> {
        self.fact_paths.iter().position(|p| *p == path)
    }
}

/// What a field selector's label means for a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldLabel {
    /// `metadata.name`
    Name,
    /// `metadata.namespace`
    Namespace,
    /// A fact of the head.
    Fact {
        /// Its place among the kind's facts.
        index: usize,
        /// What an absent value compares as.
        zero: &'static str,
    },
}

impl FieldLabel {
    /// The value that an object has to compare with.
    pub fn value<'o>(&self, object: &'o Object) -> &'o str {
        match self {
            FieldLabel::Name => &object.head.name,
            FieldLabel::Namespace => &object.head.namespace,
            FieldLabel::Fact { index, zero } => match object.head.facts.get(*index).map(|f| f.as_str()) {
                None | Some("") => zero,
                Some(text) => text,
            },
        }
    }
}

/// All kinds; immutable, replaced as a whole when a CRD comes or goes.
#[derive(Clone)]
pub struct Registry {
    kinds: Vec<Arc<Kind>>,
    by_resource: HashMap<(Arc<str>, Arc<str>), KindId>,
    by_kind: HashMap<(Arc<str>, Arc<str>), KindId>,
}

impl Registry {
    /// The built-in kinds.
    pub fn builtin() -> Registry {
        let mut registry = Registry { kinds: Vec::new(), by_resource: HashMap::new(), by_kind: HashMap::new() };
        for (i, spec) in table::KINDS.iter().enumerate() {
            registry.add(Kind::builtin(KindId(i as u32), spec));
        }
        registry
    }

    fn add(&mut self, kind: Kind) {
        self.by_resource.insert((kind.group.clone(), kind.plural.clone()), kind.id);
        self.by_kind.insert((kind.group.clone(), kind.kind.clone()), kind.id);
        self.kinds.push(Arc::new(kind));
    }

    /// The kind of an id of this process.
    ///
    /// # Panics
    /// If the id did not come from this registry.
    pub fn get(&self, id: KindId) -> &Arc<Kind> {
        &self.kinds[id.0 as usize]
    }

    /// The kind under which objects of `kind` are stored: itself, but for views of another kind.
    pub fn stored<'r>(&'r self, kind: &'r Arc<Kind>) -> &'r Arc<Kind> {
        kind.stored_as.map_or(kind, |id| self.get(id))
    }

    /// The kind that serves `/apis/group/version/plural`.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        let kind = self.group_resource(group, plural)?;
        kind.versions.iter().any(|v| **v == *version).then_some(kind)
    }

    /// The kind of a group and a plural, whatever the version.
    pub fn group_resource(&self, group: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.by_resource.get(&(group.into(), plural.into())).map(|id| self.get(*id))
    }

    /// The kind of a group and a kind name, whatever the version.
    pub fn group_kind(&self, group: &str, kind: &str) -> Option<&Arc<Kind>> {
        self.by_kind.get(&(group.into(), kind.into())).map(|id| self.get(*id))
    }

    /// The kind of an `apiVersion` and `kind`.
    pub fn gvk(&self, api_version: &str, kind: &str) -> Option<&Arc<Kind>> {
        let gvk = GroupVersionKind::parse(api_version, kind);
        let found = self.group_kind(&gvk.group, kind)?;
        found.versions.iter().any(|v| **v == *gvk.version).then_some(found)
    }

    /// A kind by any of the names that people type: `po`, `pods`, `pod`, `deployments.apps`, `Deployment`.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Kind>> {
        let lower = name.to_lowercase();
        let (resource, group) = lower.split_once('.').unwrap_or((&lower, ""));
        self.kinds.iter().find(|k| {
            let group_fits = group.is_empty() || *k.group == *group;
            group_fits
                && (*k.plural == *resource || *k.singular == *resource || k.short.iter().any(|s| **s == *resource))
        })
    }

    /// All kinds.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.iter()
    }
}
