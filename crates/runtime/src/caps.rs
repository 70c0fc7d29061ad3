//! Capability sets: names, the default set, add and drop.

use serde::{Deserialize, Serialize};

/// Names in the kernel's numbering, without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has unless it adds or drops: containerd's default set.
pub const DEFAULT: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A set of capabilities, one bit each in the kernel's numbering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CapSet(pub u64);

/// A name that is no capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability {0:?}")]
pub struct UnknownCapability(pub String);

impl CapSet {
    pub const EMPTY: CapSet = CapSet(0);
    /// All that this crate knows by name.
    pub const ALL: CapSet = CapSet((1 << NAMES.len()) - 1);

    /// containerd's default set.
    pub fn default_set() -> CapSet {
        DEFAULT
            .iter()
            .fold(CapSet::EMPTY, |set, name| set.with(number(name).expect("the default set is of known names")))
    }

    /// The default set changed by `securityContext.capabilities`: `ALL` first, then single names; names with or without
    /// `CAP_` in any case, as in CRI.
    pub fn resolve<S: AsRef<str>>(add: &[S], drop: &[S]) -> Result<CapSet, UnknownCapability> {
        let is_all = |names: &[S]| names.iter().any(|n| n.as_ref().eq_ignore_ascii_case("ALL"));
        let mut set = CapSet::default_set();
        if is_all(add) {
            set = CapSet::ALL;
        }
        if is_all(drop) {
            set = CapSet::EMPTY;
        }
        for name in add.iter().map(AsRef::as_ref).filter(|n| !n.eq_ignore_ascii_case("ALL")) {
            set = set.with(number(name).ok_or_else(|| UnknownCapability(name.to_string()))?);
        }
        for name in drop.iter().map(AsRef::as_ref).filter(|n| !n.eq_ignore_ascii_case("ALL")) {
            set = CapSet(set.0 & !(1 << number(name).ok_or_else(|| UnknownCapability(name.to_string()))?));
        }
        Ok(set)
    }

    pub fn with(self, number: u32) -> CapSet {
        CapSet(self.0 | 1 << number)
    }

    pub fn has(self, name: &str) -> bool {
        number(name).is_some_and(|n| self.0 >> n & 1 == 1)
    }

    /// `CAP_…` names in the kernel's order.
    pub fn names(self) -> Vec<String> {
        NAMES.iter().enumerate().filter(|(n, _)| self.0 >> n & 1 == 1).map(|(_, name)| format!("CAP_{name}")).collect()
    }
}

/// The kernel's number of a capability.
pub fn number(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == bare).map(|n| n as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn add_and_drop_follow_cri() {
        let none: [&str; 0] = [];
        assert_eq!(CapSet::resolve(&none, &none).unwrap(), CapSet(0xa804_25fb));
        assert_eq!(CapSet::resolve(&none, &["ALL"]).unwrap(), CapSet::EMPTY);
        assert_eq!(CapSet::resolve(&["NET_BIND_SERVICE"], &["ALL"]).unwrap().names(), ["CAP_NET_BIND_SERVICE"]);
        assert_eq!(CapSet::resolve(&["cap_sys_time"], &none).unwrap().0, 0xa804_25fb | 1 << 25);
        assert!(!CapSet::resolve(&["ALL"], &["SYS_ADMIN"]).unwrap().has("SYS_ADMIN"));
        assert_eq!(CapSet::resolve(&["NOPE"], &none).unwrap_err().to_string(), "unknown capability \"NOPE\"");
    }
}
