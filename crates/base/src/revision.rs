//! The revision: the one number that the store, the cache and the API all speak of.

use std::fmt;

/// The number of a committed batch of the store; `metadata.resourceVersion` is its decimal text.
///
/// Revisions are contiguous: every batch that changes something gets the next one. An empty store is at
/// [`Revision::EMPTY`] (1), so that the first write is 2 and no state of a store has revision 0, which stands for "none"
/// (and in a request for "any").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// No revision.
    pub const ZERO: Revision = Revision(0);
    /// The revision of a store that has never been written.
    pub const EMPTY: Revision = Revision(1);

    /// The revision after this one.
    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }

    /// Whether this is a real revision, not [`Revision::ZERO`].
    pub fn is_some(self) -> bool {
        self.0 != 0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for Revision {
    fn from(n: u64) -> Revision {
        Revision(n)
    }
}
