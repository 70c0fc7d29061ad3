//! Importing: from an OCI layout or a docker archive into the store. Everything is checked on the way in, so that a broken
//! file is refused here and not when a pod starts.

use std::fs::File;
use std::io::{Read, Write as _};
use std::path::Path;

use crate::ahead::digest_beside;
use crate::archive::Archive;
use crate::compression::decompress;
use crate::digest::HashingReader;
use crate::error::At;
use crate::oci::{self, ConfigFile, Descriptor, DockerImage, Index, Manifest};
use crate::store::{Imported, parse};
use crate::{Digest, ImageError, ImageStore, Reference, Result};

/// Indexes may name indexes; this deep is enough.
const INDEX_DEPTH_MAX: usize = 4;

impl ImageStore {
    /// Imports all images of an OCI layout (a directory or a tar file) or a docker archive. `name` names the image of a source
    /// that has only one, in place of the names in it.
    pub fn import(&self, path: &Path, name: Option<&str>) -> Result<Vec<Imported>> {
        let name = name.map(|name| Reference::parse(name).map(|reference| reference.name())).transpose()?;
        let _content = self.content()?;
        let archive = Archive::open(path, &self.temporary())?;
        if let Some(bytes) = archive.document("index.json")? {
            let index: Index = parse(path, &bytes)?;
            return self.import_layout(&archive, &index, name);
        }
        if let Some(bytes) = archive.document("manifest.json")? {
            let images: Vec<DockerImage> = parse(path, &bytes)?;
            return self.import_docker(&archive, &images, name);
        }
        let detail = "it has neither index.json nor manifest.json".to_owned();
        Err(ImageError::NotAnImage { path: path.to_owned(), detail })
    }

    fn import_layout(&self, archive: &Archive, index: &Index, name: Option<String>) -> Result<Vec<Imported>> {
        let mut imported: Vec<Imported> = Vec::new();
        let single = index.manifests.len() == 1;
        for entry in &index.manifests {
            if !entry.is_index() && entry.platform.as_ref().is_some_and(|platform| !platform.is_here()) && !single {
                continue;
            }
            let full = match (&name, names_in(entry)) {
                (Some(name), _) => name.clone(),
                (None, Some(full)) => full,
                (None, None) => return Err(ImageError::NoName { path: archive.path().to_owned() }),
            };
            let manifest = choose(archive, entry, 0)?;
            let known = imported.iter_mut().find(|known| known.manifest == manifest.digest);
            let (descriptor, id) = self.import_manifest(archive, &manifest)?;
            self.set_names(std::slice::from_ref(&full), &descriptor)?;
            match known {
                Some(known) => drop(known.names.insert(full)),
                None => imported.push(Imported { names: [full].into(), manifest: descriptor.digest, id }),
            }
        }
        if imported.is_empty() {
            let found = index.manifests.iter().filter_map(|entry| entry.platform.as_ref());
            let found = found.map(|p| format!("{}/{}", p.os, p.architecture)).collect::<Vec<_>>().join(", ");
            return Err(self.wrong_platform(archive, found));
        }
        Ok(imported)
    }

    fn wrong_platform(&self, archive: &Archive, found: String) -> ImageError {
        let found = if found.is_empty() { "nothing".to_owned() } else { found };
        ImageError::WrongPlatform { path: archive.path().to_owned(), architecture: oci::architecture(), found }
    }

    fn import_manifest(&self, archive: &Archive, descriptor: &Descriptor) -> Result<(Descriptor, Digest)> {
        let bytes = blob_document(archive, descriptor)?;
        let manifest: Manifest = parse(archive.path(), &bytes)?;
        if let Some(layer) = manifest.layers.iter().find(|layer| !oci::is_layer(&layer.media_type)) {
            let detail = format!("a layer of the type {:?}", layer.media_type);
            return Err(ImageError::corrupt(archive.path(), detail));
        }
        let config_bytes = blob_document(archive, &manifest.config)?;
        let config = self.check_config(archive, &config_bytes, manifest.layers.len())?;
        for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
            let name = blob_name(&layer.digest);
            self.import_layer(archive, &name, Some(&layer.digest), diff_id)?;
        }
        let id = self.write_blob(&config_bytes)?;
        let digest = self.write_blob(&bytes)?;
        Ok((Descriptor::new(oci::MEDIA_MANIFEST, digest, bytes.len() as u64), id))
    }

    fn check_config(&self, archive: &Archive, bytes: &[u8], layers: usize) -> Result<ConfigFile> {
        let config: ConfigFile = parse(archive.path(), bytes)?;
        if config.os != "linux" || config.architecture != oci::architecture() {
            return Err(self.wrong_platform(archive, format!("{}/{}", config.os, config.architecture)));
        }
        if config.rootfs.diff_ids.len() != layers {
            let detail = format!("{layers} layers, but {} diffIDs", config.rootfs.diff_ids.len());
            return Err(ImageError::corrupt(archive.path(), detail));
        }
        Ok(config)
    }

    /// Copies a layer and checks it on the way: its own digest where one is known, and that of its content.
    fn import_layer(
        &self,
        archive: &Archive,
        name: &str,
        expected: Option<&Digest>,
        diff_id: &Digest,
    ) -> Result<Descriptor> {
        if let Some(digest) = expected
            && let Ok(meta) = std::fs::metadata(self.blob_path(digest))
            && self.has_layer(digest, diff_id)?
        {
            return Ok(Descriptor::new(oci::MEDIA_LAYER, digest.clone(), meta.len()));
        }
        let missing = || ImageError::corrupt(archive.path(), format!("{name} is missing"));
        let source = archive.read(name)?.ok_or_else(missing)?;
        self.keep_layer(source, archive.path(), name, expected, diff_id)
    }

    /// Keeps a layer that comes from a registry, if it is what its manifest says.
    pub(crate) fn receive_layer(&self, content: impl Read, digest: &Digest, size: u64, diff_id: &Digest) -> Result<()> {
        let shown = self.blob_path(digest);
        let kept = self.keep_layer(content, &shown, digest.as_str(), Some(digest), diff_id)?;
        match kept.size == size {
            true => Ok(()),
            false => Err(ImageError::corrupt(&shown, format!("{} bytes instead of {size}", kept.size))),
        }
    }

    fn keep_layer(
        &self,
        source: impl Read,
        from: &Path,
        name: &str,
        expected: Option<&Digest>,
        diff_id: &Digest,
    ) -> Result<Descriptor> {
        let partial = self.temporary();
        let copied = copy_layer(source, &partial, from);
        let (digest, content, compression, size) = copied.inspect_err(|_| drop(std::fs::remove_file(&partial)))?;
        let wrong = match expected {
            Some(expected) if *expected != digest => Some(ImageError::CorruptBlob {
                path: from.to_owned(),
                expected: expected.clone(),
                actual: digest.clone(),
            }),
            _ => match content {
                Ok(content) if content == *diff_id => None,
                Ok(actual) => {
                    Some(ImageError::CorruptLayer { layer: digest.clone(), expected: diff_id.clone(), actual })
                }
                Err(error) => Some(ImageError::corrupt(from, format!("{name}: {error}"))),
            },
        };
        if let Some(error) = wrong {
            let _ = std::fs::remove_file(&partial);
            return Err(error);
        }
        self.adopt_blob(&partial, &digest)?;
        Ok(Descriptor::new(&format!("{}{compression}", oci::MEDIA_LAYER), digest, size))
    }

    /// Whether a layer's blob is here, and unpacks to what is said of it. An image that pairs a blob with the content of another
    /// would else get at layers that it only knows the names of.
    pub(crate) fn has_layer(&self, digest: &Digest, diff_id: &Digest) -> Result<bool> {
        let path = self.blob_path(digest);
        if !path.exists() {
            return Ok(false);
        }
        let pairs = |image: &crate::Image| image.layers.iter().any(|l| l.blob == *digest && l.diff_id == *diff_id);
        if self.list()?.iter().any(pairs) {
            return Ok(true);
        }
        let file = File::open(&path).at("open", &path)?;
        let content = decompress(file).and_then(|(_, content)| HashingReader::new(content).finish());
        match content {
            Ok((actual, _)) if actual == *diff_id => Ok(true),
            Ok((actual, _)) => {
                Err(ImageError::CorruptLayer { layer: digest.clone(), expected: diff_id.clone(), actual })
            }
            // It is broken: it comes anew.
            Err(_) => Ok(false),
        }
    }

    /// Gives a name to what was fetched: all layers are here.
    pub(crate) fn name_pulled(&self, config: &[u8], manifest: &[u8], name: &str, source: &Digest) -> Result<()> {
        self.write_blob(config)?;
        let digest = self.write_blob(manifest)?;
        let mut descriptor = Descriptor::new(oci::MEDIA_MANIFEST, digest, manifest.len() as u64);
        descriptor.annotations.insert(oci::SOURCE.into(), source.to_string());
        self.set_names(&[name.to_owned()], &descriptor)
    }

    fn import_docker(&self, archive: &Archive, images: &[DockerImage], name: Option<String>) -> Result<Vec<Imported>> {
        let mut imported = Vec::new();
        for image in images {
            let names = match &name {
                Some(name) => vec![name.clone()],
                None => image.repo_tags.iter().map(|tag| Ok(Reference::parse(tag)?.name())).collect::<Result<_>>()?,
            };
            if names.is_empty() {
                return Err(ImageError::NoName { path: archive.path().to_owned() });
            }
            let missing = || ImageError::corrupt(archive.path(), format!("{} is missing", image.config));
            let config_bytes = archive.document(&image.config)?.ok_or_else(missing)?;
            let config = self.check_config(archive, &config_bytes, image.layers.len())?;
            let mut layers = Vec::new();
            for (layer, diff_id) in image.layers.iter().zip(&config.rootfs.diff_ids) {
                // Newer archives are OCI layouts, too, and name layers by their digests.
                let expected =
                    layer.strip_prefix("blobs/sha256/").and_then(|hex| Digest::parse(&format!("sha256:{hex}")));
                layers.push(self.import_layer(archive, layer, expected.as_ref(), diff_id)?);
            }
            imported.push(self.add_image(&config_bytes, layers, &names)?);
        }
        Ok(imported)
    }

    /// Makes an image of a configuration and layers that are in the store.
    pub(crate) fn add_image(&self, config: &[u8], layers: Vec<Descriptor>, names: &[String]) -> Result<Imported> {
        let id = self.write_blob(config)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: oci::MEDIA_MANIFEST.into(),
            config: Descriptor::new(oci::MEDIA_CONFIG, id.clone(), config.len() as u64),
            layers,
        };
        let bytes = serde_json::to_vec(&manifest).expect("a manifest is plain data");
        let digest = self.write_blob(&bytes)?;
        self.set_names(names, &Descriptor::new(oci::MEDIA_MANIFEST, digest.clone(), bytes.len() as u64))?;
        Ok(Imported { names: names.iter().cloned().collect(), manifest: digest, id })
    }
}

/// What was copied: its digest, the digest of its content (or why that cannot be read), the media type's ending, the size.
type Copied = (Digest, std::io::Result<Digest>, &'static str, u64);

fn copy_layer(source: impl Read, to: &Path, from: &Path) -> Result<Copied> {
    let mut file = File::create_new(to).at("create", to)?;
    let (copied, content) = digest_beside(|feed| -> Result<(Digest, u64)> {
        let (mut raw, mut buffer) = (HashingReader::new(source), vec![0; 1 << 17]);
        loop {
            match raw.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    file.write_all(&buffer[..n]).at("write", to)?;
                    feed(&buffer[..n]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).at("read", from),
            }
        }
        let size = raw.count;
        Ok((raw.finish().at("read", from)?.0, size))
    });
    let (digest, size) = copied?;
    file.sync_all().at("write", to)?;
    let suffix = content.as_ref().map_or("", |(compression, _)| compression.suffix());
    Ok((digest, content.map(|(_, digest)| digest), suffix, size))
}

/// The manifest for this machine, behind any number of indexes.
fn choose(archive: &Archive, entry: &Descriptor, depth: usize) -> Result<Descriptor> {
    if !entry.is_index() {
        return Ok(entry.clone());
    }
    let index: Index = parse(archive.path(), &blob_document(archive, entry)?)?;
    match oci::choose(&index) {
        Ok(found) if depth < INDEX_DEPTH_MAX => choose(archive, &found, depth + 1),
        found => {
            let found = found.err().unwrap_or_default();
            let path = archive.path().to_owned();
            Err(ImageError::WrongPlatform { path, architecture: oci::architecture(), found })
        }
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A small blob, checked.
fn blob_document(archive: &Archive, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let name = blob_name(&descriptor.digest);
    let missing = || ImageError::corrupt(archive.path(), format!("{name} is missing"));
    let bytes = archive.document(&name)?.ok_or_else(missing)?;
    let actual = Digest::of(&bytes);
    if actual != descriptor.digest {
        let (path, expected) = (archive.path().to_owned(), descriptor.digest.clone());
        return Err(ImageError::CorruptBlob { path, expected, actual });
    }
    Ok(bytes)
}

/// An entry's full name, if it has one: a mere tag does not say of what.
fn names_in(entry: &Descriptor) -> Option<String> {
    let full = entry.annotations.get(oci::NAME);
    let named = entry.annotations.get(oci::REF_NAME).filter(|name| name.contains(['/', ':']));
    full.or(named).and_then(|name| Reference::parse(name).ok()).map(|reference| reference.name())
}
