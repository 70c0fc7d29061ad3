//! `grpc.health.v1.Health/Check` over plain HTTP/2 (`pkg/probe/grpc`).

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{HeaderMap, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::{Answer, OUTPUT_MAX, address, dial, drive};
use crate::pod::image::go_duration;

/// A server that does not answer yet is called again after so long, as gRPC's clients do.
const REDIAL: Duration = Duration::from_secs(1);
/// The names of gRPC's codes.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
const UNIMPLEMENTED: usize = 12;
const UNAVAILABLE: usize = 14;

/// What a call came to.
struct Reply {
    code: usize,
    message: String,
    body: Bytes,
}

pub(super) async fn probe(host: &str, port: u16, service: &str, timeout: Duration) -> Answer {
    let (address, limit) = (address(host, port), tokio::time::sleep(timeout));
    tokio::pin!(limit);
    let stream = tokio::select! {
        stream = connect(&address) => stream,
        () = &mut limit => {
            let within = go_duration(timeout);
            return Answer::Failure(format!(
                "timeout: failed to connect service {address:?} within {within}: context deadline exceeded"
            ));
        }
    };
    let reply = tokio::select! {
        reply = call(stream, &address, service) => reply,
        () = &mut limit => {
            return Answer::Failure(format!("timeout: health rpc did not complete within {}", go_duration(timeout)));
        }
    };
    judge(reply.unwrap_or_else(|message| Reply { code: UNAVAILABLE, message, body: Bytes::new() }))
}

fn judge(reply: Reply) -> Answer {
    let Reply { code, message, body } = reply;
    match code {
        0 => {}
        UNIMPLEMENTED => {
            return Answer::Failure(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
            ));
        }
        _ => {
            let name = CODES.get(code).map_or_else(|| format!("Code({code})"), |name| (*name).to_owned());
            return Answer::Failure(format!(
                "error: health rpc probe failed: rpc error: code = {name} desc = {message}"
            ));
        }
    }
    // The status is field 1, a varint; zero is left out.
    let status = match body.get(5..7) {
        Some([0x08, 1]) => return Answer::Success,
        Some([0x08, 2]) => "NOT_SERVING",
        Some([0x08, 3]) => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    };
    Answer::Failure(format!("service unhealthy (responded with {status:?})"))
}

async fn connect(address: &str) -> TcpStream {
    loop {
        match dial(address).await {
            Ok(stream) => return stream,
            Err(_) => tokio::time::sleep(REDIAL).await,
        }
    }
}

async fn call(stream: TcpStream, address: &str, service: &str) -> Result<Reply, String> {
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37")
        .body(Full::new(request(service)))
        .map_err(|e| e.to_string())?;
    let reply = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let early = response.headers().clone();
        let collected = Limited::new(response.into_body(), OUTPUT_MAX).collect().await.map_err(|e| e.to_string())?;
        let headers = if early.contains_key("grpc-status") { Some(&early) } else { collected.trailers() };
        let (code, message) = headers.map_or((2, String::new()), status);
        Ok(Reply { code, message, body: collected.to_bytes() })
    };
    drive(connection, reply).await
}

/// A framed `HealthCheckRequest`.
fn request(service: &str) -> Bytes {
    let mut body = Vec::new();
    if !service.is_empty() {
        body.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            body.push(length as u8 | 0x80);
            length >>= 7;
        }
        body.push(length as u8);
        body.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&(body.len() as u32).to_be_bytes());
    framed.extend_from_slice(&body);
    framed.into()
}

fn status(headers: &HeaderMap) -> (usize, String) {
    let text = |name: &str| headers.get(name).map(|value| value.as_bytes()).unwrap_or_default();
    let code = std::str::from_utf8(text("grpc-status")).ok().and_then(|code| code.parse().ok()).unwrap_or(2);
    (code, percent_encoding::percent_decode(text("grpc-message")).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use corten_base::Tasks;
    use hyper::Response;
    use tokio::net::TcpListener;

    use super::super::tests::{SECOND, server};
    use super::*;

    #[tokio::test]
    async fn grpc_probe_asks_for_its_service_and_reads_the_answer() {
        let tasks = Tasks::tokio();
        let (port, seen) = server(&tasks, true, |_, body| {
            let (code, message, body): (_, _, &'static [u8]) = match body {
                [0, 0, 0, 0, 0] => ("0", "", &[0, 0, 0, 0, 2, 8, 1]),
                b"\0\0\0\0\x06\x0a\x04down" => ("0", "", &[0, 0, 0, 0, 2, 8, 2]),
                b"\0\0\0\0\x05\x0a\x03new" => ("0", "", &[0, 0, 0, 0, 0]),
                b"\0\0\0\0\x05\x0a\x03old" => ("12", "no%20health", b""),
                _ => ("5", "unknown service", b""),
            };
            let answer = Response::builder().header("grpc-status", code).header("grpc-message", message);
            answer.body(Full::from(body)).unwrap()
        })
        .await;
        assert_eq!(probe("127.0.0.1", port, "", SECOND).await, Answer::Success);
        for (service, text) in [
            ("down", "service unhealthy (responded with \"NOT_SERVING\")"),
            ("new", "service unhealthy (responded with \"UNKNOWN\")"),
            (
                "old",
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): no health",
            ),
            ("none", "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service"),
            (&"n".repeat(200), "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service"),
        ] {
            assert_eq!(probe("127.0.0.1", port, service, SECOND).await, Answer::Failure(text.into()));
        }
        let (path, headers, _) = seen.lock().unwrap()[0].clone();
        assert_eq!(
            (path.as_str(), headers["content-type"].as_bytes()),
            ("/grpc.health.v1.Health/Check", &b"application/grpc"[..])
        );
        assert_eq!(&seen.lock().unwrap().last().unwrap().2[..8], b"\0\0\0\0\xcb\x0a\xc8\x01");
    }

    #[tokio::test]
    async fn grpc_probe_waits_for_a_server_that_is_not_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let silent = probe("127.0.0.1", port, "", Duration::from_millis(50)).await;
        assert_eq!(silent, Answer::Failure("timeout: health rpc did not complete within 50ms".into()));
        drop(listener);
        let text =
            format!("timeout: failed to connect service \"127.0.0.1:{port}\" within 50ms: context deadline exceeded");
        assert_eq!(probe("127.0.0.1", port, "", Duration::from_millis(50)).await, Answer::Failure(text));
    }
}
