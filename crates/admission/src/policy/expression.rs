//! Expressions over a request: what they may use, and their evaluation (`apiserver/pkg/admission/plugin/cel`).

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use corten_cel::{Authz, Budget, Env, EvalError, Lazy, PER_CALL_LIMIT, Program, Type, Value, Vars};
use corten_kinds::expressions::namespace_decl;
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

/// Which types a result may have.
#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    Any,
    Bool,
    Text,
    TextOrNull,
    Object,
    Patch,
}

impl Wanted {
    fn refusal(self, got: &Type) -> Option<String> {
        let is_object = |ty: &Type, name: &str| matches!(ty, Type::Object(object) if object.name == name);
        let (ok, what) = match self {
            Wanted::Any => (true, ""),
            Wanted::Bool => (*got == Type::Bool, "bool"),
            Wanted::Text => (*got == Type::String, "string"),
            Wanted::TextOrNull if matches!(got, Type::String | Type::Null) => (true, ""),
            Wanted::TextOrNull => return Some(format!("must evaluate to one of [string null_type] but got {got}")),
            Wanted::Object => (is_object(got, "Object"), "Object"),
            Wanted::Patch => (matches!(got, Type::List(item) if is_object(item, "JSONPatch")), "list(JSONPatch)"),
        };
        (!ok).then(|| format!("must evaluate to {what} but got {got}"))
    }
}

impl Expression {
    /// Compiles a source.
    pub fn compile(env: &Env, source: &str, wanted: Wanted) -> Expression {
        let program = match env.compile(source) {
            Ok(program) => match wanted.refusal(program.result_type()) {
                None => Ok(program),
                Some(why) => Err(why),
            },
            Err(issues) => Err(format!("compilation failed: {issues}")),
        };
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
    corten_kinds::expressions::with_variables(env, &types)
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
}

impl<'a> Input<'a> {
    pub fn new(
        documents: &'a Documents,
        params: Option<&'a Tree>,
        asker: &'a Asking<'a>,
        variables: &'a [(String, Expression)],
    ) -> Input<'a> {
        let computed = RefCell::new(vec![None; variables.len()]);
        Input { documents, params, asker, variables, computed, composed: Cell::new(0) }
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
