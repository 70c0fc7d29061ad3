//! May the user do this: role-based access control, indexed by subject.
//!
//! Semantics: `plugin/pkg/auth/authorizer/rbac/rbac.go`, `pkg/registry/rbac/validation/rule.go`. An [`Rbac`] is built from all
//! roles and bindings at one moment and never changed; the server builds a new one after one of them changed. A decision then
//! is a few hash look-ups (user name and groups) and a walk over the rules granted to them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use corten_kinds::id;
use corten_object::selector::FieldTerm;
use corten_object::{LabelSelector, Object, Reason, Status, View};
use corten_tree::Tree;
use serde::Deserialize;

use crate::{Source, User};

/// What is asked for (`authorizer.Attributes`).
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: &'a User,
    /// `get`, `list`, `create`, … for resources; the HTTP method in lower case for other paths.
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// API version, or empty.
    pub version: &'a str,
    /// Resource name.
    pub resource: &'a str,
    /// Subresource, or empty.
    pub subresource: &'a str,
    /// Namespace, or empty.
    pub namespace: &'a str,
    /// Object name, or empty.
    pub name: &'a str,
    /// The path of a request that is not about a resource; empty otherwise.
    pub path: &'a str,
    /// What of the objects a list, a watch or a deletecollection selects by fields.
    pub fields: &'a [FieldTerm],
}

impl<'a> Attributes<'a> {
    /// A request for a path that is not a resource.
    pub fn path(user: &'a User, verb: &'a str, path: &'a str) -> Attributes<'a> {
        Attributes { path, ..Attributes::resource(user, verb) }
    }

    /// A request about a resource that is to be filled in.
    pub fn resource(user: &'a User, verb: &'a str) -> Attributes<'a> {
        let empty = "";
        Attributes {
            user,
            verb,
            group: empty,
            version: empty,
            resource: empty,
            subresource: empty,
            namespace: empty,
            name: empty,
            path: empty,
            fields: &[],
        }
    }
}

/// What becomes of a request (`authorizer.Decision`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Whether nobody else is asked any more.
    pub denied: bool,
    /// Why, in upstream's words; often empty.
    pub reason: String,
    /// What went wrong in deciding.
    pub error: Option<String>,
}

impl Decision {
    /// Allowed.
    pub fn allow(reason: impl Into<String>) -> Decision {
        Decision { allowed: true, reason: reason.into(), ..Decision::default() }
    }

    /// Nothing allows it; `reason` may say what was missing.
    pub fn no_opinion(reason: impl Into<String>) -> Decision {
        Decision { reason: reason.into(), ..Decision::default() }
    }
}

/// One rule of a role (`PolicyRule`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Allowed verbs; `*` is any.
    #[serde(deserialize_with = "or_null")]
    pub verbs: Vec<String>,
    /// API groups.
    #[serde(deserialize_with = "or_null")]
    pub api_groups: Vec<String>,
    /// Resources, `resource/subresource`, `*/subresource` or `*`.
    #[serde(deserialize_with = "or_null")]
    pub resources: Vec<String>,
    /// Object names; none is any.
    #[serde(deserialize_with = "or_null")]
    pub resource_names: Vec<String>,
    /// Paths that are not resources; a final `*` is any rest.
    #[serde(rename = "nonResourceURLs", deserialize_with = "or_null")]
    pub non_resource_urls: Vec<String>,
}

/// Go's form of a rule in messages (`CompactString`): `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let shown = parts.iter().filter(|(_, list)| !list.is_empty());
        let shown = shown.map(|(name, list)| format!("{name}:{}", crate::go_list(list)));
        write!(f, "{{{}}}", shown.collect::<Vec<_>>().join(", "))
    }
}

fn or_null<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

impl Rule {
    /// Whether the rule allows a request.
    pub fn allows(&self, a: &Attributes<'_>) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|x| x == "*" || x == wanted);
        if !has(&self.verbs, a.verb) {
            return false;
        }
        if !a.path.is_empty() {
            return self.non_resource_urls.iter().any(|url| url_matches(url, a.path));
        }
        has(&self.api_groups, a.group)
            && self.resources.iter().any(|r| resource_matches(r, a.resource, a.subresource))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == a.name))
    }
}

fn resource_matches(pattern: &str, resource: &str, subresource: &str) -> bool {
    match pattern.split_once('/') {
        _ if pattern == "*" => true,
        None => subresource.is_empty() && pattern == resource,
        Some((r, s)) => !subresource.is_empty() && s == subresource && (r == "*" || r == resource),
    }
}

pub(crate) fn url_matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RoleView {
    #[serde(deserialize_with = "or_null")]
    rules: Vec<Rule>,
    aggregation_rule: Option<AggregationRule>,
}
impl View for RoleView {}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AggregationRule {
    #[serde(deserialize_with = "or_null")]
    cluster_role_selectors: Vec<serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BindingView {
    #[serde(deserialize_with = "or_null")]
    subjects: Vec<SubjectView>,
    role_ref: RoleRef,
}
impl View for BindingView {}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
struct SubjectView {
    kind: String,
    name: String,
    namespace: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RoleRef {
    kind: String,
    name: String,
}

/// What one binding gives to one subject.
#[derive(Debug)]
pub struct Binding {
    /// Only in this namespace; empty is everywhere.
    namespace: String,
    rules: Arc<[Rule]>,
    text: String,
}

/// All roles and bindings of one moment.
#[derive(Debug, Default)]
pub struct Rbac {
    users: HashMap<String, Vec<Arc<Binding>>>,
    groups: HashMap<String, Vec<Arc<Binding>>>,
    /// Bindings to roles that are not there: who is bound, where, and the words.
    dangling: Vec<(SubjectView, String, String)>,
    cluster_roles: HashMap<String, Arc<[Rule]>>,
    roles: HashMap<(String, String), Arc<[Rule]>>,
}

impl Rbac {
    /// From the present roles and bindings. Objects that cannot be read grant nothing.
    pub fn build(source: &dyn Source) -> Rbac {
        let mut rbac = Rbac::default();
        let cluster_roles = source.objects(id::CLUSTER_ROLE);
        for role in &cluster_roles {
            let Ok(view) = role.view::<RoleView>() else { continue };
            let rules = match &view.aggregation_rule {
                None => view.rules.clone(),
                Some(aggregation) => aggregated(aggregation, &cluster_roles),
            };
            rbac.cluster_roles.insert(role.head.name.to_string(), rules.into());
        }
        for role in source.objects(id::ROLE) {
            if let Ok(view) = role.view::<RoleView>() {
                let key = (role.head.namespace.to_string(), role.head.name.to_string());
                rbac.roles.insert(key, view.rules.clone().into());
            }
        }
        for binding in source.objects(id::CLUSTER_ROLE_BINDING) {
            rbac.bind(&binding);
        }
        for binding in source.objects(id::ROLE_BINDING) {
            rbac.bind(&binding);
        }
        rbac
    }

    fn bind(&mut self, object: &Object) {
        let Ok(view) = object.view::<BindingView>() else { return };
        let namespace = object.head.namespace.as_str();
        let role = &view.role_ref;
        let rules = match role.kind.as_str() {
            "ClusterRole" => self.cluster_roles.get(&role.name),
            _ => self.roles.get(&(namespace.to_owned(), role.name.clone())),
        };
        let Some(rules) = rules.cloned() else {
            let plural = if role.kind == "ClusterRole" { "clusterrole" } else { "role" };
            let text = format!("{plural}.rbac.authorization.k8s.io {:?} not found", role.name);
            for subject in &view.subjects {
                self.dangling.push((subject.clone(), namespace.to_owned(), text.clone()));
            }
            return;
        };
        for subject in &view.subjects {
            let (kind, qualified) = match namespace {
                "" => ("ClusterRoleBinding", object.head.name.to_string()),
                namespace => ("RoleBinding", format!("{}/{namespace}", object.head.name)),
            };
            let who = match subject.namespace.as_str() {
                "" => subject.name.clone(),
                namespace => format!("{}/{namespace}", subject.name),
            };
            let role_text = format!("{} {:?}", role.kind, role.name);
            let text = format!("{kind} {qualified:?} of {role_text} to {} {who:?}", subject.kind);
            let entry = Arc::new(Binding { namespace: namespace.into(), rules: rules.clone(), text });
            match subject.kind.as_str() {
                "User" => self.users.entry(subject.name.clone()).or_default().push(entry),
                "Group" => self.groups.entry(subject.name.clone()).or_default().push(entry),
                "ServiceAccount" => {
                    let of = if subject.namespace.is_empty() { namespace } else { &subject.namespace };
                    let name = format!("system:serviceaccount:{of}:{}", subject.name);
                    self.users.entry(name).or_default().push(entry);
                }
                _ => {}
            }
        }
    }

    /// Whether a binding allows the request, and which.
    pub fn authorize(&self, a: &Attributes<'_>) -> Decision {
        match self.bindings(a.user, a.namespace).find(|b| b.rules.iter().any(|rule| rule.allows(a))) {
            Some(binding) => Decision::allow(format!("RBAC: allowed by {}", binding.text)),
            None => Decision::no_opinion(self.missing_roles(a.user, a.namespace)),
        }
    }

    /// What `authorize` says when bindings of the user name roles that are not there
    /// (`plugin/pkg/auth/authorizer/rbac/rbac.go`, `Authorize`).
    fn missing_roles(&self, user: &User, namespace: &str) -> String {
        let concerns = |(subject, of, _): &&(SubjectView, String, String)| {
            let here = of.is_empty() || of == namespace;
            let who = match subject.kind.as_str() {
                "User" => subject.name == user.name,
                "Group" => user.in_group(&subject.name),
                _ => {
                    let home = if subject.namespace.is_empty() { of } else { &subject.namespace };
                    user.as_service_account() == Some((home, &subject.name))
                }
            };
            here && who
        };
        let mut texts: Vec<&str> = Vec::new();
        for (_, _, text) in self.dangling.iter().filter(concerns) {
            if !texts.contains(&text.as_str()) {
                texts.push(text);
            }
        }
        match texts.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        }
    }

    fn bindings<'r, 'u>(
        &'r self,
        user: &'u User,
        namespace: &'u str,
    ) -> impl Iterator<Item = &'r Binding> + use<'r, 'u> {
        let of_user = self.users.get(&user.name).into_iter();
        let of_groups = user.groups.iter().filter_map(|g| self.groups.get(g));
        of_user
            .chain(of_groups)
            .flatten()
            .map(|b| &**b)
            .filter(move |b| b.namespace.is_empty() || b.namespace == namespace)
    }

    /// All rules that bindings give to a user in a namespace.
    pub fn rules_for(&self, user: &User, namespace: &str) -> Vec<Rule> {
        self.bindings(user, namespace).flat_map(|b| b.rules.iter().cloned()).collect()
    }

    /// The rules of a role that a binding in `namespace` names.
    pub fn role_rules(&self, kind: &str, namespace: &str, name: &str) -> Option<&[Rule]> {
        match kind {
            "ClusterRole" => self.cluster_roles.get(name),
            _ => self.roles.get(&(namespace.to_owned(), name.to_owned())),
        }
        .map(|rules| &**rules)
    }
}

fn aggregated(aggregation: &AggregationRule, cluster_roles: &[Arc<Object>]) -> Vec<Rule> {
    let mut pending: Vec<LabelSelector> = selectors(aggregation);
    let mut seen = Vec::new();
    let mut rules = Vec::new();
    // Aggregated roles may select aggregated roles: follow them, each once.
    while let Some(selector) = pending.pop() {
        for role in cluster_roles.iter().filter(|r| selector.matches(&r.head.labels)) {
            if seen.contains(&role.head.name) {
                continue;
            }
            seen.push(role.head.name.clone());
            let Ok(view) = role.view::<RoleView>() else { continue };
            match &view.aggregation_rule {
                Some(inner) => pending.extend(selectors(inner)),
                None => rules.extend(view.rules.iter().cloned()),
            }
        }
    }
    rules
}

fn selectors(aggregation: &AggregationRule) -> Vec<LabelSelector> {
    let parse = |value: &serde_json::Value| {
        let tree = corten_tree::json::parse(value.to_string().as_bytes()).unwrap_or(Tree::Null);
        LabelSelector::from_tree(Some(&tree)).ok()
    };
    aggregation.cluster_role_selectors.iter().filter_map(parse).collect()
}

/// Upstream's words for a denial (`apiserver/pkg/endpoints/handlers/responsewriters/errors.go`, `forbiddenMessage`).
pub fn denial_message(a: &Attributes<'_>) -> String {
    let user = &a.user.name;
    let text = if !a.path.is_empty() {
        format!("User {user:?} cannot {} path {:?}", a.verb, a.path)
    } else {
        let resource = match a.subresource {
            "" => a.resource.to_owned(),
            sub => format!("{}/{sub}", a.resource),
        };
        let what = format!("User {user:?} cannot {} resource {resource:?} in API group {:?}", a.verb, a.group);
        match a.namespace {
            "" => format!("{what} at the cluster scope"),
            namespace => format!("{what} in the namespace {namespace:?}"),
        }
    };
    // Error pages of browsers must not run what a path contains.
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The 403 of a denial, with what the authorizers say of it.
pub fn denial(a: &Attributes<'_>, reason: &str) -> Status {
    let message = match reason {
        "" => denial_message(a),
        reason => format!("{}: {reason}", denial_message(a)),
    };
    if a.path.is_empty() {
        Status::forbidden(a.group, a.resource, a.name, message)
    } else {
        Status::new(Reason::Forbidden, format!("forbidden: {message}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(rbac: &Rbac, a: &Attributes<'_>) -> bool {
        use crate::authorizer::{is_master, node};
        is_master(a.user) || node(&Objects(Vec::new()), a).allowed || rbac.authorize(a).allowed
    }
    use crate::bootstrap;
    use bytes::Bytes;
    use corten_object::{KindId, ObjectKey, Revision};
    use corten_tree::tree;

    /// Objects in a list; the bootstrap policy if asked for.
    struct Objects(Vec<Arc<Object>>);

    impl Objects {
        fn new(trees: &[Tree]) -> Objects {
            let kind = |t: &Tree| match t.str_at("kind") {
                "ClusterRole" => id::CLUSTER_ROLE,
                "Role" => id::ROLE,
                "ClusterRoleBinding" => id::CLUSTER_ROLE_BINDING,
                _ => id::ROLE_BINDING,
            };
            let parse = |t: &Tree| Object::parse(kind(t), Bytes::from(t.to_json()), Revision(1), &[""; 0]).unwrap();
            Objects(trees.iter().map(|t| Arc::new(parse(t))).collect())
        }
    }

    impl Source for Objects {
        fn object(&self, key: &ObjectKey) -> Option<Arc<Object>> {
            self.0.iter().find(|o| o.key() == *key).cloned()
        }
        fn objects(&self, kind: KindId) -> Vec<Arc<Object>> {
            self.0.iter().filter(|o| o.kind == kind).cloned().collect()
        }
    }

    /// `VERB [GROUP/]RESOURCE[/SUB] [-n NS] [NAME]`, as `kubectl auth can-i` has it.
    fn can(rbac: &Rbac, user: &User, text: &str) -> bool {
        let words: Vec<&str> = text.split(' ').collect();
        let (group, resource) = words[1].split_once(':').unwrap_or(("", words[1]));
        if resource.starts_with('/') {
            let a = Attributes::path(user, words[0], resource);
            return decide(rbac, &a);
        }
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let namespace = words.iter().find_map(|w| w.strip_prefix("ns=")).unwrap_or("");
        let name = words.iter().find_map(|w| w.strip_prefix("name=")).unwrap_or("");
        let verb = words[0];
        let a = Attributes { group, resource, subresource, namespace, name, ..Attributes::resource(user, verb) };
        decide(rbac, &a)
    }

    #[test]
    fn bootstrap_policy_grants_what_upstream_grants() {
        let rbac = Rbac::build(&Objects::new(&bootstrap::objects()));
        let nobody = User::new("nobody", &[]);
        for (user, text, allowed) in [
            (User::admin(), "delete nodes", true),
            (nobody.clone(), "list pods ns=default", false),
            (nobody.clone(), "create authorization.k8s.io:selfsubjectaccessreviews", true),
            (nobody, "get /apis/apps", true),
            (User::anonymous(), "get /version", true),
            (User::anonymous(), "get /apis", false),
            (User::scheduler(), "create pods/binding ns=x", true),
            (User::scheduler(), "delete nodes", false),
            (User::controller("deployment-controller"), "update apps:deployments/status ns=x", true),
            (User::controller("deployment-controller"), "get secrets ns=x", false),
            (User::node("a"), "patch nodes/status", true),
            (User::node("a"), "get secrets ns=x name=k", false),
            (User::node("a"), "delete secrets ns=x", false),
            (User::node("a"), "watch discovery.k8s.io:endpointslices", true),
            (User::service_account("x", "default"), "get pods ns=x", false),
        ] {
            assert_eq!(can(&rbac, &user, text), allowed, "{} {text}", user.name);
        }
    }

    #[test]
    fn bindings_hold_in_their_namespace_and_for_their_names() {
        let mut trees = bootstrap::objects();
        trees.push(tree!({"kind": "RoleBinding", "metadata": {"name": "b", "namespace": "x"},
            "subjects": [{"kind": "ServiceAccount", "name": "s"}], "roleRef": {"kind": "ClusterRole", "name": "edit"}}));
        trees.push(tree!({"kind": "Role", "metadata": {"name": "one", "namespace": "x"}, "rules":
            [{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets", "*/scale"], "resourceNames": ["k"]}]}));
        trees.push(tree!({"kind": "RoleBinding", "metadata": {"name": "c", "namespace": "x"},
            "subjects": [{"kind": "User", "name": "u"}], "roleRef": {"kind": "Role", "name": "one"}}));
        let rbac = Rbac::build(&Objects::new(&trees));
        let (account, user) = (User::service_account("x", "s"), User::new("u", &[]));
        for (user, text, allowed) in [
            (&account, "create pods ns=x", true),
            (&account, "list pods ns=x", true),
            (&account, "list pods", false),
            (&account, "list pods ns=y", false),
            (&account, "create rbac.authorization.k8s.io:roles ns=x", false),
            (&user, "get secrets ns=x name=k", true),
            (&user, "get secrets ns=x name=l", false),
            (&user, "get secrets ns=x", false),
            (&user, "get deployments/scale ns=x name=k", true),
            (&user, "get deployments ns=x name=k", false),
        ] {
            assert_eq!(can(&rbac, user, text), allowed, "{} {text}", user.name);
        }
        let a = Attributes { resource: "pods", namespace: "default", ..Attributes::resource(&user, "list") };
        assert_eq!(
            denial(&a, "").message,
            "pods is forbidden: User \"u\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
        );
    }

    #[test]
    fn rbac_reason_names_roles_that_are_not_there() {
        let binding = |kind: &str, name: &str, role: &str| {
            tree!({"kind": kind, "metadata": {"name": name, "namespace": (if kind == "RoleBinding" { "x" } else { "" })},
                "subjects": [{"kind": "User", "name": "u"}], "roleRef": {"kind": role, "name": name}})
        };
        let trees = [binding("ClusterRoleBinding", "gone", "ClusterRole"), binding("RoleBinding", "lost", "Role")];
        let rbac = Rbac::build(&Objects::new(&trees));
        let (user, other) = (User::new("u", &[]), User::new("v", &[]));
        let reason = |user: &User, namespace: &str| {
            let a = Attributes { resource: "pods", namespace, ..Attributes::resource(user, "get") };
            rbac.authorize(&a).reason
        };
        let gone = "clusterrole.rbac.authorization.k8s.io \"gone\" not found";
        assert_eq!(reason(&user, ""), format!("RBAC: {gone}"));
        assert_eq!(reason(&user, "x"), format!("RBAC: [{gone}, role.rbac.authorization.k8s.io \"lost\" not found]"));
        assert_eq!(reason(&other, "x"), "");
    }
}
