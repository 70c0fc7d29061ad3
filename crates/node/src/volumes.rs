//! A pod's volumes on this node.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use corten_kinds::id;
use corten_object::ObjectKey;
use corten_podplan::env::Sources;
use corten_podplan::volumes::{File, VolumeKind, files, kind, token_owner};
use corten_views::volume::Volume;
use corten_views::{PersistentVolume, PersistentVolumeClaim, Pod};

use crate::pod::PodContext;
use crate::sources::Reader;

/// A volume that containers can mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Its root on the node.
    pub path: PathBuf,
    /// Read-only for every container.
    pub read_only: bool,
}

/// Which volume could not be had, and why.
type Refused = (String, String);

/// Makes all volumes of a pod ready. Fine to be called again.
pub async fn prepare(ctx: &PodContext, reader: &Reader) -> Result<HashMap<String, Mounted>, Refused> {
    let pod = &ctx.pod;
    let needs_sources = pod.spec.volumes.iter().any(|v| kind(pod, v) == Ok(VolumeKind::Files));
    let sources = match needs_sources {
        true => reader.sources(ctx, &[]).await.map_err(|e| (first_token_volume(pod), e))?,
        false => Sources::default(),
    };
    let mut out = HashMap::new();
    for volume in &pod.spec.volumes {
        let refuse = |error: String| (volume.name.clone(), error);
        let mounted = one(ctx, volume, &sources).await.map_err(refuse)?;
        out.insert(volume.name.clone(), mounted);
    }
    Ok(out)
}

/// As [`prepare`]: for a container that starts.
pub async fn mounted(ctx: &PodContext, reader: &Reader) -> Result<HashMap<String, Mounted>, Refused> {
    prepare(ctx, reader).await
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
        VolumeKind::EmptyDir { memory, size_limit } => {
            let path = root.clone();
            run(ctx, move || empty_dir(&pod, &path, memory, size_limit)).await?;
            Ok(Mounted { path: root, read_only: false })
        }
        VolumeKind::HostPath { path, check } => {
            let checked = PathBuf::from(&path);
            run(ctx, move || host_path(&checked, &check)).await?;
            Ok(Mounted { path: path.into(), read_only: false })
        }
        VolumeKind::Files => {
            let files = files(&pod, volume, sources)?;
            let path = root.clone();
            run(ctx, move || write_files(&pod, &path, &files)).await?;
            Ok(Mounted { path: root, read_only: true })
        }
        VolumeKind::Claim { name, read_only } => {
            let path = claim(ctx, &name).await?;
            if let Some(group) = fs_group(&pod) {
                let path = path.clone();
                run(ctx, move || give_to_group(&path, group)).await?;
            }
            Ok(Mounted { path, read_only })
        }
    }
}

async fn run(ctx: &PodContext, work: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> Result<(), String> {
    ctx.shared.blocking(move |_| work()).await?.map_err(|e| e.to_string())
}

fn fs_group(pod: &Pod) -> Option<u32> {
    pod.spec.security_context.as_ref().and_then(|s| s.fs_group).and_then(|g| u32::try_from(g).ok())
}

fn empty_dir(pod: &Pod, path: &Path, memory: bool, size_limit: Option<i64>) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let fresh = !path.exists();
    std::fs::create_dir_all(path)?;
    if memory && !is_mount(path)? {
        let mut options = String::from("mode=1777");
        if let Some(bytes) = size_limit.filter(|b| *b > 0) {
            options += &format!(",size={bytes}");
        }
        let options = std::ffi::CString::new(options).expect("it has no NUL");
        rustix::mount::mount("tmpfs", path, "tmpfs", rustix::mount::MountFlags::empty(), options.as_c_str())?;
    }
    if fresh || memory {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
        if let Some(group) = fs_group(pod) {
            std::os::unix::fs::chown(path, None, Some(group))?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o2777))?;
        }
    }
    Ok(())
}

/// Whether something is mounted at a path: its device differs from its parent's.
fn is_mount(path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let parent = path.parent().unwrap_or(path);
    Ok(path.metadata()?.dev() != parent.metadata()?.dev())
}

/// As `pkg/volume/hostpath/host_path.go` `checkType`.
fn host_path(path: &Path, check: &str) -> std::io::Result<()> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let found = std::fs::metadata(path);
    let wrong =
        |what: &str| std::io::Error::other(format!("hostPath type check failed: {} is not {what}", path.display()));
    let is = |test: &dyn Fn(&std::fs::FileType) -> bool| found.as_ref().is_ok_and(|m| test(&m.file_type()));
    match check {
        "" => Ok(()),
        "DirectoryOrCreate" if found.is_err() => {
            std::fs::create_dir_all(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        }
        "FileOrCreate" if found.is_err() => {
            std::fs::write(path, "")?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
        }
        "Directory" | "DirectoryOrCreate" if is(&|t| t.is_dir()) => Ok(()),
        "File" | "FileOrCreate" if is(&|t| t.is_file()) => Ok(()),
        "Socket" if is(&|t| t.is_socket()) => Ok(()),
        "CharDevice" if is(&|t| t.is_char_device()) => Ok(()),
        "BlockDevice" if is(&|t| t.is_block_device()) => Ok(()),
        "Directory" | "DirectoryOrCreate" => Err(wrong("a directory")),
        "File" | "FileOrCreate" => Err(wrong("a file")),
        "Socket" => Err(wrong("a socket file")),
        "CharDevice" => Err(wrong("a character device")),
        "BlockDevice" => Err(wrong("a block device")),
        other => Err(std::io::Error::other(format!("{other} is an invalid volume type"))),
    }
}

/// Puts files behind a `..data` link that changes in one step (`pkg/volume/util/atomic_writer.go`). Nothing is written when
/// nothing differs.
fn write_files(pod: &Pod, root: &Path, files: &[File]) -> std::io::Result<()> {
    use std::os::unix::fs::{PermissionsExt, symlink};
    if !root.exists() {
        std::fs::create_dir_all(root)?;
        std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o755))?;
    }
    let data = root.join("..data");
    let same = |f: &File| std::fs::read(data.join(&f.path)).is_ok_and(|old| old == f.content);
    let present = std::fs::read_link(&data).ok();
    let count = |dir: &Path| count_files(dir).unwrap_or(usize::MAX);
    if let Some(old) = &present
        && files.iter().all(same)
        && count(&root.join(old)) == files.len()
    {
        return Ok(());
    }
    let stamp = (0..).map(|n| format!("..{n}")).find(|name| !root.join(name).exists()).expect("there is a free name");
    let fresh = root.join(&stamp);
    std::fs::create_dir(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755))?;
    let group = fs_group(pod);
    let owner = token_owner(pod);
    for file in files {
        let path = fresh.join(relative(&file.path)?);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, &file.content)?;
        let mode = if group.is_some() { file.mode | 0o040 } else { file.mode };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
        if group.is_some() || (file.mode == 0o600 && owner.is_some()) {
            std::os::unix::fs::chown(&path, owner.filter(|_| file.mode == 0o600), group)?;
        }
    }
    let next = root.join("..data_tmp");
    let _ = std::fs::remove_file(&next);
    symlink(&stamp, &next)?;
    std::fs::rename(&next, &data)?;
    link_names(root, files)?;
    if let Some(old) = present {
        std::fs::remove_dir_all(root.join(old))?;
    }
    Ok(())
}

/// One link per first path element into `..data`; links to what is gone are removed.
fn link_names(root: &Path, files: &[File]) -> std::io::Result<()> {
    let first = |f: &File| f.path.split('/').next().unwrap_or_default().to_owned();
    let names: std::collections::BTreeSet<String> = files.iter().map(first).collect();
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !names.contains(&name) {
            std::fs::remove_file(entry.path())?;
        }
    }
    for name in names {
        let link = root.join(&name);
        if std::fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(Path::new("..data").join(&name), link)?;
        }
    }
    Ok(())
}

fn count_files(dir: &Path) -> std::io::Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { count_files(&entry.path())? } else { 1 };
    }
    Ok(count)
}

/// A path that stays below its root.
fn relative(text: &str) -> std::io::Result<&Path> {
    let path = Path::new(text);
    match !text.is_empty() && path.components().all(|c| matches!(c, Component::Normal(_))) {
        true => Ok(path),
        false => Err(std::io::Error::other(format!("{text:?} is not a path below the volume"))),
    }
}

/// A path below a volume's root for `subPath`, made as a directory if it is missing. Links may not lead out of the volume.
pub fn sub_path(root: &Path, sub: &str) -> Result<PathBuf, String> {
    let sub = relative(sub).map_err(|e| e.to_string())?;
    let root = root.canonicalize().map_err(|e| format!("{}: {e}", root.display()))?;
    let mut at = root.clone();
    for part in sub.components() {
        let next = at.join(part);
        if std::fs::symlink_metadata(&next).is_err() {
            std::fs::create_dir(&next).map_err(|e| format!("{}: {e}", next.display()))?;
        }
        at = next.canonicalize().map_err(|e| format!("{}: {e}", next.display()))?;
        if !at.starts_with(&root) {
            return Err(format!("subPath {:?} leads out of its volume", sub.display()));
        }
    }
    Ok(at)
}

/// The path of a bound claim's volume on this node.
async fn claim(ctx: &PodContext, name: &str) -> Result<PathBuf, String> {
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
    if let Some(local) = &volume.spec.local {
        return Ok(PathBuf::from(&local.path));
    }
    let Some(host) = &volume.spec.host_path else {
        let name = &volume.metadata.name;
        return Err(format!("persistentvolume {name:?}: only local and hostPath volumes are implemented"));
    };
    let path = PathBuf::from(&host.path);
    let (checked, check) = (path.clone(), host.r#type.clone().unwrap_or_default());
    run(ctx, move || host_path(&checked, &check)).await?;
    Ok(path)
}

fn give_to_group(path: &Path, group: u32) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
    let found = std::fs::symlink_metadata(path)?;
    if found.gid() != group {
        lchown(path, None, Some(group))?;
    }
    if found.is_dir() {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(found.mode() & 0o7777 | 0o2070))?;
        for entry in std::fs::read_dir(path)? {
            give_to_group(&entry?.path(), group)?;
        }
    } else if found.is_file() {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(found.mode() & 0o7777 | 0o060))?;
    }
    Ok(())
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

/// Unmounts and removes all volumes that were made for the pod.
pub async fn remove(ctx: &PodContext) -> Result<(), String> {
    let root = ctx.dir().join("volumes");
    let containers = ctx.dir().join("containers");
    let work = move || {
        if let Ok(entries) = std::fs::read_dir(&root) {
            for entry in entries {
                let path = entry?.path();
                if path.is_dir() && is_mount(&path)? {
                    rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH)?;
                }
            }
        }
        for path in [&root, &containers] {
            match std::fs::remove_dir_all(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    };
    run(ctx, work).await
}

/// Unmounts whatever is mounted in pods' volume directories.
pub fn unmount_all(pods: &Path) -> std::io::Result<()> {
    for pod in std::fs::read_dir(pods).into_iter().flatten() {
        for volume in std::fs::read_dir(pod?.path().join("volumes")).into_iter().flatten() {
            let path = volume?.path();
            if path.is_dir() && is_mount(&path)? {
                rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, content: &str) -> File {
        File { path: path.into(), content: content.into(), mode: 0o644 }
    }

    #[test]
    fn files_change_in_one_step() {
        let dir = std::env::temp_dir().join(format!("corten-node-volumes-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let pod = Pod::default();
        write_files(&pod, &dir, &[file("a", "1"), file("d/b", "2")]).unwrap();
        let first = std::fs::read_link(dir.join("..data")).unwrap();
        assert_eq!(std::fs::read_to_string(dir.join("d/b")).unwrap(), "2");
        write_files(&pod, &dir, &[file("a", "1"), file("d/b", "2")]).unwrap();
        assert_eq!(std::fs::read_link(dir.join("..data")).unwrap(), first, "nothing changed");
        write_files(&pod, &dir, &[file("a", "3")]).unwrap();
        assert_eq!(std::fs::read_to_string(dir.join("a")).unwrap(), "3");
        assert!(std::fs::symlink_metadata(dir.join("d")).is_err());
        assert!(write_files(&pod, &dir, &[file("../x", "")]).is_err());
        std::os::unix::fs::symlink("/etc", dir.join("out")).unwrap();
        assert!(sub_path(&dir, "out/x").is_err());
        assert!(sub_path(&dir, "new/sub").unwrap().is_dir());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
