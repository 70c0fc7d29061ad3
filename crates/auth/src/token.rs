//! Service account tokens: JWTs signed with ES256, ES384 or RS256.
//!
//! Claims as `pkg/serviceaccount/claims.go`: a token is bound to its account and, if asked for, to a pod, secret or node, and
//! is worth nothing once that object is gone.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use corten_base::Timestamp;
use corten_tree::{Tree, tree};
use ring::rand::SystemRandom;
use serde::{Deserialize, Deserializer, Serialize};

use crate::token_keys::{SigningKey, VerifyingKey};

/// The issuer of the cluster's tokens, which is also the API server's audience.
pub const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// How far clocks may differ, in seconds.
const LEEWAY_SECONDS: i64 = 60;

/// Why a token is not good, or could not be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TokenError {
    /// It is not one of this cluster's tokens.
    #[error("invalid bearer token")]
    Foreign,
    /// The signature or the form is wrong.
    #[error("the token is malformed or its signature is wrong")]
    Malformed,
    /// Its time is over.
    #[error("service account token has expired")]
    Expired,
    /// Its time has not come.
    #[error("service account token is not valid yet")]
    NotYet,
    /// The key is of no use.
    #[error("the signing key is of no use: {0}")]
    Key(String),
}

/// An object that a token names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundRef {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its uid.
    #[serde(default)]
    pub uid: String,
}

/// The claim `kubernetes.io`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesClaims {
    /// The account's namespace.
    #[serde(default)]
    pub namespace: String,
    /// The node that the bound pod is on, or the bound node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<BoundRef>,
    /// The bound pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<BoundRef>,
    /// The bound secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<BoundRef>,
    /// The account.
    #[serde(default)]
    pub serviceaccount: BoundRef,
    /// From when on clients should have asked for a new token, in seconds of Unix time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// What a token says. Times are seconds of Unix time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// For whom it is meant.
    #[serde(default, deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// When it ends.
    pub exp: i64,
    /// When it was made.
    #[serde(default)]
    pub iat: i64,
    /// Who made it.
    pub iss: String,
    /// Its own id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io", default)]
    pub kubernetes: KubernetesClaims,
    /// From when on it is good.
    #[serde(default)]
    pub nbf: i64,
    /// The user name.
    pub sub: String,
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::One(one) => vec![one],
        Either::Many(many) => many,
    })
}

/// Signs and verifies.
pub struct TokenSigner {
    key: SigningKey,
    /// Those that verify; the first is the one that signs.
    keys: Vec<VerifyingKey>,
    issuer: Arc<str>,
    random: SystemRandom,
}

impl TokenSigner {
    /// A signer with the first private key of a PEM text: P-256, P-384 or RSA.
    ///
    /// # Errors
    /// If there is none.
    pub fn from_pem(pem: &str, issuer: &str) -> Result<TokenSigner, TokenError> {
        let (key, public) = SigningKey::from_pem(pem)?;
        Ok(TokenSigner { key, keys: vec![public], issuer: issuer.into(), random: SystemRandom::new() })
    }

    /// Believes what these keys (PEM: public keys, certificates or private keys) have signed, too.
    ///
    /// # Errors
    /// If there are none.
    pub fn trust(&mut self, pem: &str) -> Result<(), TokenError> {
        for key in VerifyingKey::all(pem)? {
            if !self.keys.iter().any(|known| known.id == key.id) {
                self.keys.push(key);
            }
        }
        Ok(())
    }

    /// The signing key's id in a token's header.
    pub fn key_id(&self) -> &str {
        &self.keys[0].id
    }

    /// Who signs.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The token of these claims; `iss` is filled in.
    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        let claims = Claims { iss: self.issuer.to_string(), ..claims.clone() };
        let body = serde_json::to_vec(&claims).map_err(|e| TokenError::Key(e.to_string()))?;
        let header = format!(r#"{{"alg":"{}","kid":"{}"}}"#, self.keys[0].algorithm, self.key_id());
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(body, &mut token);
        let signed = self.key.sign(&self.random, token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signed, &mut token);
        Ok(token)
    }

    /// What a token of this signer says. Its time is not looked at; see [`Claims::check_time`].
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        #[derive(Deserialize)]
        struct Issuer {
            #[serde(default)]
            iss: String,
        }
        #[derive(Deserialize)]
        struct Header {
            #[serde(default)]
            alg: String,
            #[serde(default)]
            kid: String,
        }
        let (signed, mac) = token.rsplit_once('.').ok_or(TokenError::Foreign)?;
        let (header, body) = signed.split_once('.').ok_or(TokenError::Foreign)?;
        let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Foreign)?;
        let issuer: Issuer = serde_json::from_slice(&body).map_err(|_| TokenError::Foreign)?;
        if issuer.iss != *self.issuer {
            return Err(TokenError::Foreign);
        }
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| TokenError::Malformed)?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| TokenError::Malformed)?;
        let mac = URL_SAFE_NO_PAD.decode(mac).map_err(|_| TokenError::Malformed)?;
        // A token without a key's name is tried with all.
        let mut keys = self.keys.iter().filter(|key| header.kid.is_empty() || key.id == header.kid);
        if !keys.any(|key| key.algorithm == header.alg && key.verifies(signed.as_bytes(), &mac)) {
            return Err(TokenError::Malformed);
        }
        serde_json::from_slice(&body).map_err(|_| TokenError::Malformed)
    }

    /// The public keys as a JSON Web Key Set.
    pub fn key_set(&self) -> Tree {
        tree!({"keys": (Tree::List(self.keys.iter().map(VerifyingKey::jwk).collect()))})
    }
}

impl Claims {
    /// Whether the token is good at `now`.
    pub fn check_time(&self, now: Timestamp) -> Result<(), TokenError> {
        let now = now.as_second();
        if now - LEEWAY_SECONDS > self.exp {
            Err(TokenError::Expired)
        } else if now + LEEWAY_SECONDS < self.nbf {
            Err(TokenError::NotYet)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn signer() -> TokenSigner {
        TokenSigner::from_pem(&rcgen::KeyPair::generate().unwrap().serialize_pem(), DEFAULT_ISSUER).unwrap()
    }

    #[test]
    fn what_is_signed_is_read_back_and_nothing_else() {
        let signer = signer();
        let claims =
            Claims { sub: "system:serviceaccount:d:x".into(), exp: 100, aud: vec!["a".into()], ..Claims::default() };
        let token = signer.sign(&claims).unwrap();
        let read = signer.verify(&token).unwrap();
        assert_eq!((read.sub.as_str(), read.iss.as_str()), ("system:serviceaccount:d:x", DEFAULT_ISSUER));
        assert!(matches!(self::signer().verify(&token), Err(TokenError::Malformed)), "another key");
        let (rest, mac) = token.rsplit_once('.').unwrap();
        let (header, body) = rest.split_once('.').unwrap();
        let forged = URL_SAFE_NO_PAD.decode(body).unwrap();
        let forged = URL_SAFE_NO_PAD.encode(String::from_utf8(forged).unwrap().replace(":d:", ":e:"));
        assert!(matches!(signer.verify(&format!("{header}.{forged}.{mac}")), Err(TokenError::Malformed)));
        assert!(matches!(signer.verify("abc"), Err(TokenError::Foreign)));
        assert!(read.check_time(Timestamp::from_second(159).unwrap()).is_ok());
        assert!(matches!(read.check_time(Timestamp::from_second(161).unwrap()), Err(TokenError::Expired)));
    }

    #[test]
    fn service_account_keys_may_be_rsa_and_ec_and_several() {
        let (rsa, p384) = (include_str!("../testdata/rsa.pem"), include_str!("../testdata/p384.pem"));
        let claims = Claims { sub: "s".into(), exp: 100, ..Claims::default() };
        let mut own = signer();
        for (pem, algorithm, kind) in [(rsa, "RS256", "RSA"), (p384, "ES384", "EC")] {
            let other = TokenSigner::from_pem(pem, DEFAULT_ISSUER).unwrap();
            let token = other.sign(&claims).unwrap();
            assert_eq!(other.verify(&token).unwrap().sub, "s");
            assert!(matches!(own.verify(&token), Err(TokenError::Malformed)), "not believed yet");
            own.trust(pem).unwrap();
            assert_eq!(own.verify(&token).unwrap().sub, "s", "{algorithm}");
            let (signed, _) = token.rsplit_once('.').unwrap();
            assert!(own.verify(&format!("{signed}.AAAA")).is_err());
            let key = other.key_set().list_at("keys")[0].clone();
            assert_eq!((key.str_at("alg"), key.str_at("kty"), key.str_at("kid")), (algorithm, kind, other.key_id()));
        }
        assert_eq!(own.key_set().list_at("keys").len(), 3);
        let certificate = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        own.trust(&certificate.cert.pem()).unwrap();
        let made = TokenSigner::from_pem(&certificate.signing_key.serialize_pem(), DEFAULT_ISSUER).unwrap();
        assert!(own.verify(&made.sign(&claims).unwrap()).is_ok(), "the key of a certificate");
        assert!(own.trust("nothing").is_err() && TokenSigner::from_pem("nothing", DEFAULT_ISSUER).is_err());
    }
}
