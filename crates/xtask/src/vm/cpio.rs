//! The archive form that the kernel takes as its first root file system: cpio, "newc".

use anyhow::{Context, Result};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

pub struct Writer {
    out: BufWriter<File>,
    written: u64,
    inode: u32,
    present: HashSet<String>,
}

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

impl Writer {
    pub fn create(path: &Path) -> Result<Writer> {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        Ok(Writer { out: BufWriter::new(file), written: 0, inode: 1, present: HashSet::new() })
    }

    /// A directory with all levels above it; fine if it is there.
    pub fn directory(&mut self, path: &str) -> Result<()> {
        let mut level = String::new();
        for part in path.split('/').filter(|p| !p.is_empty()) {
            if !level.is_empty() {
                level.push('/');
            }
            level.push_str(part);
            if self.present.insert(level.clone()) {
                self.entry(&level, DIRECTORY | 0o755, &[])?;
            }
        }
        Ok(())
    }

    /// A file; a second one of the same name is left out.
    pub fn file(&mut self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        let path = path.trim_matches('/').to_string();
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent)?;
        }
        if !self.present.insert(path.clone()) {
            return Ok(());
        }
        self.entry(&path, REGULAR | mode, content)
    }

    /// A file of this machine, with its mode.
    pub fn copy(&mut self, from: &Path, to: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let content = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        let mode = fs::metadata(from)?.permissions().mode() & 0o7777;
        self.file(to, &content, mode)
    }

    pub fn finish(mut self) -> Result<()> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.out.flush()?;
        Ok(())
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len()).with_context(|| format!("{name} is larger than 4 GiB"))?;
        let links = if mode & DIRECTORY != 0 { 2 } else { 1 };
        // Inode, mode, uid, gid, links, time, size, device, device of a node, name's length, checksum (none).
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.inode += 1;
        let header: String = fields.iter().map(|field| format!("{field:08x}")).collect();
        self.bytes(format!("070701{header}{name}\0").as_bytes())?;
        self.bytes(content)
    }

    /// Header with name, and content, each end at a multiple of four.
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        let padding = (4 - self.written % 4) % 4;
        self.out.write_all(&[0; 3][..padding as usize])?;
        self.written += padding;
        Ok(())
    }
}
