//! Whether a request is one of a schema (`apiserver/pkg/util/flowcontrol/rule.go`).

use corten_tree::Tree;

use crate::FlowSchema;

/// A request, as far as schemas look at it.
#[derive(Debug, Clone, Copy)]
pub struct Digest<'a> {
    /// The caller's name.
    pub user: &'a str,
    /// The caller's groups.
    pub groups: &'a [String],
    /// The request's verb, of objects or (in small letters) of HTTP.
    pub verb: &'a str,
    /// What it is about.
    pub what: What<'a>,
}

/// What a request is about.
#[derive(Debug, Clone, Copy)]
pub enum What<'a> {
    /// An object or a collection.
    Resource {
        /// API group.
        group: &'a str,
        /// The plural.
        resource: &'a str,
        /// Empty for the object itself.
        subresource: &'a str,
        /// Empty for what is in none; a namespace is in itself.
        namespace: &'a str,
    },
    /// Any other path.
    Path(&'a str),
}

impl<'a> Digest<'a> {
    /// The namespace that the request is about.
    pub fn namespace(&self) -> &'a str {
        match self.what {
            What::Resource { namespace, .. } => namespace,
            What::Path(_) => "",
        }
    }
}

/// `PolicyRulesWithSubjects`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Everyone,
    User(String),
    Group(String),
    /// `system:serviceaccount:NAMESPACE:`: all accounts of a namespace.
    AccountsOf(String),
    Nobody,
}

/// `*`, or a list of values.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Values {
    All,
    Of(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ResourceRule {
    verbs: Values,
    groups: Values,
    resources: Values,
    namespaces: Values,
    cluster_scope: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct PathRule {
    verbs: Values,
    paths: Vec<String>,
}

impl FlowSchema {
    /// Whether a request is one of this schema's.
    pub fn matches(&self, request: &Digest<'_>) -> bool {
        self.rules.iter().any(|rule| rule.matches(request))
    }
}

impl Rule {
    pub(crate) fn read(tree: &Tree) -> Rule {
        Rule {
            subjects: tree.list_at("subjects").iter().map(Subject::read).collect(),
            resources: tree.list_at("resourceRules").iter().map(ResourceRule::read).collect(),
            paths: tree.list_at("nonResourceRules").iter().map(PathRule::read).collect(),
        }
    }

    fn matches(&self, request: &Digest<'_>) -> bool {
        // What costs less to see comes first: rules are short, users may be in many groups.
        let about = match request.what {
            What::Resource { .. } => self.resources.iter().any(|rule| rule.matches(request)),
            What::Path(path) => self.paths.iter().any(|rule| rule.verbs.has(request.verb) && rule.has(path)),
        };
        about && self.subjects.iter().any(|subject| subject.matches(request))
    }
}

impl Subject {
    fn read(tree: &Tree) -> Subject {
        let name = |path: &str| tree.path(path).and_then(Tree::as_str).map(str::to_owned);
        match tree.str_at("kind") {
            "User" => match name("user.name") {
                Some(name) if name == "*" => Subject::Everyone,
                Some(name) => Subject::User(name),
                None => Subject::Nobody,
            },
            "Group" => match name("group.name") {
                Some(name) if name == "*" => Subject::Everyone,
                Some(name) => Subject::Group(name),
                None => Subject::Nobody,
            },
            "ServiceAccount" => match (name("serviceAccount.namespace"), name("serviceAccount.name")) {
                (Some(namespace), Some(name)) if name == "*" => {
                    Subject::AccountsOf(format!("system:serviceaccount:{namespace}:"))
                }
                (Some(namespace), Some(name)) => Subject::User(format!("system:serviceaccount:{namespace}:{name}")),
                _ => Subject::Nobody,
            },
            _ => Subject::Nobody,
        }
    }

    fn matches(&self, request: &Digest<'_>) -> bool {
        match self {
            Subject::Everyone => true,
            Subject::User(name) => name == request.user,
            Subject::Group(name) => request.groups.iter().any(|group| group == name),
            Subject::AccountsOf(prefix) => request.user.starts_with(prefix),
            Subject::Nobody => false,
        }
    }
}

impl Values {
    fn read(list: &[Tree]) -> Values {
        match list {
            [one] if one.as_str() == Some("*") => Values::All,
            _ => Values::Of(list.iter().filter_map(Tree::as_str).map(str::to_owned).collect()),
        }
    }

    fn any(&self, matches: impl Fn(&str) -> bool) -> bool {
        match self {
            Values::All => true,
            Values::Of(values) => values.iter().any(|value| matches(value)),
        }
    }

    fn has(&self, wanted: &str) -> bool {
        self.any(|value| value == wanted)
    }
}

impl ResourceRule {
    fn read(tree: &Tree) -> ResourceRule {
        ResourceRule {
            verbs: Values::read(tree.list_at("verbs")),
            groups: Values::read(tree.list_at("apiGroups")),
            resources: Values::read(tree.list_at("resources")),
            namespaces: Values::read(tree.list_at("namespaces")),
            cluster_scope: tree.bool_at("clusterScope"),
        }
    }

    fn matches(&self, request: &Digest<'_>) -> bool {
        let What::Resource { group, resource, subresource, namespace } = request.what else { return false };
        let is = |value: &str| match value.split_once('/') {
            None => subresource.is_empty() && value == resource,
            Some((of, part)) => of == resource && part == subresource && !part.is_empty(),
        };
        self.verbs.has(request.verb)
            && self.resources.any(is)
            && self.groups.has(group)
            && if namespace.is_empty() { self.cluster_scope } else { self.namespaces.has(namespace) }
    }
}

impl PathRule {
    fn read(tree: &Tree) -> PathRule {
        let paths = tree.list_at("nonResourceURLs").iter().filter_map(Tree::as_str).map(str::to_owned).collect();
        PathRule { verbs: Values::read(tree.list_at("verbs")), paths }
    }

    /// `matchPolicyRuleNonResourceURL`: a path matches itself and all below it, with or without the star.
    fn has(&self, path: &str) -> bool {
        self.paths.iter().any(|rule| {
            let prefix = rule.strip_suffix('*').unwrap_or(rule);
            let below = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
            rule == "*"
                || rule == path
                || match prefix.strip_suffix('/') {
                    Some(prefix) => below(prefix),
                    None => below(prefix),
                }
        })
    }
}

#[cfg(test)]
mod tests {
    use corten_tree::tree;

    use super::*;

    fn schema(rule: Tree) -> FlowSchema {
        FlowSchema::read(&tree!({"metadata": {"name": "f"}, "spec": {"rules": [rule]}}))
    }

    fn resource(
        verb: &'static str,
        group: &'static str,
        path: &'static str,
        namespace: &'static str,
    ) -> Digest<'static> {
        let (resource, subresource) = path.split_once('/').unwrap_or((path, ""));
        let what = What::Resource { group, resource, subresource, namespace };
        Digest { user: "u", groups: &[], verb, what }
    }

    #[test]
    fn subjects_of_a_flow_schema() {
        let groups = ["system:authenticated".to_owned(), "g".to_owned()];
        let matches = |subject: Tree, user: &str| {
            let rule = tree!({"subjects": [subject], "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]});
            schema(rule).matches(&Digest { user, groups: &groups, verb: "get", what: What::Path("/version") })
        };
        let user = |name: &str| tree!({"kind": "User", "user": {"name": name}});
        assert!(matches(user("u"), "u") && matches(user("*"), "u") && !matches(user("v"), "u"));
        let group = |name: &str| tree!({"kind": "Group", "group": {"name": name}});
        assert!(matches(group("g"), "u") && matches(group("*"), "u") && !matches(group("h"), "u"));
        let account =
            |name: &str| tree!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "n", "name": name}});
        assert!(matches(account("a"), "system:serviceaccount:n:a"));
        assert!(matches(account("*"), "system:serviceaccount:n:b"));
        assert!(!matches(account("*"), "system:serviceaccount:nn:b") && !matches(account("*"), "n"));
        assert!(!matches(account("a"), "system:serviceaccount:n:b"));
        assert!(!matches(tree!({"kind": "User"}), "u") && !matches(tree!({"kind": "Group"}), ""));
    }

    #[test]
    fn resource_rules_of_a_flow_schema() {
        let matches = |rule: Tree, request: &Digest<'_>| {
            let all = tree!({"kind": "User", "user": {"name": "*"}});
            schema(tree!({"subjects": [all], "resourceRules": [rule]})).matches(request)
        };
        let rule = |resources: &[&str], namespaces: &[&str], cluster: bool| {
            tree!({"verbs": ["get", "list"], "apiGroups": ["", "apps"], "resources": (resources.to_vec()),
                "namespaces": (namespaces.to_vec()), "clusterScope": cluster})
        };
        let pods = rule(&["pods", "pods/status"], &["a"], false);
        assert!(matches(pods.clone(), &resource("get", "", "pods", "a")));
        assert!(matches(pods.clone(), &resource("get", "apps", "pods/status", "a")));
        for other in [
            resource("watch", "", "pods", "a"),
            resource("get", "batch", "pods", "a"),
            resource("get", "", "pods", "b"),
            resource("get", "", "pods", ""),
            resource("get", "", "pods/log", "a"),
            resource("get", "", "nodes", "a"),
        ] {
            assert!(!matches(pods.clone(), &other), "{other:?}");
        }
        assert!(matches(rule(&["*"], &["*"], false), &resource("list", "", "pods/log", "b")));
        // Neither stands for the other: all namespaces, and no namespace.
        assert!(!matches(rule(&["*"], &["*"], false), &resource("list", "", "nodes", "")));
        assert!(matches(rule(&["nodes"], &[], true), &resource("list", "", "nodes", "")));
        assert!(!matches(
            rule(&["nodes"], &[], true),
            &Digest { what: What::Path("/nodes"), ..resource("get", "", "", "") }
        ));
        assert!(!matches(rule(&["pods/"], &["*"], false), &resource("get", "", "pods", "a")));
    }

    #[test]
    fn paths_of_a_flow_schema_match_what_is_below_them() {
        for (rule, path, expected) in [
            ("*", "/x", true),
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/etcd", true),
            ("/healthz", "/healthzz", false),
            ("/healthz/*", "/healthz/etcd", true),
            ("/healthz/*", "/healthz", false),
            ("/", "/x", true),
            ("/", "/", true),
        ] {
            let all = tree!({"kind": "Group", "group": {"name": "*"}});
            let rules = tree!({"subjects": [all], "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": [rule]}]});
            let digest = Digest { user: "u", groups: &[], verb: "get", what: What::Path(path) };
            assert_eq!(schema(rules.clone()).matches(&digest), expected, "{rule} {path}");
            assert!(!schema(rules).matches(&Digest { verb: "post", ..digest }));
        }
    }
}
