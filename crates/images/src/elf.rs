//! What a dynamic executable loads: its interpreter and the names of its libraries, read from the file itself.
//!
//! 64-bit little-endian only, which is what Corten runs on. Format: the System V ABI's "Object Files" and "Dynamic Linking".

use std::path::Path;

use crate::error::At;
use crate::{ImageError, Result};

/// What a file asks the dynamic linker for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// The dynamic linker's path; `None`: the file is static, or a library.
    pub interpreter: Option<String>,
    /// Libraries by name, not by path.
    pub libraries: Vec<String>,
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

/// Reads what the executable or library at `path` needs.
pub(crate) fn needs(path: &Path) -> Result<Needs> {
    let bytes = std::fs::read(path).at("read", path)?;
    parse(&bytes)
        .ok_or_else(|| ImageError::Unsupported(format!("{}: not a 64-bit little-endian ELF file", path.display())))
}

fn parse(bytes: &[u8]) -> Option<Needs> {
    if bytes.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, entry_size, count) = (u64_at(bytes, 32)?, u64::from(u16_at(bytes, 54)?), u64::from(u16_at(bytes, 56)?));
    let mut segments = Vec::new();
    for n in 0..count {
        let at = usize::try_from(table.checked_add(n * entry_size)?).ok()?;
        segments.push(Segment {
            kind: u32_at(bytes, at)?,
            offset: u64_at(bytes, at + 8)?,
            address: u64_at(bytes, at + 16)?,
            size: u64_at(bytes, at + 32)?,
        });
    }
    let content = |segment: &Segment| {
        let from = usize::try_from(segment.offset).ok()?;
        bytes.get(from..from.checked_add(usize::try_from(segment.size).ok()?)?)
    };
    let mut needs = Needs::default();
    if let Some(interpreter) = segments.iter().find(|segment| segment.kind == PT_INTERP) {
        needs.interpreter = Some(text(content(interpreter)?)?);
    }
    let Some(dynamic) = segments.iter().find(|segment| segment.kind == PT_DYNAMIC) else { return Some(needs) };
    let entries: Vec<(u64, u64)> =
        content(dynamic)?.chunks_exact(16).filter_map(|entry| Some((u64_at(entry, 0)?, u64_at(entry, 8)?))).collect();
    let Some((_, strings)) = entries.iter().find(|(tag, _)| *tag == DT_STRTAB) else { return Some(needs) };
    let loaded = segments.iter().find(|segment| {
        segment.kind == PT_LOAD && (segment.address..segment.address.saturating_add(segment.size)).contains(strings)
    })?;
    let strings = strings - loaded.address + loaded.offset;
    for (_, name) in entries.iter().filter(|(tag, _)| *tag == DT_NEEDED) {
        needs.libraries.push(text(bytes.get(usize::try_from(strings.checked_add(*name)?).ok()?..)?)?);
    }
    Some(needs)
}

fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    Some(std::str::from_utf8(&bytes[..end]).ok()?.to_owned())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_needs_libc() {
        let needs = needs(&std::env::current_exe().unwrap()).unwrap();
        assert!(needs.interpreter.is_none_or(|path| path.contains("ld-")));
        assert!(needs.libraries.iter().all(|name| name.contains(".so")), "{:?}", needs.libraries);
    }

    #[test]
    fn anything_else_is_refused_without_a_panic() {
        assert_eq!(parse(b"#!/bin/sh\n"), None);
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for cut in [6, 40, 64, 100, 200, 1000] {
            let _ = parse(&own[..cut]);
        }
    }
}
