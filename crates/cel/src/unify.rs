//! Type variables and what they stand for (cel-go's `checker/types.go`, `mapping.go`).

use std::sync::Arc;

use crate::types::Type;

/// What each variable stands for, with a log to take changes back.
#[derive(Default)]
pub(crate) struct Unifier {
    bound: Vec<Option<Type>>,
    trail: Vec<(u32, Option<Type>)>,
}

impl Unifier {
    /// A variable that stands for nothing yet.
    pub(crate) fn fresh(&mut self) -> Type {
        self.bound.push(None);
        Type::Var(self.bound.len() as u32 - 1)
    }

    fn find(&self, ty: &Type) -> Option<&Type> {
        match ty {
            Type::Var(number) => self.bound[*number as usize].as_ref(),
            _ => None,
        }
    }

    fn bind(&mut self, var: &Type, to: Type) {
        if let Type::Var(number) = var {
            let old = self.bound[*number as usize].replace(to);
            self.trail.push((*number, old));
        }
    }

    fn undo_to(&mut self, mark: usize) {
        while self.trail.len() > mark {
            if let Some((number, old)) = self.trail.pop() {
                self.bound[number as usize] = old;
            }
        }
    }

    /// The type with its variables replaced; those that stand for nothing become `dyn` if `to_dyn`.
    pub(crate) fn substitute(&self, ty: &Type, to_dyn: bool) -> Type {
        if let Some(bound) = self.find(ty) {
            return self.substitute(bound, to_dyn);
        }
        let sub = |of: &Arc<Type>| Arc::new(self.substitute(of, to_dyn));
        match ty {
            Type::Var(_) if to_dyn => Type::Dyn,
            Type::List(item) => Type::List(sub(item)),
            Type::Map(key, value) => Type::Map(sub(key), sub(value)),
            Type::Optional(value) => Type::Optional(sub(value)),
            Type::Type(Some(of)) => Type::Type(Some(sub(of))),
            other => other.clone(),
        }
    }

    /// Whether `a` is assignable to `b`; if so, variables are bound to make it true.
    pub(crate) fn assignable(&mut self, a: &Type, b: &Type) -> bool {
        let mark = self.trail.len();
        let ok = self.assign(a, b);
        if !ok {
            self.undo_to(mark);
        }
        ok
    }

    /// [`Unifier::assignable`] for all pairs or none.
    pub(crate) fn all_assignable(&mut self, a: &[Type], b: &[Type]) -> bool {
        let mark = self.trail.len();
        let ok = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| self.assign(a, b));
        if !ok {
            self.undo_to(mark);
        }
        ok
    }

    fn assign(&mut self, a: &Type, b: &Type) -> bool {
        if matches!(b, Type::Var(_)) {
            let (valid, bound) = self.substitution(a, b);
            if valid || bound {
                return valid;
            }
        }
        if matches!(a, Type::Var(_)) {
            return self.substitution(b, a).0;
        }
        if a.is_dyn_or_error() || b.is_dyn_or_error() {
            return true;
        }
        let nullable = |ty: &Type| {
            matches!(
                ty,
                Type::Null | Type::Object(_) | Type::Opaque(_) | Type::Optional(_) | Type::Duration | Type::Timestamp
            )
        };
        match (a, b) {
            (Type::Null, other) | (other, Type::Null) => nullable(other),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(x), Type::List(y)) | (Type::Optional(x), Type::Optional(y)) => self.assign(x, y),
            (Type::Map(k1, v1), Type::Map(k2, v2)) => self.assign(k1, k2) && self.assign(v1, v2),
            _ => a == b,
        }
    }

    /// Whether variable `var` may stand for `ty`, and whether it stood for something before.
    fn substitution(&mut self, ty: &Type, var: &Type) -> (bool, bool) {
        if ty == var {
            return (true, true);
        }
        if let Some(bound) = self.find(var).cloned() {
            if *ty == bound {
                return (true, true);
            }
            if self.assign(ty, &bound) {
                let general = if less_specific(ty, &bound) { ty.clone() } else { bound };
                if self.not_within(var, &general) {
                    self.bind(var, general);
                }
                return (true, true);
            }
            return (false, true);
        }
        if self.not_within(var, ty) {
            self.bind(var, ty.clone());
            return (true, false);
        }
        (false, false)
    }

    fn not_within(&self, var: &Type, ty: &Type) -> bool {
        if var == ty {
            return false;
        }
        match ty {
            Type::Var(_) => self.find(ty).is_none_or(|bound| self.not_within(var, bound)),
            Type::List(inner) | Type::Optional(inner) | Type::Type(Some(inner)) => self.not_within(var, inner),
            Type::Map(key, value) => self.not_within(var, key) && self.not_within(var, value),
            _ => true,
        }
    }
}

/// The more general of two types that go together.
pub(crate) fn most_general(a: &Type, b: &Type) -> Type {
    if less_specific(a, b) { a.clone() } else { b.clone() }
}

/// Whether `a` is equal to `b` or less specific.
fn less_specific(a: &Type, b: &Type) -> bool {
    if matches!(a, Type::Dyn | Type::Var(_)) {
        return true;
    }
    if matches!(b, Type::Dyn | Type::Var(_)) {
        return false;
    }
    match (a, b) {
        (Type::List(x), Type::List(y)) | (Type::Optional(x), Type::Optional(y)) => less_specific(x, y),
        (Type::Map(k1, v1), Type::Map(k2, v2)) => less_specific(k1, k2) && less_specific(v1, v2),
        (Type::Type(_), Type::Type(_)) => true,
        _ => a == b,
    }
}
