//! image: the content of an image, unpacked, as a volume that nobody can write to or run set-uid programs from.
//!
//! Upstream leaves the mount to the container runtime: `internal/cri/server/container_image_mount.go` of containerd 2.

use std::ffi::CString;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountFlags, mount};

use crate::error::At;
use crate::{Result, is_mount_point};

/// Mounts an image's layers, the topmost first, at `target`, which is made. What is mounted there stays. Needs root.
pub fn image_volume(target: &Path, layers: &[PathBuf]) -> Result<()> {
    // Containers of a pod start side by side.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    fs::create_dir_all(target).at("create", target)?;
    if is_mount_point(target)? {
        return Ok(());
    }
    let open = |path: &Path| {
        openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at("open", path)
    };
    let mut layers = layers.iter().map(|path| open(path)).collect::<Result<Vec<_>>>()?;
    if layers.len() == 1 {
        // Overlay wants two: the empty directory that is mounted over is one.
        layers.push(open(target)?);
    }
    // Descriptors are short, and need no escaping.
    let names: Vec<String> = layers.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect();
    let options = CString::new(format!("lowerdir={}", names.join(":"))).expect("it is made of numbers");
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("overlay", target, "overlay", flags, options.as_c_str()).at("mount", target)
}
