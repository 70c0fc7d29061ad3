//! What FlowSchemas and PriorityLevelConfigurations of certain names must say: without them the server would not know what to
//! do with a request (`apiserver/pkg/apis/flowcontrol/bootstrap/default.go`, `pkg/apis/flowcontrol/validation/validation.go`).

use corten_tree::{Tree, tree};

use crate::Errors;
use crate::validate::Spot;

/// The level and the schema of who is never limited.
pub const EXEMPT: &str = "exempt";
/// The level and the schema of what nothing else matches.
pub const CATCH_ALL: &str = "catch-all";

/// The spec that the FlowSchema of a name must have.
pub fn schema_spec(name: &str) -> Option<Tree> {
    let (precedence, method, groups): (i64, &str, &[&str]) = match name {
        EXEMPT => (1, "", &["system:masters"]),
        CATCH_ALL => (10_000, "ByUser", &["system:unauthenticated", "system:authenticated"]),
        _ => return None,
    };
    let subjects: Vec<Tree> = groups.iter().map(|name| tree!({"kind": "Group", "group": {"name": (*name)}})).collect();
    let mut spec = tree!({"priorityLevelConfiguration": {"name": name}, "matchingPrecedence": precedence});
    if !method.is_empty() {
        spec.insert("distinguisherMethod", tree!({"type": method}));
    }
    let rule = tree!({"subjects": subjects,
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]});
    spec.insert("rules", tree!([rule]));
    Some(spec)
}

/// The spec that the PriorityLevelConfiguration of a name must have; the seats of who is never limited are the administrator's to
/// choose.
pub fn level_spec(name: &str) -> Option<Tree> {
    match name {
        EXEMPT => Some(tree!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}})),
        CATCH_ALL => Some(tree!({"type": "Limited",
            "limited": {"nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}, "lendablePercent": 0}})),
        _ => None,
    }
}

/// `ValidateFlowSchema`
pub(super) fn validate_schema(schema: &Tree, errors: &mut Errors) {
    let (spec, name) = (Spot::of(schema, "spec"), schema.str_at("metadata.name"));
    if schema_spec(name).is_some_and(|fixed| !fixed.semantically_equal(spec.tree)) {
        spec.invalid("", format!("spec of '{name}' must equal the fixed value"), errors);
    }
}

/// `ValidateIfMandatoryPriorityLevelConfigurationObject`
pub(super) fn validate_level(level: &Tree, errors: &mut Errors) {
    let (spec, name) = (Spot::of(level, "spec"), level.str_at("metadata.name"));
    let Some(mut fixed) = level_spec(name) else { return };
    let mut but = "";
    if name == EXEMPT {
        but = "except the 'spec.exempt' field ";
        fixed.insert("exempt", spec.tree.get("exempt").cloned().unwrap_or_default());
    }
    if !fixed.semantically_equal(spec.tree) {
        spec.invalid("", format!("spec of '{name}' {but}must equal the fixed value"), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(validate: fn(&Tree, &mut Errors), name: &str, spec: Tree) -> Vec<String> {
        let mut errors = Errors::default();
        validate(&tree!({"metadata": {"name": name}, "spec": spec}), &mut errors);
        errors.iter().map(|error| error.body.rsplit_once(": ").unwrap().1.to_owned()).collect()
    }

    #[test]
    fn mandatory_flow_schemas_and_priority_levels_cannot_be_changed() {
        for name in [EXEMPT, CATCH_ALL] {
            assert!(faults(validate_schema, name, schema_spec(name).unwrap()).is_empty());
            assert!(faults(validate_level, name, level_spec(name).unwrap()).is_empty());
            let mut changed = schema_spec(name).unwrap();
            changed.set("matchingPrecedence", 7);
            let fault = format!("spec of '{name}' must equal the fixed value");
            assert_eq!(faults(validate_schema, name, changed.clone()), [fault]);
            assert!(faults(validate_schema, "another", changed).is_empty());
        }
        let mut changed = level_spec(CATCH_ALL).unwrap();
        changed.set("limited.nominalConcurrencyShares", 7);
        assert_eq!(faults(validate_level, CATCH_ALL, changed), ["spec of 'catch-all' must equal the fixed value"]);
        let mut changed = level_spec(EXEMPT).unwrap();
        changed.set("exempt.nominalConcurrencyShares", 7);
        assert!(faults(validate_level, EXEMPT, changed.clone()).is_empty());
        changed.set("type", "Limited");
        let fault = "spec of 'exempt' except the 'spec.exempt' field must equal the fixed value";
        assert_eq!(faults(validate_level, EXEMPT, changed), [fault]);
    }
}
