//! One test per filter, score or field of a pod that the scheduler looks at; what they prove is listed in `docs/checklist.md`.

use corten_scheduler::{BudgetInfo, NodeInfo, PodInfo, Snapshot};
use corten_views as views;

use super::{cluster, decided, node, pod, read};

/// A node with labels, a spec and a status of its own.
fn made(name: &str, labels: &str, spec: &str, status: &str) -> NodeInfo {
    let allocatable =
        r#""allocatable":{"cpu":"4","memory":"4Gi","pods":"10","ephemeral-storage":"10Gi","acme.io/gpu":"2"}"#;
    let comma = if status.is_empty() { "" } else { "," };
    NodeInfo::from(&read::<views::Node>(&format!(
        r#"{{"metadata":{{"name":"{name}","labels":{{"kubernetes.io/hostname":"{name}"{labels}}}}},"spec":{{{spec}}},
        "status":{{{allocatable}{comma}{status}}}}}"#
    )))
}

/// A pod from its whole specification and labels.
fn whole(name: &str, labels: &str, spec: &str) -> PodInfo {
    let json = format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"default","uid":"{name}","labels":{{{labels}}}}},"spec":{{{spec}}}}}"#
    );
    let mut info = PodInfo::from(&read::<views::Pod>(&json));
    info.uid = name.into();
    info
}

const C: &str = r#""containers":[{"name":"c","image":"i"}]"#;

fn node_affinity(terms: &str) -> String {
    format!(
        r#""affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":[{terms}]}}}}}}"#
    )
}

/// The reasons of one refusal, without what preemption says.
fn why(snapshot: &Snapshot, pod: &PodInfo) -> String {
    decided(snapshot, pod).split(" preemption:").next().unwrap().to_owned()
}

#[test]
fn node_affinity_operators() {
    let snapshot = cluster(
        vec![made("a", r#","k":"1","t":"x""#, "", ""), made("b", r#","k":"5""#, "", ""), made("c", "", "", "")],
        vec![],
    );
    for (expression, wanted) in [
        (r#"{"key":"k","operator":"In","values":["1"]}"#, "bind a"),
        (r#"{"key":"k","operator":"Gt","values":["3"]}"#, "bind b"),
        (r#"{"key":"k","operator":"Lt","values":["3"]}"#, "bind a"),
        (r#"{"key":"t","operator":"Exists"}"#, "bind a"),
        (r#"{"key":"k","operator":"DoesNotExist"}"#, "bind c"),
        (r#"{"key":"k","operator":"NotIn","values":["1","5"]}"#, "bind c"),
    ] {
        let affinity = node_affinity(&format!(r#"{{"matchExpressions":[{expression}]}}"#));
        assert_eq!(decided(&snapshot, &pod("p", "1", &affinity)), wanted, "{expression}");
    }
    // Expressions of one term hold together, terms are alternatives; nodeSelector holds besides.
    let both = r#"{"matchExpressions":[{"key":"k","operator":"Exists"},{"key":"t","operator":"DoesNotExist"}]}"#;
    let never = r#"{"matchExpressions":[{"key":"k","operator":"In","values":["7"]}]}"#;
    let affinity = node_affinity(&format!("{never},{both}"));
    assert_eq!(decided(&snapshot, &pod("p", "1", &affinity)), "bind b");
    let selector = format!(r#""nodeSelector":{{"t":"x"}},{affinity}"#);
    let none = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.";
    assert_eq!(why(&snapshot, &pod("p", "1", &selector)), none);
}

#[test]
fn preferred_node_affinity_adds_its_weight() {
    let snapshot = cluster(vec![made("a", r#","t":"x""#, "", ""), made("b", "", "", "")], vec![]);
    for (label, wanted) in
        [(r#"{"key":"t","operator":"Exists"}"#, "bind a"), (r#"{"key":"t","operator":"DoesNotExist"}"#, "bind b")]
    {
        let preferred = format!(
            r#""affinity":{{"nodeAffinity":{{"preferredDuringSchedulingIgnoredDuringExecution":[{{"weight":100,"preference":{{"matchExpressions":[{label}]}}}}]}}}}"#
        );
        assert_eq!(decided(&snapshot, &pod("p", "1", &preferred)), wanted);
    }
}

#[test]
fn tolerations_by_operator_effect_and_key() {
    let tainted = |effect: &str| {
        cluster(
            vec![made("a", "", &format!(r#""taints":[{{"key":"k","value":"v","effect":"{effect}"}}]"#), "")],
            vec![],
        )
    };
    let refused = "0/1 nodes are available: 1 node(s) had untolerated taint(s).";
    for (effect, toleration, wanted) in [
        ("NoSchedule", "", refused),
        ("NoExecute", "", refused),
        ("PreferNoSchedule", "", "bind a"),
        ("NoSchedule", r#"{"key":"k","operator":"Equal","value":"v","effect":"NoSchedule"}"#, "bind a"),
        ("NoSchedule", r#"{"key":"k","value":"v"}"#, "bind a"),
        ("NoSchedule", r#"{"key":"k","operator":"Equal","value":"w"}"#, refused),
        ("NoSchedule", r#"{"key":"k","operator":"Exists"}"#, "bind a"),
        ("NoSchedule", r#"{"operator":"Exists"}"#, "bind a"),
        ("NoSchedule", r#"{"key":"k","operator":"Exists","effect":"NoExecute"}"#, refused),
        ("NoExecute", r#"{"key":"k","operator":"Exists","effect":"NoExecute","tolerationSeconds":5}"#, "bind a"),
    ] {
        let spec = format!(r#""tolerations":[{toleration}]"#);
        assert_eq!(why(&tainted(effect), &pod("p", "1", &spec)), wanted, "{effect} {toleration}");
    }
    let soft = r#""taints":[{"key":"k","effect":"PreferNoSchedule"}]"#;
    let two = cluster(vec![made("a", "", soft, ""), made("b", "", "", "")], vec![]);
    assert_eq!(decided(&two, &pod("p", "1", "")), "bind b");
    let cordoned = cluster(vec![made("a", "", r#""unschedulable":true"#, "")], vec![]);
    let anyway =
        r#""tolerations":[{"key":"node.kubernetes.io/unschedulable","operator":"Exists","effect":"NoSchedule"}]"#;
    assert_eq!(decided(&cordoned, &pod("p", "1", anyway)), "bind a");
}

#[test]
fn fit_of_memory_storage_extended_resources_and_pods() {
    let snapshot = cluster(vec![made("a", "", "", "")], vec![]);
    for (requests, reason) in [
        (r#""cpu":"5""#, "Insufficient cpu"),
        (r#""memory":"5Gi""#, "Insufficient memory"),
        (r#""ephemeral-storage":"11Gi""#, "Insufficient ephemeral-storage"),
        (r#""acme.io/gpu":"3""#, "Insufficient acme.io/gpu"),
        (r#""acme.io/none":"1""#, "Insufficient acme.io/none"),
    ] {
        let spec = format!(r#""containers":[{{"name":"c","image":"i","resources":{{"requests":{{{requests}}}}}}}]"#);
        let wanted = format!("0/1 nodes are available: 1 {reason}.");
        assert_eq!(why(&snapshot, &whole("p", "", &spec)), wanted);
    }
    let full = cluster(vec![made("a", "", "", "")], (0..10).map(|n| ("a", pod(&format!("x{n}"), "0", ""))).collect());
    assert_eq!(why(&full, &pod("p", "0", "")), "0/1 nodes are available: 1 Too many pods.");
}

#[test]
fn effective_requests_of_init_containers_sidecars_overhead_and_pod_level_resources() {
    let snapshot = cluster(vec![made("a", "", "", "")], vec![]);
    let cpu = |name: &str, cpu: &str, more: &str| {
        format!(r#"{{"name":"{name}","image":"i","resources":{{"requests":{{"cpu":"{cpu}"}}}}{more}}}"#)
    };
    let always = r#","restartPolicy":"Always""#;
    let spec = |init: &str, app: &str, more: &str| format!(r#""initContainers":[{init}],"containers":[{app}]{more}"#);
    let refused = "0/1 nodes are available: 1 Insufficient cpu.";
    for (spec, wanted) in [
        // The larger of what initialises and what runs.
        (spec(&cpu("i", "4", ""), &cpu("c", "1", ""), ""), "bind a"),
        (spec(&cpu("i", "5", ""), &cpu("c", "1", ""), ""), refused),
        // Sidecars run beside the app, and beside the init containers after them.
        (spec(&cpu("s", "1", always), &cpu("c", "3", ""), ""), "bind a"),
        (spec(&cpu("s", "2", always), &cpu("c", "3", ""), ""), refused),
        (spec(&format!("{},{}", cpu("s", "2", always), cpu("i", "3", "")), &cpu("c", "1", ""), ""), refused),
        (spec(&format!("{},{}", cpu("i", "3", ""), cpu("s", "2", always)), &cpu("c", "1", ""), ""), "bind a"),
        (spec("", &cpu("c", "3", ""), r#","overhead":{"cpu":"1"}"#), "bind a"),
        (spec("", &cpu("c", "3", ""), r#","overhead":{"cpu":"2"}"#), refused),
        // The pod's own resources take the place of the sum.
        (spec("", &cpu("c", "1", ""), r#","resources":{"requests":{"cpu":"5"}}"#), refused),
        (spec("", &cpu("c", "1", ""), r#","resources":{"requests":{"cpu":"4"}}"#), "bind a"),
    ] {
        assert_eq!(why(&snapshot, &whole("p", "", &spec)), wanted, "{spec}");
    }
}

#[test]
fn host_ports_conflict_by_address_and_protocol() {
    let with = |name: &str, port: &str| {
        whole(
            name,
            "",
            &format!(
                r#""containers":[{{"name":"c","image":"i","ports":[{{"containerPort":80,"hostPort":80{port}}}]}}]"#
            ),
        )
    };
    let taken = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.";
    for (there, wants, wanted) in [
        (r#","protocol":"TCP""#, r#","protocol":"TCP""#, taken),
        (r#","protocol":"TCP""#, r#","protocol":"UDP""#, "bind a"),
        (r#","protocol":"SCTP""#, r#","protocol":"SCTP""#, taken),
        (r#","protocol":"TCP","hostIP":"10.0.0.1""#, r#","protocol":"TCP","hostIP":"10.0.0.2""#, "bind a"),
        (r#","protocol":"TCP","hostIP":"10.0.0.1""#, r#","protocol":"TCP","hostIP":"10.0.0.1""#, taken),
        (r#","protocol":"TCP","hostIP":"10.0.0.1""#, r#","protocol":"TCP""#, taken),
    ] {
        let snapshot = cluster(vec![made("a", "", "", "")], vec![("a", with("x", there))]);
        assert_eq!(why(&snapshot, &with("p", wants)), wanted, "hostPort {there} {wants}");
    }
}

#[test]
fn topology_spread_min_domains_policies_and_preference() {
    let constraint = |more: &str| {
        format!(
            r#""topologySpreadConstraints":[{{"maxSkew":1,"topologyKey":"zone","labelSelector":{{"matchLabels":{{"app":"a"}}}},{more}}}]"#
        )
    };
    let hard = r#""whenUnsatisfiable":"DoNotSchedule""#;
    let one = cluster(vec![node("a", "4", "")], vec![("a", pod("x", "1", ""))]);
    assert_eq!(decided(&one, &pod("p", "1", &constraint(hard))), "bind a", "one domain is never uneven");
    let spread = "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints.";
    assert_eq!(why(&one, &pod("p", "1", &constraint(&format!(r#"{hard},"minDomains":2"#)))), spread);
    // A node without the label is none.
    let bare = cluster(vec![made("a", "", "", "")], vec![]);
    let missing =
        "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label).";
    assert_eq!(why(&bare, &pod("p", "1", &constraint(hard))), missing);
    // b is empty and tainted: by default it counts as a domain, with nodeTaintsPolicy Honor it does not.
    let taint = r#""taints":[{"key":"k","effect":"NoSchedule"}]"#;
    let tainted = cluster(vec![node("a", "4", ""), node("b", "4", taint)], vec![("a", pod("x", "1", ""))]);
    assert!(decided(&tainted, &pod("p", "1", &constraint(hard))).starts_with("0/2 nodes"));
    let honor = constraint(&format!(r#"{hard},"nodeTaintsPolicy":"Honor""#));
    assert_eq!(decided(&tainted, &pod("p", "1", &honor)), "bind a");
    // The selector rules b out: with nodeAffinityPolicy Ignore it still counts as an empty domain.
    let two = cluster(vec![node("a", "4", ""), node("b", "4", "")], vec![("a", pod("x", "1", ""))]);
    let only_a = |more: &str| format!(r#""nodeSelector":{{"zone":"za"}},{}"#, constraint(&format!("{hard}{more}")));
    assert_eq!(decided(&two, &pod("p", "1", &only_a(""))), "bind a");
    assert!(decided(&two, &pod("p", "1", &only_a(r#","nodeAffinityPolicy":"Ignore""#))).starts_with("0/2 nodes"));
    let soft = constraint(r#""whenUnsatisfiable":"ScheduleAnyway""#);
    let crowded = cluster(
        vec![node("a", "4", ""), node("b", "4", "")],
        vec![("a", pod("x", "0", "")), ("a", pod("y", "0", "")), ("a", pod("z", "0", ""))],
    );
    assert_eq!(decided(&crowded, &pod("p", "1", &soft)), "bind b");
}

#[test]
fn pod_affinity_namespaces_and_preference() {
    let term = |more: &str| {
        format!(r#"{{"topologyKey":"kubernetes.io/hostname","labelSelector":{{"matchLabels":{{"app":"db"}}}}{more}}}"#)
    };
    let near = |more: &str| {
        format!(r#""affinity":{{"podAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{}]}}}}"#, term(more))
    };
    let db = whole("db", r#""app":"db""#, C);
    let mut other = whole("db2", r#""app":"db""#, C);
    other.namespace = "other".into();
    let snapshot = cluster(vec![node("a", "4", ""), node("b", "4", "")], vec![("a", db), ("b", other)]);
    assert_eq!(decided(&snapshot, &pod("p", "1", &near(""))), "bind a", "the pod's own namespace");
    assert_eq!(decided(&snapshot, &pod("p", "1", &near(r#","namespaces":["other"]"#))), "bind b");
    let preferred = |kind: &str| {
        format!(
            r#""affinity":{{"{kind}":{{"preferredDuringSchedulingIgnoredDuringExecution":[{{"weight":100,"podAffinityTerm":{}}}]}}}}"#,
            term("")
        )
    };
    assert_eq!(decided(&snapshot, &pod("p", "1", &preferred("podAffinity"))), "bind a");
    assert_eq!(decided(&snapshot, &pod("p", "1", &preferred("podAntiAffinity"))), "bind b");
}

#[test]
fn image_locality_prefers_nodes_that_have_a_large_image() {
    let images = r#""images":[{"names":["registry/i:1"],"sizeBytes":900000000}]"#;
    let snapshot = cluster(vec![made("a", "", "", ""), made("b", "", "", images)], vec![]);
    let wants = r#""containers":[{"name":"c","image":"registry/i:1"}]"#;
    assert_eq!(decided(&snapshot, &whole("p", "", wants)), "bind b");
}

#[test]
fn balanced_allocation_prefers_even_use_of_cpu_and_memory() {
    let used = |cpu: &str, memory: &str| {
        whole(
            "x",
            "",
            &format!(
                r#""containers":[{{"name":"c","image":"i","resources":{{"requests":{{"cpu":"{cpu}","memory":"{memory}"}}}}}}]"#
            ),
        )
    };
    // Both nodes are equally full on average; on b cpu and memory will be used alike.
    let snapshot = cluster(
        vec![made("a", "", "", ""), made("b", "", "", "")],
        vec![("a", used("3", "1Gi")), ("b", used("1", "3Gi"))],
    );
    let wants = r#""containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"900m","memory":"64Mi"}}}]"#;
    assert_eq!(decided(&snapshot, &whole("p", "", wants)), "bind b");
}

#[test]
fn preemption_spares_pods_with_a_budget_and_a_nominated_node_is_taken() {
    let low = |name: &str, app: &str| {
        whole(
            name,
            &format!(r#""app":"{app}""#),
            r#""priority":1,"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"4"}}}]"#,
        )
    };
    let mut snapshot = cluster(
        vec![made("a", "", "", ""), made("b", "", "", "")],
        vec![("a", low("x", "guarded")), ("b", low("y", "free"))],
    );
    let budget = r#"{"metadata":{"namespace":"default"},"spec":{"selector":{"matchLabels":{"app":"guarded"}}},"status":{"disruptionsAllowed":0}}"#;
    snapshot.budgets.push(BudgetInfo::from(&read::<views::PodDisruptionBudget>(budget)));
    let decision = decided(&snapshot, &pod("p", "1", r#""priority":10"#));
    assert!(decision.ends_with("\nevict from b: y"), "{decision}");
    let mut nominated = pod("p", "1", "");
    nominated.nominated_node = "b".into();
    let empty = cluster(
        vec![made("a", "", "", ""), made("b", "", "", ""), made("c", "", "", "")],
        vec![("b", pod("x", "1", ""))],
    );
    assert_eq!(decided(&empty, &nominated), "bind b", "though the others are emptier");
}

#[test]
fn scheduling_gates_and_reasons_over_several_nodes() {
    let snapshot = cluster(vec![made("a", "", "", "")], vec![]);
    let gated = whole("p", "", &format!(r#""schedulingGates":[{{"name":"acme.io/wait"}}],{C}"#));
    assert_eq!(decided(&snapshot, &gated), "gated: Scheduling is blocked due to non-empty scheduling gates");
    let three =
        cluster(vec![made("a", "", r#""unschedulable":true"#, ""), node("b", "1", ""), node("c", "1", "")], vec![]);
    assert_eq!(
        decided(&three, &pod("p", "2", "")),
        "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    );
}
