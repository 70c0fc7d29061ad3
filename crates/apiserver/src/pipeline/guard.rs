//! Who hands out rights must have them.
//!
//! Upstream: `pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}/policybased/storage.go`.

use corten_auth::{Rule, group};
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
        let null = Tree::Null;
        let same = |key: &str| {
            let of = |tree: &'_ Tree| tree.get(key).cloned().unwrap_or_default();
            old.is_some_and(|old| of(old).semantically_equal(&of(new)))
        };
        let forbidden = |why: String| Status::forbidden(&stored.group, &stored.plural, name, why);
        if role {
            if same("rules") && same("aggregationRule") {
                return Ok(());
            }
            let may = attributes(request.user, "escalate", stored, (request.namespace, name, ""));
            if self.authorize(&may).is_ok() {
                return Ok(());
            }
            let mut rules = rules_of(new.get("rules").unwrap_or(&null));
            if new.path("aggregationRule").is_some() {
                let any = || vec!["*".to_owned()];
                rules.push(Rule { verbs: any(), api_groups: any(), resources: any(), ..Rule::default() });
                rules.push(Rule { verbs: any(), non_resource_urls: any(), ..Rule::default() });
            }
            return self.check_rules(request, &rules).map_err(forbidden);
        }
        if same("subjects") && same("roleRef") {
            return Ok(());
        }
        let (kind, role_name) = (new.str_at("roleRef.kind"), new.str_at("roleRef.name"));
        let roles = self.registry.get(if kind == "ClusterRole" { id::CLUSTER_ROLE } else { id::ROLE });
        let may = attributes(request.user, "bind", &roles, (request.namespace, role_name, ""));
        if self.authorize(&may).is_ok() {
            return Ok(());
        }
        let rbac = self.rbac();
        let rules = rbac.role_rules(kind, request.namespace, role_name);
        let rules = rules.ok_or_else(|| Status::not_found(&roles.group, &roles.plural, role_name))?;
        self.check_rules(request, rules).map_err(forbidden)
    }

    fn check_rules(&self, request: &Request<'_>, rules: &[Rule]) -> Result<(), String> {
        let rbac = self.rbac();
        let missing = rbac.missing(request.user, request.namespace, rules);
        if missing.is_empty() {
            return Ok(());
        }
        let user = request.user;
        let lines: Vec<String> = missing.iter().map(|rule| shown(rule)).collect();
        Err(format!(
            "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            user.groups,
            lines.join("\n")
        ))
    }
}

fn rules_of(tree: &Tree) -> Vec<Rule> {
    serde_json::from_slice(&tree.to_json()).unwrap_or_default()
}

/// `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}`
fn shown(rule: &Rule) -> String {
    let parts = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let parts = parts.iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| format!("{name}:{list:?}"));
    format!("{{{}}}", parts.collect::<Vec<_>>().join(", "))
}
