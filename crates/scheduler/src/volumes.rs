//! VolumeBinding: whether a pod's claims can be had on a node (`pkg/scheduler/framework/plugins/volumebinding`).

use std::sync::Arc;

use corten_base::Istr;

use crate::filter::Failure;
use crate::{ClaimInfo, NodeInfo, PodInfo, Snapshot, VolumeInfo};

/// The annotation that asks the provisioner of a class for a volume on a node.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// What becomes of a claim that is not bound yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeDecision {
    /// Set the volume's `spec.claimRef` to the claim.
    Bind {
        /// The claim's name, in the pod's namespace.
        claim: Istr,
        /// The volume's name.
        volume: Istr,
    },
    /// Annotate the claim with [`SELECTED_NODE`] and wait for its volume.
    Provision {
        /// The claim's name, in the pod's namespace.
        claim: Istr,
    },
}

/// A pod's claims, by state.
#[derive(Debug, Default, Clone)]
pub(crate) struct Claims {
    bound: Vec<Istr>,
    waiting: Vec<Istr>,
}

/// What can be said before looking at nodes; the error is the reason for all of them.
pub(crate) fn prefilter(snapshot: &Snapshot, pod: &PodInfo) -> Result<Claims, String> {
    let mut claims = Claims::default();
    for name in &pod.claims {
        let found = snapshot.claims.get(&(pod.namespace.clone(), name.clone()));
        let claim = found.ok_or_else(|| format!("persistentvolumeclaim \"{name}\" not found"))?;
        if claim.lost {
            let volume = &claim.volume;
            return Err(format!(
                "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""
            ));
        }
        if claim.deleting {
            return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
        }
        let waits = snapshot.classes.get(&claim.class).is_some_and(|c| c.waits);
        match (claim.bound && !claim.volume.is_empty(), waits && claim.volume.is_empty()) {
            (true, _) => claims.bound.push(name.clone()),
            (false, true) => claims.waiting.push(name.clone()),
            (false, false) => return Err("pod has unbound immediate PersistentVolumeClaims".into()),
        }
    }
    Ok(claims)
}

/// Whether the claims can be had on `node`, and how.
pub(crate) fn filter(
    snapshot: &Snapshot,
    pod: &PodInfo,
    claims: &Claims,
    node: &NodeInfo,
) -> Result<Vec<VolumeDecision>, Failure> {
    let claim_of = |name: &Istr| snapshot.claims.get(&(pod.namespace.clone(), name.clone()));
    for name in claims.bound.iter().chain(&claims.waiting) {
        let once = claim_of(name).is_some_and(|c| c.access_modes.iter().any(|m| *m == "ReadWriteOncePod"));
        let uses = |p: &Arc<PodInfo>| p.namespace == pod.namespace && p.uid != pod.uid && p.claims.contains(name);
        if once && snapshot.nodes().iter().any(|n| n.pods.iter().any(uses)) {
            return Err(Failure::resolvable(
                "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod",
            ));
        }
    }
    for name in &claims.bound {
        let volume = claim_of(name).and_then(|c| snapshot.volumes.get(&c.volume));
        let Some(volume) = volume else {
            return Err(Failure::unresolvable(
                "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
            ));
        };
        if !reaches(volume, node) {
            return Err(Failure::unresolvable("node(s) didn't match PersistentVolume's node affinity"));
        }
    }
    let mut decisions: Vec<VolumeDecision> = Vec::new();
    for name in &claims.waiting {
        let found = claim_of(name).and_then(|claim| decide(snapshot, pod, name, claim, node, &decisions));
        decisions.push(
            found.ok_or_else(|| Failure::unresolvable("node(s) didn't find available persistent volumes to bind"))?,
        );
    }
    Ok(decisions)
}

fn decide(
    snapshot: &Snapshot,
    pod: &PodInfo,
    name: &Istr,
    claim: &ClaimInfo,
    node: &NodeInfo,
    taken: &[VolumeDecision],
) -> Option<VolumeDecision> {
    let is_taken =
        |volume: &Istr| taken.iter().any(|d| matches!(d, VolumeDecision::Bind { volume: v, .. } if v == volume));
    let fits = |(id, v): &(&Istr, &VolumeInfo)| {
        let mine = v.claim.as_ref().is_some_and(|(ns, n)| *ns == pod.namespace && n == name);
        (mine || (v.claim.is_none() && v.available))
            && !is_taken(id)
            && v.class == claim.class
            && v.block == claim.block
            && v.bytes >= claim.bytes
            && claim.access_modes.iter().all(|m| v.access_modes.contains(m))
            && claim.selector.as_ref().is_none_or(|s| s.matches(&v.labels))
            && reaches(v, node)
    };
    // The smallest that is large enough (volume_helpers.go `FindMatchingVolume`); the name decides between equals.
    let found = snapshot.volumes.iter().filter(fits).min_by(|a, b| (a.1.bytes, a.0).cmp(&(b.1.bytes, b.0)));
    if let Some((volume, _)) = found {
        return Some(VolumeDecision::Bind { claim: name.clone(), volume: volume.clone() });
    }
    let class = snapshot.classes.get(&claim.class)?;
    let provisions = !class.provisioner.is_empty() && class.provisioner != "kubernetes.io/no-provisioner";
    let here = class.topologies.is_empty() || class.topologies.iter().any(|t| t.matches(&node.name, &node.labels));
    (provisions && here).then(|| VolumeDecision::Provision { claim: name.clone() })
}

fn reaches(volume: &VolumeInfo, node: &NodeInfo) -> bool {
    volume.nodes.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(&node.name, &node.labels)))
}
