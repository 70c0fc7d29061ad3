//! MutatingAdmissionPolicy (`policy/mutating/dispatcher.go`, `policy/mutating/patch`).

use std::sync::Arc;
use std::time::Instant;

use corten_cel::{StructValue, Type, Value};
use corten_object::{Cause, Reason, Status, managed, patch};
use corten_tree::{Tree, tree};

use super::config::{Binding, Mutation, Policy};
use super::counts::{Counts, error_type};
use super::expression::{COST_BUDGET, Documents, Expression, Input};
use super::matching::{conditions_hold, documents, invocation, param_kind, params};
use crate::Request;
use crate::asking::Asking;
use crate::chain::Round;
use crate::hooks::matching::{Invocation, Objects};

/// A policy that is to be asked, with one set of parameters.
struct Call {
    policy: Arc<Policy>,
    binding: Arc<Binding>,
    invocation: Invocation,
    params: Option<Tree>,
}

/// Why a policy could not do its work; `Invalid` is the reason if it was its expressions.
struct Fault {
    message: String,
    invalid: bool,
}

/// Lets all policies change the object.
pub(crate) async fn mutate(
    policies: &[(Arc<Policy>, Vec<Arc<Binding>>)],
    request: &Request<'_>,
    mut object: Option<&mut Tree>,
    old: Option<&Tree>,
    round: &mut Round,
    counts: &Counts,
) -> Result<(), Status> {
    let mut faults = Vec::new();
    let calls = calls(policies, request, &Objects { object: object.as_deref(), old }, &mut faults).await;
    if calls.is_empty() && faults.is_empty() {
        return Ok(());
    }
    round.policies.begin(round.second, object.as_deref());
    for call in &calls {
        let objects = Objects { object: object.as_deref(), old };
        let internal = Status::internal;
        let shown = documents(request, &call.invocation, &objects).await.map_err(internal)?;
        match conditions_hold(&call.policy.conditions, &shown, call.params.as_ref(), request) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(message) => {
                fault(&mut faults, &call.policy, Some(&call.binding), Fault { message, invalid: true });
                continue;
            }
        }
        let key = key(call);
        if round.second && !round.policies.wants(&key) {
            continue;
        }
        let mut changed = false;
        if let Some(object) = object.as_deref_mut() {
            for mutation in &call.policy.mutations {
                let begun = Instant::now();
                match mutate_one(call, mutation, request, object, old).await {
                    Ok(new) => {
                        counts.add(&call.policy.name, &call.binding.name, "no_error", "", begun.elapsed());
                        changed |= !object.semantically_equal(&new);
                        *object = new;
                    }
                    Err(message) => {
                        counts.add(&call.policy.name, &call.binding.name, error_type(&message), "", begun.elapsed());
                        fault(&mut faults, &call.policy, Some(&call.binding), Fault { message, invalid: true });
                    }
                }
            }
        }
        if changed {
            round.policies.changed();
            round.again = true;
        }
        if call.policy.reinvoke {
            round.policies.asked(&key);
        }
    }
    round.policies.end(object.as_deref());
    refuse(request, faults)
}

fn key(call: &Call) -> String {
    let (policy, binding) = (&call.policy.name, &call.binding.name);
    let params = call.params.as_ref().map_or(("", ""), |p| (p.str_at("metadata.namespace"), p.str_at("metadata.name")));
    format!("{policy}/{binding}/{}/{}", params.0, params.1)
}

/// Notes a fault, unless the policy's failures do not matter.
fn fault(faults: &mut Vec<(String, bool)>, policy: &Policy, binding: Option<&Binding>, fault: Fault) {
    if policy.ignore_failure {
        return;
    }
    let (name, why) = (&policy.name, fault.message);
    let text = match binding {
        Some(binding) => format!("policy '{name}' with binding '{}' denied request: {why}", binding.name),
        None => format!("policy {name:?} denied request: {why}"),
    };
    faults.push((text, fault.invalid));
}

fn refuse(request: &Request<'_>, faults: Vec<(String, bool)>) -> Result<(), Status> {
    let Some((first, invalid)) = faults.first() else { return Ok(()) };
    let mut status = request.forbidden("admission request denied by policy");
    status.message = first.clone();
    if *invalid {
        status.reason = Reason::Invalid;
    }
    let cause = |(message, _): (String, bool)| Cause { reason: String::new(), message, field: String::new() };
    status.causes.extend(faults.into_iter().map(cause));
    Err(status)
}

/// Who is to be asked about a request.
async fn calls(
    policies: &[(Arc<Policy>, Vec<Arc<Binding>>)],
    request: &Request<'_>,
    objects: &Objects<'_>,
    faults: &mut Vec<(String, bool)>,
) -> Vec<Call> {
    let mut out = Vec::new();
    let unusable =
        |what: &str, why: String| Fault { message: format!("failed to configure {what}: {why}"), invalid: false };
    for (policy, bindings) in policies {
        let found = match invocation(&policy.matching, request, objects) {
            Ok(Some(found)) => param_kind(policy, request).map(|kind| (found, kind)),
            Ok(None) => continue,
            Err(why) => Err(why),
        };
        let (found, kind) = match found {
            Ok(found) => found,
            Err(why) => {
                fault(faults, policy, None, unusable("policy", why));
                continue;
            }
        };
        for binding in bindings {
            let fits = match &binding.matching {
                Some(matching) => invocation(matching, request, objects).map(|found| found.is_some()),
                None => Ok(true),
            };
            let collected = match fits {
                Ok(true) => params(kind.as_ref(), binding, request).await,
                Ok(false) => continue,
                Err(why) => Err(why),
            };
            match collected {
                Ok(params) => out.extend(params.into_iter().map(|params| Call {
                    policy: policy.clone(),
                    binding: binding.clone(),
                    invocation: found.clone(),
                    params,
                })),
                Err(why) => fault(faults, policy, Some(binding), unusable("binding", why)),
            }
        }
    }
    out
}

/// The object after one mutation.
async fn mutate_one(
    call: &Call,
    mutation: &Mutation,
    request: &Request<'_>,
    object: &Tree,
    old: Option<&Tree>,
) -> Result<Tree, String> {
    let shown = documents(request, &call.invocation, &Objects { object: Some(object), old }).await?;
    let Some(patched) = patched(call, mutation, request, &shown)? else { return Ok(object.clone()) };
    call.invocation.from_version(request, patched).await.map_err(|status| status.message)
}

/// The object in the policy's version after one mutation; `None` if it stays as it is.
fn patched(call: &Call, mutation: &Mutation, request: &Request<'_>, shown: &Documents) -> Result<Option<Tree>, String> {
    let Some(object) = &shown.object else { return Ok(None) };
    let asker = Asking { request };
    let input = Input::new(shown, call.params.as_ref(), &asker, &call.policy.variables);
    let evaluate = |expression: &Expression| expression.evaluate(&input, &mut { COST_BUDGET })?;
    match mutation {
        Mutation::JsonPatch(expression) => {
            let operations = operations(&evaluate(expression)?)?;
            match patch::json_patch(object.clone(), &operations) {
                Ok(patched) => Ok(Some(patched)),
                // A test that fails is how a policy says that there is nothing to do.
                Err(error) if error.to_string().contains("testing value") => Ok(None),
                Err(error) => Err(format!("JSON Patch: {error}")),
            }
        }
        Mutation::Apply(expression) => {
            let value = evaluate(expression)?;
            let Value::Struct(_) = &value else {
                let ty = value.type_of();
                return Err(format!(
                    "unsupported return type from ApplyConfiguration expression: {}",
                    ty.runtime_name()
                ));
            };
            check_names(&value, "Object")?;
            let mut configuration = value.to_tree().map_err(|error| error.to_string())?;
            let gvk = call.invocation.gvk(request);
            configuration.insert("apiVersion", gvk.api_version());
            configuration.insert("kind", gvk.kind.as_str());
            let (schema, ty) = call.invocation.type_of(request);
            let ty = ty.ok_or("error applying patch: type converter must not be nil")?;
            managed::merge_configuration(schema, ty, object, &configuration)
                .map(Some)
                .map_err(|why| format!("error applying patch: {why}"))
        }
    }
}

/// The operations of a JSON patch (`evaluatePatchExpression`).
fn operations(value: &Value<'_>) -> Result<Vec<Tree>, String> {
    let list = value.as_list().ok_or("type mismatch: JSONPatchType.expression should evaluate to array")?;
    let mut out = Vec::with_capacity(list.len());
    for item in list.items().map_err(|error| error.to_string())? {
        let Value::Struct(of) = &item else {
            return Err("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch".into());
        };
        let field = |name: &str| of.fields.iter().find(|(have, _)| have == name).map(|(_, value)| value);
        let text = |name: &str| field(name).and_then(Value::as_str).unwrap_or_default();
        let mut operation = tree!({"op": (text("op")), "path": (text("path"))});
        if !text("from").is_empty() {
            operation.insert("from", text("from"));
        }
        if let Some(value) = field("value") {
            if let Value::Struct(_) = value {
                let name = value.type_of();
                check_names(value, name.runtime_name())?;
            }
            let why = "JSONPath valueExpression evaluated to a type that could not marshal to JSON";
            operation.insert("value", value.to_tree().map_err(|error| format!("{why}: {error}"))?);
        }
        out.push(operation);
    }
    Ok(out)
}

/// The messages within a message are named after the fields that they are in: `Object.spec` (`CheckTypeNamesMatchFieldPathNames`).
fn check_names(value: &Value<'_>, root: &str) -> Result<(), String> {
    let mut wrong = Vec::new();
    names(value, root, &mut wrong);
    if wrong.is_empty() { Ok(()) } else { Err(format!("type mismatch: {}", wrong.join("\n"))) }
}

fn names(value: &Value<'_>, path: &str, wrong: &mut Vec<String>) {
    if let Value::Struct(of) = value {
        let StructValue { ty, fields } = &**of;
        if let Type::Object(object) = ty
            && object.name != path
        {
            let name = &object.name;
            wrong.push(format!(
                "unexpected type name {name:?}, expected {path:?}, which matches field name path from root Object type"
            ));
        }
        for (field, value) in fields {
            names(value, &format!("{path}.{field}"), wrong);
        }
    } else if let Some(list) = value.as_list() {
        list.items().unwrap_or_default().iter().for_each(|item| names(item, path, wrong));
    } else if let Some(map) = value.as_map() {
        for key in map.keys() {
            if let Ok(Some(value)) = map.find(&key) {
                names(&value, path, wrong);
            }
        }
    }
}
