//! Connections to ports inside a pod.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use corten_object::Status;

/// Connects to a port on the pod's loopback, from inside its network namespace (`None`: the host's).
pub async fn connect(netns: Option<PathBuf>, port: u16) -> Result<tokio::net::TcpStream, Status> {
    let dial = move || -> std::io::Result<TcpStream> {
        let limit = Duration::from_secs(10);
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        TcpStream::connect_timeout(&v4, limit)
            .or_else(|first| TcpStream::connect_timeout(&v6, limit).map_err(|_| first))
    };
    let dialled = tokio::task::spawn_blocking(move || match netns {
        Some(path) => corten_net::netns::run_in(&path, dial),
        None => dial(),
    });
    let stream = dialled.await.map_err(Status::internal)?.map_err(|error| {
        Status::internal(format!("failed to connect to localhost:{port} inside the pod's namespace: {error}"))
    })?;
    stream.set_nonblocking(true).map_err(Status::internal)?;
    tokio::net::TcpStream::from_std(stream).map_err(Status::internal)
}
