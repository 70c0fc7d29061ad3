//! What the APIServices say.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use corten_object::Object;
use corten_tree::Tree;

/// All APIServices.
#[derive(Default)]
pub(crate) struct Table {
    services: Vec<Arc<ApiService>>,
    /// By group and version: those that other servers serve.
    remote: HashMap<(String, String), Arc<ApiService>>,
}

/// An APIService.
#[derive(Debug, Clone)]
pub(crate) struct ApiService {
    /// `VERSION.GROUP`
    pub name: String,
    pub group: String,
    pub version: String,
    /// Where the group stands among the others, the higher the earlier.
    pub group_priority: i64,
    /// Where the version stands in the group, the higher the earlier.
    pub version_priority: i64,
    /// Whether it was made because this server serves the group version, and goes when that ends.
    pub managed: bool,
    /// Who serves it; `None` is this server.
    pub backend: Option<Backend>,
}

/// The Service of another API server.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    pub namespace: String,
    pub name: String,
    pub port: u16,
    /// PEM of the authorities that its certificate may be of; empty trusts the system's.
    pub ca_pem: Vec<u8>,
    /// Whether any certificate will do.
    pub insecure: bool,
    /// Whether it has answered when it was last asked.
    pub available: bool,
}

impl ApiService {
    /// Reads an APIService's object.
    pub fn of(object: &Object) -> ApiService {
        let tree = object.to_tree();
        let spec = tree.path("spec").cloned().unwrap_or_default();
        let available = condition(&tree).is_some_and(|c| c.str_at("status") == "True");
        let backend = spec.path("service").map(|service| Backend {
            namespace: service.str_at("namespace").into(),
            name: service.str_at("name").into(),
            port: service.i64_at("port").and_then(|p| u16::try_from(p).ok()).unwrap_or(443),
            // What cannot be read trusts nobody: the connection says so.
            ca_pem: base64::engine::general_purpose::STANDARD.decode(spec.str_at("caBundle")).unwrap_or(vec![0]),
            insecure: spec.bool_at("insecureSkipTLSVerify"),
            available,
        });
        ApiService {
            name: object.head.name.to_string(),
            group: spec.str_at("group").into(),
            version: spec.str_at("version").into(),
            group_priority: spec.i64_at("groupPriorityMinimum").unwrap_or_default(),
            version_priority: spec.i64_at("versionPriority").unwrap_or_default(),
            managed: object.head.labels.get(super::register::LABEL).is_some(),
            backend,
        }
    }
}

/// The `Available` condition.
pub(super) fn condition(service: &Tree) -> Option<&Tree> {
    service.list_at("status.conditions").iter().find(|c| c.str_at("type") == "Available")
}

impl Table {
    pub fn new<'o>(objects: impl Iterator<Item = &'o Object>) -> Table {
        let services: Vec<Arc<ApiService>> = objects.map(|object| Arc::new(ApiService::of(object))).collect();
        let remote = services.iter().filter(|s| s.backend.is_some());
        let remote = remote.map(|s| ((s.group.clone(), s.version.clone()), s.clone())).collect();
        Table { services, remote }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ApiService>> {
        self.services.iter()
    }

    /// That of a group version which another server serves.
    pub fn remote(&self, group: &str, version: &str) -> Option<Arc<ApiService>> {
        if self.remote.is_empty() {
            return None;
        }
        self.remote.get(&(group.to_owned(), version.to_owned())).cloned()
    }
}
