//! A compiled expression: type, cost, evaluation.

use crate::ast::{Expr, ExprKind, op::OPT_SELECT};
use crate::check::Checked;
use crate::cost::{CostEstimate, SizeEstimator, estimate};
use crate::env::Env;
use crate::error::EvalError;
use crate::eval::Evaluator;
use crate::plan::{Node, Planner};
use crate::types::Type;
use crate::value::{Literal, Value};

/// The most that one evaluation may cost (`pkg/apis/cel/config.go`, PerCallLimit).
pub const PER_CALL_LIMIT: u64 = 1_000_000;

/// What evaluations may still cost. One budget may serve several evaluations.
#[derive(Debug, Clone)]
pub struct Budget {
    limit: u64,
    spent: u64,
}

impl Budget {
    /// At most `limit` units.
    pub fn new(limit: u64) -> Budget {
        Budget { limit, spent: 0 }
    }

    /// No limit.
    pub fn unlimited() -> Budget {
        Budget::new(u64::MAX)
    }

    /// What was spent.
    pub fn spent(&self) -> u64 {
        self.spent
    }

    pub(crate) fn spend(&mut self, cost: u64) -> Result<(), EvalError> {
        self.spent = self.spent.saturating_add(cost);
        if self.spent > self.limit { Err(EvalError::over_budget()) } else { Ok(()) }
    }
}

/// The variables of an evaluation.
pub trait Vars<'a> {
    /// A variable's value; `None` if it has none. What computing it costs is taken from `budget`.
    fn get(&self, name: &str, budget: &mut Budget) -> Option<Result<Value<'a>, EvalError>>;

    /// A field of a variable whose value is [`Value::Lazy`].
    fn field(&self, variable: &str, field: &str, budget: &mut Budget) -> Option<Result<Value<'a>, EvalError>> {
        let _ = (variable, field, budget);
        None
    }
}

impl<'a, const N: usize> Vars<'a> for [(&str, Value<'a>); N] {
    fn get(&self, name: &str, budget: &mut Budget) -> Option<Result<Value<'a>, EvalError>> {
        <[(&str, Value<'a>)] as Vars<'a>>::get(self, name, budget)
    }
}

impl<'a> Vars<'a> for [(&str, Value<'a>)] {
    fn get(&self, name: &str, _: &mut Budget) -> Option<Result<Value<'a>, EvalError>> {
        self.iter().find(|(have, _)| *have == name).map(|(_, value)| Ok(value.clone()))
    }
}

/// A compiled expression. Immutable and shared between threads.
pub struct Program {
    checked: Checked,
    root: Node,
    slots: usize,
    variables: std::sync::Arc<std::collections::BTreeMap<String, crate::decl::Decl>>,
}

impl Program {
    pub(crate) fn new(env: &Env, checked: Checked) -> Result<Program, EvalError> {
        let mut planner = Planner::new(&checked);
        let root = planner.node(&checked.expr)?;
        let slots = planner.slots();
        Ok(Program { root, slots, checked, variables: env.variables.clone() })
    }

    /// The type of the result.
    pub fn result_type(&self) -> &Type {
        self.checked.type_of(self.checked.expr.id)
    }

    /// The names of the variables and of variables' fields that the expression reads (`variables.x`), for cycles and the like.
    pub fn reads(&self, variable: &str) -> bool {
        let mut found = false;
        self.checked.expr.walk(&mut |expr| found |= expr.as_ident().is_some_and(|name| &**name == variable));
        found
    }

    /// Whether the expression reads a field of a variable: `variable.field` or `variable.?field`.
    pub fn selects(&self, variable: &str, field: &str) -> bool {
        let of_variable = |expr: &Expr| expr.as_ident().is_some_and(|name| &**name == variable);
        let is_field = |expr: &Expr| matches!(&expr.kind, ExprKind::Literal(Literal::Str(text)) if &**text == field);
        let mut found = false;
        self.checked.expr.walk(&mut |expr| {
            found |= match &expr.kind {
                ExprKind::Select(select) => of_variable(&select.operand) && &*select.field == field,
                ExprKind::Call(call) => {
                    &*call.function == OPT_SELECT
                        && matches!(&call.args[..], [operand, name] if of_variable(operand) && is_field(name))
                }
                _ => false,
            };
        });
        found
    }

    /// What an evaluation will cost, with the sizes that `sizes` knows of.
    pub fn cost_estimate_with(&self, sizes: &dyn SizeEstimator) -> CostEstimate {
        estimate(&self.checked, sizes)
    }

    /// What an evaluation will cost, with the sizes of the environment's declarations.
    pub fn cost_estimate(&self) -> CostEstimate {
        estimate(&self.checked, &*self.variables)
    }

    /// Evaluates. What it costs is taken from `budget`.
    pub fn eval<'a>(&self, vars: &dyn Vars<'a>, budget: &mut Budget) -> Result<Value<'a>, EvalError> {
        Evaluator::new(vars, budget, self.slots).exec(&self.root)
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Program -> {}", self.result_type())
    }
}
