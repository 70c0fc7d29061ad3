//! API aggregation (`k8s.io/kube-aggregator`): groups and versions that other servers serve, and the APIServices that say so.
//!
//! [`table`] is what the APIServices say; `register` makes those of this server's own groups; `watch` looks whether the others'
//! servers answer, and keeps what they say of themselves; `forward` passes requests on.

mod available;
mod backend;
mod forward;
mod priorities;
pub(crate) mod register;
mod served;
mod table;
mod watch;

pub(crate) use backend::read;
pub(crate) use forward::pass;
pub(crate) use served::{Group, Served};
pub(crate) use table::{ApiService, Backend, Table};
pub(crate) use watch::start;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use corten_kinds::id;
use corten_tree::Tree;

use crate::core::Core;
use crate::derived::Derived;

/// What is known of other servers.
#[derive(Default)]
pub(crate) struct Aggregation {
    table: Derived<Table>,
    documents: RwLock<Arc<Documents>>,
}

/// What servers say of the group version of an APIService, by its name.
pub(crate) type Documents = BTreeMap<String, Document>;

/// What a server says of a group version.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Document {
    /// `apidiscovery.k8s.io/v2 APIVersionDiscovery`, without freshness.
    pub discovery: Tree,
    /// Whether the server has said so when it was last asked.
    pub current: bool,
    /// The ETag of the server's discovery, if it has one.
    pub etag: String,
    /// Where its OpenAPI v3 document is, with its hash; empty if there is none.
    pub openapi_v3: String,
    /// Its part of the OpenAPI v2 document.
    pub openapi_v2: Option<Arc<Tree>>,
    /// The ETag of the whole OpenAPI v2 document.
    pub openapi_v2_etag: String,
}

impl Aggregation {
    /// Notes that an APIService was written.
    pub fn outdate(&self) {
        self.table.outdate();
    }

    /// What the APIServices say.
    pub fn table(&self, core: &Core) -> Arc<Table> {
        self.table.get(|| Table::new(core.cache.read().list(id::API_SERVICE).map(|object| &**object)))
    }

    /// What servers say of themselves.
    pub fn documents(&self) -> Arc<Documents> {
        self.documents.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what a server says, or nothing of it.
    fn keep(&self, name: &str, document: Option<Document>) {
        let mut documents = self.documents.write().unwrap_or_else(PoisonError::into_inner);
        if documents.get(name) == document.as_ref() {
            return;
        }
        let documents = Arc::make_mut(&mut documents);
        match document {
            Some(document) => drop(documents.insert(name.to_owned(), document)),
            None => drop(documents.remove(name)),
        }
    }
}

impl Core {
    /// The APIService of a group version that another server serves.
    pub fn served_elsewhere(&self, group: &str, version: &str) -> Option<Arc<ApiService>> {
        self.aggregation.table(self).remote(group, version)
    }

    /// All groups and versions, be they served here or elsewhere.
    pub fn served(&self) -> Served {
        let (table, documents) = (self.aggregation.table(self), self.aggregation.documents());
        Served { registry: self.registry.now(), table, documents }
    }
}
