//! Our own words for types and fields, from `data/descriptions.txt`.

use std::collections::HashMap;
use std::sync::OnceLock;

const TEXT: &str = include_str!("../../data/descriptions.txt");

/// The words for a field of every type that has none of its own.
pub(super) const ANY: &str = "*";

/// What there is to say, by type and field; the empty field is the type itself.
type Table = HashMap<(&'static str, &'static str), &'static str>;

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = HashMap::new();
        let mut current = ANY;
        for line in TEXT.lines().filter(|line| !line.starts_with('#')) {
            match line.strip_prefix(':') {
                Some(head) => {
                    let (name, words) = head.split_once(' ').unwrap_or((head, ""));
                    current = name;
                    if !words.is_empty() {
                        table.insert((name, ""), words);
                    }
                }
                None => {
                    if let Some((field, words)) = line.split_once(' ') {
                        table.insert((current, field), words);
                    }
                }
            }
        }
        table
    })
}

/// One line about a type (`core.v1.Pod`).
pub fn type_description(type_name: &str) -> Option<&'static str> {
    table().get(&(type_name, "")).copied()
}

/// One line about a field of a type.
pub fn field_description(type_name: &str, field: &str) -> Option<&'static str> {
    table().get(&(type_name, field)).or_else(|| table().get(&(ANY, field))).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;

    #[test]
    fn every_line_is_about_something_that_exists() {
        for (type_name, field) in table().keys().filter(|(type_name, _)| *type_name != ANY) {
            let ty = builtin().type_by_name(type_name).unwrap_or_else(|| panic!("no type {type_name}"));
            assert!(field.is_empty() || builtin().field(ty, field).is_some(), "{type_name} has no field {field}");
        }
        assert!(field_description("apps.v1.Deployment", "metadata").is_some());
    }
}
