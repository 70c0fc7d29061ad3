//! Our bootstrap roles and bindings against upstream's own test data, which is read from its Go module at test time; nothing of it
//! is in the repository. `cargo xtask schema --check` runs this test.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use corten_auth::bootstrap;
use corten_client::config_file::yaml;
use corten_tree::Tree;

fn test_data() -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/oracle");
    let run =
        Command::new("go").args(["list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"]).current_dir(directory).output();
    let output = run.expect("this test needs Go (1.26 or newer) in PATH");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "this test needs the Go modules that tools/oracle/go.mod names: {told}");
    let module = String::from_utf8(output.stdout).unwrap();
    Path::new(module.trim()).join("plugin/pkg/auth/authorizer/rbac/bootstrappolicy/testdata")
}

/// The order of texts in rules' lists is of no account.
fn sorted(mut object: Tree) -> Tree {
    for rule in object.get_mut("rules").and_then(Tree::as_list_mut).into_iter().flatten() {
        for key in ["apiGroups", "nonResourceURLs", "resourceNames", "resources", "verbs"] {
            if let Some(list) = rule.get_mut(key).and_then(Tree::as_list_mut) {
                list.sort_by_key(ToString::to_string);
            }
        }
    }
    object
}

type Objects = BTreeMap<(String, String, String), Tree>;

fn by_name(objects: impl Iterator<Item = Tree>) -> Objects {
    let key = |o: &Tree| {
        let text = |path: &str| o.str_at(path).to_owned();
        (text("kind"), text("metadata.namespace"), text("metadata.name"))
    };
    objects.map(|o| (key(&o), sorted(o))).collect()
}

fn upstream() -> Objects {
    let mut all = Vec::new();
    for file in [
        "cluster-roles",
        "cluster-role-bindings",
        "controller-roles",
        "controller-role-bindings",
        "namespace-roles",
        "namespace-role-bindings",
    ] {
        let text = std::fs::read_to_string(test_data().join(format!("{file}.yaml"))).unwrap();
        let mut items = yaml(&text).unwrap().list_at("items").to_vec();
        // Those of namespaces are lists of lists.
        if items.iter().any(|item| item.str_at("kind").ends_with("List")) {
            items = items.iter().flat_map(|list| list.list_at("items").to_vec()).collect();
        }
        assert!(!items.is_empty(), "{file}");
        all.extend(items);
    }
    by_name(all.into_iter())
}

#[test]
#[ignore = "needs Go and upstream's modules: cargo xtask schema --check"]
fn bootstrap_roles_and_bindings_are_upstreams() {
    // The roles of our DNS and service proxy, and that of the add-on which serves what nodes and pods use.
    let addons = ["system:coredns", "system:aggregated-metrics-reader"];
    let own = |name: &str| name.starts_with("corten:") || addons.contains(&name);
    let (ours, theirs) = (by_name(bootstrap::objects().into_iter()), upstream());
    let mut differ = Vec::new();
    for (key, theirs) in &theirs {
        match ours.get(key) {
            None => differ.push(format!("{key:?} is missing")),
            Some(ours) if !ours.semantically_equal(theirs) => {
                differ.push(format!("{key:?}\n   ours {ours}\n theirs {theirs}"));
            }
            Some(_) => {}
        }
    }
    differ.extend(ours.keys().filter(|k| !theirs.contains_key(k) && !own(&k.2)).map(|k| format!("{k:?} is more")));
    assert!(theirs.len() > 120, "{}", theirs.len());
    assert!(differ.is_empty(), "{} of {} differ:\n{}", differ.len(), theirs.len(), differ.join("\n"));
}
