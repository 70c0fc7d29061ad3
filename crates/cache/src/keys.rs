//! Where objects lie in the store: `/registry/<group or core>/<plural>/<namespace or ->/<name>`.
//!
//! The order of these keys is the order of every list: the byte order of `namespace/` and then of the name, as upstream.
//! (So `a-b` comes before `a`, because `-` sorts before `/`.) The cache keeps its maps in the same order, because a list that
//! began in the cache may be continued in the store.

use bytes::Bytes;
use corten_kinds::Kind;
use corten_store::KeyRange;

/// Everything that the API stores is below this.
pub const ROOT: &str = "/registry/";

/// What stands in place of the namespace of cluster-scoped objects; no namespace may be called so.
const CLUSTER: &str = "-";
/// What stands in place of the core group's empty name; no group may be called so (it would need a dot).
const CORE: &str = "core";

/// The taken-apart form of an object's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'k> {
    /// The API group, empty for core.
    pub group: &'k str,
    /// The resource name.
    pub plural: &'k str,
    /// The namespace, empty for cluster-scoped objects.
    pub namespace: &'k str,
    /// The name.
    pub name: &'k str,
}

/// The key of an object.
pub fn object(kind: &Kind, namespace: &str, name: &str) -> Bytes {
    format!("{}{}{name}", prefix(kind), segment(namespace)).into()
}

/// The keys of all objects of a kind.
pub fn kind(kind: &Kind) -> KeyRange {
    KeyRange::prefix(prefix(kind))
}

/// The keys of all objects of a kind in a namespace.
pub fn namespace(kind: &Kind, namespace: &str) -> KeyRange {
    KeyRange::prefix(format!("{}{}", prefix(kind), segment(namespace)))
}

/// The keys of all objects.
pub fn all() -> KeyRange {
    KeyRange::prefix(ROOT)
}

/// Takes an object's key apart; `None` if it is not one.
pub fn parse(key: &[u8]) -> Option<Parts<'_>> {
    let rest = std::str::from_utf8(key).ok()?.strip_prefix(ROOT)?;
    let mut parts = rest.split('/');
    let (group, plural, namespace, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || [group, plural, namespace, name].contains(&"") {
        return None;
    }
    let group = if group == CORE { "" } else { group };
    let namespace = if namespace == CLUSTER { "" } else { namespace };
    Some(Parts { group, plural, namespace, name })
}

fn prefix(kind: &Kind) -> String {
    let group = if kind.group.is_empty() { CORE } else { &kind.group };
    format!("{ROOT}{group}/{}/", kind.plural)
}

/// A namespace as it stands in keys, and as lists are ordered by.
pub(crate) fn segment(namespace: &str) -> String {
    if namespace.is_empty() { format!("{CLUSTER}/") } else { format!("{namespace}/") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_kinds::{Registry, id};

    #[test]
    fn keys_come_apart_as_they_were_put_together() {
        let registry = Registry::builtin();
        let pod = registry.get(id::POD);
        let key = object(pod, "default", "web-0");
        assert_eq!(key, "/registry/core/pods/default/web-0");
        assert_eq!(parse(&key), Some(Parts { group: "", plural: "pods", namespace: "default", name: "web-0" }));
        assert_eq!(parse(&object(pod, "", "x")).map(|parts| parts.namespace), Some(""));
        assert!(kind(pod).contains(&key) && namespace(pod, "default").contains(&key) && all().contains(&key));
        assert!(!namespace(pod, "def").contains(&key));
        for other in ["/registry/core/pods/x", "/registry/core/pods/a/b/c", "/registry/core/pods//b", "/other/a/b/c/d"]
        {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
    }
}
