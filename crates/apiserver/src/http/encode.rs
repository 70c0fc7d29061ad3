//! Objects, lists and tables as bytes.

use std::sync::Arc;

use bytes::Bytes;
use corten_base::Revision;
use corten_kinds::{Kind, RowContext};
use corten_object::{Object, Reason, Status};
use corten_schema::{TypeId, encode_json, protobuf};
use corten_tree::json::{Kind as JsonKind, Reader};
use corten_tree::{Tree, tree};

use super::body::{Body, ListBody, full};
use super::negotiate::{Form, Format, Shape};
use super::respond::rendered;
use crate::core::{Core, from_storage, is_at_version};
use crate::pipeline::Listed;

/// What a Table's rows carry besides their cells (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IncludeObject {
    Nothing,
    Metadata,
    Object,
}

impl IncludeObject {
    /// From the query; 400 for what is none of the values (`ValidateTableOptions`).
    pub fn parse(text: &str) -> Result<IncludeObject, Status> {
        match text {
            "None" => Ok(IncludeObject::Nothing),
            "Object" => Ok(IncludeObject::Object),
            "" | "Metadata" => Ok(IncludeObject::Metadata),
            other => Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', \
                 'Object', 'None', or empty"
            ))),
        }
    }
}

/// How answers about objects of one kind are written for one client.
#[derive(Clone)]
pub(crate) struct Encoder {
    /// What a watch selects by after its objects were converted; see `Core::late_filter`.
    pub late: Option<corten_cache::Filter>,
    pub core: Arc<Core>,
    pub kind: Arc<Kind>,
    pub version: Arc<str>,
    pub form: Form,
    pub include: IncludeObject,
}

impl Encoder {
    /// One object.
    pub fn object(&self, object: &Object) -> Result<Bytes, Status> {
        match self.form.shape {
            Shape::Table => Ok(self.tree(&self.table(&[object], None, true))),
            Shape::Partial => Ok(self.partial(object)),
            Shape::PartialList => Err(Status::new(
                Reason::NotAcceptable,
                format!(
                    "you requested PartialObjectMetadataList, but the requested object is not a list ({})",
                    self.go_type("")
                ),
            )),
            Shape::Whole => Ok(self.whole(object)),
        }
    }

    /// The kind as Go prints its internal type.
    fn go_type(&self, suffix: &str) -> String {
        let package = self.kind.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
        format!("*{package}.{}{suffix}", self.kind.kind)
    }

    fn whole(&self, object: &Object) -> Bytes {
        match (self.form.format, self.core.at_version(&self.kind, &self.version, object)) {
            (Format::Json, None) => object.to_json(),
            (Format::Json, Some(tree)) => match self.kind.type_of(&self.version) {
                Some(ty) => encode_json(&self.kind.schema, ty, &tree).into(),
                None => tree.to_json().into(),
            },
            (Format::Protobuf, None) => match self.message(object) {
                Some(message) => self.enveloped(&message),
                None => self.tree(&object.to_tree()),
            },
            (_, tree) => self.tree(&tree.unwrap_or_else(|| object.to_tree())),
        }
    }

    /// As [`Encoder::object`], for one of many that are likely to be asked for again.
    pub fn object_kept(&self, object: &Arc<Object>) -> Result<Bytes, Status> {
        if self.form.shape == Shape::Whole
            && self.form.format == Format::Protobuf
            && is_at_version(&self.kind, &self.version)
            && let Some(messages) = self.core.messages.of(std::slice::from_ref(object), |object| self.message(object))
            && let [message] = messages.as_slice()
        {
            return Ok(self.enveloped(message));
        }
        self.object(object)
    }

    /// An object that is served as it is stored as a protobuf message, if its kind has that form.
    fn message(&self, object: &Object) -> Option<Bytes> {
        let ty = self.kind.type_of(&self.version).filter(|_| self.is_typed())?;
        let message = protobuf::from_json(&self.kind.schema, ty, &object.to_json()).ok()?;
        Some(message.into_boxed_slice().into())
    }

    fn enveloped(&self, message: &[u8]) -> Bytes {
        let gvk = self.kind.gvk(&self.version);
        let envelope = protobuf::Envelope { raw: message, ..protobuf::Envelope::default() };
        protobuf::Envelope { api_version: &gvk.api_version(), kind: &gvk.kind, ..envelope }.write().into()
    }

    /// The object at the version that is served.
    pub fn served_tree(&self, object: &Object) -> Tree {
        let mut tree = object.to_tree();
        if self.core.at_version(&self.kind, &self.version, object).is_some() {
            from_storage(&self.kind, &self.version, &mut tree);
        }
        tree
    }

    /// Any tree with `apiVersion` and `kind`.
    pub fn tree(&self, tree: &Tree) -> Bytes {
        tree_bytes(&self.core, self.form.format, tree)
    }

    fn partial(&self, object: &Object) -> Bytes {
        if self.form.format == Format::Json {
            let json = object.to_json();
            let metadata = metadata_slice(&json).unwrap_or(b"{}");
            let mut out = br#"{"kind":"PartialObjectMetadata","apiVersion":""#.to_vec();
            out.extend_from_slice(self.form.meta_api_version().as_bytes());
            out.extend_from_slice(br#"","metadata":"#);
            out.extend_from_slice(metadata);
            out.push(b'}');
            return out.into();
        }
        self.tree(&self.partial_tree(object))
    }

    fn partial_tree(&self, object: &Object) -> Tree {
        let json = object.to_json();
        let metadata = metadata_slice(&json).and_then(|m| corten_tree::json::parse(m).ok()).unwrap_or_default();
        let api_version = self.form.meta_api_version();
        tree!({"kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": metadata})
    }

    /// A list.
    pub fn list(&self, listed: Listed) -> Result<Body, Status> {
        let body = match self.form.shape {
            Shape::Table => {
                let objects: Vec<&Object> = listed.items.iter().map(|o| &**o).collect();
                full(rendered(self.form, self.tree(&self.table(&objects, Some(&listed), true))))
            }
            Shape::PartialList => {
                let items: Vec<Tree> = listed.items.iter().map(|o| self.partial_tree(o)).collect();
                let api_version = self.form.meta_api_version();
                let list = tree!({"kind": "PartialObjectMetadataList", "apiVersion": api_version,
                    "metadata": (list_metadata(&listed)), "items": (Tree::List(items))});
                full(rendered(self.form, self.tree(&list)))
            }
            Shape::Partial => {
                let found = self.go_type("List");
                let why = format!("you requested PartialObjectMetadata, but the requested object is a list ({found})");
                return Err(Status::new(Reason::NotAcceptable, why));
            }
            Shape::Whole => match self.whole_list(listed) {
                Body::List(list) if self.form.pretty => full(rendered(self.form, list.collect().into())),
                Body::Full(Some(bytes)) => full(rendered(self.form, bytes)),
                other => other,
            },
        };
        Ok(body)
    }

    /// Whether objects in a list leave kind and version to the list, as those of Go types do; custom resources tell theirs.
    fn is_typed(&self) -> bool {
        self.kind.spec.is_some()
    }

    fn whole_list(&self, listed: Listed) -> Body {
        let gvk = self.kind.gvk(&self.version);
        let same = listed.items.first().is_none_or(|o| self.core.at_version(&self.kind, &self.version, o).is_none());
        let mut head = tree!({"kind": (self.kind.list_kind()), "apiVersion": (gvk.api_version()),
            "metadata": (list_metadata(&listed))});
        if self.form.format == Format::Json && same {
            let mut head = head.to_json();
            head.pop();
            head.extend_from_slice(b",\"items\":[");
            let untold = match self.is_typed() {
                true => format!("\"kind\":\"{}\",\"apiVersion\":\"{}\",", gvk.kind, gvk.api_version()).into_bytes(),
                false => Vec::new(),
            };
            return Body::List(ListBody::json(head, listed.items, untold));
        }
        if self.form.format == Format::Protobuf
            && same
            && let Some(list) = self.message_list(&head, &listed.items)
        {
            return Body::List(list);
        }
        let mut items: Vec<Tree> = listed.items.iter().map(|o| self.served_tree(o)).collect();
        if self.is_typed() {
            items.iter_mut().for_each(|item| item.make_map().retain(|key, _| key != "kind" && key != "apiVersion"));
        }
        head.insert("items", Tree::List(items));
        full(self.tree(&head))
    }

    fn message_list(&self, head: &Tree, objects: &[Arc<Object>]) -> Option<ListBody> {
        let ty = self.core.schema.gvk(&self.kind.group, &self.version, &self.kind.list_kind())?;
        let messages = self.core.messages.of(objects, |object| self.message(object))?;
        let bytes = messages.iter().map(|message| protobuf::list_item_bytes(message.len())).sum();
        let head = protobuf::list_head(self.core.schema, ty, head, bytes)?;
        Some(ListBody::protobuf(head, messages))
    }

    /// Objects as rows (`apiserver/pkg/registry/rest/table.go`, `pkg/printers`).
    pub fn table(&self, objects: &[&Object], listed: Option<&Listed>, headers: bool) -> Tree {
        let context = RowContext { now: self.core.clock.now() };
        let rows: Vec<Tree> = objects
            .iter()
            .map(|object| {
                let mut row = tree!({"cells": (Tree::List(self.kind.row(&self.version, object, &context)))});
                match self.include {
                    IncludeObject::Nothing => {}
                    IncludeObject::Metadata => row.insert("object", self.partial_tree(object)),
                    IncludeObject::Object => row.insert("object", self.served_tree(object)),
                }
                row
            })
            .collect();
        let revision = objects.first().map_or(Revision::ZERO, |o| o.head.revision);
        let metadata = match listed {
            Some(listed) => list_metadata(listed),
            None => tree!({"resourceVersion": (revision.to_string())}),
        };
        let definitions = if headers { self.column_definitions() } else { Tree::Null };
        let api_version = self.form.meta_api_version();
        tree!({"kind": "Table", "apiVersion": api_version, "metadata": metadata,
            "columnDefinitions": definitions, "rows": (Tree::List(rows))})
    }

    fn column_definitions(&self) -> Tree {
        let define = |c: &corten_kinds::RuntimeColumn| {
            tree!({"name": (&c.name), "type": (c.kind.as_str()), "format": (&c.format), "description": (&c.description),
                "priority": (i64::from(c.priority))})
        };
        Tree::List(self.kind.columns(&self.version).iter().map(define).collect())
    }
}

fn list_metadata(listed: &Listed) -> Tree {
    let mut metadata = tree!({"resourceVersion": (listed.revision.to_string())});
    if let Some(next) = &listed.next {
        metadata.insert("continue", next.as_str());
    }
    if let Some(remaining) = listed.remaining {
        metadata.insert("remainingItemCount", i64::try_from(remaining).unwrap_or(i64::MAX));
    }
    metadata
}

/// The bytes of an object's metadata.
fn metadata_slice(json: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(json);
    reader.begin_map().ok()?;
    while let Some(key) = reader.next_key().ok()? {
        if key == "metadata" && reader.peek().ok()? == JsonKind::Map {
            return reader.skip().ok();
        }
        reader.skip().ok()?;
    }
    None
}

/// Any tree with `apiVersion` and `kind` in a format.
pub(crate) fn tree_bytes(core: &Core, format: Format, tree: &Tree) -> Bytes {
    let ty = type_of(core, tree);
    match (format, ty) {
        (Format::Json, Some(ty)) => encode_json(core.schema, ty, tree).into(),
        (Format::Json, None) => tree.to_json().into(),
        (Format::Yaml, _) => {
            let mut json: serde_json::Value = serde_json::from_slice(&tree.to_json()).unwrap_or_default();
            json.sort_all_objects();
            serde_saphyr::to_string(&json).unwrap_or_default().into()
        }
        (Format::Protobuf, Some(ty)) => protobuf::encode_object(core.schema, ty, tree).into(),
        (Format::Protobuf, None) => tree.to_json().into(),
    }
}

fn type_of(core: &Core, tree: &Tree) -> Option<TypeId> {
    let (api_version, kind) = (tree.str_at("apiVersion"), tree.str_at("kind"));
    // Tables hold any object in their rows: they are written as they are.
    if kind == "Table" {
        return None;
    }
    core.schema.api_version_kind(api_version, kind)
}
