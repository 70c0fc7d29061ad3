//! The cluster's certificates and keys, made on the first start and kept in files that only their owner may read.

use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use corten_base::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::{Issuing, TokenSigner};

/// How long the CA is valid, in years.
const CA_YEARS: i32 = 10;
/// How long the certificates below it are valid, in years.
const LEAF_YEARS: i32 = 1;
/// A certificate that ends within this many days is made anew at a start.
const RENEW_DAYS: i64 = 90;

/// Why certificates could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {detail}; move the file away to have it made anew", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A certificate could not be made.
    #[error("making the certificate {name}: {detail}")]
    Make {
        /// Which.
        name: &'static str,
        /// Why.
        detail: String,
    },
    /// The certificates do not fit TLS.
    #[error("TLS: {0}")]
    Tls(String),
}

/// What the server is called.
#[derive(Debug, Clone, Default)]
pub struct PkiNames {
    /// The machine's host name and what else clients may call the server by. The names of the `kubernetes` Service and
    /// `localhost` need not be listed.
    pub dns: Vec<String>,
    /// The addresses: the Service's, the node's. Loopback needs not be listed.
    pub ips: Vec<IpAddr>,
    /// The node, for the agent's certificate.
    pub node_name: String,
}

/// A certificate and its key.
#[derive(Clone)]
pub struct SignedPair {
    /// The certificate.
    pub cert_pem: String,
    /// The private key (PKCS#8).
    pub key_pem: String,
}

/// Everything that proves the cluster's identity.
#[derive(Clone)]
pub struct Material {
    /// The CA's certificate: clients trust it.
    pub ca_cert_pem: String,
    /// The server's own certificate.
    pub server: SignedPair,
    /// The administrator's: user `system:admin` in group `system:masters`.
    pub admin: SignedPair,
    /// The node agent's: user `system:node:NAME` in group `system:nodes`. It serves as server certificate, too.
    pub kubelet: SignedPair,
    /// Signs and verifies service account tokens.
    pub signer: Arc<TokenSigner>,
    /// Signs certificate requests.
    pub issuing: Arc<Issuing>,
    /// The certificate of the CA that vouches for the front proxy, and only for it.
    pub proxy_ca_pem: String,
    /// What this server shows to the API servers that it passes requests on to.
    pub proxy_client: SignedPair,
    clients: Arc<dyn ClientCertVerifier>,
    proxies: Arc<dyn ClientCertVerifier>,
}

/// The common name of the front proxy's certificate.
pub const PROXY_NAME: &str = "front-proxy-client";

impl Material {
    /// Loads the files of `dir`, and makes those that are missing, about to end, or not for `names`.
    pub fn load_or_create(dir: &Path, names: &PkiNames, now: Timestamp) -> Result<Material, PkiError> {
        std::fs::create_dir_all(dir).map_err(|source| PkiError::File { path: dir.into(), source })?;
        let ca = Ca::load_or_create(dir, "ca", "corten-ca", now)?;
        let server = ca.leaf(
            dir,
            &Leaf { file: "server", common_name: "kube-apiserver", organization: None, sans: server_sans(names) },
            now,
        )?;
        let admin = Leaf {
            file: "admin",
            common_name: "system:admin",
            organization: Some(crate::group::MASTERS),
            sans: Vec::new(),
        };
        let admin = ca.leaf(dir, &admin, now)?;
        let kubelet = Leaf {
            file: "kubelet",
            common_name: &format!("system:node:{}", names.node_name),
            organization: Some(crate::group::NODES),
            sans: node_sans(names),
        };
        let kubelet = ca.leaf(dir, &kubelet, now)?;
        let key_path = dir.join("service-account.key");
        let key_pem = match read(&key_path)? {
            Some(pem) => pem,
            None => {
                let pem = generate("service-account")?.serialize_pem();
                write_private(&key_path, &pem)?;
                pem
            }
        };
        let signer = TokenSigner::from_pem(&key_pem, crate::DEFAULT_ISSUER)
            .map_err(|e| PkiError::Content { path: key_path, detail: e.to_string() })?;
        let issuing = Issuing::new(&ca.cert_pem, ca.issuer.key().serialized_der())
            .map_err(|detail| PkiError::Content { path: dir.join("ca.key"), detail })?;
        let proxy_ca = Ca::load_or_create(dir, "front-proxy-ca", "corten-front-proxy-ca", now)?;
        let proxy = Leaf { file: "front-proxy-client", common_name: PROXY_NAME, organization: None, sans: Vec::new() };
        let proxy_client = proxy_ca.leaf(dir, &proxy, now)?;
        Ok(Material {
            clients: verifier(&[&ca.cert_pem])?,
            proxies: verifier(&[&proxy_ca.cert_pem])?,
            ca_cert_pem: ca.cert_pem,
            server,
            admin,
            kubelet,
            signer: Arc::new(signer),
            issuing: Arc::new(issuing),
            proxy_ca_pem: proxy_ca.cert_pem,
            proxy_client,
        })
    }

    /// Whether a client's chain of certificates is one of the clients' CA.
    pub fn is_client(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> bool {
        verified(&*self.clients, chain, now)
    }

    /// Whether a client's chain of certificates is one of the front proxy's CA.
    pub fn is_proxy(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> bool {
        verified(&*self.proxies, chain, now)
    }

    /// TLS for the API server: HTTP/2 and HTTP/1.1, client certificates asked for but not needed.
    pub fn server_tls(&self) -> Result<rustls::ServerConfig, PkiError> {
        let tls = |e: &dyn std::fmt::Display| PkiError::Tls(e.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = verifier(&[&self.ca_cert_pem, &self.proxy_ca_pem])?;
        let key = PrivateKeyDer::from_pem_slice(self.server.key_pem.as_bytes()).map_err(|e| tls(&e))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| tls(&e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certs(&self.server.cert_pem)?, key)
            .map_err(|e| tls(&e))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// TLS for a client of this cluster with the given certificate.
    pub fn client_tls(&self, identity: Option<&SignedPair>) -> Result<rustls::ClientConfig, PkiError> {
        let tls = |e: &dyn std::fmt::Display| PkiError::Tls(e.to_string());
        let mut roots = RootCertStore::empty();
        for cert in certs(&self.ca_cert_pem)? {
            roots.add(cert).map_err(|e| tls(&e))?;
        }
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| tls(&e))?
            .with_root_certificates(roots);
        match identity {
            None => Ok(builder.with_no_client_auth()),
            Some(pair) => {
                let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).map_err(|e| tls(&e))?;
                builder.with_client_auth_cert(certs(&pair.cert_pem)?, key).map_err(|e| tls(&e))
            }
        }
    }
}

fn certs(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|e| PkiError::Tls(e.to_string()))
}

/// Checks client certificates against the CAs in some PEM texts.
fn verifier(pems: &[&str]) -> Result<Arc<dyn ClientCertVerifier>, PkiError> {
    let tls = |e: &dyn std::fmt::Display| PkiError::Tls(e.to_string());
    let mut roots = RootCertStore::empty();
    for cert in pems.iter().map(|pem| certs(pem)).collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
        roots.add(cert).map_err(|e| tls(&e))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|e| tls(&e))
}

fn verified(verifier: &dyn ClientCertVerifier, chain: &[CertificateDer<'_>], now: Timestamp) -> bool {
    let Some((first, rest)) = chain.split_first() else { return false };
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.as_second().unsigned_abs()));
    verifier.verify_client_cert(first, rest, now).is_ok()
}

fn server_sans(names: &PkiNames) -> Vec<String> {
    let fixed = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        "::1",
    ];
    let mut sans: Vec<String> = fixed.iter().map(|s| (*s).to_owned()).collect();
    sans.extend(names.dns.iter().filter(|n| !n.is_empty()).cloned());
    sans.extend(names.ips.iter().map(ToString::to_string));
    sans.sort();
    sans.dedup();
    sans
}

fn node_sans(names: &PkiNames) -> Vec<String> {
    let mut sans = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    sans.extend((!names.node_name.is_empty()).then(|| names.node_name.clone()));
    sans.sort();
    sans.dedup();
    sans
}

/// The certificate authority.
struct Ca {
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate below the CA should say.
struct Leaf<'a> {
    file: &'static str,
    common_name: &'a str,
    organization: Option<&'a str>,
    sans: Vec<String>,
}

impl Ca {
    fn load_or_create(dir: &Path, file: &'static str, name: &str, now: Timestamp) -> Result<Ca, PkiError> {
        let (cert_path, key_path) = (dir.join(format!("{file}.crt")), dir.join(format!("{file}.key")));
        let pems = read(&cert_path)?.zip(read(&key_path)?);
        let (cert_pem, key) = match pems {
            Some((cert_pem, key_pem)) => (cert_pem, parse_key(&key_path, &key_pem)?),
            None => {
                let key = generate(file)?;
                let mut params = CertificateParams::default();
                params.distinguished_name = subject(name, None);
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.key_usages = vec![
                    KeyUsagePurpose::DigitalSignature,
                    KeyUsagePurpose::KeyEncipherment,
                    KeyUsagePurpose::KeyCertSign,
                ];
                validity(&mut params, now, CA_YEARS);
                let cert = params.self_signed(&key).map_err(|e| make(file, e))?;
                write_private(&key_path, &key.serialize_pem())?;
                write_private(&cert_path, &cert.pem())?;
                (cert.pem(), key)
            }
        };
        let issuer = Issuer::from_ca_cert_pem(&cert_pem, key)
            .map_err(|e| PkiError::Content { path: cert_path, detail: e.to_string() })?;
        Ok(Ca { cert_pem, issuer })
    }

    /// The kept pair, if it still says what it should; else a new one.
    fn leaf(&self, dir: &Path, leaf: &Leaf<'_>, now: Timestamp) -> Result<SignedPair, PkiError> {
        let cert_path = dir.join(format!("{}.crt", leaf.file));
        let key_path = dir.join(format!("{}.key", leaf.file));
        if let Some((cert_pem, key_pem)) = read(&cert_path)?.zip(read(&key_path)?)
            && still_good(&cert_pem, leaf, now)
            && KeyPair::from_pem(&key_pem).is_ok()
        {
            return Ok(SignedPair { cert_pem, key_pem });
        }
        let key = generate(leaf.file)?;
        let mut params = CertificateParams::new(leaf.sans.clone()).map_err(|e| make(leaf.file, e))?;
        params.distinguished_name = subject(leaf.common_name, leaf.organization);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = match leaf.sans.is_empty() {
            true => vec![ExtendedKeyUsagePurpose::ClientAuth],
            false => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        validity(&mut params, now, LEAF_YEARS);
        let cert = params.signed_by(&key, &self.issuer).map_err(|e| make(leaf.file, e))?;
        let pair = SignedPair { cert_pem: cert.pem(), key_pem: key.serialize_pem() };
        write_private(&key_path, &pair.key_pem)?;
        write_private(&cert_path, &pair.cert_pem)?;
        Ok(pair)
    }
}

fn make(name: &'static str, error: rcgen::Error) -> PkiError {
    PkiError::Make { name, detail: error.to_string() }
}

fn generate(name: &'static str) -> Result<KeyPair, PkiError> {
    KeyPair::generate().map_err(|e| make(name, e))
}

fn parse_key(path: &Path, pem: &str) -> Result<KeyPair, PkiError> {
    KeyPair::from_pem(pem).map_err(|e| PkiError::Content { path: path.into(), detail: e.to_string() })
}

fn subject(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

/// From yesterday (clocks differ) for `years`.
fn validity(params: &mut CertificateParams, now: Timestamp, years: i32) {
    let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
    let start = today.yesterday().unwrap_or(today);
    let day = |d: jiff::civil::Date, years: i32| {
        // The 29th of February has no anniversary in most years.
        rcgen::date_time_ymd(i32::from(d.year()) + years, d.month().unsigned_abs(), d.day().unsigned_abs().min(28))
    };
    params.not_before = day(start, 0);
    params.not_after = day(start, years);
}

fn still_good(cert_pem: &str, leaf: &Leaf<'_>, now: Timestamp) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(cert_pem.as_bytes()) else { return false };
    let Ok((_, cert)) = X509Certificate::from_der(&der) else { return false };
    let lasts = cert.validity().not_after.timestamp() - now.as_second() > RENEW_DAYS * 24 * 3600;
    let named = cert.subject().iter_common_name().any(|cn| cn.as_str() == Ok(leaf.common_name));
    let mut sans: Vec<String> = cert
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|ext| ext.value.general_names.iter().filter_map(san_text).collect())
        .unwrap_or_default();
    sans.sort();
    let mut wanted: Vec<String> =
        leaf.sans.iter().map(|s| s.parse::<IpAddr>().map_or(s.clone(), |ip| ip.to_string())).collect();
    wanted.sort();
    lasts && named && sans == wanted
}

fn san_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            _ => None,
        },
        _ => None,
    }
}

pub(crate) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File { path: path.into(), source }),
    }
}

/// Writes beside and renames, so that a crash leaves the old file or the new one.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), PkiError> {
    let beside = path.with_extension("new");
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(|source| PkiError::File { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let now: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
        let mut names =
            PkiNames { dns: vec!["box".into()], ips: vec!["10.43.0.1".parse().unwrap()], node_name: "n".into() };
        let first = Material::load_or_create(dir.path(), &names, now).unwrap();
        let again = Material::load_or_create(dir.path(), &names, now).unwrap();
        assert_eq!(first.server.cert_pem, again.server.cert_pem);
        assert_eq!(first.signer.key_id(), again.signer.key_id());
        for file in std::fs::read_dir(dir.path()).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        names.ips.push("192.0.2.7".parse().unwrap());
        let moved = Material::load_or_create(dir.path(), &names, now).unwrap();
        assert_ne!(moved.server.cert_pem, first.server.cert_pem, "a new address needs a new certificate");
        assert_eq!(moved.admin.cert_pem, first.admin.cert_pem);
        let later: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
        let renewed = Material::load_or_create(dir.path(), &names, later).unwrap();
        assert_ne!(renewed.admin.cert_pem, first.admin.cert_pem, "it would have ended within 90 days");
        assert_eq!(renewed.ca_cert_pem, first.ca_cert_pem);
        renewed.server_tls().unwrap();
        let der = CertificateDer::from_pem_slice(renewed.kubelet.cert_pem.as_bytes()).unwrap();
        let user = crate::user_of_certificate(&der).unwrap();
        assert_eq!(user.node_name(), Some("n"));
    }
}
