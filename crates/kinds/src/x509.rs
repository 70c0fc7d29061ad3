//! Reading certificates and certificate requests: what validation, signers and approvers ask of them. Pure; nothing is made here.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};

use corten_schema::scalars::base64;

/// One block of a PEM text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PemBlock {
    /// `CERTIFICATE`, …
    pub label: String,
    /// Whether lines `Key: value` stand before the data.
    pub has_headers: bool,
    /// The data.
    pub der: Vec<u8>,
}

/// The blocks of a PEM text, in order. What stands between them, and blocks that are broken, are left out (`encoding/pem`).
pub fn pem_blocks(text: &str) -> Vec<PemBlock> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(|line| line.trim_end_matches('\r'));
    while let Some(line) = lines.next() {
        let label =
            |line: &str, edge: &str| line.trim_end().strip_prefix(edge)?.strip_suffix("-----").map(str::to_owned);
        let Some(begun) = label(line, "-----BEGIN ") else { continue };
        let (mut data, mut has_headers, mut whole) = (String::new(), false, false);
        for line in lines.by_ref() {
            if let Some(ended) = label(line, "-----END ") {
                whole = ended == begun;
                break;
            }
            match line.contains(':') {
                true => has_headers = true,
                false => data.push_str(line.trim()),
            }
        }
        if let Some(der) = base64::decode(&data).ok().filter(|_| whole) {
            blocks.push(PemBlock { label: begun, has_headers, der });
        }
    }
    blocks
}

/// DER as a PEM block.
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// A public key's algorithm and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Ed25519.
    Ed25519,
    /// An elliptic curve, by Go's name (`P-256`).
    Ec(&'static str),
    /// RSA, with the bits of its modulus.
    Rsa(usize),
    /// Any other.
    Unknown,
}

/// Names that a certificate is for, besides its subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AltNames {
    /// DNS names.
    pub dns: Vec<String>,
    /// Addresses.
    pub ips: Vec<std::net::IpAddr>,
    /// E-mail addresses.
    pub emails: Vec<String>,
    /// URIs.
    pub uris: Vec<String>,
}

/// What a certificate request (PKCS#10) asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    /// The subject's common name.
    pub common_name: String,
    /// The subject's organizations.
    pub organizations: Vec<String>,
    /// Whether the subject says anything at all.
    pub has_subject: bool,
    /// The subject as DER.
    pub subject: Vec<u8>,
    /// The other names.
    pub names: AltNames,
    /// The value of the extension with the other names, as DER; `None` without one.
    pub alt_names: Option<Vec<u8>>,
    /// The public key as DER (`SubjectPublicKeyInfo`).
    pub public_key: Vec<u8>,
    /// The key's kind.
    pub key: KeyKind,
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whether it may sign others.
    pub is_ca: bool,
    /// The subject as DER.
    pub subject: Vec<u8>,
    /// When it begins, in seconds of Unix time.
    pub not_before: i64,
    /// When it ends, in seconds of Unix time.
    pub not_after: i64,
    /// The other names.
    pub names: AltNames,
    /// The public key as DER (`SubjectPublicKeyInfo`).
    pub public_key: Vec<u8>,
    /// The identifier of its key, if it tells one.
    pub key_id: Option<Vec<u8>>,
}

impl CertificateRequest {
    /// Reads a request's DER and checks that its key has signed it.
    ///
    /// # Errors
    /// Words for people: it cannot be read, or the signature is wrong.
    pub fn parse(der: &[u8]) -> Result<CertificateRequest, String> {
        let request = CertificateRequest::parse_unverified(der)?;
        CertificateRequest::verify(der)?;
        Ok(request)
    }

    /// Reads a request's DER.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn parse_unverified(der: &[u8]) -> Result<CertificateRequest, String> {
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|_| "x509: malformed certificate request".to_owned())?;
        if !rest.is_empty() {
            return Err("asn1: syntax error: trailing data".into());
        }
        let info = &request.certification_request_info;
        let (mut names, mut alt_names) = (AltNames::default(), None);
        let requested = info.iter_attributes().filter_map(|attribute| match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(requested) => Some(&requested.extensions),
            _ => None,
        });
        for extension in requested.flatten() {
            if let ParsedExtension::SubjectAlternativeName(found) = extension.parsed_extension() {
                names.add(&found.general_names);
                alt_names = Some(extension.value.to_vec());
            }
        }
        Ok(CertificateRequest {
            common_name: text_of(info.subject.iter_common_name().last()),
            organizations: info.subject.iter_organization().map(|o| text_of(Some(o))).collect(),
            has_subject: has_parts(&info.subject),
            subject: info.subject.as_raw().to_vec(),
            names,
            alt_names,
            public_key: info.subject_pki.raw.to_vec(),
            key: key_kind(&info.subject_pki),
        })
    }

    /// Checks that the request's key has signed it.
    ///
    /// # Errors
    /// It has not.
    pub fn verify(der: &[u8]) -> Result<(), String> {
        let (_, request) =
            X509CertificationRequest::from_der(der).map_err(|_| "x509: malformed certificate request".to_owned())?;
        request.verify_signature().map_err(|_| match key_kind(&request.certification_request_info.subject_pki) {
            KeyKind::Rsa(_) => "crypto/rsa: verification error".to_owned(),
            KeyKind::Ec(_) => "x509: ECDSA verification failure".to_owned(),
            KeyKind::Ed25519 => "x509: Ed25519 verification failure".to_owned(),
            KeyKind::Unknown => "x509: cannot verify signature: algorithm unimplemented".to_owned(),
        })
    }
}

impl Certificate {
    /// Reads a certificate's DER.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn parse(der: &[u8]) -> Result<Certificate, String> {
        let malformed = || "x509: malformed certificate".to_owned();
        let (rest, cert) = X509Certificate::from_der(der).map_err(|_| malformed())?;
        if !rest.is_empty() {
            return Err("x509: trailing data".into());
        }
        let mut names = AltNames::default();
        if let Ok(Some(found)) = cert.subject_alternative_name() {
            names.add(&found.value.general_names);
        }
        let key_id = cert.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        Ok(Certificate {
            key_id,
            is_ca: cert.is_ca(),
            subject: cert.subject().as_raw().to_vec(),
            not_before: cert.validity().not_before.timestamp(),
            not_after: cert.validity().not_after.timestamp(),
            names,
            public_key: cert.public_key().raw.to_vec(),
        })
    }
}

/// The kind of a public key in DER (`SubjectPublicKeyInfo`); `None` if it is not one.
pub fn public_key_kind(der: &[u8]) -> Option<KeyKind> {
    let (rest, key) = SubjectPublicKeyInfo::from_der(der).ok()?;
    rest.is_empty().then(|| key_kind(&key))
}

/// Whether a public key in DER (`SubjectPublicKeyInfo`) has signed a message: Ed25519 over the message, ECDSA (ASN.1) and
/// RSA-PSS over its SHA-256. Keys on curve P-521 cannot be checked here and count as not having signed.
pub fn signed(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    use ring::signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ED25519, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey,
        VerificationAlgorithm,
    };
    let Ok((_, key)) = SubjectPublicKeyInfo::from_der(public_key) else { return false };
    let algorithm: &dyn VerificationAlgorithm = match key_kind(&key) {
        KeyKind::Ed25519 => &ED25519,
        KeyKind::Ec("P-256") => &ECDSA_P256_SHA256_ASN1,
        KeyKind::Ec("P-384") => &ECDSA_P384_SHA256_ASN1,
        KeyKind::Rsa(_) => &RSA_PSS_2048_8192_SHA256,
        _ => return false,
    };
    UnparsedPublicKey::new(algorithm, &key.subject_public_key.data).verify(message, signature).is_ok()
}

fn text_of(value: Option<&x509_parser::x509::AttributeTypeAndValue<'_>>) -> String {
    value.and_then(|v| v.as_str().ok()).unwrap_or_default().to_owned()
}

fn has_parts(name: &X509Name<'_>) -> bool {
    name.iter_attributes().next().is_some()
}

fn key_kind(key: &SubjectPublicKeyInfo<'_>) -> KeyKind {
    let algorithm = key.algorithm.algorithm.to_id_string();
    let curve = || key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()).map(|oid| oid.to_id_string());
    match algorithm.as_str() {
        "1.3.101.112" => KeyKind::Ed25519,
        "1.2.840.10045.2.1" => match curve().as_deref() {
            Some("1.2.840.10045.3.1.7") => KeyKind::Ec("P-256"),
            Some("1.3.132.0.34") => KeyKind::Ec("P-384"),
            Some("1.3.132.0.35") => KeyKind::Ec("P-521"),
            Some("1.3.132.0.33") => KeyKind::Ec("P-224"),
            _ => KeyKind::Unknown,
        },
        "1.2.840.113549.1.1.1" => match key.parsed() {
            Ok(PublicKey::RSA(rsa)) => KeyKind::Rsa(rsa.key_size()),
            _ => KeyKind::Unknown,
        },
        _ => KeyKind::Unknown,
    }
}

impl AltNames {
    fn add(&mut self, names: &[GeneralName<'_>]) {
        for name in names {
            match name {
                GeneralName::DNSName(text) => self.dns.push((*text).to_owned()),
                GeneralName::RFC822Name(text) => self.emails.push((*text).to_owned()),
                GeneralName::URI(text) => self.uris.push((*text).to_owned()),
                GeneralName::IPAddress(bytes) => {
                    let v4 = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
                    let v6 = <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from);
                    self.ips.extend(v4.or(v6).ok());
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_blocks_are_read_as_go_reads_them() {
        let text = format!("noise\n{}between\n{}", pem("A", b"one"), pem("B", &[7; 100]));
        let blocks = pem_blocks(&text);
        assert_eq!(blocks.len(), 2);
        assert_eq!((blocks[0].label.as_str(), blocks[0].der.as_slice()), ("A", &b"one"[..]));
        assert_eq!((blocks[1].label.as_str(), blocks[1].der.len()), ("B", 100));
        assert!(!blocks[0].has_headers);
        let headed = "-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\n\nb25l\n-----END A-----\n";
        assert!(pem_blocks(headed)[0].has_headers);
        assert!(pem_blocks("-----BEGIN A-----\nb25l\n-----END B-----\n").is_empty(), "ends as another");
        assert!(pem_blocks("-----BEGIN A-----\n!!\n-----END A-----\n").is_empty(), "no base64");
        assert!(pem_blocks("-----BEGIN A-----\nb25l\n").is_empty(), "no end");
    }

    #[test]
    fn rubbish_is_no_certificate() {
        assert!(Certificate::parse(b"").is_err());
        assert!(Certificate::parse(&[0x30, 0x82, 0xff, 0xff]).is_err());
        assert!(CertificateRequest::parse(&[0x30, 0x03, 0x02, 0x01, 0x00]).is_err());
        assert_eq!(public_key_kind(b"x"), None);
    }
}
