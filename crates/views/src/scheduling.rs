//! Priority classes.

use crate::meta::ObjectMeta;

objects![PriorityClass];
views! {
    /// `scheduling.k8s.io/v1 PriorityClass`
    PriorityClass {
        metadata: ObjectMeta,
        value: i32,
        global_default: bool,
        description: String,
        preemption_policy: Option<String>,
    }
}
