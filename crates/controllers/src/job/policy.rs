//! `podFailurePolicy` and `successPolicy`.

use corten_views::batch::{OnExitCodes, PodFailurePolicy, SuccessPolicy};
use corten_views::{ContainerStatus, Pod};

use super::indexes::Indexes;

/// What the policy says about a failed pod.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// The job fails, with this message.
    pub fail_job: Option<String>,
    /// The pod's index fails.
    pub fail_index: bool,
    /// It does not count.
    pub ignored: bool,
}

/// `matchPodFailurePolicy`
pub(super) fn judge(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Verdict {
    let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
    for (index, rule) in policy.iter().flat_map(|p| &p.rules).enumerate() {
        let because = if let Some(codes) = &rule.on_exit_codes {
            exit_code(pod, codes).map(|(container, code)| {
                format!("Container {container} for pod {namespace}/{name} failed with exit code {code}")
            })
        } else {
            let matches = |c: &&corten_views::Condition| {
                rule.on_pod_conditions.iter().any(|p| p.r#type == c.r#type && p.status == c.status)
            };
            let condition = pod.status.conditions.iter().find(matches);
            condition.map(|c| format!("Pod {namespace}/{name} has condition {}", c.r#type))
        };
        let Some(because) = because else { continue };
        return match rule.action.as_str() {
            "Ignore" => Verdict { ignored: true, ..Verdict::default() },
            "FailIndex" => Verdict { fail_index: true, ..Verdict::default() },
            "FailJob" => {
                let message = format!("{because} matching FailJob rule at index {index}");
                Verdict { fail_job: Some(message), ..Verdict::default() }
            }
            _ => Verdict::default(),
        };
    }
    Verdict::default()
}

fn exit_code<'p>(pod: &'p Pod, rule: &OnExitCodes) -> Option<(&'p str, i32)> {
    let matches = |status: &'p ContainerStatus| {
        let code = status.state.terminated.as_ref()?.exit_code;
        let named = rule.container_name.as_ref().is_none_or(|n| *n == status.name);
        let listed = rule.values.contains(&code);
        let fits = match rule.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        (named && code != 0 && fits).then_some((status.name.as_str(), code))
    };
    pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses).find_map(matches)
}

/// Which rule of the success policy these indexes meet, as upstream's message (`matchSuccessPolicy`).
pub(super) fn success(policy: Option<&SuccessPolicy>, completions: i64, succeeded: &Indexes) -> Option<String> {
    if succeeded.0.is_empty() {
        return None;
    }
    let met = |rule: &corten_views::batch::SuccessPolicyRule| match &rule.succeeded_indexes {
        Some(text) => {
            let wanted = Indexes::parse(text, completions);
            let have = wanted.0.intersection(&succeeded.0).count() as i64;
            !wanted.0.is_empty() && (have == wanted.count() || rule.succeeded_count.is_some_and(|n| have >= n))
        }
        None => rule.succeeded_count.is_some_and(|n| succeeded.count() >= n),
    };
    let index = policy?.rules.iter().position(met)?;
    Some(format!("Matched rules at index {index}"))
}
