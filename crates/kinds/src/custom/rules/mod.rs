//! `x-kubernetes-validations`: rules in CEL that come with a schema.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/schema/cel/{compilation,validation}.go`. A schema's rules are compiled once, on the
//! first write that they apply to; what they may cost is decided when the definition is written ([`check`]).

mod check;
mod decl;

use std::sync::Arc;

use corten_cel::{Budget, Decl, Env, Program, Type, Value, Version};
use corten_object::{CauseKind, FieldError};
use corten_schema::ListType;
use corten_schema::structural::{Props, ValidationRule};
use corten_tree::{FieldPath, Tree};

use super::correlate::Correlated;
use super::definition::field_path;
use crate::Errors;
use crate::validate::fault;

pub(super) use check::{CostLimits, check};

/// What all rules of one write may cost (`RuntimeCELCostBudget`).
const WRITE_COST_MAX: i64 = 10_000_000;
/// Bytes of a message that an expression makes.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;

/// The compiled rules of a schema's node and of all below it.
pub(crate) struct Rules {
    own: Vec<Rule>,
    decl: Option<Arc<Decl>>,
    items: Option<Box<Rules>>,
    additional: Option<Box<Rules>>,
    properties: Vec<(String, Rules)>,
}

struct Rule {
    source: ValidationRule,
    program: Result<Program, String>,
    message: Option<Program>,
    uses_old: bool,
    /// Where the fault is shown below the value; empty for the value itself.
    place: String,
}

/// An environment with `self` and `oldSelf` of one type.
fn environment(version: Version, decl: &Decl, optional: bool) -> Env {
    let scoped = decl.named("selfType");
    let old = if optional { Type::Optional(Arc::new(scoped.ty.clone())) } else { scoped.ty.clone() };
    let old = Decl { ty: old, ..scoped.clone() };
    Env::new(version).declared("self", scoped).declared("oldSelf", old)
}

impl Rules {
    /// The rules of a schema; `None` if it has none.
    pub fn compile(root: &Props) -> Option<Rules> {
        Rules::compile_node(root, true)
    }

    /// The rules of a schema's node and below; `object`: it is a whole object.
    pub fn compile_node(props: &Props, object: bool) -> Option<Rules> {
        if !has_rules(props) {
            return None;
        }
        Rules::node(props, decl::declare(props, object || props.embedded).map(Arc::new))
    }

    fn node(props: &Props, decl: Option<Arc<Decl>>) -> Option<Rules> {
        if !has_rules(props) {
            return None;
        }
        let elem = decl.as_ref().and_then(|decl| decl.elem.clone());
        let mut properties = Vec::new();
        for (name, property) in &props.properties {
            let known = decl.as_ref().and_then(|decl| decl::member(decl, name, property));
            if let Some(rules) = known.and_then(|known| Rules::node(property, Some(known))) {
                properties.push((name.clone(), rules));
            }
        }
        Some(Rules {
            own: props.rules.iter().map(|rule| Rule::compile(rule, props, decl.as_deref())).collect(),
            items: props.items.as_deref().and_then(|items| Rules::node(items, elem.clone())).map(Box::new),
            additional: props.additional.schema().and_then(|value| Rules::node(value, elem)).map(Box::new),
            properties,
            decl,
        })
    }
}

fn has_rules(props: &Props) -> bool {
    !props.rules.is_empty()
        || props.properties.iter().any(|(_, property)| has_rules(property))
        || props.items.as_deref().is_some_and(has_rules)
        || props.additional.schema().is_some_and(has_rules)
}

impl Rule {
    fn compile(source: &ValidationRule, props: &Props, decl: Option<&Decl>) -> Rule {
        let optional = source.optional_old_self == Some(true);
        let env = decl.map(|decl| environment(Version::STORED, decl, optional));
        let program = match &env {
            None => Err("failed to convert to declType for CEL validation rules".to_owned()),
            Some(env) => match env.compile(&source.rule) {
                Err(issues) => Err(format!("compilation failed: {issues}")),
                Ok(program) if *program.result_type() != Type::Bool => {
                    Err("cel expression must evaluate to a bool".to_owned())
                }
                Ok(program) => Ok(program),
            },
        };
        let message = env.filter(|_| !source.message_expression.is_empty());
        let message = message.and_then(|env| env.compile(&source.message_expression).ok());
        let place = match field_path(&source.field_path, props, true) {
            Ok((names, _)) if !source.field_path.is_empty() => shown_path(props, &names),
            _ => String::new(),
        };
        let uses_old = program.as_ref().is_ok_and(|program| program.reads("oldSelf"));
        Rule { source: source.clone(), program, message, uses_old, place }
    }

    /// What stands for the rule in messages.
    fn shown(&self) -> &str {
        if self.source.message.is_empty() { self.source.rule.trim() } else { self.source.message.trim() }
    }

    fn message_or_default(&self) -> String {
        match self.source.message.as_str() {
            "" => format!("failed rule: {}", self.shown()),
            message => message.trim().to_owned(),
        }
    }
}

/// A path of names as upstream prints it: members of maps in brackets.
fn shown_path(props: &Props, names: &[String]) -> String {
    let mut at = Some(props);
    let mut path = FieldPath::ROOT;
    for name in names {
        let named = at.is_some_and(|props| !props.properties.is_empty());
        path = if named { path.child(name) } else { path.key(name) };
        at = at.and_then(|props| props.member(name));
    }
    path.to_string()
}

/// What is known of the old value, for what may stay as it was.
#[derive(Clone, Copy, Default)]
struct Ratchet<'r, 'a> {
    current: Option<&'r Correlated<'a>>,
    parent: Option<&'r Correlated<'a>>,
}

impl Ratchet<'_, '_> {
    fn forgives(&self) -> bool {
        self.current.or(self.parent).is_some_and(Correlated::unchanged)
    }
}

/// One run over an object.
struct Run<'e> {
    budget: i64,
    errors: &'e mut Errors,
    /// What a value that has not changed may keep.
    forgiven: Vec<String>,
}

/// Finds the rules that an object breaks. Returns what is said of those that a value breaks which has not changed.
pub(crate) fn validate(
    rules: &Rules,
    props: &Props,
    new: &Tree,
    old: Option<&Tree>,
    at: &FieldPath,
    errors: &mut Errors,
) -> Vec<String> {
    let correlated = old.map(|old| Correlated::new(old, new, Some(props)));
    let ratchet = Ratchet { current: correlated.as_ref(), parent: None };
    let mut run = Run { budget: WRITE_COST_MAX, errors, forgiven: Vec::new() };
    let _ = run.node(rules, props, new, old, ratchet, at);
    run.forgiven
}

/// The budget is gone: nothing more is checked.
struct Exhausted;

impl Run<'_> {
    fn node(
        &mut self,
        rules: &Rules,
        props: &Props,
        value: &Tree,
        old: Option<&Tree>,
        ratchet: Ratchet<'_, '_>,
        at: &FieldPath,
    ) -> Result<(), Exhausted> {
        if value.is_null() {
            return Ok(());
        }
        let old = old.filter(|old| !old.is_null());
        self.own(rules, props, value, old, ratchet, at)?;
        match value {
            Tree::List(items) => {
                let (Some(inner), Some(item)) = (&rules.items, props.items.as_deref()) else { return Ok(()) };
                // Only keyed lists know which item was which; the correlation is made here if nobody else has.
                let made = old.map(|old| Correlated::new(old, value, Some(props)));
                for (i, found) in items.iter().enumerate() {
                    let before =
                        made.as_ref().filter(|_| props.list_type == ListType::Map).and_then(|made| made.item(i));
                    let current = ratchet.current.and_then(|current| current.item(i));
                    let next = below(ratchet, current.as_ref());
                    self.node(inner, item, found, before.map(|before| before.old), next, &at.index(i))?;
                }
            }
            Tree::Map(map) => {
                let old = old.filter(|_| !props.atomic_map);
                for (key, found) in map.iter() {
                    let (inner, member, place) = match rules.properties.iter().find(|(name, _)| name == key) {
                        Some((_, inner)) => (inner, props.property(key), at.child(key)),
                        None => match &rules.additional {
                            Some(inner) => (&**inner, props.additional.schema(), at.key(key)),
                            None => continue,
                        },
                    };
                    let Some(member) = member else { continue };
                    let typed = ratchet.parent.is_none() && matches!(key, "apiVersion" | "kind");
                    let current = ratchet.current.filter(|_| !typed).and_then(|current| current.member(key));
                    let next = if typed { Ratchet::default() } else { below(ratchet, current.as_ref()) };
                    let before = old.and_then(|old| old.get(key));
                    self.node(inner, member, found, before, next, &place)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn own(
        &mut self,
        rules: &Rules,
        props: &Props,
        value: &Tree,
        old: Option<&Tree>,
        ratchet: Ratchet<'_, '_>,
        at: &FieldPath,
    ) -> Result<(), Exhausted> {
        if rules.own.is_empty() {
            return Ok(());
        }
        let ty = Tree::from(props.type_name.as_str());
        if self.budget <= 0 {
            return Err(self.exhausted(at, &ty));
        }
        for rule in &rules.own {
            self.rule(rule, rules.decl.as_deref(), (value, old), ratchet, at, &ty)?;
        }
        Ok(())
    }

    fn exhausted(&mut self, at: &FieldPath, ty: &Tree) -> Exhausted {
        let why = "validation failed due to running out of cost budget, no further validation rules will be run";
        self.errors.push(FieldError::invalid(at, ty, why));
        Exhausted
    }

    fn rule(
        &mut self,
        rule: &Rule,
        decl: Option<&Decl>,
        (value, old): (&Tree, Option<&Tree>),
        ratchet: Ratchet<'_, '_>,
        at: &FieldPath,
        ty: &Tree,
    ) -> Result<(), Exhausted> {
        let (program, decl) = match (&rule.program, decl) {
            (Ok(program), Some(decl)) => (program, decl),
            (Err(why), _) => {
                self.errors.push(FieldError::invalid(at, ty, format!("rule compile error: {why}")));
                return Ok(());
            }
            (Ok(_), None) => return Ok(()),
        };
        let optional = rule.source.optional_old_self == Some(true);
        if rule.uses_old && old.is_none() && !optional {
            return Ok(());
        }
        let outcome = self.eval(program, decl, (value, old), optional);
        let failed = match outcome {
            Err(Failure::Budget) => return Err(self.exhausted(at, ty)),
            Err(Failure::Call(why)) => {
                let shown = rule.shown();
                let why = format!(
                    "'{why}': no further validation rules will be run due to call cost exceeds limit for rule: {shown}"
                );
                self.errors.push(FieldError::invalid(at, ty, why));
                return Err(Exhausted);
            }
            Err(Failure::Other(why)) => {
                let shown = rule.shown();
                let why = match why.starts_with("no such overload") {
                    true => format!(
                        "'{why}': call arguments did not match a supported operator, function or macro signature for rule: {shown}"
                    ),
                    false => format!("{why} evaluating rule: {shown}"),
                };
                self.errors.push(FieldError::invalid(at, ty, why));
                return Ok(());
            }
            Ok(text) => text.is_none_or(|found| found != "true"),
        };
        if !failed {
            return Ok(());
        }
        let place = if rule.place.is_empty() { at.clone() } else { at.child(&rule.place) };
        let forgiven = !rule.uses_old && ratchet.forgives();
        let detail = match self.message(rule, decl, (value, old), optional) {
            Ok(detail) => detail,
            Err(why) => {
                self.found(FieldError::invalid(&place, ty, why), forgiven);
                return Err(Exhausted);
            }
        };
        self.found(fault_for(&rule.source.reason, &place, value, ty, &detail), forgiven);
        Ok(())
    }

    fn found(&mut self, fault: FieldError, forgiven: bool) {
        match forgiven {
            true => self.forgiven.push(fault.to_string()),
            false => self.errors.push(fault),
        }
    }

    /// Evaluates; the result as text (`true`, `false`, or a message), `None` if it is neither.
    fn eval(
        &mut self,
        program: &Program,
        decl: &Decl,
        (value, old): (&Tree, Option<&Tree>),
        optional: bool,
    ) -> Result<Option<String>, Failure> {
        let other = |error: corten_cel::EvalError| Failure::Other(error.message().to_owned());
        let own = Value::declared(value, decl).map_err(other)?;
        let before = old.map(|old| Value::declared(old, decl)).transpose().map_err(other)?;
        let before = match (optional, before) {
            (true, Some(before)) => Value::some(before),
            (true, None) => Value::Optional(None),
            (false, Some(before)) => before,
            (false, None) => Value::Null,
        };
        let mut budget = Budget::new(corten_cel::PER_CALL_LIMIT);
        let vars = [("self", own), ("oldSelf", before)];
        let result = program.eval(&vars, &mut budget);
        self.budget -= i64::try_from(budget.spent()).unwrap_or(i64::MAX).min(self.budget.saturating_add(1));
        if self.budget < 0 {
            return Err(Failure::Budget);
        }
        match result {
            Ok(value) => {
                let shown = value.as_bool().map(|b| b.to_string());
                Ok(shown.or_else(|| value.as_str().map(str::to_owned)))
            }
            Err(error) if error.is_over_budget() => Err(Failure::Call(error.message().to_owned())),
            Err(error) => Err(other(error)),
        }
    }

    /// What is said of a broken rule; an error ends the run.
    fn message(
        &mut self,
        rule: &Rule,
        decl: &Decl,
        values: (&Tree, Option<&Tree>),
        optional: bool,
    ) -> Result<String, String> {
        let Some(program) = &rule.message else { return Ok(rule.message_or_default()) };
        let source = &rule.source.message_expression;
        match self.eval(program, decl, values, optional) {
            Err(Failure::Budget) => {
                Err("messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run".into())
            }
            Err(Failure::Call(_)) => Err(format!(
                "no further validation rules will be run due to call cost exceeds limit for messageExpression: {source:?}"
            )),
            Err(Failure::Other(_)) | Ok(None) => Ok(rule.message_or_default()),
            Ok(Some(text)) => {
                let text = text.trim();
                let fits = !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains(['\n', '\r']);
                Ok(if fits { text.to_owned() } else { rule.message_or_default() })
            }
        }
    }
}

fn below<'r, 'a>(ratchet: Ratchet<'r, 'a>, current: Option<&'r Correlated<'a>>) -> Ratchet<'r, 'a> {
    match ratchet.current {
        None => ratchet,
        Some(parent) => Ratchet { current, parent: Some(parent) },
    }
}

enum Failure {
    /// The write's budget is gone.
    Budget,
    /// One call cost too much.
    Call(String),
    Other(String),
}

/// (`fieldErrorForReason`; a map or a list is not shown)
fn fault_for(reason: &str, at: &FieldPath, value: &Tree, ty: &Tree, detail: &str) -> FieldError {
    let omitted = matches!(ty.as_str(), Some("object" | "array"));
    match (reason, omitted) {
        ("FieldValueForbidden", _) => FieldError::forbidden(at, detail),
        ("FieldValueRequired", _) => FieldError::required(at, detail),
        ("FieldValueDuplicate", true) => fault(at, CauseKind::Duplicate, "Duplicate value"),
        ("FieldValueDuplicate", false) => FieldError::duplicate(at, value),
        (_, true) => fault(at, CauseKind::Invalid, format!("Invalid value: {detail}")),
        (_, false) => FieldError::invalid(at, value, detail),
    }
}
