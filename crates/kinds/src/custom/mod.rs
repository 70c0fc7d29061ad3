//! Kinds that CustomResourceDefinitions make.
//!
//! A stored definition becomes a [`Kind`] like any row's: a schema of its own with the types of all its versions, its names,
//! subresources, columns and selectable fields. What rows have as functions (defaults, validation) these kinds have as data,
//! in [`Custom`]: the methods of [`Kind`] that the pipeline calls look into both.

mod columns;
mod correlate;
pub mod definition;
mod formats;
mod json_path;
mod lists;
mod rules;
mod validate;
mod values;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use corten_object::KindId;
use corten_schema::structural::{LowerError, Props, lower};
use corten_schema::{Options, SchemaBuilder, UnknownFields, canonicalise, encode_json, openapi};
use corten_tree::Tree;

use crate::kind::{Kind, RuntimeFact, ScalePaths};
use crate::print::condition_is;
use crate::spec::{Generation, Hooks, Scope, Subresource, Verbs};
use crate::validate::names;

pub use json_path::JsonPath;
use rules::Rules;
pub(crate) use validate::finalizer_warnings;

/// What a definition says of its kind that rows have as functions.
pub struct Custom {
    /// Tells states of the definition apart that make different kinds.
    pub digest: u64,
    /// As `digest`, but for whether the definition is being deleted: who watches is not disturbed by that.
    pub shape: u64,
    /// The definition's name: `plural.group`.
    pub definition: Arc<str>,
    /// The kind of lists.
    pub list_kind: Arc<str>,
    /// Whether the definition is being deleted: nothing new may be made.
    pub terminating: bool,
    /// Where objects are converted between versions; `None`: all versions have the same fields.
    pub webhook: Option<Tree>,
    /// In the order of [`Kind::versions`].
    pub versions: Vec<CustomVersion>,
}

/// What a definition says of one version.
pub struct CustomVersion {
    /// The schema; `None`: anything goes.
    pub schema: Option<Arc<Props>>,
    rules: OnceLock<Option<Rules>>,
    /// The JSON of the schema, as it is published.
    pub published: Option<Bytes>,
    /// Whether status is written through a subresource of its own.
    pub status: bool,
    /// Where the scale subresource finds what it shows, if there is one.
    pub scale: Option<ScalePaths>,
    /// What to say to who uses the version.
    pub deprecation: Option<Arc<str>>,
}

impl CustomVersion {
    /// The rules in the schema, compiled when they are first asked for; `None` if there are none.
    pub(crate) fn rules(&self) -> Option<(&Rules, &Props)> {
        let schema = self.schema.as_deref()?;
        let rules = self.rules.get_or_init(|| Rules::compile(schema)).as_ref()?;
        Some((rules, schema))
    }
}

/// Whether the kind of a definition is served.
pub(crate) fn is_established(definition: &Tree) -> bool {
    condition_is(definition, "status.conditions", "Established", "True")
}

fn is_terminating(definition: &Tree) -> bool {
    condition_is(definition, "status.conditions", "Terminating", "True")
}

/// A number that changes with everything that the kind is made of (FNV-1a).
pub(crate) fn digest(definition: &Tree) -> u64 {
    let fold = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let spec = definition.get("spec").map(Tree::to_json).unwrap_or_default();
    let names = definition.path("status.acceptedNames").map(Tree::to_json).unwrap_or_default();
    let last = u8::from(is_terminating(definition));
    spec.into_iter().chain(names).chain([last]).fold(0xcbf2_9ce4_8422_2325, fold)
}

/// [`digest`] as if the definition were not being deleted.
fn shape(definition: &Tree) -> u64 {
    let mut living = definition.clone();
    living.remove("status.conditions");
    living.set("status.conditions", Vec::<Tree>::new());
    digest(&living)
}

/// The kind that a definition makes.
///
/// # Errors
/// If its schema is beyond all bounds.
pub(crate) fn kind(id: KindId, definition: &Tree, digest: u64) -> Result<Kind, LowerError> {
    let names = definition.path("status.acceptedNames").or_else(|| definition.path("spec.names"));
    let names = names.cloned().unwrap_or_default();
    let texts =
        |key: &str| names.list_at(key).iter().filter_map(Tree::as_str).map(Arc::from).collect::<Vec<Arc<str>>>();
    let mut declared: Vec<&Tree> = definition.list_at("spec.versions").iter().collect();
    declared.sort_by_key(|version| !version.bool_at("storage"));
    let mut builder = SchemaBuilder::default();
    let mut kind = Kind {
        id,
        group: definition.str_at("spec.group").into(),
        versions: declared.iter().map(|v| v.str_at("name").into()).collect(),
        served: declared.iter().map(|v| v.bool_at("served")).collect(),
        schema: corten_schema::builtin_shared(),
        types: Vec::with_capacity(declared.len()),
        conversions: vec![None; declared.len()],
        kind: names.str_at("kind").into(),
        plural: names.str_at("plural").into(),
        singular: names.str_at("singular").into(),
        short: texts("shortNames"),
        categories: texts("categories"),
        scope: if definition.str_at("spec.scope") == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
        verbs: Verbs::All,
        generation: Generation::OnAnyChange,
        immutable: Vec::new(),
        create_on_update: false,
        subresources: Vec::new(),
        scale: None,
        columns: declared.iter().map(|v| columns::columns(v)).collect(),
        facts: Vec::new(),
        fact_paths: Vec::new(),
        served_by: Some("its definition's controller".into()),
        stored_as: None,
        counting: crate::quota::Counting::Objects,
        name_check: names::dns_subdomain,
        orphans_by_default: false,
        unconditional_update: false,
        status_on_create: false,
        returns_deleted: false,
        hooks: Hooks::NONE,
        spec: None,
        custom: None,
    };
    let mut versions = Vec::with_capacity(declared.len());
    for (at, version) in declared.iter().enumerate() {
        let made = custom_version(definition, version);
        let name = format!("{}.{}.{}", kind.group, version.str_at("name"), kind.kind);
        kind.types.push(Some(lower(&mut builder, &name, made.schema.as_deref())?));
        select(&mut kind, at, version);
        versions.push(made);
    }
    kind.schema = Arc::new(builder.build());
    if versions.iter().any(|v| v.status) {
        kind.subresources.push(Subresource::STATUS_WITHOUT_METADATA);
        kind.generation = Generation::OnChange;
    }
    kind.scale = versions.iter().find_map(|v| v.scale.clone());
    if kind.scale.is_some() {
        kind.subresources.push(Subresource::scale("", "", ""));
    }
    kind.custom = Some(Arc::new(Custom {
        digest,
        shape: shape(definition),
        definition: definition.str_at("metadata.name").into(),
        list_kind: match names.str_at("listKind") {
            "" => format!("{}List", names.str_at("kind")).into(),
            kind => kind.into(),
        },
        terminating: is_terminating(definition),
        webhook: definition.path("spec.conversion.webhook").filter(|_| is_webhook(definition)).cloned(),
        versions,
    }));
    Ok(kind)
}

fn is_webhook(definition: &Tree) -> bool {
    definition.str_at("spec.conversion.strategy") == "Webhook"
}

fn custom_version(definition: &Tree, version: &Tree) -> CustomVersion {
    let path = |path: &str| Arc::from(version.str_at(path).trim_start_matches('.'));
    let scale = version.path("subresources.scale").map(|_| ScalePaths {
        spec: path("subresources.scale.specReplicasPath"),
        status: path("subresources.scale.statusReplicasPath"),
        selector: path("subresources.scale.labelSelectorPath"),
    });
    CustomVersion {
        schema: version.path("schema.openAPIV3Schema").map(|schema| Arc::new(Props::parse(schema))),
        rules: OnceLock::new(),
        published: version.path("schema.openAPIV3Schema").map(|schema| schema.to_json().into()),
        status: version.path("subresources.status").is_some(),
        scale,
        deprecation: version.bool_at("deprecated").then(|| deprecation(definition, version)),
    }
}

/// (`apiserver/customresource_handler.go` `defaultDeprecationWarning`)
fn deprecation(definition: &Tree, version: &Tree) -> Arc<str> {
    if let Some(text) = version.path("deprecationWarning").and_then(Tree::as_str) {
        return text.into();
    }
    let (group, kind) = (definition.str_at("spec.group"), definition.str_at("spec.names.kind"));
    let name = version.str_at("name");
    let mut newer: Vec<&str> = definition
        .list_at("spec.versions")
        .iter()
        .filter(|v| v.bool_at("served") && !v.bool_at("deprecated"))
        .map(|v| v.str_at("name"))
        .filter(|other| version_rank(other) > version_rank(name))
        .collect();
    newer.sort_by_key(|name| std::cmp::Reverse(version_rank(name)));
    match newer.first() {
        Some(best) => format!("{group}/{name} {kind} is deprecated; use {group}/{best} {kind}").into(),
        None => format!("{group}/{name} {kind} is deprecated").into(),
    }
}

/// How versions are ordered, the best last: `v1alpha1` < `v1beta1` < `v1` < `v2`, and what is named otherwise before all
/// these, backwards by the alphabet (`apimachinery/pkg/version/helpers.go` `CompareKubeAwareVersionStrings`).
pub fn version_rank(version: &str) -> (u8, u64, u64, std::cmp::Reverse<String>) {
    let other = || (0, 0, 0, std::cmp::Reverse(version.to_owned()));
    let Some(rest) = version.strip_prefix('v') else { return other() };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let Ok(major) = rest[..digits].parse::<u64>() else { return other() };
    let (stability, minor) = match &rest[digits..] {
        "" => (3, "0"),
        beta if beta.starts_with("beta") => (2, &beta[4..]),
        alpha if alpha.starts_with("alpha") => (1, &alpha[5..]),
        _ => return other(),
    };
    let canonical = |text: &str| text == "0" || !text.starts_with('0');
    match minor.parse::<u64>() {
        Ok(minor) if canonical(&rest[..digits]) => (stability, major, minor, std::cmp::Reverse(String::new())),
        _ => other(),
    }
}

/// Adds the selectable fields of a version to the facts.
fn select(kind: &mut Kind, at: usize, version: &Tree) {
    for field in version.list_at("selectableFields") {
        let path: Arc<str> = field.str_at("jsonPath").trim_start_matches('.').into();
        let bit = 1 << at.min(63);
        match kind.fact_paths.iter().position(|known| *known == path) {
            Some(known) => kind.facts[known].versions |= bit,
            None => {
                kind.facts.push(RuntimeFact {
                    label: path.clone(),
                    zero: "",
                    selectable: true,
                    indexed: false,
                    versions: bit,
                });
                kind.fact_paths.push(path);
            }
        }
    }
}

impl Kind {
    /// A version of the kind as OpenAPI documents describe it, if a definition made it. (One function for all forms.)
    pub fn custom_type<'k>(&'k self, version: &'k str) -> Option<openapi::CustomType<'k>> {
        let custom = self.custom.as_ref()?;
        let at = self.version_index(version)?;
        let selectable = self.facts.iter().filter(|f| f.selectable && f.versions & (1 << at.min(63)) != 0);
        Some(openapi::CustomType {
            group: &self.group,
            version,
            kind: &self.kind,
            list_kind: &custom.list_kind,
            plural: &self.plural,
            schema: custom.versions[at].published.as_ref().and_then(|json| corten_tree::json::parse(json).ok()),
            selectable: selectable.map(|f| f.label.to_string()).collect(),
        })
    }
}

impl Custom {
    /// See [`Kind::as_read`].
    pub(crate) fn as_read(&self, kind: &Kind, json: Bytes) -> Bytes {
        let Ok(mut tree) = corten_tree::json::parse(&json) else { return json };
        // Only a webhook could convert what is stored at another version; that happens where it is shown.
        if self.webhook.is_none() {
            tree.set("apiVersion", kind.api_version());
        }
        let Some(ty) = kind.type_for(&tree) else { return json };
        let options = Options { unknown: UnknownFields::Ignore, ..Options::default() };
        let Ok(decoded) = canonicalise(&kind.schema, ty, &tree, options) else { return json };
        tree = decoded.tree;
        kind.fill_defaults(&mut tree);
        let read = encode_json(&kind.schema, ty, &tree);
        if read == *json { json } else { read.into() }
    }

    /// What the version of an object's own `apiVersion` says.
    pub fn version_of(&self, kind: &Kind, object: &Tree) -> &CustomVersion {
        let api_version = object.str_at("apiVersion");
        let version = api_version.rsplit_once('/').map_or(api_version, |(_, version)| version);
        self.version(kind, version)
    }

    /// What a version says; the storage version if there is none of this name.
    pub fn version(&self, kind: &Kind, version: &str) -> &CustomVersion {
        &self.versions[kind.version_index(version).unwrap_or(0)]
    }
}
