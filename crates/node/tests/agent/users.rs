//! Pods with users of their own, AppArmor, huge pages: what depends on the kernel.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use corten_kinds::id;
use corten_object::ObjectKey;

use crate::Cluster;
use crate::fake_api::FakeApi;

fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Waits for an event that says something. Unlike a status, it stays.
async fn told(cluster: &Cluster, what: &str) {
    let said = |api: &FakeApi| {
        let mut events = api.all(id::EVENT).into_iter().map(|event| event.to_tree());
        events.any(|event| event.str_at("message").contains(what)).then_some(())
    };
    cluster.api.until(what, said).await;
}

/// `hostUsers: false`: volumes of all sorts, fsGroup, further processes, a restart of the agent.
pub async fn host_users(mut cluster: Cluster) {
    // Memory takes mapped owners since 6.3.
    let in_memory = kernel() >= (6, 3);
    let medium = if in_memory { r#""medium":"Memory""# } else { "" };
    let host = cluster.base.join("host");
    std::fs::create_dir_all(&host).unwrap();
    std::fs::write(host.join("f"), "of the host\n").unwrap();
    let spec = format!(
        r#""hostUsers":false,"securityContext":{{"fsGroup":2000}},"containers":[
        {{"name":"c","image":"i","command":["sh","-c","echo a > /e/f; echo b > /m/f; echo c > /etc/f; sleep 1000"],"volumeMounts":[
        {{"name":"e","mountPath":"/e"}},{{"name":"m","mountPath":"/m"}},{{"name":"d","mountPath":"/d"}},{{"name":"h","mountPath":"/h"}}]}},
        {{"name":"other","image":"i","command":["sh","-c","id -u > /e/who; echo $(cat /d/name) >> /e/who; sleep 1000"],
        "securityContext":{{"runAsUser":1000,"runAsGroup":1000}},"volumeMounts":[{{"name":"e","mountPath":"/e"}},{{"name":"d","mountPath":"/d"}}]}}],
        "volumes":[{{"name":"e","emptyDir":{{}}}},{{"name":"m","emptyDir":{{{medium}}}}},{{"name":"h","hostPath":{{"path":"{}"}}}},
        {{"name":"d","downwardAPI":{{"items":[{{"path":"name","fieldRef":{{"fieldPath":"metadata.name"}}}}]}}}}]"#,
        host.display()
    );
    cluster.create("p", &spec);
    cluster.create("q", r#""hostUsers":false,"containers":[{"name":"c","image":"i","command":["sleep","1000"]}]"#);
    cluster.running("p").await;
    cluster.running("q").await;
    cluster.until_content("p", "/e/who", "1000\np\n").await;
    let (code, map) = cluster.exec("p", &["cat", "/proc/self/uid_map"], "").await;
    let numbers: Vec<u32> = map.split_whitespace().map(|n| n.parse().unwrap()).collect();
    let [0, first, 65536] = numbers[..] else { panic!("{code} {map}") };
    assert!(first >= 65536 && first % 65536 == 0, "{first}");
    let other = cluster.exec("q", &["cat", "/proc/self/uid_map"], "").await.1;
    assert_ne!(other, map, "each pod has its own");
    // Owners inside, and what they are on the host.
    let script = "busybox stat -c %u:%g /e/f /e/who /m/f /etc/f /etc/hosts /etc/hostname /d/name /h/f; cat /h/f; id -u";
    let out = cluster.exec("p", &["sh", "-c", script], "").await.1;
    assert_eq!(out, "0:2000\n1000:2000\n0:2000\n0:0\n0:0\n0:0\n0:2000\n0:0\nof the host\n0\n");
    let pod = cluster.config.data_dir.join("pods/uid-p");
    let owner = |path: &Path| std::fs::metadata(path).unwrap().uid();
    assert_eq!(owner(&pod.join("containers/c/0.root/etc/f")), first, "root in the container is nobody on the host");
    assert_eq!(owner(&pod.join("volumes/e/f")), 0);
    // The mapping is the kubelet's file, and outlives the agent as the containers do.
    let file = std::fs::read_to_string(pod.join("userns")).unwrap();
    assert!(file.contains(&format!("\"hostId\":{first}")), "{file}");
    drop(cluster.stop_agent().await);
    cluster.start_agent().await;
    assert_eq!(cluster.exec("p", &["cat", "/proc/self/uid_map"], "").await.1, map);
    let node = cluster.api.find(&ObjectKey::new(id::NODE, "", "n1")).unwrap().to_tree();
    assert!(node.list_at("status.runtimeHandlers")[0].bool_at("features.userNamespaces"), "{node}");
    for name in ["p", "q"] {
        cluster.delete(name).await;
    }
    cluster.end().await;
}

/// What cannot be mapped is an error of the container that wants it, in the words of runc.
pub async fn host_users_have_bounds(cluster: Cluster) {
    cluster.create(
        "bad",
        r#""hostUsers":false,"containers":[{"name":"c","image":"i","volumeMounts":[{"name":"h","mountPath":"/h"}]}],
        "volumes":[{"name":"h","hostPath":{"path":"/proc/sys"}}]"#,
    );
    told(&cluster, "failed to set MOUNT_ATTR_IDMAP on /proc/sys: invalid argument").await;
    cluster.create(
        "far",
        r#""hostUsers":false,"containers":[{"name":"c","image":"i","securityContext":{"runAsUser":65536}}]"#,
    );
    told(&cluster, "cannot set uid to unmapped user in user namespace").await;
    cluster.delete("bad").await;
    cluster.delete("far").await;
    cluster.end().await;
}

pub async fn app_armor(cluster: Cluster) {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|e| e.trim() == "Y");
    cluster.create(
        "p",
        r#""containers":[{"name":"c","image":"i","command":["sleep","1000"],"securityContext":{"appArmorProfile":{
        "type":"Localhost","localhostProfile":"not-loaded"}}}]"#,
    );
    if enabled {
        // A profile that is not loaded is no profile at all: the container does not start.
        told(&cluster, "apply the AppArmor profile \"not-loaded\"").await;
    } else {
        let pod = cluster.until("p", "refused", |pod| pod.str_at("status.phase") == "Failed").await;
        assert_eq!(pod.str_at("status.reason"), "AppArmor");
        let why = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
        assert_eq!(pod.str_at("status.message"), format!("Pod was rejected: {why}"));
        assert_eq!(cluster.first_event("AppArmor").await, why);
    }
    cluster.create(
        "q",
        r#""securityContext":{"appArmorProfile":{"type":"Unconfined"}},"containers":[{"name":"c","image":"i","command":["sleep","1000"]}]"#,
    );
    cluster.running("q").await;
    cluster.delete("p").await;
    cluster.delete("q").await;
    cluster.end().await;
}

/// Sets pages aside and gives them back, also after a failure.
struct Pages(String);

const PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

impl Pages {
    fn take(count: u64) -> Option<Pages> {
        let before = std::fs::read_to_string(PAGES).ok()?;
        let wanted = before.trim().parse::<u64>().ok()? + count;
        std::fs::write(PAGES, wanted.to_string()).ok()?;
        let pages = Pages(before);
        (std::fs::read_to_string(PAGES).ok()?.trim().parse() == Ok(wanted)).then_some(pages)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let _ = std::fs::write(PAGES, self.0.trim());
    }
}

pub async fn huge_pages(mut cluster: Cluster) {
    let Some(_pages) = Pages::take(4) else {
        println!("huge_pages: not run: the kernel gives none");
        return cluster.end().await;
    };
    drop(cluster.stop_agent().await);
    cluster.start_agent().await;
    let counted = |api: &FakeApi| {
        let node = api.find(&ObjectKey::new(id::NODE, "", "n1"))?.to_tree();
        node.str_at("status.capacity.hugepages-2Mi").ends_with("Mi").then_some(())
    };
    cluster.api.until("huge pages in the node's capacity", counted).await;
    let limited = ["/sys/fs/cgroup/hugetlb", "/sys/fs/cgroup/cgroup.controllers"].iter().any(|path| {
        Path::new(path).is_dir()
            || std::fs::read_to_string(path).is_ok_and(|c| c.split_whitespace().any(|c| c == "hugetlb"))
    });
    let asks = r#""resources":{"requests":{"hugepages-2Mi":"4Mi","memory":"64Mi"},"limits":{"hugepages-2Mi":"4Mi","memory":"64Mi"}}"#;
    let spec = format!(
        r#""containers":[{{"name":"c","image":"i","command":["sleep","1000"],{asks},"volumeMounts":[{{"name":"h","mountPath":"/h"}}]}}],
        "volumes":[{{"name":"h","emptyDir":{{"medium":"HugePages-2Mi"}}}}]"#
    );
    cluster.create("p", &spec);
    if limited {
        cluster.running("p").await;
        let out = cluster.exec("p", &["sh", "-c", "busybox grep ' /h ' /proc/mounts; cat /sys/fs/cgroup/hugetlb*/hugetlb.2MB.limit_in_bytes /sys/fs/cgroup/hugetlb.2MB.max 2>/dev/null"], "").await.1;
        assert!(out.contains(" hugetlbfs ") && out.contains("pagesize=2M") && out.ends_with("4194304\n"), "{out}");
    } else {
        // A limit that cannot be set is an error.
        let failed = |api: &FakeApi| {
            let events = api.all(id::EVENT);
            let found = events.iter().map(|o| o.to_tree()).find(|e| e.str_at("reason") == "FailedCreatePodSandBox")?;
            Some(found.str_at("message").to_owned())
        };
        let message = cluster.api.until("no limit", failed).await;
        assert!(message.contains("a limit of huge pages of 2097152 bytes was asked for"), "{message}");
    }
    cluster.delete("p").await;
    cluster.end().await;
}
