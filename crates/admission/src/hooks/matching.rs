//! Whether a webhook is asked, and in which version (`generic/webhook.go`, `ShouldCallHook`).

use std::sync::Arc;

use corten_kinds::{Kind, id};
use corten_object::{GroupVersionKind, LabelSelector, Status};
use corten_schema::{Schema, TypeId};
use corten_tree::Tree;

use super::config::{Hook, Rule, Subject};
use crate::policy::matching::{conditions_hold, documents};
use crate::{Operation, Request};

/// The objects of a request.
#[derive(Clone, Copy)]
pub(crate) struct Objects<'a> {
    pub object: Option<&'a Tree>,
    pub old: Option<&'a Tree>,
}

/// How a webhook or a policy is to see the request.
#[derive(Clone)]
pub(crate) struct Invocation {
    /// The kind that matched: the one that was asked for, or an equivalent one.
    pub kind: Arc<Kind>,
    /// The version that matched.
    pub version: String,
}

impl Invocation {
    /// What the object is in this version.
    pub fn gvk(&self, request: &Request<'_>) -> GroupVersionKind {
        request.body.cloned().unwrap_or_else(|| self.kind.gvk(&self.version))
    }

    /// The schema and the type of the object in this version.
    pub fn type_of<'s>(&'s self, request: &Request<'_>) -> (&'s Schema, Option<TypeId>) {
        match request.body {
            Some(body) => {
                let schema = corten_schema::builtin();
                (schema, schema.gvk(&body.group, &body.version, &body.kind))
            }
            None => (&self.kind.schema, self.kind.type_of(&self.version)),
        }
    }

    /// The object as it looks in this version.
    pub async fn to_version(&self, request: &Request<'_>, tree: &Tree) -> Result<Tree, Status> {
        match request.body {
            Some(_) => Ok(tree.clone()),
            None => request.cluster.to_version(&self.kind, &self.version, tree).await,
        }
    }

    /// The object from what it looks like in this version.
    #[expect(clippy::wrong_self_convention, reason = "it is the tree that comes from the version")]
    pub async fn from_version(&self, request: &Request<'_>, tree: Tree) -> Result<Tree, Status> {
        match request.body {
            Some(body) => request.cluster.decode_body(body, &tree),
            None => {
                let new = request.cluster.from_version(&self.kind, &self.version, tree).await?;
                // A custom resource is worked on at the version of the request.
                match request.kind.custom.is_some() && self.version != request.version {
                    true => request.cluster.to_version(&self.kind, request.version, &new).await,
                    false => Ok(new),
                }
            }
        }
    }
}

/// The first rule that fits decides in which version the webhook is asked; `None` if none fits.
pub(crate) fn by_rules(rules: &[Rule], equivalent: bool, request: &Request<'_>) -> Option<Invocation> {
    let subject = |kind: &'_ Kind, version: &'_ str| Resource {
        group: kind.group.clone(),
        resource: kind.plural.clone(),
        version: version.to_owned(),
    };
    let fits = |rule: &Rule, s: &Resource| {
        rule.matches(&Subject {
            operation: request.operation.as_str(),
            group: &s.group,
            version: &s.version,
            resource: &s.resource,
            subresource: request.subresource,
            namespaced: request.kind.id != id::NAMESPACE && !request.namespace.is_empty(),
        })
    };
    let asked = subject(request.asked, request.version);
    if rules.iter().any(|rule| fits(rule, &asked)) {
        return Some(Invocation { kind: request.asked.clone(), version: request.version.to_owned() });
    }
    if !equivalent {
        return None;
    }
    let registry = request.cluster.registry();
    let same = registry.iter().filter(|kind| kind.stored_as.unwrap_or(kind.id) == request.kind.id);
    let others: Vec<(Arc<Kind>, String)> = same
        .flat_map(|kind| kind.versions.iter().zip(&kind.served).map(move |(version, served)| (kind, version, *served)))
        .filter(|(_, _, served)| *served)
        .map(|(kind, version, _)| (kind.clone(), version.to_string()))
        .filter(|(kind, version)| kind.id != request.asked.id || version != request.version)
        .collect();
    // Earlier rules come first.
    rules.iter().find_map(|rule| {
        let found = others.iter().find(|(kind, version)| fits(rule, &subject(kind, version)))?;
        Some(Invocation { kind: found.0.clone(), version: found.1.clone() })
    })
}

/// The texts that a rule is compared with.
struct Resource {
    group: Arc<str>,
    resource: Arc<str>,
    version: String,
}

/// Whether the labels of the request's namespace fit (`predicates/namespace/matcher.go`).
pub(crate) fn namespace_fits(
    selector: &LabelSelector,
    request: &Request<'_>,
    objects: &Objects<'_>,
) -> Result<bool, Status> {
    let itself = request.is(id::NAMESPACE);
    if (request.namespace.is_empty() && request.kind.id != id::NAMESPACE) || selector.is_everything() {
        return Ok(true);
    }
    if itself && matches!(request.operation, Operation::Create | Operation::Update) {
        let null = Tree::Null;
        return Ok(selector.matches_tree(objects.object.unwrap_or(&null).map_at("metadata.labels")));
    }
    let found = request.find(id::NAMESPACE, "", request.namespace);
    let namespace = found.ok_or_else(|| Status::not_found("", "namespaces", request.namespace))?;
    Ok(selector.matches(&namespace.head.labels))
}

/// Whether the labels of the object, new or old, fit (`predicates/object/matcher.go`).
pub(crate) fn object_fits(selector: &LabelSelector, objects: &Objects<'_>) -> bool {
    let fits = |tree: Option<&Tree>| tree.is_some_and(|t| selector.matches_tree(t.map_at("metadata.labels")));
    selector.is_everything() || fits(objects.object) || fits(objects.old)
}

/// Whether the webhook is to be asked.
pub(crate) async fn invocation(
    hook: &Hook,
    request: &Request<'_>,
    objects: &Objects<'_>,
) -> Result<Option<Invocation>, Status> {
    // A fault of the selectors matters only to requests that the rules are about.
    let namespaces = hook.namespaces.as_ref().map_err(Status::internal);
    let by_namespace = namespaces.and_then(|selector| namespace_fits(selector, request, objects));
    if matches!(by_namespace, Ok(false)) {
        return Ok(None);
    }
    let by_object = hook.objects.as_ref().map_err(Status::internal).map(|selector| object_fits(selector, objects));
    if matches!(by_object, Ok(false)) {
        return Ok(None);
    }
    let Some(invocation) = by_rules(&hook.rules, hook.equivalent, request) else { return Ok(None) };
    by_namespace?;
    by_object?;
    if hook.conditions.is_empty() {
        return Ok(Some(invocation));
    }
    let decided = match documents(request, &invocation, objects).await {
        Ok(documents) => conditions_hold(&hook.conditions, &documents, None, request),
        Err(why) => Err(why),
    };
    match decided {
        Ok(true) => Ok(Some(invocation)),
        Ok(false) => Ok(None),
        Err(why) if hook.ignore_failure => {
            tracing::debug!(webhook = hook.name, %why, "match conditions cannot be decided");
            Ok(None)
        }
        Err(why) => Err(request.forbidden(why)),
    }
}
