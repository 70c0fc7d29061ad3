//! `AuthenticationConfiguration`: whose tokens are believed, and who may come without (`apiserver/pkg/apis/apiserver`).

use std::cell::RefCell;
use std::collections::BTreeSet;

use corten_client::config_file::Fields;
use corten_object::FieldError;
use corten_tree::{FieldPath, Tree};

use crate::jwt;
use crate::mapping::{Mapping, Rules};

/// The versions of the file that are read; all are of one form.
pub const VERSIONS: [&str; 3] =
    ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];
/// The kind of the file.
pub const KIND: &str = "AuthenticationConfiguration";
/// Issuers of one file, at most.
const ISSUERS_MAX: usize = 64;

/// Who may ask without proof.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnonymousConfig {
    /// Whether anybody may.
    pub enabled: bool,
    /// If there are any: only for these paths.
    pub paths: Vec<String>,
}

/// Where an issuer is, and for whom its tokens are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Issuer {
    /// Its name in tokens.
    pub url: String,
    /// Where it says where its keys are, if not below its name.
    pub discovery_url: String,
    /// PEM of the authorities that vouch for its server; empty is those of the system.
    pub ca_pem: String,
    /// A token must be for one of these.
    pub audiences: Vec<String>,
    pub(crate) match_policy: String,
}

/// An issuer and what its tokens mean.
#[derive(Debug)]
pub struct JwtConfig {
    /// The issuer.
    pub issuer: Issuer,
    /// Who is meant.
    pub mapping: Mapping,
    /// What must hold of tokens and users.
    pub rules: Rules,
    /// With what tokens may be signed.
    pub algorithms: Vec<String>,
}

/// What the file says.
#[derive(Debug, Default)]
pub struct AuthenticationConfig {
    /// The issuers.
    pub jwt: Vec<JwtConfig>,
    /// Who may ask without proof; `None` leaves it to the command line.
    pub anonymous: Option<AnonymousConfig>,
}

impl AuthenticationConfig {
    /// Reads and checks a document; `own` is the issuer of this server's tokens, which nobody else may be.
    ///
    /// # Errors
    /// All faults, each with its field.
    pub fn parse(tree: &Tree, own: &str) -> Result<AuthenticationConfig, String> {
        let (faults, mut errors) = (RefCell::default(), Vec::new());
        let config = {
            let fields = Fields::new(tree, &faults);
            let jwt = fields.objects("jwt").into_iter().map(|entry| read_jwt(&entry, &mut errors)).collect();
            let anonymous = fields.object("anonymous").map(|entry| {
                let paths = entry.objects("conditions").iter().map(|condition| condition.text("path")).collect();
                AnonymousConfig { enabled: entry.flag("enabled").unwrap_or(false), paths }
            });
            AuthenticationConfig { jwt, anonymous }
        };
        config.check(own, &mut errors);
        let strict = faults.into_inner();
        if !strict.is_empty() {
            return Err(format!("strict decoding error: {}", strict.join(", ")));
        }
        aggregate(&errors).map_or(Ok(config), Err)
    }

    fn check(&self, own: &str, errors: &mut Vec<FieldError>) {
        let root = FieldPath::of("jwt");
        if self.jwt.len() > ISSUERS_MAX {
            errors.push(FieldError::too_many(&root, self.jwt.len(), ISSUERS_MAX));
            return;
        }
        let (mut urls, mut discoveries) = (BTreeSet::new(), BTreeSet::new());
        for (i, entry) in self.jwt.iter().enumerate() {
            let path = root.index(i).child("issuer");
            let issuer = &entry.issuer;
            issuer.check(own, &path, errors);
            if !urls.insert(&issuer.url) {
                errors.push(FieldError::duplicate(&path.child("url"), &issuer.url.as_str().into()));
            }
            let discovery = &issuer.discovery_url;
            if !discovery.is_empty() && !discoveries.insert(discovery) {
                errors.push(FieldError::duplicate(&path.child("discoveryURL"), &discovery.as_str().into()));
            }
        }
        if let Some(anonymous) = &self.anonymous
            && !anonymous.enabled
            && !anonymous.paths.is_empty()
        {
            let shown: Tree = anonymous.paths.clone().into();
            let why = "enabled should be set to true when conditions are defined";
            errors.push(FieldError::invalid(&FieldPath::of("anonymous.conditions"), &shown, why));
        }
    }
}

/// Several errors as Go's aggregate shows them; `None` for none.
pub(crate) fn aggregate(errors: &[FieldError]) -> Option<String> {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    match texts.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}

fn read_jwt(entry: &Fields<'_>, errors: &mut Vec<FieldError>) -> JwtConfig {
    let issuer = entry.object("issuer").map(|fields| {
        let egress = fields.text("egressSelectorType");
        if !matches!(egress.as_str(), "" | "controlplane" | "cluster") {
            let why = "egress selector must be either controlplane or cluster";
            errors.push(FieldError::invalid_str(&fields.path().child("egressSelectorType"), &egress, why));
        }
        Issuer {
            url: fields.text("url"),
            discovery_url: fields.text("discoveryURL"),
            ca_pem: fields.text("certificateAuthority"),
            audiences: fields.texts("audiences"),
            match_policy: fields.text("audienceMatchPolicy"),
        }
    });
    let (mapping, rules) = crate::mapping::read(entry, errors);
    JwtConfig {
        issuer: issuer.unwrap_or_default(),
        mapping,
        rules,
        algorithms: jwt::ALGORITHMS.iter().map(|a| (*a).to_owned()).collect(),
    }
}

impl Issuer {
    pub(crate) fn check(&self, own: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
        let url = path.child("url");
        if self.url.is_empty() {
            errors.push(FieldError::required(&url, ""));
        } else {
            if self.url == own {
                let why = format!("URL must not overlap with disallowed issuers: [{own}]");
                errors.push(FieldError::invalid_str(&url, own, why));
            }
            check_url(&self.url, &url, errors);
        }
        if !self.discovery_url.is_empty() {
            let path = path.child("discoveryURL");
            if !self.url.is_empty() && self.url.trim_end_matches('/') == self.discovery_url.trim_end_matches('/') {
                let why = "discoveryURL must be different from URL";
                errors.push(FieldError::invalid_str(&path, &self.discovery_url, why));
            }
            check_url(&self.discovery_url, &path, errors);
        }
        self.check_audiences(path, errors);
        if !self.ca_pem.is_empty() {
            use rustls::pki_types::pem::PemObject as _;
            let certificates = rustls::pki_types::CertificateDer::pem_slice_iter(self.ca_pem.as_bytes());
            if certificates.flatten().next().is_none() {
                let why = "data does not contain any valid RSA or ECDSA certificates";
                errors.push(FieldError::invalid_str(&path.child("certificateAuthority"), "<omitted>", why));
            }
        }
    }

    fn check_audiences(&self, path: &FieldPath, errors: &mut Vec<FieldError>) {
        let (audiences, policy) = (path.child("audiences"), path.child("audienceMatchPolicy"));
        if self.audiences.is_empty() {
            errors.push(FieldError::required(&audiences, format!("at least one {audiences} is required")));
            return;
        }
        for (i, audience) in self.audiences.iter().enumerate() {
            let path = audiences.index(i);
            if audience.is_empty() {
                errors.push(FieldError::required(&path, ""));
            }
            if self.audiences[..i].contains(audience) {
                errors.push(FieldError::duplicate(&path, &audience.as_str().into()));
            }
        }
        let why = match (self.audiences.len(), self.match_policy.as_str()) {
            (_, "MatchAny") | (1, "") => return,
            (1, _) => "audienceMatchPolicy must be empty or MatchAny for single audience",
            _ => "audienceMatchPolicy must be MatchAny for multiple audiences",
        };
        errors.push(FieldError::invalid_str(&policy, &self.match_policy, why));
    }
}

fn check_url(url: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://").unwrap_or(("", rest));
    let authority = rest.split('/').next().unwrap_or_default();
    for (wrong, why) in [
        (!scheme.eq_ignore_ascii_case("https"), "URL scheme must be https"),
        (authority.contains('@'), "URL must not contain a username or password"),
        (!query.is_empty(), "URL must not contain a query"),
        (!fragment.is_empty(), "URL must not contain a fragment"),
    ] {
        if wrong {
            errors.push(FieldError::invalid_str(path, url, why));
        }
    }
}
