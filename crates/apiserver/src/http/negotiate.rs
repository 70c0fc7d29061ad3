//! Which form a client wants an answer in, and which form its body has.

use corten_object::{Reason, Status};
use hyper::HeaderMap;
use hyper::header::ACCEPT;

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
    Partial,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    pub format: Format,
    pub shape: Shape,
}

/// The media types in an Accept header, in order, each with its parameters.
pub(crate) fn accepted(headers: &HeaderMap) -> Vec<(String, Vec<(String, String)>)> {
    let values = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let mut out: Vec<(String, Vec<(String, String)>)> = values
        .flat_map(|v| v.split(','))
        .map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_owned();
            let params = parts.filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned()));
            (media, params.collect())
        })
        .filter(|(media, _): &(String, _)| !media.is_empty())
        .collect();
    if out.is_empty() {
        out.push(("*/*".into(), Vec::new()));
    }
    out
}

/// The first form that the client accepts and that is to be had.
pub(crate) fn form(headers: &HeaderMap) -> Result<Form, Status> {
    form_of(headers, true)
}

/// As [`form`], of objects that may have no protobuf form as a whole.
pub(crate) fn form_of(headers: &HeaderMap, protobuf: bool) -> Result<Form, Status> {
    for (media, params) in accepted(headers) {
        let format = match media.as_str() {
            "application/json" | "*/*" | "application/*" => Format::Json,
            "application/yaml" => Format::Yaml,
            "application/vnd.kubernetes.protobuf" => Format::Protobuf,
            _ => continue,
        };
        let param = |key: &str| params.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v.as_str());
        let meta = param("g") == "meta.k8s.io" && param("v") == "v1";
        let shape = match param("as") {
            "" if format == Format::Protobuf && !protobuf => continue,
            "" => Shape::Whole,
            "Table" if meta && format != Format::Protobuf => Shape::Table,
            "PartialObjectMetadata" | "PartialObjectMetadataList" if meta => Shape::Partial,
            _ => continue,
        };
        return Ok(Form { format, shape });
    }
    let accepted = if protobuf { ", application/vnd.kubernetes.protobuf" } else { "" };
    let why = format!("only the following media types are accepted: application/json, application/yaml{accepted}");
    Err(Status::new(Reason::NotAcceptable, why))
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

    fn of(accept: &str) -> Option<Form> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        form(&headers).ok()
    }

    #[test]
    fn the_first_form_that_is_to_be_had() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(of(table), Some(Form { format: Format::Json, shape: Shape::Table }));
        let client_go = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(of(client_go), Some(Form { format: Format::Protobuf, shape: Shape::Whole }));
        assert_eq!(of("application/cbor, */*"), Some(Form { format: Format::Json, shape: Shape::Whole }));
        assert_eq!(of("text/html"), None);
    }
}
