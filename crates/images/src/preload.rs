//! Images that are brought along: all archives of a directory are imported when the server starts, without a registry.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::At;
use crate::{ImageError, ImageStore, Imported, Result};

/// Archives of the directory; more are an error.
const ARCHIVES_MAX: usize = 1000;

impl ImageStore {
    /// Imports every archive (tar file, plain or compressed, or OCI layout directory) of a directory, in the order of their names.
    /// What was imported before, is unchanged and still here is left out. An archive that is broken does not keep the others out.
    ///
    /// # Errors
    /// If the directory cannot be read; it need not exist.
    pub fn preload(&self, dir: &Path) -> Result<Vec<(PathBuf, Result<Vec<Imported>>)>> {
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.at("read", dir)?,
        };
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.at("read", dir)?.path());
            if paths.len() > ARCHIVES_MAX {
                return Err(ImageError::Unsupported(format!("more than {ARCHIVES_MAX} archives in {}", dir.display())));
            }
        }
        paths.sort();
        let stamps = self.root.join("preloaded.json");
        let known = fs::read(&stamps).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let known: BTreeMap<PathBuf, (String, Vec<String>)> = known.unwrap_or_default();
        let mut now = BTreeMap::new();
        let mut done = Vec::new();
        for path in paths {
            let meta = fs::metadata(&path).at("read", &path)?;
            let stamp = format!("{} {}.{} {}", meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len());
            let same = known.get(&path).filter(|(then, names)| {
                meta.is_file() && *then == stamp && names.iter().all(|name| self.resolve(name).is_ok())
            });
            if let Some(same) = same {
                now.insert(path, same.clone());
                continue;
            }
            let imported = self.import(&path, None);
            if let Ok(images) = &imported {
                let names = images.iter().flat_map(|image| image.names.iter().cloned()).collect();
                now.insert(path.clone(), (stamp, names));
            }
            done.push((path, imported));
        }
        if now != known {
            self.replace(&stamps, &serde_json::to_vec(&now).expect("names are plain data"))?;
        }
        Ok(done)
    }
}
