//! Pulling images for pods from a real registry: what the pod's status and events say, in the kubelet's and containerd's words.

use std::time::{Duration, Instant};

use corten_images::Digest;
use corten_kinds::id;
use corten_object::ObjectKey;
use serde_json::{Value, json};

use crate::Cluster;
use crate::registry::{Mood, Shop, shell};

const C: &str = "spec.containers{c}";
/// `tester` with the password `sesame`.
const HTPASSWD: &str = "tester:$2b$05$abcdefghijklmnopqrstuuKcS.CYWVYVaLiiCKrrc0A5s3mGesJ9O\n";

fn not_found(name: &str) -> String {
    format!(
        "rpc error: code = NotFound desc = failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": \
         {name}: not found"
    )
}

pub async fn image_pull_back_off(mut cluster: Cluster) {
    let shop = Shop::open(&mut cluster, &[]).await;
    let image = shop.publish_text(&cluster, "team/app", "v1", "one\n");
    let name = shop.name("team/app:v1");
    cluster.create_of_image("here", &name, "Always", "");
    let pod = cluster.running("here").await;
    let status = &pod.list_at("status.containerStatuses")[0];
    let id = format!("{}@{}", shop.name("team/app"), image.manifest);
    assert_eq!([status.str_at("image"), status.str_at("imageID")], [name.as_str(), id.as_str()]);
    cluster.event("here", "Normal", "Pulling", C, &format!("Pulling image {name:?}")).await;
    let begins = format!("Successfully pulled image {name:?} in ");
    let ends = format!(" including waiting). Image size: {} bytes.", image.size);
    let pulled = cluster.event_says("here", "Pulled", C).await;
    assert!(pulled.starts_with(&begins) && pulled.ends_with(&ends), "{pulled}");
    cluster.event("here", "Normal", "Created", C, "Container created").await;
    cluster.event("here", "Normal", "Started", C, "Container started").await;

    // A tag that is not there, until it is.
    let late = shop.name("team/app:v2");
    cluster.create_of_image("late", &late, "IfNotPresent", "");
    let why = not_found(&late);
    assert_eq!(cluster.waiting("late", "ErrImagePull").await, why);
    cluster.event("late", "Normal", "Pulling", C, &format!("Pulling image {late:?}")).await;
    cluster.event("late", "Warning", "Failed", C, &format!("Failed to pull image {late:?}: {why}")).await;
    cluster.event("late", "Warning", "Failed", C, "Error: ErrImagePull").await;
    let message = cluster.waiting("late", "ImagePullBackOff").await;
    assert_eq!(message, format!("Back-off pulling image {late:?}: ErrImagePull: {why}"));
    cluster.event("late", "Normal", "BackOff", C, &format!("Back-off pulling image {late:?}")).await;
    cluster.event("late", "Warning", "Failed", C, "Error: ImagePullBackOff").await;
    shop.publish_text(&cluster, "team/app", "v2", "two\n");
    cluster.running("late").await;
    for (pod, log) in [("here", "one\n"), ("late", "two\n")] {
        cluster.until_log(pod, log).await;
    }

    // Another image in the spec does not wait for the old one's back-off.
    cluster.create_of_image("mended", &shop.name("team/app:v3"), "IfNotPresent", "");
    cluster.waiting("mended", "ImagePullBackOff").await;
    let mut mended = cluster.api.find(&Cluster::key("mended")).unwrap().to_tree();
    mended.set("metadata.generation", 2_i64);
    let mut containers = mended.list_at("spec.containers").to_vec();
    containers[0].set("image", name.as_str());
    mended.set("spec.containers", corten_tree::Tree::List(containers));
    let began = Instant::now();
    cluster.api.put(&Cluster::key("mended"), mended);
    cluster.running("mended").await;
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());

    // A name that is none.
    cluster.create_of_image("wrong", "team/App:v1", "Always", "");
    let message = cluster.waiting("wrong", "InvalidImageName").await;
    let why = "couldn't parse image name \"team/App:v1\": invalid reference format: repository name (team/App) must be lowercase";
    assert_eq!(message, format!("Failed to apply default image tag \"team/App:v1\": {why}"));
    cluster.event("wrong", "Warning", "InspectFailed", C, &message).await;
    cluster.event("wrong", "Warning", "Failed", C, "Error: InvalidImageName").await;
    for pod in ["here", "late", "mended", "wrong"] {
        cluster.delete(pod).await;
    }
    cluster.end().await;
}

fn secret(cluster: &Cluster, name: &str, server: &str, password: &str) {
    use base64::Engine as _;
    let config = json!({"auths": {server: {"username": "tester", "password": password}}}).to_string();
    let config = base64::engine::general_purpose::STANDARD.encode(config);
    let secret = json!({"metadata": {"name": name, "namespace": "default"}, "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": config}});
    let tree = corten_tree::json::parse(secret.to_string().as_bytes()).unwrap();
    cluster.api.put(&ObjectKey::new(id::SECRET, "default", name), tree);
}

pub async fn image_pull_secrets(mut cluster: Cluster) {
    let passwords = cluster.base.join("htpasswd");
    std::fs::write(&passwords, HTPASSWD).unwrap();
    let auth = format!("htpasswd: {{realm: basic, path: {passwords:?}}}");
    let shop = Shop::open(&mut cluster, &[&auth]).await;
    shop.publish_text(&cluster, "private/app", "v1", "secret\n");
    let name = shop.name("private/app:v1");
    secret(&cluster, "wrong", &shop.address, "guess");
    secret(&cluster, "right", &shop.address, "sesame");
    let refused = format!("failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": ");
    let denied = "pull access denied, repository does not exist or may require authorization: ";

    cluster.create_of_image("nobody", &name, "Always", "");
    let why = format!("{refused}{denied}authorization failed: no basic auth credentials");
    assert_eq!(cluster.waiting("nobody", "ErrImagePull").await, why);
    cluster.event("nobody", "Warning", "Failed", C, &format!("Failed to pull image {name:?}: {why}")).await;
    cluster.create_of_image("guessing", &name, "Always", r#""imagePullSecrets":[{"name":"wrong"}],"#);
    let at = format!("http://{}/v2/private/app/manifests/v1", shop.address);
    let why = format!("{refused}unexpected status from HEAD request to {at}: 401 Unauthorized");
    assert_eq!(cluster.waiting("guessing", "ErrImagePull").await, why);
    // A secret that is not there is told, and does not keep the others from being tried.
    let secrets = r#""imagePullSecrets":[{"name":"missing"},{"name":"wrong"},{"name":"right"}],"#;
    cluster.create_of_image("knowing", &name, "Always", secrets);
    cluster.running("knowing").await;
    let told = "Unable to retrieve some image pull secrets (missing); attempting to pull the image may not succeed.";
    cluster.event("knowing", "Warning", "FailedToRetrieveImagePullSecret", "", told).await;
    cluster.until_log("knowing", "secret\n").await;
    // What one pod's secret has brought is not another's, though it lies there.
    cluster.create_of_image("curious", &name, "Never", "");
    cluster.waiting("curious", "ErrImageNeverPull").await;
    cluster.create_of_image("also-knowing", &name, "IfNotPresent", r#""imagePullSecrets":[{"name":"right"}],"#);
    cluster.running("also-knowing").await;
    // The node's own login serves all pods.
    let own = json!({"auths": {&shop.address: {"username": "tester", "password": "sesame"}}}).to_string();
    std::fs::write(cluster.base.join("config.json"), own).unwrap();
    cluster.running("nobody").await;
    for pod in ["nobody", "guessing", "knowing", "curious", "also-knowing"] {
        cluster.delete(pod).await;
    }
    cluster.end().await;
}

pub async fn image_pull_policies(mut cluster: Cluster) {
    let shop = Shop::open(&mut cluster, &[]).await;
    shop.publish_text(&cluster, "app", "v1", "old\n");
    let name = shop.name("app:v1");
    cluster.create_of_image("never", &name, "Never", "");
    let told = format!("Container image {name:?} is not present with pull policy of Never");
    assert_eq!(cluster.waiting("never", "ErrImageNeverPull").await, told);
    cluster.event("never", "Warning", "ErrImageNeverPull", C, &told).await;
    cluster.event("never", "Warning", "Failed", C, "Error: ErrImageNeverPull").await;
    assert_eq!(shop.passed().0, 0, "nobody was asked");
    cluster.create_of_image("first", &name, "IfNotPresent", "");
    cluster.running("first").await;
    // Now it is there, for who never pulls as well.
    cluster.running("never").await;
    // The tag moves: only who always pulls sees that.
    shop.publish_text(&cluster, "app", "v1", "new\n");
    cluster.create_of_image("second", &name, "IfNotPresent", "");
    cluster.running("second").await;
    let told = format!("Container image {name:?} already present on machine and can be accessed by the pod");
    cluster.event("second", "Normal", "Pulled", C, &told).await;
    assert!(cluster.events_of("second").iter().all(|e| e[1] != "Pulling"));
    cluster.create_of_image("always", &name, "Always", "");
    cluster.running("always").await;
    for (pod, log) in [("first", "old\n"), ("second", "old\n"), ("always", "new\n")] {
        cluster.until_log(pod, log).await;
    }
    // A dead registry: what is here runs without it, but not for who always asks.
    let address = shop.address.clone();
    let port: u16 = address.rsplit_once(':').unwrap().1.parse().unwrap();
    shop.mood(Mood::BreakAfter(0));
    cluster.create_of_image("offline", &name, "IfNotPresent", "");
    cluster.running("offline").await;
    cluster.create_of_image("asking", &name, "Always", "");
    let why = cluster.waiting("asking", "ErrImagePull").await;
    let begins = format!(
        "failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": failed to do request: \
         Head \"http://127.0.0.1:{port}/v2/app/manifests/v1\": "
    );
    assert!(why.starts_with(&begins), "{why}");
    cluster.create_of_image("nowhere", "127.0.0.1:1/app:v1", "Always", "");
    let why = cluster.waiting("nowhere", "ErrImagePull").await;
    assert!(why.ends_with("dial tcp 127.0.0.1:1: connect: connection refused"), "{why}");
    shop.mood(Mood::Open);
    cluster.running("asking").await;
    for pod in ["never", "first", "second", "always", "offline", "asking", "nowhere"] {
        cluster.delete(pod).await;
    }
    cluster.end().await;
}

/// Bytes of the layer of an image that is large.
const LARGE: usize = 8 << 20;

fn publish_large(cluster: &Cluster, shop: &Shop) -> u64 {
    let content: Vec<u8> = (0..LARGE).map(|n| ((n * 2_654_435_761) >> 13) as u8).collect();
    let dir = cluster.image_root("large", &[("data", &content)]);
    shop.publish(&dir, "large", "v1", shell("wc -c < /data; sleep 1000")).size
}

pub async fn image_pull_progress(mut cluster: Cluster) {
    let shop = Shop::open(&mut cluster, &[]).await;
    publish_large(&cluster, &shop);
    let name = shop.name("large:v1");
    shop.mood(Mood::StallAfter(3 << 20));
    cluster.create_of_image("slow", &name, "Always", "");
    let begins = format!("Pulling image {name:?}: ");
    let shown = |pod: &corten_tree::Tree| {
        let status = pod.list_at("status.containerStatuses").first().cloned().unwrap_or_default();
        let message = status.str_at("state.waiting.message").to_owned();
        (status.str_at("state.waiting.reason") == "ContainerCreating" && message.starts_with(&begins))
            .then_some(message)
    };
    let pod = cluster.until("slow", "progress", |pod| shown(pod).is_some()).await;
    let message = shown(&pod).unwrap();
    let (done, total) = message[begins.len()..].trim_end_matches(" MiB").split_once(" of ").unwrap();
    let (done, total): (f64, f64) = (done.parse().unwrap(), total.parse().unwrap());
    assert!(done > 0.0 && done <= 3.1 && total > 8.0 && total < 12.0, "{message}");
    // Another pull goes on beside the one that hangs, and a pod that is deleted does not wait for its image.
    cluster.create_of_image("gone", &name, "Always", "");
    cluster.event("gone", "Normal", "Pulling", C, &format!("Pulling image {name:?}")).await;
    cluster.delete("gone").await;
    shop.mood(Mood::Open);
    cluster.running("slow").await;
    cluster.until_log("slow", &format!("{LARGE}\n")).await;
    let pod = cluster.running("slow").await;
    assert!(pod.list_at("status.containerStatuses")[0].path("state.waiting").is_none(), "{pod}");
    cluster.delete("slow").await;
    cluster.end().await;
}

pub async fn image_pulls_resume(mut cluster: Cluster) {
    let shop = Shop::open(&mut cluster, &[]).await;
    let size = publish_large(&cluster, &shop);
    let name = shop.name("large:v1");
    shop.mood(Mood::BreakAfter(3 << 20));
    cluster.create_of_image("p", &name, "Always", "");
    // The registry is dead for two attempts.
    shop.until_broken(2).await;
    shop.mood(Mood::Open);
    cluster.running("p").await;
    cluster.until_log("p", &format!("{LARGE}\n")).await;
    let (passed, _) = shop.passed();
    // Only what was on its way when the line broke came twice.
    assert!(passed < size + (1 << 20), "{passed} bytes for {size}");
    assert!(cluster.events_of("p").iter().all(|e| e[0] == "Normal"), "{:?}", cluster.events_of("p"));
    cluster.delete("p").await;
    cluster.end().await;
}

pub async fn image_digests(mut cluster: Cluster) {
    let shop = Shop::open(&mut cluster, &[]).await;
    let image = shop.publish_text(&cluster, "app", "v1", "pinned\n");
    shop.publish_text(&cluster, "app", "v1", "moved\n");
    let pinned = format!("{}@{}", shop.name("app"), image.manifest);
    cluster.create_of_image("pinned", &pinned, "Always", "");
    let pod = cluster.running("pinned").await;
    assert_eq!(pod.list_at("status.containerStatuses")[0].str_at("imageID"), pinned);
    cluster.until_log("pinned", "pinned\n").await;

    // An index with an image for another machine: the id is the index's.
    let own = std::fs::read(shop.made(&image.manifest)).unwrap();
    let entry = |bytes: &[u8], architecture: &str| -> Value {
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": Digest::of(bytes), "size": bytes.len(),
            "platform": {"os": "linux", "architecture": architecture}})
    };
    let machine = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let index = |entries: Vec<Value>| {
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries})
            .to_string()
    };
    let digest = shop.put("app", Some("multi"), index(vec![entry(b"none", "s390x"), entry(&own, machine)]).as_bytes());
    cluster.create_of_image("multi", &shop.name("app:multi"), "Always", "");
    let pod = cluster.running("multi").await;
    let id = format!("{}@{digest}", shop.name("app"));
    assert_eq!(pod.list_at("status.containerStatuses")[0].str_at("imageID"), id);
    cluster.until_log("multi", "pinned\n").await;
    shop.put("app", Some("foreign"), index(vec![entry(b"none", "s390x")]).as_bytes());
    cluster.create_of_image("foreign", &shop.name("app:foreign"), "Always", "");
    let why = cluster.waiting("foreign", "ErrImagePull").await;
    assert!(why.starts_with("rpc error: code = NotFound desc = failed to pull and unpack image "), "{why}");
    assert!(why.contains("no match for platform in manifest") && why.ends_with(": not found"), "{why}");

    // Content that is not what its digest says: a layer, and the manifest itself.
    let layered = shop.publish_text(&cluster, "layered", "v1", "good\n");
    let blob = &layered.layers[0].blob;
    let mut bytes = std::fs::read(shop.made(blob)).unwrap();
    let at = bytes.windows(5).position(|w| w == b"good\n").unwrap();
    bytes[at..at + 4].copy_from_slice(b"evil");
    shop.tamper(blob, &bytes);
    cluster.create_of_image("tampered", &shop.name("layered:v1"), "Always", "");
    let why = cluster.waiting("tampered", "ErrImagePull").await;
    let actual = Digest::of(&bytes);
    assert!(why.starts_with("rpc error: code = FailedPrecondition desc = "), "{why}");
    let ends = format!("unexpected commit digest {actual}, expected {blob}: failed precondition");
    assert!(why.ends_with(&ends), "{why}");
    for pod in ["pinned", "multi", "foreign", "tampered"] {
        cluster.delete(pod).await;
    }
    cluster.end().await;
}

pub async fn image_mirrors(mut cluster: Cluster) {
    let shop = Shop::open(&mut cluster, &[]).await;
    shop.publish_text(&cluster, "some/app", "v1", "mirrored\n");
    let dir = cluster.base.join("registries/registry.invalid");
    std::fs::create_dir_all(&dir).unwrap();
    let hosts = format!(
        "server = \"https://registry.invalid\"\n[host.\"http://127.0.0.1:1\"]\n[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        shop.address
    );
    std::fs::write(dir.join("hosts.toml"), hosts).unwrap();
    cluster.create_of_image("p", "registry.invalid/some/app:v1", "Always", "");
    let pod = cluster.running("p").await;
    let status = &pod.list_at("status.containerStatuses")[0];
    assert_eq!(status.str_at("image"), "registry.invalid/some/app:v1");
    assert!(status.str_at("imageID").starts_with("registry.invalid/some/app@sha256:"), "{status}");
    cluster.until_log("p", "mirrored\n").await;
    cluster.delete("p").await;
    cluster.end().await;
}
