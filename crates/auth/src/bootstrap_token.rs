//! Bootstrap tokens: Secrets in `kube-system` by which a node may join
//! (`plugin/pkg/auth/authenticator/token/bootstrap/bootstrap.go`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use corten_base::Timestamp;
use corten_kinds::id;
use corten_object::ObjectKey;
use corten_tree::Tree;

use crate::{Source, User};

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";
const GROUP_LENGTH_MAX: usize = 256;

/// Whose token this is; `None` if it is not a bootstrap token that is good at `now`.
pub fn user_of(source: &dyn Source, token: &str, now: Timestamp) -> Option<User> {
    let (token_id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if token_id.len() != 6 || secret.len() != 16 || !plain(token_id) || !plain(secret) {
        return None;
    }
    let key = ObjectKey::new(id::SECRET, NAMESPACE, format!("bootstrap-token-{token_id}").as_str());
    let object = source.object(&key)?;
    let tree = object.to_tree();
    let value = |key: &str| -> Option<String> {
        let text = tree.at(&["data", key]).and_then(Tree::as_str)?;
        String::from_utf8(STANDARD.decode(text).ok()?).ok()
    };
    let fits = tree.str_at("type") == TYPE
        && !object.head.is_deleting()
        && same(value("token-secret")?.as_bytes(), secret.as_bytes())
        && value("token-id").as_deref() == Some(token_id)
        && value("usage-bootstrap-authentication").as_deref() == Some("true");
    // An expiration that cannot be read is one that is over.
    let lives = value("expiration").is_none_or(|at| corten_object::time::parse(&at).is_some_and(|at| now < at));
    if !fits || !lives {
        return None;
    }
    let extra = value("auth-extra-groups").unwrap_or_default();
    let mut groups = vec![GROUP];
    for group in extra.split(',').filter(|g| !g.is_empty()) {
        if !is_group(group) {
            return None;
        }
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    groups.sort_unstable();
    Some(User::new(&format!("system:bootstrap:{token_id}"), &groups))
}

/// Compares without telling by the time that it takes where the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

/// `system:bootstrappers:` and a name.
fn is_group(group: &str) -> bool {
    let Some(name) = group.strip_prefix("system:bootstrappers:") else { return false };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let last = name.bytes().last().is_some_and(plain);
    last && name.len() <= GROUP_LENGTH_MAX && name.bytes().all(|b| plain(b) || b == b':' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use corten_object::{KindId, Object, Revision};
    use corten_tree::tree;
    use std::sync::Arc;

    struct One(Arc<Object>);
    impl Source for One {
        fn object(&self, key: &ObjectKey) -> Option<Arc<Object>> {
            (self.0.key() == *key).then(|| self.0.clone())
        }
        fn objects(&self, _: KindId) -> Vec<Arc<Object>> {
            Vec::new()
        }
    }

    fn secret(change: impl Fn(&mut Tree)) -> One {
        let mut data = Tree::map();
        for (key, value) in [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
            ("expiration", "2026-01-01T00:00:00Z"),
            ("auth-extra-groups", "system:bootstrappers:worker"),
        ] {
            data.insert(key, STANDARD.encode(value));
        }
        let mut tree = tree!({"apiVersion": "v1", "kind": "Secret", "type": TYPE, "data": data,
            "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"}});
        change(&mut tree);
        One(Arc::new(Object::parse::<&str>(id::SECRET, Bytes::from(tree.to_json()), Revision(1), &[]).unwrap()))
    }

    #[test]
    fn bootstrap_token_is_good_until_it_expires_and_for_its_groups() {
        const TOKEN: &str = "abcdef.0123456789abcdef";
        let before: Timestamp = "2025-12-31T00:00:00Z".parse().unwrap();
        let after: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let user = user_of(&secret(|_| {}), TOKEN, before).unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(user.groups, ["system:bootstrappers", "system:bootstrappers:worker", "system:authenticated"]);
        assert!(user_of(&secret(|_| {}), TOKEN, after).is_none(), "expired");
        assert!(user_of(&secret(|_| {}), "abcdef.0123456789abcdee", before).is_none(), "another secret");
        assert!(user_of(&secret(|_| {}), "ABCDEF.0123456789abcdef", before).is_none(), "not its form");
        let refused = |path: &'static str, value: &'static str| {
            let changed = secret(|t| {
                t.make_map_at("data").insert(path, STANDARD.encode(value));
            });
            user_of(&changed, TOKEN, before).is_none()
        };
        assert!(refused("usage-bootstrap-authentication", "false"));
        assert!(refused("auth-extra-groups", "system:masters"));
        assert!(refused("expiration", "tomorrow"));
        assert!(user_of(&secret(|t| t.set("type", "Opaque")), TOKEN, before).is_none());
    }
}
