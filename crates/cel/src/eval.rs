//! Running a plan (cel-go's `interpreter/interpretable.go`, `attributes.go`, and what `runtimecost.go` charges for it).

use std::sync::Arc;

use crate::collection::MapValue;
use crate::cost;
use crate::error::EvalError;
use crate::library;
use crate::plan::{Attr, By, CallNode, Fold, Node, Qual, Root};
use crate::program::{Budget, Vars};
use crate::types::Type;
use crate::value::{StructValue, Value};

type Answer<'a> = Result<Value<'a>, EvalError>;

/// A loop's variable.
enum Slot<'p, 'a> {
    Empty,
    /// Computed when first read.
    Later(&'p Node),
    Known(Answer<'a>),
}

pub(crate) struct Evaluator<'p, 'e, 'a> {
    vars: &'e dyn Vars<'a>,
    budget: &'e mut Budget,
    slots: Vec<Slot<'p, 'a>>,
}

impl<'p, 'e, 'a> Evaluator<'p, 'e, 'a> {
    pub(crate) fn new(vars: &'e dyn Vars<'a>, budget: &'e mut Budget, slots: usize) -> Self {
        let mut all = Vec::with_capacity(slots);
        all.resize_with(slots, || Slot::Empty);
        Evaluator { vars, budget, slots: all }
    }

    pub(crate) fn exec(&mut self, node: &'p Node) -> Answer<'a> {
        match node {
            Node::Const(value) => Ok(value.clone()),
            Node::Attr(attr) => self.attribute(attr),
            Node::And(pair) => self.logic(pair, false),
            Node::Or(pair) => self.logic(pair, true),
            Node::Equal(pair) => self.equality(pair, true),
            Node::NotEqual(pair) => self.equality(pair, false),
            Node::Call(call) => self.call(call),
            Node::InSet(item, set) => {
                let item = self.exec(item)?;
                Ok(Value::Bool(library::standard::in_list(&item, set)?))
            }
            Node::OptionalOr(pair, unwrap) => match self.exec(&pair[0])? {
                Value::Optional(Some(value)) if *unwrap => Ok((*value).clone()),
                Value::Optional(Some(value)) => Ok(Value::Optional(Some(value))),
                Value::Optional(None) => self.exec(&pair[1]),
                _ => Err(EvalError::no_such_overload()),
            },
            Node::List(items) => self.list(items),
            Node::Map(_) => self.map(node),
            Node::Struct(ty, fields) => self.message(ty, fields),
            Node::Fold(fold) => self.fold(fold),
        }
    }

    fn attribute(&mut self, attr: &'p Attr) -> Answer<'a> {
        let value = self.resolve(attr);
        if !matches!(attr.root, Root::Choice(..)) && !attr.test_only {
            self.budget.spend(cost::SELECT)?;
        }
        value
    }

    /// `&&` and `||`: the value `stop` ends it, whatever the other side is.
    fn logic(&mut self, pair: &'p [Node; 2], stop: bool) -> Answer<'a> {
        let mut failed = None;
        for node in pair {
            match self.exec(node) {
                Ok(Value::Bool(b)) if b == stop => return Ok(Value::Bool(stop)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => failed = failed.or_else(|| Some(EvalError::no_such_overload())),
                Err(error) if error.is_over_budget() => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Value::Bool(!stop)), Err)
    }

    fn equality(&mut self, pair: &'p [Node; 2], equal: bool) -> Answer<'a> {
        let (left, right) = (self.operand(&pair[0])?, self.operand(&pair[1])?);
        let size_of = |value: &Answer<'a>| value.as_ref().map_or(Value::Null, Value::clone);
        self.budget.spend(cost::equality(&size_of(&left), &size_of(&right), equal))?;
        let (left, right) = (left?, right?);
        match left.equals(&right) {
            Ok(same) => Ok(Value::Bool(same == equal)),
            Err(error) if equal => Err(error),
            Err(_) => Ok(Value::Bool(true)),
        }
    }

    fn call(&mut self, call: &'p CallNode) -> Answer<'a> {
        let lenient = call.function.name == crate::ast::op::NOT_STRICTLY_FALSE;
        let mut args = Vec::with_capacity(call.args.len());
        let mut failed = None;
        for arg in &call.args {
            match self.operand(arg)? {
                Ok(value) => args.push(value),
                Err(_) if lenient => args.push(Value::Bool(true)),
                Err(error) => {
                    args.push(Value::Null);
                    failed = failed.or(Some(error));
                }
            }
        }
        match failed {
            Some(error) => {
                self.budget.spend(cost::call(call.function.name, call.overload_id(), &args, None))?;
                Err(error)
            }
            None => self.invoke(call, &args),
        }
    }

    /// An argument's value or error; only an exceeded budget ends the call before its other arguments.
    fn operand(&mut self, node: &'p Node) -> Result<Answer<'a>, EvalError> {
        match self.exec(node) {
            Err(error) if error.is_over_budget() => Err(error),
            value => Ok(value),
        }
    }

    fn invoke(&mut self, call: &'p CallNode, args: &[Value<'a>]) -> Answer<'a> {
        let function = &call.function;
        let candidates = || function.overloads.iter().filter(|overload| overload.accepts(args));
        let overload = match call.chosen[..] {
            [only] => Some(&function.overloads[only]).filter(|overload| overload.accepts(args)),
            _ => candidates().find(|overload| {
                let chosen = &function.overloads[call.chosen[0]];
                overload.member == chosen.member
            }),
        };
        let result = match (overload, &call.pattern) {
            (Some(_), Some(pattern)) => library::regex::run(function.name, pattern, args),
            (Some(overload), None) => (overload.run)(args),
            (None, _) => Err(library::no_overload(function.name, args)),
        };
        self.budget.spend(cost::call(function.name, call.overload_id(), args, result.as_ref().ok()))?;
        result
    }

    fn list(&mut self, items: &'p [(Node, bool)]) -> Answer<'a> {
        let values = self.list_items(items);
        self.budget.spend(cost::LIST_CREATE)?;
        Ok(Value::list(values?))
    }

    fn list_items(&mut self, items: &'p [(Node, bool)]) -> Result<Vec<Value<'a>>, EvalError> {
        let mut values = Vec::with_capacity(items.len());
        for (node, optional) in items {
            let value = self.exec(node)?;
            match (optional, value) {
                (false, value) => values.push(value),
                (true, Value::Optional(Some(value))) => values.push((*value).clone()),
                (true, Value::Optional(None)) => {}
                (true, other) => {
                    let why = format!("cannot initialize optional list element from non-optional value {other}");
                    return Err(EvalError::new(why));
                }
            }
        }
        Ok(values)
    }

    fn map(&mut self, node: &'p Node) -> Answer<'a> {
        let Node::Map(entries) = node else { return Err(EvalError::no_such_overload()) };
        let mut map = MapValue::default();
        for entry in entries {
            let key = self.exec(&entry.key)?;
            if !matches!(key, Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Str(_) | Value::Double(_)) {
                return Err(EvalError::new(format!("unsupported key type: {}", key.type_of().runtime_name())));
            }
            let value = self.exec(&entry.value)?;
            match (entry.optional, value) {
                (false, value) => drop(map.insert(key, value)),
                (true, Value::Optional(Some(value))) => drop(map.insert(key, (*value).clone())),
                (true, Value::Optional(None)) => map.remove(&key),
                (true, other) => return Err(bad_optional(&key, &other)),
            }
        }
        self.budget.spend(cost::MAP_CREATE)?;
        Ok(Value::Map(Arc::new(map)))
    }

    fn message(&mut self, ty: &Type, nodes: &'p [(String, Node, bool)]) -> Answer<'a> {
        let mut fields: Vec<(String, Value<'a>)> = Vec::with_capacity(nodes.len());
        for (name, node, optional) in nodes {
            let value = self.exec(node)?;
            let value = match (optional, value) {
                (false, value) => value,
                (true, Value::Optional(Some(value))) => (*value).clone(),
                (true, Value::Optional(None)) => continue,
                (true, other) => return Err(bad_optional(&Value::str(name.as_str()), &other)),
            };
            fields.push((name.clone(), value));
        }
        self.budget.spend(cost::STRUCT_CREATE)?;
        Ok(Value::Struct(Arc::new(StructValue { ty: ty.clone(), fields })))
    }

    fn local(&mut self, slot: usize) -> Answer<'a> {
        if let Slot::Later(node) = self.slots[slot] {
            let value = self.exec(node);
            self.slots[slot] = Slot::Known(value);
        }
        match &self.slots[slot] {
            Slot::Known(value) => value.clone(),
            _ => Err(EvalError::new("no such attribute(s)")),
        }
    }

    /// Reads an attribute, without the cost of its root.
    fn resolve(&mut self, attr: &'p Attr) -> Answer<'a> {
        let value = match &attr.root {
            Root::Local(slot) => self.local(*slot)?,
            Root::Global(name) => match self.vars.get(name, self.budget) {
                Some(value) => value?,
                None => return Err(EvalError::new(format!("no such attribute(s): {name}"))),
            },
            Root::Relative(node) => self.exec(node)?,
            Root::Choice(condition, branches) => match self.exec(condition)? {
                Value::Bool(yes) => return self.resolve(&branches[usize::from(!yes)]),
                _ => return Err(EvalError::no_such_overload()),
            },
        };
        self.qualify(value, &attr.quals, attr.test_only)
    }

    /// Goes step by step into a value (`applyQualifiers`).
    fn qualify(&mut self, value: Value<'a>, quals: &'p [Qual], test_only: bool) -> Answer<'a> {
        if quals.is_empty() {
            return Ok(value);
        }
        let (mut value, mut optional) = match value {
            Value::Optional(None) if test_only => return Ok(Value::Bool(false)),
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => ((*inner).clone(), true),
            other => (other, false),
        };
        let last = quals.len() - 1;
        for (at, qual) in quals.iter().enumerate() {
            optional = optional || qual.optional;
            let testing = test_only && at == last;
            let index = match &*qual.by {
                By::Const(index) => index.clone(),
                By::Attr(attr) => self.resolve(attr)?,
                By::Node(node) => self.exec(node)?,
            };
            let found = self.step(&value, &index, optional || testing);
            if !optional || !matches!(found, Ok(None)) {
                self.budget.spend(cost::SELECT)?;
            }
            match found? {
                found if testing => return Ok(Value::Bool(found.is_some())),
                Some(next) => value = next,
                None if test_only => return Ok(Value::Bool(false)),
                None => return Ok(Value::Optional(None)),
            }
        }
        Ok(if optional { Value::some(value) } else { value })
    }

    /// One step; `None` only if `presence` asks for it, else what is not there is an error (`refQualify`).
    fn step(&mut self, value: &Value<'a>, index: &Value<'_>, presence: bool) -> Result<Option<Value<'a>>, EvalError> {
        let absent = |error: EvalError| if presence { Ok(None) } else { Err(error) };
        if let Value::Lazy(of) = value {
            let name = index.as_str().ok_or_else(EvalError::no_such_overload)?;
            return match self.vars.field(&of.variable, name, self.budget) {
                Some(found) => found.map(Some),
                None => absent(EvalError::no_such_key(index)),
            };
        }
        if let Some(map) = value.as_map() {
            return match map.find(index)? {
                Some(found) => Ok(Some(found)),
                None => absent(EvalError::no_such_key(index)),
            };
        }
        if let Some(list) = value.as_list() {
            let at = list_index(index)?;
            return match usize::try_from(at).ok().filter(|at| *at < list.len()) {
                Some(at) => list.get(at).map(Some),
                None => absent(EvalError::new(format!("index out of bounds: {index}"))),
            };
        }
        absent(EvalError::no_such_key(index))
    }

    fn fold(&mut self, fold: &'p Fold) -> Answer<'a> {
        let range = self.exec(&fold.range)?;
        self.slots[fold.accu] = Slot::Later(&fold.init);
        let keys = range.as_map().map(|map| map.keys());
        let count = match (&keys, range.as_list()) {
            (Some(keys), _) => keys.len(),
            (_, Some(list)) => list.len(),
            _ => {
                let name = range.type_of();
                return Err(EvalError::new(format!("got '{}', expected iterable type", name.runtime_name())));
            }
        };
        for at in 0..count {
            self.bind(fold, &range, keys.as_deref(), at);
            match self.exec(&fold.condition) {
                Ok(Value::Bool(false)) => break,
                Err(error) if error.is_over_budget() => return Err(error),
                _ => {}
            }
            if fold.gathers {
                match self.gather(&fold.step, fold.accu) {
                    Err(error) if error.is_over_budget() => return Err(error),
                    Err(error) => self.slots[fold.accu] = Slot::Known(Err(error)),
                    Ok(()) => {}
                }
                continue;
            }
            match self.exec(&fold.step) {
                Err(error) if error.is_over_budget() => return Err(error),
                value => self.slots[fold.accu] = Slot::Known(value),
            }
        }
        self.slots[fold.var] = Slot::Empty;
        let result = self.exec(&fold.result);
        self.slots[fold.accu] = Slot::Empty;
        result
    }

    /// Sets the loop's variables for one turn.
    fn bind(&mut self, fold: &Fold, range: &Value<'a>, keys: Option<&[Value<'a>]>, at: usize) {
        let item = |at: usize| range.as_list().map_or(Err(EvalError::no_such_overload()), |list| list.get(at));
        let (first, second) = match (keys, fold.var2) {
            (Some(keys), None) => (Ok(keys[at].clone()), None),
            (Some(keys), Some(slot)) => {
                let value = range.as_map().map_or(Ok(None), |map| map.find(&keys[at]));
                let value = value.and_then(|value| value.ok_or_else(|| EvalError::no_such_key(&keys[at])));
                (Ok(keys[at].clone()), Some((slot, value)))
            }
            (None, None) => (item(at), None),
            (None, Some(slot)) => (Ok(Value::Int(at as i64)), Some((slot, item(at)))),
        };
        self.slots[fold.var] = Slot::Known(first);
        if let Some((slot, value)) = second {
            self.slots[slot] = Slot::Known(value);
        }
    }

    /// A step that puts something on the accumulator, done in place: same result and cost as the step itself.
    fn gather(&mut self, step: &'p Node, accu: usize) -> Result<(), EvalError> {
        match step {
            Node::Attr(Attr { root: Root::Choice(condition, branches), .. }) => match self.exec(condition)? {
                Value::Bool(true) => match &branches[0].root {
                    Root::Relative(node) => self.gather(node, accu),
                    _ => Err(EvalError::no_such_overload()),
                },
                Value::Bool(false) => Ok(()),
                _ => Err(EvalError::no_such_overload()),
            },
            Node::Call(call) => {
                let had = self.local(accu).map(drop);
                self.budget.spend(cost::SELECT)?;
                let mut args = Vec::with_capacity(call.args.len());
                for arg in &call.args[1..] {
                    args.push(self.operand(arg)?);
                }
                self.budget.spend(1)?;
                had?;
                let args = args.into_iter().collect::<Result<Vec<_>, _>>()?;
                let Slot::Known(Ok(have)) = &mut self.slots[accu] else { return Err(EvalError::no_such_overload()) };
                put(have, args)
            }
            _ => Err(EvalError::no_such_overload()),
        }
    }
}

/// Puts the items of a list, an entry, or the entries of a map on an accumulator that nothing else holds.
fn put<'a>(accu: &mut Value<'a>, args: Vec<Value<'a>>) -> Result<(), EvalError> {
    match accu {
        Value::List(have) if args.len() == 1 => {
            let more = args[0].as_list().ok_or_else(EvalError::no_such_overload)?.items()?;
            Arc::make_mut(have).extend(more);
            Ok(())
        }
        Value::Map(have) => {
            let have = Arc::make_mut(have);
            match &args[..] {
                [key, value] => library::standard::map_insert(have, key.clone(), value.clone()),
                [more] => library::standard::map_insert_all(have, more),
                _ => Err(EvalError::no_such_overload()),
            }
        }
        _ => Err(EvalError::no_such_overload()),
    }
}

fn bad_optional(field: &Value<'_>, value: &Value<'_>) -> EvalError {
    EvalError::new(format!("cannot initialize optional entry '{field}' from non-optional value {value}"))
}

/// A list's index: any number without a fraction (`types.IndexOrError`).
fn list_index(index: &Value<'_>) -> Result<i64, EvalError> {
    let bad = || EvalError::new(format!("unsupported index value {index} in list"));
    match index {
        Value::Int(n) => Ok(*n),
        Value::Uint(n) => i64::try_from(*n).map_err(|_| bad()),
        Value::Double(n) if n.fract() == 0.0 && n.abs() < 2f64.powi(63) => Ok(*n as i64),
        Value::Double(_) => Err(bad()),
        other => Err(EvalError::new(format!("unsupported index type '{}' in list", other.type_of().runtime_name()))),
    }
}
