//! Root directories made of Debian packages, for images.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::tools::as_root;
use crate::{cache_dir, run, text};

/// A root directory with `packages` and everything that they depend on, unpacked (no maintainer script runs).
///
/// # Errors
/// If a package cannot be fetched or unpacked.
pub fn rootfs(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let dir = cache_dir().join("rootfs").join(name);
    let (done, recipe) = (dir.with_extension("done"), packages.join(" "));
    if fs::read_to_string(&done).is_ok_and(|made| made == recipe) {
        return Ok(dir);
    }
    eprintln!("making a root directory of Debian packages: {recipe}");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    // The links of a merged /usr, as Debian has them since 12.
    for part in ["bin", "sbin", "lib", "lib64"] {
        fs::create_dir_all(dir.join("usr").join(part))?;
        std::os::unix::fs::symlink(Path::new("usr").join(part), dir.join(part))?;
    }
    for part in ["etc", "tmp", "proc", "sys", "dev", "run", "var/lib", "var/log"] {
        fs::create_dir_all(dir.join(part))?;
    }
    for package in closure(packages)? {
        unpack(&package, &dir)?;
    }
    fs::write(dir.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")?;
    fs::write(dir.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    run(Command::new("ldconfig").arg("-r").arg(&dir)).ok();
    fs::write(done, recipe)?;
    Ok(dir)
}

/// A root directory of Debian's static busybox with links for its applets.
///
/// # Errors
/// If the package cannot be fetched.
pub fn busybox() -> Result<PathBuf> {
    let dir = cache_dir().join("rootfs/busybox");
    let program = dir.join("bin/busybox");
    if dir.join("bin/sh").exists() {
        return Ok(dir);
    }
    for part in ["bin", "etc", "tmp", "root"] {
        fs::create_dir_all(dir.join(part))?;
    }
    let unpacked = cache_dir().join("busybox-static");
    fs::create_dir_all(&unpacked)?;
    unpack("busybox-static", &unpacked)?;
    let found = ["bin/busybox", "usr/bin/busybox"].map(|p| unpacked.join(p)).into_iter().find(|p| p.exists());
    fs::copy(found.context("busybox-static holds no busybox")?, &program)?;
    for applet in text(Command::new(&program).arg("--list"))?.lines().filter(|a| *a != "busybox") {
        let link = dir.join("bin").join(applet);
        if !link.exists() {
            std::os::unix::fs::symlink("busybox", link)?;
        }
    }
    fs::write(dir.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")?;
    fs::write(dir.join("etc/group"), "root:x:0:\n")?;
    Ok(dir)
}

/// Packages, by the beginning of their names, that unpacked roots do without.
const UNUSED: &[&str] = &[
    "debconf", "dpkg", "perl", "libperl", "libllvm", "libz3", "locales", "python", "adduser", "ucf", "systemd", "gdb",
];

/// The packages and all that they depend on, without recommendations.
fn closure(packages: &[&str]) -> Result<BTreeSet<String>> {
    let depends = |update: bool| {
        if update {
            run(as_root("apt-get").arg("update"))?;
        }
        let mut command = Command::new("apt-cache");
        command.args(["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"]);
        text(command.args(["--no-replaces", "--no-enhances"]).args(packages))
    };
    let listing = depends(false).or_else(|_| depends(true))?;
    let names = listing.lines().filter(|l| !l.starts_with([' ', '<', '|'])).map(str::to_owned);
    // Only maintainer scripts, or parts that a test does not use, need these.
    let unused = |n: &String| UNUSED.iter().any(|u| n.starts_with(u));
    Ok(names.filter(|n| !n.contains('<') && !unused(n)).collect())
}

/// Fetches a package file (kept) and unpacks it into a directory.
///
/// # Errors
/// If it cannot be fetched or unpacked.
pub fn unpack(package: &str, into: &Path) -> Result<()> {
    let store = cache_dir().join("deb");
    fs::create_dir_all(&store)?;
    let prefix = format!("{package}_");
    let find = || -> Result<Option<PathBuf>> {
        let entries = fs::read_dir(&store)?.flatten().map(|e| e.path());
        Ok(entries.into_iter().find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix))))
    };
    if find()?.is_none() {
        let download = || run(Command::new("apt-get").args(["download", package]).current_dir(&store));
        if download().is_err() {
            run(as_root("apt-get").arg("update"))?;
            download()?;
        }
    }
    let file = find()?.with_context(|| format!("apt-get download {package} left no file"))?;
    // dpkg-deb -x would replace the links of a merged /usr by directories: unpack through tar, which follows them.
    let mut contents =
        Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&file).stdout(std::process::Stdio::piped()).spawn()?;
    let input = contents.stdout.take().context("dpkg-deb has a stdout")?;
    run(Command::new("tar").args(["-x", "--keep-directory-symlink", "-C"]).arg(into).stdin(input))?;
    contents.wait()?;
    Ok(())
}
