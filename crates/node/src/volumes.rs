//! A pod's volumes on this node.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use corten_kinds::id;
use corten_object::ObjectKey;
use corten_podplan::env::Sources;
use corten_podplan::volumes::{File, VolumeKind, files, kind, token_owner};
use corten_views::volume::Volume;
use corten_views::{PersistentVolume, PersistentVolumeClaim, Pod};
use corten_volumes::{GroupPolicy, HostPathType, LocalPath, Medium, ProjectedFile, VolumeError};

use crate::pod::PodContext;
use crate::sources::Reader;

/// A volume that containers can mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Its root on the node.
    pub path: PathBuf,
    /// Read-only for every container.
    pub read_only: bool,
    /// Whether `path` is a block device.
    pub block: bool,
    /// Whether an image is mounted there.
    pub image: bool,
}

/// Which volumes could not be had, and why; at least one.
type Refused = Vec<(String, String)>;

/// Makes all volumes of a pod ready. Fine to be called again. One that cannot be had does not keep the others from being tried: all faults
/// are told at once.
pub async fn prepare(ctx: &PodContext, reader: &Reader) -> Result<HashMap<String, Mounted>, Refused> {
    let pod = &ctx.pod;
    let needs_sources = pod.spec.volumes.iter().any(|v| kind(pod, v) == Ok(VolumeKind::Files));
    let sources = match needs_sources {
        true => reader.sources(ctx, &[]).await.map_err(|e| vec![(first_token_volume(pod), e)])?,
        false => Sources::default(),
    };
    let (mut out, mut refused) = (HashMap::new(), Vec::new());
    for volume in &pod.spec.volumes {
        match one(ctx, volume, &sources).await {
            Ok(mounted) => drop(out.insert(volume.name.clone(), mounted)),
            Err(error) => refused.push((volume.name.clone(), error)),
        }
    }
    if refused.is_empty() { Ok(out) } else { Err(refused) }
}

/// Mounts an image's layers for the volume of a name.
pub async fn mount_image(ctx: &PodContext, volume: &Volume, layers: Vec<PathBuf>) -> Result<(), String> {
    let root = root_of(ctx, volume);
    run(ctx, move || corten_volumes::image_volume(&root, &layers)).await
}

fn first_token_volume(pod: &Pod) -> String {
    let token = |v: &&Volume| v.projected.iter().flat_map(|p| &p.sources).any(|s| s.service_account_token.is_some());
    pod.spec.volumes.iter().find(token).map(|v| v.name.clone()).unwrap_or_default()
}

fn root_of(ctx: &PodContext, volume: &Volume) -> PathBuf {
    ctx.dir().join("volumes").join(&volume.name)
}

async fn one(ctx: &PodContext, volume: &Volume, sources: &Sources) -> Result<Mounted, String> {
    let pod = ctx.pod.clone();
    let root = root_of(ctx, volume);
    match kind(&pod, volume)? {
        VolumeKind::EmptyDir { medium, size_limit } => {
            let path = root.clone();
            let bytes = corten_podplan::volumes::memory_size(&pod, size_limit, ctx.shared.allocatable_memory());
            let bytes_max = u64::try_from(bytes).ok().filter(|b| *b > 0);
            let medium = match medium {
                corten_podplan::volumes::Medium::Disk => Medium::Disk,
                corten_podplan::volumes::Medium::Memory => Medium::Memory { bytes_max },
                corten_podplan::volumes::Medium::HugePages(page_bytes) => Medium::HugePages { page_bytes },
            };
            run(ctx, move || {
                make_parent(&path)?;
                corten_volumes::empty_dir(&path, medium, fs_group(&pod))
            })
            .await?;
            Ok(Mounted { path: root, read_only: false, block: false, image: false })
        }
        // Its image is brought when a container starts that mounts it.
        VolumeKind::Image { .. } => Ok(Mounted { path: root, read_only: true, block: false, image: true }),
        VolumeKind::HostPath { path, check } => {
            let checked = PathBuf::from(&path);
            run(ctx, move || corten_volumes::host_path(&checked, HostPathType::parse(&check)?)).await?;
            Ok(Mounted { path: path.into(), read_only: false, block: false, image: false })
        }
        VolumeKind::Files => {
            let files = files(&pod, volume, sources)?;
            let path = root.clone();
            run(ctx, move || {
                make_parent(&path)?;
                write_files(&pod, &path, files)
            })
            .await?;
            Ok(Mounted { path: root, read_only: true, block: false, image: false })
        }
        VolumeKind::Claim { name, read_only } => {
            let (path, block) = claim(ctx, &name, &volume.name).await?;
            if let Some(group) = fs_group(&pod).filter(|_| !block) {
                let path = path.clone();
                let policy = match pod.spec.security_context.as_ref().and_then(|s| s.fs_group_change_policy.as_deref())
                {
                    Some("OnRootMismatch") => GroupPolicy::OnRootMismatch,
                    _ => GroupPolicy::Always,
                };
                run(ctx, move || corten_volumes::give_to_group(&path, group, read_only, policy)).await?;
            }
            Ok(Mounted { path, read_only, block, image: false })
        }
    }
}

async fn run(ctx: &PodContext, work: impl FnOnce() -> Result<(), VolumeError> + Send + 'static) -> Result<(), String> {
    ctx.shared.blocking(move |_| work()).await?.map_err(|e| e.to_string())
}

fn make_parent(path: &Path) -> Result<(), VolumeError> {
    let parent = path.parent().unwrap_or(path);
    let failed = |source| VolumeError::Io { doing: "create", path: parent.to_owned(), source };
    std::fs::create_dir_all(parent).map_err(failed)
}

fn fs_group(pod: &Pod) -> Option<u32> {
    pod.spec.security_context.as_ref().and_then(|s| s.fs_group).and_then(|g| u32::try_from(g).ok())
}

fn write_files(pod: &Pod, root: &Path, files: Vec<File>) -> Result<(), VolumeError> {
    let owner = token_owner(pod);
    let one = |f: File| {
        let owner = owner.filter(|_| f.mode == 0o600);
        ProjectedFile { path: f.path, content: f.content, mode: f.mode, owner }
    };
    let files: Vec<ProjectedFile> = files.into_iter().map(one).collect();
    corten_volumes::write_projected(root, &files, fs_group(pod)).map(drop)
}

/// Where the `n`-th mount of a container finds a part of a volume.
pub fn sub_path(ctx: &PodContext, volume: &str, container: &str, n: usize) -> PathBuf {
    ctx.dir().join("volume-subpaths").join(volume).join(container).join(n.to_string())
}

/// Bytes of a file of variables at most.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// The text of a file in a volume. Links may not lead out of it, and what is no plain file is not opened.
pub fn read_text(root: &Path, sub: &str) -> Result<String, String> {
    use std::io::Read as _;
    use std::os::fd::AsRawFd as _;
    if !corten_volumes::sub_path_exists(root, sub).map_err(|e| e.to_string())? {
        return Err(format!("{sub}: no such file"));
    }
    let found = std::fs::File::from(corten_volumes::open_sub_path(root, sub).map_err(|e| e.to_string())?);
    if !found.metadata().is_ok_and(|m| m.is_file()) {
        return Err(format!("{sub}: not a plain file"));
    }
    let open = || -> std::io::Result<String> {
        let mut text = Vec::new();
        let file = std::fs::File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
        file.take(TEXT_BYTES_MAX + 1).read_to_end(&mut text)?;
        if text.len() as u64 > TEXT_BYTES_MAX {
            return Err(std::io::Error::other("larger than 1 MiB"));
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    open().map_err(|e| format!("{sub}: {e}"))
}

/// The path of a bound claim's volume on this node, and whether it is a block device; `used_as`: the volume's name in the pod.
async fn claim(ctx: &PodContext, name: &str, used_as: &str) -> Result<(PathBuf, bool), String> {
    let api = &ctx.shared.api;
    let key = ObjectKey::new(id::PERSISTENT_VOLUME_CLAIM, &ctx.pod.metadata.namespace, name);
    let claim = api.get(&key).await.map_err(|s| format!("error processing PVC {}/{name}: {s}", key.namespace))?;
    let claim = claim.view::<PersistentVolumeClaim>().map_err(|e| e.to_string())?;
    if claim.spec.volume_name.is_empty() || claim.status.phase != "Bound" {
        return Err(format!("persistentvolumeclaim {name:?} is not bound"));
    }
    let key = ObjectKey::new(id::PERSISTENT_VOLUME, "", &claim.spec.volume_name);
    let volume = api.get(&key).await.map_err(|s| s.to_string())?;
    let volume = volume.view::<PersistentVolume>().map_err(|e| e.to_string())?;
    let block = volume.spec.volume_mode.as_deref() == Some("Block");
    corten_podplan::volumes::check_mode(&ctx.pod, used_as, block)?;
    if block {
        return Ok((block_device(ctx, &volume, used_as).await?, true));
    }
    if let Some(local) = &volume.spec.local {
        let path = PathBuf::from(&local.path);
        // A volume of the built-in class is made on its first use.
        if path.starts_with(&ctx.shared.config.data_dir) {
            let (made, all) = (path.clone(), LocalPath::new(&ctx.shared.config.data_dir));
            let bytes = capacity(&volume);
            let made = ctx.shared.blocking(move |_| {
                all.create(&made).map_err(|e| e.to_string())?;
                // A volume that has grown gets its new size here.
                let bounded = corten_runtime::project_quota::set(&made, bytes);
                bounded.map_err(|e| format!("cannot bound {} to {bytes} bytes: {e}", made.display()))
            });
            made.await??;
        }
        let checked = path.clone();
        let link = ctx.dir().join(CLAIMS).join(used_as);
        run(ctx, move || {
            corten_volumes::host_path(&checked, HostPathType::Directory)?;
            note_claim(&checked, &link)
        })
        .await?;
        return Ok((path, false));
    }
    if let Some(csi) = &volume.spec.csi {
        return Err(corten_podplan::volumes::no_driver(&csi.driver));
    }
    let Some(host) = &volume.spec.host_path else {
        let name = &volume.metadata.name;
        return Err(format!("persistentvolume {name:?}: only local and hostPath volumes are implemented"));
    };
    let path = PathBuf::from(&host.path);
    let (checked, check) = (path.clone(), host.r#type.clone().unwrap_or_default());
    run(ctx, move || corten_volumes::host_path(&checked, HostPathType::parse(&check)?)).await?;
    Ok((path, false))
}

/// Bytes; 0 if nothing is said.
fn capacity(volume: &PersistentVolume) -> u64 {
    let bytes = volume.spec.capacity.get("storage").map_or(0, corten_views::Quantity::value);
    u64::try_from(bytes).unwrap_or(0)
}

/// Below a pod's directory: links to the directories of its claims' local volumes, for who measures them.
const CLAIMS: &str = "volume-claims";

fn note_claim(path: &Path, link: &Path) -> Result<(), VolumeError> {
    if std::fs::read_link(link).is_ok_and(|known| known == path) {
        return Ok(());
    }
    make_parent(link)?;
    let failed = |source| VolumeError::Io { doing: "link", path: link.to_owned(), source };
    match std::fs::remove_file(link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    std::os::unix::fs::symlink(path, link).map_err(failed)
}

/// Where the local volume of a pod's claim is; `None` if it is none, or has not been mounted.
pub fn claim_path(pod_dir: &Path, volume: &str) -> Option<PathBuf> {
    std::fs::read_link(pod_dir.join(CLAIMS).join(volume)).ok()
}

/// Below a pod's directory: links to the files that loop devices show for it.
const DEVICES: &str = "volume-devices";

/// The device node of a volume in block mode. A volume of the built-in class is a file behind a loop device.
async fn block_device(ctx: &PodContext, volume: &PersistentVolume, used_as: &str) -> Result<PathBuf, String> {
    let (name, spec) = (&volume.metadata.name, &volume.spec);
    let path = match (&spec.local, &spec.host_path) {
        (Some(local), _) => PathBuf::from(&local.path),
        (None, Some(host)) => PathBuf::from(&host.path),
        (None, None) => {
            return Err(format!("persistentvolume {name:?}: only local and hostPath volumes are implemented"));
        }
    };
    if !path.starts_with(&ctx.shared.config.data_dir) {
        let checked = path.clone();
        run(ctx, move || corten_volumes::host_path(&checked, HostPathType::BlockDevice)).await?;
        return Ok(path);
    }
    let bytes = capacity(volume);
    let all = LocalPath::new(&ctx.shared.config.data_dir);
    let link = ctx.dir().join(DEVICES).join(used_as);
    let attached = ctx.shared.blocking(move |_| {
        all.create_image(&path, bytes).map_err(|e| e.to_string())?;
        // The link first: what is attached is never forgotten.
        make_parent(&link).map_err(|e| e.to_string())?;
        match std::os::unix::fs::symlink(&path, &link) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(format!("cannot link {}: {error}", link.display()));
            }
            _ => {}
        }
        let failed = |error| format!("cannot make {} a block device: {error}", path.display());
        corten_runtime::loop_device::attach(&path, bytes).map_err(failed)
    });
    attached.await?
}

/// Frees the loop devices that only this pod has used.
fn free_devices(pods: &Path, own: &Path) -> Result<(), VolumeError> {
    let files = |dir: &Path| -> Vec<PathBuf> {
        let links = std::fs::read_dir(dir.join(DEVICES)).into_iter().flatten().flatten();
        links.filter_map(|link| std::fs::read_link(link.path()).ok()).collect()
    };
    let others = std::fs::read_dir(pods).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p != own);
    let used: Vec<PathBuf> = others.flat_map(|pod| files(&pod)).collect();
    for file in files(own).into_iter().filter(|f| !used.contains(f)) {
        let failed = |source| VolumeError::Io { doing: "free the loop device of", path: file.clone(), source };
        corten_runtime::loop_device::detach(&file).map_err(failed)?;
    }
    corten_volumes::remove_dir(&own.join(DEVICES))
}

/// Writes changed contents into volumes made of API objects.
pub async fn refresh(ctx: &PodContext, reader: &Reader, ips: &[String]) -> Result<(), String> {
    let sources = reader.sources(ctx, ips).await?;
    for volume in &ctx.pod.spec.volumes {
        if kind(&ctx.pod, volume) == Ok(VolumeKind::Files) && root_of(ctx, volume).exists() {
            one(ctx, volume, &sources).await?;
        }
    }
    Ok(())
}

/// Unmounts and removes all volumes that were made for the pod, and its containers' files.
pub async fn remove(ctx: &PodContext) -> Result<(), String> {
    let dir = ctx.dir();
    let pods = dir.parent().unwrap_or(&dir).to_owned();
    run(ctx, move || {
        free_devices(&pods, &dir)?;
        ["volume-subpaths", "volumes", "containers", CLAIMS]
            .iter()
            .try_for_each(|name| corten_volumes::remove_dir(&dir.join(name)))
    })
    .await
}

/// Unmounts whatever is mounted below the pods' directory.
pub fn unmount_all(pods: &Path) -> Result<(), VolumeError> {
    corten_volumes::unmount_below(pods)
}
