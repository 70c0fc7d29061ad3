//! The values of a custom resource against its schema, in upstream's words.
//!
//! `kube-openapi/pkg/validation/validate`; which faults become which field errors:
//! `apiextensions-apiserver/pkg/apiserver/validation/validation.go`; what an unchanged value may keep: `ratcheting.go`.

use std::fmt::Display;

use corten_object::{CauseKind, FieldError};
use corten_schema::structural::{Additional, Props, Type};
use corten_tree::{FieldPath, Tree};

use super::correlate::Correlated;
use super::formats;
use crate::Errors;

/// Finds all faults of a value. `at` is where the value stands (the root for a whole object). With `old`, what has not
/// changed stays as it is.
pub(crate) fn validate(props: &Props, value: &Tree, old: Option<&Tree>, at: &FieldPath, errors: &mut Errors) {
    let old = old.map(|old| Correlated::new(old, value, Some(props)));
    let outcome = node(props, value, old.as_ref(), "");
    errors.extend(outcome.faults.into_iter().map(|fault| fault.into_error(at)));
}

/// A fault with its place as the validator says it: `spec.list[0].x`, empty for the root.
struct Fault {
    name: String,
    text: String,
    what: What,
}

enum What {
    /// `Invalid value`, with the value that is shown.
    Invalid(Tree),
    /// A wrong type or format, with what is shown: the name of the type found, or the text.
    Type(String),
    Required,
    Enum {
        value: Tree,
        values: Vec<Tree>,
    },
    TooLong(i64),
    TooMany {
        actual: usize,
        max: i64,
    },
    /// A fault of the value as a whole that stands at no field.
    Composite,
}

impl Fault {
    fn into_error(self, at: &FieldPath) -> FieldError {
        let name = self.name.strip_prefix('.').unwrap_or(&self.name);
        let path = if name.is_empty() { at.clone() } else { at.child(name) };
        match self.what {
            What::Required => FieldError::required(&path, ""),
            What::Enum { value, values } => {
                let shown: Vec<String> =
                    values.iter().map(|v| v.as_str().map_or_else(|| v.to_json_string(), str::to_owned)).collect();
                let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
                match &value {
                    Tree::Str(text) => FieldError::not_supported(&path, text, &shown),
                    other => FieldError::not_supported_value(&path, other, &shown),
                }
            }
            What::TooLong(max) => FieldError::too_long(&path, usize::try_from(max).unwrap_or(0)),
            What::TooMany { actual, max } => FieldError::too_many(&path, actual, usize::try_from(max).unwrap_or(0)),
            What::Type(found) => {
                let kind = CauseKind::TypeInvalid;
                FieldError { kind, ..FieldError::invalid_str(&path, &found, self.text) }
            }
            What::Invalid(value) => FieldError::invalid(&path, &value, self.text),
            What::Composite => FieldError::invalid(at, &Tree::from(""), self.text),
        }
    }
}

/// What a check gives: its faults, each text once, and how many checks were passed through (which decides whose faults
/// of several alternatives are shown).
#[derive(Default)]
struct Outcome {
    faults: Vec<Fault>,
    matches: usize,
}

impl Outcome {
    fn add(&mut self, fault: Fault) {
        if !self.faults.iter().any(|known| known.text == fault.text) {
            self.faults.push(fault);
        }
    }

    fn merge(&mut self, other: Outcome) {
        self.matches += other.matches;
        other.faults.into_iter().for_each(|fault| self.add(fault));
    }

    fn is_valid(&self) -> bool {
        self.faults.is_empty()
    }

    fn invalid(&mut self, name: &str, value: impl Into<Tree>, text: impl Display) {
        let what = What::Invalid(value.into());
        self.add(Fault { name: name.to_owned(), text: text.to_string(), what });
    }

    fn composite(&mut self, text: String) {
        self.add(Fault { name: String::new(), text, what: What::Composite });
    }
}

/// A node against its value; `old` is the value that was there, if it can be told which it was.
fn node(props: &Props, value: &Tree, old: Option<&Correlated<'_>>, name: &str) -> Outcome {
    let outcome = fresh(props, value, old, name);
    if !outcome.is_valid() && old.is_some_and(Correlated::unchanged) {
        return Outcome { faults: Vec::new(), matches: outcome.matches };
    }
    outcome
}

fn fresh(props: &Props, value: &Tree, old: Option<&Correlated<'_>>, name: &str) -> Outcome {
    let mut out = Outcome::default();
    if value.is_null() {
        types(props, value, name, &mut out);
        enumeration(props, value, name, &mut out);
        return out;
    }
    types(props, value, name, &mut out);
    alternatives(props, value, old, name, &mut out);
    match value {
        Tree::Str(text) => string(props, text, name, &mut out),
        Tree::Int(_) | Tree::Float(_) => number(props, value, name, &mut out),
        Tree::List(items) => list(props, items, old, name, &mut out),
        _ => {}
    }
    enumeration(props, value, name, &mut out);
    if let Tree::Map(map) = value {
        object(props, map, old, name, &mut out);
    }
    out.matches += 2;
    out
}

/// The JSON type of a value and the format that Go's type has.
fn type_of(value: &Tree) -> (&'static str, &'static str) {
    match value {
        Tree::Null => ("null", ""),
        Tree::Bool(_) => ("boolean", ""),
        Tree::Int(_) => ("integer", "int64"),
        Tree::Float(_) => ("number", "float64"),
        Tree::Str(_) => ("string", ""),
        Tree::List(_) => ("array", ""),
        Tree::Map(_) | Tree::Raw(_) => ("object", ""),
    }
}

/// The format, if it is one that is checked for the node's type.
fn format_of(props: &Props) -> &str {
    let known = match (props.int_or_string, props.ty) {
        (true, _) => false,
        (_, Type::Any | Type::String) => formats::is_known(&props.format),
        (_, Type::Integer) => matches!(props.format.as_str(), "int32" | "int64"),
        (_, Type::Number) => matches!(props.format.as_str(), "float" | "double"),
        _ => false,
    };
    if known { &props.format } else { "" }
}

fn types(props: &Props, value: &Tree, name: &str, out: &mut Outcome) {
    let wanted: &[&str] = match (props.int_or_string, props.type_name.as_str()) {
        (true, _) => &["integer", "string"],
        (_, "") => &[],
        (_, _) => &[props.type_name.as_str()],
    };
    let format = format_of(props);
    if wanted.is_empty() && format.is_empty() {
        return;
    }
    out.matches += 1;
    let mut wrong = |wanted: &str, found: &'static str| {
        let text = format!("{name} in body must be of type {wanted}: {found:?}");
        out.add(Fault { name: name.to_owned(), text, what: What::Type(found.to_owned()) });
    };
    if value.is_null() {
        if !wanted.is_empty() && !wanted.contains(&"null") && !props.nullable {
            wrong(&wanted.join(","), "null");
        }
        return;
    }
    let (found, found_format) = type_of(value);
    let has = |ty: &str| wanted.contains(&ty);
    let whole = matches!(value, Tree::Float(n) if n.fract() == 0.0) && has("integer");
    let widened = found == "integer" && has("number");
    let textual = matches!(value, Tree::Str(_) | Tree::List(_));
    if !(textual || format.is_empty() || has(found) || found_format == format || whole || widened) {
        return wrong(format, found_format);
    }
    if textual && !(has("number") || has("integer") || format.is_empty()) {
        return;
    }
    if !(has(found) || whole || widened) {
        wrong(&wanted.join(","), found);
    }
}

fn string(props: &Props, text: &str, name: &str, out: &mut Outcome) {
    out.matches += 1;
    let length = text.chars().count() as i64;
    if let Some(max) = props.max_length.filter(|max| length > *max) {
        let what = What::TooLong(max);
        let said = format!("{name} in body should be at most {max} chars long");
        out.add(Fault { name: name.to_owned(), text: said, what });
    } else if let Some(min) = props.min_length.filter(|min| length < *min) {
        out.invalid(name, text, format_args!("{name} in body should be at least {min} chars long"));
    } else {
        match props.regex() {
            Some(Ok(regex)) if !regex.is_match(text) => {
                out.invalid(name, text, format_args!("{name} in body should match '{}'", props.pattern));
            }
            Some(Err(error)) => {
                let pattern = &props.pattern;
                let said = format!("{name} in body should match '{pattern}, but pattern is invalid: {error}'");
                out.invalid(name, text, said);
            }
            _ => {}
        }
    }
    let format = match (props.int_or_string, props.ty) {
        (false, Type::Any | Type::String) => props.format.as_str(),
        _ => "",
    };
    if !format.is_empty() && formats::is_known(format) {
        out.matches += 1;
        if !formats::fits(format, text) {
            let said = format!("{name} in body must be of type {format}: {}", go_quoted(text));
            out.add(Fault { name: name.to_owned(), text: said, what: What::Type(text.to_owned()) });
        }
    }
}

/// Go's `%q` of a text.
fn go_quoted(text: &str) -> String {
    format!("{text:?}")
}

/// A number as Go's `%v` prints a float.
fn shown(n: f64) -> String {
    if n != 0.0 && (n.abs() < 1e-4 || n.abs() >= 1e21) {
        let text = format!("{n:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(("+", exponent), |digits| ("-", digits));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    n.to_string()
}

fn number(props: &Props, value: &Tree, name: &str, out: &mut Outcome) {
    out.matches += 2;
    let format = format_of(props);
    let whole = matches!(value, Tree::Int(_));
    if let (Type::Integer, Some(n)) = (props.ty, value.as_f64()) {
        let fits = match (format, value) {
            ("int32", Tree::Int(n)) => i32::try_from(*n).is_ok(),
            ("int32", _) => n.fract() == 0.0 && n >= f64::from(i32::MIN) && n <= f64::from(i32::MAX),
            (_, Tree::Int(_)) => true,
            _ => n.fract() == 0.0 && n.abs() < 9.3e18,
        };
        if !fits {
            let kind = if format.is_empty() { "(default format)".to_owned() } else { format!("with format {format}") };
            out.composite(format!("Checked value must be of type integer {kind} in {name}"));
        }
    } else if format == "float" && value.as_f64().is_some_and(|n| n.abs() > f64::from(f32::MAX)) {
        out.composite(format!("Checked value must be of type number with format float in {name}"));
    }
    let bound = |limit: f64| if whole { (limit as i64).to_string() } else { shown(limit) };
    let compare = |limit: f64| match value {
        Tree::Int(n) => n.cmp(&(limit as i64)),
        other => other.as_f64().unwrap_or_default().total_cmp(&limit),
    };
    if let Some(factor) = props.multiple_of {
        let fits = match value {
            Tree::Int(n) if factor as i64 > 0 => n % (factor as i64) == 0,
            Tree::Int(_) => false,
            other if factor > 0.0 => {
                let n = other.as_f64().unwrap_or_default();
                let times = if factor < 1.0 { 1.0 / factor * n } else { n / factor };
                (times - times.round()).abs() < 1e-9 * times.abs().max(1.0)
            }
            _ => false,
        };
        if !fits {
            let positive = if whole { factor as i64 > 0 } else { factor > 0.0 };
            match positive {
                true => out.invalid(
                    name,
                    value.clone(),
                    format_args!("{name} in body should be a multiple of {}", bound(factor)),
                ),
                false => {
                    let said = format!("factor MultipleOf declared for {name} must be positive: {}", bound(factor));
                    out.invalid(name, factor, said);
                }
            }
        }
    }
    if let Some(min) = props.minimum {
        let order = compare(min);
        if order.is_lt() || (props.exclusive_minimum && order.is_eq()) {
            let words = if props.exclusive_minimum { "greater than" } else { "greater than or equal to" };
            out.invalid(name, value.clone(), format_args!("{name} in body should be {words} {}", bound(min)));
        }
    }
    if let Some(max) = props.maximum {
        let order = compare(max);
        if order.is_gt() || (props.exclusive_maximum && order.is_eq()) {
            let words = if props.exclusive_maximum { "less than" } else { "less than or equal to" };
            out.invalid(name, value.clone(), format_args!("{name} in body should be {words} {}", bound(max)));
        }
    }
}

fn list(props: &Props, items: &[Tree], old: Option<&Correlated<'_>>, name: &str, out: &mut Outcome) {
    out.matches += 2;
    if let Some(item) = &props.items {
        for (i, value) in items.iter().enumerate() {
            let before = old.and_then(|old| old.item(i));
            out.merge(node(item, value, before.as_ref(), &format!("{name}[{i}]")));
        }
    }
    let size = items.len();
    if let Some(min) = props.min_items.filter(|min| (size as i64) < *min) {
        out.invalid(name, size as i64, format_args!("{name} in body should have at least {min} items"));
    }
    if let Some(max) = props.max_items.filter(|max| (size as i64) > *max) {
        let text = format!("{name} in body should have at most {max} items");
        out.add(Fault { name: name.to_owned(), text, what: What::TooMany { actual: size, max } });
    }
    if props.unique_items {
        let mut seen = std::collections::HashSet::with_capacity(size);
        if !items.iter().all(|item| seen.insert(super::correlate::canonical_text(item))) {
            out.invalid(name, "", format_args!("{name} in body shouldn't contain duplicates"));
        }
    }
}

fn object(props: &Props, map: &corten_tree::Map, old: Option<&Correlated<'_>>, name: &str, out: &mut Outcome) {
    out.matches += 1;
    let size = map.len();
    if let Some(min) = props.min_properties.filter(|min| (size as i64) < *min) {
        out.invalid(name, size as i64, format_args!("{name} in body should have at least {min} properties"));
    }
    if let Some(max) = props.max_properties.filter(|max| (size as i64) > *max) {
        let text = format!("{name} in body should have at most {max} properties");
        out.add(Fault { name: name.to_owned(), text, what: What::TooMany { actual: size, max } });
    }
    // The root's type cannot be seen to change: both objects are at one version.
    let before = |key: &str| match (name, key) {
        ("", "apiVersion" | "kind") => None,
        _ => old.and_then(|old| old.member(key)),
    };
    match &props.additional {
        Additional::Allowed(false) => {
            for key in map.keys().filter(|key| props.property(key).is_none()) {
                out.invalid(name, key, format_args!("{name}.{key} in body is a forbidden property"));
            }
        }
        Additional::Schema(item) => {
            for (key, value) in map.iter().filter(|(key, _)| props.property(key).is_none()) {
                out.merge(node(item, value, before(key).as_ref(), &format!("{name}.{key}")));
            }
        }
        _ => {}
    }
    for (key, property) in &props.properties {
        if let Some(value) = map.get(key) {
            let place = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            out.merge(node(property, value, before(key).as_ref(), &place));
        }
    }
    for key in props.required.iter().filter(|key| !map.contains(key)) {
        let place = format!("{name}.{key}");
        let text = format!("{place} in body is required");
        out.add(Fault { name: place, text, what: What::Required });
    }
}

fn enumeration(props: &Props, value: &Tree, name: &str, out: &mut Outcome) {
    if props.values.is_empty() {
        return;
    }
    let same = |wanted: &Tree| match (wanted, value) {
        (Tree::Null, _) | (_, Tree::Null) => false,
        (Tree::Int(_) | Tree::Float(_), Tree::Int(_) | Tree::Float(_)) => wanted.as_f64() == value.as_f64(),
        _ => super::correlate::deep_equal(wanted, value),
    };
    if !props.values.iter().any(same) {
        let shown: Vec<String> =
            props.values.iter().map(|v| v.as_str().map_or_else(|| v.to_json_string(), str::to_owned)).collect();
        let text = format!("{name} in body should be one of [{}]", shown.join(" "));
        let what = What::Enum { value: value.clone(), values: props.values.clone() };
        out.add(Fault { name: name.to_owned(), text, what });
    }
}

/// anyOf, oneOf, allOf and not.
fn alternatives(props: &Props, value: &Tree, old: Option<&Correlated<'_>>, name: &str, out: &mut Outcome) {
    let check = |props: &Props| fresh(props, value, old, name);
    if !props.any_of.is_empty() {
        let mut best: Option<Outcome> = None;
        let mut success = None;
        for found in props.any_of.iter().map(check) {
            if found.is_valid() {
                success = Some(found);
                break;
            }
            if best.as_ref().is_none_or(|best| found.matches > best.matches) {
                best = Some(found);
            }
        }
        match success {
            Some(found) => out.merge(found),
            None => {
                out.composite(format!("{} must validate at least one schema (anyOf)", go_quoted(name)));
                best.into_iter().for_each(|best| out.merge(best));
            }
        }
    }
    if !props.one_of.is_empty() {
        let (mut best, mut success, mut valid): (Option<Outcome>, Option<Outcome>, usize) = (None, None, 0);
        for found in props.one_of.iter().map(check) {
            if found.is_valid() {
                valid += 1;
                best = None;
                success.get_or_insert(found);
            } else if valid == 0 && best.as_ref().is_none_or(|best| found.matches > best.matches) {
                best = Some(found);
            }
        }
        match (valid, success) {
            (1, Some(found)) => out.merge(found),
            _ => {
                let more = if valid == 0 {
                    "Found none valid".to_owned()
                } else {
                    format!("Found {valid} valid alternatives")
                };
                let text = format!("{} must validate one and only one schema (oneOf). {more}", go_quoted(name));
                out.composite(text);
                best.into_iter().for_each(|best| out.merge(best));
            }
        }
    }
    if !props.all_of.is_empty() {
        let mut valid = 0;
        for found in props.all_of.iter().map(check) {
            valid += usize::from(found.is_valid());
            out.merge(found);
        }
        if valid != props.all_of.len() {
            let more = if valid == 0 { ". None validated" } else { "" };
            out.composite(format!("{} must validate all the schemas (allOf){more}", go_quoted(name)));
        }
    }
    if let Some(not) = &props.not
        && check(not).is_valid()
    {
        out.composite(format!("{} must not validate the schema (not)", go_quoted(name)));
    }
    out.matches += 2;
}
