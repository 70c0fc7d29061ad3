//! Mutations of bytes and of JSON documents.

use corten_tree::{Key, Map, Tree, json};

use crate::Shape;

/// A stream of numbers from a seed (splitmix64).
pub struct Numbers(u64);

impl Numbers {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; zero if that is zero.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.draw() % end as u64) as usize }
    }

    fn pick<'t, T>(&mut self, of: &'t [T]) -> Option<&'t T> {
        of.get(self.below(of.len()))
    }
}

/// Longest input, in bytes.
const LENGTH_MAX: usize = 1 << 16;

/// What often breaks readers of text.
const TEXTS: &[&str] = &[
    "",
    "0",
    "-0",
    "1e999",
    "-1",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "0.1",
    "1E-400",
    "true",
    "null",
    "\\u0000",
    "\\ud800",
    "\u{feff}",
    "\u{2028}",
    "é",
    "😀",
    "\n",
    "\r\n",
    "\t",
    "~",
    "%",
    "%s",
    "$",
    "/",
    ".",
    "..",
    "[",
    "]",
    "{",
    "}",
    "(",
    ")",
    "\"",
    "'",
    "\\",
    ",",
    ":",
    "- ",
    "? ",
    "&a ",
    "*a",
    "!!binary ",
    "<<: ",
    "|\n",
    ">-\n",
    "#",
    "@",
    "$patch",
    "$retainKeys",
    "$setElementOrder/",
    "$deleteFromPrimitiveList/",
    "f:",
    "k:{",
    "v:",
    "i:0",
    "metadata",
    "name",
];

/// A mutated copy of `seed`; parts of `other` may come in.
pub fn mutate(numbers: &mut Numbers, shape: Shape, seed: &[u8], other: &[u8]) -> Vec<u8> {
    let structural = shape == Shape::Json && numbers.below(4) > 0;
    if structural && let Ok(mut tree) = json::parse(seed) {
        let other = json::parse(other).unwrap_or(Tree::Null);
        for _ in 0..=numbers.below(4) {
            tree_once(numbers, &mut tree, &other);
        }
        let mut out = tree.to_json();
        out.truncate(LENGTH_MAX);
        return out;
    }
    let mut bytes = seed.to_vec();
    for _ in 0..=numbers.below(5) {
        match shape {
            Shape::Words(words) if numbers.below(2) == 0 => words_once(numbers, &mut bytes, words),
            _ => bytes_once(numbers, &mut bytes, other),
        }
    }
    bytes.truncate(LENGTH_MAX);
    bytes
}

fn words_once(numbers: &mut Numbers, bytes: &mut Vec<u8>, words: &[&str]) {
    let Some(word) = numbers.pick(words) else { return };
    let at = numbers.below(bytes.len() + 1);
    let end = if numbers.below(2) == 0 { at } else { (at + numbers.below(8)).min(bytes.len()) };
    bytes.splice(at..end, word.bytes());
}

fn bytes_once(numbers: &mut Numbers, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = numbers.below(bytes.len());
    let end = (at + 1 + numbers.below(16)).min(bytes.len());
    let number = numbers.draw();
    match numbers.below(10) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << (number % 8),
        1 if !bytes.is_empty() => bytes[at] = number as u8,
        2 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b' ', b'0', b'-'][(number % 8) as usize],
        3 => bytes.insert(at, number as u8),
        4 if at < end => drop(bytes.drain(at..end)),
        5 if at < end => {
            let part = bytes[at..end].to_vec();
            let to = numbers.below(bytes.len() + 1);
            bytes.splice(to..to, part);
        }
        6 => {
            let text = numbers.pick(TEXTS).copied().unwrap_or_default();
            bytes.splice(at..at, text.bytes());
        }
        7 => bytes.truncate(at),
        8 => {
            let from = numbers.below(other.len());
            let until = (from + 1 + numbers.below(64)).min(other.len());
            bytes.splice(at..at, other[from.min(until)..until].iter().copied());
        }
        9 => {
            // Half of one, half of another.
            bytes.truncate(at);
            bytes.extend_from_slice(&other[numbers.below(other.len())..]);
        }
        _ => {}
    }
}

/// How many values a document has, itself included.
fn size(tree: &Tree) -> usize {
    1 + match tree {
        Tree::Map(map) => map.values().map(size).sum::<usize>(),
        Tree::List(items) => items.iter().map(size).sum(),
        _ => 0,
    }
}

/// The value with a number, counted from the root.
fn nth<'t>(tree: &'t mut Tree, number: &mut usize) -> Option<&'t mut Tree> {
    if *number == 0 {
        return Some(tree);
    }
    *number -= 1;
    match tree {
        Tree::Map(map) => map.iter_mut().find_map(|(_, value)| nth(value, number)),
        Tree::List(items) => items.iter_mut().find_map(|value| nth(value, number)),
        _ => None,
    }
}

fn any_of(numbers: &mut Numbers, tree: &Tree) -> Tree {
    let mut copy = tree.clone();
    let mut number = numbers.below(size(tree));
    nth(&mut copy, &mut number).cloned().unwrap_or(Tree::Null)
}

fn leaf(numbers: &mut Numbers) -> Tree {
    let number = numbers.draw();
    match numbers.below(8) {
        0 => Tree::Null,
        1 => Tree::Bool(number.is_multiple_of(2)),
        2 => Tree::Int(number as i64),
        3 => Tree::Int([0, 1, -1, 65536, i64::MAX, i64::MIN, 2_147_483_648, 100][(number % 8) as usize]),
        4 => Tree::Float(
            [0.5, -1.5, 1e30, 1e-30, 123_456_789.125, 1e21, 9.007_199_254_740_993e15, 1e-7][(number % 8) as usize],
        ),
        5 => Tree::Map(Map::default()),
        6 => Tree::List(Vec::new()),
        _ => Tree::Str(numbers.pick(TEXTS).copied().unwrap_or_default().to_owned()),
    }
}

fn key(numbers: &mut Numbers, other: &Tree) -> Key {
    match (numbers.below(3), any_of(numbers, other)) {
        (0, Tree::Map(map)) if !map.is_empty() => map.as_slice()[numbers.below(map.len())].0.clone(),
        (1, Tree::Str(text)) => text.into(),
        _ => numbers.pick(TEXTS).copied().unwrap_or_default().to_owned().into(),
    }
}

fn tree_once(numbers: &mut Numbers, tree: &mut Tree, other: &Tree) {
    let copy = any_of(numbers, tree);
    let foreign = any_of(numbers, other);
    let name = key(numbers, other);
    let scalar = leaf(numbers);
    let mut number = numbers.below(size(tree));
    let Some(at) = nth(tree, &mut number) else { return };
    let choice = numbers.below(8);
    match (choice, &mut *at) {
        (0, _) => *at = scalar,
        (1, _) => *at = foreign,
        (2, _) => *at = copy,
        (3, Tree::Map(map)) => drop(map.insert(name, foreign)),
        (4, Tree::Map(map)) if !map.is_empty() => {
            let gone = map.as_slice()[numbers.below(map.len())].0.clone();
            let value = map.remove(&gone);
            if numbers.below(2) == 0 {
                map.insert(name, value.unwrap_or(Tree::Null));
            }
        }
        (3 | 5, Tree::List(items)) => {
            let place = numbers.below(items.len() + 1);
            let again = items.get(numbers.below(items.len())).cloned();
            items.insert(place, if numbers.below(2) == 0 { again.unwrap_or(foreign) } else { foreign });
        }
        (4, Tree::List(items)) if !items.is_empty() => drop(items.remove(numbers.below(items.len()))),
        (6, Tree::List(items)) if items.len() > 1 => {
            let (a, b) = (numbers.below(items.len()), numbers.below(items.len()));
            items.swap(a, b);
        }
        (5 | 6, Tree::Str(text)) => {
            let mut bytes = std::mem::take(text).into_bytes();
            bytes_once(numbers, &mut bytes, name.as_str().as_bytes());
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        (7, _) => {
            let inner = std::mem::replace(at, Tree::Null);
            *at = match numbers.below(2) {
                0 => Tree::List(vec![inner]),
                _ => Tree::Map(Map::from_entries(vec![(name, inner)])),
            };
        }
        _ => *at = scalar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutations_repeat_and_differ() {
        let seed = br#"{"a":{"b":[1,2,{"c":"d"}]},"e":"f"}"#;
        let run = |from: u64| -> Vec<Vec<u8>> {
            let mut numbers = Numbers::new(from);
            (0..200).map(|_| mutate(&mut numbers, Shape::Json, seed, br#"{"x":[true,null]}"#)).collect()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let kinds: std::collections::BTreeSet<Vec<u8>> = run(1).into_iter().collect();
        assert!(kinds.len() > 150, "{} different inputs of 200", kinds.len());
        assert!(kinds.iter().filter(|bytes| json::parse(bytes).is_ok()).count() > 80);
    }
}
