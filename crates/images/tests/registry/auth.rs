//! Who may pull: basic and token authentication of Debian's `docker-registry`, and where a login is sent.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use corten_testkit::registry::Registry;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::json;

use crate::fake::{Answer, Fake, ok, status};
use crate::real::put;
use crate::{Image, Place, logins};

/// `tester` with the password `sesame`.
const HTPASSWD: &str = "tester:$2b$05$abcdefghijklmnopqrstuuKcS.CYWVYVaLiiCKrrc0A5s3mGesJ9O\n";

#[tokio::test(flavor = "multi_thread")]
async fn basic_authentication() {
    let p = Place::new();
    let storage = p.path("storage");
    put(&storage, "x", Some("v1"), &Image::of("f", "basic"));
    std::fs::write(p.path("htpasswd"), HTPASSWD).unwrap();
    let auth = format!("htpasswd: {{realm: basic, path: {:?}}}", p.path("htpasswd"));
    let server = Registry::start(&storage, &[], &[&auth]).unwrap();
    let name = format!("{}/x:v1", server.address);
    let denied = "pull access denied, repository does not exist or may require authorization: ";
    assert!(p.fails(&name).await.ends_with(&format!("{denied}authorization failed: no basic auth credentials")));
    let wrong = logins(&server.address, "tester", "guess");
    let refused =
        format!("unexpected status from HEAD request to http://{}/v2/x/manifests/v1: 401 Unauthorized", server.address);
    let error = p.pull_as(&name, &wrong).await.unwrap_err().to_string();
    assert!(error.ends_with(&refused), "{error}");
    // A login that is of no use does not keep the next from being tried.
    let right = logins(&server.address, "tester", "sesame");
    let pulled = p.pull_as(&name, &[wrong, right.clone()].concat()).await.unwrap();
    assert_eq!(pulled.login.as_ref(), right.first());
    assert_eq!(p.read(&name, "f"), "basic");
}

#[tokio::test(flavor = "multi_thread")]
async fn bearer_tokens_of_a_token_server() {
    let p = Place::new();
    let storage = p.path("storage");
    put(&storage, "team/x", Some("v1"), &Image::of("f", "token"));
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let cert = rcgen::CertificateParams::new(vec!["tokens".into()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(p.path("bundle.pem"), cert.pem()).unwrap();
    let (der, pkcs8) = (cert.der().to_vec(), key.serialize_der());
    let tokens = Fake::start(move |asked| {
        if asked.header("authorization") != format!("Basic {}", STANDARD.encode("tester:sesame")) {
            return status(401, &[]);
        }
        assert!(asked.path.contains("service=registry.test&scope=repository%3Ateam%2Fx%3Apull"), "{}", asked.path);
        ok(json!({"token": jwt(&der, &pkcs8), "expires_in": 60}).to_string().as_bytes())
    });
    let auth = [
        "token:".to_owned(),
        format!("  realm: http://{}/token", tokens.address),
        "  service: registry.test".to_owned(),
        "  issuer: tests".to_owned(),
        format!("  rootcertbundle: {:?}", p.path("bundle.pem")),
    ];
    let auth: Vec<&str> = auth.iter().map(String::as_str).collect();
    let server = Registry::start(&storage, &[], &auth).unwrap();
    let name = format!("{}/team/x:v1", server.address);
    assert!(p.fails(&name).await.contains("failed to fetch anonymous token: unexpected status: 401"));
    let wrong = p.pull_as(&name, &logins(&server.address, "tester", "guess")).await.unwrap_err().to_string();
    assert!(wrong.contains("pull access denied") && wrong.contains("failed to fetch oauth token"), "{wrong}");
    p.pull_as(&name, &logins(&server.address, "tester", "sesame")).await.unwrap();
    assert_eq!(p.read(&name, "f"), "token");
    // One token serves the whole pull.
    assert_eq!(tokens.count("GET /token"), 3);
}

/// A token as the `distribution` project's server makes it.
fn jwt(cert: &[u8], pkcs8: &[u8]) -> String {
    let now = jiff::Timestamp::now().as_second();
    let header = json!({"alg": "ES256", "typ": "JWT", "x5c": [STANDARD.encode(cert)]});
    let claims = json!({"iss": "tests", "sub": "tester", "aud": "registry.test", "jti": "1", "iat": now, "nbf": now - 10,
        "exp": now + 60, "access": [{"type": "repository", "name": "team/x", "actions": ["pull"]}]});
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let random = ring::rand::SystemRandom::new();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(pair.sign(&random, signed.as_bytes()).unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_is_exchanged() {
    let p = Place::new();
    let image = Image::of("f", "x");
    let tokens = Fake::start(|asked| match asked.body.contains("grant_type=refresh_token&service=s&") {
        true if asked.body.ends_with("refresh_token=long%2Flived") => ok(br#"{"access_token": "short"}"#),
        _ => status(400, &[]),
    });
    let challenge = format!("Bearer realm=\"http://{}/t\",service=\"s\"", tokens.address);
    let server = Fake::start(move |asked| match asked.header("authorization") {
        "Bearer short" => ok(image.blob(&asked.path).unwrap_or_default()),
        _ => status(401, &[("www-authenticate", &challenge)]),
    });
    let config = json!({"auths": {&server.address: {"identitytoken": "long/lived"}}}).to_string();
    let mut keyring = corten_images::Keyring::default();
    keyring.add(config.as_bytes(), false, None).unwrap();
    p.pull_as(&format!("{}/x:v1", server.address), &keyring.lookup(&format!("{}/x", server.address))).await.unwrap();
    assert_eq!(tokens.asked()[0].method, "POST");
}

/// Compare CVE-2020-15157: what proves us is for the registry that we asked, not for whom it points to.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_takes_no_login_along() {
    let p = Place::new();
    let image = Image::of("f", "moved");
    let blobs = image.clone();
    let cdn = Fake::start(move |asked| ok(blobs.blob(&asked.path).unwrap_or_default()));
    let to = cdn.address.clone();
    let server = Fake::start(move |asked| match asked.header("authorization") {
        "" => status(401, &[("www-authenticate", "Basic realm=\"x\"")]),
        _ if asked.path.contains("/blobs/") => status(307, &[("location", &format!("http://{to}{}", asked.path))]),
        _ => ok(&image.manifest),
    });
    let name = format!("{}/x:v1", server.address);
    p.pull_as(&name, &logins(&server.address, "u", "hush")).await.unwrap();
    assert_eq!(p.read(&name, "f"), "moved");
    assert!(cdn.count("/blobs/") >= 2);
    assert!(cdn.asked().iter().all(|asked| asked.header("authorization").is_empty()));
}

/// A token server that redirects, or answers nonsense, gets nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_that_lies() {
    for (body, told) in [("{}", "is no token"), ("[", "is no token"), ("{\"token\": \"a b\\r\\nx: y\"}", "is no token")]
    {
        let p = Place::new();
        let body = body.to_owned();
        let tokens = Fake::start(move |_| ok(body.as_bytes()));
        let challenge = format!("Bearer realm=\"http://{}/t\"", tokens.address);
        let server = Fake::start(move |_| status(401, &[("www-authenticate", &challenge)]));
        let error = p.fails(&format!("{}/x:v1", server.address)).await;
        assert!(error.contains(told), "{error}");
    }
    let p = Place::new();
    let tokens = Fake::start(|_| Answer { status: 200, endless: true, ..Answer::default() });
    let challenge = format!("Bearer realm=\"http://{}/t\"", tokens.address);
    let server = Fake::start(move |_| status(401, &[("www-authenticate", &challenge)]));
    assert!(p.fails(&format!("{}/x:v1", server.address)).await.contains("more than 1048576 bytes"));
}

/// KEP-2535: an image that one pod's secret brought is not every pod's.
#[tokio::test(flavor = "multi_thread")]
async fn a_private_image_is_for_who_could_pull_it() {
    let p = Place::new();
    let image = Image::of("f", "private");
    let server = Fake::start(move |asked| match asked.header("authorization") {
        "" => status(401, &[("www-authenticate", "Basic realm=\"x\"")]),
        _ => ok(image.blob(&asked.path).unwrap_or_default()),
    });
    let name = format!("{}/x:v1", server.address);
    let of = |secret: Option<(&str, &str)>, password: &str| {
        let mut login = logins(&server.address, "u", password).remove(0);
        login.source = secret.map(|(namespace, uid)| corten_images::SecretRef {
            namespace: namespace.into(),
            name: "s".into(),
            uid: uid.into(),
        });
        login
    };
    let mine = of(Some(("a", "1")), "p");
    let pulled = p.pull_as(&name, std::slice::from_ref(&mine)).await.unwrap();
    let image = p.store.resolve(&name).unwrap();
    // Before the pull is noted, nobody has proven anything: so it is after a crash in between.
    assert!(!p.store.may_use(&image, std::slice::from_ref(&mine)).unwrap());
    p.store.note_pulled(&image, pulled.login.as_ref()).unwrap();
    let may = |login: Option<&corten_images::Login>| {
        p.store.may_use(&image, login.map(std::slice::from_ref).unwrap_or_default())
    };
    assert!(may(Some(&mine)).unwrap());
    assert!(!may(None).unwrap());
    assert!(!may(Some(&of(Some(("b", "2")), "guess"))).unwrap());
    assert!(!may(Some(&of(None, "p"))).unwrap(), "the node's own logins prove nothing for a pod");
    // The same login in another secret, and the same secret with a new password.
    let copy = of(Some(("b", "3")), "p");
    assert!(may(Some(&copy)).unwrap());
    assert!(may(Some(&of(Some(("a", "1")), "changed"))).unwrap());
    assert!(may(Some(&of(Some(("c", "4")), "changed"))).unwrap(), "the changed secret was remembered");
    // Pulled as nobody in particular it is everybody's; removed, it is forgotten.
    p.store.note_pulled(&image, None).unwrap();
    assert!(may(None).unwrap());
    p.store.remove(&name).unwrap();
    assert_eq!(crate::files_in(&p.path("images/pulls")), 0);
}
