//! The keys behind service account tokens: P-256, P-384 and RSA, from PEM as upstream's flags take them.
//!
//! Upstream: `client-go/util/keyutil/key.go`, `pkg/serviceaccount/jwt.go` (which algorithm and key id go with a key).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use corten_kinds::x509::{PemBlock, pem_blocks};
use corten_tree::{Tree, tree};
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _, RsaKeyPair, RsaPublicKeyComponents};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::token::TokenError;

/// The curves: name, algorithm, object identifier in DER, how to sign.
const CURVES: [(&str, &str, &[u8], &EcdsaSigningAlgorithm); 2] = [
    (
        "P-256",
        "ES256",
        &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
        &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
    ),
    ("P-384", "ES384", &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22], &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
];
/// `id-ecPublicKey` in DER.
const EC: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// `rsaEncryption` with its null parameters in DER.
const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// A key that signs.
pub(crate) enum SigningKey {
    /// On one of [`CURVES`].
    Ec(EcdsaKeyPair),
    /// RSA.
    Rsa(RsaKeyPair),
}

/// A key that verifies.
pub(crate) struct VerifyingKey {
    /// The hash of its `SubjectPublicKeyInfo`.
    pub id: String,
    /// `ES256`, `ES384` or `RS256`.
    pub algorithm: &'static str,
    material: Material,
}

enum Material {
    /// The curve's name, and the uncompressed point.
    Ec(&'static str, Vec<u8>),
    /// Modulus and exponent, without leading zeros.
    Rsa { n: Vec<u8>, e: Vec<u8> },
}

impl SigningKey {
    /// The first private key of a PEM text, and the key that verifies what it signs.
    pub fn from_pem(text: &str) -> Result<(SigningKey, VerifyingKey), TokenError> {
        let blocks = pem_blocks(text);
        let found = blocks.iter().find_map(private);
        found.ok_or_else(|| TokenError::Key("there is no P-256, P-384 or RSA private key in it".into()))
    }

    /// The signature of a message, as JSON Web Signatures have it.
    pub fn sign(&self, random: &SystemRandom, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let failed = |_| TokenError::Key("signing failed".into());
        match self {
            SigningKey::Ec(key) => key.sign(random, message).map(|made| made.as_ref().to_vec()).map_err(failed),
            SigningKey::Rsa(key) => {
                let mut made = vec![0; key.public().modulus_len()];
                key.sign(&signature::RSA_PKCS1_SHA256, random, message, &mut made).map_err(failed)?;
                Ok(made)
            }
        }
    }
}

/// The private key in a PEM block, if it is one that can sign.
fn private(block: &PemBlock) -> Option<(SigningKey, VerifyingKey)> {
    let rsa = |key: RsaKeyPair| {
        let public = sequence(&[&sequence(&[RSA]), &bits(key.public().as_ref())]);
        Some((SigningKey::Rsa(key), VerifyingKey::from_spki(&public)?))
    };
    let ec = |pkcs8: &[u8]| {
        CURVES.iter().find_map(|(_, _, oid, algorithm)| {
            let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &SystemRandom::new()).ok()?;
            let public = sequence(&[&sequence(&[EC, oid]), &bits(key.public_key().as_ref())]);
            Some((SigningKey::Ec(key), VerifyingKey::from_spki(&public)?))
        })
    };
    match block.label.as_str() {
        "RSA PRIVATE KEY" => rsa(RsaKeyPair::from_der(&block.der).ok()?),
        "EC PRIVATE KEY" => CURVES.iter().find_map(|(_, _, oid, _)| {
            let version: &[u8] = &[0x02, 0x01, 0x00];
            ec(&sequence(&[version, &sequence(&[EC, oid]), &element(0x04, &block.der)]))
        }),
        "PRIVATE KEY" => ec(&block.der).or_else(|| rsa(RsaKeyPair::from_pkcs8(&block.der).ok()?)),
        _ => None,
    }
}

impl VerifyingKey {
    /// All keys of a PEM text: public ones, those of certificates, and those that belong to private ones.
    ///
    /// # Errors
    /// If there is none.
    pub fn all(text: &str) -> Result<Vec<VerifyingKey>, TokenError> {
        let one = |block: &PemBlock| match block.label.as_str() {
            "PUBLIC KEY" => VerifyingKey::from_spki(&block.der),
            "RSA PUBLIC KEY" => VerifyingKey::from_spki(&sequence(&[&sequence(&[RSA]), &bits(&block.der)])),
            "CERTIFICATE" => {
                let (_, certificate) = X509Certificate::from_der(&block.der).ok()?;
                VerifyingKey::from_spki(certificate.public_key().raw)
            }
            _ => private(block).map(|(_, public)| public),
        };
        let keys: Vec<VerifyingKey> = pem_blocks(text).iter().filter_map(one).collect();
        match keys.is_empty() {
            true => Err(TokenError::Key("data does not contain any valid RSA or ECDSA public keys".into())),
            false => Ok(keys),
        }
    }

    fn from_spki(der: &[u8]) -> Option<VerifyingKey> {
        let (_, key) = SubjectPublicKeyInfo::from_der(der).ok()?;
        let plain = |number: &[u8]| number.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
        let (algorithm, material) = match key.parsed().ok()? {
            Parsed::RSA(rsa) => ("RS256", Material::Rsa { n: plain(rsa.modulus), e: plain(rsa.exponent) }),
            Parsed::EC(point) => {
                let parameters = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
                let of = |oid: &&[u8]| oid.get(2..) == Some(parameters.as_bytes());
                let (name, algorithm, ..) = CURVES.iter().find(|(_, _, oid, _)| of(oid))?;
                (*algorithm, Material::Ec(name, point.data().to_vec()))
            }
            _ => return None,
        };
        let digest = ring::digest::digest(&ring::digest::SHA256, der);
        Some(VerifyingKey { id: URL_SAFE_NO_PAD.encode(digest), algorithm, material })
    }

    /// Whether the key's private one has signed a message.
    pub fn verifies(&self, message: &[u8], signed: &[u8]) -> bool {
        match &self.material {
            Material::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signed).is_ok()
            }
            Material::Ec(curve, point) => {
                let algorithm = match *curve {
                    "P-256" => &signature::ECDSA_P256_SHA256_FIXED,
                    _ => &signature::ECDSA_P384_SHA384_FIXED,
                };
                signature::UnparsedPublicKey::new(algorithm, point).verify(message, signed).is_ok()
            }
        }
    }

    /// As a JSON Web Key.
    pub fn jwk(&self) -> Tree {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (id, algorithm) = (self.id.as_str(), self.algorithm);
        match &self.material {
            Material::Ec(curve, point) => {
                let (x, y) = point.get(1..).unwrap_or_default().split_at(point.len() / 2);
                tree!({"use": "sig", "kty": "EC", "kid": id, "crv": (*curve), "alg": algorithm, "x": (text(x)), "y": (text(y))})
            }
            Material::Rsa { n, e } => {
                tree!({"use": "sig", "kty": "RSA", "kid": id, "alg": algorithm, "n": (text(n)), "e": (text(e))})
            }
        }
    }
}

/// A DER element.
fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = contents.len().to_be_bytes();
    let digits: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    match contents.len() {
        short @ 0..=0x7f => out.push(short as u8),
        _ => {
            out.push(0x80 | digits.len() as u8);
            out.extend(digits);
        }
    }
    out.extend_from_slice(contents);
    out
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

/// A bit string of whole bytes.
fn bits(contents: &[u8]) -> Vec<u8> {
    element(0x03, &[&[0][..], contents].concat())
}
