//! Against Debian's `docker-registry`: what it serves, over HTTP and TLS.

use std::path::Path;

use corten_images::Digest;
use corten_testkit::registry::{self, Content, Registry, put_blob, put_manifest};
use serde_json::json;

use crate::{INDEX, Image, MANIFEST, Place, describe, layer};

pub fn put(storage: &Path, repository: &str, tag: Option<&str>, image: &Image) {
    for blob in image.layers.iter().chain([&image.config]) {
        put_blob(storage, repository, Digest::of(blob).as_str(), Content::Bytes(blob)).unwrap();
    }
    put_manifest(storage, repository, tag, image.digest().as_str(), Content::Bytes(&image.manifest)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_digests_indexes_and_shared_layers() {
    let p = Place::new();
    let storage = p.path("storage");
    let base = layer("base", "shared");
    let one = Image::new(&[base.clone(), layer("f", "one")], "amd64");
    let two = Image::new(&[base.clone(), layer("f", "two")], "amd64");
    put(&storage, "team/one", Some("v1"), &one);
    put(&storage, "team/two", None, &two);
    let mut foreign = describe(MANIFEST, b"not even there");
    foreign["platform"] = json!({"os": "linux", "architecture": "s390x"});
    let mut own = describe(MANIFEST, &two.manifest);
    own["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [foreign, own]}).to_string();
    let index_digest = Digest::of(index.as_bytes());
    let told = index_digest.as_str();
    put_manifest(&storage, "team/two", Some("latest"), told, Content::Bytes(index.as_bytes())).unwrap();
    let server = Registry::start(&storage, &[], &[]).unwrap();

    let name = format!("{}/team/one:v1", server.address);
    let pulled = p.pull(&name).await.unwrap();
    assert_eq!((&pulled.digest, pulled.unchanged), (&one.digest(), false));
    assert_eq!([p.read(&name, "base"), p.read(&name, "f")], ["shared", "one"]);
    assert!(p.pull(&name).await.unwrap().unchanged);

    // By tag through an index: the id is the index's, the content this machine's.
    let name = format!("{}/team/two", server.address);
    assert_eq!(p.pull(&name).await.unwrap().digest, index_digest);
    let image = p.store.resolve(&name).unwrap();
    assert_eq!((image.source, image.manifest), (index_digest.clone(), two.digest()));
    assert_eq!(p.read(&name, "f"), "two");
    assert_eq!(crate::files_in(&p.path("images/layers")), 3, "the base is there once");

    // By digest, of the index and of the manifest; a tag beside a digest is not what decides.
    for reference in
        [format!("{name}@{index_digest}"), format!("{name}@{}", two.digest()), format!("{name}:no@{index_digest}")]
    {
        assert_eq!(p.pull(&reference).await.unwrap().digest.as_str(), reference.rsplit_once('@').unwrap().1);
        assert_eq!(p.read(&reference, "f"), "two");
    }
    assert!(p.store.resolve(&format!("{name}:no")).is_err());

    // The tag moves: the name follows.
    put(&storage, "team/one", Some("v1"), &two);
    let name = format!("{}/team/one:v1", server.address);
    assert_eq!(p.pull(&name).await.unwrap().digest, two.digest());
    assert_eq!(p.read(&name, "f"), "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said_in_containerds_words() {
    let p = Place::new();
    let storage = p.path("storage");
    put(&storage, "here", Some("v1"), &Image::of("f", "x"));
    put(&storage, "foreign", Some("v1"), &Image::new(&[layer("f", "x")], "s390x"));
    let server = Registry::start(&storage, &[], &[]).unwrap();
    let at = &server.address;
    let name = format!("{at}/here:v2");
    let expected = format!(
        "failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": {name}: not found"
    );
    assert_eq!(p.fails(&name).await, expected);
    let error = p.fails(&format!("{at}/foreign:v1")).await;
    assert!(error.contains("no match for platform in manifest") && error.ends_with(": not found"), "{error}");
    let error = p.fails("127.0.0.1:1/x:v1").await;
    let expected = "failed to do request: Head \"http://127.0.0.1:1/v2/x/manifests/v1\": dial tcp 127.0.0.1:1: connect: connection refused";
    assert!(error.ends_with(expected), "{error}");
    assert_eq!(crate::files_in(&p.path("images/tmp")), 0);
    assert!(p.store.list().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_verified_and_its_authority_configured() {
    let p = Place::new();
    let storage = p.path("storage");
    put(&storage, "x", Some("v1"), &Image::of("f", "tls"));
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(p.path("cert.pem"), cert.pem()).unwrap();
    std::fs::write(p.path("key.pem"), key.serialize_pem()).unwrap();
    let tls = format!("tls: {{certificate: {:?}, key: {:?}}}", p.path("cert.pem"), p.path("key.pem"));
    let server = Registry::start(&storage, &[&tls], &[]).unwrap();
    let port = server.address.rsplit_once(':').unwrap().1;
    let name = format!("localhost:{port}/x:v1");
    let registry = format!("localhost:{port}");

    p.hosts(&registry, &format!("[host.\"https://localhost:{port}\"]\n"));
    let error = p.fails(&name).await;
    assert!(
        error.ends_with("tls: failed to verify certificate: x509: certificate signed by unknown authority"),
        "{error}"
    );
    p.hosts(&registry, &format!("server = \"https://localhost:{port}\"\nca = {:?}\n", p.path("cert.pem")));
    p.pull(&name).await.unwrap();
    assert_eq!(p.read(&name, "f"), "tls");
    // The certificate is for a name; an address is another.
    let address = format!("127.0.0.1:{port}");
    p.hosts(&address, &format!("server = \"https://127.0.0.1:{port}\"\nca = {:?}\n", p.path("cert.pem")));
    assert!(p.fails(&format!("{address}/x:v1")).await.contains("failed to verify certificate"));
    p.hosts(&address, &format!("server = \"https://127.0.0.1:{port}\"\nskip_verify = true\n"));
    p.pull(&format!("{address}/x:v1")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_serves_a_registry_that_cannot_be_reached() {
    let p = Place::new();
    let storage = p.path("storage");
    let image = Image::of("f", "mirrored");
    put(&storage, "some/app", Some("v1"), &image);
    let server = Registry::start(&storage, &[], &[]).unwrap();
    let dead = "[host.\"http://127.0.0.1:1\"]\n";
    p.hosts("registry.invalid", &format!("{dead}[host.\"http://{}\"]\n", server.address));
    p.pull("registry.invalid/some/app:v1").await.unwrap();
    assert_eq!(p.read("registry.invalid/some/app:v1", "f"), "mirrored");
    assert!(registry::program().unwrap().exists());
    // One that may not resolve is asked for content only; the digest decides what is taken.
    p.hosts("registry.invalid", &format!("[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n", server.address));
    let error = p.fails("registry.invalid/some/app:v1").await;
    assert!(error.contains("Head \"https://registry.invalid/v2/some/app/manifests/v1\""), "{error}");
}
