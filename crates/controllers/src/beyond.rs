//! What Corten does beyond Kubernetes, for objects that ask for it by an annotation (`docs/beyond.md`). Without the annotation
//! nothing differs from upstream.

use corten_views::ObjectMeta;

/// Deployments: the condition `Progressing` says why the rollout does not go on.
pub const EXPLAIN_ROLLOUT: &str = "corten.dev/explain-rollout";
/// Deployments: a rollout that has run out of time is taken back.
pub const AUTO_ROLLBACK: &str = "corten.dev/auto-rollback";
/// Where a deployment keeps the name of the replica set with which it was complete last.
pub const COMPLETE_SET: &str = "corten.dev/complete-replica-set";
/// Where a deployment keeps the name of the replica set that it was rolled back from.
pub const ROLLED_BACK_FROM: &str = "corten.dev/rolled-back-from";
/// Deployments, StatefulSets and DaemonSets: rolled when a ConfigMap or Secret that they refer to changes.
pub const ROLL_ON_CONFIG: &str = "corten.dev/roll-on-config";
/// What stands for the state of the configuration, in the object and, once it has changed, in its template.
pub const CONFIG_HASH: &str = "corten.dev/config-hash";
/// StatefulSets: pods of an outdated revision that were never ready are replaced at once.
pub const REPLACE_BROKEN: &str = "corten.dev/replace-broken";

pub use corten_kinds::beyond::GROW_CLAIMS;

/// Whether an annotation is what Corten keeps about the one object that has it. All others are copied from a deployment to its
/// replica sets like anybody's: `kubectl rollout undo` takes them from there.
pub fn is_kept(annotation: &str) -> bool {
    [ROLLED_BACK_FROM, CONFIG_HASH].contains(&annotation)
}

/// Whether an object asks for something.
pub fn is_on(metadata: &ObjectMeta, annotation: &str) -> bool {
    metadata.annotations.get(annotation).is_some_and(|value| value == "true")
}
