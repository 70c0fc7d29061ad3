//! Names of annotations and labels that several controllers use.

/// Revision of a deployment or of its replica set.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Former revisions of a replica set.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Replicas that the deployment wanted when the replica set was last scaled.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// The most replicas that the deployment could have then.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Label that tells a deployment's replica sets apart.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// What `kubectl apply` keeps.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// What deleting a pod costs, for scaling down.
pub const POD_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
