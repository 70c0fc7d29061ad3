//! Get and list.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use corten_auth::{Attributes, User};
use corten_base::Revision;
use corten_cache::{Filter, keys};
use corten_kinds::Kind;
use corten_object::{FieldSelector, LabelSelector, Object, Status};
use corten_store::KeyRange;
use corten_tree::{Tree, json, tree};

use super::Request;
use crate::core::{Core, attributes, store_error};

/// How many objects are read from the store at a time for a list at an old revision.
const PAGE: usize = 1000;

/// At which revision a read wants the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RevisionMatch {
    /// All that was committed when the read began.
    MostRecent,
    /// Whatever is here.
    Any,
    /// This or later.
    NotOlderThan(Revision),
    /// Exactly this.
    Exact(Revision),
}

/// What a list asks for.
#[derive(Debug, Clone)]
pub(crate) struct ListRequest {
    /// Empty: all namespaces.
    pub namespace: String,
    pub labels: Option<LabelSelector>,
    pub fields: FieldSelector,
    pub revision: RevisionMatch,
    /// At most so many; 0 is all.
    pub limit: usize,
    /// Where a continued list goes on: a key of the store.
    pub start: Option<Vec<u8>>,
}

/// A list, or a page of one.
#[derive(Debug)]
pub(crate) struct Listed {
    pub items: Vec<Arc<Object>>,
    pub revision: Revision,
    /// The token of the next page.
    pub next: Option<String>,
    /// How many objects are behind this page, if that is known.
    pub remaining: Option<usize>,
}

impl Core {
    /// Reads one object.
    pub async fn get(&self, request: Request<'_>, revision: RevisionMatch) -> Result<Arc<Object>, Status> {
        let names = (request.namespace, request.name, request.subresource);
        self.authorize(&attributes(request.user, "get", request.kind, names))?;
        self.wait_for(revision).await?;
        self.cache.get(&request.key(self.stored(request.kind))).ok_or_else(|| request.not_found())
    }

    async fn wait_for(&self, revision: RevisionMatch) -> Result<(), Status> {
        match revision {
            RevisionMatch::MostRecent => self.fresh().await.map(drop),
            RevisionMatch::Any => Ok(()),
            RevisionMatch::NotOlderThan(revision) | RevisionMatch::Exact(revision) => self.at_least(revision).await,
        }
    }

    /// Lists objects.
    pub async fn list(&self, user: &User, kind: &Arc<Kind>, list: &ListRequest) -> Result<Listed, Status> {
        let name = list.fields.exact("metadata.name").unwrap_or_default();
        let about = attributes(user, "list", kind, (&list.namespace, name, ""));
        self.authorize(&Attributes { fields: &list.fields.terms, ..about })?;
        self.list_authorized(kind, list).await
    }

    pub(super) async fn list_authorized(&self, kind: &Arc<Kind>, list: &ListRequest) -> Result<Listed, Status> {
        let stored = self.stored(kind);
        let filter = self.filter(kind, list)?;
        self.wait_for(list.revision).await?;
        if let RevisionMatch::Exact(revision) = list.revision {
            return self.list_from_store(stored, &filter, list, revision).await;
        }
        let found = self.cache.list(&filter);
        let mut items = found.items;
        let (mut next, mut remaining) = (None, None);
        if list.limit > 0 && items.len() > list.limit {
            remaining = filter.is_everything().then_some(items.len() - list.limit);
            items.truncate(list.limit);
            let last = items.last().map(|last| keys::object(stored, &last.head.namespace, &last.head.name));
            next = last.map(|last| continue_token(found.revision, &last));
        }
        Ok(Listed { items, revision: found.revision, next, remaining })
    }

    /// The selection of a list or a watch.
    pub(super) fn filter(&self, kind: &Arc<Kind>, list: &ListRequest) -> Result<Filter, Status> {
        let stored = self.stored(kind);
        let filter = Filter::new(stored, &list.namespace, list.labels.clone(), &list.fields);
        filter.map_err(|e| Status::bad_request(e.to_string()))
    }

    /// A list at an old revision, or a further page of one.
    async fn list_from_store(
        &self,
        kind: &Arc<Kind>,
        filter: &Filter,
        list: &ListRequest,
        revision: Revision,
    ) -> Result<Listed, Status> {
        let whole = match list.namespace.as_str() {
            "" => keys::kind(kind),
            namespace => keys::namespace(kind, namespace),
        };
        let mut range: KeyRange = match &list.start {
            Some(last) => whole.after(last),
            None => whole,
        };
        let mut items = Vec::new();
        loop {
            let page = self.store.scan(range.clone(), Some(revision), PAGE).await.map_err(store_error)?;
            for entry in &page.entries {
                if list.limit > 0 && items.len() == list.limit {
                    let last: &Arc<Object> = items.last().expect("a limit above zero was reached");
                    let last = keys::object(kind, &last.head.namespace, &last.head.name);
                    return Ok(Listed {
                        next: Some(continue_token(revision, &last)),
                        items,
                        revision,
                        remaining: None,
                    });
                }
                let Some(object) = self.cache.decode_entry(entry) else { continue };
                if filter.matches(&object) {
                    items.push(object);
                }
            }
            match page.entries.last() {
                Some(last) if page.more => range = range.after(&last.key),
                _ => return Ok(Listed { items, revision, next: None, remaining: None }),
            }
        }
    }
}

/// Upstream's form (`apiserver/pkg/storage/continue.go`), so that people who look into one find what they know.
fn continue_token(revision: Revision, last: &[u8]) -> String {
    let start = String::from_utf8_lossy(last).into_owned();
    let rv = i64::try_from(revision.0).unwrap_or(i64::MAX);
    let token = tree!({"v": "meta.k8s.io/v1", "rv": rv, "start": start});
    URL_SAFE_NO_PAD.encode(token.to_json())
}

/// The revision and the last key of a continue token.
pub(crate) fn parse_continue(token: &str) -> Result<(Revision, Vec<u8>), Status> {
    let bad = || Status::bad_request("continue key is not valid: illegal base64 or JSON");
    let bytes = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| bad())?;
    let tree: Tree = json::parse(&bytes).map_err(|_| bad())?;
    if tree.str_at("v") != "meta.k8s.io/v1" {
        return Err(Status::bad_request("continue key is not valid: server does not recognize this encoded version"));
    }
    let revision = tree.i64_at("rv").and_then(|rv| u64::try_from(rv).ok()).ok_or_else(bad)?;
    Ok((Revision(revision), tree.str_at("start").as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_are_read_back() {
        let token = continue_token(Revision(7), b"/registry/core/pods/d/x");
        assert_eq!(parse_continue(&token).unwrap(), (Revision(7), b"/registry/core/pods/d/x".to_vec()));
        assert!(parse_continue("zzz").is_err());
    }
}
