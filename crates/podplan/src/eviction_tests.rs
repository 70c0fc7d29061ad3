//! Thresholds, ranking and messages of node-pressure eviction.

use super::*;
use corten_base::Timestamp;

fn pod(json: &str) -> Pod {
    serde_json::from_str(json).unwrap()
}

fn named(name: &str, priority: i32, request: &str) -> Pod {
    pod(&format!(
        r#"{{"metadata":{{"name":"{name}","uid":"{name}"}},"spec":{{"priority":{priority},"terminationGracePeriodSeconds":30,
        "containers":[{{"name":"c","resources":{{"requests":{{"memory":"{request}","ephemeral-storage":"{request}"}}}}}}]}}}}"#
    ))
}

fn used(memory: i64, disk: i64) -> PodUse {
    let container = ContainerUse { name: "c".into(), memory, disk, inodes: 1 };
    PodUse { memory, pids: 1, containers: vec![container], volumes: Vec::new() }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + seconds).unwrap()
}

fn readings(signal: Signal, available: i64, capacity: i64) -> Readings {
    [(signal, Reading { available, capacity })].into()
}

#[test]
fn eviction_options_are_the_kubelets() {
    let soft = Settings::parse(
        "memory.available<100Mi",
        "nodefs.available<20%",
        "nodefs.available=1m30s",
        "nodefs.available=1Gi",
    );
    let soft = soft.unwrap();
    assert_eq!(soft.thresholds.len(), 2);
    assert_eq!(soft.thresholds[1].grace_seconds, 90);
    assert!(soft.thresholds[1].reclaim.is_some() && soft.thresholds[0].reclaim.is_none());
    assert_eq!(Settings::parse("memory.available<0%,nodefs.available<100%", "", "", "").unwrap().thresholds, []);
    let refused = |hard: &str, soft: &str| Settings::parse(hard, soft, "", "").unwrap_err();
    assert_eq!(refused("cpu.available<1", ""), "unsupported eviction signal \"cpu.available\"");
    assert_eq!(refused("memory.available<120%", ""), "\"120%\" is not a percentage from 0% to 100%");
    assert_eq!(
        refused("", "memory.available<1Gi"),
        "grace period must be specified for the soft eviction threshold memory.available"
    );
    let shown: Vec<String> =
        Settings::default().thresholds.iter().map(|t| format!("{}<{}", t.signal.name(), t.value)).collect();
    assert_eq!(shown.join(","), Settings::HARD);
}

#[test]
fn allocatable_lacks_what_hard_eviction_thresholds_keep() {
    let settings = Settings::parse("memory.available<100Mi,nodefs.available<10%", "", "", "").unwrap();
    assert_eq!(settings.reserved(Signal::Memory, 1 << 30), 100 << 20);
    assert_eq!(settings.reserved(Signal::NodeFs, 1000), 100);
    assert_eq!(settings.reserved(Signal::Pid, 1000), 0);
}

#[test]
fn hard_threshold_sets_the_condition_until_the_transition_period_is_over() {
    let settings = Settings::parse("memory.available<100Mi", "", "", "").unwrap();
    let (low, fine) = (readings(Signal::Memory, 50 << 20, 1 << 30), readings(Signal::Memory, 500 << 20, 1 << 30));
    let mut pressure = Pressure::default();
    assert!(pressure.note(&settings, &fine, at(0)).is_empty() && pressure.conditions().is_empty());
    assert_eq!(pressure.note(&settings, &low, at(10)).len(), 1);
    assert_eq!(pressure.conditions(), BTreeSet::from(["MemoryPressure"]));
    assert!(pressure.note(&settings, &fine, at(20)).is_empty());
    assert_eq!(pressure.conditions().len(), 1, "the transition period is not over");
    pressure.note(&settings, &fine, at(10 + 300));
    assert!(pressure.conditions().is_empty());
}

#[test]
fn soft_threshold_waits_for_its_grace_period_and_minimum_reclaim_keeps_it() {
    let settings = Settings::parse("", "nodefs.available<10%", "nodefs.available=60s", "nodefs.available=10%").unwrap();
    let left = |percent: i64| readings(Signal::NodeFs, percent, 100);
    let mut pressure = Pressure::default();
    assert!(pressure.note(&settings, &left(5), at(0)).is_empty());
    assert_eq!(pressure.conditions(), BTreeSet::from(["DiskPressure"]));
    assert!(pressure.note(&settings, &left(5), at(59)).is_empty());
    assert_eq!(pressure.note(&settings, &left(5), at(60)).len(), 1);
    assert_eq!(pressure.note(&settings, &left(15), at(70)).len(), 1, "10 % more were to be had");
    assert!(pressure.note(&settings, &left(20), at(80)).is_empty());
    // It starts from the beginning.
    assert!(pressure.note(&settings, &left(5), at(90)).is_empty());
}

#[test]
fn memory_eviction_ranks_by_request_then_priority_then_usage() {
    let settings = Settings::parse("memory.available<100Mi", "", "", "").unwrap();
    let low = readings(Signal::Memory, 50 << 20, 1 << 30);
    let due = Pressure::default().note(&settings, &low, at(0));
    let within = (named("within", 0, "1Gi"), used(900 << 20, 0));
    let important = (named("important", 100, "1Mi"), used(800 << 20, 0));
    let small = (named("small", 0, "1Mi"), used(2 << 20, 0));
    let large = (named("large", 0, "1Mi"), used(64 << 20, 0));
    let critical = (named("critical", 2_000_000_000, "1Mi"), used(1 << 30, 0));
    let mut all = vec![&within, &important, &small, &large, &critical];
    let mut order = Vec::new();
    loop {
        let pods: Vec<(&Pod, Option<&PodUse>)> = all.iter().map(|(p, u)| (p, Some(u))).collect();
        let Some(chosen) = choose(&settings, &due, &low, &pods) else { break };
        assert_eq!((chosen.grace_seconds, chosen.disruption.as_ref()), (1, Some(&chosen.message)));
        if chosen.uid == "large" {
            assert_eq!(
                chosen.message,
                "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container c was using 64Mi, \
                 request is 1Mi, has larger consumption of memory. "
            );
        }
        all.retain(|(p, _)| p.metadata.uid != chosen.uid);
        order.push(chosen.uid);
    }
    assert_eq!(order, ["large", "small", "important", "within"], "a critical pod stays");
}

#[test]
fn disk_eviction_ranks_by_local_storage_and_soft_grace_is_bounded() {
    let mut settings = Settings::parse("", "nodefs.available<10%", "nodefs.available=1s", "").unwrap();
    settings.pod_grace_seconds_max = 10;
    let low = readings(Signal::NodeFs, 5 << 30, 100 << 30);
    let mut pressure = Pressure::default();
    pressure.note(&settings, &low, at(0));
    let due = pressure.note(&settings, &low, at(1));
    let (a, mut on_disk) = (named("a", 0, "1Gi"), used(0, 2 << 30));
    let (b, b_used) = (named("b", 0, "1Gi"), used(0, 3 << 30));
    on_disk.volumes.push(("v".into(), 2 << 30, 5));
    let chosen = choose(&settings, &due, &low, &[(&a, Some(&on_disk)), (&b, Some(&b_used))]).unwrap();
    assert_eq!((chosen.uid.as_str(), chosen.grace_seconds), ("a", 10));
    assert_eq!(
        chosen.message,
        "The node was low on resource: ephemeral-storage. Threshold quantity: 10Gi, available: 5Gi. Container c was using 2Gi, \
         request is 1Gi, has larger consumption of ephemeral-storage. "
    );
    let unknown = choose(&settings, &due, &low, &[(&a, Some(&on_disk)), (&b, None)]).unwrap();
    assert_eq!(unknown.uid, "b", "one of which nothing is known goes first");
}

#[test]
fn empty_dir_size_limit_and_ephemeral_storage_limits_evict() {
    let limited = pod(
        r#"{"metadata":{"uid":"u"},"spec":{"containers":[{"name":"a","resources":{"limits":{"ephemeral-storage":"1Mi"}}},
        {"name":"b","resources":{"limits":{"ephemeral-storage":"2Mi"}}}],
        "volumes":[{"name":"e","emptyDir":{"sizeLimit":"500Ki"}},{"name":"m","emptyDir":{"medium":"Memory","sizeLimit":"1Ki"}}]}}"#,
    );
    assert!(limits_storage(&limited));
    let use_of = |a: i64, b: i64, e: i64| PodUse {
        containers: [("a", a), ("b", b)]
            .map(|(name, disk)| ContainerUse { name: name.into(), disk, ..ContainerUse::default() })
            .into(),
        volumes: vec![("e".into(), e, 1)],
        ..PodUse::default()
    };
    let message = |a, b, e| over_limit(&limited, &use_of(a, b, e)).map(|e| e.message);
    assert_eq!(message(1 << 20, 1 << 20, 500 << 10), None);
    assert_eq!(message(0, 0, 501 << 10).unwrap(), "Usage of EmptyDir volume \"e\" exceeds the limit \"500Ki\". ");
    assert_eq!(
        message(0, 3 << 20, 1).unwrap(),
        "Pod ephemeral local storage usage exceeds the total limit of containers 3Mi. "
    );
    assert_eq!(
        message((1 << 20) + 1, 0, 0).unwrap(),
        "Container a exceeded its local ephemeral storage limit \"1Mi\". "
    );
    assert!(!limits_storage(&pod(r#"{"spec":{"volumes":[{"name":"e","emptyDir":{}}]}}"#)));
}

#[test]
fn pods_are_refused_under_pressure() {
    let best_effort = pod(r#"{"spec":{"containers":[{"name":"c"}]}}"#);
    let tolerant = pod(
        r#"{"spec":{"containers":[{"name":"c"}],"tolerations":[{"key":"node.kubernetes.io/memory-pressure","operator":"Exists"}]}}"#,
    );
    let critical = pod(r#"{"spec":{"priority":2000001000,"containers":[{"name":"c"}]}}"#);
    let memory = BTreeSet::from(["MemoryPressure"]);
    assert_eq!(refuses(&memory, &best_effort).unwrap(), "The node had condition: [MemoryPressure]. ");
    assert_eq!(refuses(&memory, &named("b", 0, "1Mi")), None, "only best effort is refused for memory");
    assert_eq!(refuses(&memory, &tolerant), None);
    let disk = BTreeSet::from(["DiskPressure"]);
    for pod in [&best_effort, &tolerant, &named("b", 0, "1Mi")] {
        assert_eq!(refuses(&disk, pod).unwrap(), "The node had condition: [DiskPressure]. ");
    }
    assert_eq!(refuses(&disk, &critical), None);
    assert_eq!(refuses(&BTreeSet::new(), &best_effort), None);
}

#[test]
fn quantities_are_printed_as_go_does() {
    for (value, text) in
        [(0, "0"), (1, "1"), (1024, "1Ki"), (1025, "1025"), (100 << 20, "100Mi"), (1536 << 20, "1536Mi")]
    {
        assert_eq!(binary(value), text);
    }
}
