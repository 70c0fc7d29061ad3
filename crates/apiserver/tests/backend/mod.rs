//! A server behind the API server: plain or with TLS, in this process.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use corten_base::OnStop;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::common::Fixture;

/// What a backend answers to a request and its body.
pub type Answer = dyn Fn(&Parts, &Bytes) -> Response<Full<Bytes>> + Send + Sync;

/// A certificate for some names, and the key.
#[allow(dead_code, reason = "each test file uses its part")]
pub struct Identity {
    pub cert_pem: String,
    pub tls: rustls::ServerConfig,
}

#[allow(dead_code, reason = "each test file uses its part")]
impl Identity {
    /// Signed by itself; clients must show a certificate of `client_ca_pem` if there is one.
    pub fn of(names: &[&str], client_ca_pem: Option<&str>) -> Identity {
        use rustls::pki_types::pem::PemObject as _;
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let cert = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match client_ca_pem {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
                let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let tls = builder.with_single_cert(vec![cert.der().clone()], key).unwrap();
        Identity { cert_pem: cert.pem(), tls }
    }
}

/// A running server, and what it was asked.
pub struct Backend {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Parts>>>,
}

/// An address of this machine that is not loopback: proxies lead to no other.
#[allow(dead_code, reason = "each test file uses its part")]
pub fn machine_ip() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // No packet is sent: this only looks for the route.
    socket.connect("198.51.100.1:9").expect("this test needs an address besides loopback");
    socket.local_addr().unwrap().ip()
}

#[allow(dead_code, reason = "each test file uses its part")]
impl Backend {
    /// Listens on a free port of an address. A request to upgrade gets an echo of bytes.
    pub async fn start(
        fixture: &Fixture,
        ip: IpAddr,
        tls: Option<rustls::ServerConfig>,
        answer: impl Fn(&Parts, &Bytes) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Backend {
        let acceptor = tls.map(|tls| tokio_rustls::TlsAcceptor::from(Arc::new(tls)));
        let listener = tokio::net::TcpListener::bind((ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, answer): (_, Arc<Answer>) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let (seen, tasks) = (asked.clone(), fixture.tasks.clone());
        fixture.tasks.spawn("backend", OnStop::Abort, async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (seen, answer, acceptor) = (seen.clone(), answer.clone(), acceptor.clone());
                let inner = tasks.clone();
                tasks.spawn("backend connection", OnStop::Abort, async move {
                    match acceptor {
                        None => serve(tcp, seen, answer, inner).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(tcp).await {
                                serve(stream, seen, answer, inner).await;
                            }
                        }
                    }
                });
            }
        });
        Backend { address, asked }
    }

    /// What it was asked since the last time.
    pub fn asked(&self) -> Vec<Parts> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    seen: Arc<Mutex<Vec<Parts>>>,
    answer: Arc<Answer>,
    tasks: corten_base::Tasks,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (seen, answer, tasks) = (seen.clone(), answer.clone(), tasks.clone());
        async move {
            if let Some(protocol) = request.headers().get("upgrade").cloned() {
                let upgrade = hyper::upgrade::on(&mut request);
                seen.lock().unwrap().push(request.into_parts().0);
                tasks.spawn("echo", OnStop::Abort, async move {
                    let Ok(upgraded) = upgrade.await else { return };
                    let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                });
                let mut response = Response::new(Full::new(Bytes::new()));
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
                response.headers_mut().insert("upgrade", protocol);
                return Ok(response);
            }
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let response = answer(&parts, &body);
            seen.lock().unwrap().push(parts);
            Ok::<_, hyper::Error>(response)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _ = connection.with_upgrades().await;
}
