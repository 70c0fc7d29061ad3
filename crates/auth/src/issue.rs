//! Certificates for requests that were approved (`pkg/controller/certificates/authority`).
//!
//! The certificate is put together here, because a request's subject, names and key go into it as they came: every group of a
//! user, every kind of key.

use corten_base::Timestamp;
use corten_kinds::x509::{Certificate, CertificateRequest, pem, pem_blocks};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};

/// How long before now a certificate begins, in seconds: clocks differ.
const BACKDATE_SECONDS: i64 = 300;
/// Certificates that live shorter live this much longer at the end, because the backdating matters for them, in seconds.
const SHORT_SECONDS: i64 = 8 * 3600;

/// Signs certificate requests with the cluster's CA.
pub struct Issuing {
    subject: Vec<u8>,
    key_id: Vec<u8>,
    not_after: i64,
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl Issuing {
    /// With the CA's certificate and its P-256 key in PKCS#8.
    ///
    /// # Errors
    /// One of them is of no use.
    pub fn new(ca_pem: &str, key_pkcs8: &[u8]) -> Result<Issuing, String> {
        let block = pem_blocks(ca_pem).into_iter().next().ok_or("the CA has no certificate")?;
        let certificate = Certificate::parse(&block.der)?;
        let random = SystemRandom::new();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key_pkcs8, &random).map_err(|e| e.to_string())?;
        let key_id = certificate.key_id.unwrap_or_default();
        Ok(Issuing { subject: certificate.subject, key_id, not_after: certificate.not_after, key, random })
    }

    /// The PEM of a certificate for a request (PKCS#10), with these usages (`client auth`, …), that lives for `seconds`.
    ///
    /// # Errors
    /// The request cannot be read, or its signature is wrong; a usage is not known.
    pub fn sign(&self, request: &[u8], usages: &[String], seconds: i64, now: Timestamp) -> Result<String, String> {
        let asked = CertificateRequest::parse(request)?;
        let (begin, mut end) = (now.as_second() - BACKDATE_SECONDS, now.as_second() + seconds);
        if seconds >= SHORT_SECONDS {
            end -= BACKDATE_SECONDS;
        }
        let end = end.min(self.not_after);
        let mut serial = [0; 16];
        self.random.fill(&mut serial).map_err(|_| "no random numbers")?;
        // Positive, and without leading zeros.
        serial[0] = serial[0] & 0x7f | 0x40;
        let algorithm = der(SEQUENCE, &der(OID, ECDSA_WITH_SHA256));
        let validity = [time(begin)?, time(end)?].concat();
        let body = [
            der(0xa0, &der(INTEGER, &[2])),
            der(INTEGER, &serial),
            algorithm.clone(),
            self.subject.clone(),
            der(SEQUENCE, &validity),
            asked.subject.clone(),
            asked.public_key.clone(),
            der(0xa3, &der(SEQUENCE, &self.extensions(&asked, usages)?)),
        ];
        let body = der(SEQUENCE, &body.concat());
        let signature = self.key.sign(&self.random, &body).map_err(|_| "signing failed")?;
        let signature = [&[0u8][..], signature.as_ref()].concat();
        let whole = der(SEQUENCE, &[body, algorithm, der(BIT_STRING, &signature)].concat());
        Ok(pem("CERTIFICATE", &whole))
    }

    fn extensions(&self, asked: &CertificateRequest, usages: &[String]) -> Result<Vec<u8>, String> {
        let mut bits: u16 = 0;
        let mut extended = Vec::new();
        for usage in usages {
            let (_, kind) = USAGES
                .iter()
                .find(|(name, _)| name == usage)
                .ok_or_else(|| format!("unrecognized usage values: [{usage:?}]"))?;
            match kind {
                Usage::Bit(bit) => bits |= 0x8000 >> bit,
                Usage::Extended(oid) => extended.extend(der(OID, oid)),
            }
        }
        let mut out = Vec::new();
        if bits != 0 {
            let bytes = bits.to_be_bytes();
            let used = if bytes[1] == 0 { &bytes[..1] } else { &bytes[..] };
            let unused = used[used.len() - 1].trailing_zeros() as u8;
            out.extend(extension(&[0x55, 0x1d, 0x0f], true, &der(BIT_STRING, &[&[unused][..], used].concat())));
        }
        if !extended.is_empty() {
            out.extend(extension(&[0x55, 0x1d, 0x25], false, &der(SEQUENCE, &extended)));
        }
        out.extend(extension(&[0x55, 0x1d, 0x13], true, &der(SEQUENCE, &[])));
        if !self.key_id.is_empty() {
            out.extend(extension(&[0x55, 0x1d, 0x23], false, &der(SEQUENCE, &der(0x80, &self.key_id))));
        }
        if let Some(names) = &asked.alt_names {
            out.extend(extension(&[0x55, 0x1d, 0x11], !asked.has_subject, names));
        }
        Ok(out)
    }
}

enum Usage {
    /// A bit of the key usage, counted from the first.
    Bit(u32),
    /// An extended usage.
    Extended(&'static [u8]),
}

/// `keyUsageDict` and `extKeyUsageDict` of `k8s.io/api/certificates/v1`, with X.509's numbers.
const USAGES: &[(&str, Usage)] = &[
    ("signing", Usage::Bit(0)),
    ("digital signature", Usage::Bit(0)),
    ("content commitment", Usage::Bit(1)),
    ("key encipherment", Usage::Bit(2)),
    ("data encipherment", Usage::Bit(3)),
    ("key agreement", Usage::Bit(4)),
    ("cert sign", Usage::Bit(5)),
    ("crl sign", Usage::Bit(6)),
    ("encipher only", Usage::Bit(7)),
    ("decipher only", Usage::Bit(8)),
    ("any", Usage::Extended(&[0x55, 0x1d, 0x25, 0x00])),
    ("server auth", Usage::Extended(&[0x2b, 6, 1, 5, 5, 7, 3, 1])),
    ("client auth", Usage::Extended(&[0x2b, 6, 1, 5, 5, 7, 3, 2])),
    ("code signing", Usage::Extended(&[0x2b, 6, 1, 5, 5, 7, 3, 3])),
    ("email protection", Usage::Extended(&[0x2b, 6, 1, 5, 5, 7, 3, 4])),
    ("s/mime", Usage::Extended(&[0x2b, 6, 1, 5, 5, 7, 3, 4])),
    ("ipsec end system", Usage::Extended(&[0x2b, 6, 1, 5, 5, 7, 3, 5])),
    ("ipsec tunnel", Usage::Extended(&[0x2b, 6, 1, 5, 5, 7, 3, 6])),
    ("ipsec user", Usage::Extended(&[0x2b, 6, 1, 5, 5, 7, 3, 7])),
    ("timestamping", Usage::Extended(&[0x2b, 6, 1, 5, 5, 7, 3, 8])),
    ("ocsp signing", Usage::Extended(&[0x2b, 6, 1, 5, 5, 7, 3, 9])),
    ("microsoft sgc", Usage::Extended(&[0x2b, 6, 1, 4, 1, 0x82, 0x37, 10, 3, 3])),
    ("netscape sgc", Usage::Extended(&[0x60, 0x86, 0x48, 1, 0x86, 0xf8, 0x42, 4, 1])),
];

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];

/// One DER value.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len();
    match length {
        0..=0x7f => out.push(length as u8),
        _ => {
            let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|b| *b == 0).collect();
            out.push(0x80 | bytes.len() as u8);
            out.extend(bytes);
        }
    }
    out.extend_from_slice(content);
    out
}

fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { der(0x01, &[0xff]) } else { Vec::new() };
    der(SEQUENCE, &[der(OID, oid), critical, der(OCTET_STRING, value)].concat())
}

/// Two digits of the year until 2049, four after.
fn time(second: i64) -> Result<Vec<u8>, String> {
    let at = Timestamp::from_second(second).map_err(|e| e.to_string())?;
    Ok(match at.to_zoned(jiff::tz::TimeZone::UTC).year() {
        1950..=2049 => der(UTC_TIME, at.strftime("%y%m%d%H%M%SZ").to_string().as_bytes()),
        _ => der(GENERALIZED_TIME, at.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Material, PkiNames, user_of_certificate};
    use rcgen::{CertificateParams, DnType, KeyPair};

    #[test]
    fn issued_certificate_is_for_the_request_and_names_the_user() {
        let dir = tempfile::tempdir().unwrap();
        let now: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
        let material = Material::load_or_create(dir.path(), &PkiNames::default(), now).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "dev");
        params.distinguished_name.push(DnType::CommonName, "jane");
        let request = params.serialize_request(&key).unwrap();
        let usages = ["digital signature".to_owned(), "client auth".to_owned()];
        let text = material.issuing.sign(request.der(), &usages, 3600, now).unwrap();
        let der = pem_blocks(&text).remove(0).der;
        let user = user_of_certificate(&der).unwrap();
        assert_eq!((user.name.as_str(), user.groups[0].as_str()), ("jane", "dev"));
        let read = Certificate::parse(&der).unwrap();
        assert_eq!((read.not_before, read.not_after), (now.as_second() - 300, now.as_second() + 3600));
        assert_eq!(read.names.dns, ["a.example"]);
        assert!(material.is_client(&[der.clone().into()], now), "the CA has signed it, for clients");
        let server = material.issuing.sign(request.der(), &["server auth".to_owned()], 3600, now).unwrap();
        let server = pem_blocks(&server).remove(0).der;
        assert!(!material.is_client(&[server.into()], now), "it is for servers only");
        let mut forged = request.der().to_vec();
        *forged.last_mut().unwrap() ^= 1;
        assert!(material.issuing.sign(&forged, &usages, 3600, now).is_err());
        assert!(material.issuing.sign(request.der(), &["flying".to_owned()], 3600, now).is_err());
        let long = material.issuing.sign(request.der(), &usages, 100 * 365 * 24 * 3600, now).unwrap();
        let end = Certificate::parse(&pem_blocks(&long).remove(0).der).unwrap().not_after;
        assert!(end < now.as_second() + 11 * 365 * 24 * 3600, "not longer than the CA");
    }
}
