//! Registries that do wrong: what they say is bounded, hashed, and refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use corten_images::{Digest, ImageStore, Progress, Reference};
use serde_json::{Value, json};

use crate::fake::{Answer, Fake, ok, status};
use crate::small_disk::Tmpfs;
use crate::{INDEX, Image, LAYER, MANIFEST, Place, describe, files_in, layer};

fn serve(image: &Image) -> Fake {
    let image = image.clone();
    Fake::start(move |asked| image.blob(&asked.path).map_or_else(|| status(404, &[]), ok))
}

/// A server that has only a manifest, and why it is refused.
async fn refused(manifest: &[u8], headers: &[(&str, &str)]) -> String {
    let p = Place::new();
    let manifest = manifest.to_vec();
    let headers: Vec<(String, String)> = headers.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
    let server = Fake::start(move |_| Answer { headers: headers.clone(), ..ok(&manifest) });
    let error = p.fails(&format!("{}/x:v1", server.address)).await;
    assert_eq!((files_in(&p.path("images/tmp")), files_in(&p.path("images/layers"))), (0, 0));
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_checked_before_it_is_believed() {
    let image = Image::of("f", "x");
    let manifest: Value = serde_json::from_slice(&image.manifest).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut changed = manifest.clone();
        change(&mut changed);
        changed.to_string().into_bytes()
    };
    let big = json!({"schemaVersion": 2, "layers": vec![describe(LAYER, b""); 501], "config": manifest["config"]});
    for (bytes, told) in [
        (b"nonsense".to_vec(), "invalid manifest"),
        (vec![b' '; (4 << 20) + 1], "an answer of more than 4194304 bytes"),
        (br#"{"schemaVersion": 1, "fsLayers": []}"#.to_vec(), "no longer supported"),
        (br#"{"schemaVersion": 3, "layers": []}"#.to_vec(), "schemaVersion 3"),
        // CVE-2021-41190: what is both could be read as either.
        (with(&|m| m["manifests"] = json!([])), "both a manifest and an index"),
        (with(&|m| m["mediaType"] = json!(INDEX)), "media-type conflict"),
        (
            with(&|m| m["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json")),
            "its configuration is of the type",
        ),
        (
            with(&|m| m["layers"][0]["mediaType"] = json!("application/vnd.corten.layer.directory")),
            "a layer of the type",
        ),
        (with(&|m| m["layers"][0]["digest"] = json!("sha256:../../../../etc/passwd")), "is not a sha256 digest"),
        (with(&|m| m["layers"][0]["size"] = json!(-1)), "invalid manifest"),
        (with(&|m| m["config"]["size"] = json!(1_u64 << 40)), "an image configuration of 1099511627776 bytes"),
        (big.to_string().into_bytes(), "501 layers"),
    ] {
        let error = refused(&bytes, &[]).await;
        assert!(error.contains(told), "{told}: {error}");
    }
    let error = refused(&image.manifest, &[("content-type", INDEX)]).await;
    assert!(error.contains("media-type conflict"), "{error}");
    let other = Digest::of(b"other").to_string();
    let error = refused(&image.manifest, &[("docker-content-digest", &other)]).await;
    assert!(
        error.ends_with(&format!("unexpected commit digest {}, expected {other}: failed precondition", image.digest())),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_decides_what_is_taken() {
    let p = Place::new();
    let server = serve(&Image::of("f", "evil"));
    let good = Image::of("f", "good").digest();
    let error = p.fails(&format!("{}/x@{good}", server.address)).await;
    assert!(error.contains(&format!("expected {good}: failed precondition")), "{error}");
    assert!(p.store.list().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_what_their_digests_say() {
    let image = Image::of("f", "good");
    let other = layer("f", "evil").0;
    assert_eq!(other.len(), image.layers[0].len());
    for (content, told) in
        [(other, "unexpected commit digest"), (b"short".to_vec(), "a blob of 5 bytes, its manifest says")]
    {
        let p = Place::new();
        let (image, wanted) = (image.clone(), Digest::of(&image.layers[0]));
        let server = Fake::start(move |asked| match asked.path.ends_with(wanted.as_str()) {
            true => ok(&content),
            false => ok(image.blob(&asked.path).unwrap_or_default()),
        });
        let error = p.fails(&format!("{}/x:v1", server.address)).await;
        assert!(error.contains(told), "{error}");
        assert_eq!((files_in(&p.path("images/tmp")), files_in(&p.path("images/layers"))), (0, 0));
    }
    // A blob without end ends at its declared size.
    let p = Place::new();
    let wanted = Digest::of(&image.layers[0]);
    let server = Fake::start(move |asked| match asked.path.ends_with(wanted.as_str()) {
        true => Answer { status: 200, endless: true, ..Answer::default() },
        false => ok(image.blob(&asked.path).unwrap_or_default()),
    });
    let error = p.fails(&format!("{}/x:v1", server.address)).await;
    assert!(error.contains("bytes that its manifest says"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_must_fit_its_layers() {
    let p = Place::new();
    let (evil, good) = (layer("f", "evil"), layer("f", "good"));
    // The content of a layer is not what the configuration says.
    let server = serve(&Image::new(&[(evil.0.clone(), good.1.clone())], "amd64"));
    let error = p.fails(&format!("{}/x:v1", server.address)).await;
    assert!(error.contains("its configuration says"), "{error}");
    // Nor does the name of a layer that is here give away its content for another blob that is here.
    let server = serve(&Image::new(std::slice::from_ref(&good), "amd64"));
    p.pull(&format!("{}/good:v1", server.address)).await.unwrap();
    let server = serve(&Image::new(std::slice::from_ref(&evil), "amd64"));
    p.pull(&format!("{}/evil:v1", server.address)).await.unwrap();
    let server = serve(&Image::new(&[(evil.0, good.1)], "amd64"));
    let error = p.fails(&format!("{}/x:v1", server.address)).await;
    assert!(error.contains("its configuration says"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_transfer_is_taken_up_again() {
    let p = Place::new();
    let random: String = (0..200_000_u32).map(|n| Digest::of(&n.to_le_bytes()).hex()[..2].to_owned()).collect();
    let image = Image::of("f", &random);
    let (served, wanted) = (image.clone(), Digest::of(&image.layers[0]));
    let server = Fake::start(move |asked| {
        let blob = served.blob(&asked.path).unwrap_or_default();
        if !asked.path.ends_with(wanted.as_str()) {
            return ok(blob);
        }
        let from = asked.header("range").trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or(0);
        let cut = (blob.len() / 3 + 1).min(blob.len() - from);
        let last = blob.len() - 1;
        let range = format!("bytes {from}-{last}/{}", blob.len());
        let answer = if from == 0 {
            ok(blob)
        } else {
            Answer { body: blob[from..].to_vec(), ..status(206, &[("content-range", &range)]) }
        };
        Answer { cut: (from + cut < blob.len()).then_some(cut), ..answer }
    });
    let name = format!("{}/x:v1", server.address);
    let progress = Progress::default();
    p.registry.pull(&p.store, &Reference::parse(&name).unwrap(), &[], &progress).await.unwrap();
    assert_eq!(p.read(&name, "f"), random);
    assert_eq!(server.count(Digest::of(&image.layers[0]).as_str()), 3);
    let size = image.layers[0].len() as u64;
    assert_eq!(progress.bytes(), (size, size));
}

/// However much of the layer is still to come when the disk is full: more than what waits between network and disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_a_pull_at_once() {
    let p = Place::new();
    let small = Tmpfs::mount(p.path("small"), "size=400k");
    let store = ImageStore::open(&small.0).unwrap();
    let content = vec![b'x'; 24 << 20];
    let image = Image::new(&[(content.clone(), Digest::of(&content))], "amd64");
    let server = serve(&image);
    let name = format!("{}/x:v1", server.address);
    let (reference, progress) = (Reference::parse(&name).unwrap(), Progress::default());
    let pull = p.registry.pull(&store, &reference, &[], &progress);
    let outcome = tokio::time::timeout(Duration::from_secs(20), pull).await;
    let error = outcome.expect("it goes on asking").unwrap_err().to_string();
    assert!(error.contains("no space left on device"), "{error}");
    assert_eq!(server.count(Digest::of(&content).as_str()), 1);
    assert_eq!(files_in(&small.0.join("images/tmp")), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_is_fetched_once_however_many_want_it() {
    let p = Place::new();
    let base = layer("base", "shared");
    let images: Vec<Image> =
        (0..6).map(|n| Image::new(&[base.clone(), layer("own", &n.to_string())], "amd64")).collect();
    let served = images.clone();
    let server = Fake::start(move |asked| {
        let n: usize = asked.path.split('/').nth(2).and_then(|name| name[1..].parse().ok()).unwrap_or(0);
        served.get(n).and_then(|image| image.blob(&asked.path)).map_or_else(|| status(404, &[]), ok)
    });
    let names: Vec<String> = (0..6).map(|n| format!("{}/i{n}:v1", server.address)).collect();
    let pulls = names.iter().map(|name| p.pull(name));
    for pulled in futures::future::join_all(pulls).await {
        pulled.unwrap();
    }
    assert_eq!(
        server.count(&format!("GET /v2/i0/blobs/{}", Digest::of(&base.0)))
            + (1..6).map(|n| server.count(&format!("GET /v2/i{n}/blobs/{}", Digest::of(&base.0)))).sum::<usize>(),
        1
    );
    for (n, name) in names.iter().enumerate() {
        assert_eq!([p.read(name, "base"), p.read(name, "own")], ["shared".to_owned(), n.to_string()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_indirection_ends() {
    let p = Place::new();
    let hops = Arc::new(AtomicUsize::new(0));
    let seen = hops.clone();
    let server = Fake::start(move |_| {
        let n = seen.fetch_add(1, Ordering::SeqCst);
        status(302, &[("location", &format!("/v2/x/manifests/{n}"))])
    });
    assert!(p.fails(&format!("{}/x:v1", server.address)).await.contains("stopped after 10 redirects"));
    assert_eq!(hops.load(Ordering::SeqCst), 11);
    // Indexes in indexes.
    let mut documents = vec![Image::of("f", "x").manifest];
    for n in 0..6 {
        let mut entry = describe(if n == 0 { MANIFEST } else { INDEX }, documents.last().unwrap());
        entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
        documents.push(json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).to_string().into_bytes());
    }
    let server = Fake::start(move |asked| {
        let by_digest = documents.iter().find(|d| asked.path.ends_with(Digest::of(d).as_str()));
        ok(by_digest.or(documents.last()).unwrap())
    });
    assert!(p.fails(&format!("{}/x:v1", server.address)).await.contains("indexes in indexes"));
}
