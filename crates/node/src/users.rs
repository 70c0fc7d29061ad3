//! Users of pods with `hostUsers: false`: each has 65,536 of its own, which it keeps as long as it is on the node.
//!
//! Upstream: `pkg/kubelet/userns/userns_manager.go`. What is taken is what the pods' directories say, in the kubelet's form:
//! nothing else is remembered, so a restart changes nothing.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use corten_runtime::IdRange;
use serde::{Deserialize, Serialize};

/// Users and groups of a pod (`userNsUnitLength`, the default of `userNamespaces.idsPerPod`).
const IDS_PER_POD: u32 = 1 << 16;
/// Ranges that there are: the first numbers are the host's own, and older kernels read the groups of a devpts as signed
/// numbers.
const RANGES: u32 = (1 << 15) - 1;
/// In a pod's directory (`mappingsFile`).
const FILE: &str = "userns";

/// Gives out ranges, one at a time.
#[derive(Debug, Default)]
pub struct UserRanges(Mutex<()>);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mappings {
    uid_mappings: Vec<Mapping>,
    gid_mappings: Vec<Mapping>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_id: u32,
    container_id: u32,
    length: u32,
}

impl UserRanges {
    /// The users of a pod, taken at the first call and written to its directory. `pods`: the directory of all pods' directories.
    /// They are free again when the pod's directory is gone.
    pub fn of(&self, pods: &Path, uid: &str) -> Result<IdRange, String> {
        let _one_at_a_time = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = pods.join(uid);
        if let Some(known) = read(&own).map_err(|e| format!("user namespace: {e}"))? {
            return Ok(known);
        }
        self.take(pods, &own).map_err(|e| format!("create user namespace: {e}"))
    }

    fn take(&self, pods: &Path, own: &Path) -> Result<IdRange, String> {
        let entries = fs::read_dir(pods).map_err(|e| format!("{}: {e}", pods.display()))?;
        let others = entries.flatten().map(|e| e.path()).filter(|path| path.as_path() != own);
        // A broken file of another pod keeps that pod from starting, and no other.
        let used: HashSet<u32> = others.filter_map(|path| read(&path).ok().flatten()).map(|ids| ids.first).collect();
        // Not all from the start: another cluster of this machine takes ranges, too.
        let begin = own.as_os_str().as_encoded_bytes().iter().fold(0u32, |h, b| h.wrapping_mul(31) ^ u32::from(*b));
        let free = (0..RANGES).map(|n| (1 + (begin % RANGES + n) % RANGES) * IDS_PER_POD).find(|id| !used.contains(id));
        let first = free.ok_or("could not find an empty slot to allocate a user namespace")?;
        let mapping = vec![Mapping { host_id: first, container_id: 0, length: IDS_PER_POD }];
        let text = serde_json::to_vec(&Mappings { uid_mappings: mapping.clone(), gid_mappings: mapping });
        let text = text.map_err(|e| e.to_string())?;
        write(own, &text).map_err(|e| format!("{}: {e}", own.display()))?;
        Ok(IdRange { first, count: IDS_PER_POD })
    }
}

/// Replaces the file, durably: who loses it would get other users for the same files.
fn write(directory: &Path, text: &[u8]) -> std::io::Result<()> {
    let (path, partial): (PathBuf, PathBuf) = (directory.join(FILE), directory.join(format!("{FILE}.new")));
    let mut file = File::create(&partial)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&partial, &path)?;
    File::open(directory)?.sync_all()
}

/// What a pod's directory says; `None` if it says nothing.
fn read(directory: &Path) -> Result<Option<IdRange>, String> {
    let bytes = match fs::read(directory.join(FILE)) {
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        other => other.map_err(|e| format!("{}: {e}", directory.display()))?,
    };
    let found: Mappings =
        serde_json::from_slice(&bytes).map_err(|e| format!("invalid user namespace mappings file: {e}"))?;
    let ([mapping], true) = (found.uid_mappings.as_slice(), found.uid_mappings == found.gid_mappings) else {
        return Err("invalid user namespace configuration: GID and UID mapping should be identical".into());
    };
    if mapping.container_id != 0 {
        return Err("invalid user namespace configuration: UID 0 must be mapped".into());
    }
    if mapping.length != IDS_PER_POD {
        return Err(format!("wrong user namespace length {}", mapping.length));
    }
    if mapping.host_id == 0 || mapping.host_id % IDS_PER_POD != 0 {
        return Err(format!("wrong user namespace offset specified {}", mapping.host_id));
    }
    Ok(Some(IdRange { first: mapping.host_id, count: mapping.length }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_users_false_gives_each_pod_a_range_that_outlives_the_agent() {
        let pods = std::env::temp_dir().join(format!("corten-userns-{}", std::process::id()));
        let ranges = UserRanges::default();
        let mut seen = HashSet::new();
        for n in 0..50 {
            let uid = format!("pod-{n}");
            fs::create_dir_all(pods.join(&uid)).unwrap();
            let ids = ranges.of(&pods, &uid).unwrap();
            assert!(ids.first >= IDS_PER_POD && ids.first.is_multiple_of(IDS_PER_POD) && ids.count == IDS_PER_POD);
            assert!(i32::try_from(ids.first + ids.count - 1).is_ok(), "{ids:?}");
            assert!(seen.insert(ids.first), "{ids:?} was given twice");
            assert_eq!(ranges.of(&pods, &uid).unwrap(), ids);
            // A new agent knows it from the directory.
            assert_eq!(UserRanges::default().of(&pods, &uid).unwrap(), ids);
        }
        let first = ranges.of(&pods, "pod-0").unwrap().first;
        let form = format!(r#"[{{"hostId":{first},"containerId":0,"length":65536}}]"#);
        let text = fs::read_to_string(pods.join("pod-0/userns")).unwrap();
        assert_eq!(text, format!(r#"{{"uidMappings":{form},"gidMappings":{form}}}"#));
        for (text, error) in [
            ("", "user namespace: invalid user namespace mappings file: EOF while parsing a value at line 1 column 0"),
            (
                &text.replace("\"containerId\":0", "\"containerId\":7"),
                "user namespace: invalid user namespace configuration: UID 0 must be mapped",
            ),
            (&text.replace("65536}", "1}"), "user namespace: wrong user namespace length 1"),
            (&text.replace(&first.to_string(), "0"), "user namespace: wrong user namespace offset specified 0"),
        ] {
            fs::write(pods.join("pod-0/userns"), text).unwrap();
            assert_eq!(ranges.of(&pods, "pod-0").unwrap_err(), error);
        }
        // A pod that is gone gives its users back.
        fs::remove_dir_all(pods.join("pod-1")).unwrap();
        fs::create_dir_all(pods.join("pod-1")).unwrap();
        assert!(seen.contains(&ranges.of(&pods, "pod-1").unwrap().first));
        fs::remove_dir_all(pods).unwrap();
    }
}
