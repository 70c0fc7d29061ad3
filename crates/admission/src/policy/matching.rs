//! Which policies a request meets, and with which parameters (`policy/matching/matching.go`, `policy/generic/policy_dispatcher.go`).

use std::sync::Arc;

use corten_kinds::{Kind, id};
use corten_object::Object;
use corten_tree::Tree;

use super::config::{Binding, Matching, NamedRule, Policy};
use super::expression::{COST_BUDGET_CONDITIONS, Documents, Expression, Input};
use crate::Request;
use crate::asking::Asking;
use crate::hooks::config::Rule;
use crate::hooks::matching::{Invocation, Objects, by_rules, namespace_fits, object_fits};
use crate::hooks::review;

/// How the policy is to see the request; `None` if it is not about it.
pub(crate) fn invocation(
    matching: &Matching,
    request: &Request<'_>,
    objects: &Objects<'_>,
) -> Result<Option<Invocation>, String> {
    let by_namespace = match &matching.namespaces {
        Ok(selector) => namespace_fits(selector, request, objects).map_err(|status| status.message),
        Err(why) => Err(why.clone()),
    };
    if by_namespace == Ok(false) {
        return Ok(None);
    }
    let by_object = matching.objects.as_ref().map(|selector| object_fits(selector, objects)).map_err(Clone::clone);
    if by_object == Ok(false) {
        return Ok(None);
    }
    if by_named_rules(&matching.excluded, matching.equivalent, request).is_some() {
        return Ok(None);
    }
    let found = match matching.rules.is_empty() {
        true => Some(Invocation { kind: request.asked.clone(), version: request.version.to_owned() }),
        false => by_named_rules(&matching.rules, matching.equivalent, request),
    };
    // A fault of the selectors matters only to requests that the rules are about.
    if found.is_some() {
        by_namespace?;
        by_object?;
    }
    Ok(found)
}

fn by_named_rules(rules: &[NamedRule], equivalent: bool, request: &Request<'_>) -> Option<Invocation> {
    let named = |rule: &&NamedRule| rule.names.is_empty() || rule.names.iter().any(|name| name == request.name);
    let rules: Vec<Rule> = rules.iter().filter(named).map(|named| named.rule.clone()).collect();
    by_rules(&rules, equivalent, request)
}

/// The kind of a policy's parameters, and its version.
pub(crate) fn param_kind(policy: &Policy, request: &Request<'_>) -> Result<Option<(Arc<Kind>, String)>, String> {
    let Some((api_version, kind)) = &policy.param_kind else { return Ok(None) };
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let found = request.cluster.registry().gvk(api_version, kind).cloned();
    match found {
        Some(found) => Ok(Some((found, version.to_owned()))),
        None => {
            let gv = if group.is_empty() { format!("/{version}") } else { api_version.clone() };
            Err(format!("failed to find resource referenced by paramKind: '{gv}, Kind={kind}'"))
        }
    }
}

/// The parameters of a binding; one `None` if it takes none (`CollectParams`).
pub(crate) async fn params(
    kind: Option<&(Arc<Kind>, String)>,
    binding: &Binding,
    request: &Request<'_>,
) -> Result<Vec<Option<Tree>>, String> {
    let (Some((kind, version)), Some(reference)) = (kind, &binding.params) else { return Ok(vec![None]) };
    let namespace = match (kind.namespaced(), reference.namespace.as_str()) {
        (false, "") => "",
        (false, _) => return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into()),
        (true, "") if request.namespace.is_empty() => {
            return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into());
        }
        (true, "") => request.namespace,
        (true, namespace) => namespace,
    };
    let stored = kind.stored_as.unwrap_or(kind.id);
    let found: Vec<Arc<Object>> = match (&reference.selector, reference.name.as_str()) {
        (Some(_), name) if !name.is_empty() => {
            return Err("paramRef.name and paramRef.selector are mutually exclusive".into());
        }
        (None, "") => return Err("one of name or selector must be provided".into()),
        (None, name) => request.find(stored, namespace, name).into_iter().collect(),
        (Some(selector), _) => {
            let selector = selector.as_ref().map_err(Clone::clone)?;
            let all = match kind.namespaced() {
                true => request.cluster.objects_in(stored, namespace),
                false => request.cluster.objects(stored),
            };
            all.into_iter().filter(|object| selector.matches(&object.head.labels)).collect()
        }
    };
    if found.is_empty() && reference.deny_missing {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    let mut out = Vec::with_capacity(found.len());
    for object in found {
        let shown = request.cluster.to_version(kind, version, &object.to_tree()).await;
        out.push(Some(shown.map_err(|status| status.message)?));
    }
    Ok(out)
}

/// The namespace of a request as expressions see it; `None` for a Namespace itself.
fn namespace_of(request: &Request<'_>) -> Option<Tree> {
    if request.namespace.is_empty() || request.kind.id == id::NAMESPACE {
        return None;
    }
    request.find(id::NAMESPACE, "", request.namespace).map(|object| object.to_tree())
}

/// What expressions read of a request in the version that matched.
pub(crate) async fn documents(
    request: &Request<'_>,
    invocation: &Invocation,
    objects: &Objects<'_>,
) -> Result<Documents, String> {
    let mut shown = [None, None];
    for (slot, tree) in shown.iter_mut().zip([objects.object, objects.old]) {
        if let Some(tree) = tree {
            *slot = Some(invocation.to_version(request, tree).await.map_err(|status| status.message)?);
        }
    }
    let [object, old] = shown;
    Ok(Documents { object, old, request: review::described(invocation, request), namespace: namespace_of(request) })
}

/// Whether all conditions hold; the text says why that cannot be decided (`webhook/matchconditions/matcher.go`, Match).
pub(crate) fn conditions_hold(
    conditions: &[(String, Expression)],
    documents: &Documents,
    params: Option<&Tree>,
    request: &Request<'_>,
) -> Result<bool, String> {
    let asker = Asking { request };
    let input = Input::of_conditions(documents, params, &asker);
    let mut budget = COST_BUDGET_CONDITIONS;
    let mut failed = Vec::new();
    let mut answers = Vec::with_capacity(conditions.len());
    for (_, condition) in conditions {
        answers.push(condition.evaluate(&input, &mut budget)?);
    }
    for answer in answers {
        match answer {
            Ok(value) if value.as_bool() == Some(false) => return Ok(false),
            Ok(_) => {}
            Err(why) => failed.push(why),
        }
    }
    match failed.len() {
        0 => Ok(true),
        1 => Err(failed.remove(0)),
        _ => Err(format!("[{}]", failed.join(", "))),
    }
}
