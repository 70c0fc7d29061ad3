//! Names of images, and what short ones mean: `nginx` is `docker.io/library/nginx:latest`.
//!
//! The grammar and the defaults are those of the `distribution/reference` module that upstream uses.

use std::fmt;

use crate::{Digest, ImageError, Result};

/// A full name: registry, repository, and a tag or a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Registry and repository, as `docker.io/library/nginx`.
    pub repository: String,
    /// The tag; `latest` where the text has neither a tag nor a digest.
    pub tag: Option<String>,
    /// The digest of the manifest. It decides where a tag is there, too.
    pub digest: Option<Digest>,
}

impl Reference {
    /// From what people write.
    pub fn parse(text: &str) -> Result<Reference> {
        Reference::try_parse(text)
            .ok_or_else(|| ImageError::InvalidReference { reference: text.to_owned(), why: why_invalid(text) })
    }

    fn try_parse(text: &str) -> Option<Reference> {
        if is_identifier(text) {
            return None;
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(Digest::parse(digest)?)),
            None => (text, None),
        };
        // A colon behind the last slash begins a tag; one before it a port.
        let slash = name.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match name[slash..].split_once(':') {
            Some((last, tag)) => (&name[..slash + last.len()], Some(tag)),
            None => (name, None),
        };
        let (registry, path) = match name.split_once('/') {
            Some((first, rest)) if is_domain(first) => (first, rest),
            _ => ("docker.io", name),
        };
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        if !is_registry(registry) || !path.split('/').all(is_component) || !tag.is_none_or(is_tag) {
            return None;
        }
        let official = if registry == "docker.io" && !path.contains('/') { "library/" } else { "" };
        let repository = format!("{registry}/{official}{path}");
        let tag = tag.map(str::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned()));
        (repository.len() <= 255).then_some(Reference { repository, tag, digest })
    }

    /// The name that an index has it under: without the digest, if there is a tag.
    pub fn name(&self) -> String {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => format!("{}:{tag}", self.repository),
            (None, Some(digest)) => format!("{}@{digest}", self.repository),
            (None, None) => self.repository.clone(),
        }
    }

    /// Whether a pull policy that is not given means `Always` (upstream: `pkg/apis/core/v1/defaults.go`).
    pub fn is_latest(&self) -> bool {
        self.digest.is_none() && self.tag.as_deref() == Some("latest")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Why a text is no reference, in the words of `ParseNormalizedNamed` of the `distribution` project.
fn why_invalid(text: &str) -> String {
    if is_identifier(text) {
        return format!("invalid repository name ({text}), cannot specify 64-byte hexadecimal strings");
    }
    let path = match text.split_once('/') {
        Some((first, rest)) if is_domain(first) => rest.to_owned(),
        Some(_) => text.to_owned(),
        None => format!("library/{text}"),
    };
    let path = path.split(':').next().unwrap_or_default();
    match path.chars().any(char::is_uppercase) {
        true => format!("invalid reference format: repository name ({path}) must be lowercase"),
        false => "invalid reference format".to_owned(),
    }
}

/// What could be an image's id.
fn is_identifier(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'a'..=b'f' | b'0'..=b'9'))
}

/// Whether the part before the first slash names a registry (`splitDockerDomain`): no repository begins with a capital letter.
fn is_domain(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.chars().any(char::is_uppercase)
}

/// A host name or address with an optional port.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_fits = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    if let Some(v6) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return port_fits && v6.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    port_fits && host.split('.').all(label)
}

/// Lower-case words joined by one dot, one or two underscores, or any number of dashes.
fn is_component(text: &str) -> bool {
    let word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if !bytes.first().is_some_and(word) || !bytes.last().is_some_and(word) {
        return false;
    }
    bytes
        .split(word)
        .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("bitnami/redis", "docker.io/bitnami/redis:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/a/b", "docker.io/a/b:latest"),
            ("registry.k8s.io/pause:3.10.2", "registry.k8s.io/pause:3.10.2"),
            ("localhost/x", "localhost/x:latest"),
            ("BUILD/x", "BUILD/x:latest"),
            ("host:5000/a__b/c-d.e:T_1", "host:5000/a__b/c-d.e:T_1"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            (&format!("nginx@{digest}"), &format!("docker.io/library/nginx@{digest}")),
            (&format!("nginx:1@{digest}"), &format!("docker.io/library/nginx:1@{digest}")),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), full, "{text}");
        }
        assert!(Reference::parse("nginx").unwrap().is_latest());
        assert!(!Reference::parse("nginx:1").unwrap().is_latest());
    }

    #[test]
    fn nonsense_is_refused() {
        let long = "a".repeat(300);
        for text in [
            "",
            "UPPER",
            "a b",
            "a:",
            ":a",
            "a/",
            "/a",
            "a//b",
            "a@sha256:1",
            "a:b:c",
            "a_-b",
            "a..b",
            "-a",
            "x.io/",
            &long,
        ] {
            let error = Reference::parse(text).unwrap_err();
            assert!(error.to_string().contains("invalid reference format"), "{text}");
        }
        for (text, why) in [
            ("a//b", "invalid reference format".to_owned()),
            ("UPPER:v1", "invalid reference format: repository name (library/UPPER) must be lowercase".to_owned()),
            ("x.io/a/B:v1", "invalid reference format: repository name (a/B) must be lowercase".to_owned()),
            (
                &"a".repeat(64),
                format!("invalid repository name ({}), cannot specify 64-byte hexadecimal strings", "a".repeat(64)),
            ),
        ] {
            let error = Reference::parse(text).unwrap_err();
            assert_eq!(error.to_string(), format!("couldn't parse image name {text:?}: {why}"));
        }
    }
}
