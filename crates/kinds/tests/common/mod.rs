//! Objects for golden tests: a base manifest, changed at a path, run through a kind's hooks.
#![allow(dead_code, clippy::unwrap_used)]

use std::sync::Arc;

use corten_kinds::{Kind, Registry, WriteContext};
use corten_tree::{Tree, json};

/// A kind by name.
pub fn kind(name: &str) -> Arc<Kind> {
    Registry::builtin().by_name(name).unwrap_or_else(|| panic!("no kind {name}")).clone()
}

/// The request's time in tests.
pub fn context() -> WriteContext {
    WriteContext { now: "2026-11-23T12:00:00Z".parse().unwrap() }
}

/// A tree from JSON text.
pub fn parse(text: &str) -> Tree {
    json::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Sets the value at a path of keys and indexes; `-` removes.
pub fn set(tree: &mut Tree, path: &str, value: &str) {
    let mut at = tree;
    let parts: Vec<&str> = path.split('.').collect();
    let (last, parents) = parts.split_last().unwrap();
    for part in parents {
        at = step(at, part);
    }
    match (value, last.parse::<usize>()) {
        ("-", Ok(i)) => drop(at.as_list_mut().unwrap().remove(i)),
        ("-", Err(_)) => drop(at.make_map().remove(last)),
        (value, _) => *step(at, last) = parse(value),
    }
}

fn step<'t>(tree: &'t mut Tree, part: &str) -> &'t mut Tree {
    match part.parse::<usize>() {
        Ok(i) => {
            if !matches!(tree, Tree::List(_)) {
                *tree = Tree::List(Vec::new());
            }
            let items = tree.as_list_mut().unwrap();
            while items.len() <= i {
                items.push(Tree::map());
            }
            &mut items[i]
        }
        Err(_) => {
            let key = part.replace('~', ".");
            let map = tree.make_map();
            if !map.contains(&key) {
                map.insert(key.clone(), Tree::Null);
            }
            map.get_mut(&key).unwrap()
        }
    }
}

/// An object as the pipeline has it before validation: with its metadata filled in, defaulted and prepared.
pub fn prepared(kind: &Kind, mut object: Tree) -> Tree {
    object.set("metadata.uid", "00000000-0000-0000-0000-000000000001");
    object.set("metadata.creationTimestamp", "2026-11-23T12:00:00Z");
    if kind.namespaced() {
        object.set_default("metadata.namespace", "default");
    }
    if let Some(default) = kind.hooks.default {
        default(&mut object);
    }
    if let Some(prepare) = kind.hooks.prepare_create {
        prepare(&mut object, &context());
    }
    object
}

/// A manifest of a kind without faults.
pub fn base(name: &str) -> Tree {
    let template = r#"{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"web","image":"nginx:1"}]}}"#;
    let job = template.replace(r#""spec":{"#, r#""spec":{"restartPolicy":"Never","#);
    let spec = match name {
        "pod" => r#"{"containers":[{"name":"web","image":"nginx:1"}]}"#.to_owned(),
        "deployment" | "daemonset" | "replicaset" => {
            format!(r#"{{"selector":{{"matchLabels":{{"app":"web"}}}},"template":{template}}}"#)
        }
        "statefulset" => {
            format!(r#"{{"serviceName":"web","selector":{{"matchLabels":{{"app":"web"}}}},"template":{template}}}"#)
        }
        "replicationcontroller" => format!(r#"{{"template":{template}}}"#),
        "job" => format!(r#"{{"template":{job}}}"#),
        "cronjob" => format!(r#"{{"schedule":"*/5 * * * *","jobTemplate":{{"spec":{{"template":{job}}}}}}}"#),
        "service" => r#"{"selector":{"app":"web"},"ports":[{"port":80}]}"#.to_owned(),
        "persistentvolumeclaim" => {
            r#"{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}"#.to_owned()
        }
        "persistentvolume" => {
            r#"{"accessModes":["ReadWriteOnce"],"capacity":{"storage":"1Gi"},"hostPath":{"path":"/data"}}"#.to_owned()
        }
        _ => "{}".to_owned(),
    };
    let mut object = parse(r#"{"metadata":{"name":"web"}}"#);
    object.insert("spec", parse(&spec));
    if matches!(name, "configmap" | "secret") {
        object.remove("spec");
    }
    object
}
