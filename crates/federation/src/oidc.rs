//! Tokens of OIDC issuers: keys are found by discovery, kept, and fetched anew for a token that none of them has signed.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use corten_auth::{User, go_list};
use corten_base::{Clock, Timestamp};
use corten_tree::{Tree, json};
use corten_webhook::{Caller, ClientConfig};
use tokio::sync::Mutex;

use crate::config::JwtConfig;
use crate::jwt::{Key, Untrusted, untrusted_issuer};
use crate::measured;

const WELL_KNOWN: &str = "/.well-known/openid-configuration";
/// How long one request to an issuer may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long discovery rests after a failure.
const AGAIN: Duration = Duration::from_secs(10);
/// How far clocks may differ for `nbf`, in seconds.
const NOT_BEFORE_LEEWAY_SECONDS: i64 = 300;

/// What is known of an issuer's keys.
#[derive(Debug, Clone)]
struct Source {
    uri: String,
    keys: Arc<Vec<Key>>,
}

/// An issuer whose tokens are believed.
pub struct Authority {
    config: JwtConfig,
    caller: Caller,
    clock: Arc<dyn Clock>,
    source: RwLock<Option<Source>>,
    /// One fetch at a time; those who wait take what it has brought. The number of fetches so far.
    fetching: Mutex<u64>,
    fetched: std::sync::atomic::AtomicU64,
}

impl Authority {
    /// An issuer of which nothing is known yet; see [`Authority::discover`].
    pub fn new(config: JwtConfig, caller: Caller, clock: Arc<dyn Clock>) -> Authority {
        let (source, fetching) = (RwLock::new(None), Mutex::new(0));
        Authority { config, caller, clock, source, fetching, fetched: Default::default() }
    }

    fn at(&self, url: &str) -> ClientConfig {
        ClientConfig { ca_pem: self.config.issuer.ca_pem.clone().into_bytes(), ..ClientConfig::url(url) }
    }

    fn source(&self) -> Option<Source> {
        self.source.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finds the issuer's keys, again until that works. Ends when nobody holds the issuer any more.
    pub async fn discover(this: std::sync::Weak<Authority>) {
        loop {
            let Some(authority) = this.upgrade() else { return };
            let issuer = authority.config.issuer.url.clone();
            match authority.discover_once().await {
                Ok(()) => return tracing::info!(issuer, "the keys of an OIDC issuer are known"),
                Err(error) => tracing::error!(issuer, %error, "oidc authenticator: initializing plugin"),
            }
            let clock = authority.clock.clone();
            drop(authority);
            clock.sleep(AGAIN).await;
        }
    }

    async fn discover_once(&self) -> Result<(), String> {
        let issuer = &self.config.issuer;
        let url = match issuer.discovery_url.as_str() {
            "" => format!("{}{WELL_KNOWN}", issuer.url.trim_end_matches('/')),
            other => other.to_owned(),
        };
        let document = self.caller.get(&self.at(&url), TIMEOUT).await.map_err(|e| e.to_string())?;
        let document =
            json::parse(&document).map_err(|e| format!("oidc: failed to decode provider discovery object: {e}"))?;
        let found = document.str_at("issuer");
        if found != issuer.url {
            let expected = &issuer.url;
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {expected:?} got {found:?}"
            ));
        }
        let uri = document.str_at("jwks_uri").to_owned();
        if uri.is_empty() {
            return Err("provider did not return JWKS URL".into());
        }
        let keys = self.fetch(&uri).await?;
        let source = Source { uri, keys: Arc::new(keys) };
        *self.source.write().unwrap_or_else(PoisonError::into_inner) = Some(source);
        Ok(())
    }

    async fn fetch(&self, uri: &str) -> Result<Vec<Key>, String> {
        let document = self.caller.get(&self.at(uri), TIMEOUT).await;
        Key::set(&document.map_err(|e| format!("fetching keys {e}"))?)
    }

    /// The user whom a token of this issuer means; `None` if it is of another.
    ///
    /// # Errors
    /// Upstream's words for why it is not good.
    pub async fn authenticate(&self, token: &str) -> Option<Result<User, String>> {
        if untrusted_issuer(token).as_deref() != Some(&*self.config.issuer.url) {
            return None;
        }
        let begun = Instant::now();
        let outcome = self.authenticate_own(token).await;
        measured::token(&self.config.issuer.url, outcome.is_ok(), begun.elapsed());
        Some(outcome)
    }

    async fn authenticate_own(&self, token: &str) -> Result<User, String> {
        let source = self.source().ok_or("oidc: authenticator not initialized")?;
        let refused = |why: String| format!("oidc: verify token: {why}");
        let token = Untrusted::parse(token, &self.config.algorithms).map_err(refused)?;
        let audiences = audiences(&token.claims);
        let wanted = &self.config.issuer.audiences;
        let common = wanted.iter().any(|a| audiences.contains(a));
        if let ([only], false) = (wanted.as_slice(), common) {
            let got = go_list(&audiences);
            return Err(refused(format!("oidc: expected audience {only:?} got {got}")));
        }
        self.check_time(&token.claims).map_err(refused)?;
        self.check_signature(&token, source).await.map_err(refused)?;
        if !common {
            let (mut wanted, got) = (wanted.clone(), go_list(&audiences));
            wanted.sort();
            return Err(refused(format!("oidc: expected audience in {} got {got}", go_list(&wanted))));
        }
        self.config.mapping.user(&token.claims, &self.config.rules)
    }

    fn check_time(&self, claims: &Tree) -> Result<(), String> {
        let now = self.clock.now();
        let at = |name: &str| claims.get(name).and_then(Tree::as_f64).unwrap_or(0.0) as i64;
        let shown = |seconds: i64| {
            let time = Timestamp::from_second(seconds).unwrap_or_default();
            time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
        };
        if at("exp") < now.as_second() {
            return Err(format!("oidc: token is expired (Token Expiry: {})", shown(at("exp"))));
        }
        if claims.get("nbf").is_some() && now.as_second() + NOT_BEFORE_LEEWAY_SECONDS < at("nbf") {
            let (now, not_before) = (shown(now.as_second()), shown(at("nbf")));
            return Err(format!("oidc: current time {now} before the nbf (not before) time: {not_before}"));
        }
        Ok(())
    }

    async fn check_signature(&self, token: &Untrusted, source: Source) -> Result<(), String> {
        use std::sync::atomic::Ordering;
        if token.signed_by(&source.keys) {
            return Ok(());
        }
        let before = self.fetched.load(Ordering::Acquire);
        let mut fetches = self.fetching.lock().await;
        // Somebody else's fetch that began after this token came is as good as an own one.
        let keys = if *fetches > before {
            self.source().unwrap_or(source).keys
        } else {
            let keys = Arc::new(self.fetch(&source.uri).await.map_err(|e| format!("failed to verify signature: {e}"))?);
            let renewed = Source { uri: source.uri, keys: keys.clone() };
            *self.source.write().unwrap_or_else(PoisonError::into_inner) = Some(renewed);
            *fetches += 1;
            self.fetched.store(*fetches, Ordering::Release);
            keys
        };
        drop(fetches);
        match token.signed_by(&keys) {
            true => Ok(()),
            false => Err("failed to verify signature: failed to verify id token signature".into()),
        }
    }
}

/// `aud`: one or several.
fn audiences(claims: &Tree) -> Vec<String> {
    match claims.get("aud") {
        Some(Tree::Str(one)) => vec![one.clone()],
        Some(Tree::List(many)) => many.iter().filter_map(Tree::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}
