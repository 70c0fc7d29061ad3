//! Paths (`apiserver/pkg/endpoints/request/requestinfo.go`).

use std::borrow::Cow;
use std::sync::Arc;

use super::query::unescape;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// A resource, an object or a subresource.
    Resource(Arc<Resource>),
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`
    Resources { group: String, version: String },
    /// `/openapi/v3` and below it: the rest of the path.
    OpenApi(String),
    /// Any other path.
    Other(String),
}

/// A path below a group and version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resource {
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub name: String,
    pub subresource: String,
    /// What follows the subresource (proxies).
    pub rest: String,
    /// Whether the path asks for a watch by its prefix (`/api/v1/watch/pods`).
    pub watch: bool,
}

/// Takes a path apart.
pub(crate) fn parse(path: &str) -> Route {
    let text = |part| match str::contains(part, '%') {
        true => Cow::Owned(unescape(part, false)),
        false => Cow::Borrowed(part),
    };
    let parts: Vec<Cow<'_, str>> = path.split('/').filter(|part| !part.is_empty()).map(text).collect();
    let texts: Vec<&str> = parts.iter().map(|part| &**part).collect();
    match texts.as_slice() {
        ["api"] => Route::CoreVersions,
        ["api", version] => Route::Resources { group: String::new(), version: (*version).into() },
        ["api", version, rest @ ..] => resource("", version, rest),
        ["apis"] => Route::Groups,
        ["apis", group] => Route::Group((*group).into()),
        ["apis", group, version] => Route::Resources { group: (*group).into(), version: (*version).into() },
        ["apis", group, version, rest @ ..] => resource(group, version, rest),
        ["openapi", "v3", rest @ ..] => Route::OpenApi(rest.join("/")),
        _ => Route::Other(path.to_owned()),
    }
}

/// What a path names, if that is a resource.
pub(crate) fn resource_of(path: &str) -> Option<Resource> {
    match parse(path) {
        Route::Resource(resource) => Arc::into_inner(resource),
        _ => None,
    }
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Route {
    let mut out = Resource { group: group.into(), version: version.into(), ..Resource::default() };
    let rest = match rest {
        ["watch", more @ ..] if !more.is_empty() => {
            out.watch = true;
            more
        }
        _ => rest,
    };
    // Only these two are subresources of a namespace; anything else in their place is a resource in it.
    let rest = match rest {
        ["namespaces", namespace, third, ..] if !matches!(*third, "status" | "finalize") => {
            out.namespace = (*namespace).into();
            &rest[2..]
        }
        _ => rest,
    };
    let part = |i: usize| rest.get(i).map(|p| (*p).to_owned()).unwrap_or_default();
    (out.resource, out.name, out.subresource) = (part(0), part(1), part(2));
    out.rest = rest.get(3..).unwrap_or_default().join("/");
    Route::Resource(Arc::new(out))
}

impl Resource {
    /// What is asked for, for who decides whether `user` may.
    pub(crate) fn attributes<'a>(&'a self, user: &'a corten_auth::User, verb: &'a str) -> corten_auth::Attributes<'a> {
        corten_auth::Attributes {
            group: &self.group,
            version: &self.version,
            resource: &self.resource,
            subresource: &self.subresource,
            namespace: &self.namespace,
            name: &self.name,
            ..corten_auth::Attributes::resource(user, verb)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let check = |path: &str, expected: &str| {
            let shown = match parse(path) {
                Route::Resource(r) => format!(
                    "{}|{}|{}|{}|{}|{}|{}",
                    r.group, r.version, r.namespace, r.resource, r.name, r.subresource, r.rest
                ),
                other => format!("{other:?}"),
            };
            assert_eq!(shown, expected, "{path}");
        };
        check("/api/v1/pods", "|v1||pods|||");
        check("/api/v1/namespaces", "|v1||namespaces|||");
        check("/api/v1/namespaces/x", "|v1||namespaces|x||");
        check("/api/v1/namespaces/x/finalize", "|v1||namespaces|x|finalize|");
        check("/api/v1/namespaces/x/pods/p/log", "|v1|x|pods|p|log|");
        check("/apis/apps/v1/namespaces/x/deployments/d/scale", "apps|v1|x|deployments|d|scale|");
        check("/api/v1/nodes/n/proxy/a/b", "|v1||nodes|n|proxy|a/b");
        check(
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            "rbac.authorization.k8s.io|v1||clusterroles|system:node||",
        );
        check("/api/v1/watch/namespaces/x/pods/p", "|v1|x|pods|p||");
        check("/apis/apps/v1/watch/deployments", "apps|v1||deployments|||");
        check("/api", "CoreVersions");
        check("/apis/apps", "Group(\"apps\")");
        check("/healthz", "Other(\"/healthz\")");
    }
}
