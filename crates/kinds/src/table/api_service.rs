//! APIService.

use corten_tree::Tree;

use crate::defaults;
use crate::spec::{Hooks, KindSpec, Subresource};
use crate::{Column, Of, RowContext, column};

/// `apiregistration.k8s.io/v1 APIService`
pub(crate) const API_SERVICE: KindSpec = KindSpec {
    group: "apiregistration.k8s.io",
    kind: "APIService",
    unconditional_update: false,
    plural: "apiservices",
    categories: &["api-extensions"],
    name_check: crate::validate::names::path_segment,
    subresources: &[Subresource::STATUS],
    columns: &[Column::NAME, column("Service", &Of(service)), column("Available", &Of(available)), Column::AGE],
    hooks: Hooks {
        default: Some(|o| defaults::at(o, "spec.service", |s| defaults::value(s, "port", 443))),
        ..Hooks::NONE
    },
    ..KindSpec::CLUSTER
};

fn service(object: &Tree, _: &RowContext) -> Tree {
    Tree::from(match object.path("spec.service") {
        Some(service) => format!("{}/{}", service.str_at("namespace"), service.str_at("name")),
        None => "Local".to_owned(),
    })
}

/// The Available condition's status, with its reason unless it is True.
fn available(object: &Tree, _: &RowContext) -> Tree {
    let found = object.list_at("status.conditions").iter().find(|c| c.str_at("type") == "Available");
    Tree::from(match found.map(|c| (c.str_at("status"), c.str_at("reason"))) {
        None => "Unknown".to_owned(),
        Some(("True", _)) => "True".to_owned(),
        Some((status, reason)) => format!("{status} ({reason})"),
    })
}
