//! Macros: calls that become loops (cel-go's `parser/macro.go`, `cel/library.go`, `ext/comprehensions.go`, `ext/lists.go`, `ext/bindings.go`).

use std::sync::Arc;

use crate::ast::{ACCUMULATOR, Comprehension, Element, Expr, ExprKind, Select, op};
use crate::parse::{Parser, Syntax};
use crate::value::Literal;

/// The name of the loop variable of a loop that runs not once and only binds its accumulator.
const UNUSED: &str = "#unused";

/// Whether a call with these arguments is a macro's.
pub(crate) fn exists(syntax: Syntax, function: &str, target: Option<&Expr>, args: &[Expr]) -> bool {
    let count = args.len();
    let Some(target) = target else { return function == "has" && count == 1 };
    match function {
        "all" | "exists" | "exists_one" | "existsOne" => count == 2 || (count == 3 && syntax.two_variables),
        "map" => count == 2 || count == 3,
        "filter" => count == 2,
        "optMap" | "optFlatMap" => count == 2 && syntax.optionals,
        "transformList" | "transformMap" | "transformMapEntry" => (count == 3 || count == 4) && syntax.two_variables,
        "sortBy" => count == 2 && syntax.lists,
        "bind" => count == 3 && syntax.bindings && target.as_ident().is_some_and(|name| &**name == "cel"),
        _ => false,
    }
}

/// What a macro's call becomes.
pub(crate) fn expand(parser: &mut Parser<'_>, pos: u32, function: &str, target: Option<Expr>, args: Vec<Expr>) -> Expr {
    let mut maker = Maker { parser, pos };
    let result = match target {
        None => maker.has(args),
        Some(target) => match (function, args.len()) {
            ("all" | "exists" | "exists_one" | "existsOne", _) => maker.quantifier(function, target, args),
            ("map" | "filter", _) => maker.map(function == "filter", target, args),
            ("optMap" | "optFlatMap", _) => maker.opt_map(function == "optMap", target, args),
            ("sortBy", _) => maker.sort_by(target, args),
            ("bind", _) => maker.bind(args),
            _ => maker.transform(function, target, args),
        },
    };
    match result {
        Ok(expr) => expr,
        Err((at, why)) => maker.parser.problem(at, why),
    }
}

type Made = Result<Expr, (u32, String)>;

struct Maker<'m, 'p> {
    parser: &'m mut Parser<'p>,
    pos: u32,
}

impl Maker<'_, '_> {
    fn node(&mut self, kind: ExprKind) -> Expr {
        self.parser.node(self.pos, kind)
    }

    fn ident(&mut self, name: &str) -> Expr {
        self.node(ExprKind::Ident(name.into()))
    }

    fn accu(&mut self) -> Expr {
        self.ident(ACCUMULATOR)
    }

    fn literal(&mut self, value: Literal) -> Expr {
        self.node(ExprKind::Literal(value))
    }

    fn call(&mut self, function: &str, args: Vec<Expr>) -> Expr {
        self.parser.call(self.pos, function, None, args)
    }

    fn member(&mut self, function: &str, target: Expr, args: Vec<Expr>) -> Expr {
        self.parser.call(self.pos, function, Some(target), args)
    }

    fn list(&mut self, items: Vec<Expr>) -> Expr {
        self.node(ExprKind::List(items.into_iter().map(|expr| Element { expr, optional: false }).collect()))
    }

    /// A loop that only gives `init` a name within `result`.
    fn binding(&mut self, name: &Arc<str>, init: Expr, result: Expr) -> Expr {
        let range = self.list(Vec::new());
        let condition = self.literal(Literal::Bool(false));
        let step = self.ident(name);
        let (var, accu) = (UNUSED.into(), name.clone());
        self.node(ExprKind::Comprehension(Box::new(Comprehension {
            range,
            var,
            var2: None,
            accu,
            init,
            condition,
            step,
            result,
        })))
    }

    fn has(&mut self, mut args: Vec<Expr>) -> Made {
        let arg = args.remove(0);
        match arg.kind {
            ExprKind::Select(select) if !select.test_only => {
                Ok(self.node(ExprKind::Select(Box::new(Select { test_only: true, ..*select }))))
            }
            _ => Err((arg.pos, "invalid argument to has() macro".into())),
        }
    }

    /// The loop variable that an argument names.
    fn variable(arg: &Expr, otherwise: &str) -> Result<Arc<str>, (u32, String)> {
        let name = arg.as_ident().ok_or_else(|| (arg.pos, otherwise.to_owned()))?;
        if &**name == ACCUMULATOR || &**name == "__result__" {
            return Err((arg.pos, "iteration variable overwrites accumulator variable".into()));
        }
        Ok(name.clone())
    }

    fn two_variables(args: &mut Vec<Expr>) -> Result<(Arc<str>, Arc<str>), (u32, String)> {
        let (first, second) = (args.remove(0), args.remove(0));
        let why = "argument must be a simple name";
        let plain = |arg: &Expr| arg.as_ident().cloned().ok_or_else(|| (arg.pos, why.to_owned()));
        let (a, b) = (plain(&first)?, plain(&second)?);
        if a == b {
            return Err((second.pos, format!("duplicate variable name: {a}")));
        }
        Ok((Self::variable(&first, why)?, Self::variable(&second, why)?))
    }

    fn quantifier(&mut self, function: &str, target: Expr, mut args: Vec<Expr>) -> Made {
        let (var, var2) = if args.len() == 3 {
            let (var, var2) = Self::two_variables(&mut args)?;
            (var, Some(var2))
        } else {
            (Self::variable(&args.remove(0), "argument must be a simple name")?, None)
        };
        let predicate = args.remove(0);
        let (init, condition, step, result);
        match function {
            "all" => {
                init = self.literal(Literal::Bool(true));
                let accu = self.accu();
                condition = self.call(op::NOT_STRICTLY_FALSE, vec![accu]);
                let accu = self.accu();
                step = self.call(op::AND, vec![accu, predicate]);
                result = self.accu();
            }
            "exists" => {
                init = self.literal(Literal::Bool(false));
                let accu = self.accu();
                let not = self.call(op::NOT, vec![accu]);
                condition = self.call(op::NOT_STRICTLY_FALSE, vec![not]);
                let accu = self.accu();
                step = self.call(op::OR, vec![accu, predicate]);
                result = self.accu();
            }
            _ => {
                init = self.literal(Literal::Int(0));
                condition = self.literal(Literal::Bool(true));
                let (accu, one, same) = (self.accu(), self.literal(Literal::Int(1)), self.accu());
                let sum = self.call(op::ADD, vec![accu, one]);
                step = self.call(op::CONDITIONAL, vec![predicate, sum, same]);
                let (accu, one) = (self.accu(), self.literal(Literal::Int(1)));
                result = self.call(op::EQUALS, vec![accu, one]);
            }
        }
        let accu = ACCUMULATOR.into();
        Ok(self.node(ExprKind::Comprehension(Box::new(Comprehension {
            range: target,
            var,
            var2,
            accu,
            init,
            condition,
            step,
            result,
        }))))
    }

    /// A loop that gathers: `init`, then `step` for each item that `filter` lets pass.
    fn gather(
        &mut self,
        range: Expr,
        vars: (Arc<str>, Option<Arc<str>>),
        init: Expr,
        filter: Option<Expr>,
        step: Expr,
    ) -> Expr {
        let step = match filter {
            Some(filter) => {
                let same = self.accu();
                self.call(op::CONDITIONAL, vec![filter, step, same])
            }
            None => step,
        };
        let condition = self.literal(Literal::Bool(true));
        let result = self.accu();
        let (var, var2) = vars;
        let accu = ACCUMULATOR.into();
        self.node(ExprKind::Comprehension(Box::new(Comprehension {
            range,
            var,
            var2,
            accu,
            init,
            condition,
            step,
            result,
        })))
    }

    fn map(&mut self, filter: bool, target: Expr, mut args: Vec<Expr>) -> Made {
        let item = args.remove(0);
        let var = Self::variable(&item, "argument is not an identifier")?;
        let (filter, transform) = if filter {
            (Some(args.remove(0)), item)
        } else if args.len() == 2 {
            (Some(args.remove(0)), args.remove(0))
        } else {
            (None, args.remove(0))
        };
        let init = self.list(Vec::new());
        let accu = self.accu();
        let one = self.list(vec![transform]);
        let step = self.call(op::ADD, vec![accu, one]);
        Ok(self.gather(target, (var, None), init, filter, step))
    }

    fn transform(&mut self, function: &str, target: Expr, mut args: Vec<Expr>) -> Made {
        let (var, var2) = Self::two_variables(&mut args)?;
        let filter = (args.len() == 2).then(|| args.remove(0));
        let transform = args.remove(0);
        let accu = self.accu();
        let (init, step) = match function {
            "transformList" => {
                let one = self.list(vec![transform]);
                (self.list(Vec::new()), self.call(op::ADD, vec![accu, one]))
            }
            "transformMap" => {
                let key = self.ident(&var);
                (self.node(ExprKind::Map(Vec::new())), self.call(op::MAP_INSERT, vec![accu, key, transform]))
            }
            _ => (self.node(ExprKind::Map(Vec::new())), self.call(op::MAP_INSERT, vec![accu, transform])),
        };
        Ok(self.gather(target, (var, Some(var2)), init, filter, step))
    }

    fn opt_map(&mut self, wrap: bool, target: Expr, mut args: Vec<Expr>) -> Made {
        let item = args.remove(0);
        let function = if wrap { "optMap" } else { "optFlatMap" };
        let name = item
            .as_ident()
            .cloned()
            .ok_or_else(|| (item.pos, format!("{function}() variable name must be a simple identifier")))?;
        let transform = args.remove(0);
        // The target is there twice, and evaluated twice: chains of this macro double.
        let mut count = 0;
        target.walk(&mut |_| count += 1);
        if self.parser.is_full(count) {
            return Err((self.pos, format!("expression count exceeds limit while expanding macro '{function}'")));
        }
        let again = self.parser.copy(&target);
        let test = self.member("hasValue", target, Vec::new());
        let value = self.member("value", again, Vec::new());
        let mut some = self.binding(&name, value, transform);
        if wrap {
            some = self.call("optional.of", vec![some]);
        }
        let none = self.call("optional.none", Vec::new());
        Ok(self.call(op::CONDITIONAL, vec![test, some, none]))
    }

    fn sort_by(&mut self, target: Expr, args: Vec<Expr>) -> Made {
        if matches!(target.kind, ExprKind::Literal(_) | ExprKind::Map(_) | ExprKind::Struct(_)) {
            let why = "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
            return Err((target.pos, why.into()));
        }
        let name: Arc<str> = "@__sortBy_input__".into();
        let input = self.ident(&name);
        let keys = self.map(false, input, args)?;
        let input = self.ident(&name);
        let sorted = self.member("@sortByAssociatedKeys", input, vec![keys]);
        Ok(self.binding(&name, target, sorted))
    }

    fn bind(&mut self, mut args: Vec<Expr>) -> Made {
        let (variable, init, result) = (args.remove(0), args.remove(0), args.remove(0));
        let Some(name) = variable.as_ident().cloned() else {
            return Err((variable.pos, "cel.bind() variable names must be simple identifiers".into()));
        };
        Ok(self.binding(&name, init, result))
    }
}
