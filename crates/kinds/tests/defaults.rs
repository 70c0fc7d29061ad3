//! What defaulting and preparing make of small manifests.
#![allow(clippy::unwrap_used)]

mod common;

use common::{base, kind, parse, prepared, set};
use expect_test::{Expect, expect};

fn check(name: &str, changes: &[(&str, &str)], path: &str, expected: Expect) {
    let kind = kind(name);
    let mut object = base(name);
    for (path, value) in changes {
        set(&mut object, path, value);
    }
    let mut object = prepared(&kind, object);
    // Defaults are stable: a second pass changes nothing.
    let once = object.clone();
    (kind.hooks.default.unwrap())(&mut object);
    assert_eq!(object, once, "{name}");
    expected.assert_eq(&object.path(path).map_or_else(String::new, ToString::to_string));
}

#[test]
fn pods() {
    check(
        "pod",
        &[],
        "spec",
        expect![[
            r#"{"containers":[{"name":"web","image":"nginx:1","imagePullPolicy":"IfNotPresent","terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}],"dnsPolicy":"ClusterFirst","restartPolicy":"Always","securityContext":{},"terminationGracePeriodSeconds":30,"schedulerName":"default-scheduler","enableServiceLinks":true}"#
        ]],
    );
    check("pod", &[], "status", expect![[r#"{"phase":"Pending","qosClass":"BestEffort"}"#]]);
    check(
        "pod",
        &[
            (
                "spec.containers.0",
                r#"{"name":"a","image":"nginx","ports":[{"containerPort":80}],"env":[{"name":"A","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}],"resources":{"limits":{"cpu":"100.5m","memory":"1Gi"}},"livenessProbe":{"httpGet":{"port":80}},"readinessProbe":{"grpc":{"port":1}}}"#,
            ),
            ("spec.hostNetwork", "true"),
        ],
        "spec.containers",
        expect![[
            r#"[{"name":"a","image":"nginx","ports":[{"containerPort":80,"protocol":"TCP","hostPort":80}],"env":[{"name":"A","valueFrom":{"fieldRef":{"fieldPath":"metadata.name","apiVersion":"v1"}}}],"resources":{"limits":{"cpu":"101m","memory":"1Gi"},"requests":{"cpu":"101m","memory":"1Gi"}},"livenessProbe":{"httpGet":{"port":80,"path":"/","scheme":"HTTP"},"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3},"readinessProbe":{"grpc":{"port":1,"service":""},"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3},"imagePullPolicy":"Always","terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}]"#
        ]],
    );
    check(
        "pod",
        &[(
            "spec.volumes",
            r#"[{"name":"a"},{"name":"b","configMap":{"name":"c"}},{"name":"c","hostPath":{"path":"/x"}},{"name":"d","projected":{"sources":[{"serviceAccountToken":{"path":"t"}},{"downwardAPI":{"items":[{"path":"p","fieldRef":{"fieldPath":"metadata.name"}}]}}]}},{"name":"e","image":{"reference":"x:1"}}]"#,
        )],
        "spec.volumes",
        expect![[
            r#"[{"name":"a","emptyDir":{}},{"name":"b","configMap":{"name":"c","defaultMode":420}},{"name":"c","hostPath":{"path":"/x","type":""}},{"name":"d","projected":{"sources":[{"serviceAccountToken":{"path":"t","expirationSeconds":3600}},{"downwardAPI":{"items":[{"path":"p","fieldRef":{"fieldPath":"metadata.name","apiVersion":"v1"}}]}}],"defaultMode":420}},{"name":"e","image":{"reference":"x:1","pullPolicy":"IfNotPresent"}}]"#
        ]],
    );
    check(
        "pod",
        &[("spec.schedulingGates", r#"[{"name":"g"}]"#)],
        "status",
        expect![[
            r#"{"phase":"Pending","conditions":[{"type":"PodScheduled","status":"False","lastProbeTime":null,"lastTransitionTime":"2026-11-23T12:00:00Z","reason":"SchedulingGated","message":"Scheduling is blocked due to non-empty scheduling gates"}],"qosClass":"BestEffort"}"#
        ]],
    );
}

#[test]
fn workloads() {
    for (name, expected) in [
        (
            "deployment",
            expect![[
                r#"{"metadata":{"name":"web","creationTimestamp":"2026-11-23T12:00:00Z","namespace":"default"},"spec":{"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{}},"replicas":1,"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":"25%","maxSurge":"25%"}},"revisionHistoryLimit":10,"progressDeadlineSeconds":600}}"#
            ]],
        ),
        (
            "daemonset",
            expect![[
                r#"{"metadata":{"name":"web","creationTimestamp":"2026-11-23T12:00:00Z","namespace":"default","annotations":{"deprecated.daemonset.template.generation":"1"}},"spec":{"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{}},"updateStrategy":{"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":1,"maxSurge":0}},"revisionHistoryLimit":10}}"#
            ]],
        ),
        (
            "statefulset",
            expect![[
                r#"{"metadata":{"name":"web","creationTimestamp":"2026-11-23T12:00:00Z","namespace":"default"},"spec":{"serviceName":"web","selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{}},"podManagementPolicy":"OrderedReady","updateStrategy":{"type":"RollingUpdate","rollingUpdate":{"partition":0,"maxUnavailable":1}},"persistentVolumeClaimRetentionPolicy":{"whenDeleted":"Retain","whenScaled":"Retain"},"replicas":1,"revisionHistoryLimit":10}}"#
            ]],
        ),
        (
            "replicaset",
            expect![[
                r#"{"metadata":{"name":"web","creationTimestamp":"2026-11-23T12:00:00Z","namespace":"default"},"spec":{"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{}},"replicas":1}}"#
            ]],
        ),
        (
            "replicationcontroller",
            expect![[
                r#"{"metadata":{"name":"web","creationTimestamp":"2026-11-23T12:00:00Z","namespace":"default","labels":{"app":"web"}},"spec":{"template":{"metadata":{"labels":{"app":"web"}},"spec":{}},"selector":{"app":"web"},"replicas":1}}"#
            ]],
        ),
        (
            "job",
            expect![[
                r#"{"metadata":{"name":"web","creationTimestamp":"2026-11-23T12:00:00Z","namespace":"default","labels":{"app":"web","batch.kubernetes.io/controller-uid":"00000000-0000-0000-0000-000000000001","batch.kubernetes.io/job-name":"web","controller-uid":"00000000-0000-0000-0000-000000000001","job-name":"web"}},"spec":{"template":{"metadata":{"labels":{"app":"web","batch.kubernetes.io/controller-uid":"00000000-0000-0000-0000-000000000001","batch.kubernetes.io/job-name":"web","controller-uid":"00000000-0000-0000-0000-000000000001","job-name":"web"}},"spec":{}},"completions":1,"parallelism":1,"backoffLimit":6,"completionMode":"NonIndexed","suspend":false,"podReplacementPolicy":"TerminatingOrFailed","manualSelector":false,"selector":{"matchLabels":{"batch.kubernetes.io/controller-uid":"00000000-0000-0000-0000-000000000001"}}}}"#
            ]],
        ),
        (
            "cronjob",
            expect![[
                r#"{"metadata":{"name":"web","creationTimestamp":"2026-11-23T12:00:00Z","namespace":"default"},"spec":{"schedule":"*/5 * * * *","jobTemplate":{"spec":{"template":{"metadata":{"labels":{"app":"web"}},"spec":{}}}},"concurrencyPolicy":"Allow","suspend":false,"successfulJobsHistoryLimit":3,"failedJobsHistoryLimit":1}}"#
            ]],
        ),
    ] {
        let kind = kind(name);
        let mut object = prepared(&kind, base(name));
        let template = if name == "cronjob" { "spec.jobTemplate.spec.template.spec" } else { "spec.template.spec" };
        object.set(template, parse("{}"));
        object.remove("metadata.uid");
        expected.assert_eq(&object.to_string());
    }
}

#[test]
fn services_and_storage() {
    check(
        "service",
        &[],
        "spec",
        expect![[
            r#"{"selector":{"app":"web"},"ports":[{"port":80,"protocol":"TCP","targetPort":80}],"sessionAffinity":"None","type":"ClusterIP","internalTrafficPolicy":"Cluster"}"#
        ]],
    );
    check(
        "service",
        &[("spec.type", "\"LoadBalancer\""), ("spec.sessionAffinity", "\"ClientIP\"")],
        "spec",
        expect![[
            r#"{"selector":{"app":"web"},"ports":[{"port":80,"protocol":"TCP","targetPort":80}],"type":"LoadBalancer","sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":10800}},"externalTrafficPolicy":"Cluster","internalTrafficPolicy":"Cluster","allocateLoadBalancerNodePorts":true}"#
        ]],
    );
    check(
        "persistentvolumeclaim",
        &[],
        "spec",
        expect![[
            r#"{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}},"volumeMode":"Filesystem"}"#
        ]],
    );
    check(
        "persistentvolume",
        &[],
        "spec",
        expect![[
            r#"{"accessModes":["ReadWriteOnce"],"capacity":{"storage":"1Gi"},"hostPath":{"path":"/data","type":""},"persistentVolumeReclaimPolicy":"Retain","volumeMode":"Filesystem"}"#
        ]],
    );
    check(
        "secret",
        &[("stringData", r#"{"b":"two"}"#), ("data", r#"{"a":"b25l"}"#)],
        "data",
        expect![[r#"{"a":"b25l","b":"dHdv"}"#]],
    );
    check("namespace", &[], "metadata.labels", expect![[r#"{"kubernetes.io/metadata.name":"web"}"#]]);
    check("namespace", &[], "spec", expect![[r#"{"finalizers":["kubernetes"]}"#]]);
}
