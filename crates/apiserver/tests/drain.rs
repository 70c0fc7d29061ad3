//! The graceful stop (`apiserver/pkg/server/genericapiserver.go`): what is being answered is answered, watches end, nobody new
//! comes in, and readiness says so first.
#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::Fixture;
use corten_base::{OnStop, Tasks};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Frame;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};

type Sent = BoxBody<Bytes, std::convert::Infallible>;

/// A connection that does not end with the server's tasks.
struct Outside {
    tls: Arc<rustls::ClientConfig>,
    address: std::net::SocketAddr,
    tasks: Tasks,
}

impl Outside {
    fn new(fixture: &Fixture) -> Outside {
        let tls = Arc::new(fixture.material.client_tls(Some(&fixture.material.admin)).unwrap());
        Outside { tls, address: fixture.server.addresses()[0], tasks: Tasks::tokio() }
    }

    async fn stream(&self) -> std::io::Result<TokioIo<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>> {
        let tcp = tokio::net::TcpStream::connect(self.address).await?;
        let connector = tokio_rustls::TlsConnector::from(self.tls.clone());
        connector.connect("localhost".try_into().unwrap(), tcp).await.map(TokioIo::new)
    }

    async fn http1(&self) -> hyper::client::conn::http1::SendRequest<Sent> {
        let (sender, connection) = hyper::client::conn::http1::handshake(self.stream().await.unwrap()).await.unwrap();
        self.tasks.spawn("http1", OnStop::Abort, async move {
            let _ = connection.await;
        });
        sender
    }

    async fn http2(&self) -> hyper::client::conn::http2::SendRequest<Sent> {
        let stream = self.stream().await.unwrap();
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        self.tasks.spawn("http2", OnStop::Abort, async move {
            let _ = connection.await;
        });
        sender
    }
}

fn request(method: Method, path: &str, body: Sent) -> Request<Sent> {
    let request = Request::builder().method(method).uri(format!("https://localhost{path}"));
    request.header("host", "localhost").header("content-type", "application/json").body(body).unwrap()
}

fn get(path: &str) -> Request<Sent> {
    request(Method::GET, path, Empty::new().boxed())
}

async fn text(response: Response<hyper::body::Incoming>) -> (u16, String) {
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8_lossy(&bytes).into_owned())
}

/// A body that comes in two parts; the second one when it is sent.
fn in_parts() -> (Sent, tokio::sync::mpsc::Sender<Bytes>) {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let frames = futures::stream::unfold(receiver, |mut receiver| async move {
        let bytes = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(Frame::data(bytes)), receiver))
    });
    (StreamBody::new(frames).boxed(), sender)
}

#[tokio::test]
async fn readyz_fails_by_the_shutdown_check_while_all_else_goes_on() {
    let fixture = Fixture::start().await;
    let outside = Outside::new(&fixture);
    let mut client = outside.http1().await;
    assert_eq!(text(client.send_request(get("/readyz")).await.unwrap()).await, (200, "ok".into()));
    fixture.server.begin_shutdown();
    let (code, body) = text(client.send_request(get("/readyz")).await.unwrap()).await;
    assert_eq!(code, 500);
    assert!(body.contains("[-]shutdown failed: reason withheld\n"), "{body}");
    assert!(body.ends_with("readyz check failed\n"), "{body}");
    assert_eq!(text(client.send_request(get("/livez")).await.unwrap()).await, (200, "ok".into()));
    assert_eq!(client.send_request(get("/api/v1/namespaces")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn graceful_drain_answers_what_is_in_flight_and_ends_watches() {
    let fixture = Fixture::start().await;
    let outside = Outside::new(&fixture);
    let (mut first, mut second) = (outside.http1().await, outside.http2().await);
    let mut third = outside.http1().await;
    // A read that waits for three seconds, a watch, and writes whose bodies are still on their way.
    let slow = second.clone().send_request(get("/api/v1/namespaces?resourceVersion=999999"));
    let watch = third.send_request(get("/api/v1/namespaces?watch=1")).await.unwrap();
    let mut seen = watch.into_body();
    seen.frame().await.unwrap().unwrap();
    let maps = "/api/v1/namespaces/default/configmaps";
    let object =
        |name: &str| format!("{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"{name}\"}}}}");
    let (bodies, senders): (Vec<_>, Vec<_>) = [in_parts(), in_parts()].into_iter().unzip();
    let [one, two]: [Sent; 2] = bodies.try_into().unwrap_or_else(|_| unreachable!("there are two"));
    for (sender, name) in senders.iter().zip(["one", "two"]) {
        sender.send(Bytes::from(object(name)[..20].to_owned())).await.unwrap();
    }
    let one = first.send_request(request(Method::POST, maps, one));
    let two = second.send_request(request(Method::POST, maps, two));
    let finish = async {
        // All of them are there: the server counts them.
        let mut asking = outside.http1().await;
        loop {
            let (_, metrics) = text(asking.send_request(get("/metrics")).await.unwrap()).await;
            if metrics.contains("apiserver_current_inflight_requests{request_kind=\"mutating\"} 2\n") {
                break;
            }
            tokio::task::yield_now().await;
        }
        fixture.tasks.begin_stop();
        // Nobody new comes in.
        while outside.stream().await.is_ok() {
            tokio::task::yield_now().await;
        }
        // An idle connection is closed.
        while asking.ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
        // The watch ends as one that has run out, not as one that broke.
        while let Some(frame) = seen.frame().await {
            frame.unwrap();
        }
        for (sender, name) in senders.into_iter().zip(["one", "two"]) {
            sender.send(Bytes::from(object(name)[20..].to_owned())).await.unwrap();
        }
    };
    let (slow, one, two, ()) = futures::future::join4(slow, one, two, finish).await;
    assert_eq!(slow.unwrap().status(), 504);
    for (answer, name) in [(one, "one"), (two, "two")] {
        let (code, body) = text(answer.unwrap()).await;
        assert_eq!(code, 201, "{body}");
        assert!(body.contains(&format!("\"name\":\"{name}\"")), "{body}");
    }
    assert!(fixture.tasks.stop(Duration::from_secs(10)).await, "all have ended");
}
