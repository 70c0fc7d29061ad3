//! What CEL expressions about admission may use, and their validation (`apiserver/pkg/admission/plugin/cel/compile.go`,
//! `validateMatchConditions` in `pkg/apis/admissionregistration/validation/validation.go`).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use corten_cel::{AUTHORIZER, Decl, Env, Field, Format, Object, Program, RESOURCE_CHECK, Type, Version};
use corten_tree::Tree;

use crate::Errors;
use crate::validate::{Spot, names};

/// Most match conditions of one webhook or policy.
const CONDITIONS_MAX: usize = 64;

/// The environment of match conditions, validations and mutations without parameters and variables of their own: `object`,
/// `oldObject`, `request`, `namespaceObject`, `authorizer`. New expressions get less than stored ones.
pub fn admission_env(stored: bool) -> &'static Env {
    static ENVS: LazyLock<[Env; 2]> = LazyLock::new(|| [build(Version::NEW), build(Version::STORED)]);
    &ENVS[usize::from(stored)]
}

/// Which types the result of an expression may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All.
    Any,
    /// `bool`
    Bool,
    /// `string`
    Text,
    /// `string` or `null_type`
    TextOrNull,
    /// `Object`
    Object,
    /// `list(JSONPatch)`
    Patch,
}

impl Wanted {
    fn refusal(self, got: &Type) -> Option<String> {
        let is_object = |ty: &Type, name: &str| matches!(ty, Type::Object(object) if object.name == name);
        let (ok, what) = match self {
            Wanted::Any => (true, ""),
            Wanted::Bool => (*got == Type::Bool, "bool"),
            Wanted::Text => (*got == Type::String, "string"),
            Wanted::TextOrNull => (matches!(got, Type::String | Type::Null), "one of [string null_type]"),
            Wanted::Object => (is_object(got, "Object"), "Object"),
            Wanted::Patch => (matches!(got, Type::List(item) if is_object(item, "JSONPatch")), "list(JSONPatch)"),
        };
        (!ok).then(|| format!("must evaluate to {what} but got {got}"))
    }
}

/// Compiles an expression (`CompileCELExpression`).
///
/// # Errors
/// What is wrong with it, as upstream says it.
pub fn compile(env: &Env, source: &str, wanted: Wanted) -> Result<Program, String> {
    let program = env.compile(source).map_err(|issues| format!("compilation failed: {issues}"))?;
    match wanted.refusal(program.result_type()) {
        None => Ok(program),
        Some(why) => Err(why),
    }
}

/// What an environment of a policy has besides the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct With {
    /// `params`
    pub params: bool,
    /// `authorizer`
    pub authorizer: bool,
    /// `Object{…}` and `JSONPatch{…}`
    pub patches: bool,
}

/// The environment of a policy's expressions, without its variables (`createEnvForOpts`).
pub fn policy_env(stored: bool, with: With) -> Env {
    let mut env = base(if stored { Version::STORED } else { Version::NEW });
    if with.authorizer {
        env = with_authorizer(env);
    }
    if with.params {
        env = env.variable("params", Type::Dyn);
    }
    if with.patches {
        let field = |name: &str, ty: Type| (name.to_owned(), Field { key: name.to_owned(), decl: Decl::simple(ty, 1) });
        let texts = ["op", "path", "from"].map(|name| field(name, Type::String));
        let fields = texts.into_iter().chain([field("value", Type::Dyn)]).collect();
        env = env.object(Object { name: "Object".into(), open: true, ..Object::default() }).object(Object {
            name: "JSONPatch".into(),
            fields,
            open: false,
        });
    }
    env
}

/// The environment with a policy's variables, by name and type (`composition.go`).
pub fn with_variables(env: Env, variables: &[(String, Type)]) -> Env {
    let field =
        |(name, ty): &(String, Type)| (name.clone(), Field { key: name.clone(), decl: Decl::simple(ty.clone(), 0) });
    env.variable("variables", Type::object("kubernetes.variables", variables.iter().map(field).collect()))
}

/// How a Namespace is read as `namespaceObject`.
pub fn namespace_decl() -> &'static Decl {
    static DECL: LazyLock<Decl> = LazyLock::new(|| Decl::simple(namespace_type(), 2));
    &DECL
}

fn build(version: Version) -> Env {
    with_authorizer(base(version))
}

fn base(version: Version) -> Env {
    Env::new(version)
        .variable("object", Type::Dyn)
        .variable("oldObject", Type::Dyn)
        .variable("namespaceObject", namespace_type())
        .variable("request", request_type())
}

fn with_authorizer(env: Env) -> Env {
    env.variable("authorizer", Type::Opaque(AUTHORIZER))
        .variable("authorizer.requestResource", Type::Opaque(RESOURCE_CHECK))
}

fn object(name: &str, fields: &[(&str, Type)]) -> Type {
    let field = |(key, ty): &(&str, Type)| {
        let format = if *ty == Type::Timestamp { Format::DateTime } else { Format::Plain };
        ((*key).to_owned(), Field { key: (*key).to_owned(), decl: Decl { format, ..Decl::simple(ty.clone(), 1) } })
    };
    Type::object(name, fields.iter().map(field).collect::<BTreeMap<String, Field>>())
}

fn strings() -> Type {
    Type::list(Type::String)
}

/// `BuildRequestType`
fn request_type() -> Type {
    let text = || Type::String;
    let kind = object("kubernetes.GroupVersionKind", &[("group", text()), ("version", text()), ("kind", text())]);
    let resource =
        object("kubernetes.GroupVersionResource", &[("group", text()), ("version", text()), ("resource", text())]);
    let user = object(
        "kubernetes.UserInfo",
        &[("username", text()), ("uid", text()), ("groups", strings()), ("extra", Type::map(Type::String, strings()))],
    );
    object(
        "kubernetes.AdmissionRequest",
        &[
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", text()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
}

/// `BuildNamespaceType`
fn namespace_type() -> Type {
    let text = || Type::String;
    let texts = || Type::map(Type::String, Type::String);
    let spec = object("kubernetes.NamespaceSpec", &[("finalizers", strings())]);
    let condition = object(
        "kubernetes.NamespaceCondition",
        &[
            ("status", text()),
            ("type", text()),
            ("lastTransitionTime", Type::Timestamp),
            ("message", text()),
            ("reason", text()),
        ],
    );
    let status = object("kubernetes.NamespaceStatus", &[("conditions", Type::list(condition)), ("phase", text())]);
    let metadata = object(
        "kubernetes.NamespaceMetadata",
        &[
            ("name", text()),
            ("generateName", text()),
            ("namespace", text()),
            ("labels", texts()),
            ("annotations", texts()),
            ("UID", text()),
            ("creationTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionTimestamp", Type::Timestamp),
            ("generation", Type::Int),
            ("resourceVersion", text()),
            ("finalizers", strings()),
        ],
    );
    object("kubernetes.Namespace", &[("metadata", metadata), ("spec", spec), ("status", status)])
}

/// The expressions of all match conditions of a list of webhooks.
fn known(webhooks: &[Tree]) -> Vec<&str> {
    webhooks.iter().flat_map(|w| w.list_at("matchConditions")).map(|c| c.str_at("expression")).collect()
}

/// Finds the faults of the match conditions of webhooks; expressions of the old configuration count as stored.
pub(crate) fn validate_webhooks(new: &Tree, old: Option<&Tree>, errors: &mut Errors) {
    let stored = old.map(|old| known(old.list_at("webhooks"))).unwrap_or_default();
    for webhook in Spot::of(new, "webhooks").items("") {
        validate_match_conditions(&webhook, &stored, false, errors);
    }
}

/// `validateMatchConditions`; `params`: whether they may read parameters.
pub(crate) fn validate_match_conditions(at: &Spot<'_>, stored: &[&str], params: bool, errors: &mut Errors) {
    let conditions = at.items("matchConditions");
    if conditions.len() > CONDITIONS_MAX {
        at.too_many("matchConditions", CONDITIONS_MAX, errors);
    }
    let mut seen = Vec::new();
    for condition in &conditions {
        let (name, expression) = (condition.str("name"), condition.str("expression").trim());
        if expression.is_empty() {
            condition.required("expression", "", errors);
        } else {
            let known = stored.contains(&condition.str("expression"));
            let compiled = match params {
                true => compile(
                    &policy_env(known, With { params, authorizer: true, patches: false }),
                    expression,
                    Wanted::Bool,
                ),
                false => compile(admission_env(known), expression, Wanted::Bool),
            };
            if let Err(why) = compiled {
                condition.invalid_as("expression", expression, why, errors);
            }
        }
        if name.is_empty() {
            condition.required("name", "", errors);
        } else {
            condition.each("name", names::label_key(name), errors);
            if seen.contains(&name) {
                condition.duplicate("name", errors);
            }
            seen.push(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use corten_tree::tree;

    use super::*;

    #[test]
    fn match_conditions_of_webhooks_must_compile_to_bool() {
        let configuration = tree!({"webhooks": [{"name": "w", "matchConditions": [
            {"name": "fine", "expression": "object.metadata.name != 'x' && request.operation == 'CREATE'"},
            {"name": "fine", "expression": "authorizer.group('').resource('pods').check('get').allowed()"},
            {"name": "typed", "expression": "request.kind"},
            {"name": "", "expression": " "},
            {"name": "bad", "expression": "request.nothing == 1"}
        ]}]});
        let mut errors = Errors::new();
        validate_webhooks(&configuration, None, &mut errors);
        let texts: Vec<String> =
            errors.iter().map(|e| e.to_string().lines().next().unwrap_or_default().to_owned()).collect();
        assert_eq!(
            texts,
            [
                "webhooks[0].matchConditions[1].name: Duplicate value: \"fine\"",
                "webhooks[0].matchConditions[2].expression: Invalid value: \"request.kind\": must evaluate to bool but got \
                 kubernetes.GroupVersionKind",
                "webhooks[0].matchConditions[3].expression: Required value",
                "webhooks[0].matchConditions[3].name: Required value",
                "webhooks[0].matchConditions[4].expression: Invalid value: \"request.nothing == 1\": compilation failed: ERROR: \
                 <input>:1:8: undefined field 'nothing'",
            ]
        );
    }
}
