//! Which device nodes a container may make and open: a list on v1, a BPF program on v2.

use crate::{Error, Result, sys};
use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Allows some accesses to some devices; what no rule allows is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    pub block: bool,
    /// `None` means any.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub read: bool,
    pub write: bool,
    pub mknod: bool,
}

impl DeviceRule {
    /// What every container may use, as in runc `libcontainer/specconv` `AllowedDevices`: make any node, and open null,
    /// zero, full, tty, random, urandom, ptmx and terminals.
    pub fn defaults() -> Vec<DeviceRule> {
        let open = |major, minor| DeviceRule {
            major: Some(major),
            minor,
            read: true,
            write: true,
            ..DeviceRule::any_mknod(false)
        };
        let mut rules = vec![DeviceRule::any_mknod(false), DeviceRule::any_mknod(true)];
        rules.extend([3, 5, 7, 8, 9].map(|minor| open(1, Some(minor))));
        rules.extend([open(5, Some(0)), open(5, Some(2)), open(136, None)]);
        rules
    }

    /// Access to a device of the host, by some of the letters `rwm`.
    pub fn of(path: &Path, permissions: &str) -> Result<DeviceRule> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let meta = fs::symlink_metadata(path).map_err(|e| Error::file(path, e))?;
        let (block, char) = (meta.file_type().is_block_device(), meta.file_type().is_char_device());
        if !block && !char {
            return Err(Error::Invalid(format!("{} is not a device", path.display())));
        }
        let device = meta.rdev();
        Ok(DeviceRule {
            block,
            major: Some(rustix::fs::major(device)),
            minor: Some(rustix::fs::minor(device)),
            read: permissions.contains('r'),
            write: permissions.contains('w'),
            mknod: permissions.contains('m'),
        })
    }

    fn any_mknod(block: bool) -> DeviceRule {
        DeviceRule { block, major: None, minor: None, read: false, write: false, mknod: true }
    }
}

pub(super) fn restrict_v1(directory: &Path, rules: &[DeviceRule]) -> Result<()> {
    let write = |file: &str, value: &str| {
        let path = directory.join(file);
        fs::write(&path, value).map_err(|e| Error::system(format!("write {value:?} to {}", path.display()), e))
    };
    write("devices.deny", "a")?;
    for rule in rules {
        let number = |n: Option<u32>| n.map_or("*".to_string(), |n| n.to_string());
        let access = [(rule.read, 'r'), (rule.write, 'w'), (rule.mknod, 'm')];
        let access: String = access.iter().filter(|(on, _)| *on).map(|(_, c)| *c).collect();
        let kind = if rule.block { 'b' } else { 'c' };
        write("devices.allow", &format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor)))?;
    }
    Ok(())
}

const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The part of `union bpf_attr` that loading needs.
#[repr(C)]
struct Load {
    prog_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that attaching needs.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

pub(super) fn restrict_v2(directory: &Path, rules: &[DeviceRule]) -> Result<()> {
    let failed = |e| Error::system(format!("restrict devices of {}", directory.display()), e);
    let program = program(rules);
    let mut load = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    let program_fd = sys::adopt(sys::bpf(BPF_PROG_LOAD, &mut load).map_err(failed)?);
    let cgroup = fs::File::open(directory).map_err(failed)?;
    let mut attach = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program_fd.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // The cgroup keeps the program alive; both go together.
    sys::bpf(BPF_PROG_ATTACH, &mut attach).map(drop).map_err(failed)
}

/// eBPF over `struct bpf_cgroup_dev_ctx { u32 access_type, major, minor }`, where `access_type` is the device's type in the
/// low half (1 block, 2 char) and the access in the high half (1 mknod, 2 read, 4 write).
fn program(rules: &[DeviceRule]) -> Vec<u64> {
    let mut code = vec![
        instruction(0x61, 2, 1, 0, 0),      // r2 = access_type
        instruction(0xbc, 3, 2, 0, 0),      // w3 = w2
        instruction(0x54, 2, 0, 0, 0xffff), // w2 &= 0xffff: type
        instruction(0x74, 3, 0, 0, 16),     // w3 >>= 16: access
        instruction(0x61, 4, 1, 4, 0),      // r4 = major
        instruction(0x61, 5, 1, 8, 0),      // r5 = minor
    ];
    for rule in rules {
        let denied = !(rule.mknod as i32 | (rule.read as i32) << 1 | (rule.write as i32) << 2) & 7;
        let mut body = vec![instruction(0xbc, 6, 3, 0, 0), instruction(0x54, 6, 0, 0, denied)];
        let mut tests = vec![(2, if rule.block { 1 } else { 2 })];
        tests.extend(rule.major.map(|major| (4, major as i32)));
        tests.extend(rule.minor.map(|minor| (5, minor as i32)));
        let allow = [instruction(0xb7, 0, 0, 0, 1), instruction(0x95, 0, 0, 0, 0)];
        // Each failed test jumps behind `allow`; the first one is on the access left over in w6.
        let left = tests.len() + allow.len();
        body.push(instruction(0x56, 6, 0, left as i16, 0));
        for (n, (register, value)) in tests.iter().enumerate() {
            body.push(instruction(0x56, *register, 0, (left - n - 1) as i16, *value));
        }
        code.extend(body);
        code.extend(allow);
    }
    code.extend([instruction(0xb7, 0, 0, 0, 0), instruction(0x95, 0, 0, 0, 0)]);
    code
}

/// `struct bpf_insn`, little-endian.
fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    code as u64 | ((from << 4 | to) as u64) << 8 | (offset as u16 as u64) << 16 | (value as u32 as u64) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn allowed(program: &[u64], access_type: u32, major: u32, minor: u32) -> bool {
        let context = [access_type, major, minor];
        let mut registers = [0u64; 11];
        let mut pc = 0usize;
        loop {
            let i = program[pc];
            pc += 1;
            let (to, from) = ((i >> 8 & 15) as usize, (i >> 12 & 15) as usize);
            let (offset, value) = ((i >> 16) as i16, (i >> 32) as u32);
            match i as u8 {
                0x61 => registers[to] = context[offset as usize / 4] as u64,
                0xbc => registers[to] = registers[from] as u32 as u64,
                0x54 => registers[to] = (registers[to] as u32 & value) as u64,
                0x74 => registers[to] = (registers[to] as u32 >> value) as u64,
                0x56 if registers[to] as u32 != value => pc += offset as usize,
                0x56 => {}
                0xb7 => registers[to] = value as u64,
                0x95 => return registers[0] == 1,
                code => panic!("{code:#x}"),
            }
        }
    }

    #[test]
    fn default_devices() {
        let program = program(&DeviceRule::defaults());
        let access = |kind: u32, access: u32| kind | access << 16;
        for (access_type, major, minor, expected) in [
            (access(2, 6), 1, 3, true),
            (access(2, 2), 1, 9, true),
            (access(2, 2), 1, 1, false),
            (access(1, 2), 8, 0, false),
            (access(1, 1), 8, 0, true),
            (access(1, 3), 8, 0, false),
            (access(2, 6), 136, 7, true),
            (access(2, 6), 5, 1, false),
            (access(2, 6), 10, 200, false),
        ] {
            assert_eq!(allowed(&program, access_type, major, minor), expected, "{access_type:#x} {major}:{minor}");
        }
    }
}
