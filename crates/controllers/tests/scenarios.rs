//! Worlds and the plans that controllers make of them, as text: `scenarios/*.scenario`.
//!
//! A scenario names the controller and the key, lists the objects as JSON (one per line), and after `plan:` what must come out.
//! `waited:` gives the plan what the same world made the controller remember so many seconds before; objects after `was:` were
//! there then, in the place of those of the same name.
//! What a plan asks to read is answered by `answer:` lines, in order; then the plan after the answers is shown.
//! `UPDATE_EXPECT=1 cargo test` writes what does come out.
#![expect(clippy::unwrap_used, reason = "writing to a String cannot fail")]

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use corten_base::entropy::SeededEntropy;
use corten_base::{Revision, Timestamp};
use corten_cache::Objects;
use corten_controllers::{Action, Answer, Config, EventNote, Failed, Outcome, Plan, Verb, World, Write};
use corten_kinds::Registry;
use corten_object::{Object, ObjectKey, Status};
use corten_tree::{Map, Tree, json};

fn read(registry: &Arc<Registry>, lines: &[&str]) -> Objects {
    let mut objects = Objects::new(registry.clone());
    for (i, line) in lines.iter().enumerate() {
        let tree = json::parse(line.as_bytes()).unwrap_or_else(|e| panic!("{e} in {line}"));
        let kind =
            registry.gvk(tree.str_at("apiVersion"), tree.str_at("kind")).unwrap_or_else(|| panic!("kind of {line}"));
        let bytes = bytes::Bytes::from(tree.to_json());
        let object = Object::parse(kind.id, bytes, Revision(i as u64 + 1), &kind.fact_paths).expect("an object");
        objects.put(Arc::new(object));
    }
    objects.set_revision(Revision(lines.len() as u64));
    objects
}

fn note(out: &mut String, when: &str, note: &EventNote) {
    writeln!(out, "    {when} {} {} {}", note.kind.as_str(), note.reason, note.message).unwrap();
}

fn action(out: &mut String, registry: &Registry, action: &Action) {
    let key = |key: &ObjectKey| format!("{} {key}", registry.get(key.kind).kind);
    let at = |subresource: &str| if subresource.is_empty() { String::new() } else { format!("/{subresource}") };
    match &action.write {
        Write::Create { key: k, body } => writeln!(out, "  create {} {body}", key(k)),
        Write::Update { key: k, subresource, body } => writeln!(out, "  update {}{} {body}", key(k), at(subresource)),
        Write::Patch { key: k, subresource, patch, .. } => {
            let mut patch = patch.clone();
            patch.remove("metadata.uid");
            patch.remove("metadata.resourceVersion");
            if patch.path("metadata").and_then(Tree::as_map).is_some_and(Map::is_empty) {
                patch.remove("metadata");
            }
            writeln!(out, "  patch {}{} {patch}", key(k), at(subresource))
        }
        Write::Delete { key: k, propagation, grace_seconds, .. } => {
            writeln!(
                out,
                "  delete {} {propagation}{}",
                key(k),
                grace_seconds.map_or(String::new(), |g| format!("grace {g}"))
            )
        }
        Write::Act { key: k, subresource, body } => writeln!(out, "  act {}{} {body}", key(k), at(subresource)),
    }
    .unwrap();
    action.done.iter().for_each(|n| note(out, "done:", n));
    action.failed.iter().for_each(|n| note(out, "failed:", n));
}

fn show(registry: &Registry, plan: &Plan) -> String {
    let mut out = String::new();
    for stage in &plan.stages {
        out.push_str("stage\n");
        stage.iter().for_each(|a| action(&mut out, registry, a));
    }
    plan.events.iter().for_each(|n| note(&mut out, "event:", n));
    for path in &plan.asks {
        writeln!(out, "ask {path}").unwrap();
    }
    if let Some(after) = plan.requeue {
        writeln!(out, "again after {after:?}").unwrap();
    }
    if out.is_empty() { String::from("nothing\n") } else { out }
}

/// The plan of one scenario's text, whose lines before `plan:` are given.
fn plan_of(head: &str) -> String {
    let registry = Arc::new(Registry::builtin());
    let field = |name: &str| head.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
    let lines: Vec<&str> = head.lines().filter(|l| l.starts_with('{')).collect();
    let objects = read(&registry, &lines);
    let config = Config { root_ca: "PEM".into(), ..Config::default() };
    let wanted = field("controller:").expect("a controller");
    let controllers = corten_controllers::all(&config);
    let controller = controllers.iter().find(|c| c.name() == wanted).expect("a controller of this name");
    let (kind, name) = field("key:").and_then(|k| k.split_once(' ')).expect("a kind and a name");
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    let kind = registry.by_name(kind).expect("a kind").id;
    let now: Timestamp = field("now:").unwrap_or("2026-01-01T00:10:00Z").parse().expect("a time");
    let outcome = field("failed:").map(|f| {
        let (verb, rest) = f.split_once(' ').expect("a verb");
        let (name, message) = rest.split_once(' ').expect("a name and a message");
        let status = match message {
            "AlreadyExists" => Status::already_exists("", "objects", name),
            other => Status::forbidden("", "objects", name, other),
        };
        let (verb, kind) = match verb {
            "create-pod" => (Verb::Create, "pods"),
            "patch-config-map" => (Verb::Patch, "configmaps"),
            _ => (Verb::Create, "replicasets"),
        };
        let key = ObjectKey::new(registry.by_name(kind).expect("a kind").id, namespace, name);
        Outcome { failures: vec![Failed { verb, key, status }], ..Outcome::default() }
    });
    let entropy = SeededEntropy::new(1);
    let world = World { state: &objects, now, entropy: &entropy, last: outcome.as_ref(), kept: None };
    let key = ObjectKey::new(kind, namespace, name);
    // What was remembered so many seconds ago, when the world was the same.
    let kept = field("waited:").map(|s| s.parse().expect("seconds")).and_then(|seconds| {
        let now = now - jiff::SignedDuration::from_secs(seconds);
        let was: Vec<&str> = head.lines().filter_map(|l| l.strip_prefix("was: ")).collect();
        let earlier = read(&registry, &[lines.as_slice(), was.as_slice()].concat());
        controller.reconcile(&World { state: &earlier, now, ..world }, &key).keep
    });
    let world = World { kept: kept.as_ref(), ..world };
    let plan = controller.reconcile(&world, &key);
    let answers: Vec<&str> = head.lines().filter_map(|l| l.strip_prefix("answer: ")).collect();
    if answers.is_empty() {
        return show(&registry, &plan);
    }
    let answer = |(path, text): (&String, &&str)| {
        let read = match json::parse(text.as_bytes()) {
            Ok(tree) => Ok(tree),
            Err(_) if text.is_empty() => Err(Status::no_such_resource()),
            Err(_) => Err(Status::internal(*text)),
        };
        Answer { path: path.clone(), read }
    };
    let answers = plan.asks.iter().zip(&answers).map(answer).collect();
    let last = Outcome { answers, ..Outcome::default() };
    let world = World { last: Some(&last), kept: plan.keep.as_ref(), ..world };
    show(&registry, &controller.reconcile(&world, &key))
}

#[test]
fn scenarios() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut wrong = String::new();
    let mut files: Vec<_> =
        std::fs::read_dir(&dir).expect("the scenarios").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a scenario");
        let mut out = String::new();
        for scenario in text.split_inclusive("\n\n").filter(|s| !s.trim().is_empty()) {
            let (head, expected) = scenario.split_once("plan:\n").expect("plan:");
            let actual = plan_of(head);
            if expected.trim_end() != actual.trim_end() {
                writeln!(wrong, "{}:\n{head}expected:\n{expected}\nactual:\n{actual}", path.display()).unwrap();
            }
            write!(out, "{head}plan:\n{actual}\n").unwrap();
        }
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, out.trim_end().to_owned() + "\n").expect("written");
        }
    }
    assert!(wrong.is_empty() || std::env::var_os("UPDATE_EXPECT").is_some(), "{wrong}");
}

/// `BurstReplicas` of upstream's replica set controller.
#[test]
fn burst_of_a_replica_set_is_500_pods() {
    let plan = plan_of(
        r#"controller: replicaset
key: replicaset default/web
{"apiVersion":"apps/v1","kind":"ReplicaSet","metadata":{"name":"web","namespace":"default","uid":"r1","generation":1},"spec":{"replicas":700,"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"c","image":"i"}]}}},"status":{}}
"#,
    );
    assert_eq!(plan.matches("create Pod ").count(), 500);
}
