//! Who is calling and may they: certificates, tokens, RBAC.
//!
//! [`Material`] holds the cluster's own CA, the certificates made from it and the service-account signing key. The
//! [`Authenticator`] turns a client certificate or a bearer token into a [`User`]; [`Rbac`] decides what the user may do.
//! Nothing in here waits: the objects that a decision needs come through [`Source`].

mod authn;
pub mod authorizer;
pub mod bootstrap;
pub mod bootstrap_token;
pub mod escalation;
mod issue;
pub mod node;
mod pki;
mod rbac;
mod seal;
mod token;
mod token_keys;
mod user;

pub use authn::{Authenticated, Authenticator, AuthnError, user_of_certificate};
pub use issue::Issuing;
pub use pki::{Material, PROXY_NAME, PkiError, PkiNames, SignedPair};
pub use rbac::{Attributes, Binding, Decision, Rbac, Rule, denial, denial_message};
pub use seal::Sealer;
pub use token::{BoundRef, Claims, DEFAULT_ISSUER, KubernetesClaims, TokenError, TokenSigner};
pub use user::{User, group};

use std::sync::Arc;

use corten_object::{KindId, Object, ObjectKey};

/// Where decisions find the objects that they depend on: the watch cache.
pub trait Source: Send + Sync {
    /// The newest state of an object.
    fn object(&self, key: &ObjectKey) -> Option<Arc<Object>>;

    /// Every object of a kind.
    fn objects(&self, kind: KindId) -> Vec<Arc<Object>>;

    /// The objects of a kind whose indexed fact `path` is `value`; without an index all are looked at.
    fn with_fact(&self, kind: KindId, path: &str, value: &str) -> Vec<Arc<Object>> {
        let mut found = self.objects(kind);
        found.retain(|object| object.to_tree().str_at(path) == value);
        found
    }
}

/// Go's `%q` of a list of texts: `["a" "b"]`.
pub fn go_list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|t| format!("{t:?}")).collect();
    format!("[{}]", quoted.join(" "))
}
