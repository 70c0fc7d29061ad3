//! `/openapi/v2`: one document of everything, as JSON and as gnostic protobuf, made from the v3 documents on first use and kept.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use corten_kinds::Registry;
use corten_schema::openapi::{gnostic, v2};
use corten_tree::{Tree, json};

use crate::bootstrap;
use crate::openapi::{OpenApi, hash};

/// The document, made once for each registry.
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
    registry: Arc<Registry>,
    document: Document,
}

impl Swagger {
    /// The document.
    pub fn get(&self, registry: &Arc<Registry>, openapi: &OpenApi) -> Document {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if made.as_ref().is_none_or(|made| !Arc::ptr_eq(&made.registry, registry)) {
            *made = Some(Made { registry: registry.clone(), document: make(registry, openapi) });
        }
        made.as_ref().expect("it was just made").document.clone()
    }
}

fn make(registry: &Arc<Registry>, openapi: &OpenApi) -> Document {
    let parsed = |path: &str| openapi.get(registry, path).and_then(|bytes| json::parse(&bytes).ok());
    let index = parsed("").unwrap_or_default();
    let documents: Vec<Tree> = index.map_at("paths").keys().filter_map(parsed).collect();
    let versions = registry.iter().flat_map(|kind| kind.served_versions().map(move |version| (kind, version)));
    let custom: Vec<_> = versions.filter_map(|(kind, version)| kind.custom_type(version)).collect();
    let document = v2::document(&documents, &custom, bootstrap::VERSION);
    let json: Bytes = document.to_json().into();
    Document { protobuf: gnostic::encode(&document).into(), etag: hash(&json).into(), json }
}
