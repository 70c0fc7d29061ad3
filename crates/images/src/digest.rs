//! Content addresses, and reading and writing with a checksum on the side.

use std::fmt;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(Box<str>);

impl Digest {
    const PREFIX: &'static str = "sha256:";

    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// From its text; `None` if that is not a sha256 digest.
    pub fn parse(text: &str) -> Option<Digest> {
        let hex = text.strip_prefix(Digest::PREFIX)?;
        let fits = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        fits.then(|| Digest(text.into()))
    }

    /// The 64 digits, which are also a file's name.
    pub fn hex(&self) -> &str {
        &self.0[Digest::PREFIX.len()..]
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = String;
    fn try_from(text: String) -> Result<Digest, String> {
        Digest::parse(&text).ok_or_else(|| format!("{text:?} is not a sha256 digest"))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0.into()
    }
}

/// A running sha256.
pub(crate) struct Hasher(ring::digest::Context);

impl Hasher {
    pub(crate) fn new() -> Hasher {
        Hasher(ring::digest::Context::new(&ring::digest::SHA256))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        let mut text = String::with_capacity(71);
        text.push_str(Digest::PREFIX);
        for byte in self.0.finish().as_ref() {
            text.push_str(&format!("{byte:02x}"));
        }
        Digest(text.into())
    }
}

/// Passes bytes through and hashes them; copies them to `copy` as well.
pub(crate) struct HashingReader<R, W = io::Sink> {
    inner: R,
    hasher: Hasher,
    copy: W,
    pub(crate) count: u64,
}

impl<R: Read> HashingReader<R> {
    pub(crate) fn new(inner: R) -> HashingReader<R> {
        HashingReader::copying(inner, io::sink())
    }
}

impl<R: Read, W: Write> HashingReader<R, W> {
    pub(crate) fn copying(inner: R, copy: W) -> HashingReader<R, W> {
        HashingReader { inner, hasher: Hasher::new(), copy, count: 0 }
    }

    /// Reads to the end; the digest of everything that was read, and the copy.
    pub(crate) fn finish(mut self) -> io::Result<(Digest, W)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((self.hasher.finish(), self.copy))
    }
}

impl<R: Read, W: Write> Read for HashingReader<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.copy.write_all(&buffer[..n])?;
        self.count += n as u64;
        Ok(n)
    }
}

/// Passes bytes on and hashes them.
pub(crate) struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
    pub(crate) count: u64,
}

impl<W: Write> HashingWriter<W> {
    pub(crate) fn new(inner: W) -> HashingWriter<W> {
        HashingWriter { inner, hasher: Hasher::new(), count: 0 }
    }

    pub(crate) fn finish(self) -> (Digest, W) {
        (self.hasher.finish(), self.inner)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.count += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        assert_eq!(Digest::parse(empty).unwrap().hex().len(), 64);
        for bad in ["", "sha256:", "sha512:00", &empty[..70], &empty.to_uppercase()] {
            assert_eq!(Digest::parse(bad), None, "{bad}");
        }
        let mut copy = Vec::new();
        let (digest, _) = HashingReader::copying(&b"abc"[..], &mut copy).finish().unwrap();
        assert_eq!((digest, copy.as_slice()), (Digest::of(b"abc"), &b"abc"[..]));
    }
}
