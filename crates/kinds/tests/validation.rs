//! One fault each, and what the API says of it: path, reason and message as upstream's code has them.
#![allow(clippy::unwrap_used)]

mod common;

use common::{base, kind, prepared, set};
use corten_kinds::Errors;

fn shown(errors: &Errors) -> String {
    errors.iter().map(|e| format!("{} {e}", e.kind.as_str())).collect::<Vec<_>>().join("\n")
}

/// The faults of a base manifest after some changes.
fn check(name: &str, changes: &[(&str, &str)], expected: &str) {
    let kind = kind(name);
    let mut object = base(name);
    for (path, value) in changes {
        set(&mut object, path, value);
    }
    let object = prepared(&kind, object);
    assert_eq!(shown(&kind.create_faults(&kind, &object)), expected, "{name} {changes:?}");
}

/// The faults of an update of a base manifest.
fn check_update(name: &str, changes: &[(&str, &str)], expected: &str) {
    let kind = kind(name);
    let mut old = prepared(&kind, base(name));
    old.set("metadata.resourceVersion", "1");
    let mut new = old.clone();
    for (path, value) in changes {
        set(&mut new, path, value);
    }
    if let Some(default) = kind.hooks.default {
        default(&mut new);
    }
    if let Some(prepare) = kind.hooks.prepare_update {
        prepare(&mut new, &old, &common::context());
    }
    assert_eq!(shown(&kind.update_faults(&kind, &new, &old, &mut Vec::new())), expected, "{name} {changes:?}");
}

#[test]
fn base_manifests_have_no_faults() {
    for name in [
        "pod",
        "deployment",
        "daemonset",
        "replicaset",
        "statefulset",
        "replicationcontroller",
        "job",
        "cronjob",
        "service",
        "configmap",
        "secret",
        "persistentvolumeclaim",
        "persistentvolume",
        "namespace",
        "node",
        "serviceaccount",
    ] {
        check(name, &[], "");
        check_update(name, &[], "");
    }
}

#[test]
fn metadata() {
    let subdomain = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
        start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
        '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    check(
        "pod",
        &[("metadata.name", "\"Web_1\"")],
        &format!("FieldValueInvalid metadata.name: Invalid value: \"Web_1\": {subdomain}"),
    );
    check(
        "pod",
        &[("metadata.name", "-")],
        "FieldValueRequired metadata.name: Required value: name or generateName is required",
    );
    check("service", &[("metadata.name", "\"1web\"")], "");
    check(
        "namespace",
        &[("metadata.name", "\"a.b\""), ("metadata.namespace", "\"x\"")],
        "FieldValueInvalid metadata.name: Invalid value: \"a.b\": must not contain dots\n\
         FieldValueForbidden metadata.namespace: Forbidden: not allowed on this type",
    );
    check(
        "pod",
        &[("metadata.labels.app", "\"-x\"")],
        "FieldValueInvalid metadata.labels: Invalid value: \"-x\": a valid label must be an empty string or consist of \
         alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  \
         or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
    );
    check(
        "pod",
        &[("metadata.finalizers", "[\"mine\"]")],
        "FieldValueInvalid metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is \
         it fully qualified",
    );
    check(
        "pod",
        &[("metadata.ownerReferences.0", r#"{"apiVersion":"v1","kind":"X","name":"x"}"#)],
        "FieldValueRequired metadata.ownerReferences[0].uid: Required value: must not be empty",
    );
    check_update(
        "lease",
        &[("metadata.resourceVersion", "-"), ("metadata.uid", "\"other\"")],
        "FieldValueInvalid metadata.resourceVersion: Invalid value: \"\": must be specified for an update\n\
         FieldValueInvalid metadata.uid: Invalid value: \"other\": field is immutable",
    );
}

#[test]
fn containers() {
    let at = |path: &str, value: &str, expected: &str| check("pod", &[(path, value)], expected);
    at("spec.containers", "[]", "FieldValueRequired spec.containers: Required value");
    at("spec.containers.0.name", "-", "FieldValueRequired spec.containers[0].name: Required value");
    at("spec.containers.0.image", "-", "FieldValueRequired spec.containers[0].image: Required value");
    at(
        "spec.containers.0.image",
        "\" nginx\"",
        "FieldValueInvalid spec.containers[0].image: Invalid value: \" nginx\": must not have leading or trailing whitespace",
    );
    at(
        "spec.containers.0.imagePullPolicy",
        "\"Maybe\"",
        "FieldValueNotSupported spec.containers[0].imagePullPolicy: Unsupported value: \"Maybe\": supported values: \
         \"Always\", \"IfNotPresent\", \"Never\"",
    );
    at(
        "spec.containers.1",
        r#"{"name":"web","image":"x"}"#,
        "FieldValueDuplicate spec.containers[1].name: Duplicate value: \"web\"",
    );
    at(
        "spec.containers.0.ports",
        r#"[{"containerPort":70000},{"name":"http"},{"containerPort":1,"protocol":"ICMP"}]"#,
        "FieldValueInvalid spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, \
         inclusive\nFieldValueRequired spec.containers[0].ports[1].containerPort: Required value\n\
         FieldValueNotSupported spec.containers[0].ports[2].protocol: Unsupported value: \"ICMP\": supported values: \
         \"SCTP\", \"TCP\", \"UDP\"",
    );
    at(
        "spec.containers.0.ports",
        r#"[{"containerPort":80,"hostPort":80},{"containerPort":81,"hostPort":80}]"#,
        "FieldValueDuplicate spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//80\"",
    );
    at(
        "spec.containers.0.env",
        r#"[{"value":"x"},{"name":"A","valueFrom":{}},{"name":"B","valueFrom":{"fieldRef":{"fieldPath":"spec.x"}}}]"#,
        "FieldValueRequired spec.containers[0].env[0].name: Required value\n\
         FieldValueInvalid spec.containers[0].env[1].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, \
         `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`\n\
         FieldValueInvalid spec.containers[0].env[2].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error \
         converting fieldPath: field label not supported: spec.x",
    );
    at(
        "spec.containers.0.envFrom",
        r#"[{"configMapRef":{}},{}]"#,
        "FieldValueRequired spec.containers[0].envFrom[0].configMapRef.name: Required value\n\
         FieldValueInvalid spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
    );
    at(
        "spec.containers.0.resources",
        r#"{"requests":{"cpu":"2","memory":"-1","apples":"1"},"limits":{"cpu":"1"}}"#,
        "FieldValueInvalid spec.containers[0].resources.requests[apples]: Invalid value: \"apples\": must be a standard \
         resource type or fully qualified\n\
         FieldValueInvalid spec.containers[0].resources.requests[apples]: Invalid value: \"apples\": must be a standard \
         resource for containers\n\
         FieldValueInvalid spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu \
         limit of 1\n\
         FieldValueInvalid spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or \
         equal to 0",
    );
    at(
        "spec.containers.0.volumeMounts",
        r#"[{"name":"data"}]"#,
        "FieldValueNotFound spec.containers[0].volumeMounts[0].name: Not found: \"data\"\n\
         FieldValueRequired spec.containers[0].volumeMounts[0].mountPath: Required value",
    );
    at(
        "spec.containers.0.livenessProbe",
        r#"{"httpGet":{"port":"http!"},"successThreshold":2,"periodSeconds":-1}"#,
        "FieldValueInvalid spec.containers[0].livenessProbe.httpGet.port: Invalid value: \"http!\": must contain only \
         alpha-numeric characters (a-z, 0-9), and hyphens (-)\n\
         FieldValueInvalid spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal \
         to 0\n\
         FieldValueInvalid spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
    );
    at(
        "spec.containers.0.readinessProbe",
        r#"{"exec":{"command":["x"]},"tcpSocket":{"port":1}}"#,
        "FieldValueForbidden spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
    );
    at(
        "spec.containers.0.lifecycle.preStop.sleep.seconds",
        "31",
        "FieldValueInvalid spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than \
         terminationGracePeriodSeconds (30)",
    );
    at(
        "spec.initContainers.0",
        r#"{"name":"web","image":"x","livenessProbe":{"exec":{"command":["x"]}}}"#,
        "FieldValueDuplicate spec.initContainers[0].name: Duplicate value: \"web\"\n\
         FieldValueForbidden spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without \
         restartPolicy=Always",
    );
    at(
        "spec.ephemeralContainers.0",
        r#"{"name":"debug","image":"x"}"#,
        "FieldValueForbidden spec.ephemeralContainers: Forbidden: cannot be set on create",
    );
    at(
        "spec.containers.0.securityContext",
        r#"{"runAsUser":-1,"privileged":true,"allowPrivilegeEscalation":false}"#,
        "FieldValueInvalid spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and \
         2147483647, inclusive\n\
         FieldValueInvalid spec.containers[0].securityContext: Invalid value: \
         {\"Capabilities\":null,\"Privileged\":true,\"SELinuxOptions\":null,\"WindowsOptions\":null,\"RunAsUser\":-1,\
         \"RunAsGroup\":null,\"RunAsNonRoot\":null,\"ReadOnlyRootFilesystem\":null,\"AllowPrivilegeEscalation\":false,\
         \"ProcMount\":null,\"SeccompProfile\":null,\"AppArmorProfile\":null}: cannot set `allowPrivilegeEscalation` to \
         false and `privileged` to true",
    );
}

#[test]
fn pods() {
    let at = |path: &str, value: &str, expected: &str| check("pod", &[(path, value)], expected);
    at(
        "spec.restartPolicy",
        "\"Sometimes\"",
        "FieldValueNotSupported spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \
         \"OnFailure\", \"Never\"",
    );
    at(
        "spec.activeDeadlineSeconds",
        "0",
        "FieldValueInvalid spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
    );
    at(
        "spec.volumes",
        r#"[{"name":"a","emptyDir":{},"hostPath":{"path":"/x"}},{"name":"b","configMap":{}},{"name":"b","secret":{"secretName":"s","defaultMode":512}}]"#,
        "FieldValueForbidden spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type\n\
         FieldValueRequired spec.volumes[1].configMap.name: Required value\n\
         FieldValueInvalid spec.volumes[2].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 \
         (octal), both inclusive",
    );
    at(
        "spec.volumes.0",
        r#"{"name":"a","configMap":{"name":"c","items":[{"key":"k","path":"../x"}]}}"#,
        "FieldValueInvalid spec.volumes[0].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'",
    );
    at(
        "spec.tolerations.0",
        r#"{"operator":"Equal","value":"x"}"#,
        "FieldValueInvalid spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is \
         empty, which means \"match all values and all keys\"",
    );
    at(
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms",
        r#"[{"matchExpressions":[{"key":"a","operator":"In"}]}]"#,
        "FieldValueRequired spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]\
         .matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
    );
    at(
        "spec.topologySpreadConstraints.0",
        r#"{"maxSkew":0,"topologyKey":"zone","whenUnsatisfiable":"Panic"}"#,
        "FieldValueInvalid spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero\n\
         FieldValueNotSupported spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Panic\": supported \
         values: \"DoNotSchedule\", \"ScheduleAnyway\"",
    );
    at("spec.hostname", "\"a.b\"", "FieldValueInvalid spec.hostname: Invalid value: \"a.b\": must not contain dots");
    at(
        "spec.dnsPolicy",
        "\"None\"",
        "FieldValueRequired spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
    );
    at(
        "spec.dnsConfig.nameservers",
        "[\"10.0.0\"]",
        "FieldValueInvalid spec.dnsConfig.nameservers[0]: Invalid value: \"10.0.0\": must be a valid IP address, (e.g. \
         10.9.8.7 or 2001:db8::ffff)",
    );
}

#[test]
fn pod_updates() {
    check_update("pod", &[("spec.containers.0.image", "\"nginx:2\"")], "");
    check_update(
        "pod",
        &[("spec.containers.1", r#"{"name":"b","image":"b"}"#)],
        "FieldValueForbidden spec.containers: Forbidden: pod updates may not add or remove containers",
    );
    check_update(
        "pod",
        &[("spec.hostname", "\"other\"")],
        "FieldValueForbidden spec: Forbidden: pod updates may not change fields other than \
         `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only \
         additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
         previously negative)\n@@ -64,7 +64,7 @@\n   \"SELinuxChangePolicy\": null\n  },\n  \"ImagePullSecrets\": null,\n- \"Hostname\": \
         \"\",\n+ \"Hostname\": \"other\",\n  \"Subdomain\": \"\",\n  \"Affinity\": null,\n  \"SchedulerName\": \
         \"default-scheduler\",\n",
    );
}

#[test]
fn workloads() {
    for (name, of) in [
        ("deployment", "deployment"),
        ("replicaset", "deployment"),
        ("statefulset", "statefulset"),
        ("daemonset", "daemonset"),
    ] {
        let labels = "FieldValueInvalid spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not \
            match template `labels`";
        let missing = format!("FieldValueRequired spec.selector: Required value\n{labels}");
        // A DaemonSet without one is only told that nothing matches.
        let missing = if name == "daemonset" { labels } else { missing.as_str() };
        check(name, &[("spec.selector", "-")], missing);
        check(
            name,
            &[("spec.selector", "{}")],
            &format!("FieldValueInvalid spec.selector: Invalid value: {{}}: empty selector is invalid for {of}"),
        );
        check(name, &[("spec.selector.matchLabels.app", "\"db\"")], labels);
        check(
            name,
            &[("spec.template.spec.restartPolicy", "\"Never\"")],
            "FieldValueNotSupported spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \
             \"Always\"",
        );
        let immutable = "FieldValueInvalid spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"web\",\"x\":\"y\"}}: field \
            is immutable";
        let changes = [("spec.selector.matchLabels.x", "\"y\""), ("spec.template.metadata.labels.x", "\"y\"")];
        check_update(name, &changes, immutable);
    }
    check(
        "deployment",
        &[("spec.replicas", "-1"), ("spec.strategy.rollingUpdate", r#"{"maxSurge":0,"maxUnavailable":"0%"}"#)],
        "FieldValueInvalid spec.replicas: Invalid value: -1: must be greater than or equal to 0\n\
         FieldValueInvalid spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
    );
    check(
        "deployment",
        &[("spec.strategy", r#"{"type":"Recreate","rollingUpdate":{"maxSurge":1}}"#)],
        "FieldValueForbidden spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
    );
    check(
        "deployment",
        &[("spec.progressDeadlineSeconds", "5"), ("spec.minReadySeconds", "5")],
        "FieldValueInvalid spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds",
    );
    check(
        "statefulset",
        &[("spec.podManagementPolicy", "\"Random\"")],
        "FieldValueInvalid spec.podManagementPolicy: Invalid value: \"Random\": must be 'OrderedReady' or 'Parallel'",
    );
    check_update(
        "statefulset",
        &[("spec.serviceName", "\"db\"")],
        "FieldValueInvalid spec.serviceName: Invalid value: \"db\": field is immutable",
    );
    check(
        "daemonset",
        &[("spec.updateStrategy.rollingUpdate", r#"{"maxUnavailable":0,"maxSurge":0}"#)],
        "FieldValueRequired spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
    );
}

#[test]
fn jobs() {
    check(
        "job",
        &[("spec.template.spec.restartPolicy", "-")],
        "FieldValueRequired spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
    );
    check(
        "job",
        &[("spec.completionMode", "\"Indexed\""), ("spec.completions", "-"), ("spec.parallelism", "2")],
        "FieldValueRequired spec.completions: Required value: when completion mode is Indexed",
    );
    check(
        "job",
        &[("spec.selector.matchLabels.x", "\"y\"")],
        "FieldValueInvalid spec.selector: Invalid value: {\"matchLabels\":{\"batch.kubernetes.io/controller-uid\":\
         \"00000000-0000-0000-0000-000000000001\",\"x\":\"y\"}}: `selector` not auto-generated\n\
         FieldValueInvalid spec.template.metadata.labels: Invalid value: {\"app\":\"web\",\
         \"batch.kubernetes.io/controller-uid\":\"00000000-0000-0000-0000-000000000001\",\"batch.kubernetes.io/job-name\":\
         \"web\",\"controller-uid\":\"00000000-0000-0000-0000-000000000001\",\"job-name\":\"web\"}: `selector` does not \
         match template `labels`",
    );
    check(
        "job",
        &[("spec.podFailurePolicy.rules.0", r#"{"action":"Ignore","onExitCodes":{"operator":"In","values":[0,3,2]}}"#)],
        "FieldValueInvalid spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In \
         operator\n\
         FieldValueInvalid spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [0,3,2]: must be ordered",
    );
    check_update(
        "job",
        &[("spec.completions", "2")],
        "FieldValueInvalid spec.completions: Invalid value: 2: field is immutable",
    );
    check(
        "cronjob",
        &[("spec.schedule", "\"61 * * * *\""), ("spec.concurrencyPolicy", "\"Never\"")],
        "FieldValueInvalid spec.schedule: Invalid value: \"61 * * * *\": end of range (61) above maximum (59): 61\n\
         FieldValueNotSupported spec.concurrencyPolicy: Unsupported value: \"Never\": supported values: \"Allow\", \
         \"Forbid\", \"Replace\"",
    );
    check(
        "cronjob",
        &[("spec.timeZone", "\"Mars/Base\"")],
        "FieldValueInvalid spec.timeZone: Invalid value: \"Mars/Base\": unknown time zone Mars/Base",
    );
    check(
        "cronjob",
        &[("spec.schedule", "\"TZ=UTC * * * * *\"")],
        "FieldValueInvalid spec.schedule: Invalid value: \"TZ=UTC * * * * *\": cannot use TZ or CRON_TZ in schedule, use \
         timeZone field instead",
    );
}

#[test]
fn services() {
    check("service", &[("spec.ports", "-")], "FieldValueRequired spec.ports: Required value");
    check("service", &[("spec.ports", "-"), ("spec.clusterIP", "\"None\"")], "");
    check(
        "service",
        &[("spec.ports", r#"[{"port":0,"name":"a"},{"port":81,"nodePort":30000}]"#)],
        "FieldValueInvalid spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive\n\
         FieldValueInvalid spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive\n\
         FieldValueRequired spec.ports[1].name: Required value\n\
         FieldValueForbidden spec.ports[1].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
    );
    check("service", &[("spec.type", "\"ExternalName\"")], "FieldValueRequired spec.externalName: Required value");
    check(
        "service",
        &[("spec.type", "\"Magic\"")],
        "FieldValueNotSupported spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \
         \"LoadBalancer\", \"NodePort\"",
    );
    check(
        "service",
        &[("spec.clusterIP", "\"10.0.0.300\"")],
        "FieldValueInvalid spec.clusterIPs[0]: Invalid value: \"10.0.0.300\": must be a valid IP address, (e.g. 10.9.8.7 or \
         2001:db8::ffff)",
    );
}

#[test]
fn configuration() {
    check(
        "configmap",
        &[("data", r#"{"a/b":"x"}"#)],
        "FieldValueInvalid data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, \
         '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
    );
    check(
        "secret",
        &[("type", "\"kubernetes.io/tls\"")],
        "FieldValueRequired data[tls.crt]: Required value\nFieldValueRequired data[tls.key]: Required value",
    );
    check_update("secret", &[("type", "\"x\"")], "FieldValueInvalid type: Invalid value: \"x\": field is immutable");
}

#[test]
fn storage() {
    check(
        "persistentvolumeclaim",
        &[("spec", "{}")],
        "FieldValueRequired spec.accessModes: Required value: at least 1 access mode is required\n\
         FieldValueRequired spec.resources[storage]: Required value",
    );
    check_update(
        "persistentvolumeclaim",
        &[("spec.accessModes", "[\"ReadWriteMany\"]")],
        "FieldValueForbidden spec: Forbidden: spec is immutable after creation except resources.requests and \
         volumeAttributesClassName for bound claims\n@@ -1,6 +1,6 @@\n {\n  \"AccessModes\": [\n-  \"ReadWriteOnce\"\n+  \
         \"ReadWriteMany\"\n  ],\n  \"Selector\": null,\n  \"Resources\": {\n",
    );
    check(
        "persistentvolume",
        &[("spec.hostPath", "-")],
        "FieldValueRequired spec: Required value: must specify a volume type",
    );
}
