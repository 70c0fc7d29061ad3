//! Bounded directories. They need a kernel with `quota_v2` and a file system with projects, which most machines lack: of use in the
//! virtual machine, `cargo xtask vm`, with `--file /usr/sbin/mkfs.ext4` and the like.

use crate::machine::Machine;
use corten_runtime::{loop_device, project_quota};
use std::fs;
use std::process::{Command, Stdio};

pub const TESTS: &[crate::Test] = &[("quota_of_directories", quota_of_directories)];

fn quota_of_directories(m: &Machine) {
    let (image, point) = (m.base.join("disk"), m.base.join("disk.mounted"));
    fs::create_dir_all(&point).unwrap();
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(args[0]);
        command.args(&args[1..]).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
    };
    let (disk, mounted) = (image.to_str().unwrap(), point.to_str().unwrap());
    let made = run(&["mkfs.ext4", "-q", "-F", "-O", "quota,project", "-E", "quotatype=prjquota", disk]);
    // On a file system without projects there is no bound, and no error.
    let plain = m.base.join("plain");
    fs::create_dir_all(&plain).unwrap();
    if !project_quota::set(&plain, 1 << 20).unwrap() {
        fs::write(plain.join("f"), vec![1; 2 << 20]).unwrap();
    }
    project_quota::clear(&plain).unwrap();
    let device = loop_device::attach(&image, 0).unwrap();
    if !made || !run(&["mount", "-t", "ext4", "-o", "prjquota", device.to_str().unwrap(), mounted]) {
        println!("quota_of_directories: only without quota: no mkfs.ext4, or the kernel has no quota_v2");
        return loop_device::detach(&image).unwrap();
    }
    let volume = |name: &str| point.join(name);
    for name in ["a", "b"] {
        fs::create_dir(volume(name)).unwrap();
        assert!(project_quota::set(&volume(name), 1 << 20).unwrap());
    }
    fs::write(volume("a").join("fits"), vec![1; 900 << 10]).unwrap();
    fs::create_dir(volume("a").join("below")).unwrap();
    let error = fs::write(volume("a").join("below/more"), vec![1; 200 << 10]).unwrap_err();
    assert!(matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)), "{error}");
    fs::write(volume("b").join("other"), vec![1; 900 << 10]).unwrap();
    // It grows, and keeps its number.
    assert!(project_quota::set(&volume("a"), 4 << 20).unwrap());
    fs::write(volume("a").join("below/more"), vec![1; 2 << 20]).unwrap();
    // What is removed gives its number back.
    project_quota::clear(&volume("a")).unwrap();
    fs::remove_dir_all(volume("a")).unwrap();
    project_quota::clear(&volume("a")).unwrap();
    fs::create_dir(volume("c")).unwrap();
    assert!(project_quota::set(&volume("c"), 1 << 20).unwrap());
    assert!(fs::write(volume("c").join("f"), vec![1; 2 << 20]).is_err());
    assert!(run(&["umount", mounted]));
    loop_device::detach(&image).unwrap();
}
