//! Leases.

use corten_base::Timestamp;

use crate::meta::ObjectMeta;

objects![Lease];
views! {
    /// `coordination.k8s.io/v1 Lease`
    Lease { metadata: ObjectMeta, spec: LeaseSpec }
    /// `coordination.k8s.io/v1 LeaseSpec`
    LeaseSpec {
        holder_identity: Option<String>,
        lease_duration_seconds: Option<i32>,
        acquire_time: Option<Timestamp>,
        renew_time: Option<Timestamp>,
        lease_transitions: Option<i32>,
    }
}
