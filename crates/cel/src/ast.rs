//! The syntax tree.

use std::sync::Arc;

use crate::value::Literal;

/// Number of a node: unique in its tree, used as an index into what the checker found out.
pub(crate) type Id = u32;

/// A node.
#[derive(Debug, Clone)]
pub(crate) struct Expr {
    pub(crate) id: Id,
    /// Where it is, in code points from the start of the source.
    pub(crate) pos: u32,
    pub(crate) kind: ExprKind,
}

/// What a node is.
#[derive(Debug, Clone)]
pub(crate) enum ExprKind {
    /// A place where the parser gave up; there is an issue for it.
    Unspecified,
    Literal(Literal),
    Ident(Arc<str>),
    Select(Box<Select>),
    Call(Box<Call>),
    List(Vec<Element>),
    Map(Vec<Entry>),
    Struct(Box<Struct>),
    Comprehension(Box<Comprehension>),
}

/// `operand.field`, or `has(operand.field)`.
#[derive(Debug, Clone)]
pub(crate) struct Select {
    pub(crate) operand: Expr,
    pub(crate) field: Arc<str>,
    pub(crate) test_only: bool,
}

/// `function(args)` or `target.function(args)`; operators have names such as `_+_`.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) function: Arc<str>,
    pub(crate) target: Option<Expr>,
    pub(crate) args: Vec<Expr>,
}

/// An item of a list literal.
#[derive(Debug, Clone)]
pub(crate) struct Element {
    pub(crate) expr: Expr,
    pub(crate) optional: bool,
}

/// An entry of a map literal.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Expr,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

/// `Name{field: value}`.
#[derive(Debug, Clone)]
pub(crate) struct Struct {
    pub(crate) name: String,
    pub(crate) fields: Vec<StructField>,
}

/// A field of a message literal.
#[derive(Debug, Clone)]
pub(crate) struct StructField {
    pub(crate) pos: u32,
    pub(crate) name: String,
    pub(crate) value: Expr,
    pub(crate) optional: bool,
}

/// A loop: what the macros become.
#[derive(Debug, Clone)]
pub(crate) struct Comprehension {
    pub(crate) range: Expr,
    pub(crate) var: Arc<str>,
    pub(crate) var2: Option<Arc<str>>,
    pub(crate) accu: Arc<str>,
    pub(crate) init: Expr,
    pub(crate) condition: Expr,
    pub(crate) step: Expr,
    pub(crate) result: Expr,
}

/// The accumulator that macros use; no source can name it.
pub(crate) const ACCUMULATOR: &str = "@result";

/// Operators' function names.
pub(crate) mod op {
    pub(crate) const CONDITIONAL: &str = "_?_:_";
    pub(crate) const AND: &str = "_&&_";
    pub(crate) const OR: &str = "_||_";
    pub(crate) const NOT: &str = "!_";
    pub(crate) const NEGATE: &str = "-_";
    pub(crate) const EQUALS: &str = "_==_";
    pub(crate) const NOT_EQUALS: &str = "_!=_";
    pub(crate) const ADD: &str = "_+_";
    pub(crate) const INDEX: &str = "_[_]";
    pub(crate) const OPT_INDEX: &str = "_[?_]";
    pub(crate) const OPT_SELECT: &str = "_?._";
    pub(crate) const NOT_STRICTLY_FALSE: &str = "@not_strictly_false";
    pub(crate) const MAP_INSERT: &str = "cel.@mapInsert";
}

impl Expr {
    /// The name, if this is a plain name.
    pub(crate) fn as_ident(&self) -> Option<&Arc<str>> {
        match &self.kind {
            ExprKind::Ident(name) => Some(name),
            _ => None,
        }
    }

    /// `a.b.c` as text, if this is nothing but names (`containers.ToQualifiedName`).
    pub(crate) fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            ExprKind::Ident(name) => Some(name.to_string()),
            ExprKind::Select(select) if !select.test_only => {
                Some(format!("{}.{}", select.operand.qualified_name()?, select.field))
            }
            _ => None,
        }
    }

    /// Calls `visit` with this node and all below, parents first.
    pub(crate) fn walk<'e>(&'e self, visit: &mut impl FnMut(&'e Expr)) {
        let mut stack = vec![self];
        while let Some(expr) = stack.pop() {
            visit(expr);
            let at = stack.len();
            expr.children(&mut stack);
            stack[at..].reverse();
        }
    }

    /// Calls `visit` with each node directly below.
    pub(crate) fn for_each_child(&mut self, visit: &mut impl FnMut(&mut Expr)) {
        match &mut self.kind {
            ExprKind::Unspecified | ExprKind::Literal(_) | ExprKind::Ident(_) => {}
            ExprKind::Select(select) => visit(&mut select.operand),
            ExprKind::Call(call) => call.target.iter_mut().chain(&mut call.args).for_each(visit),
            ExprKind::List(items) => items.iter_mut().for_each(|item| visit(&mut item.expr)),
            ExprKind::Map(entries) => {
                for entry in entries {
                    visit(&mut entry.key);
                    visit(&mut entry.value);
                }
            }
            ExprKind::Struct(of) => of.fields.iter_mut().for_each(|field| visit(&mut field.value)),
            ExprKind::Comprehension(c) => {
                [&mut c.range, &mut c.init, &mut c.condition, &mut c.step, &mut c.result].into_iter().for_each(visit);
            }
        }
    }

    fn children<'e>(&'e self, out: &mut Vec<&'e Expr>) {
        match &self.kind {
            ExprKind::Unspecified | ExprKind::Literal(_) | ExprKind::Ident(_) => {}
            ExprKind::Select(select) => out.push(&select.operand),
            ExprKind::Call(call) => {
                out.extend(&call.target);
                out.extend(&call.args);
            }
            ExprKind::List(items) => out.extend(items.iter().map(|item| &item.expr)),
            ExprKind::Map(entries) => out.extend(entries.iter().flat_map(|entry| [&entry.key, &entry.value])),
            ExprKind::Struct(of) => out.extend(of.fields.iter().map(|field| &field.value)),
            ExprKind::Comprehension(c) => out.extend([&c.range, &c.init, &c.condition, &c.step, &c.result]),
        }
    }
}
