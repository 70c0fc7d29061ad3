//! Label and field selectors: parse, print, match.
//!
//! Grammar and messages: `k8s.io/apimachinery/pkg/labels/selector.go`, `pkg/fields/selector.go`.

use std::fmt;

use corten_base::Istr;
use corten_schema::names;
use corten_tree::{FieldPath, Tree};

use crate::{FieldError, Labels};

/// How a requirement compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    /// The label has one of the values.
    In(Vec<Istr>),
    /// The label is absent or has none of the values.
    NotIn(Vec<Istr>),
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The label is an integer above the value.
    GreaterThan(i64),
    /// The label is an integer below the value.
    LessThan(i64),
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: Istr,
    /// What it must satisfy.
    pub operator: Operator,
}

impl Requirement {
    /// Whether labels satisfy it; `get` looks a label up.
    pub fn matches<'l>(&self, get: impl Fn(&str) -> Option<&'l str>) -> bool {
        let value = get(&self.key);
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => value.is_some_and(|v| values.iter().any(|x| *x == v)),
            Operator::NotIn(values) => value.is_none_or(|v| !values.iter().any(|x| *x == v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan(n) => number().is_some_and(|v| v > *n),
            Operator::LessThan(n) => number().is_some_and(|v| v < *n),
        }
    }
}

/// A conjunction of requirements; the empty one selects everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Selects every object.
    pub fn everything() -> LabelSelector {
        LabelSelector { requirements: Vec::new(), nothing: false }
    }

    /// Selects no object.
    pub fn nothing() -> LabelSelector {
        LabelSelector { requirements: Vec::new(), nothing: true }
    }

    /// Selects objects with all these labels.
    pub fn from_labels<'l>(labels: impl IntoIterator<Item = (&'l str, &'l str)>) -> LabelSelector {
        let one = |(key, value)| Requirement { key: Istr::new(key), operator: Operator::In(vec![Istr::new(value)]) };
        LabelSelector { requirements: labels.into_iter().map(one).collect(), nothing: false }
    }

    /// From requirements.
    pub fn from_requirements(requirements: Vec<Requirement>) -> LabelSelector {
        LabelSelector { requirements, nothing: false }
    }

    /// From an API object's `LabelSelector` (matchLabels, matchExpressions). Null selects nothing, `{}` everything
    /// (`metav1.LabelSelectorAsSelector`).
    pub fn from_tree(selector: Option<&Tree>) -> Result<LabelSelector, String> {
        let Some(Tree::Map(_)) = selector else { return Ok(LabelSelector::nothing()) };
        let selector = selector.expect("it was just matched as a map");
        let mut out = LabelSelector::everything();
        for (key, value) in selector.map_at("matchLabels").iter() {
            let values = vec![Istr::new(value.as_str().unwrap_or_default())];
            out.requirements.push(Requirement { key: key.into(), operator: Operator::In(values) });
        }
        for expression in selector.list_at("matchExpressions") {
            let values = || expression.list_at("values").iter().filter_map(|v| Some(Istr::new(v.as_str()?))).collect();
            let operator = match expression.str_at("operator") {
                "In" => Operator::In(values()),
                "NotIn" => Operator::NotIn(values()),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            };
            out.requirements.push(Requirement { key: expression.str_at("key").into(), operator });
        }
        Ok(out)
    }

    /// From a query's `labelSelector` text.
    pub fn parse(text: &str) -> Result<LabelSelector, String> {
        let mut lexer = Lexer { rest: text };
        let mut requirements = Vec::new();
        if lexer.peek().is_empty() {
            return Ok(LabelSelector::everything());
        }
        if Lexer::is_symbol(lexer.peek()) && lexer.peek() != "!" {
            return Err(format!("found '{}', expected: !, identifier, or 'end of string'", lexer.peek()));
        }
        loop {
            let parsed = requirement(&mut lexer);
            requirements.push(parsed.map_err(|why| format!("unable to parse requirement: {why}"))?);
            match lexer.token() {
                "" => return Ok(LabelSelector { requirements, nothing: false }),
                "," => match lexer.peek() {
                    next if next.is_empty() || (Lexer::is_symbol(next) && next != "!") => {
                        return Err(format!("found '{next}', expected: identifier after ','"));
                    }
                    _ => {}
                },
                other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
            }
        }
    }

    /// Whether labels satisfy all requirements.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matches_with(|key| labels.get(key))
    }

    /// Whether labels in a map of an object's tree satisfy all requirements.
    pub fn matches_tree(&self, labels: &corten_tree::Map) -> bool {
        self.matches_with(|key| labels.get(key).and_then(Tree::as_str))
    }

    /// Whether the labels that `get` looks up satisfy all requirements.
    pub fn matches_with<'l>(&self, get: impl Fn(&str) -> Option<&'l str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(&get))
    }

    /// Whether this selects every object.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether this was made to select nothing.
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// The requirements.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

/// Upstream's text form, as in `status.selector` of a scale: sorted by key.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&Requirement> = self.requirements.iter().collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        for (i, r) in sorted.into_iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let key = &r.key;
            let joined = |values: &[Istr]| {
                let mut values: Vec<&str> = values.iter().map(Istr::as_str).collect();
                values.sort_unstable();
                values.join(",")
            };
            match &r.operator {
                Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0])?,
                Operator::In(values) => write!(f, "{key} in ({})", joined(values))?,
                Operator::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", values[0])?,
                Operator::NotIn(values) => write!(f, "{key} notin ({})", joined(values))?,
                Operator::Exists => write!(f, "{key}")?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
                Operator::GreaterThan(n) => write!(f, "{key}>{n}")?,
                Operator::LessThan(n) => write!(f, "{key}<{n}")?,
            }
        }
        Ok(())
    }
}

fn requirement(lexer: &mut Lexer<'_>) -> Result<Requirement, String> {
    let negated = lexer.peek() == "!" && !lexer.token().is_empty();
    let key = lexer.token();
    if key.is_empty() || Lexer::is_symbol(key) {
        return Err(format!("found '{key}', expected: identifier"));
    }
    check_key(key)?;
    let key = Istr::new(key);
    if negated {
        return Ok(Requirement { key, operator: Operator::DoesNotExist });
    }
    let operator = match lexer.peek() {
        "" | "," => return Ok(Requirement { key, operator: Operator::Exists }),
        _ => lexer.token(),
    };
    let operator = match operator {
        "=" | "==" => Operator::In(vec![single_value(lexer)?]),
        "!=" => Operator::NotIn(vec![single_value(lexer)?]),
        "in" => Operator::In(values(lexer)?),
        "notin" => Operator::NotIn(values(lexer)?),
        ">" | "<" => {
            let value = single_value(lexer)?;
            let n = value.parse().map_err(|_| {
                let why = "for 'Gt', 'Lt' operators, the value must be an integer";
                FieldError::invalid_str(&FieldPath::of("values").index(0), &value, why).to_string()
            })?;
            if operator == ">" { Operator::GreaterThan(n) } else { Operator::LessThan(n) }
        }
        other => return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
    };
    if let Operator::In(values) | Operator::NotIn(values) = &operator {
        check_values(&key, values)?;
    }
    Ok(Requirement { key, operator })
}

/// `validateLabelKey`; upstream's parser gives it no path.
fn check_key(key: &str) -> Result<(), String> {
    let faults = names::label_key(key);
    if faults.is_empty() { Ok(()) } else { Err(format!("<nil>: Invalid value: {key:?}: {}", faults.join("; "))) }
}

/// The values of a requirement, in the order of a set. (`NewRequirement`, `validateLabelValue`)
fn check_values(key: &str, values: &[Istr]) -> Result<(), String> {
    let sorted: std::collections::BTreeSet<&str> = values.iter().map(Istr::as_str).collect();
    let mut errors = Vec::new();
    for (i, value) in sorted.into_iter().enumerate() {
        let faults = names::label_value(value);
        if !faults.is_empty() {
            let path = FieldPath::of("values").index(i).key(key);
            errors.push(FieldError::invalid_str(&path, value, faults.join("; ")).to_string());
        }
    }
    match &errors[..] {
        [] => Ok(()),
        [one] => Err(one.clone()),
        _ => Err(format!("[{}]", errors.join(", "))),
    }
}

fn single_value(lexer: &mut Lexer<'_>) -> Result<Istr, String> {
    match lexer.peek() {
        "" | "," => Ok(Istr::default()),
        symbol if Lexer::is_symbol(symbol) => Err(format!("found '{symbol}', expected: identifier")),
        _ => Ok(Istr::new(lexer.token())),
    }
}

fn values(lexer: &mut Lexer<'_>) -> Result<Vec<Istr>, String> {
    match lexer.token() {
        "(" => {}
        other => return Err(format!("found '{other}' expected: '('")),
    }
    let mut out = Vec::new();
    loop {
        match lexer.token() {
            ")" => break,
            "," => out.push(Istr::default()),
            "" => return Err(String::from("found '', expected: ',', ')' or identifier")),
            value => {
                out.push(Istr::new(value));
                match lexer.token() {
                    "," => {}
                    ")" => break,
                    other => return Err(format!("found '{other}', expected: ',' or ')'")),
                }
            }
        }
    }
    Ok(out)
}

struct Lexer<'t> {
    rest: &'t str,
}

impl<'t> Lexer<'t> {
    fn is_symbol(token: &str) -> bool {
        token.starts_with(['=', '!', '(', ')', ',', '<', '>'])
    }

    fn peek(&self) -> &'t str {
        Lexer { rest: self.rest }.token()
    }

    fn token(&mut self) -> &'t str {
        self.rest = self.rest.trim_start();
        let length = if self.rest.starts_with("==") || self.rest.starts_with("!=") {
            2
        } else if Lexer::is_symbol(self.rest) {
            1
        } else {
            let stop = |c: char| c.is_ascii_whitespace() || Lexer::is_symbol(c.encode_utf8(&mut [0; 4]));
            self.rest.find(stop).unwrap_or(self.rest.len())
        };
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        token
    }
}

/// A conjunction of `path=value` and `path!=value` terms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// The terms.
    pub terms: Vec<FieldTerm>,
}

/// One term of a field selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    /// The dotted path, as `spec.nodeName`.
    pub path: String,
    /// Whether equality is asked for, or inequality.
    pub equal: bool,
    /// The value compared with.
    pub value: String,
}

impl FieldSelector {
    /// From a query's `fieldSelector` text.
    pub fn parse(text: &str) -> Result<FieldSelector, String> {
        let mut parts = field_terms(text);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for term in parts.into_iter().filter(|t| !t.is_empty()) {
            let at = term.find("!=").into_iter().chain(term.find('=')).min();
            let (path, rest) = at
                .map(|at| term.split_at(at))
                .ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{term}'"))?;
            let operator = ["!=", "==", "="].into_iter().find(|o| rest.starts_with(o)).unwrap_or("=");
            let value = unescaped(&rest[operator.len()..])?;
            terms.push(FieldTerm { path: path.into(), equal: operator != "!=", value });
        }
        Ok(FieldSelector { terms })
    }

    /// Whether all terms hold; `get` gives a path's value (empty if absent).
    pub fn matches<'v>(&self, get: impl Fn(&str) -> &'v str) -> bool {
        self.terms.iter().all(|t| (get(&t.path) == t.value) == t.equal)
    }

    /// Whether this selects every object.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that `path` must equal, if a term says so.
    pub fn exact(&self, path: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.path == path).map(|t| t.value.as_str())
    }
}

/// The terms between commas that no backslash escapes.
fn field_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

/// A field selector's value without its escapes (`fields.UnescapeValue`).
fn unescaped(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(format!("invalid field selector: invalid escape sequence: \\{c}")),
                None => return Err("invalid field selector: invalid escape sequence: \\".into()),
            },
            ',' | '=' => return Err(format!("invalid field selector: unescaped character in value: {}", c as u32)),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_selectors() {
        let labels = Labels::new(vec![("app".into(), "web".into()), ("n".into(), "5".into())]);
        for (text, printed, matches) in [
            ("", "", true),
            ("app=web", "app=web", true),
            ("app==web,n", "app=web,n", true),
            ("app!=web", "app!=web", false),
            ("app in (db, web),!x", "app in (db,web),!x", true),
            ("x notin (a,b)", "x notin (a,b)", true),
            ("n>4,n<6", "n>4,n<6", true),
            ("x=", "x=", false),
        ] {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!((selector.to_string().as_str(), selector.matches(&labels)), (printed, matches), "{text}");
        }
        for bad in ["a in b", "=x", "a in (b", "a b"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
        assert!(LabelSelector::from_tree(None).unwrap().is_nothing());
        assert!(LabelSelector::from_tree(Some(&Tree::map())).unwrap().is_everything());
    }

    #[test]
    fn field_selectors() {
        let selector = FieldSelector::parse("spec.nodeName=n1,status.phase!=Failed").unwrap();
        let get = |path: &str| if path == "spec.nodeName" { "n1" } else { "Running" };
        assert!(selector.matches(get));
        assert_eq!(selector.exact("spec.nodeName"), Some("n1"));
        assert!(FieldSelector::parse("nonsense").is_err());
        let escaped = FieldSelector::parse("a=x\\,y\\=z,b!=").unwrap();
        assert_eq!((escaped.exact("a"), escaped.terms[1].equal), (Some("x,y=z"), false));
        for (bad, why) in [
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
            ("a=\\x", "invalid field selector: invalid escape sequence: \\x"),
            ("a", "invalid selector: 'a'; can't understand 'a'"),
        ] {
            assert_eq!(FieldSelector::parse(bad).unwrap_err(), why);
        }
    }
}
