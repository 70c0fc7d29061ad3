//! An API in memory: enough of one for a node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use corten_base::BoxFuture;
use corten_client::*;
use corten_kinds::Registry;
use corten_object::{KindId, Object, ObjectKey, Reason, Revision, Status};
use corten_tree::Tree;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::broadcast;

pub struct FakeApi {
    registry: Registry,
    state: Mutex<State>,
    /// All changes.
    pub feed: broadcast::Sender<(WatchEventKind, Arc<Object>)>,
    /// How many tokens were made.
    tokens: std::sync::atomic::AtomicU8,
    /// Nobody answers.
    pub away: std::sync::atomic::AtomicBool,
    /// Nobody takes the status of a node.
    pub no_node_status: std::sync::atomic::AtomicBool,
}

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<ObjectKey, Arc<Object>>,
}

impl FakeApi {
    pub fn new() -> Arc<FakeApi> {
        let (registry, feed) = (Registry::builtin(), broadcast::channel(4096).0);
        Arc::new(FakeApi {
            registry,
            state: Mutex::default(),
            feed,
            tokens: 0.into(),
            away: false.into(),
            no_node_status: false.into(),
        })
    }

    pub fn put(&self, key: &ObjectKey, mut tree: Tree) -> Arc<Object> {
        let mut state = self.state.lock().unwrap();
        state.revision += 1;
        if let Some(Tree::Map(meta)) = tree.get_mut("metadata") {
            meta.remove("resourceVersion");
            meta.insert_if_absent("uid", format!("uid-{}", state.revision));
            meta.insert_if_absent("generation", 1_i64);
        }
        let facts = self.registry.get(key.kind).fact_paths.clone();
        let json = bytes::Bytes::from(tree.to_json());
        let object = Arc::new(Object::parse(key.kind, json, Revision(state.revision), &facts).unwrap());
        let known = state.objects.insert(key.clone(), object.clone()).is_some();
        let kind = if known { WatchEventKind::Modified } else { WatchEventKind::Added };
        let _ = self.feed.send((kind, object.clone()));
        object
    }

    pub fn find(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.state.lock().unwrap().objects.get(key).cloned()
    }

    pub fn all(&self, kind: KindId) -> Vec<Arc<Object>> {
        let state = self.state.lock().unwrap();
        state.objects.values().filter(|o| o.kind == kind).cloned().collect()
    }

    /// Waits until something holds.
    pub async fn until<T>(&self, what: &str, check: impl Fn(&FakeApi) -> Option<T>) -> T {
        let mut changes = self.feed.subscribe();
        let wait = async {
            loop {
                if let Some(found) = check(self) {
                    return found;
                }
                let _ = changes.recv().await;
            }
        };
        let outcome = tokio::time::timeout(crate::watching::LIMIT, wait).await;
        outcome.unwrap_or_else(|_| panic!("timed out: {what}"))
    }

    fn answers(&self) -> Result<(), Status> {
        match self.away.load(std::sync::atomic::Ordering::SeqCst) {
            true => Err(Status::new(Reason::ServiceUnavailable, "nobody answers")),
            false => Ok(()),
        }
    }

    fn delete(&self, key: &ObjectKey, grace: Option<i64>) -> Result<(), Status> {
        let found = self.find(key).ok_or_else(|| Status::not_found("", "things", &key.name))?;
        let grace = grace.unwrap_or(30);
        if grace > 0 && key.kind == corten_kinds::id::POD {
            let mut tree = found.to_tree();
            tree.set("metadata.deletionTimestamp", corten_object::time::format(jiff::Timestamp::now()));
            tree.set("metadata.deletionGracePeriodSeconds", grace);
            self.put(key, tree);
            return Ok(());
        }
        let mut state = self.state.lock().unwrap();
        state.revision += 1;
        let gone = state.objects.remove(key).unwrap();
        let _ = self.feed.send((WatchEventKind::Deleted, gone));
        Ok(())
    }

    fn written(&self, object: Option<Arc<Object>>, answer: Option<Tree>) -> Written {
        Written { object, answer, revision: Revision(self.state.lock().unwrap().revision) }
    }

    fn run(&self, write: Write) -> Result<Written, Status> {
        match write {
            Write::Create { target, .. } if target.subresource == "token" => {
                let mut answer = Tree::map();
                let made = self.tokens.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                answer.set("status.token", format!("{}-token", char::from(b'a' + made)));
                Ok(self.written(None, Some(answer)))
            }
            Write::Create { target, body } => {
                if self.find(&target.key).is_some() {
                    return Err(Status::already_exists("", "things", &target.key.name));
                }
                Ok(self.written(Some(self.put(&target.key, body)), None))
            }
            Write::Patch { target, .. }
                if target.key.kind == corten_kinds::id::NODE
                    && target.subresource == "status"
                    && self.no_node_status.load(std::sync::atomic::Ordering::SeqCst) =>
            {
                Err(Status::new(Reason::ServiceUnavailable, "nobody takes it"))
            }
            Write::Patch { target, body, .. } => {
                let found = self.find(&target.key).ok_or_else(|| Status::not_found("", "things", &target.key.name))?;
                let mut tree = found.to_tree();
                merge(&mut tree, body);
                Ok(self.written(Some(self.put(&target.key, tree)), None))
            }
            Write::Delete { key, options } => {
                self.delete(&key, options.grace_seconds)?;
                Ok(self.written(None, None))
            }
            Write::Update { .. } => Err(Status::new(Reason::BadRequest, "not in this fake")),
        }
    }
}

fn merge(into: &mut Tree, patch: Tree) {
    let Tree::Map(patch) = patch else {
        *into = patch;
        return;
    };
    let into = into.make_map();
    for (key, value) in patch {
        match value {
            Tree::Null => drop(into.remove(&key)),
            value => {
                let mut slot = into.remove(&key).unwrap_or_default();
                merge(&mut slot, value);
                into.insert(key, slot);
            }
        }
    }
}

fn selects(options: &ListOptions, object: &Object) -> bool {
    let tree = object.to_tree();
    (options.namespace.is_empty() || object.head.namespace == options.namespace.as_str())
        && options.fields.matches(|path| tree.str_at(path))
}

impl Api for FakeApi {
    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        Box::pin(async move {
            self.answers()?;
            self.find(key).ok_or_else(|| Status::not_found("", "things", &key.name))
        })
    }

    fn list(&self, kind: KindId, options: ListOptions) -> BoxFuture<'_, Result<ApiList, Status>> {
        Box::pin(async move {
            self.answers()?;
            let state = self.state.lock().unwrap();
            let items = state.objects.values().filter(|o| o.kind == kind && selects(&options, o)).cloned().collect();
            Ok(ApiList { items, revision: Revision(state.revision) })
        })
    }

    fn watch(
        &self,
        kind: KindId,
        options: ListOptions,
        after: Revision,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<WatchEvent, Status>>, Status>> {
        Box::pin(async move {
            self.answers()?;
            let state = self.state.lock().unwrap();
            // What came between the list and now.
            let missed: Vec<(WatchEventKind, Arc<Object>)> = state
                .objects
                .values()
                .filter(|o| o.head.revision > after)
                .map(|o| (WatchEventKind::Modified, o.clone()))
                .collect();
            let feed = self.feed.subscribe();
            drop(state);
            let live = futures::stream::unfold(feed, |mut feed| async move { Some((feed.recv().await.ok()?, feed)) });
            let all = futures::stream::iter(missed).chain(live);
            let stream = all.filter_map(move |(event, object)| {
                let fits = object.kind == kind && selects(&options, &object);
                let revision = object.head.revision;
                let event = fits.then(|| Ok(WatchEvent { kind: event, object: Some(object), revision }));
                async move { event }
            });
            Ok(stream.boxed())
        })
    }

    fn write(&self, write: Write, _: WriteOptions) -> BoxFuture<'_, Result<Written, Failure>> {
        Box::pin(async move {
            let fail = |status| Failure { status, revision: Revision(0) };
            self.answers().and_then(|()| self.run(write)).map_err(fail)
        })
    }
}
