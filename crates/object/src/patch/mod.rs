//! The patches: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge patch.
//!
//! Each is a pure function on trees, with the results and messages of upstream's libraries where a client sees them. The
//! result still has to be checked and normalised by [`corten_schema::canonicalise`]. (`apiserver/pkg/endpoints/handlers/patch.go`)

mod json;
mod merge;
mod strategic;

use corten_schema::{Schema, TypeId};
use corten_tree::json::{JsonError, Kind, Reader};
use corten_tree::{Key, MapBuilder, Tree};

pub use json::{OPERATIONS_MAX, json_patch};
pub use merge::merge_patch;
pub(crate) use strategic::go_value;
pub use strategic::strategic_patch;

/// Which patch a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    Strategic,
}

impl PatchKind {
    /// The kind of a content type (without parameters).
    pub fn of_content_type(content_type: &str) -> Option<PatchKind> {
        match content_type {
            "application/json-patch+json" => Some(PatchKind::Json),
            "application/merge-patch+json" => Some(PatchKind::Merge),
            "application/strategic-merge-patch+json" => Some(PatchKind::Strategic),
            _ => None,
        }
    }
}

/// Why a patch does not apply, by the HTTP code that upstream answers. The text is upstream's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// 400: the patch itself is wrong.
    #[error("{0}")]
    BadRequest(String),
    /// 422: it does not fit this object.
    #[error("{0}")]
    Unprocessable(String),
    /// 413: too many operations.
    #[error("{0}")]
    TooLarge(String),
    /// 500: what upstream does not tell apart.
    #[error("{0}")]
    Internal(String),
}

/// A patched object.
#[derive(Debug, Clone, PartialEq)]
pub struct Patched {
    /// The object; not yet checked against its type.
    pub tree: Tree,
    /// Strict errors in the patch itself (repeated fields, unknown members of an operation), to be refused or warned about
    /// together with those of the result.
    pub strict: Vec<String>,
}

/// Applies the bytes of a patch to an object of type `ty`.
pub fn apply(kind: PatchKind, schema: &Schema, ty: TypeId, object: Tree, patch: &[u8]) -> Result<Patched, PatchError> {
    match kind {
        PatchKind::Json => {
            let (operations, strict) = json::read(patch)?;
            json_patch(object, &operations).map(|tree| Patched { tree, strict })
        }
        PatchKind::Merge => {
            let decoding = |message: String| PatchError::BadRequest(format!("error decoding patch: {message}"));
            let (patch, strict) = document(patch).map_err(|e| decoding(e.message))?;
            match &patch {
                Tree::Map(_) => Ok(Patched { tree: merge_patch(object, patch), strict }),
                Tree::Null => Err(PatchError::BadRequest("Invalid JSON Patch".into())),
                other => Err(decoding(not_an_object(other))),
            }
        }
        PatchKind::Strategic => {
            let (patch, strict) = document(patch).map_err(|e| PatchError::BadRequest(e.message))?;
            match patch {
                Tree::Map(_) | Tree::Null => {
                    strategic_patch(schema, ty, object, patch).map(|tree| Patched { tree, strict })
                }
                other => Err(PatchError::BadRequest(not_an_object(&other))),
            }
        }
    }
}

fn not_an_object(tree: &Tree) -> String {
    format!("json: cannot unmarshal {} into Go value of type map[string]interface {{}}", tree.type_name())
}

/// The bytes of a patch as upstream's messages show it: Go's `%v` of the decoded value.
pub fn shown(patch: &[u8]) -> String {
    corten_tree::json::parse(patch)
        .map_or_else(|_| String::from_utf8_lossy(patch).into_owned(), |t| strategic::go_value(&t))
}

/// Upstream's bound of reported strict errors.
const STRICT_MAX: usize = 100;

/// Reads a JSON document and reports its repeated fields.
pub fn document(bytes: &[u8]) -> Result<(Tree, Vec<String>), JsonError> {
    let mut reader = Reader::new(bytes);
    let mut repeated = Vec::new();
    let tree = value(&mut reader, &mut repeated)?;
    reader.end()?;
    let strict = repeated.into_iter().take(STRICT_MAX).map(|path| format!("duplicate field {path:?}")).collect();
    Ok((tree, strict))
}

/// One value; paths of repeated fields grow towards the root as the calls return.
fn value(reader: &mut Reader<'_>, repeated: &mut Vec<String>) -> Result<Tree, JsonError> {
    match reader.peek()? {
        Kind::Map => {
            reader.begin_map()?;
            let mut map = MapBuilder::new();
            while let Some(key) = reader.next_key()? {
                let mark = repeated.len();
                let inner = value(reader, repeated)?;
                prefix(&mut repeated[mark..], &key);
                if map.insert(Key::from(key.to_string()), inner).is_some() {
                    repeated.push(key.into_owned());
                }
            }
            Ok(Tree::Map(map.finish()))
        }
        Kind::List => {
            reader.begin_list()?;
            let mut items = Vec::new();
            while reader.next_item()? {
                let mark = repeated.len();
                items.push(value(reader, repeated)?);
                prefix(&mut repeated[mark..], &format!("[{}]", items.len() - 1));
            }
            Ok(Tree::List(items))
        }
        _ => reader.tree(),
    }
}

fn prefix(paths: &mut [String], part: &str) {
    for path in paths {
        let dot = if path.starts_with('[') { "" } else { "." };
        *path = format!("{part}{dot}{path}");
    }
}

#[cfg(test)]
mod tests;
