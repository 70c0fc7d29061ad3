//! Who may use the images that were pulled: a private image that one pod's secret brought here is not every pod's (KEP-2535).
//!
//! A record per image id says, for each repository, with which secrets it was pulled, as hashes; or that the node itself, or nobody in
//! particular, could pull it. As upstream's `NeverVerifyPreloadedImages`: images that were imported or built are everybody's.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::At;
use crate::registry::{Login, SecretRef};
use crate::{Digest, Image, ImageStore, Reference, Result};

/// Secrets of a repository that are remembered (`writeRecordWhileMatchingLimit`).
const SECRETS_MAX: usize = 100;
/// Repositories of an image that are remembered.
const REPOSITORIES_MAX: usize = 100;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    repositories: BTreeMap<String, Access>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Access {
    /// Every pod of the node may use it.
    #[serde(default)]
    node: bool,
    #[serde(default)]
    secrets: Vec<Known>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    secret: SecretRef,
    hash: Digest,
}

impl ImageStore {
    /// Whether a pod with these logins may use an image as it is here; else it must be pulled with them first
    /// (`MustAttemptImagePull`). Remembers a login that fits by half: a secret that has changed, or a copy of it.
    pub fn may_use(&self, image: &Image, logins: &[Login]) -> Result<bool> {
        if !image.pulled {
            return Ok(true);
        }
        let Some(repository) = repository(image) else { return Ok(false) };
        let record = self.record(&image.id)?;
        let Some(access) = record.repositories.get(&repository) else { return Ok(false) };
        if access.node {
            return Ok(true);
        }
        for login in logins {
            let Some(secret) = &login.source else { continue };
            let own = Known { secret: secret.clone(), hash: login.hash() };
            if access.secrets.iter().any(|known| known.hash == own.hash || known.secret == own.secret) {
                if !access.secrets.contains(&own) {
                    self.remember(&image.id, &repository, Some(login))?;
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Notes with which login an image was pulled.
    pub fn note_pulled(&self, image: &Image, login: Option<&Login>) -> Result<()> {
        match repository(image) {
            Some(repository) => self.remember(&image.id, &repository, login),
            None => Ok(()),
        }
    }

    /// Forgets images that are no more.
    pub(crate) fn forget_records(&self, kept: impl Fn(&str) -> bool) -> Result<()> {
        let dir = self.root.join("pulls");
        for entry in std::fs::read_dir(&dir).at("read", &dir)?.flatten() {
            if !kept(&entry.file_name().to_string_lossy()) {
                crate::store::remove_any(&entry.path())?;
            }
        }
        Ok(())
    }

    fn record_path(&self, id: &Digest) -> PathBuf {
        self.root.join("pulls").join(id.hex())
    }

    /// One that cannot be read counts as none: then pods prove themselves.
    fn record(&self, id: &Digest) -> Result<Record> {
        let path = self.record_path(id);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Record::default()),
            Err(error) => Err(error).at("read", &path),
        }
    }

    fn remember(&self, id: &Digest, repository: &str, login: Option<&Login>) -> Result<()> {
        let _alone = self.lock("pulls.lock", true)?;
        let mut record = self.record(id)?;
        if record.repositories.len() >= REPOSITORIES_MAX && !record.repositories.contains_key(repository) {
            record.repositories.clear();
        }
        let access = record.repositories.entry(repository.to_owned()).or_default();
        match login.and_then(|login| login.source.as_ref().map(|secret| (login, secret))) {
            None if access.node => return Ok(()),
            None => *access = Access { node: true, secrets: Vec::new() },
            Some(_) if access.node => return Ok(()),
            Some((login, secret)) => {
                access.secrets.retain(|known| known.secret != *secret);
                if access.secrets.len() >= SECRETS_MAX {
                    access.secrets.remove(0);
                }
                access.secrets.push(Known { secret: secret.clone(), hash: login.hash() });
            }
        }
        let bytes = serde_json::to_vec(&record).expect("a record is plain data");
        self.replace(&self.record_path(id), &bytes)
    }
}

fn repository(image: &Image) -> Option<String> {
    Reference::parse(&image.name).ok().map(|reference| reference.repository)
}
