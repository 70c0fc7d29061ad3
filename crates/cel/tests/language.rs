//! The language itself: what expressions give, and what is said of those that are wrong.

use corten_cel::{Budget, Decl, Env, Type, Value, Version};
use corten_tree::{Tree, tree};

fn object() -> Tree {
    tree!({
        "metadata": {"name": "web", "labels": {"app": "web", "tier": "front"}},
        "spec": {"replicas": 3, "ratio": (0.5), "names": ["a", "bé", "c"], "ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}]},
        "nothing": null
    })
}

fn env() -> Env {
    Env::new(Version::STORED).variable("object", Type::Dyn).variable("x", Type::Int)
}

fn eval(source: &str) -> String {
    let object = object();
    let program = match env().compile(source) {
        Ok(program) => program,
        Err(issues) => return issues.to_string(),
    };
    let vars = [("object", Value::of_tree(&object)), ("x", Value::Int(7))];
    match program.eval(&vars, &mut Budget::unlimited()) {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("error: {error}"),
    }
}

fn check(table: &[(&str, &str)]) {
    let wrong: Vec<String> = table
        .iter()
        .filter_map(|(source, expected)| {
            let got = eval(source);
            (got != *expected).then(|| format!("{source}\n  expected {expected}\n  got      {got}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}

#[test]
fn operators() {
    check(&[
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("7 / 2", "3"),
        ("-7 / 2", "-3"),
        ("-7 % 2", "-1"),
        ("1 / 0", "error: division by zero"),
        ("1 % 0", "error: modulus by zero"),
        ("9223372036854775807 + 1", "error: integer overflow"),
        ("0u - 1u", "error: unsigned integer overflow"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("1.5 + 2.0", "3.5"),
        ("'a' + 'b'", "\"ab\""),
        ("b'a' + b'b'", "b\"ab\""),
        ("[1] + [2]", "[1, 2]"),
        ("1 < 2 && 2.5 > 2 && 1u <= 1", "true"),
        (
            "1 == 1.0",
            "ERROR: <input>:1:3: found no matching overload for '_==_' applied to '(int, double)'\n | 1 == 1.0\n | ..^",
        ),
        ("dyn(1) == 1.0", "true"),
        ("!true || !!true", "true"),
        ("true ? 1 : 2", "1"),
        ("false ? 1 : true ? 2 : 3", "2"),
        ("2 in [1, 2]", "true"),
        ("'a' in {'a': 1}", "true"),
        ("--1", "1"),
        ("- x", "-7"),
    ]);
}

#[test]
fn errors_are_absorbed_by_logic() {
    check(&[
        ("1 / 0 == 1 || true", "true"),
        ("true || 1 / 0 == 1", "true"),
        ("1 / 0 == 1 && false", "false"),
        ("1 / 0 == 1 && true", "error: division by zero"),
        ("false || 1 / 0 == 1", "error: division by zero"),
        ("[1, 0].exists(i, 1 / i == 1)", "true"),
        ("[0, 1].exists(i, 1 / i == 1)", "true"),
        ("[0, 2].all(i, 1 / i == 1)", "false"),
        ("[0, 1].map(i, 1 / i)", "error: division by zero"),
    ]);
}

#[test]
fn fields_and_indexes() {
    check(&[
        ("object.spec.replicas", "3"),
        ("object.spec.ratio", "0.5"),
        ("object['spec']['replicas']", "3"),
        ("object.spec.ports[1].port", "443"),
        ("object.spec.ports[2].port", "error: index out of bounds: 2"),
        ("object.spec.missing", "error: no such key: missing"),
        ("object.metadata.labels['app']", "\"web\""),
        ("has(object.spec.replicas) && !has(object.spec.missing)", "true"),
        ("has(object.nothing)", "true"),
        ("object.nothing == null", "true"),
        ("object.?spec.replicas.orValue(1)", "3"),
        ("object.?spec.?missing.orValue(1)", "1"),
        ("object.?missing.spec.hasValue()", "false"),
        ("object.spec.names[?1].value()", "\"bé\""),
        ("object.spec.names[?9].hasValue()", "false"),
        ("{'a': 1}.?a.optMap(v, v + 1).orValue(0)", "2"),
        ("object.spec.ports.filter(p, p.port > 100).map(p, p.name)", "[https]"),
        ("object.metadata.labels.all(k, k.size() > 2)", "true"),
        ("size(object.spec.names[1])", "2"),
        ("[?optional.none(), ?optional.of(2)]", "[2]"),
        ("{?'a': optional.none(), 'b': 1}", "{b: 1}"),
    ]);
}

#[test]
fn macros() {
    check(&[
        ("[1, 2, 3].exists_one(x, x > 2)", "true"),
        ("[1, 2, 3].existsOne(x, x > 1)", "false"),
        ("[1, 2, 3].map(n, n > 1, n * 2)", "[4, 6]"),
        ("[1, 2, 3].map(n, 1)", "[1, 1, 1]"),
        ("[].map(n, n)", "[]"),
        ("[[1], [2, 3]].map(l, l.map(n, n * n))", "[[1], [4, 9]]"),
        ("[5, 6].all(i, v, i < v)", "true"),
        ("{'a': 1}.exists(k, v, k == 'a' && v == 1)", "true"),
        ("[5, 6].transformList(i, v, i + v)", "[5, 7]"),
        ("[5, 6].transformList(i, v, i > 0, v)", "[6]"),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v + 1)", "{a: 2, b: 3}"),
        ("{'a': 1, 'b': 2}.transformMapEntry(k, v, {v: k})", "{1: a, 2: b}"),
        ("[3, 1, 2].sortBy(n, -n)", "[3, 2, 1]"),
        ("optional.of([1, 2]).optMap(l, l.map(n, n + 1)).value().exists(n, n == 3)", "true"),
    ]);
}

#[test]
fn issues_read_as_upstreams() {
    check(&[
        (
            "1 + 'a'",
            "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'\n | 1 + 'a'\n | ..^",
        ),
        ("y", "ERROR: <input>:1:1: undeclared reference to 'y' (in container '')\n | y\n | ^"),
        ("f(x)", "ERROR: <input>:1:2: undeclared reference to 'f' (in container '')\n | f(x)\n | .^"),
        ("x.y", "ERROR: <input>:1:2: type 'int' does not support field selection\n | x.y\n | .^"),
        (
            "'é' + 1",
            "ERROR: <input>:1:5: found no matching overload for '_+_' applied to '(string, int)'\n | 'é' + 1\n | .．..^",
        ),
        (
            "x.startsWith('a')",
            "ERROR: <input>:1:13: found no matching overload for 'startsWith' applied to 'int.(string)'\n | x.startsWith('a')\n | ............^",
        ),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^"),
        ("has(x)", "ERROR: <input>:1:5: invalid argument to has() macro\n | has(x)\n | ....^"),
        (
            "x.all(y, true)",
            "ERROR: <input>:1:1: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)\n | x.all(y, true)\n | ^",
        ),
        ("duration('1')", "ERROR: <input>:1:10: invalid duration argument\n | duration('1')\n | .........^"),
        ("'a'.matches('(')", "ERROR: <input>:1:13: invalid matches argument\n | 'a'.matches('(')\n | ............^"),
        ("for", "ERROR: <input>:1:1: reserved identifier: for\n | for\n | ^"),
    ]);
    assert!(
        eval("1 +").starts_with("ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(',")
    );
    assert!(eval("1 2").starts_with("ERROR: <input>:1:3: Syntax error: extraneous input '2' expecting <EOF>"));
}

#[test]
fn programs_have_types() {
    for (source, ty) in [
        ("x + 1", "int"),
        ("object.spec", "dyn"),
        ("[1].map(n, string(n))", "list(string)"),
        ("{'a': [1.0]}", "map(string, list(double))"),
        ("type(x)", "type(int)"),
        ("[1][?0]", "optional_type(int)"),
        ("timestamp('2020-01-01T00:00:00Z')", "timestamp"),
    ] {
        assert_eq!(env().compile(source).unwrap().result_type().to_string(), ty, "{source}");
    }
}

#[test]
fn declared_documents_are_typed() {
    let port = Decl::object(
        "object",
        [("name".to_owned(), Decl::string(16)), ("port".to_owned(), Decl::simple(Type::Int, 1))],
    );
    let spec = Decl::object(
        "object",
        [
            ("replicas".to_owned(), Decl::simple(Type::Int, 1)),
            ("ports".to_owned(), Decl::list(port, 8)),
            ("labels".to_owned(), Decl::map(Decl::string(63), 8)),
            ("my-field".to_owned(), Decl::string(63)),
        ],
    );
    let root = Decl::object("object", [("spec".to_owned(), spec)]).named("selfType1");
    let env = Env::new(Version::STORED).declared("self", root.clone());
    let document =
        tree!({"spec": {"replicas": 2, "ports": [{"name": "a", "port": 1}], "labels": {"k": "v"}, "my-field": "m"}});
    let run = |source: &str| {
        let program = env.compile(source).map_err(|issues| issues.list()[0].message.clone())?;
        let vars = [("self", Value::declared(&document, &root).unwrap())];
        program
            .eval(&vars, &mut Budget::unlimited())
            .map(|value| format!("{value:?}"))
            .map_err(|error| error.to_string())
    };
    let ok = |text: &str| Ok(text.to_owned());
    assert_eq!(run("self.spec.replicas + 1"), ok("3"));
    assert_eq!(run("self.spec.ports.all(p, p.port > 0)"), ok("true"));
    assert_eq!(run("self.spec.labels['k'] + self.spec.my__dash__field"), ok("\"vm\""));
    assert_eq!(run("has(self.spec.missing)"), Err("undefined field 'missing'".into()));
    assert_eq!(
        run("self.spec.replicas + 'a'"),
        Err("found no matching overload for '_+_' applied to '(int, string)'".into())
    );
    assert_eq!(
        run("self.spec + 1"),
        Err("found no matching overload for '_+_' applied to '(selfType1.spec, int)'".into())
    );
}
