//! May the user do this: the masters may, then the node authorizer is asked, then RBAC
//! (`apiserver/pkg/authorization/union`).

use crate::rbac::{Attributes, Decision, Rbac, Rule};
use crate::{Source, User, escalation, group, node};

/// Asks all authorizers; the first that allows wins, and what the others said is joined.
pub fn authorize(rbac: &Rbac, source: &dyn Source, a: &Attributes<'_>) -> Decision {
    if a.user.in_group(group::MASTERS) {
        return Decision::allow("");
    }
    let mut reasons: Vec<String> = Vec::new();
    if let Some(name) = a.user.node_name() {
        let decision = node::authorize(source, name, a);
        if decision.allowed {
            return decision;
        }
        reasons.push(decision.reason);
    } else if a.user.in_group(group::NODES) && a.user.name.starts_with("system:node:") {
        reasons.push(format!("unknown node for user {:?}", a.user.name));
    }
    let decision = rbac.authorize(a);
    if decision.allowed {
        return decision;
    }
    reasons.push(decision.reason);
    reasons.retain(|r| !r.is_empty());
    Decision::no_opinion(reasons.join("\n"))
}

/// The rules that a user has in a namespace, and what keeps the list from being complete.
pub fn rules_for(rbac: &Rbac, user: &User, namespace: &str) -> (Vec<Rule>, Option<&'static str>) {
    let mut rules = Vec::new();
    if user.in_group(group::MASTERS) {
        rules.extend(escalation::full_authority());
    }
    rules.extend(rbac.rules_for(user, namespace));
    let incomplete = user.node_name().map(|_| "node authorizer does not support user rule resolution");
    (rules, incomplete)
}
