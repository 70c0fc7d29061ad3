//! Creates that store nothing of their own: access and token reviews, and the actions `binding` and `token`.

use std::collections::BTreeMap;

use corten_admission::Operation;
pub(crate) use corten_admission::user_info;
use corten_auth::{Attributes, BoundRef, Claims, KubernetesClaims, Rule, User, authorizer};
use corten_base::Revision;
use corten_kinds::id;
use corten_kinds::validate::names;
use corten_object::selector::FieldTerm;
use corten_object::{FieldError, FieldSelector, KindId, LabelSelector, Object, ObjectKey, Status, conditions, time};
use corten_schema::internal;
use corten_tree::{FieldPath, Tree, tree};

use crate::core::{Core, attributes};
use crate::pipeline::{Answer, Body, Request, check_namespace};

/// The life of a token that says nothing, in seconds.
const TOKEN_SECONDS: i64 = 3600;
/// Tokens of pods ask for this much; they live longer, and say from when on they should have been renewed
/// (`--service-account-extend-token-expiration`).
const POD_TOKEN_SECONDS: i64 = 3607;
/// How much longer, in seconds.
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

impl Core {
    /// Answers a review.
    pub async fn review(&self, request: Request<'_>, body: Body) -> Result<Answer, Status> {
        let names = (request.namespace, "", "");
        self.authorize(&attributes(request.user, "create", request.kind, names)).await?;
        let decoded = self.decode(&request, body)?;
        let mut tree = decoded.tree;
        if !request.kind.namespaced() {
            // As upstream's create does for whatever has no namespace.
            tree.remove("metadata.namespace");
        }
        self.fresh().await?;
        let mut admitting = self.admitting(&request, Operation::Create);
        admitting.name(tree.str_at("metadata.name"));
        self.track(&request, None, &mut tree, admitting.now);
        admitting.mutate(Some(&mut tree), None).await?;
        admitting.validate(Some(&tree), None).await?;
        let warnings = [decoded.warnings, admitting.notes.take_warnings()].concat();
        let status = match request.kind.id {
            id::TOKEN_REVIEW => self.token_review(&tree).await?,
            id::SELF_SUBJECT_REVIEW => {
                // Upstream makes a new object.
                tree.insert("metadata", tree!({"creationTimestamp": (time::format(self.clock.now()))}));
                tree!({"userInfo": (user_info(request.user))})
            }
            id::SELF_SUBJECT_ACCESS_REVIEW => {
                reviewable(&tree, true, None)?;
                self.access(request.user, &tree).await
            }
            id::SUBJECT_ACCESS_REVIEW => {
                reviewable(&tree, false, None)?;
                self.access(&subject(&tree), &tree).await
            }
            id::LOCAL_SUBJECT_ACCESS_REVIEW => {
                if tree.str_at("metadata.namespace").is_empty() {
                    tree.set("metadata.namespace", request.namespace);
                }
                check_namespace(&request, &tree)?;
                let namespace = tree.str_at("metadata.namespace");
                reviewable(&tree, false, Some(namespace))?;
                self.access(&subject(&tree), &tree).await
            }
            id::SELF_SUBJECT_RULES_REVIEW => match tree.str_at("spec.namespace") {
                "" => return Err(Status::bad_request("no namespace on request")),
                namespace => {
                    let status = self.rules(request.user, namespace);
                    // Upstream makes a new object here, too.
                    tree.insert("metadata", Tree::map());
                    tree.insert("spec", Tree::map());
                    status
                }
            },
            id::BINDING => {
                let name = tree.str_at("metadata.name").to_owned();
                let pods = self.registry.get(id::POD);
                let request = Request { kind: &pods, name: &name, subresource: "binding", ..request };
                return self.bind(request, &tree).await;
            }
            _ => return Err(Status::method_not_allowed()),
        };
        tree.insert("status", status);
        Ok(Answer { warnings, ..Answer::tree(201, tree, self.cache.revision()) })
    }

    /// Does what the body of an action subresource asks for.
    pub async fn act(&self, request: Request<'_>, body: Body) -> Result<Answer, Status> {
        let names = (request.namespace, request.name, request.subresource);
        self.authorize(&attributes(request.user, "create", request.kind, names)).await?;
        let (group, version, kind) = request.sub().and_then(|s| s.body).ok_or_else(Status::no_such_resource)?;
        let ty = self.schema.gvk(group, version, kind).ok_or_else(Status::no_such_resource)?;
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let mut decoded = self.decode_as(&request, body, (self.schema, ty), &api_version, kind)?;
        self.fresh().await?;
        let admitting = self.admitting(&request, Operation::Create).with_body(group, version, kind);
        admitting.mutate(Some(&mut decoded.tree), None).await?;
        admitting.validate(Some(&decoded.tree), None).await?;
        let answer = match request.subresource {
            "binding" => self.bind(request, &decoded.tree).await,
            "eviction" => self.evict(request, &decoded.tree).await,
            "token" => self.token(request, decoded.tree),
            _ => Err(Status::method_not_allowed()),
        }?;
        let warnings = [decoded.warnings, admitting.notes.take_warnings(), answer.warnings].concat();
        Ok(Answer { warnings, ..answer })
    }

    /// Whose token it is (`pkg/registry/authentication/tokenreview/storage.go`).
    async fn token_review(&self, review: &Tree) -> Result<Tree, Status> {
        let token = review.str_at("spec.token");
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let audiences: Vec<String> =
            review.list_at("spec.audiences").iter().filter_map(Tree::as_str).map(str::to_owned).collect();
        Ok(match self.whose_token(token, &audiences).await {
            Ok(found) => {
                let mut status = tree!({"authenticated": true, "user": (user_info(&found.user))});
                if !found.audiences.is_empty() {
                    status.insert("audiences", found.audiences);
                }
                status
            }
            Err(error) => tree!({"user": {}, "error": (error.to_string())}),
        })
    }

    /// The status of an access review for a user.
    async fn access(&self, user: &User, review: &Tree) -> Tree {
        let text = |key: &str| review.str_at(&format!("spec.resourceAttributes.{key}"));
        let fields = selected_fields(review);
        let attributes = if review.path("spec.resourceAttributes").is_some() {
            Attributes {
                group: text("group"),
                version: if text("version").is_empty() { "*" } else { text("version") },
                resource: text("resource"),
                subresource: text("subresource"),
                namespace: text("namespace"),
                name: text("name"),
                fields: &fields,
                ..Attributes::resource(user, text("verb"))
            }
        } else {
            let path = review.str_at("spec.nonResourceAttributes.path");
            Attributes::path(user, review.str_at("spec.nonResourceAttributes.verb"), path)
        };
        let decision = self.decide(&attributes).await;
        let mut status = tree!({"allowed": (decision.allowed)});
        if decision.denied {
            status.insert("denied", true);
        }
        if !decision.reason.is_empty() {
            status.insert("reason", decision.reason);
        }
        let mut errors: Vec<String> = decision.error.into_iter().collect();
        errors.extend(["fieldSelector", "labelSelector"].into_iter().filter_map(|field| ignored(review, field)));
        if !errors.is_empty() {
            status.insert("evaluationError", errors.join("; "));
        }
        status
    }

    fn rules(&self, user: &User, namespace: &str) -> Tree {
        let (rules, why) = authorizer::rules_for(&self.rbac(), user, namespace);
        let list = |texts: &[String]| Tree::List(texts.iter().map(Tree::from).collect());
        let resource = |r: &&Rule| !r.resources.is_empty();
        let mut resource_rules = Vec::new();
        for rule in rules.iter().filter(resource) {
            let mut out = tree!({"verbs": (list(&rule.verbs)), "apiGroups": (list(&rule.api_groups)),
                "resources": (list(&rule.resources))});
            if !rule.resource_names.is_empty() {
                out.insert("resourceNames", list(&rule.resource_names));
            }
            resource_rules.push(out);
        }
        let url_rules = rules.iter().filter(|r| !r.non_resource_urls.is_empty());
        let url_rules = url_rules
            .map(|r| tree!({"verbs": (list(&r.verbs)), "nonResourceURLs": (list(&r.non_resource_urls))}))
            .collect();
        let mut status = tree!({"resourceRules": (Tree::List(resource_rules)), "nonResourceRules": (Tree::List(url_rules)),
            "incomplete": (why.is_some())});
        if let Some(why) = why {
            status.insert("evaluationError", why);
        }
        status
    }

    /// Puts a pod on a node (`pkg/registry/core/pod/storage/storage.go`, `assignPod`).
    async fn bind(&self, request: Request<'_>, binding: &Tree) -> Result<Answer, Status> {
        let node = binding.str_at("target.name").to_owned();
        let mut errors = Vec::new();
        if node.is_empty() {
            errors.push(FieldError::required(&FieldPath::of("target.name"), ""));
        }
        for message in corten_kinds::validate::names::dns_subdomain(&node).into_iter().filter(|_| !node.is_empty()) {
            errors.push(FieldError::invalid_str(&FieldPath::of("target.name"), &node, message));
        }
        if !matches!(binding.str_at("target.kind"), "" | "Node") {
            errors.push(FieldError::not_supported(
                &FieldPath::of("target.kind"),
                binding.str_at("target.kind"),
                &["Node", "<empty>"],
            ));
        }
        if !errors.is_empty() {
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let all = if texts.len() == 1 { texts[0].clone() } else { format!("[{}]", texts.join(", ")) };
            return Err(Status::unexplained(500, all));
        }
        let uid = binding.str_at("metadata.uid");
        let now = self.clock.now();
        let conflict = |why: String| Status::conflict("", "pods/binding", request.name, why);
        let revision = self
            .modify(&request, |pod| {
                if !uid.is_empty() && pod.str_at("metadata.uid") != uid {
                    let found = pod.str_at("metadata.uid");
                    let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}");
                    return Err(Status::conflict("", "pods", request.name, why));
                }
                if pod.path("metadata.deletionTimestamp").is_some() {
                    let name = request.name;
                    return Err(conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
                }
                let on = pod.str_at("spec.nodeName");
                if !on.is_empty() {
                    return Err(conflict(format!("pod {} is already assigned to node {on:?}", request.name)));
                }
                if !pod.list_at("spec.schedulingGates").is_empty() {
                    return Err(conflict(format!("pod {} has non-empty .spec.schedulingGates", request.name)));
                }
                pod.set("spec.nodeName", node.as_str());
                for (key, value) in binding.map_at("metadata.labels").iter() {
                    pod.make_map_at("metadata.labels").insert(key.to_owned(), value.clone());
                }
                for (key, value) in binding.map_at("metadata.annotations").iter() {
                    pod.make_map_at("metadata.annotations").insert(key.to_owned(), value.clone());
                }
                let condition = tree!({"type": "PodScheduled", "status": "True", "lastProbeTime": null,
                    "lastTransitionTime": (time::format(now))});
                pod.make_map_at("status");
                if let Some(status) = pod.path_mut("status") {
                    conditions::push(status, condition);
                }
                Ok(())
            })
            .await?;
        Ok(Answer::tree(201, success(), revision))
    }

    /// Makes a token of a service account (`pkg/registry/core/serviceaccount/storage/token.go`).
    fn token(&self, request: Request<'_>, mut body: Tree) -> Result<Answer, Status> {
        check_token_metadata(&request, &body)?;
        let key = ObjectKey::new(id::SERVICE_ACCOUNT, request.namespace, request.name);
        let account = self.cache.get(&key).ok_or_else(|| request.not_found())?;
        let now = self.clock.now();
        let issuer = self.authenticator.signer().issuer().to_owned();
        if body.list_at("spec.audiences").is_empty() {
            body.set("spec.audiences", Tree::List(vec![issuer.as_str().into()]));
        }
        body.set_default("spec.expirationSeconds", TOKEN_SECONDS);
        let seconds = body.i64_at("spec.expirationSeconds").unwrap_or(TOKEN_SECONDS);
        check_seconds(seconds)?;
        let audiences: Vec<String> =
            body.list_at("spec.audiences").iter().filter_map(Tree::as_str).map(str::to_owned).collect();
        let mut kubernetes = KubernetesClaims {
            namespace: request.namespace.to_owned(),
            serviceaccount: reference(&account),
            ..KubernetesClaims::default()
        };
        self.bind_token(&request, &body, &mut kubernetes)?;
        let own = audiences == [issuer];
        let extended = own && kubernetes.pod.is_some() && seconds == POD_TOKEN_SECONDS;
        if extended {
            kubernetes.warnafter = Some(now.as_second() + seconds);
        }
        let claims = Claims {
            sub: format!("system:serviceaccount:{}:{}", request.namespace, request.name),
            aud: audiences,
            iat: now.as_second(),
            nbf: now.as_second(),
            exp: now.as_second() + if extended { EXTENDED_SECONDS } else { seconds },
            jti: self.entropy.uid(),
            kubernetes,
            ..Claims::default()
        };
        let token = self.authenticator.signer().sign(&claims).map_err(Status::internal)?;
        let until = now + std::time::Duration::from_secs(seconds.unsigned_abs());
        body.insert("status", tree!({"token": token, "expirationTimestamp": (time::format(until))}));
        body.insert(
            "metadata",
            tree!({"name": (request.name), "namespace": (request.namespace), "creationTimestamp": (time::format(now))}),
        );
        Ok(Answer::tree(201, body, self.cache.revision()))
    }

    fn bind_token(&self, request: &Request<'_>, body: &Tree, claims: &mut KubernetesClaims) -> Result<(), Status> {
        let wanted = body.path("spec.boundObjectRef").cloned().unwrap_or_default();
        let (name, uid) = (wanted.str_at("name"), wanted.str_at("uid"));
        let find = |kind: KindId, namespace: &str| -> Result<std::sync::Arc<Object>, Status> {
            let kind = self.registry.get(kind);
            let found = self.cache.get(&ObjectKey::new(kind.id, namespace, name));
            let found = found.ok_or_else(|| Status::not_found(&kind.group, &kind.plural, name))?;
            if uid.is_empty() || found.head.uid == uid {
                return Ok(found);
            }
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
                 deleted and then recreated"
            );
            Err(Status::conflict(&kind.group, &kind.plural, name, why))
        };
        let bound = match wanted.str_at("kind") {
            "" => return Ok(()),
            kind => self.registry.group_kind("", kind).map(|k| k.id),
        };
        match bound {
            Some(id::POD) => {
                let pod = find(id::POD, request.namespace)?;
                let tree = pod.to_tree();
                if tree.str_at("spec.serviceAccountName") != request.name {
                    let why = format!(
                        "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                        request.name
                    );
                    return Err(Status::bad_request(why));
                }
                claims.pod = Some(reference(&pod));
                let node = self.cache.get(&ObjectKey::new(id::NODE, "", tree.str_at("spec.nodeName")));
                claims.node = node.map(|n| reference(&n));
            }
            Some(id::SECRET) => claims.secret = Some(reference(&*find(id::SECRET, request.namespace)?)),
            Some(id::NODE) => claims.node = Some(reference(&*find(id::NODE, "")?)),
            _ => {
                let gvk = corten_object::GroupVersionKind::parse(wanted.str_at("apiVersion"), wanted.str_at("kind"));
                let why =
                    format!("cannot bind token to object of type {}/{}, Kind={}", gvk.group, gvk.version, gvk.kind);
                return Err(Status::bad_request(why));
            }
        }
        Ok(())
    }

    /// Changes a stored object by the server's own hand: no hooks, no admission, retried until nobody is faster.
    pub(crate) async fn modify(
        &self,
        request: &Request<'_>,
        change: impl Fn(&mut Tree) -> Result<(), Status>,
    ) -> Result<Revision, Status> {
        let stored = self.stored(request.kind).clone();
        let key = request.key(&stored);
        for _ in 0..10 {
            let old = self.cache.get(&key).ok_or_else(|| request.not_found())?;
            let mut tree = old.to_tree();
            change(&mut tree)?;
            if request.options.dry_run {
                return Ok(self.cache.revision());
            }
            if let Some(revision) = self.commit_changed(&stored, &key, &old, tree).await? {
                return Ok(revision);
            }
            self.fresh().await?;
        }
        Err(Status::modified(&request.kind.group, &request.kind.plural, request.name))
    }
}

fn check_seconds(seconds: i64) -> Result<(), Status> {
    let path = FieldPath::of("spec.expirationSeconds");
    let why = match seconds {
        s if s < 600 => "may not specify a duration less than 10 minutes",
        s if s > 1 << 32 => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(()),
    };
    let error = FieldError::invalid(&path, &Tree::Int(seconds), why);
    Err(Status::invalid("authentication.k8s.io", "TokenRequest", "", &[error]))
}

/// A token request that names an account and a namespace names those of the path.
fn check_token_metadata(request: &Request<'_>, body: &Tree) -> Result<(), Status> {
    for (field, expected, what) in
        [("metadata.name", request.name, "name"), ("metadata.namespace", request.namespace, "namespace")]
    {
        let found = body.str_at(field);
        if !found.is_empty() && found != expected {
            let why = format!("must match the service account {what} if specified");
            let error = FieldError::invalid_str(&FieldPath::of(field), found, why);
            return Err(Status::invalid("authentication.k8s.io", "TokenRequest", request.name, &[error]));
        }
    }
    Ok(())
}

fn reference(object: &Object) -> BoundRef {
    BoundRef { name: object.head.name.to_string(), uid: object.head.uid.to_string() }
}

pub(crate) fn success() -> Tree {
    tree!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}

/// `pkg/apis/authorization/validation/validation.go`; the namespace is that of a local review.
fn review_faults(review: &Tree, of_self: bool, local: Option<&str>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let resource = review.path("spec.resourceAttributes");
    let shown_path =
        |path: &Tree| internal::shown_as(corten_schema::builtin(), "authorization.v1.NonResourceAttributes", path);
    let path = review.path("spec.nonResourceAttributes").map(shown_path);
    if resource.is_some() == path.is_some() {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(FieldError::invalid(&FieldPath::of("spec"), path.as_ref().unwrap_or(&Tree::Null), why));
    }
    if !of_self && review.str_at("spec.user").is_empty() && review.list_at("spec.groups").is_empty() {
        let at = FieldPath::of("spec.user");
        errors.push(FieldError::invalid_str(&at, "", "at least one of user or group must be specified"));
    }
    for selector in ["fieldSelector", "labelSelector"] {
        let path = FieldPath::of(&format!("spec.resourceAttributes.{selector}"));
        let Some(given) = resource.and_then(|r| r.get(selector)) else { continue };
        let (raw, requirements) = (given.str_at("rawSelector"), given.list_at("requirements"));
        if !raw.is_empty() && !requirements.is_empty() {
            let why = "may not specified at the same time as requirements";
            errors.push(FieldError::invalid_str(&path.child("rawSelector"), raw, why));
        }
        if raw.is_empty() && requirements.is_empty() {
            let why = format!("when {path} is specified, requirements or rawSelector is required");
            errors.push(FieldError::required(&path.child("requirements"), why));
        }
        for (i, requirement) in requirements.iter().enumerate() {
            let of_labels = selector == "labelSelector";
            requirement_faults(&path.child("requirements").index(i), requirement, of_labels, &mut errors);
        }
    }
    let mut metadata = review.get("metadata").cloned().unwrap_or_default();
    for field in ["managedFields", "creationTimestamp"] {
        metadata.remove(field);
    }
    if local.is_some() {
        metadata.remove("namespace");
    }
    if !metadata.semantically_equal(&Tree::map()) && !metadata.is_null() {
        let why = if local.is_some() { "must be empty except for namespace" } else { "must be empty" };
        let shown = review.get("metadata").unwrap_or(&Tree::Null);
        errors.push(FieldError::invalid(&FieldPath::of("metadata"), shown, why));
    }
    if let Some(namespace) = local {
        let of = review.str_at("spec.resourceAttributes.namespace");
        if resource.is_some() && of != namespace {
            let at = FieldPath::of("spec.resourceAttributes.namespace");
            errors.push(FieldError::invalid_str(&at, of, "must match metadata.namespace"));
        }
        if let Some(path) = &path {
            let at = FieldPath::of("spec.nonResourceAttributes");
            errors.push(FieldError::invalid(&at, path, "disallowed on this kind of request"));
        }
    }
    errors
}

/// `ValidateLabelSelectorRequirement` and `ValidateFieldSelectorRequirement`; operators of newer clients pass.
fn requirement_faults(path: &FieldPath, requirement: &Tree, of_labels: bool, errors: &mut Vec<FieldError>) {
    let values = requirement.list_at("values");
    match requirement.str_at("operator") {
        "In" | "NotIn" if values.is_empty() => {
            let why = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(FieldError::required(&path.child("values"), why));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(&path.child("values"), why));
        }
        _ => {}
    }
    let key = requirement.str_at("key");
    if of_labels {
        let faults = names::label_key(key).into_iter();
        errors.extend(faults.map(|why| FieldError::invalid_str(&path.child("key"), key, why)));
        for (i, value) in values.iter().filter_map(Tree::as_str).enumerate() {
            let faults = names::label_value(value).into_iter();
            errors.extend(faults.map(|why| FieldError::invalid_str(&path.child("values").index(i), value, why)));
        }
    } else if key.is_empty() {
        errors.push(FieldError::required(&path.child("key"), "must be specified"));
    }
}

/// What a review's field selector asks for, as far as authorizers look at it: one value, or not one value.
fn selected_fields(review: &Tree) -> Vec<FieldTerm> {
    let Some(selector) = review.path("spec.resourceAttributes.fieldSelector") else { return Vec::new() };
    let parsed = FieldSelector::parse(selector.str_at("rawSelector")).map(|s| s.terms).unwrap_or_default();
    let required = selector.list_at("requirements").iter().filter_map(|r| {
        let equal = match r.str_at("operator") {
            "In" => true,
            "NotIn" => false,
            _ => return None,
        };
        let [value] = r.list_at("values") else { return None };
        Some(FieldTerm { path: r.str_at("key").into(), equal, value: value.as_str()?.into() })
    });
    parsed.into_iter().chain(required).collect()
}

/// What is said of a selector of a review that cannot be read, or not as a whole (`BuildEvaluationError`).
fn ignored(review: &Tree, field: &str) -> Option<String> {
    let selector = review.path(&format!("spec.resourceAttributes.{field}"))?;
    let raw = selector.str_at("rawSelector");
    let requirements = selector.list_at("requirements");
    let of_labels = field == "labelSelector";
    let readable = |r: &Tree| {
        let (operator, values) = (r.str_at("operator"), r.list_at("values"));
        match (of_labels, operator) {
            (true, _) => LabelSelector::from_tree(Some(&tree!({"matchExpressions": [(r.clone())]}))).is_ok(),
            (false, "In" | "NotIn") => values.len() == 1,
            (false, _) => false,
        }
    };
    let (read, bad) = match requirements {
        [] if raw.is_empty() => return None,
        [] if of_labels => (0, LabelSelector::parse(raw).is_err()),
        [] => (0, FieldSelector::parse(raw).is_err()),
        all => {
            let read = all.iter().filter(|r| readable(r)).count();
            (read, read < all.len())
        }
    };
    let partially = if read > 0 { "partially " } else { "" };
    bad.then(|| format!("spec.resourceAttributes.{field} {partially}ignored due to parse error"))
}

/// The user that an access review is about.
fn subject(review: &Tree) -> User {
    let texts = |list: &[Tree]| list.iter().filter_map(Tree::as_str).map(str::to_owned).collect::<Vec<String>>();
    User {
        name: review.str_at("spec.user").into(),
        uid: review.str_at("spec.uid").into(),
        groups: texts(review.list_at("spec.groups")),
        extra: review
            .map_at("spec.extra")
            .iter()
            .map(|(k, v)| (k.to_owned(), texts(v.as_list().unwrap_or_default())))
            .collect::<BTreeMap<_, _>>(),
    }
}

/// 422 for a review that cannot be answered. Upstream's answer names no kind.
fn reviewable(review: &Tree, of_self: bool, local: Option<&str>) -> Result<(), Status> {
    let errors = review_faults(review, of_self, local);
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("authorization.k8s.io", "", "", &errors)) }
}
