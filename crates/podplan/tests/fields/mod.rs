//! One test per field of a pod whose effect is a plan or a status; what they prove is listed in `docs/checklist.md`.

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_podplan::{Action, NodeFacts, ProbeKind, env, hosts, plan, security};
use corten_tree::Tree;
use corten_views::{Container, Pod};

use super::{APP, Sim, summary};

impl Sim {
    /// The status as it is written now.
    fn status(&mut self) -> Tree {
        let facts = NodeFacts { host_ips: vec!["192.168.0.1".into()] };
        plan(&self.pod, &self.observed, &self.previous, &mut self.memory, &facts, self.now).status
    }

    fn summary(&mut self) -> String {
        summary(&self.status())
    }

    /// What would be done now, by name.
    fn actions(&mut self) -> Vec<String> {
        let facts = NodeFacts { host_ips: vec!["192.168.0.1".into()] };
        let plan = plan(&self.pod, &self.observed, &self.previous, &mut self.memory, &facts, self.now);
        let name = |action: Action| match action {
            Action::Start { container, .. } => Some(format!("start {container}")),
            Action::Kill { container, grace_seconds, .. } => Some(format!("kill {container} {grace_seconds}")),
            Action::TearDown => Some("tear down".to_owned()),
            _ => None,
        };
        plan.actions.into_iter().filter_map(name).collect()
    }

    /// Whether a probe of this kind is wanted for a container.
    fn wants(&mut self, container: &str, kind: ProbeKind) -> bool {
        let facts = NodeFacts { host_ips: vec!["192.168.0.1".into()] };
        let plan = plan(&self.pod, &self.observed, &self.previous, &mut self.memory, &facts, self.now);
        plan.probes.iter().any(|p| p.container == container && p.kind == kind)
    }
}

/// `type=status reason` of all conditions that are of the node.
fn conditions(status: &Tree) -> Vec<String> {
    let one =
        |c: &Tree| format!("{}={} {}", c.str_at("type"), c.str_at("status"), c.str_at("reason")).trim_end().into();
    status.list_at("conditions").iter().map(one).collect()
}

#[test]
fn restart_policy_of_the_pod() {
    for (policy, code, phase, goes_on) in [
        ("Always", 0, "Running", true),
        ("Always", 1, "Running", true),
        ("OnFailure", 0, "Succeeded", false),
        ("OnFailure", 1, "Running", true),
        ("Never", 0, "Succeeded", false),
        ("Never", 1, "Failed", false),
    ] {
        let mut sim = Sim::new(APP);
        sim.pod.spec.restart_policy = policy.into();
        sim.settle().exit("c", code);
        let actions = sim.actions();
        assert_eq!(
            actions.contains(&"start c".to_owned()),
            goes_on,
            "restartPolicy {policy}, exit {code}: {actions:?}"
        );
        assert_eq!(sim.settle().status().str_at("phase"), phase, "restartPolicy {policy}, exit {code}");
    }
}

#[test]
fn restart_policy_of_a_container_and_its_rules() {
    let rules = r#""restartPolicy":"Never","restartPolicyRules":[{"action":"Restart","exitCodes":{"operator":"In","values":[42]}}]"#;
    let not_in = r#""restartPolicy":"Never","restartPolicyRules":[{"action":"Restart","exitCodes":{"operator":"NotIn","values":[1]}}]"#;
    for (pod, container, code, goes_on) in [
        ("Always", r#""restartPolicy":"Never""#, 1, false),
        ("Never", r#""restartPolicy":"Always""#, 0, true),
        ("Never", r#""restartPolicy":"OnFailure""#, 1, true),
        ("Never", r#""restartPolicy":"OnFailure""#, 0, false),
        ("Never", rules, 42, true),
        ("Never", rules, 1, false),
        ("Never", not_in, 2, true),
        ("Never", not_in, 1, false),
    ] {
        let mut sim = Sim::new(&format!(r#""containers":[{{"name":"c","image":"i",{container}}}]"#));
        sim.pod.spec.restart_policy = pod.into();
        sim.settle().exit("c", code);
        let actions = sim.actions();
        assert_eq!(actions.contains(&"start c".to_owned()), goes_on, "{pod} {container} {code}: {actions:?}");
    }
}

#[test]
fn init_containers_run_in_order_and_are_retried_by_restart_policy() {
    let spec = r#""initContainers":[{"name":"a","image":"i"},{"name":"b","image":"i"}],"containers":[{"name":"c","image":"i"}]"#;
    let mut sim = Sim::new(spec);
    sim.settle();
    assert_eq!(sim.actions(), [""; 0], "b waits for a");
    sim.exit("a", 1).settle();
    assert!(sim.log.ends_with("a R n=1 last | b W PodInitializing n=0 | c W PodInitializing n=0\n"), "{}", sim.log);
    sim.exit("a", 0);
    assert_eq!(sim.actions(), ["start b"]);
    sim.settle().exit("b", 0);
    assert_eq!(sim.actions(), ["start c"]);
    assert!(conditions(&sim.settle().status()).contains(&"Initialized=True".to_owned()));
}

#[test]
fn sidecars_end_in_reverse_order_after_the_app() {
    let spec = r#""initContainers":[{"name":"s1","image":"i","restartPolicy":"Always"},{"name":"s2","image":"i","restartPolicy":"Always"}],
        "containers":[{"name":"c","image":"i"}]"#;
    let mut sim = Sim::new(spec);
    sim.settle().delete(30);
    assert_eq!(sim.actions(), ["kill c 30"], "the sidecars outlive the app");
    sim.settle().exit("c", 0);
    assert_eq!(sim.actions(), ["kill s2 30"]);
    sim.settle().exit("s2", 0);
    assert_eq!(sim.actions(), ["kill s1 30"]);
}

#[test]
fn sidecars_are_restarted_whatever_the_restart_policy_and_gate_by_their_startup_probe() {
    let spec = r#""initContainers":[{"name":"s","image":"i","restartPolicy":"Always","startupProbe":{"failureThreshold":3}}],
        "containers":[{"name":"c","image":"i"}]"#;
    let mut sim = Sim::new(spec);
    sim.pod.spec.restart_policy = "Never".into();
    sim.settle();
    assert_eq!(sim.actions(), [""; 0], "the app waits for startupProbe");
    sim.probe("s0", "s", ProbeKind::Startup, true);
    assert_eq!(sim.actions(), ["start c"]);
    sim.settle().exit("s", 1);
    assert_eq!(sim.actions(), ["start s"]);
}

#[test]
fn ephemeral_containers_start_once_and_do_not_count() {
    let mut sim = Sim::new(APP);
    sim.settle();
    let json = r#"{"name":"e","image":"i","targetContainerName":"c"}"#;
    sim.pod.spec.ephemeral_containers.push(serde_json::from_str(json).unwrap());
    assert_eq!(sim.actions(), ["start e"]);
    sim.settle().exit("e", 1).settle();
    assert_eq!(sim.actions(), [""; 0], "ephemeralContainers are not restarted");
    let status = sim.status();
    assert_eq!(status.str_at("phase"), "Running");
    let ended = &status.list_at("ephemeralContainerStatuses")[0];
    assert_eq!(ended.i64_at("state.terminated.exitCode"), Some(1));
    assert!(conditions(&status).contains(&"Ready=True".to_owned()));
}

#[test]
fn readiness_gates_are_part_of_ready() {
    let mut sim = Sim::new(&format!(r#""readinessGates":[{{"conditionType":"acme.io/lb"}}],{APP}"#));
    let ready = |status: &Tree| {
        let found = status.list_at("conditions").iter().find(|c| c.str_at("type") == "Ready").cloned().unwrap();
        format!("{} {}: {}", found.str_at("status"), found.str_at("reason"), found.str_at("message"))
    };
    let missing =
        "False ReadinessGatesNotReady: corresponding condition of pod readiness gate \"acme.io/lb\" does not exist.";
    assert_eq!(ready(&sim.settle().status()), missing);
    for (value, wanted) in [
        (
            "False",
            "False ReadinessGatesNotReady: the status of pod readiness gate \"acme.io/lb\" is not \"True\", but False",
        ),
        ("True", "True : "),
    ] {
        sim.pod.status.conditions.retain(|c| c.r#type != "acme.io/lb");
        let condition = format!(r#"{{"type":"acme.io/lb","status":"{value}"}}"#);
        sim.pod.status.conditions.push(serde_json::from_str(&condition).unwrap());
        let status = sim.status();
        assert_eq!(ready(&status), wanted);
        assert!(conditions(&status).contains(&format!("acme.io/lb={value}")), "others' conditions stay");
    }
}

#[test]
fn startup_probe_gates_liveness_and_readiness() {
    let probes = r#""startupProbe":{"failureThreshold":2},"livenessProbe":{"failureThreshold":1},"readinessProbe":{"failureThreshold":1}"#;
    let mut sim = Sim::new(&format!(r#""containers":[{{"name":"c","image":"i",{probes}}}]"#));
    sim.settle();
    let wanted =
        |sim: &mut Sim| [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness].map(|k| sim.wants("c", k));
    assert_eq!(wanted(&mut sim), [true, false, false]);
    assert_eq!(sim.status().list_at("containerStatuses")[0].path("started"), Some(&Tree::Bool(false)));
    sim.probe("c0", "c", ProbeKind::Startup, true);
    assert_eq!(wanted(&mut sim), [false, true, true]);
    assert_eq!(sim.status().list_at("containerStatuses")[0].path("started"), Some(&Tree::Bool(true)));
    let mut sim = Sim::new(&format!(r#""containers":[{{"name":"c","image":"i",{probes}}}]"#));
    sim.settle().probe("c0", "c", ProbeKind::Startup, false).probe("c0", "c", ProbeKind::Startup, false);
    assert_eq!(sim.actions(), ["kill c 30"], "failureThreshold of startupProbe");
}

#[test]
fn termination_grace_period_seconds_of_pod_and_probe() {
    let mut sim = Sim::new(APP);
    sim.pod.spec.termination_grace_period_seconds = Some(7);
    sim.settle().delete(7);
    assert_eq!(sim.actions(), ["kill c 7"]);
    let mut sim = Sim::new(APP);
    sim.settle().delete(0);
    assert_eq!(sim.actions(), ["kill c 2"], "`minimumGracePeriodInSeconds` of the kubelet");
    let probe = r#""livenessProbe":{"failureThreshold":1,"terminationGracePeriodSeconds":3}"#;
    let mut sim = Sim::new(&format!(r#""containers":[{{"name":"c","image":"i",{probe}}}]"#));
    sim.settle().probe("c0", "c", ProbeKind::Liveness, false);
    assert_eq!(sim.actions(), ["kill c 3"]);
}

#[test]
fn conditions_from_the_sandbox_to_the_end() {
    let mut sim = Sim::new(APP);
    let all = |a: &str, b: &str, c: &str, d: &str| {
        vec![a.to_owned(), b.into(), c.into(), d.into(), "PodScheduled=True".into()]
    };
    assert_eq!(
        conditions(&sim.status()),
        all(
            "PodReadyToStartContainers=False PodSandboxNotReady",
            "Initialized=True",
            "Ready=False ContainersNotReady",
            "ContainersReady=False ContainersNotReady"
        )
    );
    assert_eq!(
        conditions(&sim.settle().status()),
        all("PodReadyToStartContainers=True", "Initialized=True", "Ready=True", "ContainersReady=True")
    );
    sim.pod.spec.restart_policy = "Never".into();
    assert_eq!(
        conditions(&sim.exit("c", 0).settle().status()),
        all(
            "PodReadyToStartContainers=False PodSandboxNotReady",
            "Initialized=True PodCompleted",
            "Ready=False PodCompleted",
            "ContainersReady=False PodCompleted"
        )
    );
}

#[test]
fn observed_generation_is_the_generation_that_was_planned_for() {
    let mut sim = Sim::new(APP);
    sim.pod.metadata.generation = 4;
    let status = sim.settle().status();
    assert_eq!(status.i64_at("observedGeneration"), Some(4));
    assert!(status.list_at("conditions").iter().all(|c| c.i64_at("observedGeneration") == Some(4)), "{status}");
}

#[test]
fn container_status_says_who_ran_and_how_it_ended() {
    let mut sim = Sim::new(APP);
    sim.settle();
    let running = sim.status();
    let container = &running.list_at("containerStatuses")[0];
    assert_eq!(container.str_at("containerID"), "corten://c0");
    assert_eq!((container.str_at("imageID"), container.bool_at("ready")), ("sha256:1", true));
    assert_eq!(container.str_at("state.running.startedAt"), "2026-01-01T00:00:00Z");
    sim.observed.containers[0].user = Some((1000, 2000, vec![3000]));
    sim.pass(5).exit("c", 137).settle();
    let status = sim.status();
    let again = &status.list_at("containerStatuses")[0];
    assert_eq!((again.i64_at("restartCount"), again.str_at("containerID")), (Some(1), "corten://c1"));
    let last = again.path("lastState.terminated").unwrap();
    assert_eq!(
        (last.i64_at("exitCode"), last.str_at("reason"), last.str_at("containerID")),
        (Some(137), "Error", "corten://c0")
    );
    assert_eq!((last.str_at("startedAt"), last.str_at("finishedAt")), ("2026-01-01T00:00:00Z", "2026-01-01T00:00:05Z"));
    sim.observed.containers.last_mut().unwrap().user = Some((1000, 2000, vec![3000]));
    let user = sim.status().list_at("containerStatuses")[0].path("user").cloned().unwrap();
    assert_eq!(user.to_string(), r#"{"linux":{"uid":1000,"gid":2000,"supplementalGroups":[3000]}}"#);
}

#[test]
fn host_network_pods_have_the_nodes_address() {
    let mut sim = Sim::new(&format!(r#""hostNetwork":true,{APP}"#));
    let status = sim.settle().status();
    assert_eq!((status.str_at("podIP"), status.str_at("hostIP")), ("192.168.0.1", "192.168.0.1"));
    let mut sim = Sim::new(APP);
    let status = sim.settle().status();
    assert_eq!((status.str_at("podIP"), status.str_at("hostIP")), ("10.0.0.2", "192.168.0.1"));
}

#[test]
fn a_changed_image_replaces_the_container() {
    let mut sim = Sim::new(APP);
    sim.settle();
    sim.pod.spec.containers[0].image = "j".into();
    assert_eq!(sim.actions(), ["kill c 30"]);
    assert!(sim.settle().log.contains("Container c definition changed, will be restarted"), "{}", sim.log);
}

#[test]
fn terminal_phases_stay() {
    let mut sim = Sim::new(APP);
    sim.pod.spec.restart_policy = "Never".into();
    sim.settle().exit("c", 3).settle();
    assert!(sim.summary().starts_with("Failed"));
    sim.memory = corten_podplan::Memory::default();
    assert!(sim.settle().summary().starts_with("Failed"), "also for a server that remembers nothing");
    assert!(!sim.actions().iter().any(|a| a.starts_with("start")));
}

fn read<T: serde::de::DeserializeOwned>(json: &str) -> T {
    serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {json}"))
}

fn of_spec(spec: &str) -> Pod {
    read(&format!(r#"{{"metadata":{{"name":"p","namespace":"d","uid":"u"}},"spec":{{"containers":[]{spec}}}}}"#))
}

#[test]
fn host_names_by_hostname_subdomain_set_hostname_as_fqdn_and_hostname_override() {
    for (spec, wanted) in [
        ("", "p"),
        (r#","hostname":"h""#, "h"),
        (r#","hostname":"h","subdomain":"s""#, "h"),
        (r#","hostname":"h","subdomain":"s","setHostnameAsFQDN":true"#, "h.s.d.svc.cluster.local"),
        (r#","setHostnameAsFQDN":true"#, "p"),
        (r#","hostname":"h","subdomain":"s","hostnameOverride":"o.example.com""#, "o.example.com"),
    ] {
        assert_eq!(hosts::kernel_host_name(&of_spec(spec), "cluster.local").as_deref(), Ok(wanted), "{spec}");
    }
    // The kernel's 64 characters: with `.s.d.svc.cluster.local` 42 are left.
    let named = |length: usize| {
        let host = "a".repeat(length);
        let pod = of_spec(&format!(r#","hostname":"{host}","subdomain":"s","setHostnameAsFQDN":true"#));
        hosts::kernel_host_name(&pod, "cluster.local")
    };
    assert_eq!(named(42).map(|name| name.len()), Ok(64));
    let error = "is too long (64 characters is the max, 65 characters requested)";
    assert!(named(43).unwrap_err().ends_with(error));
}

#[test]
fn host_aliases_are_in_the_hosts_file_also_on_the_hosts_network() {
    let aliases = r#","hostAliases":[{"ip":"1.2.3.4","hostnames":["a.example.com","b"]}]"#;
    let lines = "\n# Entries added by HostAliases.\n1.2.3.4\ta.example.com\tb\n";
    for (spec, begins) in [
        (aliases.to_owned(), "# Kubernetes-managed hosts file.\n"),
        (
            format!(r#"{aliases},"hostNetwork":true"#),
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1 node\n",
        ),
    ] {
        let file = hosts::hosts_file(&of_spec(&spec), "cluster.local", &["10.0.0.2".into()], "127.0.0.1 node\n");
        assert!(file.starts_with(begins) && file.ends_with(lines), "{file}");
    }
}

#[test]
fn enable_service_links_decides_about_the_services_of_the_namespace() {
    let container: Container = read(r#"{"name":"c"}"#);
    let service = |namespace: &str, name: &str| {
        let json = format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"{namespace}"}},"spec":{{"clusterIP":"10.96.0.1","ports":[{{"port":80,"protocol":"TCP"}}]}}}}"#
        );
        Arc::new(read(&json))
    };
    let services = vec![service("default", "kubernetes"), service("d", "web-app"), service("other", "no")];
    let sources = env::Sources { services, ..env::Sources::default() };
    for (spec, web) in [("", true), (r#","enableServiceLinks":true"#, true), (r#","enableServiceLinks":false"#, false)]
    {
        let made = env::environment(&of_spec(spec), &container, &sources).unwrap();
        let has = |name: &str| made.iter().any(|(n, _)| n == name);
        assert!(has("KUBERNETES_SERVICE_HOST") && !has("NO_SERVICE_HOST"), "{made:?}");
        assert_eq!(has("WEB_APP_SERVICE_HOST"), web, "{spec}");
    }
}

#[test]
fn env_from_and_value_from_that_are_not_there() {
    let secrets = BTreeMap::from([("k".to_owned(), b"v".to_vec())]);
    for (container, wanted) in [
        (r#""envFrom":[{"configMapRef":{"name":"none"}}]"#, Err(r#"configmap "none" not found"#)),
        (r#""envFrom":[{"configMapRef":{"name":"none","optional":true}}]"#, Ok("")),
        (r#""envFrom":[{"prefix":"P-","secretRef":{"name":"s"}}]"#, Ok("P-k=v")),
        (r#""env":[{"name":"A","valueFrom":{"secretKeyRef":{"name":"s","key":"k"}}}]"#, Ok("A=v")),
        (
            r#""env":[{"name":"A","valueFrom":{"secretKeyRef":{"name":"s","key":"no"}}}]"#,
            Err("couldn't find key no in Secret d/s"),
        ),
        (r#""env":[{"name":"A","valueFrom":{"configMapKeyRef":{"name":"none","key":"k","optional":true}}}]"#, Ok("")),
        (r#""env":[{"name":"A","value":"1"},{"name":"B","value":"$(A)-$$(A)-$(NONE)"}]"#, Ok("A=1 B=1-$(A)-$(NONE)")),
        (r#""env":[{"name":"A","valueFrom":{"fieldRef":{"fieldPath":"metadata.namespace"}}}]"#, Ok("A=d")),
    ] {
        let container: Container = read(&format!(r#"{{"name":"c",{container}}}"#));
        let mut sources = env::Sources::default();
        sources.secrets.insert("s".into(), Arc::new(secrets.clone()));
        let made = env::environment(&of_spec(""), &container, &sources);
        let text = made.map(|all| all.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" "));
        assert_eq!(text.as_deref().map_err(|e| e.0.as_str()), wanted, "{container:?}");
    }
}

#[test]
fn security_context_of_pod_and_container() {
    let of_pod = r#","securityContext":{"runAsUser":1000,"runAsGroup":1001,"supplementalGroups":[5],"fsGroup":7,"runAsNonRoot":true,
        "supplementalGroupsPolicy":"Strict","fsGroupChangePolicy":"OnRootMismatch","seccompProfile":{"type":"RuntimeDefault"}}"#;
    let pod = of_spec(of_pod);
    let with = |context: &str| {
        let container: Container = read(&format!(r#"{{"name":"c","securityContext":{{{context}}}}}"#));
        (security::security(&pod, &container), container)
    };
    let (s, container) = with("");
    assert_eq!((s.user, s.group, &s.extra_groups[..], s.image_groups), (Some(1000), Some(1001), &[5, 7][..], false));
    assert_eq!((s.fs_group, s.fs_group_on_root_mismatch, s.non_root), (Some(7), true, true));
    assert_eq!(security::check_non_root(&pod, &container, &s, None, ""), Ok(()));
    let (s, _) = with(
        r#""runAsUser":2000,"readOnlyRootFilesystem":true,"seccompProfile":{"type":"Localhost","localhostProfile":"p.json"}"#,
    );
    assert_eq!((s.user, s.read_only_root, s.escalation), (Some(2000), true, true));
    assert_eq!(s.seccomp, security::SeccompProfile::Localhost("p.json".into()));
    let (s, _) = with(r#""privileged":true,"allowPrivilegeEscalation":true"#);
    assert!(s.privileged && s.escalation && s.unmasked_proc);
    assert_eq!(s.seccomp, security::SeccompProfile::Unconfined, "a privileged container has no filter");
    let (s, _) = with(r#""procMount":"Unmasked","capabilities":{"add":["NET_ADMIN"],"drop":["ALL"]}"#);
    assert_eq!(
        (s.unmasked_proc, s.caps_add, s.caps_drop),
        (true, vec!["NET_ADMIN".to_owned()], vec!["ALL".to_owned()])
    );
    let (s, container) = with(r#""runAsUser":0"#);
    let error = security::check_non_root(&pod, &container, &s, None, "").unwrap_err();
    assert_eq!(error, r#"container's runAsUser breaks non-root policy (pod: "p_d(u)", container: c)"#);
    let pod = of_spec(r#","securityContext":{"runAsNonRoot":true}"#);
    let container: Container = read(r#"{"name":"c"}"#);
    let s = security::security(&pod, &container);
    for (uid, user, wanted) in [
        (Some(0), "0", Some("container has runAsNonRoot and image will run as root")),
        (None, "", Some("container has runAsNonRoot and image will run as root")),
        (
            None,
            "web",
            Some("container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root"),
        ),
        (Some(7), "7", None),
    ] {
        let result = security::check_non_root(&pod, &container, &s, uid, user);
        assert_eq!(result.err().map(|e| e.split(" (pod:").next().unwrap().to_owned()).as_deref(), wanted);
    }
}
