//! `/statusz`: what runs here since when, and where to look further (`apiserver/pkg/server/statusz`).

use corten_base::Timestamp;
use corten_tree::{Tree, tree};
use hyper::Response;
use hyper::header::{HeaderMap, HeaderValue, WARNING};

use super::body::{Body, full};
use super::negotiate;
use super::respond::{raw_json, respond};
use corten_object::Status;

const COMPONENT: &str = "apiserver";
/// First parts of paths that are no means to look into the server.
const ORDINARY: &[&str] = &["/apis", "/api", "/openid", "/openapi", "/.well-known"];

/// The version of the structured form that a request wants; `None`: the text for people.
fn version(headers: &HeaderMap) -> Result<Option<&'static str>, Status> {
    for clause in negotiate::accepted(headers) {
        let structured = clause.param("as") == "Statusz" && clause.param("g") == "config.k8s.io";
        match (clause.media.as_str(), clause.param("v")) {
            ("*/*" | "text/*" | "text/plain", _) => return Ok(None),
            ("application/json", "v1beta1") if structured => return Ok(Some("v1beta1")),
            ("application/json", "v1alpha1") if structured => return Ok(Some("v1alpha1")),
            _ => {}
        }
    }
    Err(negotiate::not_acceptable("application/json, application/yaml, text/plain"))
}

fn text(body: String) -> Response<Body> {
    respond(200, "text/plain; charset=utf-8", full(body))
}

fn structured(version: &str, rest: &Tree) -> Response<Body> {
    let api_version = format!("config.k8s.io/{version}");
    let mut out = tree!({"kind": "Statusz", "apiVersion": api_version, "metadata": {"name": COMPONENT}});
    rest.fields().iter().for_each(|(key, value)| out.insert(key.to_owned(), value.clone()));
    let mut response = raw_json(200, &out);
    if version == "v1alpha1" {
        let text = r#"299 - "This version of the statusz endpoint is deprecated. Please use a newer version.""#;
        response.headers_mut().insert(WARNING, HeaderValue::from_static(text));
    }
    response
}

/// `/statusz`: `paths` are those that the index lists.
///
/// # Errors
/// 406 for forms that are not to be had.
pub(super) fn statusz(
    headers: &HeaderMap,
    (started, now): (Timestamp, Timestamp),
    binary: &str,
    paths: &[String],
) -> Result<Response<Body>, Status> {
    let mut folders: Vec<String> = paths.iter().filter_map(|p| Some(format!("/{}", p.split('/').nth(1)?))).collect();
    folders.retain(|folder| folder != "/" && !ORDINARY.contains(&folder.as_str()));
    folders.sort_unstable();
    folders.dedup();
    let seconds = now.duration_since(started).as_secs().max(0);
    if let Some(version) = version(headers)? {
        let folders = Tree::List(folders.into_iter().map(Tree::from).collect());
        let at = corten_object::time::format(started);
        let rest = tree!({"startTime": at, "uptimeSeconds": seconds, "goVersion": "", "binaryVersion": binary,
            "emulationVersion": "1.37", "paths": folders});
        return Ok(structured(version, &rest));
    }
    let up = format!("{} hr {:02} min {:02} sec", seconds / 3600, seconds / 60 % 60, seconds % 60);
    Ok(text(format!(
        "\n{COMPONENT} statusz\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.\n\n\
         Started: {}\nUp: {up}\nGo version: \nBinary version: {binary}\nEmulation version: 1.37\nPaths: {}\n",
        started.strftime("%a %b %e %H:%M:%S UTC %Y"),
        folders.join(" ")
    )))
}
