//! Upstream's default roles and bindings, from the table in `data/rbac.txt`.

use corten_tree::{Map, Tree, tree};

use crate::Rule;

const TABLE: &str = include_str!("../data/rbac.txt");

/// What Corten's components need beyond upstream's: the service proxy is also the DNS server, which knows of namespaces; workloads
/// are rolled when configuration changes. And who may view pods may see what they use, as add-ons for that allow it.
const OWN: &str = "\
role corten:roll-on-config
  allow get,list,patch,update,watch apps daemonsets,deployments,statefulsets
  allow get,list,watch core configmaps,secrets
  allow create,patch,update core,events.k8s.io events
bind corten:roll-on-config ClusterRole/corten:roll-on-config SA:kube-system/roll-on-config-controller
role system:aggregated-metrics-reader rbac.authorization.k8s.io/aggregate-to-admin=true rbac.authorization.k8s.io/aggregate-to-edit=true rbac.authorization.k8s.io/aggregate-to-view=true
  allow get,list,watch metrics.k8s.io nodes,pods
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

/// What is to be done about an object that is there already.
#[derive(Debug, Clone, PartialEq)]
pub enum Reconciled {
    /// Nothing.
    Same,
    /// It is to be like this.
    Update(Tree),
    /// It is to be made anew: a binding's role cannot be changed.
    Recreate,
}

/// Who does not want an object of theirs to be touched says `false` there.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// How a role or a binding that is there becomes what is expected: what is missing is added, what is more is kept
/// (`component-helpers/auth/rbac/reconciliation`, `computeReconciledRole`, `computeReconciledRoleBinding`).
pub fn reconciled(existing: &Tree, expected: &Tree) -> Reconciled {
    if existing.at(&["metadata", "annotations", AUTOUPDATE]).and_then(Tree::as_str) == Some("false") {
        return Reconciled::Same;
    }
    let same_role = |part: &str| existing.str_at(part) == expected.str_at(part);
    if !["roleRef.kind", "roleRef.name"].into_iter().all(same_role) {
        return Reconciled::Recreate;
    }
    let (mut new, mut changed) = (existing.clone(), false);
    for part in ["metadata.annotations", "metadata.labels"] {
        for (key, value) in expected.map_at(part).iter() {
            if !existing.map_at(part).contains(key) {
                new.make_map_at(part).insert(key.to_owned(), value.clone());
                changed = true;
            }
        }
    }
    for (part, missing) in [
        ("rules", missing_rules(existing, expected)),
        ("subjects", missing_items(existing, expected, "subjects")),
        (SELECTORS, missing_items(existing, expected, SELECTORS)),
    ] {
        if !missing.is_empty() {
            let all = [existing.list_at(part), &missing[..]].concat();
            new.set(part, Tree::List(all));
            changed = true;
        }
    }
    if expected.path("aggregationRule").is_none() && existing.path("aggregationRule").is_some() {
        new.remove("aggregationRule");
        changed = true;
    }
    if changed { Reconciled::Update(new) } else { Reconciled::Same }
}

const SELECTORS: &str = "aggregationRule.clusterRoleSelectors";

fn missing_rules(existing: &Tree, expected: &Tree) -> Vec<Tree> {
    let rules = |tree: &Tree| -> Vec<Rule> {
        serde_json::from_slice(&tree.get("rules").cloned().unwrap_or_default().to_json()).unwrap_or_default()
    };
    let list = |texts: &[String]| Tree::List(texts.iter().map(Tree::from).collect());
    let missing = crate::escalation::missing(&rules(existing), &rules(expected));
    let as_tree = |rule: &Rule| {
        let mut out = tree!({"verbs": (list(&rule.verbs))});
        for (key, texts) in [
            ("apiGroups", &rule.api_groups),
            ("resources", &rule.resources),
            ("resourceNames", &rule.resource_names),
            ("nonResourceURLs", &rule.non_resource_urls),
        ] {
            if !texts.is_empty() {
                out.insert(key, list(texts));
            }
        }
        out
    };
    missing.iter().map(as_tree).collect()
}

fn missing_items(existing: &Tree, expected: &Tree, part: &str) -> Vec<Tree> {
    let have = existing.list_at(part);
    let lacks = |item: &&Tree| !have.iter().any(|other| other.semantically_equal(item));
    expected.list_at(part).iter().filter(lacks).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bootstrap_reconcile_adds_what_is_missing_and_keeps_what_is_more() {
        let expected = objects().into_iter().find(|o| o.str_at("metadata.name") == "system:basic-user").unwrap();
        assert_eq!(reconciled(&expected, &expected), Reconciled::Same);
        let mut poor = expected.clone();
        poor.remove("metadata.labels");
        poor.set("rules", tree!([{"verbs": ["get"], "apiGroups": ["acme.io"], "resources": ["things"]}]));
        let Reconciled::Update(mended) = reconciled(&poor, &expected) else { panic!("it lacks rules") };
        assert!(mended.map_at("metadata.labels").contains("kubernetes.io/bootstrapping"));
        assert_eq!(mended.list_at("rules")[0].list_at("resources"), &["things".into()][..]);
        assert_eq!(
            mended.list_at("rules")[1].to_string(),
            r#"{"verbs":["create"],"apiGroups":["authorization.k8s.io"],"resources":["selfsubjectaccessreviews"]}"#
        );
        assert_eq!(reconciled(&mended, &expected), Reconciled::Same);
        poor.make_map_at("metadata.annotations").insert(AUTOUPDATE, "false");
        assert_eq!(reconciled(&poor, &expected), Reconciled::Same);
    }

    #[test]
    fn bootstrap_reconcile_of_bindings_adds_subjects_and_makes_other_roles_anew() {
        let expected = objects()
            .into_iter()
            .find(|o| o.str_at("metadata.name") == "system:basic-user" && o.path("roleRef").is_some());
        let expected = expected.unwrap();
        let mut other = expected.clone();
        other.set("subjects", tree!([{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "eve"}]));
        let Reconciled::Update(mended) = reconciled(&other, &expected) else { panic!("it lacks subjects") };
        assert_eq!(mended.list_at("subjects").len(), 1 + expected.list_at("subjects").len());
        other.set("roleRef.name", "cluster-admin");
        assert_eq!(reconciled(&other, &expected), Reconciled::Recreate);
    }

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
