//! JSON paths as printer columns have them: the part of `client-go/util/jsonpath` that definitions use.
//!
//! `.a.b`, `.a\.b`, `['a']`, `[0]`, `[-1]`, `[1:3]`, `[*]`, `.*`, `..a`, `[?(@.type=="Ready")]`, `[?(@.x)]`. What a column
//! shows is the first value found.

use corten_tree::Tree;

/// A compiled path.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Name(String),
    /// Every member or item.
    All,
    /// Start, end, step; as Go's slices, negative from the end.
    Slice(Option<i64>, Option<i64>, i64),
    /// This name at any depth.
    Deep(String),
    Filter {
        left: Operand,
        operator: Operator,
        right: Operand,
    },
    /// Several names or places.
    Union(Vec<Step>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Exists,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Path(JsonPath),
    Literal(Tree),
}

/// Nested filters end here.
const DEPTH_MAX: usize = 8;

impl JsonPath {
    /// Compiles a path that begins with a dot or a bracket; `None` if it is none.
    pub fn parse(text: &str) -> Option<JsonPath> {
        JsonPath::parse_at(text.strip_prefix('$').unwrap_or(text), 0)
    }

    fn parse_at(text: &str, depth: usize) -> Option<JsonPath> {
        if depth > DEPTH_MAX {
            return None;
        }
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("..") {
                let (name, after) = name(after);
                if name.is_empty() {
                    return None;
                }
                steps.push(Step::Deep(name));
                rest = after;
            } else if let Some(after) = rest.strip_prefix('.') {
                let (name, after) = name(after);
                match name.as_str() {
                    "" if after.is_empty() && steps.is_empty() => {}
                    "" if after.starts_with('[') => {}
                    "" => return None,
                    "*" => steps.push(Step::All),
                    _ => steps.push(Step::Name(name)),
                }
                rest = after;
            } else if rest.starts_with('[') {
                let end = closing(rest)?;
                steps.push(bracket(&rest[1..end], depth)?);
                rest = &rest[end + 1..];
            } else {
                return None;
            }
        }
        Some(JsonPath(steps))
    }

    /// The dotted path, if it consists of names only.
    pub fn dotted(&self) -> Option<Vec<&str>> {
        self.0.iter().map(|step| if let Step::Name(name) = step { Some(name.as_str()) } else { None }).collect()
    }

    /// The first value found.
    pub fn first<'t>(&self, tree: &'t Tree) -> Option<&'t Tree> {
        self.find(tree).into_iter().next()
    }

    fn find<'t>(&self, tree: &'t Tree) -> Vec<&'t Tree> {
        self.0.iter().fold(vec![tree], |found, step| found.into_iter().flat_map(|tree| step.find(tree)).collect())
    }
}

/// A name up to the next separator, and what follows. A backslash takes a separator's meaning away.
fn name(text: &str) -> (String, &str) {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => out.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (out, &text[at..]),
            c => out.push(c),
        }
    }
    (out, "")
}

/// The place of the bracket that closes the first one.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn unquoted(text: &str) -> Option<&str> {
    let inner = |quote: char| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    if text.len() < 2 { None } else { inner('\'').or_else(|| inner('"')) }
}

fn bracket(text: &str, depth: usize) -> Option<Step> {
    let text = text.trim();
    if let Some(filter) = text.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        return filter_of(filter.trim(), depth);
    }
    if let Some(name) = unquoted(text).filter(|name| !name.contains(['\'', '"'])) {
        return Some(Step::Name(name.to_owned()));
    }
    if text == "*" || text.is_empty() {
        return Some(Step::All);
    }
    if text.contains(',') {
        return text.split(',').map(|part| bracket(part, depth)).collect::<Option<Vec<_>>>().map(Step::Union);
    }
    let number = |text: &str| match text.trim() {
        "" => Some(None),
        text => text.parse::<i64>().ok().map(Some),
    };
    if !text.contains(':') {
        let at = text.parse::<i64>().ok()?;
        let end = if at == -1 { None } else { Some(at.checked_add(1)?) };
        return Some(Step::Slice(Some(at), end, 1));
    }
    let parts: Vec<Option<i64>> = text.split(':').map(number).collect::<Option<_>>()?;
    match parts.as_slice() {
        [from, to] => Some(Step::Slice(*from, *to, 1)),
        [from, to, step] => Some(Step::Slice(*from, *to, step.unwrap_or(1).max(1))),
        _ => None,
    }
}

fn filter_of(text: &str, depth: usize) -> Option<Step> {
    const OPERATORS: &[(&str, Operator)] = &[
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => continue,
            (None, '\'' | '"') => quote = Some(c),
            _ => {}
        }
        let here = OPERATORS.iter().find(|(sign, _)| quote.is_none() && text[at..].starts_with(sign));
        if let Some((sign, operator)) = here {
            let left = operand(text[..at].trim(), depth)?;
            let right = operand(text[at + sign.len()..].trim(), depth)?;
            return Some(Step::Filter { left, operator: *operator, right });
        }
    }
    let left = operand(text, depth)?;
    Some(Step::Filter { left, operator: Operator::Exists, right: Operand::Literal(Tree::Null) })
}

fn operand(text: &str, depth: usize) -> Option<Operand> {
    if let Some(path) = text.strip_prefix('@') {
        return JsonPath::parse_at(path, depth + 1).map(Operand::Path);
    }
    let literal = match (unquoted(text), text) {
        (Some(text), _) => Tree::from(text),
        (None, "true") => Tree::Bool(true),
        (None, "false") => Tree::Bool(false),
        (None, number) => match number.parse::<i64>() {
            Ok(n) => Tree::Int(n),
            Err(_) => Tree::Float(number.parse().ok()?),
        },
    };
    Some(Operand::Literal(literal))
}

impl Step {
    fn find<'t>(&self, tree: &'t Tree) -> Vec<&'t Tree> {
        match (self, tree) {
            (Step::Name(name), tree) => tree.get(name).into_iter().collect(),
            (Step::All, Tree::Map(map)) => map.values().collect(),
            (Step::All, Tree::List(items)) => items.iter().collect(),
            (Step::Slice(from, to, step), Tree::List(items)) => {
                let size = items.len() as i64;
                let place = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
                let (from, to) = (place(from.unwrap_or(0)), place(to.unwrap_or(size)).min(size));
                let Ok(from) = usize::try_from(from) else { return Vec::new() };
                let count = usize::try_from(to).unwrap_or(0).saturating_sub(from);
                let step = usize::try_from(*step).unwrap_or(1);
                items.iter().skip(from).take(count).step_by(step).collect()
            }
            (Step::Deep(name), tree) => {
                let mut found = Vec::new();
                deep(name, tree, &mut found);
                found
            }
            (Step::Filter { left, operator, right }, Tree::List(items)) => {
                items.iter().filter(|item| fits(item, left, *operator, right)).collect()
            }
            (Step::Filter { left, operator, right }, Tree::Map(map)) => {
                map.values().filter(|item| fits(item, left, *operator, right)).collect()
            }
            (Step::Union(steps), tree) => steps.iter().flat_map(|step| step.find(tree)).collect(),
            _ => Vec::new(),
        }
    }
}

fn deep<'t>(name: &str, tree: &'t Tree, found: &mut Vec<&'t Tree>) {
    found.extend(tree.get(name));
    match tree {
        Tree::Map(map) => map.values().for_each(|value| deep(name, value, found)),
        Tree::List(items) => items.iter().for_each(|item| deep(name, item, found)),
        _ => {}
    }
}

fn fits(item: &Tree, left: &Operand, operator: Operator, right: &Operand) -> bool {
    fn value<'v>(operand: &'v Operand, item: &'v Tree) -> Option<&'v Tree> {
        match operand {
            Operand::Path(path) => path.first(item),
            Operand::Literal(literal) => Some(literal),
        }
    }
    let left = value(left, item);
    if operator == Operator::Exists {
        return left.is_some();
    }
    let (Some(left), Some(right)) = (left, value(right, item)) else { return false };
    let order = match (left, right) {
        (Tree::Str(a), Tree::Str(b)) => Some(a.cmp(b)),
        (Tree::Bool(a), Tree::Bool(b)) => Some(a.cmp(b)),
        _ => left.as_f64().zip(right.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)),
    };
    match operator {
        Operator::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
        Operator::NotEqual => order.is_none_or(std::cmp::Ordering::is_ne),
        Operator::Less => order.is_some_and(std::cmp::Ordering::is_lt),
        Operator::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
        Operator::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        Operator::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
        Operator::Exists => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_tree::tree;

    #[test]
    fn paths_find_what_columns_show() {
        let object = tree!({"spec": {"a.b": 1, "list": [{"n": 1}, {"n": 2}, {"n": 3}], "m": {"k": "v"}},
            "status": {"conditions": [{"type": "A", "status": "False"}, {"type": "Ready", "status": "True"}]}});
        for (path, wanted) in [
            (".spec.m.k", Some("\"v\"")),
            (".spec.a\\.b", Some("1")),
            (".spec['a.b']", Some("1")),
            (".spec.list[1].n", Some("2")),
            (".spec.list[-1].n", Some("3")),
            (".spec.list[1:].n", Some("2")),
            (".spec.list[*].n", Some("1")),
            (".spec.m.*", Some("\"v\"")),
            ("..k", Some("\"v\"")),
            (".status.conditions[?(@.type==\"Ready\")].status", Some("\"True\"")),
            (".status.conditions[?(@.type == 'Nothing')].status", None),
            (".spec.list[?(@.n>=2)].n", Some("2")),
            (".spec.list[?(@.q)].n", None),
            (".spec.list[7].n", None),
            (".nothing", None),
        ] {
            let found = JsonPath::parse(path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(found.first(&object).map(Tree::to_json_string).as_deref(), wanted, "{path}");
        }
        for bad in ["spec", ".spec[", ".a[x]", ".a[?(b==)]"] {
            assert_eq!(JsonPath::parse(bad), None, "{bad}");
        }
    }
}
