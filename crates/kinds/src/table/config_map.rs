//! ConfigMap.

use corten_tree::Tree;

use crate::Errors;
use crate::spec::{Hooks, KindSpec};
use crate::validate::{Spot, names};
use crate::{Column, Of, column};

/// `v1 ConfigMap`
pub(crate) const CONFIG_MAP: KindSpec = KindSpec {
    kind: "ConfigMap",
    plural: "configmaps",
    short: &["cm"],
    columns: &[
        Column::NAME,
        column("Data", &Of(|o, _| Tree::Int((o.map_at("data").len() + o.map_at("binaryData").len()) as i64))),
        Column::AGE,
    ],
    counting: crate::quota::Counting::ObjectsAndPlural,
    served_by: Some("node"),
    hooks: Hooks { validate: Some(validate), validate_update: Some(validate_update), ..Hooks::NONE },
    ..KindSpec::NAMESPACED
};

/// How many bytes the values of a ConfigMap or Secret may have.
pub(super) const BYTES_MAX: usize = 1 << 20;

/// What upstream says of a field that `immutable` protects.
const PROTECTED: &str = "field is immutable when `immutable` is set";

fn validate(map: &Tree, errors: &mut Errors) {
    let mut size = 0;
    for field in ["data", "binaryData"] {
        let data = Spot::of(map, field);
        for (key, value) in data.map("").iter() {
            let at = Spot::at(value, data.path.key(key));
            for message in names::config_key(key) {
                at.invalid_as("", key, message, errors);
            }
            if field == "data" && map.map_at("binaryData").contains(key) {
                at.invalid_as("", key, "duplicate of key present in binaryData", errors);
            }
            let text = value.as_str().unwrap_or_default();
            size += if field == "data" { text.len() } else { decoded_length(text) };
        }
    }
    if size > BYTES_MAX {
        errors.push(corten_object::FieldError::too_long(&corten_tree::FieldPath::of(""), BYTES_MAX));
    }
}

/// How many bytes a base64 text stands for.
pub(super) fn decoded_length(text: &str) -> usize {
    (text.len() / 4 * 3).saturating_sub(text.bytes().rev().take_while(|b| *b == b'=').count().min(2))
}

fn validate_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    protected(new, old, &["data", "binaryData"], errors);
}

/// Once `immutable` is set, it and the data stay.
pub(super) fn protected(new: &Tree, old: &Tree, fields: &[&str], errors: &mut Errors) {
    if !old.bool_at("immutable") {
        return;
    }
    if !new.bool_at("immutable") {
        Spot::of(new, "immutable").forbidden("", PROTECTED, errors);
    }
    for field in fields {
        let (data, before) = (Spot::of(new, field), Spot::of(old, field));
        if !data.tree.semantically_equal(before.tree) {
            data.forbidden("", PROTECTED, errors);
        }
    }
}
