//! Manifests: files, directories or stdin to objects with their kinds.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use corten_kinds::Kind;
use corten_tree::Tree;

use crate::{Session, yaml};

/// One object of a manifest.
pub struct Manifest {
    /// Its kind.
    pub kind: Arc<Kind>,
    /// Its namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// All of it, with the namespace filled in.
    pub tree: Tree,
}

impl Manifest {
    /// Understands one document.
    ///
    /// # Errors
    /// If it is not an object of a known kind, or has no name.
    pub fn new(session: &Session, mut tree: Tree) -> Result<Manifest> {
        let (api_version, kind) = (tree.str_at("apiVersion").to_owned(), tree.str_at("kind").to_owned());
        if api_version.is_empty() || kind.is_empty() {
            bail!("apiVersion and kind must be set");
        }
        let kind = session
            .registry
            .gvk(&api_version, &kind)
            .cloned()
            .ok_or_else(|| anyhow!("no matches for kind \"{kind}\" in version \"{api_version}\""))?;
        let name = tree.str_at("metadata.name").to_owned();
        if name.is_empty() {
            bail!("{}: metadata.name must be set", kind.kind);
        }
        let mut namespace = tree.str_at("metadata.namespace").to_owned();
        if kind.namespaced() && namespace.is_empty() {
            namespace = session.namespace.clone();
            tree.set("metadata.namespace", namespace.as_str());
        }
        Ok(Manifest { kind, namespace, name, tree })
    }
}

/// Reads all objects of files, directories (their .yaml, .yml and .json files in name order) or `-` for stdin.
///
/// # Errors
/// If something cannot be read or understood; the message names file and document.
pub fn read(session: &Session, sources: &[PathBuf]) -> Result<Vec<Manifest>> {
    let mut out = Vec::new();
    for source in sources {
        if source.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("stdin")?;
            parse(session, &text, Path::new("stdin"), &mut out)?;
            continue;
        }
        for file in files(source)? {
            let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            parse(session, &text, &file, &mut out)?;
        }
    }
    if out.is_empty() {
        bail!("no objects found: name a manifest with -f FILE");
    }
    Ok(out)
}

fn files(source: &Path) -> Result<Vec<PathBuf>> {
    if !source.is_dir() {
        return Ok(vec![source.into()]);
    }
    let entries = std::fs::read_dir(source).with_context(|| source.display().to_string())?;
    let mut found: Vec<PathBuf> = entries.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    found.retain(|p| p.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json"));
    found.sort();
    Ok(found)
}

/// Understands all objects of a text; a `List` is taken apart.
///
/// # Errors
/// If the text is not YAML, or a document is not an object of a known kind.
pub fn parse(session: &Session, text: &str, source: &Path, out: &mut Vec<Manifest>) -> Result<()> {
    let documents = yaml::documents(text).with_context(|| source.display().to_string())?;
    for (i, document) in documents.into_iter().enumerate() {
        let at = || format!("{}, document {}", source.display(), i + 1);
        if document.str_at("kind") == "List" {
            for item in document.list_at("items") {
                out.push(Manifest::new(session, item.clone()).with_context(at)?);
            }
        } else {
            out.push(Manifest::new(session, document).with_context(at)?);
        }
    }
    Ok(())
}
