//! Whether a certificate and a private key belong together, in the words of Go's `tls.X509KeyPair`. Pure; nothing is signed here.

use ring::signature::Ed25519KeyPair;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::x509::{KeyKind, PemBlock, pem_blocks, public_key_kind};

/// A private key, as far as it is compared.
enum PrivateKey {
    /// The modulus.
    Rsa(Vec<u8>),
    /// The public point, if it is told.
    Ec(Option<Vec<u8>>),
    /// The seed.
    Ed25519(Vec<u8>),
}

/// What is wrong with a pair in PEM; `None` if the key is the certificate's.
pub fn fault(certificates: &str, key: &str) -> Option<String> {
    let (blocks, skipped) = split(certificates, |label| label == "CERTIFICATE");
    let Some(leaf) = blocks.first() else {
        return Some(match skipped.as_slice() {
            [] => "tls: failed to find any PEM data in certificate input".to_owned(),
            [one] if one.ends_with("PRIVATE KEY") => {
                "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may \
                 have been switched"
                    .to_owned()
            }
            all => format!(
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the \
                 following types: [{}]",
                all.join(" ")
            ),
        });
    };
    let (keys, skipped) = split(key, |label| label == "PRIVATE KEY" || label.ends_with(" PRIVATE KEY"));
    let Some(key) = keys.first() else {
        return Some(match skipped.as_slice() {
            [] => "tls: failed to find any PEM data in key input".to_owned(),
            [one] if one == "CERTIFICATE" => {
                "tls: found a certificate rather than a key in the PEM for the private key".to_owned()
            }
            all => format!(
                "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of \
                 the following types: [{}]",
                all.join(" ")
            ),
        });
    };
    let Ok((_, certificate)) = X509Certificate::from_der(&leaf.der) else {
        return Some("x509: malformed certificate".to_owned());
    };
    let spki = certificate.public_key();
    let Some(kind) = public_key_kind(spki.raw) else { return Some("x509: malformed certificate".to_owned()) };
    let Some(private) = private_key(&key.der) else { return Some("tls: failed to parse private key".to_owned()) };
    let public: &[u8] = &spki.subject_public_key.data;
    let fits = match (&kind, &private) {
        (KeyKind::Rsa(_), PrivateKey::Rsa(modulus)) => {
            let own = sequence(public).and_then(|parts| parts.first().map(|(_, n)| n.to_vec()));
            own.as_ref() == Some(modulus)
        }
        // Go computes the point from the scalar. All tools write the point beside it, and computing it here wants randomness.
        (KeyKind::Ec(_), PrivateKey::Ec(told)) => told.as_deref().is_none_or(|told| told == public),
        (KeyKind::Ed25519, PrivateKey::Ed25519(seed)) => Ed25519KeyPair::from_seed_and_public_key(seed, public).is_ok(),
        (KeyKind::Unknown, _) => return Some("tls: unknown public key algorithm".to_owned()),
        _ => return Some("tls: private key type does not match public key type".to_owned()),
    };
    (!fits).then(|| "tls: private key does not match public key".to_owned())
}

/// The blocks of one sort, and the labels of the others before the first of them.
fn split(text: &str, wanted: impl Fn(&str) -> bool) -> (Vec<PemBlock>, Vec<String>) {
    let (blocks, others): (Vec<PemBlock>, Vec<PemBlock>) = pem_blocks(text).into_iter().partition(|b| wanted(&b.label));
    (blocks, others.into_iter().map(|block| block.label).collect())
}

/// PKCS #1, PKCS #8 or SEC 1. (`crypto/tls`, `parsePrivateKey`)
fn private_key(der: &[u8]) -> Option<PrivateKey> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
    let parts = sequence(der)?;
    match parts.as_slice() {
        // RSAPrivateKey: version, modulus, …
        [(INTEGER, _), (INTEGER, modulus), (INTEGER, _), ..] => Some(PrivateKey::Rsa(modulus.to_vec())),
        // PrivateKeyInfo: version, algorithm, key.
        [(INTEGER, _), (SEQUENCE, algorithm), (OCTETS, inner), ..] => {
            let (tag, oid, _) = element(algorithm)?;
            match oid {
                _ if tag != OID => None,
                RSA => private_key(inner).filter(|key| matches!(key, PrivateKey::Rsa(_))),
                EC => private_key(inner).filter(|key| matches!(key, PrivateKey::Ec(..))),
                ED25519 => element(inner).map(|(_, seed, _)| PrivateKey::Ed25519(seed.to_vec())),
                _ => None,
            }
        }
        // ECPrivateKey: version, scalar, parameters, point.
        [(INTEGER, [1]), (OCTETS, _), rest @ ..] => {
            let point = rest.iter().find(|(tag, _)| *tag == 0xa1).and_then(|(_, bits)| element(bits));
            // A bit string begins with the number of bits that do not count.
            let point = point.and_then(|(_, bits, _)| bits.get(1..).map(<[u8]>::to_vec));
            Some(PrivateKey::Ec(point))
        }
        _ => None,
    }
}

const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// The first element of some DER: tag, contents, what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(short), rest),
        long @ 0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (digits.iter().fold(0, |n, digit| (n << 8) | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

/// The elements of a sequence.
fn sequence(der: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let (tag, mut rest, _) = element(der)?;
    let mut parts = Vec::new();
    while tag == SEQUENCE && !rest.is_empty() {
        let (tag, contents, after) = element(rest)?;
        parts.push((tag, contents));
        rest = after;
    }
    (tag == SEQUENCE).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate of a fresh key, and the key.
    fn pair(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn tls_secret_key_of_another_certificate() {
        let other = "tls: private key does not match public key";
        let (ec, ec_key) = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        let (ec2, ec2_key) = pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        let (big, big_key) = pair(&rcgen::PKCS_ECDSA_P384_SHA384);
        let (ed, ed_key) = pair(&rcgen::PKCS_ED25519);
        let (ed2, _) = pair(&rcgen::PKCS_ED25519);
        for (certificate, key) in [(&ec, &ec_key), (&ec2, &ec2_key), (&big, &big_key), (&ed, &ed_key)] {
            assert_eq!(fault(certificate, key), None);
        }
        assert_eq!(fault(&ec, &ec2_key).as_deref(), Some(other));
        assert_eq!(fault(&ed2, &ed_key).as_deref(), Some(other));
        assert_eq!(fault(&ec, &ed_key).as_deref(), Some("tls: private key type does not match public key type"));
        assert_eq!(
            fault(&ec_key, &ec).as_deref(),
            Some(
                "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may \
                 have been switched"
            )
        );
        assert_eq!(
            fault(&ec, &ec).as_deref(),
            Some("tls: found a certificate rather than a key in the PEM for the private key")
        );
        let broken = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(fault(&ec, broken).as_deref(), Some("tls: failed to parse private key"));
    }
}
