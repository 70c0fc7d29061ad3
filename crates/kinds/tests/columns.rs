//! What `kubectl get -o wide` shows of objects, cell by cell. (`pkg/printers/internalversion/printers_test.go` has the cases)
#![allow(clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::{context, kind, parse};
use corten_kinds::RowContext;
use corten_object::{Object, Revision};

/// The cells of an object created two days before the request.
fn row(name: &str, json: &str) -> String {
    let kind = kind(name);
    let mut tree = parse(json);
    tree.set_default("metadata.name", "web");
    tree.set_default("metadata.creationTimestamp", "2026-11-21T12:00:00Z");
    let object = Object::parse(kind.id, Bytes::from(tree.to_json()), Revision(1), &kind.fact_paths).unwrap();
    let cells = kind.row(&kind.versions[0], &object, &RowContext { now: context().now });
    cells.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned)).collect::<Vec<_>>().join(" | ")
}

fn check(name: &str, json: &str, expected: &str) {
    assert_eq!(row(name, json), expected, "{name} {json}");
}

#[test]
fn pods() {
    let wide = "2d | <none> | <none> | <none> | <none>";
    for (status, shown) in [
        (r#"{"phase":"Pending"}"#, "0/2 | Pending | 0"),
        (
            r#"{"phase":"Pending","conditions":[{"type":"PodScheduled","reason":"SchedulingGated"}]}"#,
            "0/2 | SchedulingGated | 0",
        ),
        (r#"{"phase":"Failed","reason":"Evicted"}"#, "0/2 | Evicted | 0"),
        (r#"{"phase":"Pending","initContainerStatuses":[{"name":"i","state":{"running":{}}}]}"#, "0/2 | Init:0/1 | 0"),
        (
            r#"{"phase":"Pending","initContainerStatuses":[{"name":"i","restartCount":3,"state":{"waiting":{"reason":"CrashLoopBackOff"}},"lastState":{"terminated":{"finishedAt":"2026-11-23T11:55:00Z"}}}]}"#,
            "0/2 | Init:CrashLoopBackOff | 3 (5m ago)",
        ),
        (
            r#"{"phase":"Pending","initContainerStatuses":[{"name":"i","state":{"terminated":{"exitCode":1}}}]}"#,
            "0/2 | Init:ExitCode:1 | 0",
        ),
        (
            r#"{"phase":"Running","initContainerStatuses":[{"name":"i","restartCount":1,"state":{"terminated":{"exitCode":0,"reason":"Completed"}}}],"containerStatuses":[{"name":"a","ready":true,"state":{"running":{}}},{"name":"b","restartCount":2,"ready":true,"state":{"running":{}},"lastState":{"terminated":{"finishedAt":"2026-11-23T10:00:00Z"}}}]}"#,
            "2/2 | Running | 2 (120m ago)",
        ),
        (
            r#"{"phase":"Running","containerStatuses":[{"name":"a","ready":true,"state":{"running":{}}},{"name":"b","state":{"waiting":{"reason":"ImagePullBackOff"}}}]}"#,
            "1/2 | ImagePullBackOff | 0",
        ),
        (
            r#"{"phase":"Running","conditions":[{"type":"Ready","status":"True"}],"containerStatuses":[{"name":"a","state":{"terminated":{"reason":"Completed","exitCode":0}}},{"name":"b","ready":true,"state":{"running":{}}}]}"#,
            "1/2 | Running | 0",
        ),
        (
            r#"{"phase":"Running","containerStatuses":[{"name":"a","state":{"terminated":{"reason":"Completed","exitCode":0}}},{"name":"b","ready":true,"state":{"running":{}}}]}"#,
            "1/2 | NotReady | 0",
        ),
        (
            r#"{"phase":"Failed","containerStatuses":[{"name":"a","state":{"terminated":{"signal":9,"exitCode":137}}}]}"#,
            "0/2 | Signal:9 | 0",
        ),
    ] {
        let json = format!(
            r#"{{"spec":{{"initContainers":[{{"name":"i"}}],"containers":[{{"name":"a"}},{{"name":"b"}}]}},"status":{status}}}"#
        );
        check("pod", &json, &format!("web | {shown} | {wide}"));
    }
    check(
        "pod",
        r#"{"metadata":{"deletionTimestamp":"2026-11-23T12:00:00Z"},"spec":{"nodeName":"n1","readinessGates":[{"conditionType":"a"},{"conditionType":"b"}],"initContainers":[{"name":"s","restartPolicy":"Always"}],"containers":[{"name":"a"}]},"status":{"phase":"Running","nominatedNodeName":"n2","podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"}],"conditions":[{"type":"a","status":"True"}],"initContainerStatuses":[{"name":"s","started":true,"ready":true,"restartCount":1,"state":{"running":{}}}],"containerStatuses":[{"name":"a","ready":true,"state":{"running":{}}}]}}"#,
        "web | 2/2 | Terminating | 1 | 2d | 10.0.0.1 | n1 | n2 | 1/2",
    );
}

const TEMPLATE: &str = r#""template":{"spec":{"containers":[{"name":"a","image":"x:1"},{"name":"b","image":"y"}]}}"#;

#[test]
fn workloads() {
    let spec = format!(r#"{{"replicas":3,"selector":{{"matchLabels":{{"app":"web"}}}},{TEMPLATE}}}"#);
    let object = |status: &str| format!(r#"{{"spec":{spec},"status":{status}}}"#);
    check(
        "deployment",
        &object(r#"{"readyReplicas":1,"updatedReplicas":2,"availableReplicas":1}"#),
        "web | 1/3 | 2 | 1 | 2d | a,b | x:1,y | app=web",
    );
    check("replicaset", &object(r#"{"replicas":3,"readyReplicas":1}"#), "web | 3 | 3 | 1 | 2d | a,b | x:1,y | app=web");
    check("statefulset", &object("{}"), "web | 0/3 | 2d | a,b | x:1,y");
    check(
        "daemonset",
        &object(r#"{"desiredNumberScheduled":2,"currentNumberScheduled":2,"numberReady":1}"#),
        "web | 2 | 2 | 1 | 0 | 0 | <none> | 2d | a,b | x:1,y | app=web",
    );
    let job = |spec: &str, status: &str| format!(r#"{{"spec":{{{spec},{TEMPLATE}}},"status":{status}}}"#);
    check(
        "job",
        &job(r#""completions":2"#, r#"{"succeeded":1,"startTime":"2026-11-23T11:00:00Z"}"#),
        "web | Running | 1/2 | 60m | 2d | a,b | x:1,y | <none>",
    );
    check(
        "job",
        &job(
            r#""parallelism":3"#,
            r#"{"succeeded":1,"startTime":"2026-11-23T11:00:00Z","completionTime":"2026-11-23T11:00:05Z","conditions":[{"type":"Complete","status":"True"}]}"#,
        ),
        "web | Complete | 1/1 of 3 | 5s | 2d | a,b | x:1,y | <none>",
    );
    check(
        "cronjob",
        &format!(
            r#"{{"spec":{{"schedule":"* * * * *","suspend":false,"jobTemplate":{{"spec":{{{TEMPLATE}}}}}}},"status":{{"active":[{{}}],"lastScheduleTime":"2026-11-23T11:59:00Z"}}}}"#
        ),
        "web | * * * * * | <none> | False | 1 | 60s | 2d | a,b | x:1,y | <none>",
    );
    check(
        "controllerrevision",
        r#"{"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","kind":"StatefulSet","name":"web","controller":true}]},"revision":2}"#,
        "web | statefulset.apps/web | 2 | 2d",
    );
}

#[test]
fn services() {
    for (spec, shown) in [
        (
            r#"{"type":"ClusterIP","clusterIPs":["10.0.0.1"],"ports":[{"port":80,"protocol":"TCP"}],"selector":{"b":"2","a":"1"}}"#,
            "ClusterIP | 10.0.0.1 | <none> | 80/TCP | 2d | a=1,b=2",
        ),
        (
            r#"{"type":"NodePort","clusterIPs":["10.0.0.1"],"externalIPs":["1.2.3.4"],"ports":[{"port":80,"nodePort":30080,"protocol":"TCP"},{"port":53,"protocol":"UDP"}]}"#,
            "NodePort | 10.0.0.1 | 1.2.3.4 | 80:30080/TCP,53/UDP | 2d | <none>",
        ),
        (r#"{"type":"LoadBalancer"}"#, "LoadBalancer | <none> | <pending> | <none> | 2d | <none>"),
        (
            r#"{"type":"ExternalName","externalName":"db.example.com"}"#,
            "ExternalName | <none> | db.example.com | <none> | 2d | <none>",
        ),
    ] {
        check("service", &format!(r#"{{"spec":{spec}}}"#), &format!("web | {shown}"));
    }
    check(
        "endpoints",
        r#"{"subsets":[{"addresses":[{"ip":"10.0.0.1"},{"ip":"10.0.0.2"}],"ports":[{"port":80},{"port":81}]}]}"#,
        "web | 10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more... | 2d",
    );
    check(
        "endpointslice",
        r#"{"addressType":"IPv4","ports":[{"port":80},{"name":"x"}],"endpoints":[{"addresses":["10.0.0.1"]}]}"#,
        "web | IPv4 | 80,x | 10.0.0.1 | 2d",
    );
}

#[test]
fn nodes_and_storage() {
    check(
        "node",
        r#"{"metadata":{"labels":{"node-role.kubernetes.io/worker":"","node-role.kubernetes.io/control-plane":""}},"spec":{"unschedulable":true},"status":{"conditions":[{"type":"Ready","status":"True"}],"addresses":[{"type":"InternalIP","address":"192.168.0.1"}],"nodeInfo":{"kubeletVersion":"v1.37.2","osImage":"Debian","kernelVersion":"6.1","architecture":"amd64"}}}"#,
        "web | Ready,SchedulingDisabled | control-plane,worker | 2d | v1.37.2 | 192.168.0.1 | <none> | Debian | 6.1 (amd64) | \
         <unknown>",
    );
    check("node", "{}", "web | Unknown | <none> | 2d |  | <none> | <none> | <unknown> | <unknown> | <unknown>");
    check(
        "persistentvolumeclaim",
        r#"{"spec":{"volumeName":"pv","storageClassName":"local","volumeMode":"Filesystem"},"status":{"phase":"Bound","capacity":{"storage":"1Gi"},"accessModes":["ReadWriteOnce"]}}"#,
        "web | Bound | pv | 1Gi | RWO | local | <unset> | 2d | Filesystem",
    );
    check(
        "persistentvolume",
        r#"{"spec":{"capacity":{"storage":"1Gi"},"accessModes":["ReadWriteMany","ReadOnlyMany"],"persistentVolumeReclaimPolicy":"Delete","claimRef":{"namespace":"d","name":"c"}},"status":{"phase":"Bound"}}"#,
        "web | 1Gi | ROX,RWX | Delete | Bound | d/c |  | <unset> |  | 2d | <unset>",
    );
    check(
        "storageclass",
        r#"{"metadata":{"annotations":{"storageclass.kubernetes.io/is-default-class":"true"}},"provisioner":"p"}"#,
        "web (default) | p | Delete | Immediate | false | 2d",
    );
}

#[test]
fn events_and_the_rest() {
    check(
        "event",
        r#"{"involvedObject":{"kind":"Pod","name":"p","fieldPath":"spec"},"type":"Normal","reason":"Pulled","message":" ok ","count":3,"source":{"component":"kubelet","host":"n1"},"firstTimestamp":"2026-11-23T11:00:00Z","lastTimestamp":"2026-11-23T11:59:30Z"}"#,
        "30s | Normal | Pulled | pod/p | spec | kubelet, n1 | ok | 60m | 3 | web",
    );
    check("secret", r#"{"type":"Opaque","data":{"a":"","b":""}}"#, "web | Opaque | 2 | 2d");
    check("configmap", r#"{"data":{"a":""},"binaryData":{"b":""}}"#, "web | 2 | 2d");
    check("clusterrole", "{}", "web | 2026-11-21T12:00:00Z");
    check(
        "rolebinding",
        r#"{"roleRef":{"kind":"Role","name":"r"},"subjects":[{"kind":"User","name":"u"},{"kind":"ServiceAccount","namespace":"d","name":"s"}]}"#,
        "web | Role/r | 2d | u |  | d/s",
    );
    check(
        "horizontalpodautoscaler",
        r#"{"spec":{"scaleTargetRef":{"kind":"Deployment","name":"web"},"maxReplicas":5,"minReplicas":1,"metrics":[{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":80}}}]},"status":{"currentReplicas":2}}"#,
        "web | Deployment/web | cpu: <unknown>/80% | 1 | 5 | 2 | 2d",
    );
}

/// A table of many pods parses each once, and nothing of its managed fields.
#[test]
fn many_rows_are_quick() {
    let kind = kind("pod");
    let fields = r#""managedFields":[{"manager":"m","operation":"Update","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:x":{}}}}]"#;
    let json = format!(
        r#"{{"metadata":{{"name":"web","creationTimestamp":"2026-11-21T12:00:00Z",{fields}}},"spec":{{"containers":[{{"name":"a"}}]}},"status":{{"phase":"Running"}}}}"#
    );
    let object = Object::parse(kind.id, Bytes::from(json), Revision(1), &kind.fact_paths).unwrap();
    let started = std::time::Instant::now();
    for _ in 0..1000 {
        assert_eq!(kind.row(&kind.versions[0], &object, &RowContext { now: context().now }).len(), 9);
    }
    // Generous: a loaded machine without optimisation.
    assert!(started.elapsed().as_secs() < 10);
}
