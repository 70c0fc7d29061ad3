//! What a container's start needs of an image.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use corten_base::BoxFuture;
use corten_images::{Progress, SecretRef};

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

/// A secret of the API with logins for registries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullSecret {
    /// Which secret.
    pub secret: SecretRef,
    /// The content of its `.dockerconfigjson`, or of its `.dockercfg`.
    pub config: Vec<u8>,
    /// Whether it is a `.dockercfg`.
    pub legacy: bool,
}

/// Which image, and how.
#[derive(Clone, Debug, Default)]
pub struct PullRequest {
    /// As in the container's spec.
    pub image: String,
    /// `Always`, `IfNotPresent`, `Never`.
    pub policy: String,
    /// The pod's pull secrets, in order.
    pub secrets: Vec<PullSecret>,
    /// The container or volume that the image is for: its layers stay until [`ImageSource::release`].
    pub lease: String,
}

/// What a pull brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pulled {
    /// Bytes of the image.
    pub size: u64,
    /// How long it took, without the wait for other pulls.
    pub took: Duration,
}

/// What garbage collection may take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredImage {
    /// Its id.
    pub id: String,
    /// Bytes.
    pub size: u64,
    /// Whether a container or a volume stands on it.
    pub used: bool,
    /// Whether it must stay.
    pub pinned: bool,
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
    /// Whether a pod may use the image as it is here; if not, it must be pulled.
    fn usable(&self, request: PullRequest) -> BoxFuture<'_, Result<bool, ImageFailure>>;

    /// Fetches an image.
    fn pull(&self, request: PullRequest, progress: Arc<Progress>) -> BoxFuture<'_, Result<Pulled, ImageFailure>>;

    /// Makes an image that is here ready for use.
    fn prepare(&self, request: PullRequest) -> BoxFuture<'_, Result<PreparedImage, ImageFailure>>;

    /// Lets go of what containers needed that are no more; `kept` are those that are, and the uids of pods whose volumes are.
    fn release_all_but(&self, kept: Vec<String>) -> BoxFuture<'_, ()>;

    /// Lets go of what a container or a volume needed.
    fn release(&self, lease: String) -> BoxFuture<'_, ()>;

    /// Images on this node: names and bytes.
    fn list(&self) -> BoxFuture<'_, Vec<(Vec<String>, i64)>>;

    /// Images on this node, for garbage collection.
    fn stored(&self) -> BoxFuture<'_, Result<Vec<StoredImage>, String>>;

    /// Takes an image away.
    fn remove(&self, id: String) -> BoxFuture<'_, Result<(), String>>;
}

/// The lease of a pod's image volume.
pub fn volume_lease(uid: &str, volume: &str) -> String {
    format!("volume-{uid}-{volume}")
}

/// One directory as the root file system of every image: for tests and first steps.
#[derive(Clone, Debug)]
pub struct DirectoryImages {
    /// The root file system.
    pub root: PathBuf,
}

impl ImageSource for DirectoryImages {
    fn usable(&self, request: PullRequest) -> BoxFuture<'_, Result<bool, ImageFailure>> {
        Box::pin(async move { Ok(!request.image.contains("missing")) })
    }

    fn pull(&self, request: PullRequest, _progress: Arc<Progress>) -> BoxFuture<'_, Result<Pulled, ImageFailure>> {
        Box::pin(async move {
            let message = format!("{}: not found", request.image);
            Err(ImageFailure { reason: "ErrImagePull", message })
        })
    }

    fn prepare(&self, _request: PullRequest) -> BoxFuture<'_, Result<PreparedImage, ImageFailure>> {
        Box::pin(async move {
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

    fn stored(&self) -> BoxFuture<'_, Result<Vec<StoredImage>, String>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn remove(&self, _id: String) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}
