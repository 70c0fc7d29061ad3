//! ValidatingAdmissionPolicies: their expressions are checked against the types that they are about
//! (`pkg/controller/validatingadmissionpolicystatus`, `apiserver/pkg/admission/plugin/policy/validating/typechecking.go`).

use std::collections::BTreeSet;

use corten_cel::{Env, Type};
use corten_kinds::expressions::{With, policy_env};
use corten_kinds::object_types::object_type;
use corten_kinds::{Registry, id};
use corten_tree::{Tree, tree};

use crate::{Action, Controller, Key, Plan, Watch, World};

/// The controller.
pub struct ValidatingPolicyStatus;

/// The most types that one rule is checked against.
const TYPES_MAX: usize = 10;

const WATCHES: &[Watch] = &[Watch::itself(id::VALIDATING_ADMISSION_POLICY)];

impl Controller for ValidatingPolicyStatus {
    fn name(&self) -> &'static str {
        "validatingadmissionpolicy-status"
    }

    fn component(&self) -> &'static str {
        "validatingadmissionpolicy-status-controller"
    }

    fn user(&self) -> String {
        "system:serviceaccount:kube-system:validatingadmissionpolicy-status-controller".into()
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(object) = world.state.get(key) else { return Plan::empty() };
        let policy = object.to_tree();
        let generation = policy.i64_at("metadata.generation").unwrap_or_default();
        if generation <= policy.i64_at("status.observedGeneration").unwrap_or_default() {
            return Plan::empty();
        }
        let warnings = check(policy.path("spec").unwrap_or(&Tree::Null), world.state.registry());
        let checked = if warnings.is_empty() { Tree::map() } else { tree!({"expressionWarnings": (warnings)}) };
        let status = tree!({"observedGeneration": generation, "typeChecking": (checked)});
        Plan::of(vec![Action::patch_status(object, status)])
    }
}

/// A type that a policy is about: its name in warnings, and what is known of it.
type Subject = (String, Type);

/// The types that the rules name without wildcards (`typesToCheck`).
fn subjects(spec: &Tree, registry: &Registry) -> Vec<Subject> {
    let plain = |rule: &Tree, key: &str| -> Option<BTreeSet<String>> {
        let texts: BTreeSet<String> = rule.list_at(key).iter().filter_map(Tree::as_str).map(str::to_owned).collect();
        (!texts.is_empty() && !texts.iter().any(|text| text.contains('*'))).then_some(texts)
    };
    let mut found = BTreeSet::new();
    for rule in spec.list_at("matchConstraints.resourceRules") {
        let (Some(groups), Some(versions)) = (plain(rule, "apiGroups"), plain(rule, "apiVersions")) else { continue };
        let resources = rule.list_at("resources").iter().filter_map(Tree::as_str);
        let resources: BTreeSet<&str> = resources.filter(|text| !text.contains(['*', '/'])).collect();
        let mut count = 0;
        for group in &groups {
            for version in &versions {
                for kind in resources.iter().filter_map(|resource| registry.resource(group, version, resource)) {
                    count += 1;
                    if count <= TYPES_MAX {
                        found.insert((group.clone(), version.clone(), kind.kind.to_string()));
                    }
                }
            }
        }
    }
    let of = |(group, version, kind): (String, String, String)| {
        let ty = object_type(registry.group_kind(&group, &kind)?, &version)?;
        Some((format!("{group}/{version}, Kind={kind}"), ty))
    };
    found.into_iter().filter_map(of).collect()
}

/// All warnings about a policy's validations (`TypeChecker.Check`).
fn check(spec: &Tree, registry: &Registry) -> Vec<Tree> {
    let params = spec.path("paramKind").map(|kind| {
        let (api_version, kind) = (kind.str_at("apiVersion"), kind.str_at("kind"));
        let version = api_version.rsplit('/').next().unwrap_or_default();
        registry.gvk(api_version, kind).and_then(|kind| object_type(kind, version)).unwrap_or(Type::Dyn)
    });
    let with = With { params: params.is_some(), authorizer: true, patches: false };
    let subjects = subjects(spec, registry);
    let environments: Vec<(&str, Env)> = subjects
        .iter()
        .map(|(name, ty)| {
            let mut env = policy_env(true, with).variable("object", ty.clone()).variable("oldObject", ty.clone());
            if let Some(params) = &params {
                env = env.variable("params", params.clone());
            }
            (name.as_str(), with_variables(env, spec))
        })
        .collect();
    let mut out = Vec::new();
    for (index, validation) in spec.list_at("validations").iter().enumerate() {
        for key in ["expression", "messageExpression"] {
            let source = validation.str_at(key);
            if source.is_empty() {
                continue;
            }
            let found: Vec<String> = environments
                .iter()
                .filter_map(|(name, env)| env.compile(source).err().map(|issues| format!("{name}: {issues}\n")))
                .collect();
            if !found.is_empty() {
                let field = format!("spec.validations[{index}].{key}");
                out.push(tree!({"fieldRef": field, "warning": (found.join("\n"))}));
            }
        }
    }
    out
}

/// The environment with the policy's variables; one that does not compile is of any type.
fn with_variables(env: Env, spec: &Tree) -> Env {
    let mut known: Vec<(String, Type)> = Vec::new();
    for variable in spec.list_at("variables") {
        let env = corten_kinds::expressions::with_variables(env.clone(), &known);
        let ty = env.compile(variable.str_at("expression")).map_or(Type::Dyn, |program| program.result_type().clone());
        known.push((variable.str_at("name").to_owned(), ty));
    }
    corten_kinds::expressions::with_variables(env, &known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_expressions_are_checked_against_the_types_of_their_rules() {
        let spec = tree!({
            "matchConstraints": {"resourceRules": [
                {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}
            ]},
            "variables": [{"name": "replicas", "expression": "object.spec.replicas"}],
            "validations": [
                {"expression": "object.spec.replicas > '1'", "messageExpression": "'wants ' + object.spec.replicas"},
                {"expression": "variables.replicas > 1 && has(object.metadata.labels)"},
                {"expression": "variables.replicas == 'x'"}
            ]
        });
        let warnings = check(&spec, &Registry::builtin());
        let shown: Vec<(&str, &str)> = warnings
            .iter()
            .map(|w| (w.str_at("fieldRef"), w.str_at("warning").lines().next().unwrap_or_default()))
            .collect();
        assert_eq!(
            shown,
            [
                (
                    "spec.validations[0].expression",
                    "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'"
                ),
                (
                    "spec.validations[0].messageExpression",
                    "apps/v1, Kind=Deployment: ERROR: <input>:1:10: found no matching overload for '_+_' applied to '(string, int)'"
                ),
                (
                    "spec.validations[2].expression",
                    "apps/v1, Kind=Deployment: ERROR: <input>:1:20: found no matching overload for '_==_' applied to '(int, string)'"
                ),
            ]
        );
        let anything = tree!({
            "matchConstraints": {"resourceRules": [{"apiGroups": ["*"], "apiVersions": ["v1"], "resources": ["pods"]}]},
            "validations": [{"expression": "object.spec.replicas > '1'"}]
        });
        assert!(check(&anything, &Registry::builtin()).is_empty(), "no type is named");
    }
}
