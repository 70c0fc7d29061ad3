//! The log file: appended to, rotated by size, old files removed by number and age (what upstream's log library does).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use corten_base::Timestamp;

use crate::options::LogOptions;

/// Where lines go.
pub(crate) enum Log {
    Stdout,
    File(Rotating),
}

impl Log {
    /// Opens the log, and makes its directory if need be.
    pub fn open(path: &str, options: &LogOptions) -> io::Result<Log> {
        if path == "-" {
            return Ok(Log::Stdout);
        }
        let path = PathBuf::from(path);
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let file = append(&path)?;
        let size = file.metadata()?.len();
        Ok(Log::File(Rotating {
            path,
            file,
            size,
            size_max: options.max_size_megabytes.saturating_mul(1 << 20),
            backups_max: options.max_backups,
            age_days_max: options.max_age_days,
            compress: options.compress,
        }))
    }

    /// Writes lines; `now` names the file that is put away, if one is.
    pub fn write(&mut self, lines: &[u8], now: Timestamp) -> io::Result<()> {
        match self {
            Log::Stdout => io::stdout().lock().write_all(lines),
            Log::File(file) => file.write(lines, now),
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// A file that is put away when it is full.
pub(crate) struct Rotating {
    path: PathBuf,
    file: File,
    size: u64,
    /// Bytes; 0 is without end.
    size_max: u64,
    backups_max: usize,
    age_days_max: u32,
    compress: bool,
}

/// How rotated files name the time.
const STAMP: &str = "%Y-%m-%dT%H-%M-%S";

impl Rotating {
    fn write(&mut self, lines: &[u8], now: Timestamp) -> io::Result<()> {
        let length = lines.len() as u64;
        if self.size_max > 0 {
            if length > self.size_max {
                let max = self.size_max;
                return Err(io::Error::other(format!("write length {length} exceeds maximum file size {max}")));
            }
            if self.size + length > self.size_max {
                self.rotate(now)?;
            }
        }
        self.file.write_all(lines)?;
        self.size += length;
        Ok(())
    }

    /// What rotated files' names begin and end with.
    fn affixes(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let dot = self.path.extension().map_or(String::new(), |ext| format!(".{}", ext.to_string_lossy()));
        (format!("{}-", text(self.path.file_stem())), dot)
    }

    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        let (before, after) = self.affixes();
        let stamp = format!("{}.{:03}", now.strftime(STAMP), now.subsec_millisecond());
        let away = self.path.with_file_name(format!("{before}{stamp}{after}"));
        fs::rename(&self.path, &away)?;
        self.file = append(&self.path)?;
        self.size = 0;
        if self.compress
            && let Err(error) = compress(&away)
        {
            tracing::warn!(file = %away.display(), %error, "a rotated audit log could not be compressed");
        }
        self.sweep(now)
    }

    /// Removes rotated files that are too many or too old.
    fn sweep(&self, now: Timestamp) -> io::Result<()> {
        let (before, after) = self.affixes();
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut old: Vec<(String, PathBuf)> = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let stamp = name.strip_prefix(&before).map(|rest| rest.strip_suffix(".gz").unwrap_or(rest));
            if let Some(stamp) = stamp.and_then(|rest| rest.strip_suffix(&after)).filter(|stamp| is_stamp(stamp)) {
                old.push((stamp.to_owned(), path.clone()));
            }
        }
        old.sort();
        old.reverse();
        let age = jiff::SignedDuration::from_hours(24 * i64::from(self.age_days_max));
        let oldest = now.checked_sub(age).unwrap_or(Timestamp::MIN).strftime(STAMP).to_string();
        for (at, (stamp, path)) in old.iter().enumerate() {
            let many = self.backups_max > 0 && at >= self.backups_max;
            let aged = self.age_days_max > 0 && stamp[..] < oldest[..];
            if many || aged {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// `2001-02-03T04-05-06.789`
fn is_stamp(text: &str) -> bool {
    let form = "0000-00-00T00-00-00.000";
    let fits = |(c, f): (char, char)| if f == '0' { c.is_ascii_digit() } else { c == f };
    text.len() == form.len() && text.chars().zip(form.chars()).all(fits)
}

fn compress(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    let to = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&name)?;
    let mut encoder = flate2::write::GzEncoder::new(to, flate2::Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audit_log_rotates_by_size_and_forgets_by_number_and_age() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/audit.log");
        let options = LogOptions { max_backups: 2, max_age_days: 1, max_size_megabytes: 1, ..LogOptions::default() };
        let mut log = Log::open(path.to_str().unwrap(), &options).unwrap();
        fs::write(path.with_file_name("audit-other.log"), "kept").unwrap();
        let names = || {
            let mut names: Vec<String> = fs::read_dir(path.parent().unwrap())
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let mut now = Timestamp::from_second(1_000_000_000).unwrap();
        let chunk = vec![b'x'; 700 << 10];
        for _ in 0..4 {
            log.write(&chunk, now).unwrap();
            now += jiff::SignedDuration::from_secs(1);
        }
        let first = ["audit-2001-09-09T01-46-42.000.log", "audit-2001-09-09T01-46-43.000.log", "audit-other.log"];
        assert_eq!(names(), [&first[..], &["audit.log"]].concat());
        now += jiff::SignedDuration::from_hours(25);
        log.write(&chunk, now).unwrap();
        assert_eq!(names(), ["audit-2001-09-10T02-46-44.000.log", "audit-other.log", "audit.log"]);
        assert!(log.write(&vec![0; 2 << 20], now).unwrap_err().to_string().contains("exceeds maximum file size"));
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn audit_log_is_appended_to_and_compressed_when_put_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        fs::write(&path, vec![b'y'; 600 << 10]).unwrap();
        let options = LogOptions { max_size_megabytes: 1, compress: true, ..LogOptions::default() };
        let mut log = Log::open(path.to_str().unwrap(), &options).unwrap();
        log.write(&vec![b'x'; 600 << 10], Timestamp::from_millisecond(1_000_000_000_005).unwrap()).unwrap();
        let away = dir.path().join("audit-2001-09-09T01-46-40.005.gz");
        let mut text = String::new();
        io::Read::read_to_string(&mut flate2::read::GzDecoder::new(File::open(away).unwrap()), &mut text).unwrap();
        assert_eq!((text.len(), &text[..1], fs::metadata(&path).unwrap().len()), (600 << 10, "y", 600 << 10));
    }
}
