//! A connection with the names that people type.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use corten_client::{HttpClient, collection_path, kubeconfig};
use corten_kinds::{Kind, Registry};

use crate::ConnectArgs;

/// A client with its namespace and the kinds it can name.
pub struct Session {
    /// The client.
    pub client: HttpClient,
    /// The kinds.
    pub registry: Arc<Registry>,
    /// The namespace to work in.
    pub namespace: String,
}

impl Session {
    /// Opens the session that the arguments and the kubeconfig describe; nothing is sent yet.
    ///
    /// # Errors
    /// If there is no usable kubeconfig.
    pub fn open(connect: &ConnectArgs) -> Result<Session> {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let paths = connect.kubeconfig.clone().map_or_else(|| kubeconfig::default_paths(&home), |p| vec![p]);
        let connection = kubeconfig::load(&paths, connect.context.as_deref().unwrap_or_default())?;
        let namespace = connect.namespace.clone().unwrap_or_else(|| connection.namespace.clone());
        let client = HttpClient::new(&connection).context("the kubeconfig's connection is of no use")?;
        Ok(Session { client, registry: Arc::new(Registry::builtin()), namespace })
    }

    /// A kind by any of its names.
    ///
    /// # Errors
    /// If no kind has the name.
    pub fn kind(&self, name: &str) -> Result<Arc<Kind>> {
        let found = self.registry.by_name(name).cloned();
        found.ok_or_else(|| anyhow!("the server doesn't have a resource type \"{name}\""))
    }

    /// The path of one object.
    pub fn object_path(&self, kind: &Kind, name: &str) -> String {
        format!("{}/{name}", collection_path(kind, &self.namespace))
    }

    /// Splits `kind/name` or takes the kind from `default`.
    ///
    /// # Errors
    /// If there is neither, or the kind is unknown.
    pub fn kind_and_name(&self, text: &str, default: Option<&str>) -> Result<(Arc<Kind>, String)> {
        match (text.split_once('/'), default) {
            (Some((kind, name)), _) => Ok((self.kind(kind)?, name.into())),
            (None, Some(kind)) => Ok((self.kind(kind)?, text.into())),
            (None, None) => Err(anyhow!("name the object as KIND/NAME, for example deploy/{text}")),
        }
    }

    /// Resolves `kind name...` and `kind/name...` arguments.
    ///
    /// # Errors
    /// If a kind is unknown, or the forms are mixed.
    pub fn targets(&self, words: &[String]) -> Result<Vec<(Arc<Kind>, String)>> {
        let first = words.first().ok_or_else(|| anyhow!("you must specify the type of resource"))?;
        if first.contains('/') {
            return words.iter().map(|w| self.kind_and_name(w, None)).collect();
        }
        let kind = self.kind(first)?;
        Ok(words[1..].iter().map(|name| (kind.clone(), name.clone())).collect())
    }
}

/// `pod/web-0`, `deployment.apps/web`: how messages name an object.
pub fn reference(kind: &Kind, name: &str) -> String {
    if kind.group.is_empty() {
        format!("{}/{name}", kind.singular)
    } else {
        format!("{}.{}/{name}", kind.singular, kind.group)
    }
}
