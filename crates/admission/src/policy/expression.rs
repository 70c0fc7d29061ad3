//! Expressions over a request: what they may use, and their evaluation (`apiserver/pkg/admission/plugin/cel`).

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use corten_cel::{Authz, Budget, Env, EvalError, Lazy, PER_CALL_LIMIT, Program, Type, Value, Vars};
use corten_kinds::expressions::{self, Wanted, namespace_decl};
use corten_tree::Tree;

use crate::asking::Asking;

/// What all expressions of a policy may cost for one request (`pkg/apis/cel/config.go`, RuntimeCELCostBudget).
pub(crate) const COST_BUDGET: u64 = 10_000_000;
/// The same for match conditions (RuntimeCELCostBudgetMatchConditions).
pub(crate) const COST_BUDGET_CONDITIONS: u64 = 2_500_000;

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// An expression, compiled or with what is wrong with it.
pub(crate) struct Expression {
    pub source: String,
    pub program: Result<Program, String>,
}

impl Expression {
    /// Compiles a source.
    pub fn compile(env: &Env, source: &str, wanted: Wanted) -> Expression {
        let program = expressions::compile(env, source, wanted);
        Expression { source: source.to_owned(), program }
    }

    /// The value, or what the client is told; what it costs is taken from `budget`. The outer error is that this is spent.
    pub fn evaluate<'a>(&self, input: &Input<'a>, budget: &mut u64) -> Result<Result<Value<'a>, String>, String> {
        let program = match &self.program {
            Ok(program) => program,
            Err(why) => return Ok(Err(format!("compilation error: {why}"))),
        };
        let mut own = Budget::new(PER_CALL_LIMIT);
        input.composed.set(0);
        let result = program.eval(input, &mut own);
        let cost = own.spent().saturating_add(input.composed.get());
        *budget = budget.checked_sub(cost).ok_or(OUT_OF_BUDGET)?;
        Ok(result.map_err(|error| format!("expression '{}' resulted in error: {error}", self.source)))
    }
}

/// The environment with these variables of a policy.
pub(crate) fn with_variables(env: Env, variables: &[(String, Expression)]) -> Env {
    let types: Vec<(String, Type)> = variables
        .iter()
        .map(|(name, of)| {
            (name.clone(), of.program.as_ref().map_or(Type::Dyn, |program| program.result_type().clone()))
        })
        .collect();
    expressions::with_variables(env, &types)
}

/// Trees that expressions read.
pub(crate) struct Documents {
    pub object: Option<Tree>,
    pub old: Option<Tree>,
    pub request: Tree,
    pub namespace: Option<Tree>,
}

/// What expressions about one request read.
pub(crate) struct Input<'a> {
    pub documents: &'a Documents,
    pub params: Option<&'a Tree>,
    pub asker: &'a Asking<'a>,
    pub variables: &'a [(String, Expression)],
    computed: RefCell<Vec<Option<Result<Value<'a>, EvalError>>>>,
    /// What computing variables has cost.
    composed: Cell<u64>,
    /// Whether they do not see the namespace.
    no_namespace: bool,
}

impl<'a> Input<'a> {
    pub fn new(
        documents: &'a Documents,
        params: Option<&'a Tree>,
        asker: &'a Asking<'a>,
        variables: &'a [(String, Expression)],
    ) -> Input<'a> {
        let computed = RefCell::new(vec![None; variables.len()]);
        Input { documents, params, asker, variables, computed, composed: Cell::new(0), no_namespace: false }
    }

    /// As match conditions see it: they have no variables, and their `namespaceObject` is null (`matchconditions/matcher.go`).
    pub fn of_conditions(documents: &'a Documents, params: Option<&'a Tree>, asker: &'a Asking<'a>) -> Input<'a> {
        Input { no_namespace: true, ..Input::new(documents, params, asker, &[]) }
    }

    fn variable(&self, at: usize) -> Result<Value<'a>, EvalError> {
        let (name, expression) = &self.variables[at];
        let program = expression
            .program
            .as_ref()
            .map_err(|why| EvalError::new(format!("composited variable {name:?} fails to compile: {why}")))?;
        let mut budget = Budget::new(PER_CALL_LIMIT);
        let value = program.eval(self, &mut budget);
        self.composed.set(self.composed.get().saturating_add(budget.spent()));
        value.map_err(|error| EvalError::new(format!("composited variable {name:?} fails to evaluate: {error}")))
    }
}

impl<'a> Vars<'a> for Input<'a> {
    fn get(&self, name: &str, _: &mut Budget) -> Option<Result<Value<'a>, EvalError>> {
        let read = |tree: Option<&'a Tree>| Some(Ok(tree.map_or(Value::Null, Value::of_tree)));
        let documents = self.documents;
        match name {
            "object" => read(documents.object.as_ref()),
            "oldObject" => read(documents.old.as_ref()),
            "params" => read(self.params),
            "request" => read(Some(&documents.request)),
            "namespaceObject" => match &documents.namespace {
                _ if self.no_namespace => read(None),
                Some(tree) => Some(Value::declared(tree, namespace_decl())),
                None => read(None),
            },
            "authorizer" => Some(Ok(Value::Authz(Arc::new(Authz::new(self.asker))))),
            "authorizer.requestResource" => {
                Some(Ok(Value::Authz(Arc::new(Authz::of_resource(self.asker, self.asker.of_request())))))
            }
            "variables" => {
                let lazy = Lazy { variable: "variables".into(), type_name: "kubernetes.variables".into() };
                Some(Ok(Value::Lazy(Arc::new(lazy))))
            }
            _ => None,
        }
    }

    fn field(&self, _: &str, field: &str, _: &mut Budget) -> Option<Result<Value<'a>, EvalError>> {
        let at = self.variables.iter().position(|(name, _)| name == field)?;
        if let Some(known) = &self.computed.borrow()[at] {
            return Some(known.clone());
        }
        let value = self.variable(at);
        self.computed.borrow_mut()[at] = Some(value.clone());
        Some(value)
    }
}
