//! `corten apply`: creates what is missing, changes what differs.
//!
//! As kubectl's client-side apply, the last applied manifest is kept in an annotation: what it had and the new one lacks is
//! removed, what others set stays. The patch is a three-way JSON merge patch: lists are replaced as a whole.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use corten_client::collection_path;
use corten_tree::{Map, Tree, json};
use hyper::Method;

use crate::Session;
use crate::manifest::{self, Manifest};
use crate::session::reference;

/// The annotation that kubectl uses, too: both can take turns.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Manifest file, directory, or - for stdin; may be given more than once
    #[arg(short, long = "filename", required = true)]
    filename: Vec<PathBuf>,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It was made.
    Created,
    /// It was changed.
    Configured,
    /// It was as the manifest says.
    Unchanged,
}

pub(crate) async fn run(session: &Session, args: ApplyArgs) -> Result<u8> {
    let manifests = manifest::read(session, &args.filename)?;
    let mut failures = 0;
    for manifest in manifests {
        let what = reference(&manifest.kind, &manifest.name);
        match apply(session, &manifest).await {
            Ok(Applied::Created) => println!("{what} created"),
            Ok(Applied::Configured) => println!("{what} configured"),
            Ok(Applied::Unchanged) => println!("{what} unchanged"),
            Err(error) => {
                eprintln!("error: {error:#}");
                failures += 1;
            }
        }
    }
    Ok(u8::from(failures > 0))
}

/// Applies one object.
///
/// # Errors
/// The server's refusal.
pub async fn apply(session: &Session, manifest: &Manifest) -> Result<Applied> {
    let collection = collection_path(&manifest.kind, &manifest.namespace);
    let path = format!("{collection}/{}", manifest.name);
    let desired = annotated(&manifest.tree);
    let live = match session.client.json(Method::GET, &path, "", None).await {
        Ok(live) => live,
        Err(status) if status.is_not_found() => {
            let path = format!("{collection}?fieldManager=corten-apply&fieldValidation=Strict");
            session.client.json(Method::POST, &path, "application/json", Some(&desired)).await?;
            return Ok(Applied::Created);
        }
        Err(status) => return Err(status.into()),
    };
    let last = live.at(&["metadata", "annotations", LAST_APPLIED]).and_then(Tree::as_str).unwrap_or("{}");
    let last = json::parse(last.as_bytes()).context("the last-applied annotation of the live object is not JSON")?;
    let patch = three_way(&last, &desired, &live);
    if patch.is_empty() {
        return Ok(Applied::Unchanged);
    }
    let path = format!("{path}?fieldManager=corten-apply&fieldValidation=Strict");
    session.client.json(Method::PATCH, &path, "application/merge-patch+json", Some(&Tree::Map(patch))).await?;
    Ok(Applied::Configured)
}

fn annotated(manifest: &Tree) -> Tree {
    let mut plain = manifest.clone();
    let annotations = plain.make_map_at("metadata.annotations");
    annotations.remove(LAST_APPLIED);
    let text = format!("{plain}\n");
    plain.make_map_at("metadata.annotations").insert(LAST_APPLIED, text);
    plain
}

/// The merge patch that takes `live` to `desired`, removing what `last` had and `desired` lacks.
fn three_way(last: &Tree, desired: &Tree, live: &Tree) -> Map {
    let mut patch = Map::new();
    for (key, wanted) in desired.fields().iter() {
        let present = live.get(key);
        match (wanted, present) {
            (Tree::Map(_), Some(present @ Tree::Map(_))) => {
                let empty = Tree::map();
                let below = three_way(last.get(key).unwrap_or(&empty), wanted, present);
                if !below.is_empty() {
                    patch.insert(key.to_owned(), below);
                }
            }
            (wanted, Some(present)) if covers(present, wanted) => {}
            _ => {
                patch.insert(key.to_owned(), wanted.clone());
            }
        }
    }
    for (key, _) in last.fields().iter() {
        if desired.get(key).is_none() && live.get(key).is_some() {
            patch.insert(key.to_owned(), Tree::Null);
        }
    }
    patch
}

/// Whether `live` is `wanted`, or `wanted` with what the server filled in.
fn covers(live: &Tree, wanted: &Tree) -> bool {
    match (live, wanted) {
        (Tree::Map(_), Tree::Map(map)) => map.iter().all(|(k, v)| live.get(k).is_some_and(|l| covers(l, v))),
        (Tree::List(a), Tree::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(l, w)| covers(l, w)),
        (live, wanted) => live.semantically_equal(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_tree::tree;

    #[test]
    fn three_way_patches() {
        let last = tree!({"spec": {"replicas": 2, "old": 1, "template": {"c": [{"n": "a"}]}}});
        let desired = tree!({"spec": {"replicas": 3, "template": {"c": [{"n": "a"}]}}});
        let live =
            tree!({"spec": {"replicas": 2, "old": 1, "others": 5, "template": {"c": [{"n": "a", "defaulted": true}]}}});
        let patch = Tree::Map(three_way(&last, &desired, &live));
        assert_eq!(patch.to_string(), r#"{"spec":{"replicas":3,"old":null}}"#);
        assert!(
            three_way(&desired, &desired, &tree!({"spec": {"replicas": 3, "template": {"c": [{"n": "a"}]}}}))
                .is_empty()
        );
    }
}
