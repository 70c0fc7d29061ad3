//! Signatures of all algorithms: what is signed is believed, and nothing else. The RSA key in `data` was made for this test.

#![allow(clippy::unwrap_used, reason = "a test")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use corten_federation::jwt::{ALGORITHMS, Key, Untrusted, untrusted_issuer};
use corten_tree::{Tree, tree};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    RsaEncoding, RsaKeyPair,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn unsigned(algorithm: &str, id: &str) -> String {
    let head = tree!({"alg": algorithm, "kid": id}).to_json();
    format!("{}.{}", encode(head), encode(r#"{"iss":"https://i","sub":"s"}"#))
}

fn all() -> Vec<String> {
    ALGORITHMS.iter().map(|a| (*a).to_owned()).collect()
}

fn set(keys: Vec<Tree>) -> Vec<Key> {
    Key::set(&tree!({"keys": (Tree::List(keys))}).to_json()).unwrap()
}

/// The key is found by its name or without one; a changed payload, another algorithm and another key are refused.
fn check(algorithm: &str, key: Tree, sign: impl Fn(&[u8]) -> Vec<u8>) {
    let keys = set(vec![key]);
    for id in ["k", ""] {
        let signed = unsigned(algorithm, id);
        let token = format!("{signed}.{}", encode(sign(signed.as_bytes())));
        let untrusted = Untrusted::parse(&token, &all()).unwrap();
        assert!(untrusted.signed_by(&keys), "{algorithm} {id:?}");
        assert_eq!(untrusted_issuer(&token).as_deref(), Some("https://i"));
        let (head, rest) = token.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        let forged = format!("{head}.{}.{signature}", encode(r#"{"iss":"https://i","sub":"root"}"#));
        assert!(!Untrusted::parse(&forged, &all()).unwrap().signed_by(&keys));
        let refused = Untrusted::parse(&token, &["none".into()]).unwrap_err();
        assert!(refused.contains(&format!("unexpected signature algorithm {algorithm:?}; expected [\"none\"]")));
    }
    let signed = unsigned(algorithm, "other");
    let token = format!("{signed}.{}", encode(sign(signed.as_bytes())));
    assert!(!Untrusted::parse(&token, &all()).unwrap().signed_by(&keys), "a key of another name");
}

#[test]
fn jwt_signatures_of_rsa_keys() {
    let der = PrivatePkcs8KeyDer::from_pem_slice(include_bytes!("data/rsa.pem")).unwrap();
    let pair = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap();
    let public = ring::signature::RsaPublicKeyComponents::<Vec<u8>>::from(pair.public());
    let key = || tree!({"kty": "RSA", "kid": "k", "n": (encode(&public.n)), "e": (encode(&public.e))});
    let algorithms: [(&str, &'static dyn RsaEncoding); 6] = [
        ("RS256", &RSA_PKCS1_SHA256),
        ("RS384", &RSA_PKCS1_SHA384),
        ("RS512", &RSA_PKCS1_SHA512),
        ("PS256", &RSA_PSS_SHA256),
        ("PS384", &RSA_PSS_SHA384),
        ("PS512", &RSA_PSS_SHA512),
    ];
    for (name, encoding) in algorithms {
        check(name, key(), |message| {
            let mut signature = vec![0; pair.public().modulus_len()];
            pair.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
            signature
        });
    }
}

#[test]
fn jwt_signatures_of_elliptic_curve_keys() {
    let curves: [(&str, &str, usize, &'static EcdsaSigningAlgorithm); 2] = [
        ("ES256", "P-256", 32, &ECDSA_P256_SHA256_FIXED_SIGNING),
        ("ES384", "P-384", 48, &ECDSA_P384_SHA384_FIXED_SIGNING),
    ];
    for (name, curve, size, algorithm) in curves {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        let point = pair.public_key().as_ref();
        let (x, y) = (encode(&point[1..=size]), encode(&point[1 + size..]));
        let key = tree!({"kty": "EC", "kid": "k", "crv": curve, "x": x, "y": y});
        check(name, key, |message| pair.sign(&random, message).unwrap().as_ref().to_vec());
    }
}

#[test]
fn jwt_key_sets_and_tokens_that_are_none_are_refused() {
    assert!(Key::set(b"[]").is_err());
    assert_eq!(
        set(vec![tree!({"kty": "oct", "k": "AAAA"}), tree!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"})]),
        []
    );
    for token in ["", "a", "a.b", "a.b.c.d", "..", "e30.e30.e30", "e30.W10.AA"] {
        assert!(Untrusted::parse(token, &all()).is_err(), "{token}");
        assert_eq!(untrusted_issuer(token), None, "{token}");
    }
}
