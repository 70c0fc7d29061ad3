//! From a client certificate or a bearer token to a user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use corten_base::Timestamp;
use corten_kinds::id;
use corten_object::{KindId, Object, ObjectKey};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::bootstrap_token;
use crate::{BoundRef, Claims, Source, TokenError, TokenSigner, User, group};

/// How many verified tokens are remembered, so that their signature is not checked on every request.
const REMEMBERED_TOKENS_MAX: usize = 1024;

/// Why a caller is not who they say.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuthnError {
    /// The token is not good.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The token is for others.
    #[error("token audiences {} is invalid for the target audiences {}", crate::go_list(token), crate::go_list(wanted))]
    Audience {
        /// For whom it is.
        token: Vec<String>,
        /// Who asks.
        wanted: Vec<String>,
    },
    /// What the token was bound to is gone.
    #[error("service account token has been invalidated")]
    Invalidated,
    /// The account is gone.
    #[error("serviceaccounts {0:?} not found")]
    AccountGone(String),
    /// The account is another of the same name.
    #[error("service account UID ({found}) does not match claim ({claimed})")]
    AccountOther {
        /// Its uid.
        found: String,
        /// The token's.
        claimed: String,
    },
    /// What others, whose token it may be, say against it.
    #[error("{0}")]
    Others(String),
    /// The certificate names nobody.
    #[error("the client certificate has no common name")]
    Nameless,
    /// The certificate cannot be read.
    #[error("the client certificate cannot be read: {0}")]
    Certificate(String),
}

/// A caller who has proved who they are.
#[derive(Debug, Clone)]
pub struct Authenticated {
    /// The user.
    pub user: User,
    /// Which of the audiences asked for the token is good for; empty for other credentials.
    pub audiences: Vec<String>,
}

/// Checks bearer tokens.
pub struct Authenticator {
    signer: Arc<TokenSigner>,
    static_tokens: HashMap<String, User>,
    bootstrap_tokens: bool,
    verified: Mutex<HashMap<String, Arc<Claims>>>,
}

impl Authenticator {
    /// Tokens of `signer`, static ones, and, if `bootstrap_tokens`, those of Secrets made for it.
    pub fn new(
        signer: Arc<TokenSigner>,
        static_tokens: HashMap<String, User>,
        bootstrap_tokens: bool,
    ) -> Authenticator {
        Authenticator { signer, static_tokens, bootstrap_tokens, verified: Mutex::new(HashMap::new()) }
    }

    /// The signer of service account tokens.
    pub fn signer(&self) -> &Arc<TokenSigner> {
        &self.signer
    }

    /// Whose token this is. `audiences`: who asks; empty means the API server itself.
    pub fn token(
        &self,
        source: &dyn Source,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Authenticated, AuthnError> {
        if let Some(user) = self.static_tokens.get(token) {
            return Ok(Authenticated { user: user.clone(), audiences: audiences.to_vec() });
        }
        if self.bootstrap_tokens
            && let Some(user) = bootstrap_token::user_of(source, token, now)
        {
            return Ok(Authenticated { user, audiences: audiences.to_vec() });
        }
        let claims = self.claims(token)?;
        claims.check_time(now)?;
        let own = [self.signer.issuer().to_owned()];
        let wanted = if audiences.is_empty() { &own[..] } else { audiences };
        let common: Vec<String> = wanted.iter().filter(|a| claims.aud.contains(a)).cloned().collect();
        if common.is_empty() {
            return Err(AuthnError::Audience { token: claims.aud.clone(), wanted: wanted.to_vec() });
        }
        Ok(Authenticated { user: account_user(source, &claims, now)?, audiences: common })
    }

    fn claims(&self, token: &str) -> Result<Arc<Claims>, AuthnError> {
        let remembered = || self.verified.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(claims) = remembered().get(token) {
            return Ok(claims.clone());
        }
        let claims = Arc::new(self.signer.verify(token)?);
        let mut all = remembered();
        if all.len() >= REMEMBERED_TOKENS_MAX {
            all.clear();
        }
        all.insert(token.to_owned(), claims.clone());
        Ok(claims)
    }
}

/// How long after their end began objects still count as there, in seconds
/// (`pkg/serviceaccount/claims.go`, `invalidIfDeletedBefore`).
const GOING_SECONDS: i64 = 60;

/// The account's user, if everything that the token is bound to is still there.
fn account_user(source: &dyn Source, claims: &Claims, now: Timestamp) -> Result<User, AuthnError> {
    let k = &claims.kubernetes;
    let going = |object: &Object| {
        let at = object.head.is_deleting().then(|| object.to_tree());
        let at = at.and_then(|tree| corten_object::time::parse(tree.str_at("metadata.deletionTimestamp")));
        at.is_some_and(|at| at.as_second() < now.as_second() - GOING_SECONDS)
    };
    let bound = |kind: KindId, namespace: &str, wanted: &BoundRef| match source.object(&ObjectKey::new(
        kind,
        namespace,
        &wanted.name,
    )) {
        Some(object) if object.head.uid == wanted.uid.as_str() && !going(&object) => Ok(()),
        _ => Err(AuthnError::Invalidated),
    };
    let account = &k.serviceaccount;
    let found = source.object(&ObjectKey::new(id::SERVICE_ACCOUNT, &k.namespace, &account.name));
    let found = found.ok_or_else(|| AuthnError::AccountGone(account.name.clone()))?;
    if going(&found) {
        return Err(AuthnError::Invalidated);
    }
    if found.head.uid != account.uid.as_str() {
        return Err(AuthnError::AccountOther { found: found.head.uid.to_string(), claimed: account.uid.clone() });
    }
    let mut user = User::service_account(&k.namespace, &account.name);
    user.uid.clone_from(&account.uid);
    let mut extra = |key: &str, value: &str| {
        user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
    };
    if !claims.jti.is_empty() {
        extra("credential-id", &format!("JTI={}", claims.jti));
    }
    if let Some(secret) = &k.secret {
        bound(id::SECRET, &k.namespace, secret)?;
    }
    if let Some(pod) = &k.pod {
        bound(id::POD, &k.namespace, pod)?;
        extra("pod-name", &pod.name);
        extra("pod-uid", &pod.uid);
    }
    if let Some(node) = &k.node {
        if k.pod.is_none() {
            bound(id::NODE, "", node)?;
        }
        extra("node-name", &node.name);
        extra("node-uid", &node.uid);
    }
    Ok(user)
}

/// The user that a verified client certificate names: common name, and organizations as groups.
pub fn user_of_certificate(der: &[u8]) -> Result<User, AuthnError> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|e| AuthnError::Certificate(e.to_string()))?;
    let name = cert.subject().iter_common_name().find_map(|cn| cn.as_str().ok()).unwrap_or_default();
    if name.is_empty() {
        return Err(AuthnError::Nameless);
    }
    let groups: Vec<&str> = cert.subject().iter_organization().filter_map(|o| o.as_str().ok()).collect();
    let mut user = User::new(name, &groups);
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("X509SHA256={hex}")]);
    // Only the server itself says who is authenticated.
    user.groups.retain(|g| g != group::UNAUTHENTICATED);
    Ok(user)
}
