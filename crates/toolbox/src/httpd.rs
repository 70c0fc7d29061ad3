//! The demo web server: answers every request with its hostname and version.
//!
//! On SIGTERM it goes on serving for the drain time, closing each connection after its answer, so that a rolling update
//! drops no request that was under way to it.

use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use corten_base::{Clock as _, OnStop, SystemClock, Tasks};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::plain::host_name;
use crate::{Failure, Outcome, option};

struct Site {
    host: String,
    version: String,
    draining: AtomicBool,
    log: Option<Mutex<std::fs::File>>,
}

pub(crate) async fn serve(mut args: Vec<String>) -> Outcome {
    let port = option(&mut args, &["-p", "--port"])?.unwrap_or_else(|| "8080".into());
    let port: u16 = port.parse().map_err(|_| Failure::Usage)?;
    let version =
        option(&mut args, &["--version"])?.or_else(|| std::env::var("VERSION").ok()).unwrap_or_else(|| "v1".into());
    let drain: u64 = option(&mut args, &["--drain"])?.map_or(Ok(3), |d| d.parse()).map_err(|_| Failure::Usage)?;
    let log = match option(&mut args, &["--log"])? {
        Some(path) => Some(Mutex::new(OpenOptions::new().create(true).append(true).open(path)?)),
        None => None,
    };
    if !args.is_empty() {
        return Err(Failure::Usage);
    }
    let site = Arc::new(Site { host: host_name(), version, draining: AtomicBool::new(false), log });
    site.note(&format!("{} {} listens on port {port}", site.host, site.version));
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    let tasks = Tasks::tokio();
    let accept = accept(listener, site.clone(), tasks.clone());
    let end = async {
        signal(SignalKind::terminate())?.recv().await;
        site.note("draining");
        site.draining.store(true, Ordering::Release);
        SystemClock.sleep(Duration::from_secs(drain)).await;
        Ok::<(), std::io::Error>(())
    };
    tokio::select! {
        outcome = accept => outcome?,
        outcome = end => outcome?,
    }
    tasks.stop(Duration::from_secs(5)).await;
    Ok(0)
}

async fn accept(listener: TcpListener, site: Arc<Site>, tasks: Tasks) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let (site, stopping) = (site.clone(), tasks.stopping());
        tasks.spawn("connection", OnStop::Drain, async move {
            let service = service_fn(move |request| answer(site.clone(), request));
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            // A broken connection is the client's affair.
            tokio::select! {
                _ = connection.as_mut() => {}
                () = stopping => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
        });
    }
}

async fn answer(site: Arc<Site>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    site.note(&format!("{} {}", request.method(), request.uri()));
    let mut response = Response::new(Full::from(format!("{} {}\n", site.host, site.version)));
    if site.draining.load(Ordering::Acquire) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

impl Site {
    /// Writes a line to the log file, or to stdout without one.
    fn note(&self, line: &str) {
        let line = format!("{} {line}\n", SystemClock.now().strftime("%Y-%m-%dT%H:%M:%SZ"));
        // A full disk must not stop the server.
        let _ = match &self.log {
            Some(file) => file.lock().unwrap_or_else(|p| p.into_inner()).write_all(line.as_bytes()),
            None => std::io::stdout().write_all(line.as_bytes()),
        };
    }
}
