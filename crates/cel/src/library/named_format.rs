//! Named formats (`k8s.io/apiserver/pkg/cel/library/format.go`).

use corten_schema::names;

use crate::env::Version;
use crate::error::EvalError;
use crate::function::{Library, Row};
use crate::library::take;
use crate::library::url::Url;
use crate::time::Timestamp;
use crate::value::Value;

type Answer<'a> = Result<Value<'a>, EvalError>;

pub(crate) const LIBRARY: Library = Library {
    since: Version(1, 31),
    rows: &[
        Row("validate", "format-validate", "kubernetes.NamedFormat.(string) -> optional(list(string))", validate),
        Row("format.named", "format-named", "(string) -> optional(kubernetes.NamedFormat)", named),
        Row("format.dns1123Label", "format.dns1123Label", "() -> kubernetes.NamedFormat", dns1123_label),
        Row("format.dns1123Subdomain", "format.dns1123Subdomain", "() -> kubernetes.NamedFormat", dns1123_subdomain),
        Row("format.dns1035Label", "format.dns1035Label", "() -> kubernetes.NamedFormat", dns1035_label),
        Row("format.qualifiedName", "format.qualifiedName", "() -> kubernetes.NamedFormat", qualified_name),
        Row(
            "format.dns1123LabelPrefix",
            "format.dns1123LabelPrefix",
            "() -> kubernetes.NamedFormat",
            dns1123_label_prefix,
        ),
        Row(
            "format.dns1123SubdomainPrefix",
            "format.dns1123SubdomainPrefix",
            "() -> kubernetes.NamedFormat",
            dns1123_subdomain_prefix,
        ),
        Row(
            "format.dns1035LabelPrefix",
            "format.dns1035LabelPrefix",
            "() -> kubernetes.NamedFormat",
            dns1035_label_prefix,
        ),
        Row("format.labelValue", "format.labelValue", "() -> kubernetes.NamedFormat", label_value),
        Row("format.uri", "format.uri", "() -> kubernetes.NamedFormat", uri),
        Row("format.uuid", "format.uuid", "() -> kubernetes.NamedFormat", uuid),
        Row("format.byte", "format.byte", "() -> kubernetes.NamedFormat", byte),
        Row("format.date", "format.date", "() -> kubernetes.NamedFormat", date),
        Row("format.datetime", "format.datetime", "() -> kubernetes.NamedFormat", datetime),
    ],
};

/// A format with a name.
#[derive(Debug)]
pub struct NamedFormat {
    /// What expressions call it.
    key: &'static str,
    /// What upstream calls it.
    pub name: &'static str,
    check: fn(&str) -> Vec<String>,
    /// The size of a pattern that costs as much, in characters.
    pub(crate) regex_size: u64,
}

/// A trailing dash of a prefix counts as a letter (`maskTrailingDash`).
fn masked(text: &str) -> String {
    match text.strip_suffix('-') {
        // Upstream replaces the character before the dash, too.
        Some(rest) if !rest.is_empty() => {
            let mut kept = rest.to_owned();
            kept.pop();
            kept + "a"
        }
        _ => text.to_owned(),
    }
}

fn unless(ok: bool, why: &str) -> Vec<String> {
    if ok { Vec::new() } else { vec![why.to_owned()] }
}

fn is_uuid(text: &str) -> bool {
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    let mut rest = text;
    let groups = [8, 4, 4, 4, 12].iter().all(|length| {
        let Some((group, after)) = rest.split_at_checked(*length) else { return false };
        rest = after.strip_prefix('-').filter(|after| !after.is_empty()).unwrap_or(after);
        group.bytes().all(|b| b.is_ascii_hexdigit())
    });
    groups && rest.is_empty() && hex.len() == 32
}

const DATE_TIME_PATTERN: u64 = 71;

static FORMATS: &[NamedFormat] = &[
    NamedFormat { key: "dns1123Label", name: "DNS1123Label", check: names::dns_label, regex_size: 30 },
    NamedFormat { key: "dns1123Subdomain", name: "DNS1123Subdomain", check: names::dns_subdomain, regex_size: 60 },
    NamedFormat { key: "dns1035Label", name: "DNS1035Label", check: names::dns_1035_label, regex_size: 30 },
    NamedFormat { key: "qualifiedName", name: "QualifiedName", check: names::label_key, regex_size: 60 },
    NamedFormat {
        key: "dns1123LabelPrefix",
        name: "DNS1123LabelPrefix",
        check: |t| names::dns_label(&masked(t)),
        regex_size: 30,
    },
    NamedFormat {
        key: "dns1123SubdomainPrefix",
        name: "DNS1123SubdomainPrefix",
        check: |t| names::dns_subdomain(&masked(t)),
        regex_size: 60,
    },
    NamedFormat {
        key: "dns1035LabelPrefix",
        name: "DNS1035LabelPrefix",
        check: |t| names::dns_1035_label(&masked(t)),
        regex_size: 30,
    },
    NamedFormat { key: "labelValue", name: "LabelValue", check: names::label_value, regex_size: 40 },
    NamedFormat {
        key: "uri",
        name: "URI",
        check: |t| Url::parse(t, true).err().into_iter().collect(),
        regex_size: 1103,
    },
    NamedFormat {
        key: "uuid",
        name: "uuid",
        check: |t| unless(is_uuid(t), "does not match the UUID format"),
        regex_size: 70,
    },
    NamedFormat {
        key: "byte",
        name: "byte",
        check: |t| unless(corten_schema::scalars::base64::decode(t).is_ok(), "invalid base64"),
        regex_size: 84,
    },
    NamedFormat {
        key: "date",
        name: "date",
        check: |t| unless(Timestamp::parse_date(t).is_some(), "invalid date"),
        regex_size: DATE_TIME_PATTERN,
    },
    NamedFormat {
        key: "datetime",
        name: "datetime",
        check: |t| unless(Timestamp::parse(t).is_some(), "invalid datetime"),
        regex_size: DATE_TIME_PATTERN,
    },
];

fn find(key: &str) -> Option<&'static NamedFormat> {
    FORMATS.iter().find(|format| format.key == key)
}

fn validate<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Format(format), Str(text));
    let wrong = (format.check)(text);
    if wrong.is_empty() {
        return Ok(Value::Optional(None));
    }
    Ok(Value::some(Value::list(wrong.into_iter().map(Value::str).collect())))
}

fn named<'a>(args: &[Value<'a>]) -> Answer<'a> {
    take!(args => Str(key));
    Ok(find(key).map_or(Value::Optional(None), |format| Value::some(Value::Format(format))))
}

macro_rules! constants {
    ($($name:ident $key:literal),* $(,)?) => { $(
        fn $name<'a>(_: &[Value<'a>]) -> Answer<'a> {
            find($key).map(Value::Format).ok_or_else(EvalError::no_such_overload)
        }
    )* };
}
constants! {
    dns1123_label "dns1123Label", dns1123_subdomain "dns1123Subdomain", dns1035_label "dns1035Label",
    qualified_name "qualifiedName", dns1123_label_prefix "dns1123LabelPrefix",
    dns1123_subdomain_prefix "dns1123SubdomainPrefix", dns1035_label_prefix "dns1035LabelPrefix",
    label_value "labelValue", uri "uri", uuid "uuid", byte "byte", date "date", datetime "datetime",
}
