use super::*;

/// Runs a program as the kernel would.
fn run(filter: &Filter, number: u32, args: [u64; 6]) -> u32 {
    let arch = if cfg!(target_arch = "x86_64") { 0xc000_003eu32 } else { 0xc000_00b7 };
    let mut data = [number.to_le_bytes(), arch.to_le_bytes(), [0; 4], [0; 4]].concat();
    data.extend(args.iter().flat_map(|a| a.to_le_bytes()));
    let (mut pc, mut a) = (0usize, 0u32);
    loop {
        let i = &filter.program[pc];
        pc += 1;
        let branch = |taken: bool| if taken { i.jt as usize } else { i.jf as usize };
        match i.code {
            0x20 => a = u32::from_le_bytes(data[i.k as usize..][..4].try_into().unwrap()),
            0x54 => a &= i.k,
            0x05 => pc += i.k as usize,
            0x15 => pc += branch(a == i.k),
            0x25 => pc += branch(a > i.k),
            0x35 => pc += branch(a >= i.k),
            0x06 => return i.k,
            code => panic!("instruction {code:#x}"),
        }
    }
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

fn errno(n: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | n as u32
}

#[test]
fn runtime_default() {
    let plain = filter(&Seccomp::RuntimeDefault, CapSet::default_set()).unwrap().unwrap();
    let admin = filter(&Seccomp::RuntimeDefault, CapSet::ALL).unwrap().unwrap();
    let on = |filter: &Filter, number: i64, first: u64| run(filter, number as u32, [first, 0, 0, 0, 0, 0]);
    assert_eq!(on(&plain, libc::SYS_read, 0), ALLOW);
    assert_eq!(on(&plain, libc::SYS_execve, 0), ALLOW);
    assert_eq!(on(&plain, libc::SYS_chroot, 0), ALLOW);
    assert_eq!(on(&plain, libc::SYS_mount, 0), errno(libc::EPERM));
    assert_eq!(on(&plain, libc::SYS_keyctl, 0), errno(libc::EPERM));
    assert_eq!(on(&plain, libc::SYS_io_uring_setup, 0), errno(libc::EPERM));
    assert_eq!(on(&plain, libc::SYS_clone3, 0), errno(libc::ENOSYS));
    assert_eq!(on(&plain, libc::SYS_clone, libc::SIGCHLD as u64), ALLOW);
    assert_eq!(on(&plain, libc::SYS_clone, libc::CLONE_NEWUSER as u64), errno(libc::EPERM));
    for (family, verdict) in
        [(libc::AF_INET, ALLOW), (libc::AF_ALG, errno(1)), (39, ALLOW), (libc::AF_VSOCK, errno(1)), (44, ALLOW)]
    {
        assert_eq!(on(&plain, libc::SYS_socket, family as u64), verdict, "family {family}");
    }
    assert_eq!(on(&plain, libc::SYS_socket, 1 << 32), ALLOW);
    assert_eq!(on(&plain, libc::SYS_personality, 0x20008), ALLOW);
    assert_eq!(on(&plain, libc::SYS_personality, 0x40000), errno(1));
    assert_eq!(on(&plain, libc::SYS_reboot, 0), errno(1));
    assert_eq!(on(&admin, libc::SYS_mount, 0), ALLOW);
    assert_eq!(on(&admin, libc::SYS_clone3, 0), ALLOW);
    #[cfg(target_arch = "x86_64")]
    assert_eq!(run(&plain, 0x4000_0000, [0; 6]), errno(libc::ENOSYS));
    assert!(plain.program.len() < 400, "{}", plain.program.len());
}

#[test]
fn profiles_in_json() {
    let compiled = |json: &str| compile::compile(&serde_json::from_str(json).unwrap());
    let filter = compiled(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":13},
            {"names":["kill"],"action":"SCMP_ACT_KILL_PROCESS","args":[{"index":1,"value":9,"op":"SCMP_CMP_EQ"},{"index":0,"value":1,"op":"SCMP_CMP_NE"}]},
            {"names":["lseek"],"action":"SCMP_ACT_ERRNO","args":[{"index":1,"value":5,"op":"SCMP_CMP_LE"},{"index":1,"value":4294967296,"op":"SCMP_CMP_GE"}]}]}"#,
    )
    .unwrap();
    assert_eq!(run(&filter, libc::SYS_mkdirat as u32, [0; 6]), errno(13));
    assert_eq!(run(&filter, libc::SYS_kill as u32, [2, 9, 0, 0, 0, 0]), libc::SECCOMP_RET_KILL_PROCESS);
    assert_eq!(run(&filter, libc::SYS_kill as u32, [1, 9, 0, 0, 0, 0]), ALLOW);
    assert_eq!(run(&filter, libc::SYS_kill as u32, [2, 15, 0, 0, 0, 0]), ALLOW);
    for (offset, verdict) in
        [(5, errno(1)), (6, ALLOW), (1 << 32, errno(1)), ((1 << 32) - 1, ALLOW), (u64::MAX, errno(1))]
    {
        assert_eq!(run(&filter, libc::SYS_lseek as u32, [0, offset, 0, 0, 0, 0]), verdict, "{offset}");
    }
    for (json, message) in [
        (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "unknown action \"SCMP_ACT_NOTIFY\""),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["no_such"],"action":"SCMP_ACT_ERRNO"}]}"#,
            "unknown system call \"no_such\"",
        ),
    ] {
        assert_eq!(compiled(json).err().unwrap(), message);
    }
}
