//! SPDY's header blocks: names and values, compressed as one stream for as long as the connection lasts.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Headers of a frame.
pub type Headers = Vec<(String, String)>;

/// Largest block, in bytes, before it is compressed.
const BLOCK_MAX: usize = 64 * 1024;

/// The words that both sides have seen before the first block (SPDY protocol draft 3.1, 2.6.10.1), each behind its length.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age \
    allow authorization cache-control connection content-base content-encoding content-language content-length content-location \
    content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match if-range \
    if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer \
    retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get status \
    200_OK version HTTP/1.1 url public set-cookie keep-alive origin";
/// What follows them, without lengths.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct \
    Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,\
    application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,\
    *,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut out = Vec::with_capacity(1423);
    for word in WORDS.split_ascii_whitespace() {
        let word = word.replace('_', " ");
        out.extend_from_slice(&(word.len() as u32).to_be_bytes());
        out.extend_from_slice(word.as_bytes());
    }
    out.extend_from_slice(TAIL.as_bytes());
    out
}

/// Reads the other side's blocks.
pub struct Reader(Decompress);

impl Reader {
    pub fn new() -> Reader {
        Reader(Decompress::new(true))
    }

    /// The headers of the next block.
    pub fn read(&mut self, block: &[u8]) -> Result<Headers, String> {
        let mut plain = Vec::with_capacity(1024);
        let (mut rest, mut set) = (block, false);
        loop {
            if plain.len() >= BLOCK_MAX {
                return Err("a header block is too large".into());
            }
            plain.reserve(1024);
            let before = (self.0.total_in(), plain.len());
            let outcome = self.0.decompress_vec(rest, &mut plain, FlushDecompress::Sync);
            let used = (self.0.total_in() - before.0) as usize;
            rest = rest.get(used..).unwrap_or_default();
            match outcome {
                Err(error) if error.needs_dictionary().is_some() && !set => {
                    self.0.set_dictionary(&dictionary()).map_err(|e| e.to_string())?;
                    set = true;
                }
                Err(error) => return Err(error.to_string()),
                Ok(Status::StreamEnd) => return Err("the header stream has ended".into()),
                Ok(_) if rest.is_empty() && plain.len() == before.1 => return parse(&plain),
                Ok(_) if used == 0 && plain.len() == before.1 => return Err("a header block is cut".into()),
                Ok(_) => {}
            }
        }
    }
}

fn parse(plain: &[u8]) -> Result<Headers, String> {
    let mut rest = plain;
    let cut = || "a header block is cut".to_owned();
    let number = |rest: &mut &[u8]| -> Result<usize, String> {
        let (first, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        *rest = after;
        Ok(u32::from_be_bytes(*first) as usize)
    };
    let count = number(&mut rest)?;
    let mut headers = Headers::new();
    let text = |rest: &mut &[u8]| -> Result<String, String> {
        let length = number(rest)?;
        let (text, after) = rest.split_at_checked(length).ok_or_else(cut)?;
        *rest = after;
        Ok(String::from_utf8_lossy(text).into_owned())
    };
    for _ in 0..count {
        headers.push((text(&mut rest)?, text(&mut rest)?));
    }
    Ok(headers)
}

/// Writes this side's blocks.
pub struct Writer(Compress);

impl Writer {
    pub fn new() -> Result<Writer, String> {
        let mut compress = Compress::new(Compression::best(), true);
        compress.set_dictionary(&dictionary()).map_err(|e| e.to_string())?;
        Ok(Writer(compress))
    }

    /// The next block.
    pub fn write(&mut self, headers: &[(&str, &str)]) -> Result<Vec<u8>, String> {
        let mut plain = Vec::new();
        plain.extend_from_slice(&(headers.len() as u32).to_be_bytes());
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&(text.len() as u32).to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let mut rest = &plain[..];
        loop {
            out.reserve(256);
            let before = self.0.total_in();
            self.0.compress_vec(rest, &mut out, FlushCompress::Sync).map_err(|e| e.to_string())?;
            rest = &rest[(self.0.total_in() - before) as usize..];
            // All is out once there was room left.
            if rest.is_empty() && out.len() < out.capacity() {
                return Ok(out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spdy_header_blocks_are_one_stream_with_the_dictionary() {
        assert_eq!(dictionary().len(), 1423);
        let (mut writer, mut reader) = (Writer::new().unwrap(), Reader::new());
        for round in 0..3 {
            let port = format!("{}", 8080 + round);
            let block = writer.write(&[("streamtype", "data"), ("port", &port), ("requestid", "0")]).unwrap();
            let read = reader.read(&block).unwrap();
            let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
            assert_eq!(read, [pair("streamtype", "data"), pair("port", &port), pair("requestid", "0")]);
        }
        assert!(reader.read(b"no zlib").is_err());
    }

    #[test]
    fn spdy_header_blocks_are_bounded() {
        let long = "x".repeat(200 * 1024);
        let block = Writer::new().unwrap().write(&[("a", &long)]).unwrap();
        assert_eq!(Reader::new().read(&block).unwrap_err(), "a header block is too large");
    }
}
