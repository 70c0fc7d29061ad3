//! A checked tree made ready to run (cel-go's `interpreter/planner.go`, `decorators.go`).
//!
//! The shape of the plan is also the shape of the run-time cost: what upstream plans as an attribute with qualifiers, as a
//! constant or as a test of membership costs what those cost.

use std::sync::Arc;

use regex::Regex;

use crate::ast::{Call, Comprehension, Expr, ExprKind, op};
use crate::check::{Checked, Reference};
use crate::collection::MapValue;
use crate::error::EvalError;
use crate::function::Function;
use crate::library;
use crate::types::Type;
use crate::value::Value;

/// One step.
pub(crate) enum Node {
    Const(Value<'static>),
    Attr(Attr),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    Equal(Box<[Node; 2]>),
    NotEqual(Box<[Node; 2]>),
    Call(Box<CallNode>),
    /// Membership in a list of constants.
    InSet(Box<Node>, Value<'static>),
    List(Vec<(Node, bool)>),
    Map(Vec<MapNode>),
    Struct(Type, Vec<(String, Node, bool)>),
    /// `or` and `orValue` of optionals, which look at their argument only if they need it.
    OptionalOr(Box<[Node; 2]>, bool),
    Fold(Box<Fold>),
}

/// An entry of a map literal.
pub(crate) struct MapNode {
    pub(crate) key: Node,
    pub(crate) value: Node,
    pub(crate) optional: bool,
}

/// A call of a function.
pub(crate) struct CallNode {
    pub(crate) function: Arc<Function>,
    /// The overloads that the checker left.
    pub(crate) chosen: Vec<usize>,
    pub(crate) args: Vec<Node>,
    /// The second argument, if it is a constant pattern.
    pub(crate) pattern: Option<Regex>,
}

impl CallNode {
    /// The overload's name; empty if several fitted when checking.
    pub(crate) fn overload_id(&self) -> &'static str {
        match self.chosen[..] {
            [only] => self.function.overloads[only].id,
            _ => "",
        }
    }
}

/// A place that values are read from: a root and steps into it.
pub(crate) struct Attr {
    pub(crate) root: Root,
    pub(crate) quals: Vec<Qual>,
    /// Whether the last step only asks whether there is something.
    pub(crate) test_only: bool,
}

/// Where an attribute starts.
pub(crate) enum Root {
    /// A loop's variable.
    Local(usize),
    Global(String),
    Relative(Box<Node>),
    Choice(Box<Node>, Box<[Attr; 2]>),
}

/// A step into a value.
#[derive(Clone)]
pub(crate) struct Qual {
    pub(crate) by: Arc<By>,
    pub(crate) optional: bool,
}

/// What a step goes by.
pub(crate) enum By {
    Const(Value<'static>),
    Attr(Attr),
    Node(Node),
}

/// A loop.
pub(crate) struct Fold {
    pub(crate) range: Node,
    pub(crate) init: Node,
    pub(crate) condition: Node,
    pub(crate) step: Node,
    pub(crate) result: Node,
    pub(crate) accu: usize,
    pub(crate) var: usize,
    pub(crate) var2: Option<usize>,
    /// Whether the step puts one item on the accumulator: then it is done in place.
    pub(crate) gathers: bool,
}

pub(crate) struct Planner<'c> {
    checked: &'c Checked,
    locals: Vec<(Arc<str>, usize)>,
    slots: usize,
}

impl<'c> Planner<'c> {
    pub(crate) fn new(checked: &'c Checked) -> Planner<'c> {
        Planner { checked, locals: Vec::new(), slots: 0 }
    }

    /// How many loop variables there are.
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// The plan of an expression. An error if a constant part of it has one.
    pub(crate) fn node(&mut self, expr: &Expr) -> Result<Node, EvalError> {
        match &expr.kind {
            ExprKind::Unspecified => Err(EvalError::new("unsupported expr")),
            ExprKind::Literal(literal) => Ok(Node::Const(literal.into())),
            ExprKind::Ident(name) => Ok(self.ident(expr, name)),
            ExprKind::Select(select) => {
                let operand = self.node(&select.operand)?;
                let name = Value::str(select.field.clone());
                let mut attr = attribute(operand);
                qualify(&mut attr, &Qual { by: Arc::new(By::Const(name)), optional: false });
                attr.test_only = select.test_only;
                Ok(Node::Attr(attr))
            }
            ExprKind::Call(call) => self.call(expr, call),
            ExprKind::List(items) => {
                let mut nodes = Vec::with_capacity(items.len());
                for item in items {
                    nodes.push((self.node(&item.expr)?, item.optional));
                }
                Ok(fold_list(nodes))
            }
            ExprKind::Map(entries) => {
                let mut nodes = Vec::with_capacity(entries.len());
                for entry in entries {
                    let key = self.node(&entry.key)?;
                    nodes.push(MapNode { key, value: self.node(&entry.value)?, optional: entry.optional });
                }
                Ok(fold_map(nodes))
            }
            ExprKind::Struct(of) => {
                let mut fields = Vec::with_capacity(of.fields.len());
                for field in &of.fields {
                    fields.push((field.name.clone(), self.node(&field.value)?, field.optional));
                }
                Ok(Node::Struct(self.checked.type_of(expr.id).clone(), fields))
            }
            ExprKind::Comprehension(of) => self.fold(of),
        }
    }

    fn ident(&self, expr: &Expr, name: &Arc<str>) -> Node {
        if let Some(Reference::TypeName(ty)) = self.checked.reference(expr.id) {
            return Node::Const(Value::Type(ty.clone()));
        }
        let local = self.locals.iter().rev().find(|(have, _)| have == name);
        let root = match local {
            Some((_, slot)) => Root::Local(*slot),
            None => Root::Global(name.strip_prefix('.').unwrap_or(name).to_owned()),
        };
        Node::Attr(Attr { root, quals: Vec::new(), test_only: false })
    }

    fn call(&mut self, expr: &Expr, call: &Call) -> Result<Node, EvalError> {
        // Loops, not iterators: this recursion goes as deep as the expression.
        let mut args = Vec::with_capacity(call.args.len() + 1);
        for arg in call.target.iter().chain(&call.args) {
            args.push(self.node(arg)?);
        }
        self.planned_call(expr, call, args)
    }

    /// A call whose arguments are planned; apart from the recursion to keep its frames small.
    #[inline(never)]
    fn planned_call(&self, expr: &Expr, call: &Call, mut args: Vec<Node>) -> Result<Node, EvalError> {
        let pair = |args: Vec<Node>| -> Result<Box<[Node; 2]>, EvalError> {
            args.try_into().map(Box::new).map_err(|_| EvalError::no_such_overload())
        };
        match &*call.function {
            op::AND => return Ok(Node::And(pair(args)?)),
            op::OR => return Ok(Node::Or(pair(args)?)),
            op::EQUALS => return Ok(Node::Equal(pair(args)?)),
            op::NOT_EQUALS => return Ok(Node::NotEqual(pair(args)?)),
            op::CONDITIONAL if args.len() == 3 => {
                let (no, yes) = (args.pop(), args.pop());
                let branches = [yes, no].map(|node| branch(node.expect("three arguments")));
                let condition = args.pop().expect("three arguments");
                let root = Root::Choice(Box::new(condition), Box::new(branches));
                return Ok(Node::Attr(Attr { root, quals: Vec::new(), test_only: false }));
            }
            op::INDEX | op::OPT_INDEX | op::OPT_SELECT if args.len() == 2 => {
                let index = args.pop().expect("two arguments");
                let mut attr = attribute(args.pop().expect("two arguments"));
                let by = match index {
                    Node::Const(value) => By::Const(value),
                    Node::Attr(attr) => By::Attr(attr),
                    other => By::Node(other),
                };
                qualify(&mut attr, &Qual { by: Arc::new(by), optional: &*call.function != op::INDEX });
                return Ok(Node::Attr(attr));
            }
            _ => {}
        }
        let Some(Reference::Overloads(function, chosen)) = self.checked.reference(expr.id) else {
            return Err(EvalError::new(format!("no such overload: {}", call.function)));
        };
        let only = (chosen.len() == 1).then(|| function.overloads[chosen[0]].id);
        if let Some("optional_or_optional" | "optional_orValue_value") = only {
            let value = only == Some("optional_orValue_value");
            return Ok(Node::OptionalOr(pair(args)?, value));
        }
        if only == Some("in_list")
            && let Some(Node::Const(list)) = args.get(1)
            && let Some(set) = constant_set(list)
        {
            let item = args.swap_remove(0);
            return Ok(match set.as_list().is_none_or(|list| list.is_empty()) {
                true => Node::Const(Value::Bool(false)),
                false => Node::InSet(Box::new(item), set),
            });
        }
        if let ([Node::Const(value)], true) = (&args[..], library::is_conversion(function.name)) {
            let overload = function
                .overloads
                .iter()
                .find(|overload| !overload.member && overload.accepts(std::slice::from_ref(value)));
            let overload = overload.ok_or_else(EvalError::no_such_overload)?;
            return (overload.run)(std::slice::from_ref(value)).map(Node::Const);
        }
        let pattern = match (function.name, args.get(1)) {
            ("matches" | "find" | "findAll", Some(Node::Const(Value::Str(pattern)))) => {
                Some(library::regex::compile(pattern)?)
            }
            _ => None,
        };
        Ok(Node::Call(Box::new(CallNode { function: function.clone(), chosen: chosen.clone(), args, pattern })))
    }

    fn fold(&mut self, of: &Comprehension) -> Result<Node, EvalError> {
        let init = self.node(&of.init)?;
        let range = self.node(&of.range)?;
        let depth = self.locals.len();
        // Each loop has slots of its own: its first value is computed late, in the middle of other loops.
        let accu = self.slots;
        self.locals.push((of.accu.clone(), accu));
        let var = accu + 1;
        self.locals.push((of.var.clone(), var));
        let var2 = of.var2.as_ref().map(|name| {
            self.locals.push((name.clone(), accu + 2));
            accu + 2
        });
        self.slots += 3;
        let condition = self.node(&of.condition)?;
        let step = self.node(&of.step)?;
        self.locals.truncate(depth + 1);
        let result = self.node(&of.result)?;
        self.locals.truncate(depth);
        let empty = match &init {
            Node::Const(value) => value.size() == Some(0) && value.as_str().is_none(),
            _ => false,
        };
        let gathers = empty && is_accu(&result, accu) && gathers(&step, accu);
        Ok(Node::Fold(Box::new(Fold { range, init, condition, step, result, accu, var, var2, gathers })))
    }
}

fn is_accu(node: &Node, slot: usize) -> bool {
    matches!(node, Node::Attr(attr) if is_plain(attr, slot))
}

fn is_plain(attr: &Attr, slot: usize) -> bool {
    attr.quals.is_empty() && matches!(attr.root, Root::Local(have) if have == slot)
}

/// Whether a step is `accu + […]` or `cel.@mapInsert(accu, …)`, perhaps under a condition.
fn gathers(step: &Node, accu: usize) -> bool {
    match step {
        Node::Call(call) => {
            matches!(call.function.name, op::ADD | op::MAP_INSERT)
                && call.args.first().is_some_and(|arg| is_accu(arg, accu))
        }
        Node::Attr(Attr { root: Root::Choice(_, branches), quals, .. }) if quals.is_empty() => {
            let [yes, no] = &**branches;
            matches!(&yes.root, Root::Relative(node) if yes.quals.is_empty() && gathers(node, accu))
                && is_plain(no, accu)
        }
        _ => false,
    }
}

/// The attribute that a step goes into.
fn attribute(node: Node) -> Attr {
    match node {
        Node::Attr(attr) if !attr.test_only => attr,
        other => Attr { root: Root::Relative(Box::new(other)), quals: Vec::new(), test_only: false },
    }
}

/// A branch of a conditional.
fn branch(node: Node) -> Attr {
    match node {
        Node::Attr(attr) => attr,
        other => Attr { root: Root::Relative(Box::new(other)), quals: Vec::new(), test_only: false },
    }
}

/// Adds a step; a conditional takes it into both of its branches.
fn qualify(attr: &mut Attr, qual: &Qual) {
    match &mut attr.root {
        Root::Choice(_, branches) if attr.quals.is_empty() => {
            branches.iter_mut().for_each(|branch| qualify(branch, qual))
        }
        _ => attr.quals.push(qual.clone()),
    }
}

fn fold_list(items: Vec<(Node, bool)>) -> Node {
    if !items.iter().all(|(node, optional)| matches!(node, Node::Const(_)) && !optional) {
        return Node::List(items);
    }
    let values =
        items.into_iter().filter_map(|(node, _)| if let Node::Const(value) = node { Some(value) } else { None });
    Node::Const(Value::list(values.collect()))
}

fn fold_map(entries: Vec<MapNode>) -> Node {
    let constant =
        |entry: &MapNode| matches!((&entry.key, &entry.value), (Node::Const(_), Node::Const(_))) && !entry.optional;
    if !entries.iter().all(constant) {
        return Node::Map(entries);
    }
    let mut map = MapValue::default();
    for entry in entries {
        if let (Node::Const(key), Node::Const(value)) = (entry.key, entry.value) {
            map.insert(key, value);
        }
    }
    Node::Const(Value::Map(Arc::new(map)))
}

/// The list as it is, if it holds simple values only.
fn constant_set(list: &Value<'static>) -> Option<Value<'static>> {
    let items = list.as_list()?.items().ok()?;
    let simple = |item: &Value<'_>| {
        matches!(item, Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Str(_) | Value::Null)
    };
    items.iter().all(simple).then(|| list.clone())
}
