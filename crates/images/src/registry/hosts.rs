//! Where a registry's images are fetched from: the mirrors of its `hosts.toml`, in order, then the registry itself.
//!
//! The files, their place (`DIR/REGISTRY/hosts.toml`, `DIR/_default/hosts.toml` for all others) and their keys are containerd's, so
//! that a directory made for it serves here, too. They are read at each pull: a change needs no restart.

use std::fs;
use std::path::{Path, PathBuf};

use corten_client::Trust;
use corten_webhook::Destination;
use serde_json::Value;

/// The file of a registry's directory.
const FILE: &str = "hosts.toml";
/// Largest configuration or certificate file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Directories with registries' configuration, the first that knows a registry decides.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    /// Directories like `/etc/containerd/certs.d`.
    pub dirs: Vec<PathBuf>,
}

/// One place that serves images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// `https` or `http`.
    pub scheme: &'static str,
    /// `host:port`, the port only where it is not the scheme's.
    pub authority: String,
    /// What precedes a repository's path: `/v2` as a rule.
    pub path: String,
    /// Whether tags may be resolved here.
    pub resolves: bool,
    /// Whether content may be fetched here.
    pub pulls: bool,
    pub trust: Trust,
    pub headers: Vec<(String, String)>,
    /// The registry that a mirror stands for.
    pub namespace: Option<String>,
}

impl Host {
    fn of_registry(registry: &str) -> Host {
        let authority = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        // As containerd and docker: a registry on this very machine needs no certificate.
        let scheme = if is_loopback(authority) { "http" } else { "https" };
        Host {
            scheme,
            authority: authority.to_owned(),
            path: "/v2".to_owned(),
            resolves: true,
            pulls: true,
            trust: Trust { with_system: true, ..Trust::default() },
            headers: Vec::new(),
            namespace: None,
        }
    }

    /// `scheme://host[:port][/path]`, or a host alone.
    fn parse(text: &str, registry: &str) -> Result<Host, String> {
        let text = text.trim_end_matches('/');
        let (scheme, rest) = match text.split_once("://") {
            Some(("https", rest)) => (Some("https"), rest),
            Some(("http", rest)) => (Some("http"), rest),
            Some(_) => return Err(format!("{text:?} is neither https:// nor http://")),
            None => (None, text),
        };
        let (authority, path) = rest.split_once('/').map_or((rest, ""), |(authority, path)| (authority, path));
        if authority.is_empty() || authority.contains(['@', '?', '#', ' ']) {
            return Err(format!("{text:?} names no host"));
        }
        let mut host = Host::of_registry(authority);
        host.scheme = scheme.unwrap_or(host.scheme);
        host.path = if path.is_empty() { "/v2".to_owned() } else { format!("/{path}") };
        host.namespace = (host.authority != Host::of_registry(registry).authority).then(|| registry.to_owned());
        Ok(host)
    }

    /// For the client: with the port always there.
    pub(crate) fn destination(&self) -> Destination {
        Destination {
            authority: self.authority.clone(),
            trust: (self.scheme == "https").then(|| self.trust.clone()),
            server_name: String::new(),
            keep: true,
        }
    }

    /// The base of all URLs, as messages show it.
    pub(crate) fn base(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority, self.path)
    }
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Hosts {
    /// Where to look for a registry's images, the first place first. The error names the file.
    pub(crate) fn of(&self, registry: &str) -> Result<Vec<Host>, String> {
        for dir in &self.dirs {
            for name in [registry, "_default"] {
                let file = dir.join(name).join(FILE);
                let told = |why: String| format!("{}: {why}", file.display());
                match read(&file) {
                    Ok(Some(text)) => {
                        let text = String::from_utf8(text).map_err(|_| told("it is no text".into()))?;
                        return hosts_of(registry, &text, &dir.join(name)).map_err(told);
                    }
                    Ok(None) => {}
                    Err(why) => return Err(why),
                }
            }
        }
        Ok(vec![Host::of_registry(registry)])
    }
}

/// A small file's content; `None` if there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let told = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    match fs::metadata(path) {
        Ok(meta) if meta.len() > FILE_BYTES_MAX => return Err(told(&"it is too large")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        _ => {}
    }
    fs::read(path).map(Some).map_err(|error| told(&error))
}

fn hosts_of(registry: &str, text: &str, dir: &Path) -> Result<Vec<Host>, String> {
    let document = super::toml::parse(text)?;
    let mut hosts = Vec::new();
    for (key, value) in document.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("host", Value::Object(tables)) => {
                for (url, table) in tables {
                    let mut host = Host::parse(url, registry)?;
                    configure(&mut host, table, dir)?;
                    hosts.push(host);
                }
            }
            ("server" | "host", _) => {}
            // At the top these speak of the registry itself.
            (key, _) if KEYS.contains(&key) => {}
            (key, _) => return Err(format!("unknown key {key:?}")),
        }
    }
    let mut own = match document.get("server") {
        None => Host::of_registry(registry),
        Some(Value::String(server)) if server.is_empty() => return Ok(hosts),
        Some(Value::String(server)) => Host::parse(server, registry)?,
        Some(_) => return Err("server is no string".into()),
    };
    configure(&mut own, &document, dir)?;
    hosts.push(own);
    Ok(hosts)
}

/// What may be said of a host.
const KEYS: &[&str] = &["capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout"];

fn configure(host: &mut Host, table: &Value, dir: &Path) -> Result<(), String> {
    let Some(table) = table.as_object() else { return Err("a host is no table".into()) };
    let load = |name: &str| {
        let path = dir.join(name);
        read(&path)?.ok_or_else(|| format!("{}: there is no such file", path.display()))
    };
    for (key, value) in table {
        match key.as_str() {
            "capabilities" => {
                let all = strings(value, key)?;
                host.resolves = all.contains(&"resolve");
                host.pulls = all.contains(&"pull");
            }
            "skip_verify" => host.trust.insecure = value.as_bool().ok_or("skip_verify is no boolean")?,
            "override_path" => {
                // Without it a path is put in front of `/v2`.
                value.as_bool().ok_or("override_path is no boolean")?;
            }
            "ca" => {
                for name in strings(value, key)? {
                    host.trust.ca_pem.extend(load(name)?);
                    host.trust.ca_pem.push(b'\n');
                }
            }
            "client" => {
                let pair = match value.as_array().and_then(|pairs| pairs.first()) {
                    Some(first @ Value::Array(_)) => strings(first, key)?,
                    _ => strings(value, key)?,
                };
                let (cert, key_file) = match pair.as_slice() {
                    [both] => (*both, *both),
                    [cert, key_file] => (*cert, *key_file),
                    _ => return Err("client is no pair of files".into()),
                };
                host.trust.identity = Some((load(cert)?, load(key_file)?));
            }
            "header" => {
                for (name, values) in value.as_object().ok_or("header is no table")? {
                    for value in strings(values, name)? {
                        host.headers.push((name.clone(), value.to_owned()));
                    }
                }
            }
            _ => {}
        }
    }
    let overrides = table.get("override_path").and_then(Value::as_bool) == Some(true);
    if host.path != "/v2" && !overrides && !host.path.ends_with("/v2") {
        host.path.push_str("/v2");
    }
    Ok(())
}

/// One string or several.
fn strings<'v>(value: &'v Value, key: &str) -> Result<Vec<&'v str>, String> {
    let wrong = || format!("{key} is neither a string nor a list of strings");
    match value {
        Value::String(one) => Ok(vec![one]),
        Value::Array(all) => all.iter().map(|v| v.as_str().ok_or_else(wrong)).collect(),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_without_a_file_is_its_own_host() {
        let hosts = Hosts::default();
        for (registry, base) in [
            ("docker.io", "https://registry-1.docker.io/v2"),
            ("registry.k8s.io", "https://registry.k8s.io/v2"),
            ("localhost:5000", "http://localhost:5000/v2"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000/v2"),
            ("[::1]:5000", "http://[::1]:5000/v2"),
        ] {
            let found = hosts.of(registry).unwrap();
            assert_eq!(found.iter().map(Host::base).collect::<Vec<_>>(), [base]);
            assert_eq!(found[0].namespace, None);
        }
    }

    #[test]
    fn mirrors_come_first_with_what_their_file_says() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("docker.io");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("ca.crt"), "PEM").unwrap();
        let text = "server = \"https://docker.io\"\n[host.\"http://m1:5000\"]\ncapabilities = [\"pull\"]\n[host.\"https://m2/some/v2\"]\n\
            ca = \"ca.crt\"\noverride_path = true\n[host.\"https://m3/p\"]\nskip_verify = true\n[host.\"https://m3/p\".header]\nx-a = \"b\"\n";
        fs::write(own.join(FILE), text).unwrap();
        let hosts = Hosts { dirs: vec![dir.path().to_owned()] };
        let found = hosts.of("docker.io").unwrap();
        let bases: Vec<String> = found.iter().map(Host::base).collect();
        let all = ["http://m1:5000/v2", "https://m2/some/v2", "https://m3/p/v2", "https://registry-1.docker.io/v2"];
        assert_eq!(bases, all);
        assert_eq!((found[0].resolves, found[0].pulls), (false, true));
        assert_eq!(found[0].namespace.as_deref(), Some("docker.io"));
        assert_eq!(found[1].trust.ca_pem, b"PEM\n");
        assert!(found[2].trust.insecure && !found[1].trust.insecure);
        assert_eq!(found[2].headers, [("x-a".to_owned(), "b".to_owned())]);
        assert_eq!(found[3].namespace, None);
        fs::write(own.join(FILE), "serve = 'x'").unwrap();
        let error = hosts.of("docker.io").unwrap_err();
        assert!(error.ends_with("docker.io/hosts.toml: unknown key \"serve\""), "{error}");
        assert_eq!(hosts.of("ghcr.io").unwrap()[0].base(), "https://ghcr.io/v2");
    }
}
