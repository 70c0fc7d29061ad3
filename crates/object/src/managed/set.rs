//! Sets of an object's fields.
//!
//! Names, order and rules: `structured-merge-diff/v6/fieldpath/{element,set}.go`.

use std::borrow::Cow;
use std::cmp::Ordering;

use corten_tree::Tree;

use crate::status::quoted;

/// How a value is told apart from others in its map or list.
#[derive(Debug, Clone)]
pub enum Element<'a> {
    /// A member of a map.
    Field(Cow<'a, str>),
    /// The item of a list that has these key fields, ordered by name.
    Key(Box<[KeyField<'a>]>),
    /// The item of a set.
    Value(Cow<'a, Tree>),
    /// An item of a list that is neither.
    Index(i64),
}

/// A key field of a list's item, and its value.
pub type KeyField<'a> = (Cow<'a, str>, Cow<'a, Tree>);

impl Element<'_> {
    fn rank(&self) -> u8 {
        match self {
            Element::Field(_) => 0,
            Element::Key(_) => 1,
            Element::Value(_) => 2,
            Element::Index(_) => 3,
        }
    }

    /// The same element with texts of its own.
    pub fn into_owned(self) -> Element<'static> {
        match self {
            Element::Field(name) => Element::Field(Cow::Owned(name.into_owned())),
            Element::Key(fields) => {
                let own = |(name, value): KeyField<'_>| -> KeyField<'static> {
                    (Cow::Owned(name.into_owned()), Cow::Owned(value.into_owned()))
                };
                Element::Key(fields.into_vec().into_iter().map(own).collect())
            }
            Element::Value(value) => Element::Value(Cow::Owned(value.into_owned())),
            Element::Index(index) => Element::Index(index),
        }
    }
}

impl Ord for Element<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Element::Field(a), Element::Field(b)) => a.cmp(b),
            (Element::Key(a), Element::Key(b)) => {
                let pairs = a.iter().zip(b.iter()).map(|(a, b)| a.0.cmp(&b.0).then_with(|| compare_values(&a.1, &b.1)));
                pairs.into_iter().find(|o| o.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
            }
            (Element::Value(a), Element::Value(b)) => compare_values(a, b),
            (Element::Index(a), Element::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Element<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Element<'_> {}

/// `.name`, `[port=80,protocol="TCP"]`, `[="a"]`, `[3]`
impl std::fmt::Display for Element<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Key(fields) => {
                let fields: Vec<String> = fields.iter().map(|(name, v)| format!("{name}={}", shown(v))).collect();
                write!(f, "[{}]", fields.join(","))
            }
            Element::Value(value) => write!(f, "[={}]", shown(value)),
            Element::Index(index) => write!(f, "[{index}]"),
        }
    }
}

fn shown(value: &Tree) -> String {
    match value {
        Tree::Str(text) => quoted(text),
        Tree::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(",")),
        Tree::Map(map) => map.iter().map(|(key, value)| format!("{key}={}", shown(value))).collect(),
        other => other.to_json_string(),
    }
}

/// The order of values: numbers, texts, booleans, lists, maps, null (`value/value.go` `CompareUsing`).
pub(super) fn compare_values(a: &Tree, b: &Tree) -> Ordering {
    fn rank(tree: &Tree) -> u8 {
        match tree {
            Tree::Int(_) | Tree::Float(_) => 0,
            Tree::Str(_) => 1,
            Tree::Bool(_) => 2,
            Tree::List(_) => 3,
            Tree::Map(_) | Tree::Raw(_) => 4,
            Tree::Null => 5,
        }
    }
    match (a, b) {
        (Tree::Int(a), Tree::Int(b)) => a.cmp(b),
        (Tree::Str(a), Tree::Str(b)) => a.cmp(b),
        (Tree::Bool(a), Tree::Bool(b)) => a.cmp(b),
        (Tree::List(a), Tree::List(b)) => {
            let pairs = a.iter().zip(b).map(|(a, b)| compare_values(a, b));
            pairs.into_iter().find(|o| o.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Tree::Map(a), Tree::Map(b)) => {
            let sorted = |map: &'_ corten_tree::Map| -> Vec<(String, Tree)> {
                let mut entries: Vec<_> = map.iter().map(|(k, v)| (k.to_owned(), v.clone())).collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                entries
            };
            let (a, b) = (sorted(a), sorted(b));
            let pairs = a.iter().zip(&b).map(|(a, b)| a.0.cmp(&b.0).then_with(|| compare_values(&a.1, &b.1)));
            pairs.into_iter().find(|o| o.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Tree::Raw(a), Tree::Raw(b)) => a.as_str().cmp(b.as_str()),
        _ => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
            _ => rank(a).cmp(&rank(b)),
        },
    }
}

/// A field in a set, and those below it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node<'a> {
    pub element: Element<'a>,
    /// Whether the field itself is in the set; if not, some below it are.
    pub member: bool,
    pub below: Set<'a>,
}

/// A set of fields: ordered, without empty nodes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Set<'a>(pub(super) Vec<Node<'a>>);

impl<'a> Set<'a> {
    /// The set of one dotted path.
    pub fn of(dotted: &'a str) -> Set<'a> {
        let field = |name: &'a str| Element::Field(Cow::Borrowed(name));
        match dotted.split_once('.') {
            None => Set(vec![Node { element: field(dotted), member: true, below: Set::default() }]),
            Some((name, rest)) => Set(vec![Node { element: field(name), member: false, below: Set::of(rest) }]),
        }
    }

    /// A set of nodes in any order, whose elements differ.
    pub(super) fn from_nodes(mut nodes: Vec<Node<'a>>) -> Set<'a> {
        if !nodes.is_sorted_by(|a, b| a.element < b.element) {
            nodes.sort_by(|a, b| a.element.cmp(&b.element));
            nodes.dedup_by(|later, first| {
                let same = later.element == first.element;
                if same {
                    first.member |= later.member;
                    first.below = std::mem::take(&mut first.below).union(std::mem::take(&mut later.below));
                }
                same
            });
        }
        Set(nodes)
    }

    /// Whether no field is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn node(&self, element: &Element<'_>) -> Option<&Node<'a>> {
        let at = self.0.binary_search_by(|node| node.element.cmp(element)).ok()?;
        Some(&self.0[at])
    }

    /// Whether the field at a dotted path is in the set.
    pub fn has(&self, dotted: &str) -> bool {
        let (name, rest) = dotted.split_once('.').unwrap_or((dotted, ""));
        match self.node(&Element::Field(Cow::Borrowed(name))) {
            Some(node) if rest.is_empty() => node.member,
            Some(node) => node.below.has(rest),
            None => false,
        }
    }

    /// All paths, a field's before those below its siblings.
    pub fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect("", &mut found);
        found
    }

    fn collect(&self, prefix: &str, found: &mut Vec<String>) {
        let members = self.0.iter().filter(|node| node.member);
        found.extend(members.map(|node| format!("{prefix}{}", node.element)));
        for node in self.0.iter().filter(|node| !node.below.is_empty()) {
            node.below.collect(&format!("{prefix}{}", node.element), found);
        }
    }

    /// The fields of both.
    #[must_use]
    pub fn union(self, other: Set<'a>) -> Set<'a> {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        let mut nodes = Vec::with_capacity(self.0.len().max(other.0.len()));
        let mut others = other.0.into_iter().peekable();
        for mut node in self.0 {
            while let Some(before) = others.next_if(|o| o.element < node.element) {
                nodes.push(before);
            }
            if let Some(same) = others.next_if(|o| o.element == node.element) {
                node.member |= same.member;
                node.below = node.below.union(same.below);
            }
            nodes.push(node);
        }
        nodes.extend(others);
        Set(nodes)
    }

    /// The fields that are in `other`, too.
    #[must_use]
    pub fn intersection(&self, other: &Set<'_>) -> Set<'a> {
        self.map_nodes(|node| {
            let same = other.node(&node.element)?;
            Some((node.member && same.member, node.below.intersection(&same.below)))
        })
    }

    /// The fields that are not in `other`; those below a field of `other` stay.
    #[must_use]
    pub fn difference(&self, other: &Set<'_>) -> Set<'a> {
        if other.is_empty() {
            return self.clone();
        }
        self.map_nodes(|node| match other.node(&node.element) {
            Some(same) => Some((node.member && !same.member, node.below.difference(&same.below))),
            None => Some((node.member, node.below.clone())),
        })
    }

    /// The fields that are neither in `other` nor below a field that is.
    #[must_use]
    pub fn recursive_difference(&self, other: &Set<'_>) -> Set<'a> {
        self.map_nodes(|node| match other.node(&node.element) {
            Some(same) if same.member => None,
            Some(same) => Some((node.member, node.below.recursive_difference(&same.below))),
            None => Some((node.member, node.below.clone())),
        })
    }

    /// The fields on, above and below these dotted patterns; `*` is any element.
    #[must_use]
    pub fn only(&self, patterns: &[&str]) -> Set<'a> {
        self.map_nodes(|node| {
            let fits = |head: &str| head == "*" || matches!(&node.element, Element::Field(name) if name == head);
            let split = |pattern: &&'_ str| -> Option<String> {
                let (head, rest) = pattern.split_once('.').unwrap_or((pattern, ""));
                fits(head).then(|| rest.to_owned())
            };
            let rests: Vec<String> = patterns.iter().filter_map(split).collect();
            if rests.is_empty() {
                return None;
            }
            let below = if rests.iter().any(String::is_empty) {
                node.below.clone()
            } else {
                node.below.only(&rests.iter().map(String::as_str).collect::<Vec<_>>())
            };
            Some((node.member, below))
        })
    }

    fn map_nodes(&self, mut keep: impl FnMut(&Node<'a>) -> Option<(bool, Set<'a>)>) -> Set<'a> {
        let kept = self.0.iter().filter_map(|node| {
            let (member, below) = keep(node)?;
            (member || !below.is_empty()).then(|| Node { element: node.element.clone(), member, below })
        });
        Set(kept.collect())
    }

    /// Without what no manager owns: the type and the system's metadata
    /// (`managedfields/internal/stripmeta.go` `NewStripMetaManager`).
    #[must_use]
    pub fn without_system_fields(mut self) -> Set<'a> {
        const METADATA: [&str; 9] = [
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        ];
        fn drop_members(set: &mut Set<'_>, names: &[&str]) {
            for node in &mut set.0 {
                if matches!(&node.element, Element::Field(name) if names.contains(&&**name)) {
                    node.member = false;
                }
            }
        }
        drop_members(&mut self, &["apiVersion", "kind", "metadata"]);
        for node in &mut self.0 {
            if matches!(&node.element, Element::Field(name) if name == "metadata") {
                drop_members(&mut node.below, &METADATA);
                node.below.0.retain(|node| node.member || !node.below.is_empty());
            }
        }
        self.0.retain(|node| node.member || !node.below.is_empty());
        self
    }

    /// With texts of its own.
    pub fn into_owned(self) -> Set<'static> {
        let own = |node: Node<'a>| Node {
            element: node.element.into_owned(),
            member: node.member,
            below: node.below.into_owned(),
        };
        Set(self.0.into_iter().map(own).collect())
    }
}
