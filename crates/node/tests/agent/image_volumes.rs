//! Images as volumes, and which images go when the disk is full.

use std::os::unix::fs::PermissionsExt as _;

use corten_images::ImageConfig;
use corten_node::{EvictionSettings, ImagePolicy};
use corten_tree::Tree;

use crate::Cluster;
use crate::registry::{Disk, Shop, shell};

const C: &str = "spec.containers{c}";

/// An image with data; its id.
fn publish_data(cluster: &Cluster, shop: &Shop) -> String {
    let dir = cluster.base.join("made/data");
    std::fs::create_dir_all(dir.join("etc")).unwrap();
    std::fs::write(dir.join("etc/hello"), "hello\n").unwrap();
    std::fs::write(dir.join("tool"), "#!/bin/sh\necho ran\n").unwrap();
    std::fs::set_permissions(dir.join("tool"), std::fs::Permissions::from_mode(0o755)).unwrap();
    shop.publish(&dir, "data", "v1", ImageConfig::default()).id.to_string()
}

/// A pod that mounts an image.
fn create_with_volume(cluster: &Cluster, pod: &str, image: &str, volume: &str, policy: &str, mounts: &str) {
    cluster.create(
        pod,
        &format!(
            r#""containers":[{{"name":"c","image":"{image}","imagePullPolicy":"IfNotPresent","volumeMounts":[{mounts}]}}],
            "volumes":[{{"name":"v","image":{{"reference":"{volume}","pullPolicy":"{policy}"}}}}]"#
        ),
    );
}

pub async fn image_volumes(mut cluster: Cluster) {
    // What nothing uses goes within seconds.
    cluster.config.images =
        ImagePolicy { age_seconds_min: 0, age_seconds_max: 1, period_seconds: 1, ..ImagePolicy::default() };
    let shop = Shop::open(&mut cluster, &[]).await;
    let app_id = shop.publish_text(&cluster, "app", "v1", "app\n").id.to_string();
    let data_id = publish_data(&cluster, &shop);
    let (app, data) = (shop.name("app:v1"), shop.name("data:v1"));
    let mounts = r#"{"name":"v","mountPath":"/v"},{"name":"v","mountPath":"/sub","subPath":"etc"}"#;
    create_with_volume(&cluster, "p", &app, &data, "IfNotPresent", mounts);
    cluster.running("p").await;
    cluster.event("p", "Normal", "Pulling", "", &format!("Pulling image {data:?}")).await;
    let pulled = cluster.event_says("p", "Pulled", "").await;
    assert!(pulled.starts_with("Successfully pulled image"), "{pulled}");
    for (command, code, said) in [
        ("cat /v/etc/hello /sub/hello", 0, "hello\nhello\n"),
        ("touch /v/new", 1, "Read-only file system"),
        ("touch /sub/new", 1, "Read-only file system"),
        ("/v/tool", 126, "Permission denied"),
    ] {
        let (got, out) = cluster.exec("p", &["sh", "-c", command], "").await;
        assert!(got == code && out.contains(said), "{command}: {got} {out}");
    }
    // It is no file of the pod's: it does not count as its storage.
    let summary = corten_tree::json::parse(&cluster.get("/stats/summary", "").await).unwrap();
    assert!(summary.list_at("pods")[0].list_at("volume").is_empty(), "{summary}");

    // Garbage collection takes the image of a pod that has gone, not what a container or a volume stands on.
    let stale_id = shop.publish_text(&cluster, "stale", "v1", "stale\n").id.to_string();
    cluster.create_of_image("stale", &shop.name("stale:v1"), "Always", "");
    cluster.running("stale").await;
    cluster.delete("stale").await;
    cluster.until_images("the stale one goes", |ids| !ids.contains(&stale_id)).await;
    cluster.until_images("those in use stay", |ids| ids.contains(&app_id) && ids.contains(&data_id)).await;
    assert_eq!(cluster.exec("p", &["cat", "/v/etc/hello"], "").await.1, "hello\n");

    // An image that cannot be had: the container waits, in the words of its pull.
    let missing = shop.name("data:v2");
    create_with_volume(&cluster, "q", &app, &missing, "Always", r#"{"name":"v","mountPath":"/v"}"#);
    let why = cluster.waiting("q", "ErrImagePull").await;
    assert!(why.starts_with("rpc error: code = NotFound desc = failed to pull and unpack image "), "{why}");
    cluster.event("q", "Warning", "Failed", "", &format!("Failed to pull image {missing:?}: {why}")).await;
    cluster.event("q", "Warning", "Failed", C, "Error: ErrImagePull").await;
    let message = cluster.waiting("q", "ImagePullBackOff").await;
    assert_eq!(message, format!("Back-off pulling image {missing:?}: ErrImagePull: {why}"));
    assert!(cluster.events_of("q").iter().all(|e| e[2] != C || e[1] != "Pulling"), "the volume's image comes first");
    create_with_volume(&cluster, "never", &app, &missing, "Never", r#"{"name":"v","mountPath":"/v"}"#);
    let told = format!("Container image {missing:?} is not present with pull policy of Never");
    assert_eq!(cluster.waiting("never", "ErrImageNeverPull").await, told);
    cluster.event("never", "Warning", "ErrImageNeverPull", "", &told).await;
    // A part that the image does not have.
    create_with_volume(
        &cluster,
        "part",
        &app,
        &data,
        "IfNotPresent",
        r#"{"name":"v","mountPath":"/v","subPath":"not-existing"}"#,
    );
    let why = cluster.waiting("part", "CreateContainerError").await;
    assert!(why.starts_with("ImageVolumeMountFailed: "), "{why}");
    for pod in ["p", "q", "never", "part"] {
        cluster.delete(pod).await;
    }
    cluster.until_images("all go", |ids| ids.is_empty()).await;
    cluster.end().await;
}

/// A pod, one that mounts an image, and an image of many bytes that nothing uses; the ids of the two images in use, and its id.
async fn furnish(cluster: &Cluster, shop: &Shop) -> ([String; 2], String) {
    let app_id = shop.publish_text(cluster, "app", "v1", "app\n").id.to_string();
    let data_id = publish_data(cluster, shop);
    create_with_volume(
        cluster,
        "p",
        &shop.name("app:v1"),
        &shop.name("data:v1"),
        "IfNotPresent",
        r#"{"name":"v","mountPath":"/v"}"#,
    );
    cluster.running("p").await;
    let dir = cluster.image_root("large", &[("data", &vec![1; 12 << 20])]);
    let large_id = shop.publish(&dir, "large", "v1", shell("sleep 1000")).id.to_string();
    cluster.create_of_image("large", &shop.name("large:v1"), "Always", "");
    cluster.running("large").await;
    cluster.delete("large").await;
    cluster.until_images("all are here", |ids| [&app_id, &data_id, &large_id].iter().all(|id| ids.contains(id))).await;
    ([app_id, data_id], large_id)
}

pub async fn image_gc(mut cluster: Cluster) {
    let disk = Disk::mount(&mut cluster, 128).await;
    let shop = Shop::open(&mut cluster, &[]).await;
    let (used, large) = furnish(&cluster, &shop).await;
    // Below the threshold nothing goes.
    cluster.config.images = ImagePolicy { age_seconds_min: 0, period_seconds: 1, ..ImagePolicy::default() };
    cluster.restart_agent().await;
    assert!(disk.used_percent() < 80, "{}", disk.used_percent());
    cluster.create_of_image("q", &shop.name("app:v1"), "Always", "");
    cluster.running("q").await;
    cluster.until_images("the unused one stays", |ids| ids.contains(&large)).await;
    disk.fill(87);
    cluster.until_images("the unused one goes", |ids| !ids.contains(&large)).await;
    cluster.until_images("those in use stay", |ids| used.iter().all(|id| ids.contains(id))).await;
    disk.until_below(85).await;
    assert_eq!(cluster.exec("p", &["cat", "/v/etc/hello", "/text"], "").await.1, "hello\napp\n");
    // Then there is nothing left to take, and the node says so.
    disk.fill(90);
    let begins = "Insufficient free disk space on the node's image filesystem (90% of ";
    let ends = "Failed to free sufficient space by deleting unused images (freed 0 bytes). Investigate disk usage, as it could be used by \
                active images, logs, volumes, or other data.";
    let told = cluster.api.until("FreeDiskSpaceFailed", |_| {
        let told = cluster.events_of("n1").into_iter().find(|e| e[1] == "FreeDiskSpaceFailed")?;
        Some(told[3].clone())
    });
    let told = told.await;
    assert!(told.starts_with(begins) && told.ends_with(ends), "{told}");
    cluster.until_images("those in use stay", |ids| used.iter().all(|id| ids.contains(id))).await;
    for pod in ["p", "q"] {
        cluster.delete(pod).await;
    }
    disk.end(cluster).await;
}

pub async fn eviction_takes_images_first(mut cluster: Cluster) {
    let disk = Disk::mount(&mut cluster, 128).await;
    let shop = Shop::open(&mut cluster, &[]).await;
    let (used, large) = furnish(&cluster, &shop).await;
    // The node's own garbage collection does not come first.
    cluster.config.images = ImagePolicy { age_seconds_min: 0, high_percent: 100, ..ImagePolicy::default() };
    cluster.config.eviction = EvictionSettings::parse("imagefs.available<15%", "", "", "").unwrap();
    cluster.restart_agent().await;
    disk.fill(87);
    cluster.until_images("the unused one goes", |ids| !ids.contains(&large)).await;
    disk.until_below(85).await;
    cluster.event("n1", "Warning", "EvictionThresholdMet", "", "Attempting to reclaim ephemeral-storage").await;
    let pod = cluster.running("p").await;
    assert!(pod.str_at("status.reason").is_empty(), "{pod}");
    // Where no image is left to take, a pod goes.
    disk.fill(90);
    let pod = cluster.until("p", "evicted", |pod: &Tree| pod.str_at("status.reason") == "Evicted").await;
    let message = pod.str_at("status.message");
    assert!(message.starts_with("The node was low on resource: ephemeral-storage. Threshold quantity: "), "{message}");
    assert!(!used.is_empty());
    cluster.delete("p").await;
    disk.end(cluster).await;
}
