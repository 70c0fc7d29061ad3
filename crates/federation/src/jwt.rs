//! Signed tokens of others: the compact form of RFC 7515, key sets of RFC 7517.
//!
//! Texts are those of the libraries that upstream uses (`github.com/coreos/go-oidc/v3`, `github.com/go-jose/go-jose/v4`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use corten_tree::{Tree, json};
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};

/// All algorithms that issuers may sign with; nothing symmetric, and never none.
pub const ALGORITHMS: [&str; 9] = ["ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"];

/// Keys of one set, at most.
const KEYS_MAX: usize = 256;

/// A token, taken apart and not yet believed.
#[derive(Debug, Clone)]
pub struct Untrusted {
    /// The header's `alg`.
    pub algorithm: String,
    /// The header's `kid`, may be empty.
    pub key_id: String,
    /// What it says.
    pub claims: Tree,
    /// What is signed.
    signed: String,
    signature: Vec<u8>,
}

fn decode(part: &str) -> Result<Vec<u8>, String> {
    URL_SAFE_NO_PAD.decode(part).map_err(|e| e.to_string())
}

/// What a token says of its issuer, if it is a token at all.
pub fn untrusted_issuer(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let claims = json::parse(&decode(payload).ok()?).ok()?;
    let issuer = claims.get("iss")?.as_str()?;
    // One issuer's tokens name it as it was once called.
    Some(if issuer == "accounts.google.com" { "https://accounts.google.com".into() } else { issuer.to_owned() })
}

impl Untrusted {
    /// Takes a token apart.
    ///
    /// # Errors
    /// If it is malformed, or signed with none of `algorithms`.
    pub fn parse(token: &str, algorithms: &[String]) -> Result<Untrusted, String> {
        let malformed = |why: &str| format!("oidc: malformed jwt: {why}");
        let parts: Vec<&str> = token.split('.').collect();
        let [head, payload, signature] = parts[..] else {
            return Err(malformed("go-jose/go-jose: compact JWS format must have three parts"));
        };
        let header = decode(head).ok().and_then(|bytes| json::parse(&bytes).ok());
        let header = header.ok_or_else(|| malformed("the header is not JSON"))?;
        let algorithm = header.str_at("alg").to_owned();
        if !algorithms.contains(&algorithm) {
            let expected = corten_auth::go_list(algorithms);
            let why = format!("go-jose/go-jose: unexpected signature algorithm {algorithm:?}; expected {expected}");
            return Err(malformed(&why));
        }
        if header.path("crit").is_some() {
            return Err(malformed("go-jose/go-jose: unsupported crit header"));
        }
        let claims = decode(payload).ok().and_then(|bytes| json::parse(&bytes).ok());
        let claims = claims.filter(|c| matches!(c, Tree::Map(_)));
        Ok(Untrusted {
            algorithm,
            key_id: header.str_at("kid").to_owned(),
            claims: claims.ok_or_else(|| malformed("the payload is not a JSON object"))?,
            signed: format!("{head}.{payload}"),
            signature: decode(signature).map_err(|e| malformed(&e))?,
        })
    }

    /// Whether one of the keys has signed it. A token without a key's name is tried with all.
    pub fn signed_by(&self, keys: &[Key]) -> bool {
        let named = keys.iter().filter(|key| self.key_id.is_empty() || key.id == self.key_id);
        named.into_iter().any(|key| key.verifies(&self.algorithm, self.signed.as_bytes(), &self.signature))
    }
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its `kid`, may be empty.
    pub id: String,
    material: Material,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The uncompressed point.
    Ec {
        curve: &'static str,
        point: Vec<u8>,
    },
}

impl Key {
    /// The keys of a key set; those of a type that signs no tokens are left out.
    ///
    /// # Errors
    /// If it is no key set, or has too many keys.
    pub fn set(document: &[u8]) -> Result<Vec<Key>, String> {
        let tree = json::parse(document).map_err(|e| e.to_string())?;
        let list = tree.get("keys").and_then(Tree::as_list).ok_or("the key set has no keys")?;
        if list.len() > KEYS_MAX {
            return Err(format!("the key set has more than {KEYS_MAX} keys"));
        }
        Ok(list.iter().filter_map(Key::read).collect())
    }

    fn read(key: &Tree) -> Option<Key> {
        let part = |name: &str| decode(key.str_at(name)).ok().filter(|bytes| !bytes.is_empty());
        let material = match (key.str_at("kty"), key.str_at("crv")) {
            ("RSA", _) => {
                let stripped = |bytes: Vec<u8>| bytes.into_iter().skip_while(|b| *b == 0).collect::<Vec<u8>>();
                Material::Rsa { n: stripped(part("n")?), e: stripped(part("e")?) }
            }
            ("EC", curve) => {
                let (curve, size) = match curve {
                    "P-256" => ("P-256", 32),
                    "P-384" => ("P-384", 48),
                    _ => return None,
                };
                let (x, y) = (part("x")?, part("y")?);
                if x.len() != size || y.len() != size {
                    return None;
                }
                Material::Ec { curve, point: [&[4][..], &x, &y].concat() }
            }
            _ => return None,
        };
        Some(Key { id: key.str_at("kid").to_owned(), material })
    }

    fn verifies(&self, algorithm: &str, message: &[u8], signed: &[u8]) -> bool {
        match &self.material {
            Material::Rsa { n, e } => {
                let parameters = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                    "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signed).is_ok()
            }
            Material::Ec { curve, point } => {
                let algorithm = match (algorithm, *curve) {
                    ("ES256", "P-256") => &signature::ECDSA_P256_SHA256_FIXED,
                    ("ES384", "P-384") => &signature::ECDSA_P384_SHA384_FIXED,
                    _ => return false,
                };
                UnparsedPublicKey::new(algorithm, point).verify(message, signed).is_ok()
            }
        }
    }
}
