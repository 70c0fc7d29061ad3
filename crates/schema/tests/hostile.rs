//! Hostile input: any bytes give a result or an error, never a panic, and what is accepted is canonical.

#![allow(clippy::unwrap_used, reason = "a test")]

use corten_schema::{Options, TypeId, builtin, canonicalise, decode_json, encode_json, protobuf};
use corten_tree::{Tree, json};
use proptest::prelude::*;

const POD: &str = include_str!("../examples/pod.json");

fn types() -> Vec<TypeId> {
    ["core.v1.Pod", "core.v1.Secret", "apiextensions.v1.JSONSchemaProps", "meta.v1.Status", "core.v1.Node"]
        .iter()
        .map(|name| builtin().type_by_name(name).unwrap())
        .collect()
}

/// What was accepted encodes and decodes to itself.
fn check_canonical(ty: TypeId, tree: &Tree) {
    let text = encode_json(builtin(), ty, tree);
    let again = decode_json(builtin(), ty, &text, Options::default()).unwrap();
    assert!(again.strict.is_empty());
    assert_eq!(again.tree.to_json(), text);
    let proto = protobuf::encode(builtin(), ty, tree);
    let back = protobuf::decode(builtin(), ty, &proto).unwrap();
    assert_eq!(protobuf::encode(builtin(), ty, &back), proto);
}

fn any_tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(Tree::Null),
        any::<bool>().prop_map(Tree::Bool),
        any::<i64>().prop_map(Tree::Int),
        (-1000i64..1000).prop_map(Tree::Int),
        (-1e30f64..1e30).prop_map(Tree::Float),
        "[a-z0-9.:%MGi=+-]{0,12}".prop_map(Tree::Str),
        any::<String>().prop_map(Tree::Str),
    ];
    let key = prop_oneof![
        "metadata",
        "spec",
        "containers",
        "name",
        "env",
        "data",
        "items",
        "properties",
        "x",
        "allOf",
        "limits"
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Tree::List),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|entries| Tree::Map(entries.into_iter().map(|(k, v)| (k.into(), v)).collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for ty in types() {
            let _ = decode_json(builtin(), ty, &bytes, Options::default());
            if let Ok(tree) = protobuf::decode(builtin(), ty, &bytes) {
                check_canonical(ty, &tree);
            }
        }
        let _ = protobuf::decode_object(builtin(), &[protobuf::MAGIC.as_slice(), &bytes].concat());
    }

    #[test]
    fn a_spoilt_pod(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>()) {
        let ty = builtin().type_by_name("core.v1.Pod").unwrap();
        let mut text = POD.trim().as_bytes().to_vec();
        let mut proto = protobuf::encode(builtin(), ty, &json::parse(&text).unwrap());
        for (at, byte) in &changes {
            let place = at.index(text.len());
            text[place] = *byte;
            let place = at.index(proto.len());
            proto[place] = *byte;
        }
        for bytes in [&text[..], &text[..cut.index(text.len())]] {
            if let Ok(decoded) = decode_json(builtin(), ty, bytes, Options::default()) {
                check_canonical(ty, &decoded.tree);
            }
        }
        for bytes in [&proto[..], &proto[..cut.index(proto.len())]] {
            if let Ok(tree) = protobuf::decode(builtin(), ty, bytes) {
                check_canonical(ty, &tree);
            }
        }
    }

    #[test]
    fn any_tree_as_any_type(tree in any_tree()) {
        for ty in types() {
            // Encoding takes trees as they come; only decoded ones are promised to be read again.
            encode_json(builtin(), ty, &tree);
            protobuf::encode(builtin(), ty, &tree);
            let from_tree = canonicalise(builtin(), ty, &tree, Options::default());
            let from_text = decode_json(builtin(), ty, &tree.to_json(), Options::default());
            prop_assert_eq!(from_tree.is_ok(), from_text.is_ok());
            if let (Ok(a), Ok(b)) = (from_tree, from_text) {
                prop_assert_eq!(a.tree.to_json(), b.tree.to_json());
                prop_assert_eq!(a.strict, b.strict);
                check_canonical(ty, &a.tree);
            }
        }
    }
}

#[test]
fn deep_nesting_is_an_error() {
    let ty = builtin().type_by_name("apiextensions.v1.JSONSchemaProps").unwrap();
    let deep = |levels: usize| format!("{}{{}}{}", r#"{"not":"#.repeat(levels), "}".repeat(levels));
    assert!(decode_json(builtin(), ty, deep(400).as_bytes(), Options::default()).is_ok());
    let error = decode_json(builtin(), ty, deep(600).as_bytes(), Options::default()).unwrap_err();
    assert_eq!(error.to_string(), "exceeded max depth");
    // The same in protobuf: field 28 (`not`) of itself, far too often.
    let mut message = Vec::new();
    for _ in 0..2_000 {
        let mut outer = vec![0xe2, 0x01];
        let mut length = message.len();
        while length >= 0x80 {
            outer.push(length as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.append(&mut message);
        message = outer;
    }
    assert_eq!(protobuf::decode(builtin(), ty, &message), Err(protobuf::ProtobufError::Depth));
    let tree = decode_json(builtin(), ty, deep(400).as_bytes(), Options::default()).unwrap().tree;
    check_canonical(ty, &tree);
}

/// Work per byte does not grow with the input: these bodies would take minutes if it did.
#[test]
fn many_keys_are_no_trouble() {
    let keys: Vec<String> = (0..100_000).map(|i| format!("\"k{}\":\"\"", (i * 7919) % 100_000)).collect();
    let keys = keys.join(",");
    for body in [
        format!("{{\"data\":{{{keys}}}}}"),
        format!("{{\"metadata\":{{\"managedFields\":[{{\"fieldsV1\":{{{keys}}}}}]}}}}"),
        format!("{{{keys}}}"),
    ] {
        let ty = builtin().type_by_name("core.v1.ConfigMap").unwrap();
        let decoded = decode_json(builtin(), ty, body.as_bytes(), Options::default()).unwrap();
        check_canonical(ty, &decoded.tree);
        assert!(decoded.strict.len() <= 100);
    }
}
