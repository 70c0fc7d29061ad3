//! The OpenAPI v2 document as protobuf: the only form in which client-go asks for it.
//!
//! Numbers are those of `google/gnostic-models/openapiv2/OpenAPIv2.proto`, as a table of messages that one function interprets.

use corten_tree::Tree;

/// How a value is written.
#[derive(Clone, Copy)]
enum Shape {
    Text,
    Bool,
    Integer,
    Double,
    /// Any value, as YAML (which JSON is).
    Any,
    /// A list of any values.
    Anys,
    Texts,
    /// One text or several, in a message of their own.
    Types,
    /// `true`, `false` or a schema.
    SchemaOrBool,
    /// A message, within messages that hold nothing else (the numbers from the outside).
    Within(&'static [u32], &'static Message),
    /// A list of them.
    Each(&'static [u32], &'static Message),
    /// A parameter: of the body, of the query or of the path.
    Parameters,
    /// A map of names to lists of texts, for each entry of a list.
    Requirements,
}

/// A message: its fields by JSON name, what it does with other names, and where extensions go.
struct Message {
    fields: &'static [(&'static str, u32, Shape)],
    /// All other names are entries of this field: a name (1) and a value (2).
    named: Option<(u32, Shape)>,
    /// The number of `x-…`; zero if there are none.
    extensions: u32,
}

static DOCUMENT: Message = Message {
    fields: &[
        ("swagger", 1, Shape::Text),
        ("info", 2, Shape::Within(&[], &INFO)),
        ("paths", 8, Shape::Within(&[], &PATHS)),
        ("definitions", 9, Shape::Within(&[], &SCHEMAS)),
        ("security", 12, Shape::Requirements),
        ("securityDefinitions", 13, Shape::Within(&[], &SECURITY)),
    ],
    named: None,
    extensions: 16,
};

static INFO: Message = Message {
    fields: &[("title", 1, Shape::Text), ("version", 2, Shape::Text), ("description", 3, Shape::Text)],
    named: None,
    extensions: 7,
};

static PATHS: Message = Message { fields: &[], named: Some((2, Shape::Within(&[], &PATH))), extensions: 1 };

static PATH: Message = Message {
    fields: &[
        ("get", 2, Shape::Within(&[], &OPERATION)),
        ("put", 3, Shape::Within(&[], &OPERATION)),
        ("post", 4, Shape::Within(&[], &OPERATION)),
        ("delete", 5, Shape::Within(&[], &OPERATION)),
        ("options", 6, Shape::Within(&[], &OPERATION)),
        ("head", 7, Shape::Within(&[], &OPERATION)),
        ("patch", 8, Shape::Within(&[], &OPERATION)),
        ("parameters", 9, Shape::Parameters),
    ],
    named: None,
    extensions: 10,
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Shape::Texts),
        ("summary", 2, Shape::Text),
        ("description", 3, Shape::Text),
        ("operationId", 5, Shape::Text),
        ("produces", 6, Shape::Texts),
        ("consumes", 7, Shape::Texts),
        ("parameters", 8, Shape::Parameters),
        ("responses", 9, Shape::Within(&[], &RESPONSES)),
        ("schemes", 10, Shape::Texts),
        ("deprecated", 11, Shape::Bool),
    ],
    named: None,
    extensions: 13,
};

static BODY: Message = Message {
    fields: &[
        ("description", 1, Shape::Text),
        ("name", 2, Shape::Text),
        ("in", 3, Shape::Text),
        ("required", 4, Shape::Bool),
        ("schema", 5, Shape::Within(&[], &SCHEMA)),
    ],
    named: None,
    extensions: 6,
};

static QUERY: Message = Message {
    fields: &[
        ("required", 1, Shape::Bool),
        ("in", 2, Shape::Text),
        ("description", 3, Shape::Text),
        ("name", 4, Shape::Text),
        ("type", 6, Shape::Text),
        ("format", 7, Shape::Text),
        ("uniqueItems", 20, Shape::Bool),
    ],
    named: None,
    extensions: 23,
};

static IN_PATH: Message = Message {
    fields: &[
        ("required", 1, Shape::Bool),
        ("in", 2, Shape::Text),
        ("description", 3, Shape::Text),
        ("name", 4, Shape::Text),
        ("type", 5, Shape::Text),
        ("format", 6, Shape::Text),
        ("uniqueItems", 19, Shape::Bool),
    ],
    named: None,
    extensions: 22,
};

static RESPONSES: Message = Message { fields: &[], named: Some((1, Shape::Within(&[1], &RESPONSE))), extensions: 2 };

static RESPONSE: Message = Message {
    fields: &[("description", 1, Shape::Text), ("schema", 2, Shape::Within(&[1], &SCHEMA))],
    named: None,
    extensions: 5,
};

static SECURITY: Message = Message { fields: &[], named: Some((1, Shape::Within(&[2], &API_KEY))), extensions: 0 };

static API_KEY: Message = Message {
    fields: &[
        ("type", 1, Shape::Text),
        ("name", 2, Shape::Text),
        ("in", 3, Shape::Text),
        ("description", 4, Shape::Text),
    ],
    named: None,
    extensions: 5,
};

static SCHEMAS: Message = Message { fields: &[], named: Some((1, Shape::Within(&[], &SCHEMA))), extensions: 0 };

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Shape::Text),
        ("format", 2, Shape::Text),
        ("title", 3, Shape::Text),
        ("description", 4, Shape::Text),
        ("default", 5, Shape::Any),
        ("multipleOf", 6, Shape::Double),
        ("maximum", 7, Shape::Double),
        ("exclusiveMaximum", 8, Shape::Bool),
        ("minimum", 9, Shape::Double),
        ("exclusiveMinimum", 10, Shape::Bool),
        ("maxLength", 11, Shape::Integer),
        ("minLength", 12, Shape::Integer),
        ("pattern", 13, Shape::Text),
        ("maxItems", 14, Shape::Integer),
        ("minItems", 15, Shape::Integer),
        ("uniqueItems", 16, Shape::Bool),
        ("maxProperties", 17, Shape::Integer),
        ("minProperties", 18, Shape::Integer),
        ("required", 19, Shape::Texts),
        ("enum", 20, Shape::Anys),
        ("additionalProperties", 21, Shape::SchemaOrBool),
        ("type", 22, Shape::Types),
        ("items", 23, Shape::Within(&[1], &SCHEMA)),
        ("allOf", 24, Shape::Each(&[], &SCHEMA)),
        ("properties", 25, Shape::Within(&[], &SCHEMAS)),
        ("example", 30, Shape::Any),
    ],
    named: None,
    extensions: 31,
};

/// An OpenAPI v2 document as a gnostic `Document` message.
pub fn encode(document: &Tree) -> Vec<u8> {
    message(&DOCUMENT, document)
}

fn message(of: &Message, value: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in value.fields().iter() {
        let known = of.fields.iter().find(|(name, ..)| *name == key);
        match (known, of.named) {
            (Some((_, number, shape)), _) => field(&mut out, *number, *shape, value),
            (None, _) if key.starts_with("x-") && of.extensions > 0 => {
                let mut named = Vec::new();
                bytes(&mut named, 1, key.as_bytes());
                bytes(&mut named, 2, &any(value));
                bytes(&mut out, of.extensions, &named);
            }
            (None, Some((number, shape))) => {
                let mut named = Vec::new();
                bytes(&mut named, 1, key.as_bytes());
                field(&mut named, 2, shape, value);
                bytes(&mut out, number, &named);
            }
            (None, None) => {}
        }
    }
    out
}

fn field(out: &mut Vec<u8>, number: u32, shape: Shape, value: &Tree) {
    let list = value.as_list().unwrap_or_default();
    match shape {
        Shape::Text => bytes(out, number, value.as_str().unwrap_or_default().as_bytes()),
        Shape::Bool => {
            if value.as_bool() == Some(true) {
                varint_field(out, number, 1);
            }
        }
        Shape::Integer => varint_field(out, number, value.as_i64().unwrap_or(0).cast_unsigned()),
        Shape::Double => {
            varint(out, u64::from(number) << 3 | 1);
            out.extend_from_slice(&value.as_f64().unwrap_or(0.0).to_le_bytes());
        }
        Shape::Any => bytes(out, number, &any(value)),
        Shape::Anys => list.iter().for_each(|item| bytes(out, number, &any(item))),
        Shape::Texts => list.iter().filter_map(Tree::as_str).for_each(|text| bytes(out, number, text.as_bytes())),
        Shape::Types => {
            let mut inner = Vec::new();
            for text in list.iter().chain((list.is_empty()).then_some(value)).filter_map(Tree::as_str) {
                bytes(&mut inner, 1, text.as_bytes());
            }
            bytes(out, number, &inner);
        }
        Shape::SchemaOrBool => {
            let mut inner = Vec::new();
            match value.as_bool() {
                Some(allowed) => varint_field(&mut inner, 2, u64::from(allowed)),
                None => bytes(&mut inner, 1, &message(&SCHEMA, value)),
            }
            bytes(out, number, &inner);
        }
        Shape::Within(numbers, of) => bytes(out, number, &within(numbers, message(of, value))),
        Shape::Each(numbers, of) => {
            list.iter().for_each(|item| bytes(out, number, &within(numbers, message(of, item))));
        }
        Shape::Parameters => list.iter().for_each(|parameter| {
            let (numbers, of): (&[u32], &Message) = match parameter.str_at("in") {
                "body" => (&[1, 1], &BODY),
                "path" => (&[1, 2, 4], &IN_PATH),
                _ => (&[1, 2, 3], &QUERY),
            };
            bytes(out, number, &within(numbers, message(of, parameter)));
        }),
        Shape::Requirements => list.iter().for_each(|requirement| {
            let mut inner = Vec::new();
            for (name, scopes) in requirement.fields().iter() {
                let (mut named, mut texts) = (Vec::new(), Vec::new());
                field(&mut texts, 1, Shape::Texts, scopes);
                bytes(&mut named, 1, name.as_bytes());
                bytes(&mut named, 2, &texts);
                bytes(&mut inner, 1, &named);
            }
            bytes(out, number, &inner);
        }),
    }
}

/// `Any { 2: yaml }`
fn any(value: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    let mut yaml = value.to_json();
    yaml.push(b'\n');
    bytes(&mut out, 2, &yaml);
    out
}

fn within(numbers: &[u32], inner: Vec<u8>) -> Vec<u8> {
    numbers.iter().rev().fold(inner, |inner, number| {
        let mut out = Vec::with_capacity(inner.len() + 8);
        bytes(&mut out, *number, &inner);
        out
    })
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_field(out: &mut Vec<u8>, number: u32, value: u64) {
    varint(out, u64::from(number) << 3);
    varint(out, value);
}

fn bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    varint(out, u64::from(number) << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_tree::tree;

    #[test]
    fn gnostic_bytes_are_those_of_the_messages() {
        let document = tree!({"swagger": "2.0", "definitions": {"X": {"type": "object", "x-y": [1],
            "additionalProperties": true}}});
        // 1: "2.0"; 9: { 1: { 1: "X", 2: { 22: { 1: "object" }, 31: { 1: "x-y", 2: { 2: "[1]\n" } }, 21: { 2: true } } } }
        let mut expected = b"\x0a\x032.0\x4a\x27\x0a\x25\x0a\x01X\x12\x20".to_vec();
        expected.extend_from_slice(b"\xb2\x01\x08\x0a\x06object\xfa\x01\x0d\x0a\x03x-y\x12\x06\x12\x04[1]\n");
        expected.extend_from_slice(b"\xaa\x01\x02\x10\x01");
        assert_eq!(encode(&document), expected);
    }

    #[test]
    fn parameters_stand_where_gnostic_looks_for_them() {
        let query = tree!({"parameters": [{"in": "query", "name": "a", "type": "string"}]});
        let inner = b"\x12\x05query\x22\x01a\x32\x06string";
        let mut expected = vec![0x4a, 0x18, 0x0a, 0x16, 0x12, 0x14, 0x1a, 0x12];
        expected.extend_from_slice(inner);
        assert_eq!(message(&PATH, &query), expected);
    }
}
