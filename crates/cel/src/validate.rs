//! Literals that cannot work, found before running (cel-go's `cel/validator.go`, `ext/formatting.go`).

use crate::ast::{Expr, ExprKind};
use crate::check::Checked;
use crate::convert::{to_duration, to_timestamp};
use crate::env::{Env, Version};
use crate::issues::Issues;
use crate::library::format::{Clause, Part, parts};
use crate::types::Type;
use crate::value::{Literal, Value};

/// Checks literals of durations, timestamps, patterns and formats, and that aggregates are of one type.
pub(crate) fn literals(env: &Env, checked: &Checked, issues: &mut Issues) {
    if !env.mixed_literals {
        aggregates(checked, &checked.expr, issues);
    }
    if env.version < Version(1, 29) {
        return;
    }
    let mut check = |name: &str, ok: &dyn Fn(&Value<'_>) -> bool| {
        checked.expr.walk(&mut |expr| {
            let ExprKind::Call(call) = &expr.kind else { return };
            let Some(arg) = call.args.first().filter(|_| &*call.function == name) else { return };
            if let ExprKind::Literal(literal) = &arg.kind
                && !ok(&literal.into())
            {
                issues.report(arg.pos, format!("invalid {name} argument"));
            }
        });
    };
    check("duration", &|value| to_duration(value).is_ok());
    check("timestamp", &|value| to_timestamp(value).is_ok());
    // As upstream, of the first argument, be it the text or the pattern.
    check("matches", &|value| value.as_str().is_none_or(|pattern| crate::library::regex::compile(pattern).is_ok()));
    checked.expr.walk(&mut |expr| format(checked, expr, issues));
}

/// Lists and maps of one type of items, but for the arguments of `format`.
fn aggregates(checked: &Checked, root: &Expr, issues: &mut Issues) {
    let mut exempt = Vec::new();
    root.walk(&mut |expr| {
        if matches!(&expr.kind, ExprKind::Call(call) if &*call.function == "format") {
            expr.walk(&mut |below| exempt.push(below.id));
        }
    });
    exempt.sort_unstable();
    root.walk(&mut |expr| {
        if exempt.binary_search(&expr.id).is_ok() {
            return;
        }
        let of = |expr: &Expr, optional: bool| {
            let ty = checked.type_of(expr.id);
            if optional { ty.unwrap_optional().0 } else { ty.clone() }
        };
        let mismatch = |issues: &mut Issues, expr: &Expr, expected: &Type, found: &Type| {
            if expected != found {
                issues.report(expr.pos, format!("expected type '{expected}' but found '{found}'"));
            }
            expected != found
        };
        match &expr.kind {
            ExprKind::List(items) => {
                let mut first = None;
                for item in items {
                    let ty = of(&item.expr, item.optional);
                    let expected = first.get_or_insert_with(|| ty.clone());
                    if mismatch(issues, &item.expr, expected, &ty) {
                        break;
                    }
                }
            }
            ExprKind::Map(entries) => {
                let mut first = None;
                for entry in entries {
                    let types = (of(&entry.key, false), of(&entry.value, entry.optional));
                    let expected = first.get_or_insert_with(|| types.clone());
                    mismatch(issues, &entry.key, &expected.0, &types.0);
                    mismatch(issues, &entry.value, &expected.1, &types.1);
                }
            }
            _ => {}
        }
    });
}

/// A constant format with a list literal: each clause can print its argument, and all arguments are used.
fn format(checked: &Checked, expr: &Expr, issues: &mut Issues) {
    let ExprKind::Call(call) = &expr.kind else { return };
    let (Some(target), [list], "format") = (&call.target, &call.args[..], &*call.function) else { return };
    let (ExprKind::Literal(Literal::Str(text)), ExprKind::List(items)) = (&target.kind, &list.kind) else { return };
    let clauses: Vec<Clause> = match parts(text, items.len()) {
        Ok(parts) => parts
            .into_iter()
            .filter_map(|part| if let Part::Clause(clause) = part { Some(clause) } else { None })
            .collect(),
        Err(why) => return issues.report(expr.pos, why),
    };
    for (clause, item) in clauses.iter().zip(items) {
        if let Some(bad) = refused(checked, *clause, &item.expr) {
            let why = clause.refusal(checked.type_of(bad.id).runtime_name());
            return issues.report(bad.pos, format!("error during formatting: {why}"));
        }
    }
    if items.len() > clauses.len() {
        let (expected, got) = (clauses.len(), items.len());
        issues
            .report(expr.pos, format!("too many arguments supplied to string.format (expected {expected}, got {got})"));
    }
}

/// The part of an argument that a clause cannot print.
fn refused<'e>(checked: &Checked, clause: Clause, expr: &'e Expr) -> Option<&'e Expr> {
    let ty = checked.type_of(expr.id);
    let ok = match clause {
        _ if ty.is_dyn() => true,
        Clause::Text => !matches!(ty, Type::Object(_) | Type::Opaque(_) | Type::Optional(_)),
        Clause::Decimal | Clause::Octal => matches!(ty, Type::Int | Type::Uint),
        Clause::Fixed(_) | Clause::Scientific(_) => matches!(ty, Type::Double | Type::String),
        Clause::Binary => matches!(ty, Type::Int | Type::Uint | Type::Bool),
        Clause::Hex(_) => matches!(ty, Type::Int | Type::Uint | Type::String | Type::Bytes),
    };
    if !ok {
        return Some(expr);
    }
    match (&expr.kind, clause) {
        (ExprKind::List(items), Clause::Text) => items.iter().find_map(|item| refused(checked, clause, &item.expr)),
        (ExprKind::Map(entries), Clause::Text) => entries
            .iter()
            .find_map(|entry| refused(checked, clause, &entry.key).or_else(|| refused(checked, clause, &entry.value))),
        _ => None,
    }
}
