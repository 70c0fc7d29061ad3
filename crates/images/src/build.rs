//! Building: a directory becomes an image of one layer.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{BufWriter, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use crate::digest::HashingWriter;
use crate::error::At;
use crate::oci::{self, ConfigFile, Descriptor, RootFs};
use crate::store::{Imported, parse};
use crate::{Digest, ImageConfig, ImageError, ImageStore, Reference, Result};

/// A directory may say here how its image runs: an OCI configuration's `config` object. The file itself stays out.
pub const CONFIG_FILE: &str = "corten-image.json";

/// How to build an image.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// How the image runs; `None`: as `corten-image.json` in the directory, or beside it, says.
    pub config: Option<ImageConfig>,
    /// The owner of all files; `None`: as they are, but root's if this process is not root's itself.
    pub owner: Option<(u32, u32)>,
}

impl ImageStore {
    /// Makes an image named `name` of the content of `dir`.
    pub fn build(&self, dir: &Path, name: &str, options: &BuildOptions) -> Result<Imported> {
        let name = Reference::parse(name)?.name();
        let config = match &options.config {
            Some(config) => config.clone(),
            None => config_of(dir)?,
        };
        let owner = options.owner.or_else(|| (!rustix::process::geteuid().is_root()).then_some((0, 0)));
        let _content = self.content()?;
        let partial = self.temporary();
        let written = write_layer(dir, &partial, owner);
        let (digest, size) = written.inspect_err(|_| drop(fs::remove_file(&partial)))?;
        self.adopt_blob(&partial, &digest)?;
        let layer = Descriptor::new(oci::MEDIA_LAYER, digest.clone(), size);
        self.add_image(&config_blob(config, digest), vec![layer], &[name])
    }

    /// Gives an image another name.
    pub fn tag(&self, reference: &str, name: &str) -> Result<()> {
        let image = self.resolve(reference)?;
        let size = fs::metadata(self.blob_path(&image.manifest)).at("read", &self.blob_path(&image.manifest))?.len();
        let manifest = Descriptor::new(oci::MEDIA_MANIFEST, image.manifest, size);
        self.set_names(&[Reference::parse(name)?.name()], &manifest)
    }
}

/// The configuration of an image of one layer, made now.
pub(crate) fn config_blob(config: ImageConfig, diff_id: Digest) -> Vec<u8> {
    let now = jiff::Timestamp::now();
    let file = ConfigFile {
        created: Some(jiff::fmt::strtime::format("%Y-%m-%dT%H:%M:%SZ", now).unwrap_or_else(|_| now.to_string())),
        architecture: oci::architecture().into(),
        os: "linux".into(),
        config,
        rootfs: RootFs { kind: "layers".into(), diff_ids: vec![diff_id] },
    };
    serde_json::to_vec(&file).expect("a configuration is plain data")
}

fn config_of(dir: &Path) -> Result<ImageConfig> {
    let beside = dir.canonicalize().at("open", dir)?.parent().map(|parent| parent.join(CONFIG_FILE));
    for path in [Some(dir.join(CONFIG_FILE)), beside].into_iter().flatten() {
        match fs::read(&path) {
            Ok(bytes) => return parse(&path, &bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).at("read", &path),
        }
    }
    Ok(ImageConfig::default())
}

fn write_layer(dir: &Path, to: &Path, owner: Option<(u32, u32)>) -> Result<(Digest, u64)> {
    let file = BufWriter::with_capacity(1 << 17, File::create_new(to).at("create", to)?);
    let mut layer =
        LayerWriter { tar: Builder::new(HashingWriter::new(file)), to, root: dir, owner, linked: HashMap::new() };
    layer.children(Path::new(""))?;
    let writer = layer.tar.into_inner().at("write", to)?;
    let size = writer.count;
    let (digest, file) = writer.finish();
    let file = file.into_inner().map_err(|error| ImageError::io("write", to, error.into_error()))?;
    file.sync_all().at("write", to)?;
    Ok((digest, size))
}

struct LayerWriter<'a> {
    tar: Builder<HashingWriter<BufWriter<File>>>,
    to: &'a Path,
    root: &'a Path,
    owner: Option<(u32, u32)>,
    /// The first name of each file that has several.
    linked: HashMap<(u64, u64), PathBuf>,
}

impl LayerWriter<'_> {
    fn children(&mut self, dir: &Path) -> Result<()> {
        let full = self.root.join(dir);
        let mut names = Vec::new();
        for entry in fs::read_dir(&full).at("read", &full)? {
            names.push(entry.at("read", &full)?.file_name());
        }
        names.sort();
        for name in names {
            if dir.as_os_str().is_empty() && name == CONFIG_FILE {
                continue;
            }
            self.entry(&dir.join(name))?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path) -> Result<()> {
        let full = self.root.join(path);
        let meta = fs::symlink_metadata(&full).at("read", &full)?;
        let kind = meta.file_type();
        if kind.is_socket() {
            return Ok(());
        }
        if path.file_name().is_some_and(|name| name.as_bytes().starts_with(b".wh.")) {
            let why = format!("{}: names that begin with .wh. mean something else in layers", full.display());
            return Err(ImageError::Unsupported(why));
        }
        let mut header = self.header(&meta);
        if kind.is_symlink() {
            let target = fs::read_link(&full).at("read", &full)?;
            header.set_entry_type(EntryType::Symlink);
            return self.tar.append_link(&mut header, path, target).at("write", self.to);
        }
        if kind.is_file() && meta.nlink() > 1 {
            if let Some(first) = self.linked.get(&(meta.dev(), meta.ino())) {
                header.set_entry_type(EntryType::Link);
                return self.tar.append_link(&mut header, path, first).at("write", self.to);
            }
            self.linked.insert((meta.dev(), meta.ino()), path.to_owned());
        }
        let attributes = attributes_of(&full)?;
        let attributes = attributes.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        self.tar.append_pax_extensions(attributes).at("write", self.to)?;
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            self.tar.append_data(&mut header, path, std::io::empty()).at("write", self.to)?;
            return self.children(path);
        }
        if kind.is_file() {
            return self.file(&mut header, path, &full, meta.len());
        }
        let device = meta.rdev();
        header.set_entry_type(match kind {
            _ if kind.is_char_device() => EntryType::Char,
            _ if kind.is_block_device() => EntryType::Block,
            _ => EntryType::Fifo,
        });
        header.set_device_major(rustix::fs::major(device)).at("write", self.to)?;
        header.set_device_minor(rustix::fs::minor(device)).at("write", self.to)?;
        self.tar.append_data(&mut header, path, std::io::empty()).at("write", self.to)
    }

    fn file(&mut self, header: &mut Header, path: &Path, full: &Path, size: u64) -> Result<()> {
        header.set_entry_type(EntryType::Regular);
        header.set_size(size);
        let mut file = Exact { inner: File::open(full).at("open", full)?, left: size };
        self.tar.append_data(header, path, &mut file).at("write", self.to)?;
        if file.left > 0 {
            return Err(ImageError::corrupt(full, "it changed while it was read"));
        }
        Ok(())
    }

    fn header(&self, meta: &Metadata) -> Header {
        let (uid, gid) = self.owner.unwrap_or((meta.uid(), meta.gid()));
        let mut header = Header::new_gnu();
        header.set_mode(meta.mode() & 0o7777);
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
        header.set_size(0);
        header
    }
}

/// As many bytes as the header has promised: zeros if the file has become shorter (and then the build fails).
struct Exact {
    inner: File,
    left: u64,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.inner.read(&mut buffer[..most])?;
        self.left -= n as u64;
        Ok(n)
    }
}

/// The extended attributes that belong to an image: capabilities, and what users set.
fn attributes_of(path: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut names = vec![0; 1 << 16];
    let n = match rustix::fs::llistxattr(path, &mut names[..]) {
        Err(rustix::io::Errno::NOTSUP) => 0,
        n => n.at("read the attributes of", path)?,
    };
    let mut found = Vec::new();
    for name in names[..n].split(|b| *b == 0).filter_map(|name| std::str::from_utf8(name).ok()) {
        if name != "security.capability" && !name.starts_with("user.") {
            continue;
        }
        let mut value = vec![0; 1 << 16];
        let n = rustix::fs::lgetxattr(path, name, &mut value[..]).at("read the attributes of", path)?;
        value.truncate(n);
        found.push((format!("SCHILY.xattr.{name}"), value));
    }
    Ok(found)
}
