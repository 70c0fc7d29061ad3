//! Rules of a custom resource that only structural schemas have: lists that are sets or maps, and objects inside objects.
//!
//! `apiextensions-apiserver/pkg/apiserver/schema/{listtype,objectmeta}/validation.go`.

use std::collections::HashMap;

use corten_object::FieldError;
use corten_schema::ListType;
use corten_schema::structural::Props;
use corten_tree::{FieldPath, Map, Tree};

use super::correlate::canonical_text;
use crate::Errors;
use crate::validate::{Spot, meta, names};

/// Finds repeated items of sets and repeated keys of maps.
pub(crate) fn validate_lists(props: &Props, value: &Tree, at: &FieldPath, errors: &mut Errors) {
    match value {
        Tree::Map(map) => {
            for (key, value) in map.iter() {
                if let Some(property) = props.property(key) {
                    validate_lists(property, value, &at.child(key), errors);
                } else if let Some(item) = props.additional.schema() {
                    validate_lists(item, value, &at.key(key), errors);
                }
            }
        }
        Tree::List(items) => {
            match props.list_type {
                ListType::Set => {
                    for i in repeated(items.iter().map(canonical_text)) {
                        errors.push(FieldError::duplicate(&at.index(i), &items[i]));
                    }
                }
                ListType::Map => validate_keys(&props.list_keys, items, at, errors),
                _ => {}
            }
            if let Some(item) = &props.items {
                items.iter().enumerate().for_each(|(i, value)| validate_lists(item, value, &at.index(i), errors));
            }
        }
        _ => {}
    }
}

/// The places where a text is there for the second time.
fn repeated(texts: impl Iterator<Item = String>) -> Vec<usize> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut found = Vec::new();
    for (i, text) in texts.enumerate() {
        let times = seen.entry(text).or_insert(0);
        *times += 1;
        if *times == 2 {
            found.push(i);
        }
    }
    found
}

fn validate_keys(keys: &[String], items: &[Tree], at: &FieldPath, errors: &mut Errors) {
    if let Some(i) = items.iter().position(|item| !matches!(item, Tree::Map(_) | Tree::Null)) {
        let why = "must be an object for an array of list-type map";
        errors.push(FieldError::invalid(&at.index(i), &items[i], why));
        return;
    }
    let key_of = |item: &Tree| {
        let mut found = Map::new();
        for key in keys {
            if let Some(value) = item.get(key) {
                found.insert(key.clone(), value.clone());
            }
        }
        Tree::Map(found)
    };
    let found: Vec<Tree> = items.iter().map(key_of).collect();
    for i in repeated(found.iter().map(canonical_text)) {
        errors.push(FieldError::duplicate(&at.index(i), &canonical(&found[i])));
    }
}

fn canonical(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    if let Tree::Map(map) = &mut tree {
        map.sort_keys();
    }
    tree
}

/// Finds what is wrong with the type and the metadata of embedded objects.
pub(crate) fn validate_embedded(props: &Props, value: &Tree, at: &FieldPath, errors: &mut Errors) {
    match value {
        Tree::Map(map) => {
            if props.embedded {
                embedded(map, &Spot::at(value, at.clone()), errors);
            }
            for (key, value) in map.iter() {
                if let Some(property) = props.property(key) {
                    validate_embedded(property, value, &at.child(key), errors);
                } else if let Some(item) = props.additional.schema() {
                    validate_embedded(item, value, &at.key(key), errors);
                }
            }
        }
        Tree::List(items) => {
            let Some(item) = &props.items else { return };
            items.iter().enumerate().for_each(|(i, value)| validate_embedded(item, value, &at.index(i), errors));
        }
        _ => {}
    }
}

fn embedded(map: &Map, spot: &Spot<'_>, errors: &mut Errors) {
    for field in ["apiVersion", "kind"] {
        match map.get(field) {
            None => spot.required(field, "", errors),
            Some(Tree::Str(text)) if text.is_empty() => spot.invalid(field, "must not be empty", errors),
            Some(Tree::Str(text)) if field == "apiVersion" && text.matches('/').count() > 1 => {
                spot.invalid(field, format!("unexpected GroupVersion string: {text}"), errors);
            }
            Some(Tree::Str(text)) if field == "kind" => {
                let faults = names::dns_1035_label(&text.to_lowercase());
                if !faults.is_empty() {
                    let why = format!("may have mixed case, but should otherwise match: {}", faults.join(","));
                    spot.invalid(field, why, errors);
                }
            }
            Some(Tree::Str(_)) => {}
            Some(_) => spot.invalid(field, "must be a string", errors),
        }
    }
    if let Some(metadata) = spot.some("metadata") {
        meta::validate_embedded_meta(&metadata, errors);
    }
}
