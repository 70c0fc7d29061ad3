//! Who hands out rights must have them (`component-helpers/auth/rbac/validation/policy_comparator.go`,
//! `pkg/registry/rbac/validation/{rule,policy_compact}.go`).

use crate::rbac::{Rule, url_matches};
use crate::{User, go_list};

/// Everything there is.
pub fn full_authority() -> [Rule; 2] {
    let any = || vec!["*".to_owned()];
    [
        Rule { verbs: any(), api_groups: any(), resources: any(), ..Rule::default() },
        Rule { verbs: any(), non_resource_urls: any(), ..Rule::default() },
    ]
}

/// Whether `owned` allows everything that `wanted` allows.
///
/// # Errors
/// What the user is told, with what is missing.
pub fn confirm_no_escalation(user: &User, owned: &[Rule], wanted: &[Rule]) -> Result<(), String> {
    let missing = missing(owned, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let mut lines: Vec<String> = compact(missing).iter().map(ToString::to_string).collect();
    lines.sort();
    lines.dedup();
    let groups = go_list(&user.groups);
    Err(format!(
        "user {:?} (groups={groups}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        lines.join("\n")
    ))
}

/// The single permissions of `wanted` that `owned` does not allow (`Covers`).
pub(crate) fn missing(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    wanted.iter().flat_map(single).filter(|rule| !owned.iter().any(|o| covers(o, rule))).collect()
}

/// The single permissions that a rule is made of: one verb, one resource, one name or path each.
fn single(rule: &Rule) -> Vec<Rule> {
    let mut out = Vec::new();
    let one = |text: &String| vec![text.clone()];
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let base =
                    Rule { api_groups: one(group), resources: one(resource), verbs: one(verb), ..Rule::default() };
                match rule.resource_names.is_empty() {
                    true => out.push(base),
                    false => {
                        let named = rule.resource_names.iter();
                        out.extend(named.map(|name| Rule { resource_names: one(name), ..base.clone() }));
                    }
                }
            }
        }
    }
    for url in &rule.non_resource_urls {
        let verbs = rule.verbs.iter();
        out.extend(verbs.map(|verb| Rule { non_resource_urls: one(url), verbs: one(verb), ..Rule::default() }));
    }
    out
}

/// Whether a rule allows a single permission.
fn covers(owner: &Rule, wanted: &Rule) -> bool {
    let has = |list: &[String], item: &String| list.iter().any(|x| x == "*" || x == item);
    let resource = |item: &String| {
        let by_sub = item.split_once('/').is_some_and(|(_, sub)| owner.resources.contains(&format!("*/{sub}")));
        has(&owner.resources, item) || by_sub
    };
    let names = owner.resource_names.is_empty()
        || (!wanted.resource_names.is_empty()
            && wanted.resource_names.iter().all(|n| owner.resource_names.contains(n)));
    wanted.verbs.iter().all(|v| has(&owner.verbs, v))
        && wanted.api_groups.iter().all(|g| has(&owner.api_groups, g))
        && wanted.resources.iter().all(resource)
        && wanted.non_resource_urls.iter().all(|url| owner.non_resource_urls.iter().any(|o| url_matches(o, url)))
        && names
}

/// Puts the verbs of what is otherwise the same together.
pub(crate) fn compact(rules: Vec<Rule>) -> Vec<Rule> {
    let mut out: Vec<Rule> = Vec::new();
    for rule in rules {
        let simple = rule.non_resource_urls.is_empty()
            && rule.api_groups.len() == 1
            && rule.resources.len() == 1
            && rule.resource_names.len() <= 1;
        let same = |other: &&mut Rule| {
            other.api_groups == rule.api_groups
                && other.resources == rule.resources
                && other.resource_names == rule.resource_names
                && other.non_resource_urls.is_empty()
        };
        match out.iter_mut().find(same).filter(|_| simple) {
            Some(other) => other.verbs.extend(rule.verbs),
            None => out.push(rule),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> Rule {
        let texts = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect::<Vec<String>>();
        Rule {
            verbs: texts(verbs),
            api_groups: texts(groups),
            resources: texts(resources),
            resource_names: texts(names),
            ..Rule::default()
        }
    }

    #[test]
    fn escalation_names_what_is_missing_as_upstream_does() {
        let user = User::new("bob", &["dev"]);
        let owned = [rule(&["get", "list"], &[""], &["pods"], &[]), rule(&["*"], &["apps"], &["*/scale"], &[])];
        let ok = |wanted: &[Rule]| confirm_no_escalation(&user, &owned, wanted);
        assert!(ok(&[rule(&["get"], &[""], &["pods"], &["x"])]).is_ok(), "a name of all names");
        assert!(ok(&[rule(&["patch"], &["apps"], &["deployments/scale"], &[])]).is_ok());
        assert!(ok(&[rule(&["patch"], &["apps"], &["deployments"], &[])]).is_err());
        let wanted = [
            rule(&["get", "watch", "delete"], &["", "apps"], &["pods"], &[]),
            Rule { verbs: vec!["get".into()], non_resource_urls: vec!["/x".into()], ..Rule::default() },
        ];
        assert_eq!(
            ok(&wanted).unwrap_err(),
            "user \"bob\" (groups=[\"dev\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
             {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"watch\" \"delete\"]}\n\
             {APIGroups:[\"apps\"], Resources:[\"pods\"], Verbs:[\"get\" \"watch\" \"delete\"]}\n\
             {NonResourceURLs:[\"/x\"], Verbs:[\"get\"]}"
        );
        assert!(confirm_no_escalation(&user, &full_authority(), &wanted).is_ok());
        let named = [rule(&["get"], &[""], &["secrets"], &["a"])];
        assert!(confirm_no_escalation(&user, &named, &[rule(&["get"], &[""], &["secrets"], &[])]).is_err());
    }
}
