//! The immutable object.

use std::any::{Any, TypeId};
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes};
use corten_tree::json::{JsonError, Kind, Reader};
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

/// A read-only typed view of an object: decoded at most once per revision and view type, and kept with the object.
pub trait View: serde::de::DeserializeOwned + Send + Sync + 'static {}

type Decoded = (TypeId, Arc<dyn Any + Send + Sync>);

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
    view: OnceLock<Result<Decoded, Arc<serde_json::Error>>>,
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
            view: OnceLock::new(),
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

    /// The three slices of the object's JSON on the wire: the bytes before the resourceVersion, its text, the rest.
    /// Nothing is encoded again.
    pub fn wire(&self) -> (Bytes, String, Bytes) {
        let at = self.insert_at as usize;
        if !self.head.revision.is_some() {
            // Not stored (a dry run's answer): it has none.
            return (self.json.slice(..at), String::new(), self.json.slice(at..));
        }
        let (before, after) = match (self.alone, self.comma_before) {
            (true, _) => ("", ""),
            (_, true) => (",", ""),
            (_, false) => ("", ","),
        };
        let middle = format!("{before}\"resourceVersion\":\"{}\"{after}", self.head.revision);
        (self.json.slice(..at), middle, self.json.slice(at..))
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
            view: OnceLock::new(),
        }
    }

    /// Appends the object's JSON with its resourceVersion.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let (first, middle, last) = self.wire();
        out.reserve(first.len() + middle.len() + last.len());
        out.put(first);
        out.put_slice(middle.as_bytes());
        out.put(last);
    }

    /// As [`Object::write_json`], without these bytes behind the opening brace if they stand there.
    pub fn write_json_without(&self, untold: &[u8], out: &mut Vec<u8>) {
        let (first, middle, last) = self.wire();
        out.reserve(first.len() + middle.len() + last.len());
        match first.strip_prefix(b"{").and_then(|rest| rest.strip_prefix(untold)) {
            Some(rest) => {
                out.put_u8(b'{');
                out.put_slice(rest);
            }
            None => out.put(first),
        }
        out.put_slice(middle.as_bytes());
        out.put(last);
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

    /// The typed view. The first type asked for is kept with the object; another is decoded anew.
    pub fn view<V: View>(&self) -> Result<Arc<V>, ObjectError> {
        let decode = || serde_json::from_slice::<V>(&self.json).map(Arc::new).map_err(Arc::new);
        let slot = self.view.get_or_init(|| decode().map(|v| (TypeId::of::<V>(), v as Arc<dyn Any + Send + Sync>)));
        let found = match slot {
            Ok((id, view)) if *id == TypeId::of::<V>() => view.clone().downcast::<V>().map_err(|_| None),
            Ok(_) => decode().map_err(Some),
            Err(error) => Err(Some(error.clone())),
        };
        found.map_err(|source| ObjectError::View {
            view: std::any::type_name::<V>(),
            source: source.expect("a view of the type that the slot names downcasts to it"),
        })
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
    }
}
