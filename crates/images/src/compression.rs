//! Layers and archives come plain, gzipped or as zstd; the first bytes say which, media types are not to be trusted.

use std::io::{self, BufRead, BufReader, Read};

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub(crate) fn of(first: &[u8]) -> Compression {
        match first {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // Zstd's skippable frames, which some builders put in front.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }

    /// What a layer's media type ends with.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Compression::None => "",
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
        }
    }
}

/// The content behind whatever compression there is.
pub(crate) fn decompress<'r>(reader: impl Read + 'r) -> io::Result<(Compression, Box<dyn Read + 'r>)> {
    let mut reader = BufReader::with_capacity(1 << 17, reader);
    let compression = Compression::of(reader.fill_buf()?);
    let content: Box<dyn Read + 'r> = match compression {
        Compression::None => Box::new(reader),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
    };
    Ok((compression, content))
}
