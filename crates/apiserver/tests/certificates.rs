//! `certificates.k8s.io` over the wire: what requests must be, who writes what into them, trust bundles, pods' certificates.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod common;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::Fixture;
use common::caller::Caller;
use corten_tree::{Tree, tree};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair};

const GROUP: &str = "/apis/certificates.k8s.io/v1";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// A request's DER for a key.
fn pkcs10(key: &KeyPair, name: Option<&str>) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(name) = name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.serialize_request(key).unwrap().der().to_vec()
}

fn pem(label: &str, der: &[u8]) -> String {
    corten_kinds::x509::pem(label, der)
}

fn signing_request(name: &str, signer: &str) -> Tree {
    let der = pkcs10(&KeyPair::generate().unwrap(), Some("jane"));
    tree!({"metadata": {"name": name}, "spec": {"request": (STANDARD.encode(pem("CERTIFICATE REQUEST", &der))),
        "signerName": signer, "usages": ["digital signature", "client auth"], "username": "liar", "expirationSeconds": 3600}})
}

#[tokio::test]
async fn certificate_signing_request_tells_who_asked() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let (code, made) = admin.post(REQUESTS, &signing_request("a", "example.com/x")).await;
    assert_eq!((code, made.str_at("spec.username")), (201, "system:admin"));
    assert_eq!(made.list_at("spec.groups"), [Tree::from("system:masters"), Tree::from("system:authenticated")]);
    assert!(made.to_string().contains("X509SHA256="), "{made}");
    let mut changed = made.clone();
    changed.set("spec.username", "other");
    changed.set("metadata.labels", tree!({"l": "v"}));
    let (code, after) = admin.put(&format!("{REQUESTS}/a"), &changed).await;
    assert_eq!((code, after.str_at("spec.username"), after.str_at("metadata.labels.l")), (200, "system:admin", "v"));
}

#[tokio::test]
async fn certificate_signing_request_faults_as_upstream() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let mut bad = signing_request("a", "example");
    bad.set("spec.request", "bm90IHBlbQ==");
    bad.set("spec.usages", tree!(["flying", "client auth", "client auth"]));
    bad.set("spec.expirationSeconds", 10);
    let (code, status) = admin.post(REQUESTS, &bad).await;
    let message = status.str_at("message");
    assert_eq!(code, 422);
    for expected in [
        "spec.request: Invalid value: \"bm90IHBlbQ==\": PEM block type must be CERTIFICATE REQUEST",
        "spec.usages[0]: Unsupported value: \"flying\": supported values: \"any\", \"cert sign\",",
        "spec.usages[2]: Duplicate value: \"client auth\"",
        "spec.signerName: Invalid value: \"example\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
        "spec.expirationSeconds: Invalid value: 10: may not specify a duration less than 600 seconds (10 minutes)",
    ] {
        assert!(message.contains(expected), "{message}");
    }
    let (_, status) = admin.post(REQUESTS, &signing_request("a", "kubernetes.io/legacy-unknown")).await;
    assert!(
        status.str_at("message").ends_with("the legacy signerName is not allowed via this API version"),
        "{status}"
    );
    let mut forged = pkcs10(&KeyPair::generate().unwrap(), Some("jane"));
    *forged.last_mut().unwrap() ^= 1;
    let mut bad = signing_request("a", "example.com/x");
    bad.set("spec.request", STANDARD.encode(pem("CERTIFICATE REQUEST", &forged)));
    assert!(admin.post(REQUESTS, &bad).await.1.str_at("message").contains("ECDSA verification failure"));
}

#[tokio::test]
async fn approval_and_status_each_write_their_own() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let (_, made) = admin.post(REQUESTS, &signing_request("a", "example.com/x")).await;
    let (path, approval, status) =
        (format!("{REQUESTS}/a"), format!("{REQUESTS}/a/approval"), format!("{REQUESTS}/a/status"));
    let patch = tree!({"metadata": {"annotations": {"p": "q"}}, "status": {"conditions":
        [{"type": "ApprovalPatch", "status": "True", "reason": "e2e"}]}});
    let (code, after) = admin.merge(&approval, &patch).await;
    assert_eq!((code, after.str_at("metadata.annotations.p")), (200, "q"));
    let first = &after.list_at("status.conditions")[0];
    assert!(!first.str_at("lastUpdateTime").is_empty() && !first.str_at("lastTransitionTime").is_empty(), "{after}");
    assert_eq!(admin.get(&approval).await.1.str_at("metadata.uid"), made.str_at("metadata.uid"));
    let both = tree!({"status": {"conditions": [{"type": "ApprovalPatch", "status": "True"},
        {"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]}});
    let (code, refused) = admin.merge(&approval, &both).await;
    assert_eq!((code, refused.str_at("message").contains("mutually exclusive")), (422, true), "{refused}");
    let (_, refused) = admin
        .merge(
            &status,
            &tree!({"status": {"conditions": [{"type": "ApprovalPatch", "status": "True"},
        {"type": "Approved", "status": "True"}]}}),
        )
        .await;
    assert!(refused.str_at("message").contains("updates may not add a condition of type \"Approved\""), "{refused}");
    let approved = tree!({"status": {"conditions": [{"type": "ApprovalPatch", "status": "True"}, {"type": "Approved", "status": "True"}]}});
    assert_eq!(admin.merge(&approval, &approved).await.0, 200);
    let (_, refused) = admin.merge(&approval, &tree!({"status": {"conditions": []}})).await;
    assert!(refused.str_at("message").contains("updates may not remove a condition of type \"Approved\""), "{refused}");
    let (_, refused) = admin.merge(&status, &tree!({"status": {"certificate": "bm8="}})).await;
    assert!(refused.str_at("message").contains("must contain at least one CERTIFICATE PEM block"), "{refused}");
    let certificate = STANDARD.encode(&fixture.material.ca_cert_pem);
    let body = tree!({"status": {"certificate": (certificate.as_str())}});
    let (code, after) = admin.merge(&status, &body).await;
    assert_eq!((code, after.str_at("status.certificate")), (200, certificate.as_str()));
    let other = STANDARD.encode(&fixture.material.server.cert_pem);
    let (_, refused) = admin.merge(&status, &tree!({"status": {"certificate": other}})).await;
    assert!(refused.str_at("message").contains("updates may not modify existing certificate content"), "{refused}");
    assert_eq!(admin.get(&path).await.1.list_at("status.conditions").len(), 2);
}

fn authority(name: &str, is_ca: bool) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

#[tokio::test]
async fn cluster_trust_bundle_holds_authorities_only() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let path = format!("{GROUP}/clustertrustbundles");
    let bundle = |name: &str, signer: &str, text: &str| {
        let mut out = tree!({"metadata": {"name": name}, "spec": {"trustBundle": text}});
        if !signer.is_empty() {
            out.set("spec.signerName", signer);
        }
        out
    };
    let good = authority("root", true);
    assert_eq!(admin.post(&path, &bundle("plain", "", &good)).await.0, 201);
    assert_eq!(admin.post(&path, &bundle("test.test:one:4", "test.test/one", &good)).await.0, 201);
    for (body, expected) in [
        (bundle("a", "", &authority("leaf", false)), "entry 0 does not have the CA bit set"),
        (bundle("a", "", &format!("{good}{good}")), "duplicate trust anchor (indices [0 1])"),
        (bundle("a", "", "nothing"), "at least one trust anchor must be provided"),
        (bundle("a", "", &pem("PRIVATE KEY", b"x")), "entry 0 has bad block type: PRIVATE KEY"),
        (bundle("a:b", "", &good), "ClusterTrustBundle without signer name must not have \":\" in its name"),
        (
            bundle("a", "test.test/one", &good),
            "ClusterTrustBundle for signerName test.test/one must be named with prefix test.test:one:",
        ),
    ] {
        let (code, status) = admin.post(&path, &body).await;
        assert_eq!((code, status.str_at("message").contains(expected)), (422, true), "{status}");
    }
    let found = admin.get(&format!("{path}?fieldSelector=spec.signerName%3Dtest.test%2Fone")).await.1;
    assert_eq!(found.list_at("items").len(), 1);
    let (code, status) = admin.merge(&format!("{path}/plain"), &tree!({"spec": {"signerName": "a.b/c"}})).await;
    assert_eq!((code, status.str_at("message").contains("field is immutable")), (422, true), "{status}");
}

#[tokio::test]
async fn pod_certificate_request_is_issued_for_its_key_only() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let path = format!("{GROUP}/namespaces/default/podcertificaterequests");
    let key = KeyPair::generate().unwrap();
    let request = |seconds: i64| {
        tree!({"metadata": {"generateName": "r-"}, "spec": {"signerName": "example.com/s", "podName": "p", "podUID": "1",
            "serviceAccountName": "default", "serviceAccountUID": "2", "nodeName": "n1", "nodeUID": "3",
            "maxExpirationSeconds": seconds, "stubPKCS10Request": (STANDARD.encode(pkcs10(&key, None)))}})
    };
    let (code, status) = admin.post(&path, &request(60)).await;
    assert_eq!(
        (code, status.str_at("message").contains("must be in the range [3600, 7862400]")),
        (422, true),
        "{status}"
    );
    let mut none = request(3600);
    none.remove("spec.stubPKCS10Request");
    let (_, status) = admin.post(&path, &none).await;
    assert!(
        status.str_at("message").contains("spec: Invalid value: exactly one of (stubPKCS10Request) or"),
        "{status}"
    );
    let (code, made) = admin.post(&path, &request(3600)).await;
    assert_eq!(code, 201, "{made}");
    let at = format!("{path}/{}", made.str_at("metadata.name"));
    let (code, status) = admin.merge(&at, &tree!({"spec": {"podName": "q"}})).await;
    assert_eq!((code, status.str_at("message").contains("spec: Invalid value")), (422, true), "{status}");

    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap();
    let shown = |seconds: i64| corten_object::time::format(now + jiff::SignedDuration::from_secs(seconds));
    let chain = |key: &KeyPair, seconds: i64| {
        let mut params = CertificateParams::default();
        let second = |s: i64| std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(s as u64);
        params.not_before = second(now.as_second()).into();
        params.not_after = second(now.as_second() + seconds).into();
        params.self_signed(key).unwrap().pem()
    };
    let issue = |chain: String, begin: i64, end: i64, renew: i64| {
        tree!({"status": {"certificateChain": chain, "notBefore": (shown(begin)), "notAfter": (shown(end)),
            "beginRefreshAt": (shown(renew)), "conditions": [{"type": "Issued", "status": "True", "reason": "E2E",
            "message": "m", "lastTransitionTime": (shown(0))}]}})
    };
    let at = format!("{at}/status");
    let other = KeyPair::generate().unwrap();
    for (body, expected) in [
        (issue(chain(&other, 3600), 0, 3600, 900), "leaf certificate was not issued to the requested public key"),
        (issue(chain(&key, 3600), 1, 3600, 900), "must be set to the NotBefore time encoded in the leaf certificate"),
        (issue(chain(&key, 3600), 0, 3600, 60), "must be at least 10 minutes after status.notBefore"),
        (issue(chain(&key, 1800), 0, 1800, 900), "leaf certificate lifetime must be >= 1 hour"),
        (
            issue(chain(&key, 7200), 0, 7200, 900),
            "leaf certificate lifetime must be <= spec.maxExpirationSeconds (3600)",
        ),
        (
            tree!({"status": {"notAfter": (shown(3600))}}),
            "status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\"",
        ),
    ] {
        let (code, status) = admin.merge(&at, &body).await;
        assert_eq!((code, status.str_at("message").contains(expected)), (422, true), "{status}");
    }
    let good = issue(chain(&key, 3600), 0, 3600, 900);
    let (code, after) = admin.merge(&at, &good).await;
    assert_eq!(code, 200, "{after}");
    let (_, status) = admin.merge(&at, &tree!({"status": {"certificateChain": ""}})).await;
    assert!(
        status.str_at("message").contains("immutable after PodCertificateRequest is issued, denied, or failed"),
        "{status}"
    );
}

#[tokio::test]
async fn pod_certificate_and_trust_bundle_volumes_are_checked() {
    let fixture = Fixture::start().await;
    let mut admin = Caller::admin(&fixture).await;
    let account = tree!({"metadata": {"name": "default"}});
    assert_eq!(admin.post("/api/v1/namespaces/default/serviceaccounts", &account).await.0, 201);
    let pod = |source: Tree| {
        tree!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "v", "projected": {"sources": [source]}}]}})
    };
    let certificate = |seconds: i64, kind: &str| {
        tree!({"podCertificate": {"signerName": "example.com/s", "keyType": kind, "maxExpirationSeconds": seconds,
            "credentialBundlePath": "c.pem"}})
    };
    for (source, expected) in [
        (certificate(3599, "ED25519"), "if provided, maxExpirationSeconds must be >= 3600"),
        (certificate(7_862_401, "ED25519"), "if provided, maxExpirationSeconds must be <= 7862400"),
        (certificate(3600, "RSA1"), "keyType: Unsupported value: \"RSA1\": supported values: \"RSA3072\", \"RSA4096\""),
        (
            tree!({"podCertificate": {"signerName": "example.com/s", "keyType": "ED25519"}}),
            "specify at least one of credentialBundlePath, keyPath, and certificateChainPath",
        ),
        (
            tree!({"clusterTrustBundle": {"name": "a", "path": "p", "labelSelector": {}}}),
            "labelSelector must be unset if name is specified",
        ),
        (tree!({"clusterTrustBundle": {"path": "p"}}), "either name or signerName must be specified"),
    ] {
        let (code, status) = admin.post("/api/v1/namespaces/default/pods", &pod(source)).await;
        assert_eq!((code, status.str_at("message").contains(expected)), (422, true), "{status}");
    }
    assert_eq!(admin.post("/api/v1/namespaces/default/pods", &pod(certificate(3600, "ED25519"))).await.0, 201);
}
