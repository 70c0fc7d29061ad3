//! Whom a connection trusts, and as whom it comes.

use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig as TlsConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Where distributions keep the authorities that everybody trusts (Go's `crypto/x509/root_linux.go`).
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What decides about TLS.
#[derive(Debug, PartialEq, Eq, Clone, Default)]
pub struct Trust {
    /// PEM of the authorities to trust; empty trusts those of the system.
    pub ca_pem: Vec<u8>,
    /// PEM of the certificate and the key to show, if any.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Takes any certificate.
    pub insecure: bool,
    /// Trusts the system's authorities beside those of `ca_pem`.
    pub with_system: bool,
}

impl Trust {
    /// Trusts everybody and shows nothing, as probes do.
    pub fn anyone() -> Trust {
        Trust { insecure: true, ..Trust::default() }
    }

    /// The configuration of connections.
    ///
    /// # Errors
    /// If a certificate or key is malformed, in Go's words.
    pub fn tls(&self) -> Result<TlsConfig, String> {
        let mut roots = RootCertStore::empty();
        if self.ca_pem.is_empty() || self.with_system {
            roots = SYSTEM.clone();
        }
        if !self.ca_pem.is_empty() {
            for cert in CertificateDer::pem_slice_iter(&self.ca_pem) {
                let cert = cert.map_err(|e| format!("unable to load root certificates: {e}"))?;
                roots.add(cert).map_err(|e| format!("unable to load root certificates: {e}"))?;
            }
            if CertificateDer::pem_slice_iter(&self.ca_pem).next().is_none() {
                return Err("unable to load root certificates: unable to parse bytes as PEM block".into());
            }
        }
        let builder = TlsConfig::builder_with_provider(PROVIDER.clone()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|e| e.to_string())?;
        let builder = match self.insecure {
            true => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(PROVIDER.clone()))),
            false => builder.with_root_certificates(roots),
        };
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

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));

/// Believes that a server is whoever it says: what `insecureSkipTLSVerify` asks for. It still must hold its key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
