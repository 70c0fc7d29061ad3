//! Who hands out rights must have them.
//!
//! Upstream: `pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}/policybased/storage.go`.

use corten_auth::escalation::{confirm_no_escalation, full_authority};
use corten_auth::{Attributes, Rule, User, authorizer, group};
use corten_kinds::{Kind, id};
use corten_object::{FieldError, GroupVersionKind, KindId, ObjectKey, Status};
use corten_tree::{FieldPath, Tree};

use super::Request;
use crate::core::{Core, attributes};

impl Core {
    /// Refuses a policy or a binding whose parameters the user may not read; asked of what is well formed otherwise.
    /// (`pkg/registry/admissionregistration/*policy*/authz.go`)
    pub(super) fn unreadable_params(
        &self,
        request: &Request<'_>,
        stored: &Kind,
        new: &Tree,
        old: Option<&Tree>,
    ) -> Vec<FieldError> {
        if request.user.in_group(group::MASTERS) {
            return Vec::new();
        }
        let policies = [id::VALIDATING_ADMISSION_POLICY, id::MUTATING_ADMISSION_POLICY];
        let bindings = [id::VALIDATING_ADMISSION_POLICY_BINDING, id::MUTATING_ADMISSION_POLICY_BINDING];
        let (field, why) = if policies.contains(&stored.id) {
            ("spec.paramKind", self.unreadable_kind(request, new, old))
        } else if let Some(at) = bindings.iter().position(|id| *id == stored.id) {
            ("spec.paramRef", self.unreadable_ref(request, new, policies[at]))
        } else {
            return Vec::new();
        };
        why.map(|why| FieldError::forbidden(&FieldPath::of(field), why)).into_iter().collect()
    }

    fn unreadable_kind(&self, request: &Request<'_>, new: &Tree, old: Option<&Tree>) -> Option<String> {
        let wanted = new.path("spec.paramKind").filter(|kind| !kind.is_null())?;
        if old.and_then(|old| old.path("spec.paramKind")).is_some_and(|before| before.semantically_equal(wanted)) {
            return None;
        }
        let of = self.params_of(Some(wanted));
        let attributes = Attributes { name: "*", namespace: "*", ..of.attributes(request.user, "get") };
        let (kind, api_version) = (wanted.str_at("kind"), wanted.str_at("apiVersion"));
        (!self.decide_now(&attributes).allowed).then(|| {
            format!(
                "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={kind}, apiVersion={api_version})",
                go_user(request.user)
            )
        })
    }

    fn unreadable_ref(&self, request: &Request<'_>, new: &Tree, policies: KindId) -> Option<String> {
        let wanted = new.path("spec.paramRef").filter(|of| !of.is_null())?;
        let policy_name = new.str_at("spec.policyName");
        let policy = self.cache.get(&ObjectKey::new(policies, "", policy_name)).map(|object| object.to_tree());
        let of = self.params_of(policy.as_ref().and_then(|policy| policy.path("spec.paramKind")));
        let name = wanted.str_at("name");
        let verb = if name.is_empty() { "list" } else { "get" };
        let namespace = wanted.str_at("namespace");
        let attributes = Attributes { name, namespace, ..of.attributes(request.user, verb) };
        if self.decide_now(&attributes).allowed {
            return None;
        }
        let user = go_user(request.user);
        let all = format!(
            "to determine minimum required permissions and user {user} does not have \"{verb}\" permission for all groups, versions \
             and resources"
        );
        let kind = || {
            let kind = policy.as_ref().and_then(|policy| policy.path("spec.paramKind")).cloned().unwrap_or_default();
            format!("&{{{} {}}}", kind.str_at("apiVersion"), kind.str_at("kind"))
        };
        Some(match (&policy, of.resolved) {
            (None, _) => format!("unable to get policy {policy_name} {all}"),
            (Some(_), false) => format!("unable to resolve paramKind {} {all}", kind()),
            // Upstream swaps the two in its message of mutating policies.
            (Some(_), true) if policies == id::MUTATING_ADMISSION_POLICY => {
                format!("user {verb} does not have \"{user}\" permission on the object referenced by paramRef")
            }
            (Some(_), true) => {
                format!("user {user} does not have \"{verb}\" permission on the object referenced by paramRef")
            }
        })
    }

    /// The resource of a policy's parameters; everything, as far as it is not known.
    fn params_of(&self, kind: Option<&Tree>) -> Params {
        let any = || "*".to_owned();
        let Some(kind) = kind.filter(|kind| !kind.is_null()) else {
            return Params { group: any(), version: any(), resource: any(), resolved: true };
        };
        let gvk = GroupVersionKind::parse(kind.str_at("apiVersion"), kind.str_at("kind"));
        let found = self.registry.gvk(kind.str_at("apiVersion"), kind.str_at("kind"));
        let resource = found.as_ref().map_or_else(any, |kind| kind.plural.to_string());
        Params { group: gvk.group, version: gvk.version, resource, resolved: found.is_some() }
    }

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

/// What the parameters of a policy are, for authorizers.
struct Params {
    group: String,
    version: String,
    resource: String,
    /// Whether it is known as far as the policy says it.
    resolved: bool,
}

impl Params {
    fn attributes<'a>(&'a self, user: &'a User, verb: &'a str) -> Attributes<'a> {
        Attributes {
            group: &self.group,
            version: &self.version,
            resource: &self.resource,
            ..Attributes::resource(user, verb)
        }
    }
}

/// A user as Go's `%v` prints it.
fn go_user(user: &User) -> String {
    let extra: Vec<String> = user.extra.iter().map(|(key, values)| format!("{key}:[{}]", values.join(" "))).collect();
    format!("&{{{} {} [{}] map[{}]}}", user.name, user.uid, user.groups.join(" "), extra.join(" "))
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
