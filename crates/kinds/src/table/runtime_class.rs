//! RuntimeClass.

use std::collections::HashSet;

use corten_object::FieldError;
use corten_tree::{Tree, tree};

use crate::spec::{Hooks, KindSpec};
use crate::validate::{Spot, affinity, labels, resources};
use crate::{Column, Errors, TextOr, column, defaults};

/// `node.k8s.io/v1 RuntimeClass`
pub(crate) const RUNTIME_CLASS: KindSpec = KindSpec {
    group: "node.k8s.io",
    kind: "RuntimeClass",
    unconditional_update: false,
    plural: "runtimeclasses",
    create_on_update: true,
    columns: &[Column::NAME, column("Handler", &TextOr("handler", "")), Column::AGE],
    hooks: Hooks { default: Some(default), validate_create: Some(validate), ..Hooks::NONE },
    ..KindSpec::CLUSTER
};

fn default(class: &mut Tree) {
    defaults::resource_list(class, "overhead.podFixed");
}

/// `ValidateRuntimeClass`; of a changed class only the handler matters, and that is declared.
fn validate(class: &Tree, errors: &mut Errors) {
    if let Some(overhead) = Spot::of(class, "overhead").some("podFixed") {
        // Upstream checks the overhead as the limits of a container.
        let limits = tree!({"limits": (overhead.tree.clone())});
        let at = Spot::at(&limits, corten_tree::FieldPath::of("overhead"));
        resources::validate_requirements(&at, resources::Names::Container, &HashSet::new(), errors);
    }
    let scheduling = Spot::of(class, "scheduling");
    labels::validate_labels(&scheduling.child("nodeSelector"), errors);
    affinity::validate_tolerations(&scheduling, errors);
    let all = scheduling.items("tolerations");
    for (i, toleration) in all.iter().enumerate() {
        let same = |other: &Spot<'_>| {
            ["key", "operator", "value", "effect"].iter().all(|field| other.str(field) == toleration.str(field))
        };
        if all[..i].iter().any(same) {
            errors.push(FieldError::duplicate(&toleration.path, toleration.tree));
        }
    }
}
