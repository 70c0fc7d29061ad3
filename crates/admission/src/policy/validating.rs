//! ValidatingAdmissionPolicy (`policy/validating/dispatcher.go`, `validator.go`).

use std::time::{Duration, Instant};

use corten_object::{Cause, Reason, Status};
use corten_tree::{Tree, tree};

use super::config::{Binding, Policy, Validation};
use super::counts::{Counts, error_type};
use super::expression::{COST_BUDGET, Documents, Input};
use super::matching::{conditions_hold, documents, invocation, param_kind, params};
use crate::Request;
use crate::asking::Asking;
use crate::hooks::matching::Objects;

/// The longest text of a messageExpression (`MaxEvaluatedMessageExpressionSizeBytes`).
const MESSAGE_BYTES_MAX: usize = 5 * 1024;
/// The longest value of an audit annotation.
const ANNOTATION_BYTES_MAX: usize = 10 * 1024;
/// The most failures in one audit annotation.
const FAILURES_MAX: usize = 50;

/// A refusal.
struct Denial {
    message: String,
    reason: String,
    /// It is an error, and the policy's failures do not matter.
    ignored: bool,
    /// How long it took to find.
    took: Duration,
}

/// What a policy says of a request with one set of parameters.
#[derive(Default)]
struct Verdict {
    /// By validation; `None` is consent.
    decisions: Vec<Option<Denial>>,
    /// Refusals that no action of the binding changes.
    errors: Vec<String>,
    annotations: Vec<(String, String)>,
}

/// What all policies say.
#[derive(Default)]
struct Collected {
    denied: Vec<(String, Option<String>, Denial)>,
    failures: Vec<Tree>,
}

impl Collected {
    /// The policy or its binding cannot be asked (`addConfigError`).
    fn unusable(&mut self, policy: &Policy, binding: Option<&Binding>, why: &str) {
        if policy.ignore_failure {
            return;
        }
        let what = if binding.is_some() { "binding" } else { "policy" };
        let message = format!("failed to configure {what}: {why}");
        let denial = Denial { message, reason: String::new(), ignored: false, took: Duration::ZERO };
        self.denied.push((policy.name.clone(), binding.map(|binding| binding.name.clone()), denial));
    }
}

/// Asks all policies.
pub(crate) async fn validate(
    policies: &[(std::sync::Arc<Policy>, Vec<std::sync::Arc<Binding>>)],
    request: &Request<'_>,
    objects: &Objects<'_>,
    counts: &Counts,
) -> Result<(), Status> {
    let mut all = Collected::default();
    for (policy, bindings) in policies {
        let found = match invocation(&policy.matching, request, objects) {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            Err(why) => {
                all.unusable(policy, None, &why);
                continue;
            }
        };
        let kind = match param_kind(policy, request) {
            Ok(kind) => kind,
            Err(why) => {
                all.unusable(policy, None, &why);
                continue;
            }
        };
        let mut annotations: Vec<(String, Vec<String>)> = Vec::new();
        for binding in bindings {
            let fits =
                binding.matching.as_ref().map_or(Ok(true), |of| invocation(of, request, objects).map(|i| i.is_some()));
            let collected = match fits {
                Ok(true) => params(kind.as_ref(), binding, request).await,
                Ok(false) => continue,
                Err(why) => Err(why),
            };
            let shown = match collected {
                Ok(params) => documents(request, &found, objects)
                    .await
                    .map(|documents| (params, documents))
                    .map_err(|why| format!("failed to convert object version: {why}")),
                Err(why) => Err(why),
            };
            let (params, documents) = match shown {
                Ok(shown) => shown,
                Err(why) => {
                    all.unusable(policy, Some(binding), &why);
                    continue;
                }
            };
            for param in &params {
                let verdict = judge(policy, &documents, param.as_ref(), request);
                count(policy, binding, &verdict, counts);
                heed(policy, binding, verdict, request, &mut all, &mut annotations);
            }
        }
        for (key, values) in annotations {
            request.notes.annotate(format!("{}/{key}", policy.name), values.join(", "));
        }
    }
    if !all.failures.is_empty() {
        all.failures.truncate(FAILURES_MAX);
        let text = Tree::List(all.failures).to_string();
        request.notes.annotate("validation.policy.admission.k8s.io/validation_failure", text);
    }
    match all.denied.into_iter().next() {
        Some((policy, binding, denial)) => Err(refusal(request, &policy, binding.as_deref(), denial)),
        None => Ok(()),
    }
}

fn refusal(request: &Request<'_>, policy: &str, binding: Option<&str>, denial: Denial) -> Status {
    let with = binding.map(|binding| format!(" with binding '{binding}'")).unwrap_or_default();
    let message = format!("ValidatingAdmissionPolicy '{policy}'{with} denied request: {}", denial.message);
    let mut status = request.forbidden(&message);
    status.reason = match denial.reason.as_str() {
        "" => Reason::Invalid,
        reason => Reason::parse(reason),
    };
    // `reasonToCode`
    status.code = match denial.reason.as_str() {
        "Forbidden" => 403,
        "Unauthorized" => 401,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    status.causes.push(Cause { reason: String::new(), message, field: String::new() });
    status
}

/// Counts what is not a plain consent.
fn count(policy: &Policy, binding: &Binding, verdict: &Verdict, counts: &Counts) {
    for denial in verdict.decisions.iter().flatten() {
        let error = error_type(&denial.message);
        let actions = binding.actions.iter().map(|action| match action.as_str() {
            "Deny" => "deny",
            "Audit" => "audit",
            _ => "warn",
        });
        match denial.ignored {
            true => counts.add(&policy.name, &binding.name, error, "allow", denial.took),
            false => actions.for_each(|action| counts.add(&policy.name, &binding.name, error, action, denial.took)),
        }
    }
    for message in &verdict.errors {
        counts.add(&policy.name, &binding.name, error_type(message), "deny", Duration::ZERO);
    }
}

/// Does what the binding's actions say.
fn heed(
    policy: &Policy,
    binding: &Binding,
    verdict: Verdict,
    request: &Request<'_>,
    all: &mut Collected,
    annotations: &mut Vec<(String, Vec<String>)>,
) {
    for (index, denial) in verdict.decisions.into_iter().enumerate() {
        let Some(denial) = denial.filter(|denial| !denial.ignored) else { continue };
        for action in &binding.actions {
            match action.as_str() {
                "Deny" => {
                    let (message, reason) = (denial.message.clone(), denial.reason.clone());
                    let denial = Denial { message, reason, ignored: false, took: denial.took };
                    all.denied.push((policy.name.clone(), Some(binding.name.clone()), denial));
                }
                "Audit" => all.failures.push(tree!({
                    "message": (denial.message.as_str()), "policy": (binding.policy.as_str()), "binding": (binding.name.as_str()),
                    "expressionIndex": (index as i64), "validationActions": (binding.actions.clone())
                })),
                _ => request.notes.warn(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                    policy.name, binding.name, denial.message
                )),
            }
        }
    }
    for message in verdict.errors {
        let denial = Denial { message, reason: String::new(), ignored: false, took: Duration::ZERO };
        all.denied.push((policy.name.clone(), Some(binding.name.clone()), denial));
    }
    for (key, value) in verdict.annotations {
        match annotations.iter_mut().find(|(have, _)| *have == key) {
            Some((_, values)) if values.contains(&value) => {}
            Some((_, values)) => values.push(value),
            None => annotations.push((key, vec![value])),
        }
    }
}

/// What the policy says (`validator.Validate`).
fn judge(policy: &Policy, documents: &Documents, params: Option<&Tree>, request: &Request<'_>) -> Verdict {
    let failed =
        |message: String, took| Some(Denial { message, reason: String::new(), ignored: policy.ignore_failure, took });
    match conditions_hold(&policy.conditions, documents, params, request) {
        Ok(true) => {}
        Ok(false) => return Verdict::default(),
        // With failurePolicy Ignore a condition that cannot be decided counts as not met.
        Err(why) => return Verdict { decisions: vec![failed(why, Duration::ZERO)], ..Verdict::default() },
    }
    let asker = Asking { request };
    let input = Input::new(documents, params, &asker, &policy.variables);
    let mut budget = COST_BUDGET;
    let mut answers = Vec::with_capacity(policy.validations.len());
    for validation in &policy.validations {
        let begun = Instant::now();
        match validation.expression.evaluate(&input, &mut budget) {
            Ok(answer) => answers.push((answer, begun.elapsed())),
            Err(why) => {
                return Verdict { decisions: vec![failed(why, begun.elapsed())], ..Verdict::default() };
            }
        }
    }
    let messages = messages(policy, &input, budget);
    let mut verdict = Verdict::default();
    for (index, (validation, (answer, took))) in policy.validations.iter().zip(answers).enumerate() {
        verdict.decisions.push(match (answer, &messages) {
            (Err(why), _) => failed(why, took),
            (Ok(_), Err(why)) => failed(format!("failed messageExpression: {why}"), took),
            (Ok(value), Ok(_)) if value.as_bool() == Some(true) => None,
            (Ok(_), Ok(messages)) => {
                let reason = if validation.reason.is_empty() { "Invalid" } else { &validation.reason };
                let message = message(validation, messages[index].as_deref());
                Some(Denial { message, reason: reason.to_owned(), ignored: false, took })
            }
        });
    }
    annotate(policy, &input, &mut verdict);
    verdict
}

/// The texts of the messageExpressions that have one; an error if their budget is spent.
fn messages(policy: &Policy, input: &Input<'_>, mut budget: u64) -> Result<Vec<Option<String>>, String> {
    let mut out = Vec::with_capacity(policy.validations.len());
    for validation in &policy.validations {
        let text = match &validation.message_expression {
            Some(expression) => {
                expression.evaluate(input, &mut budget)?.ok().and_then(|value| value.as_str().map(str::to_owned))
            }
            None => None,
        };
        out.push(text);
    }
    Ok(out)
}

fn message(validation: &Validation, evaluated: Option<&str>) -> String {
    let usable = |text: &&str| !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n');
    if let Some(text) = evaluated.map(str::trim).filter(usable) {
        return text.to_owned();
    }
    match validation.message.trim() {
        "" => format!("failed expression: {}", validation.expression.source.trim()),
        text => text.to_owned(),
    }
}

fn annotate(policy: &Policy, input: &Input<'_>, verdict: &mut Verdict) {
    let mut budget = COST_BUDGET;
    for (key, expression) in &policy.annotations {
        match expression.evaluate(input, &mut budget) {
            Ok(Ok(value)) => {
                let text = value.as_str().map(str::trim).unwrap_or_default();
                if !text.is_empty() {
                    let end = (0..=ANNOTATION_BYTES_MAX).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
                    verdict.annotations.push((key.clone(), text[..end].to_owned()));
                }
            }
            Ok(Err(why)) | Err(why) if !policy.ignore_failure => verdict.errors.push(why),
            _ => {}
        }
    }
}
