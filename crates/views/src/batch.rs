//! Jobs and cron jobs.

use corten_base::Timestamp;

use crate::meta::{Condition, LabelSelector, ObjectMeta, ObjectReference};
use crate::pod::PodTemplateSpec;

objects![Job, CronJob];
views! {
    /// `batch/v1 Job`
    Job { metadata: ObjectMeta, spec: JobSpec, status: JobStatus }
    /// `batch/v1 JobSpec`
    JobSpec {
        parallelism: Option<i64>,
        completions: Option<i64>,
        active_deadline_seconds: Option<i64>,
        pod_failure_policy: Option<PodFailurePolicy>,
        success_policy: Option<SuccessPolicy>,
        backoff_limit: Option<i64>,
        backoff_limit_per_index: Option<i64>,
        max_failed_indexes: Option<i64>,
        selector: Option<LabelSelector>,
        manual_selector: Option<bool>,
        template: PodTemplateSpec,
        ttl_seconds_after_finished: Option<i64>,
        completion_mode: Option<String>,
        suspend: Option<bool>,
        pod_replacement_policy: Option<String>,
        managed_by: Option<String>,
    }
    /// `batch/v1 PodFailurePolicy`
    PodFailurePolicy { #[serde(deserialize_with = "crate::meta::nullable")] rules: Vec<PodFailurePolicyRule> }
    /// `batch/v1 PodFailurePolicyRule`
    PodFailurePolicyRule {
        action: String,
        on_exit_codes: Option<OnExitCodes>,
        on_pod_conditions: Vec<OnPodCondition>,
    }
    /// `batch/v1 PodFailurePolicyOnExitCodesRequirement`
    OnExitCodes { container_name: Option<String>, operator: String, values: Vec<i32> }
    /// `batch/v1 PodFailurePolicyOnPodConditionsPattern`
    OnPodCondition { r#type: String, status: String }
    /// `batch/v1 SuccessPolicy`
    SuccessPolicy { #[serde(deserialize_with = "crate::meta::nullable")] rules: Vec<SuccessPolicyRule> }
    /// `batch/v1 SuccessPolicyRule`
    SuccessPolicyRule { succeeded_indexes: Option<String>, succeeded_count: Option<i64> }
    /// `batch/v1 JobStatus`
    JobStatus {
        conditions: Vec<Condition>,
        start_time: Option<Timestamp>,
        completion_time: Option<Timestamp>,
        active: i64,
        succeeded: i64,
        failed: i64,
        terminating: Option<i64>,
        ready: Option<i64>,
        completed_indexes: String,
        failed_indexes: Option<String>,
        uncounted_terminated_pods: Option<UncountedTerminatedPods>,
    }
    /// `batch/v1 UncountedTerminatedPods`: uids
    UncountedTerminatedPods { succeeded: Vec<String>, failed: Vec<String> }
    /// `batch/v1 CronJob`
    CronJob { metadata: ObjectMeta, spec: CronJobSpec, status: CronJobStatus }
    /// `batch/v1 CronJobSpec`
    CronJobSpec {
        schedule: String,
        time_zone: Option<String>,
        starting_deadline_seconds: Option<i64>,
        concurrency_policy: String,
        suspend: Option<bool>,
        job_template: JobTemplateSpec,
        successful_jobs_history_limit: Option<i64>,
        failed_jobs_history_limit: Option<i64>,
    }
    /// `batch/v1 JobTemplateSpec`
    JobTemplateSpec { metadata: ObjectMeta, spec: JobSpec }
    /// `batch/v1 CronJobStatus`
    CronJobStatus {
        active: Vec<ObjectReference>,
        last_schedule_time: Option<Timestamp>,
        last_successful_time: Option<Timestamp>,
    }
}

impl Job {
    /// The finishing condition that is true: `Complete` or `Failed`.
    pub fn finished(&self) -> Option<&Condition> {
        self.status.conditions.iter().find(|c| c.is_true() && matches!(c.r#type.as_str(), "Complete" | "Failed"))
    }

    /// Whether pods have an index each.
    pub fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }
}
