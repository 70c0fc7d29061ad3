//! The kinds of `rbac.authorization.k8s.io`.

use corten_tree::Tree;

use crate::defaults;
use crate::spec::{Hooks, KindSpec};
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
    ..KindSpec::CLUSTER
};

/// `rbac.authorization.k8s.io/v1 ClusterRoleBinding`
pub(crate) const CLUSTER_ROLE_BINDING: KindSpec = KindSpec {
    group: GROUP,
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    create_on_update: true,
    columns: BINDING_COLUMNS,
    hooks: Hooks { default: Some(binding_default), ..Hooks::NONE },
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
    ..KindSpec::NAMESPACED
};

/// `rbac.authorization.k8s.io/v1 RoleBinding`
pub(crate) const ROLE_BINDING: KindSpec = KindSpec {
    group: GROUP,
    kind: "RoleBinding",
    plural: "rolebindings",
    create_on_update: true,
    columns: BINDING_COLUMNS,
    hooks: Hooks { default: Some(binding_default), ..Hooks::NONE },
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
        namespace if kind == "ServiceAccount" && !namespace.is_empty() => format!("{namespace}/{}", s.str_at("name")),
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
