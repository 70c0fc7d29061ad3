//! Container logs: from CRI's files to what a client asked for.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use corten_base::{OnStop, Timestamp};
use corten_client::{ByteStream, LogRequest};
use corten_object::Status;
use futures::StreamExt;
use rustix::fs::inotify;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::shared::Shared;

/// Bytes that are read and handed on at a time.
const CHUNK: usize = 32 << 10;
/// Chunks that wait for a slow client; then the reader waits.
const QUEUE_MAX: usize = 16;

/// Which file, and whether more may come.
pub struct Source {
    pub path: PathBuf,
    /// The container's end; `None` when it has ended.
    pub alive: Option<OwnedFd>,
}

/// A container's log as a stream. An error is one that the client should see at once.
pub fn open(shared: &Arc<Shared>, source: Source, request: LogRequest) -> Result<ByteStream, Status> {
    let files = files_of(&source.path);
    if files.is_empty() && source.alive.is_none() {
        return Ok(futures::stream::empty().boxed());
    }
    let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(QUEUE_MAX);
    let reader = Follower { source, request, sender, sent: 0 };
    shared.tasks.spawn("node-log", OnStop::Abort, reader.run(files));
    let stream = futures::stream::unfold(receiver, |mut r| async move { r.recv().await.map(|item| (item, r)) });
    Ok(stream.boxed())
}

/// Removes a log with its rotated predecessors.
pub fn remove(path: &Path) {
    for file in files_of(path) {
        if let Err(error) = std::fs::remove_file(&file) {
            tracing::debug!(path = %file.display(), %error, "an old log stays");
        }
    }
}

/// The log with its rotated predecessors, the oldest first.
fn files_of(path: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else { return Vec::new() };
    let prefix = format!("{name}.");
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let is_old = |p: &PathBuf| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(&prefix));
    let mut out: Vec<PathBuf> = entries.map(|e| e.path()).filter(is_old).collect();
    out.sort();
    if path.exists() {
        out.push(path.to_owned());
    }
    out
}

struct Follower {
    source: Source,
    request: LogRequest,
    sender: mpsc::Sender<std::io::Result<Bytes>>,
    sent: u64,
}

impl Follower {
    async fn run(mut self, files: Vec<PathBuf>) {
        if let Err(error) = self.copy(files).await {
            let _ = self.sender.send(Err(error)).await;
        }
    }

    async fn copy(&mut self, files: Vec<PathBuf>) -> std::io::Result<()> {
        // Watch first, so that nothing between reading and watching is missed.
        let mut watch = if self.request.follow && self.source.alive.is_some() { Some(self.watch()?) } else { None };
        let request = self.request.clone();
        let last = files.last().cloned();
        let past = tokio::task::spawn_blocking(move || read_past(&files, &request));
        let (lines, mut offset) = past.await.map_err(std::io::Error::other)??;
        for chunk in chunks(lines) {
            if !self.send(chunk).await {
                return Ok(());
            }
        }
        let Some(watch) = watch.as_mut() else { return Ok(()) };
        let Some(alive) = self.source.alive.take() else { return Ok(()) };
        let ended = crate::pod::observe::readable(alive);
        tokio::pin!(ended);
        let path = last.filter(|l| *l == self.source.path).unwrap_or_else(|| self.source.path.clone());
        let mut file = std::fs::File::open(&path).ok();
        let mut rest = Vec::new();
        let mut over = false;
        loop {
            loop {
                let moved = self.drain(&mut file, &mut offset, &mut rest).await?;
                let Some(moved) = moved else { return Ok(()) };
                if !moved {
                    break;
                }
            }
            // The file may have been moved aside and a new one begun.
            if let Some(fresh) = renewed(&path, file.as_ref()) {
                file = Some(fresh);
                offset = 0;
                continue;
            }
            if over {
                return Ok(());
            }
            tokio::select! {
                _ = &mut ended => over = true,
                changed = watch.changed() => changed?,
                () = self.sender.closed() => return Ok(()),
            }
        }
    }

    /// Sends what has come since `offset`. `None`: the client has enough.
    async fn drain(
        &mut self,
        file: &mut Option<std::fs::File>,
        offset: &mut u64,
        rest: &mut Vec<u8>,
    ) -> std::io::Result<Option<bool>> {
        use std::os::unix::fs::FileExt;
        let Some(file) = file.as_ref() else { return Ok(Some(false)) };
        let mut buffer = vec![0; CHUNK];
        let n = file.read_at(&mut buffer, *offset)?;
        if n == 0 {
            return Ok(Some(false));
        }
        *offset += n as u64;
        rest.extend_from_slice(&buffer[..n]);
        let mut out = BytesMut::new();
        let end = rest.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        for line in rest[..end].split_inclusive(|b| *b == b'\n') {
            if let Some(text) = shown(line, &self.request) {
                out.extend_from_slice(&text);
            }
        }
        rest.drain(..end);
        let goes_on = out.is_empty() || self.send(out.freeze()).await;
        Ok(goes_on.then_some(true))
    }

    /// False: the client has gone or has as many bytes as it wanted.
    async fn send(&mut self, mut chunk: Bytes) -> bool {
        let limit = self.request.limit_bytes.unwrap_or(u64::MAX);
        let room = limit.saturating_sub(self.sent);
        let enough = chunk.len() as u64 >= room;
        if enough {
            chunk.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        }
        self.sent += chunk.len() as u64;
        let taken = chunk.is_empty() || self.sender.send(Ok(chunk)).await.is_ok();
        taken && !enough
    }

    fn watch(&self) -> std::io::Result<DirWatch> {
        let dir = self.source.path.parent().unwrap_or(Path::new("/"));
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let mask = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&fd, dir, mask)?;
        Ok(DirWatch(crate::pod::observe::async_fd(fd, Interest::READABLE)?))
    }
}

/// Tells when something in a directory changed.
struct DirWatch(AsyncFd<OwnedFd>);

impl DirWatch {
    async fn changed(&mut self) -> std::io::Result<()> {
        let mut guard = self.0.readable().await?;
        let mut buffer = [0_u8; 4096];
        loop {
            match rustix::io::read(self.0.get_ref(), &mut buffer) {
                Ok(n) if n > 0 => {}
                _ => break,
            }
        }
        guard.clear_ready();
        Ok(())
    }
}

fn renewed(path: &Path, old: Option<&std::fs::File>) -> Option<std::fs::File> {
    use std::os::unix::fs::MetadataExt;
    let fresh = std::fs::File::open(path).ok()?;
    let same = old.is_some_and(|o| match (o.metadata(), fresh.metadata()) {
        (Ok(a), Ok(b)) => a.ino() == b.ino(),
        _ => true,
    });
    (!same).then_some(fresh)
}

/// The lines that are there, as the request wants them, and where the newest file ended.
fn read_past(files: &[PathBuf], request: &LogRequest) -> std::io::Result<(Vec<Vec<u8>>, u64)> {
    let mut lines = std::collections::VecDeque::new();
    let keep = request.tail_lines.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let mut offset = 0;
    // Pieces of one long line count as one.
    let mut partial = false;
    for path in files {
        let file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        let mut reader = BufReader::new(file.take(length));
        offset = 0;
        let mut raw = Vec::new();
        while reader.read_until(b'\n', &mut raw)? > 0 {
            if raw.last() != Some(&b'\n') {
                break;
            }
            offset += raw.len() as u64;
            if let Some(text) = shown(&raw, request) {
                match lines.back_mut() {
                    Some(last) if partial => Vec::extend_from_slice(last, &text),
                    _ => lines.push_back(text),
                }
                partial = lines.back().is_some_and(|l| l.last() != Some(&b'\n'));
                while lines.len() > keep {
                    lines.pop_front();
                }
            }
            raw.clear();
        }
    }
    if keep == 0 {
        lines.clear();
    }
    Ok((lines.into(), offset))
}

fn chunks(lines: Vec<Vec<u8>>) -> impl Iterator<Item = Bytes> {
    let mut lines = lines.into_iter();
    std::iter::from_fn(move || {
        let mut out = BytesMut::new();
        for line in lines.by_ref() {
            out.extend_from_slice(&line);
            if out.len() >= CHUNK {
                break;
            }
        }
        (!out.is_empty()).then(|| out.freeze())
    })
}

/// A log entry as the client sees it: `TIME STREAM TAG TEXT`, without what was not asked for.
fn shown(entry: &[u8], request: &LogRequest) -> Option<Vec<u8>> {
    let mut parts = entry.splitn(4, |b| *b == b' ');
    let (stamp, stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let stream_fits = match request.stream.as_str() {
        "Stdout" => stream == b"stdout",
        "Stderr" => stream == b"stderr",
        _ => true,
    };
    let since_fits = || match request.since {
        Some(since) => std::str::from_utf8(stamp).ok()?.parse::<Timestamp>().ok().map(|t| t >= since),
        None => Some(true),
    };
    if !stream_fits || since_fits() != Some(true) {
        return None;
    }
    let mut out = Vec::with_capacity(entry.len());
    if request.timestamps {
        out.extend_from_slice(stamp);
        out.push(b' ');
    }
    match tag {
        b"P" => out.extend_from_slice(text.strip_suffix(b"\n").unwrap_or(text)),
        _ => out.extend_from_slice(text),
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_log_request() {
        let dir = std::env::temp_dir().join(format!("corten-node-logs-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("0.log");
        std::fs::write(dir.join("0.log.20260101-000000"), "2026-01-01T00:00:00.000000000Z stdout F one\n").unwrap();
        std::fs::write(
            &path,
            "2026-01-01T00:00:01.000000000Z stderr F two\n2026-01-01T00:00:02.000000000Z stdout P th\n2026-01-01T00:00:02.000000000Z stdout F ree\n",
        )
        .unwrap();
        let read = |request: LogRequest| {
            let (lines, _) = read_past(&files_of(&path), &request).unwrap();
            String::from_utf8(lines.concat()).unwrap()
        };
        let all = LogRequest::default();
        assert_eq!(read(all.clone()), "one\ntwo\nthree\n");
        assert_eq!(read(LogRequest { tail_lines: Some(2), ..all.clone() }), "two\nthree\n");
        assert_eq!(read(LogRequest { tail_lines: Some(0), ..all.clone() }), "");
        assert_eq!(read(LogRequest { stream: "Stderr".into(), ..all.clone() }), "two\n");
        let since = "2026-01-01T00:00:01Z".parse().ok();
        assert_eq!(read(LogRequest { since, ..all.clone() }), "two\nthree\n");
        let stamped = read(LogRequest { timestamps: true, tail_lines: Some(2), ..all });
        assert!(stamped.starts_with("2026-01-01T00:00:01.000000000Z two\n"), "{stamped}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
