//! GETs against a running server: `load DIR ADDRESS CLIENTS SECONDS PATH` (DIR as `serve` or the data directory's certificates).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use corten_auth::{Material, PkiNames};
use corten_base::{Clock, OnStop, SystemClock, Tasks};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, dir, address, clients, seconds, path] = args.as_slice() else {
        return Err("usage: load DIR ADDRESS CLIENTS SECONDS PATH".into());
    };
    let (clients, seconds): (usize, u64) = (clients.parse()?, seconds.parse()?);
    let names = PkiNames { dns: Vec::new(), ips: vec!["10.43.0.1".parse()?], node_name: "local".into() };
    let material = Material::load_or_create(Path::new(dir), &names, SystemClock.now())?;
    // The agent's certificate, so that RBAC has something to decide.
    let tls = Arc::new(material.client_tls(Some(&material.kubelet))?);
    let tasks = Tasks::tokio();
    let (count, micros) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let end = Instant::now() + Duration::from_secs(seconds);
    let (done, mut all) = tokio::sync::mpsc::channel::<()>(1);
    for _ in 0..clients {
        let tcp = tokio::net::TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let stream = tokio_rustls::TlsConnector::from(tls.clone()).connect("localhost".try_into()?, tcp).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tasks.spawn("connection", OnStop::Abort, async move {
            let _ = connection.await;
        });
        let (count, micros, path, done) = (count.clone(), micros.clone(), path.clone(), done.clone());
        tasks.spawn("client", OnStop::Abort, async move {
            let _done = done;
            while Instant::now() < end {
                let began = Instant::now();
                let request = hyper::Request::get(&path).header("host", "localhost").body(Empty::<Bytes>::new());
                let request = request.expect("the path is well-formed");
                let Ok(response) = sender.send_request(request).await else { return };
                let ok = response.status().is_success();
                let _ = response.into_body().collect().await;
                if ok {
                    count.fetch_add(1, Ordering::Relaxed);
                    micros.fetch_add(began.elapsed().as_micros() as u64, Ordering::Relaxed);
                }
            }
        });
    }
    drop(done);
    let _ = all.recv().await;
    let n = count.load(Ordering::Relaxed);
    let mean = micros.load(Ordering::Relaxed) / n.max(1);
    println!("{clients} clients: {} GET/s, mean {mean} µs", n / seconds);
    Ok(())
}
