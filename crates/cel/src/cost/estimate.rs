//! What an expression will cost (cel-go's `checker/cost.go`). What a call costs is in `functions`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::functions::{self, CallEstimate};
use super::{CostEstimate, LIST_CREATE, MAP_CREATE, Range, SELECT, STRUCT_CREATE, SizeEstimate};
use crate::ast::{ACCUMULATOR, Comprehension, Expr, ExprKind, Id};
use crate::check::{Checked, Reference};
use crate::decl::Decl;
use crate::types::Type;
use crate::value::Literal;

/// Who knows how large data is.
pub trait SizeEstimator {
    /// The size of what is at a path: a variable's name, then field names, `@items`, `@values`, `@keys`.
    fn estimate_size(&self, path: &[String]) -> Option<SizeEstimate>;
}

/// Nothing is known.
impl SizeEstimator for () {
    fn estimate_size(&self, _: &[String]) -> Option<SizeEstimate> {
        None
    }
}

/// What the declarations of variables say.
impl SizeEstimator for BTreeMap<String, Decl> {
    fn estimate_size(&self, path: &[String]) -> Option<SizeEstimate> {
        let (variable, rest) = path.split_first()?;
        let decl = self.get(variable).filter(|decl| decl.min_serialized_size > 0)?.at(rest)?;
        Some(Range { min: 0, max: decl.max_elements })
    }
}

/// The range of costs of a checked expression.
pub(crate) fn estimate(checked: &Checked, sizes: &dyn SizeEstimator) -> CostEstimate {
    let mut estimator = Estimator {
        checked,
        sizes,
        paths: HashMap::new(),
        computed: HashMap::new(),
        entries: HashMap::new(),
        locals: HashMap::new(),
    };
    estimator.cost(&checked.expr)
}

/// Sizes of a container's keys and values.
#[derive(Clone, Copy)]
struct Entry {
    is_list: bool,
    key: SizeEstimate,
    value: SizeEstimate,
}

struct Local {
    path: Vec<String>,
    size: Option<SizeEstimate>,
    entry: Option<Entry>,
}

/// What is known of an argument.
pub(super) struct Node<'e> {
    pub(super) path: Vec<String>,
    pub(super) ty: Type,
    pub(super) literal: Option<&'e Literal>,
    pub(super) size: Option<SizeEstimate>,
}

pub(super) struct Estimator<'c> {
    checked: &'c Checked,
    sizes: &'c dyn SizeEstimator,
    paths: HashMap<Id, Vec<String>>,
    computed: HashMap<Id, SizeEstimate>,
    entries: HashMap<Id, Entry>,
    locals: HashMap<Arc<str>, Vec<Local>>,
}

const NOTHING: Range = Range::fixed(0);

impl Estimator<'_> {
    fn cost(&mut self, expr: &Expr) -> CostEstimate {
        match &expr.kind {
            ExprKind::Unspecified | ExprKind::Literal(_) => NOTHING,
            ExprKind::Ident(name) => {
                let path = match self.local(name) {
                    Some(local) => local.path.clone(),
                    None => vec![name.to_string()],
                };
                self.paths.insert(expr.id, path);
                Range::fixed(SELECT)
            }
            ExprKind::Select(select) => {
                let sum = self.cost(&select.operand);
                if select.test_only {
                    return sum;
                }
                let counted = matches!(
                    self.checked.type_of(select.operand.id),
                    Type::Map(..) | Type::Object(_) | Type::Param(_) | Type::Var(_)
                );
                let mut path = self.path(&select.operand);
                path.push(select.field.to_string());
                self.paths.insert(expr.id, path);
                if counted { sum.plus(Range::fixed(SELECT)) } else { sum }
            }
            ExprKind::Call(_) => self.call(expr),
            ExprKind::List(items) => {
                let mut sum = NOTHING;
                let mut size = Range { min: if items.is_empty() { 0 } else { u64::MAX }, max: 0 };
                for item in items {
                    sum = sum.plus(self.cost(&item.expr));
                    size = size.union(self.size_or_unknown(&item.expr));
                }
                self.entries.insert(expr.id, Entry { is_list: true, key: Range::fixed(1), value: size });
                sum.plus(Range::fixed(LIST_CREATE))
            }
            ExprKind::Map(entries) => {
                let mut sum = NOTHING;
                let none = Range { min: if entries.is_empty() { 0 } else { u64::MAX }, max: 0 };
                let (mut key, mut value) = (none, none);
                for entry in entries {
                    sum = sum.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
                    key = key.union(self.size_or_unknown(&entry.key));
                    value = value.union(self.size_or_unknown(&entry.value));
                }
                self.entries.insert(expr.id, Entry { is_list: false, key, value });
                sum.plus(Range::fixed(MAP_CREATE))
            }
            ExprKind::Struct(of) => {
                let sum = of.fields.iter().fold(NOTHING, |sum, field| sum.plus(self.cost(&field.value)));
                sum.plus(Range::fixed(STRUCT_CREATE))
            }
            ExprKind::Comprehension(of) if is_bind(of) => {
                let sum = self.cost(&of.range).plus(self.cost(&of.init));
                self.push_local(&of.accu, &of.init);
                let sum = sum.plus(self.cost(&of.result));
                self.pop(&of.accu);
                self.copy_sizes(expr, &of.result);
                sum
            }
            ExprKind::Comprehension(of) => self.comprehension(expr, of),
        }
    }

    fn comprehension(&mut self, expr: &Expr, of: &Comprehension) -> CostEstimate {
        let sum = self.cost(&of.range).plus(self.cost(&of.init));
        self.push_local(&of.accu, &of.init);
        match &of.var2 {
            Some(second) => {
                self.push_iteration(&of.var, &of.range, Iteration::Key);
                self.push_iteration(second, &of.range, Iteration::Value);
            }
            None => self.push_iteration(&of.var, &of.range, Iteration::Single),
        }
        let condition = self.cost(&of.condition);
        let step = self.cost(&of.step);
        self.pop(&of.var);
        if let Some(second) = &of.var2 {
            self.pop(second);
        }
        let sum = sum.plus(self.cost(&of.result));
        self.pop(&of.accu);
        let count = self.size_or_unknown(&of.range);
        let sum = sum.plus(count.times(step.plus(condition)));
        match &of.init.kind {
            ExprKind::Literal(_) => {
                let size = self.size(&of.init);
                self.set_size(expr, size);
            }
            ExprKind::List(_) | ExprKind::Map(_) => {
                self.set_size(expr, Some(count));
                let entry = self.entry(&of.step);
                self.set_entry(expr, entry);
            }
            _ => {}
        }
        sum
    }

    fn call(&mut self, expr: &Expr) -> CostEstimate {
        let ExprKind::Call(call) = &expr.kind else { return NOTHING };
        if &*call.function == "dyn" && call.args.len() == 1 {
            let sum = self.cost(&call.args[0]);
            self.copy_sizes(expr, &call.args[0]);
            return sum.plus(Range::fixed(1));
        }
        let mut costs = Vec::with_capacity(call.args.len());
        let mut nodes = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            costs.push(self.cost(arg));
            nodes.push(self.node(arg));
        }
        let overloads: Vec<&'static str> = match self.checked.reference(expr.id) {
            Some(Reference::Overloads(function, chosen)) => {
                chosen.iter().map(|at| function.overloads[*at].id).collect()
            }
            Some(Reference::OptionalSelect) => vec!["select_optional_field"],
            _ => return NOTHING,
        };
        let mut sum = NOTHING;
        let target = call.target.as_ref().map(|target| {
            sum = self.cost(target);
            self.node(target)
        });
        let mut cost = Range { min: u64::MAX, max: 0 };
        let mut result: Option<SizeEstimate> = None;
        for overload in overloads {
            let of = self.overload(expr, call, overload, target.as_ref(), &nodes, &costs);
            cost = cost.union(of.cost);
            if let Some(size) = of.size {
                result = Some(result.map_or(size, |have| have.union(size)));
            }
            if let (Some(step), Some(container)) = (index_step(overload), call.args.first()) {
                result = self.entry(container).map(|entry| entry.value);
                let mut path = self.path(container);
                path.push(step.to_owned());
                self.paths.insert(expr.id, path);
            }
            if result.is_none() {
                result = self.size(expr);
            }
        }
        self.set_size(expr, result);
        sum.plus(cost)
    }

    fn overload(
        &mut self,
        expr: &Expr,
        call: &crate::ast::Call,
        overload: &str,
        target: Option<&Node<'_>>,
        args: &[Node<'_>],
        costs: &[CostEstimate],
    ) -> CallEstimate {
        let arg_sum = costs.iter().fold(NOTHING, |sum, cost| sum.plus(*cost));
        let library = functions::extension(self, overload, target, args)
            .or_else(|| functions::kubernetes(self, &call.function, overload, target, args));
        if let Some(of) = library {
            return CallEstimate { cost: of.cost.plus(arg_sum), size: of.size };
        }
        match (overload, costs) {
            ("logical_and" | "logical_or", [left, right]) => {
                return CallEstimate { cost: Range { min: left.min, max: left.plus(*right).max }, size: None };
            }
            ("conditional", [condition, yes, no]) => {
                let size = self.known(&args[1]).union(self.known(&args[2]));
                let entry = union(self.entry(&call.args[1]), self.entry(&call.args[2]));
                self.set_entry(expr, entry);
                return CallEstimate { cost: condition.plus(yes.union(*no)), size: Some(size) };
            }
            ("add_string" | "add_bytes" | "add_list", [_, _]) => {
                let entry = union(self.entry(&call.args[0]), self.entry(&call.args[1]));
                self.set_entry(expr, entry);
            }
            _ => {}
        }
        let of = functions::standard(self, overload, target, args);
        CallEstimate { cost: of.cost.plus(arg_sum), size: of.size }
    }

    /// The size of an argument, or all sizes.
    pub(super) fn known(&self, node: &Node<'_>) -> SizeEstimate {
        node.size.unwrap_or(Range::UNKNOWN)
    }

    /// The size of an argument's items (`estimateSize` of `itemsNode`).
    pub(super) fn item_size(&self, list: &Node<'_>) -> SizeEstimate {
        if list.path.is_empty() {
            return Range::UNKNOWN;
        }
        let mut path = list.path.clone();
        path.push("@items".into());
        self.sizes.estimate_size(&path).unwrap_or(Range::UNKNOWN)
    }

    fn node<'e>(&mut self, expr: &'e Expr) -> Node<'e> {
        let path = self.path(expr);
        let accumulator = path.first().is_some_and(|first| first == ACCUMULATOR);
        Node {
            path: if accumulator { Vec::new() } else { path },
            ty: self.checked.type_of(expr.id).clone(),
            literal: if let ExprKind::Literal(literal) = &expr.kind { Some(literal) } else { None },
            size: self.size(expr),
        }
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.get(name).and_then(|stack| stack.last())
    }

    fn local_of(&self, expr: &Expr) -> Option<&Local> {
        expr.as_ident().and_then(|name| self.local(name))
    }

    fn path(&self, expr: &Expr) -> Vec<String> {
        match self.local_of(expr) {
            Some(local) => local.path.clone(),
            None => self.paths.get(&expr.id).cloned().unwrap_or_default(),
        }
    }

    fn push(&mut self, name: &Arc<str>, local: Local) {
        self.locals.entry(name.clone()).or_default().push(local);
    }

    fn pop(&mut self, name: &Arc<str>) {
        if let Some(stack) = self.locals.get_mut(name) {
            stack.pop();
        }
    }

    fn push_local(&mut self, name: &Arc<str>, of: &Expr) {
        let local = Local { path: self.path(of), size: self.size(of), entry: self.entry(of) };
        self.push(name, local);
    }

    fn push_iteration(&mut self, name: &Arc<str>, range: &Expr, what: Iteration) {
        let entry = self.entry(range);
        let is_list = match entry {
            Some(entry) => entry.is_list,
            None => matches!(self.checked.type_of(range.id), Type::List(_)),
        };
        let (values, step) = match (what, is_list) {
            (Iteration::Key, true) => (false, "@indices"),
            (Iteration::Key, false) | (Iteration::Single, false) => (false, "@keys"),
            (Iteration::Value, false) => (true, "@values"),
            (Iteration::Value, true) | (Iteration::Single, true) => (true, "@items"),
        };
        let size = entry.map(|entry| if values { entry.value } else { entry.key });
        let mut path = self.path(range);
        path.push(step.to_owned());
        self.push(name, Local { path, size, entry: None });
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> SizeEstimate {
        self.size(expr).unwrap_or(Range::UNKNOWN)
    }

    fn size(&mut self, expr: &Expr) -> Option<SizeEstimate> {
        if let Some(size) = self.computed.get(&expr.id) {
            return Some(*size);
        }
        match &expr.kind {
            ExprKind::Literal(Literal::Str(text)) => return Some(Range::fixed(text.chars().count() as u64)),
            ExprKind::Literal(Literal::Bytes(bytes)) => return Some(Range::fixed(bytes.len() as u64)),
            ExprKind::Literal(_) => return Some(Range::fixed(1)),
            ExprKind::List(items) => return Some(Range::fixed(items.len() as u64)),
            ExprKind::Map(entries) => return Some(Range::fixed(entries.len() as u64)),
            _ => {}
        }
        let path = self.path(expr);
        if let Some(size) = self.sizes.estimate_size(&path).filter(|_| !path.is_empty()) {
            self.computed.insert(expr.id, size);
            return Some(size);
        }
        if is_scalar(self.checked.type_of(expr.id)) {
            return Some(Range::fixed(1));
        }
        self.local_of(expr).and_then(|local| local.size)
    }

    fn set_size(&mut self, expr: &Expr, size: Option<SizeEstimate>) {
        if let Some(size) = size {
            self.computed.insert(expr.id, size);
        }
    }

    fn entry(&self, expr: &Expr) -> Option<Entry> {
        self.entries.get(&expr.id).copied().or_else(|| self.local_of(expr).and_then(|local| local.entry))
    }

    fn set_entry(&mut self, expr: &Expr, entry: Option<Entry>) {
        if let Some(entry) = entry {
            self.entries.insert(expr.id, entry);
        }
    }

    fn copy_sizes(&mut self, to: &Expr, from: &Expr) {
        let (size, entry) = (self.size(from), self.entry(from));
        self.set_size(to, size);
        self.set_entry(to, entry);
    }
}

#[derive(Clone, Copy)]
enum Iteration {
    Key,
    Value,
    Single,
}

fn index_step(overload: &str) -> Option<&'static str> {
    match overload {
        "index_list" => Some("@items"),
        "index_map" => Some("@values"),
        _ => None,
    }
}

fn union(a: Option<Entry>, b: Option<Entry>) -> Option<Entry> {
    let (a, b) = (a?, b?);
    Some(Entry { is_list: a.is_list, key: a.key.union(b.key), value: a.value.union(b.value) })
}

fn is_bind(of: &Comprehension) -> bool {
    matches!(&of.range.kind, ExprKind::List(items) if items.is_empty())
        && matches!(of.condition.kind, ExprKind::Literal(Literal::Bool(false)))
        && &*of.accu != "__result__"
}

fn is_scalar(ty: &Type) -> bool {
    match ty {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(inner) => is_scalar(inner),
        _ => false,
    }
}
