//! Bounded directories. They need a kernel with `quota_v2` and a file system with projects, which most machines lack: of use in the
//! virtual machine, `cargo xtask vm`, with `--file /usr/sbin/mkfs.ext4` and the like.

use crate::machine::Machine;
use corten_runtime::*;
use std::fs;
use std::path::Path;
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
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bounds_hold(m, &point)));
    m.runtime.remove_sandbox("s").unwrap();
    assert!(run(&["umount", mounted]));
    loop_device::detach(&image).unwrap();
    if let Err(failure) = checked {
        std::panic::resume_unwind(failure);
    }
}

fn bounds_hold(m: &Machine, point: &Path) {
    m.sandbox("s");
    let volume = |name: &str| point.join(name);
    // The kernel lets who has CAP_SYS_RESOURCE write beyond; containers have not.
    let writes = |id: &str, at: &str, kib: u64| {
        let script = format!("mkdir -p /v/below; dd if=/dev/zero of=/v/{at} bs=1k count={kib} 2>&1 | tail -n 1");
        let mut spec = m.spec("s", id, &script);
        spec.mounts = vec![Mount {
            destination: "/v".into(),
            source: MountSource::Bind(volume(&id[..1])),
            read_only: ReadOnly::No,
            propagation: Propagation::Private,
        }];
        let out = m.output(&spec);
        assert!(!out.is_empty());
        let written = fs::metadata(volume(&id[..1]).join(at)).map_or(0, |meta| meta.len());
        written == kib << 10
    };
    for name in ["a", "b"] {
        fs::create_dir(volume(name)).unwrap();
        assert!(project_quota::set(&volume(name), 1 << 20).unwrap());
    }
    assert!(writes("a1", "fits", 900));
    assert!(!writes("a2", "below/more", 200), "beyond the bound");
    assert!(writes("b1", "other", 900), "each has its own");
    // It grows, and keeps its number.
    assert!(project_quota::set(&volume("a"), 4 << 20).unwrap());
    assert!(writes("a3", "below/again", 2 << 10));
    // What is removed gives its number back.
    project_quota::clear(&volume("a")).unwrap();
    fs::remove_dir_all(volume("a")).unwrap();
    project_quota::clear(&volume("a")).unwrap();
    fs::create_dir(volume("c")).unwrap();
    assert!(project_quota::set(&volume("c"), 1 << 20).unwrap());
    assert!(!writes("c1", "f", 2 << 10));
}
