//! Whole objects: JSON, YAML, protobuf, definitions.

use corten_apiserver::yaml_body;
use corten_kinds::custom::definition::structural_faults;
use corten_object::patch::document;
use corten_schema::structural::{Props, lower};
use corten_schema::{
    Options, SchemaBuilder, TypeId, builtin, canonicalise, decode_json, encode_json, protobuf as wire,
};
use corten_tree::{Tree, json};

use super::{objects_of_all_kinds, type_of};
use crate::{Class, class};

pub(super) const YAML_WORDS: &[&str] = &[
    "\n",
    "  ",
    "- ",
    ": ",
    "? ",
    "&a ",
    "*a",
    "<<: *a\n",
    "|\n  ",
    ">-\n  ",
    "\"",
    "'",
    "{",
    "}",
    "[",
    "]",
    ",",
    "# c\n",
    "---\n",
    "...\n",
    "!!str ",
    "!!int ",
    "!!binary ",
    "!!float ",
    "!t ",
    "0x1f",
    "0o7",
    "017",
    "1_000",
    ".inf",
    "-.Inf",
    ".nan",
    "1e3",
    "~",
    "yes",
    "no",
    "on",
    "2001-01-01",
    "key: value\n",
    "key: [a, b]\n",
    "\t",
    "\r\n",
    "%YAML 1.2\n",
    "\u{feff}",
    "\\x41",
    "\\u263a",
    "a: &a [*a]\n",
];

pub(super) fn manifests() -> Vec<Vec<u8>> {
    objects_of_all_kinds().iter().map(|(_, tree)| tree.to_json()).collect()
}

pub(super) fn yaml_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\n  labels: {a: b, \"c\": 'd'}\ndata:\n  text: |\n    one\n    two\n  folded: >-\n    a\n    b\n",
        "a: &anchor {x: 1, y: [1, 2.5, true, null, ~]}\nb: *anchor\n? key\n: value\n--- \n- 0x10\n- 0o17\n- 1e3\n",
    ];
    let documents = texts.map(|t| t.as_bytes().to_vec());
    documents.into_iter().chain(manifests().into_iter().step_by(9)).collect()
}

pub(super) fn protobufs() -> Vec<Vec<u8>> {
    objects_of_all_kinds().iter().map(|(ty, tree)| wire::encode_object(builtin(), *ty, tree)).collect()
}

/// What was written is written the same again, but for a negative zero: as in Go, the fraction -0.0 is written as -0, the integer as 0.
fn check_settled(text: &[u8], again: &Tree) {
    let written = again.to_json();
    assert!(text == written || text.windows(2).any(|w| w == b"-0"), "written twice it differs: {}", show(&written));
}

/// What is read is written so that it is read as the same; readers of one text agree.
pub(super) fn json_text(input: &[u8]) -> Class {
    match (json::parse(input), document(input)) {
        (Ok(tree), Ok((same, _))) => {
            let text = tree.to_json();
            assert_eq!(text, same.to_json(), "two readers differ");
            let again = json::parse(&text).expect("what was written is read");
            check_settled(&text, &again);
            class("json", tree.type_name())
        }
        (Err(error), Err(_)) => class("json error", &error.message),
        (one, other) => panic!("one reader takes it, another does not: {one:?}, {other:?}"),
    }
}

/// YAML gives a tree that JSON can hold.
pub(super) fn yaml(input: &[u8]) -> Class {
    match yaml_body(input) {
        Ok(tree) => {
            let text = tree.to_json();
            let again = json::parse(&text).expect("a tree of YAML is written as JSON");
            check_settled(&text, &again);
            class("yaml", tree.type_name())
        }
        Err(status) => class("yaml error", status.message.split(" at line").next().unwrap_or_default()),
    }
}

/// What was accepted is canonical, in both encodings.
fn check_canonical(ty: TypeId, tree: &Tree) {
    let text = encode_json(builtin(), ty, tree);
    let again = decode_json(builtin(), ty, &text, Options::default()).expect("canonical JSON is read");
    assert!(again.strict.is_empty(), "canonical JSON has strict errors: {:?}", again.strict);
    assert_eq!(show(&again.tree.to_json()), show(&text), "canonical JSON changes");
    let proto = wire::encode(builtin(), ty, tree);
    let back = wire::decode(builtin(), ty, &proto).expect("protobuf that was written is read");
    assert_eq!(wire::encode(builtin(), ty, &back), proto, "protobuf changes");
}

fn show(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Bytes and the tree of the same bytes decode to the same; the result is canonical.
pub(super) fn decode(input: &[u8]) -> Class {
    let tree = json::parse(input).unwrap_or(Tree::Null);
    let Some(ty) = type_of(&tree) else { return class("decode", "no type") };
    let of_bytes = decode_json(builtin(), ty, input, Options::default());
    // A text may repeat keys, a tree cannot: only what is written from the tree is the same document.
    let of_text = decode_json(builtin(), ty, &tree.to_json(), Options::default());
    let of_tree = canonicalise(builtin(), ty, &tree, Options::default());
    match (&of_text, &of_tree) {
        (Ok(text), Ok(tree)) => {
            assert_eq!(show(&text.tree.to_json()), show(&tree.tree.to_json()), "bytes and tree decode differently");
            assert_eq!(text.strict, tree.strict, "bytes and tree have other strict errors");
            check_canonical(ty, &tree.tree);
        }
        (Err(_), Err(_)) => {}
        (text, tree) => panic!("bytes and tree decode differently: {text:?}, {tree:?}"),
    }
    match of_bytes {
        Ok(decoded) => class("decoded", decoded.strict.first().map_or("", String::as_str)),
        Err(error) => class("decode error", &error.to_string()),
    }
}

/// A message that is read is written so that it is read as the same.
pub(super) fn protobuf(input: &[u8]) -> Class {
    match wire::decode_object(builtin(), input) {
        Ok((ty, tree)) => {
            let written = wire::encode_object(builtin(), ty, &tree);
            let (_, again) = wire::decode_object(builtin(), &written).expect("protobuf that was written is read");
            assert_eq!(show(&again.to_json()), show(&tree.to_json()), "a message changes");
            // What protobuf carries may still be what JSON refuses; what both take is canonical.
            match canonicalise(builtin(), ty, &tree, Options::default()) {
                Ok(decoded) => {
                    check_canonical(ty, &decoded.tree);
                    class("protobuf", tree.str_at("kind"))
                }
                Err(error) => class("protobuf, not JSON", &error.to_string()),
            }
        }
        Err(error) => class("protobuf error", &error.to_string()),
    }
}

pub(super) fn definitions() -> Vec<Vec<u8>> {
    let schema = r#"{"type":"object","required":["spec"],"properties":{"spec":{"type":"object","properties":{"list":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["name"],"items":{"type":"object","required":["name"],"properties":{"name":{"type":"string","pattern":"^a+$","maxLength":5},"n":{"type":"integer","format":"int32","default":3,"minimum":0}}}},"any":{"x-kubernetes-int-or-string":true},"raw":{"type":"object","x-kubernetes-preserve-unknown-fields":true},"map":{"type":"object","additionalProperties":{"type":"number","nullable":true}}},"x-kubernetes-validations":[{"rule":"self.list.all(x, x.n > 1)","messageExpression":"'a' + 'b'"}],"oneOf":[{"required":["any"]},{"required":["raw"]}]}}}"#;
    let definition = format!(
        r#"{{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{{"name":"fs.e.x"}},"spec":{{"group":"e.x","scope":"Namespaced","names":{{"plural":"fs","kind":"F"}},"versions":[{{"name":"v1","served":true,"storage":true,"subresources":{{"status":{{}},"scale":{{"specReplicasPath":".spec.n","statusReplicasPath":".status.n"}}}},"selectableFields":[{{"jsonPath":".spec.any"}}],"additionalPrinterColumns":[{{"name":"A","type":"string","jsonPath":".spec.list[?(@.name==\"a\")].n"}}],"schema":{{"openAPIV3Schema":{schema}}}}}]}}}}"#
    );
    vec![definition.into_bytes()]
}

/// Any definition that decodes is checked, lowered to types, and its types read objects.
pub(super) fn definition(input: &[u8]) -> Class {
    let tree = json::parse(input).unwrap_or(Tree::Null);
    let Some(ty) = type_of(&tree) else { return class("definition", "no type") };
    let Ok(decoded) = decode_json(builtin(), ty, input, Options::default()) else { return class("definition", "no") };
    let faults = structural_faults(&decoded.tree);
    let mut outcome = format!("{faults:?}");
    for version in decoded.tree.list_at("spec.versions") {
        let Some(schema) = version.path("schema.openAPIV3Schema") else { continue };
        let props = Props::parse(schema);
        let mut builder = SchemaBuilder::default();
        let Ok(ty) = lower(&mut builder, "fuzz", Some(&props)) else { continue };
        let types = builder.build();
        for text in
            [r#"{"spec":{"list":[{"name":"a"}],"any":1,"map":{"x":null}}}"#, r#"{"spec":[1,{"a":null}],"kind":"F"}"#]
        {
            let mut object = json::parse(text.as_bytes()).expect("a constant");
            props.fill(&mut object);
            let result = canonicalise(&types, ty, &object, Options::default());
            if let Ok(decoded) = &result {
                let text = encode_json(&types, ty, &decoded.tree);
                let again = decode_json(&types, ty, &text, Options::default()).expect("canonical JSON is read");
                assert_eq!(show(&again.tree.to_json()), show(&text), "a custom object changes");
            }
            outcome.push_str(if result.is_ok() { "ok" } else { "no" });
        }
    }
    class("definition", &outcome.chars().take(200).collect::<String>())
}
