//! What a webhook configuration says, read once.

use std::time::Duration;

use crate::policy::expression::Expression;
use corten_kinds::expressions::{Wanted, admission_env};
use corten_object::LabelSelector;
use corten_tree::Tree;
use corten_webhook::ClientConfig;

/// One webhook.
pub(crate) struct Hook {
    /// Its name.
    pub name: String,
    /// The configuration that it is in.
    pub configuration: String,
    /// Tells it apart from all others: configuration, name, and how often the name came before in the configuration.
    pub uid: String,
    /// Where it is; the text says why nobody knows.
    pub client: Result<ClientConfig, String>,
    /// What it wants to be asked about.
    pub rules: Vec<Rule>,
    /// Whether it wants to be asked about equivalent resources, too.
    pub equivalent: bool,
    /// Whether requests go on when it fails.
    pub ignore_failure: bool,
    /// How long it may take.
    pub timeout: Duration,
    /// Labels of the namespace; the text says why it cannot be read.
    pub namespaces: Result<LabelSelector, String>,
    /// Labels of the object.
    pub objects: Result<LabelSelector, String>,
    /// Conditions by name.
    pub conditions: Vec<(String, Expression)>,
    /// Whether it does nothing that a dry run should not.
    pub dry_run: bool,
    /// Whether it wants to be asked again when the object was changed after it.
    pub reinvoke: bool,
    /// The AdmissionReview version that it is sent; `None` if it takes none that is known.
    pub review_version: Option<&'static str>,
}

/// One rule of a webhook or a policy (`RuleWithOperations`).
#[derive(Clone)]
pub(crate) struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
}

/// What a rule is compared with.
pub(crate) struct Subject<'a> {
    pub operation: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    /// Whether the object is in a namespace (a Namespace itself is not).
    pub namespaced: bool,
}

impl Rule {
    /// Reads a rule, of a webhook or of a policy.
    pub fn read(rule: &Tree) -> Rule {
        Rule {
            operations: texts(rule.list_at("operations")),
            groups: texts(rule.list_at("apiGroups")),
            versions: texts(rule.list_at("apiVersions")),
            resources: texts(rule.list_at("resources")),
            scope: rule.str_at("scope").to_owned(),
        }
    }

    /// `rules.Matcher` in `predicates/rules/rules.go`
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        let any = |list: &[String], wanted: &str| list.iter().any(|t| t == "*" || t == wanted);
        let scope = match self.scope.as_str() {
            "Namespaced" => subject.namespaced,
            "Cluster" => !subject.namespaced,
            _ => true,
        };
        let resource = |text: &String| {
            let (resource, sub) = text.split_once('/').unwrap_or((text, ""));
            (resource == "*" || resource == subject.resource) && (sub == "*" || sub == subject.subresource)
        };
        scope
            && any(&self.operations, subject.operation)
            && any(&self.groups, subject.group)
            && any(&self.versions, subject.version)
            && self.resources.iter().any(resource)
    }
}

fn texts(list: &[Tree]) -> Vec<String> {
    list.iter().filter_map(Tree::as_str).map(str::to_owned).collect()
}

/// The webhooks of a configuration, in its order.
pub(crate) fn read(configuration: &str, tree: &Tree) -> Vec<Hook> {
    let mut hooks: Vec<Hook> = Vec::new();
    for hook in tree.list_at("webhooks") {
        let name = hook.str_at("name");
        let before = hooks.iter().filter(|h| h.name == name).count();
        // An absent selector selects all (the kind's defaults set it to `{}`).
        let selector = |key: &str| match hook.path(key) {
            None => Ok(LabelSelector::everything()),
            some => LabelSelector::from_tree(some),
        };
        let condition = |c: &Tree| {
            let expression = Expression::compile(admission_env(true), c.str_at("expression"), Wanted::Bool);
            (c.str_at("name").to_owned(), expression)
        };
        let known = |v: &Tree| match v.as_str() {
            Some("v1") => Some("v1"),
            Some("v1beta1") => Some("v1beta1"),
            _ => None,
        };
        hooks.push(Hook {
            name: name.to_owned(),
            configuration: configuration.to_owned(),
            uid: format!("{configuration}/{name}/{before}"),
            client: ClientConfig::from_tree(hook.path("clientConfig").unwrap_or(&Tree::Null)),
            rules: hook.list_at("rules").iter().map(Rule::read).collect(),
            equivalent: hook.str_at("matchPolicy") != "Exact",
            ignore_failure: hook.str_at("failurePolicy") == "Ignore",
            timeout: Duration::from_secs(hook.i64_at("timeoutSeconds").unwrap_or(10).clamp(1, 30).unsigned_abs()),
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
            conditions: hook.list_at("matchConditions").iter().map(condition).collect(),
            dry_run: matches!(hook.str_at("sideEffects"), "None" | "NoneOnDryRun"),
            reinvoke: hook.str_at("reinvocationPolicy") == "IfNeeded",
            review_version: hook.list_at("admissionReviewVersions").iter().find_map(known),
        });
    }
    hooks
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_tree::tree;

    #[test]
    fn webhook_rules_match_operations_groups_resources_subresources_and_scope() {
        let rule = |resources: Tree, scope: &str| {
            Rule::read(&tree!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["*"],
                "resources": (resources), "scope": scope}))
        };
        let of = |resource, subresource, namespaced| Subject {
            operation: "CREATE",
            group: "",
            version: "v1",
            resource,
            subresource,
            namespaced,
        };
        for (resources, scope, subject, expected) in [
            (tree!(["pods"]), "*", of("pods", "", true), true),
            (tree!(["pods"]), "*", of("pods", "exec", true), false),
            (tree!(["pods/*"]), "*", of("pods", "exec", true), true),
            (tree!(["pods/*"]), "*", of("pods", "", true), true),
            (tree!(["*"]), "*", of("pods", "status", true), false),
            (tree!(["*/*"]), "*", of("pods", "status", true), true),
            (tree!(["*/status"]), "*", of("pods", "status", true), true),
            (tree!(["*"]), "Cluster", of("pods", "", true), false),
            (tree!(["*"]), "Namespaced", of("namespaces", "", false), false),
            (tree!(["*"]), "Cluster", of("namespaces", "", false), true),
        ] {
            let found = rule(resources.clone(), scope).matches(&subject);
            assert_eq!(found, expected, "{resources} {scope} {}/{}", subject.resource, subject.subresource);
        }
    }

    #[test]
    fn webhooks_of_one_name_are_told_apart() {
        let hooks = read("c", &tree!({"webhooks": [{"name": "a.b.c"}, {"name": "a.b.c", "timeoutSeconds": 3}]}));
        let uids: Vec<&str> = hooks.iter().map(|h| h.uid.as_str()).collect();
        assert_eq!(uids, ["c/a.b.c/0", "c/a.b.c/1"]);
        assert_eq!((hooks[0].timeout.as_secs(), hooks[1].timeout.as_secs()), (10, 3));
        assert_eq!(hooks[0].client, Err("webhook configuration must have either service or URL".into()));
    }
}
