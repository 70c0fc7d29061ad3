//! Sets of fields as JSON (`FieldsV1`): `{"f:spec":{"f:ports":{"k:{\"port\":80}":{".":{},"f:port":{}}}}}`.
//!
//! Form and order: `structured-merge-diff/v6/fieldpath/{serialize,serialize-pe}.go`.

use std::borrow::Cow;

use corten_tree::json::{self, JsonError, Kind, Reader, write_str};
use corten_tree::{RawJson, Tree};

use super::set::{Element, KeyField, Node, Set};

impl<'a> Set<'a> {
    /// Reads a set.
    pub fn parse(text: &'a str) -> Result<Set<'a>, JsonError> {
        let mut reader = Reader::new(text.as_bytes());
        let (set, _) = read(&mut reader)?;
        reader.end()?;
        Ok(set)
    }

    /// The set as JSON.
    pub fn to_raw(&self) -> RawJson {
        let mut out = Vec::with_capacity(512);
        write(&mut out, self, false, &mut String::new());
        RawJson::new_unchecked(std::str::from_utf8(&out).expect("only UTF-8 is written"))
    }
}

/// A set, and whether the value stands for the field itself, too.
fn read<'a>(reader: &mut Reader<'a>) -> Result<(Set<'a>, bool), JsonError> {
    if reader.peek()? != Kind::Map {
        return Err(reader.error("a set of fields is an object"));
    }
    let mut nodes = Vec::new();
    let mut member = false;
    reader.begin_map()?;
    while let Some(key) = reader.next_key()? {
        if key == "." {
            member = true;
            reader.skip()?;
            continue;
        }
        let Some(element) = element(reader, key)? else {
            // Of a kind that a later version may know.
            reader.skip()?;
            continue;
        };
        let (below, member) = read(reader)?;
        nodes.push(Node { element, member, below });
    }
    let member = member || nodes.is_empty();
    Ok((Set::from_nodes(nodes), member))
}

fn element<'a>(reader: &Reader<'_>, key: Cow<'a, str>) -> Result<Option<Element<'a>>, JsonError> {
    let fault = |what: &str| reader.error(format!("{what}: {key}"));
    let (kind, rest) = match (key.as_bytes().first(), key.as_bytes().get(1)) {
        (Some(kind), Some(b':')) => (*kind, 2),
        (Some(_), Some(_)) => return Err(fault("missing colon")),
        _ => return Err(fault("key must be 2 characters long")),
    };
    let value = |text: &str| json::parse(text.as_bytes()).map_err(|error| reader.error(error.message));
    Ok(Some(match kind {
        b'f' => Element::Field(match key {
            Cow::Borrowed(text) => Cow::Borrowed(&text[rest..]),
            Cow::Owned(text) => Cow::Owned(text[rest..].to_owned()),
        }),
        b'v' => Element::Value(Cow::Owned(value(&key[rest..])?)),
        b'k' => match value(&key[rest..])? {
            Tree::Map(map) => {
                let own = |(name, value): (corten_tree::Key, Tree)| -> KeyField<'a> {
                    (Cow::Owned(name.to_string()), Cow::Owned(value))
                };
                let mut fields: Vec<KeyField<'a>> = map.into_iter().map(own).collect();
                fields.sort_by(|a, b| a.0.cmp(&b.0));
                Element::Key(fields.into())
            }
            _ => return Err(fault("a key is an object")),
        },
        b'i' => Element::Index(key[rest..].parse().map_err(|_| fault("an index is a number"))?),
        _ => return Ok(None),
    }))
}

fn write(out: &mut Vec<u8>, set: &Set<'_>, with_self: bool, name: &mut String) {
    out.push(b'{');
    if with_self && !set.is_empty() {
        out.extend_from_slice(b"\".\":{}");
    }
    for node in &set.0 {
        if out.last() != Some(&b'{') {
            out.push(b',');
        }
        name.clear();
        write_element(name, &node.element);
        write_str(out, name);
        out.push(b':');
        write(out, &node.below, node.member, name);
    }
    out.push(b'}');
}

fn write_element(out: &mut String, element: &Element<'_>) {
    match element {
        Element::Field(name) => {
            out.push_str("f:");
            out.push_str(name);
        }
        Element::Key(fields) => {
            out.push_str("k:{");
            for (i, (name, value)) in fields.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                let mut bytes = Vec::new();
                write_str(&mut bytes, name);
                bytes.push(b':');
                json::write(&mut bytes, value);
                out.push_str(&String::from_utf8_lossy(&bytes));
            }
            out.push('}');
        }
        Element::Value(value) => {
            out.push_str("v:");
            out.push_str(&value.to_json_string());
        }
        Element::Index(index) => {
            out.push_str("i:");
            out.push_str(&index.to_string());
        }
    }
}

/// Whether a set, given as text, has a field of `other`. Reads no more of the text than `other` leads to, and builds nothing.
pub(super) fn overlaps(text: &str, other: &Set<'_>) -> Result<bool, JsonError> {
    let mut reader = Reader::new(text.as_bytes());
    overlap(&mut reader, other, false)
}

/// As [`overlaps`] for the next value; `wanted` is whether the field that it belongs to counts.
fn overlap(reader: &mut Reader<'_>, other: &Set<'_>, wanted: bool) -> Result<bool, JsonError> {
    let by_name_only = other.0.last().is_none_or(|node| matches!(node.element, Element::Field(_)));
    let mut first = true;
    reader.begin_map()?;
    while let Some(key) = reader.next_key()? {
        if key == "." {
            if wanted {
                return Ok(true);
            }
            reader.skip()?;
            first = false;
            continue;
        }
        first = false;
        let node = match key.strip_prefix("f:") {
            Some(name) => other.node(&Element::Field(Cow::Borrowed(name))),
            None if by_name_only => None,
            None => element(reader, key)?.and_then(|element| other.node(&element)),
        };
        match node {
            Some(node) => {
                if overlap(reader, &node.below, node.member)? {
                    return Ok(true);
                }
            }
            None => drop(reader.skip()?),
        }
    }
    // An empty object is the field itself.
    Ok(first && wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(text: &str) -> String {
        Set::parse(text).map_or_else(|e| format!("error: {}", e.message), |s| s.to_raw().as_str().to_owned())
    }

    #[test]
    fn fields_v1_is_read_and_written_in_order() {
        for (input, output) in [
            ("{}", "{}"),
            (r#"{"f:b":{},"f:a":{".":{}}}"#, r#"{"f:a":{},"f:b":{}}"#),
            (r#"{"f:a":{"f:c":{},".":{}}}"#, r#"{"f:a":{".":{},"f:c":{}}}"#),
            (
                r#"{"f:p":{"k:{\"protocol\":\"TCP\",\"port\":80}":{".":{},"f:port":{}}}}"#,
                r#"{"f:p":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{}}}}"#,
            ),
            (r#"{"i:2":{},"v:\"b\"":{},"v:1":{},"f:x":{}}"#, r#"{"f:x":{},"v:1":{},"v:\"b\"":{},"i:2":{}}"#),
            (r#"{"x:later":{},"f:a":{"y:z":{}}}"#, r#"{"f:a":{}}"#),
            (r#"{"a":{}}"#, "error: key must be 2 characters long: a"),
            (r#"{"abc":{}}"#, "error: missing colon: abc"),
            (r#"{"f:a":[]}"#, "error: a set of fields is an object"),
        ] {
            assert_eq!(round(input), output, "{input}");
        }
    }

    #[test]
    fn overlaps_says_what_intersection_says() {
        let sets = [
            "{}",
            r#"{"f:a":{}}"#,
            r#"{"f:a":{".":{},"f:b":{}}}"#,
            r#"{"f:a":{"f:b":{}}}"#,
            r#"{"f:a":{"k:{\"n\":1}":{"f:b":{}}}}"#,
            r#"{"f:a":{"k:{\"n\":1}":{".":{},"f:b":{}}}}"#,
            r#"{"f:a":{"k:{\"n\":1}":{}}}"#,
            r#"{"f:a":{"v:\"x\"":{}}}"#,
        ];
        for a in sets {
            for b in sets {
                let (left, right) = (Set::parse(a).unwrap(), Set::parse(b).unwrap());
                assert_eq!(overlaps(a, &right).unwrap(), !left.intersection(&right).is_empty(), "{a} {b}");
            }
        }
    }
}
