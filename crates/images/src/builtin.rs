//! The built-in image: this very executable, what it loads, and links by which it is called. It needs no registry and hardly any
//! disk: the files are the host's own, linked where the file system allows it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::build::config_blob;
use crate::error::At;
use crate::oci::{self, Descriptor};
use crate::store::remove_any;
use crate::{Digest, Image, ImageConfig, ImageError, ImageStore, Reference, Result, elf};

/// What the built-in image is made of.
#[derive(Clone, Debug)]
pub struct Builtin<'a> {
    /// The executable, which is the running one.
    pub executable: &'a Path,
    /// Names below `/bin` that lead to the executable.
    pub applets: &'a [&'a str],
    /// The images that are made of it: one root, several ways to run. Never empty.
    pub images: &'a [BuiltinImage<'a>],
}

/// One way to run the built-in root.
#[derive(Clone, Copy, Debug)]
pub struct BuiltinImage<'a> {
    /// The image's name.
    pub name: &'a str,
    /// What runs, with the pod's arguments or else `cmd` behind it.
    pub entrypoint: &'a [&'a str],
    /// How it runs when a pod does not say.
    pub cmd: &'a [&'a str],
    /// `NAME=value`, besides PATH.
    pub env: &'a [&'a str],
}

/// Libraries that are loaded by name at run time, where they exist: how libc looks up hosts and users.
const LOADED_LATE: &[&str] = &["libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"];

/// Small files that programs expect.
const FILES: &[(&str, &str)] = &[
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
];

const DIRS: &[(&str, u32)] = &[
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
];

impl ImageStore {
    /// Makes the built-in images, unless they are there and of this executable. Other names that led to an older one then lead to
    /// the first.
    pub fn ensure_builtin(&self, builtin: &Builtin<'_>) -> Result<Image> {
        let names: Vec<String> =
            builtin.images.iter().map(|image| Ok(Reference::parse(image.name)?.name())).collect::<Result<_>>()?;
        let own = names.first().ok_or_else(|| ImageError::Unsupported("a built-in root without an image".into()))?;
        let files = files(builtin.executable)?;
        let identity = identity(builtin, &files)?;
        let complete = self.layer_path(&identity).exists();
        if complete && names.iter().all(|name| self.resolve(name).is_ok_and(|image| is_made_of(&image, &identity))) {
            return self.resolve(own);
        }
        {
            let _content = self.content()?;
            if !complete {
                let target = self.temporary();
                let made = lay_out(&target, builtin, &files).and_then(|()| self.adopt_layer(&target, &identity));
                made.inspect_err(|_| drop(remove_any(&target)))?;
            }
            let old = self.list()?.into_iter().filter(|image| is_builtin(image) && !is_made_of(image, &identity));
            let strays: Vec<String> = old.map(|image| image.name).filter(|name| !names.contains(name)).collect();
            for (i, (image, name)) in builtin.images.iter().zip(&names).enumerate() {
                let mut names = vec![name.clone()];
                names.extend(strays.iter().filter(|_| i == 0).cloned());
                let layer = Descriptor::new(oci::MEDIA_DIRECTORY, identity.clone(), 0);
                self.add_image(&config_blob(image.config(), identity.clone()), vec![layer], &names)?;
            }
        }
        self.collect_garbage()?;
        self.resolve(own)
    }
}

impl BuiltinImage<'_> {
    fn config(&self) -> ImageConfig {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<String>>();
        let mut env = vec!["PATH=/bin".to_owned()];
        env.extend(owned(self.env));
        ImageConfig {
            entrypoint: owned(self.entrypoint),
            cmd: owned(self.cmd),
            env,
            working_dir: "/".into(),
            ..ImageConfig::default()
        }
    }
}

/// Whether an image is made of an executable of ours, and not of layers.
pub fn is_builtin(image: &Image) -> bool {
    image.layers.iter().any(|layer| layer.media_type == oci::MEDIA_DIRECTORY)
}

fn is_made_of(image: &Image, identity: &Digest) -> bool {
    is_builtin(image) && image.layers.iter().all(|layer| layer.diff_id == *identity)
}

/// A host's file, and where it lies in the image.
struct Shared {
    from: PathBuf,
    to: PathBuf,
}

/// The executable, its dynamic linker and all libraries.
fn files(executable: &Path) -> Result<Vec<Shared>> {
    let mut files = vec![Shared { from: executable.to_owned(), to: "corten".into() }];
    let needs = elf::needs(executable)?;
    let Some(interpreter) = needs.interpreter else { return Ok(files) };
    files.push(Shared { from: interpreter.clone().into(), to: inside(Path::new(&interpreter)) });
    let dirs = library_dirs()?;
    let find = |name: &str| dirs.iter().map(|dir| dir.join(name)).find(|path| path.exists());
    let mut wanted: Vec<(String, bool)> = needs.libraries.into_iter().map(|name| (name, true)).collect();
    wanted.extend(LOADED_LATE.iter().map(|&name| (name.to_owned(), false)));
    let mut seen = BTreeSet::new();
    while let Some((name, required)) = wanted.pop() {
        if !seen.insert(name.clone()) || interpreter.ends_with(&format!("/{name}")) {
            continue;
        }
        match find(&name) {
            Some(path) => {
                wanted.extend(elf::needs(&path)?.libraries.into_iter().map(|name| (name, true)));
                files.push(Shared { to: inside(&path), from: path });
            }
            None if required => {
                let why = format!("the built-in image needs {name}, which is in none of the usual directories");
                return Err(ImageError::Unsupported(why));
            }
            None => {}
        }
    }
    Ok(files)
}

/// Where the libraries of this process came from, then where they usually are.
fn library_dirs() -> Result<Vec<PathBuf>> {
    let maps = Path::new("/proc/self/maps");
    let text = fs::read_to_string(maps).at("read", maps)?;
    let loaded =
        text.lines().filter_map(|line| line.find('/').map(|at| &line[at..])).filter(|path| path.contains(".so"));
    let loaded = loaded.filter_map(|path| Path::new(path).parent()).map(Path::to_owned);
    let arch = std::env::consts::ARCH;
    let usual = [format!("/lib/{arch}-linux-gnu"), format!("/usr/lib/{arch}-linux-gnu")];
    let usual = usual.into_iter().chain(["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(String::from));
    let mut dirs: Vec<PathBuf> = Vec::new();
    for dir in loaded.chain(usual.map(PathBuf::from)) {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    Ok(dirs)
}

fn inside(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

/// What tells this image from one of another executable, without reading all of it.
fn identity(builtin: &Builtin<'_>, files: &[Shared]) -> Result<Digest> {
    let mut text = format!("corten built-in image, layout 2\n{:?}\n{:?}\n", builtin.applets, builtin.images);
    for file in files {
        let meta = fs::metadata(&file.from).at("read", &file.from)?;
        let place = (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
        text.push_str(&format!("{} {place:?}\n", file.to.display()));
    }
    Ok(Digest::of(text.as_bytes()))
}

fn lay_out(target: &Path, builtin: &Builtin<'_>, files: &[Shared]) -> Result<()> {
    make_dir(target, 0o755)?;
    for (dir, mode) in DIRS {
        make_dir(&target.join(dir), *mode)?;
    }
    for (name, text) in FILES {
        let path = target.join(name);
        fs::write(&path, text).at("write", &path)?;
        set_mode(&path, 0o644)?;
    }
    for file in files {
        let to = target.join(&file.to);
        if let Some(parent) = to.parent().filter(|parent| !parent.exists()) {
            fs::create_dir_all(parent).at("create", parent)?;
        }
        share(&file.from, &to)?;
    }
    for applet in builtin.applets {
        let path = target.join("bin").join(applet);
        symlink("/corten", &path).at("link", &path)?;
    }
    Ok(())
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    fs::create_dir(path).at("create", path)?;
    set_mode(path, mode)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).at("change the mode of", path)
}

/// The same content under another name: as a clone of its blocks, as a hard link, or else as a copy.
fn share(from: &Path, to: &Path) -> Result<()> {
    let source = File::open(from).at("open", from)?;
    let copy = File::create_new(to).at("create", to)?;
    if rustix::fs::ioctl_ficlone(&copy, &source).is_ok() {
        return set_mode(to, 0o755);
    }
    drop(copy);
    fs::remove_file(to).at("replace", to)?;
    // A link is the file itself: it serves only if everyone may run it as it is. Its name may be a link of its own.
    let real = fs::canonicalize(from).at("open", from)?;
    let readable = source.metadata().at("read", from)?.mode() & 0o555 == 0o555;
    if readable && fs::hard_link(&real, to).is_ok() {
        return Ok(());
    }
    fs::copy(&real, to).at("write", to)?;
    set_mode(to, 0o755)
}
