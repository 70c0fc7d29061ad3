//! Unpacking a layer into a directory that overlayfs can use as a lower one, from an archive that nobody vouches for.
//!
//! Every path is resolved by the kernel inside the layer's directory (`openat2` with `RESOLVE_IN_ROOT`), and each entry is made
//! with a call that does not follow links, relative to its parent's descriptor: an archive can confuse itself, not its surroundings.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, XattrFlags, chownat, fchmod, fsetxattr, futimens,
    linkat, makedev, mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use tar::EntryType;

use crate::ahead::read_ahead;
use crate::digest::HashingReader;
use crate::error::At;
use crate::store::Layer;
use crate::writers::{self, Attributes, Dress, Owner, Stopped, Writers, times};
use crate::{Digest, ImageError, Result};

/// Overlay's mark of a directory that hides the one below.
const OPAQUE: &str = "trusted.overlay.opaque";
const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names of this form are another file system's own notes.
const WHITEOUT_META: &[u8] = b".wh..wh.";

/// Bytes of headers before an entry: long names, extended attributes, sparse maps. They are read into memory.
const HEADER_BYTES_MAX: u64 = 1 << 20;
/// Entries of a layer. The largest images have some hundred thousand in all.
const ENTRIES_MAX: u64 = 4 << 20;
/// Part of a disk, in percent, that unpacking leaves free: a layer of zeros is a few kilobytes until it is unpacked.
const DISK_FREE_PERCENT: u64 = 2;

/// Unpacks a layer's blob into the new directory `target` and checks that its content is what the image says.
pub(crate) fn unpack(blob: &Path, layer: &Layer, target: &Path) -> Result<()> {
    let file = File::open(blob).at("open", blob)?;
    let unpacker = Unpacker::new(target, &layer.blob)?;
    let (actual, broken) = match read_ahead(file, |content| unpacker.run(content)) {
        Ok(((), actual)) if actual == layer.diff_id => return Ok(()),
        Ok(((), actual)) => (Some(actual), None),
        Err(Broken::Other(error)) => return Err(error),
        Err(Broken::Archive(error)) => (None, Some(error)),
    };
    // Something is wrong with the content. If the blob is not the one that was imported, that says it best.
    let file = File::open(blob).at("open", blob)?;
    let (digest, _) = HashingReader::new(file).finish().at("read", blob)?;
    if digest != layer.blob {
        return Err(ImageError::CorruptBlob { path: blob.to_owned(), expected: layer.blob.clone(), actual: digest });
    }
    match (actual, broken) {
        (Some(actual), _) => {
            Err(ImageError::CorruptLayer { layer: layer.blob.clone(), expected: layer.diff_id.clone(), actual })
        }
        (None, error) => {
            let detail = error.map_or_else(String::new, |error| error.to_string());
            Err(ImageError::corrupt(blob, format!("its archive is broken: {detail}")))
        }
    }
}

/// Why unpacking stopped: what is read is broken, or anything else.
enum Broken {
    Archive(std::io::Error),
    Other(ImageError),
}

impl From<ImageError> for Broken {
    fn from(error: ImageError) -> Broken {
        Broken::Other(error)
    }
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Broken {
        Broken::Archive(error)
    }
}

impl From<Stopped> for Broken {
    fn from(_: Stopped) -> Broken {
        // The writers' own error is told in place of this one.
        Broken::Other(ImageError::Unsupported("files are written no more".into()))
    }
}

/// A directory of the layer.
#[derive(Clone)]
struct Parent {
    fd: Rc<OwnedFd>,
    /// What is made in it is its maker's; else it has another group.
    plain: bool,
}

impl Parent {
    fn new(fd: OwnedFd, shown: &Path) -> Result<Parent> {
        let mode = rustix::fs::fstat(&fd).at("read", shown)?.st_mode;
        Ok(Parent { fd: Rc::new(fd), plain: Mode::from_raw_mode(mode) & Mode::SGID == Mode::empty() })
    }
}

struct Unpacker<'l> {
    target: PathBuf,
    layer: &'l Digest,
    root: OwnedFd,
    /// The parent of the last entry: archives list a directory's entries together.
    parent: Option<(PathBuf, Parent)>,
    /// For the content of files.
    buffer: Vec<u8>,
    /// Whether we are root, to whom new files belong.
    root_user: bool,
    /// Whiteouts that this layer made. A directory in place of one must hide what is below.
    whiteouts: HashSet<PathBuf>,
    /// Writing into a directory changes its time, so these are set at the end.
    directory_times: Vec<(PathBuf, u64)>,
    /// Bytes of files that may still be written.
    room: u64,
}

impl<'l> Unpacker<'l> {
    fn new(target: &Path, layer: &'l Digest) -> Result<Unpacker<'l>> {
        fs::create_dir(target).at("create", target)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, target, flags, Mode::empty()).at("open", target)?;
        fchmod(&root, Mode::from_raw_mode(0o755)).at("change the mode of", target)?;
        let disk = rustix::fs::fstatvfs(&root).at("measure", target)?;
        let kept = disk.f_blocks / 100 * DISK_FREE_PERCENT;
        let room = disk.f_bavail.saturating_sub(kept).saturating_mul(disk.f_frsize);
        Ok(Unpacker {
            target: target.to_owned(),
            layer,
            root,
            parent: None,
            buffer: vec![0; 1 << 16],
            root_user: rustix::process::geteuid().is_root() && rustix::process::getegid().is_root(),
            whiteouts: HashSet::new(),
            directory_times: Vec::new(),
            room,
        })
    }

    fn run(mut self, content: &mut impl Read) -> Result<(), Broken> {
        let (root, shown) = (self.root.try_clone().at("open", &self.target)?, self.target.clone());
        writers::beside(&root, &shown, |writers| self.entries(content, writers))?;
        for (path, seconds) in std::mem::take(&mut self.directory_times).into_iter().rev() {
            let dir = match self.open_dir(&path) {
                // A later entry has taken its place.
                Err(Errno::NOTDIR | Errno::NOENT | Errno::LOOP) => continue,
                dir => dir.at("open", &self.target.join(&path))?,
            };
            futimens(&dir, &times(seconds)).at("set the time of", &self.target.join(&path))?;
        }
        Ok(())
    }

    fn entries(&mut self, content: &mut impl Read, writers: &mut Writers) -> Result<(), Broken> {
        let left = Cell::new(Some(HEADER_BYTES_MAX));
        let mut archive = tar::Archive::new(Metered { content, left: &left });
        let mut count = 0;
        for entry in archive.entries().map_err(Broken::Archive)? {
            let mut entry = entry.map_err(Broken::Archive)?;
            left.set(None);
            count += 1;
            if count > ENTRIES_MAX {
                let detail = format!("it has more than {ENTRIES_MAX} entries");
                return Err(ImageError::Unsafe { layer: self.layer.clone(), detail }.into());
            }
            self.entry(&mut entry, writers)?;
            // What is left of an entry is no header: it is skipped here.
            std::io::copy(&mut entry, &mut std::io::sink()).map_err(Broken::Archive)?;
            left.set(Some(HEADER_BYTES_MAX));
        }
        Ok(())
    }

    fn entry(&mut self, entry: &mut tar::Entry<'_, impl Read>, writers: &mut Writers) -> Result<(), Broken> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let path = self.inside(&entry.path_bytes())?;
        let Some(name) = path.file_name().map(|name| name.to_owned()) else {
            return self.directory(entry, Path::new(""));
        };
        let parent = path.parent().unwrap_or(Path::new("")).to_owned();
        let bytes = name.as_bytes();
        if bytes == WHITEOUT_OPAQUE {
            self.ensure_dir(&parent)?;
            return Ok(self.set_opaque(&parent)?);
        }
        if bytes.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        if let Some(hidden) = bytes.strip_prefix(WHITEOUT) {
            return Ok(self.whiteout(&parent.join(std::ffi::OsStr::from_bytes(hidden)))?);
        }
        match kind {
            EntryType::Directory => self.directory(entry, &path),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.file(entry, &path, writers),
            EntryType::Link => Ok(self.hard_link(entry, &path)?),
            EntryType::Symlink => Ok(self.symlink(entry, &path)?),
            EntryType::Char | EntryType::Block | EntryType::Fifo => Ok(self.node(entry, &path)?),
            other => Err(self.refuse(&path, &format!("is of the unknown type {other:?}")).into()),
        }
    }

    /// An entry's path below the root.
    fn inside(&self, bytes: &[u8]) -> Result<PathBuf> {
        let raw = Path::new(std::ffi::OsStr::from_bytes(bytes));
        let mut path = PathBuf::new();
        for component in raw.components() {
            match component {
                Component::Normal(name) => path.push(name),
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => return Err(self.refuse(raw, "leaves the image")),
            }
        }
        Ok(path)
    }

    fn refuse(&self, path: &Path, why: &str) -> ImageError {
        ImageError::Unsafe { layer: self.layer.clone(), detail: format!("its entry {} {why}", path.display()) }
    }

    fn open_dir(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// Opens a directory, which is made if the archive has not said so itself.
    fn ensure_dir(&mut self, path: &Path) -> Result<OwnedFd> {
        let shown = self.target.join(path);
        match self.open_dir(path) {
            Ok(dir) => return Ok(dir),
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR) if self.whiteouts.contains(path) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return Err(self.refuse(path, "lies below something that is no directory"));
            }
            Err(error) => return Err(error).at("open", &shown),
        }
        let (parent, name) = self.split(path)?;
        let hides = self.whiteouts.contains(path) && self.make_way(&parent, path, &name, true)?;
        match mkdirat(&parent, &name, Mode::from_raw_mode(0o755)) {
            // Putting a directory in its place would hide what the link leads to in the layers below.
            Err(Errno::EXIST) => return Err(self.refuse(path, "lies below a link that leads nowhere")),
            result => result.at("create", &shown)?,
        }
        if hides {
            self.set_opaque(path)?;
        }
        self.open_dir(path).at("open", &shown)
    }

    /// The descriptor of an entry's parent, and its name.
    fn split(&mut self, path: &Path) -> Result<(Rc<OwnedFd>, std::ffi::OsString)> {
        let name = path.file_name().ok_or_else(|| self.refuse(path, "has no name"))?.to_owned();
        Ok((self.parent(path)?.fd, name))
    }

    fn parent(&mut self, path: &Path) -> Result<Parent> {
        let above = path.parent().unwrap_or(Path::new(""));
        if let Some((known, dir)) = &self.parent
            && *known == above
        {
            return Ok(dir.clone());
        }
        let dir = Parent::new(self.ensure_dir(above)?, &self.target.join(above))?;
        self.parent = Some((above.to_owned(), dir.clone()));
        Ok(dir)
    }

    /// Removes what an earlier entry made under this name (a directory is kept for a directory). Whether that was a whiteout.
    fn make_way(&mut self, parent: &OwnedFd, path: &Path, name: &std::ffi::OsStr, for_dir: bool) -> Result<bool> {
        let shown = self.target.join(path);
        let meta = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            meta => meta.at("read", &shown)?,
        };
        if self.whiteouts.remove(path) {
            unlinkat(parent, name, AtFlags::empty()).at("replace", &shown)?;
            return Ok(true);
        }
        match FileType::from_raw_mode(meta.st_mode) {
            FileType::Directory if for_dir => {}
            FileType::Directory => {
                self.parent = None;
                let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(parent));
                fs::remove_dir_all(Path::new(&own).join(name)).at("replace", &shown)?;
            }
            // A link to a directory stays a link: what the archive puts below goes where it leads.
            FileType::Symlink if for_dir && self.open_dir(path).is_ok() => {}
            _ => unlinkat(parent, name, AtFlags::empty()).at("replace", &shown)?,
        }
        Ok(false)
    }

    fn directory(&mut self, entry: &mut tar::Entry<'_, impl Read>, path: &Path) -> Result<(), Broken> {
        let shown = self.target.join(path);
        let owner = self.owner(entry, path)?;
        if path.file_name().is_some() {
            let (parent, name) = self.split(path)?;
            let hides = self.make_way(&parent, path, &name, true)?;
            match mkdirat(&parent, &name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(ImageError::io("create", &shown, error.into()).into()),
            }
            if hides {
                self.set_opaque(path)?;
            }
        }
        let dir = self.open_dir(path).at("open", &shown)?;
        let seconds = owner.seconds;
        let attributes = attributes(entry).map_err(Broken::Archive)?;
        writers::put_on(&dir, &Dress { owner, is_owned: false, attributes, shown })?;
        if self.parent.as_ref().is_some_and(|(known, _)| known == path) {
            // Its group may be passed on now.
            self.parent = None;
        }
        self.directory_times.push((path.to_owned(), seconds));
        Ok(())
    }

    fn file(
        &mut self,
        entry: &mut tar::Entry<'_, impl Read>,
        path: &Path,
        writers: &mut Writers,
    ) -> Result<(), Broken> {
        let shown = self.target.join(path);
        let owner = self.owner(entry, path)?;
        let (parent, name) = (self.parent(path)?, path.file_name().ok_or_else(|| self.refuse(path, "has no name"))?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || openat(&parent.fd, name, flags, Mode::from_raw_mode(0o600));
        let file = match create() {
            Err(Errno::EXIST) => {
                self.make_way(&parent.fd, path, name, false)?;
                create()
            }
            created => created,
        };
        let mut file = File::from(file.at("create", &shown)?);
        let attributes = attributes(entry).map_err(Broken::Archive)?;
        let is_owned = self.root_user && parent.plain && owner.uid.is_root() && owner.gid.is_root();
        let dress = Dress { owner, is_owned, attributes, shown };
        if entry.size() <= writers::BYTES_MAX {
            let mut content = Vec::with_capacity(entry.size() as usize);
            entry.read_to_end(&mut content).map_err(Broken::Archive)?;
            self.take_room(content.len())?;
            return Ok(writers.fill(file, content, dress)?);
        }
        loop {
            let n = entry.read(&mut self.buffer).map_err(Broken::Archive)?;
            if n == 0 {
                break;
            }
            self.take_room(n)?;
            file.write_all(&self.buffer[..n]).at("write", &dress.shown)?;
            writers.wrote(n);
        }
        Ok(writers::finish(file.into(), &dress)?)
    }

    fn take_room(&mut self, bytes: usize) -> Result<()> {
        let left = self.room.checked_sub(bytes as u64);
        self.room = left.ok_or_else(|| ImageError::DiskFull { path: self.target.clone() })?;
        Ok(())
    }

    fn hard_link(&mut self, entry: &tar::Entry<'_, impl Read>, path: &Path) -> Result<()> {
        let target = entry.link_name_bytes().ok_or_else(|| self.refuse(path, "links to nothing"))?;
        let target = self.inside(&target)?;
        let Some(target_name) = target.file_name() else { return Err(self.refuse(path, "links to the root")) };
        let shown = self.target.join(path);
        let from = self.open_dir(target.parent().unwrap_or(Path::new("")));
        let from =
            from.map_err(|_| self.refuse(path, &format!("links to {}, which is not there", target.display())))?;
        if path == target {
            return Ok(());
        }
        let (parent, name) = self.split(path)?;
        self.make_way(&parent, path, &name, false)?;
        match linkat(&from, target_name, &parent, &name, AtFlags::empty()) {
            Err(Errno::NOENT) => Err(self.refuse(path, &format!("links to {}, which is not there", target.display()))),
            result => result.at("link", &shown),
        }
    }

    fn symlink(&mut self, entry: &tar::Entry<'_, impl Read>, path: &Path) -> Result<()> {
        let target = entry.link_name_bytes().ok_or_else(|| self.refuse(path, "links to nothing"))?.into_owned();
        let owner = self.owner(entry, path)?;
        let shown = self.target.join(path);
        let (parent, name) = self.split(path)?;
        self.make_way(&parent, path, &name, false)?;
        // Any text will do: it is only ever followed inside a container's root.
        symlinkat(std::ffi::OsStr::from_bytes(&target), &parent, &name).at("link", &shown)?;
        chownat(&parent, &name, Some(owner.uid), Some(owner.gid), AtFlags::SYMLINK_NOFOLLOW)
            .at("change the owner of", &shown)?;
        utimensat(&parent, &name, &times(owner.seconds), AtFlags::SYMLINK_NOFOLLOW).at("set the time of", &shown)
    }

    fn node(&mut self, entry: &tar::Entry<'_, impl Read>, path: &Path) -> Result<()> {
        let owner = self.owner(entry, path)?;
        let header = entry.header();
        let number = |part: std::io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0);
        let device = makedev(number(header.device_major()), number(header.device_minor()));
        let kind = match header.entry_type() {
            EntryType::Char => FileType::CharacterDevice,
            EntryType::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        if kind == FileType::CharacterDevice && device == 0 {
            // Overlay would take it for a whiteout.
            return Err(self.refuse(path, "is a device that does not exist"));
        }
        let shown = self.target.join(path);
        let (parent, name) = self.split(path)?;
        self.make_way(&parent, path, &name, false)?;
        let device = if kind == FileType::Fifo { 0 } else { device };
        mknodat(&parent, &name, kind, Mode::from_raw_mode(owner.mode), device).at("create", &shown)?;
        chownat(&parent, &name, Some(owner.uid), Some(owner.gid), AtFlags::SYMLINK_NOFOLLOW)
            .at("change the owner of", &shown)?;
        rustix::fs::chmodat(&parent, &name, Mode::from_raw_mode(owner.mode), AtFlags::empty())
            .at("change the mode of", &shown)?;
        utimensat(&parent, &name, &times(owner.seconds), AtFlags::SYMLINK_NOFOLLOW).at("set the time of", &shown)
    }

    /// Hides a name of the layers below. What this layer has under the name stays, but hides its namesake.
    fn whiteout(&mut self, path: &Path) -> Result<()> {
        let shown = self.target.join(path);
        let (parent, name) = self.split(path)?;
        match statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(meta) if FileType::from_raw_mode(meta.st_mode) == FileType::Directory => return self.set_opaque(path),
            Ok(_) => return Ok(()),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error).at("read", &shown),
        }
        mknodat(&parent, &name, FileType::CharacterDevice, Mode::empty(), 0).at("create", &shown)?;
        self.whiteouts.insert(path.to_owned());
        Ok(())
    }

    fn set_opaque(&mut self, path: &Path) -> Result<()> {
        let shown = self.target.join(path);
        let dir = self.open_dir(path).at("open", &shown)?;
        fsetxattr(&dir, OPAQUE, b"y", XattrFlags::empty()).at("set an attribute of", &shown)
    }

    fn owner(&self, entry: &tar::Entry<'_, impl Read>, path: &Path) -> Result<Owner> {
        let header = entry.header();
        // A field that nobody filled in is zero, as for Go's `archive/tar`.
        let blank = |field: &[u8]| field.iter().all(|b| matches!(b, 0 | b' '));
        let id = |id: std::io::Result<u64>, field: &[u8]| {
            let id = if blank(field) { Some(0) } else { id.ok() };
            let id = id.and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX);
            id.ok_or_else(|| self.refuse(path, "has an owner that no kernel knows"))
        };
        let mode = header.mode().map_err(|_| self.refuse(path, "has a mode that no kernel knows"))? & 0o7777;
        let seconds = header.mtime().unwrap_or(0);
        Ok(Owner {
            uid: Uid::from_raw(id(header.uid(), &header.as_old().uid)?),
            gid: Gid::from_raw(id(header.gid(), &header.as_old().gid)?),
            mode,
            seconds,
        })
    }
}

/// Reads no further than headers may reach, while headers are read.
struct Metered<'m, R> {
    content: R,
    left: &'m Cell<Option<u64>>,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let Some(left) = self.left.get() else { return self.content.read(buffer) };
        if left == 0 && !buffer.is_empty() {
            return Err(std::io::Error::other(format!("headers of more than {HEADER_BYTES_MAX} bytes")));
        }
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let n = self.content.read(&mut buffer[..most])?;
        self.left.set(Some(left - n as u64));
        Ok(n)
    }
}

/// An entry's extended attributes, but those that would speak to overlayfs.
fn attributes(entry: &mut tar::Entry<'_, impl Read>) -> std::io::Result<Attributes> {
    let mut found = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        let Ok(key) = extension.key() else { continue };
        let Some(name) = key.strip_prefix("SCHILY.xattr.") else { continue };
        if !name.starts_with("trusted.overlay.") && !name.starts_with("user.overlay.") {
            found.push((name.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    Ok(found)
}
