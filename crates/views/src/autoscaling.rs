//! Horizontal autoscalers: what is read of them.

use crate::meta::{ObjectMeta, ObjectReference};

objects![HorizontalPodAutoscaler];
views! {
    /// `autoscaling/v2 HorizontalPodAutoscaler`; metrics and behavior are read from the tree.
    HorizontalPodAutoscaler { metadata: ObjectMeta, spec: HorizontalPodAutoscalerSpec }
    /// `autoscaling/v2 HorizontalPodAutoscalerSpec`
    HorizontalPodAutoscalerSpec { scale_target_ref: ObjectReference, min_replicas: Option<i64>, max_replicas: i64 }
}
