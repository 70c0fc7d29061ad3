//! `metadata.managedFields`: who owns which fields, as entries that are read only as far as they are needed.
//!
//! Rules: `apimachinery/pkg/util/managedfields/internal/{managedfields,capmanagers}.go`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use corten_tree::{Map, Tree};

use super::fields_v1::overlaps;
use super::set::Set;
use crate::patch::go_value;

/// How many managers of updates an object remembers.
const UPDATE_MANAGERS_MAX: usize = 10;
/// The manager that the oldest are merged into.
const ANCIENT: &str = "ancient-changes";

/// The fields of an entry.
#[derive(Debug, Clone)]
pub(super) enum Fields<'a> {
    /// As stored, and known to be well-formed when it is read from there.
    Text(&'a str),
    Set(Set<'a>),
}

impl<'a> Fields<'a> {
    pub fn to_set(&self) -> Set<'a> {
        match self {
            Fields::Text(text) => Set::parse(text).unwrap_or_default(),
            Fields::Set(set) => set.clone(),
        }
    }

    /// Whether a field of `other` is among these.
    pub fn overlaps(&self, other: &Set<'_>) -> bool {
        match self {
            _ if other.is_empty() => false,
            Fields::Text(text) => overlaps(text, other).unwrap_or(true),
            Fields::Set(set) => !set.intersection(other).is_empty(),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Fields::Text(text) => *text == "{}",
            Fields::Set(set) => set.is_empty(),
        }
    }

    fn to_tree(&self) -> Tree {
        match self {
            Fields::Text(text) => Tree::Raw(corten_tree::RawJson::new_unchecked(text)),
            Fields::Set(set) => Tree::Raw(set.to_raw()),
        }
    }
}

/// Who owns fields: the manager, how, and through what.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Owner<'a> {
    pub manager: Cow<'a, str>,
    pub applied: bool,
    /// Not part of an applier's identity.
    pub api_version: Cow<'a, str>,
    pub subresource: Cow<'a, str>,
}

impl Owner<'_> {
    pub fn is(&self, other: &Owner<'_>) -> bool {
        self.manager == other.manager
            && self.applied == other.applied
            && self.subresource == other.subresource
            && (self.applied || self.api_version == other.api_version)
    }

    fn operation(&self) -> &'static str {
        if self.applied { "Apply" } else { "Update" }
    }

    /// The text by which upstream orders managers: the identifying fields as JSON.
    pub fn identifier(&self) -> String {
        let mut map = Map::new();
        for (key, value) in [
            ("manager", &*self.manager),
            ("operation", self.operation()),
            ("apiVersion", if self.applied { "" } else { &*self.api_version }),
            ("subresource", &*self.subresource),
        ] {
            if !value.is_empty() {
                map.push_unchecked(key.into(), Tree::from(value));
            }
        }
        Tree::Map(map).to_json_string()
    }
}

/// One entry.
#[derive(Debug, Clone)]
pub(super) struct Entry<'a> {
    pub owner: Owner<'a>,
    pub time: Option<Cow<'a, str>>,
    pub fields: Fields<'a>,
}

/// All entries of an object.
#[derive(Debug, Clone, Default)]
pub(super) struct Entries<'a>(pub Vec<Entry<'a>>);

impl<'a> Entries<'a> {
    /// Reads the entries of a tree's managed fields. With `checked`, the field sets are known to be well-formed.
    pub fn read(list: &'a Tree, checked: bool) -> Result<Entries<'a>, String> {
        let mut entries = Entries::default();
        for (i, item) in list.as_list().unwrap_or_default().iter().enumerate() {
            let text = |key: &str| item.get(key).and_then(Tree::as_str).unwrap_or_default();
            let applied = match text("operation") {
                "Apply" => true,
                "Update" => false,
                _ => return Err("operation must be `Apply` or `Update`".into()),
            };
            if text("apiVersion").is_empty() {
                return Err("apiVersion must not be empty".into());
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {i}")),
                other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {i}")),
            }
            let fields = match item.get("fieldsV1") {
                None | Some(Tree::Null) => Fields::Text("{}"),
                Some(Tree::Raw(raw)) if checked => Fields::Text(raw.as_str()),
                Some(Tree::Raw(raw)) => {
                    let set = Set::parse(raw.as_str());
                    Fields::Set(set.map_err(|e| format!("error decoding set: {}", e.message))?)
                }
                Some(other) => {
                    let text = other.to_json_string();
                    let set = Set::parse(&text).map(Set::into_owned);
                    Fields::Set(set.map_err(|e| format!("error decoding set: {}", e.message))?)
                }
            };
            let owner = Owner {
                manager: Cow::Borrowed(text("manager")),
                applied,
                api_version: Cow::Borrowed(text("apiVersion")),
                subresource: Cow::Borrowed(text("subresource")),
            };
            let time = item.get("time").and_then(Tree::as_str).map(Cow::Borrowed);
            let entry = Entry { owner, time, fields };
            match entries.position(&entry.owner) {
                Some(at) => entries.0[at] = entry,
                None => entries.0.push(entry),
            }
        }
        Ok(entries)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn position(&self, owner: &Owner<'_>) -> Option<usize> {
        self.0.iter().position(|entry| entry.owner.is(owner))
    }

    pub fn get(&self, owner: &Owner<'_>) -> Option<&Entry<'a>> {
        self.position(owner).map(|at| &self.0[at])
    }

    /// Replaces or adds the fields of an owner; an entry that was there keeps its time.
    pub fn put(&mut self, owner: Owner<'a>, fields: Set<'a>) {
        match self.position(&owner) {
            Some(at) => {
                self.0[at].owner = owner;
                self.0[at].fields = Fields::Set(fields);
            }
            None => self.0.push(Entry { owner, time: None, fields: Fields::Set(fields) }),
        }
    }

    pub fn drop_empty(&mut self) {
        self.0.retain(|entry| !entry.fields.is_empty());
    }

    /// Merges the oldest updates until no more than the maximum are left (`capUpdateManagers`).
    pub fn cap(&mut self) {
        let mut updaters: Vec<Owner<'a>> =
            self.0.iter().filter(|e| !e.owner.applied).map(|e| e.owner.clone()).collect();
        let mut count = updaters.len();
        if count <= UPDATE_MANAGERS_MAX {
            return;
        }
        updaters.sort_by_cached_key(|owner| {
            let time = self.get(owner).and_then(|entry| entry.time.clone());
            (time.unwrap_or_default().into_owned(), owner.identifier())
        });
        let mut first_of: BTreeMap<String, Owner<'a>> = BTreeMap::new();
        for owner in updaters {
            if count <= UPDATE_MANAGERS_MAX {
                break;
            }
            let version = owner.api_version.to_string();
            let bucket = Owner {
                manager: Cow::Borrowed(ANCIENT),
                applied: false,
                api_version: owner.api_version.clone(),
                subresource: Cow::Borrowed(""),
            };
            let Some(first) = first_of.get(&version) else {
                first_of.insert(version, owner);
                continue;
            };
            if self.position(&bucket).is_none()
                && let Some(at) = self.position(first)
            {
                self.0[at].owner = bucket.clone();
            }
            let (Some(at), Some(into)) = (self.position(&owner), self.position(&bucket)) else { continue };
            if at == into {
                continue;
            }
            let merged = self.0[at].fields.to_set().union(self.0[into].fields.to_set());
            self.0[into].fields = Fields::Set(merged);
            self.0[into].time = self.0[at].time.clone();
            self.0.remove(at);
            count -= 1;
        }
    }

    /// The entries in order as the value of `metadata.managedFields`; `None` if there are none.
    pub fn into_tree(mut self) -> Option<Tree> {
        if self.0.is_empty() {
            return None;
        }
        self.0.sort_by(|a, b| {
            let order = |e: &'_ Entry<'a>| (e.owner.operation(), e.time.clone().unwrap_or_default());
            order(a).cmp(&order(b)).then_with(|| a.owner.manager.cmp(&b.owner.manager)).then_with(|| {
                (&a.owner.api_version, &a.owner.subresource).cmp(&(&b.owner.api_version, &b.owner.subresource))
            })
        });
        let entry = |entry: &Entry<'_>| {
            let mut map = Map::new();
            let mut put = |key: &'static str, value: Tree| map.push_unchecked(key.into(), value);
            if !entry.owner.manager.is_empty() {
                put("manager", Tree::from(&*entry.owner.manager));
            }
            put("operation", Tree::from(entry.owner.operation()));
            put("apiVersion", Tree::from(&*entry.owner.api_version));
            if let Some(time) = &entry.time {
                put("time", Tree::from(&**time));
            }
            put("fieldsType", Tree::from("FieldsV1"));
            put("fieldsV1", entry.fields.to_tree());
            if !entry.owner.subresource.is_empty() {
                put("subresource", Tree::from(&*entry.owner.subresource));
            }
            Tree::Map(map)
        };
        Some(Tree::List(self.0.iter().map(entry).collect()))
    }
}

/// Why managed fields cannot be kept (`ValidateManagedFields` after admission).
pub fn check_managed_fields(tree: &Tree) -> Result<(), String> {
    let Some(list) = tree.path("metadata.managedFields") else { return Ok(()) };
    Entries::read(list, false).map(drop).map_err(|why| match why.strip_prefix("error decoding set") {
        Some(_) => format!("error decoding versioned set from {}: {why}", go_value(list)),
        None => why,
    })
}
