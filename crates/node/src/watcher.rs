//! Lists a kind and follows its changes, whatever happens to the stream.

use std::sync::Arc;
use std::time::Duration;

use corten_base::{Clock, backoff};
use corten_client::{Api, ListOptions, WatchEvent, WatchEventKind};
use corten_object::selector::FieldTerm;
use corten_object::{FieldSelector, KindId, Object, Revision, Status};
use futures::StreamExt;
use futures::stream::BoxStream;

/// What a watcher tells.
pub enum Change {
    /// Everything that is there now.
    Reset(Vec<Arc<Object>>),
    /// One object came or changed.
    Set(Arc<Object>),
    /// One object went.
    Gone(Arc<Object>),
}

/// A list and watch that never ends.
pub struct Watcher {
    api: Arc<dyn Api>,
    clock: Arc<dyn Clock>,
    kind: KindId,
    options: ListOptions,
    stream: Option<BoxStream<'static, Result<WatchEvent, Status>>>,
    /// Where to go on; `None`: list first.
    after: Option<Revision>,
    failures: u32,
}

/// The objects with this value of a field.
pub fn only(path: &str, value: &str) -> ListOptions {
    let term = FieldTerm { path: path.into(), equal: true, value: value.to_owned() };
    ListOptions { fields: FieldSelector { terms: vec![term] }, ..ListOptions::default() }
}

impl Watcher {
    pub fn new(api: Arc<dyn Api>, clock: Arc<dyn Clock>, kind: KindId, options: ListOptions) -> Watcher {
        Watcher { api, clock, kind, options, stream: None, after: None, failures: 0 }
    }

    /// The next change. Not to be dropped while it waits for a list, else the list is made again.
    pub async fn next(&mut self) -> Change {
        loop {
            if self.stream.is_none()
                && let Some(change) = self.connect().await
            {
                return change;
            }
            let Some(stream) = self.stream.as_mut() else { continue };
            match stream.next().await {
                Some(Ok(event)) => {
                    self.failures = 0;
                    self.after = Some(event.revision);
                    match (event.kind, event.object) {
                        (WatchEventKind::Added | WatchEventKind::Modified, Some(object)) => return Change::Set(object),
                        (WatchEventKind::Deleted, Some(object)) => return Change::Gone(object),
                        _ => {}
                    }
                }
                Some(Err(status)) => {
                    tracing::debug!(%status, "watch ended; listing again");
                    self.stream = None;
                    self.after = None;
                }
                None => {
                    // A stream that ends at once, again and again, is a failure.
                    self.failures += 1;
                    self.stream = None;
                }
            }
        }
    }

    async fn connect(&mut self) -> Option<Change> {
        if self.failures > 0 {
            let pause = backoff::delay(Duration::from_millis(100), Duration::from_secs(10), self.failures);
            self.clock.sleep(pause).await;
        }
        let Some(after) = self.after else {
            return match self.api.list(self.kind, self.options.clone()).await {
                Ok(list) => {
                    self.after = Some(list.revision);
                    Some(Change::Reset(list.items))
                }
                Err(status) => {
                    self.failures += 1;
                    tracing::debug!(%status, "list failed");
                    None
                }
            };
        };
        match self.api.watch(self.kind, self.options.clone(), after).await {
            Ok(stream) => self.stream = Some(stream),
            Err(status) => {
                self.failures += 1;
                self.after = None;
                tracing::debug!(%status, "watch failed");
            }
        }
        None
    }
}
