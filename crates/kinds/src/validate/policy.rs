//! ValidatingAdmissionPolicy, MutatingAdmissionPolicy and their bindings: all faults, those of their expressions included.
//! (`pkg/apis/admissionregistration/validation/validation.go`)

use corten_cel::{Env, Type};
use corten_tree::Tree;

use super::labels::validate_selector;
use super::webhook::{rule_with_operations, static_name};
use super::{Spot, conditions, names};
use crate::Errors;
use crate::expressions::{Wanted, With, compile, policy_env, validate_match_conditions, with_variables};

const ANNOTATIONS_MAX: usize = 20;
/// Bytes of an audit annotation's expression.
const ANNOTATION_BYTES_MAX: usize = 5 * 1024;
const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];
const ACTIONS: &[&str] = &["Audit", "Deny", "Warn"];
/// What a mutating policy can be about: nothing is left to change of what goes.
const MUTATED: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];
/// Words of the language that name nothing else (`celReserved`).
const RESERVED: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Finds the faults of a new or changed policy that validates.
pub(crate) fn validate_validating(policy: &Tree, old: Option<&Tree>, errors: &mut Errors) {
    let spec = Spot::of(policy, "spec");
    let stored = Stored::of(old);
    head(&spec, &stored, errors);
    let variables = spec.list("variables");
    let mut scope = Scope::new(&spec, !variables.is_empty(), false);
    scope.variables(&spec, &stored, errors);
    if spec.list("validations").is_empty() && spec.list("auditAnnotations").is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        spec.required("validations", detail, errors);
        spec.required("auditAnnotations", detail, errors);
        static_name(policy, errors);
        return;
    }
    for validation in spec.items("validations") {
        one_validation(&validation, &scope, &stored, errors);
    }
    if spec.list("auditAnnotations").len() > ANNOTATIONS_MAX {
        spec.invalid("auditAnnotations", format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations"), errors);
    }
    let name = policy.str_at("metadata.name");
    let mut seen = Vec::new();
    for annotation in spec.items("auditAnnotations") {
        audit_annotation(&annotation, name, &scope, &stored, errors);
        if seen.contains(&annotation.str("key")) {
            annotation.duplicate("key", errors);
        }
        seen.push(annotation.str("key"));
    }
    static_name(policy, errors);
}

/// Finds the faults of a new or changed policy that mutates.
pub(crate) fn validate_mutating(policy: &Tree, old: Option<&Tree>, errors: &mut Errors) {
    let spec = Spot::of(policy, "spec");
    let stored = Stored::of(old);
    head(&spec, &stored, errors);
    let mut scope = Scope::new(&spec, true, true);
    scope.variables(&spec, &stored, errors);
    if spec.list("mutations").is_empty() {
        spec.required("mutations", "mutations must contain at least one item", errors);
    }
    for mutation in spec.items("mutations") {
        one_mutation(&mutation, &scope, &stored, errors);
    }
    spec.one_of("reinvocationPolicy", &["IfNeeded", "Never"], errors);
    static_name(policy, errors);
}

/// Finds the faults of a binding of a policy that validates.
pub(crate) fn validate_validating_binding(binding: &Tree, errors: &mut Errors) {
    let spec = binding_head(binding, false, errors);
    let actions = spec.items("validationActions");
    let mut seen = Vec::new();
    for action in &actions {
        let text = action.str("");
        if !ACTIONS.contains(&text) {
            action.unsupported("", ACTIONS, errors);
        }
        if seen.contains(&text) {
            action.duplicate("", errors);
        }
        seen.push(text);
    }
    if seen.contains(&"Deny") && seen.contains(&"Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                      response and headers serves no purpose)";
        spec.invalid("validationActions", detail, errors);
    }
    static_name(binding, errors);
}

/// Finds the faults of a binding of a policy that mutates.
pub(crate) fn validate_mutating_binding(binding: &Tree, errors: &mut Errors) {
    binding_head(binding, true, errors);
    static_name(binding, errors);
}

/// Finds the faults of a status (`validateValidatingAdmissionPolicyStatus`).
pub(crate) fn validate_status(policy: &Tree, errors: &mut Errors) {
    let status = Spot::of(policy, "status");
    for warning in status.items("typeChecking.expressionWarnings") {
        if warning.str("warning").is_empty() {
            warning.required("warning", "", errors);
        }
        if warning.str("fieldRef").trim().is_empty() {
            warning.required("fieldRef", "", errors);
        }
    }
    let mut seen = Vec::new();
    for condition in status.items("conditions") {
        let kind = condition.str("type");
        if seen.contains(&kind) {
            condition.duplicate("type", errors);
        }
        seen.push(kind);
        conditions::validate(&condition, errors);
    }
}

/// The expressions of the policy that is replaced: what was accepted once stays acceptable.
#[derive(Default)]
struct Stored<'t> {
    conditions: Vec<&'t str>,
    validations: Vec<&'t str>,
    messages: Vec<&'t str>,
    annotations: Vec<&'t str>,
    configurations: Vec<&'t str>,
    /// The old conditions and kind of parameters, as they are.
    old: Option<&'t Tree>,
}

impl<'t> Stored<'t> {
    fn of(old: Option<&'t Tree>) -> Stored<'t> {
        let Some(old) = old else { return Stored::default() };
        let texts = |list: &str, field: &str| -> Vec<&'t str> {
            old.list_at(list).iter().map(|item| item.str_at(field)).collect()
        };
        Stored {
            conditions: texts("spec.matchConditions", "expression"),
            validations: texts("spec.validations", "expression"),
            messages: texts("spec.validations", "messageExpression"),
            annotations: texts("spec.auditAnnotations", "valueExpression"),
            configurations: texts("spec.mutations", "applyConfiguration.expression"),
            old: Some(old),
        }
    }

    /// Whether nothing has changed that match conditions depend on.
    fn same_conditions(&self, spec: &Spot<'_>) -> bool {
        static NULL: Tree = Tree::Null;
        let Some(old) = self.old else { return false };
        ["paramKind", "matchConditions"].iter().all(|field| {
            let before = old.path(&format!("spec.{field}")).unwrap_or(&NULL);
            spec.tree.get(field).unwrap_or(&NULL).semantically_equal(before)
        })
    }
}

/// What the expressions of a policy may use.
struct Scope {
    params: bool,
    patches: bool,
    /// The variables so far; `None` for a policy that has none, whose expressions do not know the word.
    variables: Option<Vec<(String, Type)>>,
}

impl Scope {
    fn new(spec: &Spot<'_>, composed: bool, patches: bool) -> Scope {
        Scope { params: spec.has("paramKind"), patches, variables: composed.then(Vec::new) }
    }

    fn env(&self, stored: bool, authorizer: bool, patches: bool) -> Env {
        let env = policy_env(stored, With { params: self.params, authorizer, patches });
        match &self.variables {
            Some(variables) => with_variables(env, variables),
            None => env,
        }
    }

    /// Checks the variables, and knows them from then on (`validateVariable`).
    fn variables(&mut self, spec: &Spot<'_>, stored: &Stored<'_>, errors: &mut Errors) {
        for variable in spec.items("variables") {
            let (name, source) = (variable.str("name"), variable.str("expression"));
            if name.trim().is_empty() {
                variable.required("name", "name is not specified", errors);
            } else if !is_identifier(name) {
                variable.invalid("name", "must be a valid CEL identifier", errors);
            }
            if source.trim().is_empty() {
                variable.required("expression", "expression is not specified", errors);
                continue;
            }
            let env = self.env(stored.validations.contains(&source), true, false);
            let ty = match compile(&env, source, Wanted::Any) {
                Ok(program) => program.result_type().clone(),
                Err(why) => {
                    variable.invalid("expression", why, errors);
                    Type::Dyn
                }
            };
            let known = self.variables.get_or_insert_default();
            known.retain(|(before, _)| before != name);
            known.push((name.to_owned(), ty));
        }
    }
}

fn is_identifier(name: &str) -> bool {
    let letter = |c: char| c == '_' || c.is_ascii_alphabetic();
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit()) && !RESERVED.contains(&name)
}

/// What both kinds of policy begin with.
fn head(spec: &Spot<'_>, stored: &Stored<'_>, errors: &mut Errors) {
    match spec.has("failurePolicy") {
        false => spec.required("failurePolicy", "", errors),
        true => spec.optional_one_of("failurePolicy", FAILURE_POLICIES, errors),
    }
    if let Some(kind) = spec.some("paramKind") {
        param_kind(&kind, errors);
    }
    match spec.some("matchConstraints") {
        None => spec.required("matchConstraints", "", errors),
        Some(constraints) => {
            match_resources(&constraints, errors);
            // They say of which types the objects are.
            if constraints.list("resourceRules").is_empty() {
                constraints.required("resourceRules", "", errors);
            }
            if spec.has("mutations") || spec.has("reinvocationPolicy") {
                only_mutated(&constraints, errors);
            }
        }
    }
    if !stored.same_conditions(spec) {
        validate_match_conditions(spec, &stored.conditions, spec.has("paramKind"), errors);
    }
}

/// `validateParamKind`
fn param_kind(at: &Spot<'_>, errors: &mut Errors) {
    let text = at.str("apiVersion");
    let (group, version) = text.split_once('/').unwrap_or(("", text));
    if text.is_empty() {
        at.required("apiVersion", "", errors);
    } else if version.contains('/') {
        at.invalid("apiVersion", format!("unexpected GroupVersion string: {text}"), errors);
    } else {
        let faults = if group.is_empty() { Vec::new() } else { names::dns_subdomain(group) };
        if !faults.is_empty() {
            at.invalid_as("apiVersion", group, faults.join(","), errors);
        }
        let faults = names::dns_1035_label(version);
        if version.is_empty() {
            at.invalid("apiVersion", "version must be specified", errors);
        } else if !faults.is_empty() {
            at.invalid_as("apiVersion", version, faults.join(","), errors);
        }
    }
    let kind = at.str("kind");
    let faults = names::dns_1035_label(&kind.to_lowercase());
    if kind.is_empty() {
        at.required("kind", "", errors);
    } else if !faults.is_empty() {
        let detail = format!("may have mixed case, but should otherwise match: {}", faults.join(","));
        at.invalid("kind", detail, errors);
    }
}

/// `validateMatchResources`
fn match_resources(at: &Spot<'_>, errors: &mut Errors) {
    match at.has("matchPolicy") {
        false => at.required("matchPolicy", "", errors),
        true => at.optional_one_of("matchPolicy", &["Equivalent", "Exact"], errors),
    }
    for field in ["namespaceSelector", "objectSelector"] {
        match at.some(field) {
            None => at.required(field, "", errors),
            Some(selector) => validate_selector(&selector, errors),
        }
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for rule in at.items(field) {
            let mut seen = Vec::new();
            for name in rule.items("resourceNames") {
                name.each("", names::path_segment(name.str("")), errors);
                if seen.contains(&name.str("")) {
                    name.duplicate("", errors);
                }
                seen.push(name.str(""));
            }
            rule_with_operations(&rule, errors);
        }
    }
}

fn only_mutated(at: &Spot<'_>, errors: &mut Errors) {
    for operation in at.items("resourceRules").iter().flat_map(|rule| rule.items("operations")) {
        if !MUTATED.contains(&operation.str("")) {
            // Upstream's path has no indexes.
            let whole = Spot::at(operation.tree, at.path.child("resourceRules").child("operations"));
            whole.unsupported("", MUTATED, errors);
        }
    }
}

/// `validateValidation`
fn one_validation(at: &Spot<'_>, scope: &Scope, stored: &Stored<'_>, errors: &mut Errors) {
    let (expression, message) = (at.str("expression"), at.str("messageExpression"));
    if expression.trim().is_empty() {
        at.required("expression", "expression is not specified", errors);
    } else {
        let env = scope.env(stored.validations.contains(&expression), true, false);
        compiled(at, "expression", &env, expression, Wanted::Bool, errors);
    }
    match (message.is_empty(), message.trim().is_empty()) {
        (true, _) => {}
        (false, true) => at.invalid("messageExpression", "must be non-empty if specified", errors),
        (false, false) => {
            let env = scope.env(stored.messages.contains(&message), false, false);
            compiled(at, "messageExpression", &env, message, Wanted::Text, errors);
        }
    }
    let text = at.str("message");
    if !text.is_empty() && text.trim().is_empty() {
        at.invalid("message", "must be non-empty if specified", errors);
    } else if text.trim().contains(['\n', '\r']) {
        at.invalid("message", "must not contain line breaks", errors);
    }
    at.optional_one_of("reason", REASONS, errors);
}

fn compiled(at: &Spot<'_>, field: &str, env: &Env, source: &str, wanted: Wanted, errors: &mut Errors) {
    if let Err(why) = compile(env, source, wanted) {
        at.invalid_as(field, source, why, errors);
    }
}

/// `validateAuditAnnotation`
fn audit_annotation(at: &Spot<'_>, policy: &str, scope: &Scope, stored: &Stored<'_>, errors: &mut Errors) {
    let (key, source) = (at.str("key"), at.str("valueExpression"));
    match policy {
        "" => at.invalid("key", "requires metadata.name be non-empty", errors),
        _ => {
            let whole = format!("{policy}/{key}");
            for message in names::label_key(&whole) {
                at.invalid_as("key", whole.as_str(), message, errors);
            }
        }
    }
    let trimmed = source.trim();
    if trimmed.is_empty() {
        at.required("valueExpression", "valueExpression is not specified", errors);
    } else if trimmed.len() > ANNOTATION_BYTES_MAX {
        at.required("valueExpression", format!("must not exceed {ANNOTATION_BYTES_MAX} bytes in length"), errors);
    } else {
        let env = scope.env(stored.annotations.contains(&source), true, false);
        if let Err(why) = compile(&env, trimmed, Wanted::TextOrNull) {
            at.invalid("valueExpression", why, errors);
        }
    }
}

/// `validateMutation`
fn one_mutation(at: &Spot<'_>, scope: &Scope, stored: &Stored<'_>, errors: &mut Errors) {
    let (wanted, unwanted, result) = match at.str("patchType") {
        "" => return at.required("patchType", "", errors),
        "JSONPatch" => ("jsonPatch", "applyConfiguration", Wanted::Patch),
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", Wanted::Object),
        _ => return at.unsupported("patchType", &["ApplyConfiguration", "JSONPatch"], errors),
    };
    let kind = at.str("patchType");
    match at.some(wanted) {
        None => at.required(wanted, format!("must be specified when patchType is {kind}"), errors),
        Some(patch) => {
            let source = patch.str("expression").trim();
            if source.is_empty() {
                patch.required("expression", "", errors);
            } else {
                let env = scope.env(stored.configurations.contains(&patch.str("expression")), true, scope.patches);
                compiled(&patch, "expression", &env, source, result, errors);
            }
        }
    }
    if at.has(unwanted) {
        let detail = format!("must not be specified when patchType is {kind}");
        at.invalid_as(unwanted, format!("{{{unwanted}}}"), detail, errors);
    }
}

/// What both kinds of binding have.
fn binding_head<'t>(binding: &'t Tree, mutating: bool, errors: &mut Errors) -> Spot<'t> {
    let spec = Spot::of(binding, "spec");
    match spec.str("policyName") {
        // Of a validating one, the declared validation says so.
        "" if mutating => spec.required("policyName", "", errors),
        "" => {}
        name => spec.each("policyName", names::dns_subdomain(name), errors),
    }
    if let Some(reference) = spec.some("paramRef") {
        param_ref(&reference, errors);
    }
    if let Some(resources) = spec.some("matchResources") {
        match_resources(&resources, errors);
        if mutating {
            only_mutated(&resources, errors);
        }
    }
    spec
}

/// `validateParamRef`
fn param_ref(at: &Spot<'_>, errors: &mut Errors) {
    let (name, selector) = (at.str("name"), at.some("selector"));
    if !name.is_empty() {
        at.each("name", names::path_segment(name), errors);
        if selector.is_some() {
            at.forbidden("name", "name and selector are mutually exclusive", errors);
        }
    }
    if let Some(selector) = &selector {
        validate_selector(selector, errors);
        if !name.is_empty() {
            at.forbidden("selector", "name and selector are mutually exclusive", errors);
        }
    }
    if name.is_empty() && selector.is_none() {
        at.required("", "one of name or selector must be specified", errors);
    }
    at.one_of("parameterNotFoundAction", &["Deny", "Allow"], errors);
}

#[cfg(test)]
mod tests {
    use corten_tree::tree;

    use super::*;

    fn validating(spec: Tree) -> Vec<String> {
        let mut policy = tree!({"metadata": {"name": "p"}, "spec": (spec)});
        policy.set_default("spec.failurePolicy", "Fail");
        policy.set_default(
            "spec.matchConstraints",
            tree!({"matchPolicy": "Exact", "namespaceSelector": {}, "objectSelector": {}, "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]}),
        );
        let mut errors = Errors::new();
        validate_validating(&policy, None, &mut errors);
        errors.iter().map(|e| e.to_string().lines().next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn policy_expressions_are_compiled_with_the_variables_before_them() {
        let found = validating(tree!({
            "variables": [{"name": "a", "expression": "1"}, {"name": "b", "expression": "variables.a + 1"},
                {"name": "c", "expression": "variables.d"}, {"name": "true", "expression": " "}],
            "validations": [{"expression": "variables.b > 0 && authorizer.group('').resource('pods').check('get').allowed()"},
                {"expression": "variables.a", "messageExpression": "authorizer"}, {"expression": "params.x"}]
        }));
        assert_eq!(
            found,
            [
                "spec.variables[2].expression: Invalid value: \"variables.d\": compilation failed: ERROR: <input>:1:10: undefined \
                 field 'd'",
                "spec.variables[3].name: Invalid value: \"true\": must be a valid CEL identifier",
                "spec.variables[3].expression: Required value: expression is not specified",
                "spec.validations[1].expression: Invalid value: \"variables.a\": must evaluate to bool but got int",
                "spec.validations[1].messageExpression: Invalid value: \"authorizer\": compilation failed: ERROR: <input>:1:1: \
                 undeclared reference to 'authorizer' (in container '')",
                "spec.validations[2].expression: Invalid value: \"params.x\": compilation failed: ERROR: <input>:1:1: undeclared \
                 reference to 'params' (in container '')",
            ]
        );
        let plain = validating(tree!({"validations": [{"expression": "variables.a"}]}));
        assert!(plain[0].contains("undeclared reference to 'variables'"), "{plain:?}");
    }

    #[test]
    fn policy_match_conditions_are_checked_again_only_when_they_change() {
        let policy = |conditions: Tree| {
            tree!({"metadata": {"name": "p"}, "spec": {"failurePolicy": "Fail", "matchConditions": conditions,
                "matchConstraints": {"matchPolicy": "Exact", "namespaceSelector": {}, "objectSelector": {}, "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]},
                "validations": [{"expression": "true"}]}})
        };
        let faults = |new: &Tree, old: &Tree| {
            let mut errors = Errors::new();
            validate_validating(new, Some(old), &mut errors);
            errors.len()
        };
        let bad = policy(tree!([{"name": "a", "expression": "nothing"}]));
        assert_eq!((faults(&bad, &bad), faults(&bad, &policy(tree!([])))), (0, 1));
    }
}
