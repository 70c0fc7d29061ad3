//! The plain types that cross the store's boundary: entries, ranges, batches and changes.

use bytes::Bytes;
use corten_base::Revision;

/// One key with its value at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Bytes,
    pub value: Bytes,
    /// The revision that created the key (since it was last absent).
    pub create_revision: Revision,
    /// The revision that wrote this value.
    pub mod_revision: Revision,
    /// How often the key has been written since it was created; 1 after the creating write.
    pub version: u64,
}

/// The answer of `get`: the entry, and the revision at which that was (or was not) there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub entry: Option<Entry>,
    pub revision: Revision,
}

/// A page of entries in key order, all as of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// The revision that the page shows. Pass it as `at`, with [`KeyRange::after`] the last key, to read the next page.
    pub revision: Revision,
    /// Whether the range holds more entries than fitted into the limit.
    pub more: bool,
}

/// A half-open range of keys in byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key of the range, inclusive.
    pub start: Bytes,
    /// The end of the range, exclusive; `None` is the end of the key space.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// Every key.
    pub fn all() -> KeyRange {
        KeyRange { start: Bytes::new(), end: None }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> KeyRange {
        let start: Bytes = prefix.into();
        let mut end = start.to_vec();
        while end.last() == Some(&0xff) {
            end.pop();
        }
        match end.last_mut() {
            None => KeyRange { start, end: None },
            Some(last) => {
                *last += 1;
                KeyRange { start, end: Some(end.into()) }
            }
        }
    }

    /// The part of this range behind `key`: how a paginated read goes on.
    #[must_use]
    pub fn after(self, key: &[u8]) -> KeyRange {
        let mut next = Vec::with_capacity(key.len() + 1);
        next.extend_from_slice(key);
        next.push(0);
        if self.start.as_ref() < next.as_slice() { KeyRange { start: next.into(), end: self.end } } else { self }
    }

    /// Whether the range holds `key`.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_ref() && self.end.as_ref().is_none_or(|end| key < end.as_ref())
    }

    /// Whether no key can be in the range.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end <= &self.start)
    }
}

/// A precondition of a batch: the key's current modification revision must be `expected`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    pub key: Bytes,
    /// [`Revision::ZERO`]: the key must be absent.
    pub expected: Revision,
}

/// One write of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Put {
        key: Bytes,
        value: Bytes,
    },
    /// Deleting an absent key changes nothing and is not an error; add a [`Compare`] where it should be.
    Delete {
        key: Bytes,
    },
}

impl Write {
    pub fn key(&self) -> &Bytes {
        match self {
            Write::Put { key, .. } | Write::Delete { key } => key,
        }
    }
}

/// Writes that happen together, at one revision, if all preconditions hold. Preconditions may name keys that the batch
/// does not write. A key may be written once per batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub compares: Vec<Compare>,
    pub writes: Vec<Write>,
}

impl Batch {
    /// The greatest number of writes in one batch.
    pub const WRITES_MAX: usize = 4096;

    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds a write of `value` under `key`, whatever is there now.
    #[must_use]
    pub fn put(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Batch {
        self.writes.push(Write::Put { key: key.into(), value: value.into() });
        self
    }

    /// Adds a deletion of `key`, whatever is there now.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Bytes>) -> Batch {
        self.writes.push(Write::Delete { key: key.into() });
        self
    }

    /// Adds the precondition that `key` was last written at `expected` ([`Revision::ZERO`]: is absent).
    #[must_use]
    pub fn expect(mut self, key: impl Into<Bytes>, expected: Revision) -> Batch {
        self.compares.push(Compare { key: key.into(), expected });
        self
    }

    /// A batch that creates `key`, which must be absent.
    pub fn create(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Batch {
        let key = key.into();
        Batch::new().expect(key.clone(), Revision::ZERO).put(key, value)
    }

    /// A batch that replaces the value that `key` got at `expected`.
    pub fn update(key: impl Into<Bytes>, expected: Revision, value: impl Into<Bytes>) -> Batch {
        let key = key.into();
        Batch::new().expect(key.clone(), expected).put(key, value)
    }

    /// A batch that deletes `key`, last written at `expected`.
    pub fn remove(key: impl Into<Bytes>, expected: Revision) -> Batch {
        let key = key.into();
        Batch::new().expect(key.clone(), expected).delete(key)
    }
}

/// What one write did to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: Bytes,
    /// The new value; `None`: the key was deleted.
    pub value: Option<Bytes>,
    /// The revision that created the key; of a deletion, the one that had created what it deleted.
    pub create_revision: Revision,
    /// As [`Entry::version`]; of a deletion, the version that it deleted.
    pub version: u64,
    /// The modification revision of the value that this change replaced or deleted; zero: the key was absent.
    pub previous: Revision,
}

impl Change {
    /// Whether the key had a value before this change.
    pub fn existed(&self) -> bool {
        self.previous.is_some()
    }
}

/// All changes of one revision, in the order of the batch's writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    pub revision: Revision,
    pub changes: Vec<Change>,
}

impl Changes {
    /// About how many bytes this occupies in memory.
    pub fn size_bytes(&self) -> usize {
        let each = |c: &Change| size_of::<Change>() + c.key.len() + c.value.as_ref().map_or(0, Bytes::len);
        size_of::<Changes>() + self.changes.iter().map(each).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ranges_end_where_the_prefix_ends() {
        let r = KeyRange::prefix("/a/");
        assert!(r.contains(b"/a/") && r.contains(b"/a/\xff\xff") && !r.contains(b"/a0") && !r.contains(b"/a"));
        assert_eq!(KeyRange::prefix(vec![b'a', 0xff]).end.as_deref(), Some(&b"b"[..]));
        assert_eq!(KeyRange::prefix(vec![0xff]).end, None);
        assert_eq!(KeyRange::prefix(""), KeyRange::all());
    }

    #[test]
    fn after_goes_on_behind_the_key_and_never_back() {
        let r = KeyRange::prefix("/a/").after(b"/a/b");
        assert!(!r.contains(b"/a/b") && r.contains(b"/a/b\0") && r.contains(b"/a/c"));
        assert_eq!(KeyRange::prefix("/b/").after(b"/a/z").start.as_ref(), b"/b/");
    }
}
