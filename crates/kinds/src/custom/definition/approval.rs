//! Groups of the community: definitions in them must say where they were approved (`apihelpers/helpers.go`).

use corten_tree::Tree;

use crate::Errors;
use crate::validate::Spot;

const ANNOTATION: &str = "api-approved.kubernetes.io";
const WHY: &str = "see https://github.com/kubernetes/enhancements/pull/1111";

/// What a definition says of its approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Whether it says that it was approved.
    pub approved: bool,
    /// One word for a condition.
    pub reason: &'static str,
    /// A sentence for a condition.
    pub message: String,
}

/// Whether a group belongs to the community.
pub fn is_protected_group(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|root| group.strip_suffix(root).is_some_and(|before| before.is_empty() || before.ends_with('.')))
}

/// What a definition says of its approval; `None` if its group needs none.
pub fn approval(definition: &Tree) -> Option<Approval> {
    if !is_protected_group(definition.str_at("spec.group")) {
        return None;
    }
    let text = definition.at(&["metadata", "annotations", ANNOTATION]).and_then(Tree::as_str).unwrap_or_default();
    let url = text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty()
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric())
            && !rest.is_empty()
            && !rest.starts_with('/')
    });
    let (approved, reason, message) = if text.is_empty() {
        let message = format!("protected groups must have approval annotation {ANNOTATION:?}, {WHY}");
        (false, "MissingAnnotation", message)
    } else if text.starts_with("unapproved") {
        (false, "UnapprovedAnnotation", format!("not approved: {text:?}"))
    } else if url {
        (true, "ApprovedAnnotation", format!("approved in {text}"))
    } else {
        let message = format!(
            "protected groups must have approval annotation {ANNOTATION:?} with either a URL or a reason starting with \
             \"unapproved\", {WHY}"
        );
        (false, "InvalidAnnotation", message)
    };
    Some(Approval { approved, reason, message })
}

pub(super) fn validate(new: &Tree, old: Option<&Tree>, errors: &mut Errors) {
    let Some(found) = approval(new) else { return };
    if old.and_then(approval).is_some_and(|before| before.reason == found.reason) {
        return;
    }
    let annotations = Spot::of(new, "metadata.annotations");
    let spot = Spot::at(annotations.tree.get(ANNOTATION).unwrap_or(&Tree::Null), annotations.path.key(ANNOTATION));
    match found.reason {
        "MissingAnnotation" => spot.required("", found.message, errors),
        "InvalidAnnotation" => spot.invalid("", found.message, errors),
        _ => {}
    }
}
