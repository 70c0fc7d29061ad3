//! Get and list.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use corten_auth::{Attributes, User};
use corten_base::Revision;
use corten_cache::{Filter, UnsupportedField, keys};
use corten_kinds::Kind;
use corten_object::{FieldSelector, FieldTerm, LabelSelector, Object, Status};
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
    /// What a continued list begins behind: the part of a key of the store that follows the range's prefix.
    pub start: Option<Vec<u8>>,
    /// How many objects were left when a continued list's token was made, if it says so.
    pub remaining: Option<usize>,
}

/// A continue token, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// The list's revision; `MostRecent` for a token that goes on with an expired list as things are now.
    pub revision: RevisionMatch,
    /// See [`ListRequest::start`].
    pub start: Vec<u8>,
    /// See [`ListRequest::remaining`].
    pub remaining: Option<usize>,
}

/// A list, or a page of one.
#[derive(Debug, Clone)]
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
        self.authorize(&attributes(request.user, "get", request.kind, names)).await?;
        if let Some(measured) = self.get_measured(&request) {
            return measured;
        }
        self.wait_for(revision).await?;
        let stored = self.stored(request.kind);
        let namespace = if stored.namespaced() { request.namespace } else { "" };
        self.cache.find(stored.id, namespace, request.name).ok_or_else(|| request.not_found())
    }

    pub(super) async fn wait_for(&self, revision: RevisionMatch) -> Result<(), Status> {
        match revision {
            RevisionMatch::MostRecent => self.fresh().await.map(drop),
            RevisionMatch::Any => Ok(()),
            RevisionMatch::NotOlderThan(revision) | RevisionMatch::Exact(revision) => self.at_least(revision).await,
        }
    }

    /// Lists objects.
    pub async fn list(
        &self,
        user: &User,
        (kind, version): (&Arc<Kind>, &str),
        list: &ListRequest,
    ) -> Result<Listed, Status> {
        let name = list.fields.exact("metadata.name").unwrap_or_default();
        let about = attributes(user, "list", kind, (&list.namespace, name, ""));
        self.authorize(&Attributes { fields: &list.fields.terms, ..about }).await?;
        self.list_authorized((kind, version), list).await
    }

    pub(super) async fn list_authorized(
        &self,
        (kind, version): (&Arc<Kind>, &str),
        list: &ListRequest,
    ) -> Result<Listed, Status> {
        if !kind.verbs.stored() {
            return self.list_computed(kind, list);
        }
        if let Some((late, early)) = self.late_filter((kind, version), list)? {
            let mut listed = Box::pin(self.list_authorized((kind, version), &early)).await?;
            listed.items = self.objects_at(kind, version, listed.items).await?;
            listed.items.retain(|object| late.matches(object));
            return Ok(listed);
        }
        let stored = self.stored(kind);
        let filter = self.filter(kind, list)?;
        self.wait_for(list.revision).await?;
        if let RevisionMatch::Exact(revision) = list.revision {
            return self.list_from_store(stored, &filter, list, revision).await;
        }
        let found = self.cache.list(&filter);
        let mut items = found.items;
        if let Some(start) = &list.start {
            let prefix = range_of(stored, &list.namespace).start;
            let first = items.partition_point(|o| {
                keys::object(stored, &o.head.namespace, &o.head.name)[prefix.len()..] <= start[..]
            });
            items.drain(..first);
        }
        let (mut next, mut remaining) = (None, None);
        if list.limit > 0 && items.len() > list.limit {
            remaining = filter.is_everything().then_some(items.len() - list.limit);
            items.truncate(list.limit);
            next = items.last().map(|last| continue_token(stored, &list.namespace, found.revision, last, remaining));
        }
        Ok(Listed { items, revision: found.revision, next, remaining })
    }

    /// Where objects are converted by a webhook, what a client selects by are fields of its version: the whole selection,
    /// for converted objects, and the request without those fields, for stored ones. `None` where stored objects can be
    /// selected by all of it.
    pub fn late_filter(
        &self,
        (kind, version): (&Arc<Kind>, &str),
        list: &ListRequest,
    ) -> Result<Option<(Filter, ListRequest)>, Status> {
        if kind.custom.is_none() {
            return Ok(None);
        }
        if let Some(term) = list.fields.terms.iter().find(|term| !kind.selects_at(version, &term.path)) {
            return Err(Status::bad_request(UnsupportedField::of(kind, &term.path).to_string()));
        }
        let stays = |term: &&FieldTerm| term.path.starts_with("metadata.");
        if !super::is_by_webhook(kind) || list.fields.terms.iter().all(|term| stays(&term)) {
            return Ok(None);
        }
        let terms = list.fields.terms.iter().filter(stays).cloned().collect();
        let early = ListRequest { fields: FieldSelector { terms }, ..list.clone() };
        Ok(Some((self.filter(kind, list)?, early)))
    }

    /// The selection of a list or a watch.
    pub(super) fn filter(&self, kind: &Arc<Kind>, list: &ListRequest) -> Result<Filter, Status> {
        let stored = self.stored(kind);
        let term = |term: &FieldTerm| match kind.field_label(&term.path) {
            Some(_) => Ok(FieldTerm { path: kind.label_alias(&term.path).to_owned(), ..term.clone() }),
            None => Err(Status::bad_request(UnsupportedField::of(kind, &term.path).to_string())),
        };
        let fields = FieldSelector { terms: list.fields.terms.iter().map(term).collect::<Result<_, _>>()? };
        let filter = Filter::new(stored, &list.namespace, list.labels.clone(), &fields);
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
        let whole = range_of(kind, &list.namespace);
        let mut range: KeyRange = match &list.start {
            Some(last) => whole.clone().after(&[&whole.start[..], last].concat()),
            None => whole,
        };
        let mut items: Vec<Arc<Object>> = Vec::new();
        // How many are behind this page: from the token, else counted to the end of the range.
        let mut behind = 0;
        let known = list.remaining.filter(|_| filter.is_everything());
        let mut more = false;
        'pages: loop {
            let page = self.store.scan(range.clone(), Some(revision), PAGE).await;
            let page = page.map_err(|error| too_old(error, list))?;
            for entry in &page.entries {
                if list.limit > 0 && items.len() == list.limit {
                    more = true;
                    if known.is_some() || !filter.is_everything() {
                        break 'pages;
                    }
                    behind += 1;
                    continue;
                }
                let object = self.cache.decode_entry(entry);
                items.extend(object.filter(|object| filter.matches(object)));
            }
            match page.entries.last() {
                Some(last) if page.more => range = range.after(&last.key),
                _ => break,
            }
        }
        if !more {
            return Ok(Listed { items, revision, next: None, remaining: None });
        }
        let counted = known.map_or(behind, |known| known.saturating_sub(items.len()));
        let remaining = (filter.is_everything() && counted > 0).then_some(counted);
        let next = items.last().map(|last| continue_token(kind, &list.namespace, revision, last, remaining));
        Ok(Listed { items, revision, next, remaining })
    }
}

fn range_of(kind: &Kind, namespace: &str) -> KeyRange {
    if namespace.is_empty() { keys::kind(kind) } else { keys::namespace(kind, namespace) }
}

/// What a client sees when the store no longer has a list's revision (`apiserver/pkg/storage/etcd3/errors.go`): a continued list
/// may go on as things are now.
fn too_old(error: corten_store::Error, list: &ListRequest) -> Status {
    match (error, &list.start) {
        (corten_store::Error::Compacted { .. }, None) => {
            Status::expired("The resourceVersion for the provided list is too old.")
        }
        (corten_store::Error::Compacted { .. }, Some(start)) => {
            const WHY: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new \
                 list without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
                 results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, \
                 or deleted between the time the first chunk was returned and now may show up in the list.";
            Status { continue_token: token(-1, start, None), ..Status::expired(WHY) }
        }
        (other, _) => store_error(other),
    }
}

fn continue_token(kind: &Kind, namespace: &str, revision: Revision, last: &Object, remaining: Option<usize>) -> String {
    let key = keys::object(kind, &last.head.namespace, &last.head.name);
    let start = &key[range_of(kind, namespace).start.len()..];
    token(i64::try_from(revision.0).unwrap_or(i64::MAX), start, remaining)
}

/// Upstream's form (`apiserver/pkg/storage/continue.go`), so that people who look into one find what they know; besides it the
/// number of objects that are left, so that no page has to count them. The last byte makes the range begin behind the key.
fn token(revision: i64, start: &[u8], remaining: Option<usize>) -> String {
    let start = String::from_utf8_lossy(start).into_owned() + "\0";
    let mut token = tree!({"v": "meta.k8s.io/v1", "rv": revision, "start": start});
    if let Some(remaining) = remaining.and_then(|n| i64::try_from(n).ok()) {
        token.insert("remaining", remaining);
    }
    URL_SAFE_NO_PAD.encode(token.to_json())
}

/// Takes a continue token apart (`DecodeContinue`).
pub(crate) fn parse_continue(token: &str) -> Result<Token, Status> {
    let bad = |why: String| Status::bad_request(format!("invalid continue token: continue key is not valid{why}"));
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|error| bad(format!(": {}", go_base64(&error))))?;
    let tree: Tree = json::parse(&bytes).map_err(|error| bad(format!(": {}", error.message)))?;
    if tree.str_at("v") != "meta.k8s.io/v1" {
        let version = tree.str_at("v");
        return Err(bad(format!(": server does not recognize this encoded version {version}")));
    }
    let revision = match tree.i64_at("rv").unwrap_or(0) {
        0 => return Err(bad(": incorrect encoded start resourceVersion (version meta.k8s.io/v1)".into())),
        negative if negative < 0 => RevisionMatch::MostRecent,
        rv => RevisionMatch::Exact(Revision(rv.unsigned_abs())),
    };
    let start = tree.str_at("start");
    if start.is_empty() {
        return Err(bad(": encoded start key empty (version meta.k8s.io/v1)".into()));
    }
    let parts = || start.trim_start_matches('/').split('/');
    if parts().any(|p| matches!(p, "" | "." | "..")) {
        return Err(bad(format!(": {start}")));
    }
    let start = start.trim_start_matches('/').trim_end_matches('\0').as_bytes().to_vec();
    Ok(Token { revision, start, remaining: tree.i64_at("remaining").and_then(|n| usize::try_from(n).ok()) })
}

/// Go's words for text that is not base64.
fn go_base64(error: &base64::DecodeError) -> String {
    let at = match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => *at,
        // The start of the last, incomplete group.
        base64::DecodeError::InvalidLength(length) => length - length % 4,
        base64::DecodeError::InvalidPadding => 0,
    };
    format!("illegal base64 data at input byte {at}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_are_read_back() {
        let text = token(7, b"d/x", Some(3));
        let expected =
            Token { revision: RevisionMatch::Exact(Revision(7)), start: b"d/x".to_vec(), remaining: Some(3) };
        assert_eq!(parse_continue(&text).unwrap(), expected);
        assert_eq!(parse_continue(&token(-1, b"x", None)).unwrap().revision, RevisionMatch::MostRecent);
    }

    #[test]
    fn continue_tokens_that_are_none_are_refused() {
        let coded = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for (token, why) in [
            ("zz.z".to_owned(), "illegal base64 data at input byte 2"),
            (coded(r#"{"v":"v9","rv":1,"start":"a"}"#), "server does not recognize this encoded version v9"),
            (coded(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a"}"#), "incorrect encoded start resourceVersion"),
            (coded(r#"{"v":"meta.k8s.io/v1","rv":1}"#), "encoded start key empty"),
            (coded(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"../a"}"#), "continue key is not valid: ../a"),
        ] {
            let status = parse_continue(&token).unwrap_err();
            assert!(status.code == 400 && status.message.contains(why), "{}", status.message);
            assert!(status.message.starts_with("invalid continue token: continue key is not valid: "));
        }
    }
}
