//! kubeconfig files: read the current context, write and merge a cluster's entry.
//!
//! Written files have mode 0600. Merging keeps every entry that is not ours, in order, as a tree: fields that Corten does
//! not know are not lost.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use corten_tree::{Tree, tree};

/// Why a kubeconfig is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// The file cannot be read or written.
    #[error("kubeconfig {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: std::io::Error,
    },
    /// The file is not YAML, or not a kubeconfig.
    #[error("kubeconfig {path} is malformed: {why}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// There is none, and no default either.
    #[error("no kubeconfig found: set KUBECONFIG, or start a cluster with `corten up`")]
    Missing,
}

/// How to reach a cluster and as whom.
#[derive(Clone, Default)]
pub struct Connection {
    /// `https://host:port`
    pub server: String,
    /// PEM of the certificate authority.
    pub ca_pem: Vec<u8>,
    /// PEM of the client certificate; empty without one.
    pub cert_pem: Vec<u8>,
    /// PEM of the client key; empty without one.
    pub key_pem: Vec<u8>,
    /// Bearer token; empty without one.
    pub token: String,
    /// Namespace of the context; `default` if it names none.
    pub namespace: String,
    /// Name to expect in the server's certificate; empty for the host of `server`.
    pub tls_server_name: String,
    /// Takes any certificate of the server (`insecure-skip-tls-verify`).
    pub insecure: bool,
}

impl Connection {
    /// Whom connections trust, and as whom they come.
    pub(crate) fn trust(&self) -> crate::Trust {
        let identity = (!self.cert_pem.is_empty()).then(|| (self.cert_pem.clone(), self.key_pem.clone()));
        crate::Trust { ca_pem: self.ca_pem.clone(), identity, insecure: self.insecure, with_system: false }
    }
}

/// The files that `$KUBECONFIG` names, or `~/.kube/config`.
pub fn default_paths(home: &Path) -> Vec<PathBuf> {
    match std::env::var_os("KUBECONFIG") {
        Some(list) if !list.is_empty() => std::env::split_paths(&list).filter(|p| !p.as_os_str().is_empty()).collect(),
        _ => vec![home.join(".kube/config")],
    }
}

/// Reads the first of `paths` that exists and resolves a context (its current one if `context` is empty).
///
/// # Errors
/// If no file exists, one is malformed, or the context names nothing.
pub fn load(paths: &[PathBuf], context: &str) -> Result<Connection, KubeconfigError> {
    let path = paths.iter().find(|p| p.exists()).ok_or(KubeconfigError::Missing)?;
    resolve(&read(path)?, path, context)
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> KubeconfigError {
    move |source| KubeconfigError::Io { path: path.into(), source }
}

fn read(path: &Path) -> Result<Tree, KubeconfigError> {
    let malformed = |why: String| KubeconfigError::Malformed { path: path.into(), why };
    let text = fs::read_to_string(path).map_err(io(path))?;
    crate::config_file::yaml(&text).map_err(malformed)
}

fn resolve(config: &Tree, path: &Path, context: &str) -> Result<Connection, KubeconfigError> {
    let malformed = |why: String| KubeconfigError::Malformed { path: path.into(), why };
    let named = |list: &str, name: &str, inner: &str| {
        let entry = config.list_at(list).iter().find(|e| e.str_at("name") == name);
        entry.and_then(|e| e.get(inner)).cloned().ok_or_else(|| malformed(format!("{list} has no entry {name:?}")))
    };
    let context = if context.is_empty() { config.str_at("current-context") } else { context };
    if context.is_empty() {
        return Err(malformed("current-context is not set".into()));
    }
    let context = named("contexts", context, "context")?;
    let cluster = named("clusters", context.str_at("cluster"), "cluster")?;
    // Whoever is asked may not want to know who asks.
    let user = match context.str_at("user") {
        "" => Tree::Null,
        name => named("users", name, "user")?,
    };
    let bytes = |entry: &Tree, key: &str| -> Result<Vec<u8>, KubeconfigError> {
        let data = entry.get(&format!("{key}-data")).and_then(Tree::as_str).unwrap_or_default();
        let file = entry.get(key).and_then(Tree::as_str).unwrap_or_default();
        match (data, file) {
            ("", "") => Ok(Vec::new()),
            ("", file) => {
                let file = path.parent().unwrap_or(Path::new(".")).join(file);
                fs::read(&file).map_err(io(&file))
            }
            (data, _) => BASE64.decode(data).map_err(|e| malformed(format!("{key}-data: {e}"))),
        }
    };
    let namespace = context.str_at("namespace");
    Ok(Connection {
        server: cluster.str_at("server").to_owned(),
        ca_pem: bytes(&cluster, "certificate-authority")?,
        cert_pem: bytes(&user, "client-certificate")?,
        key_pem: bytes(&user, "client-key")?,
        token: user.str_at("token").to_owned(),
        namespace: if namespace.is_empty() { "default".into() } else { namespace.to_owned() },
        tls_server_name: cluster.str_at("tls-server-name").to_owned(),
        insecure: cluster.bool_at("insecure-skip-tls-verify"),
    })
}

/// The kubeconfig of one cluster, with context, cluster and user all named `name`.
pub fn single(name: &str, connection: &Connection) -> Tree {
    let mut user = Tree::map();
    if !connection.cert_pem.is_empty() {
        user.insert("client-certificate-data", BASE64.encode(&connection.cert_pem));
        user.insert("client-key-data", BASE64.encode(&connection.key_pem));
    }
    if !connection.token.is_empty() {
        user.insert("token", connection.token.as_str());
    }
    let ca = BASE64.encode(&connection.ca_pem);
    tree!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"certificate-authority-data": ca, "server": (connection.server.as_str())}}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
        "preferences": {}
    })
}

/// Writes one cluster's kubeconfig to a file of its own, mode 0600.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, config: &Tree) -> Result<(), KubeconfigError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io(parent))?;
    }
    let value: serde_json::Value = serde_json::from_slice(&config.to_json()).expect("a tree writes JSON");
    let text = serde_saphyr::to_string(&value)
        .map_err(|e| KubeconfigError::Malformed { path: path.into(), why: e.to_string() })?;
    let temporary = path.with_extension("corten-new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(io(&temporary))?;
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(io(&temporary))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io(&temporary))?;
    fs::rename(&temporary, path).map_err(io(path))
}

/// Puts the entries of `addition` into the file, replacing those of the same names, and makes its context current.
///
/// # Errors
/// If the file is there and malformed (it is left as it is), or cannot be written.
pub fn merge_into(path: &Path, addition: &Tree) -> Result<(), KubeconfigError> {
    let mut config = if path.exists() { read(path)? } else { tree!({"apiVersion": "v1", "kind": "Config"}) };
    for list in ["clusters", "users", "contexts"] {
        let mut entries: Vec<Tree> = config.list_at(list).to_vec();
        for new in addition.list_at(list) {
            entries.retain(|e| e.str_at("name") != new.str_at("name"));
            entries.push(new.clone());
        }
        config.insert(list, entries);
    }
    config.insert("current-context", addition.str_at("current-context"));
    write(path, &config)
}

/// Takes the cluster, user and context of this name out of the file. A file that is absent or without them stays as it is.
///
/// # Errors
/// If the file is malformed or cannot be written.
pub fn remove_from(path: &Path, name: &str) -> Result<(), KubeconfigError> {
    if !path.exists() {
        return Ok(());
    }
    let mut config = read(path)?;
    if !config.list_at("contexts").iter().any(|e| e.str_at("name") == name) {
        return Ok(());
    }
    for list in ["clusters", "users", "contexts"] {
        let kept: Vec<Tree> = config.list_at(list).iter().filter(|e| e.str_at("name") != name).cloned().collect();
        config.insert(list, kept);
    }
    if config.str_at("current-context") == name {
        config.insert("current-context", "");
    }
    write(path, &config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(server: &str) -> Connection {
        Connection { server: server.into(), ca_pem: b"ca".to_vec(), token: "t".into(), ..Connection::default() }
    }

    #[test]
    fn merging_keeps_strangers_and_replaces_our_own() {
        let dir = std::env::temp_dir().join(format!("corten-kubeconfig-{}", std::process::id()));
        let file = dir.join("config");
        fs::create_dir_all(&dir).unwrap();
        fs::write(&file, "apiVersion: v1\nkind: Config\nclusters:\n- name: other\n  cluster: {server: 'https://o', extra: 1}\ncontexts: []\nusers: []\n").unwrap();
        merge_into(&file, &single("corten", &connection("https://a"))).unwrap();
        merge_into(&file, &single("corten", &connection("https://b"))).unwrap();
        let config = read(&file).unwrap();
        assert_eq!(config.list_at("clusters").len(), 2);
        assert_eq!(config.list_at("clusters")[0].i64_at("cluster.extra"), Some(1));
        let found = load(std::slice::from_ref(&file), "").unwrap();
        assert_eq!(
            (found.server.as_str(), found.ca_pem.as_slice(), found.token.as_str()),
            ("https://b", &b"ca"[..], "t")
        );
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        remove_from(&file, "corten").unwrap();
        assert_eq!(read(&file).unwrap().list_at("clusters").len(), 1);
        assert!(load(&[file], "").is_err());
        fs::remove_dir_all(dir).unwrap();
    }
}
