//! Responses: bodies in the form that a client wants, headers, failures.

use bytes::Bytes;
use corten_audit::trail;
use corten_object::Status;
use corten_tree::Tree;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};

use super::body::{Body, full};
use super::encode::tree_bytes;
use super::handle::Call;
use super::negotiate::{self, Form, Format, Offer};
use super::query::Query;
use crate::core::Core;

/// Answers above this are compressed for clients that accept it (`responsewriters/writers.go`).
const GZIP_ABOVE: usize = 128 * 1024;
/// Letters of all warnings of an answer together, and of each once that is exceeded
/// (`apiserver/pkg/endpoints/filters/warning.go`).
const WARNINGS_MAX: usize = 4 * 1024;
const WARNING_MAX: usize = 256;

/// A response of a code, a type and a body.
pub(crate) fn respond(code: u16, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Plain text.
pub(crate) fn text(code: u16, text: impl Into<String>) -> Response<Body> {
    let mut response = respond(code, "text/plain; charset=utf-8", full(text.into()));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// What Go's server says to a path that nothing serves.
pub(crate) fn page_not_found() -> Response<Body> {
    text(404, "404 page not found\n")
}

/// An encoded object in a form: with a line's end, as upstream's encoder, or spread out for people.
pub(crate) fn rendered(form: Form, bytes: Bytes) -> Bytes {
    match form.format {
        Format::Json if form.pretty => negotiate::indented(&bytes).into(),
        Format::Json if !bytes.ends_with(b"\n") => [&bytes[..], b"\n"].concat().into(),
        _ => bytes,
    }
}

/// A tree as answer, in JSON or what else the client wants.
pub(crate) fn object(core: &Core, call: &Call, code: u16, tree: &Tree) -> Result<Response<Body>, Status> {
    trail::response_object(|| Some(tree.clone()));
    let form = negotiate::form(&call.headers, &call.query, Offer::PLAIN)?;
    let body = rendered(form, tree_bytes(core, form.format, tree));
    Ok(finish(call, respond(code, form.format.content_type(), full(body))))
}

/// A tree in JSON with lines, whatever the client wants (`WriteRawJSON`).
pub(crate) fn raw_json(code: u16, tree: &Tree) -> Response<Body> {
    respond(code, "application/json", full(negotiate::indented(&tree.to_json())))
}

/// A failure as a Status object.
pub(crate) fn failure(core: &Core, headers: &HeaderMap, query: &Query, status: &Status) -> Response<Body> {
    trail::response_status(status);
    let form = negotiate::form(headers, query, Offer::PLAIN).unwrap_or(Form { pretty: true, ..Form::JSON });
    let body = rendered(form, tree_bytes(core, form.format, &status.to_tree()));
    let mut response = respond(status.code, form.format.content_type(), full(body));
    if let Some(seconds) = status.retry_after_seconds {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    warn(response.headers_mut(), &status.warnings);
    response
}

/// Puts warnings into an answer's headers: each once, in order, cut when they are too much.
pub(crate) fn warn(headers: &mut HeaderMap, warnings: &[String]) {
    let mut texts: Vec<&str> = Vec::new();
    for warning in warnings.iter().map(String::as_str).filter(|w| !w.is_empty() && !w.contains(char::is_control)) {
        if !texts.contains(&warning) {
            texts.push(warning);
        }
    }
    let total: usize = texts.iter().map(|t| t.chars().count()).sum();
    let cut = |text: &str| text.chars().take(if total > WARNINGS_MAX { WARNING_MAX } else { usize::MAX }).collect();
    let mut written = 0;
    for text in texts {
        if written >= WARNINGS_MAX && total > WARNINGS_MAX {
            return;
        }
        let text: String = cut(text);
        written += text.chars().count();
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            headers.append(HeaderName::from_static("warning"), value);
        }
    }
}

/// A document that clients keep by its ETag: 304 if they have it.
pub(crate) fn tagged(call: &Call, content_type: &'static str, body: Bytes, etag: &str) -> Response<Body> {
    let quoted = format!("\"{etag}\"");
    let has = |value: &HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        text == "*" || text.split(',').any(|t| t.trim().trim_start_matches("W/") == quoted)
    };
    let mut response = match call.headers.get(header::IF_NONE_MATCH).is_some_and(has) {
        true => {
            let mut response = respond(304, content_type, Body::Full(None));
            response.headers_mut().remove(header::CONTENT_TYPE);
            response
        }
        false => finish(call, respond(200, content_type, full(body))),
    };
    if let Ok(value) = HeaderValue::from_str(&quoted) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// Compresses a large answer for a client that is not on this machine and accepts it.
pub(crate) fn finish(call: &Call, response: Response<Body>) -> Response<Body> {
    let accepts = call.headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok());
    let gzip = accepts.flat_map(|v| v.split(',')).any(|e| e.split(';').next().map(str::trim) == Some("gzip"));
    if call.ip.is_loopback() || !gzip {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let bytes: Bytes = match body {
        Body::Full(Some(bytes)) => bytes,
        Body::List(list) => list.collect().into(),
        other => return Response::from_parts(parts, other),
    };
    if bytes.len() <= GZIP_ABOVE {
        return Response::from_parts(parts, full(bytes));
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
    let written = std::io::Write::write_all(&mut encoder, &bytes).and_then(|()| encoder.finish());
    match written {
        Ok(compressed) => {
            parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            parts.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
            Response::from_parts(parts, full(compressed))
        }
        Err(_) => Response::from_parts(parts, full(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(texts: &[String]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        warn(&mut headers, texts);
        headers.get_all("warning").iter().map(|v| v.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn warnings_are_quoted_once_each_and_cut_when_too_much() {
        let two = ["a \"b\" \\".to_owned(), "c".into(), "c".into(), "line\nbreak".into()];
        assert_eq!(warnings(&two), [r#"299 - "a \"b\" \\""#, r#"299 - "c""#]);
        let many: Vec<String> = (0..30).map(|i| format!("{i:0>300}")).collect();
        let shown = warnings(&many);
        assert_eq!((shown.len(), shown[0].len()), (16, 256 + r#"299 - """#.len()));
    }
}
