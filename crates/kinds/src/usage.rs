//! What nodes measure, and how kinds that are made of it say so ([`crate::KindSpec::measured`]).

use corten_base::Timestamp;
use corten_object::KindId;
use corten_tree::Tree;
use jiff::SignedDuration;

/// What something uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// CPU time per time, in billionths of a core.
    pub cpu_nanocores: u64,
    /// Memory that cannot be taken back at once, in bytes.
    pub memory_bytes: u64,
}

/// What a container uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerUsage {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container.
    pub container: String,
    /// Over which time its CPU usage was measured.
    pub window: SignedDuration,
    /// What it uses.
    pub used: Used,
}

/// What a node and its containers use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeUsage {
    /// The node.
    pub node: String,
    /// When it was measured.
    pub at: Timestamp,
    /// Over which time the node's CPU usage was measured.
    pub window: SignedDuration,
    /// What the node uses.
    pub used: Used,
    /// What its containers use; those of a pod are neighbours.
    pub containers: Vec<ContainerUsage>,
}

/// A kind whose objects are made of measurements when they are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// The objects that a node's measurements make, with names and namespaces.
    pub objects: fn(&NodeUsage) -> Vec<Tree>,
    /// The kind of the objects of the same names: they lend their labels, and what has none any more is not shown.
    pub about: KindId,
}
