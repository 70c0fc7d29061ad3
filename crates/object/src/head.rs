//! The decoded part of an object: what every component asks of any kind.

use corten_base::{Istr, Timestamp};
use corten_tree::json::{JsonError, Kind, Number, Reader};

use crate::Revision;

/// A reference in `metadata.ownerReferences`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerReference {
    /// Group and version of the owner.
    pub api_version: Istr,
    /// Kind of the owner.
    pub kind: Istr,
    /// Name of the owner.
    pub name: Istr,
    /// Uid of the owner.
    pub uid: Istr,
    /// Whether this is the managing controller.
    pub controller: bool,
    /// Whether the owner's foreground deletion waits for this object.
    pub block_owner_deletion: bool,
}

/// Labels, ordered by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Box<[(Istr, Istr)]>);

impl Labels {
    /// From pairs in any order.
    pub fn new(mut pairs: Vec<(Istr, Istr)>) -> Labels {
        pairs.sort();
        Labels(pairs.into())
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| k.as_str().cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// The labels in key order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The decoded part of an object.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// `metadata.name`
    pub name: Istr,
    /// `metadata.namespace`; empty if cluster-scoped.
    pub namespace: Istr,
    /// `metadata.uid`
    pub uid: Istr,
    /// The store's revision of this state; `metadata.resourceVersion` on the wire.
    pub revision: Revision,
    /// `metadata.generation`; 0 if the kind has none.
    pub generation: i64,
    /// `metadata.creationTimestamp`
    pub created: Option<Timestamp>,
    /// `metadata.deletionTimestamp`
    pub deleted: Option<Timestamp>,
    /// `metadata.deletionGracePeriodSeconds`
    pub deletion_grace_seconds: Option<i64>,
    /// `metadata.labels`
    pub labels: Labels,
    /// `metadata.ownerReferences`
    pub owners: Box<[OwnerReference]>,
    /// `metadata.finalizers`
    pub finalizers: Box<[Istr]>,
    /// The values of the paths that the kind's row declares as facts, in that order; empty text where absent.
    /// Numbers and booleans are kept as their JSON text.
    pub facts: Box<[Istr]>,
}

impl Head {
    /// The managing controller's reference, if there is one.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owners.iter().find(|owner| owner.controller)
    }

    /// Whether deletion has begun.
    pub fn is_deleting(&self) -> bool {
        self.deleted.is_some()
    }
}

/// A head read from bytes, and where the resourceVersion belongs.
pub(crate) struct Parsed {
    pub head: Head,
    /// Where to insert `"resourceVersion":"…"` with the needed comma.
    pub insert_at: usize,
    /// Whether a comma goes before (else after, unless `alone`).
    pub comma_before: bool,
    /// Whether metadata is otherwise empty.
    pub alone: bool,
}

/// Reads the head of an object's canonical JSON. `facts` are dotted paths (map keys only); `a|b` is what is at `b` where there
/// is nothing at `a`.
pub(crate) fn parse(bytes: &[u8], facts: &[&str]) -> Result<Parsed, JsonError> {
    let mut reader = Reader::new(bytes);
    let mut parsed = Parsed { head: Head::default(), insert_at: 0, comma_before: false, alone: false };
    let alternatives = facts.iter().enumerate().filter_map(|(i, path)| Some((i, path.split_once('|')?.1)));
    let others: Vec<(usize, &str)> = alternatives.collect();
    let firsts = facts.iter().map(|path| path.split_once('|').map_or(*path, |(first, _)| first));
    let paths: Vec<&str> = firsts.chain(others.iter().map(|(_, other)| *other)).collect();
    let mut values = vec![Istr::default(); paths.len()];
    let mut seen_metadata = false;
    reader.begin_map()?;
    while let Some(key) = reader.next_key()? {
        let below: Vec<(usize, &str)> = facts_below(paths.iter().copied().enumerate(), &key);
        if key == "metadata" && reader.peek()? == Kind::Map {
            seen_metadata = true;
            metadata(&mut reader, &mut parsed, &below, &mut values)?;
        } else {
            fact(&mut reader, &below, &mut values)?;
        }
    }
    reader.end()?;
    if !seen_metadata {
        return Err(reader.error("metadata is missing"));
    }
    let fallbacks = values.split_off(facts.len());
    for ((i, _), value) in others.iter().zip(fallbacks) {
        if values[*i].is_empty() {
            values[*i] = value;
        }
    }
    parsed.head.facts = values.into();
    Ok(parsed)
}

fn facts_below<'f>(facts: impl Iterator<Item = (usize, &'f str)>, key: &str) -> Vec<(usize, &'f str)> {
    facts
        .filter_map(|(i, path)| match path.strip_prefix(key)? {
            "" => Some((i, "")),
            rest => rest.strip_prefix('.').map(|rest| (i, rest)),
        })
        .collect()
}

/// Reads one value, noting the facts in it, without building anything for the rest.
fn fact(reader: &mut Reader<'_>, wanted: &[(usize, &str)], values: &mut [Istr]) -> Result<(), JsonError> {
    if wanted.is_empty() {
        return reader.skip().map(drop);
    }
    let mut note = |text: &str| {
        for (i, _) in wanted.iter().filter(|(_, path)| path.is_empty()) {
            values[*i] = Istr::new(text);
        }
    };
    match reader.peek()? {
        Kind::Map => {
            reader.begin_map()?;
            while let Some(key) = reader.next_key()? {
                let below = facts_below(wanted.iter().copied(), &key);
                fact(reader, &below, values)?;
            }
        }
        Kind::Str => {
            let text = reader.string()?;
            note(&text);
        }
        Kind::Null | Kind::List => drop(reader.skip()?),
        Kind::Bool | Kind::Number => {
            let text = reader.skip()?;
            if let Ok(text) = std::str::from_utf8(text) {
                note(text);
            }
        }
    }
    Ok(())
}

fn metadata(
    reader: &mut Reader<'_>,
    parsed: &mut Parsed,
    facts: &[(usize, &str)],
    values: &mut [Istr],
) -> Result<(), JsonError> {
    reader.begin_map()?;
    parsed.insert_at = reader.offset();
    parsed.alone = true;
    let head = &mut parsed.head;
    while let Some(key) = reader.next_key()? {
        parsed.alone = false;
        let below = facts_below(facts.iter().copied(), &key);
        if reader.peek()? == Kind::Null {
            reader.null()?;
            continue;
        }
        match &*key {
            "name" => head.name = Istr::new(&reader.string()?),
            "namespace" => head.namespace = Istr::new(&reader.string()?),
            "uid" => head.uid = Istr::new(&reader.string()?),
            "generation" => head.generation = integer(reader)?,
            "creationTimestamp" => head.created = timestamp(reader)?,
            "deletionTimestamp" => head.deleted = timestamp(reader)?,
            "deletionGracePeriodSeconds" => head.deletion_grace_seconds = Some(integer(reader)?),
            "labels" => head.labels = labels(reader)?,
            "ownerReferences" => head.owners = owners(reader)?,
            "finalizers" => head.finalizers = texts(reader)?,
            _ => fact(reader, &below, values)?,
        }
        for (i, path) in below {
            if path.is_empty() && key == "name" {
                values[i] = head.name.clone();
            } else if path.is_empty() && key == "namespace" {
                values[i] = head.namespace.clone();
            }
        }
        // resourceVersion follows name, generateName, namespace, selfLink and uid in ObjectMeta's field order.
        if matches!(&*key, "name" | "generateName" | "namespace" | "selfLink" | "uid") {
            parsed.insert_at = reader.offset();
            parsed.comma_before = true;
        }
    }
    Ok(())
}

fn integer(reader: &mut Reader<'_>) -> Result<i64, JsonError> {
    match reader.number()? {
        Number::Int(n) => Ok(n),
        Number::Float(_) => Err(reader.error("an integer is expected")),
    }
}

fn timestamp(reader: &mut Reader<'_>) -> Result<Option<Timestamp>, JsonError> {
    let text = reader.string()?;
    crate::time::parse(&text).map(Some).ok_or_else(|| reader.error(format!("{text:?} is not a time")))
}

fn texts(reader: &mut Reader<'_>) -> Result<Box<[Istr]>, JsonError> {
    let mut out = Vec::new();
    reader.begin_list()?;
    while reader.next_item()? {
        out.push(Istr::new(&reader.string()?));
    }
    Ok(out.into())
}

fn labels(reader: &mut Reader<'_>) -> Result<Labels, JsonError> {
    let mut pairs = Vec::new();
    reader.begin_map()?;
    while let Some(key) = reader.next_key()? {
        pairs.push((Istr::new(&key), Istr::new(&reader.string()?)));
    }
    Ok(Labels::new(pairs))
}

fn owners(reader: &mut Reader<'_>) -> Result<Box<[OwnerReference]>, JsonError> {
    let mut out = Vec::new();
    reader.begin_list()?;
    while reader.next_item()? {
        let tree = reader.tree()?;
        out.push(OwnerReference {
            api_version: tree.str_at("apiVersion").into(),
            kind: tree.str_at("kind").into(),
            name: tree.str_at("name").into(),
            uid: tree.str_at("uid").into(),
            controller: tree.bool_at("controller"),
            block_owner_deletion: tree.bool_at("blockOwnerDeletion"),
        });
    }
    Ok(out.into())
}
