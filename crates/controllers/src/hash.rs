//! Hashes that name revisions.
//!
//! Upstream hashes a dump of Go structs; only the form (FNV-1a, 32 bits, ten letters at most) and the stability matter, so
//! this hashes the value itself: absent and empty values and the order of keys make no difference.

use corten_tree::Tree;

/// FNV-1a, 32 bits.
struct Fnv(u32);

impl Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }

    fn tree(&mut self, tree: &Tree) {
        match tree {
            Tree::Map(map) => {
                let mut entries: Vec<_> = map.iter().filter(|(_, v)| !v.is_empty_value()).collect();
                entries.sort_by_key(|(key, _)| *key);
                self.write(b"{");
                for (key, value) in entries {
                    self.write(key.as_bytes());
                    self.write(b":");
                    self.tree(value);
                }
                self.write(b"}");
            }
            Tree::List(items) => {
                self.write(b"[");
                for item in items {
                    self.tree(item);
                    self.write(b",");
                }
                self.write(b"]");
            }
            scalar => self.write(scalar.to_string().as_bytes()),
        }
    }
}

/// The hash of a value and a collision count, in upstream's safe letters (`controller.ComputeHash`).
pub fn compute(value: &Tree, collision_count: Option<i64>) -> String {
    let mut hash = Fnv(0x811c_9dc5);
    hash.tree(value);
    if let Some(count) = collision_count {
        hash.write(&(count as u64).to_le_bytes());
    }
    safe(&hash.0.to_string())
}

/// `rand.SafeEncodeString`: no vowels, no words.
fn safe(text: &str) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    text.bytes().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_tree::tree;

    #[test]
    fn stable_over_order_and_empty_values() {
        let a = compute(&tree!({"a": 1, "b": {"c": [1, "x"]}}), None);
        assert_eq!(a, compute(&tree!({"b": {"c": [1, "x"], "d": {}}, "a": 1}), None));
        assert_ne!(a, compute(&tree!({"a": 1, "b": {"c": [1, "x"]}}), Some(1)));
        assert!(a.len() <= 10);
    }
}
