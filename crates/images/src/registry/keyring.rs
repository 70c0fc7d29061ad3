//! Who may pull: logins from docker's configuration format, and which of them fit an image (`pkg/credentialprovider/keyring.go`).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use crate::Digest;

/// Where a login comes from, if not from the node itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct SecretRef {
    /// The secret's namespace.
    pub namespace: String,
    /// The secret's name.
    pub name: String,
    /// The secret's uid.
    pub uid: String,
}

/// A user and how it proves itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user; empty with an identity token alone.
    pub username: String,
    /// The password.
    pub password: String,
    /// A token that a token server changes for one of the registry.
    pub identity_token: String,
    /// `None`: the node's own.
    pub source: Option<SecretRef>,
}

impl Login {
    /// What tells logins apart without telling them (upstream's `hashAuthConfig`).
    pub fn hash(&self) -> Digest {
        let text = serde_json::json!([self.username, self.password, self.identity_token]).to_string();
        Digest::of(text.as_bytes())
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("username", &self.username).field("source", &self.source).finish_non_exhaustive()
    }
}

/// Logins by the host and path that they are for.
#[derive(Clone, Debug, Default)]
pub struct Keyring(BTreeMap<String, Vec<Login>>);

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

impl Keyring {
    /// Adds the logins of a `.dockerconfigjson` (or, if `legacy`, of a `.dockercfg`). The error names no content.
    pub fn add(&mut self, json: &[u8], legacy: bool, source: Option<&SecretRef>) -> Result<(), String> {
        let wrong = |error: serde_json::Error| {
            format!("the docker configuration is no JSON of the known form (line {})", error.line())
        };
        let entries: BTreeMap<String, Entry> = match legacy {
            true => serde_json::from_slice(json).map_err(wrong)?,
            false => serde_json::from_slice::<Document>(json).map_err(wrong)?.auths,
        };
        for (server, entry) in entries {
            let mut login = Login {
                username: entry.username,
                password: entry.password,
                identity_token: entry.identitytoken,
                source: source.cloned(),
            };
            if !entry.auth.is_empty() {
                let (username, password) = decode(&entry.auth)
                    .ok_or("unable to parse auth field, must be formatted as base64(username:password)")?;
                (login.username, login.password) = (username, password);
            }
            self.0.entry(key_of(&server)).or_default().push(login);
        }
        Ok(())
    }

    /// The logins for a repository, as `docker.io/library/nginx`: the most specific first.
    pub fn lookup(&self, repository: &str) -> Vec<Login> {
        let fits = self.0.iter().rev().filter(|(key, _)| matches(key, repository));
        let found: Vec<Login> = fits.flat_map(|(_, logins)| logins.iter().cloned()).collect();
        if found.is_empty() && repository.starts_with("docker.io/") {
            return self.0.get("index.docker.io").cloned().unwrap_or_default();
        }
        found
    }
}

/// `https://index.docker.io/v1/` and the like, without scheme and version.
fn key_of(server: &str) -> String {
    let rest = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let path =
        path.strip_prefix("/v1/").or_else(|| path.strip_prefix("/v2/")).map_or(path.to_owned(), |p| format!("/{p}"));
    if path == "/" { host.to_owned() } else { format!("{host}{path}") }
}

fn decode(auth: &str) -> Option<(String, String)> {
    let bytes = if auth.ends_with('=') { STANDARD.decode(auth) } else { STANDARD_NO_PAD.decode(auth) };
    let text = String::from_utf8(bytes.or_else(|_| STANDARD.decode(auth)).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.trim_matches('\0').to_owned()))
}

/// `URLsMatch`: the same number of the host's parts, each fitting its pattern; the same port; the path a beginning.
fn matches(pattern: &str, repository: &str) -> bool {
    let split = |text: &str| -> (String, String, String) {
        let (host, path) = text.find('/').map_or((text, ""), |at| text.split_at(at));
        match host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())) {
            Some((name, port)) => (name.to_owned(), port.to_owned(), path.to_owned()),
            None => (host.to_owned(), String::new(), path.to_owned()),
        }
    };
    let ((wanted, wanted_port, wanted_path), (host, port, path)) = (split(pattern), split(repository));
    let parts = wanted.split('.').count() == host.split('.').count();
    let fits = wanted.split('.').zip(host.split('.')).all(|(w, h)| glob(w.as_bytes(), h.as_bytes()));
    parts && fits && wanted_port == port && path.starts_with(&wanted_path)
}

/// `*` and `?`, without backtracking into more than one star at a time.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(config: &str, legacy: bool, repository: &str) -> Vec<String> {
        let mut keyring = Keyring::default();
        keyring.add(config.as_bytes(), legacy, None).unwrap();
        keyring.lookup(repository).into_iter().map(|l| format!("{}:{}", l.username, l.password)).collect()
    }

    #[test]
    fn the_most_specific_login_comes_first() {
        let auth = STANDARD.encode("b:c:d");
        let config = format!(
            r#"{{"auths": {{"a.io": {{"username": "a", "password": "p"}}, "a.io/team": {{"auth": "{auth}"}}, "*.b.io": {{"username": "s"}},
            "https://index.docker.io/v1/": {{"username": "hub"}}, "c.io:5000": {{"username": "port"}}}}}}"#
        );
        for (repository, expected) in [
            ("a.io/team/x", &["b:c:d", "a:p"][..]),
            ("a.io/other", &["a:p"]),
            ("x.b.io/y", &["s:"]),
            ("x.y.b.io/z", &[]),
            ("docker.io/library/nginx", &["hub:"]),
            ("c.io:5000/x", &["port:"]),
            ("c.io/x", &[]),
            ("evil.a.io/team", &[]),
        ] {
            assert_eq!(users(&config, false, repository), expected, "{repository}");
        }
        assert_eq!(users(r#"{"q.io": {"username": "u", "password": "p"}}"#, true, "q.io/x"), ["u:p"]);
    }

    #[test]
    fn a_login_is_not_shown() {
        let mut keyring = Keyring::default();
        keyring.add(br#"{"auths": {"a.io": {"username": "u", "password": "hush"}}}"#, false, None).unwrap();
        assert!(!format!("{keyring:?}").contains("hush"));
        let error = keyring.add(b"{\"hush", false, None).unwrap_err();
        assert!(!error.contains("hush"), "{error}");
        assert!(keyring.add(br#"{"auths": {"a.io": {"auth": "eA=="}}}"#, false, None).is_err());
    }
}
