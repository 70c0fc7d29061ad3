//! Small languages: selectors, expressions, quantities, times, names, paths, schedules, patterns.

use std::sync::LazyLock;

use corten_base::Timestamp;
use corten_cel::{Budget, Env, PER_CALL_LIMIT, Type, Value, Version};
use corten_kinds::cron::{Schedule, time_zone};
use corten_kinds::custom::JsonPath;
use corten_object::managed::Set;
use corten_object::{FieldSelector, LabelSelector};
use corten_schema::scalars::{duration, quantity, time as times_of};
use corten_schema::{names as rules, re2};
use corten_tree::{Tree, tree};
use regex::Regex;

use crate::{Class, class};

pub(super) const SELECTOR_WORDS: &[&str] = &[
    "a",
    "b/c",
    "=",
    "==",
    "!=",
    " in ",
    " notin ",
    "(",
    ")",
    ",",
    "!",
    " ",
    ">",
    "<",
    "1",
    "\\",
    "\\,",
    "\\=",
    "metadata.name",
    "x-y_z.1",
];
pub(super) const CEL_WORDS: &[&str] = &[
    "x",
    "s",
    "object",
    "object.a.b",
    ".",
    "?.",
    "(",
    ")",
    "[",
    "]",
    "[?",
    "{",
    "}",
    ",",
    ":",
    "?",
    "+",
    "-",
    "*",
    "/",
    "%",
    "!",
    "&&",
    "||",
    "==",
    "!=",
    "<",
    ">=",
    " in ",
    "1",
    "0",
    "2u",
    "1.5",
    "9223372036854775807",
    "-9223372036854775808",
    "'a'",
    "b'\\xff'",
    "\"é\"",
    "r'\\d+'",
    "null",
    "true",
    ".all(i, i > 0)",
    ".exists(i, i)",
    ".map(i, i)",
    ".filter(i, true)",
    ".exists_one(i, i)",
    ".size()",
    "has(object.a)",
    "string(x)",
    "int(s)",
    "uint(x)",
    "double(x)",
    "timestamp('2020-01-01T00:00:00Z')",
    "duration('1h')",
    "dyn(x)",
    "type(x)",
    "bytes(s)",
    ".matches('a+')",
    ".split(',')",
    ".join('-')",
    ".replace('a', 'bb')",
    ".substring(1, 2)",
    ".lowerAscii()",
    ".charAt(0)",
    ".indexOf('a')",
    ".find('[0-9]+')",
    ".findAll('a')",
    "url('https://a/b')",
    ".getHost()",
    "ip('1.2.3.4')",
    "cidr('10.0.0.0/8')",
    ".containsIP('10.1.1.1')",
    "quantity('1Ki')",
    ".asInteger()",
    ".isGreaterThan(quantity('1'))",
    "semver('1.2.3')",
    ".compareTo(semver('1.0.0'))",
    "cel.bind(y, x, y + y)",
    ".sum()",
    ".max()",
    ".isSorted()",
    "optional.of(x)",
    "optional.none()",
    ".orValue(1)",
    ".optMap(y, y)",
    "[1, 2, 3]",
    "{'a': 1}",
    ".format([x])",
    "'%d %s %f'",
    "sets.contains([1], [1])",
    "math.greatest(1, 2)",
    "lists.range(5)",
    ".flatten()",
    ".slice(0, 1)",
    "strings.quote(s)",
    "format.dns1123Label()",
    ".validate(s)",
    ".transformMap(k, v, v)",
    ".sortBy(i, i)",
    "`a`",
    "\\",
    "'",
    "\n",
    "\u{202e}",
    "timestamp('2020-01-01T00:00:00Z').getHours()",
];
pub(super) const NUMBER_WORDS: &[&str] = &[
    "0",
    "1",
    "-",
    "+",
    ".",
    "e",
    "E",
    "e3",
    "E-9",
    "m",
    "u",
    "n",
    "k",
    "Ki",
    "Mi",
    "Gi",
    "Ti",
    "Pi",
    "Ei",
    "M",
    "G",
    "T",
    "P",
    "9223372036854775807",
    "000",
    "0.0000000001",
    "999999999999999999999",
    "h",
    "s",
    "ms",
    "us",
    "µs",
    "ns",
    "T",
    "Z",
    ":",
    "+01:00",
    "2024-02-29",
    "23:59:60",
    ".999999999",
    "-0001",
];
pub(super) const NAME_WORDS: &[&str] = &[
    "a",
    "Z",
    "0",
    "-",
    ".",
    "_",
    "/",
    "é",
    " ",
    "example.com",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "%",
    "..",
    "*",
    "*.",
    "\0",
];
pub(super) const PATH_WORDS: &[&str] = &[
    ".",
    "..",
    "a",
    "b",
    "metadata",
    "labels",
    "[0]",
    "[-1]",
    "[1:3]",
    "[::2]",
    "[*]",
    "*",
    "['a']",
    "[\"a.b\"]",
    "\\.",
    "[?(@.a==\"x\")]",
    "[?(@.n>1)]",
    "[?(@.x)]",
    "[0,1]",
    "$",
    "{",
    "}",
    "@",
    "f:",
    "9223372036854775808",
    "-9223372036854775808",
];
pub(super) const CRON_WORDS: &[&str] = &[
    "*",
    "?",
    "/",
    "-",
    ",",
    " ",
    "0",
    "5",
    "59",
    "60",
    "12",
    "31",
    "feb",
    "MON",
    "sun",
    "7",
    "@every ",
    "1h30m",
    "@daily",
    "@yearly",
    "TZ=",
    "CRON_TZ=",
    "UTC",
    "Europe/Berlin",
    "Asia/Kolkata",
    "*/5",
    "0-59/7",
    "4294967296",
];
pub(super) const PATTERN_WORDS: &[&str] = &[
    "a",
    ".",
    "*",
    "+",
    "?",
    "*?",
    "{2,5}",
    "{1000}",
    "(",
    ")",
    "(?i)",
    "(?:",
    "(?P<n>",
    "(?=",
    "[",
    "]",
    "[^a-z]",
    "[[:alpha:]]",
    "\\d",
    "\\w",
    "\\b",
    "\\A",
    "\\z",
    "\\pL",
    "\\p{Greek}",
    "\\x{10FFFF}",
    "\\Q",
    "\\E",
    "\\C",
    "|",
    "^",
    "$",
    "\\1",
    "é",
    "&&",
    "--",
    "~~",
];

fn seeds(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|t| t.as_bytes().to_vec()).collect()
}

fn text(input: &[u8]) -> String {
    String::from_utf8_lossy(input).into_owned()
}

pub(super) fn selectors() -> Vec<Vec<u8>> {
    seeds(&[
        "a=b,c!=d",
        "a in (x, y), b notin (z), !c, d",
        "x>1,y<2",
        "metadata.name=a,spec.nodeName!=b",
        "a==",
        "k=v\\,w",
    ])
}

/// A selector is written so that it is read as the same, and selects the same.
pub(super) fn label_selector(input: &[u8]) -> Class {
    match LabelSelector::parse(&text(input)) {
        Ok(selector) => {
            let written = selector.to_string();
            let again =
                LabelSelector::parse(&written).unwrap_or_else(|why| panic!("{written:?} is not read again: {why}"));
            assert_eq!(again.to_string(), written, "a selector changes");
            for labels in [&[("a", "b"), ("c", "1")][..], &[]] {
                let get = |key: &str| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
                assert_eq!(selector.matches_with(get), again.matches_with(get), "{written:?} selects others");
            }
            class("labels", &selector.requirements().len().to_string())
        }
        Err(why) => class("labels error", &why),
    }
}

pub(super) fn field_selector(input: &[u8]) -> Class {
    match FieldSelector::parse(&text(input)) {
        Ok(selector) => {
            let _ = (selector.matches(|_| "x"), selector.exact("metadata.name"), selector.is_everything());
            class("fields", &selector.terms.len().min(4).to_string())
        }
        Err(why) => class("fields error", &why),
    }
}

pub(super) fn expressions() -> Vec<Vec<u8>> {
    let file = corten_testkit::root().join("crates/cel/tests/data/expressions.txt");
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.strip_prefix("> "));
    lines.map(|line| line.as_bytes().to_vec()).chain(seeds(&["object.a.b.all(i, i != s)"])).collect()
}

static DOCUMENT: LazyLock<Tree> = LazyLock::new(
    || tree!({"a": {"b": [1, 2, {"c": "d"}], "n": (1.5)}, "metadata": {"labels": {"a": "x", "a.b": "y"}}, "n": null, "list": [3, 2, 1]}),
);
static ENV: LazyLock<Env> = LazyLock::new(|| {
    let env = Env::new(Version::STORED).with_bindings_and_mixed_literals();
    env.variable("object", Type::Dyn).variable("x", Type::Int).variable("s", Type::String)
});

/// Parsed, checked, estimated and evaluated within its budget, twice with the same result and cost.
pub(super) fn cel(input: &[u8]) -> Class {
    match ENV.compile(&text(input)) {
        Ok(program) => {
            let _ = program.cost_estimate();
            let evaluate = || {
                let vars =
                    [("object", Value::of_tree(&DOCUMENT)), ("x", Value::Int(i64::MIN)), ("s", Value::str("é\u{0}😀"))];
                let mut budget = Budget::new(PER_CALL_LIMIT);
                let result = program.eval(&vars, &mut budget);
                let shown = result.map(|value| (value.to_string(), value.to_tree().is_ok())).map_err(|e| e.to_string());
                (shown, budget.spent())
            };
            let (first, second) = (evaluate(), evaluate());
            assert_eq!(first, second, "evaluated twice it differs");
            match first.0 {
                Ok(_) => class("cel", &program.result_type().to_string()),
                Err(error) => class("cel error", &error),
            }
        }
        Err(issues) => class("cel issues", issues.to_string().split('\n').next().unwrap_or_default()),
    }
}

pub(super) fn quantities() -> Vec<Vec<u8>> {
    seeds(&[
        "0",
        "100m",
        "1.5Gi",
        "12e6",
        "-0.5",
        "1E3",
        "123456789012345678901234567890",
        "0.000000001Ei",
        "+1k",
        ".5",
        "5.",
    ])
}

/// The canonical form is canonical and of the same value.
pub(super) fn quantity(input: &[u8]) -> Class {
    let text = text(input);
    match (quantity::canonical(&text), text.parse::<quantity::Quantity>()) {
        (Ok(canonical), Ok(value)) => {
            assert_eq!(value.to_string(), canonical, "two ways to write {text:?}");
            assert_eq!(
                quantity::canonical(&canonical).expect("a canonical form is read"),
                canonical,
                "{text:?} changes"
            );
            let again: quantity::Quantity = canonical.parse().expect("a canonical form is read");
            assert_eq!(
                (again.value(), again.milli_value(), again.sign()),
                (value.value(), value.milli_value(), value.sign())
            );
            let _ = (value.plus(&again).to_string(), value.minus(&again).to_string(), value.times(3).to_string());
            let _ = (value.rounded_up(-3).to_string(), value.to_f64(), value.scaled(6));
            assert!(value.minus(&again).is_zero(), "{text:?} without itself is not zero");
            class("quantity", &format!("{:?}", value.format()))
        }
        (Err(error), Err(_)) => class("quantity error", &error.to_string()),
        (one, other) => {
            panic!("one reader takes {text:?}, another does not: {one:?}, {:?}", other.map(|q| q.to_string()))
        }
    }
}

pub(super) fn times() -> Vec<Vec<u8>> {
    seeds(&[
        "2024-02-29T23:59:59Z",
        "2024-01-01T00:00:00.123456789+05:30",
        "1h30m5.5s",
        "-1.5h",
        "100ms",
        "9223372036.854775807s",
        "0",
    ])
}

/// Durations and times are written so that they are read as the same.
pub(super) fn time(input: &[u8]) -> Class {
    let text = text(input);
    let mut outcome = String::new();
    if let Ok(nanos) = duration::parse(&text) {
        assert_eq!(duration::parse(&duration::format(nanos)), Ok(nanos), "the duration {text:?} changes");
        outcome.push_str("duration ");
    }
    for layout in [times_of::Layout::Seconds, times_of::Layout::Micros] {
        match times_of::parse(&text, layout) {
            Ok(at) => {
                let written = match layout {
                    times_of::Layout::Seconds => at.to_seconds_text(),
                    _ => at.to_micros_text(),
                };
                outcome.push_str(if times_of::parse(&written, layout).is_ok() {
                    "time "
                } else {
                    "time out of range "
                });
            }
            Err(why) => outcome.push_str(&why),
        }
    }
    let _ = corten_object::time::parse(&text);
    class("time", &outcome)
}

pub(super) fn names() -> Vec<Vec<u8>> {
    seeds(&["a-b.c", "example.com/name", "A_b.c-d", "0", "x", "kubernetes.io", "*.example.com", "http", "a--b", "50%"])
}

/// Upstream's expressions (`apimachinery/pkg/util/validation`), to compare with.
static LABEL_VALUE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$").expect("a constant"));
static LABEL: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$").expect("a constant"));
static SUBDOMAIN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$").expect("a constant")
});

/// The checks of names agree with upstream's expressions.
pub(super) fn name(input: &[u8]) -> Class {
    let text = text(input);
    let fits = |regex: &Regex, max: usize| regex.is_match(&text) && text.len() <= max;
    assert_eq!(rules::label_value(&text).is_empty(), fits(&LABEL_VALUE, 63), "label value {text:?}");
    assert_eq!(rules::dns_label(&text).is_empty(), fits(&LABEL, 63), "label {text:?}");
    assert_eq!(rules::dns_subdomain(&text).is_empty(), fits(&SUBDOMAIN, 253), "subdomain {text:?}");
    let mut outcome = String::new();
    let checks: [fn(&str) -> Vec<String>; 12] = [
        rules::label_key,
        rules::prefixed_label_key,
        rules::dns_1035_label,
        rules::wildcard_subdomain,
        rules::port_name,
        rules::percent,
        rules::http_header,
        rules::env_name,
        rules::config_key,
        rules::c_identifier,
        rules::path_segment,
        rules::ip,
    ];
    for check in checks {
        outcome.push(if check(&text).is_empty() { '+' } else { '-' });
    }
    class("name", &outcome)
}

pub(super) fn paths() -> Vec<Vec<u8>> {
    seeds(&[
        ".a.b[0]",
        ".metadata.labels.a\\.b",
        "..c",
        ".a.b[?(@.c==\"d\")].c",
        "$.list[1:3]",
        "a.b.c",
        ".list[-1]",
        "['a']['b']",
        ".a.*",
        "{.a}",
    ])
}

/// Dotted paths: what a set of one path holds, the tree has where the path leads.
pub(super) fn field_path(input: &[u8]) -> Class {
    let text = text(input);
    let set = Set::of(&text);
    let written = set.to_raw();
    let again =
        Set::parse(written.as_str()).unwrap_or_else(|why| panic!("{} is not read: {}", written.as_str(), why.message));
    assert_eq!(again.to_raw().as_str(), written.as_str(), "the set of a path changes");
    let mut document = DOCUMENT.clone();
    let before = document.path(&text).is_some();
    if !text.is_empty() {
        let _ = document.remove(&text);
        document.set(&text, 1);
        assert_eq!(document.i64_at(&text), Some(1), "what was set at {text:?} is not there");
    }
    let depth = "/".repeat(set.paths().first().map_or(0, |path| path.matches('.').count()).min(9));
    class("path", &format!("{before} {depth}"))
}

pub(super) fn json_path(input: &[u8]) -> Class {
    match JsonPath::parse(&text(input)) {
        Some(path) => {
            let _ = path.dotted();
            class("json-path", path.first(&DOCUMENT).map_or("nothing", Tree::type_name))
        }
        None => class("json-path", "none"),
    }
}

pub(super) fn schedules() -> Vec<Vec<u8>> {
    seeds(&[
        "*/5 * * * *",
        "0 0 29 2 *",
        "@every 1h30m",
        "TZ=Europe/Berlin 30 2 * * sun",
        "0 12 1-7 * mon",
        "@monthly",
        "1,2,3 0-23/2 ? jan-dec 0-6",
    ])
}

/// The next time is later, and there is one for what repeats.
pub(super) fn cron(input: &[u8]) -> Class {
    match Schedule::parse(&text(input)) {
        Ok(schedule) => {
            let zone = time_zone("Europe/Berlin").expect("the database has it");
            let mut at = Timestamp::from_second(1_711_846_800).expect("in range");
            for _ in 0..3 {
                let Some(next) = schedule.next(at, &zone) else { return class("cron", "never") };
                assert!(next > at, "{next} is not after {at}");
                at = next;
            }
            class("cron", "times")
        }
        Err(why) => class("cron error", &why),
    }
}

pub(super) fn patterns() -> Vec<Vec<u8>> {
    seeds(&["^[a-z]+(\\.[a-z]+)*$", "(?i)a|b{2,3}", "\\p{Greek}\\d\\w", "[[:alpha:]_]\\Q.\\E"])
}

pub(super) fn pattern(input: &[u8]) -> Class {
    match re2::compile(&text(input)) {
        Ok(regex) => class("pattern", &regex.is_match("aé.b\n0").to_string()),
        Err(why) => class("pattern error", &why),
    }
}
