//! One writer, many watchers: how long a change takes to reach all of them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::{Buf as _, BytesMut};
use corten_base::{Clock as _, OnStop, SystemClock, Tasks};
use corten_client::kubeconfig::Connection;
use corten_client::{HttpClient, http};
use corten_tree::tree;
use futures::StreamExt as _;
use hyper::Method;

use crate::Pace;
use crate::sample::Sample;

/// Watches that share a connection: a server allows about a hundred streams on one.
const WATCHES_PER_CONNECTION: usize = 10;
/// How long a watcher may wait for its next event.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// Writes `writes` changes of one object while `watchers` watch its namespace. A time is that from the beginning of a write to the
/// arrival of its event at one watcher.
///
/// # Errors
/// If a write or a watch fails.
pub(crate) async fn fan_out(
    connection: &Connection,
    namespace: &str,
    watchers: usize,
    writes: usize,
    pace: Pace,
) -> Result<Sample> {
    let client = HttpClient::new(connection)?;
    let collection = format!("/api/v1/namespaces/{namespace}/configmaps");
    let path = format!("{collection}/fan");
    let body = tree!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "fan"}, "data": {"sent": "none"}});
    let _ = client.json(Method::DELETE, &path, "", None).await;
    let made = client.json(Method::POST, &collection, "application/json", Some(&body)).await?;
    let since = made.str_at("metadata.resourceVersion").to_owned();
    let sent: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
    let tasks = Tasks::tokio();
    let mut shared = client.clone();
    let mut opened = Vec::new();
    for number in 0..watchers {
        if number.is_multiple_of(WATCHES_PER_CONNECTION) {
            shared = HttpClient::new(connection)?;
        }
        let watch = format!("{collection}?watch=true&resourceVersion={since}");
        let answer = shared.send(Method::GET, &watch, &[("accept", "application/json")], Default::default()).await;
        opened.push(http::byte_stream(answer.map_err(|s| anyhow!("{s}"))?));
    }
    for stream in opened {
        let (send, sent) = (send.clone(), sent.clone());
        tasks.spawn("watcher", OnStop::Abort, async move {
            drop(send.send(receive_all(stream, writes, &sent).await));
        });
    }
    drop(send);
    let began = Instant::now();
    for number in 0..writes {
        if let Pace::PerSecond(rate) = pace {
            let due = began + Duration::from_secs(number as u64) / rate;
            SystemClock.sleep(due.saturating_duration_since(Instant::now())).await;
        }
        sent.lock().map_err(|_| anyhow!("a watcher panicked"))?.push(Instant::now());
        let body = format!("{{\"data\":{{\"sent\":\"#{number}#\"}}}}");
        let headers = [("content-type", "application/merge-patch+json"), ("accept", "application/json")];
        let answer = client.send(Method::PATCH, &path, &headers, body.into()).await.map_err(|s| anyhow!("{s}"))?;
        http::byte_stream(answer).count().await;
    }
    let mut nanos = Vec::new();
    while let Some(one) = receive.recv().await {
        nanos.extend(one?);
    }
    let span = began.elapsed();
    nanos.sort_unstable();
    Ok(Sample { span, nanos, ticks: 0 })
}

/// Reads events until all writes were seen, and tells how long each took to arrive.
async fn receive_all(
    mut stream: futures::stream::BoxStream<'static, std::io::Result<bytes::Bytes>>,
    writes: usize,
    sent: &Mutex<Vec<Instant>>,
) -> Result<Vec<u64>> {
    let mut times = Vec::new();
    let mut buffer = BytesMut::new();
    while times.len() < writes {
        let next = tokio::time::timeout(QUIET_MAX, stream.next()).await.context("a watcher waits in vain")?;
        buffer.extend_from_slice(&next.context("a watch ended early")??);
        while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
            let now = Instant::now();
            let Some(number) = number_of(&buffer[..end]) else {
                buffer.advance(end + 1);
                continue;
            };
            buffer.advance(end + 1);
            let began = sent.lock().map_err(|_| anyhow!("the writer panicked"))?.get(number).copied();
            if number != times.len() {
                bail!("event {number} came in place of {}", times.len());
            }
            let took = now.duration_since(began.context("an event came before its write")?);
            times.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
    }
    Ok(times)
}

/// The write's number in an event: no need to read all of it.
fn number_of(event: &[u8]) -> Option<usize> {
    let begin = event.iter().position(|b| *b == b'#')? + 1;
    let length = event[begin..].iter().position(|b| *b == b'#')?;
    std::str::from_utf8(&event[begin..begin + length]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_write_is_found_in_its_event() {
        assert_eq!(super::number_of(br##"{"object":{"data":{"sent":"#17#"}}}"##), Some(17));
        assert_eq!(super::number_of(br#"{"object":{"data":{"sent":"none"}}}"#), None);
    }
}
