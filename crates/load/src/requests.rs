//! Clients side by side, each with a connection of its own, one request after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use corten_base::{Clock as _, OnStop, SystemClock, Tasks};
use corten_client::kubeconfig::Connection;
use corten_client::{HttpClient, http};
use futures::StreamExt as _;
use hyper::Method;
use serde::{Deserialize, Serialize};

use crate::Until;
use crate::sample::{Sample, cpu_ticks};

/// A request, in whose path and body `{client}` stands for the client's number and `{n}` for a number that no other request of
/// the load has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Template {
    /// `GET`
    pub method: String,
    pub path: String,
    /// Of the body, if there is one.
    pub content_type: String,
    pub accept: String,
    pub body: String,
}

impl Template {
    /// A read, answered in JSON.
    pub fn get(path: impl Into<String>) -> Template {
        let json = || "application/json".to_owned();
        let (path, body) = (path.into(), String::new());
        Template { method: "GET".into(), path, content_type: json(), accept: json(), body }
    }

    /// A create with a JSON body.
    pub fn post(path: impl Into<String>, body: impl Into<String>) -> Template {
        Template { method: "POST".into(), body: body.into(), ..Template::get(path) }
    }

    /// A patch with a body of a content type.
    pub fn patch(path: impl Into<String>, content_type: &str, body: impl Into<String>) -> Template {
        let content_type = content_type.to_owned();
        Template { method: "PATCH".into(), body: body.into(), content_type, ..Template::get(path) }
    }
}

/// A text with places for numbers.
struct Text(Vec<Piece>);

enum Piece {
    Text(String),
    Client,
    Number,
}

impl Text {
    fn new(text: &str) -> Text {
        let (mut pieces, mut rest) = (Vec::new(), text);
        loop {
            let marks = [("{client}", Piece::Client), ("{n}", Piece::Number)];
            let found = marks.into_iter().filter_map(|(mark, piece)| Some((rest.find(mark)?, mark.len(), piece)));
            let Some((at, length, piece)) = found.min_by_key(|(at, _, _)| *at) else {
                pieces.push(Piece::Text(rest.to_owned()));
                return Text(pieces);
            };
            pieces.extend([Piece::Text(rest[..at].to_owned()), piece]);
            rest = &rest[at + length..];
        }
    }

    fn with(&self, client: usize, number: u64) -> String {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Client => out.push_str(&client.to_string()),
                Piece::Number => out.push_str(&number.to_string()),
            }
        }
        out
    }
}

/// What all clients share.
struct Load {
    template: Template,
    method: Method,
    path: Text,
    body: Text,
    phase: AtomicU8,
    next: AtomicU64,
    /// Requests from this number on are not sent.
    end: u64,
}

const WARM: u8 = 0;
const COUNTED: u8 = 1;
const OVER: u8 = 2;

impl Load {
    /// Sends request after request, and tells how long each took that was counted.
    async fn client(&self, client: &HttpClient, number: usize) -> Result<Vec<u64>> {
        let mut times = Vec::new();
        loop {
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            if self.phase.load(Ordering::Relaxed) == OVER || next >= self.end {
                return Ok(times);
            }
            let (path, body) = (self.path.with(number, next), self.body.with(number, next));
            let began = Instant::now();
            self.send(client, &path, body.into()).await?;
            // What ends in the counted time counts: a request may take longer than that.
            if self.phase.load(Ordering::Relaxed) != WARM {
                times.push(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
            }
        }
    }

    /// Sends a request and reads the answer to its end.
    async fn send(&self, client: &HttpClient, path: &str, body: Bytes) -> Result<()> {
        let headers = [("content-type", &*self.template.content_type), ("accept", &*self.template.accept)];
        let headers = if body.is_empty() { &headers[1..] } else { &headers[..] };
        let answer = client.send(self.method.clone(), path, headers, body).await.map_err(|s| anyhow!("{s}"))?;
        let mut body = http::byte_stream(answer);
        while let Some(chunk) = body.next().await {
            drop(chunk?);
        }
        Ok(())
    }
}

/// Puts a load on a server.
pub(crate) async fn load(
    connection: &Connection,
    processes: &[i32],
    clients: usize,
    (warm, until): (Duration, Until),
    template: &Template,
) -> Result<Sample> {
    let end = if let Until::Count(count) = until { count } else { u64::MAX };
    let load = Arc::new(Load {
        method: template.method.parse()?,
        path: Text::new(&template.path),
        body: Text::new(&template.body),
        template: template.clone(),
        phase: AtomicU8::new(if warm.is_zero() { COUNTED } else { WARM }),
        next: AtomicU64::new(0),
        end,
    });
    let mut connected = Vec::new();
    for _ in 0..clients {
        let client = HttpClient::new(connection)?;
        // The handshake is not part of the load.
        let answer = client.send(Method::GET, "/version", &[], Bytes::new()).await.map_err(|s| anyhow!("{s}"))?;
        http::byte_stream(answer).count().await;
        connected.push(client);
    }
    let tasks = Tasks::tokio();
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
    let mut began = (Instant::now(), cpu_ticks(processes));
    for (number, client) in connected.into_iter().enumerate() {
        let (load, send) = (load.clone(), send.clone());
        tasks.spawn("client", OnStop::Drain, async move {
            drop(send.send(load.client(&client, number).await));
        });
    }
    drop(send);
    if !warm.is_zero() {
        SystemClock.sleep(warm).await;
        began = (Instant::now(), cpu_ticks(processes));
        load.phase.store(COUNTED, Ordering::Relaxed);
    }
    if let Until::Span(span) = until {
        SystemClock.sleep(span).await;
        load.phase.store(OVER, Ordering::Relaxed);
    }
    let mut nanos = Vec::new();
    while let Some(one) = receive.recv().await {
        nanos.extend(one?);
    }
    // A request that was under way is counted with the time that it took.
    let (span, ticks) = (began.0.elapsed(), cpu_ticks(processes).saturating_sub(began.1));
    nanos.sort_unstable();
    Ok(Sample { span, nanos, ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_in_their_places() {
        let text = Text::new(r#"a-{n}-{client}{"x":"{n}"}{}"#);
        assert_eq!(text.with(3, 42), r#"a-42-3{"x":"42"}{}"#);
        assert_eq!(Text::new("").with(1, 2), "");
    }
}
