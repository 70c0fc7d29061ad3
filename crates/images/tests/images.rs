//! The image store on a real directory. Unpacking makes devices and changes owners: run as root.

#![allow(clippy::unwrap_used, reason = "in tests")]

mod small_disk;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use corten_images::{BuildOptions, Builtin, BuiltinImage, Digest, ImageConfig, ImageError, ImageStore};
use serde_json::{Value, json};
use small_disk::Tmpfs;
use tar::{EntryType, Header};

/// A directory with a store in it and a place for what is imported.
struct Place {
    dir: tempfile::TempDir,
    store: ImageStore,
}

impl Place {
    fn new() -> Place {
        assert!(rustix::process::geteuid().is_root(), "these tests unpack layers: run them as root");
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        Place { dir, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Imports an image of these layers and unpacks it; the lower directories, the base first.
    fn unpack(&self, layers: &[Vec<u8>]) -> Result<Vec<PathBuf>, ImageError> {
        let path = self.path("in.tar");
        fs::write(&path, docker_archive(layers, &["test"])).unwrap();
        self.store.import(&path, None)?;
        let image = self.store.resolve("test")?;
        let mut dirs = self.store.prepare(&image, "lease")?.lower_dirs;
        dirs.reverse();
        Ok(dirs)
    }
}

/// One entry of a layer.
struct Entry {
    path: &'static str,
    kind: EntryType,
    mode: u32,
    data: &'static [u8],
    link: &'static str,
    xattrs: &'static [(&'static str, &'static [u8])],
}

const FILE: Entry = Entry { path: "", kind: EntryType::Regular, mode: 0o644, data: b"", link: "", xattrs: &[] };

fn file(path: &'static str, data: &'static [u8]) -> Entry {
    Entry { path, data, ..FILE }
}

fn dir(path: &'static str) -> Entry {
    Entry { path, kind: EntryType::Directory, mode: 0o755, ..FILE }
}

fn link(path: &'static str, link: &'static str) -> Entry {
    Entry { path, link, kind: EntryType::Symlink, ..FILE }
}

fn hard(path: &'static str, link: &'static str) -> Entry {
    Entry { path, link, kind: EntryType::Link, ..FILE }
}

/// A tar file. Names are written as they are, however hostile.
fn layer(entries: &[Entry]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        tar.append_pax_extensions(entry.xattrs.iter().copied()).unwrap();
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..entry.path.len()].copy_from_slice(entry.path.as_bytes());
        header.as_old_mut().linkname[..entry.link.len()].copy_from_slice(entry.link.as_bytes());
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_uid(1234);
        header.set_gid(5678);
        header.set_mtime(1_000_000_000);
        header.set_size(entry.data.len() as u64);
        header.set_cksum();
        tar.append(&header, entry.data).unwrap();
    }
    tar.into_inner().unwrap()
}

fn config(diff_ids: &[Digest]) -> Vec<u8> {
    json!({
        "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z",
        "config": {"Entrypoint": ["/e"], "Cmd": null, "Env": ["A=b"], "User": "1:2", "WorkingDir": "/w",
            "StopSignal": "SIGINT", "Volumes": {"/data": {}}, "ExposedPorts": {"80/tcp": {}}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string()
    .into_bytes()
}

fn plain_tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *data).unwrap();
    }
    tar.into_inner().unwrap()
}

fn docker_archive(layers: &[Vec<u8>], names: &[&str]) -> Vec<u8> {
    let config = config(&layers.iter().map(|layer| Digest::of(layer)).collect::<Vec<_>>());
    let paths: Vec<String> = (0..layers.len()).map(|n| format!("{n}/layer.tar")).collect();
    let manifest = json!([{"Config": "config.json", "RepoTags": names, "Layers": paths}]).to_string();
    let mut files: Vec<(&str, &[u8])> = vec![("config.json", &config), ("manifest.json", manifest.as_bytes())];
    files.extend(paths.iter().map(String::as_str).zip(layers.iter().map(Vec::as_slice)));
    plain_tar(&files)
}

/// An OCI layout as path -> content, of layers in the form that they are to have, with the digests of their plain content.
fn layout(layers: &[(Vec<u8>, Digest)], annotations: Value) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::from([("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())]);
    let mut blob = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        files.insert(format!("blobs/sha256/{}", digest.hex()), bytes.to_vec());
        json!({"mediaType": "", "digest": digest, "size": bytes.len()})
    };
    let config = blob(&config(&layers.iter().map(|(_, diff_id)| diff_id.clone()).collect::<Vec<_>>()));
    let layers: Vec<Value> = layers.iter().map(|(bytes, _)| blob(bytes)).collect();
    let manifest = blob(json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string().as_bytes());
    let (mut here, mut other) = (manifest.clone(), manifest);
    other["platform"] = json!({"os": "linux", "architecture": "s390x"});
    other["digest"] = json!(Digest::of(b"is not there"));
    here["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let index = json!({"schemaVersion": 2, "manifests": [other, here]}).to_string();
    let mut entry = blob(index.as_bytes());
    entry["mediaType"] = json!("application/vnd.oci.image.index.v1+json");
    entry["annotations"] = annotations;
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    files.insert("index.json".into(), index.to_string().into_bytes());
    files
}

fn write_files(dir: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in files {
        fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        fs::write(dir.join(name), bytes).unwrap();
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

#[test]
fn a_docker_archive_comes_in_and_resolves_by_every_name() {
    let p = Place::new();
    let path = p.path("in.tar.gz");
    let layers = [layer(&[dir("etc/"), file("etc/a", b"1")]), layer(&[file("etc/b", b"2")])];
    fs::write(&path, gzip(&docker_archive(&layers, &["web:1", "example.com/x/web:2"]))).unwrap();
    let imported = p.store.import(&path, None).unwrap();
    assert_eq!(imported[0].names.iter().collect::<Vec<_>>(), ["docker.io/library/web:1", "example.com/x/web:2"]);
    let (manifest, id) = (&imported[0].manifest, &imported[0].id);
    for name in ["web:1", "docker.io/web:1", &format!("web@{manifest}"), &format!("web:9@{manifest}"), id.as_str()] {
        assert_eq!(p.store.resolve(name).unwrap().id, *id, "{name}");
    }
    for name in ["web", "web:2", &format!("other@{manifest}"), manifest.as_str().replace(['1', '2'], "0").as_str()] {
        assert!(matches!(p.store.resolve(name), Err(ImageError::NotFound { .. })), "{name}");
    }
    let image = p.store.resolve("web:1").unwrap();
    assert_eq!((image.config.entrypoint.as_slice(), image.config.cmd.len()), (&["/e".to_owned()][..], 0));
    assert_eq!((image.config.user.as_str(), image.config.stop_signal.as_str()), ("1:2", "SIGINT"));
    assert_eq!(
        (image.config.volumes.0.as_slice(), image.config.working_dir.as_str()),
        (&["/data".to_owned()][..], "/w")
    );
    let rootfs = p.store.prepare(&image, "c1").unwrap();
    assert_eq!(fs::read(rootfs.lower_dirs[0].join("etc/b")).unwrap(), b"2", "the topmost comes first");
    assert_eq!(fs::read(rootfs.lower_dirs[1].join("etc/a")).unwrap(), b"1");
    assert_eq!(p.store.prepare(&image, "c2").unwrap(), rootfs);
}

#[test]
fn an_oci_layout_comes_in_as_directory_and_as_tar_with_any_compression() {
    let p = Place::new();
    let plain = layer(&[file("a", b"x")]);
    let other = layer(&[file("b", b"y")]);
    let layers =
        [(plain.clone(), Digest::of(&plain)), (gzip(&other), Digest::of(&other)), (zstd(&plain), Digest::of(&plain))];
    let files = layout(&layers, json!({"io.containerd.image.name": "quay.io/a/b:3"}));
    write_files(&p.path("layout"), &files);
    p.store.import(&p.path("layout"), None).unwrap();
    let image = p.store.resolve("quay.io/a/b:3").unwrap();
    assert_eq!(p.store.prepare(&image, "c").unwrap().lower_dirs.len(), 3);

    let files = layout(&layers, json!({"org.opencontainers.image.ref.name": "latest"}));
    let tar = plain_tar(&files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect::<Vec<_>>());
    fs::write(p.path("layout.tar.zst"), zstd(&tar)).unwrap();
    let error = p.store.import(&p.path("layout.tar.zst"), None).unwrap_err();
    assert!(matches!(error, ImageError::NoName { .. }), "{error}");
    p.store.import(&p.path("layout.tar.zst"), Some("named")).unwrap();
    assert_eq!(p.store.resolve("named").unwrap().id, image.id);
    assert_eq!(
        p.store.list().unwrap().iter().map(|i| i.name.as_str()).collect::<Vec<_>>(),
        ["docker.io/library/named:latest", "quay.io/a/b:3"]
    );
}

#[test]
fn corrupt_and_foreign_files_are_told_apart() {
    let p = Place::new();
    let good = layer(&[file("a", b"x")]);
    let named = || json!({"io.containerd.image.name": "a:1"});
    let import = |files: BTreeMap<String, Vec<u8>>| {
        let _ = fs::remove_dir_all(p.path("layout"));
        write_files(&p.path("layout"), &files);
        p.store.import(&p.path("layout"), None).unwrap_err().to_string()
    };
    // A flipped bit in a blob.
    let mut files = layout(&[(good.clone(), Digest::of(&good))], named());
    let blob = Digest::of(&good);
    files.get_mut(&format!("blobs/sha256/{}", blob.hex())).unwrap()[700] ^= 1;
    let message = import(files);
    assert!(message.starts_with(&format!("image is corrupt: blob {blob} has the digest sha256:")), "{message}");
    // A layer that is not what the configuration says.
    let message = import(layout(&[(good.clone(), Digest::of(b"something else"))], named()));
    assert!(message.contains(&format!("unpacks to {blob}, its configuration says {}", Digest::of(b"something else"))));
    // A cut-off compressed layer whose blob is as announced.
    let cut = gzip(&good)[..60].to_vec();
    assert!(import(layout(&[(cut, Digest::of(&good))], named())).contains("corrupt"));
    // A missing blob.
    let mut files = layout(&[(good.clone(), Digest::of(&good))], named());
    files.remove(&format!("blobs/sha256/{}", blob.hex()));
    assert!(import(files).contains("is missing"));
    // Neither of them left anything.
    assert!(p.store.list().unwrap().is_empty());
    assert_eq!(fs::read_dir(p.path("images/tmp")).unwrap().count(), 0);

    fs::write(p.path("text"), "hello").unwrap();
    assert!(matches!(p.store.import(&p.path("text"), None), Err(ImageError::NotAnImage { .. })));
    fs::write(p.path("other.tar"), plain_tar(&[("x", b"y")])).unwrap();
    assert!(matches!(p.store.import(&p.path("other.tar"), None), Err(ImageError::NotAnImage { .. })));
    assert!(matches!(p.store.import(&p.path("nothing"), None), Err(ImageError::Io { .. })));
}

#[test]
fn a_blob_that_rots_in_the_store_is_found_before_it_runs() {
    let p = Place::new();
    let good = layer(&[file("a", b"x")]);
    fs::write(p.path("in.tar"), docker_archive(std::slice::from_ref(&good), &["a"])).unwrap();
    p.store.import(&p.path("in.tar"), None).unwrap();
    let path = p.path("images/blobs/sha256").join(Digest::of(&good).hex());
    let mut bytes = fs::read(&path).unwrap();
    bytes[512] ^= 1;
    fs::write(&path, bytes).unwrap();
    let image = p.store.resolve("a").unwrap();
    let error = p.store.prepare(&image, "c").unwrap_err();
    assert!(matches!(&error, ImageError::CorruptBlob { expected, .. } if *expected == Digest::of(&good)), "{error}");
    assert_eq!(fs::read_dir(p.path("images/layers")).unwrap().count(), 0);
    // A rotten manifest does not keep its image from being removed.
    fs::write(p.path("images/blobs/sha256").join(image.manifest.hex()), "{}").unwrap();
    assert!(matches!(p.store.resolve("a"), Err(ImageError::CorruptBlob { .. })));
    p.store.remove("a").unwrap();
}

#[test]
fn owners_modes_times_and_attributes_are_kept() {
    let p = Place::new();
    const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let dirs = p
        .unpack(&[layer(&[
            Entry { mode: 0o700, ..dir("d/") },
            Entry { mode: 0o4755, ..file("d/suid", b"x") },
            Entry { xattrs: &[("SCHILY.xattr.security.capability", CAPABILITY)], ..file("d/cap", b"x") },
            Entry {
                xattrs: &[
                    ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                    ("SCHILY.xattr.trusted.overlay.redirect", b"/"),
                ],
                ..dir("evil/")
            },
            link("d/link", "/anywhere/at/all"),
            hard("hard", "d/suid"),
            Entry { kind: EntryType::Fifo, ..file("fifo", b"") },
            file("made/on/the/way", b"1"),
        ])])
        .unwrap();
    let root = &dirs[0];
    let meta = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
    assert_eq!((meta("d").mode() & 0o7777, meta("d/suid").mode() & 0o7777), (0o700, 0o4755));
    for name in ["d", "d/suid", "d/link", "fifo", "hard"] {
        assert_eq!((meta(name).uid(), meta(name).gid(), meta(name).mtime()), (1234, 5678, 1_000_000_000), "{name}");
    }
    assert_eq!(meta("hard").ino(), meta("d/suid").ino());
    assert!(meta("fifo").file_type().is_fifo());
    assert_eq!(fs::read_link(root.join("d/link")).unwrap(), Path::new("/anywhere/at/all"));
    let mut value = [0; 64];
    let n = rustix::fs::lgetxattr(root.join("d/cap"), "security.capability", &mut value[..]).unwrap();
    assert_eq!(&value[..n], CAPABILITY);
    assert!(rustix::fs::lgetxattr(root.join("evil"), "trusted.overlay.opaque", &mut value[..]).is_err());
    assert!(rustix::fs::lgetxattr(root.join("evil"), "trusted.overlay.redirect", &mut value[..]).is_err());
    assert_eq!(meta("made/on").uid(), 0);
}

#[test]
fn nothing_escapes() {
    let p = Place::new();
    let outside = p.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "s").unwrap();
    let outside: &'static str = Box::leak(outside.to_str().unwrap().to_owned().into_boxed_str());
    let below: &'static str = Box::leak(format!("l{outside}/x").into_boxed_str());
    let refused = |entries: &[Entry]| {
        let paths: Vec<_> = entries.iter().map(|entry| entry.path).collect();
        p.unpack(&[layer(entries)]).map_or_else(|error| error.to_string(), |_| panic!("{paths:?} were let through"))
    };
    assert!(refused(&[file("../x", b"")]).contains("leaves the image"));
    assert!(refused(&[file("a/../../x", b"")]).contains("leaves the image"));
    assert!(refused(&[hard("x", "../../outside/secret")]).contains("leaves the image"));
    assert!(refused(&[file("f", b""), file("f/x", b"")]).contains("below something that is no directory"));
    assert!(refused(&[link("l", outside), file("l/x", b"")]).contains("below a link that leads nowhere"));
    assert!(refused(&[link("l", outside), hard("x", "l/secret")]).contains("is not there"));
    assert!(refused(&[hard("x", "l")]).contains("is not there"));
    let device = Entry { path: "dev", kind: EntryType::Char, ..FILE };
    assert!(refused(&[device]).contains("device that does not exist"));
    assert_eq!(fs::read_dir(p.path("images/layers")).unwrap().count(), 0, "what was refused leaves nothing");
    assert_eq!(fs::read_dir(p.path("images/tmp")).unwrap().count(), 0);

    // These end inside, wherever they point.
    let dirs = p
        .unpack(&[layer(&[
            file("/absolute", b"1"),
            dir("real/"),
            link("to-real", "/real"),
            file("to-real/x", b"2"),
            link("up", "../../../../real"),
            file("up/y", b"3"),
            link("over", outside),
            file("over", b"4"),
            link("self", "self2"),
            file(below, b"5"),
        ])])
        .unwrap();
    let read = |name: &str| fs::read(dirs[0].join(name)).unwrap();
    assert_eq!([read("absolute"), read("real/x"), read("real/y"), read("over")].concat(), b"1234");
    assert_eq!(fs::read_dir(outside).unwrap().count(), 1);
}

/// CVE-2021-29136: an entry for the root itself that is a link.
#[test]
fn the_root_is_no_link() {
    let p = Place::new();
    let outside = p.path("outside");
    fs::create_dir(&outside).unwrap();
    let outside: &'static str = Box::leak(outside.to_str().unwrap().to_owned().into_boxed_str());
    for name in ["/", ".", "./"] {
        let dirs = p.unpack(&[layer(&[link(name, outside), file("x", name.as_bytes())])]).unwrap();
        assert!(fs::symlink_metadata(&dirs[0]).unwrap().is_dir());
        assert_eq!(fs::read(dirs[0].join("x")).unwrap(), name.as_bytes());
    }
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
}

/// CVE-2021-32760: a link under a name that an earlier layer, or an earlier entry, had must not pass on modes and owners.
#[test]
fn modes_and_owners_are_not_given_through_links() {
    let p = Place::new();
    let outside = p.path("outside");
    fs::write(&outside, "s").unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).unwrap();
    let target: &'static str = Box::leak(outside.to_str().unwrap().to_owned().into_boxed_str());
    let suid = Entry { mode: 0o4777, ..link("l", target) };
    let again = Entry { path: "l", mode: 0o4777, ..FILE };
    p.unpack(&[layer(&[suid]), layer(&[again, hard("h", "l")])]).unwrap();
    let meta = fs::metadata(&outside).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o600, 0));
}

/// CVE-2021-41091, CVE-2021-41103, CVE-2024-25621: set-user-id programs of images are not for the users of this machine.
#[test]
fn the_store_is_for_root_alone() {
    let p = Place::new();
    p.unpack(&[layer(&[Entry { mode: 0o4755, ..file("su", b"x") }])]).unwrap();
    for dir in ["images/blobs", "images/layers", "images/tmp", "images/pulls", "images/leases"] {
        assert_eq!(fs::metadata(p.path(dir)).unwrap().mode() & 0o077, 0, "{dir}");
    }
}

/// What is read into memory is bounded: CVE-2023-25153 (documents of an archive) and headers of a layer.
#[test]
fn documents_and_headers_without_end_are_refused() {
    let p = Place::new();
    let path = p.path("in.tar");
    let document = vec![b' '; (16 << 20) + 1];
    fs::write(&path, plain_tar(&[("index.json", &document)])).unwrap();
    assert!(p.store.import(&path, None).unwrap_err().to_string().contains("index.json is too large"));
    // Gigabytes of a name, of an attribute, of a sparse map are kilobytes when compressed.
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(8 << 20);
        header.set_cksum();
        tar.append(&header, vec![b'a'; 8 << 20].as_slice()).unwrap();
        tar.append_data(&mut Header::new_gnu(), "x", std::io::empty()).unwrap();
        let error = p.unpack(&[tar.into_inner().unwrap()]).unwrap_err().to_string();
        assert!(error.contains("headers of more than 1048576 bytes"), "{kind:?}: {error}");
    }
    assert_eq!(fs::read_dir(p.path("images/layers")).unwrap().count(), 0);
}

#[test]
fn archives_of_a_directory_are_brought_along_once() {
    let p = Place::new();
    let dir = p.path("preload");
    assert!(p.store.preload(&dir).unwrap().is_empty());
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("a.tar"), docker_archive(&[layer(&[file("f", b"1")])], &["one"])).unwrap();
    fs::write(dir.join("b.tar.zst"), zstd(&docker_archive(&[layer(&[file("f", b"2")])], &["two"]))).unwrap();
    fs::write(dir.join("c.txt"), "no image").unwrap();
    let outcome = |done: Vec<(PathBuf, Result<Vec<corten_images::Imported>, ImageError>)>| {
        done.into_iter()
            .map(|(path, r)| (path.file_name().unwrap().to_str().unwrap().to_owned(), r.is_ok()))
            .collect::<Vec<_>>()
    };
    let told = |pairs: &[(&str, bool)]| pairs.iter().map(|(n, ok)| ((*n).to_owned(), *ok)).collect::<Vec<_>>();
    let all = [("a.tar", true), ("b.tar.zst", true), ("c.txt", false)];
    assert_eq!(outcome(p.store.preload(&dir).unwrap()), told(&all));
    // The next start leaves out what is here, takes what has changed, and brings back what was removed.
    assert_eq!(outcome(p.store.preload(&dir).unwrap()), told(&all[2..]));
    p.store.remove("one").unwrap();
    assert_eq!(outcome(p.store.preload(&dir).unwrap()), told(&[("a.tar", true), ("c.txt", false)]));
    assert!(!p.store.resolve("one").unwrap().pulled);
}

#[test]
fn whiteouts_become_overlays_own() {
    let p = Place::new();
    let dirs = p
        .unpack(&[
            layer(&[
                file("gone", b""),
                dir("hidden/"),
                file("hidden/a", b""),
                dir("replaced/"),
                file("replaced/a", b""),
            ]),
            layer(&[
                file(".wh.gone", b""),
                dir("hidden/"),
                file("hidden/.wh..wh..opq", b""),
                file("hidden/b", b""),
                file(".wh.replaced", b""),
                dir("replaced/"),
                file("replaced/b", b""),
                dir("late/"),
                file(".wh.late", b""),
                file(".wh..wh.plnk", b""),
                file("both", b"1"),
                file(".wh.both", b""),
            ]),
        ])
        .unwrap();
    let top = &dirs[1];
    let gone = fs::symlink_metadata(top.join("gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for name in ["hidden", "replaced", "late"] {
        let mut value = [0; 8];
        let n = rustix::fs::lgetxattr(top.join(name), "trusted.overlay.opaque", &mut value[..]);
        assert_eq!(n.map(|n| value[..n].to_vec()), Ok(b"y".to_vec()), "{name}");
    }
    assert_eq!(fs::read(top.join("both")).unwrap(), b"1");
    assert!(!fs::read_dir(top).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().starts_with(".wh.")));
}

#[test]
fn later_entries_replace_earlier_ones() {
    let p = Place::new();
    let dirs = p
        .unpack(&[layer(&[
            file("a", b"1"),
            file("a", b"2"),
            dir("b/"),
            file("b/x", b""),
            file("b", b"3"),
            file("c", b""),
            dir("c/"),
            file("c/x", b"4"),
            link("d", "a"),
            file("d", b"5"),
        ])])
        .unwrap();
    let read = |name: &str| fs::read(dirs[0].join(name)).unwrap();
    assert_eq!([read("a"), read("b"), read("c/x"), read("d")].concat(), b"2345");
}

#[test]
fn building_keeps_a_directory_as_it_is() {
    let p = Place::new();
    let source = p.path("source");
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    fs::create_dir_all(source.join(&long).parent().unwrap()).unwrap();
    fs::create_dir(source.join("bin")).unwrap();
    fs::write(source.join(&long), "long").unwrap();
    fs::write(source.join("bin/run"), "#!").unwrap();
    fs::hard_link(source.join("bin/run"), source.join("bin/again")).unwrap();
    std::os::unix::fs::chown(source.join("bin/run"), Some(7), Some(8)).unwrap();
    fs::set_permissions(source.join("bin/run"), fs::Permissions::from_mode(0o6755)).unwrap();
    symlink("run", source.join("bin/link")).unwrap();
    let config = json!({"Entrypoint": ["/bin/run"], "ExposedPorts": {"80/tcp": {}}});
    fs::write(source.join("corten-image.json"), config.to_string()).unwrap();
    let built = p.store.build(&source, "mine:1", &BuildOptions::default()).unwrap();
    let image = p.store.resolve("mine:1").unwrap();
    assert_eq!((image.id.clone(), image.config.entrypoint.join(" ")), (built.id, "/bin/run".to_owned()));
    let root = p.store.prepare(&image, "c").unwrap().lower_dirs.remove(0);
    assert_eq!(fs::read(root.join(&long)).unwrap(), b"long");
    let run = fs::metadata(root.join("bin/run")).unwrap();
    assert_eq!((run.uid(), run.gid(), run.mode() & 0o7777), (7, 8, 0o6755));
    assert_eq!(run.ino(), fs::metadata(root.join("bin/again")).unwrap().ino());
    assert_eq!(fs::read_link(root.join("bin/link")).unwrap(), Path::new("run"));
    assert!(!root.join("corten-image.json").exists());

    let options = BuildOptions { config: Some(ImageConfig::default()), owner: Some((3, 4)) };
    p.store.build(&source, "mine:2", &options).unwrap();
    p.store.tag("mine:2", "example.com/other").unwrap();
    let image = p.store.resolve("example.com/other").unwrap();
    assert!(image.config.entrypoint.is_empty());
    let root = p.store.prepare(&image, "d").unwrap().lower_dirs.remove(0);
    assert_eq!(fs::metadata(root.join("bin/run")).unwrap().uid(), 3);

    fs::write(source.join("bin/.wh.x"), "").unwrap();
    assert!(matches!(p.store.build(&source, "bad", &BuildOptions::default()), Err(ImageError::Unsupported(_))));
}

#[test]
fn removing_frees_what_nothing_needs() {
    let p = Place::new();
    let (base, top) = (layer(&[file("a", b"1")]), layer(&[file("b", b"2")]));
    for (n, (layers, names)) in
        [(vec![base.clone()], vec!["base"]), (vec![base.clone(), top], vec!["app:1", "app:2"])].into_iter().enumerate()
    {
        let path = p.path(&format!("{n}.tar"));
        fs::write(&path, docker_archive(&layers, &names)).unwrap();
        p.store.import(&path, None).unwrap();
    }
    let app = p.store.resolve("app:1").unwrap();
    let rootfs = p.store.prepare(&app, "running").unwrap();
    assert_eq!(p.store.leases().unwrap(), ["running"]);
    let freed = p.store.remove("app:1").unwrap();
    assert_eq!((freed.names.len(), freed.blobs, freed.layers), (1, 0, 0), "another name is left");
    let freed = p.store.remove(app.id.as_str()).unwrap();
    assert_eq!((freed.names, freed.blobs, freed.layers), (vec!["docker.io/library/app:2".to_owned()], 3, 0));
    assert!(rootfs.lower_dirs.iter().all(|dir| dir.exists()), "a container stands on it");
    assert!(matches!(p.store.remove("app:2"), Err(ImageError::NotFound { .. })));
    p.store.release("running").unwrap();
    p.store.release("running").unwrap();
    assert_eq!(p.store.collect_garbage().unwrap().layers, 1, "the base stays: it has a name");
    assert!(p.store.prepare(&app, "../x").is_err());
    // A server that runs beside sees what others do.
    let other = ImageStore::open(p.dir.path()).unwrap();
    assert_eq!(p.store.list().unwrap().len(), 1);
    other.remove("base").unwrap();
    assert!(p.store.list().unwrap().is_empty());
    assert_eq!(fs::read_dir(p.path("images/blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn what_a_crash_left_is_cleaned_up_at_the_next_start() {
    let p = Place::new();
    fs::create_dir_all(p.path("images/tmp/1-0/half/a/layer")).unwrap();
    ImageStore::open(p.dir.path()).unwrap();
    assert_eq!(fs::read_dir(p.path("images/tmp")).unwrap().count(), 0);
}

#[test]
fn a_full_disk_is_said_plainly_and_leaves_nothing_half_done() {
    let p = Place::new();
    let small = Tmpfs::mount(p.path("small"), "size=400k");
    let store = ImageStore::open(&small.0).unwrap();
    let entries = |size: usize| vec![Entry { data: Box::leak(vec![7; size].into_boxed_slice()), ..file("x", b"") }];
    let import = |size: usize| {
        fs::write(p.path("in.tar"), docker_archive(&[layer(&entries(size))], &["a"])).unwrap();
        store.import(&p.path("in.tar"), None)
    };
    let error = import(600_000).unwrap_err();
    assert!(matches!(&error, ImageError::DiskFull { .. }), "{error}");
    assert!(store.list().unwrap().is_empty());
    // The blob fits, but its content does not fit beside it.
    import(250_000).unwrap();
    let error = store.prepare(&store.resolve("a").unwrap(), "c").unwrap_err();
    assert!(matches!(&error, ImageError::DiskFull { .. }), "{error}");
    for dir in ["layers", "leases", "tmp"] {
        assert_eq!(fs::read_dir(small.0.join("images").join(dir)).unwrap().count(), 0, "{dir}");
    }
}

#[test]
fn many_at_once_do_not_get_in_each_others_way() {
    let p = Place::new();
    let big: Vec<Entry> = (0..200).map(|_| file("x", &[7; 4000])).collect();
    fs::write(p.path("in.tar"), docker_archive(&[layer(&big)], &["a:1"])).unwrap();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let p = &p;
            scope.spawn(move || {
                let store = ImageStore::open(p.dir.path()).unwrap();
                store.import(&p.path("in.tar"), Some(&format!("b:{n}"))).unwrap();
                let image = store.resolve(&format!("b:{n}")).unwrap();
                let rootfs = store.prepare(&image, &format!("c{n}")).unwrap();
                assert_eq!(fs::read(rootfs.lower_dirs[0].join("x")).unwrap().len(), 4000);
                if n % 2 == 0 {
                    store.remove(&format!("b:{n}")).unwrap();
                }
            });
        }
    });
    assert_eq!(p.store.list().unwrap().len(), 4);
}

#[test]
fn the_built_in_image_runs_this_very_program() {
    let p = Place::new();
    let executable = std::env::current_exe().unwrap();
    let builtin = Builtin {
        executable: &executable,
        applets: &["sleep", "httpd"],
        images: &[
            BuiltinImage {
                name: "corten.dev/corten:test",
                entrypoint: &[],
                cmd: &["/bin/sleep", "infinity"],
                env: &[],
            },
            BuiltinImage { name: "corten.dev/web:v1", entrypoint: &["/bin/httpd"], cmd: &[], env: &["VERSION=v1"] },
        ],
    };
    let image = p.store.ensure_builtin(&builtin).unwrap();
    let web = p.store.resolve("corten.dev/web:v1").unwrap();
    assert_eq!((web.config.entrypoint.as_slice(), &web.layers), (&["/bin/httpd".to_owned()][..], &image.layers));
    assert!(web.config.env.contains(&"VERSION=v1".to_owned()));
    assert_eq!(image.config.cmd, ["/bin/sleep", "infinity"]);
    let root = p.store.prepare(&image, "c").unwrap().lower_dirs.remove(0);
    assert_eq!(fs::metadata(root.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(fs::read_link(root.join("bin/sleep")).unwrap(), Path::new("/corten"));
    assert_eq!(p.store.ensure_builtin(&builtin).unwrap().manifest, image.manifest, "nothing is made twice");
    p.store.collect_garbage().unwrap();
    assert!(root.exists());

    // It starts with nothing but itself around it.
    let out = std::process::Command::new("chroot").arg(&root).args(["/corten", "--list"]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.contains("the_built_in_image_runs_this_very_program: test"), "{out:?}");

    // Another executable takes the names over, those that users gave, too.
    p.store.tag("corten.dev/corten:test", "mine:1").unwrap();
    let newer = p.path("newer");
    fs::copy(&executable, &newer).unwrap();
    let image = p.store.ensure_builtin(&Builtin { executable: &newer, ..builtin }).unwrap();
    assert_eq!(p.store.resolve("mine:1").unwrap().id, image.id);
    assert!(root.exists(), "a container stands on the old one");
    p.store.release("c").unwrap();
    assert_eq!(p.store.collect_garbage().unwrap().layers, 1);
}
