//! System call filters: our default profile, profiles in the JSON form that container runtimes share, and their compiler.

mod compile;
mod default;

use crate::{CapSet, Error, Result, Seccomp};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A compiled filter, ready to install between fork and exec.
pub struct Filter {
    pub program: Vec<libc::sock_filter>,
    /// Flags of `seccomp(2)`.
    pub flags: u64,
}

/// A profile in the form of the OCI runtime specification (`linux.seccomp`).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Profile {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    listener_path: Option<String>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rule {
    #[serde(default)]
    names: Vec<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u32>,
    /// All must hold.
    #[serde(default)]
    args: Vec<Arg>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Arg {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// The filter that a container asks for; `None` when it runs unconfined.
pub fn filter(seccomp: &Seccomp, capabilities: CapSet) -> Result<Option<Filter>> {
    let (profile, name) = match seccomp {
        Seccomp::Unconfined => return Ok(None),
        Seccomp::RuntimeDefault => (default::profile(capabilities), "RuntimeDefault".to_string()),
        Seccomp::Localhost(path) => {
            let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
            let profile = serde_json::from_slice(&bytes)
                .map_err(|e| Error::Invalid(format!("seccomp profile {}: {e}", path.display())))?;
            (profile, path.display().to_string())
        }
    };
    compile::compile(&profile).map(Some).map_err(|message| Error::Invalid(format!("seccomp profile {name}: {message}")))
}

/// The machine's own system calls by name.
fn numbers() -> BTreeMap<&'static str, u32> {
    #[cfg(target_arch = "x86_64")]
    let table = include_str!("syscalls_x86_64.txt");
    #[cfg(target_arch = "aarch64")]
    let table = include_str!("syscalls_aarch64.txt");
    parse(table).collect()
}

/// Whether some architecture that we know has this call.
fn known_elsewhere(name: &str) -> bool {
    parse(include_str!("syscalls_x86_64.txt"))
        .chain(parse(include_str!("syscalls_aarch64.txt")))
        .any(|(n, _)| n == name)
        || name.ends_with("32")
        || name.ends_with("64")
        || [
            "ipc",
            "recv",
            "send",
            "sigprocmask",
            "sigreturn",
            "socketcall",
            "waitpid",
            "_llseek",
            "_newselect",
            "mmap2",
        ]
        .contains(&name)
}

fn parse(table: &'static str) -> impl Iterator<Item = (&'static str, u32)> {
    table
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, number)| Some((name, number.parse().ok()?)))
}

#[cfg(test)]
mod tests;
