//! What a load is, and what it gave: the words between the benchmark and the program that makes the load.
//!
//! The program is small, so that a release build of it needs neither the server nor its link. It is told a [`Job`] in a line on
//! standard input and prints a [`Sample`]; nodes it plays until its standard input closes.

mod fan;
mod follow;
mod hollow;
mod requests;
mod sample;

use anyhow::Result;
use corten_client::kubeconfig::Connection;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

pub use requests::Template;
pub use sample::{Sample, cpu_ticks, thousands};

/// A load on a server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Who is loaded.
    pub target: Target,
    /// With what.
    pub work: Work,
}

/// A server.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Target {
    /// `https://host:port`
    pub server: String,
    /// PEM of the certificate authority, and of the client's certificate and key.
    pub ca_pem: String,
    pub cert_pem: String,
    pub key_pem: String,
    /// Its processes, whose CPU is counted.
    pub processes: Vec<i32>,
}

/// What is done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Work {
    /// Clients side by side, each with a connection of its own, one request after the other.
    Requests {
        clients: usize,
        /// How long, before anything is counted.
        warm: Duration,
        until: Until,
        request: Template,
    },
    /// One writer, many watchers of the namespace.
    Fan { namespace: String, watchers: usize, writes: usize, pace: Pace },
    /// Nodes that pretend; there is no end to it, and no sample.
    Nodes,
    /// Watches a collection until so many objects have come to a state.
    Await { path: String, count: usize, state: State },
}

/// What an object has come to.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum State {
    /// A workload whose status says of this generation or a later one that so many replicas are there, new and available.
    Rolled { generation: i64, replicas: i64 },
    /// A Job that is complete.
    Complete,
}

/// When a load is over.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Until {
    /// After so long.
    Span(Duration),
    /// After so many requests.
    Count(u64),
}

/// How a writer writes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Pace {
    /// So many times a second.
    PerSecond(u32),
    /// The next write as soon as the last was answered.
    AtOnce,
}

impl Target {
    /// A server that is reached so, whose processes these are.
    pub fn new(connection: &Connection, processes: &[i32]) -> Target {
        let text = |pem: &[u8]| String::from_utf8_lossy(pem).into_owned();
        Target {
            server: connection.server.clone(),
            ca_pem: text(&connection.ca_pem),
            cert_pem: text(&connection.cert_pem),
            key_pem: text(&connection.key_pem),
            processes: processes.to_vec(),
        }
    }

    fn connection(&self) -> Connection {
        Connection {
            server: self.server.clone(),
            ca_pem: self.ca_pem.clone().into_bytes(),
            cert_pem: self.cert_pem.clone().into_bytes(),
            key_pem: self.key_pem.clone().into_bytes(),
            ..Connection::default()
        }
    }
}

/// Does a job.
///
/// # Errors
/// The first request that fails.
pub async fn run(job: &Job) -> Result<Sample> {
    let connection = job.target.connection();
    match &job.work {
        Work::Requests { clients, warm, until, request } => {
            requests::load(&connection, &job.target.processes, *clients, (*warm, *until), request).await
        }
        Work::Fan { namespace, watchers, writes, pace } => {
            let before = cpu_ticks(&job.target.processes);
            let mut sample = fan::fan_out(&connection, namespace, *watchers, *writes, *pace).await?;
            sample.ticks = cpu_ticks(&job.target.processes).saturating_sub(before);
            Ok(sample)
        }
        Work::Await { path, count, state } => {
            let began = Instant::now();
            follow::until(&connection, path, *count, *state).await?;
            Ok(Sample { span: began.elapsed(), ..Sample::default() })
        }
        Work::Nodes => hollow::play(&connection).await.map(|()| Sample::default()),
    }
}
