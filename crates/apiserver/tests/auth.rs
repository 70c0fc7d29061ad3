//! Who calls and what they may do, over the wire: tokens, impersonation, the front proxy, access reviews, escalation.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use common::Fixture;
use common::caller::Caller;
use corten_tree::{Tree, tree};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const AUTHZ: &str = "/apis/authorization.k8s.io/v1";
const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

async fn who(caller: &mut Caller) -> (u16, Tree) {
    let body = tree!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let (code, tree) = caller.post(WHO, &body).await;
    (code, tree.path("status.userInfo").cloned().unwrap_or(tree))
}

async fn grant(admin: &mut Caller, user: &str, name: &str, rules: Tree) {
    let role = tree!({"metadata": {"name": name}, "rules": rules});
    assert_eq!(admin.post(&format!("{RBAC}/clusterroles"), &role).await.0, 201);
    let binding = tree!({"metadata": {"name": name}, "subjects": [{"kind": "User", "name": user}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}});
    assert_eq!(admin.post(&format!("{RBAC}/clusterrolebindings"), &binding).await.0, 201);
}

#[tokio::test]
async fn impersonation_takes_user_uid_groups_and_extra() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let mut other = Caller::admin(&fixture)
        .await
        .with("Impersonate-User", "bob")
        .with("Impersonate-Uid", "42")
        .with("Impersonate-Group", "dev")
        .with("Impersonate-Group", "ops")
        .with("Impersonate-Extra-Acme.io%2Freason", "incident");
    let (code, user) = who(&mut other).await;
    assert_eq!(
        (code, user.to_string()),
        (201, r#"{"username":"bob","uid":"42","groups":["dev","ops","system:authenticated"],"extra":{"acme.io/reason":["incident"]}}"#.to_owned())
    );
    let mut account = Caller::admin(&fixture).await.with("Impersonate-User", "system:serviceaccount:default:x");
    let groups = who(&mut account).await.1.get("groups").unwrap().to_string();
    assert_eq!(groups, r#"["system:serviceaccounts","system:serviceaccounts:default","system:authenticated"]"#);
    let mut headless = Caller::admin(&fixture).await.with("Impersonate-Group", "dev");
    let (code, status) = headless.get("/api/v1/pods").await;
    let expected = "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"dev\"}, Extra:map[string][]string(nil)} \
         without impersonating a user name";
    assert_eq!((code, status.str_at("message")), (400, expected));

    let mut alice = Caller::bearer(&fixture, "secret-token").await.with("Impersonate-User", "bob");
    let (code, status) = alice.get("/api/v1/pods").await;
    assert_eq!(
        (code, status.str_at("message")),
        (
            403,
            "pods is forbidden: User \"alice\" cannot impersonate-on:user-info:list resource \"pods\" in API group \"\" at the cluster scope"
        )
    );
    let users =
        tree!([{"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["bob"]}]);
    grant(&mut admin, "alice", "as-bob", users).await;
    assert_eq!(who(&mut alice).await.1.str_at("username"), "bob");
    let mut alice = alice.with("Impersonate-Group", "system:masters");
    let (code, status) = who(&mut alice).await;
    assert_eq!((code, status.str_at("message").contains("cannot impersonate")), (403, true));
}

#[tokio::test]
async fn constrained_impersonation_is_for_some_verbs_only() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let rules = tree!([
        {"verbs": ["impersonate:user-info"], "apiGroups": ["authentication.k8s.io"], "resources": ["users"], "resourceNames": ["bob"]},
        {"verbs": ["impersonate-on:user-info:create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]}
    ]);
    grant(&mut admin, "alice", "constrained", rules).await;
    let mut alice = Caller::bearer(&fixture, "secret-token").await.with("Impersonate-User", "bob");
    assert_eq!(who(&mut alice).await.1.str_at("username"), "bob");
    let (code, status) = alice.get("/api/v1/pods").await;
    assert_eq!((code, status.str_at("message").contains("impersonate-on:user-info:list")), (403, true));
    let mut alice = Caller::bearer(&fixture, "secret-token").await.with("Impersonate-User", "eve");
    let (code, status) = who(&mut alice).await;
    let expected = "users.authentication.k8s.io \"eve\" is forbidden: User \"alice\" cannot impersonate:user-info resource \"users\" \
         in API group \"authentication.k8s.io\" at the cluster scope";
    assert_eq!((code, status.str_at("message")), (403, expected));
}

#[tokio::test]
async fn front_proxy_is_believed_and_nobody_else() {
    let fixture = Fixture::start().await;
    let proxy = fixture.material.proxy_client.clone();
    let mut proxied = Caller::connect(&fixture, Some(&proxy))
        .await
        .with("X-Remote-User", "carol")
        .with("X-Remote-Group", "dev")
        .with("X-Remote-Extra-Scopes", "a");
    let user = who(&mut proxied).await.1;
    assert_eq!(
        user.to_string(),
        r#"{"username":"carol","groups":["dev","system:authenticated"],"extra":{"scopes":["a"]}}"#
    );
    let mut bare = Caller::connect(&fixture, Some(&proxy)).await;
    assert!(bare.get("/api/v1/pods").await.1.str_at("message").contains("system:anonymous"));
    let mut kubelet = Caller::connect(&fixture, Some(&fixture.material.kubelet)).await.with("X-Remote-User", "carol");
    assert_eq!(who(&mut kubelet).await.1.str_at("username"), "system:node:n1");
}

#[tokio::test]
async fn access_reviews_say_why_and_what_is_wrong_with_them() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let pods = tree!([{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]);
    grant(&mut admin, "bob", "lister", pods).await;
    let review = |user: &str, verb: &str| tree!({"spec": {"user": user, "resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "default"}}});
    let path = format!("{AUTHZ}/subjectaccessreviews");
    let (code, answer) = admin.post(&path, &review("bob", "list")).await;
    assert_eq!(code, 201);
    assert_eq!(
        answer.get("status").unwrap().to_string(),
        r#"{"allowed":true,"reason":"RBAC: allowed by ClusterRoleBinding \"lister\" of ClusterRole \"lister\" to User \"bob\""}"#
    );
    let (_, answer) = admin.post(&path, &review("bob", "delete")).await;
    assert_eq!(answer.get("status").unwrap().to_string(), r#"{"allowed":false}"#);
    for (body, expected) in [
        (
            tree!({"spec": {"user": "bob"}}),
            "spec: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        (
            tree!({"spec": {"resourceAttributes": {"verb": "get"}}}),
            "spec.user: Invalid value: \"\": at least one of user or group must be specified",
        ),
        (
            tree!({"spec": {"user": "b", "resourceAttributes": {"fieldSelector": {}}}}),
            "spec.resourceAttributes.fieldSelector.requirements: Required value: when spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required",
        ),
    ] {
        let (code, status) = admin.post(&path, &body).await;
        assert_eq!(
            (code, status.str_at("message")),
            (422, format!(".authorization.k8s.io \"\" is invalid: {expected}").as_str())
        );
    }
    let local = format!("{AUTHZ}/namespaces/default/localsubjectaccessreviews");
    let mut body = review("bob", "list");
    assert!(admin.post(&local, &body).await.1.bool_at("status.allowed"));
    body.set("spec.resourceAttributes.namespace", "other");
    assert_eq!(admin.post(&local, &body).await.0, 422);

    let mut bob = Caller::admin(&fixture).await.with("Impersonate-User", "bob");
    let rules = format!("{AUTHZ}/selfsubjectrulesreviews");
    let (_, answer) = bob.post(&rules, &tree!({"spec": {"namespace": "default"}})).await;
    let found =
        answer.list_at("status.resourceRules").iter().any(|r| r.to_string().contains(r#""resources":["pods"]"#));
    assert!(found && !answer.bool_at("status.incomplete"), "{answer}");
    let mut node = Caller::connect(&fixture, Some(&fixture.material.kubelet)).await;
    let (_, answer) = node.post(&rules, &tree!({"spec": {"namespace": "default"}})).await;
    assert_eq!(answer.str_at("status.evaluationError"), "node authorizer does not support user rule resolution");
}

#[tokio::test]
async fn selector_attributes_decide_for_nodes() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let review = |value: &str| {
        tree!({"spec": {"user": "system:node:n1", "groups": ["system:nodes"], "resourceAttributes": {
            "verb": "list", "resource": "pods", "fieldSelector": {"requirements":
                [{"key": "spec.nodeName", "operator": "In", "values": [value]}]}}}})
    };
    let path = format!("{AUTHZ}/subjectaccessreviews");
    assert!(admin.post(&path, &review("n1")).await.1.bool_at("status.allowed"));
    let (_, answer) = admin.post(&path, &review("n2")).await;
    assert_eq!(
        answer.get("status").unwrap().to_string(),
        r#"{"allowed":false,"reason":"can only list/watch pods with spec.nodeName field selector"}"#
    );
}

#[tokio::test]
async fn node_authorizer_follows_pods_to_what_they_name() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let mut node = Caller::connect(&fixture, Some(&fixture.material.kubelet)).await;
    let in_default = |plural: &str| format!("/api/v1/namespaces/default/{plural}");
    for (plural, name) in
        [("serviceaccounts", "default"), ("secrets", "used"), ("secrets", "other"), ("configmaps", "m")]
    {
        assert_eq!(admin.post(&in_default(plural), &tree!({"metadata": {"name": name}})).await.0, 201);
    }
    let secret = in_default("secrets/used");
    let (code, status) = node.get(&secret).await;
    let expected = "secrets \"used\" is forbidden: User \"system:node:n1\" cannot get resource \"secrets\" in API group \"\" in the \
         namespace \"default\": no relationship found between node 'n1' and this object";
    assert_eq!((code, status.str_at("message")), (403, expected));
    let pod = tree!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "serviceAccountName": "default", "containers":
        [{"name": "c", "image": "i", "envFrom": [{"configMapRef": {"name": "m"}}]}],
        "volumes": [{"name": "v", "secret": {"secretName": "used"}}]}});
    assert_eq!(admin.post(&in_default("pods"), &pod).await.0, 201);
    assert_eq!(node.get(&secret).await.0, 200);
    assert_eq!(node.get(&in_default("configmaps/m")).await.0, 200);
    assert_eq!(node.get(&in_default("pods/p")).await.0, 200);
    assert_eq!(node.get(&in_default("secrets/other")).await.0, 403);
    assert_eq!(node.get(&in_default("secrets")).await.0, 403);
    assert_eq!(node.get(&format!("{}?fieldSelector=metadata.name%3Dused", in_default("secrets"))).await.0, 200);
    assert_eq!(node.get("/api/v1/pods").await.0, 403);
    assert_eq!(node.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await.0, 200);
    assert_eq!(node.get("/api/v1/nodes").await.0, 403);
    let token = tree!({"spec": {"audiences": [], "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}}});
    assert_eq!(node.post(&in_default("serviceaccounts/other/token"), &token).await.0, 403);
}

#[tokio::test]
async fn escalation_is_refused_with_what_is_missing() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let own = tree!([
        {"verbs": ["*"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles", "clusterrolebindings"]},
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
    ]);
    // `*` on the roles holds `escalate` and `bind`, too.
    grant(&mut admin, "boss", "boss", own).await;
    let own = tree!([
        {"verbs": ["create", "update", "get"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles", "clusterrolebindings"]},
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
    ]);
    grant(&mut admin, "alice", "roles", own).await;
    let mut alice = Caller::bearer(&fixture, "secret-token").await;
    let role = |verbs: &[&str]| {
        let verbs = Tree::List(verbs.iter().map(|v| Tree::from(*v)).collect());
        tree!({"metadata": {"name": "r"}, "rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}]})
    };
    let path = format!("{RBAC}/clusterroles");
    let (code, status) = alice.post(&path, &role(&["get", "delete", "list"])).await;
    let expected = "clusterroles.rbac.authorization.k8s.io \"r\" is forbidden: user \"alice\" (groups=[\"system:authenticated\"]) is \
         attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"list\"]}";
    assert_eq!((code, status.str_at("message")), (403, expected));
    assert_eq!(alice.post(&path, &role(&["get"])).await.0, 201);
    let binding = |role: &str| {
        tree!({"metadata": {"name": role}, "subjects": [{"kind": "User", "name": "eve"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}})
    };
    let bindings = format!("{RBAC}/clusterrolebindings");
    let mut stronger = binding("cluster-admin");
    stronger.set("metadata.name", "mine");
    let (code, status) = alice.post(&bindings, &stronger).await;
    assert_eq!(
        (code, status.str_at("message").contains("{NonResourceURLs:[\"*\"], Verbs:[\"*\"]}")),
        (403, true),
        "{status}"
    );
    assert_eq!(alice.post(&bindings, &binding("r")).await.0, 201);
    let aggregating = tree!({"metadata": {"name": "all"}, "rules": [], "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
    let (_, status) = alice.post(&path, &aggregating).await;
    assert!(
        status.str_at("message").ends_with("must have cluster-admin privileges to use the aggregationRule"),
        "{status}"
    );
    let mut boss = Caller::admin(&fixture).await.with("Impersonate-User", "boss");
    let mut strong = role(&["delete"]);
    strong.set("metadata.name", "strong");
    assert_eq!(boss.post(&path, &strong).await.0, 201, "escalate is held by *");
}

#[tokio::test]
async fn token_review_and_bound_tokens() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    assert_eq!(admin.post(accounts, &tree!({"metadata": {"name": "robot"}})).await.0, 201);
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let (code, status) = admin.post(reviews, &tree!({"spec": {}})).await;
    assert_eq!((code, status.str_at("message")), (400, "token is required for TokenReview in authentication"));
    assert_eq!(admin.post("/api/v1/namespaces/default/secrets", &tree!({"metadata": {"name": "s"}})).await.0, 201);
    let request = tree!({"spec": {"audiences": ["vault"], "expirationSeconds": 600,
        "boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": "s"}}});
    let (code, answer) = admin.post(&format!("{accounts}/robot/token"), &request).await;
    assert_eq!(code, 201);
    let token = answer.str_at("status.token").to_owned();
    let review = |audience: &str| tree!({"spec": {"token": (token.as_str()), "audiences": [audience]}});
    let (_, answer) = admin.post(reviews, &review("vault")).await;
    assert!(answer.bool_at("status.authenticated"), "{answer}");
    assert_eq!(answer.str_at("status.user.username"), "system:serviceaccount:default:robot");
    assert_eq!(answer.list_at("status.audiences"), [Tree::from("vault")]);
    assert!(answer.to_string().contains("authentication.kubernetes.io/credential-id"));
    let (_, answer) = admin.post(reviews, &review("other")).await;
    assert_eq!(
        answer.get("status").unwrap().to_string(),
        r#"{"user":{},"error":"token audiences [\"vault\"] is invalid for the target audiences [\"other\"]"}"#
    );
    let mut robot = Caller::bearer(&fixture, &token).await;
    assert_eq!(robot.get("/api").await.0, 401, "a token for others is none for the API server");
    assert_eq!(admin.delete("/api/v1/namespaces/default/secrets/s").await.0, 200);
    let (_, answer) = admin.post(reviews, &review("vault")).await;
    assert_eq!(answer.str_at("status.error"), "service account token has been invalidated");
    let (_, keys) = admin.get("/openid/v1/jwks").await;
    assert_eq!(keys.list_at("keys").len(), 1);
    let (_, config) = admin.get("/.well-known/openid-configuration").await;
    assert!(config.str_at("jwks_uri").ends_with("/openid/v1/jwks"));
}

#[tokio::test]
async fn node_restriction_keeps_agents_to_their_own() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let mut node = Caller::connect(&fixture, Some(&fixture.material.kubelet)).await;
    let named = |name: &str, labels: Tree| tree!({"metadata": {"name": name, "labels": labels}});
    let (code, status) = node.post("/api/v1/nodes", &named("n2", Tree::map())).await;
    let expected = "nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\"";
    assert_eq!((code, status.str_at("message")), (403, expected));
    let role = tree!({"node-role.kubernetes.io/x": ""});
    let (_, status) = node.post("/api/v1/nodes", &named("n1", role.clone())).await;
    let expected =
        "nodes \"n1\" is forbidden: node \"n1\" is not allowed to set the following labels: node-role.kubernetes.io/x";
    assert_eq!(status.str_at("message"), expected);
    assert_eq!(node.post("/api/v1/nodes", &named("n1", tree!({"a": "b"}))).await.0, 201);
    let at = "/api/v1/nodes/n1";
    let (_, status) = node.merge(at, &tree!({"metadata": {"labels": role}})).await;
    assert!(
        status.str_at("message").ends_with("is not allowed to modify labels: node-role.kubernetes.io/x"),
        "{status}"
    );
    let (_, status) = node.merge(at, &tree!({"spec": {"taints": []}})).await;
    assert!(status.str_at("message").ends_with("node \"n1\" is not allowed to modify taints"), "{status}");
    assert_eq!(
        admin.post("/api/v1/namespaces/default/serviceaccounts", &tree!({"metadata": {"name": "default"}})).await.0,
        201
    );
    let pod =
        tree!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    let pods = "/api/v1/namespaces/default/pods";
    let (_, status) = node.post(pods, &pod).await;
    assert!(status.str_at("message").contains("node \"n1\" can only create mirror pods"), "{status}");
    let (_, made) = admin.post(pods, &pod).await;
    let mut other = pod.clone();
    other.set("metadata.name", "q");
    other.set("spec.nodeName", "n2");
    assert_eq!(admin.post(pods, &other).await.0, 201);
    assert_eq!(node.merge(&format!("{pods}/p/status"), &tree!({"status": {"phase": "Running"}})).await.0, 200);
    let (code, status) = node.merge(&format!("{pods}/q/status"), &tree!({"status": {"phase": "Running"}})).await;
    assert_eq!((code, status.str_at("message").contains("with spec.nodeName set to itself")), (403, true), "{status}");
    assert_eq!(node.delete(&format!("{pods}/q")).await.0, 403);
    let token = |uid: &str, audience: &str| tree!({"spec": {"audiences": [audience], "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid}}});
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let uid = made.str_at("metadata.uid");
    let (_, status) = node.post(path, &token("", "")).await;
    assert!(status.str_at("message").ends_with("node requested token with a pod binding without a uid"), "{status}");
    let (_, status) = node.post(path, &token(uid, "vault")).await;
    assert!(
        status.str_at("message").ends_with("is not authorized to request tokens for audience \"vault\""),
        "{status}"
    );
    assert_eq!(node.delete(&format!("{pods}/p")).await.0, 200);
}

#[tokio::test]
async fn certificate_admission_asks_for_the_signer() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let rules = tree!([{"verbs": ["*"], "apiGroups": ["certificates.k8s.io"],
        "resources": ["certificatesigningrequests", "certificatesigningrequests/approval", "clustertrustbundles"]}]);
    grant(&mut admin, "alice", "requests", rules).await;
    let mut alice = Caller::bearer(&fixture, "secret-token").await;
    let params = rcgen::CertificateParams::default();
    let key = rcgen::KeyPair::generate().unwrap();
    let text = params.serialize_request(&key).unwrap().pem().unwrap();
    let request = corten_schema::scalars::base64::encode(text.as_bytes());
    let body = tree!({"metadata": {"name": "r"}, "spec": {"request": request, "usages": ["client auth"], "signerName": "example.com/x"}});
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    assert_eq!(alice.post(requests, &body).await.0, 201);
    let approved = tree!({"status": {"conditions": [{"type": "Approved", "status": "True"}]}});
    let (code, status) = alice.merge(&format!("{requests}/r/approval"), &approved).await;
    let expected = "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to approve requests with \
         signerName \"example.com/x\"";
    assert_eq!((code, status.str_at("message")), (403, expected));
    let rules = tree!([{"verbs": ["approve"], "apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": ["example.com/*"]}]);
    grant(&mut admin, "alice", "approver", rules).await;
    assert_eq!(alice.merge(&format!("{requests}/r/approval"), &approved).await.0, 200);
}

#[tokio::test]
async fn secrets_are_sealed_at_rest_and_nothing_else() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let secret = tree!({"metadata": {"name": "s"}, "stringData": {"password": "correct horse"}});
    assert_eq!(admin.post("/api/v1/namespaces/default/secrets", &secret).await.0, 201);
    let map = tree!({"metadata": {"name": "m"}, "data": {"password": "correct horse"}});
    assert_eq!(admin.post("/api/v1/namespaces/default/configmaps", &map).await.0, 201);
    let kept = async |plural: &str| {
        let range = corten_store::KeyRange::prefix(format!("/registry/core/{plural}/default/"));
        let page = fixture.store.scan(range, None, 10).await.unwrap();
        page.entries.iter().find(|e| e.key.ends_with(b"/s") || e.key.ends_with(b"/m")).unwrap().value.clone()
    };
    assert!(kept("secrets").await.starts_with(b"corten:aesgcm:v1:"));
    assert!(kept("configmaps").await.starts_with(b"{"));
    let (code, read) = admin.get("/api/v1/namespaces/default/secrets/s").await;
    assert_eq!((code, read.str_at("data.password")), (200, "Y29ycmVjdCBob3JzZQ=="));
    let patch = tree!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(admin.merge("/api/v1/namespaces/default/secrets/s", &patch).await.0, 200);
    let (_, list) = admin.get("/api/v1/namespaces/default/secrets?labelSelector=a%3Db").await;
    assert_eq!(list.list_at("items").len(), 1);
}

#[tokio::test]
async fn bootstrap_roles_and_bindings_get_back_what_they_lack_at_the_next_start() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let (roles, bindings) = (format!("{RBAC}/clusterroles"), format!("{RBAC}/clusterrolebindings"));
    let own = tree!([{"verbs": ["get"], "apiGroups": ["acme.io"], "resources": ["things"]}]);
    for name in ["system:basic-user", "system:discovery"] {
        assert_eq!(admin.merge(&format!("{roles}/{name}"), &tree!({"rules": (own.clone())})).await.0, 200);
    }
    let keep = tree!({"metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}});
    assert_eq!(admin.merge(&format!("{roles}/system:discovery"), &keep).await.0, 200);
    assert_eq!(admin.merge(&format!("{bindings}/system:basic-user"), &tree!({"subjects": null})).await.0, 200);
    let other = tree!({"metadata": {"name": "system:monitoring"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole", "name": "view"}});
    assert_eq!(admin.delete(&format!("{bindings}/system:monitoring")).await.0, 200);
    assert_eq!(admin.post(&bindings, &other).await.0, 201);
    let _second = fixture.start_again().await;
    let role = admin.get(&format!("{roles}/system:basic-user")).await.1;
    let rules: Vec<&str> = role.list_at("rules").iter().filter_map(|r| r.list_at("resources")[0].as_str()).collect();
    assert_eq!(rules, ["things", "selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"]);
    let kept = admin.get(&format!("{roles}/system:discovery")).await.1;
    assert_eq!(kept.get("rules").unwrap().to_string(), own.to_string());
    let binding = admin.get(&format!("{bindings}/system:basic-user")).await.1;
    assert_eq!(binding.list_at("subjects")[0].str_at("name"), "system:authenticated");
    let binding = admin.get(&format!("{bindings}/system:monitoring")).await.1;
    assert_eq!(binding.str_at("roleRef.name"), "system:monitoring");
    let before = role.str_at("metadata.resourceVersion").to_owned();
    let _third = fixture.start_again().await;
    let after = admin.get(&format!("{roles}/system:basic-user")).await.1;
    assert_eq!(after.str_at("metadata.resourceVersion"), before, "nothing is written where nothing lacks");
}
