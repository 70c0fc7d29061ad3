//! An agent with real containers on the real kernel, against an API in memory.
//!
//! Needs root and a static busybox (Debian: `busybox-static`). The test binary is its own shim, so it has its own main. Run one
//! test with `cargo test -p corten-node --test agent NAME`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod bad_input;
mod fake_api;
mod hooks;
mod image_volumes;
mod node;
mod probes;
mod pulls;
mod registry;
mod resize;
mod shutdown;
mod static_pods;
mod storage;
mod users;
mod watching;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use corten_base::Tasks;
use corten_client::{ExecExit, ExecRequest, LogRequest, NodeApi, PodTarget, PortForwardRequest};
use corten_kinds::id;
use corten_node::{Agent, Apis, Config, DirectoryImages, EvictionSettings, ImagePolicy, ImageSource, ShutdownPeriods};
use corten_object::ObjectKey;
use corten_testkit::choice::Choice;
use corten_tree::Tree;
use futures::{FutureExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use bad_input::{
    a_full_disk, fork_bomb, hostile_layer, log_line_without_end, missing_mount_source, no_entrypoint,
    no_place_for_a_pod, probe_that_never_returns,
};
use fake_api::FakeApi;
use hooks::{hooks_and_stop_signal, http_get_hooks};
use image_volumes::{eviction_takes_images_first, image_gc, image_volumes};
use node::node_events;
use probes::{probes_that_cannot_be_asked, ready_before_the_next_probe, replacing_is_one_change};
use pulls::{
    image_digests, image_mirrors, image_pull_back_off, image_pull_policies, image_pull_progress, image_pull_secrets,
    image_pulls_resume,
};
use resize::resize_in_place;
use shutdown::shutdown_ends_pods_by_priority;
use static_pods::{
    static_pod_preempts, static_pods_and_mirrors, static_pods_before_the_first_status, static_pods_without_the_api,
};
use storage::{evicts, local_volumes, mount_modes, summary};
use users::{app_armor, host_users, host_users_have_bounds, huge_pages};

const BUSYBOX: &str = "/bin/busybox";

fn main() -> ExitCode {
    corten_runtime::dispatch();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--list") {
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() || !std::path::Path::new(BUSYBOX).exists() {
        println!("agent: not run: needs root and {BUSYBOX}");
        return if std::env::var_os("CORTEN_TEST_STRICT").is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    if std::env::var_os("CORTEN_TEST_LOG").is_some() {
        tracing_subscriber::fmt().with_env_filter("debug").init();
    }
    let choice = Choice::of(&arguments);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut failed = Vec::new();
    macro_rules! tests {
        ($($name:ident),* $(,)?) => {$(
            if choice.takes(stringify!($name)) {
                let run = async {
                    let (base, alive) = (Cluster::base(stringify!($name)), Alive::default());
                    let test = async { $name(Cluster::start(&base, alive.clone()).await).await };
                    let outcome = std::panic::AssertUnwindSafe(test).catch_unwind().await;
                    let clean = !base.exists();
                    let left = alive.lock().unwrap().take();
                    if let Some((tasks, api)) = left.filter(|_| outcome.is_err()) {
                        api.all(id::POD).iter().chain(&api.all(id::EVENT)).for_each(|o| println!("{}", o.to_tree()));
                        // An agent that a failed test has left would be in the way of the next one's.
                        println!("stopped: {}", tasks.stop(Duration::from_secs(10)).await);
                    }
                    clear(&base);
                    outcome.is_ok() && clean
                };
                let ok = runtime.block_on(run);
                println!("test {} ... {}", stringify!($name), if ok { "ok" } else { "FAILED" });
                if !ok {
                    failed.push(stringify!($name));
                }
            }
        )*};
    }
    tests![
        runs_and_is_deleted,
        node_events,
        survives_a_restart,
        logs_and_exec_right_after_a_start,
        probes_and_restarts,
        ready_before_the_next_probe,
        probes_that_cannot_be_asked,
        replacing_is_one_change,
        volumes_and_environment,
        refuses,
        runtime_class_handlers,
        services,
        evicts,
        summary,
        local_volumes,
        resize_in_place,
        mount_modes,
        hooks_and_stop_signal,
        http_get_hooks,
        host_users,
        host_users_have_bounds,
        app_armor,
        huge_pages,
        static_pods_and_mirrors,
        static_pods_without_the_api,
        static_pods_before_the_first_status,
        static_pod_preempts,
        shutdown_ends_pods_by_priority,
        image_pull_back_off,
        image_pull_secrets,
        image_pull_policies,
        image_pull_progress,
        image_pulls_resume,
        image_digests,
        image_mirrors,
        image_volumes,
        image_gc,
        eviction_takes_images_first,
        hostile_layer,
        no_entrypoint,
        log_line_without_end,
        fork_bomb,
        a_full_disk,
        no_place_for_a_pod,
        missing_mount_source,
        probe_that_never_returns
    ];
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The tasks of the agent that runs and its API, for who clears up after a test.
type Alive = Arc<std::sync::Mutex<Option<(Tasks, Arc<FakeApi>)>>>;

/// What a failed test has left.
fn clear(base: &std::path::Path) {
    if !base.exists() {
        return;
    }
    let cluster = format!("nt{}", std::process::id());
    let config = corten_runtime::RuntimeConfig {
        state_dir: base.join("run/runtime"),
        exe: std::env::current_exe().unwrap(),
        cgroup_root: format!("corten-{cluster}"),
    };
    let cleared = corten_runtime::Runtime::new(config).and_then(corten_runtime::Runtime::shutdown);
    println!("cleared: {cleared:?} {:?}", corten_net::teardown_all(&cluster, &base.join("run/net")));
    println!("cleared: {:?} {:?}", corten_volumes::unmount_below(base), std::fs::remove_dir_all(base));
}

struct Cluster {
    api: Arc<FakeApi>,
    base: PathBuf,
    config: Config,
    images: Arc<dyn ImageSource>,
    running: Option<(Agent, Tasks)>,
    alive: Alive,
}

impl Cluster {
    fn base(name: &str) -> PathBuf {
        PathBuf::from(format!("/tmp/corten-node-{}-{name}", std::process::id()))
    }

    async fn start(base: &std::path::Path, alive: Alive) -> Cluster {
        let base = base.to_owned();
        let root = base.join("rootfs");
        for dir in ["bin", "tmp", "etc"] {
            std::fs::create_dir_all(root.join(dir)).unwrap();
        }
        std::fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
        for applet in [
            "sh", "echo", "sleep", "cat", "env", "httpd", "nc", "wget", "touch", "test", "id", "ls", "true", "false",
            "nslookup",
        ] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let config = Config {
            node_name: "n1".into(),
            cluster: format!("nt{}", std::process::id()),
            data_dir: base.join("data"),
            run_dir: base.join("run"),
            exe: std::env::current_exe().unwrap(),
            node_ip: "127.0.0.1".parse().unwrap(),
            pod_cidr: ("10.201.7.0".parse().unwrap(), 24),
            cluster_cidr: ("10.201.0.0".parse().unwrap(), 16),
            service_cidr: ("10.202.0.0".parse().unwrap(), 16),
            cluster_dns: vec!["10.202.0.10".parse().unwrap()],
            cluster_domain: "cluster.local".into(),
            serve_services: true,
            dns_listen: vec![],
            pods_max: 110,
            labels: vec![],
            host_netns: None,
            pod_manifest_path: Some(base.join("manifests")),
            file_check: Duration::from_secs(3),
            shutdown: ShutdownPeriods::of_totals(20, 10),
            open_files: Some((600, 700)),
            // What the machine has left is not what is tested.
            eviction: EvictionSettings::parse("", "", "", "").unwrap(),
            pod_pids_max: None,
            images: ImagePolicy::default(),
        };
        let images = Arc::new(DirectoryImages { root: base.join("rootfs") });
        let mut cluster = Cluster { api: FakeApi::new(), base, config, images, running: None, alive };
        cluster.start_agent().await;
        cluster
    }

    async fn start_agent(&mut self) {
        let tasks = Tasks::tokio();
        let images = self.images.clone();
        let api = || self.api.clone();
        let apis = Apis { node: api(), services: api(), volumes: api() };
        *self.alive.lock().unwrap() = Some((tasks.clone(), self.api.clone()));
        let agent = Agent::start(self.config.clone(), apis, images, tasks.clone()).await.unwrap();
        self.running = Some((agent, tasks));
    }

    async fn stop_agent(&mut self) -> Agent {
        let (agent, tasks) = self.running.take().unwrap();
        assert!(tasks.stop(Duration::from_secs(10)).await);
        agent
    }

    fn node(&self) -> Arc<dyn NodeApi> {
        self.running.as_ref().unwrap().0.node_api()
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(id::POD, "default", name)
    }

    fn create(&self, name: &str, spec: &str) {
        let json = format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"default","uid":"uid-{name}","generation":1,
            "labels":{{"app":"x"}}}},"spec":{{"nodeName":"n1","restartPolicy":"Always","terminationGracePeriodSeconds":1,
            "dnsPolicy":"ClusterFirst",{spec}}}}}"#
        );
        self.api.put(&Cluster::key(name), corten_tree::json::parse(json.as_bytes()).unwrap());
    }

    async fn until(&self, name: &str, what: &str, check: impl Fn(&Tree) -> bool) -> Tree {
        let found = self.api.until(what, |api| {
            let tree = api.find(&Cluster::key(name))?.to_tree();
            check(&tree).then_some(tree)
        });
        found.await
    }

    async fn running(&self, name: &str) -> Tree {
        self.until(name, "running", |pod| pod.str_at("status.phase") == "Running").await
    }

    async fn log(&self, name: &str, follow: bool) -> String {
        let target = PodTarget { namespace: "default".into(), pod: name.into(), container: String::new() };
        let request = LogRequest { target, follow, ..LogRequest::default() };
        let mut stream = self.node().logs(request).await.unwrap();
        let mut out = String::new();
        while let Some(chunk) = stream.next().await {
            out += std::str::from_utf8(&chunk.unwrap()).unwrap();
        }
        out
    }

    async fn exec(&self, name: &str, command: &[&str], input: &str) -> (i32, String) {
        let target = PodTarget { namespace: "default".into(), pod: name.into(), container: "c".into() };
        let command = Some(command.iter().map(|c| (*c).to_owned()).collect());
        let (stdin, stdout, stderr) = (!input.is_empty(), true, true);
        let request = ExecRequest { target, command, stdin, stdout, stderr, tty: false };
        let mut session = self.node().exec(request).await.unwrap();
        if let Some(mut stdin) = session.stdin.take() {
            stdin.write_all(input.as_bytes()).await.unwrap();
        }
        let mut out = String::new();
        if let Some(mut stdout) = session.stdout.take() {
            stdout.read_to_string(&mut out).await.unwrap();
        }
        if let Some(mut stderr) = session.stderr.take() {
            stderr.read_to_string(&mut out).await.unwrap();
        }
        match session.exit.await {
            ExecExit::Code(code) => (code, out),
            ExecExit::Error(status) => panic!("{status}"),
        }
    }

    /// Looks into a file of a pod until it holds a text.
    async fn until_content(&self, name: &str, path: &str, wanted: &str) {
        let mut seen = String::new();
        for _ in 0..1000 {
            seen = self.exec(name, &["cat", path], "").await.1;
            if seen == wanted {
                return;
            }
        }
        assert_eq!(seen, wanted);
    }

    async fn delete(&self, name: &str) {
        use corten_client::{Api, DeleteOptions, Write, WriteOptions};
        let options = DeleteOptions { grace_seconds: Some(1), ..DeleteOptions::default() };
        let write = Write::Delete { key: Cluster::key(name), options };
        self.api.write(write, WriteOptions::default()).await.unwrap();
        self.api.until("deleted", |api| api.find(&Cluster::key(name)).is_none().then_some(())).await;
    }

    async fn end(mut self) {
        let agent = self.stop_agent().await;
        agent.teardown().await.unwrap();
        std::fs::remove_dir_all(&self.base).unwrap();
    }

    fn events(&self) -> BTreeMap<String, String> {
        let one = |o: Arc<corten_object::Object>| {
            let tree = o.to_tree();
            (tree.str_at("reason").to_owned(), tree.str_at("message").to_owned())
        };
        self.api.all(id::EVENT).into_iter().map(one).collect()
    }

    /// What an event with this reason says; waits for it: events are told after the status that they go with.
    async fn first_event(&self, reason: &str) -> String {
        let all = |api: &FakeApi| api.all(id::EVENT).into_iter().map(|event| event.to_tree()).collect::<Vec<_>>();
        let found = |api: &FakeApi| all(api).into_iter().find(|event| event.str_at("reason") == reason);
        self.api.until(reason, found).await.str_at("message").to_owned()
    }
}

fn container_id(pod: &Tree) -> String {
    pod.list_at("status.containerStatuses")[0].str_at("containerID").to_owned()
}

async fn runs_and_is_deleted(cluster: Cluster) {
    cluster.create(
        "p",
        r#""containers":[{"name":"c","image":"i","command":["sh","-c","trap 'echo bye; exit 0' TERM; echo hello; while true; do sleep 0.1; done"]}]"#,
    );
    let pod = cluster.running("p").await;
    assert!(pod.str_at("status.podIP").starts_with("10.201.7."), "{pod}");
    cluster
        .until("p", "ready", |pod| pod.list_at("status.conditions").iter().all(|c| c.str_at("status") == "True"))
        .await;
    let (code, out) = cluster.exec("p", &["sh", "-c", "cat; echo $HOSTNAME; exit 3"], "input\n").await;
    assert_eq!((code, out.as_str()), (3, "input\np\n"));
    let (_, limits) = cluster.exec("p", &["sh", "-c", "ulimit -n; ulimit -Hn"], "").await;
    assert_eq!(limits, "600\n700\n");
    let (code, _) = cluster.exec("p", &["nothing-like-this"], "").await;
    assert_eq!(code, 127);
    cluster.create("cat", r#""containers":[{"name":"c","image":"i","command":["cat"],"stdin":true,"stdinOnce":true}]"#);
    cluster.running("cat").await;
    let target = PodTarget { namespace: "default".into(), pod: "cat".into(), container: String::new() };
    let request = ExecRequest { target, stdin: true, stdout: true, ..ExecRequest::default() };
    let mut session = cluster.node().exec(request).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"through\n").await.unwrap();
    drop(stdin);
    let mut echoed = String::new();
    session.stdout.take().unwrap().read_to_string(&mut echoed).await.unwrap();
    assert_eq!(echoed, "through\n");
    assert!(matches!(session.exit.await, ExecExit::Code(0)));
    cluster.delete("cat").await;
    let following = cluster.log("p", true);
    let deleting = cluster.delete("p");
    let (log, ()) = futures::future::join(following, deleting).await;
    assert_eq!(log, "hello\nbye\n");
    let node = cluster.api.find(&ObjectKey::new(id::NODE, "", "n1")).unwrap().to_tree();
    assert_eq!(node.str_at("status.nodeInfo.kubeletVersion"), "v1.37.2+corten.0");
    assert!(cluster.api.find(&ObjectKey::new(id::LEASE, "kube-node-lease", "n1")).is_some());
    let events = cluster.events();
    for reason in ["Pulled", "Created", "Started", "Killing"] {
        assert!(events.contains_key(reason), "{events:?}");
    }
    cluster.end().await;
}

async fn survives_a_restart(mut cluster: Cluster) {
    cluster.create("p", r#""containers":[{"name":"c","image":"i","command":["sleep","1000"]}]"#);
    let before = container_id(&cluster.running("p").await);
    let old = cluster.stop_agent().await;
    assert_eq!(old.running().unwrap(), 1);
    drop(old);
    cluster.start_agent().await;
    assert_eq!(cluster.exec("p", &["true"], "").await.0, 0);
    let pod = cluster.running("p").await;
    assert_eq!(container_id(&pod), before);
    assert_eq!(pod.list_at("status.containerStatuses")[0].i64_at("restartCount"), Some(0));
    // A deleted pod's containers go, even if the agent was not there when it was deleted.
    let old = cluster.stop_agent().await;
    cluster.api.put(&Cluster::key("p"), cluster.api.find(&Cluster::key("p")).unwrap().to_tree());
    drop(old);
    cluster.start_agent().await;
    cluster.delete("p").await;
    cluster.end().await;
}

/// Who asks before the agent has listed its pods gets his answer when it has, not that there is no such pod.
async fn logs_and_exec_right_after_a_start(mut cluster: Cluster) {
    cluster.create("p", r#""containers":[{"name":"c","image":"i","command":["sh","-c","echo hello; sleep 1000"]}]"#);
    cluster.running("p").await;
    cluster.until_log("p", "hello\n").await;
    drop(cluster.stop_agent().await);
    cluster.api.away.store(true, std::sync::atomic::Ordering::SeqCst);
    cluster.start_agent().await;
    {
        let answers = futures::future::join(cluster.log("p", false), cluster.exec("p", &["echo", "there"], ""));
        futures::pin_mut!(answers);
        assert!(futures::poll!(&mut answers).is_pending(), "the API answers nobody");
        cluster.api.away.store(false, std::sync::atomic::Ordering::SeqCst);
        let (log, (code, out)) = answers.await;
        assert_eq!((log.as_str(), code, out.as_str()), ("hello\n", 0, "there\n"));
    }
    let target = PodTarget { namespace: "default".into(), pod: "nobody".into(), container: String::new() };
    let refused = cluster.node().logs(LogRequest { target, ..LogRequest::default() }).await.err().unwrap();
    assert!(refused.is_not_found(), "{refused}");
    cluster.delete("p").await;
    cluster.end().await;
}

async fn probes_and_restarts(cluster: Cluster) {
    cluster.create(
        "p",
        r#""containers":[{"name":"c","image":"i","command":["sh","-c","mkdir -p /tmp/w; httpd -p 8080 -h /tmp; touch /tmp/live; sleep 1000"],
        "livenessProbe":{"exec":{"command":["test","-e","/tmp/live"]},"periodSeconds":1,"failureThreshold":1,"timeoutSeconds":2},
        "readinessProbe":{"httpGet":{"path":"/ready","port":8080,"scheme":"HTTP"},"periodSeconds":1,"failureThreshold":1,"timeoutSeconds":1}}]"#,
    );
    cluster.running("p").await;
    let ready = |pod: &Tree| pod.list_at("status.containerStatuses").first().is_some_and(|c| c.bool_at("ready"));
    assert!(!ready(&cluster.running("p").await));
    cluster.exec("p", &["touch", "/tmp/ready"], "").await;
    cluster.until("p", "ready", |pod| ready(pod)).await;
    let stream = PortForwardRequest { namespace: "default".into(), pod: "p".into(), port: 8080 };
    let mut stream = cluster.node().port_forward(stream).await.unwrap();
    stream.write_all(b"GET /live HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains(" 200 OK"), "{answer}");
    cluster.exec("p", &["sh", "-c", "busybox rm /tmp/live"], "").await;
    let pod = cluster
        .until("p", "restarted", |pod| {
            pod.list_at("status.containerStatuses").first().is_some_and(|c| c.i64_at("restartCount") == Some(1))
        })
        .await;
    assert!(pod.list_at("status.containerStatuses")[0].path("lastState.terminated").is_some(), "{pod}");
    let events = cluster.events();
    assert_eq!(events["Killing"], "Container c failed liveness probe, will be restarted");
    cluster.create(
        "crash",
        r#""containers":[{"name":"c","image":"i","command":["sh","-c","echo -n why > /dev/termination-log; exit 4"]}]"#,
    );
    let crashed = |pod: &Tree| {
        let status = pod.list_at("status.containerStatuses").first().cloned().unwrap_or_default();
        status.str_at("state.waiting.reason") == "CrashLoopBackOff"
    };
    let pod = cluster.until("crash", "crash loop", crashed).await;
    let status = &pod.list_at("status.containerStatuses")[0];
    assert_eq!(status.str_at("lastState.terminated.message"), "why");
    assert_eq!(status.i64_at("lastState.terminated.exitCode"), Some(4));
    cluster.delete("crash").await;
    cluster.delete("p").await;
    cluster.end().await;
}

async fn volumes_and_environment(cluster: Cluster) {
    let map =
        corten_tree::json::parse(br#"{"metadata":{"name":"m","namespace":"default"},"data":{"k":"one"}}"#).unwrap();
    let map_key = ObjectKey::new(id::CONFIG_MAP, "default", "m");
    cluster.create(
        "p",
        r#""securityContext":{"runAsUser":1000,"runAsGroup":1000,"fsGroup":2000,"seLinuxOptions":{"level":"s0:c0,c1"}},
        "initContainers":[{"name":"i","image":"i","command":["sh","-c","echo from init > /shared/x; echo \"F='left by init'\" > /shared/env"],"volumeMounts":[{"name":"e","mountPath":"/shared"}]}],
        "containers":[{"name":"c","image":"i","command":["sh","-c","cat /shared/x /cfg/k /token/token; echo; echo $K $POD $F $(id -u) $(id -G); sleep 1000"],
        "env":[{"name":"K","valueFrom":{"configMapKeyRef":{"name":"m","key":"k"}}},{"name":"POD","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}},
        {"name":"F","valueFrom":{"fileKeyRef":{"volumeName":"e","path":"env","key":"F"}}}],
        "volumeMounts":[{"name":"e","mountPath":"/shared"},{"name":"c","mountPath":"/cfg"},{"name":"t","mountPath":"/token"},
        {"name":"mem","mountPath":"/mem"},{"name":"e","mountPath":"/sub","subPath":"a/b"},{"name":"d","mountPath":"/told"},{"name":"s","mountPath":"/short"}]}],
        "volumes":[{"name":"e","emptyDir":{}},{"name":"mem","emptyDir":{"medium":"Memory"}},{"name":"c","configMap":{"name":"m"}},
        {"name":"d","downwardAPI":{"items":[{"path":"labels","fieldRef":{"fieldPath":"metadata.labels"}}]}},
        {"name":"t","projected":{"sources":[{"serviceAccountToken":{"path":"token","expirationSeconds":3607}}]}},
        {"name":"s","projected":{"sources":[{"serviceAccountToken":{"path":"token","expirationSeconds":5}}]}}]"#,
    );
    let why = cluster.first_event("FailedMount").await;
    assert_eq!(why, "MountVolume.SetUp failed for volume \"c\" : configmap \"m\" not found");
    cluster.api.put(&map_key, map.clone());
    cluster.running("p").await;
    let (_, out) = cluster.exec("p", &["sh", "-c", "touch /sub/f; ls /shared/a/b; touch /mem/x; id -u"], "").await;
    assert_eq!(out, "f\n1000\n");
    let log = cluster.log("p", false).await;
    assert_eq!(log, "from init\nonea-token\none p left by init 1000 1000 2000\n");
    let mut changed = map;
    changed.set("data.k", "two");
    cluster.api.put(&map_key, changed);
    cluster.until_content("p", "/cfg/k", "two").await;
    // downwardAPI: what changes of the pod itself comes in without any other event.
    cluster.until_content("p", "/told/labels", "app=\"x\"").await;
    let mut relabelled = cluster.api.find(&Cluster::key("p")).unwrap().to_tree();
    relabelled.set("metadata.labels.app", "y");
    cluster.api.put(&Cluster::key("p"), relabelled);
    cluster.until_content("p", "/told/labels", "app=\"y\"").await;
    // A token that lasts 5 s is rotated after 4.
    let first = cluster.exec("p", &["cat", "/short/token"], "").await.1;
    let mut rotated = first.clone();
    let began = std::time::Instant::now();
    while rotated == first && began.elapsed() < Duration::from_secs(20) {
        rotated = cluster.exec("p", &["cat", "/short/token"], "").await.1;
    }
    assert!(rotated != first && rotated.ends_with("-token"), "{first} {rotated}");
    assert_eq!(cluster.exec("p", &["cat", "/token/token"], "").await.1, "a-token", "the other is fresh");
    cluster.delete("p").await;
    cluster.end().await;
}

async fn refuses(cluster: Cluster) {
    cluster.create("p", r#""os":{"name":"windows"},"containers":[{"name":"c","image":"i"}]"#);
    let pod = cluster.until("p", "failed", |pod| pod.str_at("status.phase") == "Failed").await;
    assert_eq!(pod.str_at("status.message"), "Pod was rejected: spec.os.name: this node runs Linux");
    cluster.create("q", r#""containers":[{"name":"c","image":"missing"}]"#);
    let reason = |pod: &Tree, wanted: &str| {
        let status = pod.list_at("status.containerStatuses").first().cloned().unwrap_or_default();
        status.str_at("state.waiting.reason") == wanted
    };
    cluster.until("q", "pull error", |pod| reason(pod, "ErrImagePull")).await;
    cluster.until("q", "back-off", |pod| reason(pod, "ImagePullBackOff")).await;
    cluster.delete("q").await;
    cluster.delete("p").await;
    cluster.end().await;
}

/// A class's handler must be the built-in runtime; else the pod says so and waits, until its class changes.
async fn runtime_class_handlers(cluster: Cluster) {
    let class = |name: &str, handler: &str| {
        let json = format!(r#"{{"metadata":{{"name":"{name}"}},"handler":"{handler}"}}"#);
        let key = ObjectKey::new(id::RUNTIME_CLASS, "", name);
        cluster.api.put(&key, corten_tree::json::parse(json.as_bytes()).unwrap());
    };
    let create = |pod: &str, class: &str| {
        let container = r#""containers":[{"name":"c","image":"i","command":["sleep","1000"]}]"#;
        cluster.create(pod, &format!(r#""runtimeClassName":"{class}",{container}"#));
    };
    class("ours", "corten");
    class("usual", "runc");
    class("other", "kata");
    for (pod, of) in [("p", "ours"), ("q", "usual"), ("r", "other"), ("s", "missing")] {
        create(pod, of);
    }
    cluster.running("p").await;
    cluster.running("q").await;
    for wanted in [
        r#"Failed to create pod sandbox: failed to get sandbox runtime: no runtime for "kata" is configured"#,
        r#"Failed to create pod sandbox: runtimeclass.node.k8s.io "missing" not found"#,
    ] {
        let told = cluster.api.until(wanted, |api| {
            let events = api.all(id::EVENT);
            events.iter().map(|e| e.to_tree()).find(|e| e.str_at("message") == wanted)
        });
        assert_eq!(told.await.str_at("reason"), "FailedCreatePodSandBox");
    }
    let waiting = cluster.api.find(&Cluster::key("r")).unwrap().to_tree();
    assert_eq!(waiting.str_at("status.phase"), "Pending");
    class("other", "corten");
    cluster.running("r").await;
    let node = cluster.api.find(&ObjectKey::new(id::NODE, "", "n1")).unwrap().to_tree();
    let handlers: Vec<&str> = node.list_at("status.runtimeHandlers").iter().map(|h| h.str_at("name")).collect();
    assert_eq!(handlers, ["", "corten", "runc"]);
    for pod in ["p", "q", "r", "s"] {
        cluster.delete(pod).await;
    }
    cluster.end().await;
}

async fn services(cluster: Cluster) {
    cluster.create("p", r#""containers":[{"name":"c","image":"i","command":["sh","-c","echo ok > /tmp/index.html; httpd -f -p 8080 -h /tmp"]}]"#);
    let pod = cluster.running("p").await;
    let put = |kind, name: &str, json: String| {
        cluster.api.put(&ObjectKey::new(kind, "default", name), corten_tree::json::parse(json.as_bytes()).unwrap());
    };
    put(
        id::SERVICE,
        "s",
        r#"{"metadata":{"name":"s","namespace":"default"},"spec":{"type":"ClusterIP","clusterIP":"10.202.0.77","clusterIPs":["10.202.0.77"],
        "ports":[{"port":80,"protocol":"TCP","targetPort":8080}]}}"#
            .into(),
    );
    put(
        id::ENDPOINT_SLICE,
        "s-1",
        format!(
            r#"{{"metadata":{{"name":"s-1","namespace":"default","labels":{{"kubernetes.io/service-name":"s"}}}},"addressType":"IPv4",
            "endpoints":[{{"addresses":["{}"],"conditions":{{"ready":true}},"nodeName":"n1"}}],"ports":[{{"name":"","port":8080,"protocol":"TCP"}}]}}"#,
            pod.str_at("status.podIP")
        ),
    );
    put(
        id::SERVICE,
        "dns",
        r#"{"metadata":{"name":"dns","namespace":"default"},"spec":{"type":"ClusterIP","clusterIP":"10.202.0.10","clusterIPs":["10.202.0.10"],
        "ports":[{"name":"dns","port":53,"protocol":"UDP","targetPort":53}]}}"#
            .into(),
    );
    put(
        id::ENDPOINT_SLICE,
        "dns-1",
        r#"{"metadata":{"name":"dns-1","namespace":"default","labels":{"kubernetes.io/service-name":"dns"}},"addressType":"IPv4",
        "endpoints":[{"addresses":["10.201.7.1"],"conditions":{"ready":true}}],"ports":[{"name":"dns","port":53,"protocol":"UDP"}]}"#
            .into(),
    );
    cluster.create("client", r#""containers":[{"name":"c","image":"i","command":["sleep","1000"]}]"#);
    cluster.running("client").await;
    let mut out = String::new();
    for _ in 0..100 {
        out = cluster.exec("client", &["sh", "-c", "echo 'GET / HTTP/1.0\n' | nc -w 2 10.202.0.77 80"], "").await.1;
        if out.contains("200 OK") {
            break;
        }
    }
    assert!(out.ends_with("\r\n\r\nok\n"), "{out}");
    let (_, answer) = cluster.exec("client", &["nslookup", "-type=a", "s.default.svc.cluster.local"], "").await;
    assert!(answer.contains("Address: 10.202.0.77"), "{answer}");
    cluster.delete("client").await;
    cluster.delete("p").await;
    cluster.end().await;
}
