//! Objects as protobuf messages, kept for a while: informers list the same objects again and again, and a message is far dearer
//! to make than to copy.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use corten_base::{Istr, Revision};
use corten_object::Object;

/// Bytes that are kept at most. Nothing is kept of what nobody lists in protobuf.
const BYTES_MAX: usize = 32 << 20;
/// What an entry takes besides its message.
const ENTRY_BYTES: usize = 160;

/// The messages of objects at their stored version, by uid.
#[derive(Default)]
pub(crate) struct Messages(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    entries: HashMap<Istr, Entry>,
    bytes: usize,
    /// How often room was made.
    sweeps: u64,
}

struct Entry {
    revision: Revision,
    message: Bytes,
    /// The sweep after which it was used last.
    used: u64,
}

impl Messages {
    /// The messages of objects in their order, made by `make` where they are not there; `None` if one cannot be made.
    pub fn of(&self, objects: &[Arc<Object>], make: impl Fn(&Object) -> Option<Bytes>) -> Option<Vec<Bytes>> {
        let mut found: Vec<Option<Bytes>> = {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            objects.iter().map(|object| kept.get(object)).collect()
        };
        let mut made = Vec::new();
        for (object, message) in objects.iter().zip(&mut found).filter(|(_, message)| message.is_none()) {
            let new = make(object)?;
            made.push((object, new.clone()));
            *message = Some(new);
        }
        if !made.is_empty() {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            made.into_iter().for_each(|(object, message)| kept.put(object, message, BYTES_MAX));
        }
        found.into_iter().collect()
    }
}

impl Kept {
    fn get(&mut self, object: &Object) -> Option<Bytes> {
        let entry = self.entries.get_mut(&object.head.uid)?;
        (entry.revision == object.head.revision).then(|| {
            entry.used = self.sweeps;
            entry.message.clone()
        })
    }

    /// Keeps a message, unless that of a later state is there.
    fn put(&mut self, object: &Object, message: Bytes, bytes_max: usize) {
        let (uid, revision) = (&object.head.uid, object.head.revision);
        let later = self.entries.get(uid).is_some_and(|entry| entry.revision > revision);
        if later || uid.is_empty() || !revision.is_some() {
            return;
        }
        self.bytes += message.len() + ENTRY_BYTES;
        let old = self.entries.insert(uid.clone(), Entry { revision, message, used: self.sweeps });
        self.bytes -= old.map_or(0, |old| old.message.len() + ENTRY_BYTES);
        if self.bytes > bytes_max {
            self.sweep(bytes_max - bytes_max / 4);
        }
    }

    /// Drops what was not used since the last time, and if that is not enough, any others.
    fn sweep(&mut self, bytes_max: usize) {
        let mut bytes = 0;
        let sweeps = self.sweeps;
        self.entries.retain(|_, entry| {
            let size = entry.message.len() + ENTRY_BYTES;
            let keep = entry.used == sweeps && bytes + size <= bytes_max;
            bytes += if keep { size } else { 0 };
            keep
        });
        self.bytes = bytes;
        self.sweeps += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_object::KindId;

    fn object(uid: usize, revision: u64) -> Arc<Object> {
        let json = format!(r#"{{"metadata":{{"name":"x","uid":"{uid}"}}}}"#);
        Arc::new(Object::parse::<&str>(KindId(1), json.into(), Revision(revision), &[]).unwrap())
    }

    fn message(_: &Object) -> Option<Bytes> {
        Some(Bytes::from_static(&[7; 100]))
    }

    #[test]
    fn a_message_is_made_once_for_each_state() {
        let messages = Messages::default();
        let not_again = |_: &Object| -> Option<Bytes> { panic!("it was made") };
        let states = [object(1, 5), object(2, 6)];
        assert_eq!(messages.of(&states, message).unwrap().len(), 2);
        assert_eq!(messages.of(&states, not_again).unwrap().len(), 2);
        // Another state of the same object is another message; the older one does not take its place.
        messages.of(&[object(1, 9)], message).unwrap();
        messages.of(&[object(1, 5)], message).unwrap();
        assert_eq!(messages.of(&[object(1, 9)], not_again).unwrap().len(), 1);
        assert!(messages.of(&[object(3, 9)], |_| None).is_none());
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_used_stays() {
        let mut kept = Kept::default();
        let most = 50 * (100 + ENTRY_BYTES);
        for uid in 0..1000 {
            kept.put(&object(uid, 5), message(&object(uid, 5)).unwrap(), most);
            // The first is in use all the time.
            assert!(kept.get(&object(0, 5)).is_some() || kept.sweeps > 0);
            assert!(kept.bytes <= most && kept.entries.len() <= 50);
        }
        assert!(kept.entries.len() >= 30, "{}", kept.entries.len());
        let bytes: usize = kept.entries.values().map(|entry| entry.message.len() + ENTRY_BYTES).sum();
        assert_eq!(bytes, kept.bytes);
    }
}
