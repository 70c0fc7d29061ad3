//! Where a webhook is, and whom to trust there.

use std::path::Path;

use base64::Engine as _;
use corten_client::{Trust, kubeconfig};
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
    /// The certificate must be for this name; empty is the host's own.
    pub server_name: String,
}

impl ClientConfig {
    pub(crate) fn trust(&self) -> Trust {
        Trust { ca_pem: self.ca_pem.clone(), identity: self.identity.clone(), ..Trust::default() }
    }

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
        Ok(ClientConfig { target, ca_pem, ..ClientConfig::url("") })
    }

    /// A URL that the system's authorities vouch for.
    pub fn url(url: &str) -> ClientConfig {
        ClientConfig {
            target: Target::Url(url.to_owned()),
            ca_pem: Vec::new(),
            bearer: String::new(),
            identity: None,
            server_name: String::new(),
        }
    }

    /// The current context of a kubeconfig file (`apiserver/pkg/util/webhook/webhook.go`, `LoadKubeconfig`).
    ///
    /// # Errors
    /// If the file is of no use, or its server is not `https://`.
    pub fn from_kubeconfig(file: &Path) -> Result<ClientConfig, String> {
        let found = kubeconfig::load(&[file.to_owned()], "").map_err(|e| match e {
            kubeconfig::KubeconfigError::Missing => format!("kubeconfig {} does not exist", file.display()),
            other => other.to_string(),
        })?;
        if !found.server.starts_with("https://") {
            return Err(format!("kubeconfig {}: server {:?} is not https://host/path", file.display(), found.server));
        }
        let identity = (!found.cert_pem.is_empty()).then_some((found.cert_pem, found.key_pem));
        Ok(ClientConfig {
            ca_pem: found.ca_pem,
            bearer: found.token,
            identity,
            server_name: found.tls_server_name,
            ..ClientConfig::url(&found.server)
        })
    }
}
