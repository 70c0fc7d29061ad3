//! Containers on the kernel: namespaces, cgroups, capabilities, seccomp, one shim process each.
