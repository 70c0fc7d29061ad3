//! The language's conformance files (`tests/simple/testdata` of the Go module `cel.dev/expr`), read where the module is there.
//!
//! Out of scope are protocol buffer messages, enums and wrappers, and libraries that Kubernetes' environments do not have.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use corten_cel::{Budget, Env, EvalError, MapView, Type, Value, Vars, Version};

/// Files and how many of their tests in scope do not pass, each with the reason.
const FILES: &[(&str, usize, &str)] = &[
    ("basic", 0, ""),
    ("bindings_ext", 0, ""),
    ("comparisons", 28, "cel-go calls an order with NaN an error, where the files want false"),
    ("conversions", 0, ""),
    ("fields", 2, "cel-go lets a later key of a map literal replace an earlier one"),
    ("fp_math", 0, ""),
    ("integer_math", 0, ""),
    ("lists", 0, ""),
    ("lists_ext", 0, ""),
    ("logic", 0, ""),
    ("macros", 0, ""),
    ("macros2", 0, ""),
    ("namespace", 0, ""),
    (
        "optionals",
        5,
        "what cel-go has behind ErrorOnBadPresenceTest, which Kubernetes leaves off, and steps into optionals within a map",
    ),
    ("parse", 0, ""),
    ("plumbing", 0, ""),
    ("sets_ext", 0, ""),
    ("string", 0, ""),
    ("string_ext", 26, "versions 3 to 5 of the library; Kubernetes has version 2"),
    ("timestamps", 10, "cel-go's durations are 64-bit nanoseconds"),
    ("type_deduction", 6, "cel-go does not decay types of types, and takes null for an optional's type"),
];

/// A message of the text format: fields in order, some more than once.
#[derive(Debug, Clone, Default)]
struct Message(Vec<(String, Field)>);

#[derive(Debug, Clone)]
enum Field {
    Text(Vec<u8>),
    Word(String),
    Message(Message),
}

impl Message {
    fn all<'m>(&'m self, name: &str) -> impl Iterator<Item = &'m Field> {
        let name = name.to_owned();
        self.0.iter().filter(move |(have, _)| *have == name).map(|(_, field)| field)
    }

    fn messages<'m>(&'m self, name: &str) -> impl Iterator<Item = &'m Message> {
        self.all(name).filter_map(|field| if let Field::Message(message) = field { Some(message) } else { None })
    }

    fn message(&self, name: &str) -> Option<&Message> {
        self.messages(name).next()
    }

    fn text(&self, name: &str) -> String {
        match self.all(name).next() {
            Some(Field::Text(text)) => String::from_utf8_lossy(text).into_owned(),
            Some(Field::Word(word)) => word.clone(),
            _ => String::new(),
        }
    }
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

impl Reader<'_> {
    fn skip(&mut self) {
        while let Some(c) = self.text.get(self.at) {
            match c {
                b'#' => {
                    while self.text.get(self.at).is_some_and(|c| *c != b'\n') {
                        self.at += 1;
                    }
                }
                c if c.is_ascii_whitespace() || *c == b',' || *c == b';' => self.at += 1,
                _ => return,
            }
        }
    }

    fn message(&mut self, end: Option<u8>) -> Message {
        let mut out = Message::default();
        loop {
            self.skip();
            let Some(c) = self.text.get(self.at) else { return out };
            if Some(*c) == end {
                self.at += 1;
                return out;
            }
            let name = self.word();
            self.skip();
            if self.text.get(self.at) == Some(&b':') {
                self.at += 1;
                self.skip();
            }
            if self.text[self.at] == b'[' {
                self.at += 1;
                loop {
                    self.skip();
                    if self.text[self.at] == b']' {
                        self.at += 1;
                        break;
                    }
                    let field = self.field();
                    out.0.push((name.clone(), field));
                }
            } else {
                let field = self.field();
                out.0.push((name, field));
            }
        }
    }

    fn word(&mut self) -> String {
        let start = self.at;
        if self.text[self.at] == b'[' {
            while self.text[self.at] != b']' {
                self.at += 1;
            }
            self.at += 1;
        } else {
            while self.text.get(self.at).is_some_and(|c| c.is_ascii_alphanumeric() || b"_.+-/".contains(c)) {
                self.at += 1;
            }
        }
        assert!(
            self.at > start,
            "no word at {}",
            String::from_utf8_lossy(&self.text[start..(start + 40).min(self.text.len())])
        );
        String::from_utf8_lossy(&self.text[start..self.at]).into_owned()
    }

    fn field(&mut self) -> Field {
        match self.text[self.at] {
            b'{' => {
                self.at += 1;
                Field::Message(self.message(Some(b'}')))
            }
            b'<' => {
                self.at += 1;
                Field::Message(self.message(Some(b'>')))
            }
            b'"' | b'\'' => {
                let mut text = Vec::new();
                while matches!(self.text.get(self.at), Some(b'"' | b'\'')) {
                    self.string(&mut text);
                    self.skip();
                }
                Field::Text(text)
            }
            _ => Field::Word(self.word()),
        }
    }

    fn string(&mut self, out: &mut Vec<u8>) {
        let quote = self.text[self.at];
        self.at += 1;
        while self.text[self.at] != quote {
            let c = self.text[self.at];
            self.at += 1;
            if c != b'\\' {
                out.push(c);
                continue;
            }
            let escape = self.text[self.at];
            self.at += 1;
            let number = |reader: &mut Self, radix: u32, most: usize, first: u32| {
                let mut value = first;
                for _ in 0..most {
                    let Some(digit) = (reader.text[reader.at] as char).to_digit(radix) else { break };
                    value = value * radix + digit;
                    reader.at += 1;
                }
                value
            };
            match escape {
                b'n' => out.push(b'\n'),
                b't' => out.push(b'\t'),
                b'r' => out.push(b'\r'),
                b'a' => out.push(7),
                b'b' => out.push(8),
                b'f' => out.push(12),
                b'v' => out.push(11),
                b'x' | b'X' => out.push(number(self, 16, 2, 0) as u8),
                b'0'..=b'7' => out.push(number(self, 8, 2, u32::from(escape - b'0')) as u8),
                b'u' | b'U' => {
                    let c = number(self, 16, if escape == b'u' { 4 } else { 8 }, 0);
                    out.extend(char::from_u32(c).unwrap_or('\u{fffd}').to_string().bytes());
                }
                other => out.push(other),
            }
        }
        self.at += 1;
    }
}

fn value(of: &Message) -> Option<Value<'static>> {
    let (kind, field) = of.0.first()?;
    Some(match (kind.as_str(), field) {
        ("null_value", _) => Value::Null,
        ("bool_value", Field::Word(word)) => Value::Bool(word == "true"),
        ("int64_value", Field::Word(word)) => Value::Int(word.parse().ok()?),
        ("uint64_value", Field::Word(word)) => Value::Uint(word.parse().ok()?),
        ("double_value", Field::Word(word)) => Value::Double(match word.as_str() {
            "inf" | "infinity" => f64::INFINITY,
            "-inf" | "-infinity" => f64::NEG_INFINITY,
            "nan" => f64::NAN,
            word => word.parse().ok()?,
        }),
        ("string_value", Field::Text(text)) => Value::str(String::from_utf8(text.clone()).ok()?),
        ("bytes_value", Field::Text(bytes)) => Value::Bytes(bytes.clone().into()),
        ("type_value", Field::Text(name)) => return type_value(&String::from_utf8(name.clone()).ok()?),
        ("list_value", Field::Message(list)) => {
            let items: Option<Vec<Value<'static>>> = list.messages("values").map(value).collect();
            Value::list(items?)
        }
        ("map_value", Field::Message(map)) => {
            let mut out = corten_cel::MapValue::default();
            for entry in map.messages("entries") {
                out.insert(value(entry.message("key")?)?, value(entry.message("value")?)?);
            }
            Value::Map(std::sync::Arc::new(out))
        }
        ("object_value", Field::Message(any)) => {
            let (url, body) = any.0.first()?;
            let Field::Message(body) = body else { return None };
            let number = |name: &str| body.text(name).parse::<i64>().unwrap_or_default();
            match url.as_str() {
                "[type.googleapis.com/google.protobuf.Timestamp]" => {
                    Value::Timestamp(corten_cel::Timestamp::new(number("seconds"), number("nanos") as u32)?)
                }
                "[type.googleapis.com/google.protobuf.Duration]" => {
                    Value::Duration(number("seconds") * 1_000_000_000 + number("nanos"))
                }
                _ => return None,
            }
        }
        _ => return None,
    })
}

fn type_value(name: &str) -> Option<Value<'static>> {
    let env = Env::new(Version::STORED);
    env.compile(name).ok()?.eval(&[] as &[(&str, Value<'static>); 0], &mut Budget::unlimited()).ok()
}

fn declared(of: &Message) -> Option<Type> {
    let (kind, field) = of.0.first()?;
    let named = |word: &str| {
        Some(match word {
            "BOOL" => Type::Bool,
            "INT64" => Type::Int,
            "UINT64" => Type::Uint,
            "DOUBLE" => Type::Double,
            "STRING" => Type::String,
            "BYTES" => Type::Bytes,
            "TIMESTAMP" => Type::Timestamp,
            "DURATION" => Type::Duration,
            _ => return None,
        })
    };
    match (kind.as_str(), field) {
        ("dyn", _) => Some(Type::Dyn),
        ("null", _) => Some(Type::Null),
        ("primitive" | "well_known", Field::Word(word)) => named(word),
        ("list_type", Field::Message(list)) => {
            Some(Type::list(list.message("elem_type").map_or(Some(Type::Dyn), declared)?))
        }
        ("map_type", Field::Message(map)) => {
            Some(Type::map(declared(map.message("key_type")?)?, declared(map.message("value_type")?)?))
        }
        ("abstract_type", Field::Message(of)) if of.text("name") == "optional_type" => {
            Some(Type::optional(declared(of.message("parameter_types")?)?))
        }
        ("type", Field::Message(of)) => Some(Type::Type(declared(of).map(std::sync::Arc::new))),
        _ => None,
    }
}

struct Bindings(BTreeMap<String, Value<'static>>);

impl Vars<'static> for Bindings {
    fn get(&self, name: &str, _: &mut Budget) -> Option<Result<Value<'static>, EvalError>> {
        self.0.get(name).cloned().map(Ok)
    }
}

/// Equal in type, too; NaN is NaN.
fn same(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::Double(x), Value::Double(y)) => x == y || (x.is_nan() && y.is_nan()),
        (Value::Optional(Some(a)), b) => same(a, b),
        _ => match (a.as_list(), b.as_list(), a.as_map(), b.as_map()) {
            (Some(x), Some(y), ..) => {
                x.len() == y.len() && (0..x.len()).all(|at| same(&x.get(at).unwrap(), &y.get(at).unwrap()))
            }
            (_, _, Some(x), Some(y)) => x.len() == y.len() && x.keys().iter().all(|key| same_entry(x, y, key)),
            _ => a.type_of() == b.type_of() && format!("{a:?}") == format!("{b:?}"),
        },
    }
}

fn same_entry(a: MapView<'_, '_>, b: MapView<'_, '_>, key: &Value<'_>) -> bool {
    match (a.find(key), b.find(key)) {
        (Ok(Some(x)), Ok(Some(y))) => same(&x, &y),
        _ => false,
    }
}

enum Outcome {
    Pass,
    OutOfScope,
    Fail(String),
}

fn run(test: &Message) -> Outcome {
    let source = test.text("expr");
    let messages = [
        "TestAllTypes",
        "NestedTestAllTypes",
        "google.protobuf.",
        "proto2",
        "proto3",
        "GlobalEnum",
        "cel.expr",
        "cel.@block",
    ];
    if messages.iter().any(|word| {
        source.contains(word) && word != &"google.protobuf."
            || source.contains("google.protobuf.")
                && !source.contains("google.protobuf.Timestamp")
                && !source.contains("google.protobuf.Duration")
    }) {
        return Outcome::OutOfScope;
    }
    if !test.text("container").is_empty()
        || test.text("disable_macros") == "true"
        || test.text("disable_check") == "true"
    {
        return Outcome::OutOfScope;
    }
    let mut env = Env::new(Version::STORED).with_bindings_and_mixed_literals();
    for variable in test.messages("type_env") {
        let Some(ty) = variable.message("ident").and_then(|ident| ident.message("type")).and_then(declared) else {
            return Outcome::OutOfScope;
        };
        env = env.variable(variable.text("name"), ty);
    }
    let mut bindings = BTreeMap::new();
    for binding in test.messages("bindings") {
        let Some(value) = binding.message("value").and_then(|of| of.message("value")).and_then(value) else {
            return Outcome::OutOfScope;
        };
        bindings.insert(binding.text("key"), value);
    }
    let typed = test.message("typed_result");
    let expected = test.message("value").or_else(|| typed.and_then(|typed| typed.message("result")));
    let fails = test.message("eval_error").is_some();
    if test.message("unknown").is_some() || test.message("any_eval_errors").is_some() {
        return Outcome::OutOfScope;
    }
    let program = match env.compile(&source) {
        Ok(program) => program,
        Err(_) if fails => return Outcome::Pass,
        Err(issues) => return Outcome::Fail(issues.list()[0].message.clone()),
    };
    if let Some(ty) = typed.and_then(|typed| typed.message("deduced_type")) {
        let Some(ty) = declared(ty) else { return Outcome::OutOfScope };
        if ty != *program.result_type() && !matches!(ty, Type::Type(_)) {
            return Outcome::Fail(format!("type {} expected {ty}", program.result_type()));
        }
    }
    if test.text("check_only") == "true" {
        return Outcome::Pass;
    }
    let result = program.eval(&Bindings(bindings), &mut Budget::unlimited());
    match (result, fails) {
        (Err(_), true) => Outcome::Pass,
        (Ok(value), true) => Outcome::Fail(format!("{value:?}, expected an error")),
        (Err(error), false) => Outcome::Fail(error.to_string()),
        (Ok(got), false) => {
            let expected = match expected {
                Some(expected) => value(expected),
                None => Some(Value::Bool(true)),
            };
            match expected {
                None => Outcome::OutOfScope,
                Some(expected) if same(&got, &expected) => Outcome::Pass,
                Some(expected) => Outcome::Fail(format!("{got:?} expected {expected:?}")),
            }
        }
    }
}

fn module() -> Option<PathBuf> {
    let cache = std::env::var_os("GOMODCACHE").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("GOPATH")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join("go")))?;
        Some(home.join("pkg/mod"))
    })?;
    let mut found: Vec<PathBuf> =
        fs::read_dir(cache.join("cel.dev")).ok()?.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.join("tests/simple/testdata").is_dir());
    found.sort();
    found.pop()
}

#[test]
fn conformance_files_pass() {
    let Some(module) = module() else {
        eprintln!(
            "skipped: the Go module cel.dev/expr is not in the module cache (go mod download cel.dev/expr@latest)"
        );
        return;
    };
    let (mut passed, mut outside) = (0, 0);
    let mut wrong = Vec::new();
    for (file, known, why) in FILES {
        assert_eq!(*known > 0, !why.is_empty());
        let text = fs::read(module.join(format!("tests/simple/testdata/{file}.textproto"))).unwrap();
        let parsed = Reader { text: &text, at: 0 }.message(None);
        let mut failed = Vec::new();
        for section in parsed.messages("section") {
            for test in section.messages("test") {
                match run(test) {
                    Outcome::Pass => passed += 1,
                    Outcome::OutOfScope => outside += 1,
                    Outcome::Fail(why) => {
                        failed.push(format!(
                            "{file}/{}/{}: {}\n    {why}",
                            section.text("name"),
                            test.text("name"),
                            test.text("expr")
                        ));
                    }
                }
            }
        }
        if failed.len() != *known {
            wrong.extend(failed);
        }
    }
    eprintln!("{passed} passed, {outside} out of scope");
    assert!(passed > 700, "only {passed} tests ran");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
