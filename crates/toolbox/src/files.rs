//! Applets on files: ls, tail, tar.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use corten_base::{Clock as _, SystemClock};

use crate::{Failure, Outcome, option, switch};

pub(crate) fn ls(args: &[String]) -> Outcome {
    let mut paths = args.to_vec();
    let long = switch(&mut paths, &["-l", "-la", "-al"]);
    switch(&mut paths, &["-a", "-1"]);
    if paths.is_empty() {
        paths.push(".".into());
    }
    let mut out = io::stdout().lock();
    for path in &paths {
        let mut names = Vec::new();
        if fs::metadata(path).map_err(|e| format!("{path}: {e}"))?.is_dir() {
            for entry in fs::read_dir(path)? {
                names.push(entry?.path());
            }
            names.sort();
        } else {
            names.push(path.into());
        }
        for name in names {
            let shown = name.file_name().map_or_else(|| name.to_string_lossy(), |n| n.to_string_lossy());
            if !long {
                writeln!(out, "{shown}")?;
                continue;
            }
            let meta = fs::symlink_metadata(&name)?;
            let arrow = fs::read_link(&name).map_or_else(|_| String::new(), |to| format!(" -> {}", to.display()));
            let (mode, size) = (meta.permissions().mode() & 0o7777, meta.size());
            let kind = if meta.is_dir() {
                'd'
            } else if meta.is_symlink() {
                'l'
            } else {
                '-'
            };
            writeln!(out, "{kind}{mode:04o} {:>5} {:>5} {size:>10} {shown}{arrow}", meta.uid(), meta.gid())?;
        }
    }
    Ok(0)
}

/// Prints the last lines; with `-f` or `-F` goes on as the file grows (a file that is not there yet is waited for).
///
/// It looks twice a second: inotify sees no changes made through another mount of an overlay.
pub(crate) async fn tail(mut args: Vec<String>) -> Outcome {
    let lines: usize = option(&mut args, &["-n"])?
        .map_or(Ok(10), |n| n.trim_start_matches('+').parse())
        .map_err(|_| Failure::Usage)?;
    let follow = switch(&mut args, &["-f", "-F"]);
    let [path] = args.as_slice() else { return Err(Failure::Usage) };
    let pause = || SystemClock.sleep(Duration::from_millis(500));
    let mut file = loop {
        match File::open(path) {
            Ok(file) => break file,
            Err(e) if follow && e.kind() == io::ErrorKind::NotFound => pause().await,
            Err(e) => return Err(format!("{path}: {e}").into()),
        }
    };
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let starts = text.iter().enumerate().rev().skip(1).filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1);
    let from = if lines == 0 { text.len() } else { starts.take(lines).nth(lines - 1).unwrap_or(0) };
    let mut out = io::stdout();
    out.write_all(&text[from..])?;
    out.flush()?;
    let mut inode = file.metadata()?.ino();
    if !follow {
        return Ok(0);
    }
    loop {
        pause().await;
        text.clear();
        file.read_to_end(&mut text)?;
        out.write_all(&text)?;
        out.flush()?;
        if let Ok(meta) = fs::metadata(path)
            && meta.ino() != inode
        {
            file = File::open(path)?;
            inode = meta.ino();
        }
    }
}

/// Enough of tar for `kubectl cp`: `tar cf - PATH`, `tar xmf - -C DIR`.
pub(crate) fn tar(args: &[String]) -> Outcome {
    let mut args = args.to_vec();
    let letters = match args.first() {
        Some(first) if !first.starts_with("--") => args.remove(0).trim_start_matches('-').to_owned(),
        _ => return Err(Failure::Usage),
    };
    let file = if letters.contains('f') && !args.is_empty() { args.remove(0) } else { "-".into() };
    let directory = option(&mut args, &["-C"])?.unwrap_or_else(|| ".".into());
    switch(&mut args, &["-m", "-p", "-o", "--no-same-owner", "--no-same-permissions"]);
    if letters.contains('x') {
        let input: Box<dyn Read> = if file == "-" { Box::new(io::stdin()) } else { Box::new(File::open(&file)?) };
        let mut archive = ::tar::Archive::new(input);
        archive.set_preserve_mtime(!letters.contains('m'));
        archive.unpack(&directory)?;
    } else if letters.contains('c') {
        let output: Box<dyn io::Write> =
            if file == "-" { Box::new(io::stdout()) } else { Box::new(File::create(&file)?) };
        let mut builder = ::tar::Builder::new(output);
        builder.follow_symlinks(false);
        for path in &args {
            let source = Path::new(&directory).join(path);
            let name = path.trim_start_matches('/');
            let name = if name.is_empty() { "." } else { name };
            if fs::symlink_metadata(&source).map_err(|e| format!("{path}: {e}"))?.is_dir() {
                builder.append_dir_all(name, &source)?;
            } else {
                builder.append_path_with_name(&source, name)?;
            }
        }
        builder.into_inner()?.flush()?;
    } else {
        return Err(Failure::Usage);
    }
    Ok(0)
}
