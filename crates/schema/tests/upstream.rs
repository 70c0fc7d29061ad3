//! Byte for byte against upstream: its round-trip fixtures, and what its Go types print for objects with one field set.
//!
//! Both come from the Go modules that `tools/schema-gen` pins, at test time; nothing of them is in the repository.
//! `cargo xtask schema --check` runs these tests.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use corten_schema::openapi::{self, Resource};
use corten_schema::{FieldType, Options, Scalar, Schema, TypeId, builtin, decode_json, encode_json, protobuf};
use corten_tree::{Key, Map, Tree, json};

/// What `schema-gen MODE` prints.
fn generator(mode: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/schema-gen");
    let run = Command::new("go").args(["run", ".", mode]).current_dir(directory).output();
    let output = run.expect("this test needs Go (1.26 or newer) in PATH");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "this test needs the Go modules that tools/schema-gen/go.mod names: {told}");
    String::from_utf8(output.stdout).unwrap()
}

const KEEP_EMPTY: Options = Options { unknown: corten_schema::UnknownFields::Report, drop_empty: false };

/// Collects what differs, and says how many of how many at the end.
#[derive(Default)]
struct Tally {
    checked: usize,
    failures: Vec<String>,
}

impl Tally {
    fn equal(&mut self, what: &str, got: &[u8], expected: &[u8]) {
        self.checked += 1;
        if got != expected {
            let at = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
            let near = |bytes: &[u8]| {
                String::from_utf8_lossy(&bytes[at.saturating_sub(60).min(bytes.len())..(at + 60).min(bytes.len())])
                    .into_owned()
            };
            self.failures.push(format!("{what}: at byte {at}\n   got …{}\n  want …{}", near(got), near(expected)));
        }
    }

    fn finish(self, least: usize) {
        let (checked, failed) = (self.checked, self.failures.len());
        println!("{checked} comparisons, {failed} differ");
        let shown = self.failures.iter().take(25).map(String::as_str).collect::<Vec<_>>().join("\n");
        assert!(failed == 0, "{failed} of {checked} differ:\n{shown}");
        assert!(checked >= least, "only {checked} comparisons");
    }
}

fn fixtures() -> Vec<PathBuf> {
    let directory = generator("fixtures");
    let files = std::fs::read_dir(directory.trim()).expect("the fixtures are in the module").map(|f| f.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|f| f.extension().is_some_and(|e| e == "pb")).collect();
    files.sort();
    files
}

/// The fixture of a watch event has an envelope without a kind.
fn decode_fixture(schema: &Schema, name: &str, proto: &[u8]) -> (TypeId, Tree) {
    let envelope = protobuf::Envelope::read(proto).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut parts = name.split('.');
    let kind = parts.next_back().unwrap();
    let version = if envelope.kind.is_empty() { "v1" } else { envelope.api_version };
    let ty = schema.api_version_kind(version, kind).unwrap_or_else(|| panic!("no kind {kind} of {version}"));
    (ty, protobuf::decode_enveloped(schema, ty, &envelope).unwrap_or_else(|e| panic!("{name}: {e}")))
}

fn encode_fixture(schema: &Schema, ty: TypeId, tree: &Tree) -> Vec<u8> {
    protobuf::encode_object(schema, ty, tree)
}

#[test]
#[ignore = "needs Go and upstream's modules: cargo xtask schema --check"]
fn round_trip_fixtures() {
    let schema = builtin();
    let mut tally = Tally::default();
    let files = fixtures();
    for file in &files {
        let name = file.file_stem().unwrap().to_string_lossy();
        let proto = std::fs::read(file).unwrap();
        let text = std::fs::read(file.with_extension("json")).unwrap();
        // The fixtures are indented; their order and values are what upstream prints.
        let expected = json::parse(&text).unwrap().to_json();
        let (ty, tree) = decode_fixture(schema, &name, &proto);
        tally.equal(&format!("{name} protobuf to JSON"), &tree.to_json(), &expected);
        tally.equal(&format!("{name} canonical"), &encode_json(schema, ty, &tree), &expected);
        match decode_json(schema, ty, &text, Options::default()) {
            Ok(decoded) => {
                assert!(decoded.strict.is_empty(), "{name}: {:?}", decoded.strict);
                tally.equal(&format!("{name} JSON"), &decoded.tree.to_json(), &expected);
                tally.equal(&format!("{name} JSON to protobuf"), &encode_fixture(schema, ty, &decoded.tree), &proto);
                let straight = protobuf::from_json(schema, ty, &expected).unwrap_or_else(|e| panic!("{name}: {e}"));
                let message = protobuf::encode(schema, ty, &decoded.tree);
                tally.equal(&format!("{name} JSON to protobuf without a tree"), &straight, &message);
            }
            Err(error) => tally.failures.push(format!("{name}: {error}")),
        }
    }
    println!("{} fixtures", files.len());
    tally.finish(193 * 5);
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.strip_prefix("0x").unwrap();
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

fn check_sparse(schema: &Schema, ty: TypeId, line: &str, tally: &mut Tally) {
    let parts: Vec<&str> = line.split('\t').collect();
    let [_, text, proto, stored] = parts[..] else { panic!("{line}") };
    let tree = json::parse(text.as_bytes()).unwrap();
    tally.equal(&format!("{line}\n encode_json"), &encode_json(schema, ty, &tree), text.as_bytes());
    let decoded = match decode_json(schema, ty, text.as_bytes(), KEEP_EMPTY) {
        Ok(decoded) => decoded,
        Err(error) => return tally.failures.push(format!("{line}\n decode_json: {error}")),
    };
    assert!(decoded.strict.is_empty(), "{line}: {:?}", decoded.strict);
    tally.equal(&format!("{line}\n decode_json"), &decoded.tree.to_json(), text.as_bytes());
    if proto == "-" {
        return;
    }
    let bytes = unhex(proto);
    tally.equal(&format!("{line}\n protobuf::encode"), &protobuf::encode(schema, ty, &decoded.tree), &bytes);
    match protobuf::from_json(schema, ty, text.as_bytes()) {
        Ok(straight) => tally.equal(&format!("{line}\n protobuf::from_json"), &straight, &bytes),
        Err(error) => tally.failures.push(format!("{line}\n protobuf::from_json: {error}")),
    }
    match protobuf::decode(schema, ty, &bytes) {
        Ok(tree) => tally.equal(&format!("{line}\n protobuf::decode"), &tree.to_json(), stored.as_bytes()),
        Err(error) => tally.failures.push(format!("{line}\n protobuf::decode: {error}")),
    }
    let as_stored = decode_json(schema, ty, text.as_bytes(), Options::default()).unwrap();
    tally.equal(&format!("{line}\n as stored"), &as_stored.tree.to_json(), stored.as_bytes());
}

#[test]
#[ignore = "needs Go and upstream's modules: cargo xtask schema --check"]
fn sparse_objects() {
    let schema = builtin();
    let mut tally = Tally::default();
    for line in generator("sparse").lines() {
        let name = line.split('\t').next().unwrap();
        let ty = schema.type_by_name(name).unwrap_or_else(|| panic!("no type {name}"));
        check_sparse(schema, ty, line, &mut tally);
    }
    tally.finish(50_000);
}

/// JSON kept as it is goes through a tree here, which does not keep how odd numbers are written, nor repeated fields. And a
/// schema's `items` of a form that it cannot have are no `items` here, an empty one upstream.
fn is_reworded(schema: &Schema, ty: TypeId, text: &str) -> bool {
    let (name, value) = text.trim_start_matches("{\"").split_once("\":").unwrap_or_default();
    let kept = |scalar: &Scalar| matches!(scalar, Scalar::Raw | Scalar::Json | Scalar::FieldsV1 | Scalar::Any);
    let leaf = schema.field(ty, name).map(|field| field.ty.leaf());
    if leaf == Some(&FieldType::Scalar(Scalar::SchemaOrArray)) && (!value.contains(['{', '[']) || value == "[]}") {
        return true;
    }
    matches!(leaf, Some(FieldType::Scalar(scalar)) if kept(scalar))
        && ["9223372036854775808", "1e3", r#"{"a":"1","a":"2"}"#, r#"[{"zzz":1,"#]
            .iter()
            .any(|odd| value.starts_with(odd))
}

#[test]
#[ignore = "needs Go and upstream's modules: cargo xtask schema --check"]
fn wrong_values() {
    let schema = builtin();
    let mut tally = Tally::default();
    for line in generator("wrong").lines() {
        let parts: Vec<&str> = line.split('\t').collect();
        let [name, text, result, told] = parts[..] else { panic!("{line}") };
        let ty = schema.type_by_name(name).unwrap_or_else(|| panic!("no type {name}"));
        if is_reworded(schema, ty, text) {
            continue;
        }
        let got = match decode_json(schema, ty, text.as_bytes(), KEEP_EMPTY) {
            Ok(decoded) => format!("{} {}", decoded.tree, decoded.strict.join(", ")),
            Err(error) => format!("E {error}"),
        };
        tally.equal(&format!("{name} {text}"), got.as_bytes(), format!("{result} {told}").as_bytes());
    }
    tally.finish(100_000);
}

#[test]
#[ignore = "needs Go and upstream's modules: cargo xtask schema --check"]
fn the_table_is_fresh() {
    let committed = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/v1.37.schema")).unwrap();
    assert!(committed == generator("table"), "data/v1.37.schema is stale: run `cargo xtask schema`");
}

/// Without prose, and with references by themselves also where upstream wraps them to hang prose on them.
fn plain(tree: &Tree) -> Tree {
    match tree {
        Tree::Map(map) => {
            let kept = map.iter().filter(|(key, value)| {
                !(*key == "description" && value.as_str().is_some()) && *key != "x-kubernetes-unions"
            });
            let mut map: Map = kept.map(|(key, value)| (Key::from(key.to_owned()), plain(value))).collect();
            map.sort_keys();
            match map.get("allOf") {
                Some(Tree::List(one)) if map.len() == 1 && one.len() == 1 => one[0].clone(),
                _ => Tree::Map(map),
            }
        }
        Tree::List(items) => Tree::List(items.iter().map(plain).collect()),
        other => other.clone(),
    }
}

#[test]
#[ignore = "needs Go and upstream's modules: cargo xtask schema --check"]
fn openapi_components() {
    let schema = builtin();
    let mut tally = Tally::default();
    let directory = generator("openapi");
    for file in std::fs::read_dir(directory.trim()).unwrap().map(|f| f.unwrap().path()) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let parts: Vec<&str> = name.trim_end_matches("_openapi.json").split("__").collect();
        let (group, version) = match parts[..] {
            ["api", version] => ("", version),
            ["apis", group, version] => (group, version),
            _ => continue,
        };
        let theirs = json::parse(&std::fs::read(&file).unwrap()).unwrap();
        let resources: Vec<Resource<'_>> = schema.gvks().iter().map(|gvk| all_verbs(gvk.kind, gvk.ty)).collect();
        let ours = json::parse(&openapi::document(schema, group, version, &resources)).unwrap();
        for (component, expected) in theirs.map_at("components.schemas").iter() {
            let got = ours.map_at("components.schemas").get(component).unwrap_or(&Tree::Null);
            let (got, expected) = (plain(got).to_json(), plain(expected).to_json());
            tally.equal(&format!("{name} {component}"), &got, &expected);
        }
    }
    tally.finish(800);
}

fn all_verbs(kind: &'static str, ty: TypeId) -> Resource<'static> {
    Resource {
        plural: "x",
        kind,
        ty: Some(ty),
        list_ty: None,
        custom: None,
        namespaced: true,
        verbs: &["get", "create", "update", "patch", "delete"],
        subresources: Vec::new(),
    }
}
