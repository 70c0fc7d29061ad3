//! CRI's log format: `2026-01-02T03:04:05.000000006Z stdout F the line`, long lines in pieces marked `P`, rotation by size.

use crate::Log;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A longer line is written in pieces, as containerd does.
const PIECE_BYTES_MAX: usize = 16 << 10;

/// Splits one stream into lines.
#[derive(Debug)]
pub struct Lines {
    stream: &'static str,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
}

impl Lines {
    pub fn new(stream: &'static str) -> Lines {
        Lines { stream, partial: Vec::new() }
    }

    /// Log entries for some more output.
    pub fn push(&mut self, mut bytes: &[u8], now: u64, out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = PIECE_BYTES_MAX - self.partial.len();
            match bytes.iter().take(room + 1).position(|b| *b == b'\n') {
                Some(end) => {
                    self.entry(&bytes[..end], 'F', now, out);
                    bytes = &bytes[end + 1..];
                }
                None if bytes.len() > room => {
                    self.entry(&bytes[..room], 'P', now, out);
                    bytes = &bytes[room..];
                }
                None => {
                    self.partial.extend_from_slice(bytes);
                    return;
                }
            }
        }
    }

    /// What is left when the stream ends without a newline: it stays a piece, so that readers add none.
    pub fn finish(&mut self, now: u64, out: &mut Vec<u8>) {
        if !self.partial.is_empty() {
            self.entry(&[], 'P', now, out);
        }
    }

    fn entry(&mut self, rest: &[u8], tag: char, now: u64, out: &mut Vec<u8>) {
        let _ = write!(out, "{} {} {tag} ", timestamp(now), self.stream);
        out.extend_from_slice(&self.partial);
        out.extend_from_slice(rest);
        out.push(b'\n');
        self.partial.clear();
    }
}

/// The log file with its rotated predecessors.
#[derive(Debug)]
pub struct LogFile {
    log: Log,
    file: File,
    size: u64,
}

impl LogFile {
    pub fn open(log: Log) -> io::Result<LogFile> {
        if let Some(parent) = log.path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = open(&log.path)?;
        let size = file.metadata()?.len();
        Ok(LogFile { log, file, size })
    }

    /// Writes whole entries. A full disk loses output rather than stopping the container.
    pub fn write(&mut self, entries: &[u8], now: u64) {
        if entries.is_empty() {
            return;
        }
        if self.size > 0 && self.size + entries.len() as u64 > self.log.max_bytes {
            // When rotation fails the old file grows on: better than losing output.
            let _ = self.rotate(now);
        }
        if self.file.write_all(entries).is_ok() {
            self.size += entries.len() as u64;
        }
    }

    /// Opens the path anew, after somebody else moved the file.
    pub fn reopen(&mut self) -> io::Result<()> {
        *self = LogFile::open(self.log.clone())?;
        Ok(())
    }

    /// Moves the file aside under kubelet's naming (`0.log.20260102-030405`) and drops the oldest ones.
    fn rotate(&mut self, now: u64) -> io::Result<()> {
        let mut target = self.log.path.clone().into_os_string();
        let stamp = timestamp(now);
        target.push(format!(".{}-{}", stamp[..10].replace('-', ""), stamp[11..19].replace(':', "")));
        let mut unique = PathBuf::from(&target);
        for n in 1.. {
            if !unique.exists() {
                break;
            }
            let mut name = target.clone();
            name.push(format!(".{n}"));
            unique = name.into();
        }
        fs::rename(&self.log.path, &unique)?;
        self.reopen()?;
        let mut old = rotated(&self.log.path)?;
        old.sort();
        let keep = self.log.max_files.saturating_sub(1) as usize;
        for path in old.iter().rev().skip(keep) {
            let _ = fs::remove_file(path);
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().create(true).append(true).mode(0o640).open(path)
}

/// All rotated files of a log, in no order.
fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(vec![]) };
    let mut prefix = name.to_os_string();
    prefix.push(".");
    let entries = fs::read_dir(parent)?.flatten();
    let ours = entries.filter(|e| e.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()));
    Ok(ours.map(|e| e.path()).collect())
}

/// RFC 3339 with nine digits, in UTC.
pub fn timestamp(nanos: u64) -> String {
    let (seconds, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days as i64);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// The Gregorian date of a count of days since 1970-01-01: eras of 400 years that begin in March.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_709_164_799_000_000_007;

    fn entries(chunks: &[&[u8]]) -> String {
        let (mut lines, mut out) = (Lines::new("stdout"), Vec::new());
        chunks.iter().for_each(|c| lines.push(c, NOW, &mut out));
        lines.finish(NOW, &mut out);
        String::from_utf8(out).unwrap().replace("2024-02-28T23:59:59.000000007Z stdout ", "")
    }

    #[test]
    fn dates() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(timestamp(NOW + 1_000_000_000), "2024-02-29T00:00:00.000000007Z");
        assert_eq!(timestamp(4_102_444_799_000_000_000), "2099-12-31T23:59:59.000000000Z");
    }

    #[test]
    fn splits_lines() {
        assert_eq!(entries(&[b"a\nb", b"c\n\nd"]), "F a\nF bc\nF \nP d\n");
        let long = "x".repeat(PIECE_BYTES_MAX);
        assert_eq!(entries(&[long.as_bytes(), b"\n"]), format!("F {long}\n"));
        assert_eq!(entries(&[long.as_bytes(), b"y\nz\n"]), format!("P {long}\nF y\nF z\n"));
        assert_eq!(entries(&[format!("{long}{long}y").as_bytes()]), format!("P {long}\nP {long}\nP y\n"));
    }

    #[test]
    fn rotates() {
        let directory = std::env::temp_dir().join(format!("corten-log-{}", std::process::id()));
        let path = directory.join("0.log");
        let mut log = LogFile::open(Log { path: path.clone(), max_bytes: 10, max_files: 3 }).unwrap();
        for n in 0..6u64 {
            log.write(format!("line {n}\n").as_bytes(), n * 1_000_000_000);
        }
        let mut names: Vec<String> =
            fs::read_dir(&directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["0.log", "0.log.19700101-000004", "0.log.19700101-000005"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "line 5\n");
        fs::remove_dir_all(directory).unwrap();
    }
}
