//! What a random writer may write: YAML with signs.
//!
//! A key `name` is there or not; `!name` is there in whole objects, `=name` always (the keys that tell items of a list apart).
//! `{$any: […]}` is one of these, `{$some: […]}` a list of some of these in any order, all others are themselves.

use serde_json::{Map, Value};

/// A source of chance that gives the same for the same seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// How much of a space is written.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Whether all that an object must have is there.
    pub whole: bool,
    /// How often each other field is there, of a hundred.
    pub percent: usize,
}

/// Something of a space.
pub fn roll(space: &Value, extent: Extent, dice: &mut Dice) -> Value {
    match space {
        Value::Object(map) => match (map.get("$any"), map.get("$some")) {
            (Some(Value::Array(all)), _) => roll(dice.pick(all), extent, dice),
            (_, Some(Value::Array(all))) => some(all, extent, dice),
            _ => members(map, extent, dice),
        },
        Value::Array(items) => items.iter().map(|item| roll(item, extent, dice)).collect(),
        other => other.clone(),
    }
}

fn some(all: &[Value], extent: Extent, dice: &mut Dice) -> Value {
    let mut chosen: Vec<&Value> = all.iter().filter(|_| dice.chance(60)).collect();
    if chosen.is_empty() && (extent.whole || dice.chance(80)) {
        chosen.push(dice.pick(all));
    }
    for i in (1..chosen.len()).rev() {
        chosen.swap(i, dice.below(i + 1));
    }
    chosen.into_iter().map(|item| roll(item, extent, dice)).collect()
}

fn members(map: &Map<String, Value>, extent: Extent, dice: &mut Dice) -> Value {
    let mut out = Map::new();
    for (key, space) in map {
        let (name, there) = match (key.strip_prefix('='), key.strip_prefix('!')) {
            (Some(name), _) => (name, true),
            (_, Some(name)) => (name, extent.whole || dice.chance(extent.percent)),
            _ => (key.as_str(), dice.chance(extent.percent)),
        };
        if there {
            out.insert(name.to_owned(), roll(space, extent, dice));
        }
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spaces_give_the_same_for_the_same_seed_and_all_that_must_be_there() {
        let space = json!({"=a": 1, "!b": {"$any": [1, 2]}, "c": {"$some": [{"=n": 1, "v": 2}, {"=n": 2}]}});
        let whole = Extent { whole: true, percent: 50 };
        for seed in 0..50 {
            let made = roll(&space, whole, &mut Dice::new(seed));
            assert_eq!(made, roll(&space, whole, &mut Dice::new(seed)));
            assert!(made["a"] == 1 && made["b"].is_number(), "{made}");
            if let Some(items) = made.get("c") {
                assert!(
                    items.as_array().is_some_and(|items| !items.is_empty() && items.iter().all(|i| i["n"].is_number()))
                );
            }
        }
    }
}
