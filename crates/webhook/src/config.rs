//! Where a webhook is, and whom to trust there.

use base64::Engine as _;
use corten_tree::Tree;

/// Where a webhook listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `https://host[:port]/path`
    Url(String),
    /// A Service of the cluster.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The path of the request, may be empty.
        path: String,
        /// The Service's port.
        port: u16,
    },
}

/// The `clientConfig` of a webhook (`admissionregistration.k8s.io/v1 WebhookClientConfig`, and that of CRD conversion).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// Where it listens.
    pub target: Target,
    /// PEM of the authorities to trust; empty trusts those of the system.
    pub ca_pem: Vec<u8>,
    /// A bearer token to send; empty sends none.
    pub bearer: String,
    /// PEM of the certificate and the key to show, if any.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl ClientConfig {
    /// Reads a `clientConfig`.
    ///
    /// # Errors
    /// If it names neither a URL nor a Service, or its CA bundle is not base64.
    pub fn from_tree(config: &Tree) -> Result<ClientConfig, String> {
        let target = match (config.path("service"), config.str_at("url")) {
            (Some(service), _) => Target::Service {
                namespace: service.str_at("namespace").to_owned(),
                name: service.str_at("name").to_owned(),
                path: service.str_at("path").to_owned(),
                port: service.i64_at("port").and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0).unwrap_or(443),
            },
            (None, "") => return Err("webhook configuration must have either service or URL".into()),
            (None, url) => Target::Url(url.to_owned()),
        };
        let ca_pem = base64::engine::general_purpose::STANDARD
            .decode(config.str_at("caBundle"))
            .map_err(|e| format!("caBundle: {e}"))?;
        Ok(ClientConfig { target, ca_pem, bearer: String::new(), identity: None })
    }
}
