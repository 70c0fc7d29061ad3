//! All who know tokens, as the options say.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use corten_auth::{Authenticated, group};
use corten_base::{Clock, OnStop, Tasks};
use corten_client::config_file;
use corten_webhook::Caller;

use crate::config::{self, AnonymousConfig, AuthenticationConfig, Issuer, JwtConfig};
use crate::jwt;
use crate::mapping::{From, Mapping, Rules};
use crate::measured::Configuration;
use crate::oidc::Authority;
use crate::reload::reload;
use crate::token_review::{TokenReviewOptions, TokenReviewer};

/// The flags `--oidc-*`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OidcFlags {
    /// `--oidc-issuer-url`
    pub issuer_url: String,
    /// `--oidc-client-id`
    pub client_id: String,
    /// `--oidc-ca-file`
    pub ca_file: Option<PathBuf>,
    /// `--oidc-username-claim`; empty is `sub`.
    pub username_claim: String,
    /// `--oidc-username-prefix`; `-` is none.
    pub username_prefix: String,
    /// `--oidc-groups-claim`
    pub groups_claim: String,
    /// `--oidc-groups-prefix`
    pub groups_prefix: String,
    /// `--oidc-signing-algs`; none is `RS256`.
    pub signing_algs: Vec<String>,
    /// `--oidc-required-claim`
    pub required_claims: Vec<(String, String)>,
}

/// Who knows tokens, under the names of upstream's flags.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthenticationOptions {
    /// `--authentication-config`
    pub config_file: Option<PathBuf>,
    /// `--oidc-*`
    pub oidc: OidcFlags,
    /// `--authentication-token-webhook-*`
    pub webhook: Option<TokenReviewOptions>,
}

/// What is needed of the process.
#[derive(Clone)]
pub struct Environment {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Discovery and reloading run in it.
    pub tasks: Tasks,
    /// The client for issuers and webhooks.
    pub caller: Caller,
}

/// What the file or the flags say, at work.
#[derive(Default)]
struct Current {
    authorities: Vec<Arc<Authority>>,
    anonymous: Option<AnonymousConfig>,
}

/// All who know tokens that are not this cluster's own.
pub struct Identities {
    current: Arc<RwLock<Arc<Current>>>,
    reviewer: Option<TokenReviewer>,
    /// This server's audience, and the issuer of its own tokens.
    own: String,
}

impl OidcFlags {
    fn jwt(&self) -> Result<Option<JwtConfig>, String> {
        if *self == OidcFlags::default() {
            return Ok(None);
        }
        if self.issuer_url.is_empty() || self.client_id.is_empty() {
            let why = "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set";
            return Err(why.into());
        }
        if let Some(unknown) = self.signing_algs.iter().find(|a| !jwt::ALGORITHMS.contains(&a.as_str())) {
            return Err(format!("oidc: unsupported signing alg: {unknown:?}"));
        }
        let claim = if self.username_claim.is_empty() { "sub" } else { &self.username_claim };
        let prefix = match self.username_prefix.as_str() {
            "" if claim != "email" => format!("{}#", self.issuer_url),
            "-" => String::new(),
            prefix => prefix.to_owned(),
        };
        let ca_pem = match &self.ca_file {
            None => String::new(),
            Some(file) => {
                std::fs::read_to_string(file).map_err(|e| format!("--oidc-ca-file {}: {e}", file.display()))?
            }
        };
        let groups = match self.groups_claim.as_str() {
            "" => From::Nothing,
            name => From::Claim { name: name.to_owned(), prefix: self.groups_prefix.clone() },
        };
        let mapping =
            Mapping { username: From::Claim { name: claim.to_owned(), prefix }, groups, ..Mapping::default() };
        Ok(Some(JwtConfig {
            issuer: Issuer {
                url: self.issuer_url.clone(),
                ca_pem,
                audiences: vec![self.client_id.clone()],
                ..Issuer::default()
            },
            mapping,
            rules: Rules { required: self.required_claims.clone(), ..Rules::default() },
            algorithms: if self.signing_algs.is_empty() { vec!["RS256".into()] } else { self.signing_algs.clone() },
        }))
    }
}

fn load(file: &Path, own: &str) -> Result<AuthenticationConfig, String> {
    let tree = config_file::read(file, &config::VERSIONS, config::KIND)?;
    AuthenticationConfig::parse(&tree, own).map_err(|why| format!("{}: {why}", file.display()))
}

impl Current {
    fn start(config: AuthenticationConfig, environment: &Environment) -> Current {
        let begin = |config: JwtConfig| {
            let authority = Authority::new(config, environment.caller.clone(), environment.clock.clone());
            let authority = Arc::new(authority);
            let discovery = Authority::discover(Arc::downgrade(&authority));
            environment.tasks.spawn("OIDC discovery", OnStop::Abort, discovery);
            authority
        };
        Current { authorities: config.jwt.into_iter().map(begin).collect(), anonymous: config.anonymous }
    }
}

impl Identities {
    /// Starts what the options switch on. `own` is the issuer of this server's tokens, which is its audience, too.
    ///
    /// # Errors
    /// What is wrong with the options or the files that they name.
    pub fn start(options: &AuthenticationOptions, own: &str, environment: &Environment) -> Result<Identities, String> {
        let flags = options.oidc.jwt()?;
        let config = match (&options.config_file, flags) {
            (Some(_), Some(_)) => {
                return Err("authentication-config file and oidc-* flags are mutually exclusive".into());
            }
            (Some(file), None) => load(file, own)?,
            (None, flags) => AuthenticationConfig { jwt: flags.into_iter().collect(), anonymous: None },
        };
        if let Some(jwt) = config.jwt.first().filter(|_| options.config_file.is_none()) {
            let mut errors = Vec::new();
            jwt.issuer.check(own, &corten_tree::FieldPath::of("issuer"), &mut errors);
            if let Some(why) = config::aggregate(&errors) {
                return Err(why);
            }
        }
        let reviewer = options
            .webhook
            .as_ref()
            .map(|webhook| TokenReviewer::new(webhook, environment.caller.clone(), environment.clock.clone()));
        let current = Arc::new(RwLock::new(Arc::new(Current::start(config, environment))));
        if let Some(file) = &options.config_file {
            let (file, own, weak) = (file.clone(), own.to_owned(), Arc::downgrade(&current));
            let starting = environment.clone();
            reload(
                &environment.tasks,
                Configuration::Authentication,
                &file.clone(),
                environment.clock.clone(),
                move || {
                    let Some(current) = weak.upgrade() else { return Ok(()) };
                    let next = Arc::new(Current::start(load(&file, &own)?, &starting));
                    *current.write().unwrap_or_else(PoisonError::into_inner) = next;
                    Ok(())
                },
            )?;
        }
        Ok(Identities { current, reviewer: reviewer.transpose()?, own: own.to_owned() })
    }

    /// Whether there is anybody to ask.
    pub fn any(&self) -> bool {
        self.reviewer.is_some() || !self.now().authorities.is_empty()
    }

    fn now(&self) -> Arc<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who may ask without proof, if the file says so.
    pub fn anonymous(&self) -> Option<AnonymousConfig> {
        self.now().anonymous.clone()
    }

    /// Whose a token is; `None` if nobody knows it. `audiences`: for whom it must be; none is this server.
    ///
    /// # Errors
    /// What those who know it say against it.
    pub async fn token(&self, token: &str, audiences: &[String]) -> Result<Option<Authenticated>, String> {
        let own = [self.own.clone()];
        let wanted = if audiences.is_empty() { &own[..] } else { audiences };
        let mut errors = Vec::new();
        for authority in &self.now().authorities {
            match authority.authenticate(token).await {
                // Such tokens have an audience of their own: they are as good as those that are for this server.
                Some(Ok(user)) if wanted.contains(&self.own) => {
                    return Ok(Some(authenticated(Authenticated { user, audiences: own.to_vec() })));
                }
                Some(Err(error)) => errors.push(error),
                Some(Ok(_)) | None => {}
            }
        }
        if let Some(reviewer) = &self.reviewer {
            match reviewer.authenticate(token, wanted, &own).await {
                Ok(Some(found)) => return Ok(Some(authenticated(found))),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        match errors.as_slice() {
            [] => Ok(None),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}

/// Whoever has proved who they are is in the group of all who have.
fn authenticated(mut found: Authenticated) -> Authenticated {
    if !found.user.in_group(group::AUTHENTICATED) {
        found.user.groups.push(group::AUTHENTICATED.into());
    }
    found
}
