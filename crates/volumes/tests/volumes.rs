//! Volumes on the real kernel. They mount, and change owners: run as root.

#![allow(clippy::unwrap_used, reason = "in tests")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use corten_volumes::{
    GroupPolicy, HostPathType, LocalPath, Medium, ProjectedFile, VolumeError, bind_sub_path, empty_dir, give_to_group,
    host_path, is_mount_point, mounts_below, open_sub_path, remove_dir, sub_path_exists, unmount_below, usage,
    write_projected,
};

/// A directory that takes its mounts with it when it goes.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        assert!(rustix::process::geteuid().is_root(), "these tests mount file systems: run them as root");
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = unmount_below(self.0.path());
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn gid(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().gid()
}

fn file(path: &str, content: &str) -> ProjectedFile {
    ProjectedFile { path: path.into(), content: content.into(), mode: 0o640, owner: None }
}

#[test]
fn empty_dirs_are_open_to_all_and_keep_their_content() {
    let p = Place::new();
    let dir = p.path("a/b");
    empty_dir(&dir, Medium::Disk, None).unwrap();
    assert_eq!(mode(&dir), 0o777);
    fs::write(dir.join("x"), "1").unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    empty_dir(&dir, Medium::Disk, None).unwrap();
    assert_eq!((mode(&dir), fs::read(dir.join("x")).unwrap()), (0o700, b"1".to_vec()));
    empty_dir(&p.path("g"), Medium::Disk, Some(77)).unwrap();
    assert_eq!((mode(&p.path("g")), gid(&p.path("g"))), (0o2777, 77));
}

#[test]
fn empty_dirs_in_memory_are_bounded_and_go_away() {
    let p = Place::new();
    let dir = p.path("m");
    let medium = Medium::Memory { bytes_max: Some(1 << 20) };
    empty_dir(&dir, medium, Some(5)).unwrap();
    empty_dir(&dir, medium, Some(5)).unwrap();
    assert_eq!(mounts_below(&dir).unwrap().len(), 1, "mounted once");
    assert_eq!((mode(&dir), gid(&dir)), (0o3777, 5));
    let error = fs::write(dir.join("x"), vec![7; 2 << 20]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    remove_dir(&dir).unwrap();
    remove_dir(&dir).unwrap();
    assert!(!dir.exists() && mounts_below(p.0.path()).unwrap().is_empty());
}

#[test]
fn usage_counts_each_file_once_and_no_other_file_system() {
    let p = Place::new();
    let dir = p.path("d");
    empty_dir(&dir, Medium::Disk, None).unwrap();
    let before = usage(&dir).unwrap();
    fs::write(dir.join("x"), vec![7; 100_000]).unwrap();
    fs::hard_link(dir.join("x"), dir.join("y")).unwrap();
    empty_dir(&dir.join("m"), Medium::Memory { bytes_max: None }, None).unwrap();
    fs::write(dir.join("m/z"), vec![7; 1_000_000]).unwrap();
    let after = usage(&dir).unwrap();
    assert!((100_000..200_000).contains(&(after.bytes - before.bytes)), "{before:?} {after:?}");
    assert_eq!(after.inodes - before.inodes, 1);
}

#[test]
fn host_paths_are_what_they_should_be() {
    let p = Place::new();
    let (dir, plain, socket) = (p.path("dir"), p.path("file"), p.path("socket"));
    let _listener = UnixListener::bind(&socket).unwrap();
    host_path(&dir, HostPathType::DirectoryOrCreate).unwrap();
    host_path(&plain, HostPathType::FileOrCreate).unwrap();
    assert_eq!((mode(&dir), mode(&plain) & 0o400), (0o755, 0o400));
    let fits = |path: &Path, kind: &str| host_path(path, HostPathType::parse(kind).unwrap());
    for (path, kinds) in [
        (dir.as_path(), ["", "Directory", "DirectoryOrCreate"].as_slice()),
        (&plain, &["", "File", "FileOrCreate"]),
        (&socket, &["", "Socket"]),
        (Path::new("/dev/null"), &["", "CharDevice"]),
        (&p.path("absent"), &[]),
    ] {
        let all = ["", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket", "CharDevice", "BlockDevice"];
        for kind in all {
            if path.ends_with("absent") && (kind.is_empty() || kind.ends_with("OrCreate")) {
                continue;
            }
            assert_eq!(fits(path, kind).is_ok(), kinds.contains(&kind), "{} {kind}", path.display());
        }
    }
    // Without a type nothing is checked, and what is missing is made.
    fits(&p.path("made/by/it"), "").unwrap();
    assert_eq!(mode(&p.path("made/by/it")), 0o755);
    let error = fits(&plain, "Directory").unwrap_err().to_string();
    assert_eq!(error, format!("hostPath type check failed: {} is not a directory, it's a File", plain.display()));
    let error = fits(&p.path("absent"), "File").unwrap_err().to_string();
    assert!(error.contains("is not a file, unable to determine its type: "), "{error}");
    assert_eq!(HostPathType::parse("Dir").unwrap_err().to_string(), "Dir is an invalid volume type");
}

#[test]
fn projected_files_change_in_one_step() {
    let p = Place::new();
    let dir = p.path("v");
    assert!(write_projected(&dir, &[file("a", "1"), file("d/b", "2"), file("d/e/c", "3")], None).unwrap());
    let first = fs::read_link(dir.join("..data")).unwrap();
    assert!(first.to_str().unwrap().starts_with("..2"), "{first:?}");
    assert_eq!(fs::read_link(dir.join("a")).unwrap(), Path::new("..data/a"));
    assert_eq!(fs::read_link(dir.join("d")).unwrap(), Path::new("..data/d"));
    assert_eq!(fs::read(dir.join("d/e/c")).unwrap(), b"3");
    assert_eq!((mode(&dir.join(&first)), mode(&dir.join(&first).join("a"))), (0o755, 0o640));

    let same = [file("d/e/c", "3"), file("a", "1"), file("d/b", "2")];
    assert!(!write_projected(&dir, &same, None).unwrap());
    assert_eq!(fs::read_link(dir.join("..data")).unwrap(), first);

    let old = fs::File::open(dir.join("..data")).unwrap();
    assert!(write_projected(&dir, &[file("a", "1"), file("d/b", "2")], None).unwrap());
    assert!(write_projected(&dir, &[file("a", "4"), file("new", "5")], None).unwrap());
    assert_eq!(fs::read(dir.join("a")).unwrap(), b"4");
    assert!(fs::symlink_metadata(dir.join("d")).is_err());
    let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    let second = fs::read_link(dir.join("..data")).unwrap();
    assert_eq!(names, [second.as_os_str(), "..data".as_ref(), "a".as_ref(), "new".as_ref()]);
    drop(old);
}

#[test]
fn an_interrupted_projection_is_completed() {
    let p = Place::new();
    let dir = p.path("v");
    write_projected(&dir, &[file("a", "1")], None).unwrap();
    // Cut off while writing, and after the swap before the links.
    fs::create_dir(dir.join("..2026_01_01_00_00_00.1")).unwrap();
    symlink("..nowhere", dir.join("..data_tmp")).unwrap();
    fs::remove_file(dir.join("a")).unwrap();
    fs::write(dir.join("left"), "").unwrap();
    assert!(!write_projected(&dir, &[file("a", "1")], None).unwrap());
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 3);
    assert_eq!(fs::read(dir.join("a")).unwrap(), b"1");
    assert!(write_projected(&dir, &[file("a", "2")], None).unwrap());
}

/// CVE-2017-1002102: a container that can write to a volume of files turns its links around; what they lead to is not deleted.
#[test]
fn links_of_a_projection_that_were_turned_around_delete_nothing() {
    let p = Place::new();
    let (dir, outside) = (p.path("v"), p.path("outside"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("keep"), "k").unwrap();
    for link in ["..data", "a", "d"] {
        write_projected(&dir, &[file("a", "1"), file("d/b", "2")], None).unwrap();
        fs::remove_file(dir.join(link)).unwrap();
        symlink(&outside, dir.join(link)).unwrap();
        symlink(&outside, dir.join("..2026_evil")).unwrap();
        symlink(outside.join("keep"), dir.join("left")).unwrap();
        write_projected(&dir, &[file("a", link)], None).unwrap();
        assert_eq!(fs::read(dir.join("..data/a")).unwrap(), link.as_bytes());
        assert_eq!(fs::read(outside.join("keep")).unwrap(), b"k", "{link}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "{link}");
    }
}

#[test]
fn projected_files_have_owners_modes_and_groups() {
    let p = Place::new();
    let dir = p.path("v");
    let token = ProjectedFile { mode: 0o600, owner: Some(1000), ..file("token", "t") };
    let key = ProjectedFile { mode: 0o400, ..file("d/key", "k") };
    write_projected(&dir, &[token.clone(), key.clone()], None).unwrap();
    let data = dir.join("..data");
    let owner = |name: &str| fs::metadata(data.join(name)).unwrap().uid();
    assert_eq!((mode(&data.join("token")), owner("token")), (0o600, 1000));
    assert_eq!((mode(&data.join("d/key")), owner("d/key")), (0o400, 0));
    let dir = p.path("g");
    write_projected(&dir, &[token, key], Some(99)).unwrap();
    let data = dir.join("..data");
    assert_eq!((mode(&data.join("token")), mode(&data.join("d/key")), mode(&data.join("d"))), (0o640, 0o440, 0o2755));
    assert_eq!((gid(&data.join("token")), gid(&dir), mode(&dir)), (99, 99, 0o2777));
    for bad in ["", "/x", "../x", "a/../b", "..x"] {
        let error = write_projected(&p.path("bad"), &[file(bad, "")], None).unwrap_err();
        assert!(matches!(error, VolumeError::InvalidPath(_)), "{bad}");
    }
    assert!(!p.path("bad").exists());
}

#[test]
fn a_group_gets_everything_and_links_lead_nowhere() {
    let p = Place::new();
    let (dir, outside) = (p.path("v"), p.path("outside"));
    fs::create_dir_all(dir.join("d")).unwrap();
    for path in [dir.join("d/x"), outside.clone()] {
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    symlink(&outside, dir.join("d/link")).unwrap();
    give_to_group(&dir, 55, false, GroupPolicy::Always).unwrap();
    assert_eq!((mode(&dir) & 0o2770, mode(&dir.join("d")) & 0o2770, mode(&dir.join("d/x"))), (0o2770, 0o2770, 0o660));
    assert_eq!((gid(&dir.join("d/link")), gid(&dir.join("d/x"))), (55, 55));
    assert_eq!((mode(&outside), gid(&outside)), (0o600, 0));
    fs::write(dir.join("later"), "").unwrap();
    std::os::unix::fs::chown(dir.join("later"), None, Some(1)).unwrap();
    give_to_group(&dir, 55, false, GroupPolicy::OnRootMismatch).unwrap();
    assert_eq!(gid(&dir.join("later")), 1, "the root fits");
    give_to_group(&dir, 55, false, GroupPolicy::Always).unwrap();
    assert_eq!(gid(&dir.join("later")), 55);
    give_to_group(&dir, 56, true, GroupPolicy::OnRootMismatch).unwrap();
    assert_eq!(gid(&dir.join("later")), 56);
}

#[test]
fn sub_paths_stay_in_their_volume() {
    let p = Place::new();
    let (volume, outside) = (p.path("v"), p.path("outside"));
    fs::create_dir_all(volume.join("real/deep")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o2770)).unwrap();
    symlink(&outside, volume.join("out")).unwrap();
    symlink("../outside", volume.join("up")).unwrap();
    symlink("real/deep", volume.join("in")).unwrap();
    symlink("../real", volume.join("real/self")).unwrap();
    for bad in ["out", "out/x", "up", "up/new", "real/../../outside"] {
        let error = open_sub_path(&volume, bad).unwrap_err();
        assert!(matches!(error, VolumeError::Escape { .. } | VolumeError::InvalidPath(_)), "{bad}: {error}");
    }
    assert!(open_sub_path(&volume, "/etc").is_err());
    for good in ["in", "real/self/deep", "", ".", "new/way/down"] {
        open_sub_path(&volume, good).unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    assert_eq!(mode(&volume.join("new/way")), 0o2770, "made as the volume's root is");
    assert!(sub_path_exists(&volume, "new").unwrap() && !sub_path_exists(&volume, "absent").unwrap());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a_bound_sub_path_is_the_thing_itself_not_its_name() {
    let p = Place::new();
    let (volume, target) = (p.path("v"), p.path("pod/volume-subpaths/v/c/0"));
    fs::create_dir_all(volume.join("a")).unwrap();
    fs::write(volume.join("a/x"), "1").unwrap();
    bind_sub_path(&volume, "a", &target).unwrap();
    // Swapped behind our back: the mount stays where it was.
    fs::rename(volume.join("a"), volume.join("b")).unwrap();
    symlink("/etc", volume.join("a")).unwrap();
    assert_eq!(fs::read(target.join("x")).unwrap(), b"1");
    assert!(matches!(bind_sub_path(&volume, "a", &target), Err(VolumeError::Escape { .. })));
    bind_sub_path(&volume, "b", &target).unwrap();
    bind_sub_path(&volume, "b/x", &p.path("file")).unwrap();
    bind_sub_path(&volume, "b/x", &target).unwrap();
    assert_eq!((fs::read(p.path("file")).unwrap(), fs::read(&target).unwrap()), (b"1".to_vec(), b"1".to_vec()));
    assert_eq!(mounts_below(&target).unwrap().len(), 1);
    remove_dir(&p.path("pod")).unwrap();
    assert_eq!(fs::read(volume.join("b/x")).unwrap(), b"1", "only the mount went");
}

#[test]
fn removing_never_reaches_into_what_is_mounted() {
    let p = Place::new();
    let (dir, precious) = (p.path("pod"), p.path("precious"));
    fs::create_dir_all(dir.join("a b/c")).unwrap();
    fs::create_dir_all(&precious).unwrap();
    fs::write(precious.join("x"), "1").unwrap();
    for at in ["a b", "a b/c"] {
        fs::create_dir_all(dir.join(at)).unwrap();
        bind_sub_path(&precious, ".", &dir.join(at)).or_else(|_| bind_sub_path(&precious, "", &dir.join(at))).unwrap();
        if at == "a b" {
            fs::create_dir_all(precious.join("c")).unwrap();
        }
    }
    empty_dir(&dir.join("m"), Medium::Memory { bytes_max: None }, None).unwrap();
    symlink(&precious, dir.join("link")).unwrap();
    assert!(is_mount_point(&dir.join("a b")).unwrap() && is_mount_point(&dir.join("m")).unwrap());
    assert!(!is_mount_point(&dir).unwrap() && !is_mount_point(&p.path("absent")).unwrap());
    assert_eq!(mounts_below(&dir).unwrap().len(), 3);
    remove_dir(&dir).unwrap();
    assert!(!dir.exists());
    assert_eq!(fs::read(precious.join("x")).unwrap(), b"1");
}

#[test]
fn local_paths_are_made_and_removed_only_where_they_belong() {
    let p = Place::new();
    let local = LocalPath::new(p.0.path());
    let path = local.path("pvc-1", "default", "data-web-0").unwrap();
    assert!(path.ends_with("storage/pvc-1_default_data-web-0"));
    local.create(&path).unwrap();
    assert_eq!(mode(&path), 0o777);
    fs::write(path.join("x"), "1").unwrap();
    local.create(&path).unwrap();
    assert!(path.join("x").exists());
    for bad in [p.path("other"), path.join("x"), p.path("storage"), p.path("storage/../other"), PathBuf::from("/")] {
        assert!(matches!(local.remove(&bad), Err(VolumeError::InvalidPath(_))), "{}", bad.display());
    }
    assert!(local.path("a/b", "c", "d").is_err() && local.path("..", "c", "d").is_err());
    local.remove(&path).unwrap();
    local.remove(&path).unwrap();
    assert!(!path.exists());
}
