//! May the user do this: the masters may; then whoever is asked in turn (`apiserver/pkg/authorization/union`).

use crate::rbac::{Attributes, Decision, Rbac, Rule};
use crate::{Source, User, group, node};

/// Who may do everything, whoever else is asked.
pub fn is_master(user: &User) -> bool {
    user.in_group(group::MASTERS)
}

/// What the node authorizer says.
pub fn node(source: &dyn Source, a: &Attributes<'_>) -> Decision {
    match a.user.node_name() {
        Some(name) => node::authorize(source, name, a),
        None if a.user.in_group(group::NODES) && a.user.name.starts_with("system:node:") => {
            Decision::no_opinion(format!("unknown node for user {:?}", a.user.name))
        }
        None => Decision::no_opinion(""),
    }
}

/// What authorizers have said so far, each asked after the one before had no opinion.
#[derive(Debug, Default)]
pub struct Union {
    reasons: Vec<String>,
    errors: Vec<String>,
}

impl Union {
    /// Takes the next one's word; the decision, if that is one.
    pub fn heard(&mut self, decision: Decision) -> Option<Decision> {
        self.errors.extend(decision.error.clone());
        if decision.allowed || decision.denied {
            return Some(decision);
        }
        self.reasons.extend(Some(decision.reason).filter(|r| !r.is_empty()));
        None
    }

    /// Nobody is left, and nobody had an opinion.
    pub fn end(self) -> Decision {
        let error = match self.errors.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            many => Some(format!("[{}]", many.join(", "))),
        };
        Decision { reason: self.reasons.join("\n"), error, ..Decision::default() }
    }
}

/// The rules that a user has in a namespace, and what keeps the list from being complete.
pub fn rules_for(rbac: &Rbac, user: &User, namespace: &str) -> (Vec<Rule>, Option<&'static str>) {
    let rules = rbac.rules_for(user, namespace);
    let incomplete = user.node_name().map(|_| "node authorizer does not support user rule resolution");
    (rules, incomplete)
}
