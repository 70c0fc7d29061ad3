//! The image store: a directory that is itself an OCI layout, plus unpacked layers.
//!
//! ```text
//! images/index.json            names -> manifests; replaced as a whole, so readers need no lock
//! images/blobs/sha256/HEX      manifests, configurations, layers as they came
//! images/layers/HEX            layers by diffID, unpacked, each a lower directory of overlay; complete if it is there
//! images/leases/ID             the image and the layers that something (a container, a volume) stands on, one per line
//! images/pulls/ID              with which secrets an image was pulled
//! images/preloaded.json        the archives that were imported at the start
//! images/tmp/                  what is not complete yet
//! images/index.lock            held while the index is changed
//! images/content.lock          shared by those who add or use content, exclusive for who removes it
//! ```
//!
//! Several processes may work on it at once: `corten image` beside a running server. Nothing is cached but the index, which is
//! read again when its file has changed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::de::DeserializeOwned;

use crate::error::At;
use crate::oci::{self, ConfigFile, Descriptor, Index, Manifest};
use crate::{Digest, ImageConfig, ImageError, Reference, Result, unpack};

/// What the line of a lease begins with that names its image.
const IMAGE_LINE: &str = "image ";
/// Layers that are unpacked at once, if the machine has so many processors.
const UNPACK_AT_ONCE: usize = 4;

/// An image of the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// The name that it was found under, normalised.
    pub name: String,
    /// The digest of the manifest: what `repository@digest` in a container's `imageID` names.
    pub manifest: Digest,
    /// What the name resolved to in its registry: of an index, if there is one; else as `manifest`.
    pub source: Digest,
    /// Whether it came from a registry; else it was imported or built here.
    pub pulled: bool,
    /// The digest of the configuration: the image's own id.
    pub id: Digest,
    pub config: ImageConfig,
    /// The base first.
    pub layers: Vec<Layer>,
    /// The blobs' size, in bytes.
    pub size: u64,
    /// As the builder says, RFC 3339.
    pub created: Option<String>,
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The blob, possibly compressed.
    pub blob: Digest,
    /// The digest of its uncompressed content.
    pub diff_id: Digest,
    pub(crate) media_type: String,
}

/// What a container's root stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rootfs {
    /// Overlay's lower directories, the topmost first. Never empty.
    pub lower_dirs: Vec<PathBuf>,
}

/// What removing images freed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Names that are no more.
    pub names: Vec<String>,
    pub blobs: usize,
    pub layers: usize,
}

/// The image store of a node; clones share it.
#[derive(Clone, Debug)]
pub struct ImageStore {
    pub(crate) root: PathBuf,
    index: Arc<Mutex<Option<(Stamp, Arc<Index>)>>>,
    /// In this process a layer is unpacked by one thread at a time: a lock for each that is at work.
    unpacking: Arc<Mutex<HashMap<Digest, Weak<Mutex<()>>>>>,
}

/// What tells one version of a file from another.
type Stamp = (u64, i64, i64, u64);

impl ImageStore {
    /// The store below a data directory; makes it if it is not there.
    pub fn open(data_dir: &Path) -> Result<ImageStore> {
        let store = ImageStore { root: data_dir.join("images"), index: Arc::default(), unpacking: Arc::default() };
        for dir in ["blobs/sha256", "layers", "leases", "pulls", "tmp"] {
            let path = store.root.join(dir);
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).at("create", &path)?;
        }
        let layout = store.root.join("oci-layout");
        if !layout.exists() {
            fs::write(&layout, br#"{"imageLayoutVersion":"1.0.0"}"#).at("write", &layout)?;
        }
        // What is left here was cut off by a crash, unless somebody is at work right now.
        if let Ok(_alone) = store.open_lock("content.lock")?.try_lock() {
            let tmp = store.root.join("tmp");
            for entry in fs::read_dir(&tmp).at("read", &tmp)?.flatten() {
                remove_any(&entry.path())?;
            }
        }
        Ok(store)
    }

    /// The image of a name, a name with a digest, or an id (`sha256:…`).
    pub fn resolve(&self, reference: &str) -> Result<Image> {
        let not_found = || ImageError::NotFound { reference: reference.to_owned() };
        let index = self.index()?;
        if let Some(id) = Digest::parse(reference) {
            for entry in &index.manifests {
                let image = self.read_image(entry)?;
                if image.id == id || image.manifest == id {
                    return Ok(image);
                }
            }
            return Err(not_found());
        }
        let wanted = Reference::parse(reference)?;
        let found = index.manifests.iter().find(|entry| match &wanted.digest {
            Some(digest) => is_digest_of(entry, digest) && repository_of(entry) == wanted.repository,
            None => name_of(entry) == wanted.name(),
        });
        self.read_image(found.ok_or_else(not_found)?)
    }

    /// All images, by name.
    pub fn list(&self) -> Result<Vec<Image>> {
        let index = self.index()?;
        let mut images = index.manifests.iter().map(|entry| self.read_image(entry)).collect::<Result<Vec<_>>>()?;
        images.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(images)
    }

    /// Takes a name away (all names, if an id is given), and all content that no name needs. Layers that containers stand on
    /// stay until they are released.
    pub fn remove(&self, reference: &str) -> Result<Freed> {
        let id = Digest::parse(reference);
        // By name nothing but the index is read, so that a corrupt image can be removed, too.
        let (manifest, name) = match &id {
            Some(_) => (Some(self.resolve(reference)?.manifest), None),
            None => (None, Some(Reference::parse(reference)?)),
        };
        let mut names = Vec::new();
        self.change_index(|index| {
            index.manifests.retain(|entry| {
                let gone = match &name {
                    Some(name) if name.digest.is_some() => {
                        name.digest.as_ref().is_some_and(|digest| is_digest_of(entry, digest))
                            && repository_of(entry) == name.repository
                    }
                    Some(name) => name_of(entry) == name.name(),
                    None => Some(&entry.digest) == manifest.as_ref(),
                };
                if gone {
                    names.push(name_of(entry).to_owned());
                }
                !gone
            });
        })?;
        if names.is_empty() {
            return Err(ImageError::NotFound { reference: reference.to_owned() });
        }
        Ok(Freed { names, ..self.collect_garbage()? })
    }

    /// Removes blobs and layers that no name and no lease needs.
    pub fn collect_garbage(&self) -> Result<Freed> {
        let _alone = self.lock("content.lock", true)?;
        let (mut blobs, mut layers) = (HashSet::new(), self.leased()?);
        let mut ids = HashSet::new();
        for entry in &self.index()?.manifests {
            let image = self.read_image(entry)?;
            ids.insert(image.id.hex().to_owned());
            blobs.extend([image.manifest.hex().to_owned(), image.id.hex().to_owned()]);
            for layer in image.layers {
                blobs.insert(layer.blob.hex().to_owned());
                layers.insert(layer.diff_id.hex().to_owned());
            }
        }
        self.forget_records(|id| ids.contains(id))?;
        let sweep = |dir: &str, keep: &HashSet<String>| -> Result<usize> {
            let dir = self.root.join(dir);
            let mut removed = 0;
            for entry in fs::read_dir(&dir).at("read", &dir)? {
                let entry = entry.at("read", &dir)?;
                if !keep.contains(&*entry.file_name().to_string_lossy()) {
                    // First out of sight, so that a crash does not leave half a layer.
                    let doomed = self.temporary();
                    fs::rename(entry.path(), &doomed).at("remove", &entry.path())?;
                    remove_any(&doomed)?;
                    removed += 1;
                }
            }
            Ok(removed)
        };
        Ok(Freed { names: Vec::new(), blobs: sweep("blobs/sha256", &blobs)?, layers: sweep("layers", &layers)? })
    }

    /// Unpacks what is not unpacked yet, and keeps it until `lease` (a container's id) is released.
    ///
    /// Blocks: the first use of a large image takes seconds. Errors: `CorruptBlob`, `CorruptLayer`, `Unsafe`, `DiskFull`, ….
    pub fn prepare(&self, image: &Image, lease: &str) -> Result<Rootfs> {
        let _content = self.lock("content.lock", false)?;
        let mut lower_dirs = self.unpacked_all(&image.layers)?;
        lower_dirs.reverse();
        if lower_dirs.is_empty() {
            return Err(ImageError::Unsupported(format!("{} has no layers", image.name)));
        }
        // After a loss of power no container stands on anything: a lease that has not come to the disk is none too few.
        let mut lines = format!("{IMAGE_LINE}{}\n", image.id);
        lines.extend(image.layers.iter().map(|layer| format!("{}\n", layer.diff_id.hex())));
        self.put(&self.lease_path(lease)?, lines.as_bytes(), false)?;
        Ok(Rootfs { lower_dirs })
    }

    /// Unpacks what is not unpacked yet. Errors: as those of [`ImageStore::prepare`].
    pub fn unpack(&self, image: &Image) -> Result<()> {
        let _content = self.lock("content.lock", false)?;
        self.unpacked_all(&image.layers).map(drop)
    }

    /// Lets go of what a lease kept; nothing happens if there is none.
    pub fn release(&self, lease: &str) -> Result<()> {
        let path = self.lease_path(lease)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at("remove", &path),
            _ => Ok(()),
        }
    }

    /// The leases that there are: for releasing those of containers that are no more.
    pub fn leases(&self) -> Result<Vec<String>> {
        let dir = self.root.join("leases");
        let entries = fs::read_dir(&dir).at("read", &dir)?.flatten();
        Ok(entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }

    fn lease_path(&self, lease: &str) -> Result<PathBuf> {
        let plain =
            !lease.is_empty() && lease.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !plain || lease.starts_with('.') {
            return Err(ImageError::Unsupported(format!("{lease:?} as the name of a lease")));
        }
        Ok(self.root.join("leases").join(lease))
    }

    /// The ids of images that a lease holds.
    pub fn images_in_use(&self) -> Result<HashSet<String>> {
        let lines = self.leased()?;
        Ok(lines.iter().filter_map(|line| line.strip_prefix(IMAGE_LINE)).map(str::to_owned).collect())
    }

    fn leased(&self) -> Result<HashSet<String>> {
        let mut layers = HashSet::new();
        for lease in self.leases()? {
            let path = self.root.join("leases").join(lease);
            match fs::read_to_string(&path) {
                Ok(text) => layers.extend(text.lines().map(str::to_owned)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).at("read", &path),
            }
        }
        Ok(layers)
    }

    /// The layers' directories; several are unpacked at once.
    fn unpacked_all(&self, layers: &[Layer]) -> Result<Vec<PathBuf>> {
        let missing = layers.iter().filter(|layer| !self.layer_path(&layer.diff_id).exists()).count();
        let hands = std::thread::available_parallelism().map_or(1, usize::from).min(missing).min(UNPACK_AT_ONCE);
        if hands < 2 {
            return layers.iter().map(|layer| self.unpacked(layer)).collect();
        }
        let next = std::sync::atomic::AtomicUsize::new(0);
        let work = || -> Result<()> {
            while let Some(layer) = layers.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                self.unpacked(layer)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..hands).map(|_| scope.spawn(work)).collect();
            let lost = || ImageError::Unsupported("a thread that unpacks has died".into());
            threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| lost())?)
        })?;
        layers.iter().map(|layer| self.unpacked(layer)).collect()
    }

    /// Unpacks a layer that was fetched.
    pub(crate) fn unpack_layer(&self, blob: &Digest, diff_id: &Digest) -> Result<()> {
        let layer = Layer { blob: blob.clone(), diff_id: diff_id.clone(), media_type: oci::MEDIA_LAYER.into() };
        self.unpacked(&layer).map(drop)
    }

    /// A layer's directory, unpacked if need be: all of it or nothing, also after a crash.
    fn unpacked(&self, layer: &Layer) -> Result<PathBuf> {
        let path = self.layer_path(&layer.diff_id);
        if path.exists() {
            return Ok(path);
        }
        let lock = {
            let mut all = self.unpacking.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, lock| lock.strong_count() > 0);
            let known = all.get(&layer.diff_id).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::default();
                all.insert(layer.diff_id.clone(), Arc::downgrade(&lock));
                lock
            })
        };
        let _one_at_a_time = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if path.exists() {
            return Ok(path);
        }
        if layer.media_type == oci::MEDIA_DIRECTORY {
            return Err(ImageError::corrupt(&path, "the built-in image's layer is missing; restart the server"));
        }
        let target = self.temporary();
        let blob = self.blob_path(&layer.blob);
        let unpacked = unpack::unpack(&blob, layer, &target).and_then(|()| self.adopt_layer(&target, &layer.diff_id));
        if unpacked.is_err() {
            let _ = remove_any(&target);
        }
        unpacked
    }

    /// Gives a complete layer directory its name.
    pub(crate) fn adopt_layer(&self, from: &Path, diff_id: &Digest) -> Result<PathBuf> {
        let path = self.layer_path(diff_id);
        let dir = File::open(from).at("open", from)?;
        rustix::fs::syncfs(&dir).at("sync", from)?;
        match fs::rename(from, &path) {
            // Another process was faster, with the same content.
            Err(_) if path.exists() => remove_any(from)?,
            result => result.at("rename", from)?,
        }
        sync_dir(&self.root.join("layers"))?;
        Ok(path)
    }

    pub(crate) fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// A name in `tmp` that nobody else uses.
    pub(crate) fn temporary(&self) -> PathBuf {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.root.join("tmp").join(format!("{}-{n}", std::process::id()))
    }

    /// Keeps others from removing content while the guard lives.
    pub(crate) fn content(&self) -> Result<File> {
        self.lock("content.lock", false)
    }

    /// Adds a small blob.
    pub(crate) fn write_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        self.replace(&self.blob_path(&digest), bytes)?;
        Ok(digest)
    }

    /// Gives a complete, synced file its place among the blobs.
    pub(crate) fn adopt_blob(&self, from: &Path, digest: &Digest) -> Result<()> {
        fs::rename(from, self.blob_path(digest)).at("rename", from)?;
        sync_dir(&self.root.join("blobs/sha256"))
    }

    /// Names a manifest, in place of what had the name before.
    pub(crate) fn set_names(&self, names: &[String], manifest: &Descriptor) -> Result<()> {
        self.change_index(|index| {
            index.manifests.retain(|entry| !names.iter().any(|name| name_of(entry) == name));
            for name in names {
                let mut entry = Descriptor::new(oci::MEDIA_MANIFEST, manifest.digest.clone(), manifest.size);
                let tag = name[name.rfind('/').unwrap_or(0)..].split_once(':').map_or("", |(_, tag)| tag);
                entry.annotations = BTreeMap::from([(oci::NAME.into(), name.clone())]);
                if let Some(source) = source_of(manifest) {
                    entry.annotations.insert(oci::SOURCE.into(), source.to_string());
                }
                if !tag.is_empty() {
                    entry.annotations.insert(oci::REF_NAME.into(), tag.into());
                }
                index.manifests.push(entry);
            }
        })
    }

    fn change_index(&self, change: impl FnOnce(&mut Index)) -> Result<()> {
        let _lock = self.lock("index.lock", true)?;
        let mut index = self.read_index()?;
        change(&mut index);
        let json = serde_json::to_vec_pretty(&index).expect("an index is plain data");
        self.replace(&self.root.join("index.json"), &json)
    }

    fn index(&self) -> Result<Arc<Index>> {
        let path = self.root.join("index.json");
        let stamp = match fs::metadata(&path) {
            Ok(meta) => (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Arc::default()),
            Err(error) => return Err(error).at("read", &path),
        };
        let mut cached = self.index.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((_, index)) = cached.as_ref().filter(|(seen, _)| *seen == stamp) {
            return Ok(index.clone());
        }
        let index = Arc::new(self.read_index()?);
        *cached = Some((stamp, index.clone()));
        Ok(index)
    }

    fn read_index(&self) -> Result<Index> {
        let path = self.root.join("index.json");
        match fs::read(&path) {
            Ok(bytes) => parse(&path, &bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Index::default()),
            Err(error) => Err(error).at("read", &path),
        }
    }

    fn read_image(&self, entry: &Descriptor) -> Result<Image> {
        let (manifest, _): (Manifest, u64) = self.read_json(&entry.digest)?;
        let (file, _): (ConfigFile, u64) = self.read_json(&manifest.config.digest)?;
        if file.rootfs.diff_ids.len() != manifest.layers.len() {
            let detail = format!("{} layers, but {} diffIDs", manifest.layers.len(), file.rootfs.diff_ids.len());
            return Err(ImageError::corrupt(&self.blob_path(&entry.digest), detail));
        }
        let layers = manifest.layers.iter().zip(file.rootfs.diff_ids);
        Ok(Image {
            name: name_of(entry).to_owned(),
            manifest: entry.digest.clone(),
            source: source_of(entry).unwrap_or_else(|| entry.digest.clone()),
            pulled: source_of(entry).is_some(),
            id: manifest.config.digest,
            config: file.config,
            size: entry.size + manifest.config.size + manifest.layers.iter().map(|layer| layer.size).sum::<u64>(),
            created: file.created,
            layers: layers
                .map(|(layer, diff_id)| Layer {
                    blob: layer.digest.clone(),
                    diff_id,
                    media_type: layer.media_type.clone(),
                })
                .collect(),
        })
    }

    /// Reads a document and checks its digest.
    fn read_json<T: DeserializeOwned>(&self, digest: &Digest) -> Result<(T, u64)> {
        let path = self.blob_path(digest);
        let bytes = fs::read(&path).at("read", &path)?;
        let actual = Digest::of(&bytes);
        if actual != *digest {
            return Err(ImageError::CorruptBlob { path, expected: digest.clone(), actual });
        }
        Ok((parse(&path, &bytes)?, bytes.len() as u64))
    }

    fn open_lock(&self, name: &str) -> Result<File> {
        let path = self.root.join(name);
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).at("open", &path)
    }

    pub(crate) fn lock(&self, name: &str, exclusive: bool) -> Result<File> {
        let file = self.open_lock(name)?;
        let locked = if exclusive { file.lock() } else { file.lock_shared() };
        locked.at("lock", &self.root.join(name))?;
        Ok(file)
    }

    /// Replaces a file as a whole, durably.
    pub(crate) fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.put(path, bytes, true)?;
        sync_dir(path.parent().unwrap_or(&self.root))
    }

    /// Replaces a file as a whole. What needs no longer life than the machine's is not waited for until it is on disk.
    fn put(&self, path: &Path, bytes: &[u8], sync: bool) -> Result<()> {
        let partial = self.temporary();
        let written = File::create(&partial).and_then(|mut file| {
            file.write_all(bytes)?;
            if sync { file.sync_all() } else { Ok(()) }
        });
        let moved = written.and_then(|()| fs::rename(&partial, path));
        if moved.is_err() {
            let _ = fs::remove_file(&partial);
        }
        moved.at("write", path)
    }
}

/// What an entry's name resolved to in its registry.
fn source_of(entry: &Descriptor) -> Option<Digest> {
    entry.annotations.get(oci::SOURCE).and_then(|text| Digest::parse(text))
}

fn is_digest_of(entry: &Descriptor, digest: &Digest) -> bool {
    entry.digest == *digest || source_of(entry).as_ref() == Some(digest)
}

/// The names of an index entry.
fn name_of(entry: &Descriptor) -> &str {
    entry.annotations.get(oci::NAME).map_or("", String::as_str)
}

fn repository_of(entry: &Descriptor) -> &str {
    let name = name_of(entry);
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    let slash = name.rfind('/').unwrap_or(0);
    name[slash..].find(':').map_or(name, |colon| &name[..slash + colon])
}

pub(crate) fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| ImageError::corrupt(path, error.to_string()))
}

pub(crate) fn remove_any(path: &Path) -> Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        meta => meta.at("remove", path)?,
    };
    if meta.is_dir() { fs::remove_dir_all(path).at("remove", path) } else { fs::remove_file(path).at("remove", path) }
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).at("sync", dir)
}

/// The names of images that were imported or built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    pub names: BTreeSet<String>,
    pub manifest: Digest,
    pub id: Digest,
}
