//! The directory of manifests, read anew when the kernel says that something in it has changed.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::pod::observe::async_fd;

/// Bytes of a manifest at most (upstream's `maxConfigLength`).
const FILE_MAX: u64 = 10 << 20;
/// Manifests that are read at most.
pub const FILES_MAX: usize = 1000;

/// A path that is watched: a directory of manifests, or one manifest.
pub struct Directory {
    path: PathBuf,
    inotify: AsyncFd<OwnedFd>,
    /// The watch on the path itself, if it is there.
    own: Option<i32>,
}

impl Directory {
    /// Begins to watch.
    ///
    /// # Errors
    /// If the kernel gives no inotify (`fs.inotify.max_user_instances`).
    pub fn new(path: &Path) -> io::Result<Directory> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let inotify = async_fd(inotify, Interest::READABLE)?;
        Ok(Directory { path: path.into(), inotify, own: None })
    }

    /// Watches the path as it is now: it may have come, gone, or been replaced. Call it before each [`read`], then nothing is
    /// missed in between.
    ///
    /// # Errors
    /// If the kernel refuses a watch (`fs.inotify.max_user_watches`).
    pub fn watch(&mut self) -> io::Result<()> {
        let files = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        self.own = match inotify::add_watch(&self.inotify, &self.path, files) {
            Ok(watch) => Some(watch),
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            Err(error) => return Err(error.into()),
        };
        // Where it would come to be, or be put in place of another.
        let above = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        let whole = std::path::absolute(&self.path)?;
        for parent in whole.ancestors().skip(1) {
            match inotify::add_watch(&self.inotify, parent, above | WatchFlags::MASK_ADD) {
                Ok(_) => break,
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits until something may have changed.
    ///
    /// # Errors
    /// If the events cannot be read.
    pub async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.inotify.readable().await?;
            if self.drain()? {
                return Ok(());
            }
            ready.clear_ready();
        }
    }

    /// Takes all events; whether one of them matters.
    fn drain(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut matters = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
                    matters |= self.matters(event.wd(), event.events(), name.as_deref());
                }
                Err(Errno::WOULDBLOCK) => return Ok(matters),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn matters(&self, watch: i32, events: ReadFlags, name: Option<&str>) -> bool {
        let Some(name) = name.filter(|_| !events.contains(ReadFlags::QUEUE_OVERFLOW)) else { return true };
        if self.own != Some(watch) {
            // Above: only what leads to the path.
            return std::path::absolute(&self.path)
                .is_ok_and(|whole| whole.components().any(|part| part.as_os_str() == name));
        }
        if is_hidden(name) {
            return false;
        }
        // Whoever makes a file writes it, and the end of that is an event, too; links have no other event.
        let written_later = events.contains(ReadFlags::CREATE)
            && std::fs::symlink_metadata(self.path.join(name)).is_ok_and(|m| {
                use std::os::unix::fs::MetadataExt as _;
                m.is_file() && m.nlink() == 1
            });
        !written_later
    }
}

fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

/// The files of a path, or why one cannot be read: by their paths, without those whose names begin with a dot. A path that does not
/// exist has none.
///
/// # Errors
/// If the path is there and cannot be read as a whole.
pub fn read(path: &Path) -> io::Result<BTreeMap<PathBuf, io::Result<String>>> {
    let found = match std::fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    if !found.is_dir() {
        return Ok(BTreeMap::from([(path.to_owned(), file(path))]));
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if !is_hidden(&entry.file_name().to_string_lossy()) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    if let Some(extra) = paths.get(FILES_MAX) {
        tracing::error!(first = %extra.display(), "more than {FILES_MAX} static pod manifests: the rest is not read");
        paths.truncate(FILES_MAX);
    }
    let mut files = BTreeMap::new();
    for path in paths {
        match file(&path) {
            // It has gone since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            outcome => drop(files.insert(path, outcome)),
        }
    }
    Ok(files)
}

fn file(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let other = |why: &str| Err(io::Error::other(why.to_owned()));
    // Looked at first: opening a FIFO would wait for its writer.
    let kind = std::fs::metadata(path)?;
    if kind.is_dir() {
        return other("it is a directory: manifests in it are not read");
    }
    if !kind.is_file() {
        return other("it is no regular file");
    }
    if kind.len() > FILE_MAX {
        return other("it is larger than 10 MiB");
    }
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    struct Temporary(PathBuf);

    impl Temporary {
        fn new(name: &str) -> Temporary {
            let path = std::env::temp_dir().join(format!("corten-manifests-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Temporary(path)
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn names(path: &Path) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        read(path).unwrap().iter().map(|(path, file)| name(path) + if file.is_ok() { "" } else { "!" }).collect()
    }

    #[test]
    fn manifest_files_are_read_without_hidden_ones_and_without_what_is_no_file() {
        let dir = Temporary::new("read");
        fs::write(dir.0.join("b.yaml"), "b").unwrap();
        fs::write(dir.0.join("a.json"), "a").unwrap();
        fs::write(dir.0.join(".b.yaml.swp"), "x").unwrap();
        fs::write(dir.0.join("latin1"), [0xe9]).unwrap();
        fs::create_dir(dir.0.join("sub")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, dir.0.join("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(names(&dir.0), ["a.json", "b.yaml", "fifo!", "latin1!", "sub!"]);
        assert_eq!(names(&dir.0.join("b.yaml")), ["b.yaml"]);
        assert_eq!(names(&dir.0.join("missing")), [""; 0]);
    }

    #[tokio::test]
    async fn manifest_changes_are_events() {
        let dir = Temporary::new("watch");
        let path = dir.0.join("deep/manifests");
        let mut watched = Directory::new(&path).unwrap();
        let mut expect = async |what: &str, act: &dyn Fn()| {
            watched.watch().unwrap();
            act();
            let outcome = tokio::time::timeout(Duration::from_secs(10), watched.changed()).await;
            outcome.unwrap_or_else(|_| panic!("no event: {what}")).unwrap();
        };
        expect("a parent comes", &|| fs::create_dir(dir.0.join("deep")).unwrap()).await;
        expect("the directory comes", &|| fs::create_dir(&path).unwrap()).await;
        expect("a file is written", &|| fs::write(path.join("a"), "1").unwrap()).await;
        expect("a file is changed", &|| fs::write(path.join("a"), "2").unwrap()).await;
        expect("a file is moved", &|| fs::rename(path.join("a"), path.join("b")).unwrap()).await;
        expect("a link", &|| std::os::unix::fs::symlink("b", path.join("c")).unwrap()).await;
        expect("a file goes", &|| fs::remove_file(path.join("b")).unwrap()).await;
        expect("the directory goes", &|| fs::remove_dir_all(&path).unwrap()).await;
        expect("the directory comes again", &|| fs::create_dir(&path).unwrap()).await;
        expect("a file is written again", &|| fs::write(path.join("a"), "1").unwrap()).await;
    }

    #[tokio::test]
    async fn manifest_that_is_still_being_written_is_no_event() {
        use std::io::Write as _;
        let dir = Temporary::new("half");
        let mut watched = Directory::new(&dir.0).unwrap();
        watched.watch().unwrap();
        let mut file = fs::File::create(dir.0.join("a")).unwrap();
        file.write_all(b"half").unwrap();
        fs::write(dir.0.join(".hidden"), "x").unwrap();
        assert!(!watched.drain().unwrap());
        drop(file);
        assert!(watched.drain().unwrap());
    }
}
