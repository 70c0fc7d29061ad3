//! The immutable object.

use std::any::{Any, TypeId};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use corten_tree::json::{JsonError, Kind, Reader, write_int};
use corten_tree::{Key, MapBuilder, Tree};

use crate::text::{Models, Text};
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

/// A read-only typed view of an object: decoded at most once per revision and view type for as long as it is among those that
/// were decoded last.
pub trait View: serde::de::DeserializeOwned + Send + Sync + 'static {}

/// The view that an object was last asked for.
#[derive(Default)]
enum Viewed {
    #[default]
    Never,
    As(TypeId, Weak<Held>),
    Unfit(TypeId, Arc<serde_json::Error>),
}

/// Keeps a view. Objects point to this and not to the view itself, whose kilobytes would stay allocated, though empty, for as
/// long as something points to them.
struct Held(Arc<dyn Any + Send + Sync>);

/// Views are several times as large as the objects' bytes: of all objects together, only the newest stay that nobody holds.
static NEWEST: Mutex<Newest> = Mutex::new(Newest { views: VecDeque::new(), bytes: 0 });
/// How many bytes the objects of those views have.
const NEWEST_BYTES_MAX: usize = 1 << 20;

struct Newest {
    views: VecDeque<(Arc<Held>, usize)>,
    bytes: usize,
}

impl Newest {
    /// Keeps a view, and returns those that it displaces.
    fn push(&mut self, view: Arc<Held>, bytes: usize, bytes_max: usize) -> Vec<Arc<Held>> {
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
    text: Text,
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
            text: Text::Whole(json),
            view: Mutex::default(),
        })
    }

    /// The same object, its bytes in less memory if they are like those of others of its kind.
    pub fn folded(mut self, models: &mut Models) -> Object {
        self.text = match self.text {
            Text::Whole(bytes) => models.fold(bytes),
            like @ Text::Like(_) => like,
        };
        self
    }

    /// The object's key.
    pub fn key(&self) -> ObjectKey {
        ObjectKey { kind: self.kind, namespace: self.head.namespace.clone(), name: self.head.name.clone() }
    }

    /// The stored bytes: canonical JSON without resourceVersion. Put together if they are folded.
    pub fn stored(&self) -> Bytes {
        self.text.to_bytes()
    }

    /// How many they are.
    pub fn stored_len(&self) -> usize {
        self.text.len()
    }

    /// How many bytes of memory they take that are not another object's, too.
    pub fn own_bytes(&self) -> usize {
        self.text.own_bytes()
    }

    /// Whether these are the stored bytes.
    pub fn is_stored_as(&self, bytes: &[u8]) -> bool {
        self.text.is(bytes)
    }

    /// Whether the stored bytes begin with these.
    pub fn stored_begins_with(&self, bytes: &[u8]) -> bool {
        self.text.starts_with(bytes)
    }

    /// The same state under another revision, sharing the bytes: the last state of a deleted object has that of its deletion.
    pub fn at_revision(&self, revision: Revision) -> Object {
        Object {
            kind: self.kind,
            head: Head { revision, ..self.head.clone() },
            text: self.text.clone(),
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
        let (insert_at, end) = (self.insert_at as usize, self.text.len());
        out.reserve(end + REVISION_BYTES_MAX);
        let told = 1 + untold.len();
        if !untold.is_empty() && told <= insert_at && self.text.has_at(1, untold) {
            out.push(b'{');
            self.text.append(told, insert_at, out);
        } else {
            self.text.append(0, insert_at, out);
        }
        self.write_revision(out);
        self.text.append(insert_at, end, out);
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
                view.upgrade().and_then(|held| held.0.clone().downcast::<V>().ok()).map(Ok)
            }
            Viewed::Unfit(found, error) if *found == ty => Some(Err(error.clone())),
            _ => None,
        };
        let (found, displaced) = match found {
            Some(found) => (found, Vec::new()),
            None => match serde_json::from_slice::<V>(&self.text.to_bytes()) {
                Ok(view) => {
                    let view = Arc::new(view);
                    let held = Arc::new(Held(view.clone()));
                    *viewed = Viewed::As(ty, Arc::downgrade(&held));
                    let mut newest = NEWEST.lock().unwrap_or_else(PoisonError::into_inner);
                    (Ok(view), newest.push(held, self.text.len(), NEWEST_BYTES_MAX))
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
    fn a_folded_object_is_written_as_a_whole_one() {
        let json = |n: usize| {
            let spec = (0..40).map(|i| format!(r#""field{i}":"value {i}""#)).collect::<Vec<_>>().join(",");
            format!(
                r#"{{"kind":"A","apiVersion":"v1","metadata":{{"name":"x{n}","uid":"u{n}","generation":1}},"spec":{{{spec}}}}}"#
            )
        };
        let mut models = Models::default();
        for n in 0..3 {
            let whole = object(&json(n), &[]);
            let folded = object(&json(n), &[]).folded(&mut models);
            assert_eq!(folded.own_bytes() < folded.stored_len(), n > 0);
            assert_eq!((folded.stored(), folded.to_json()), (whole.stored(), whole.to_json()));
            assert_eq!(folded.to_tree(), whole.to_tree());
            for untold in [&b"\"kind\":\"A\",\"apiVersion\":\"v1\","[..], b"\"kind\":\"B\",", b""] {
                let written = |object: &Object| {
                    let mut out = Vec::new();
                    object.write_json_without(untold, &mut out);
                    String::from_utf8(out).unwrap()
                };
                assert_eq!(written(&folded), written(&whole));
                assert_eq!(written(&folded).contains("kind"), !untold.starts_with(b"\"kind\":\"A\""));
            }
            assert!(folded.is_stored_as(json(n).as_bytes()) && folded.stored_begins_with(b"{\"kind\":\"A\""));
            let again = folded.at_revision(Revision(9));
            assert_eq!((again.stored(), again.head.revision), (whole.stored(), Revision(9)));
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
    fn an_object_does_not_keep_the_memory_of_a_view_that_was_displaced() {
        let o = object(r#"{"metadata":{"name":"x"}}"#, &[]);
        let view = o.view::<Named>().unwrap();
        // Only the kept one and this; nothing weak, which would keep the allocation.
        assert_eq!((Arc::strong_count(&view), Arc::weak_count(&view)), (2, 0));
    }

    #[test]
    fn views_that_nobody_holds_are_bounded() {
        let mut newest = Newest { views: VecDeque::new(), bytes: 0 };
        let view = Arc::new(0_usize);
        assert!(newest.push(Arc::new(Held(view.clone())), 40, 100).is_empty());
        for i in 1..10_usize {
            newest.push(Arc::new(Held(Arc::new(i))), 40, 100);
            assert!(newest.bytes <= 100 && newest.views.len() <= 2);
        }
        // It is among them no more.
        assert_eq!(Arc::strong_count(&view), 1);
        // One that is larger than all may be is not kept.
        assert_eq!(newest.push(Arc::new(Held(view)), 1000, 100).len(), 3);
        assert_eq!((newest.views.len(), newest.bytes), (0, 0));
    }
}
