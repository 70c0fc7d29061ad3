//! Service account tokens: JWTs signed with ES256.
//!
//! Claims as `pkg/serviceaccount/claims.go`: a token is bound to its account and, if asked for, to a pod, secret or node, and
//! is worth nothing once that object is gone.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use corten_base::Timestamp;
use corten_tree::{Tree, tree};
use rcgen::PublicKeyData;
use ring::rand::SystemRandom;
use ring::signature::{self, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde::{Deserialize, Deserializer, Serialize};

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
    key: EcdsaKeyPair,
    key_id: String,
    issuer: Arc<str>,
    random: SystemRandom,
}

impl TokenSigner {
    /// A signer with the P-256 key in PKCS#8 PEM.
    pub fn from_pem(pem: &str, issuer: &str) -> Result<TokenSigner, TokenError> {
        let pair = rcgen::KeyPair::from_pem(pem).map_err(|e| TokenError::Key(e.to_string()))?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair.serialized_der(), &random)
            .map_err(|e| TokenError::Key(e.to_string()))?;
        let digest = ring::digest::digest(&ring::digest::SHA256, &pair.subject_public_key_info());
        Ok(TokenSigner { key, key_id: URL_SAFE_NO_PAD.encode(digest), issuer: issuer.into(), random })
    }

    /// The key's id in a token's header.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Who signs.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The token of these claims; `iss` is filled in.
    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        let claims = Claims { iss: self.issuer.to_string(), ..claims.clone() };
        let body = serde_json::to_vec(&claims).map_err(|e| TokenError::Key(e.to_string()))?;
        let header = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, self.key_id);
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(body, &mut token);
        let signed =
            self.key.sign(&self.random, token.as_bytes()).map_err(|_| TokenError::Key("signing failed".into()))?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signed.as_ref(), &mut token);
        Ok(token)
    }

    /// What a token of this signer says. Its time is not looked at; see [`Claims::check_time`].
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        #[derive(Deserialize)]
        struct Issuer {
            #[serde(default)]
            iss: String,
        }
        let (signed, mac) = token.rsplit_once('.').ok_or(TokenError::Foreign)?;
        let (_, body) = signed.split_once('.').ok_or(TokenError::Foreign)?;
        let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Foreign)?;
        let issuer: Issuer = serde_json::from_slice(&body).map_err(|_| TokenError::Foreign)?;
        if issuer.iss != *self.issuer {
            return Err(TokenError::Foreign);
        }
        let mac = URL_SAFE_NO_PAD.decode(mac).map_err(|_| TokenError::Malformed)?;
        signature::UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref())
            .verify(signed.as_bytes(), &mac)
            .map_err(|_| TokenError::Malformed)?;
        serde_json::from_slice(&body).map_err(|_| TokenError::Malformed)
    }

    /// The public key as a JSON Web Key Set.
    pub fn key_set(&self) -> Tree {
        let point = self.key.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..65]));
        tree!({"keys": [{
            "use": "sig", "kty": "EC", "kid": (self.key_id.as_str()), "crv": "P-256", "alg": "ES256", "x": x, "y": y
        }]})
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
}
