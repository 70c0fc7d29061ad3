//! Pulling: from Debian's `docker-registry` on loopback, and from servers that do wrong. Unpacking makes devices: run as root.

#![allow(clippy::unwrap_used, reason = "in tests")]

mod auth;
mod fake;
mod hostile;
mod real;
#[path = "../small_disk/mod.rs"]
mod small_disk;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use corten_base::SystemClock;
use corten_images::{Digest, Hosts, ImageError, ImageStore, Keyring, Login, Progress, Pulled, Reference, Registry};
use serde_json::{Value, json};

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A store, a client, and a directory for their configuration.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub store: ImageStore,
    pub registry: Registry,
}

#[allow(clippy::new_without_default, reason = "it makes a directory")]
impl Place {
    pub fn new() -> Place {
        assert!(rustix::process::geteuid().is_root(), "these tests unpack layers: run them as root");
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        let hosts = Hosts { dirs: vec![dir.path().join("hosts")] };
        let registry = Registry::new(hosts, Arc::new(SystemClock));
        Place { dir, store, registry }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a registry's `hosts.toml`.
    pub fn hosts(&self, registry: &str, text: &str) {
        let dir = self.path("hosts").join(registry);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("hosts.toml"), text).unwrap();
    }

    pub async fn pull(&self, name: &str) -> Result<Pulled, ImageError> {
        self.pull_as(name, &[]).await
    }

    pub async fn pull_as(&self, name: &str, logins: &[Login]) -> Result<Pulled, ImageError> {
        let reference = Reference::parse(name).unwrap();
        self.registry.pull(&self.store, &reference, logins, &Progress::default()).await
    }

    /// Why a pull fails.
    pub async fn fails(&self, name: &str) -> String {
        self.pull(name).await.map(|p| panic!("{p:?}")).unwrap_err().to_string()
    }

    /// A file of an image, unpacked.
    pub fn read(&self, name: &str, file: &str) -> String {
        let image = self.store.resolve(name).unwrap();
        let dirs = self.store.prepare(&image, "test").unwrap().lower_dirs;
        let found = dirs.iter().find_map(|dir| fs::read_to_string(dir.join(file)).ok());
        found.unwrap_or_else(|| panic!("{name} has no {file}"))
    }
}

pub fn logins(server: &str, user: &str, password: &str) -> Vec<Login> {
    let mut keyring = Keyring::default();
    let config = json!({"auths": {server: {"username": user, "password": password}}}).to_string();
    keyring.add(config.as_bytes(), false, None).unwrap();
    keyring.lookup(&format!("{server}/x"))
}

/// A layer of one file: its blob, and the digest of its content.
pub fn layer(name: &str, content: &str) -> (Vec<u8>, Digest) {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content.as_bytes()).unwrap();
    let plain = tar.into_inner().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    (gzip.finish().unwrap(), Digest::of(&plain))
}

/// The documents of an image, and its layers.
#[derive(Clone)]
pub struct Image {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

impl Image {
    pub fn new(layers: &[(Vec<u8>, Digest)], architecture: &str) -> Image {
        let ids: Vec<&Digest> = layers.iter().map(|(_, id)| id).collect();
        let config = json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["/x"]},
            "rootfs": {"type": "layers", "diff_ids": ids}});
        let config = config.to_string().into_bytes();
        let layers: Vec<Vec<u8>> = layers.iter().map(|(blob, _)| blob.clone()).collect();
        let described: Vec<Value> = layers.iter().map(|blob| describe(LAYER, blob)).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": described,
            "config": describe("application/vnd.oci.image.config.v1+json", &config)});
        Image { manifest: manifest.to_string().into_bytes(), config, layers }
    }

    /// An image of one file, for this machine.
    pub fn of(name: &str, content: &str) -> Image {
        Image::new(&[layer(name, content)], "amd64")
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// What is at a path of a registry.
    pub fn blob(&self, path: &str) -> Option<&[u8]> {
        let mut all = self.layers.iter().chain([&self.config, &self.manifest]);
        let found = all.find(|blob| path.ends_with(Digest::of(blob).as_str()));
        found.or_else(|| path.contains("/manifests/").then_some(&self.manifest)).map(Vec::as_slice)
    }
}

pub fn describe(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()})
}

pub fn files_in(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}
