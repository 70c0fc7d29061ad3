//! Server-side apply: a configuration is merged into an object, and its manager owns what is in it.

use std::borrow::Cow;

use corten_tree::{Tree, json};

use super::Context;
use super::atom::{Ty, equal};
use super::compare::{compare, field_set, with_named_fields};
use super::conflict::{self, Conflict};
use super::entries::{Entries, Entry, Fields, Owner};
use super::merge::{merge, remove, validate};
use super::set::Set;
use super::update::{by_version, converted, filtered, owner, reconcile_all, root, stamp, updated};
use crate::{Reason, Status};

/// The annotation in which client-side apply keeps what it applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The manager that takes over from client-side apply.
const KUBECTL: &str = "kubectl";
/// Who owns what was there before the first apply to an object that was not tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Bytes that all annotations together may have (`validation.TotalAnnotationSizeLimitB`).
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

/// What an apply made of an object.
#[derive(Debug)]
pub struct Applied {
    /// The merged object, not yet defaulted or brought to canonical form, with its new managed fields.
    pub tree: Tree,
}

/// Why a configuration is not applied.
#[derive(Debug)]
pub enum ApplyError {
    /// Others own fields that it would change, it is for another kind, or what else a client did wrong.
    Status(Status),
    /// It does not fit the kind's schema. Upstream answers 500 with this text.
    Unfit(String),
}

impl From<ApplyError> for Status {
    fn from(error: ApplyError) -> Status {
        match error {
            ApplyError::Status(status) => status,
            ApplyError::Unfit(why) => Status::new(Reason::Unknown, why),
        }
    }
}

enum Refusal<'a> {
    Conflicts(Vec<Conflict<'a>>),
    Unfit(String),
}

impl From<String> for Refusal<'_> {
    fn from(why: String) -> Self {
        Refusal::Unfit(why)
    }
}

/// Applies a configuration of `manager` to `live`, the object before; where there is none, the kind's empty object (`empty`).
pub fn apply(
    context: &Context<'_>,
    empty: &Tree,
    live: &Tree,
    applied: &Tree,
    manager: &str,
    force: bool,
) -> Result<Applied, ApplyError> {
    check_request(context, applied).map_err(ApplyError::Status)?;
    let named = || {
        let (namespace, name) = (applied.str_at("metadata.namespace"), applied.str_at("metadata.name"));
        format!("{namespace}/{name}; {}", named_type(context.api_version, context.kind))
    };
    let root = root(context).map_err(ApplyError::Unfit)?;
    let unfit = |why| ApplyError::Unfit(format!("failed to create typed patch object ({}): {why}", named()));
    validate(context.schema, root, applied).map_err(unfit)?;
    let fields = live.at(&["metadata", "managedFields"]).unwrap_or(&Tree::Null);
    let unreadable = |why| ApplyError::Unfit(format!("failed to decode managed fields: {why}"));
    let mut entries = Entries::read(fields, true).map_err(unreadable)?;
    if entries.is_empty() {
        let tracked = updated(context, empty, live, entries, true, BEFORE_FIRST_APPLY);
        let failed = |why| ApplyError::Unfit(format!("failed to create manager for existing fields: {why}"));
        entries = tracked.map_err(failed)?;
    } else if context.schema_changes {
        reconcile_all(context, &mut entries).map_err(ApplyError::Unfit)?;
    }
    let merger = Merger { context, root, live, applied, manager };
    let outcome = match merger.run(entries.clone(), force) {
        Err(Refusal::Conflicts(conflicts)) if manager == KUBECTL => match merger.last_applied() {
            Some(allowed) => {
                let left = |conflict: Conflict<'_>| {
                    let fields = conflict.fields.difference(&allowed).into_owned();
                    let owner = Owner {
                        manager: Cow::Owned(conflict.owner.manager.into_owned()),
                        applied: conflict.owner.applied,
                        api_version: Cow::Owned(conflict.owner.api_version.into_owned()),
                        subresource: Cow::Owned(conflict.owner.subresource.into_owned()),
                    };
                    (!fields.is_empty()).then_some(Conflict { owner, fields })
                };
                let left: Vec<Conflict<'_>> = conflicts.into_iter().filter_map(left).collect();
                if left.is_empty() { merger.run(entries, true) } else { Err(Refusal::Conflicts(left)) }
            }
            None => Err(Refusal::Conflicts(conflicts)),
        },
        outcome => outcome,
    };
    let mut tree = outcome.map_err(|refusal| match refusal {
        Refusal::Conflicts(conflicts) => ApplyError::Status(conflict::status(conflicts)),
        Refusal::Unfit(why) => ApplyError::Unfit(why),
    })?;
    if manager == KUBECTL {
        note_last_applied(&mut tree, applied);
    }
    Ok(Applied { tree })
}

fn check_request(context: &Context<'_>, applied: &Tree) -> Result<(), Status> {
    let (version, kind) = (applied.str_at("apiVersion"), applied.str_at("kind"));
    if version != context.api_version || kind != context.kind {
        return Err(Status::bad_request(format!("invalid object type: {}", named_type(version, kind))));
    }
    if applied.at(&["metadata", "managedFields"]).is_some_and(|fields| fields.as_list().is_some()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

/// A type in the words of these messages: the core group keeps its slash (`schema.GroupVersionKind.String`).
fn named_type(api_version: &str, kind: &str) -> String {
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={kind}")
}

struct Merger<'a> {
    context: &'a Context<'a>,
    root: Ty<'a>,
    live: &'a Tree,
    applied: &'a Tree,
    manager: &'a str,
}

impl<'a> Merger<'a> {
    /// Merges, takes away what the manager no longer applies, and finds conflicts (`Updater.Apply`).
    fn run(&self, mut entries: Entries<'a>, force: bool) -> Result<Tree, Refusal<'a>> {
        let context = self.context;
        let owner = owner(context, self.manager, true);
        let mut merged = merge(context.schema, self.root, self.live, self.applied)
            .map_err(|why| format!("failed to merge config: {why}"))?;
        let last = entries.get(&owner).cloned();
        let mine = context.ownable.filter(field_set(context.schema, self.root, self.applied));
        entries.put(owner.clone(), mine);
        if let Some(last) = last {
            merged = self.prune(merged, &entries, &owner, &last);
        }
        let conflicts = self.take_from_others(&merged, &mut entries, &owner)?;
        if !force && !conflicts.is_empty() {
            return Err(Refusal::Conflicts(conflicts));
        }
        entries.drop_empty();
        if let Some(at) = entries.position(&owner) {
            let mine = entries.0[at].fields.to_set().without_system_fields();
            entries.0[at].fields = Fields::Set(mine);
        }
        entries.drop_empty();
        if !equal(self.live, &merged) {
            stamp(context, &mut entries, &owner);
        }
        let metadata = merged.make_map_at("metadata");
        metadata.remove("managedFields");
        if let Some(fields) = entries.into_tree() {
            metadata.insert("managedFields", fields);
        }
        Ok(merged)
    }

    /// Takes the changed fields from the other managers; returns what was taken from whom.
    fn take_from_others(
        &self,
        merged: &Tree,
        entries: &mut Entries<'a>,
        mine: &Owner<'_>,
    ) -> Result<Vec<Conflict<'a>>, String> {
        let context = self.context;
        let conversions = converted(context, self.live, merged, entries)?;
        let mut conflicts = Vec::new();
        let own = filtered(context.ownable, compare(context.schema, self.root, self.live, merged)?);
        entries.0.retain(|entry| {
            let version = &*entry.owner.api_version;
            version == context.api_version || conversions.contains_key(version)
        });
        for entry in entries.0.iter_mut().filter(|entry| !entry.owner.is(mine)) {
            let version = &*entry.owner.api_version;
            let converted = match conversions.get(version) {
                Some((ty, live, merged)) => {
                    let compared = compare(context.schema, Ty::root(context.schema, *ty), live, merged)?;
                    Some(filtered(context.ownable_at(version), compared))
                }
                None => None,
            };
            let comparison = converted.as_ref().unwrap_or(&own);
            let set = entry.fields.to_set();
            let changed = comparison.modified.clone().union(comparison.added.clone());
            let taken = set.intersection(&changed);
            entry.fields = Fields::Set(set.difference(&taken).difference(&comparison.removed));
            if !taken.is_empty() {
                conflicts.push(Conflict { owner: entry.owner.clone(), fields: taken });
            }
        }
        Ok(conflicts)
    }

    /// Removes what the manager applied last time and not now, unless someone else owns it (`Updater.prune`).
    fn prune(&self, merged: Tree, entries: &Entries<'a>, owner: &Owner<'_>, last: &Entry<'a>) -> Tree {
        let context = self.context;
        let last_set = last.fields.to_set();
        if last_set.is_empty() {
            return merged;
        }
        let here = context.api_version;
        // What is applied again stays, and all that leads there: mostly nothing was taken out of a configuration.
        let mine = entries.position(owner).map(|at| entries.0[at].fields.to_set()).unwrap_or_default();
        if entries.0.iter().all(|entry| *entry.owner.api_version == *here) && last_set.difference(&mine).is_empty() {
            return merged;
        }
        let at_last = &*last.owner.api_version;
        let convert = |tree: &Tree, from: &str, to: &str| -> Option<Tree> {
            if from == to { Some(tree.clone()) } else { context.versions.convert(tree, from, to) }
        };
        let at = |version: &str| context.versions.type_of(version).map(|ty| Ty::root(context.schema, ty));
        let (Some(ty), Some(merged_at_last)) = (at(at_last), convert(&merged, here, at_last)) else { return merged };
        let schema = context.schema;
        let named = |ty, set: &Set<'a>| with_named_fields(schema, Some(ty), set);
        let mut pruned = remove(schema, ty, &merged_at_last, &named(ty, &last_set));
        let mut managed = by_version(entries);
        let mut version = at_last.to_owned();
        let mut current = merged_at_last.clone();
        let first = managed.remove(at_last).map(|set| (at_last.to_owned(), set));
        for (to, owned) in first.into_iter().chain(managed) {
            let Some(ty) = at(&to) else { continue };
            let (Some(a), Some(b)) = (convert(&current, &version, &to), convert(&pruned, &version, &to)) else {
                continue;
            };
            let all = with_named_fields(schema, Some(ty), &field_set(schema, ty, &a));
            let kept = with_named_fields(schema, Some(ty), &field_set(schema, ty, &b));
            let gone = all.difference(&kept).difference(&with_named_fields(schema, Some(ty), &owned));
            pruned = remove(schema, ty, &a, &gone);
            (current, version) = (a, to);
        }
        let Some(pruned) = convert(&pruned, &version, at_last) else { return merged };
        let all = with_named_fields(schema, Some(ty), &field_set(schema, ty, &merged_at_last));
        let kept = with_named_fields(schema, Some(ty), &field_set(schema, ty, &pruned));
        let gone = all.difference(&kept).intersection(&named(ty, &last_set));
        let result = remove(schema, ty, &merged_at_last, &gone);
        convert(&result, at_last, here).unwrap_or(merged)
    }

    /// What client-side apply set last and nobody changed since: kubectl may take it over without a conflict.
    fn last_applied(&self) -> Option<Set<'static>> {
        let text = self.live.at(&["metadata", "annotations", LAST_APPLIED])?.as_str()?;
        let last = json::parse(text.as_bytes()).ok()?;
        if last.str_at("apiVersion") != self.context.api_version {
            return None;
        }
        validate(self.context.schema, self.root, &last).ok()?;
        let set = field_set(self.context.schema, self.root, &last);
        let changed = compare(self.context.schema, self.root, &last, self.live).ok()?;
        let same = set.difference(&changed.modified).difference(&changed.added).difference(&changed.removed);
        Some(same.into_owned())
    }
}

/// Keeps client-side apply's annotation, where there is one, in line with what kubectl applies on the server.
fn note_last_applied(tree: &mut Tree, applied: &Tree) {
    let path = ["metadata", "annotations", LAST_APPLIED];
    if tree.at(&path).and_then(Tree::as_str).is_none_or(str::is_empty) {
        return;
    }
    let mut last = applied.clone();
    if let Some(annotations) = last.path_mut("metadata.annotations").and_then(Tree::as_map_mut) {
        annotations.remove(LAST_APPLIED);
    }
    sort_keys(&mut last);
    let mut text = last.to_json_string();
    text.push('\n');
    let annotations = tree.make_map_at("metadata.annotations");
    annotations.insert(LAST_APPLIED.to_owned(), text);
    let size = |(key, value): (&str, &Tree)| key.len() + value.as_str().map_or(0, str::len);
    if annotations.iter().map(size).sum::<usize>() > ANNOTATIONS_BYTES_MAX {
        annotations.remove(LAST_APPLIED);
    }
}

fn sort_keys(tree: &mut Tree) {
    match tree {
        Tree::Map(map) => {
            map.sort_keys();
            map.iter_mut().for_each(|(_, value)| sort_keys(value));
        }
        Tree::List(items) => items.iter_mut().for_each(sort_keys),
        _ => {}
    }
}
