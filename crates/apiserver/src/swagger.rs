//! `/openapi/v2`: one document of everything, as JSON and as gnostic protobuf, made from the v3 documents on first use and kept.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use corten_schema::openapi::{gnostic, merge, v2};
use corten_tree::{Tree, json};

use crate::aggregation::Served;
use crate::bootstrap;
use crate::openapi::{OpenApi, hash};

/// The document, made once for each state of what is served.
#[derive(Default)]
pub(crate) struct Swagger(Mutex<Option<Made>>);

/// A document's forms. The protobuf form is made of the other.
#[derive(Clone)]
pub(crate) struct Document {
    /// As JSON.
    pub json: Bytes,
    /// As a gnostic `Document`.
    pub protobuf: Bytes,
    /// Names the content.
    pub etag: Arc<str>,
}

struct Made {
    of: Served,
    document: Document,
}

impl Swagger {
    /// The document.
    pub fn get(&self, served: Served, openapi: &OpenApi) -> Document {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if made.as_ref().is_none_or(|made| !made.of.same(&served)) {
            let document = make(&served, openapi);
            *made = Some(Made { of: served, document });
        }
        made.as_ref().expect("it was just made").document.clone()
    }
}

fn make(served: &Served, openapi: &OpenApi) -> Document {
    let documents: Vec<Tree> = openapi.own(served).iter().filter_map(|bytes| json::parse(bytes).ok()).collect();
    let versions = served.registry.iter().flat_map(|kind| kind.served_versions().map(move |version| (kind, version)));
    let custom: Vec<_> = versions.filter_map(|(kind, version)| kind.custom_type(version)).collect();
    let mut document = v2::document(&documents, &custom, bootstrap::VERSION);
    for service in served.table.iter().filter(|service| service.backend.is_some()) {
        if let Some(part) = served.documents.get(&service.name).and_then(|said| said.openapi_v2.as_ref()) {
            merge::merge(&mut document, part);
        }
    }
    let json: Bytes = document.to_json().into();
    Document { protobuf: gnostic::encode(&document).into(), etag: hash(&json).into(), json }
}
