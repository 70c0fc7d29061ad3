//! Decompression in a thread of its own, ahead of who reads: unpacking a layer is decompressing and hashing on one processor,
//! making files on another.

use std::fs::File;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::Digest;
use crate::compression::{Compression, decompress};
use crate::digest::HashingReader;

/// Bytes that are handed over at once.
const CHUNK_BYTES: usize = 1 << 18;
/// Chunks that wait to be read; then the thread does.
const CHUNKS_MAX: usize = 8;

/// What is behind the compression, to read.
pub(crate) struct Ahead {
    chunks: Receiver<io::Result<Vec<u8>>>,
    /// Chunks that were read go back, to be filled again.
    spent: SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

/// Has a blob read by `consume`, decompressed, and gives its result and the digest of the content. After an error of `consume` the rest is
/// not read.
pub(crate) fn read_ahead<T, E: From<io::Error>>(
    blob: File,
    consume: impl FnOnce(&mut Ahead) -> Result<T, E>,
) -> Result<(T, Digest), E> {
    let (sender, chunks) = sync_channel(CHUNKS_MAX);
    let (spent, back) = sync_channel(CHUNKS_MAX + 2);
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || decompress_all(blob, &sender, &back));
        let mut ahead = Ahead { chunks, spent, chunk: Vec::new(), at: 0 };
        let result = consume(&mut ahead)?;
        io::copy(&mut ahead, &mut io::sink())?;
        let digest = thread.join().ok().flatten();
        let lost = || io::Error::other("the thread that decompresses has died");
        Ok((result, digest.ok_or_else(lost)?))
    })
}

/// Has a thread decompress and hash what `feed` hands over, and gives its result, and what the thread found.
pub(crate) fn digest_beside<T>(
    feed: impl FnOnce(&mut dyn FnMut(&[u8])) -> T,
) -> (T, io::Result<(Compression, Digest)>) {
    let (sender, chunks) = sync_channel(CHUNKS_MAX);
    let (spent, back) = sync_channel::<Vec<u8>>(CHUNKS_MAX + 2);
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let fed = Ahead { chunks, spent, chunk: Vec::new(), at: 0 };
            let (compression, content) = decompress(fed)?;
            Ok((compression, HashingReader::new(content).finish()?.0))
        });
        let result = feed(&mut |bytes: &[u8]| {
            let mut chunk = back.try_recv().unwrap_or_default();
            chunk.clear();
            chunk.extend_from_slice(bytes);
            // A thread that has found a fault reads no more.
            let _ = sender.send(Ok(chunk));
        });
        drop(sender);
        let lost = || io::Error::other("the thread that decompresses has died");
        (result, thread.join().unwrap_or_else(|_| Err(lost())))
    })
}

/// The digest, unless something went wrong (the reader knows) or nobody reads any more.
fn decompress_all(blob: File, chunks: &SyncSender<io::Result<Vec<u8>>>, back: &Receiver<Vec<u8>>) -> Option<Digest> {
    let run = || -> io::Result<Option<Digest>> {
        let (_, content) = decompress(blob)?;
        let mut content = HashingReader::new(content);
        loop {
            let mut chunk = back.try_recv().unwrap_or_else(|_| vec![0; CHUNK_BYTES]);
            chunk.resize(CHUNK_BYTES, 0);
            let mut filled = 0;
            while filled < chunk.len() {
                match content.read(&mut chunk[filled..]) {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            chunk.truncate(filled);
            if filled == 0 {
                return content.finish().map(|(digest, _)| Some(digest));
            }
            if chunks.send(Ok(chunk)).is_err() {
                return Ok(None);
            }
        }
    };
    run().unwrap_or_else(|error| {
        let _ = chunks.send(Err(error));
        None
    })
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            let Ok(next) = self.chunks.recv() else { return Ok(0) };
            let _ = self.spent.try_send(std::mem::replace(&mut self.chunk, next?));
            self.at = 0;
        }
        let n = buffer.len().min(self.chunk.len() - self.at);
        buffer[..n].copy_from_slice(&self.chunk[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, Write as _};

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn content_comes_whole_and_with_its_digest() {
        let content: Vec<u8> = (0..5_000_000u32).map(|n| (n / 7) as u8).collect();
        let packed = zstd::encode_all(&content[..], 1).unwrap();
        let all = |ahead: &mut Ahead| -> io::Result<Vec<u8>> {
            let mut got = Vec::new();
            ahead.read_to_end(&mut got).map(|_| got)
        };
        let (got, digest) = read_ahead(file(&packed), all).unwrap();
        assert!(got == content && digest == Digest::of(&content));
        // Who reads part of it gets the digest of all.
        let first = |ahead: &mut Ahead| -> io::Result<u8> {
            let mut byte = [0];
            ahead.read_exact(&mut byte).map(|()| byte[0])
        };
        assert_eq!(read_ahead(file(&packed), first).unwrap(), (content[0], Digest::of(&content)));
        let hand_over = |bytes: &[u8]| {
            digest_beside(|feed| {
                for part in bytes.chunks(10_000) {
                    feed(part);
                }
                bytes.len()
            })
        };
        let (count, found) = hand_over(&packed);
        assert_eq!((count, found.unwrap()), (packed.len(), (Compression::Zstd, Digest::of(&content))));
        assert!(hand_over(&packed[..packed.len() / 2]).1.is_err());
        // Who gives up leaves nothing running.
        assert!(read_ahead(file(&packed), |_| Err::<(), _>(io::Error::other("enough"))).is_err());
        // What is cut off is an error, not a shorter content.
        assert!(read_ahead(file(&packed[..packed.len() / 2]), all).is_err());
    }
}
