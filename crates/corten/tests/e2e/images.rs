//! Images: a private registry and who may pull from it, archives that are brought along.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use corten_testkit::cache_dir;
use corten_testkit::cluster::Cluster;
use corten_testkit::registry::{Content, Registry, put_blob, put_manifest};
use serde_json::{Value, json};

use crate::{contains, jsonpath, namespace};

/// `tester` with the password `sesame`.
const HTPASSWD: &str = "tester:$2b$05$abcdefghijklmnopqrstuuKcS.CYWVYVaLiiCKrrc0A5s3mGesJ9O\n";

/// The blobs of the image that all cases use: its manifest's entry in the store's index, and what the manifest names.
fn busybox(cluster: &Cluster) -> Result<(Value, Vec<String>)> {
    let index: Value = serde_json::from_slice(&fs::read(cluster.data().join("images/index.json"))?)?;
    let named = |entry: &&Value| {
        let notes = entry["annotations"].as_object();
        notes.is_some_and(|notes| notes.values().any(|value| value == "test.local/busybox:1"))
    };
    let entry =
        index["manifests"].as_array().and_then(|all| all.iter().find(named)).context("busybox is in the store")?;
    let manifest: Value = serde_json::from_slice(&fs::read(blob(cluster, entry)?)?)?;
    let layers = manifest["layers"].as_array().context("a manifest has layers")?;
    let named = layers.iter().chain([&manifest["config"]]).filter_map(|part| part["digest"].as_str());
    Ok((entry.clone(), named.map(str::to_owned).collect()))
}

fn blob(cluster: &Cluster, entry: &Value) -> Result<PathBuf> {
    let digest = entry["digest"].as_str().context("an entry has a digest")?;
    Ok(path_of(cluster, digest))
}

fn path_of(cluster: &Cluster, digest: &str) -> PathBuf {
    cluster.data().join("images/blobs/sha256").join(digest.trim_start_matches("sha256:"))
}

fn empty(name: &str) -> Result<PathBuf> {
    let dir = cache_dir().join(name);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

pub(crate) fn service_account_pull_secrets(cluster: &mut Cluster) -> Result<()> {
    namespace(cluster, "private")?;
    let dir = empty("e2e-registry")?;
    let (storage, passwords) = (dir.join("storage"), dir.join("htpasswd"));
    fs::write(&passwords, HTPASSWD)?;
    let (entry, blobs) = busybox(cluster)?;
    for digest in &blobs {
        put_blob(&storage, "team/busybox", digest, Content::File(&path_of(cluster, digest)))?;
    }
    let (digest, manifest) = (entry["digest"].as_str().unwrap_or_default(), blob(cluster, &entry)?);
    put_manifest(&storage, "team/busybox", Some("1"), digest, Content::File(&manifest))?;
    let auth = format!("htpasswd: {{realm: basic, path: {passwords:?}}}");
    let server = Registry::start(&storage, &[], &[&auth])?;
    let image = format!("{}/team/busybox:1", server.address);
    let n = |args: &[&str]| cluster.kubectl(&[&["-n", "private"], args].concat());
    let run = |name: &str| {
        let (image, policy) = (format!("--image={image}"), "--image-pull-policy=Always");
        n(&["run", name, &image, policy, "--restart=Never", "--command", "--", "sleep", "1000"])
    };
    run("nobody")?;
    let reason = ".status.containerStatuses[0].state.waiting.reason";
    n(&["wait", &format!("--for=jsonpath={{{reason}}}=ImagePullBackOff"), "pod/nobody", "--timeout=40s"])?;
    let told = n(&["describe", "pod", "nobody"])?;
    for part in [
        &format!("Pulling image \"{image}\""),
        &format!(
            "Failed to pull image \"{image}\": failed to pull and unpack image \"{image}\": failed to resolve reference"
        ),
        "authorization failed: no basic auth credentials",
        "Error: ErrImagePull",
        &format!("Back-off pulling image \"{image}\""),
        "Error: ImagePullBackOff",
    ] {
        contains(&told, part)?;
    }
    let server_flag = format!("--docker-server={}", server.address);
    let login = ["--docker-username=tester", "--docker-password=sesame"];
    n(&[&["create", "secret", "docker-registry", "login", &server_flag][..], &login].concat())?;
    n(&["patch", "serviceaccount", "default", "-p", r#"{"imagePullSecrets":[{"name":"login"}]}"#])?;
    run("member")?;
    n(&["wait", "--for=condition=Ready", "pod/member", "--timeout=40s"])?;
    contains(&jsonpath(cluster, "private", "pod/member", ".spec.imagePullSecrets[0].name")?, "login")?;
    contains(&n(&["describe", "pod", "member"])?, &format!("Successfully pulled image \"{image}\" in "))?;
    cluster.kubectl(&["delete", "namespace", "private", "--timeout=60s"])?;
    fs::remove_dir_all(dir).map_err(Into::into)
}

pub(crate) fn preloaded_archives(cluster: &mut Cluster) -> Result<()> {
    namespace(cluster, "airgap")?;
    let (mut entry, mut blobs) = busybox(cluster)?;
    let layout = cluster.data().join("preload-images/brought");
    fs::create_dir_all(layout.join("blobs/sha256"))?;
    blobs.push(entry["digest"].as_str().unwrap_or_default().to_owned());
    for digest in &blobs {
        let from = path_of(cluster, digest);
        fs::copy(&from, layout.join("blobs/sha256").join(from.file_name().context("it has a name")?))?;
    }
    entry["annotations"] = json!({"io.containerd.image.name": "brought.test/along:1"});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(layout.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
    cluster.kill_server()?;
    cluster.start()?;
    let n = |args: &[&str]| cluster.kubectl(&[&["-n", "airgap"], args].concat());
    let (image, policy) = ("--image=brought.test/along:1", "--image-pull-policy=Never");
    n(&["run", "p", image, policy, "--restart=Never", "--command", "--", "sleep", "1000"])?;
    n(&["wait", "--for=condition=Ready", "pod/p", "--timeout=40s"])?;
    remove(&layout)?;
    cluster.kubectl(&["delete", "namespace", "airgap", "--timeout=60s"]).map(drop)
}

fn remove(dir: &Path) -> Result<()> {
    fs::remove_dir_all(dir).with_context(|| dir.display().to_string())
}
