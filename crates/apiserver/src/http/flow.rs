//! Seats for a request: what it is, how wide, and how long it may wait for them
//! (`apiserver/pkg/server/filters/priority-and-fairness.go`).

use std::sync::Arc;
use std::time::Duration;

use corten_auth::User;
use corten_flowcontrol::work::{ListAsked, of_list, of_write};
use corten_flowcontrol::{Digest, What, Work};
use corten_object::FieldSelector;
use hyper::header::{self, HeaderValue};
use hyper::{Response, Uri};

use super::body::Body;
use super::query::Query;
use super::respond::text;
use super::route::{Resource, Route};
use crate::core::Core;
use crate::flow::{Asking, Held, Place, TOO_MANY};

/// A resource as schemas look at it: a namespace is in itself (`RequestInfoFactory.NewRequestInfo`).
pub(super) fn what(r: &Resource) -> What<'_> {
    let itself = r.resource == "namespaces" && r.namespace.is_empty();
    What::Resource {
        group: &r.group,
        resource: &r.resource,
        subresource: &r.subresource,
        namespace: if itself { &r.name } else { &r.namespace },
    }
}

/// A request whose seats are asked for.
pub(super) struct Asked<'a> {
    pub user: &'a Arc<User>,
    pub verb: &'static str,
    pub route: &'a Route,
    pub uri: &'a Uri,
    pub query: &'a Query,
    /// How long it may take; `None` if it is made to last.
    pub limit: Option<Duration>,
}

/// Seats for a request; none for what is made to last, but for a watch's beginning.
///
/// # Errors
/// The 429 for who gets none. It is plain text, as every 429 of upstream's server itself.
pub(super) async fn enter(core: &Core, asked: Asked<'_>) -> Result<Option<Place>, Response<Body>> {
    let wait_max = match asked.limit {
        Some(limit) => limit / 4,
        None if asked.verb == "watch" => core.flow.wait_default(),
        None => return Ok(None),
    };
    let path = asked.uri.path();
    let resource = match asked.route {
        Route::Resource(resource) => Some(&**resource),
        _ => None,
    };
    let what = resource.map_or(What::Path(path), what);
    let digest = Digest { user: &asked.user.name, groups: &asked.user.groups, verb: asked.verb, what };
    let asking = Asking { user: asked.user, digest, verb: asked.verb, uri: Some(asked.uri), wait_max };
    let work = |level_max| match resource {
        Some(resource) => width(core, asked.verb, resource, asked.query, level_max),
        None => (Work::ONE, None),
    };
    core.flow.enter(asking, work).await.map(Some).map_err(|refused| {
        let mut response = text(429, format!("{TOO_MANY}\n"));
        let headers = response.headers_mut();
        headers.remove(header::CACHE_CONTROL);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(refused.retry_after_seconds));
        refused.mark(headers);
        response
    })
}

/// What a request takes, and the watchers of a write (`request/width.go`).
fn width(core: &Core, verb: &str, r: &Resource, query: &Query, level_max: Option<u64>) -> (Work, Option<u64>) {
    match verb {
        "list" | "watch" => (list_width(core, verb, r, query, level_max), None),
        // A token is no event.
        "create" if r.resource == "serviceaccounts" && r.subresource == "token" => (Work::ONE, None),
        "create" | "update" | "patch" | "delete" => {
            let watchers = core.flow.watches.interested(&what(r), &r.name);
            (of_write(watchers, level_max), Some(watchers))
        }
        _ => (Work::ONE, None),
    }
}

fn list_width(core: &Core, verb: &str, r: &Resource, query: &Query, level_max: Option<u64>) -> Work {
    let (revision, matching) = (query.get("resourceVersion"), query.get("resourceVersionMatch"));
    let watch = verb == "watch";
    // A watch that begins at a revision has nothing to send first.
    if watch && query.optional_flag("sendInitialEvents") != Some(true) && !matches!(revision, "" | "0") {
        return Work::ONE;
    }
    let Some(kind) = core.registry.resource(&r.group, &r.version, &r.resource) else { return Work::ONE };
    let limit = query.number("limit").ok().flatten().and_then(|limit| u64::try_from(limit).ok()).unwrap_or_default();
    let from_store = match matching {
        "Exact" => true,
        "" => !query.get("continue").is_empty() || limit > 0 && !matches!(revision, "" | "0"),
        _ => false,
    };
    let fields = query.get("fieldSelector");
    let asked = ListAsked {
        limit,
        selects: !fields.is_empty() || !query.get("labelSelector").is_empty(),
        single: !r.name.is_empty() || exact(fields, "metadata.name").is_some_and(|name| !name.is_empty()),
        from_store: from_store && !watch,
        ..core.list_asked(&kind)
    };
    of_list(&asked, level_max)
}

/// What a watch holds: its seats until it has begun, and its place among those that hear of writes.
pub(super) fn hold(core: &Core, place: Option<Place>, r: &Resource, query: &Query) -> Held {
    // The one index of upstream's watch cache that a path does not name (`getBuiltinIndexes`).
    let indexed =
        r.resource == "pods" && exact(query.get("fieldSelector"), "spec.nodeName").is_some_and(|n| !n.is_empty());
    core.flow.watches.register(place, &what(r), &r.name, indexed)
}

fn exact(fields: &str, path: &str) -> Option<String> {
    if fields.is_empty() {
        return None;
    }
    FieldSelector::parse(fields).ok()?.exact(path).map(str::to_owned)
}
