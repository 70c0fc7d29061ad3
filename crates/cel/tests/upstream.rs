//! Expressions with what Kubernetes' own libraries make of them: issues, types, costs, results (`data/expressions.txt`).

use corten_cel::{Budget, Env, MapValue, Type, Value, Version};
use corten_tree::{Tree, tree};

fn object() -> Tree {
    tree!({
        "metadata": {"name": "web", "labels": {"app": "web", "tier": "front"}},
        "spec": {
            "replicas": 3, "ratio": (0.5), "big": (12345678901i64), "names": ["a", "bé", "c"],
            "ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}],
            "image": "example.com/app:v1.2.3", "flags": [true, false], "empty": (Tree::List(Vec::new())),
            "nested": {"a": {"b": {"c": [1, 2, 3]}}}
        },
        "nothing": null
    })
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

fn outcome(env: &Env, object: &Tree, source: &str) -> Vec<String> {
    let program = match env.compile(source) {
        Ok(program) => program,
        Err(issues) => {
            let text = issues.to_string();
            return match text.strip_prefix("ERROR: <input>:-1:0: ") {
                Some(why) if !why.starts_with("expression") => vec![format!("program {}", escape(why))],
                _ => vec![format!("issues {}", escape(&text))],
            };
        }
    };
    let cost = program.cost_estimate_with(&());
    let mut out = vec![format!("type {}", program.result_type()), format!("estimate {} {}", cost.min, cost.max)];
    let mut map = MapValue::default();
    map.insert(Value::str("k"), Value::Int(1));
    let list = ["b", "a", "c"].map(Value::str).to_vec();
    let vars = [
        ("object", Value::of_tree(object)),
        ("x", Value::Int(7)),
        ("s", Value::str("hello wörld")),
        ("l", Value::list(list)),
        ("m", Value::Map(std::sync::Arc::new(map))),
    ];
    let mut budget = Budget::unlimited();
    let result = program.eval(&vars, &mut budget);
    out.push(format!("cost {}", budget.spent()));
    match result {
        Err(error) => out.push(format!("error {}", escape(&error.to_string()))),
        Ok(value @ (Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Str(_))) => {
            out.push(format!("value {}", escape(&value.to_string())));
        }
        Ok(_) => {}
    }
    out
}

/// Sources with errors of syntax of which upstream's parser, which goes on after the first one, says more or something else.
const OTHERWISE: &[&str] = &["x.in", "x ? : 1", "!", "-", "..x", "x.all(y y > 1)", "x.?"];

#[test]
fn expressions_are_what_they_are_upstream() {
    let env = Env::new(Version::STORED)
        .variable("object", Type::Dyn)
        .variable("x", Type::Int)
        .variable("s", Type::String)
        .variable("l", Type::list(Type::String))
        .variable("m", Type::map(Type::String, Type::Int));
    let object = object();
    let (mut count, mut wrong) = (0, Vec::new());
    for block in include_str!("data/expressions.txt").split("\n\n").filter(|block| block.starts_with("> ")) {
        let mut lines = block.trim_end().lines();
        let source = lines.next().unwrap().strip_prefix("> ").unwrap();
        let expected: Vec<&str> = lines.collect();
        let got = outcome(&env, &object, source);
        count += 1;
        if OTHERWISE.contains(&source) {
            assert!(got[0].starts_with("issues ") && expected[0].starts_with("issues "), "{source}");
            continue;
        }
        let same = |(a, b): (&&str, &String)| *a == b;
        let planned = got.len() == 1
            && got[0].starts_with("program ")
            && expected.last().is_some_and(|line| line.starts_with("program "));
        if !planned && (got.len() != expected.len() || !expected.iter().zip(&got).all(same)) {
            wrong.push(format!("{source}\n  expected {expected:?}\n  got      {got:?}"));
        }
    }
    assert!(count > 300, "only {count} expressions");
    assert!(wrong.is_empty(), "{} of {count} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
