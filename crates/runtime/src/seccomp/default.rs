//! `RuntimeDefault`: an allow list by name, wider with some capabilities. The facts (which calls, under which conditions)
//! are those of the default profile that container engines share (moby/profiles `seccomp/default_linux.go`).

use super::{Arg, Profile, Rule};
use crate::CapSet;

/// Allowed with one capability.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("BPF", "bpf"),
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    ("PERFMON", "perf_event_open"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules \
         lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname \
         sethostname setns syslog umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYSLOG", "syslog"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("SYS_RAWIO", "ioperm iopl"),
    ("SYS_TIME", "clock_settime settimeofday"),
    ("SYS_TTY_CONFIG", "vhangup"),
];

/// Execution domains that `personality` may set: the native one, with and without two harmless flags, and "just ask".
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x20000, 0x20008, 0xffff_ffff];

const NEW_NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP) as u64;

pub(super) fn profile(capabilities: CapSet) -> Profile {
    let mut rules = vec![
        allow(include_str!("default_allow.txt")),
        // Reading other processes is guarded by the kernel since 4.8.
        allow("process_vm_readv process_vm_writev ptrace"),
        allow(if cfg!(target_arch = "x86_64") { "arch_prctl modify_ldt" } else { "" }),
        // Sockets of any family but AF_ALG and AF_VSOCK, which reach past the network namespace.
        allow_if("socket", "SCMP_CMP_LT", libc::AF_ALG as u64, 0),
        allow_if("socket", "SCMP_CMP_EQ", libc::AF_ALG as u64 + 1, 0),
        allow_if("socket", "SCMP_CMP_GT", libc::AF_VSOCK as u64, 0),
    ];
    rules.extend(PERSONALITIES.map(|value| allow_if("personality", "SCMP_CMP_EQ", value, 0)));
    rules.extend(
        BY_CAPABILITY.iter().filter(|(capability, _)| capabilities.has(capability)).map(|(_, names)| allow(names)),
    );
    if !capabilities.has("SYS_ADMIN") {
        rules.push(allow_if("clone", "SCMP_CMP_MASKED_EQ", NEW_NAMESPACES, 0));
        // Its flags are behind a pointer that a filter cannot read; ENOSYS makes libraries fall back to clone.
        rules.push(Rule {
            names: vec!["clone3".into()],
            action: "SCMP_ACT_ERRNO".into(),
            errno_ret: Some(libc::ENOSYS as u32),
            args: vec![],
        });
    }
    Profile {
        default_action: "SCMP_ACT_ERRNO".into(),
        default_errno_ret: Some(libc::EPERM as u32),
        flags: vec![],
        listener_path: None,
        syscalls: rules,
    }
}

fn allow(names: &str) -> Rule {
    let names = names.split_whitespace().map(str::to_string).collect();
    Rule { names, action: "SCMP_ACT_ALLOW".into(), ..Rule::default() }
}

fn allow_if(name: &str, op: &str, value: u64, value_two: u64) -> Rule {
    Rule { args: vec![Arg { index: 0, value, value_two, op: op.into() }], ..allow(name) }
}
