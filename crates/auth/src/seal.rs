//! Secrets at rest: sealed with AES-256-GCM under a key of the data directory.
//!
//! A sealed value names its key and is bound to the place where it lies in the store: moved elsewhere, it does not open. Values
//! from before sealing are read as they are, and sealed when the server starts.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use crate::PkiError;
use crate::pki::{read, write_private};

/// What every sealed value begins with; no JSON does.
const PREFIX: &[u8] = b"corten:aesgcm:v1:";
/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Keys that are kept: the one in use, and the one before it for what is not yet sealed anew.
const KEYS_MAX: usize = 2;

/// Seals and opens values.
pub struct Sealer {
    /// The first one seals.
    keys: Vec<(String, LessSafeKey)>,
    random: SystemRandom,
}

impl Sealer {
    /// The keys of a file, which is made if it is not there.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds no keys.
    pub fn load_or_create(file: &Path) -> Result<Sealer, PkiError> {
        match read(file)? {
            Some(text) => Sealer::parse(file, &text),
            None => {
                let text = new_line(file)?;
                write_private(file, &text)?;
                Sealer::parse(file, &text)
            }
        }
    }

    /// Puts a new key before those of a file; a server seals all values anew with it at its next start.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds no keys.
    pub fn rotate(file: &Path) -> Result<(), PkiError> {
        let old = read(file)?.unwrap_or_default();
        if !old.is_empty() {
            Sealer::parse(file, &old)?;
        }
        let mut lines = vec![new_line(file)?];
        lines.extend(old.lines().filter(|l| !l.trim().is_empty()).take(KEYS_MAX - 1).map(|l| format!("{l}\n")));
        write_private(file, &lines.concat())
    }

    fn parse(file: &Path, text: &str) -> Result<Sealer, PkiError> {
        let bad = |detail: &str| PkiError::Content { path: file.into(), detail: detail.into() };
        let mut keys = Vec::new();
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            let (id, key) = line.trim().split_once(' ').ok_or_else(|| bad("a line is not ID KEY"))?;
            let key = STANDARD.decode(key).map_err(|_| bad("a key is not base64"))?;
            let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| bad("a key has not 32 bytes"))?;
            keys.push((id.to_owned(), LessSafeKey::new(key)));
        }
        if keys.is_empty() {
            return Err(bad("no key is in it"));
        }
        Ok(Sealer { keys, random: SystemRandom::new() })
    }

    /// A value as it is kept at a place.
    ///
    /// # Errors
    /// The machine has no random numbers.
    pub fn seal(&self, place: &[u8], value: &[u8]) -> Result<Bytes, String> {
        let (id, key) = &self.keys[0];
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| "no random numbers".to_owned())?;
        let mut sealed = value.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place), &mut sealed)
            .map_err(|_| "sealing failed".to_owned())?;
        Ok([PREFIX, id.as_bytes(), b":", &nonce, &sealed].concat().into())
    }

    /// A value from how it is kept at a place. What is not sealed is given as it is.
    ///
    /// # Errors
    /// Its key is not known, or it was changed or moved.
    pub fn open(&self, place: &[u8], kept: Bytes) -> Result<Bytes, String> {
        let Some((id, rest)) = taken_apart(&kept) else { return Ok(kept) };
        let key = self.keys.iter().find(|(known, _)| known.as_bytes() == id);
        let (_, key) = key.ok_or_else(|| format!("no key {:?} to open it", String::from_utf8_lossy(id)))?;
        let changed = || "it was changed, moved, or sealed with another key".to_owned();
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or_else(changed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| changed())?;
        let mut opened = sealed.to_vec();
        let length = key.open_in_place(nonce, Aad::from(place), &mut opened).map_err(|_| changed())?.len();
        opened.truncate(length);
        Ok(opened.into())
    }

    /// Whether a value is kept as it would be now.
    pub fn is_current(&self, kept: &[u8]) -> bool {
        taken_apart(kept).is_some_and(|(id, _)| id == self.keys[0].0.as_bytes())
    }
}

/// Key id, and nonce with content.
fn taken_apart(kept: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = kept.strip_prefix(PREFIX)?;
    let end = rest.iter().position(|b| *b == b':')?;
    Some((&rest[..end], &rest[end + 1..]))
}

fn new_line(file: &Path) -> Result<String, PkiError> {
    let mut bytes = [0; KEY_BYTES + 6];
    let failed = |_| PkiError::Content { path: file.into(), detail: "no random numbers for a key".into() };
    SystemRandom::new().fill(&mut bytes).map_err(failed)?;
    let (key, id) = bytes.split_at(KEY_BYTES);
    let id: String = id.iter().map(|b| format!("{b:02x}")).collect();
    Ok(format!("{id} {}\n", STANDARD.encode(key)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn sealed_values_open_at_their_place_only_and_survive_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("encryption.key");
        let first = Sealer::load_or_create(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let kept = first.seal(b"/a", b"secret").unwrap();
        assert!(!kept.windows(6).any(|w| w == b"secret"));
        assert_eq!(first.open(b"/a", kept.clone()).unwrap(), "secret");
        assert!(first.open(b"/b", kept.clone()).is_err(), "moved");
        let mut forged = kept.to_vec();
        *forged.last_mut().unwrap() ^= 1;
        assert!(first.open(b"/a", forged.into()).is_err(), "changed");
        assert_eq!(first.open(b"/a", Bytes::from_static(b"{}")).unwrap(), "{}", "from before sealing");
        assert!(first.open(b"/a", Bytes::from_static(b"corten:aesgcm:v1:x:short")).is_err());
        assert_ne!(first.seal(b"/a", b"secret").unwrap(), kept, "a nonce of its own");

        Sealer::rotate(&file).unwrap();
        let second = Sealer::load_or_create(&file).unwrap();
        assert_eq!(second.open(b"/a", kept.clone()).unwrap(), "secret");
        assert!(!second.is_current(&kept) && first.is_current(&kept));
        let anew = second.seal(b"/a", b"secret").unwrap();
        assert!(second.is_current(&anew) && first.open(b"/a", anew).is_err());
        Sealer::rotate(&file).unwrap();
        let third = Sealer::load_or_create(&file).unwrap();
        assert!(third.open(b"/a", kept).is_err(), "two rotations later the key is gone");
        std::fs::write(&file, "nonsense").unwrap();
        assert!(Sealer::load_or_create(&file).is_err());
    }
}
