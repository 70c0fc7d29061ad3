//! The kinds of `admissionregistration.k8s.io`.

use corten_tree::Tree;

use crate::expressions::validate_webhooks;
use crate::spec::{Generation, Hooks, KindSpec, Subresource};
use crate::validate::policy;
use crate::{Column, Count, Of, RowContext, TextOr, column, defaults, print};

const GROUP: &str = "admissionregistration.k8s.io";
const CATEGORIES: &[&str] = &["api-extensions"];

/// What the kinds of this group share.
const ROW: KindSpec = KindSpec {
    group: GROUP,
    categories: CATEGORIES,
    unconditional_update: false,
    generation: Generation::OnChangeOf(&["spec"]),
    served_by: Some("admission"),
    ..KindSpec::CLUSTER
};

/// `admissionregistration.k8s.io/v1 MutatingAdmissionPolicy`
pub(crate) const MUTATING_ADMISSION_POLICY: KindSpec = KindSpec {
    kind: "MutatingAdmissionPolicy",
    plural: "mutatingadmissionpolicies",
    columns: &[
        Column::NAME,
        column("Mutations", &Count("spec.mutations")).integer(),
        column("ParamKind", &Of(param_kind)),
        Column::AGE,
    ],
    hooks: Hooks {
        default: Some(policy_default),
        validate_create: Some(|new, errors| policy::validate_mutating(new, None, errors)),
        validate_update: Some(|new, old, errors| policy::validate_mutating(new, Some(old), errors)),
        ..Hooks::NONE
    },
    ..ROW
};

/// `admissionregistration.k8s.io/v1 MutatingAdmissionPolicyBinding`
pub(crate) const MUTATING_ADMISSION_POLICY_BINDING: KindSpec = KindSpec {
    kind: "MutatingAdmissionPolicyBinding",
    plural: "mutatingadmissionpolicybindings",
    columns: BINDING_COLUMNS,
    hooks: Hooks { default: Some(binding_default), validate: Some(policy::validate_mutating_binding), ..Hooks::NONE },
    ..ROW
};

/// `admissionregistration.k8s.io/v1 MutatingWebhookConfiguration`
pub(crate) const MUTATING_WEBHOOK_CONFIGURATION: KindSpec = KindSpec {
    kind: "MutatingWebhookConfiguration",
    plural: "mutatingwebhookconfigurations",
    generation: Generation::OnChangeOf(&["webhooks"]),
    columns: WEBHOOK_COLUMNS,
    hooks: Hooks {
        default: Some(mutating_default),
        validate: Some(crate::validate::webhook::validate),
        validate_create: Some(|new, errors| validate_webhooks(new, None, errors)),
        validate_update: Some(|new, old, errors| validate_webhooks(new, Some(old), errors)),
        ..Hooks::NONE
    },
    ..ROW
};

/// `admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy`
pub(crate) const VALIDATING_ADMISSION_POLICY: KindSpec = KindSpec {
    kind: "ValidatingAdmissionPolicy",
    plural: "validatingadmissionpolicies",
    subresources: &[Subresource::STATUS_WITHOUT_METADATA],
    columns: &[
        Column::NAME,
        column("Validations", &Count("spec.validations")).integer(),
        column("ParamKind", &Of(param_kind)),
        Column::AGE,
    ],
    hooks: Hooks {
        default: Some(policy_default),
        validate_create: Some(|new, errors| policy::validate_validating(new, None, errors)),
        validate_update: Some(|new, old, errors| policy::validate_validating(new, Some(old), errors)),
        validate_status: Some(|new, _, errors| policy::validate_status(new, errors)),
        ..Hooks::NONE
    },
    ..ROW
};

/// `admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding`
pub(crate) const VALIDATING_ADMISSION_POLICY_BINDING: KindSpec = KindSpec {
    kind: "ValidatingAdmissionPolicyBinding",
    plural: "validatingadmissionpolicybindings",
    columns: BINDING_COLUMNS,
    hooks: Hooks { default: Some(binding_default), validate: Some(policy::validate_validating_binding), ..Hooks::NONE },
    ..ROW
};

/// `admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration`
pub(crate) const VALIDATING_WEBHOOK_CONFIGURATION: KindSpec = KindSpec {
    kind: "ValidatingWebhookConfiguration",
    plural: "validatingwebhookconfigurations",
    generation: Generation::OnChangeOf(&["webhooks"]),
    columns: WEBHOOK_COLUMNS,
    hooks: Hooks {
        default: Some(webhooks_default),
        validate: Some(crate::validate::webhook::validate),
        validate_create: Some(|new, errors| validate_webhooks(new, None, errors)),
        validate_update: Some(|new, old, errors| validate_webhooks(new, Some(old), errors)),
        ..Hooks::NONE
    },
    ..ROW
};

const WEBHOOK_COLUMNS: &[Column] = &[Column::NAME, column("Webhooks", &Count("webhooks")).integer(), Column::AGE];

const BINDING_COLUMNS: &[Column] = &[
    Column::NAME,
    column("PolicyName", &TextOr("spec.policyName", "")),
    column("ParamRef", &Of(param_ref)),
    Column::AGE,
];

fn param_kind(policy: &Tree, _: &RowContext) -> Tree {
    Tree::from(match policy.path("spec.paramKind") {
        Some(kind) => format!("{}/{}", kind.str_at("apiVersion"), kind.str_at("kind")),
        None => "<unset>".to_owned(),
    })
}

fn param_ref(binding: &Tree, _: &RowContext) -> Tree {
    let Some(reference) = binding.path("spec.paramRef") else { return Tree::from("<unset>") };
    match (reference.str_at("namespace"), reference.str_at("name")) {
        (_, "") if reference.path("selector").is_some() => print::selector(reference.path("selector")),
        (_, "") => Tree::from("<unset>"),
        ("", name) => Tree::from(format!("*/{name}")),
        (namespace, name) => Tree::from(format!("{namespace}/{name}")),
    }
}

fn policy_default(policy: &mut Tree) {
    policy.set_default("spec.failurePolicy", "Fail");
    defaults::at(policy, "spec.matchConstraints", match_default);
}

fn binding_default(binding: &mut Tree) {
    defaults::at(binding, "spec.matchResources", match_default);
}

fn match_default(resources: &mut Tree) {
    resources.set_default("matchPolicy", "Equivalent");
    resources.set_default("namespaceSelector", Tree::map());
    resources.set_default("objectSelector", Tree::map());
    for rules in ["resourceRules", "excludeResourceRules"] {
        defaults::each(resources, rules, |rule| defaults::value(rule, "scope", "*"));
    }
}

fn mutating_default(configuration: &mut Tree) {
    webhooks_default(configuration);
    defaults::each(configuration, "webhooks", |webhook| defaults::value(webhook, "reinvocationPolicy", "Never"));
}

fn webhooks_default(configuration: &mut Tree) {
    defaults::each(configuration, "webhooks", |webhook| {
        webhook.set_default("failurePolicy", "Fail");
        webhook.set_default("matchPolicy", "Equivalent");
        webhook.set_default("namespaceSelector", Tree::map());
        webhook.set_default("objectSelector", Tree::map());
        webhook.set_default("timeoutSeconds", 10);
        defaults::each(webhook, "rules", |rule| defaults::value(rule, "scope", "*"));
        defaults::at(webhook, "clientConfig.service", |service| defaults::value(service, "port", 443));
    });
}
