//! What a namespace's labels say about its pods (`k8s.io/pod-security-admission/api/helpers.go`).

use std::fmt;

use corten_object::FieldError;
use corten_tree::{FieldPath, Tree};

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How strict, from lax to strict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Result<Level, &'static str> {
        match text {
            "privileged" => Ok(Level::Privileged),
            "baseline" => Ok(Level::Baseline),
            "restricted" => Ok(Level::Restricted),
            _ => Err("must be one of privileged, baseline, restricted"),
        }
    }
}

/// Which version of the rules: the minor version of Kubernetes 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    Minor(u32),
    Latest,
}

impl Version {
    fn parse(text: &str) -> Result<Version, &'static str> {
        if text == "latest" {
            return Ok(Version::Latest);
        }
        let minor = text.strip_prefix("v1.").filter(|m| m.bytes().all(|b| b.is_ascii_digit()));
        let minor = minor.filter(|m| *m == "0" || !m.starts_with('0')).and_then(|m| m.parse().ok());
        minor.map(Version::Minor).ok_or("must be \"latest\" or \"v1.x\"")
    }
}

/// A level in a version of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LevelVersion {
    pub level: Level,
    pub version: Version,
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Version::Latest => write!(f, "{level}:latest"),
            Version::Minor(minor) => write!(f, "{level}:v1.{minor}"),
        }
    }
}

/// What is refused, what is audited and what is warned about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    pub enforce: LevelVersion,
    pub audit: LevelVersion,
    pub warn: LevelVersion,
}

impl Policy {
    /// Whether nothing is ever refused, audited or warned about.
    pub fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|m| m.level == Level::Privileged)
    }
}

/// The policy that labels describe, and what is wrong with them (`PolicyToEvaluate`). What cannot be read counts as strict
/// where it is enforced and as lax where it is not.
pub(super) fn of_labels<'l>(label: impl Fn(&str) -> Option<&'l str>) -> (Policy, Vec<FieldError>) {
    let lax = LevelVersion { level: Level::Privileged, version: Version::Latest };
    let mut policy = Policy { enforce: lax, audit: lax, warn: lax };
    let mut errors = Vec::new();
    let mut wrong = |key: &str, value: &str, why: &str| {
        errors.push(FieldError::invalid_str(&FieldPath::of("metadata.labels").key(key), value, why));
    };
    let (mut has_enforce, mut has_warn, mut has_warn_version) = (false, false, false);
    for mode in ["enforce", "audit", "warn"] {
        let slot = match mode {
            "enforce" => &mut policy.enforce,
            "audit" => &mut policy.audit,
            _ => &mut policy.warn,
        };
        let key = format!("{PREFIX}{mode}");
        if let Some(text) = label(&key) {
            has_warn |= mode == "warn";
            match Level::parse(text) {
                Ok(level) => {
                    slot.level = level;
                    has_enforce |= mode == "enforce";
                }
                Err(why) => {
                    slot.level = if mode == "enforce" { Level::Restricted } else { Level::Privileged };
                    wrong(&key, text, why);
                }
            }
        }
        let key = format!("{key}-version");
        if let Some(text) = label(&key) {
            has_warn_version |= mode == "warn";
            match Version::parse(text) {
                Ok(version) => slot.version = version,
                Err(why) => {
                    slot.version = Version::Latest;
                    wrong(&key, text, why);
                }
            }
        }
    }
    // Who enforces is warned as strictly, unless the labels say otherwise.
    if !has_warn && has_enforce && policy.enforce.level > policy.warn.level {
        policy.warn.level = policy.enforce.level;
        if !has_warn_version {
            policy.warn.version = policy.enforce.version;
        }
    }
    (policy, errors)
}

/// The policy of a namespace's tree.
pub(super) fn of_namespace(namespace: &Tree) -> (Policy, Vec<FieldError>) {
    let labels = namespace.map_at("metadata.labels");
    of_labels(|key| labels.get(key).and_then(Tree::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_security_labels_make_a_policy() {
        let read = |pairs: &[(&str, &'static str)]| {
            let (policy, errors) =
                of_labels(|key| pairs.iter().find(|(k, _)| key == format!("{PREFIX}{k}")).map(|(_, v)| *v));
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            (format!("{} {} {}", policy.enforce, policy.audit, policy.warn), errors.join("; "))
        };
        let (policy, errors) = read(&[]);
        assert_eq!((policy.as_str(), errors.as_str()), ("privileged:latest privileged:latest privileged:latest", ""));
        let (policy, _) = read(&[("enforce", "baseline"), ("enforce-version", "v1.30")]);
        assert_eq!(policy, "baseline:v1.30 privileged:latest baseline:v1.30");
        let (policy, _) = read(&[("enforce", "restricted"), ("warn", "baseline"), ("warn-version", "v1.5")]);
        assert_eq!(policy, "restricted:latest privileged:latest baseline:v1.5");
        let (policy, errors) = read(&[("enforce", "strict"), ("audit", "x"), ("audit-version", "v1.01")]);
        assert_eq!(policy, "restricted:latest privileged:latest privileged:latest");
        assert_eq!(
            errors,
            "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, \
             restricted; metadata.labels[pod-security.kubernetes.io/audit]: Invalid value: \"x\": must be one of privileged, \
             baseline, restricted; metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"v1.01\": must be \
             \"latest\" or \"v1.x\""
        );
    }
}
