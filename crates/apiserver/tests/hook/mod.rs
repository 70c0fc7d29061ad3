//! A webhook server: real HTTPS in this process.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use bytes::Bytes;
use corten_base::OnStop;
use corten_tree::{Tree, json, tree};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;

use crate::common::Fixture;

/// A webhook server: what it was asked, and how it answers.
#[allow(dead_code, reason = "each test file uses its part")]
pub struct Hook {
    pub url: String,
    pub ca_bundle: String,
    asked: Arc<Mutex<Vec<Tree>>>,
}

#[allow(dead_code, reason = "each test file uses its part")]
impl Hook {
    /// Listens on a free port; `answer` makes the response of a request (without its uid).
    pub async fn start(fixture: &Fixture, answer: impl Fn(&Tree) -> Tree + Send + Sync + 'static) -> Hook {
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
        let ca_bundle = base64::engine::general_purpose::STANDARD.encode(cert.pem());
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
        let url = format!("https://localhost:{}/hook", listener.local_addr().unwrap().port());
        let (asked, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let (seen, tasks) = (asked.clone(), fixture.tasks.clone());
        fixture.tasks.spawn("webhook server", OnStop::Abort, async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, seen, answer) = (acceptor.clone(), seen.clone(), answer.clone());
                tasks.spawn("webhook connection", OnStop::Abort, async move {
                    let Ok(stream) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (seen, answer) = (seen.clone(), answer.clone());
                        async move {
                            let mut review =
                                json::parse(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
                            let question = review.remove("request").unwrap();
                            seen.lock().unwrap().push(question.clone());
                            let mut response = answer(&question);
                            if response.path("never").is_some() {
                                return std::future::pending().await;
                            }
                            response.insert("uid", question.str_at("uid"));
                            review.insert("response", response);
                            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(review.to_json()))))
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Hook { url, ca_bundle, asked }
    }

    pub fn asked(&self) -> Vec<Tree> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// A webhook of a configuration that asks this server about one resource.
    pub fn webhook(&self, name: &str, operations: Tree, resource: &str) -> Tree {
        tree!({
            "name": name,
            "clientConfig": {"url": (self.url.as_str()), "caBundle": (self.ca_bundle.as_str())},
            "rules": [{"operations": (operations), "apiGroups": ["*"], "apiVersions": ["*"], "resources": [resource]}],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"]
        })
    }
}
