//! The immutable object.

use std::any::{Any, TypeId};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use corten_tree::json::{JsonError, Kind, Reader, write_int};
use corten_tree::{Key, MapBuilder, Tree};

use crate::{Head, KindId, ObjectKey, Revision, head};

/// Why bytes are not an object.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Not JSON, or its metadata is malformed.
    #[error("object bytes are corrupt: {0}")]
    Json(#[from] JsonError),
    /// The bytes do not fit the view.
    #[error("object does not fit the view {view}: {source}")]
    View {
        /// The view's type name.
        view: &'static str,
        /// What does not fit.
        source: Arc<serde_json::Error>,
    },
}

/// A read-only typed view of an object: decoded at most once per revision and view type for as long as somebody holds it, or it
/// is among those that were decoded last.
pub trait View: serde::de::DeserializeOwned + Send + Sync + 'static {}

/// The view that an object was last asked for.
#[derive(Default)]
enum Viewed {
    #[default]
    Never,
    As(TypeId, Weak<dyn Any + Send + Sync>),
    Unfit(TypeId, Arc<serde_json::Error>),
}

/// Views are several times as large as the objects' bytes: of all objects together, only the newest stay that nobody holds.
static NEWEST: Mutex<Newest> = Mutex::new(Newest { views: VecDeque::new(), bytes: 0 });
/// How many bytes the objects of those views have.
const NEWEST_BYTES_MAX: usize = 1 << 20;

struct Newest {
    views: VecDeque<(Arc<dyn Any + Send + Sync>, usize)>,
    bytes: usize,
}

impl Newest {
    /// Keeps a view, and returns those that it displaces.
    fn push(
        &mut self,
        view: Arc<dyn Any + Send + Sync>,
        bytes: usize,
        bytes_max: usize,
    ) -> Vec<Arc<dyn Any + Send + Sync>> {
        self.views.push_back((view, bytes));
        self.bytes += bytes;
        let mut gone = Vec::new();
        while self.bytes > bytes_max
            && let Some((view, bytes)) = self.views.pop_front()
        {
            self.bytes -= bytes;
            gone.push(view);
        }
        gone
    }
}

/// What a resourceVersion takes on the wire, at most.
const REVISION_BYTES_MAX: usize = 48;

/// One state of one object. Shared as `Arc<Object>`, never changed.
pub struct Object {
    /// The kind.
    pub kind: KindId,
    /// The decoded part.
    pub head: Head,
    json: Bytes,
    insert_at: u32,
    comma_before: bool,
    alone: bool,
    /// One slot: a kind has one view in practice.
    view: Mutex<Viewed>,
}

impl Object {
    /// From canonical JSON without `metadata.resourceVersion`. `facts` are the dotted paths of the kind's row.
    pub fn parse<S: AsRef<str>>(
        kind: KindId,
        json: Bytes,
        revision: Revision,
        facts: &[S],
    ) -> Result<Object, ObjectError> {
        let facts: Vec<&str> = facts.iter().map(AsRef::as_ref).collect();
        let parsed = head::parse(&json, &facts)?;
        Ok(Object {
            kind,
            head: Head { revision, ..parsed.head },
            insert_at: parsed.insert_at as u32,
            comma_before: parsed.comma_before,
            alone: parsed.alone,
            json,
            view: Mutex::default(),
        })
    }

    /// The object's key.
    pub fn key(&self) -> ObjectKey {
        ObjectKey { kind: self.kind, namespace: self.head.namespace.clone(), name: self.head.name.clone() }
    }

    /// The stored bytes: canonical JSON without resourceVersion.
    pub fn stored(&self) -> &Bytes {
        &self.json
    }

    /// The same state under another revision, sharing the bytes: the last state of a deleted object has that of its deletion.
    pub fn at_revision(&self, revision: Revision) -> Object {
        Object {
            kind: self.kind,
            head: Head { revision, ..self.head.clone() },
            json: self.json.clone(),
            insert_at: self.insert_at,
            comma_before: self.comma_before,
            alone: self.alone,
            view: Mutex::default(),
        }
    }

    /// Appends the object's JSON with its resourceVersion.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        self.write_json_without(&[], out);
    }

    /// As [`Object::write_json`], without these bytes behind the opening brace if they stand there.
    pub fn write_json_without(&self, untold: &[u8], out: &mut Vec<u8>) {
        let (first, last) = self.json.split_at(self.insert_at as usize);
        out.reserve(self.json.len() + REVISION_BYTES_MAX);
        match first.strip_prefix(b"{").and_then(|rest| rest.strip_prefix(untold)) {
            Some(rest) => {
                out.push(b'{');
                out.extend_from_slice(rest);
            }
            None => out.extend_from_slice(first),
        }
        self.write_revision(out);
        out.extend_from_slice(last);
    }

    /// Appends `"resourceVersion":"…"` with the comma that it needs; nothing if the object is not stored (a dry run's answer).
    fn write_revision(&self, out: &mut Vec<u8>) {
        if !self.head.revision.is_some() {
            return;
        }
        if !self.alone && self.comma_before {
            out.push(b',');
        }
        out.extend_from_slice(b"\"resourceVersion\":\"");
        write_int(out, i64::try_from(self.head.revision.0).unwrap_or(i64::MAX));
        out.push(b'"');
        if !self.alone && !self.comma_before {
            out.push(b',');
        }
    }

    /// The object's JSON with its resourceVersion.
    pub fn to_json(&self) -> Bytes {
        let mut out = Vec::new();
        self.write_json(&mut out);
        out.into()
    }

    /// A tree to work on, with its resourceVersion. The field sets in its managed fields are not taken apart
    /// ([`Tree::Raw`]).
    pub fn to_tree(&self) -> Tree {
        read(&self.to_json()).expect("an object's bytes were read when it was made")
    }

    /// The typed view.
    pub fn view<V: View>(&self) -> Result<Arc<V>, ObjectError> {
        let ty = TypeId::of::<V>();
        let mut viewed = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match &*viewed {
            Viewed::As(found, view) if *found == ty => {
                view.upgrade().and_then(|view| view.downcast::<V>().ok()).map(Ok)
            }
            Viewed::Unfit(found, error) if *found == ty => Some(Err(error.clone())),
            _ => None,
        };
        let (found, displaced) = match found {
            Some(found) => (found, Vec::new()),
            None => match serde_json::from_slice::<V>(&self.json) {
                Ok(view) => {
                    let view = Arc::new(view);
                    let any: Arc<dyn Any + Send + Sync> = view.clone();
                    *viewed = Viewed::As(ty, Arc::downgrade(&any));
                    let mut newest = NEWEST.lock().unwrap_or_else(PoisonError::into_inner);
                    (Ok(view), newest.push(any, self.json.len(), NEWEST_BYTES_MAX))
                }
                Err(error) => {
                    let error = Arc::new(error);
                    *viewed = Viewed::Unfit(ty, error.clone());
                    (Err(error), Vec::new())
                }
            },
        };
        drop(viewed);
        // Freed here, where nothing is locked.
        drop(displaced);
        found.map_err(|source| ObjectError::View { view: std::any::type_name::<V>(), source })
    }
}

/// Parses an object, all but the field sets of its managed fields.
fn read(bytes: &[u8]) -> Result<Tree, JsonError> {
    let mut reader = Reader::new(bytes);
    let tree = map(&mut reader, |reader, key| match (key, reader.peek()?) {
        ("metadata", Kind::Map) => map(reader, |reader, key| match (key, reader.peek()?) {
            ("managedFields", Kind::List) => managed_fields(reader),
            _ => reader.tree(),
        }),
        _ => reader.tree(),
    })?;
    reader.end()?;
    Ok(tree)
}

fn map(
    reader: &mut Reader<'_>,
    mut value: impl FnMut(&mut Reader<'_>, &str) -> Result<Tree, JsonError>,
) -> Result<Tree, JsonError> {
    let mut entries = MapBuilder::new();
    reader.begin_map()?;
    while let Some(key) = reader.next_key()? {
        let value = value(reader, &key)?;
        entries.insert(Key::from(key.into_owned()), value);
    }
    Ok(Tree::Map(entries.finish()))
}

fn managed_fields(reader: &mut Reader<'_>) -> Result<Tree, JsonError> {
    let mut items = Vec::new();
    reader.begin_list()?;
    while reader.next_item()? {
        items.push(match reader.peek()? {
            Kind::Map => map(reader, |reader, key| match (key, reader.peek()?) {
                ("fieldsV1", Kind::Map) => reader.raw(),
                _ => reader.tree(),
            })?,
            _ => reader.tree()?,
        });
    }
    Ok(Tree::List(items))
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.key(), self.head.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str, facts: &[&str]) -> Object {
        Object::parse(KindId(1), Bytes::copy_from_slice(text.as_bytes()), Revision(7), facts).unwrap()
    }

    #[test]
    fn the_resource_version_stands_at_its_place() {
        for (stored, wire) in [
            (
                r#"{"kind":"A","metadata":{"name":"x","uid":"u","generation":1},"spec":{}}"#,
                r#"{"kind":"A","metadata":{"name":"x","uid":"u","resourceVersion":"7","generation":1},"spec":{}}"#,
            ),
            (r#"{"metadata":{"generation":1}}"#, r#"{"metadata":{"resourceVersion":"7","generation":1}}"#),
            (r#"{"metadata":{}}"#, r#"{"metadata":{"resourceVersion":"7"}}"#),
            (r#"{"metadata":{"name":"x"}}"#, r#"{"metadata":{"name":"x","resourceVersion":"7"}}"#),
        ] {
            assert_eq!(object(stored, &[]).to_json(), wire);
        }
    }

    #[test]
    fn the_head_and_its_facts() {
        let o = object(
            r#"{"metadata":{"name":"p","namespace":"d","labels":{"b":"2","a":"1"},"deletionTimestamp":"2026-01-02T03:04:05Z",
            "ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"r","uid":"u","controller":true}]},
            "spec":{"nodeName":"n1","x":[1]},"status":{"phase":"Running","ready":true}}"#,
            &[
                "spec.nodeName",
                "status.phase",
                "status.ready",
                "status.nothing",
                "metadata.name",
                "spec.none|status.phase",
            ],
        );
        assert_eq!(o.head.labels.get("b"), Some("2"));
        assert_eq!(o.head.controller().map(|c| c.name.as_str()), Some("r"));
        assert!(o.head.is_deleting());
        assert_eq!(
            o.head.facts.iter().map(|f| f.as_str()).collect::<Vec<_>>(),
            ["n1", "Running", "true", "", "p", "Running"]
        );
    }

    #[derive(serde::Deserialize)]
    struct Named {
        metadata: Meta,
    }
    #[derive(serde::Deserialize)]
    struct Meta {
        name: String,
    }
    impl View for Named {}

    #[test]
    fn a_view_is_decoded_once() {
        let o = object(r#"{"metadata":{"name":"x"}}"#, &[]);
        let (a, b) = (o.view::<Named>().unwrap(), o.view::<Named>().unwrap());
        assert!(Arc::ptr_eq(&a, &b));
        assert_eq!(a.metadata.name, "x");
        assert!(object(r#"{"metadata":{}}"#, &[]).view::<Named>().is_err());
    }

    #[test]
    fn views_that_nobody_holds_are_bounded() {
        let mut newest = Newest { views: VecDeque::new(), bytes: 0 };
        let held = Arc::new(0_usize);
        assert!(newest.push(held.clone(), 40, 100).is_empty());
        for i in 1..10_usize {
            newest.push(Arc::new(i), 40, 100);
            assert!(newest.bytes <= 100 && newest.views.len() <= 2);
        }
        // It is among them no more.
        assert_eq!(Arc::strong_count(&held), 1);
        // One that is larger than all may be is not kept.
        assert_eq!(newest.push(held, 1000, 100).len(), 3);
        assert_eq!((newest.views.len(), newest.bytes), (0, 0));
    }
}
