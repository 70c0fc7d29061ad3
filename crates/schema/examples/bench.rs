//! What the interpreters cost on a realistic pod: `cargo run --release -p corten-schema --example bench`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use corten_schema::{Options, builtin, canonicalise, decode_json, encode_json, protobuf};
use corten_tree::json;

/// Prints the time of one call: the best of many short rounds, as others may use the machine.
fn bench<R>(what: &str, bytes: usize, mut call: impl FnMut() -> R) {
    let mut best = Duration::MAX;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(700) {
        let round = Instant::now();
        for _ in 0..20 {
            black_box(call());
        }
        best = best.min(round.elapsed() / 20);
    }
    let micros = best.as_secs_f64() * 1e6;
    println!("{what:44} {micros:8.1} µs {:8.0} MB/s", bytes as f64 / micros);
}

fn main() {
    let begun = Instant::now();
    let schema = builtin();
    println!(
        "table: {} types in {:?} (first use; includes the page faults)",
        schema.type_ids().count(),
        begun.elapsed()
    );
    let text = include_str!("pod.json").trim().as_bytes();
    let pod = schema.gvk("", "v1", "Pod").expect("pods are in the table");
    let decode = |bytes: &[u8]| decode_json(schema, pod, bytes, Options::default()).expect("the pod is valid").tree;
    let tree = decode(text);
    let canonical = String::from_utf8(encode_json(schema, pod, &tree)).expect("JSON is UTF-8");
    assert_eq!(canonical.as_bytes(), text, "the pod is canonical: {canonical}");
    let proto = protobuf::encode_object(schema, pod, &tree);
    println!("pod: {} bytes of JSON, {} of protobuf", text.len(), proto.len());
    let size = text.len();
    bench("JSON to a tree, unchecked", size, || json::parse(text));
    bench("decode_json", size, || decode(text));
    bench("canonicalise", size, || canonicalise(schema, pod, &tree, Options::default()));
    bench("encode_json", size, || encode_json(schema, pod, &tree));
    bench("tree to JSON as it stands", size, || tree.to_json());
    bench("protobuf to a tree", size, || protobuf::decode_object(schema, &proto));
    bench("tree to protobuf", size, || protobuf::encode_object(schema, pod, &tree));
    bench("JSON to protobuf through a tree", size, || {
        let tree = json::parse(text).expect("the pod is JSON");
        protobuf::encode_object(schema, pod, &tree)
    });
    bench("JSON to protobuf without a tree", size, || protobuf::from_json(schema, pod, text));
    bench("clone of the tree", size, || tree.clone());
}
