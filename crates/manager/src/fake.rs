//! An API for tests: it takes every write, and tells which came together.

use std::sync::{Arc, Mutex};

use corten_base::{BoxFuture, Revision};
use corten_client::{Api, ApiList, Failure, ListOptions, WatchEvent, Write, WriteOptions, Written};
use corten_kinds::Registry;
use corten_object::{KindId, Object, ObjectKey, Reason, Status};
use futures::stream::BoxStream;

/// The API.
#[derive(Default)]
pub(crate) struct FakeApi {
    seen: Mutex<Seen>,
    /// Names whose creation is refused.
    refused: Vec<String>,
}

#[derive(Default)]
struct Seen {
    under_way: usize,
    batches: Vec<usize>,
}

impl FakeApi {
    pub fn refusing(names: &[&str]) -> Arc<FakeApi> {
        Arc::new(FakeApi { refused: names.iter().map(|n| (*n).to_owned()).collect(), ..FakeApi::default() })
    }

    /// How many writes were under way at once, from rest to rest.
    pub fn batches(&self) -> Vec<usize> {
        self.seen.lock().unwrap().batches.clone()
    }
}

fn nothing<T: Send + 'static>() -> BoxFuture<'static, Result<T, Status>> {
    Box::pin(async { Err(Status::new(Reason::NotFound, "nothing is here")) })
}

impl Api for FakeApi {
    fn get<'a>(&'a self, _: &'a ObjectKey) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        nothing()
    }

    fn list(&self, _: KindId, _: ListOptions) -> BoxFuture<'_, Result<ApiList, Status>> {
        nothing()
    }

    fn watch(
        &self,
        _: KindId,
        _: ListOptions,
        _: Revision,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<WatchEvent, Status>>, Status>> {
        nothing()
    }

    fn write(&self, write: Write, _: WriteOptions) -> BoxFuture<'_, Result<Written, Failure>> {
        Box::pin(async move {
            let refused = {
                let mut seen = self.seen.lock().unwrap();
                if seen.under_way == 0 {
                    seen.batches.push(0);
                }
                seen.under_way += 1;
                *seen.batches.last_mut().unwrap() += 1;
                matches!(&write, Write::Create { target, .. } if self.refused.contains(&target.key.name.to_string()))
            };
            // Whoever begins at the same time has begun when this goes on.
            tokio::task::yield_now().await;
            self.seen.lock().unwrap().under_way -= 1;
            match refused {
                true => {
                    Err(Failure { status: Status::forbidden("", "pods", "x", "exceeded quota"), revision: Revision(1) })
                }
                false => Ok(Written { object: None, answer: None, revision: Revision(1) }),
            }
        })
    }
}

/// A pod to write events about.
pub(crate) fn pod(name: &str) -> Arc<Object> {
    let registry = Registry::builtin();
    let kind = registry.by_name("pod").unwrap();
    let text = format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"default","uid":"u-{name}"}}}}"#
    );
    Arc::new(Object::parse(kind.id, text.into(), Revision(1), &kind.fact_paths).unwrap())
}
