//! Watch events as frames: a line of JSON, or length-delimited protobuf.

use std::sync::Arc;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use corten_base::Revision;
use corten_base::metrics::{Held, Series};
use corten_cache::{Encoding, Seen, Transition};
use corten_object::{Object, Status};
use corten_tree::{Tree, tree};
use futures::stream::{self, Stream};

use super::encode::{Encoder, IncludeObject, tree_bytes};
use super::negotiate::{Format, Shape};
use crate::families;
use crate::pipeline::{WatchItem, Watching, is_by_webhook};

/// Frames that are ready are sent together up to this size.
const CHUNK: usize = 64 * 1024;

/// How frames are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frames {
    /// One after the other as bytes; several at once if they are ready.
    Stream,
    /// Each by itself, as a WebSocket's messages: without a length before it.
    Messages,
}

/// The frames of a watch, or of one that could not begin. They end with the watch, or when `stopping` completes.
pub(super) fn frames(
    (mut encoder, counted): (Encoder, Counted),
    watching: Result<Watching, Status>,
    how: Frames,
    stopping: impl Future<Output = ()> + Send + 'static,
) -> impl Stream<Item = Bytes> + Send + 'static {
    // Objects come one by one, whichever of the two forms of partial metadata was asked for.
    if encoder.form.shape == Shape::PartialList {
        encoder.form.shape = Shape::Partial;
    }
    let changed = kind_changed(&encoder);
    let stopping = async move {
        let (stopping, changed) = (Box::pin(stopping), Box::pin(changed));
        futures::future::select(stopping, changed).await;
    };
    let labels = [&*encoder.kind.group, &*encoder.kind.plural, &*encoder.version];
    let (events, sizes) = (families::WATCH_EVENTS.with(&labels), families::WATCH_EVENT_SIZES.with(&labels));
    let framer = Framer { encoder, headers: true, events, sizes, counted };
    let state = match watching {
        Ok(watching) => Ok((watching, Box::pin(stopping))),
        Err(status) => Err(Some(status)),
    };
    stream::unfold((framer, state), move |(mut framer, state)| async move {
        let (mut watching, mut stopping) = match state {
            Ok(running) => running,
            Err(status) => {
                let bytes = framer.error(&status?);
                return Some((message(&framer, bytes, how), (framer, Err(None))));
            }
        };
        let first = loop {
            let item = tokio::select! {
                biased;
                item = watching.next() => item?,
                () = &mut stopping => return None,
            };
            let frame = framer.frame(item).await;
            // What a selection of converted objects does not see has none.
            if !frame.is_empty() {
                break frame;
            }
        };
        if how == Frames::Messages {
            return Some((message(&framer, first, how), (framer, Ok((watching, stopping)))));
        }
        let mut out = BytesMut::new();
        let mut chunk = first;
        // Whatever is ready goes along, so that a burst is one write.
        while chunk.len() + out.len() < CHUNK {
            let Some(item) = watching.try_next() else { break };
            if out.is_empty() {
                out.put(std::mem::take(&mut chunk));
            }
            out.put(framer.frame(item).await);
        }
        let bytes = if out.is_empty() { chunk } else { out.freeze() };
        Some((bytes, (framer, Ok((watching, stopping)))))
    })
}

/// A frame as it is delivered: messages are delimited by themselves.
fn message(framer: &Framer, bytes: Bytes, how: Frames) -> Bytes {
    let length_before = how == Frames::Messages && framer.encoder.form.format == Format::Protobuf;
    if length_before { bytes.slice(size_of::<u32>()..) } else { bytes }
}

/// Completes when the definition of the watched kind has changed or is gone: the watch ends then, as upstream's does.
fn kind_changed(encoder: &Encoder) -> impl Future<Output = ()> + Send + use<> {
    let (kinds, mut moved) = (encoder.core.registry.clone(), encoder.core.cache.kinds_moved());
    let (id, shape) = (encoder.kind.id, encoder.kind.custom.as_ref().map(|custom| custom.shape));
    async move {
        while let Some(shape) = shape {
            let now = kinds.now();
            let same = now.has(id) && now.get(id).custom.as_ref().is_some_and(|custom| custom.shape == shape);
            if !same || moved.changed().await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

fn name_of(transition: Transition) -> &'static str {
    match transition {
        Transition::Added => "ADDED",
        Transition::Modified => "MODIFIED",
        Transition::Deleted => "DELETED",
    }
}

/// How a watch is counted.
pub(super) struct Counted {
    /// That it is one of the requests that last.
    pub _lasting: Option<Arc<Held>>,
    /// What it reaches over.
    pub scope: &'static str,
    /// When it began.
    pub begun: Instant,
}

struct Framer {
    encoder: Encoder,
    /// Whether the next Table still needs its column definitions.
    headers: bool,
    /// How many events of the kind were sent, and how large.
    events: Arc<Series>,
    sizes: Arc<Series>,
    counted: Counted,
}

impl Framer {
    async fn frame(&mut self, item: WatchItem) -> Bytes {
        let frame = self.frame_of(item).await;
        if !frame.is_empty() {
            self.events.increment();
            self.sizes.observe(frame.len() as f64);
        }
        frame
    }

    async fn frame_of(&mut self, item: WatchItem) -> Bytes {
        if is_by_webhook(&self.encoder.kind) {
            return self.converted(item).await;
        }
        match item {
            WatchItem::Initial(object) if self.encoder.form.shape == Shape::Whole => {
                match self.encoder.object_kept(&object) {
                    Ok(bytes) => self.wrap("ADDED", &bytes),
                    Err(status) => self.error(&status),
                }
            }
            WatchItem::Initial(object) => self.object("ADDED", &object),
            WatchItem::Change(seen) => {
                let name = name_of(seen.transition);
                match self.shared() {
                    Some(encoding) => seen.event.frame(seen.transition, encoding, |object| self.encode(name, object)),
                    None => self.object(name, seen.object()),
                }
            }
            WatchItem::Bookmark(revision, initial_end) => self.bookmark(revision, initial_end),
            WatchItem::Error(status) => self.error(&status),
        }
    }

    /// The frame of an object that a webhook of its definition converts; empty if the selection does not see it.
    async fn converted(&mut self, item: WatchItem) -> Bytes {
        let shown = match item {
            WatchItem::Initial(object) => self.at_version(&object).await.map(|object| Some(("ADDED", object))),
            WatchItem::Change(seen) => self.seen(seen).await,
            WatchItem::Bookmark(revision, initial_end) => return self.bookmark(revision, initial_end),
            WatchItem::Error(status) => return self.error(&status),
        };
        match shown {
            Ok(Some(("ADDED", object))) if !self.sees(&object) => Bytes::new(),
            Ok(Some((name, object))) => self.object(name, &object),
            Ok(None) => Bytes::new(),
            Err(status) => self.error(&status),
        }
    }

    fn sees(&self, object: &Object) -> bool {
        self.encoder.late.as_ref().is_none_or(|late| late.matches(object))
    }

    async fn at_version(&self, object: &Arc<Object>) -> Result<Arc<Object>, Status> {
        let Encoder { core, kind, version, .. } = &self.encoder;
        let mut objects = core.objects_at(kind, version, vec![object.clone()]).await?;
        objects.pop().ok_or_else(|| Status::internal("a converted object is missing"))
    }

    /// What a selection of converted objects sees of a change.
    async fn seen(&self, seen: Seen) -> Result<Option<(&'static str, Arc<Object>)>, Status> {
        if self.encoder.late.is_none() {
            let object = self.at_version(seen.object()).await?;
            return Ok(Some((name_of(seen.transition), object)));
        }
        let event = &seen.event;
        let before = match &event.previous {
            Some(object) => self.sees(&*self.at_version(object).await?),
            None => false,
        };
        let after = match &event.object {
            Some(object) => Some(self.at_version(object).await?).filter(|object| self.sees(object)),
            None => None,
        };
        Ok(match (before, after) {
            (false, Some(object)) => Some(("ADDED", object)),
            (true, Some(object)) => Some(("MODIFIED", object)),
            (true, None) => Some(("DELETED", self.at_version(event.shown(Transition::Deleted)).await?)),
            (false, None) => None,
        })
    }

    /// Whether all watchers of this form get the same bytes.
    fn shared(&self) -> Option<Encoding> {
        let e = &self.encoder;
        let stored = e.kind.stored_as.is_none() && *e.kind.versions[0] == *e.version;
        match (e.form.shape, e.form.format) {
            (Shape::Whole, Format::Json) if stored => Some(Encoding::Json),
            (Shape::Whole, Format::Protobuf) if stored => Some(Encoding::Protobuf),
            _ => None,
        }
    }

    fn object(&mut self, name: &str, object: &Arc<Object>) -> Bytes {
        if self.encoder.form.shape == Shape::Table {
            let headers = std::mem::replace(&mut self.headers, false);
            let table = self.encoder.table(&[&**object], None, headers);
            return self.wrap(name, &self.encoder.tree(&table));
        }
        self.encode(name, object)
    }

    fn encode(&self, name: &str, object: &Object) -> Bytes {
        match self.encoder.object(object) {
            Ok(bytes) => self.wrap(name, &bytes),
            Err(status) => self.error(&status),
        }
    }

    fn bookmark(&mut self, revision: Revision, initial_end: bool) -> Bytes {
        if initial_end {
            let e = &self.encoder;
            let labels = [&*e.kind.group, &*e.kind.plural, self.counted.scope, &*e.version];
            families::WATCH_LISTS.with(&labels).took(self.counted.begun.elapsed());
        }
        let gvk = self.encoder.kind.gvk(&self.encoder.version);
        let mut metadata = tree!({"resourceVersion": (revision.to_string()), "creationTimestamp": null});
        if initial_end {
            metadata.insert("annotations", tree!({"k8s.io/initial-events-end": "true"}));
        }
        let whole = tree!({"kind": (gvk.kind.as_str()), "apiVersion": (gvk.api_version()), "metadata": metadata});
        let tree = match self.encoder.form.shape {
            Shape::Whole => whole,
            Shape::Partial | Shape::PartialList => self.partial(whole),
            Shape::Table => {
                // Upstream shows the mark of the initial events' end whatever `includeObject` says.
                let object = match self.encoder.include {
                    IncludeObject::Object => whole,
                    IncludeObject::Nothing if !initial_end => Tree::Null,
                    _ => self.partial(whole),
                };
                let headers = std::mem::replace(&mut self.headers, false);
                let mut table = self.encoder.table(&[], None, headers);
                table.set("metadata.resourceVersion", revision.to_string());
                let cells = Tree::List(vec![Tree::from(""); self.encoder.kind.columns.len()]);
                table.insert("rows", tree!([{"cells": cells, "object": object}]));
                table
            }
        };
        self.wrap("BOOKMARK", &self.encoder.tree(&tree))
    }

    fn partial(&self, mut object: Tree) -> Tree {
        object.insert("kind", "PartialObjectMetadata");
        object.insert("apiVersion", self.encoder.form.meta_api_version());
        object
    }

    fn error(&self, status: &Status) -> Bytes {
        let tree: Tree = status.to_tree();
        self.wrap("ERROR", &tree_bytes(&self.encoder.core, self.encoder.form.format, &tree))
    }

    /// `WatchEvent` around an encoded object.
    fn wrap(&self, name: &str, object: &[u8]) -> Bytes {
        match self.encoder.form.format {
            Format::Protobuf => protobuf_frame(name, object),
            Format::Json => {
                let mut out = BytesMut::with_capacity(object.len() + 32);
                out.put_slice(b"{\"type\":\"");
                out.put_slice(name.as_bytes());
                out.put_slice(b"\",\"object\":");
                out.put_slice(object.trim_ascii_end());
                out.put_slice(b"}\n");
                out.freeze()
            }
            // YAML has no stream: a watch in it is refused before it begins.
            Format::Yaml => Bytes::new(),
        }
    }
}

/// `meta.v1.WatchEvent { 1: type, 2: RawExtension { 1: raw } }` behind its length in four bytes.
fn protobuf_frame(name: &str, object: &[u8]) -> Bytes {
    let varint = |out: &mut Vec<u8>, mut n: usize| {
        while n >= 0x80 {
            out.push((n & 0x7f) as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
    };
    let mut raw = vec![0x0a];
    varint(&mut raw, object.len());
    let mut head = vec![0x0a, name.len() as u8];
    head.extend_from_slice(name.as_bytes());
    head.push(0x12);
    varint(&mut head, raw.len() + object.len());
    head.append(&mut raw);
    let length = u32::try_from(head.len() + object.len()).expect("objects are far smaller than 4 GiB");
    let mut out = BytesMut::with_capacity(head.len() + object.len() + size_of::<u32>());
    out.put_u32(length);
    out.put_slice(&head);
    out.put_slice(object);
    out.freeze()
}
