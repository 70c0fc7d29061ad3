//! Defaults of custom resources, and the nulls that stand in their way.

use corten_tree::{Key, Tree};

use super::Props;

impl Props {
    /// Drops nulls where the schema has neither a default for them nor allows them, then fills the defaults in.
    /// (`schema/defaulting` `PruneNonNullableNullsWithoutDefaults` and `Default`)
    pub fn fill(&self, value: &mut Tree) {
        drop_nulls(value, Some(self));
        default(value, self);
    }

    /// Whether anything in this schema can change a value in [`Props::fill`] but nulls.
    pub fn has_defaults(&self) -> bool {
        self.default.is_some()
            || self.properties.iter().any(|(_, props)| props.has_defaults())
            || self.additional.schema().is_some_and(Props::has_defaults)
            || self.items.as_ref().is_some_and(|items| items.has_defaults())
    }
}

fn drop_nulls(value: &mut Tree, props: Option<&Props>) {
    match value {
        Tree::Map(map) => map.retain(|key, value| {
            let member = props.and_then(|props| props.member(key));
            if value.is_null() {
                return member.is_none_or(|member| member.nullable || member.default.is_some());
            }
            drop_nulls(value, member);
            true
        }),
        Tree::List(items) => {
            let item = props.and_then(|props| props.items.as_deref());
            items.iter_mut().for_each(|value| drop_nulls(value, item));
        }
        _ => {}
    }
}

/// Whether a value is a null that the schema does not allow.
fn is_wrong_null(value: &Tree, props: &Props) -> bool {
    value.is_null() && !props.nullable
}

fn default(value: &mut Tree, props: &Props) {
    match value {
        Tree::Map(map) => {
            for (name, property) in &props.properties {
                let Some(wanted) = &property.default else { continue };
                if map.get(name).is_none_or(|found| is_wrong_null(found, property)) {
                    map.insert(Key::from(name.clone()), wanted.clone());
                }
            }
            for (name, value) in map.iter_mut() {
                let Some(member) = props.member(name) else { continue };
                if props.property(name).is_none() && is_wrong_null(value, member) {
                    *value = member.default.clone().unwrap_or_default();
                }
                default(value, member);
            }
        }
        Tree::List(items) => {
            let Some(item) = &props.items else { return };
            for value in items {
                if is_wrong_null(value, item) {
                    *value = item.default.clone().unwrap_or_default();
                }
                default(value, item);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_tree::tree;

    #[test]
    fn nulls_go_or_become_defaults() {
        let props = Props::parse(&tree!({"type": "object", "properties": {
            "plain": {"type": "string"},
            "nullable": {"type": "string", "nullable": true},
            "both": {"type": "string", "nullable": true, "default": "x"},
            "defaulted": {"type": "string", "default": "d"},
            "inner": {"type": "object", "default": {}, "properties": {"deep": {"type": "integer", "default": 3}}},
            "list": {"type": "array", "items": {"type": "string", "default": "i"}},
            "map": {"type": "object", "additionalProperties": {"type": "string", "default": "m"}},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}
        }}));
        let mut value = tree!({"plain": null, "nullable": null, "both": null, "defaulted": null,
            "list": [null, "a"], "map": {"k": null}, "open": {"n": null}});
        props.fill(&mut value);
        assert_eq!(
            value.to_json_string(),
            r#"{"nullable":null,"both":null,"defaulted":"d","list":["i","a"],"map":{"k":"m"},"open":{"n":null},"inner":{"deep":3}}"#
        );
        assert!(props.has_defaults());
    }
}
