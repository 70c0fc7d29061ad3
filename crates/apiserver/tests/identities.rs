//! Callers and permissions by others' word: OIDC issuers, token and access reviews by webhook, their configuration files.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;
mod https;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::Fixture;
use common::caller::Caller;
use corten_apiserver::{OidcFlags, ServerConfig, TokenReviewOptions};
use corten_base::Tasks;
use corten_cache::CacheOptions;
use corten_tree::{Tree, json, tree};
use https::Https;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// Signs with ES256 under a name.
struct Signer {
    id: String,
    pair: EcdsaKeyPair,
}

impl Signer {
    fn new(id: &str) -> Signer {
        let key = rcgen::KeyPair::generate().unwrap();
        assert_eq!(key.algorithm(), &rcgen::PKCS_ECDSA_P256_SHA256);
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der(), &SystemRandom::new());
        Signer { id: id.into(), pair: pair.unwrap() }
    }

    fn jwk(&self) -> Tree {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        tree!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": (self.id.as_str()), "x": x, "y": y})
    }

    fn sign(&self, claims: &Tree) -> String {
        let head = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, self.id);
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims.to_json()));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// An OIDC provider whose keys can be changed.
struct Provider {
    server: Https,
    keys: Arc<Mutex<Vec<Tree>>>,
}

impl Provider {
    async fn start(tasks: &Tasks, keys: &[&Signer]) -> Provider {
        let keys = Arc::new(Mutex::new(keys.iter().map(|k| k.jwk()).collect::<Vec<_>>()));
        let (given, url) = (keys.clone(), Arc::new(Mutex::new(String::new())));
        let own = url.clone();
        let server = Https::start_in(tasks, move |asked| {
            let url = own.lock().unwrap().clone();
            let answer = match asked.path.as_str() {
                "/.well-known/openid-configuration" => {
                    tree!({"issuer": (url.as_str()), "jwks_uri": (format!("{url}/keys"))})
                }
                "/keys" => tree!({"keys": (Tree::List(given.lock().unwrap().clone()))}),
                _ => return Some((404, String::new())),
            };
            Some((200, answer.to_json_string()))
        })
        .await;
        *url.lock().unwrap() = server.url.clone();
        Provider { server, keys }
    }

    /// Claims that are good for a while, with more.
    fn claims(&self, more: Tree) -> Tree {
        let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
        let mut claims = tree!({"iss": (self.server.url.as_str()), "aud": "corten", "sub": "jane", "exp": (now + 600)});
        for (key, value) in more.fields().iter() {
            claims.insert(key.to_owned(), value.clone());
        }
        claims
    }

    fn issuer(&self) -> String {
        let ca = self.server.ca_pem.trim_end().replace('\n', "\n        ");
        format!(
            "  issuer:\n      url: {}\n      audiences: [corten]\n      certificateAuthority: |\n        {ca}\n",
            self.server.url
        )
    }
}

fn config(text: &str) -> String {
    format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n{text}")
}

async fn with(configure: impl FnOnce(&mut ServerConfig, &Path)) -> Fixture {
    Fixture::with_config(CacheOptions::default(), configure).await
}

async fn with_file(text: &str) -> Fixture {
    let text = config(text);
    with(move |config, dir| {
        std::fs::write(dir.join("authn.yaml"), text).unwrap();
        config.authentication.others.config_file = Some(dir.join("authn.yaml"));
    })
    .await
}

async fn who(fixture: &Fixture, token: &str) -> (u16, Tree) {
    let body = tree!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let (code, tree) = Caller::bearer(fixture, token).await.post(WHO, &body).await;
    (code, tree.path("status.userInfo").cloned().unwrap_or(tree))
}

/// The provider is asked when the server starts: until that is done, its tokens are not known.
async fn who_once_known(fixture: &Fixture, token: &str) -> Tree {
    loop {
        let (code, user) = who(fixture, token).await;
        if code == 201 {
            return user;
        }
    }
}

/// What a token review says against a token.
async fn said(fixture: &Fixture, token: &str) -> String {
    let review = tree!({"spec": {"token": token}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let (code, answer) = Caller::admin(fixture).await.post(path, &review).await;
    assert_eq!((code, answer.bool_at("status.authenticated")), (201, false), "{answer}");
    answer.str_at("status.error").to_owned()
}

#[tokio::test]
async fn oidc_flags_map_claims_with_prefixes_and_refuse_in_upstreams_words() {
    let (tasks, key) = (Tasks::tokio(), Signer::new("one"));
    let provider = Provider::start(&tasks, &[&key]).await;
    let (url, ca) = (provider.server.url.clone(), provider.server.ca_pem.clone());
    let fixture = with(|config, dir| {
        std::fs::write(dir.join("ca.pem"), ca).unwrap();
        config.authentication.others.oidc = OidcFlags {
            issuer_url: url,
            client_id: "corten".into(),
            ca_file: Some(dir.join("ca.pem")),
            groups_claim: "roles".into(),
            groups_prefix: "oidc:".into(),
            signing_algs: vec!["ES256".into()],
            required_claims: vec![("hd".into(), "acme".into())],
            ..OidcFlags::default()
        };
    })
    .await;
    let good = key.sign(&provider.claims(tree!({"hd": "acme", "roles": ["dev", "ops"], "jti": "7"})));
    let expected = format!(
        r#"{{"username":"{}#jane","groups":["oidc:dev","oidc:ops","system:authenticated"],"extra":{{"authentication.kubernetes.io/credential-id":["JTI=7"]}}}}"#,
        provider.server.url
    );
    assert_eq!(who_once_known(&fixture, &good).await.to_string(), expected);
    let single = key.sign(&provider.claims(tree!({"hd": "acme", "roles": "dev"})));
    assert_eq!(who(&fixture, &single).await.1.list_at("groups")[0].as_str(), Some("oidc:dev"));
    for (claims, expected) in [
        (tree!({}), "oidc: required claim hd not present in ID token"),
        (tree!({"hd": "x"}), "oidc: required claim hd value does not match. Got = x, want = acme"),
        (
            tree!({"hd": "acme", "aud": ["a", "b"]}),
            "oidc: verify token: oidc: expected audience \"corten\" got [\"a\" \"b\"]",
        ),
        (
            tree!({"hd": "acme", "exp": 1_000_000_000}),
            "oidc: verify token: oidc: token is expired (Token Expiry: 2001-09-09 01:46:40 +0000 UTC)",
        ),
        (
            tree!({"hd": "acme", "sub": 3}),
            "oidc: parse username claims \"sub\": json: cannot unmarshal number into Go value of type string",
        ),
    ] {
        assert_eq!(said(&fixture, &key.sign(&provider.claims(claims))).await, expected);
    }
    let forged = Signer::new("one").sign(&provider.claims(tree!({"hd": "acme"})));
    let expected = "oidc: verify token: failed to verify signature: failed to verify id token signature";
    assert_eq!(said(&fixture, &forged).await, expected);
    let (_, rest) = good.split_once('.').unwrap();
    let none = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
    assert!(said(&fixture, &none).await.contains("unexpected signature algorithm \"none\"; expected [\"ES256\"]"));
    assert_eq!(who(&fixture, &none).await.0, 401);
    tasks.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn oidc_keys_are_fetched_anew_for_a_token_of_an_unknown_key() {
    let (tasks, old, new) = (Tasks::tokio(), Signer::new("old"), Signer::new("new"));
    let provider = Provider::start(&tasks, &[&old]).await;
    let text = format!("jwt:\n-{}  claimMappings: {{username: {{claim: sub, prefix: ''}}}}\n", &provider.issuer()[1..]);
    let fixture = with_file(&text).await;
    let claims = provider.claims(tree!({}));
    assert_eq!(who_once_known(&fixture, &old.sign(&claims)).await.str_at("username"), "jane");
    assert_eq!(who(&fixture, &new.sign(&claims)).await.0, 401);
    *provider.keys.lock().unwrap() = vec![new.jwk()];
    let (code, user) = who(&fixture, &new.sign(&claims)).await;
    assert_eq!((code, user.str_at("username")), (201, "jane"));
    assert_eq!(who(&fixture, &old.sign(&claims)).await.0, 401);
    provider.server.asked();
    for _ in 0..3 {
        assert_eq!(who(&fixture, &new.sign(&claims)).await.0, 201);
    }
    assert_eq!(provider.server.asked().len(), 0, "known keys are kept");
    tasks.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn structured_authentication_maps_and_validates_by_expressions_and_is_read_anew() {
    let (tasks, key) = (Tasks::tokio(), Signer::new("k"));
    let provider = Provider::start(&tasks, &[&key]).await;
    let rest = "  claimValidationRules:
  - {expression: 'claims.level > 1', message: level too low}
  claimMappings:
    username: {expression: \"'cel:' + claims.sub\"}
    groups: {expression: 'claims.roles.filter(r, r != \"secret\")'}
    uid: {claim: id}
    extra:
    - {key: acme.io/team, valueExpression: claims.team.name}
  userValidationRules:
  - {expression: \"!user.username.endsWith(':root')\", message: nobody is root}
anonymous:
  enabled: true
  conditions: [{path: /livez}]
";
    let fixture = with_file(&format!("jwt:\n-{}{rest}", &provider.issuer()[1..])).await;
    let claims = |more: Tree| {
        let mut all = tree!({"level": 2, "roles": ["dev", "secret"], "id": "42", "team": {"name": "red"}});
        more.fields().iter().for_each(|(key, value)| all.insert(key.to_owned(), value.clone()));
        key.sign(&provider.claims(all))
    };
    assert_eq!(
        who_once_known(&fixture, &claims(tree!({}))).await.to_string(),
        r#"{"username":"cel:jane","uid":"42","groups":["dev","system:authenticated"],"extra":{"acme.io/team":["red"]}}"#
    );
    assert_eq!(
        said(&fixture, &claims(tree!({"level": 1}))).await,
        "oidc: error evaluating claim validation expression: validation expression 'claims.level > 1' failed: level too low"
    );
    assert_eq!(
        said(&fixture, &claims(tree!({"sub": "root"}))).await,
        "oidc: error evaluating user info validation rule: validation expression '!user.username.endsWith(':root')' failed: nobody is root"
    );
    let mut nobody = Caller::connect(&fixture, None).await;
    assert_eq!((nobody.get("/livez").await.0, nobody.get("/version").await.0), (200, 401));
    let file = fixture.dir.path().join("authn.yaml");
    std::fs::write(&file, "not: [good").unwrap();
    std::fs::write(&file, config("jwt: []\nanonymous: {enabled: false}\n")).unwrap();
    while nobody.get("/livez").await.0 != 401 {}
    assert_eq!(who(&fixture, &claims(tree!({}))).await.0, 401);
    tasks.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn authentication_webhook_is_asked_and_its_answers_are_kept() {
    let tasks = Tasks::tokio();
    let hook = Https::start_in(&tasks, |asked| {
        let mut review = json::parse(&asked.body).unwrap();
        let status = match review.str_at("spec.token") {
            "good" => tree!({"authenticated": true, "user": {"username": "ann", "uid": "9", "groups": ["g"], "extra": {"k": ["v"]}}}),
            "bad" => tree!({"authenticated": false, "error": "never heard of it"}),
            "elsewhere" => tree!({"authenticated": true, "user": {"username": "x"}, "audiences": ["other"]}),
            _ => return Some((503, "busy".into())),
        };
        review.insert("status", status);
        Some((200, review.to_json_string()))
    })
    .await;
    let kubeconfig = hook.kubeconfig("/tokens");
    let fixture = with(|config, dir| {
        std::fs::write(dir.join("hook.yaml"), kubeconfig).unwrap();
        config.authentication.others.webhook = Some(TokenReviewOptions {
            config_file: dir.join("hook.yaml"),
            version: "v1".into(),
            cache_ttl: Duration::from_secs(120),
        });
    })
    .await;
    let expected = r#"{"username":"ann","uid":"9","groups":["g","system:authenticated"],"extra":{"k":["v"]}}"#;
    for _ in 0..2 {
        assert_eq!(who(&fixture, "good").await.1.to_string(), expected);
    }
    let asked = hook.asked();
    assert_eq!((asked.len(), asked[0].path.as_str()), (1, "/tokens"));
    let review = json::parse(&asked[0].body).unwrap();
    assert_eq!(review.str_at("apiVersion"), "authentication.k8s.io/v1");
    assert_eq!(review.list_at("spec.audiences"), &["https://kubernetes.default.svc.cluster.local".into()][..]);
    assert_eq!(said(&fixture, "bad").await, "never heard of it");
    assert_eq!(said(&fixture, "elsewhere").await, "invalid bearer token");
    assert_eq!(said(&fixture, "other").await, "the server is currently unable to handle the request");
    tasks.stop(Duration::from_secs(1)).await;
}

fn authorizers(hook: &Https, dir: &Path, policy: &str, conditions: &str) -> String {
    std::fs::write(dir.join("authz-hook.yaml"), hook.kubeconfig("/access")).unwrap();
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n\
         - {{type: Node, name: node}}\n- {{type: RBAC, name: rbac}}\n- type: Webhook\n  name: hook.acme.io\n  webhook:\n\
         \x20   timeout: 3s\n    authorizedTTL: 5m\n    unauthorizedTTL: 30s\n    subjectAccessReviewVersion: v1\n\
         \x20   matchConditionSubjectAccessReviewVersion: v1\n    failurePolicy: {policy}\n\
         \x20   connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {}}}\n    matchConditions: {conditions}\n",
        dir.join("authz-hook.yaml").display()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authorization_webhook_decides_after_the_others_by_conditions_and_its_answers_are_kept() {
    let tasks = Tasks::tokio();
    let hook = Https::start_in(&tasks, |asked| {
        let mut review = json::parse(&asked.body).unwrap();
        let status = match review.str_at("spec.resourceAttributes.resource") {
            "pods" => tree!({"allowed": true, "reason": "pods are fine"}),
            "secrets" => tree!({"allowed": false, "denied": true, "reason": "never"}),
            "nodes" => return Some((400, "what?".into())),
            _ => tree!({"allowed": false, "reason": "no idea"}),
        };
        review.insert("status", status);
        Some((200, review.to_json_string()))
    })
    .await;
    let fixture = with(|config, dir| {
        let conditions = "[{expression: \"request.user == 'alice' && !has(request.nonResourceAttributes)\"}]";
        std::fs::write(dir.join("authz.yaml"), authorizers(&hook, dir, "NoOpinion", conditions)).unwrap();
        config.authorization.config_file = Some(dir.join("authz.yaml"));
    })
    .await;
    let mut alice = Caller::bearer(&fixture, "secret-token").await;
    for _ in 0..2 {
        assert_eq!(alice.get("/api/v1/namespaces/default/pods?fieldSelector=spec.nodeName%3Dn").await.0, 200);
    }
    let asked = hook.asked();
    assert_eq!(asked.len(), 1);
    let review = json::parse(&asked[0].body).unwrap();
    assert_eq!(
        review.get("spec").unwrap().to_string(),
        r#"{"resourceAttributes":{"namespace":"default","verb":"list","version":"v1","resource":"pods","fieldSelector":{"requirements":[{"key":"spec.nodeName","operator":"In","values":["n"]}]}},"user":"alice","groups":["system:authenticated"]}"#
    );
    let refusal = |tree: &Tree| tree.str_at("message").to_owned();
    let (code, status) = alice.get("/api/v1/namespaces/default/secrets").await;
    assert_eq!(code, 403);
    assert!(refusal(&status).ends_with("in the namespace \"default\": never"), "{status}");
    let (code, status) = alice.get("/api/v1/namespaces/default/services").await;
    assert_eq!((code, refusal(&status).ends_with(": no idea")), (403, true));
    let (code, status) = alice.get("/api/v1/nodes").await;
    assert_eq!(
        (code, refusal(&status)),
        (500, "Internal error occurred: the server rejected our request for an unknown reason".into())
    );
    assert_eq!(alice.get("/metrics").await.0, 403);
    hook.asked();
    assert_eq!(alice.get("/apis").await.0, 200, "RBAC comes first");
    assert_eq!(hook.asked().len(), 0);
    // An expression of a policy asks, too, and its thread waits.
    let review = tree!({"spec": {"user": "alice", "resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let (_, answer) = Caller::admin(&fixture).await.post(path, &review).await;
    assert_eq!((answer.bool_at("status.allowed"), answer.str_at("status.reason")), (true, "pods are fine"));
    let user = corten_auth::User::new("alice", &[]);
    let attributes = corten_auth::Attributes {
        resource: "pods",
        namespace: "elsewhere",
        ..corten_auth::Attributes::resource(&user, "get")
    };
    assert!(fixture.server.may(&attributes), "asked from where nothing can be waited for");
    tasks.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn authorization_webhook_failure_policy_deny_and_reload() {
    let tasks = Tasks::tokio();
    let hook = Https::start_in(&tasks, |_| Some((400, "broken".into()))).await;
    let fixture = with(|config, dir| {
        std::fs::write(dir.join("authz.yaml"), authorizers(&hook, dir, "Deny", "[]")).unwrap();
        config.authorization.config_file = Some(dir.join("authz.yaml"));
    })
    .await;
    let mut alice = Caller::bearer(&fixture, "secret-token").await;
    assert_eq!(alice.get("/api/v1/nodes").await.0, 500);
    let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n\
                authorizers: [{type: AlwaysAllow, name: all}]\n";
    std::fs::write(fixture.dir.path().join("authz.yaml"), text).unwrap();
    while alice.get("/api/v1/nodes").await.0 != 200 {}
    tasks.stop(Duration::from_secs(1)).await;
}
