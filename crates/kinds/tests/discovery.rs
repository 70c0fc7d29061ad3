//! The rows say what upstream's discovery documents say.

use corten_kinds::{Registry, Scope, Subresource};

fn list<S: AsRef<str>>(items: &[S]) -> String {
    let all: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    if all.is_empty() { "-".into() } else { all.join(",") }
}

fn lines() -> Vec<String> {
    let mut out = Vec::new();
    for kind in Registry::builtin().iter() {
        let scope = if kind.scope == Scope::Namespaced { "namespaced" } else { "cluster" };
        for version in &kind.versions {
            let group_version = kind.gvk(version).api_version();
            let (plural, verbs) = (&kind.plural, list(kind.verbs.names()));
            let (short, categories) = (list(&kind.short), list(&kind.categories));
            let name = &kind.kind;
            let singular = &kind.singular;
            out.push(format!("{group_version} {plural} {name} {scope} {singular} {short} {categories} {verbs} -"));
            for Subresource { name: sub, verbs, body, .. } in &kind.subresources {
                let (body_kind, body) = match body {
                    None => (&**name, "-".to_owned()),
                    Some(("", "v1", kind)) => (*kind, "-".to_owned()),
                    Some((group, version, kind)) => (*kind, format!("{group}/{version}")),
                };
                let verbs = list(verbs);
                out.push(format!("{group_version} {plural}/{sub} {body_kind} {scope} - - - {verbs} {body}"));
            }
        }
    }
    out.sort();
    out
}

#[test]
fn rows_agree_with_upstreams_discovery() {
    let text = include_str!("../testdata/discovery.txt");
    let mut expected: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
    expected.sort_unstable();
    // Upstream's API server has no metrics.k8s.io of its own: a metrics server adds it.
    let actual: Vec<String> = lines().into_iter().filter(|line| !line.starts_with("metrics.k8s.io/")).collect();
    let missing: Vec<_> = expected.iter().filter(|l| !actual.iter().any(|a| a == *l)).collect();
    let extra: Vec<_> = actual.iter().filter(|a| !expected.contains(&a.as_str())).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing: {missing:#?}\nextra: {extra:#?}");
}

#[test]
fn every_kind_has_its_type_in_the_schema() {
    let registry = Registry::builtin();
    let missing: Vec<String> = registry
        .iter()
        .flat_map(|k| k.versions.iter().filter(|v| k.type_of(v).is_none()).map(|v| k.gvk(v).to_string()))
        .collect();
    // Until the table is complete an empty schema is no fault of the rows.
    let empty = corten_schema::builtin().gvks().is_empty();
    assert!(empty || missing.is_empty(), "{missing:?}");
}
