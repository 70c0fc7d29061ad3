//! The rules of a definition that is being written: whether they compile, and what they may cost
//! (`apiextensions/validation/{validation,cel_validation}.go`).

use std::collections::HashSet;
use std::sync::Arc;

use corten_cel::{Decl, Program, Type, Version};
use corten_object::FieldError;
use corten_schema::structural::{Additional, Props, Type as SchemaType};
use corten_tree::{FieldPath, Tree, tree};

use super::decl::{REQUEST_BYTES_MAX, count, declare, member};
use super::{ValidationRule, environment, has_rules};
use crate::Errors;

/// What one expression may cost, by estimate.
const EXPRESSION_COST_MAX: u64 = 10_000_000;
/// What all expressions of a schema may cost, by estimate.
const SCHEMA_COST_MAX: u64 = 100_000_000;

/// What an old definition allows.
#[derive(Default)]
pub(in crate::custom) struct CostLimits {
    /// Expressions that the old definition had: they may use all that this server knows.
    pub known: HashSet<String>,
    /// The schema has not changed: no limit for one expression.
    pub unchanged: bool,
}

/// Finds the faults of all rules of a schema.
pub(in crate::custom) fn check(root: &Props, at: &FieldPath, limits: &CostLimits, errors: &mut Errors) {
    if !has_rules(root) {
        return;
    }
    let mut walk = Walk { limits, errors, total: 0, expensive: Vec::new() };
    let place = Place { decl: declare(root, true).map(Arc::new), cardinality: Some(1), uncorrelated: None };
    walk.node(root, at, &place);
    let (total, mut expensive) = (walk.total, walk.expensive);
    if total > SCHEMA_COST_MAX {
        expensive.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        for (_, path) in expensive.iter().take(4) {
            let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            errors.push(FieldError::forbidden(path, why));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.push(FieldError::forbidden(at, too_costly(what, total, SCHEMA_COST_MAX)));
    }
}

#[derive(Clone)]
struct Place {
    decl: Option<Arc<Decl>>,
    /// How often the node may be there; `None`: nobody says.
    cardinality: Option<u64>,
    /// Where the part of the schema begins whose old values are not known.
    uncorrelated: Option<FieldPath>,
}

struct Walk<'c> {
    limits: &'c CostLimits,
    errors: &'c mut Errors,
    total: u64,
    expensive: Vec<(u64, FieldPath)>,
}

impl Walk<'_> {
    fn node(&mut self, props: &Props, at: &FieldPath, place: &Place) {
        let inner = place.cardinality.and_then(|own| elements(props).map(|n| own.saturating_mul(n)));
        let elem = place.decl.as_ref().and_then(|decl| decl.elem.clone());
        let forget = |lost: bool| match (&place.uncorrelated, lost) {
            (Some(path), _) => Some(path.clone()),
            (None, true) => Some(at.clone()),
            (None, false) => None,
        };
        if let Additional::Schema(value) = &props.additional {
            let place = Place { decl: elem.clone(), cardinality: inner, uncorrelated: place.uncorrelated.clone() };
            self.node(value, &at.child("additionalProperties"), &place);
        }
        for (name, property) in &props.properties {
            let decl = place.decl.as_ref().and_then(|decl| member(decl, name, property));
            let place = Place { decl, cardinality: inner, uncorrelated: forget(props.atomic_map) };
            self.node(property, &at.child("properties").key(name), &place);
        }
        if let Some(items) = &props.items {
            let lost = props.list_type != corten_schema::ListType::Map;
            let place = Place { decl: elem, cardinality: inner, uncorrelated: forget(lost) };
            self.node(items, &at.child("items"), &place);
        }
        for (i, rule) in props.rules.iter().enumerate() {
            let at = at.child("x-kubernetes-validations").index(i);
            if let Some(decl) = &place.decl
                && !rule.rule.trim().is_empty()
            {
                self.rule(rule, &at, decl, place);
            }
        }
    }

    fn rule(&mut self, rule: &ValidationRule, at: &FieldPath, decl: &Decl, place: &Place) {
        let optional = rule.optional_old_self == Some(true);
        let env = |source: &str| {
            let version = if self.limits.known.contains(source) { Version::STORED } else { Version::NEW };
            environment(version, decl, optional)
        };
        let shown = tree!({"Rule": (rule.rule.as_str()), "Message": (rule.message.as_str()),
            "MessageExpression": (rule.message_expression.as_str()),
            "Reason": (Some(rule.reason.as_str()).filter(|reason| !reason.is_empty()).map(Tree::from)),
            "FieldPath": (rule.field_path.as_str()), "OptionalOldSelf": (rule.optional_old_self.map(Tree::from))});
        let program = match env(&rule.rule).compile(&rule.rule) {
            Err(issues) => Err(format!("compilation failed: {issues}")),
            Ok(program) if *program.result_type() != Type::Bool => Err("cel expression must evaluate to a bool".into()),
            Ok(program) => Ok(program),
        };
        let compiled = program.is_ok();
        let uses_old = match program {
            Err(why) => {
                let why: String = why;
                self.errors.push(FieldError::invalid(&at.child("rule"), &shown, why));
                false
            }
            Ok(program) => {
                self.cost("estimated rule cost", &program, decl, place.cardinality, &at.child("rule"));
                program.reads("oldSelf")
            }
        };
        if compiled && !rule.message_expression.is_empty() {
            let path = at.child("messageExpression");
            match env(&rule.message_expression).compile(&rule.message_expression) {
                Err(issues) => {
                    let why = format!("messageExpression compilation failed: {issues}");
                    self.errors.push(FieldError::invalid(&path, &shown, why));
                }
                Ok(program) if *program.result_type() != Type::String => {
                    let why = "messageExpression must evaluate to a string";
                    self.errors.push(FieldError::invalid(&path, &shown, why));
                }
                Ok(program) => self.cost("estimated messageExpression cost", &program, decl, Some(1), &path),
            }
        }
        if uses_old {
            if let Some(path) = &place.uncorrelated {
                let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {path}");
                self.errors.push(FieldError::invalid_str(&at.child("rule"), &rule.rule, why));
            }
        } else if let Some(optional) = rule.optional_old_self {
            let why = "may not be set if oldSelf is not used in rule";
            self.errors.push(FieldError::invalid(&at.child("optionalOldSelf"), &Tree::Bool(optional), why));
        }
    }

    fn cost(&mut self, what: &str, program: &Program, decl: &Decl, times: Option<u64>, at: &FieldPath) {
        let most = REQUEST_BYTES_MAX / (decl.min_serialized_size + 1);
        let cost = program.cost_estimate().max.saturating_mul(times.unwrap_or(most));
        if !self.limits.unchanged && cost > EXPRESSION_COST_MAX {
            self.errors.push(FieldError::forbidden(at, too_costly(what, cost, EXPRESSION_COST_MAX)));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= SCHEMA_COST_MAX / 100 {
            self.expensive.push((cost, at.clone()));
        }
    }
}

/// How often what is inside a node may be there for each node.
fn elements(props: &Props) -> Option<u64> {
    match props.ty {
        SchemaType::Object if !matches!(props.additional, Additional::None) => props.max_properties.map(count),
        SchemaType::Array => props.max_items.map(count),
        _ => Some(1),
    }
}

fn too_costly(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let shown = match factor {
        f if f > 100.0 => "more than 100x".to_owned(),
        f if f < 1.5 => format!("{f:.6}x"),
        f => format!("{f:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {shown} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength \
         where arrays, maps, and strings are declared)"
    )
}
