//! The kinds of `rbac.authorization.k8s.io`.

use corten_tree::Tree;

use crate::Errors;
use crate::defaults;
use crate::spec::{Hooks, KindSpec};
use crate::validate::{Spot, labels, names};
use crate::{Column, Of, RowContext, column, wide};

const GROUP: &str = "rbac.authorization.k8s.io";

/// `rbac.authorization.k8s.io/v1 ClusterRole`
pub(crate) const CLUSTER_ROLE: KindSpec = KindSpec {
    group: GROUP,
    kind: "ClusterRole",
    plural: "clusterroles",
    create_on_update: true,
    columns: &[Column::NAME, Column::CREATED_AT],
    served_by: Some("auth"),
    name_check: names::path_segment,
    hooks: Hooks { validate: Some(validate_cluster_role), ..Hooks::NONE },
    ..KindSpec::CLUSTER
};

/// `rbac.authorization.k8s.io/v1 ClusterRoleBinding`
pub(crate) const CLUSTER_ROLE_BINDING: KindSpec = KindSpec {
    group: GROUP,
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    create_on_update: true,
    columns: BINDING_COLUMNS,
    name_check: names::path_segment,
    immutable: &["roleRef"],
    hooks: Hooks { default: Some(binding_default), validate: Some(validate_cluster_binding), ..Hooks::NONE },
    served_by: Some("auth"),
    ..KindSpec::CLUSTER
};

/// `rbac.authorization.k8s.io/v1 Role`
pub(crate) const ROLE: KindSpec = KindSpec {
    group: GROUP,
    kind: "Role",
    plural: "roles",
    create_on_update: true,
    columns: &[Column::NAME, Column::CREATED_AT],
    served_by: Some("auth"),
    name_check: names::path_segment,
    hooks: Hooks { validate: Some(validate_role), ..Hooks::NONE },
    ..KindSpec::NAMESPACED
};

/// `rbac.authorization.k8s.io/v1 RoleBinding`
pub(crate) const ROLE_BINDING: KindSpec = KindSpec {
    group: GROUP,
    kind: "RoleBinding",
    plural: "rolebindings",
    create_on_update: true,
    columns: BINDING_COLUMNS,
    name_check: names::path_segment,
    immutable: &["roleRef"],
    hooks: Hooks { default: Some(binding_default), validate: Some(validate_binding), ..Hooks::NONE },
    served_by: Some("auth"),
    ..KindSpec::NAMESPACED
};

const BINDING_COLUMNS: &[Column] = &[
    Column::NAME,
    column("Role", &Of(role)),
    Column::AGE,
    wide("Users", &Of(|o, c| subjects(o, c, "User"))),
    wide("Groups", &Of(|o, c| subjects(o, c, "Group"))),
    wide("ServiceAccounts", &Of(|o, c| subjects(o, c, "ServiceAccount"))),
];

fn role(binding: &Tree, _: &RowContext) -> Tree {
    Tree::from(format!("{}/{}", binding.str_at("roleRef.kind"), binding.str_at("roleRef.name")))
}

fn subjects(binding: &Tree, _: &RowContext, kind: &str) -> Tree {
    let of_kind = binding.list_at("subjects").iter().filter(|s| s.str_at("kind") == kind);
    let names = of_kind.map(|s| match s.str_at("namespace") {
        namespace if kind == "ServiceAccount" => format!("{namespace}/{}", s.str_at("name")),
        _ => s.str_at("name").to_owned(),
    });
    Tree::from(names.collect::<Vec<_>>().join(", "))
}

/// The API groups that bindings leave out.
fn binding_default(binding: &mut Tree) {
    defaults::text(binding, "roleRef.apiGroup", GROUP);
    defaults::each(binding, "subjects", |subject| {
        if matches!(subject.str_at("kind"), "User" | "Group") {
            defaults::text(subject, "apiGroup", GROUP);
        }
    });
}

fn validate_role(role: &Tree, errors: &mut Errors) {
    rules(role, true, errors);
}

fn validate_cluster_role(role: &Tree, errors: &mut Errors) {
    rules(role, false, errors);
    if role.path("aggregationRule").is_none() {
        return;
    }
    let aggregation = Spot::of(role, "aggregationRule");
    if aggregation.list("clusterRoleSelectors").is_empty() {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        aggregation.required("clusterRoleSelectors", detail, errors);
    }
    for selector in aggregation.items("clusterRoleSelectors") {
        let before = errors.len();
        labels::validate_selector(&selector, errors);
        if errors.len() > before {
            // Parsing it fails as well.
            selector.invalid_as("", Tree::Null, "invalid label selector.", errors);
        }
    }
}

/// `ValidatePolicyRule`
fn rules(role: &Tree, namespaced: bool, errors: &mut Errors) {
    for rule in Spot::of(role, "rules").items("") {
        if rule.list("verbs").is_empty() {
            rule.required("verbs", "", errors);
        }
        let has = |field| !rule.list(field).is_empty();
        if has("nonResourceURLs") {
            if namespaced {
                let detail = "namespaced rules cannot apply to non-resource URLs";
                rule.invalid("nonResourceURLs", detail, errors);
            }
            if has("apiGroups") || has("resources") || has("resourceNames") {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                rule.invalid("nonResourceURLs", detail, errors);
            }
            continue;
        }
        if !has("apiGroups") {
            rule.required("apiGroups", "resource rules must supply at least one api group", errors);
        }
        if !has("resources") {
            rule.required("resources", "resource rules must supply at least one resource", errors);
        }
    }
}

fn validate_binding(binding: &Tree, errors: &mut Errors) {
    bound(binding, &["Role", "ClusterRole"], true, errors);
}

fn validate_cluster_binding(binding: &Tree, errors: &mut Errors) {
    bound(binding, &["ClusterRole"], false, errors);
}

fn bound(binding: &Tree, kinds: &[&str], namespaced: bool, errors: &mut Errors) {
    let role = Spot::of(binding, "roleRef");
    if role.str("apiGroup") != GROUP {
        role.unsupported("apiGroup", &[GROUP], errors);
    }
    if !kinds.contains(&role.str("kind")) {
        role.unsupported("kind", kinds, errors);
    }
    match role.str("name") {
        "" => role.required("name", "", errors),
        name => role.each("name", names::path_segment(name), errors),
    }
    for subject in Spot::of(binding, "subjects").items("") {
        let (name, group) = (subject.str("name"), subject.str("apiGroup"));
        if name.is_empty() {
            subject.required("name", "", errors);
        }
        match subject.str("kind") {
            "ServiceAccount" => {
                if !name.is_empty() {
                    subject.each("name", names::dns_subdomain(name), errors);
                }
                if !group.is_empty() {
                    subject.unsupported("apiGroup", &[""], errors);
                }
                if !namespaced && subject.str("namespace").is_empty() {
                    subject.required("namespace", "", errors);
                }
            }
            "User" | "Group" => {
                if group != GROUP {
                    subject.unsupported("apiGroup", &[GROUP], errors);
                }
            }
            _ => subject.unsupported("kind", &["ServiceAccount", "User", "Group"], errors),
        }
    }
}
