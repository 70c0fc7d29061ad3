//! Interned text: one copy of each label, namespace and node name in the process.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, LazyLock, Mutex};

/// A shared, immutable text. Made by [`Istr::new`], equal texts share memory; comparison is by content.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Istr(Arc<str>);

struct Pool {
    texts: HashSet<Arc<str>>,
    sweep_at: usize,
}

static POOL: LazyLock<Mutex<Pool>> = LazyLock::new(|| Mutex::new(Pool { texts: HashSet::new(), sweep_at: 4096 }));

impl Istr {
    /// The shared copy of `text`. The pool forgets texts that nobody holds when it has doubled.
    pub fn new(text: &str) -> Istr {
        let mut pool = POOL.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(found) = pool.texts.get(text) {
            return Istr(found.clone());
        }
        if pool.texts.len() >= pool.sweep_at {
            pool.texts.retain(|t| Arc::strong_count(t) > 1);
            pool.sweep_at = (pool.texts.len() * 2).max(4096);
        }
        let made: Arc<str> = text.into();
        pool.texts.insert(made.clone());
        Istr(made)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text as a shared slice.
    pub fn to_arc(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl Default for Istr {
    fn default() -> Istr {
        static EMPTY: LazyLock<Arc<str>> = LazyLock::new(|| "".into());
        Istr(EMPTY.clone())
    }
}

impl Deref for Istr {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Istr {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Istr {
    fn from(text: &str) -> Istr {
        Istr::new(text)
    }
}

impl From<&String> for Istr {
    fn from(text: &String) -> Istr {
        Istr::new(text)
    }
}

impl From<String> for Istr {
    fn from(text: String) -> Istr {
        Istr::new(&text)
    }
}

impl PartialEq<str> for Istr {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for Istr {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

impl fmt::Display for Istr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Istr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}
