//! What policies and bindings say, read and compiled once per change.

use corten_cel::Env;
use corten_kinds::expressions::{Wanted, With, policy_env};
use corten_object::LabelSelector;
use corten_tree::Tree;

use super::expression::{Expression, with_variables};
use crate::hooks::config::Rule;

/// A policy, validating or mutating.
pub(crate) struct Policy {
    pub name: String,
    pub ignore_failure: bool,
    /// apiVersion and kind of the parameters.
    pub param_kind: Option<(String, String)>,
    pub matching: Matching,
    pub conditions: Vec<(String, Expression)>,
    pub variables: Vec<(String, Expression)>,
    pub validations: Vec<Validation>,
    pub annotations: Vec<(String, Expression)>,
    pub mutations: Vec<Mutation>,
    pub reinvoke: bool,
}

/// One rule of a validating policy.
pub(crate) struct Validation {
    pub expression: Expression,
    pub message: String,
    pub message_expression: Option<Expression>,
    pub reason: String,
}

/// One change of a mutating policy.
pub(crate) enum Mutation {
    Apply(Expression),
    JsonPatch(Expression),
}

/// Which requests a policy or a binding is about (`MatchResources`).
pub(crate) struct Matching {
    pub namespaces: Result<LabelSelector, String>,
    pub objects: Result<LabelSelector, String>,
    pub rules: Vec<NamedRule>,
    pub excluded: Vec<NamedRule>,
    pub equivalent: bool,
}

/// A rule that may be about some names only.
pub(crate) struct NamedRule {
    pub names: Vec<String>,
    pub rule: Rule,
}

/// A binding.
pub(crate) struct Binding {
    pub name: String,
    pub policy: String,
    pub params: Option<ParamRef>,
    pub matching: Option<Matching>,
    pub actions: Vec<String>,
}

/// Which parameters a binding takes.
pub(crate) struct ParamRef {
    pub name: String,
    pub namespace: String,
    pub selector: Option<Result<LabelSelector, String>>,
    pub deny_missing: bool,
}

fn texts(list: &[Tree]) -> Vec<String> {
    list.iter().filter_map(Tree::as_str).map(str::to_owned).collect()
}

fn selector(tree: Option<&Tree>) -> Result<LabelSelector, String> {
    match tree {
        None => Ok(LabelSelector::everything()),
        some => LabelSelector::from_tree(some),
    }
}

impl Matching {
    fn read(tree: &Tree) -> Matching {
        let rule = |tree: &Tree| NamedRule { names: texts(tree.list_at("resourceNames")), rule: Rule::read(tree) };
        Matching {
            namespaces: selector(tree.path("namespaceSelector")),
            objects: selector(tree.path("objectSelector")),
            rules: tree.list_at("resourceRules").iter().map(rule).collect(),
            excluded: tree.list_at("excludeResourceRules").iter().map(rule).collect(),
            equivalent: tree.str_at("matchPolicy") != "Exact",
        }
    }
}

impl Binding {
    /// Reads a binding.
    pub fn read(name: &str, tree: &Tree) -> Binding {
        let params = tree.path("spec.paramRef").map(|reference| ParamRef {
            name: reference.str_at("name").to_owned(),
            namespace: reference.str_at("namespace").to_owned(),
            selector: reference.path("selector").map(|tree| LabelSelector::from_tree(Some(tree))),
            deny_missing: reference.str_at("parameterNotFoundAction") == "Deny",
        });
        Binding {
            name: name.to_owned(),
            policy: tree.str_at("spec.policyName").to_owned(),
            params,
            matching: tree.path("spec.matchResources").map(Matching::read),
            actions: texts(tree.list_at("spec.validationActions")),
        }
    }
}

/// The variables of a policy; each may use those before it.
fn variables(spec: &Tree, base: &Env) -> Vec<(String, Expression)> {
    let mut out: Vec<(String, Expression)> = Vec::new();
    for variable in spec.list_at("variables") {
        let env = with_variables(base.clone(), &out);
        let expression = Expression::compile(&env, variable.str_at("expression"), Wanted::Any);
        out.push((variable.str_at("name").to_owned(), expression));
    }
    out
}

impl Policy {
    /// Reads and compiles a policy.
    pub fn read(name: &str, tree: &Tree) -> Policy {
        let spec = tree.path("spec").unwrap_or(&Tree::Null);
        let param_kind =
            spec.path("paramKind").map(|kind| (kind.str_at("apiVersion").to_owned(), kind.str_at("kind").to_owned()));
        let with = With { params: param_kind.is_some(), authorizer: true, patches: spec.path("mutations").is_some() };
        let base = policy_env(true, With { patches: false, ..with });
        let variables = variables(spec, &base);
        let full = with_variables(policy_env(true, with), &variables);
        let plain = with_variables(policy_env(true, With { authorizer: false, ..with }), &variables);
        let compile = |source: &str, wanted: Wanted| Expression::compile(&full, source, wanted);
        let validations = spec.list_at("validations").iter().map(|validation| Validation {
            expression: compile(validation.str_at("expression"), Wanted::Bool),
            message: validation.str_at("message").to_owned(),
            message_expression: Some(validation.str_at("messageExpression"))
                .filter(|source| !source.is_empty())
                .map(|source| Expression::compile(&plain, source, Wanted::Text)),
            reason: validation.str_at("reason").to_owned(),
        });
        let conditions = spec.list_at("matchConditions").iter().map(|condition| {
            (
                condition.str_at("name").to_owned(),
                Expression::compile(&base, condition.str_at("expression"), Wanted::Bool),
            )
        });
        let annotations = spec.list_at("auditAnnotations").iter().map(|annotation| {
            let expression = compile(annotation.str_at("valueExpression"), Wanted::TextOrNull);
            (annotation.str_at("key").to_owned(), expression)
        });
        let mutations = spec.list_at("mutations").iter().map(|mutation| match mutation.str_at("patchType") {
            "JSONPatch" => Mutation::JsonPatch(compile(mutation.str_at("jsonPatch.expression"), Wanted::Patch)),
            _ => Mutation::Apply(compile(mutation.str_at("applyConfiguration.expression"), Wanted::Object)),
        });
        Policy {
            name: name.to_owned(),
            ignore_failure: spec.str_at("failurePolicy") == "Ignore",
            param_kind,
            matching: Matching::read(spec.path("matchConstraints").unwrap_or(&Tree::Null)),
            conditions: conditions.collect(),
            validations: validations.collect(),
            annotations: annotations.collect(),
            mutations: mutations.collect(),
            variables,
            reinvoke: spec.str_at("reinvocationPolicy") == "IfNeeded",
        }
    }
}
