//! The images of this node's store, and pulling what is not in it (`pkg/kubelet/images/image_manager.go`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use corten_base::{BoxFuture, Clock};
use corten_images::{Image, ImageError, ImageStore, Keyring, Login, Progress, Reference, Registry};
use tokio::sync::Semaphore;

use crate::images::{
    ImageConfig, ImageFailure, ImageSource, PreparedImage, PullRequest, PullSecret, Pulled, StoredImage,
};

/// Images that are pulled at once; further pulls wait.
const PULLS_AT_ONCE: usize = 8;
/// Largest docker configuration of the node, in bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// The images of this node's store.
#[derive(Clone)]
pub struct StoreImages {
    store: ImageStore,
    registry: Registry,
    /// Docker configuration files with the node's own logins.
    logins: Vec<PathBuf>,
    clock: Arc<dyn Clock>,
    pulls: Arc<Semaphore>,
}

impl StoreImages {
    /// The images of a store; what is not in it comes from registries. `logins` are docker configuration files (`config.json`) with
    /// the node's own logins; they need not exist, and are read at each pull.
    pub fn new(store: ImageStore, registry: Registry, logins: Vec<PathBuf>, clock: Arc<dyn Clock>) -> StoreImages {
        StoreImages { store, registry, logins, clock, pulls: Arc::new(Semaphore::new(PULLS_AT_ONCE)) }
    }

    /// Runs disk work on a thread made for that.
    fn on_disk<T: Send + 'static>(
        &self,
        otherwise: T,
        work: impl FnOnce(&ImageStore) -> T + Send + 'static,
    ) -> BoxFuture<'_, T> {
        let store = self.store.clone();
        let joined = tokio::task::spawn_blocking(move || work(&store));
        Box::pin(async move {
            joined.await.unwrap_or_else(|error| {
                tracing::error!(%error, "image work failed");
                otherwise
            })
        })
    }

    async fn fetch(&self, request: PullRequest, progress: Arc<Progress>) -> Result<Pulled, ImageFailure> {
        let reference = Reference::parse(&request.image).map_err(|error| invalid(&request.image, &error))?;
        let logins = {
            let (files, secrets, repository) = (self.logins.clone(), request.secrets, reference.repository.clone());
            self.on_disk(Ok(Vec::new()), move |_| logins(&secrets, &files, &repository)).await
        };
        let logins = logins.map_err(|message| ImageFailure { reason: "ErrImagePull", message })?;
        let lost = || ImageFailure { reason: "ErrImagePull", message: "the node is stopping".into() };
        let _permit = self.pulls.acquire().await.map_err(|_| lost())?;
        let began = self.clock.now();
        let pulled = self.registry.pull(&self.store, &reference, &logins, &progress).await.map_err(|e| failed(&e))?;
        let took = self.clock.now().duration_since(began).unsigned_abs();
        let noted = self.on_disk(Err(lost()), move |store| {
            // What a digest names is known by what it resolved to.
            let digest = format!("{}@{}", reference.repository, pulled.digest);
            let image = store.resolve(&digest).map_err(|error| failed(&error))?;
            store.note_pulled(&image, pulled.login.as_ref()).map_err(|error| failed(&error))?;
            Ok(image.size)
        });
        Ok(Pulled { size: noted.await?, took })
    }
}

/// The logins for a repository: the pod's first, in the order of its secrets, then the node's.
fn logins(secrets: &[PullSecret], files: &[PathBuf], repository: &str) -> Result<Vec<Login>, String> {
    let mut found = Vec::new();
    for secret in secrets {
        let mut keyring = Keyring::default();
        keyring.add(&secret.config, secret.legacy, Some(&secret.secret))?;
        found.extend(keyring.lookup(repository));
    }
    let mut own = Keyring::default();
    for file in files {
        match read_config(file) {
            Ok(Some(config)) => own.add(&config, false, None).map_err(|why| format!("{}: {why}", file.display()))?,
            Ok(None) => {}
            Err(error) => return Err(format!("{}: {error}", file.display())),
        }
    }
    found.extend(own.lookup(repository));
    Ok(found)
}

fn read_config(file: &Path) -> std::io::Result<Option<Vec<u8>>> {
    match std::fs::metadata(file) {
        Ok(meta) if meta.len() > CONFIG_BYTES_MAX => Err(std::io::Error::other("it is too large")),
        Ok(_) => std::fs::read(file).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl ImageSource for StoreImages {
    fn usable(&self, request: PullRequest) -> BoxFuture<'_, Result<bool, ImageFailure>> {
        let lost = ImageFailure { reason: "ImageInspectError", message: "the image store failed".into() };
        let files = self.logins.clone();
        self.on_disk(Err(lost), move |store| usable(store, &request, &files))
    }

    fn pull(&self, request: PullRequest, progress: Arc<Progress>) -> BoxFuture<'_, Result<Pulled, ImageFailure>> {
        Box::pin(self.fetch(request, progress))
    }

    fn prepare(&self, request: PullRequest) -> BoxFuture<'_, Result<PreparedImage, ImageFailure>> {
        let lost = ImageFailure { reason: "ImageInspectError", message: "the image store failed".into() };
        self.on_disk(Err(lost), move |store| prepare(store, &request))
    }

    fn release_all_but(&self, kept: Vec<String>) -> BoxFuture<'_, ()> {
        self.on_disk((), move |store| {
            let stays = |lease: &String| match lease.strip_prefix("volume-") {
                Some(rest) => {
                    kept.iter().any(|uid| rest.strip_prefix(uid.as_str()).is_some_and(|r| r.starts_with('-')))
                }
                None => kept.contains(lease),
            };
            let leases = store.leases().unwrap_or_default();
            leases.iter().filter(|lease| !stays(lease)).for_each(|lease| release(store, lease));
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
                let entry = by_id.entry(image.id.to_string()).or_insert_with(|| (Vec::new(), size));
                for name in [image_id(&image), image.name] {
                    if !entry.0.contains(&name) {
                        entry.0.push(name);
                    }
                }
            }
            by_id.into_values().collect()
        })
    }

    fn stored(&self) -> BoxFuture<'_, Result<Vec<StoredImage>, String>> {
        self.on_disk(Err("the image store failed".into()), |store| {
            let used = store.images_in_use().map_err(|error| error.to_string())?;
            let mut by_id: BTreeMap<String, StoredImage> = BTreeMap::new();
            for image in store.list().map_err(|error| error.to_string())? {
                let entry = by_id.entry(image.id.to_string()).or_insert_with(|| StoredImage {
                    id: image.id.to_string(),
                    size: image.size,
                    used: used.contains(image.id.as_str()),
                    pinned: false,
                });
                // What was imported or built here can perhaps be had nowhere else.
                entry.pinned |= !image.pulled;
            }
            Ok(by_id.into_values().collect())
        })
    }

    fn remove(&self, id: String) -> BoxFuture<'_, Result<(), String>> {
        self.on_disk(Err("the image store failed".into()), move |store| {
            store.remove(&id).map(drop).map_err(|error| error.to_string())
        })
    }
}

fn release(store: &ImageStore, lease: &str) {
    if let Err(error) = store.release(lease) {
        tracing::warn!(lease, %error, "an image's layers cannot be released");
    }
}

/// `repository@digest`, as upstream's `imageID`.
fn image_id(image: &Image) -> String {
    match Reference::parse(&image.name) {
        Ok(name) => format!("{}@{}", name.repository, image.source),
        Err(_) => image.id.to_string(),
    }
}

fn invalid(name: &str, error: &ImageError) -> ImageFailure {
    ImageFailure { reason: "InvalidImageName", message: format!("Failed to apply default image tag {name:?}: {error}") }
}

/// A failed pull, with the code that the container runtime's interface puts in front.
fn failed(error: &ImageError) -> ImageFailure {
    let message = error.to_string();
    let code = match message.rsplit(": ").next() {
        Some("not found") => "rpc error: code = NotFound desc = ",
        Some("failed precondition") => "rpc error: code = FailedPrecondition desc = ",
        _ => "",
    };
    ImageFailure { reason: "ErrImagePull", message: format!("{code}{message}") }
}

/// Whether no pull is needed (`imagePullPrecheck` and `MustAttemptImagePull`).
fn usable(store: &ImageStore, request: &PullRequest, files: &[PathBuf]) -> Result<bool, ImageFailure> {
    let name = &request.image;
    let reference = Reference::parse(name).map_err(|error| invalid(name, &error))?;
    // An image that a pod may not use looks to it like one that is not there.
    let never = || ImageFailure {
        reason: "ErrImageNeverPull",
        message: format!("Container image {name:?} is not present with pull policy of Never"),
    };
    let inspect = |error: ImageError| ImageFailure {
        reason: "ImageInspectError",
        message: format!("Failed to inspect image {name:?}: {error}"),
    };
    let found = store.resolve(name);
    // The built-in images are made of this very program: nobody has newer ones.
    if request.policy == "Always" && !found.as_ref().is_ok_and(corten_images::is_builtin) {
        return Ok(false);
    }
    let may = match found {
        Err(ImageError::NotFound { .. }) => false,
        Err(error) => return Err(inspect(error)),
        Ok(image) => {
            let logins = logins(&request.secrets, files, &reference.repository).unwrap_or_default();
            store.may_use(&image, &logins).map_err(inspect)?
        }
    };
    if !may && request.policy == "Never" {
        return Err(never());
    }
    Ok(may)
}

fn prepare(store: &ImageStore, request: &PullRequest) -> Result<PreparedImage, ImageFailure> {
    let name = &request.image;
    let image = store.resolve(name).map_err(|error| ImageFailure {
        reason: "ImageInspectError",
        message: format!("Failed to inspect image {name:?}: {error}"),
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
