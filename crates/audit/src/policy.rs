//! How much of which request is recorded (`apiserver/pkg/audit/policy`, `apiserver/pkg/apis/audit/validation`).

use std::cell::RefCell;
use std::path::Path;

use corten_auth::Attributes;
use corten_client::config_file::{self, Fields};
use corten_kinds::validate::names;
use corten_object::FieldError;
use corten_tree::Tree;

use crate::event::Stage;

const VERSION: &str = "audit.k8s.io/v1";

/// How much is recorded; each holds what those before it hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who, what, when, and the answer's code.
    Metadata,
    /// And the request's object.
    Request,
    /// And the answer's object.
    RequestResponse,
}

impl Level {
    const ALL: [Level; 4] = [Level::None, Level::Metadata, Level::Request, Level::RequestResponse];

    /// The text in policies and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

/// What a policy says of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ruling {
    /// How much is recorded.
    pub level: Level,
    /// Whether there is no event at a stage, by [`Stage`].
    pub omit: [bool; 4],
    /// Whether objects are recorded without their managed fields.
    pub omit_managed_fields: bool,
}

#[derive(Debug, Clone, Default)]
struct Rule {
    ruling: Ruling,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    paths: Vec<String>,
}

#[derive(Debug, Clone, Default)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

/// A policy: the first rule that fits decides; what fits none is not recorded.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    rules: Vec<Rule>,
    rest: Ruling,
}

impl Policy {
    /// Reads a policy file. Unknown fields are told of in the log and ignored, as upstream does.
    ///
    /// # Errors
    /// What is wrong, with the field.
    pub fn load(path: &Path) -> Result<Policy, String> {
        let shown = |why: String| format!("loading audit policy file: {why}: from file {}", path.display());
        let tree =
            config_file::read(path, &[VERSION], "Policy").map_err(|e| format!("loading audit policy file: {e}"))?;
        let (policy, unknown) = Policy::parse(&tree).map_err(shown)?;
        for field in unknown {
            tracing::warn!("audit policy {}: {field}; it is ignored", path.display());
        }
        Ok(policy)
    }

    /// The policy of a document, and what is unknown in it.
    ///
    /// # Errors
    /// What is wrong, with the field.
    pub fn parse(tree: &Tree) -> Result<(Policy, Vec<String>), String> {
        let faults = RefCell::default();
        let mut errors = Vec::new();
        let policy = {
            let fields = Fields::new(tree, &faults);
            let omit = stages(&fields, &mut errors);
            let omit_managed_fields = fields.flag("omitManagedFields").unwrap_or(false);
            let rest = Ruling { level: Level::None, omit, omit_managed_fields };
            let rules = fields.objects("rules").into_iter().map(|rule| parse_rule(&rule, rest, &mut errors)).collect();
            Policy { rules, rest }
        };
        let (unknown, wrong): (Vec<String>, Vec<String>) =
            faults.into_inner().into_iter().partition(|fault| fault.starts_with("unknown field"));
        let wrong: Vec<String> = wrong.into_iter().chain(errors.iter().map(ToString::to_string)).collect();
        match wrong.as_slice() {
            [] if policy.rules.is_empty() => Err("loaded illegal policy with 0 rules".into()),
            [] => Ok((policy, unknown)),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }

    /// What is recorded of a request.
    pub fn ruling(&self, asked: &Attributes<'_>) -> Ruling {
        self.rules.iter().find(|rule| rule.matches(asked)).map_or(self.rest, |rule| rule.ruling)
    }
}

fn stages(fields: &Fields<'_>, errors: &mut Vec<FieldError>) -> [bool; 4] {
    let mut omit = [false; 4];
    for (i, text) in fields.texts("omitStages").iter().enumerate() {
        match Stage::ALL.iter().position(|stage| stage.as_str() == text) {
            Some(at) => omit[at] = true,
            None => {
                let path = fields.path().child("omitStages").index(i);
                let known = Stage::ALL.map(Stage::as_str).join(",");
                errors.push(FieldError::invalid_str(&path, text, format!("allowed stages are {known}")));
            }
        }
    }
    omit
}

fn parse_rule(fields: &Fields<'_>, rest: Ruling, errors: &mut Vec<FieldError>) -> Rule {
    let path = fields.path();
    let level = fields.text("level");
    let known = Level::ALL.into_iter().find(|l| l.as_str() == level);
    match known {
        None if level.is_empty() => errors.push(FieldError::required(&path.child("level"), "")),
        None => {
            errors.push(FieldError::not_supported(&path.child("level"), &level, &Level::ALL.map(Level::as_str)));
        }
        Some(_) => {}
    }
    let paths = fields.texts("nonResourceURLs");
    for (i, url) in paths.iter().enumerate().filter(|(_, url)| *url != "*") {
        let path = path.child("nonResourceURLs").index(i);
        if !url.starts_with('/') {
            let why = "non-resource URL rules must begin with a '/' character";
            errors.push(FieldError::invalid_str(&path, url, why));
        }
        let cut = url.char_indices().next_back().map_or(0, |(at, _)| at);
        if url[..cut].contains('*') {
            let why = "non-resource URL wildcards '*' must be the final character of the rule";
            errors.push(FieldError::invalid_str(&path, url, why));
        }
    }
    let groups = path.child("resources");
    let resources = fields.objects("resources").into_iter().map(|entry| {
        let entry = GroupResources {
            group: entry.text("group"),
            resources: entry.texts("resources"),
            names: entry.texts("resourceNames"),
        };
        let wrong = names::dns_subdomain(&entry.group);
        if !matches!(entry.group.as_str(), "" | "*") && !wrong.is_empty() {
            errors.push(FieldError::invalid_str(&groups.child("group"), &entry.group, wrong.join(",")));
        }
        if !entry.names.is_empty() && entry.resources.is_empty() {
            let why = "using resourceNames requires at least one resource";
            errors.push(FieldError::invalid(&groups.child("resourceNames"), &entry.names.clone().into(), why));
        }
        entry
    });
    let resources: Vec<GroupResources> = resources.collect();
    let own = stages(fields, errors);
    let namespaces = fields.texts("namespaces");
    if !paths.is_empty() && (!resources.is_empty() || !namespaces.is_empty()) {
        let why = "rules cannot apply to both regular resources and non-resource URLs";
        errors.push(FieldError::invalid(&path.child("nonResourceURLs"), &paths.clone().into(), why));
    }
    Rule {
        ruling: Ruling {
            level: known.unwrap_or_default(),
            omit: std::array::from_fn(|i| rest.omit[i] || own[i]),
            omit_managed_fields: fields.flag("omitManagedFields").unwrap_or(rest.omit_managed_fields),
        },
        users: fields.texts("users"),
        groups: fields.texts("userGroups"),
        verbs: fields.texts("verbs"),
        resources,
        namespaces,
        paths,
    }
}

impl Rule {
    fn matches(&self, asked: &Attributes<'_>) -> bool {
        let among = |list: &[String], text: &str| list.is_empty() || list.iter().any(|t| t == text);
        let resource = asked.path.is_empty();
        if !among(&self.users, &asked.user.name) || !among(&self.verbs, asked.verb) {
            return false;
        }
        if !self.groups.is_empty() && !asked.user.groups.iter().any(|g| self.groups.contains(g)) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            let fits = self.resources.is_empty() || self.resources.iter().any(|entry| entry.matches(asked));
            return resource && among(&self.namespaces, asked.namespace) && fits;
        }
        self.paths.is_empty() || (!resource && self.paths.iter().any(|spec| path_matches(asked.path, spec)))
    }
}

impl GroupResources {
    fn matches(&self, asked: &Attributes<'_>) -> bool {
        if self.group != asked.group && self.group != "*" {
            return false;
        }
        let named = self.names.is_empty() || self.names.iter().any(|n| n == asked.name);
        self.resources.is_empty() || (named && self.resources.iter().any(|r| resource_matches(r, asked)))
    }
}

fn resource_matches(pattern: &str, asked: &Attributes<'_>) -> bool {
    match pattern.split_once('/') {
        _ if pattern == "*" => true,
        None => asked.subresource.is_empty() && pattern == asked.resource,
        Some((resource, "*")) => resource == asked.resource,
        Some((resource, sub)) => {
            !asked.subresource.is_empty() && sub == asked.subresource && (resource == "*" || resource == asked.resource)
        }
    }
}

fn path_matches(path: &str, spec: &str) -> bool {
    spec == "*" || spec == path || (spec.ends_with('*') && path.starts_with(spec.trim_end_matches('*')))
}

#[cfg(test)]
mod tests {
    use corten_auth::User;
    use corten_client::config_file::yaml;

    use super::*;

    fn policy(rules: &str) -> Policy {
        Policy::parse(&yaml(rules).unwrap()).unwrap().0
    }

    #[test]
    fn audit_rules_match_by_user_verb_resource_namespace_and_path() {
        let user = User::new("u", &["dev"]);
        let pods = Attributes { resource: "pods", namespace: "ns", name: "p", ..Attributes::resource(&user, "get") };
        let logs = Attributes { subresource: "log", ..pods };
        let health = Attributes::path(&user, "get", "/healthz/etcd");
        let of = |rule: &str, asked: &Attributes<'_>| {
            policy(&format!("rules: [{{level: Request, {rule}}}]")).ruling(asked).level == Level::Request
        };
        for (rule, on_pods, on_logs, on_health) in [
            ("users: []", true, true, true),
            ("users: [u]", true, true, true),
            ("users: [v]", false, false, false),
            ("userGroups: [ops, dev]", true, true, true),
            ("userGroups: [ops]", false, false, false),
            ("verbs: [get]", true, true, true),
            ("verbs: [list]", false, false, false),
            ("namespaces: [ns]", true, true, false),
            ("namespaces: ['']", false, false, false),
            ("resources: [{group: ''}]", true, true, false),
            ("resources: [{group: apps}]", false, false, false),
            ("resources: [{group: '*', resources: [pods]}]", true, false, false),
            ("resources: [{group: '', resources: [pods/log]}]", false, true, false),
            ("resources: [{group: '', resources: ['pods/*']}]", true, true, false),
            ("resources: [{group: '', resources: ['*/log']}]", false, true, false),
            ("resources: [{group: '', resources: ['*']}]", true, true, false),
            ("resources: [{group: '', resources: [pods], resourceNames: [p]}]", true, false, false),
            ("resources: [{group: '', resources: [pods], resourceNames: [q]}]", false, false, false),
            ("nonResourceURLs: ['/healthz*']", false, false, true),
            ("nonResourceURLs: ['*']", false, false, true),
            ("nonResourceURLs: [/healthz]", false, false, false),
        ] {
            assert_eq!((of(rule, &pods), of(rule, &logs), of(rule, &health)), (on_pods, on_logs, on_health), "{rule}");
        }
    }

    #[test]
    fn omit_stages_are_joined_and_managed_fields_overridden() {
        let user = User::default();
        let text = "omitStages: [RequestReceived]\nomitManagedFields: true\nrules:\n\
                    - {level: Metadata, verbs: [get], omitStages: [Panic], omitManagedFields: false}\n\
                    - {level: None, verbs: [list]}";
        let policy = policy(text);
        let get = policy.ruling(&Attributes::resource(&user, "get"));
        assert_eq!((get.omit, get.omit_managed_fields), ([true, false, false, true], false));
        let list = policy.ruling(&Attributes::resource(&user, "list"));
        assert_eq!((list.level, list.omit_managed_fields), (Level::None, true));
        assert_eq!(policy.ruling(&Attributes::resource(&user, "watch")).level, Level::None);
    }

    #[test]
    fn audit_policy_faults_name_their_fields() {
        for (text, expected) in [
            ("rules: []", "loaded illegal policy with 0 rules"),
            ("rules: [{}]", "rules[0].level: Required value"),
            (
                "rules: [{level: All}]",
                "rules[0].level: Unsupported value: \"All\": supported values: \"None\", \"Metadata\", \"Request\", \"RequestResponse\"",
            ),
            (
                "rules: [{level: None}]\nomitStages: [x]",
                "omitStages[0]: Invalid value: \"x\": allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic",
            ),
            (
                "rules: [{level: None, nonResourceURLs: [a, '/a*b']}]",
                "[rules[0].nonResourceURLs[0]: Invalid value: \"a\": non-resource URL rules must begin with a '/' character, \
                 rules[0].nonResourceURLs[1]: Invalid value: \"/a*b\": non-resource URL wildcards '*' must be the final character of the rule]",
            ),
            (
                "rules: [{level: None, resources: [{resourceNames: [a]}]}]",
                "rules[0].resources.resourceNames: Invalid value: [\"a\"]: using resourceNames requires at least one resource",
            ),
            ("rules: [{level: None, users: 3}]", "rules[0].users: a list of strings is expected"),
        ] {
            assert_eq!(Policy::parse(&yaml(text).unwrap()).unwrap_err(), expected, "{text}");
        }
        let (_, unknown) = Policy::parse(&yaml("rules: [{level: None, usrs: [a]}]").unwrap()).unwrap();
        assert_eq!(unknown, ["unknown field \"rules[0].usrs\""]);
    }
}
