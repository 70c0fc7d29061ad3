//! The `matchConditions` of a webhook (`matchconditions/matcher.go`, `admission/plugin/cel/{condition,activation}.go`).

use std::sync::Arc;

use corten_cel::{Authz, Budget, PER_CALL_LIMIT, Program, Value};
use corten_kinds::expressions::admission_env;
use corten_object::Status;
use corten_tree::Tree;

use super::config::Hook;
use super::matching::{Invocation, Objects};
use super::review;
use crate::Request;
use crate::asking::Asking;

/// What all conditions of one webhook may cost (`RuntimeCELCostBudgetMatchConditions`).
const BUDGET: u64 = 2_500_000;

/// One condition.
pub(crate) struct Condition {
    expression: String,
    program: Result<Program, String>,
}

impl Condition {
    /// Compiles an expression; what is stored has been compiled before, so a failure is kept for the call.
    pub fn read(expression: &str) -> Condition {
        let program = admission_env(true).compile(expression.trim()).map_err(|issues| issues.to_string());
        Condition { expression: expression.to_owned(), program }
    }
}

/// Whether all conditions hold; the text says why that cannot be decided. One that is false decides, whatever the others are.
pub(crate) async fn hold(
    hook: &Hook,
    invocation: &Invocation,
    request: &Request<'_>,
    objects: &Objects<'_>,
) -> Result<bool, String> {
    let versioned = async |tree: Option<&Tree>| match tree {
        Some(tree) => invocation.to_version(request, tree).await.map(Some),
        None => Ok(None),
    };
    let told = |status: Status| status.message;
    let object = versioned(objects.object).await.map_err(told)?.unwrap_or_default();
    let old = versioned(objects.old).await.map_err(told)?.unwrap_or_default();
    let described = review::described(invocation, request);
    decide(hook, request, &object, &old, &described)
}

fn decide(hook: &Hook, request: &Request<'_>, object: &Tree, old: &Tree, described: &Tree) -> Result<bool, String> {
    let authorizer = Asking { request };
    let own = authorizer.of_request();
    let vars = [
        ("object", Value::of_tree(object)),
        ("oldObject", Value::of_tree(old)),
        ("request", Value::of_tree(described)),
        ("namespaceObject", Value::Null),
        ("authorizer", Value::Authz(Arc::new(Authz::new(&authorizer)))),
        ("authorizer.requestResource", Value::Authz(Arc::new(Authz::of_resource(&authorizer, own)))),
    ];
    let mut errors = Vec::new();
    let mut left = BUDGET;
    for condition in &hook.conditions {
        let program = match &condition.program {
            Ok(program) => program,
            Err(why) => {
                errors.push(format!("compilation error: {why}"));
                continue;
            }
        };
        let mut budget = Budget::new(left.min(PER_CALL_LIMIT));
        let result = program.eval(&vars, &mut budget);
        if budget.spent() > left {
            return Err(
                "validation failed due to running out of cost budget, no further validation rules will be run".into()
            );
        }
        left -= budget.spent();
        match result {
            Ok(value) if value.as_bool() == Some(false) => return Ok(false),
            Ok(_) => {}
            Err(error) => errors.push(format!("expression '{}' resulted in error: {error}", condition.expression)),
        }
    }
    match errors.as_slice() {
        [] => Ok(true),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}
