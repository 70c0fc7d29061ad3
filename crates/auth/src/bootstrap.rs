//! Upstream's default roles and bindings, from the table in `data/rbac.txt`.

use corten_tree::{Map, Tree, tree};

use crate::Rule;

const TABLE: &str = include_str!("../data/rbac.txt");

/// What Corten's components need beyond upstream's: the service proxy is also the DNS server, which knows of namespaces.
const OWN: &str = "\
role corten:cluster-dns
  allow get,list,watch core namespaces
bind corten:cluster-dns ClusterRole/corten:cluster-dns User:system:kube-proxy
";

/// Every role and binding as an object.
pub fn objects() -> Vec<Tree> {
    let mut out: Vec<Tree> = Vec::new();
    for line in TABLE.lines().chain(OWN.lines()).filter(|l| !l.starts_with('#') && !l.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["role", name, labels @ ..] => out.push(role(name, labels)),
            ["bind", name, role, subjects @ ..] => out.push(binding(name, role, subjects)),
            ["aggregate", label] => {
                let (key, value) = label.split_once('=').unwrap_or((label, ""));
                let labels: Map = [(key.to_owned().into(), value.into())].into_iter().collect();
                let selector = tree!([{"matchLabels": labels}]);
                if let Some(role) = out.last_mut() {
                    role.set("aggregationRule.clusterRoleSelectors", selector);
                    role.insert("rules", Tree::Null);
                }
            }
            [_, _, ..] => {
                let rules = out.last_mut().and_then(|role| role.get_mut("rules"));
                if let Some(rules) = rules.and_then(Tree::as_list_mut) {
                    rules.push(rule(&words));
                }
            }
            _ => {}
        }
    }
    out
}

/// The rules of one of the roles.
pub(crate) fn rules_of(name: &str) -> Vec<Rule> {
    let role = objects().into_iter().find(|o| o.str_at("metadata.name") == name).unwrap_or_default();
    serde_json::from_slice(&role.get("rules").cloned().unwrap_or_default().to_json()).unwrap_or_default()
}

fn metadata(name: &str, labels: &[&str]) -> (Tree, bool) {
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (namespace, name),
        None => ("", name),
    };
    let mut all = tree!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    for label in labels {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        all.insert(key.to_owned(), value);
    }
    let mut metadata = tree!({"name": name});
    if !namespace.is_empty() {
        metadata.insert("namespace", namespace);
    }
    metadata.insert("labels", all);
    metadata.insert("annotations", tree!({"rbac.authorization.kubernetes.io/autoupdate": "true"}));
    (metadata, !namespace.is_empty())
}

fn role(name: &str, labels: &[&str]) -> Tree {
    let (metadata, namespaced) = metadata(name, labels);
    let kind = if namespaced { "Role" } else { "ClusterRole" };
    tree!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata, "rules": []})
}

fn rule(words: &[&str]) -> Tree {
    let list = |text: &str| Tree::List(text.split(',').map(|t| if t == "core" { "" } else { t }.into()).collect());
    match words {
        ["url", verbs, urls] => tree!({"verbs": (list(verbs)), "nonResourceURLs": (list(urls))}),
        ["allow", verbs, groups, resources, names @ ..] => {
            let mut rule = tree!({"verbs": (list(verbs)), "apiGroups": (list(groups)), "resources": (list(resources))});
            if let [names] = names {
                rule.insert("resourceNames", list(names));
            }
            rule
        }
        _ => Tree::map(),
    }
}

fn binding(name: &str, role: &str, subjects: &[&str]) -> Tree {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let (metadata, namespaced) = metadata(name, &[]);
    let (role_kind, role_name) = role.split_once('/').unwrap_or(("ClusterRole", role));
    let subject = |text: &&str| match text.split_once(':') {
        Some(("SA", account)) => {
            let (namespace, name) = account.split_once('/').unwrap_or(("", account));
            tree!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
        }
        Some((kind, name)) => tree!({"kind": kind, "apiGroup": GROUP, "name": name}),
        None => Tree::map(),
    };
    let mut out = tree!({"apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": (if namespaced { "RoleBinding" } else { "ClusterRoleBinding" }), "metadata": metadata});
    if !subjects.is_empty() {
        out.insert("subjects", Tree::List(subjects.iter().map(subject).collect()));
    }
    out.insert("roleRef", tree!({"apiGroup": GROUP, "kind": role_kind, "name": role_name}));
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_line_becomes_something() {
        let objects = super::objects();
        assert!(objects.len() > 100, "{}", objects.len());
        for object in &objects {
            assert!(!object.str_at("metadata.name").is_empty(), "{object}");
            let rules = object.list_at("rules").len() + object.list_at("aggregationRule.clusterRoleSelectors").len();
            let empty = ["system:auth-delegator", "system:controller:"];
            let role = object.str_at("kind").ends_with("Role");
            assert!(
                !role || rules > 0 || empty.iter().any(|e| object.str_at("metadata.name").starts_with(e)),
                "{object}"
            );
        }
        assert!(super::rules_of("system:node").len() > 15);
    }
}
