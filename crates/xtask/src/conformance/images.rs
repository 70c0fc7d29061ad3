//! The suite's images, made here and served by a registry of this machine: no other is asked for anything.
//!
//! A root is a directory of Debian packages and of Go programs from the suite's own modules; the project's image builder makes an
//! image of it, under upstream's name. All images are kept in one store; a run's registry serves them (as links).

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use corten_testkit::registry::{self, Content, Registry};
use corten_testkit::{debian, run};
use serde_json::Value;

use super::suite::{home, image_program, module_dir};

/// How the roots below are made. Images that were made in another way are made anew.
const RECIPE: &str = include_str!("images.rs");

/// The registry whose images the suite names.
const UPSTREAM: &str = "registry.k8s.io";

/// An image of the suite. Names, entry points and commands are those of `test/images` and `test/utils/image/manifest.go`.
struct TestImage {
    names: &'static [&'static str],
    root: fn() -> Result<PathBuf>,
    entrypoint: &'static [&'static str],
    cmd: &'static [&'static str],
}

const IMAGES: &[TestImage] = &[
    TestImage {
        names: &["registry.k8s.io/e2e-test-images/agnhost:2.66.1", "registry.k8s.io/e2e-test-images/agnhost:2.55"],
        root: agnhost,
        entrypoint: &["/agnhost"],
        cmd: &["pause"],
    },
    TestImage {
        names: &["registry.k8s.io/e2e-test-images/glibc-dns-testing:2.1.1"],
        root: agnhost,
        entrypoint: &[],
        cmd: &["/bin/bash"],
    },
    TestImage {
        names: &["registry.k8s.io/e2e-test-images/busybox:1.37.0-2"],
        root: busybox,
        entrypoint: &[],
        cmd: &["sh"],
    },
    TestImage { names: &["registry.k8s.io/pause:3.10.2"], root: pause, entrypoint: &["/pause"], cmd: &[] },
    TestImage {
        names: &["registry.k8s.io/e2e-test-images/nginx:1.27.0-2"],
        root: nginx,
        entrypoint: &[],
        cmd: &["nginx", "-g", "daemon off;"],
    },
    TestImage {
        names: &["registry.k8s.io/e2e-test-images/nautilus:1.8"],
        root: nautilus,
        entrypoint: &["/agnhost"],
        cmd: &["test-webserver"],
    },
    TestImage {
        names: &["registry.k8s.io/e2e-test-images/kitten:1.8"],
        root: kitten,
        entrypoint: &["/agnhost"],
        cmd: &["test-webserver"],
    },
    TestImage {
        names: &["registry.k8s.io/e2e-test-images/nonewprivs:1.4"],
        root: nonewprivs,
        entrypoint: &[],
        cmd: &["nnp"],
    },
    TestImage {
        names: &["registry.k8s.io/e2e-test-images/sample-apiserver:1.29.2"],
        root: sample_apiserver,
        entrypoint: &["/sample-apiserver"],
        cmd: &[],
    },
    TestImage { names: &["registry.k8s.io/etcd:3.7.0-0"], root: etcd, entrypoint: &[], cmd: &["/usr/local/bin/etcd"] },
];

/// Makes what is missing; returns the data directory whose image store holds all images.
pub(super) fn prepare(corten: &Path) -> Result<PathBuf> {
    let store = home().join("store");
    for image in IMAGES {
        for name in image.names {
            let stamp = home().join("stamps").join(name.replace(['/', ':'], "_"));
            if fs::read_to_string(&stamp).is_ok_and(|s| s == RECIPE) {
                continue;
            }
            let root = (image.root)().with_context(|| format!("the root of {name}"))?;
            build(corten, &store, name, &root, image)?;
            fs::create_dir_all(home().join("stamps"))?;
            fs::write(&stamp, RECIPE)?;
        }
    }
    Ok(store)
}

fn build(corten: &Path, store: &Path, name: &str, root: &Path, image: &TestImage) -> Result<()> {
    eprintln!("making image {name}");
    let mut command = Command::new(corten);
    command.args(["image", "build", "--name", "conformance-images", "-t", name, "--data-dir"]).arg(store).arg(root);
    command.args(image.entrypoint.iter().map(|word| format!("--entrypoint={word}")));
    command.args(image.cmd.iter().map(|word| format!("--cmd={word}")));
    // As the images' bases have it: programs are found without a shell's help.
    command.arg("--env=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    run(&mut command).map(drop)
}

/// Serves all images from a registry on this machine: a run pulls them as it would from upstream's.
pub(super) fn serve(store: &Path) -> Result<Registry> {
    let storage = home().join("registry");
    if storage.exists() {
        fs::remove_dir_all(&storage)?;
    }
    let images = store.join("images");
    let index: Value = serde_json::from_slice(&fs::read(images.join("index.json"))?)?;
    for entry in index["manifests"].as_array().into_iter().flatten() {
        let name = entry["annotations"]["io.containerd.image.name"].as_str().unwrap_or_default();
        let Some((repository, tag)) = name.strip_prefix(&format!("{UPSTREAM}/")).and_then(|n| n.rsplit_once(':'))
        else {
            continue;
        };
        let file = |digest: &str| images.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
        let digest = entry["digest"].as_str().context("an index entry has a digest")?;
        let manifest: Value = serde_json::from_slice(&fs::read(file(digest))?)?;
        for blob in manifest["layers"].as_array().into_iter().flatten().chain([&manifest["config"]]) {
            let blob = blob["digest"].as_str().context("a descriptor has a digest")?;
            registry::put_blob(&storage, repository, blob, Content::File(&file(blob)))?;
        }
        registry::put_manifest(&storage, repository, Some(tag), digest, Content::File(&file(digest)))?;
    }
    Registry::start(&storage, &[], &[])
}

/// Tells a new cluster's node that the registry stands for upstream's, and that there is no other.
pub(super) fn give(registry: &Registry, data: &Path) -> Result<()> {
    let dir = data.join("registries").join(UPSTREAM);
    fs::create_dir_all(&dir)?;
    let hosts = format!("server = \"\"\n[host.\"http://{}\"]\n", registry.address);
    fs::write(dir.join("hosts.toml"), hosts).map_err(Into::into)
}

/// An empty directory for a root.
fn fresh(name: &str) -> Result<PathBuf> {
    let dir = home().join("roots").join(name);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// A copy of a root that is shared, to add to.
fn copy_of(root: &Path, name: &str) -> Result<PathBuf> {
    let dir = fresh(name)?;
    run(Command::new("cp").arg("-a").arg(root.join(".")).arg(&dir))?;
    Ok(dir)
}

fn install(program: &Path, at: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(at.parent().context("a program lies in a directory")?)?;
    fs::copy(program, at)?;
    fs::set_permissions(at, fs::Permissions::from_mode(mode)).map_err(Into::into)
}

/// What every root has: users, a /tmp that all may write to.
fn finish(dir: &Path) -> Result<()> {
    for part in ["etc", "tmp", "root", "var/tmp"] {
        fs::create_dir_all(dir.join(part))?;
    }
    for part in ["tmp", "var/tmp"] {
        fs::set_permissions(dir.join(part), fs::Permissions::from_mode(0o1777))?;
    }
    let user = "user-defined-in-image";
    let passwd = format!(
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nwww-data:x:33:33::/var/www:/bin/false\n\
         {user}:x:1000:1000::/home/{user}:/bin/sh\n"
    );
    fs::write(dir.join("etc/passwd"), passwd)?;
    let group =
        format!("root:x:0:\nnogroup:x:65534:\nwww-data:x:33:\n{user}:x:1000:\ngroup-defined-in-image:x:50000:{user}\n");
    fs::write(dir.join("etc/group"), group).map_err(Into::into)
}

fn agnhost_program() -> Result<PathBuf> {
    image_program("k8s.io/kubernetes/test/images/agnhost", "agnhost")
}

fn test_images() -> Result<PathBuf> {
    Ok(module_dir("k8s.io/kubernetes")?.join("test/images"))
}

/// `test/images/agnhost/Dockerfile`, on Debian.
fn agnhost() -> Result<PathBuf> {
    let packages = ["bash", "dash", "coreutils", "curl", "bind9-dnsutils", "netcat-openbsd", "iproute2", "iperf"];
    let more = [
        "util-linux",
        "socat",
        "grep",
        "sed",
        "hostname",
        "iputils-ping",
        "findutils",
        "mawk",
        "tar",
        "procps",
        "libc-bin",
    ];
    let base = debian::rootfs("agnhost", &[&packages[..], &more[..]].concat())?;
    let dir = copy_of(&base, "agnhost")?;
    install(&agnhost_program()?, &dir.join("agnhost"), 0o755)?;
    symlink("agnhost", dir.join("agnhost-2"))?;
    fs::create_dir_all(dir.join("uploads"))?;
    for file in ["localhost.crt", "localhost.key"] {
        install(&test_images()?.join("agnhost/porter").join(file), &dir.join(file), 0o644)?;
    }
    let sh = dir.join("usr/bin/sh");
    if fs::symlink_metadata(&sh).is_err() {
        symlink("dash", sh)?;
    }
    // Without it glibc asks DNS first and never looks into /etc/hosts.
    fs::write(dir.join("etc/nsswitch.conf"), "hosts: files dns\n")?;
    // Debian chooses these in maintainer scripts, which do not run here.
    for (link, target) in [("nc", "nc.openbsd"), ("awk", "mawk")] {
        let link = dir.join("usr/bin").join(link);
        if fs::symlink_metadata(&link).is_err() {
            symlink(target, link)?;
        }
    }
    // Upstream's root has busybox for what no package brings (wget, nslookup without options, …).
    let busybox = debian::busybox()?;
    install(&busybox.join("bin/busybox"), &dir.join("usr/bin/busybox"), 0o755)?;
    for applet in fs::read_dir(busybox.join("bin"))?.flatten().map(|e| e.file_name()) {
        let present = ["usr/bin", "usr/sbin"].iter().any(|d| fs::symlink_metadata(dir.join(d).join(&applet)).is_ok());
        if !present {
            symlink("busybox", dir.join("usr/bin").join(&applet))?;
        }
    }
    finish(&dir)?;
    Ok(dir)
}

fn busybox() -> Result<PathBuf> {
    let dir = copy_of(&debian::busybox()?, "busybox")?;
    // Upstream's names this user's home, and some tests list directories that every root has.
    for part in ["home", "usr/bin", "usr/sbin", "sbin", "var", "mnt"] {
        fs::create_dir_all(dir.join(part))?;
    }
    // Upstream's shell hands variables on whose names are no identifiers, and complains in ash's words. Debian's has no such shell:
    // `/bin/sh` is ash, and `sh` as it is found in PATH is bash, which hands all variables on.
    let bash = home().join("bash-static");
    fs::create_dir_all(&bash)?;
    debian::unpack("bash-static", &bash)?;
    let found = ["bin/bash-static", "usr/bin/bash-static"].map(|p| bash.join(p)).into_iter().find(|p| p.exists());
    let shell = dir.join("usr/bin/sh");
    install(&found.context("bash-static holds no shell")?, &shell, 0o755)?;
    finish(&dir)?;
    Ok(dir)
}

fn pause() -> Result<PathBuf> {
    let dir = fresh("pause")?;
    install(&image_program("./pause", "pause")?, &dir.join("pause"), 0o755)?;
    finish(&dir)?;
    Ok(dir)
}

fn nginx() -> Result<PathBuf> {
    let base = debian::rootfs("nginx", &["nginx-light", "bash", "dash", "coreutils", "curl"])?;
    let dir = copy_of(&base, "nginx")?;
    let sh = dir.join("usr/bin/sh");
    if fs::symlink_metadata(&sh).is_err() {
        symlink("dash", sh)?;
    }
    for part in ["var/log/nginx", "var/lib/nginx", "run", "var/www/html"] {
        fs::create_dir_all(dir.join(part))?;
    }
    let index = dir.join("usr/share/nginx/html/index.html");
    if index.exists() {
        fs::copy(index, dir.join("var/www/html/index.html"))?;
    }
    finish(&dir)?;
    Ok(dir)
}

fn nautilus() -> Result<PathBuf> {
    update_demo("nautilus")
}

fn kitten() -> Result<PathBuf> {
    let dir = update_demo("kitten")?;
    // Upstream's root is agnhost's: the test of image volumes knows it by this file.
    fs::write(dir.join("etc/os-release"), "NAME=\"Alpine Linux\"\nID=alpine\n")?;
    Ok(dir)
}

/// A web server with a picture: `test/images/{nautilus,kitten}`.
fn update_demo(name: &str) -> Result<PathBuf> {
    let dir = fresh(name)?;
    install(&agnhost_program()?, &dir.join("agnhost"), 0o755)?;
    for file in [format!("{name}.jpg"), "data.json".to_owned()] {
        install(&test_images()?.join(name).join("html").join(&file), &dir.join(&file), 0o644)?;
    }
    finish(&dir)?;
    Ok(dir)
}

fn nonewprivs() -> Result<PathBuf> {
    let dir = copy_of(&debian::busybox()?, "nonewprivs")?;
    let program = image_program("k8s.io/kubernetes/test/images/nonewprivs", "nnp")?;
    install(&program, &dir.join("usr/local/bin/nnp"), 0o6755)?;
    finish(&dir)?;
    Ok(dir)
}

fn sample_apiserver() -> Result<PathBuf> {
    let dir = fresh("sample-apiserver")?;
    install(&image_program("k8s.io/sample-apiserver", "sample-apiserver")?, &dir.join("sample-apiserver"), 0o755)?;
    finish(&dir)?;
    Ok(dir)
}

fn etcd() -> Result<PathBuf> {
    let dir = fresh("etcd")?;
    install(&image_program("go.etcd.io/etcd/server/v3", "etcd")?, &dir.join("usr/local/bin/etcd"), 0o755)?;
    finish(&dir)?;
    Ok(dir)
}
