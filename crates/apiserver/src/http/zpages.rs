//! `/statusz` and `/flagz`: what runs here since when, where to look further, and with which options it was started
//! (`apiserver/pkg/server/{statusz,flagz}`).

use std::collections::BTreeMap;
use std::sync::OnceLock;

use corten_base::Timestamp;
use corten_object::Status;
use corten_tree::{Map, Tree, tree};
use hyper::Response;
use hyper::header::{HeaderMap, HeaderValue, WARNING};

use super::body::{Body, full};
use super::encode::tree_bytes;
use super::negotiate::{self, Format};
use super::respond::{raw_json, respond};
use crate::core::Core;

const COMPONENT: &str = "apiserver";
/// First parts of paths that are no means to look into the server.
const ORDINARY: &[&str] = &["/apis", "/api", "/openid", "/openapi", "/.well-known"];

/// What the process was started with.
static FLAGS: OnceLock<BTreeMap<String, String>> = OnceLock::new();

/// Tells with which options the process was started, for `/flagz`; what is secret in them is to be left out. Only the first word
/// counts.
pub fn started_with(flags: BTreeMap<String, String>) {
    let _ = FLAGS.set(flags);
}

/// A page: its kind, and how its text begins.
#[derive(Debug, Clone, Copy)]
struct Page {
    kind: &'static str,
    path: &'static str,
}

const STATUSZ: Page = Page { kind: "Statusz", path: "statusz" };
const FLAGZ: Page = Page { kind: "Flagz", path: "flagz" };

/// How a structured page is wanted.
struct Structured {
    version: &'static str,
    yaml: bool,
}

impl Page {
    /// The structured form that a request wants; `None`: the text for people.
    fn wanted(self, headers: &HeaderMap) -> Result<Option<Structured>, Status> {
        for clause in negotiate::accepted(headers) {
            let structured = clause.param("as") == self.kind && clause.param("g") == "config.k8s.io";
            let version = ["v1beta1", "v1alpha1"].into_iter().find(|v| structured && clause.param("v") == *v);
            match (clause.media.as_str(), version) {
                ("*/*" | "text/*" | "text/plain", _) => return Ok(None),
                ("application/json", Some(version)) => return Ok(Some(Structured { version, yaml: false })),
                ("application/yaml", Some(version)) => return Ok(Some(Structured { version, yaml: true })),
                _ => {}
            }
        }
        Err(negotiate::not_acceptable("application/json, application/yaml, text/plain"))
    }

    fn text(self, rest: &str) -> Response<Body> {
        const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility \
                               guarantees and is for debugging purposes only.";
        let body = format!("\n{COMPONENT} {}\n{WARNING}\n{rest}", self.path);
        respond(200, "text/plain; charset=utf-8", full(body))
    }

    fn structured(self, core: &Core, how: &Structured, rest: &Tree) -> Response<Body> {
        let api_version = format!("config.k8s.io/{}", how.version);
        let mut out = tree!({"kind": (self.kind), "apiVersion": api_version, "metadata": {"name": COMPONENT}});
        rest.fields().iter().for_each(|(key, value)| out.insert(key.to_owned(), value.clone()));
        let mut response = match how.yaml {
            true => respond(200, "application/yaml", full(tree_bytes(core, Format::Yaml, &out))),
            false => raw_json(200, &out),
        };
        if how.version == "v1alpha1" {
            let path = self.path;
            let text =
                format!("299 - \"This version of the {path} endpoint is deprecated. Please use a newer version.\"");
            if let Ok(text) = HeaderValue::from_str(&text) {
                response.headers_mut().insert(WARNING, text);
            }
        }
        response
    }
}

/// `/statusz`: `paths` are those that the index lists.
///
/// # Errors
/// 406 for forms that are not to be had.
pub(super) fn statusz(
    core: &Core,
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
    if let Some(how) = STATUSZ.wanted(headers)? {
        let folders = Tree::List(folders.into_iter().map(Tree::from).collect());
        let at = corten_object::time::format(started);
        let rest = tree!({"startTime": at, "uptimeSeconds": seconds, "goVersion": "", "binaryVersion": binary,
            "emulationVersion": "1.37", "paths": folders});
        return Ok(STATUSZ.structured(core, &how, &rest));
    }
    let up = format!("{} hr {:02} min {:02} sec", seconds / 3600, seconds / 60 % 60, seconds % 60);
    Ok(STATUSZ.text(&format!(
        "\nStarted: {}\nUp: {up}\nGo version: \nBinary version: {binary}\nEmulation version: 1.37\nPaths: {}\n",
        started.strftime("%a %b %e %H:%M:%S UTC %Y"),
        folders.join(" ")
    )))
}

/// `/flagz`
///
/// # Errors
/// 406 for forms that are not to be had.
pub(super) fn flagz(core: &Core, headers: &HeaderMap) -> Result<Response<Body>, Status> {
    let none = BTreeMap::new();
    let flags = FLAGS.get().unwrap_or(&none);
    if let Some(how) = FLAGZ.wanted(headers)? {
        let flags: Map = flags.iter().map(|(name, value)| (name.clone().into(), Tree::from(value))).collect();
        return Ok(FLAGZ.structured(core, &how, &tree!({"flags": (Tree::Map(flags))})));
    }
    let lines: Vec<String> = flags.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    Ok(FLAGZ.text(&lines.concat()))
}
