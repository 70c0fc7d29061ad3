//! Filling files beside the reading of their archive. Entries are made in the archive's order, for a later one may take an earlier one's
//! place; what is written into a file that is open already depends on nothing. A layer counts as there when it is on disk: what is written
//! is sent there meanwhile, too.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, fchmod, fchown, fsetxattr, futimens, syncfs};
use rustix::io::Errno;

use crate::error::At;
use crate::{ImageError, Result};

/// Bytes of a file that is handed over; larger ones are written by who reads them, piece by piece.
pub(crate) const BYTES_MAX: u64 = 1 << 18;
/// Files and bytes that are handed over at once.
const BATCH_FILES: usize = 32;
const BATCH_BYTES: u64 = 1 << 19;
/// Batches that wait.
const BATCHES_MAX: usize = 4;
/// Bytes that gather before they are sent to the disk.
const SYNC_BYTES: u64 = 32 << 20;
/// Threads, on machines that have processors for them beside who reads and who decompresses.
const THREADS_MAX: usize = 3;

/// What an entry says of itself.
pub(crate) struct Owner {
    pub uid: Uid,
    pub gid: Gid,
    pub mode: u32,
    pub seconds: u64,
}

/// Extended attributes by name.
pub(crate) type Attributes = Vec<(String, Vec<u8>)>;

/// What a file gets when its content is there.
pub(crate) struct Dress {
    pub owner: Owner,
    /// It has its owner already.
    pub is_owned: bool,
    pub attributes: Attributes,
    /// For messages.
    pub shown: PathBuf,
}

/// An open file, its content and its dress.
type Job = (File, Vec<u8>, Dress);

/// Takes files that are to be filled.
pub(crate) struct Writers {
    queue: SyncSender<Vec<Job>>,
    batch: Vec<Job>,
    bytes: u64,
    sync: SyncSender<()>,
    unsynced: u64,
}

/// The writers have met an error, which [`beside`] tells.
pub(crate) struct Stopped;

impl Writers {
    /// Hands a file over.
    pub(crate) fn fill(&mut self, file: File, content: Vec<u8>, dress: Dress) -> Result<(), Stopped> {
        self.bytes += content.len() as u64;
        self.wrote(content.len());
        self.batch.push((file, content, dress));
        if self.batch.len() < BATCH_FILES && self.bytes < BATCH_BYTES {
            return Ok(());
        }
        self.flush()
    }

    /// Counts bytes of files.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.unsynced += bytes as u64;
        // While the disk is busy more gathers.
        if self.unsynced >= SYNC_BYTES && self.sync.try_send(()).is_ok() {
            self.unsynced = 0;
        }
    }

    fn flush(&mut self) -> Result<(), Stopped> {
        self.bytes = 0;
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_FILES));
        self.queue.send(batch).map_err(|_| Stopped)
    }
}

/// Runs `work` with threads beside it that fill the files which it hands over, in the directory `root`; returns when all are filled. Their
/// error comes before that of `work`, which may only be that they have stopped.
pub(crate) fn beside<T, E: From<ImageError>>(
    root: &OwnedFd,
    shown: &Path,
    work: impl FnOnce(&mut Writers) -> Result<T, E>,
) -> Result<T, E> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let (queue, waiting) = sync_channel(BATCHES_MAX);
    let waiting = Mutex::new(Some(waiting));
    let (sync, asked) = sync_channel(0);
    std::thread::scope(|scope| {
        let syncs = scope.spawn(move || asked.into_iter().try_for_each(|()| syncfs(root).at("sync", shown)));
        let threads = (1..processors.clamp(2, THREADS_MAX + 1)).map(|_| scope.spawn(|| fill_all(&waiting)));
        let threads: Vec<_> = threads.chain([syncs]).collect();
        let mut writers = Writers { queue, batch: Vec::with_capacity(BATCH_FILES), bytes: 0, sync, unsynced: 0 };
        let result = work(&mut writers);
        if result.is_ok() {
            let _ = writers.flush();
        }
        drop(writers);
        let lost = || ImageError::Unsupported("a thread that writes files has died".into());
        for thread in threads {
            thread.join().map_err(|_| lost())??;
        }
        result
    })
}

/// Fills files until there are no more. After an error nobody takes any more.
fn fill_all(waiting: &Mutex<Option<Receiver<Vec<Job>>>>) -> Result<()> {
    loop {
        let next = {
            let waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            match waiting.as_ref().map(Receiver::recv) {
                Some(Ok(batch)) => batch,
                _ => return Ok(()),
            }
        };
        let filled = next.into_iter().try_for_each(|(mut file, content, dress)| {
            file.write_all(&content).at("write", &dress.shown)?;
            finish(file.into(), &dress)
        });
        if filled.is_err() {
            // Without a receiver, handing over fails.
            *waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return filled;
        }
    }
}

/// What comes when a file's content is written.
pub(crate) fn finish(file: OwnedFd, dress: &Dress) -> Result<()> {
    put_on(&file, dress)?;
    futimens(&file, &times(dress.owner.seconds)).at("set the time of", &dress.shown)
}

/// Owner, mode and attributes, in this order: changing the owner drops setuid bits and capabilities.
pub(crate) fn put_on(fd: &OwnedFd, dress: &Dress) -> Result<()> {
    let (owner, shown) = (&dress.owner, &dress.shown);
    if !dress.is_owned {
        fchown(fd, Some(owner.uid), Some(owner.gid)).at("change the owner of", shown)?;
    }
    fchmod(fd, Mode::from_raw_mode(owner.mode)).at("change the mode of", shown)?;
    for (name, value) in &dress.attributes {
        match fsetxattr(fd, name.as_str(), value, XattrFlags::empty()) {
            // Not every file system has every attribute, and SELinux's labels mean nothing elsewhere.
            Err(Errno::NOTSUP) => {}
            Err(Errno::PERM | Errno::INVAL) if name.starts_with("security.selinux") => {}
            result => result.at("set an attribute of", shown)?,
        }
    }
    Ok(())
}

/// The time of an entry, for reading and changing.
pub(crate) fn times(seconds: u64) -> Timestamps {
    let time = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(0), tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dress() -> Dress {
        let owner = Owner { uid: Uid::ROOT, gid: Gid::ROOT, mode: 0o640, seconds: 1_000_000 };
        Dress { owner, is_owned: true, attributes: vec![], shown: "some/file".into() }
    }

    #[test]
    fn files_are_filled_when_all_have_been_handed_over() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = |n: usize| dir.path().join(n.to_string());
        let work = |writers: &mut Writers| -> Result<()> {
            for n in 0..100 {
                let content = n.to_string().repeat(n).into_bytes();
                assert!(writers.fill(File::create(path(n)).unwrap(), content, dress()).is_ok());
            }
            Ok(())
        };
        beside(&File::open(dir.path()).unwrap().into(), dir.path(), work).unwrap();
        for n in 0..100 {
            assert_eq!(std::fs::read_to_string(path(n)).unwrap(), n.to_string().repeat(n));
            let meta = std::fs::metadata(path(n)).unwrap();
            assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o640, 1_000_000));
        }
    }

    #[test]
    fn an_error_of_a_writer_stops_who_hands_over_and_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        File::create(&path).unwrap();
        let work = |writers: &mut Writers| -> Result<()> {
            for n in 0.. {
                // Nothing can be written into one of them.
                let file = if n == 40 { File::open(&path) } else { File::create(&path) };
                if writers.fill(file.unwrap(), vec![0], dress()).is_err() {
                    return Err(ImageError::Unsupported("less than the writers' own".into()));
                }
            }
            Ok(())
        };
        match beside(&File::open(dir.path()).unwrap().into(), dir.path(), work) {
            Err(ImageError::Io { path, .. }) => assert_eq!(path, std::path::Path::new("some/file")),
            other => panic!("{other:?}"),
        }
    }
}
