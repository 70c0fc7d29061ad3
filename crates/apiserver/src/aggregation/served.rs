//! All groups and versions in the order of discovery.

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_kinds::Registry;
use corten_kinds::custom::version_rank;

use super::{Documents, Table, priorities};

/// What is served at one moment, here and elsewhere.
pub(crate) struct Served {
    pub registry: Arc<Registry>,
    pub table: Arc<Table>,
    pub documents: Arc<Documents>,
}

/// A group in discovery.
pub(crate) struct Group {
    /// Its name; empty is the core group.
    pub name: String,
    /// Its versions, the preferred one first.
    pub versions: Vec<String>,
}

impl Served {
    /// Whether this is the same as before: what was made of it then can be kept.
    pub fn same(&self, other: &Served) -> bool {
        Arc::ptr_eq(&self.registry, &other.registry)
            && Arc::ptr_eq(&self.table, &other.table)
            && Arc::ptr_eq(&self.documents, &other.documents)
    }

    /// The groups in order (`apiregistration/v1/helper`, `SortedByGroupAndVersion`).
    pub fn groups(&self) -> Vec<Group> {
        let mut all: BTreeMap<String, BTreeMap<String, (i64, i64)>> = BTreeMap::new();
        for kind in self.registry.iter() {
            for version in kind.served_versions() {
                let priority = || priorities::in_discovery(&kind.group, version);
                all.entry(kind.group.to_string()).or_default().entry(version.to_string()).or_insert_with(priority);
            }
        }
        for service in self.table.iter() {
            let priority = (service.group_priority, service.version_priority);
            // What was made for a definition does not outlive it.
            let known = all.get(&service.group).is_some_and(|versions| versions.contains_key(&service.version));
            if known || !service.managed || service.backend.is_some() {
                all.entry(service.group.clone()).or_default().insert(service.version.clone(), priority);
            }
        }
        let mut groups: Vec<(i64, Group)> = all
            .into_iter()
            .map(|(name, versions)| {
                let priority = versions.values().map(|(group, _)| *group).max().unwrap_or_default();
                let mut versions: Vec<(String, i64)> = versions.into_iter().map(|(v, (_, p))| (v, p)).collect();
                versions.sort_by_cached_key(|(v, p)| std::cmp::Reverse((*p, version_rank(v))));
                (priority, Group { name, versions: versions.into_iter().map(|(v, _)| v).collect() })
            })
            .collect();
        // The names are in order already.
        groups.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
        groups.into_iter().map(|(_, group)| group).collect()
    }
}
