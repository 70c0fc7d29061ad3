//! `--as`: who may act as whom (`apiserver/pkg/endpoints/filters/impersonation`).
//!
//! Two ways lead to it. The constrained ones (`impersonate:MODE` on who, and `impersonate-on:MODE:VERB` on what) are tried
//! first; the verb `impersonate` alone, as it always was, is the last. What is answered when none leads there is the refusal of
//! the first that applied.

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_audit::trail;
use corten_auth::{Attributes, User, group};
use corten_kinds::validate::names;
use corten_object::Status;
use hyper::HeaderMap;

use crate::core::Core;
use crate::http::query::unescape;

const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";
/// From this many groups or extra values on, one question about all of them is tried first.
const MANY: usize = 4;

/// The ways of constrained impersonation, in the order in which they are tried.
const MODES: [&str; 4] = ["associated-node", "arbitrary-node", "serviceaccount", "user-info"];

/// The user as whom a request is to be answered: whom its headers name, if `user` may act as that; else `user`.
///
/// # Errors
/// 400 for headers that name no user, 403 if it is not allowed.
pub(super) async fn impersonate(
    core: &Core,
    user: &Arc<User>,
    headers: &HeaderMap,
    request: &Attributes<'_>,
) -> Result<Option<User>, Status> {
    let Some(wanted) = wanted(headers)? else { return Ok(None) };
    let mut refused: Option<Status> = None;
    for mode in MODES {
        if !applies(mode, &wanted, user) {
            continue;
        }
        let checked = Check { core, user, verb: format!("impersonate:{mode}"), constrained: true };
        let verb = format!("impersonate-on:{mode}:{}", request.verb);
        let found = match core.permit(&Attributes { user, verb: &verb, ..*request }).await {
            Ok(()) => checked.all(&wanted, mode).await,
            Err(status) => Err(status),
        };
        match found {
            Ok(found) => {
                trail::impersonated(&found, &checked.verb);
                return Ok(Some(found));
            }
            Err(status) => drop(refused.get_or_insert(status)),
        }
    }
    let legacy = Check { core, user, verb: "impersonate".into(), constrained: false };
    match legacy.all(&wanted, "").await {
        Ok(found) => {
            trail::impersonated(&found, "");
            Ok(Some(found))
        }
        Err(status) => Err(refused.unwrap_or(status)),
    }
}

/// Whether any header is about impersonation: as a rule there is none.
pub(super) fn wants_impersonation(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("impersonate-"))
}

/// Whom the headers name.
fn wanted(headers: &HeaderMap) -> Result<Option<User>, Status> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let texts = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect()
    };
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in headers.keys().filter_map(|n| n.as_str().strip_prefix(EXTRA)) {
        extra.insert(unescape(name, false), texts(&format!("{EXTRA}{name}")));
    }
    let user = User {
        name: text("impersonate-user"),
        uid: text("impersonate-uid"),
        groups: texts("impersonate-group"),
        extra,
    };
    if !user.name.is_empty() {
        return Ok(Some(user));
    }
    if user.uid.is_empty() && user.groups.is_empty() && user.extra.is_empty() {
        return Ok(None);
    }
    let list = |texts: &[String]| match texts {
        [] => "[]string(nil)".to_owned(),
        texts => format!("[]string{{{}}}", texts.iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().join(", ")),
    };
    let extra = match user.extra.is_empty() {
        true => "map[string][]string(nil)".to_owned(),
        false => {
            let entries = user.extra.iter().map(|(k, v)| format!("{k:?}:{}", list(v)));
            format!("map[string][]string{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
    };
    let shown =
        format!("&user.DefaultInfo{{Name:\"\", UID:{:?}, Groups:{}, Extra:{extra}}}", user.uid, list(&user.groups));
    Err(Status::bad_request(format!("requested {shown} without impersonating a user name")))
}

/// Whether a constrained way leads from `user` to `wanted` at all.
fn applies(mode: &str, wanted: &User, user: &User) -> bool {
    let name_only = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
    let node = node_name(wanted);
    match mode {
        "associated-node" => {
            let own = user.extra.get("authentication.kubernetes.io/node-name").map(Vec::as_slice);
            let same = node.is_some_and(|n| matches!(own, Some([one]) if one == n));
            name_only && same && user.as_service_account().is_some()
        }
        "arbitrary-node" => name_only && node.is_some(),
        "serviceaccount" => name_only && wanted.as_service_account().is_some(),
        _ => node.is_none() && wanted.as_service_account().is_none(),
    }
}

fn node_name(user: &User) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|name| names::dns_subdomain(name).is_empty())
}

/// The questions about one user by one verb.
struct Check<'a> {
    core: &'a Core,
    user: &'a User,
    verb: String,
    constrained: bool,
}

impl Check<'_> {
    fn attributes<'s>(&'s self, group: &'s str, resource: &'s str, name: &'s str) -> Attributes<'s> {
        Attributes { name, resource, group, ..Attributes::resource(self.user, &self.verb) }
    }

    async fn all(&self, wanted: &User, mode: &str) -> Result<User, Status> {
        let mut found = wanted.clone();
        self.name(wanted, mode, &mut found).await?;
        if !wanted.uid.is_empty() {
            self.core.permit(&self.attributes(AUTHENTICATION, "uids", &wanted.uid)).await?;
        }
        self.groups(&wanted.groups).await?;
        self.extra(&wanted.extra).await?;
        let everyone = match () {
            () if found.name == "system:anonymous" => Some(group::UNAUTHENTICATED),
            () if found.in_group(group::UNAUTHENTICATED) => None,
            () => Some(group::AUTHENTICATED),
        };
        if let Some(group) = everyone.filter(|g| !found.in_group(g)) {
            found.groups.push(group.into());
        }
        Ok(found)
    }

    /// Users and groups are in the core group for the old verb.
    fn group(&self) -> &'static str {
        if self.constrained { AUTHENTICATION } else { "" }
    }

    async fn name(&self, wanted: &User, mode: &str, found: &mut User) -> Result<(), Status> {
        let group = self.group();
        let mut stripped = None;
        let attributes = if let Some((namespace, account)) = wanted.as_service_account() {
            if wanted.groups.is_empty() {
                let mut groups = User::service_account(namespace, account).groups;
                groups.retain(|g| g != group::AUTHENTICATED);
                found.groups = groups;
            }
            Attributes { namespace, ..self.attributes(group, "serviceaccounts", account) }
        } else if let Some(node) = node_name(wanted).filter(|_| self.constrained) {
            found.groups = vec![group::NODES.into()];
            // Which node is known already: the question is about any.
            let name = if mode == "associated-node" { "*" } else { node };
            if mode == "associated-node" {
                let keys = self.user.extra.keys().cloned().collect();
                let key = "authentication.kubernetes.io/associated-node-keys".to_owned();
                stripped = Some(User { extra: BTreeMap::from([(key, keys)]), ..self.user.clone() });
            }
            self.attributes(group, "nodes", name)
        } else {
            self.attributes(group, "users", &wanted.name)
        };
        let user = stripped.as_ref().unwrap_or(self.user);
        self.core.permit(&Attributes { user, ..attributes }).await
    }

    async fn groups(&self, groups: &[String]) -> Result<(), Status> {
        let about = |name: &'static str| self.attributes(self.group(), "groups", name);
        if self.constrained {
            if groups.iter().any(String::is_empty) {
                return Err(corten_auth::denial(&about(""), "impersonating the empty string group is not allowed"));
            }
            if groups.iter().any(|g| g == group::MASTERS) {
                let why = "impersonating the system:masters group is not allowed";
                return Err(corten_auth::denial(&about(group::MASTERS), why));
            }
            if groups.len() >= MANY && self.core.permit(&about("*")).await.is_ok() {
                return Ok(());
            }
        }
        for name in groups {
            self.core.permit(&self.attributes(self.group(), "groups", name)).await?;
        }
        Ok(())
    }

    async fn extra(&self, extra: &BTreeMap<String, Vec<String>>) -> Result<(), Status> {
        let about = |key, name| Attributes { subresource: key, ..self.attributes(AUTHENTICATION, "userextras", name) };
        if self.constrained && !extra.is_empty() {
            if let Some(why) = extra.iter().find_map(|(key, values)| extra_fault(key, values)) {
                return Err(corten_auth::denial(&about("", ""), &why));
            }
            let count: usize = extra.values().map(Vec::len).sum();
            if (extra.len() >= MANY || count >= MANY) && self.core.permit(&about("*", "*")).await.is_ok() {
                return Ok(());
            }
        }
        for (key, values) in extra {
            for value in values {
                self.core.permit(&about(key, value)).await?;
            }
        }
        Ok(())
    }
}

/// `validateExtra`
fn extra_fault(key: &str, values: &[String]) -> Option<String> {
    let said = |what: &str| Some(format!("impersonating {what} in extra is not allowed"));
    if key.is_empty() {
        return said("the empty string key");
    }
    let path = match key.split_once('/') {
        None | Some((_, "")) => Some("must be a domain-prefixed path (such as \"acme.io/foo\")".to_owned()),
        Some((domain, _)) => names::dns_subdomain(domain).into_iter().next(),
    };
    if let Some(why) = path {
        return Some(format!(
            "impersonating an invalid key in extra is not allowed: extra.key: Invalid value: {key:?}: {why}"
        ));
    }
    if key != key.to_lowercase() {
        return Some(format!("impersonating a non-lowercase key in extra is not allowed: {key:?}"));
    }
    if values.is_empty() {
        return said("empty values");
    }
    if values.iter().any(String::is_empty) {
        return said("the empty string value");
    }
    None
}
