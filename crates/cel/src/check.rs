//! The type checker (cel-go's `checker/checker.go`).

use std::sync::Arc;

use crate::ast::{Call, Comprehension, Expr, ExprKind, Id, op};
use crate::env::Env;
use crate::function::Function;
use crate::issues::Issues;
use crate::types::Type;
use crate::unify::{Unifier, most_general};
use crate::value::Literal;

/// What a name or call stands for.
#[derive(Clone)]
pub(crate) enum Reference {
    /// A variable.
    Variable,
    /// The name of a type.
    TypeName(Type),
    /// These overloads of a function.
    Overloads(Arc<Function>, Vec<usize>),
    /// `a.?b`.
    OptionalSelect,
}

/// A checked tree.
pub(crate) struct Checked {
    pub(crate) expr: Expr,
    types: Vec<Option<Type>>,
    references: Vec<Option<Reference>>,
}

impl Checked {
    /// The type of a node.
    pub(crate) fn type_of(&self, id: Id) -> &Type {
        self.types.get(id as usize).and_then(Option::as_ref).unwrap_or(&Type::Dyn)
    }

    /// What a node stands for.
    pub(crate) fn reference(&self, id: Id) -> Option<&Reference> {
        self.references.get(id as usize).and_then(Option::as_ref)
    }
}

/// Checks `expr`, which has ids below `nodes`.
pub(crate) fn check(env: &Env, expr: Expr, nodes: u32, issues: &mut Issues) -> Checked {
    let mut expr = expr;
    let (types, references) = (vec![None; nodes as usize + 1], vec![None; nodes as usize + 1]);
    let mut checker = Checker { env, issues, unifier: Unifier::default(), scopes: Vec::new(), types, references };
    checker.check(&mut expr);
    let Checker { unifier, types, references, .. } = checker;
    let types = types.into_iter().map(|ty| ty.map(|ty| unifier.substitute(&ty, true))).collect();
    Checked { expr, types, references }
}

struct Checker<'c> {
    env: &'c Env,
    issues: &'c mut Issues,
    unifier: Unifier,
    /// Variables of loops, innermost last.
    scopes: Vec<(Arc<str>, Type)>,
    types: Vec<Option<Type>>,
    references: Vec<Option<Reference>>,
}

impl Checker<'_> {
    fn set(&mut self, id: Id, ty: Type) {
        self.types[id as usize] = Some(ty);
    }

    fn get(&self, expr: &Expr) -> Type {
        self.types[expr.id as usize].clone().unwrap_or(Type::Error)
    }

    fn report(&mut self, pos: u32, message: String) {
        self.issues.report(pos, message);
    }

    fn mismatch(&mut self, pos: u32, expected: &Type, found: &Type) {
        self.report(pos, format!("expected type '{expected}' but found '{found}'"));
    }

    fn undeclared(&mut self, pos: u32, name: &str) {
        self.report(pos, format!("undeclared reference to '{name}' (in container '')"));
    }

    fn check(&mut self, expr: &mut Expr) {
        let id = expr.id;
        match &mut expr.kind {
            ExprKind::Unspecified => self.set(id, Type::Error),
            ExprKind::Literal(literal) => {
                let ty = match literal {
                    Literal::Null => Type::Null,
                    Literal::Bool(_) => Type::Bool,
                    Literal::Int(_) => Type::Int,
                    Literal::Uint(_) => Type::Uint,
                    Literal::Double(_) => Type::Double,
                    Literal::Str(_) => Type::String,
                    Literal::Bytes(_) => Type::Bytes,
                };
                self.set(id, ty);
            }
            ExprKind::Ident(_) => self.check_ident(expr),
            ExprKind::Select(_) => self.check_select(expr),
            ExprKind::Call(_) => self.check_call(expr),
            ExprKind::List(_) => self.check_list(expr),
            ExprKind::Map(_) => self.check_map(expr),
            ExprKind::Struct(_) => self.check_struct(expr),
            ExprKind::Comprehension(of) => {
                let ty = self.check_comprehension(of);
                self.set(id, ty);
            }
        }
    }

    fn local(&self, name: &str) -> Option<&Type> {
        self.scopes.iter().rev().find(|(have, _)| &**have == name).map(|(_, ty)| ty)
    }

    /// A global variable or a type's name. A name with a leading dot is never a loop's variable.
    fn global(&self, name: &str) -> Option<(Type, Reference)> {
        let name = name.strip_prefix('.').unwrap_or(name);
        if let Some(decl) = self.env.variables.get(name) {
            return Some((decl.ty.clone(), Reference::Variable));
        }
        let ty = self.env.find_type(name)?;
        Some((Type::of_type(ty.clone()), Reference::TypeName(ty)))
    }

    fn check_ident(&mut self, expr: &mut Expr) {
        let ExprKind::Ident(name) = &expr.kind else { return };
        let name = name.clone();
        if let Some(ty) = self.local(&name) {
            let ty = ty.clone();
            self.references[expr.id as usize] = Some(Reference::Variable);
            return self.set(expr.id, ty);
        }
        match self.global(&name) {
            Some((ty, reference)) => {
                self.references[expr.id as usize] = Some(reference);
                self.set(expr.id, ty);
                // A dot stays where the name of a loop's variable hides the global one.
                let plain = name.strip_prefix('.').unwrap_or(&name);
                if plain.len() != name.len() && self.local(plain).is_none() {
                    expr.kind = ExprKind::Ident(plain.into());
                }
            }
            None => {
                self.set(expr.id, Type::Error);
                self.undeclared(expr.pos, &name);
            }
        }
    }

    fn check_select(&mut self, expr: &mut Expr) {
        // A dotted name of a variable or a type.
        if let Some(full) = expr.qualified_name() {
            let root = full.trim_start_matches('.').split('.').next().unwrap_or_default();
            let hidden = !full.starts_with('.') && self.local(root).is_some();
            if let Some((ty, reference)) = self.global(&full).filter(|_| !hidden) {
                self.references[expr.id as usize] = Some(reference);
                self.set(expr.id, ty);
                expr.kind = ExprKind::Ident(full.strip_prefix('.').unwrap_or(&full).into());
                return;
            }
        }
        let (id, pos) = (expr.id, expr.pos);
        let ExprKind::Select(select) = &mut expr.kind else { return };
        let field = select.field.clone();
        let ty = self.select_field(pos, &mut select.operand, &field, false);
        let ty = if select.test_only { Type::Bool } else { self.unifier.substitute(&ty, false) };
        self.set(id, ty);
    }

    fn select_field(&mut self, pos: u32, operand: &mut Expr, field: &str, optional: bool) -> Type {
        self.check(operand);
        let operand = self.unifier.substitute(&self.get(operand), false);
        let (target, was_optional) = operand.unwrap_optional();
        let result = match &target {
            Type::Map(_, value) => (**value).clone(),
            Type::Object(object) if object.open => Type::Dyn,
            Type::Object(object) => match field_of(object, field) {
                Some(ty) => ty,
                None => {
                    self.report(pos, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            Type::Opaque(name) if name.starts_with("kubernetes.") => {
                self.report(pos, format!("unexpected failed resolution of '{name}'"));
                Type::Error
            }
            Type::Var(_) => {
                self.unifier.assignable(&Type::Dyn, &target);
                Type::Dyn
            }
            other => {
                if !other.is_dyn_or_error() {
                    self.report(pos, format!("type '{other}' does not support field selection"));
                }
                Type::Dyn
            }
        };
        if was_optional || optional { Type::optional(result) } else { result }
    }

    fn check_call(&mut self, expr: &mut Expr) {
        let (id, pos) = (expr.id, expr.pos);
        let ExprKind::Call(call) = &mut expr.kind else { return };
        if &*call.function == op::OPT_SELECT {
            return self.check_optional_select(id, pos, call);
        }
        for arg in &mut call.args {
            self.check(arg);
        }
        let functions = self.env.functions.clone();
        let name = call.function.clone();
        if let Some(target) = &mut call.target {
            // A namespaced function, such as `math.greatest`, or a member.
            let qualified =
                target.qualified_name().and_then(|prefix| functions.get(&format!("{prefix}.{name}")).cloned());
            if let Some(function) = qualified {
                call.function = function.name.into();
                call.target = None;
                return self.resolve(id, pos, call, &function);
            }
            self.check(target);
        }
        match functions.get(&name).cloned() {
            Some(function) => {
                call.function = function.name.into();
                self.resolve(id, pos, call, &function);
            }
            None => {
                self.set(id, Type::Error);
                self.undeclared(pos, &name);
            }
        }
    }

    fn check_optional_select(&mut self, id: Id, pos: u32, call: &mut Call) {
        let [operand, field] = &mut call.args[..] else { return self.set(id, Type::Error) };
        let ExprKind::Literal(Literal::Str(name)) = &field.kind else { return self.set(id, Type::Error) };
        let name = name.clone();
        let ty = self.select_field(pos, operand, &name, true);
        let ty = self.unifier.substitute(&ty, false);
        self.set(id, ty);
        self.references[id as usize] = Some(Reference::OptionalSelect);
    }

    fn resolve(&mut self, id: Id, pos: u32, call: &Call, function: &Arc<Function>) {
        let mut args: Vec<Type> = call.target.iter().chain(&call.args).map(|arg| self.get(arg)).collect();
        let member = call.target.is_some();
        if matches!(function.name, op::AND | op::OR) {
            let mut ok = true;
            for (arg, ty) in call.args.iter().zip(&args) {
                if !self.unifier.assignable(ty, &Type::Bool) {
                    let shown = self.unifier.substitute(ty, false);
                    self.mismatch(arg.pos, &Type::Bool, &shown);
                    ok = false;
                }
            }
            self.references[id as usize] = Some(Reference::Overloads(function.clone(), vec![0]));
            return self.set(id, if ok { Type::Bool } else { Type::Error });
        }
        let mut result: Option<Type> = None;
        let mut chosen = Vec::new();
        for (at, overload) in function.overloads.iter().enumerate() {
            if overload.member != member || overload.args.len() != args.len() {
                continue;
            }
            let mut vars = Vec::new();
            let wanted: Vec<Type> = overload.args.iter().map(|ty| self.instantiate(ty, &mut vars)).collect();
            if !self.unifier.all_assignable(&args, &wanted) {
                continue;
            }
            chosen.push(at);
            let ty = self.instantiate(&overload.result, &mut vars);
            let ty = self.unifier.substitute(&ty, false);
            result = Some(match result {
                Some(have) if !have.is_dyn() && have != ty => Type::Dyn,
                Some(have) => have,
                None => ty,
            });
        }
        let Some(result) = result else {
            args.iter_mut().for_each(|ty| *ty = self.unifier.substitute(ty, true));
            let shown: Vec<String> = args.iter().map(Type::to_string).collect();
            let signature = match member {
                true => format!("{}.({})", shown[0], shown[1..].join(", ")),
                false => format!("({})", shown.join(", ")),
            };
            self.report(pos, format!("found no matching overload for '{}' applied to '{signature}'", function.name));
            return self.set(id, Type::Error);
        };
        self.references[id as usize] = Some(Reference::Overloads(function.clone(), chosen));
        self.set(id, result);
    }

    /// The type with a declaration's variables replaced by fresh ones.
    fn instantiate(&mut self, ty: &Type, vars: &mut Vec<(Arc<str>, Type)>) -> Type {
        match ty {
            Type::Param(name) => {
                if let Some((_, var)) = vars.iter().find(|(have, _)| have == name) {
                    return var.clone();
                }
                let var = self.unifier.fresh();
                vars.push((name.clone(), var.clone()));
                var
            }
            Type::List(item) => Type::list(self.instantiate(item, vars)),
            Type::Map(key, value) => Type::map(self.instantiate(key, vars), self.instantiate(value, vars)),
            Type::Optional(value) => Type::optional(self.instantiate(value, vars)),
            Type::Type(Some(of)) => Type::of_type(self.instantiate(of, vars)),
            other => other.clone(),
        }
    }

    /// The type of an item that is written with `?`.
    fn optional_item(&mut self, expr: &Expr, optional: bool) -> Type {
        let ty = self.get(expr);
        if !optional {
            return ty;
        }
        let (inner, was) = ty.unwrap_optional();
        if !was && !inner.is_dyn() {
            self.mismatch(expr.pos, &Type::optional(inner.clone()), &inner);
        }
        inner
    }

    fn join(&mut self, previous: Option<Type>, current: Type) -> Type {
        let Some(previous) = previous else { return current };
        if self.unifier.assignable(&previous, &current) {
            return most_general(&previous, &current);
        }
        // Mixed literals are found afterwards (`validate::literals`).
        Type::Dyn
    }

    fn check_list(&mut self, expr: &mut Expr) {
        let id = expr.id;
        let ExprKind::List(items) = &mut expr.kind else { return };
        let mut of = None;
        for item in items {
            self.check(&mut item.expr);
            let ty = self.optional_item(&item.expr, item.optional);
            of = Some(self.join(of, ty));
        }
        let of = of.unwrap_or_else(|| self.unifier.fresh());
        self.set(id, Type::list(of));
    }

    fn check_map(&mut self, expr: &mut Expr) {
        let id = expr.id;
        let ExprKind::Map(entries) = &mut expr.kind else { return };
        let (mut key_type, mut value_type) = (None, None);
        for entry in entries {
            self.check(&mut entry.key);
            let ty = self.get(&entry.key);
            key_type = Some(self.join(key_type, ty));
            self.check(&mut entry.value);
            let ty = self.optional_item(&entry.value, entry.optional);
            value_type = Some(self.join(value_type, ty));
        }
        let key_type = key_type.unwrap_or_else(|| self.unifier.fresh());
        let value_type = value_type.unwrap_or_else(|| self.unifier.fresh());
        self.set(id, Type::map(key_type, value_type));
    }

    fn check_struct(&mut self, expr: &mut Expr) {
        let (id, pos) = (expr.id, expr.pos);
        let ExprKind::Struct(of) = &mut expr.kind else { return };
        let name = of.name.strip_prefix('.').unwrap_or(&of.name).to_owned();
        let Some(ty) = self.env.find_type(&name) else {
            self.undeclared(pos, &of.name);
            return self.set(id, Type::Error);
        };
        let Type::Object(object) = ty else {
            self.report(pos, format!("'{name}' is not a message type"));
            return self.set(id, Type::Error);
        };
        of.name = name;
        self.set(id, Type::Object(object.clone()));
        for field in &mut of.fields {
            self.check(&mut field.value);
            let declared = match field_of(&object, &field.name) {
                Some(ty) => ty,
                None if object.open => Type::Dyn,
                None => {
                    self.report(field.pos, format!("undefined field '{}'", field.name));
                    Type::Error
                }
            };
            let given = self.optional_item(&field.value, field.optional);
            if !self.unifier.assignable(&declared, &given) {
                let given = self.unifier.substitute(&given, false);
                let name = &field.name;
                self.report(
                    field.pos,
                    format!("expected type of field '{name}' is '{declared}' but provided type is '{given}'"),
                );
            }
        }
    }

    fn check_comprehension(&mut self, of: &mut Comprehension) -> Type {
        self.check(&mut of.range);
        self.check(&mut of.init);
        let range = self.unifier.substitute(&self.get(&of.range), false);
        let accu = self.get(&of.init);
        let depth = self.scopes.len();
        self.scopes.push((of.accu.clone(), accu.clone()));
        let two = of.var2.is_some();
        let (var, var2) = match &range {
            Type::List(item) if two => (Type::Int, (**item).clone()),
            Type::List(item) => ((**item).clone(), Type::Dyn),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            Type::Dyn | Type::Error | Type::Var(_) => {
                self.unifier.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let why = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.report(of.range.pos, why);
                (Type::Error, Type::Error)
            }
        };
        self.scopes.push((of.var.clone(), var));
        if let Some(name) = &of.var2 {
            self.scopes.push((name.clone(), var2));
        }
        self.check(&mut of.condition);
        self.assert(&of.condition, &Type::Bool);
        self.check(&mut of.step);
        self.assert(&of.step, &accu);
        self.scopes.truncate(depth + 1);
        self.check(&mut of.result);
        self.scopes.truncate(depth);
        self.unifier.substitute(&self.get(&of.result), false)
    }

    fn assert(&mut self, expr: &Expr, ty: &Type) {
        let found = self.get(expr);
        if !self.unifier.assignable(ty, &found) {
            self.mismatch(expr.pos, ty, &found);
        }
    }
}

/// The type of a field; words of the language are found under their escaped names, too (`recognizeKeywordAsFieldName`).
pub(crate) fn field_of(object: &crate::types::Object, name: &str) -> Option<Type> {
    let escaped = || crate::escape::RESERVED.contains(&name).then(|| format!("__{name}__"));
    let field = object.fields.get(name).or_else(|| object.fields.get(&escaped()?));
    field.map(|field| field.decl.ty.clone())
}
