//! Where images are imported from: a directory, or a tar file, plain or compressed. Both answer to paths inside.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use crate::compression::{Compression, decompress};
use crate::error::At;
use crate::{ImageError, Result};

/// The greatest JSON document that is read into memory.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;

pub(crate) enum Archive {
    Dir(PathBuf),
    Tar { path: PathBuf, file: File, entries: HashMap<String, Entry> },
}

pub(crate) enum Entry {
    Data { at: u64, size: u64 },
    Link(String),
}

impl Archive {
    /// Opens a directory or a file. `scratch` is a name for the plain form of a compressed one.
    pub(crate) fn open(path: &Path, scratch: &Path) -> Result<Archive> {
        let meta = std::fs::metadata(path).at("open", path)?;
        if meta.is_dir() {
            return Ok(Archive::Dir(path.to_owned()));
        }
        let mut file = File::open(path).at("open", path)?;
        let mut first = [0; 4];
        let n = file.read(&mut first).at("read", path)?;
        file.rewind().at("read", path)?;
        if Compression::of(&first[..n]) != Compression::None {
            file = plain(file, path, scratch)?;
        }
        let entries = read_entries(&file).map_err(|error| ImageError::NotAnImage {
            path: path.to_owned(),
            detail: format!("it is no tar file ({error})"),
        })?;
        Ok(Archive::Tar { path: path.to_owned(), file, entries })
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Archive::Dir(path) | Archive::Tar { path, .. } => path,
        }
    }

    /// A file's content; `None` if it is not there.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Box<dyn Read + '_>>> {
        match self {
            Archive::Dir(dir) => match File::open(dir.join(name)) {
                Ok(file) => Ok(Some(Box::new(file))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error).at("open", &dir.join(name)),
            },
            Archive::Tar { path, file, entries } => {
                let Some((at, size)) = find(entries, name) else { return Ok(None) };
                let mut file = file;
                file.seek(SeekFrom::Start(at)).at("read", path)?;
                Ok(Some(Box::new(file.take(size))))
            }
        }
    }

    /// A small file's content.
    pub(crate) fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(reader) = self.read(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        reader.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes).at("read", self.path())?;
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(ImageError::corrupt(self.path(), format!("{name} is too large")));
        }
        Ok(Some(bytes))
    }
}

/// The decompressed content in an unnamed file.
fn plain(file: File, path: &Path, scratch: &Path) -> Result<File> {
    let mut plain = File::options().read(true).write(true).create_new(true).open(scratch).at("create", scratch)?;
    std::fs::remove_file(scratch).at("remove", scratch)?;
    let (_, mut content) = decompress(file).at("read", path)?;
    let mut buffer = vec![0; 1 << 17];
    loop {
        let n = content.read(&mut buffer).map_err(|error| ImageError::corrupt(path, error.to_string()))?;
        if n == 0 {
            break;
        }
        io::Write::write_all(&mut plain, &buffer[..n]).at("write", scratch)?;
    }
    plain.rewind().at("read", scratch)?;
    Ok(plain)
}

fn read_entries(file: &File) -> io::Result<HashMap<String, Entry>> {
    let mut archive = tar::Archive::new(file);
    let mut entries = HashMap::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let Some(name) = entry.path()?.to_str().and_then(|name| normal("", name)) else { continue };
        let kind = entry.header().entry_type();
        if kind.is_file() {
            entries.insert(name, Entry::Data { at: entry.raw_file_position(), size: entry.size() });
        } else if kind.is_symlink() || kind.is_hard_link() {
            // Old `docker save` writes a layer that occurs twice as a link.
            let base = if kind.is_symlink() { name.rsplit_once('/').map_or("", |(dir, _)| dir) } else { "" };
            let target = entry.link_name()?.and_then(|target| normal(base, target.to_str()?));
            if let Some(target) = target {
                entries.insert(name, Entry::Link(target));
            }
        }
    }
    Ok(entries)
}

/// A path from the archive's root, without dots; `None` if it leads out.
fn normal(base: &str, name: &str) -> Option<String> {
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::RootDir => parts.clear(),
            _ => {}
        }
    }
    Some(parts.join("/"))
}

fn find(entries: &HashMap<String, Entry>, name: &str) -> Option<(u64, u64)> {
    let mut name = name;
    for _ in 0..8 {
        match entries.get(name)? {
            Entry::Data { at, size } => return Some((*at, *size)),
            Entry::Link(target) => name = target,
        }
    }
    None
}
