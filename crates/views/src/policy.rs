//! Pod disruption budgets.

use std::collections::BTreeMap;

use corten_base::Timestamp;

use crate::meta::{Condition, IntOrString, LabelSelector, ObjectMeta};

objects![PodDisruptionBudget];
views! {
    /// `policy/v1 PodDisruptionBudget`
    PodDisruptionBudget {
        metadata: ObjectMeta,
        spec: PodDisruptionBudgetSpec,
        status: PodDisruptionBudgetStatus,
    }
    /// `policy/v1 PodDisruptionBudgetSpec`
    PodDisruptionBudgetSpec {
        min_available: Option<IntOrString>,
        selector: Option<LabelSelector>,
        max_unavailable: Option<IntOrString>,
        unhealthy_pod_eviction_policy: Option<String>,
    }
    /// `policy/v1 PodDisruptionBudgetStatus`
    PodDisruptionBudgetStatus {
        observed_generation: i64,
        disrupted_pods: BTreeMap<String, Timestamp>,
        disruptions_allowed: i64,
        current_healthy: i64,
        desired_healthy: i64,
        expected_pods: i64,
        conditions: Vec<Condition>,
    }
}
