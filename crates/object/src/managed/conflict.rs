//! Conflicts: fields of others that an apply would change, and how a client is told.
//!
//! Words: `apimachinery/pkg/util/managedfields/internal/conflict.go`.

use super::entries::Owner;
use super::set::Set;
use crate::status::{Cause, CauseKind, Reason, Status, quoted};

/// The fields of one manager that are in conflict.
#[derive(Debug, Clone)]
pub struct Conflict<'a> {
    pub(super) owner: Owner<'a>,
    pub(super) fields: Set<'a>,
}

/// 409 with a message and causes that name managers and fields.
pub(super) fn status(mut conflicts: Vec<Conflict<'_>>) -> Status {
    conflicts.sort_by_cached_key(|conflict| conflict.owner.identifier());
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    for conflict in &conflicts {
        let who = shown(&conflict.owner);
        lines.push(format!("conflicts with {who}:"));
        for path in conflict.fields.paths() {
            lines.push(format!("- {path}"));
            causes.push(Cause {
                reason: CauseKind::FieldManagerConflict.as_str().into(),
                message: format!("conflict with {who}"),
                field: path,
            });
        }
    }
    let message = match causes.as_slice() {
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        many => format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n")),
    };
    Status { causes, ..Status::new(Reason::Conflict, message) }
}

/// `"kubectl-edit" with subresource "status" using apps/v1`
fn shown(owner: &Owner<'_>) -> String {
    let mut text = quoted(&owner.manager);
    if !owner.subresource.is_empty() {
        text.push_str(&format!(" with subresource {}", quoted(&owner.subresource)));
    }
    if !owner.applied {
        text.push_str(&format!(" using {}", owner.api_version));
    }
    text
}
