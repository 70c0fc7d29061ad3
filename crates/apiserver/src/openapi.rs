//! `/openapi/v3`: documents made from the registry and the schema on first use, and kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use corten_kinds::{Kind, Registry};
use corten_schema::{Schema, openapi};

use crate::aggregation::Served;

/// The documents by path (`api/v1`, `apis/apps/v1`), and the index of them, made once for each state of what is served.
#[derive(Default)]
pub(crate) struct OpenApi(Mutex<Option<Made>>);

struct Made {
    of: Served,
    documents: BTreeMap<String, Bytes>,
    index: Bytes,
}

impl OpenApi {
    /// The index, or the document at a path that is this server's own.
    pub fn get(&self, served: &Served, path: &str) -> Option<Bytes> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if made.as_ref().is_none_or(|made| !made.of.same(served)) {
            *made = Some(make(served, made.take()));
        }
        let made = made.as_ref()?;
        if path.is_empty() { Some(made.index.clone()) } else { made.documents.get(path).cloned() }
    }

    /// All documents of this server's own.
    pub fn own(&self, served: &Served) -> Vec<Bytes> {
        let _ = self.get(served, "");
        let made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        made.as_ref().map(|made| made.documents.values().cloned().collect()).unwrap_or_default()
    }
}

/// The built-in kinds' documents by group and version, which are made once.
type Documents = BTreeMap<(String, String), Bytes>;

fn builtin_documents() -> &'static Documents {
    static MADE: OnceLock<Documents> = OnceLock::new();
    MADE.get_or_init(|| {
        let registry = Registry::builtin();
        let groups = by_group_version(&registry);
        groups.into_iter().map(|(at, kinds)| (at.clone(), document(&at, &kinds))).collect()
    })
}

type Groups<'r> = BTreeMap<(String, String), Vec<&'r Kind>>;

fn by_group_version(registry: &Registry) -> Groups<'_> {
    let mut groups = Groups::new();
    for kind in registry.iter() {
        for version in kind.served_versions() {
            groups.entry((kind.group.to_string(), version.to_string())).or_default().push(kind);
        }
    }
    groups
}

fn document((group, version): &(String, String), kinds: &[&Kind]) -> Bytes {
    let schema = corten_schema::builtin();
    let resources: Vec<openapi::Resource<'_>> =
        kinds.iter().map(|kind| resource(kind, schema, group, version)).collect();
    openapi::document(schema, group, version, &resources).into()
}

fn make(served: &Served, before: Option<Made>) -> Made {
    let documents = match before {
        Some(before) if Arc::ptr_eq(&before.of.registry, &served.registry) => before.documents,
        _ => documents(&served.registry),
    };
    let mut urls: BTreeMap<String, String> = BTreeMap::new();
    for (path, bytes) in &documents {
        urls.insert(path.clone(), format!("/openapi/v3/{path}?hash={}", hash(bytes)));
    }
    for service in served.table.iter().filter(|service| service.backend.is_some()) {
        let path = openapi::document_path(&service.group, &service.version);
        match served.documents.get(&service.name).map(|said| said.openapi_v3.as_str()) {
            Some(url) if !url.is_empty() => drop(urls.insert(path, url.to_owned())),
            _ => drop(urls.remove(&path)),
        }
    }
    let index = openapi::index(urls.iter().map(|(path, url)| (path.as_str(), url.as_str())));
    let of =
        Served { registry: served.registry.clone(), table: served.table.clone(), documents: served.documents.clone() };
    Made { of, index: index.into(), documents }
}

fn documents(registry: &Arc<Registry>) -> BTreeMap<String, Bytes> {
    let mut documents = BTreeMap::new();
    for (at, kinds) in by_group_version(registry) {
        let known = builtin_documents().get(&at).filter(|_| kinds.iter().all(|kind| kind.custom.is_none()));
        let made = known.cloned().unwrap_or_else(|| document(&at, &kinds));
        documents.insert(openapi::document_path(&at.0, &at.1), made);
    }
    documents
}

fn resource<'k>(kind: &'k Kind, schema: &Schema, group: &'k str, version: &'k str) -> openapi::Resource<'k> {
    let own = (group, version, &*kind.kind);
    let there = |sub: &&corten_kinds::Subresource| kind.subresource_at(version, sub.name).is_some();
    let subresources = kind.subresources.iter().filter(there).map(|sub| {
        let gvk = sub.body.unwrap_or(own);
        openapi::Subresource { name: sub.name, gvk, ty: schema.gvk(gvk.0, gvk.1, gvk.2), verbs: sub.verbs }
    });
    openapi::Resource {
        plural: &kind.plural,
        kind: &kind.kind,
        ty: kind.type_of(version).filter(|_| kind.custom.is_none()),
        list_ty: schema.gvk(group, version, &format!("{}List", kind.kind)),
        custom: kind.custom_type(version),
        namespaced: kind.namespaced(),
        verbs: kind.verbs.names(),
        subresources: subresources.collect(),
    }
}

/// A hash that names a document's content (FNV-1a): it keeps clients' caches right, and nothing else depends on it.
pub(crate) fn hash(bytes: &[u8]) -> String {
    let fold = |state: u64, byte: &u8| (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016X}", bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_version_has_a_document() {
        let registry = Arc::new(Registry::builtin());
        let registry = Served { registry, table: Arc::default(), documents: Arc::default() };
        let openapi = OpenApi::default();
        let index = String::from_utf8(openapi.get(&registry, "").unwrap().to_vec()).unwrap();
        assert!(index.contains("/openapi/v3/apis/apps/v1?hash="), "{index}");
        let apps = String::from_utf8(openapi.get(&registry, "apis/apps/v1").unwrap().to_vec()).unwrap();
        for part in [
            "/apis/apps/v1/namespaces/{namespace}/deployments/{name}",
            "fieldValidation",
            "x-kubernetes-patch-merge-key",
        ] {
            assert!(apps.contains(part), "{part}");
        }
        assert!(openapi.get(&registry, "apis/none/v1").is_none());
    }
}
