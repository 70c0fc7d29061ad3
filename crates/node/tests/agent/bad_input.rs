//! Bad input: the pod says what is wrong in upstream's reasons and words, and its neighbours feel nothing.

use std::time::{Duration, Instant};

use corten_images::ImageConfig;
use serde_json::json;

use crate::Cluster;
use crate::registry::{Disk, Shop, shell};

const C: &str = "spec.containers{c}";

/// A pod that must feel nothing: it answers a probe and counts.
async fn neighbour(cluster: &Cluster) {
    cluster.create(
        "neighbour",
        r#""containers":[{"name":"c","image":"i","command":["sh","-c","while true; do date >> /tmp/log; sleep 1; done"],
        "readinessProbe":{"exec":{"command":["true"]},"periodSeconds":1,"timeoutSeconds":5,"failureThreshold":1},
        "livenessProbe":{"exec":{"command":["true"]},"periodSeconds":1,"timeoutSeconds":5,"failureThreshold":1}}]"#,
    );
    cluster.until("neighbour", "ready", ready).await;
}

fn ready(pod: &corten_tree::Tree) -> bool {
    pod.list_at("status.containerStatuses").first().is_some_and(|c| c.bool_at("ready"))
}

/// It still answers at once, was never restarted, and says nothing bad of itself.
async fn feels_nothing(cluster: &Cluster) {
    let began = Instant::now();
    assert_eq!(cluster.exec("neighbour", &["echo", "well"], "").await, (0, "well\n".to_owned()));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let pod = cluster.running("neighbour").await;
    assert!(ready(&pod), "{pod}");
    assert_eq!(pod.list_at("status.containerStatuses")[0].i64_at("restartCount"), Some(0));
    let bad: Vec<_> = cluster.events_of("neighbour").into_iter().filter(|e| e[0] == "Warning").collect();
    assert!(bad.is_empty(), "{bad:?}");
}

/// An image of one layer that nobody would build.
fn publish_raw(shop: &Shop, repository: &str, layer: &[u8]) {
    let blob = shop.put_blob(repository, layer);
    let machine = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let config = json!({"architecture": machine, "os": "linux", "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [blob]}});
    let config = config.to_string().into_bytes();
    let config_digest = shop.put_blob(repository, &config);
    let media = "application/vnd.oci.image";
    let manifest = json!({"schemaVersion": 2, "mediaType": format!("{media}.manifest.v1+json"),
        "config": {"mediaType": format!("{media}.config.v1+json"), "digest": config_digest, "size": config.len()},
        "layers": [{"mediaType": format!("{media}.layer.v1.tar"), "digest": blob, "size": layer.len()}]});
    shop.put(repository, Some("v1"), manifest.to_string().as_bytes());
}

fn raw_tar(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (path, sort, link) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*sort);
        header.set_mode(0o644);
        header.set_size(0);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        out.append(&header, std::io::empty()).unwrap();
    }
    out.into_inner().unwrap()
}

pub async fn hostile_layer(mut cluster: Cluster) {
    use tar::EntryType::{Link, Regular, Symlink};
    let shop = Shop::open(&mut cluster, &[]).await;
    shop.publish_text(&cluster, "i", "v1", "");
    let victim = cluster.base.join("victim");
    std::fs::write(&victim, "whole").unwrap();
    let victim_path = victim.to_str().unwrap().trim_start_matches('/').to_owned();
    let up = "../".repeat(12) + &victim_path;
    for (name, entries) in [
        ("dots", vec![(up.as_str(), Regular, "")]),
        ("hard", vec![("f", Link, up.as_str())]),
        ("through", vec![("d", Symlink, "/"), ("d/f", Link, victim_path.as_str())]),
    ] {
        publish_raw(&shop, name, &raw_tar(&entries));
        let image = shop.name(&format!("{name}:v1"));
        cluster.create_of_image(name, &image, "Always", "");
        let why = cluster.waiting(name, "ErrImagePull").await;
        assert!(why.starts_with(&format!("failed to pull and unpack image \"{image}\": ")), "{why}");
        cluster.event(name, "Warning", "Failed", C, &format!("Failed to pull image {image:?}: {why}")).await;
        cluster.waiting(name, "ImagePullBackOff").await;
    }
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "whole");
    cluster.create_of_image("good", &shop.name("i:v1"), "Always", "");
    cluster.running("good").await;
    for pod in ["dots", "hard", "through", "good"] {
        cluster.delete(pod).await;
    }
    cluster.end().await;
}

pub async fn no_entrypoint(mut cluster: Cluster) {
    let shop = Shop::open(&mut cluster, &[]).await;
    let dir = cluster.image_root("mute", &[]);
    shop.publish(&dir, "mute", "v1", ImageConfig::default());
    cluster.create_of_image("p", &shop.name("mute:v1"), "IfNotPresent", "");
    let why = cluster.waiting("p", "CreateContainerError").await;
    let ends = "\" spec: failed to generate spec: no command specified";
    assert!(why.starts_with("failed to generate container \"") && why.ends_with(ends), "{why}");
    let failed = cluster.event_says("p", "Failed", C).await;
    assert!(failed.starts_with("Error: failed to generate container \"") && failed.ends_with(ends), "{failed}");
    // A command that the image does not have.
    cluster.create(
        "q",
        &format!(
            r#""containers":[{{"name":"c","image":"{}","imagePullPolicy":"IfNotPresent","command":["/no/such"]}}]"#,
            shop.name("mute:v1")
        ),
    );
    let why = cluster.waiting("q", "RunContainerError").await;
    assert!(why.contains("no such file or directory"), "{why}");
    for pod in ["p", "q"] {
        cluster.delete(pod).await;
    }
    cluster.end().await;
}

/// Bytes of a line: a ten-gigabyte one goes the same way, piece by piece.
const LINE: u64 = 96 << 20;
/// What the log of a container may take (`containerLogMaxSize`, `containerLogMaxFiles`).
const LOGS_MAX: u64 = 5 * (10 << 20);

pub async fn log_line_without_end(cluster: Cluster) {
    neighbour(&cluster).await;
    cluster.create(
        "loud",
        &format!(
            r#""restartPolicy":"Never","containers":[{{"name":"c","image":"i","command":["sh","-c",
            "busybox head -c {LINE} /dev/zero | busybox tr '\\0' x; echo; echo end"]}}]"#
        ),
    );
    cluster.until("loud", "done", |pod| pod.str_at("status.phase") == "Succeeded").await;
    feels_nothing(&cluster).await;
    let dir = cluster.config.data_dir.join("pods/logs/default_loud_uid-loud/c");
    let files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap()).collect();
    let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(files.len() <= 5 && bytes <= LOGS_MAX + (1 << 20), "{} files of {bytes} bytes", files.len());
    // Each record is a piece of at most 16 KiB, marked as one that goes on.
    let log = std::fs::read_to_string(dir.join("0.log")).unwrap();
    let mut records = log.lines().rev();
    assert!(records.next().unwrap().ends_with(" stdout F end"));
    let longest = log.lines().map(str::len).max().unwrap();
    assert!(longest <= (16 << 10) + 64, "{longest}");
    assert!(log.lines().next().unwrap().contains(" stdout P x"), "{}", &log[..100]);
    for pod in ["loud", "neighbour"] {
        cluster.delete(pod).await;
    }
    cluster.end().await;
}

pub async fn fork_bomb(mut cluster: Cluster) {
    cluster.config.pod_pids_max = Some(64);
    cluster.restart_agent().await;
    neighbour(&cluster).await;
    cluster.create(
        "bomb",
        r#""containers":[{"name":"c","image":"i","command":["sh","-c","sh -c 'b() { b | b & }; b'; sleep 1000"]}]"#,
    );
    cluster.running("bomb").await;
    cluster.until_log_is("bomb", |said| said.contains("can't fork: Resource temporarily unavailable")).await;
    feels_nothing(&cluster).await;
    // The pod's limit is its own: another one starts.
    cluster.create("other", r#""containers":[{"name":"c","image":"i","command":["sleep","1000"]}]"#);
    cluster.running("other").await;
    let summary = corten_tree::json::parse(&cluster.get("/stats/summary", "").await).unwrap();
    let bomb = summary.list_at("pods").iter().find(|pod| pod.str_at("podRef.name") == "bomb").unwrap().clone();
    let count = bomb.i64_at("process_stats.process_count").unwrap();
    assert!((1..=64).contains(&count), "{bomb}");
    for pod in ["bomb", "other", "neighbour"] {
        cluster.delete(pod).await;
    }
    cluster.end().await;
}

pub async fn a_full_disk(mut cluster: Cluster) {
    let disk = Disk::mount(&mut cluster, 96).await;
    let shop = Shop::open(&mut cluster, &[]).await;
    shop.publish_text(&cluster, "i", "v1", "here\n");
    let app = shop.name("i:v1");
    cluster.create_of_image("neighbour", &app, "IfNotPresent", "");
    cluster.running("neighbour").await;
    cluster.create_of_image("writer", &app, "IfNotPresent", "");
    cluster.running("writer").await;
    // Directories still have room, an image has not.
    let script = "busybox dd if=/dev/zero of=/spare bs=1M count=2; busybox dd if=/dev/zero of=/fill bs=1M; busybox rm /spare; echo filled";
    let (_, out) = cluster.exec("writer", &["sh", "-c", script], "").await;
    assert!(out.contains("No space left on device") && out.contains("filled"), "{out}");
    assert!(disk.used_percent() >= 96, "{}", disk.used_percent());
    let dir = cluster.image_root("large", &[("data", &vec![1; 12 << 20])]);
    shop.publish(&dir, "large", "v1", shell("echo came; sleep 1000"));
    let large = shop.name("large:v1");
    cluster.create_of_image("late", &large, "Always", "");
    let why = cluster.waiting("late", "ErrImagePull").await;
    assert!(why.starts_with(&format!("failed to pull and unpack image \"{large}\": ")), "{why}");
    assert!(why.contains("no space left on device"), "{why}");
    // Who runs goes on running.
    assert_eq!(cluster.exec("neighbour", &["cat", "/text"], "").await, (0, "here\n".to_owned()));
    let pod = cluster.running("neighbour").await;
    assert_eq!(pod.list_at("status.containerStatuses")[0].i64_at("restartCount"), Some(0));
    // With the pod goes what it wrote, and the pull succeeds when its back-off is over.
    cluster.delete("writer").await;
    cluster.running("late").await;
    for pod in ["late", "neighbour"] {
        cluster.delete(pod).await;
    }
    disk.end(cluster).await;
}

/// What the node keeps for a pod has no place: the pod says so, and runs when it has.
pub async fn no_place_for_a_pod(cluster: Cluster) {
    neighbour(&cluster).await;
    let place = cluster.config.data_dir.join("pods/uid-p");
    std::fs::write(&place, "in the way").unwrap();
    cluster.create("p", r#""containers":[{"name":"c","image":"i","command":["sleep","1000"]}]"#);
    let told = cluster.first_event("Failed").await;
    assert!(told.starts_with("error making pod data directories: ") && told.contains("pods/uid-p"), "{told}");
    feels_nothing(&cluster).await;
    std::fs::remove_file(&place).unwrap();
    cluster.running("p").await;
    for pod in ["p", "neighbour"] {
        cluster.delete(pod).await;
    }
    cluster.end().await;
}

pub async fn missing_mount_source(cluster: Cluster) {
    neighbour(&cluster).await;
    let source = cluster.base.join("nowhere");
    let path = source.to_str().unwrap();
    let pod = |kind: &str, optional: bool| {
        format!(
            r#""containers":[{{"name":"c","image":"i","command":["sleep","1000"],"volumeMounts":[{{"name":"h","mountPath":"/h"}}]}}],
            "volumes":[{{"name":"h","hostPath":{{"path":"{path}","type":"{kind}"}}}},
            {{"name":"m","configMap":{{"name":"missing","optional":{optional}}}}}]"#
        )
    };
    cluster.create("both", &pod("Directory", false));
    // All that is wrong is told at once.
    let told = "MountVolume.SetUp failed for volume \"m\" : configmap \"missing\" not found";
    cluster.event("both", "Warning", "FailedMount", "", told).await;
    cluster.delete("both").await;
    cluster.create("p", &pod("Directory", true));
    let begins = "MountVolume.SetUp failed for volume \"h\" : hostPath type check failed";
    let told = cluster.event_says("p", "FailedMount", "").await;
    assert!(told.starts_with(begins) && told.contains(path), "{told}");
    let found = cluster.api.find(&Cluster::key("p")).unwrap().to_tree();
    let state = found.list_at("status.containerStatuses")[0].str_at("state.waiting.reason").to_owned();
    assert_eq!([found.str_at("status.phase"), state.as_str()], ["Pending", "ContainerCreating"]);
    feels_nothing(&cluster).await;
    std::fs::create_dir(&source).unwrap();
    cluster.running("p").await;
    // Without a type nothing is checked: the runtime makes the directory, as containerd does.
    cluster.delete("p").await;
    std::fs::remove_dir(&source).unwrap();
    cluster.create("q", &pod("", true));
    cluster.running("q").await;
    assert!(source.is_dir());
    for pod in ["q", "neighbour"] {
        cluster.delete(pod).await;
    }
    cluster.end().await;
}

pub async fn probe_that_never_returns(cluster: Cluster) {
    neighbour(&cluster).await;
    cluster.create(
        "stuck",
        r#""containers":[{"name":"c","image":"i","command":["busybox","nc","-ll","-p","8080","-e","sleep","1000"],
        "readinessProbe":{"httpGet":{"path":"/","port":8080,"scheme":"HTTP"},"periodSeconds":1,"timeoutSeconds":1,"failureThreshold":1},
        "livenessProbe":{"exec":{"command":["sleep","1000"]},"periodSeconds":1,"timeoutSeconds":1,"failureThreshold":3}}]"#,
    );
    let told = "Liveness probe failed: command timed out: \"sleep 1000\" timed out after 1s";
    cluster.event("stuck", "Warning", "Unhealthy", C, told).await;
    let ip = cluster.running("stuck").await.str_at("status.podIP").to_owned();
    let told = format!(
        "Readiness probe failed: Get \"http://{ip}:8080/\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    );
    cluster.event("stuck", "Warning", "Unhealthy", C, &told).await;
    cluster.event("stuck", "Normal", "Killing", C, "Container c failed liveness probe, will be restarted").await;
    let again = |pod: &corten_tree::Tree| {
        pod.list_at("status.containerStatuses").first().is_some_and(|c| c.i64_at("restartCount") >= Some(1))
    };
    let pod = cluster.until("stuck", "restarted", again).await;
    assert!(!ready(&pod), "{pod}");
    feels_nothing(&cluster).await;
    for pod in ["stuck", "neighbour"] {
        cluster.delete(pod).await;
    }
    cluster.end().await;
}
