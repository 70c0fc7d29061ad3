//! May the user do this: role-based access control, indexed by subject.
//!
//! Semantics: `plugin/pkg/auth/authorizer/rbac/rbac.go`, `pkg/registry/rbac/validation/rule.go`. An [`Rbac`] is built from all
//! roles and bindings at one moment and never changed; the server builds a new one after one of them changed. A decision then
//! is a few hash look-ups (user name and groups) and a walk over the rules granted to them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use corten_kinds::id;
use corten_object::{LabelSelector, Object, Reason, Status, View};
use corten_tree::Tree;
use serde::Deserialize;

use crate::{Source, User, bootstrap, group};

/// What is asked for (`authorizer.Attributes`).
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: &'a User,
    /// `get`, `list`, `create`, … for resources; the HTTP method in lower case for other paths.
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
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
}

impl<'a> Attributes<'a> {
    /// A request for a path that is not a resource.
    pub fn path(user: &'a User, verb: &'a str, path: &'a str) -> Attributes<'a> {
        Attributes { user, verb, group: "", resource: "", subresource: "", namespace: "", name: "", path }
    }
}

/// Why a request is allowed.
#[derive(Debug, Clone, Copy)]
pub enum Grant<'a> {
    /// The user is in `system:masters`.
    Masters,
    /// The user is the agent of a node.
    Node,
    /// A binding grants it.
    Binding(&'a Binding),
}

/// Upstream's words, as a SubjectAccessReview shows them.
impl fmt::Display for Grant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grant::Masters | Grant::Node => Ok(()),
            Grant::Binding(b) => write!(f, "RBAC: allowed by {}", b.text),
        }
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

fn url_matches(pattern: &str, path: &str) -> bool {
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

#[derive(Debug, Default, Deserialize)]
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
    cluster_roles: HashMap<String, Arc<[Rule]>>,
    roles: HashMap<(String, String), Arc<[Rule]>>,
}

/// What the agent of a node may do, whatever bindings say (`plugin/pkg/auth/authorizer/node`, without its graph). The agent
/// is service proxy and DNS as well: it has what upstream gives to kube-proxy, and sees namespaces.
static NODE_RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let mut rules = bootstrap::rules_of("system:node");
    rules.extend(bootstrap::rules_of("system:node-proxier"));
    let texts = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect::<Vec<String>>();
    rules.push(Rule {
        verbs: texts(&["get", "list", "watch"]),
        api_groups: texts(&[""]),
        resources: texts(&["namespaces"]),
        ..Rule::default()
    });
    rules
});

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
        let Some(rules) = rules.cloned() else { return };
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

    /// Whether the request is allowed, and why.
    pub fn authorize<'r>(&'r self, a: &Attributes<'_>) -> Option<Grant<'r>> {
        if a.user.in_group(group::MASTERS) {
            return Some(Grant::Masters);
        }
        if a.user.node_name().is_some() && NODE_RULES.iter().any(|rule| rule.allows(a)) {
            return Some(Grant::Node);
        }
        let found = self.bindings(a.user, a.namespace).find(|b| b.rules.iter().any(|rule| rule.allows(a)))?;
        Some(Grant::Binding(found))
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

    /// All rules that a user has in a namespace.
    pub fn rules_for(&self, user: &User, namespace: &str) -> Vec<Rule> {
        let any = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<String>>();
        let mut rules = Vec::new();
        if user.in_group(group::MASTERS) {
            rules.push(Rule { verbs: any(&["*"]), api_groups: any(&["*"]), resources: any(&["*"]), ..Rule::default() });
            rules.push(Rule { verbs: any(&["*"]), non_resource_urls: any(&["*"]), ..Rule::default() });
        }
        if user.node_name().is_some() {
            rules.extend(NODE_RULES.iter().cloned());
        }
        rules.extend(self.bindings(user, namespace).flat_map(|b| b.rules.iter().cloned()));
        rules
    }

    /// The rules of a role that a binding in `namespace` names.
    pub fn role_rules(&self, kind: &str, namespace: &str, name: &str) -> Option<&[Rule]> {
        match kind {
            "ClusterRole" => self.cluster_roles.get(name),
            _ => self.roles.get(&(namespace.to_owned(), name.to_owned())),
        }
        .map(|rules| &**rules)
    }

    /// Which of `wanted` the user does not have in `namespace`: who gives rights must have them.
    /// (`component-helpers/auth/rbac/validation/policy_comparator.go`)
    pub fn missing<'w>(&self, user: &User, namespace: &str, wanted: &'w [Rule]) -> Vec<&'w Rule> {
        if user.in_group(group::MASTERS) {
            return Vec::new();
        }
        let owned = self.rules_for(user, namespace);
        wanted.iter().filter(|rule| !covered(&owned, rule)).collect()
    }
}

/// Whether every single request that `rule` allows is allowed by one of `owned`.
fn covered(owned: &[Rule], rule: &Rule) -> bool {
    let has = |list: &[String], wanted: &String| list.iter().any(|x| x == "*" || x == wanted);
    let urls = rule.non_resource_urls.iter().all(|url| {
        rule.verbs.iter().all(|verb| {
            owned.iter().any(|o| has(&o.verbs, verb) && o.non_resource_urls.iter().any(|p| url_matches(p, url)))
        })
    });
    let resource_covered = |o: &Rule, resource: &str| match resource.split_once('/') {
        None => o.resources.iter().any(|p| p == "*" || p == resource),
        Some((_, s)) => {
            o.resources.iter().any(|p| p == "*" || p == resource || p.strip_prefix("*/").is_some_and(|ps| ps == s))
        }
    };
    let names_covered = |o: &Rule| {
        o.resource_names.is_empty()
            || (!rule.resource_names.is_empty() && rule.resource_names.iter().all(|n| o.resource_names.contains(n)))
    };
    let resources = rule.resources.iter().all(|resource| {
        rule.api_groups.iter().all(|group| {
            rule.verbs.iter().all(|verb| {
                owned.iter().any(|o| {
                    has(&o.verbs, verb)
                        && has(&o.api_groups, group)
                        && resource_covered(o, resource)
                        && names_covered(o)
                })
            })
        })
    });
    urls && resources
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

/// Upstream's words for a denial (`apiserver/pkg/endpoints/handlers/responsewriters/errors.go`).
pub fn denial_message(a: &Attributes<'_>) -> String {
    let user = &a.user.name;
    if !a.path.is_empty() {
        return format!("User {user:?} cannot {} path {:?}", a.verb, a.path);
    }
    let resource = match a.subresource {
        "" => a.resource.to_owned(),
        sub => format!("{}/{sub}", a.resource),
    };
    let what = format!("User {user:?} cannot {} resource {resource:?} in API group {:?}", a.verb, a.group);
    match a.namespace {
        "" => format!("{what} at the cluster scope"),
        namespace => format!("{what} in the namespace {namespace:?}"),
    }
}

/// The 403 of a denial.
pub fn denial(a: &Attributes<'_>) -> Status {
    let message = denial_message(a);
    if a.path.is_empty() {
        Status::forbidden(a.group, a.resource, a.name, message)
    } else {
        Status::new(Reason::Forbidden, format!("forbidden: {message}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            return rbac.authorize(&Attributes::path(user, words[0], resource)).is_some();
        }
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let namespace = words.iter().find_map(|w| w.strip_prefix("ns=")).unwrap_or("");
        let name = words.iter().find_map(|w| w.strip_prefix("name=")).unwrap_or("");
        let verb = words[0];
        rbac.authorize(&Attributes { user, verb, group, resource, subresource, namespace, name, path: "" }).is_some()
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
            (User::node("a"), "get secrets ns=x", true),
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
        let secret = Rule {
            verbs: vec!["get".into()],
            api_groups: vec!["".into()],
            resources: vec!["secrets".into()],
            ..Rule::default()
        };
        assert_eq!(
            rbac.missing(&user, "x", std::slice::from_ref(&secret)).len(),
            1,
            "every name is more than one name"
        );
        assert!(rbac.missing(&account, "x", &[secret]).is_empty());
        let a = Attributes {
            user: &user,
            verb: "list",
            group: "",
            resource: "pods",
            subresource: "",
            namespace: "default",
            name: "",
            path: "",
        };
        assert_eq!(
            denial(&a).message,
            "pods is forbidden: User \"u\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
        );
    }
}
