//! Answers' bodies: in one piece, as a list of shared slices, or as they come.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use corten_audit::trail::{self, Trail};
use corten_object::Object;
use corten_schema::protobuf;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, Stream, StreamExt};
use hyper::body::{Frame, Incoming, SizeHint};

use crate::flow::Place;

/// Bytes that are handed to the connection at once.
const CHUNK: usize = 64 * 1024;

/// A response's body.
pub(crate) enum Body {
    Full(Option<Bytes>),
    List(ListBody),
    Stream(BoxStream<'static, Bytes>),
    Passed(Passed),
}

/// Another server's answer, as it comes.
pub(crate) struct Passed {
    pub body: Incoming,
    /// When to end it, if it would last.
    pub until: Option<BoxFuture<'static, ()>>,
    /// Held, not read: the request's record, which is open for as long as its answer lasts.
    pub _record: Option<Arc<Trail>>,
}

/// A list: what its items are in bytes, between a head and a tail. Copied to the connection, never encoded.
pub(crate) struct ListBody {
    head: Option<Bytes>,
    items: Items,
    first: bool,
    done: bool,
    /// The seats of who asked, until all is sent.
    pub place: Option<Place>,
    /// Bytes that were sent, and who is told of them once all are.
    sent: u64,
    pub told: Option<Box<dyn FnOnce(u64) + Send>>,
}

enum Items {
    /// The objects' own bytes, without those at their beginnings: of a typed kind the list tells kind and version for all.
    Json(std::vec::IntoIter<Arc<Object>>, Vec<u8>),
    /// Messages.
    Protobuf(std::vec::IntoIter<Bytes>),
}

impl ListBody {
    /// In JSON. `untold`: what is left out of each object's beginning.
    pub fn json(head: Vec<u8>, objects: Vec<Arc<Object>>, untold: Vec<u8>) -> ListBody {
        ListBody::of(head, Items::Json(objects.into_iter(), untold))
    }

    /// In protobuf.
    pub fn protobuf(head: Vec<u8>, messages: Vec<Bytes>) -> ListBody {
        ListBody::of(head, Items::Protobuf(messages.into_iter()))
    }

    fn of(head: Vec<u8>, items: Items) -> ListBody {
        ListBody { head: Some(head.into()), items, first: true, done: false, place: None, sent: 0, told: None }
    }

    fn chunk(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut out = Vec::with_capacity(CHUNK + 8 * 1024);
        if let Some(head) = self.head.take() {
            out.extend_from_slice(&head);
        }
        while out.len() < CHUNK && !self.done {
            let first = std::mem::replace(&mut self.first, false);
            match &mut self.items {
                Items::Json(objects, untold) => match objects.next() {
                    Some(object) => {
                        if !first {
                            out.push(b',');
                        }
                        object.write_json_without(untold, &mut out);
                    }
                    None => {
                        out.extend_from_slice(b"]}\n");
                        self.done = true;
                    }
                },
                Items::Protobuf(messages) => match messages.next() {
                    Some(message) => {
                        protobuf::list_item(&mut out, message.len());
                        out.extend_from_slice(&message);
                    }
                    None => {
                        out.extend_from_slice(protobuf::LIST_TAIL);
                        self.done = true;
                    }
                },
            }
        }
        self.sent += out.len() as u64;
        if self.done {
            self.place = None;
            if let Some(told) = self.told.take() {
                told(self.sent);
            }
        }
        Some(out.into())
    }

    /// The whole list at once, for compression.
    pub fn collect(mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(chunk) = self.chunk() {
            out.extend_from_slice(&chunk);
        }
        out
    }
}

impl Body {
    /// The whole body, if it is there.
    pub fn collect(self) -> Option<Bytes> {
        match self {
            Body::Full(bytes) => bytes,
            Body::List(list) => Some(list.collect().into()),
            Body::Stream(_) | Body::Passed(_) => None,
        }
    }
}

/// A body in one piece.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Body::Full(Some(bytes.into()))
}

/// A body as it comes.
pub(crate) fn stream(stream: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    // The request's record is open for as long as its answer lasts.
    match trail::current() {
        None => Body::Stream(stream.boxed()),
        Some(record) => Body::Stream(
            stream
                .inspect(move |_| {
                    let _held = &record;
                })
                .boxed(),
        ),
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let next = match &mut *self {
            Body::Passed(passed) => {
                if passed.until.as_mut().is_some_and(|until| until.poll_unpin(cx).is_ready()) {
                    passed.until = None;
                    return Poll::Ready(None);
                }
                return Pin::new(&mut passed.body).poll_frame(cx);
            }
            Body::Full(bytes) => bytes.take().filter(|b| !b.is_empty()),
            Body::List(list) => list.chunk(),
            Body::Stream(stream) => futures::ready!(stream.poll_next_unpin(cx)),
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Body::List(list) => list.done,
            Body::Stream(_) => false,
            Body::Passed(passed) => passed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Body::Passed(passed) => passed.body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}
