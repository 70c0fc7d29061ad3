//! Volumes, pressure and what the node says of its use.

use corten_client::{ExecExit, ExecRequest, PodTarget};
use corten_kinds::id;
use corten_node::EvictionSettings;
use corten_object::ObjectKey;
use corten_tree::Tree;

use crate::Cluster;
use crate::fake_api::FakeApi;

pub async fn evicts(mut cluster: Cluster) {
    let evicted = |pod: &Tree| pod.str_at("status.reason") == "Evicted";
    // emptyDir's sizeLimit.
    cluster.create(
        "big",
        r#""containers":[{"name":"c","image":"i","command":["sh","-c","busybox dd if=/dev/zero of=/e/f bs=1M count=3; sleep 1000"],
        "volumeMounts":[{"name":"e","mountPath":"/e"}]}],"volumes":[{"name":"e","emptyDir":{"sizeLimit":"1Mi"}}]"#,
    );
    let pod = cluster.until("big", "evicted for its volume", evicted).await;
    assert_eq!(pod.str_at("status.phase"), "Failed");
    assert_eq!(pod.str_at("status.message"), "Usage of EmptyDir volume \"e\" exceeds the limit \"1Mi\". ");
    // Limits of ephemeral-storage.
    cluster.create(
        "writer",
        r#""containers":[{"name":"c","image":"i","resources":{"limits":{"ephemeral-storage":"1Mi"}},
        "command":["sh","-c","busybox dd if=/dev/zero of=/tmp/f bs=1M count=3; sleep 1000"]}]"#,
    );
    let pod = cluster.until("writer", "evicted for its files", evicted).await;
    assert_eq!(
        pod.str_at("status.message"),
        "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "
    );
    // Node pressure: more memory is asked for than any machine has.
    cluster.create("p", r#""containers":[{"name":"c","image":"i","command":["sleep","1000"]}]"#);
    cluster.running("p").await;
    drop(cluster.stop_agent().await);
    cluster.config.eviction = EvictionSettings::parse("memory.available<1000Ti", "", "", "").unwrap();
    cluster.start_agent().await;
    let pod = cluster.until("p", "evicted for memory", evicted).await;
    let message = pod.str_at("status.message");
    assert!(
        message.starts_with("The node was low on resource: memory. Threshold quantity: 1000Ti, available: "),
        "{message}"
    );
    assert!(message.contains("Container c was using "), "{message}");
    let conditions = pod.list_at("status.conditions");
    let disrupted = conditions.iter().find(|c| c.str_at("type") == "DisruptionTarget").unwrap();
    assert_eq!((disrupted.str_at("status"), disrupted.str_at("reason")), ("True", "TerminationByKubelet"));
    let node = cluster.api.find(&ObjectKey::new(id::NODE, "", "n1")).unwrap().to_tree();
    let short = node.list_at("status.conditions").iter().find(|c| c.str_at("type") == "MemoryPressure").unwrap();
    assert_eq!((short.str_at("status"), short.str_at("reason")), ("True", "KubeletHasInsufficientMemory"));
    cluster.create("q", r#""containers":[{"name":"c","image":"i"}]"#);
    let pod = cluster.until("q", "refused", evicted).await;
    assert_eq!(pod.str_at("status.message"), "Pod was rejected: The node had condition: [MemoryPressure]. ");
    let events = cluster.events();
    assert_eq!(events["EvictionThresholdMet"], "Attempting to reclaim memory");
    assert_eq!(events["NodeHasInsufficientMemory"], "Node n1 status is now: NodeHasInsufficientMemory");
    for name in ["big", "writer", "p", "q"] {
        cluster.delete(name).await;
    }
    cluster.end().await;
}

pub async fn summary(cluster: Cluster) {
    cluster.create(
        "p",
        r#""containers":[{"name":"c","image":"i","command":["sh","-c","busybox dd if=/dev/zero of=/e/f bs=1M count=2; touch /tmp/f; sleep 1000"],
        "volumeMounts":[{"name":"e","mountPath":"/e"}]}],"volumes":[{"name":"e","emptyDir":{}}]"#,
    );
    cluster.running("p").await;
    cluster.until_content("p", "/tmp/f", "").await;
    let summary = corten_tree::json::parse(&cluster.get("/stats/summary", "").await).unwrap();
    for path in [
        "cpu.usageCoreNanoSeconds",
        "memory.availableBytes",
        "fs.capacityBytes",
        "runtime.imageFs.usedBytes",
        "rlimit.maxpid",
    ] {
        assert!(summary.i64_at(&format!("node.{path}")).unwrap() > 0, "{path}: {summary}");
    }
    let pod = &summary.list_at("pods")[0];
    assert_eq!((pod.str_at("podRef.name"), pod.str_at("podRef.uid")), ("p", "uid-p"));
    let container = &pod.list_at("containers")[0];
    assert!(
        container.i64_at("memory.workingSetBytes").unwrap() > 0 && container.i64_at("rootfs.usedBytes").unwrap() > 0
    );
    let volume = &pod.list_at("volume")[0];
    assert_eq!(volume.str_at("name"), "e");
    assert!(volume.i64_at("usedBytes").unwrap() >= 2 << 20, "{volume}");
    assert!(pod.i64_at("ephemeral-storage.usedBytes").unwrap() >= 2 << 20, "{pod}");
    assert_eq!(pod.list_at("network.interfaces").len(), 1, "{pod}");
    let little = corten_tree::json::parse(&cluster.get("/stats/summary", "only_cpu_and_memory=true").await).unwrap();
    assert!(little.path("node.fs").is_none() && little.path("node.cpu").is_some(), "{little}");
    cluster.delete("p").await;
    cluster.end().await;
}

pub async fn local_volumes(cluster: Cluster) {
    let put = |kind, namespace: &str, name: &str, json: String| {
        cluster.api.put(&ObjectKey::new(kind, namespace, name), corten_tree::json::parse(json.as_bytes()).unwrap());
    };
    let path = cluster.config.data_dir.join("storage/v_default_c");
    let volume = |phase: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"PersistentVolume","metadata":{{"name":"v","uid":"v1","annotations":{{
            "pv.kubernetes.io/provisioned-by":"corten.dev/local-path"}}}},"spec":{{"local":{{"path":"{}"}},
            "persistentVolumeReclaimPolicy":"Delete","nodeAffinity":{{"required":{{"nodeSelectorTerms":[{{"matchExpressions":
            [{{"key":"kubernetes.io/hostname","operator":"In","values":["n1"]}}]}}]}}}}}},"status":{{"phase":"{phase}"}}}}"#,
            path.display()
        )
    };
    put(id::PERSISTENT_VOLUME, "", "v", volume("Bound"));
    let claim = r#"{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"c","namespace":"default"},
        "spec":{"volumeName":"v"},"status":{"phase":"Bound"}}"#;
    put(id::PERSISTENT_VOLUME_CLAIM, "default", "c", claim.into());
    cluster.create(
        "p",
        r#""containers":[{"name":"c","image":"i","command":["sh","-c","echo kept > /v/f; sleep 1000"],
        "volumeMounts":[{"name":"v","mountPath":"/v"}]}],"volumes":[{"name":"v","persistentVolumeClaim":{"claimName":"c"}}]"#,
    );
    cluster.running("p").await;
    cluster.until_content("p", "/v/f", "kept\n").await;
    let summary = corten_tree::json::parse(&cluster.get("/stats/summary", "").await).unwrap();
    let volume_stats = &summary.list_at("pods")[0].list_at("volume")[0];
    assert_eq!([volume_stats.str_at("name"), volume_stats.str_at("pvcRef.name")], ["v", "c"], "{summary}");
    assert_eq!(volume_stats.str_at("pvcRef.namespace"), "default");
    let capacity = volume_stats.i64_at("capacityBytes").unwrap();
    assert!(volume_stats.i64_at("availableBytes").unwrap() < capacity, "{volume_stats}");
    let metrics = String::from_utf8(cluster.get("/metrics", "").await).unwrap();
    let labels = "namespace=\"default\",persistentvolumeclaim=\"c\"";
    assert!(metrics.contains(&format!("kubelet_volume_stats_capacity_bytes{{{labels}}} {capacity}\n")), "{metrics}");
    for name in ["available_bytes", "used_bytes", "inodes", "inodes_free", "inodes_used"] {
        assert!(metrics.contains(&format!("kubelet_volume_stats_{name}{{{labels}}} ")), "{metrics}");
    }
    cluster.delete("p").await;
    assert!(path.join("f").exists(), "the volume outlives its pod");
    // The claim is gone: the binder says so, and the node takes the directory away, then the volume.
    put(id::PERSISTENT_VOLUME, "", "v", volume("Released"));
    let gone = |api: &FakeApi| api.find(&ObjectKey::new(id::PERSISTENT_VOLUME, "", "v")).is_none().then_some(());
    cluster.api.until("volume deleted", gone).await;
    assert!(!path.exists());
    // Block mode: a file behind a loop device.
    let block = volume("Bound")
        .replace("/v_default_c", "/b_default_c")
        .replace("\"name\":\"v\",\"uid\":\"v1\"", "\"name\":\"b\",\"uid\":\"b1\"");
    let block = block.replace("\"spec\":{", "\"spec\":{\"volumeMode\":\"Block\",\"capacity\":{\"storage\":\"4Mi\"},");
    put(id::PERSISTENT_VOLUME, "", "b", block);
    let claim = r#"{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"b","namespace":"default"},
        "spec":{"volumeName":"b","volumeMode":"Block"},"status":{"phase":"Bound"}}"#;
    put(id::PERSISTENT_VOLUME_CLAIM, "default", "b", claim.into());
    cluster.create(
        "block",
        r#""containers":[{"name":"c","image":"i","command":["sh","-c","echo raw | busybox dd of=/dev/xvda conv=fsync; busybox stat -c %F /dev/xvda > /tmp/f; sleep 1000"],
        "volumeDevices":[{"name":"v","devicePath":"/dev/xvda"}]}],"volumes":[{"name":"v","persistentVolumeClaim":{"claimName":"b"}}]"#,
    );
    cluster.running("block").await;
    cluster.until_content("block", "/tmp/f", "block special file\n").await;
    cluster.delete("block").await;
    let image = cluster.config.data_dir.join("storage/b_default_c");
    let content = std::fs::read(&image).unwrap();
    assert_eq!((content.len(), &content[..4]), (4 << 20, &b"raw\n"[..]));
    let devices = std::fs::read_dir("/sys/block").unwrap().flatten().map(|e| e.path().join("loop/backing_file"));
    let backed: Vec<String> = devices.filter_map(|p| std::fs::read_to_string(p).ok()).collect();
    assert!(!backed.iter().any(|b| b.contains("b_default_c")), "{backed:?}");
    // A CSI volume says which driver is missing.
    cluster.create(
        "csi",
        r#""containers":[{"name":"c","image":"i"}],"volumes":[{"name":"v","csi":{"driver":"d.example.com"}}]"#,
    );
    let failed = |api: &FakeApi| {
        let events = api.all(id::EVENT);
        let found = events.iter().map(|o| o.to_tree()).find(|e| e.str_at("reason") == "FailedMount")?;
        Some(found.str_at("message").to_owned())
    };
    assert_eq!(
        cluster.api.until("mount failure", failed).await,
        "MountVolume.SetUp failed for volume \"v\" : kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: \
         driver name d.example.com not found in the list of registered CSI drivers"
    );
    cluster.delete("csi").await;
    cluster.end().await;
}

fn mount(arguments: &[&str]) {
    let done = std::process::Command::new(arguments[0]).args(&arguments[1..]).status().unwrap();
    assert!(done.success(), "{arguments:?}");
}

/// recursiveReadOnly and mountPropagation.
pub async fn mount_modes(cluster: Cluster) {
    let host = cluster.base.join("host");
    let path = |name: &str| host.join(name).to_string_lossy().into_owned();
    for dir in ["sub", "late", "up"] {
        std::fs::create_dir_all(host.join(dir)).unwrap();
    }
    let root = host.to_string_lossy().into_owned();
    mount(&["mount", "--bind", &root, &root]);
    mount(&["mount", "--make-shared", &root]);
    mount(&["mount", "-t", "tmpfs", "tmpfs", &path("sub")]);
    let container = |name: &str, mount: &str, more: &str| {
        format!(
            r#"{{"name":"{name}","image":"i","command":["sleep","1000"]{more},"volumeMounts":[{{"name":"h","mountPath":"/v"{mount}}}]}}"#
        )
    };
    let containers = [
        container("plain", r#","readOnly":true"#, ""),
        container("recursive", r#","readOnly":true,"recursiveReadOnly":"Enabled""#, ""),
        container("from-host", r#","mountPropagation":"HostToContainer""#, ""),
        container("both", r#","mountPropagation":"Bidirectional""#, r#","securityContext":{"privileged":true}"#),
    ];
    let spec = format!(
        r#""containers":[{}],"volumes":[{{"name":"h","hostPath":{{"path":"{root}","type":"Directory"}}}}]"#,
        containers.join(",")
    );
    cluster.create("p", &spec);
    cluster.running("p").await;
    cluster
        .until("p", "ready", |pod| pod.list_at("status.conditions").iter().all(|c| c.str_at("status") == "True"))
        .await;
    let code = async |container: &str, script: &str| {
        let target = PodTarget { namespace: "default".into(), pod: "p".into(), container: container.into() };
        let command = Some(["sh", "-c", script].map(String::from).into());
        let request = ExecRequest { target, command, stdout: true, ..ExecRequest::default() };
        match cluster.node().exec(request).await.unwrap().exit.await {
            ExecExit::Code(code) => code,
            ExecExit::Error(status) => panic!("{status}"),
        }
    };
    assert_ne!(code("plain", "touch /v/f").await, 0);
    assert_eq!(code("plain", "touch /v/sub/f").await, 0, "only the mount itself is read-only");
    assert_ne!(code("recursive", "touch /v/sub/g").await, 0);
    mount(&["mount", "-t", "tmpfs", "tmpfs", &path("late")]);
    std::fs::write(host.join("late/f"), "").unwrap();
    assert_eq!(code("from-host", "test -e /v/late/f").await, 0);
    assert_ne!(code("plain", "test -e /v/late/f").await, 0, "private");
    assert_eq!(code("both", "busybox mount -t tmpfs tmpfs /v/up && touch /v/up/f").await, 0);
    assert!(host.join("up/f").exists(), "what the container mounts comes to the host");
    cluster.delete("p").await;
    for dir in ["up", "late", "sub"] {
        mount(&["umount", &path(dir)]);
    }
    mount(&["umount", &root]);
    cluster.end().await;
}
