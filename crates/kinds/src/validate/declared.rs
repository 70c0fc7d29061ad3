//! The rules that upstream's types declare (`+k8s:` tags), read from the schema table and applied to any kind.
//!
//! As upstream does it (`k8s.io/apimachinery/pkg/api/validate`, the generated `zz_generated.validations.go`): what did not change is
//! not checked again; a fault that makes the rest of a field meaningless ends its checks; and what a declared rule reports replaces
//! what the hand-written code says of the same place (`FilterCoveredHandwrittenErrors`).

use corten_object::CauseKind;
use corten_schema::{Field, FieldType, Scalar, Schema, TypeId};
use corten_tree::{FieldPath, Tree};

use super::{IMMUTABLE, Spot, fault, names};
use crate::Errors;

/// Adds the faults that the declared rules find in an object of a built-in type, new or changed from `old`.
pub(crate) fn validate(ty: TypeId, new: &Tree, old: Option<&Tree>, errors: &mut Errors) {
    let mut walk = Walk { schema: corten_schema::builtin(), update: old.is_some(), errors: Errors::new() };
    walk.fields(ty, &Spot::at(new, FieldPath::ROOT), old);
    if walk.errors.is_empty() {
        return;
    }
    let texts: Vec<(CauseKind, String)> = walk.errors.iter().map(|e| (e.kind, e.path.to_string())).collect();
    errors.retain(|e| !texts.iter().any(|(kind, path)| *kind == e.kind && *path == e.path.to_string()));
    errors.append(&mut walk.errors);
}

struct Walk {
    schema: &'static Schema,
    update: bool,
    errors: Errors,
}

impl Walk {
    fn fields(&mut self, ty: TypeId, spot: &Spot<'_>, old: Option<&Tree>) {
        if self.update && old.is_some_and(|old| spot.tree.semantically_equal(old)) {
            return;
        }
        let schema = self.schema;
        self.union(ty, spot);
        for field in schema.members(ty) {
            // Most fields have no rules, and most of those have nothing below them that could.
            if !field.has_rules()
                && (!matches!(field.ty.leaf(), FieldType::Struct(_))
                    || spot.tree.get(&field.name).is_none_or(Tree::is_null))
            {
                continue;
            }
            let child = spot.child(&field.name);
            let old_child = old.map(|old| old.get(&field.name).unwrap_or(&super::NULL));
            if self.update && old_child.is_some_and(|old| child.tree.semantically_equal(old)) {
                continue;
            }
            if self.field(ty, field, spot, &child, old_child) {
                self.below(field, &field.ty, &child, old_child);
            }
        }
    }

    /// The values inside a field's value.
    fn below(&mut self, field: &Field, ty: &FieldType, spot: &Spot<'_>, old: Option<&Tree>) {
        match (ty, spot.tree) {
            (FieldType::Struct(ty), Tree::Map(_)) => self.fields(*ty, spot, old),
            (FieldType::List(item), Tree::List(_)) if matches!(item.leaf(), FieldType::Struct(_)) => {
                let keys: Vec<&str> = field.list_keys().collect();
                for entry in spot.items("") {
                    let same = |o: &&Tree| keys.iter().all(|key| o.get(key) == entry.tree.get(key));
                    let before = old.and_then(Tree::as_list).filter(|_| !keys.is_empty());
                    self.below(field, item, &entry, before.and_then(|items| items.iter().find(same)));
                }
            }
            (FieldType::Map(item), Tree::Map(map)) if matches!(item.leaf(), FieldType::Struct(_)) => {
                for (key, value) in map.iter() {
                    let entry = Spot::at(value, spot.path.key(key));
                    self.below(field, item, &entry, old.and_then(|o| o.get(key)));
                }
            }
            _ => {}
        }
    }

    /// Checks a field's own rules; `false` if nothing inside it is worth a look.
    fn field(&mut self, owner: TypeId, field: &Field, parent: &Spot<'_>, spot: &Spot<'_>, old: Option<&Tree>) -> bool {
        let rules = field.rules();
        let missing = is_missing(field, spot.tree);
        let mode = rules.clone().find_map(|rule| {
            let (wanted, inner) = rule.strip_prefix("ifMode(")?.split_once(")=")?;
            let discriminator = self.schema.members(owner).find(|f| f.rules().any(|r| r == "modeDiscriminator"))?;
            Some(if parent.str(&discriminator.name) == wanted { inner } else { "" })
        });
        let before = self.errors.len();
        for rule in rules.clone().chain(mode) {
            let (name, value) = rule.split_once('=').unwrap_or((rule, ""));
            match name {
                "required" if missing => spot.required("", "", &mut self.errors),
                "forbidden" if !missing => spot.forbidden("", "", &mut self.errors),
                "maxItems" if spot.list("").len() > number(value) => {
                    spot.too_many("", number(value), &mut self.errors);
                }
                "immutable" if self.update && old.is_some() => {
                    spot.invalid_as("", Tree::Null, IMMUTABLE, &mut self.errors);
                }
                "update" => self.update_rule(value, field, spot, old),
                _ => {}
            }
        }
        if self.errors.len() > before {
            return false;
        }
        if !missing {
            for rule in rules {
                let (name, value) = rule.split_once('=').unwrap_or((rule, ""));
                self.value_rule(name, value, field, spot, old);
            }
        }
        true
    }

    /// `update=NoSet|NoUnset|NoModify`: how a field may change.
    fn update_rule(&mut self, rule: &str, field: &Field, spot: &Spot<'_>, old: Option<&Tree>) {
        let Some(old) = old.filter(|_| self.update) else { return };
        let (was, is) = (!is_missing(field, old), !is_missing(field, spot.tree));
        let text = match (rule, was, is) {
            ("NoSet", false, true) => "field cannot be set once created",
            ("NoUnset", true, false) => "field cannot be cleared once set",
            ("NoModify", true, true) => "field cannot be modified once set",
            _ => return,
        };
        spot.invalid_as("", Tree::Null, text, &mut self.errors);
    }

    fn value_rule(&mut self, name: &str, value: &str, field: &Field, spot: &Spot<'_>, old: Option<&Tree>) {
        let limit = value.parse::<i64>().unwrap_or_default();
        let int = spot.int("").unwrap_or_default();
        match name {
            "minimum" if int < limit => {
                spot.invalid("", format!("must be greater than or equal to {limit}"), &mut self.errors);
            }
            "maximum" if int > limit => {
                spot.invalid("", format!("must be less than or equal to {limit}"), &mut self.errors);
            }
            "maxLength" if spot.str("").chars().count() > number(value) => {
                let body = format!("Too long: may not be more than {limit} characters");
                self.errors.push(fault(&spot.path, CauseKind::TooLong, body));
            }
            "maxBytes" if spot.str("").len() > number(value) => spot.too_long("", number(value), &mut self.errors),
            "format" => format(value, spot, &mut self.errors),
            "enum" => {
                let values: Vec<&str> = value.split('|').collect();
                if !values.contains(&spot.str("")) {
                    spot.unsupported("", &values, &mut self.errors);
                }
            }
            "eachVal" => {
                let rule = value.strip_prefix("format=").unwrap_or_default();
                spot.items("").iter().for_each(|item| format(rule, item, &mut self.errors));
            }
            "eachKey" => {
                let rule = value.strip_prefix("format=").unwrap_or_default();
                for key in spot.map("").keys() {
                    let key = Tree::from(key);
                    format(rule, &Spot::at(&key, spot.path.clone()), &mut self.errors);
                }
            }
            "unique" => self.unique(value, field, spot),
            _ if name.starts_with("subfield(") => {
                let inner = name.trim_start_matches("subfield(").trim_end_matches(')');
                let child = spot.child(inner);
                let same = old.is_some_and(|old| old.get(inner) == Some(child.tree));
                if let Some(rule) = value.strip_prefix("format=").filter(|_| !(self.update && same)) {
                    format(rule, &child, &mut self.errors);
                }
            }
            _ => {}
        }
    }

    /// No two items are alike: wholly (`set`), or in the keys that the rules name (`map`).
    fn unique(&mut self, how: &str, field: &Field, spot: &Spot<'_>) {
        let keys: Vec<&str> = field.rules().filter_map(|rule| rule.strip_prefix("listMapKey=")).collect();
        let items = spot.items("");
        for (i, item) in items.iter().enumerate() {
            let same = |other: &&Spot<'_>| match how {
                "map" => keys.iter().all(|key| other.tree.get(key) == item.tree.get(key)),
                _ => other.tree == item.tree,
            };
            if items[..i].iter().any(|other| same(&other)) {
                item.duplicate("", &mut self.errors);
            }
        }
    }

    /// Exactly one member of the union is set.
    fn union(&mut self, ty: TypeId, spot: &Spot<'_>) {
        let members: Vec<&Field> =
            self.schema.members(ty).filter(|f| f.has_rules() && f.rules().any(|rule| rule == "unionMember")).collect();
        if members.is_empty() {
            return;
        }
        let all: Vec<String> = members.iter().map(|f| format!("`{}`", &*f.name)).collect();
        let set: Vec<&str> = members.iter().map(|f| &*f.name).filter(|name| spot.has(name)).collect();
        match set.len() {
            1 => {}
            0 => spot.invalid_as("", "", format!("must specify one of: {}", all.join(", ")), &mut self.errors),
            _ => {
                let shown = format!("{{{}}}", set.join(", "));
                let detail = format!("must specify exactly one of: {}", all.join(", "));
                spot.invalid_as("", shown, detail, &mut self.errors);
            }
        }
    }
}

/// A limit on a length.
fn number(text: &str) -> usize {
    text.parse().unwrap_or(usize::MAX)
}

/// Whether Go's value is nil or zero (a pointer's zero is a value).
fn is_missing(field: &Field, value: &Tree) -> bool {
    match value {
        Tree::Null => true,
        Tree::Str(text) => text.is_empty() && !field.pointer,
        Tree::Int(n) => *n == 0 && !field.pointer,
        Tree::Bool(b) => !b && !field.pointer,
        Tree::List(items) => items.is_empty(),
        Tree::Map(map) => {
            let holds_values = matches!(field.ty, FieldType::Map(_));
            map.is_empty() && (holds_values || (!field.pointer && !matches!(field.ty, FieldType::Scalar(Scalar::Raw))))
        }
        _ => false,
    }
}

/// The longest identifier of resource.k8s.io.
const IDENTIFIER_MAX: usize = 32;

/// Checks a text against a format of upstream's. (`pkg/api/validate/strfmt.go`)
fn format(name: &str, spot: &Spot<'_>, errors: &mut Errors) {
    let text = spot.str("");
    match name {
        "k8s-short-name" => spot.each("", names::dns_label(text), errors),
        "k8s-long-name" => spot.each("", names::dns_subdomain(text), errors),
        "k8s-long-name-caseless" => spot.each("", names::dns_subdomain_caseless(text), errors),
        "k8s-label-key" => spot.each("", names::label_key(text), errors),
        "k8s-prefixed-label-key" => spot.each("", names::prefixed_label_key(text), errors),
        "k8s-uuid" => {
            let dashed = text.bytes().enumerate().all(|(i, c)| match i {
                8 | 13 | 18 | 23 => c == b'-',
                _ => c.is_ascii_digit() || (b'a'..=b'f').contains(&c),
            });
            if text.len() != 36 || !dashed {
                spot.invalid("", "must be a lowercase UUID in 8-4-4-4-12 format", errors);
            }
        }
        "k8s-resource-pool-name" => pool_name(text, spot, errors),
        "k8s-extended-resource-name" => {
            if !text.contains('/') {
                spot.invalid("", "a name must be a domain-prefixed path, such as 'example.com/my-prop'", errors);
            } else if text.contains("kubernetes.io/") {
                spot.invalid("", "must not have \"kubernetes.io/\" domain", errors);
            }
            if text.starts_with("requests.") {
                spot.invalid("", "must not have \"requests.\" prefix", errors);
            }
            spot.each("", names::label_key(&format!("requests.{text}")), errors);
        }
        "k8s-resource-fully-qualified-name" => fully_qualified_name(text, spot, errors),
        _ => {}
    }
}

fn pool_name(text: &str, spot: &Spot<'_>, errors: &mut Errors) {
    if text.len() > names::SUBDOMAIN_MAX {
        spot.too_long("", names::SUBDOMAIN_MAX, errors);
    }
    for (i, part) in text.split('/').enumerate() {
        if part.is_empty() {
            spot.invalid("", format!("segment {i}: must not be empty"), errors);
            continue;
        }
        for message in names::dns_subdomain(part) {
            spot.invalid_as("", part, format!("segment {i}: {message}"), errors);
        }
    }
}

fn fully_qualified_name(text: &str, spot: &Spot<'_>, errors: &mut Errors) {
    let identifier = |id: &str, errors: &mut Errors| {
        if id.len() > IDENTIFIER_MAX {
            spot.too_long("", IDENTIFIER_MAX, errors);
        }
        for message in names::c_identifier(id) {
            spot.invalid_as("", id, message, errors);
        }
    };
    match text.split('/').collect::<Vec<_>>()[..] {
        [name] => {
            identifier(name, errors);
            spot.invalid("", "a fully qualified name must be a domain and a name separated by a slash", errors);
        }
        [prefix, name] => {
            match prefix {
                "" => spot.invalid_as("", "", "prefix must not be empty", errors),
                prefix => {
                    if prefix.len() > names::LABEL_MAX {
                        spot.too_long("", names::LABEL_MAX, errors);
                    }
                    for message in names::dns_subdomain(prefix) {
                        spot.invalid_as("", prefix, format!("prefix: {message}"), errors);
                    }
                }
            }
            match name {
                "" => spot.invalid_as("", "", "name must not be empty", errors),
                name => identifier(name, errors),
            }
        }
        _ => {}
    }
}
