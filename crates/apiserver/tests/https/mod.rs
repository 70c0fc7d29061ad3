//! A server that the API server asks something of: real HTTPS in this process.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use corten_base::OnStop;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;

use crate::common::Fixture;

/// What was asked.
#[derive(Debug, Clone)]
#[allow(dead_code, reason = "each test file uses its part")]
pub struct Asked {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// The code and the body of an answer; `None` never answers.
pub type Answer = Option<(u16, String)>;

/// The server.
#[allow(dead_code, reason = "each test file uses its part")]
pub struct Https {
    /// `https://localhost:PORT`
    pub url: String,
    /// PEM of its certificate, which vouches for itself.
    pub ca_pem: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

#[allow(dead_code, reason = "each test file uses its part")]
impl Https {
    /// Listens on a free port.
    pub async fn start(fixture: &Fixture, answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Https {
        Https::start_in(&fixture.tasks, answer).await
    }

    /// Listens on a free port for as long as a task tree lasts.
    pub async fn start_in(
        tasks: &corten_base::Tasks,
        answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Https {
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![cert.der().clone()],
                rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let (asked, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let (seen, inner) = (asked.clone(), tasks.clone());
        tasks.spawn("https server", OnStop::Abort, async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, seen, answer) = (acceptor.clone(), seen.clone(), answer.clone());
                inner.spawn("https connection", OnStop::Abort, async move {
                    let Ok(stream) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (seen, answer) = (seen.clone(), answer.clone());
                        async move {
                            let (parts, body) = request.into_parts();
                            let body = body.collect().await.unwrap().to_bytes();
                            let asked = Asked { path: parts.uri.path().into(), headers: parts.headers, body };
                            seen.lock().unwrap().push(asked.clone());
                            let Some((code, body)) = answer(&asked) else { return std::future::pending().await };
                            let mut response = Response::new(Full::new(Bytes::from(body)));
                            *response.status_mut() = code.try_into().unwrap();
                            Ok::<_, Infallible>(response)
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Https { url, ca_pem: cert.pem(), asked }
    }

    /// What was asked since the last time.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// A kubeconfig that leads here.
    pub fn kubeconfig(&self, path: &str) -> String {
        let ca = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &self.ca_pem);
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts:\n- name: c\n  context: {{cluster: c, user: u}}\n\
             clusters:\n- name: c\n  cluster: {{server: '{}{path}', certificate-authority-data: {ca}}}\n\
             users:\n- name: u\n  user: {{token: sesame}}\n",
            self.url
        )
    }
}
