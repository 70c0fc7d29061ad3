//! Names of what Corten's API allows beyond Kubernetes, to objects that ask for it by an annotation (`docs/beyond.md`).

/// StatefulSets: the storage that `volumeClaimTemplates` request may grow, and the claims grow with it.
pub const GROW_CLAIMS: &str = "corten.dev/grow-claims";
