//! Who hands out rights must have them.
//!
//! Upstream: `pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}/policybased/storage.go`.

use corten_auth::escalation::{confirm_no_escalation, full_authority};
use corten_auth::{Rule, authorizer, group};
use corten_kinds::{Kind, id};
use corten_object::Status;
use corten_tree::Tree;

use super::Request;
use crate::core::{Core, attributes};

impl Core {
    /// Refuses a role with rules, or a binding to a role with rules, that the user does not have.
    pub(super) fn check_escalation(
        &self,
        request: &Request<'_>,
        stored: &Kind,
        new: &Tree,
        old: Option<&Tree>,
    ) -> Result<(), Status> {
        let role = [id::ROLE, id::CLUSTER_ROLE].contains(&stored.id);
        let binding = [id::ROLE_BINDING, id::CLUSTER_ROLE_BINDING].contains(&stored.id);
        if !(role || binding) || request.user.in_group(group::MASTERS) {
            return Ok(());
        }
        let name = new.str_at("metadata.name");
        if old.is_some_and(|old| only_collection_changes(new, old)) {
            return Ok(());
        }
        let forbidden = |why: String| Status::forbidden(&stored.group, &stored.plural, name, why);
        let (owned, _) = authorizer::rules_for(&self.rbac(), request.user, request.namespace);
        let confirm = |rules: &[Rule]| confirm_no_escalation(request.user, &owned, rules);
        if role {
            let may = attributes(request.user, "escalate", stored, (request.namespace, request.name, ""));
            if self.decide_now(&may).allowed {
                return Ok(());
            }
            confirm(&rules_of(new.get("rules").unwrap_or(&Tree::Null))).map_err(forbidden)?;
            let aggregates = |tree: &Tree| !tree.list_at("aggregationRule.clusterRoleSelectors").is_empty();
            if (aggregates(new) || old.is_some_and(aggregates)) && confirm(&full_authority()).is_err() {
                return Err(forbidden("must have cluster-admin privileges to use the aggregationRule".into()));
            }
            return Ok(());
        }
        let (kind, role_name) = (new.str_at("roleRef.kind"), new.str_at("roleRef.name"));
        let roles = self.registry.get(if kind == "ClusterRole" { id::CLUSTER_ROLE } else { id::ROLE });
        let may = attributes(request.user, "bind", &roles, (request.namespace, role_name, ""));
        if self.decide_now(&may).allowed {
            return Ok(());
        }
        let rbac = self.rbac();
        let rules = rbac.role_rules(kind, request.namespace, role_name);
        let rules = rules.ok_or_else(|| Status::not_found(&roles.group, &roles.plural, role_name))?;
        confirm(rules).map_err(forbidden)
    }
}

/// Whether nothing changes but what the garbage collector changes (`pkg/registry/rbac/helpers.go`, `IsOnlyMutatingGCFields`).
fn only_collection_changes(new: &Tree, old: &Tree) -> bool {
    let without = |tree: &Tree| {
        let mut tree = tree.clone();
        for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
            tree.remove(&format!("metadata.{field}"));
        }
        tree
    };
    without(new).semantically_equal(&without(old))
}

fn rules_of(tree: &Tree) -> Vec<Rule> {
    serde_json::from_slice(&tree.to_json()).unwrap_or_default()
}
