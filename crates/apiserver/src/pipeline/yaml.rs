//! YAML bodies as trees: the last of repeated keys counts, and all of them are noted.

use std::collections::HashSet;
use std::fmt;

use corten_object::Status;
use corten_tree::{MapBuilder, Tree};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Spanned};

/// How Go's parser begins the list of repeated keys (`yaml.TypeError`).
const STRICT: &str = "yaml: unmarshal errors:\n";
/// What its caller may put before that.
const CONVERTING: &str = "error converting YAML to JSON: ";

/// A document, and what is wrong with it to those who are strict: one text for all its repeated keys, as upstream says it.
pub(crate) struct Yaml {
    pub tree: Tree,
    pub strict: Option<String>,
}

/// Reads YAML; JSON is YAML.
///
/// # Errors
/// 400 if it is none.
pub(crate) fn parse(bytes: &[u8]) -> Result<Yaml, Status> {
    let text =
        std::str::from_utf8(bytes).map_err(|_| Status::bad_request("yaml: control characters are not allowed"))?;
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::PassThrough };
    let node: Node = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| Status::bad_request(format!("{CONVERTING}{error}")))?;
    let strict = (!node.repeated.is_empty()).then(|| format!("{STRICT}  {}", node.repeated.join("\n  ")));
    Ok(Yaml { tree: node.tree, strict })
}

/// What is wrong with a patch in upstream's words.
pub(crate) fn converting(strict: &str) -> String {
    format!("{CONVERTING}{strict}")
}

/// The warnings in a text of strict decoding: one for each repeated key (`parseYAMLWarnings`).
pub(crate) fn warnings(strict: &str) -> Vec<String> {
    let text = strict.strip_prefix(CONVERTING).unwrap_or(strict);
    match text.strip_prefix(STRICT) {
        Some(lines) => lines.lines().map(|line| line.trim().to_owned()).collect(),
        None => vec![strict.to_owned()],
    }
}

/// A value, and the repeated keys in it, each as upstream names it.
struct Node {
    tree: Tree,
    repeated: Vec<String>,
}

impl From<Tree> for Node {
    fn from(tree: Tree) -> Node {
        Node { tree, repeated: Vec::new() }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Tree::Null.into())
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Tree::Null.into())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Tree::Bool(value).into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Tree::Int(value).into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(i64::try_from(value).map_or(Tree::Float(value as f64), Tree::Int).into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(if value.is_finite() { Tree::Float(value) } else { Tree::Null }.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Tree::from(value).into())
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Tree::Str(value).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let (mut items, mut repeated) = (Vec::new(), Vec::new());
        while let Some(item) = access.next_element::<Node>()? {
            items.push(item.tree);
            repeated.extend(item.repeated);
        }
        Ok(Node { tree: Tree::List(items), repeated })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let (mut map, mut repeated, mut seen) = (MapBuilder::new(), Vec::new(), HashSet::new());
        while let Some(key) = access.next_key::<String>()? {
            let value: Spanned<Node> = access.next_value()?;
            repeated.extend(value.value.repeated);
            if !seen.insert(key.clone()) {
                // Go's parser names the line of the value.
                repeated.push(format!("line {}: key {key:?} already set in map", value.referenced.line()));
            }
            map.insert(key, value.value.tree);
        }
        Ok(Node { tree: Tree::Map(map.finish()), repeated })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_duplicate_keys_are_found_with_their_lines_and_the_last_counts() {
        let text = "\na: 1\nb:\n  c: x\n  c: y\n  d: [1, 2]\na: {e: 1, e: 2}\nf:\n- g: 1\n  g: 2\nb:\n  h: 1\n";
        let yaml = parse(text.as_bytes()).unwrap();
        assert_eq!(yaml.tree.to_json_string(), r#"{"a":{"e":2},"b":{"h":1},"f":[{"g":2}]}"#);
        let strict = yaml.strict.unwrap();
        assert_eq!(
            strict,
            "yaml: unmarshal errors:\n  line 5: key \"c\" already set in map\n  line 7: key \"e\" already set in map\n  \
             line 7: key \"a\" already set in map\n  line 10: key \"g\" already set in map\n  \
             line 12: key \"b\" already set in map"
        );
        let all = warnings(&converting(&strict));
        assert_eq!((all.len(), all[4].as_str()), (5, "line 12: key \"b\" already set in map"));
    }

    #[test]
    fn yaml_values_are_those_of_json() {
        for (text, json) in [
            (
                "a: 1\nb: -2.5\nc: true\nd: ~\ne: \"1\"\nf: 1e3",
                r#"{"a":1,"b":-2.5,"c":true,"d":null,"e":"1","f":1000}"#,
            ),
            ("8080: x\ntrue: z", r#"{"8080":"x","true":"z"}"#),
            ("a: &x {b: 1}\nc: *x", r#"{"a":{"b":1},"c":{"b":1}}"#),
            ("a: |\n  two\n  lines\n", r#"{"a":"two\nlines\n"}"#),
            ("{\"a\": [1, {\"b\": null}]}", r#"{"a":[1,{"b":null}]}"#),
            ("18446744073709551615", "18446744073709552000"),
            ("", "null"),
        ] {
            let yaml = parse(text.as_bytes()).unwrap();
            assert_eq!((yaml.tree.to_json_string().as_str(), yaml.strict), (json, None), "{text}");
        }
        let error = parse(b"a: [1").err().unwrap();
        assert!(error.code == 400 && error.message.starts_with("error converting YAML to JSON: "), "{error}");
    }
}
