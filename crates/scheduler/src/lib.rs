//! Pod in, decision out: a pure function over a snapshot of the cluster.
//!
//! The caller keeps a [`Snapshot`] (nodes with their pods, claims, volumes, classes, namespaces' labels, disruption budgets),
//! asks [`schedule`] for one pod at a time and executes the [`Decision`]: binds, waits for volumes, evicts victims, or writes
//! the `PodScheduled` condition. A bound pod is put into the snapshot at once ([`Snapshot::add_pod`]), so that the next
//! decision counts it.
//!
//! A decision runs upstream's default profile: filters in upstream's order, where the first that fails names the node's
//! reason; scores with upstream's weights; ties by the entropy that is passed in. Messages are upstream's
//! (`pkg/scheduler/framework/types.go` `FitError.Error`, the plugins' reasons).
//!
//! Infos are made from views: `PodInfo::from(&pod)`, `NodeInfo::from(&node)`, `ClaimInfo::from(&claim)` and so on.

mod admit;
mod affinity;
mod convert;
mod decide;
mod filter;
mod info;
mod preempt;
mod score;
mod snapshot;
mod spread;
mod volumes;

pub use admit::{Lack, Rejection, admit, admit_with_room, lacks};
pub use decide::{Decision, Preemption, REASON_GATED, REASON_UNSCHEDULABLE, schedule};
pub use info::{
    HostPort, NodeInfo, NodeTerm, PodInfo, PodTerm, Resources, SpreadConstraint, Taint, TaintEffect, Toleration,
    ZoneTerms,
};
pub use snapshot::{BudgetInfo, ClaimInfo, ClassInfo, Snapshot, VolumeInfo};
pub use volumes::{SELECTED_NODE, VolumeDecision};
