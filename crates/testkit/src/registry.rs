//! Debian's `docker-registry` on loopback: a registry that others wrote, for tests of pulling.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};

use crate::{cache_dir, debian};

/// A running registry; it ends when this is dropped.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    /// `127.0.0.1:PORT`
    pub address: String,
}

impl Registry {
    /// Starts a registry that serves what lies in `storage` (see [`put`]). `http` and `auth` are lines of its configuration below
    /// these keys; its log goes to `storage.log`.
    ///
    /// # Errors
    /// If the package cannot be fetched or the registry does not come up.
    pub fn start(storage: &Path, http: &[&str], auth: &[&str]) -> Result<Registry> {
        let program = program()?;
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {:?}}}\nhttp:\n  addr: 127.0.0.1:0\n",
            storage.display().to_string()
        );
        http.iter().for_each(|line| config.push_str(&format!("  {line}\n")));
        if !auth.is_empty() {
            config.push_str("auth:\n");
            auth.iter().for_each(|line| config.push_str(&format!("  {line}\n")));
        }
        let file = storage.with_extension("yml");
        fs::create_dir_all(storage)?;
        fs::write(&file, config)?;
        let mut command = Command::new(program);
        command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting docker-registry")?;
        let mut lines = BufReader::new(child.stderr.take().context("it was piped")?);
        let mut said = String::new();
        let address = loop {
            let mut line = String::new();
            if lines.read_line(&mut line)? == 0 {
                let _ = child.wait();
                bail!("docker-registry did not come up:\n{said}");
            }
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split([',', '"', ' ']).next().unwrap_or_default().to_owned();
            }
            said.push_str(&line);
        };
        // It must not stop because nobody reads what it says.
        let log = storage.with_extension("log");
        let mut log = fs::File::create(&log)?;
        std::thread::spawn(move || std::io::copy(&mut lines, &mut log));
        Ok(Registry { child, address })
    }
}

impl Registry {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The registry's program.
///
/// # Errors
/// If the package cannot be fetched.
pub fn program() -> Result<PathBuf> {
    let dir = cache_dir().join("docker-registry");
    let program = dir.join("usr/bin/docker-registry");
    // Another test, or another process, may be at it: it appears as a whole.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    if !program.exists() {
        let partial = dir.with_extension(std::process::id().to_string());
        fs::create_dir_all(&partial)?;
        debian::unpack("docker-registry", &partial)?;
        if fs::rename(&partial, &dir).is_err() && !program.exists() {
            bail!("docker-registry cannot be put into {}", dir.display());
        }
    }
    Ok(program)
}

/// Content that is put into a registry's storage.
#[derive(Debug, Clone, Copy)]
pub enum Content<'c> {
    /// As it is.
    Bytes(&'c [u8]),
    /// A file, which is linked.
    File(&'c Path),
}

/// Puts a blob into a repository. `digest` is `sha256:…`.
///
/// # Errors
/// If it cannot be written.
pub fn put_blob(storage: &Path, repository: &str, digest: &str, content: Content<'_>) -> Result<()> {
    let (v2, hex) = (storage.join("docker/registry/v2"), digest.trim_start_matches("sha256:"));
    let data = v2.join("blobs/sha256").join(&hex[..2]).join(hex).join("data");
    if !data.exists() {
        fs::create_dir_all(data.parent().context("it was joined")?)?;
        match content {
            Content::Bytes(bytes) => fs::write(&data, bytes)?,
            Content::File(file) => fs::hard_link(file, &data).or_else(|_| fs::copy(file, &data).map(drop))?,
        }
    }
    link(&v2.join("repositories").join(repository).join("_layers/sha256").join(hex), digest)
}

/// Puts a manifest (or an index) into a repository, under a tag if one is given.
///
/// # Errors
/// If it cannot be written.
pub fn put_manifest(
    storage: &Path,
    repository: &str,
    tag: Option<&str>,
    digest: &str,
    content: Content<'_>,
) -> Result<()> {
    put_blob(storage, repository, digest, content)?;
    let hex = digest.trim_start_matches("sha256:");
    let manifests = storage.join("docker/registry/v2/repositories").join(repository).join("_manifests");
    link(&manifests.join("revisions/sha256").join(hex), digest)?;
    if let Some(tag) = tag {
        let tag = manifests.join("tags").join(tag);
        link(&tag.join("current"), digest)?;
        link(&tag.join("index/sha256").join(hex), digest)?;
    }
    Ok(())
}

fn link(dir: &Path, digest: &str) -> Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join("link"), digest).map_err(Into::into)
}
