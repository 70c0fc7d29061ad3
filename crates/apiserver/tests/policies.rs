//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy through the pipeline.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use common::Fixture;
use corten_client::{Api, DeleteOptions, Target, Write, WriteOptions, Written};
use corten_kinds::id;
use corten_object::{KindId, ObjectKey, Reason, Status};
use corten_tree::{Tree, tree};

async fn write(api: &dyn Api, write: Write) -> Result<Written, Status> {
    api.write(write, WriteOptions::default()).await.map_err(|f| f.status)
}

async fn create(api: &dyn Api, kind: KindId, body: Tree) -> Result<Tree, Status> {
    let key = ObjectKey::new(kind, body.str_at("metadata.namespace"), body.str_at("metadata.name"));
    let written = write(api, Write::Create { target: Target::object(key), body }).await?;
    Ok(written.object.unwrap().to_tree())
}

fn constraints() -> Tree {
    tree!({"resourceRules": [
        {"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
    ]})
}

/// A validating policy about config maps, and a binding of it that denies.
async fn validating(api: &dyn Api, name: &str, spec: Tree, binding: Tree) {
    bound(api, id::VALIDATING_ADMISSION_POLICY, id::VALIDATING_ADMISSION_POLICY_BINDING, name, spec, binding).await;
}

async fn mutating(api: &dyn Api, name: &str, spec: Tree, binding: Tree) {
    bound(api, id::MUTATING_ADMISSION_POLICY, id::MUTATING_ADMISSION_POLICY_BINDING, name, spec, binding).await;
}

async fn bound(api: &dyn Api, policy: KindId, of: KindId, name: &str, mut spec: Tree, mut binding: Tree) {
    if spec.path("matchConstraints").is_none() {
        spec.insert("matchConstraints", constraints());
    }
    create(api, policy, tree!({"metadata": {"name": name}, "spec": (spec)})).await.unwrap();
    binding.insert("policyName", name);
    if of == id::VALIDATING_ADMISSION_POLICY_BINDING && binding.path("validationActions").is_none() {
        binding.insert("validationActions", vec!["Deny"]);
    }
    create(api, of, tree!({"metadata": {"name": (format!("{name}-binding"))}, "spec": (binding)})).await.unwrap();
}

fn config_map(name: &str, data: Tree) -> Tree {
    tree!({"metadata": {"name": name, "namespace": "default"}, "data": (data)})
}

#[tokio::test]
async fn policy_validating_denies_with_its_message_and_reason() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let spec = tree!({
        "variables": [
            {"name": "size", "expression": "object.data.size()"},
            {"name": "large", "expression": "variables.size > 2"}
        ],
        "validations": [
            {"expression": "!variables.large", "messageExpression": "'it has ' + string(variables.size) + ' keys'", "reason": "Forbidden"},
            {"expression": "object.data.all(k, k != 'b')", "message": "no b"},
            {"expression": "object.metadata.name != 'bare'"}
        ]
    });
    validating(api, "p", spec, tree!({})).await;
    create(api, id::CONFIG_MAP, config_map("fine", tree!({"a": "1"}))).await.unwrap();
    let status = create(api, id::CONFIG_MAP, config_map("c", tree!({"a": "1", "c": "2", "d": "3"}))).await.unwrap_err();
    let text = "ValidatingAdmissionPolicy 'p' with binding 'p-binding' denied request: it has 3 keys";
    assert_eq!(status.message, format!("configmaps \"c\" is forbidden: {text}"));
    assert_eq!((status.reason, status.code), (Reason::Forbidden, 403));
    assert_eq!(status.causes[0].message, text);
    let status = create(api, id::CONFIG_MAP, config_map("c", tree!({"b": "1"}))).await.unwrap_err();
    assert!(status.message.ends_with("denied request: no b"), "{status}");
    assert_eq!((status.reason, status.code), (Reason::Invalid, 422));
    let status = create(api, id::CONFIG_MAP, config_map("bare", tree!({"x": "1"}))).await.unwrap_err();
    assert!(status.message.ends_with("failed expression: object.metadata.name != 'bare'"), "{status}");
    let metrics = common::caller::Caller::admin(&fixture).await.get("/metrics").await.1;
    let line = "apiserver_validating_admission_policy_check_total{enforcement_action=\"deny\",error_type=\"invalid_error\",\
                policy=\"p\",policy_binding=\"p-binding\"} 3";
    assert!(metrics.as_str().is_some_and(|text| text.contains(line)), "{metrics}");
    let line = "apiserver_validating_admission_policy_check_duration_seconds_count{enforcement_action=\"deny\",\
                error_type=\"invalid_error\",policy=\"p\",policy_binding=\"p-binding\"} 3";
    assert!(metrics.as_str().is_some_and(|text| text.contains(line)), "{metrics}");
    // Other kinds and operations are not its business.
    let key = ObjectKey::new(id::CONFIG_MAP, "default", "fine");
    write(api, Write::Delete { key, options: DeleteOptions::default() }).await.unwrap();
}

#[tokio::test]
async fn policy_failure_policy_decides_about_expressions_that_fail() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let spec = |failure: &str| tree!({"failurePolicy": failure, "validations": [{"expression": "object.data.missing == 'x'"}]});
    validating(api, "open", spec("Ignore"), tree!({})).await;
    create(api, id::CONFIG_MAP, config_map("a", tree!({"a": "1"}))).await.unwrap();
    validating(api, "closed", spec("Fail"), tree!({})).await;
    let status = create(api, id::CONFIG_MAP, config_map("b", tree!({"a": "1"}))).await.unwrap_err();
    assert!(
        status.message.ends_with("expression 'object.data.missing == 'x'' resulted in error: no such key: missing"),
        "{status}"
    );
}

#[tokio::test]
async fn policy_params_come_by_name_and_selector() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let params = tree!({"metadata": {"name": "limits", "namespace": "default", "labels": {"use": "limits"}}, "data": {"most": "1"}});
    create(api, id::CONFIG_MAP, params).await.unwrap();
    let spec = || {
        tree!({
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConditions": [{"name": "not-params", "expression": "object.metadata.name != 'limits'"}],
            "validations": [{"expression": "object.data.size() <= int(params.data.most)", "message": "too many"}]
        })
    };
    let by_name = tree!({"paramRef": {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"}});
    validating(api, "named", spec(), by_name).await;
    create(api, id::CONFIG_MAP, config_map("one", tree!({"a": "1"}))).await.unwrap();
    let status = create(api, id::CONFIG_MAP, config_map("two", tree!({"a": "1", "b": "2"}))).await.unwrap_err();
    assert!(status.message.ends_with("denied request: too many"), "{status}");
    let key = ObjectKey::new(id::VALIDATING_ADMISSION_POLICY_BINDING, "", "named-binding");
    write(api, Write::Delete { key, options: DeleteOptions::default() }).await.unwrap();
    let selected =
        tree!({"paramRef": {"selector": {"matchLabels": {"use": "nothing"}}, "parameterNotFoundAction": "Deny"}});
    validating(api, "selected", spec(), selected).await;
    let status = create(api, id::CONFIG_MAP, config_map("two", tree!({"a": "1"}))).await.unwrap_err();
    assert!(
        status.message.ends_with(
            "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
        ),
        "{status}"
    );
}

#[tokio::test]
async fn policy_match_constraints_exclude_and_select() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let spec = tree!({
        "matchConstraints": {
            "objectSelector": {"matchLabels": {"checked": "yes"}},
            "resourceRules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}],
            "excludeResourceRules": [
                {"operations": ["*"], "apiGroups": [""], "apiVersions": ["*"], "resources": ["configmaps"], "resourceNames": ["free"]}
            ]
        },
        "validations": [{"expression": "false", "message": "never"}]
    });
    validating(api, "p", spec, tree!({})).await;
    let labelled = |name: &str| {
        let mut map = config_map(name, tree!({}));
        map.set("metadata.labels.checked", "yes");
        map
    };
    create(api, id::CONFIG_MAP, config_map("plain", tree!({}))).await.unwrap();
    create(api, id::CONFIG_MAP, labelled("free")).await.unwrap();
    let status = create(api, id::CONFIG_MAP, labelled("held")).await.unwrap_err();
    assert!(status.message.ends_with("denied request: never"), "{status}");
}

#[tokio::test]
async fn policy_expressions_ask_the_authorizer_and_see_the_namespace() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let spec = tree!({"validations": [
        {"expression": "authorizer.group('').resource('secrets').namespace('default').check('get').allowed()", "message": "not you"},
        {"expression": "namespaceObject.metadata.name == request.namespace && oldObject == null", "message": "where"},
        {"expression": "namespaceObject.metadata.creationTimestamp > timestamp('2000-01-01T00:00:00Z')", "message": "when"},
        {"expression": "!authorizer.serviceAccount('default', 'nobody').group('').resource('secrets').check('get').allowed()", "message": "sa"}
    ]});
    validating(api, "p", spec, tree!({})).await;
    create(api, id::CONFIG_MAP, config_map("fine", tree!({}))).await.unwrap();
}

#[tokio::test]
async fn policy_mutating_patches_and_reinvokes() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let patch = |expression: &str| {
        tree!({"reinvocationPolicy": "IfNeeded", "failurePolicy": "Fail", "mutations": [
            {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}
        ]})
    };
    // The first sees what the second does only when it is asked again.
    let counts =
        "[JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('keys'), value: string(object.data.size())}]";
    mutating(api, "a-counts", patch(counts), tree!({})).await;
    let adds = "has(object.data.added) ? [] : [JSONPatch{op: 'test', path: '/data/a', value: '1'}, \
                JSONPatch{op: 'add', path: '/data/added', value: 'yes'}]";
    mutating(api, "b-adds", patch(adds), tree!({})).await;
    let made = create(api, id::CONFIG_MAP, config_map("c", tree!({"a": "1"}))).await.unwrap();
    assert_eq!(made.path("data").unwrap().to_string(), r#"{"a":"1","added":"yes","keys":"3"}"#);
    // A test that fails changes nothing.
    let made = create(api, id::CONFIG_MAP, config_map("d", tree!({"a": "2"}))).await.unwrap();
    assert!(made.path("data.added").is_none());
    let bad = patch("[JSONPatch{op: 'remove', path: '/data/missing'}]");
    mutating(api, "c-fails", bad, tree!({})).await;
    let status = create(api, id::CONFIG_MAP, config_map("e", tree!({"a": "1"}))).await.unwrap_err();
    assert!(
        status.message.starts_with("policy 'c-fails' with binding 'c-fails-binding' denied request: JSON Patch: "),
        "{status}"
    );
    assert_eq!((status.reason, status.code), (Reason::Invalid, 403));
}

#[tokio::test]
async fn policy_mutating_applies_configurations() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let apply = |expression: &str| {
        tree!({"reinvocationPolicy": "Never", "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"],
                "resources": ["deployments"]}]},
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]})
    };
    let deployment = |name: &str| {
        tree!({"metadata": {"name": name, "namespace": "default"}, "spec": {"replicas": 1,
            "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "x", "image": "x"}, {"name": "y", "image": "y"}]}}}})
    };
    let first =
        "Object{spec: Object.spec{replicas: 1337}, metadata: Object.metadata{annotations: {'mutated-by': 'policy'}}}";
    mutating(api, "a", apply(first), tree!({})).await;
    let second = "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: \
        object.spec.template.spec.containers.filter(c, c.name == 'y').map(c, Object.spec.template.spec.containers{ \
        name: c.name, imagePullPolicy: 'IfNotPresent'})}}}}";
    mutating(api, "b", apply(second), tree!({})).await;
    let made = create(api, id::DEPLOYMENT, deployment("d")).await.unwrap();
    assert_eq!(made.i64_at("spec.replicas"), Some(1337));
    assert_eq!(made.path("metadata.annotations").unwrap().to_string(), r#"{"mutated-by":"policy"}"#);
    let policies: Vec<_> = made
        .list_at("spec.template.spec.containers")
        .iter()
        .map(|c| (c.str_at("image"), c.str_at("imagePullPolicy")))
        .collect();
    assert_eq!(policies, [("x", "Always"), ("y", "IfNotPresent")]);
    // What the policy sets has no owner.
    assert!(!made.path("metadata.managedFields").unwrap().to_string().contains("mutated-by"));
    for (name, expression, expected) in [
        (
            "c",
            "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'c': 'd'}}}}",
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector",
        ),
        (
            "d",
            "Object{spec: Object.spec{replica: 2}}",
            "error applying patch: failed to convert patch object to typed object: .spec.replica: field not declared in schema",
        ),
        (
            "e",
            "Object{spec: Object.wrong{replicas: 2}}",
            "type mismatch: unexpected type name \"Object.wrong\", expected \"Object.spec\", which matches field name path \
             from root Object type",
        ),
    ] {
        mutating(api, name, apply(expression), tree!({})).await;
        let status = create(api, id::DEPLOYMENT, deployment(name)).await.unwrap_err();
        let expected = format!("policy '{name}' with binding '{name}-binding' denied request: {expected}");
        assert_eq!(status.message, expected);
        let key = ObjectKey::new(id::MUTATING_ADMISSION_POLICY, "", name);
        let delete = Write::Delete { key, options: DeleteOptions::default() };
        write(api, delete).await.unwrap();
    }
}

#[tokio::test]
async fn policy_writers_must_be_able_to_read_param_kind_and_param_ref() {
    let fixture = Fixture::start().await;
    let admin = &*fixture.admin();
    let rules = tree!([{"apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "verbs": ["*"]}]);
    create(admin, id::CLUSTER_ROLE, tree!({"metadata": {"name": "policies"}, "rules": (rules)})).await.unwrap();
    let bind = tree!({"metadata": {"name": "policies"}, "subjects": [{"kind": "User", "name": "eve"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "policies"}});
    create(admin, id::CLUSTER_ROLE_BINDING, bind).await.unwrap();
    let eve = &*fixture.server.api_as(corten_auth::User::new("eve", &["devs"]));
    let policy = |kind: Tree| {
        tree!({"metadata": {"name": "p"}, "spec": {"paramKind": (kind), "matchConstraints": (constraints()),
            "validations": [{"expression": "true"}]}})
    };
    let secrets = || tree!({"apiVersion": "v1", "kind": "Secret"});
    let refused = create(eve, id::VALIDATING_ADMISSION_POLICY, policy(secrets())).await.unwrap_err();
    assert_eq!(refused.code, 422);
    assert_eq!(
        refused.message,
        "ValidatingAdmissionPolicy.admissionregistration.k8s.io \"p\" is invalid: spec.paramKind: Forbidden: user &{eve  [devs system:authenticated] \
         map[]} must have \"get\" permission on all objects of the referenced paramKind (kind=Secret, apiVersion=v1)"
    );
    create(eve, id::VALIDATING_ADMISSION_POLICY, policy(Tree::Null)).await.unwrap();
    let mut other = policy(secrets());
    other.set("metadata.name", "q");
    create(admin, id::VALIDATING_ADMISSION_POLICY, other).await.unwrap();
    let binding = |policy: &str| {
        tree!({"metadata": {"name": "b"}, "spec": {"policyName": policy, "validationActions": ["Deny"],
            "paramRef": {"name": "s", "namespace": "default", "parameterNotFoundAction": "Deny"}}})
    };
    for (of, why) in [
        (
            "q",
            "user &{eve  [devs system:authenticated] map[]} does not have \"get\" permission on the object referenced by paramRef",
        ),
        (
            "absent",
            "unable to get policy absent to determine minimum required permissions and user &{eve  [devs system:authenticated] map[]} does not have \
             \"get\" permission for all groups, versions and resources",
        ),
    ] {
        let refused = create(eve, id::VALIDATING_ADMISSION_POLICY_BINDING, binding(of)).await.unwrap_err();
        assert!(refused.message.ends_with(&format!("spec.paramRef: Forbidden: {why}")), "{}", refused.message);
    }
    create(admin, id::VALIDATING_ADMISSION_POLICY_BINDING, binding("q")).await.unwrap();
}

#[tokio::test]
async fn policy_authorizer_decisions_have_a_reason() {
    let fixture = Fixture::start().await;
    let api = &*fixture.admin();
    let check =
        "authorizer.serviceAccount('default', 'x').group('').resource('pods').namespace('default').check('list')";
    // A check costs a third of what an expression may.
    let said = "string(variables.asked.allowed()) + ': ' + variables.asked.reason() + '|' + variables.asked.error()";
    let spec = tree!({"variables": [{"name": "asked", "expression": check}, {"name": "said", "expression": said}],
        "validations": [{"expression": "variables.said == ''", "messageExpression": "variables.said"}]});
    validating(api, "p", spec, tree!({})).await;
    let bind = |role: &str| {
        tree!({"metadata": {"name": role, "namespace": "default"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "x", "namespace": "default"}]})
    };
    create(api, id::ROLE_BINDING, bind("none")).await.unwrap();
    let status = create(api, id::CONFIG_MAP, config_map("c", tree!({}))).await.unwrap_err();
    let reason = "RBAC: clusterrole.rbac.authorization.k8s.io \"none\" not found";
    assert!(status.message.ends_with(&format!(" false: {reason}|")), "{status}");
    create(api, id::ROLE_BINDING, bind("view")).await.unwrap();
    let status = create(api, id::CONFIG_MAP, config_map("c", tree!({}))).await.unwrap_err();
    let reason =
        "RBAC: allowed by RoleBinding \"view/default\" of ClusterRole \"view\" to ServiceAccount \"x/default\"";
    assert!(status.message.ends_with(&format!(" true: {reason}|")), "{status}");
}
