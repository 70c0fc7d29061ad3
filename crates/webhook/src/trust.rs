//! Whom a connection trusts, and as whom it comes.

use std::sync::{Arc, LazyLock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig as TlsConfig, RootCertStore};

use crate::ClientConfig;

/// Where distributions keep the authorities that everybody trusts (Go's `crypto/x509/root_linux.go`).
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What of a configuration decides about TLS.
#[derive(PartialEq, Eq, Clone)]
pub(crate) struct Trust {
    ca_pem: Vec<u8>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Trust {
    pub fn of(config: &ClientConfig) -> Trust {
        Trust { ca_pem: config.ca_pem.clone(), identity: config.identity.clone() }
    }

    pub fn tls(&self) -> Result<TlsConfig, String> {
        let mut roots = RootCertStore::empty();
        if self.ca_pem.is_empty() {
            roots = SYSTEM.clone();
        } else {
            for cert in CertificateDer::pem_slice_iter(&self.ca_pem) {
                let cert = cert.map_err(|e| format!("unable to load root certificates: {e}"))?;
                roots.add(cert).map_err(|e| format!("unable to load root certificates: {e}"))?;
            }
            if roots.is_empty() {
                return Err("unable to load root certificates: unable to parse bytes as PEM block".into());
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = TlsConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|e| e.to_string())?.with_root_certificates(roots);
        let Some((cert, key)) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert).collect();
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| e.to_string())?;
        builder.with_client_auth_cert(chain.map_err(|e| e.to_string())?, key).map_err(|e| e.to_string())
    }
}

/// The system's authorities, read once; those that cannot be read are left out.
static SYSTEM: LazyLock<RootCertStore> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = SYSTEM_BUNDLES.iter().find_map(|path| std::fs::read(path).ok()) {
        let (_, _) = roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    }
    roots
});
