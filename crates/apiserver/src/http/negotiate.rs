//! Which form a client wants an answer in, and which form its body has.
//!
//! Upstream: `apiserver/pkg/endpoints/handlers/negotiation/negotiate.go`, `munnerz/goautoneg`.

use corten_object::{Reason, Status};
use hyper::HeaderMap;
use hyper::header::{ACCEPT, USER_AGENT};

use super::query::Query;

/// Most clauses of an Accept header that are looked at.
const CLAUSES_MAX: usize = 64;

/// The encoding of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
    Protobuf,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml",
            Format::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

/// What an answer shows of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Whole,
    Table,
    /// `PartialObjectMetadata`: of one object.
    Partial,
    /// `PartialObjectMetadataList`: of a list.
    PartialList,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    pub format: Format,
    pub shape: Shape,
    /// `v1` or `v1beta1`, of a shape that is not whole.
    pub meta_version: &'static str,
    /// JSON for people, with lines and indents.
    pub pretty: bool,
}

impl Form {
    /// An object as it is, in JSON.
    pub const JSON: Form = Form { format: Format::Json, shape: Shape::Whole, meta_version: "v1", pretty: false };

    /// The apiVersion of a Table or of partial metadata.
    pub fn meta_api_version(&self) -> &'static str {
        if self.meta_version == "v1beta1" { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
    }
}

/// What an endpoint can answer with, besides JSON and YAML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Tables.
    pub table: bool,
    /// Partial metadata.
    pub partial: bool,
    /// Protobuf of whole objects (custom resources have none).
    pub protobuf: bool,
}

impl Offer {
    /// Objects as they are, in every format.
    pub const PLAIN: Offer = Offer { table: false, partial: false, protobuf: true };
}

/// One clause of an Accept header.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Clause {
    /// `application/json`, `*/*`.
    pub media: String,
    /// Parameters in order, without `q`.
    pub params: Vec<(String, String)>,
    quality: f64,
}

impl Clause {
    /// A parameter's value; empty if there is none.
    pub fn param(&self, key: &str) -> &str {
        self.params.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v)
    }

    /// Whether the clause lets a media type through.
    fn takes(&self, media: &str) -> bool {
        let group = |m: &str| m.split('/').next().unwrap_or_default().to_owned();
        self.media == media || self.media == "*/*" || (self.media.ends_with("/*") && group(&self.media) == group(media))
    }
}

/// The clauses of an Accept header, best first: by quality, then the specific before the general. A header that is not there
/// accepts everything.
pub(crate) fn accepted(headers: &HeaderMap) -> Vec<Clause> {
    // Upstream reads the first header of the name only.
    let text = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if text.is_empty() {
        return vec![Clause { media: "*/*".into(), params: Vec::new(), quality: 1.0 }];
    }
    let mut clauses: Vec<Clause> = text.split(',').take(CLAUSES_MAX).filter_map(clause).collect();
    let rank = |c: &Clause| {
        let general = u8::from(c.media.ends_with("/*")) + u8::from(c.media == "*/*");
        (-c.quality, general)
    };
    clauses.sort_by(|a, b| rank(a).partial_cmp(&rank(b)).unwrap_or(std::cmp::Ordering::Equal));
    clauses
}

fn clause(text: &str) -> Option<Clause> {
    let mut parts = text.trim().split(';').map(str::trim);
    let media = match parts.next()? {
        "*" => "*/*".to_owned(),
        media if media.split('/').count() == 2 => media.to_owned(),
        _ => return None,
    };
    let mut out = Clause { media, params: Vec::new(), quality: 1.0 };
    for (key, value) in parts.filter_map(|p| p.split_once('=')) {
        match key.trim() {
            "q" => out.quality = value.trim().parse().ok().filter(|q: &f64| q.is_finite()).unwrap_or(0.0),
            key => out.params.push((key.to_owned(), value.trim().to_owned())),
        }
    }
    Some(out)
}

/// The first form that the client accepts and that is to be had.
pub(crate) fn form(headers: &HeaderMap, query: &Query, offer: Offer) -> Result<Form, Status> {
    const FORMATS: [Format; 3] = [Format::Json, Format::Yaml, Format::Protobuf];
    for clause in accepted(headers) {
        for format in FORMATS.into_iter().filter(|f| clause.takes(f.content_type())) {
            let Some(shape) = shape_of(&clause, format, offer) else { continue };
            let meta_version = if clause.param("v") == "v1beta1" { "v1beta1" } else { "v1" };
            let pretty = format == Format::Json && (clause.param("pretty") == "1" || wants_pretty(headers, query));
            return Ok(Form { format, shape, meta_version, pretty });
        }
    }
    let custom = if offer.protobuf { ", application/vnd.kubernetes.protobuf" } else { "" };
    Err(not_acceptable(&format!("application/json, application/yaml{custom}")))
}

/// 406 with what is to be had.
pub(crate) fn not_acceptable(accepted: &str) -> Status {
    Status::new(Reason::NotAcceptable, format!("only the following media types are accepted: {accepted}"))
}

/// What a clause asks to see of an object; `None` if that is not to be had in this format.
fn shape_of(clause: &Clause, format: Format, offer: Offer) -> Option<Shape> {
    if !matches!(clause.param("stream"), "" | "watch") || !matches!(clause.param("sv"), "" | "v1") {
        return None;
    }
    let (kind, group, version) = (clause.param("as"), clause.param("g"), clause.param("v"));
    if kind.is_empty() && group.is_empty() && version.is_empty() {
        return (format != Format::Protobuf || offer.protobuf).then_some(Shape::Whole);
    }
    if group != "meta.k8s.io" || !matches!(version, "v1" | "v1beta1") {
        return None;
    }
    match kind {
        "Table" if offer.table && format != Format::Protobuf => Some(Shape::Table),
        "PartialObjectMetadata" if offer.partial => Some(Shape::Partial),
        "PartialObjectMetadataList" if offer.partial => Some(Shape::PartialList),
        _ => None,
    }
}

/// `?pretty=`, else whether a person is likely to read it.
pub(crate) fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    match query.get("pretty") {
        "" => {
            let agent = headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
            ["curl", "Wget", "Mozilla/5.0"].iter().any(|human| agent.starts_with(human))
        }
        text => matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True"),
    }
}

/// Compact JSON with lines and two spaces per level, as Go's `json.MarshalIndent`. What is empty stays in one piece.
pub(crate) fn indented(json: &[u8]) -> Vec<u8> {
    let json = json.trim_ascii();
    let mut out = Vec::with_capacity(json.len() * 2);
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    };
    for (i, byte) in json.iter().copied().enumerate() {
        if in_text {
            out.push(byte);
            (in_text, escaped) = (escaped || byte != b'"', byte == b'\\' && !escaped);
            continue;
        }
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                depth += 1;
                if !matches!(json.get(i + 1), Some(b'}' | b']')) {
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if !matches!(out.last(), Some(b'{' | b'[')) {
                    line(&mut out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => {
                in_text = byte == b'"';
                out.push(byte);
            }
        }
    }
    out
}

/// The media type in a Content-Type header, without parameters; JSON if there is none.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(hyper::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match value.split(';').next().unwrap_or_default().trim() {
        "" => "application/json",
        media => media,
    }
}

/// 415 with what is accepted.
pub(crate) fn unsupported(accepted: &str) -> Status {
    let why = format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
    Status::new(Reason::UnsupportedMediaType, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(accept: &str) -> Option<(Format, Shape)> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        let offer = Offer { table: true, partial: true, protobuf: true };
        form(&headers, &Query::default(), offer).ok().map(|f| (f.format, f.shape))
    }

    #[test]
    fn accept_header_gives_the_best_form_that_is_to_be_had() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (accept, expected) in [
            (table, Some((Format::Json, Shape::Table))),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", Some((Format::Json, Shape::Table))),
            ("application/json;as=Table;v=v2;g=meta.k8s.io", None),
            ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", None),
            ("*/*;as=Table;v=v1;g=meta.k8s.io", Some((Format::Json, Shape::Table))),
            ("application/vnd.kubernetes.protobuf,application/json", Some((Format::Protobuf, Shape::Whole))),
            ("application/vnd.kubernetes.protobuf;q=0.5,application/json", Some((Format::Json, Shape::Whole))),
            ("application/json;q=0.1,application/yaml;q=0.9", Some((Format::Yaml, Shape::Whole))),
            ("*/*,application/yaml", Some((Format::Yaml, Shape::Whole))),
            ("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", Some((Format::Json, Shape::Partial))),
            ("application/cbor, */*", Some((Format::Json, Shape::Whole))),
            ("application/json;stream=watch", Some((Format::Json, Shape::Whole))),
            ("text/html", None),
            ("nonsense", None),
        ] {
            assert_eq!(of(accept), expected, "{accept}");
        }
    }

    #[test]
    fn pretty_json_is_that_of_go() {
        let shown = String::from_utf8(indented(br#"{"a":{},"b":[],"c":[1,{"d":"{,:\"\\"}]}"#)).unwrap();
        let expected =
            "{\n  \"a\": {},\n  \"b\": [],\n  \"c\": [\n    1,\n    {\n      \"d\": \"{,:\\\"\\\\\"\n    }\n  ]\n}";
        assert_eq!(shown, expected);
    }

    #[test]
    fn pretty_is_asked_for_or_guessed() {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, "curl/8.0".parse().unwrap());
        let query = |text: &str| Query::parse(Some(text));
        assert!(wants_pretty(&headers, &query("")));
        assert!(!wants_pretty(&headers, &query("pretty=false")));
        assert!(wants_pretty(&HeaderMap::new(), &query("pretty=1")));
    }
}
