//! What a container's start needs of an image.

use std::collections::BTreeMap;
use std::path::PathBuf;

use corten_base::BoxFuture;
use corten_images::{ImageError, ImageStore, Reference};

/// What an image says of its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value` entries, split.
    pub env: Vec<(String, String)>,
    /// `user[:group]`, names or numbers; empty is root.
    pub user: String,
    pub working_dir: String,
    /// Name or number; empty is SIGTERM.
    pub stop_signal: String,
}

/// An image that is on this node, unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreparedImage {
    /// Content id, for `imageID`.
    pub id: String,
    /// Unpacked layers, the topmost first.
    pub layers: Vec<PathBuf>,
    pub config: ImageConfig,
    /// Bytes.
    pub size: i64,
}

/// Which image, and how.
#[derive(Clone, Debug, Default)]
pub struct PullRequest {
    /// As in the container's spec.
    pub image: String,
    /// `Always`, `IfNotPresent`, `Never`.
    pub policy: String,
    /// Contents of `.dockerconfigjson` secrets, in order.
    pub credentials: Vec<Vec<u8>>,
    /// The container that the image is for: its layers stay until [`ImageSource::release`].
    pub lease: String,
}

/// Why an image cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFailure {
    /// Upstream's waiting reason: `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`, `ImageInspectError`.
    pub reason: &'static str,
    /// Why.
    pub message: String,
}

/// Where images come from.
pub trait ImageSource: Send + Sync + 'static {
    /// Whether the image is here already.
    fn present(&self, image: &str) -> BoxFuture<'_, bool>;

    /// Makes an image ready for use, pulling it if its policy asks for that.
    fn prepare(&self, request: PullRequest) -> BoxFuture<'_, Result<PreparedImage, ImageFailure>>;

    /// Lets go of what containers needed that are no more; `kept` are those that are.
    fn release_all_but(&self, kept: Vec<String>) -> BoxFuture<'_, ()>;

    /// Lets go of what a container needed.
    fn release(&self, lease: String) -> BoxFuture<'_, ()>;

    /// Images on this node: names and bytes.
    fn list(&self) -> BoxFuture<'_, Vec<(Vec<String>, i64)>>;
}

/// One directory as the root file system of every image: for tests and first steps.
#[derive(Clone, Debug)]
pub struct DirectoryImages {
    /// The root file system.
    pub root: PathBuf,
}

impl ImageSource for DirectoryImages {
    fn present(&self, _image: &str) -> BoxFuture<'_, bool> {
        Box::pin(async { true })
    }

    fn prepare(&self, request: PullRequest) -> BoxFuture<'_, Result<PreparedImage, ImageFailure>> {
        Box::pin(async move {
            if request.image.contains("missing") {
                let message = format!("{}: not found", request.image);
                return Err(ImageFailure { reason: "ErrImagePull", message });
            }
            Ok(PreparedImage {
                id: format!("directory:{}", self.root.display()),
                layers: vec![self.root.clone()],
                config: ImageConfig { cmd: vec!["/bin/sh".into()], ..ImageConfig::default() },
                size: 0,
            })
        })
    }

    fn release_all_but(&self, _kept: Vec<String>) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn release(&self, _lease: String) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn list(&self) -> BoxFuture<'_, Vec<(Vec<String>, i64)>> {
        Box::pin(async { Vec::new() })
    }
}

/// The images of this node's store. What is not in it cannot be had: there is no registry client yet.
#[derive(Clone)]
pub struct StoreImages(ImageStore);

impl StoreImages {
    /// The images of a store.
    pub fn new(store: ImageStore) -> StoreImages {
        StoreImages(store)
    }

    /// Runs disk work on a thread made for that.
    fn on_disk<T: Send + 'static>(
        &self,
        otherwise: T,
        work: impl FnOnce(&ImageStore) -> T + Send + 'static,
    ) -> BoxFuture<'_, T> {
        let store = self.0.clone();
        let joined = tokio::task::spawn_blocking(move || work(&store));
        Box::pin(async move {
            joined.await.unwrap_or_else(|error| {
                tracing::error!(%error, "image work failed");
                otherwise
            })
        })
    }
}

impl ImageSource for StoreImages {
    fn present(&self, image: &str) -> BoxFuture<'_, bool> {
        let image = image.to_owned();
        self.on_disk(false, move |store| store.resolve(&image).is_ok())
    }

    fn prepare(&self, request: PullRequest) -> BoxFuture<'_, Result<PreparedImage, ImageFailure>> {
        let lost = ImageFailure { reason: "ImageInspectError", message: "the image store failed".into() };
        self.on_disk(Err(lost), move |store| prepare(store, &request))
    }

    fn release_all_but(&self, kept: Vec<String>) -> BoxFuture<'_, ()> {
        self.on_disk((), move |store| {
            let leases = store.leases().unwrap_or_default();
            leases.iter().filter(|l| !kept.contains(l)).for_each(|lease| release(store, lease));
        })
    }

    fn release(&self, lease: String) -> BoxFuture<'_, ()> {
        self.on_disk((), move |store| release(store, &lease))
    }

    fn list(&self) -> BoxFuture<'_, Vec<(Vec<String>, i64)>> {
        self.on_disk(Vec::new(), |store| {
            let mut by_id: BTreeMap<String, (Vec<String>, i64)> = BTreeMap::new();
            for image in store.list().unwrap_or_default() {
                let size = i64::try_from(image.size).unwrap_or(i64::MAX);
                let entry = by_id.entry(image.id.to_string()).or_insert_with(|| (vec![image_id(&image)], size));
                entry.0.push(image.name);
            }
            by_id.into_values().collect()
        })
    }
}

fn release(store: &ImageStore, lease: &str) {
    if let Err(error) = store.release(lease) {
        tracing::warn!(lease, %error, "an image's layers cannot be released");
    }
}

/// `repository@digest`, as upstream's `imageID`.
fn image_id(image: &corten_images::Image) -> String {
    match Reference::parse(&image.name) {
        Ok(name) => format!("{}@{}", name.repository, image.manifest),
        Err(_) => image.id.to_string(),
    }
}

fn prepare(store: &ImageStore, request: &PullRequest) -> Result<PreparedImage, ImageFailure> {
    let name = &request.image;
    let image = store.resolve(name).map_err(|error| match (&error, request.policy.as_str()) {
        (ImageError::InvalidReference { .. }, _) => ImageFailure {
            reason: "InvalidImageName",
            message: format!("Failed to apply default image tag {name:?}: {error}"),
        },
        (ImageError::NotFound { .. }, "Never") => ImageFailure {
            reason: "ErrImageNeverPull",
            message: format!("Container image {name:?} is not present with pull policy of Never"),
        },
        (ImageError::NotFound { .. }, _) => ImageFailure { reason: "ErrImagePull", message: error.to_string() },
        _ => {
            ImageFailure { reason: "ImageInspectError", message: format!("Failed to inspect image {name:?}: {error}") }
        }
    })?;
    let rootfs = store.prepare(&image, &request.lease);
    let rootfs = rootfs.map_err(|error| ImageFailure { reason: "ErrImagePull", message: error.to_string() })?;
    let split = |entry: &String| {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        (name.to_owned(), value.to_owned())
    };
    Ok(PreparedImage {
        id: image_id(&image),
        layers: rootfs.lower_dirs,
        config: ImageConfig {
            entrypoint: image.config.entrypoint.clone(),
            cmd: image.config.cmd.clone(),
            env: image.config.env.iter().map(split).collect(),
            user: image.config.user.clone(),
            working_dir: image.config.working_dir.clone(),
            stop_signal: image.config.stop_signal.clone(),
        },
        size: i64::try_from(image.size).unwrap_or(i64::MAX),
    })
}
