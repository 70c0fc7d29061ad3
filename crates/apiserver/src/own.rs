//! Requests that the server makes of itself, as upstream's `system:apiserver`.

use std::sync::Arc;

use corten_auth::User;
use corten_client::WriteOptions;
use corten_kinds::Kind;
use corten_object::{KindId, ObjectKey, Status};
use corten_tree::Tree;

use crate::core::Core;
use crate::pipeline::{Body, Request};

/// Who asks, for which kind and with which options: what the server's own requests of one kind borrow from.
pub(crate) struct Own {
    user: User,
    kind: Arc<Kind>,
    options: WriteOptions,
}

impl Own {
    pub fn of(core: &Core, kind: KindId) -> Own {
        Own { user: User::apiserver(), kind: core.registry.get(kind), options: WriteOptions::default() }
    }

    /// With other options than the default ones.
    pub fn with_options(mut self, options: WriteOptions) -> Own {
        self.options = options;
        self
    }

    /// A request about an object, or (`subresource` not empty) a part of it.
    pub fn request<'r>(&'r self, key: &'r ObjectKey, subresource: &'r str) -> Request<'r> {
        Request {
            user: &self.user,
            kind: &self.kind,
            version: &self.kind.versions[0],
            namespace: &key.namespace,
            name: &key.name,
            subresource,
            options: &self.options,
        }
    }

    /// Makes an object; one that is there already is as good.
    pub async fn create(&self, core: &Core, key: &ObjectKey, object: Tree) -> Result<(), Status> {
        match core.create(Request { name: "", ..self.request(key, "") }, Body::Tree(object)).await {
            Err(status) if !status.is_already_exists() => Err(status),
            _ => Ok(()),
        }
    }
}
