//! A load of requests: clients side by side, each with a connection of its own, one request after the other.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use corten_base::{Clock as _, OnStop, SystemClock, Tasks};
use corten_client::kubeconfig::Connection;
use corten_client::{HttpClient, http};
use futures::StreamExt as _;
use hyper::Method;

use super::ms;

/// What is sent.
pub(super) struct Request {
    pub method: Method,
    pub path: String,
    pub content_type: &'static str,
    pub accept: &'static str,
    pub body: Bytes,
}

impl Request {
    /// A read, answered in JSON.
    pub fn get(path: String) -> Request {
        let json = "application/json";
        Request { method: Method::GET, path, content_type: json, accept: json, body: Bytes::new() }
    }

    /// A create with a JSON body.
    pub fn post(path: String, body: impl Into<Bytes>) -> Request {
        Request { method: Method::POST, body: body.into(), ..Request::get(path) }
    }

    /// A patch with a JSON body of a content type.
    pub fn patch(path: String, content_type: &'static str, body: String) -> Request {
        Request { method: Method::PATCH, content_type, body: body.into(), ..Request::get(path) }
    }

    /// Sends it, reads the answer to its end, and returns its length in bytes.
    pub async fn send(self, client: &HttpClient) -> Result<usize> {
        let headers = [("content-type", self.content_type), ("accept", self.accept)];
        let headers = if self.body.is_empty() { &headers[1..] } else { &headers[..] };
        let answer = client.send(self.method, &self.path, headers, self.body).await.map_err(|s| anyhow!("{s}"))?;
        let mut body = http::byte_stream(answer);
        let mut length = 0;
        while let Some(chunk) = body.next().await {
            length += chunk?.len();
        }
        Ok(length)
    }
}

/// What a load gave.
#[derive(Debug, Default, Clone)]
pub(super) struct Sample {
    /// How long the load went on.
    pub span: Duration,
    /// How long each request took, in order.
    pub times: Vec<Duration>,
    /// How much was done in all, where that is not one per time taken.
    pub done: Option<u64>,
    /// CPU that the server used, in ticks of 10 ms.
    pub ticks: u64,
}

impl Sample {
    pub fn per_second(&self) -> f64 {
        self.done.unwrap_or(self.times.len() as u64) as f64 / self.span.as_secs_f64().max(1e-9)
    }

    /// The time below which a part of the requests were answered.
    pub fn quantile(&self, part: f64) -> Duration {
        let last = self.times.len().saturating_sub(1);
        self.times.get((last as f64 * part) as usize).copied().unwrap_or_default()
    }

    /// CPU of the server for one request.
    pub fn cpu(&self) -> Duration {
        let done = self.done.unwrap_or(self.times.len() as u64).max(1);
        Duration::from_millis(10).mul_f64(self.ticks as f64 / done as f64)
    }

    /// This and another round of the same load.
    pub fn and(mut self, other: Sample) -> Sample {
        let sum = self.done.unwrap_or(self.times.len() as u64) + other.done.unwrap_or(other.times.len() as u64);
        self.done = (self.done.is_some() || other.done.is_some()).then_some(sum);
        self.span += other.span;
        self.ticks += other.ticks;
        self.times.extend(other.times);
        self.times.sort_unstable();
        self
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99) = (self.quantile(0.5), self.quantile(0.99));
        write!(f, "{}/s, p50 {}, p99 {}", thousands(self.per_second()), ms(p50), ms(p99))
    }
}

/// A count for people: `12,345`, and one decimal below ten.
pub(super) fn thousands(count: f64) -> String {
    if count < 10.0 {
        return format!("{count:.1}");
    }
    let digits = format!("{count:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Puts a load on a server. `request` gets the client's number and how many requests it has sent.
///
/// # Errors
/// The first request that fails.
pub(super) async fn load<F>(connection: &Connection, clients: usize, span: Duration, request: F) -> Result<Sample>
where
    F: Fn(usize, u64) -> Request + Send + Sync + 'static,
{
    let stop = Arc::new(AtomicBool::new(false));
    let request = Arc::new(request);
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
    let tasks = Tasks::tokio();
    let mut connected = Vec::new();
    for _ in 0..clients {
        let client = HttpClient::new(connection)?;
        // The handshake is not part of the load.
        Request::get("/version".into()).send(&client).await?;
        connected.push(client);
    }
    let began = Instant::now();
    for (number, client) in connected.into_iter().enumerate() {
        let (stop, request, send) = (stop.clone(), request.clone(), send.clone());
        tasks.spawn("client", OnStop::Drain, async move {
            let mut times = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let next = request(number, times.len() as u64);
                let began = Instant::now();
                match next.send(&client).await {
                    Ok(_) => times.push(began.elapsed()),
                    Err(error) => return drop(send.send(Err(error))),
                }
            }
            drop(send.send(Ok(times)));
        });
    }
    drop(send);
    SystemClock.sleep(span).await;
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    while let Some(one) = receive.recv().await {
        times.extend(one?);
    }
    // A request that was under way is counted with the time that it took.
    let span = began.elapsed();
    times.sort_unstable();
    Ok(Sample { span, times, ..Sample::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_of_a_load_add_up() {
        let of = |times: &[u64]| Sample {
            span: Duration::from_secs(2),
            times: times.iter().map(|t| Duration::from_millis(*t)).collect(),
            ticks: 3,
            ..Sample::default()
        };
        let both = of(&[1, 9]).and(of(&[2, 3]));
        assert_eq!((both.per_second(), both.quantile(0.5), both.ticks), (1.0, Duration::from_millis(2), 6));
        assert_eq!(both.cpu(), Duration::from_millis(15));
        assert_eq!(both.to_string(), "1.0/s, p50 2.00 ms, p99 3.00 ms");
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!([1.25, 999.0, 1000.0, 1_234_567.0].map(thousands), ["1.2", "999", "1,000", "1,234,567"]);
    }
}
