//! Strategic merge patches against upstream's library, which `tools/schema-gen` runs at test time.
//!
//! `cargo xtask schema --check` runs this test.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::Command;

use corten_object::patch::strategic_patch;
use corten_schema::{builtin, encode_json};
use corten_tree::{Tree, json};

fn generated() -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/schema-gen");
    let run = Command::new("go").args(["run", ".", "patches"]).current_dir(directory).output();
    let output = run.expect("this test needs Go (1.26 or newer) in PATH");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "this test needs the Go modules that tools/schema-gen/go.mod names: {told}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs Go and upstream's modules: cargo xtask schema --check"]
fn strategic_patches_as_upstream() {
    let pod = builtin().gvk("", "v1", "Pod").unwrap();
    let parse = |text: &str| json::parse(text.as_bytes()).unwrap();
    let canonical = |tree: &Tree| String::from_utf8(encode_json(builtin(), pod, tree)).unwrap();
    let (mut checked, mut failed) = (0, Vec::new());
    for line in generated().lines() {
        let parts: Vec<&str> = line.split('\t').collect();
        let [object, patch, result, told] = parts[..] else { panic!("{line}") };
        checked += 1;
        let (got, wanted) = match strategic_patch(builtin(), pod, parse(object), parse(patch)) {
            Ok(tree) if result == "E" => (tree.to_string(), told.to_owned()),
            Ok(tree) => (canonical(&tree), canonical(&parse(result))),
            // Of several faults upstream reports any: maps have no order in Go.
            Err(_) if result == "E" => continue,
            Err(error) => (error.to_string(), result.to_owned()),
        };
        if got != wanted {
            failed.push(format!("{object}\n + {patch}\n   got {got}\n  want {wanted}"));
        }
    }
    let shown = failed.iter().take(5).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(failed.is_empty(), "{} of {checked} differ:\n{shown}", failed.len());
    assert!(checked >= 6000, "only {checked} patches");
}
