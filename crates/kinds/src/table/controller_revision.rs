//! ControllerRevision.

use corten_object::GroupVersionKind;
use corten_tree::Tree;

use crate::Errors;
use crate::spec::{Hooks, KindSpec};
use crate::validate::Spot;
use crate::{Column, Number, Of, RowContext, column};

/// `apps/v1 ControllerRevision`
pub(crate) const CONTROLLER_REVISION: KindSpec = KindSpec {
    group: "apps",
    kind: "ControllerRevision",
    adopted: true,
    plural: "controllerrevisions",
    columns: &[
        Column::NAME,
        column("Controller", &Of(controller)),
        column("Revision", &Number("revision")),
        Column::AGE,
    ],
    immutable: &["data"],
    served_by: Some("controllers"),
    hooks: Hooks {
        validate: Some(|revision, errors| Spot::of(revision, "revision").non_negative("", errors)),
        validate_create: Some(validate_data),
        ..Hooks::NONE
    },
    ..KindSpec::NAMESPACED
};

/// `statefulset.apps/web`
fn controller(revision: &Tree, _: &RowContext) -> Tree {
    let Some(owner) = revision.list_at("metadata.ownerReferences").iter().find(|o| o.bool_at("controller")) else {
        return Tree::from("<none>");
    };
    let gvk = GroupVersionKind::parse(owner.str_at("apiVersion"), owner.str_at("kind"));
    let kind = if gvk.group.is_empty() { gvk.kind } else { format!("{}.{}", gvk.kind, gvk.group) };
    Tree::from(format!("{}/{}", kind.to_lowercase(), owner.str_at("name")))
}

/// `ValidateControllerRevisionCreate`; what does not change need not be there.
fn validate_data(revision: &Tree, errors: &mut Errors) {
    let root = Spot::at(revision, corten_tree::FieldPath::ROOT);
    let at = |field: &'static str| Spot::of(revision, field);
    match root.child("data").tree {
        Tree::Null => at("data").required("", "data is mandatory", errors),
        Tree::Map(_) => {}
        _ => at("data").required("", "data must be a valid JSON object", errors),
    }
}
