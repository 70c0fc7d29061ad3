//! A small file system of a test's own.

use std::fs;
use std::path::PathBuf;

/// Gone with the test.
pub struct Tmpfs(pub PathBuf);

impl Tmpfs {
    /// Makes the directory and mounts it there. `options` are tmpfs's, as `size=400k`.
    pub fn mount(at: PathBuf, options: &str) -> Tmpfs {
        fs::create_dir(&at).unwrap();
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount("corten-test", &at, "tmpfs", rustix::mount::MountFlags::empty(), options.as_c_str())
            .unwrap();
        Tmpfs(at)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}
