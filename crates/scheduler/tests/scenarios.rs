//! Scenarios: a small cluster as JSON, a pod, the decision.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod fields;

use std::sync::Arc;

use corten_scheduler::{BudgetInfo, ClaimInfo, ClassInfo, Decision, NodeInfo, PodInfo, Snapshot, VolumeInfo, schedule};
use corten_views as views;
use expect_test::{Expect, expect};

fn read<T: serde::de::DeserializeOwned>(json: &str) -> T {
    serde_json::from_str(json).unwrap()
}

fn node(name: &str, cpu: &str, extra_spec: &str) -> NodeInfo {
    NodeInfo::from(&read::<views::Node>(&format!(
        r#"{{"metadata":{{"name":"{name}","labels":{{"kubernetes.io/hostname":"{name}","zone":"z{name}"}}}},"spec":{{{extra_spec}}},
        "status":{{"allocatable":{{"cpu":"{cpu}","memory":"4Gi","pods":"10","ephemeral-storage":"10Gi"}}}}}}"#
    )))
}

fn pod(name: &str, cpu: &str, spec: &str) -> PodInfo {
    let comma = if spec.is_empty() { "" } else { "," };
    let mut info = PodInfo::from(&read::<views::Pod>(&format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"default","uid":"{name}","labels":{{"app":"a"}}}},"spec":{{"containers":[
        {{"name":"c","image":"i","resources":{{"requests":{{"cpu":"{cpu}"}}}}}}]{comma}{spec}}}}}"#
    )));
    info.uid = name.into();
    info
}

fn cluster(nodes: Vec<NodeInfo>, pods: Vec<(&str, PodInfo)>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    nodes.into_iter().for_each(|n| snapshot.set_node(n));
    for (node, pod) in pods {
        assert!(snapshot.add_pod(node, Arc::new(pod)));
    }
    snapshot
}

fn check(snapshot: &Snapshot, pod: &PodInfo, expected: Expect) {
    expected.assert_eq(&decided(snapshot, pod));
}

/// The decision as text.
fn decided(snapshot: &Snapshot, pod: &PodInfo) -> String {
    match schedule(snapshot, pod, 0) {
        Decision::Bind { node, volumes } if volumes.is_empty() => format!("bind {node}"),
        Decision::Bind { node, volumes } => format!("bind {node} {volumes:?}"),
        Decision::Unschedulable { message, preemption: None } => message,
        Decision::Unschedulable { message, preemption: Some(p) } => {
            format!(
                "{message}\nevict from {}: {}",
                p.node,
                p.victims.iter().map(|v| v.1.as_str()).collect::<Vec<_>>().join(" ")
            )
        }
        Decision::Gated { message } => format!("gated: {message}"),
    }
}

/// Whoever replaces a victim (its ReplicaSet does at once) must not take the room that is being made.
#[test]
fn room_of_a_nominated_pod_is_kept_from_less_important_ones() {
    let mut snapshot = cluster(vec![node("a", "2", "")], vec![("a", pod("a1", "1", r#""priority":5"#))]);
    let preemptor = pod("p", "1", r#""priority":10"#);
    snapshot.nominate("a", Arc::new(preemptor.clone()));
    check(
        &snapshot,
        &pod("a2", "1", r#""priority":1"#),
        expect![
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        ],
    );
    check(&snapshot, &preemptor, expect!["bind a"]);
    check(&snapshot, &pod("more", "1", r#""priority":11"#), expect!["bind a"]);
    snapshot.denominate("p");
    check(&snapshot, &pod("a2", "1", r#""priority":1"#), expect!["bind a"]);
}

const TAINT: &str = r#""taints":[{"key":"k","value":"v","effect":"NoSchedule"}]"#;

#[test]
fn reasons_are_counted_and_sorted() {
    let snapshot = cluster(
        vec![node("a", "1", TAINT), node("b", "1", ""), node("c", "1", ""), node("d", "4", r#""unschedulable":true"#)],
        vec![],
    );
    check(
        &snapshot,
        &pod("p", "2", ""),
        expect![
            "0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 Insufficient cpu. preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling."
        ],
    );
    check(&cluster(vec![], vec![]), &pod("p", "2", ""), expect!["no nodes available to schedule pods"]);
    check(
        &snapshot,
        &pod("p", "2", r#""schedulingGates":[{"name":"g"}]"#),
        expect!["gated: Scheduling is blocked due to non-empty scheduling gates"],
    );
    check(
        &snapshot,
        &pod("p", "1", r#""tolerations":[{"key":"k","operator":"Equal","value":"v"}],"nodeSelector":{"zone":"za"}"#),
        expect!["bind a"],
    );
}

#[test]
fn the_emptier_node_wins() {
    let snapshot = cluster(vec![node("a", "4", ""), node("b", "4", "")], vec![("a", pod("x", "2", ""))]);
    check(&snapshot, &pod("p", "1", ""), expect!["bind b"]);
}

#[test]
fn a_daemon_pod_names_its_node() {
    let affinity = r#""affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[
        {"matchFields":[{"key":"metadata.name","operator":"In","values":["b"]}]}]}}}"#;
    let snapshot = cluster(vec![node("a", "4", ""), node("b", "4", "")], vec![]);
    check(&snapshot, &pod("p", "1", affinity), expect!["bind b"]);
    let full = cluster(vec![node("a", "4", ""), node("b", "1", "")], vec![("b", pod("x", "1", r#""priority":10"#))]);
    check(
        &full,
        &pod("p", "1", affinity),
        expect![
            "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't satisfy plugin(s) [NodeAffinity]. preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
        ],
    );
}

#[test]
fn the_least_important_pods_are_preempted() {
    let snapshot = cluster(
        vec![node("a", "2", ""), node("b", "2", "")],
        vec![
            ("a", pod("a1", "1", r#""priority":5"#)),
            ("a", pod("a2", "1", r#""priority":1"#)),
            ("b", pod("b1", "2", r#""priority":7"#)),
        ],
    );
    check(
        &snapshot,
        &pod("p", "1", r#""priority":10"#),
        expect![[r#"
            0/2 nodes are available: 2 Insufficient cpu. preemption: found a potential placement for pod on node a, preempting 1 victims
            evict from a: a2"#]],
    );
    check(
        &snapshot,
        &pod("p", "1", r#""priority":10,"preemptionPolicy":"Never""#),
        expect!["0/2 nodes are available: 2 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."],
    );
    let mut guarded = snapshot.clone();
    let budget = r#"{"metadata":{"namespace":"default"},"spec":{"selector":{"matchLabels":{"app":"a"}}}}"#;
    guarded.budgets.push(BudgetInfo::from(&read::<views::PodDisruptionBudget>(budget)));
    check(
        &guarded,
        &pod("p", "1", r#""priority":10"#),
        expect![[r#"
            0/2 nodes are available: 2 Insufficient cpu. preemption: found a potential placement for pod on node a, preempting 1 victims
            evict from a: a2"#]],
    );
}

#[test]
fn affinity_and_anti_affinity() {
    let term = r#"[{"topologyKey":"kubernetes.io/hostname","labelSelector":{"matchLabels":{"app":"a"}}}]"#;
    let anti =
        format!(r#""affinity":{{"podAntiAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{term}}}}}"#);
    let near = format!(r#""affinity":{{"podAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{term}}}}}"#);
    let snapshot = cluster(vec![node("a", "4", ""), node("b", "4", "")], vec![("a", pod("x", "1", ""))]);
    check(&snapshot, &pod("p", "1", &anti), expect!["bind b"]);
    check(&snapshot, &pod("p", "1", &near), expect!["bind a"]);
    check(&cluster(vec![node("a", "4", "")], vec![]), &pod("p", "1", &near), expect!["bind a"]);
    let one = cluster(vec![node("a", "4", "")], vec![("a", pod("x", "1", &anti))]);
    check(
        &one,
        &pod("p", "1", ""),
        expect![
            "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        ],
    );
}

#[test]
fn spread_over_zones() {
    let spread = r#""topologySpreadConstraints":[{"maxSkew":1,"topologyKey":"zone","whenUnsatisfiable":"DoNotSchedule",
        "labelSelector":{"matchLabels":{"app":"a"}}}]"#;
    let snapshot = cluster(vec![node("a", "4", ""), node("b", "1", "")], vec![("a", pod("x", "1", ""))]);
    check(&snapshot, &pod("p", "1", spread), expect!["bind b"]);
    check(
        &snapshot,
        &pod("p", "2", spread),
        expect![
            "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match pod topology spread constraints. preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
        ],
    );
}

#[test]
fn host_ports_conflict() {
    let with_port = |name: &str| {
        let json = format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"default","uid":"{name}"}},"spec":{{"containers":[{{"name":"c",
            "ports":[{{"containerPort":80,"hostPort":80,"protocol":"TCP"}}]}}]}}}}"#
        );
        PodInfo::from(&read::<views::Pod>(&json))
    };
    let snapshot = cluster(vec![node("a", "4", "")], vec![("a", with_port("x"))]);
    check(
        &snapshot,
        &with_port("p"),
        expect![
            "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        ],
    );
}

#[test]
fn claims_are_bound_or_provisioned() {
    let wants = r#""volumes":[{"name":"v","persistentVolumeClaim":{"claimName":"data"}}]"#;
    let mut snapshot = cluster(vec![node("a", "4", ""), node("b", "4", "")], vec![]);
    let p = pod("p", "1", wants);
    check(
        &snapshot,
        &p,
        expect![[
            r#"0/2 nodes are available: persistentvolumeclaim "data" not found. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."#
        ]],
    );
    let claim = r#"{"spec":{"storageClassName":"local","accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}}"#;
    let claim = ClaimInfo::from(&read::<views::PersistentVolumeClaim>(claim));
    snapshot.claims.insert(("default".into(), "data".into()), claim.clone());
    check(
        &snapshot,
        &p,
        expect![
            "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        ],
    );
    let class = r#"{"provisioner":"kubernetes.io/no-provisioner","volumeBindingMode":"WaitForFirstConsumer"}"#;
    snapshot.classes.insert("local".into(), ClassInfo::from(&read::<views::StorageClass>(class)));
    check(
        &snapshot,
        &p,
        expect![
            "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        ],
    );
    let volume = r#"{"spec":{"storageClassName":"local","accessModes":["ReadWriteOnce"],"capacity":{"storage":"2Gi"},"nodeAffinity":
        {"required":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"zone","operator":"In","values":["zb"]}]}]}}},"status":{"phase":"Available"}}"#;
    snapshot.volumes.insert("pv".into(), VolumeInfo::from(&read::<views::PersistentVolume>(volume)));
    check(&snapshot, &p, expect![[r#"bind b [Bind { claim: "data", volume: "pv" }]"#]]);
    snapshot.volumes.clear();
    snapshot.classes.get_mut("local").unwrap().provisioner = "rancher.io/local-path".into();
    snapshot.remove_node("b");
    check(&snapshot, &p, expect![[r#"bind a [Provision { claim: "data" }]"#]]);
}
