//! No call, however nested, makes the parser, the checker or the evaluator panic or run away.

use corten_cel::{Budget, Env, PER_CALL_LIMIT, Type, Value, Version};
use corten_tree::tree;
use proptest::prelude::*;

fn run(source: &str) {
    let env = Env::new(Version::STORED).with_bindings_and_mixed_literals();
    let env = env.variable("object", Type::Dyn).variable("x", Type::Int).variable("s", Type::String);
    let document = tree!({"a": {"b": [1, 2, {"c": "d"}]}, "n": null, "f": (1.5)});
    match env.compile(source) {
        Ok(program) => {
            let _ = program.cost_estimate();
            let vars =
                [("object", Value::of_tree(&document)), ("x", Value::Int(i64::MIN)), ("s", Value::str("é\u{0}😀"))];
            if let Ok(value) = program.eval(&vars, &mut Budget::new(PER_CALL_LIMIT)) {
                let _ = (value.to_string(), value.to_tree());
            }
        }
        Err(issues) => {
            let _ = issues.to_string();
        }
    }
}

/// What is called with any arguments. Sources of any words are what `crates/fuzz` puts together (its target `cel`).
const FUNCTIONS: &[&str] = &[
    "size",
    "all",
    "exists",
    "filter",
    "map",
    "optMap",
    "transformMap",
    "sortBy",
    "format",
    "matches",
    "find",
    "duration",
    "timestamp",
    "int",
    "string",
    "type",
    "quantity",
    "ip",
    "cidr",
    "url",
    "semver",
    "substring",
    "split",
    "replace",
    "charAt",
    "lists.range",
    "flatten",
    "slice",
    "getHours",
    "orValue",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn calls_with_any_arguments(
        function in 0..FUNCTIONS.len(),
        args in proptest::collection::vec(0usize..12, 0..4),
    ) {
        let values = ["x", "s", "object", "object.a.b", "-1", "1 / 0", "'%d'", "[]", "{}", "null", "'('", "9223372036854775807"];
        let args: Vec<&str> = args.into_iter().map(|at| values[at]).collect();
        run(&format!("{}({})", FUNCTIONS[function], args.join(", ")));
        if let Some((target, rest)) = args.split_first() {
            run(&format!("dyn({target}).{}({})", FUNCTIONS[function], rest.join(", ")));
        }
    }
}

#[test]
fn deep_and_long_sources_end() {
    let nested = |open: &str, close: &str, depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    for depth in [10, 200, 249, 250, 251, 5_000] {
        for (open, close) in
            [("(", ")"), ("[", "]"), ("{'a': ", "}"), ("-(", ")"), ("dyn(", ")"), ("[1].map(x, ", ")"), ("x.y[", "]")]
        {
            run(&nested(open, close, depth));
        }
        run(&vec!["1"; depth].join(" + "));
        run(&vec!["1"; depth].join(" < "));
        run(&vec!["true"; depth].join(" && "));
        run(&format!("object{}", ".a".repeat(depth)));
        run(&format!("{}1", "true ? 2 : ".repeat(depth)));
        run(&format!("optional.of(1){}", ".optMap(v, v + 1)".repeat(depth)));
        run(&format!("{}x", "!".repeat(depth)));
    }
    run(&"1".repeat(100_001));
    run(&format!("'{}'", "a".repeat(99_000)));
}

#[test]
fn loops_end_with_their_budget() {
    let env = Env::new(Version::STORED).variable("x", Type::Int);
    let source = "lists.range(1000).all(a, lists.range(1000).all(b, lists.range(1000).all(c, a + b + c >= 0)))";
    let program = env.compile(source).unwrap();
    let error = program.eval(&[("x", Value::Int(1))], &mut Budget::new(PER_CALL_LIMIT)).unwrap_err();
    assert!(error.is_over_budget());
    assert_eq!(error.to_string(), "operation cancelled: actual cost limit exceeded");
}
