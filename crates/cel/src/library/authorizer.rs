//! The authorizer (`k8s.io/apiserver/pkg/cel/library/authz.go`).

use std::sync::Arc;

use corten_schema::names;

use crate::authz::{Authz, Decision, Stage};
use crate::env::Version;
use crate::error::EvalError;
use crate::function::{Library, Row};
use crate::value::Value;

type Answer<'a> = Result<Value<'a>, EvalError>;

pub(crate) const LIBRARY: Library = Library {
    since: Version(1, 27),
    rows: &[
        Row(
            "path",
            "authorizer_path",
            "kubernetes.authorization.Authorizer.(string) -> kubernetes.authorization.PathCheck",
            path,
        ),
        Row(
            "group",
            "authorizer_group",
            "kubernetes.authorization.Authorizer.(string) -> kubernetes.authorization.GroupCheck",
            group,
        ),
        Row(
            "serviceAccount",
            "authorizer_serviceaccount",
            "kubernetes.authorization.Authorizer.(string, string) -> kubernetes.authorization.Authorizer",
            service_account,
        ),
        Row(
            "resource",
            "groupcheck_resource",
            "kubernetes.authorization.GroupCheck.(string) -> kubernetes.authorization.ResourceCheck",
            resource,
        ),
        Row(
            "subresource",
            "resourcecheck_subresource",
            "kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck",
            subresource,
        ),
        Row(
            "namespace",
            "resourcecheck_namespace",
            "kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck",
            namespace,
        ),
        Row(
            "name",
            "resourcecheck_name",
            "kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck",
            name,
        ),
        Row(
            "check",
            "pathcheck_check",
            "kubernetes.authorization.PathCheck.(string) -> kubernetes.authorization.Decision",
            check,
        ),
        Row(
            "check",
            "resourcecheck_check",
            "kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.Decision",
            check,
        ),
        Row("errored", "decision_errored", "kubernetes.authorization.Decision.() -> bool", errored),
        Row("error", "decision_error", "kubernetes.authorization.Decision.() -> string", error),
        Row("allowed", "decision_allowed", "kubernetes.authorization.Decision.() -> bool", allowed),
        Row("reason", "decision_reason", "kubernetes.authorization.Decision.() -> string", reason),
    ],
};

pub(crate) const SELECTORS: Library = Library {
    since: Version(1, 31),
    rows: &[
        Row(
            "fieldSelector",
            "authorizer_fieldselector",
            "kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck",
            field_selector,
        ),
        Row(
            "labelSelector",
            "authorizer_labelselector",
            "kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck",
            label_selector,
        ),
    ],
};

/// The check with one more thing known.
fn with<'a>(args: &[Value<'a>], set: fn(&mut Authz<'a>, String) -> Result<(), EvalError>) -> Answer<'a> {
    let [Value::Authz(of), Value::Str(text)] = args else { return Err(EvalError::no_such_overload()) };
    let mut of = (**of).clone();
    set(&mut of, text.to_string())?;
    Ok(Value::Authz(Arc::new(of)))
}

fn path<'a>(args: &[Value<'a>]) -> Answer<'a> {
    with(args, |of, text| {
        if text.trim().is_empty() {
            return Err(EvalError::new("path must not be empty"));
        }
        of.check.path = Some(text);
        of.stage = Stage::Path;
        Ok(())
    })
}

fn group<'a>(args: &[Value<'a>]) -> Answer<'a> {
    with(args, |of, text| {
        of.check.group = text;
        of.stage = Stage::Group;
        Ok(())
    })
}

fn service_account<'a>(args: &[Value<'a>]) -> Answer<'a> {
    let [Value::Authz(of), Value::Str(namespace), Value::Str(name)] = args else {
        return Err(EvalError::no_such_overload());
    };
    if !names::dns_subdomain(name).is_empty() {
        return Err(EvalError::new("Invalid service account name"));
    }
    if !names::dns_label(namespace).is_empty() {
        return Err(EvalError::new("Invalid service account namespace"));
    }
    let mut of = (**of).clone();
    of.check.service_account = Some((namespace.to_string(), name.to_string()));
    Ok(Value::Authz(Arc::new(of)))
}

fn resource<'a>(args: &[Value<'a>]) -> Answer<'a> {
    with(args, |of, text| {
        if text.trim().is_empty() {
            return Err(EvalError::new("resource must not be empty"));
        }
        of.check.resource = text;
        of.stage = Stage::Resource;
        Ok(())
    })
}

fn subresource<'a>(args: &[Value<'a>]) -> Answer<'a> {
    with(args, |of, text| {
        of.check.subresource = text;
        Ok(())
    })
}

fn namespace<'a>(args: &[Value<'a>]) -> Answer<'a> {
    with(args, |of, text| {
        of.check.namespace = text;
        Ok(())
    })
}

fn name<'a>(args: &[Value<'a>]) -> Answer<'a> {
    with(args, |of, text| {
        of.check.name = text;
        Ok(())
    })
}

fn field_selector<'a>(args: &[Value<'a>]) -> Answer<'a> {
    with(args, |of, text| {
        of.check.field_selector = text;
        Ok(())
    })
}

fn label_selector<'a>(args: &[Value<'a>]) -> Answer<'a> {
    with(args, |of, text| {
        of.check.label_selector = text;
        Ok(())
    })
}

fn check<'a>(args: &[Value<'a>]) -> Answer<'a> {
    with(args, |of, text| {
        of.check.verb = text;
        of.stage = Stage::Decided(of.authorizer.authorize(&of.check));
        Ok(())
    })
}

fn decision<'v>(args: &'v [Value<'_>]) -> Result<&'v Decision, EvalError> {
    match args {
        [Value::Authz(of)] => match &of.stage {
            Stage::Decided(decision) => Ok(decision),
            _ => Err(EvalError::no_such_overload()),
        },
        _ => Err(EvalError::no_such_overload()),
    }
}

fn errored<'a>(args: &[Value<'a>]) -> Answer<'a> {
    Ok(Value::Bool(decision(args)?.error.is_some()))
}

fn error<'a>(args: &[Value<'a>]) -> Answer<'a> {
    Ok(Value::str(decision(args)?.error.clone().unwrap_or_default()))
}

fn allowed<'a>(args: &[Value<'a>]) -> Answer<'a> {
    Ok(Value::Bool(decision(args)?.allowed))
}

fn reason<'a>(args: &[Value<'a>]) -> Answer<'a> {
    Ok(Value::str(decision(args)?.reason.clone()))
}
