//! A kind at run time, made from a row of the table or from a CustomResourceDefinition: what all interpreters read.

use std::sync::Arc;

use corten_object::managed::Ownable;
use corten_object::{GroupVersionKind, KindId, LabelSelector, Object};
use corten_schema::{Options, Schema, TypeId, UnknownFields, canonicalise};
use corten_tree::Tree;

use crate::column::{Row, RowContext, RuntimeColumn};
use crate::custom::Custom;
use crate::quota::Counting;
use crate::spec::{Conversion, Fact, Generation, Hooks, KindSpec, Scope, Subresource, SubresourceKind, Verbs};
use crate::validate::names::NameCheck;

/// A kind at run time.
#[derive(Clone)]
pub struct Kind {
    /// Its number in this process.
    pub id: KindId,
    /// API group, empty for core.
    pub group: Arc<str>,
    /// All versions; the first is the storage version.
    pub versions: Vec<Arc<str>>,
    /// Whether each version is served, in the same order.
    pub served: Vec<bool>,
    /// The schema that has the kind's types: the built-in one, or one made from a definition.
    pub schema: Arc<Schema>,
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
    /// Where the scale subresource finds what it shows.
    pub scale: Option<ScalePaths>,
    /// All columns of each version in order, Name included.
    pub columns: Vec<Arc<[RuntimeColumn]>>,
    /// Facts kept in the head.
    pub facts: Vec<RuntimeFact>,
    /// Paths of the facts, in the same order, as `Object::parse` wants them.
    pub fact_paths: Vec<Arc<str>>,
    /// What acts on the kind, if anything does.
    pub served_by: Option<Arc<str>>,
    /// For a view of another kind's objects: the kind that is stored.
    pub stored_as: Option<KindId>,
    /// How objects count against quotas.
    pub counting: Counting,
    /// Which names objects may have.
    pub name_check: NameCheck,
    /// Whether a delete that says nothing about dependents orphans them.
    pub orphans_by_default: bool,
    /// Whether an update may leave the resourceVersion out.
    pub unconditional_update: bool,
    /// Whether a new object keeps the status that its maker gave it.
    pub status_on_create: bool,
    /// Whether a delete that removes the object answers with it.
    pub returns_deleted: bool,
    /// What is special about writes.
    pub hooks: Hooks,
    /// The row, for built-in kinds.
    pub spec: Option<&'static KindSpec>,
    /// What the definition says, for kinds that one made.
    pub custom: Option<Arc<Custom>>,
}

/// Dotted paths of an object that its Scale shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    /// Desired replicas.
    pub spec: Arc<str>,
    /// Observed replicas.
    pub status: Arc<str>,
    /// The selector: a LabelSelector, a label map or a text; empty if there is none.
    pub selector: Arc<str>,
}

impl ScalePaths {
    /// The selector of an object as the text that a scale shows; empty if there is none.
    pub fn selector_text(&self, object: &Tree) -> String {
        match object.path(&self.selector) {
            Some(Tree::Str(text)) => text.to_string(),
            // A label selector has matchLabels or matchExpressions; anything else is a plain map of labels.
            Some(Tree::Map(map)) if map.keys().all(|k| k == "matchLabels" || k == "matchExpressions") => {
                LabelSelector::from_tree(Some(&Tree::Map(map.clone()))).map(|s| s.to_string()).unwrap_or_default()
            }
            Some(Tree::Map(map)) => {
                LabelSelector::from_labels(map.iter().filter_map(|(k, v)| Some((k, v.as_str()?)))).to_string()
            }
            _ => String::new(),
        }
    }
}

/// A fact as the registry has it, of a row or of a definition's selectable field. Its path stands in [`Kind::fact_paths`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeFact {
    /// The name by which clients select.
    pub label: Arc<str>,
    /// What selectors compare with where the object has no such value.
    pub zero: &'static str,
    /// Whether clients may select by it.
    pub selectable: bool,
    /// Whether the cache keeps an index of it.
    pub indexed: bool,
    /// The versions in which it is selectable, as a bit for each place in [`Kind::versions`].
    pub versions: u64,
}

impl From<&Fact> for RuntimeFact {
    fn from(fact: &Fact) -> RuntimeFact {
        RuntimeFact {
            label: fact.label.into(),
            zero: fact.zero,
            selectable: fact.selectable,
            indexed: fact.indexed,
            versions: u64::MAX,
        }
    }
}

impl Kind {
    pub(crate) fn builtin(id: KindId, spec: &'static KindSpec) -> Kind {
        let all = |texts: &'static [&'static str]| texts.iter().map(|t| Arc::from(*t)).collect::<Vec<Arc<str>>>();
        let singular = if spec.singular.is_empty() { spec.kind.to_lowercase() } else { spec.singular.to_owned() };
        let schema = corten_schema::builtin_shared();
        let columns: Arc<[RuntimeColumn]> = spec.columns.iter().map(RuntimeColumn::from).collect();
        Kind {
            id,
            group: spec.group.into(),
            versions: spec.versions.iter().map(|v| v.name.into()).collect(),
            served: vec![true; spec.versions.len()],
            types: spec.versions.iter().map(|v| schema.gvk(spec.group, v.name, spec.kind)).collect(),
            schema,
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
            scale: spec.subresources.iter().find_map(|sub| match sub.kind {
                SubresourceKind::Scale { spec, status, selector } => {
                    Some(ScalePaths { spec: spec.into(), status: status.into(), selector: selector.into() })
                }
                _ => None,
            }),
            columns: vec![columns; spec.versions.len()],
            facts: spec.facts.iter().map(RuntimeFact::from).collect(),
            fact_paths: spec.facts.iter().map(|f| f.path.into()).collect(),
            served_by: spec.served_by.map(Into::into),
            stored_as: spec.stored_as,
            counting: spec.counting,
            name_check: spec.name_check,
            orphans_by_default: spec.orphans_by_default,
            unconditional_update: spec.unconditional_update,
            status_on_create: spec.status_on_create,
            returns_deleted: spec.returns_deleted,
            hooks: spec.hooks,
            spec: Some(spec),
            custom: None,
        }
    }

    /// The served versions, the storage version first if it is one.
    pub fn served_versions(&self) -> impl Iterator<Item = &Arc<str>> {
        self.versions.iter().zip(&self.served).filter(|(_, served)| **served).map(|(version, _)| version)
    }

    /// Whether clients may use a version.
    pub fn serves(&self, version: &str) -> bool {
        self.version_index(version).is_some_and(|at| self.served[at])
    }

    /// The type of an object by its own `apiVersion`; of the storage version if it names none of the kind's.
    pub fn type_for(&self, object: &Tree) -> Option<TypeId> {
        let api_version = object.str_at("apiVersion");
        let version = api_version.rsplit_once('/').map_or(api_version, |(_, version)| version);
        self.types[self.version_index(version).unwrap_or(0)]
    }

    /// The columns of a version.
    pub fn columns(&self, version: &str) -> &[RuntimeColumn] {
        &self.columns[self.version_index(version).unwrap_or(0)]
    }

    /// Whether objects are sealed at rest.
    pub fn sealed(&self) -> bool {
        self.spec.is_some_and(|spec| spec.sealed)
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

    /// Where the scale subresource of a version finds what it shows.
    pub fn scale_paths(&self, version: &str) -> Option<&ScalePaths> {
        match &self.custom {
            Some(custom) => custom.version(self, version).scale.as_ref(),
            None => self.scale.as_ref(),
        }
    }

    /// The subresource of this name at a version: definitions may differ by version.
    pub fn subresource_at(&self, version: &str, name: &str) -> Option<&Subresource> {
        let found = self.subresource(name)?;
        let Some(custom) = &self.custom else { return Some(found) };
        let own = custom.version(self, version);
        let there = match found.kind {
            SubresourceKind::Status => own.status,
            SubresourceKind::Scale { .. } => own.scale.is_some(),
            _ => true,
        };
        there.then_some(found)
    }

    /// Which fields a write through a subresource (none: to the object itself) may own.
    pub fn ownable(&self, subresource: Option<&Subresource>) -> Ownable<'static> {
        match subresource {
            Some(sub) => sub.ownable,
            None if self.has_status() => Ownable::Except(&["status"]),
            None => Ownable::All,
        }
    }

    /// Whether status is written through a subresource of its own.
    pub fn has_status(&self) -> bool {
        self.subresources.iter().any(|s| s.kind == SubresourceKind::Status)
    }

    /// As [`Kind::has_status`], at the version that an object is at.
    pub fn has_status_at(&self, object: &Tree) -> bool {
        match &self.custom {
            Some(custom) => custom.version_of(self, object).status,
            None => self.has_status(),
        }
    }

    /// Which changes the generation counts at the version that an object is at.
    pub fn generation_at(&self, object: &Tree) -> Generation {
        match &self.custom {
            Some(custom) if custom.version_of(self, object).status => Generation::OnChange,
            Some(_) => Generation::OnAnyChange,
            None => self.generation,
        }
    }

    /// Turns an object of a kind whose versions all have the same fields into one at another version. What that version's schema
    /// does not know is dropped. (`apiserver/conversion`, the `None` strategy)
    pub fn rename_version(&self, object: &mut Tree, version: &str) {
        object.set("apiVersion", self.gvk(version).api_version());
        let options = Options { unknown: UnknownFields::Ignore, ..Options::default() };
        if let Some(decoded) = self.type_of(version).and_then(|ty| canonicalise(&self.schema, ty, object, options).ok())
        {
            *object = decoded.tree;
        }
    }

    /// The kind of lists.
    pub fn list_kind(&self) -> String {
        match &self.custom {
            Some(custom) => custom.list_kind.to_string(),
            None => format!("{}List", self.kind),
        }
    }

    /// The schema's type of a served version.
    pub fn type_of(&self, version: &str) -> Option<TypeId> {
        self.types[self.version_index(version)?]
    }

    /// How a served version leads to and from the storage version; `None` where both have the same fields.
    pub fn conversion(&self, version: &str) -> Option<Conversion> {
        self.conversions[self.version_index(version)?]
    }

    /// The place of a version among all.
    pub fn version_index(&self, version: &str) -> Option<usize> {
        self.versions.iter().position(|v| **v == *version)
    }

    /// The cells of a stored object at a version, one per column.
    pub fn row(&self, version: &str, object: &Object, context: &RowContext) -> Vec<Tree> {
        self.cells(version, &Row::of(object, self.spec.map_or(&[], |s| s.columns_read), context))
    }

    /// The cells of an object that is not stored, one per column.
    pub fn row_of_tree(&self, version: &str, tree: Tree, context: &RowContext) -> Vec<Tree> {
        self.cells(version, &Row::of_tree(tree, context))
    }

    fn cells(&self, version: &str, row: &Row<'_>) -> Vec<Tree> {
        self.columns(version).iter().map(|column| column.cell.render(row)).collect()
    }

    /// What a field selector's label means; `None` if clients may not select by it.
    pub fn field_label(&self, label: &str) -> Option<FieldLabel> {
        let label = self.label_alias(label);
        match label {
            "metadata.name" => Some(FieldLabel::Name),
            "metadata.namespace" if self.namespaced() => Some(FieldLabel::Namespace),
            _ => {
                let index = self.facts.iter().position(|f| f.selectable && *f.label == *label)?;
                Some(FieldLabel::Fact { index, zero: self.facts[index].zero })
            }
        }
    }

    /// The label of the stored kind that a field selector's label stands for: mostly the same.
    pub fn label_alias<'l>(&self, label: &'l str) -> &'l str {
        let aliases = self.spec.map_or(&[][..], |s| s.label_aliases);
        aliases.iter().find(|(alias, _)| *alias == label).map_or(label, |(_, fact)| fact)
    }

    /// Whether clients may select by a label at a version: definitions may differ by version.
    pub fn selects_at(&self, version: &str, label: &str) -> bool {
        match (self.field_label(label), self.version_index(version)) {
            (Some(FieldLabel::Fact { index, .. }), Some(at)) => self.facts[index].versions & (1 << at.min(63)) != 0,
            (found, _) => found.is_some(),
        }
    }

    /// The index of a fact in the head, by path.
    pub fn fact_index(&self, path: &str) -> Option<usize> {
        self.fact_paths.iter().position(|p| **p == *path)
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
