//! The cache over a memory store: order, 410, selections, indexes, waiting.

#![allow(clippy::unwrap_used, reason = "in tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use corten_cache::{Cache, CacheOptions, Encoding, Filter, Gone, RingLimits, Scope, Seen, Transition, Watcher, keys};
use corten_kinds::{Registry, id};
use corten_object::{FieldSelector, LabelSelector, ObjectKey, Revision};
use corten_store::{Batch, Error, FaultyStore, MemoryStore, Scripted, Store, Watch, WatchFault};
use futures::FutureExt;
use futures::executor::block_on;
use proptest::prelude::*;

/// A store, and a cache that the test feeds by hand.
struct Cluster {
    store: Arc<dyn Store>,
    cache: Cache,
    watch: Option<Watch>,
    registry: Arc<Registry>,
}

/// What a test says of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Pod {
    node: &'static str,
    label: &'static str,
    owner: &'static str,
}

impl Cluster {
    fn new(ring: RingLimits) -> Cluster {
        Cluster::over(Arc::new(MemoryStore::new()), CacheOptions { ring, ..CacheOptions::default() })
    }

    fn over(store: Arc<dyn Store>, options: CacheOptions) -> Cluster {
        let registry = Arc::new(Registry::builtin());
        let cache = Cache::new(registry.clone(), options);
        let watch = Some(block_on(cache.load(&*store)).unwrap());
        Cluster { store, cache, watch, registry }
    }

    fn key(&self, namespace: &str, name: &str) -> Bytes {
        keys::object(self.registry.get(id::POD), namespace, name)
    }

    fn put(&self, namespace: &str, name: &str, pod: &Pod) -> Revision {
        let owner = if pod.owner.is_empty() {
            String::new()
        } else {
            format!(
                r#","ownerReferences":[{{"apiVersion":"v1","kind":"X","name":"x","uid":"{}","controller":{}}}]"#,
                pod.owner,
                pod.owner == "o1"
            )
        };
        let json = format!(
            r#"{{"kind":"Pod","metadata":{{"name":"{name}","namespace":"{namespace}","uid":"{namespace}.{name}","labels":{{"l":"{}"}}{owner}}},"spec":{{"nodeName":"{}"}}}}"#,
            pod.label, pod.node
        );
        block_on(self.store.commit(Batch::new().put(self.key(namespace, name), json))).unwrap()
    }

    fn delete(&self, namespace: &str, name: &str) -> Revision {
        block_on(self.store.commit(Batch::new().delete(self.key(namespace, name)))).unwrap()
    }

    /// Applies all that was committed.
    fn feed(&mut self) {
        let revision = block_on(self.store.current_revision()).unwrap();
        let run = self.cache.run(self.store.clone(), self.watch.take().unwrap());
        let end = futures::future::select(Box::pin(run), Box::pin(self.cache.wait_for(revision)));
        assert!(matches!(block_on(end), futures::future::Either::Right(_)), "the feeder ended");
        self.watch = Some(block_on(self.store.watch(revision)).unwrap());
    }

    fn filter(&self, namespace: &str, labels: &str, fields: &str) -> Filter {
        let labels = Some(LabelSelector::parse(labels).unwrap());
        Filter::new(self.registry.get(id::POD), namespace, labels, &FieldSelector::parse(fields).unwrap()).unwrap()
    }

    /// What a selection sees after a revision, as `A ns/name@revision`.
    fn seen(&self, filter: &Filter, after: u64) -> Result<String, Gone> {
        let mut watcher = self.cache.watch(filter.clone(), Revision(after))?;
        seen(&mut watcher)
    }

    fn listed(&self, filter: &Filter) -> String {
        let list = self.cache.list(filter);
        list.items.iter().map(|o| o.key().to_string()).collect::<Vec<_>>().join(" ")
    }
}

fn seen(watcher: &mut Watcher) -> Result<String, Gone> {
    let mut all = Vec::new();
    while let Some(seen) = watcher.try_next()? {
        all.push(show(&seen));
    }
    Ok(all.join(" "))
}

fn show(seen: &Seen) -> String {
    let letter = match seen.transition {
        Transition::Added => 'A',
        Transition::Modified => 'M',
        Transition::Deleted => 'D',
    };
    assert_eq!(seen.object().head.revision, seen.revision());
    format!("{letter} {}@{}", seen.object().key(), seen.revision())
}

const NO_LIMIT: RingLimits = RingLimits { events_max: 1_000_000, bytes_max: 1 << 30 };

fn pod(label: &'static str) -> Pod {
    Pod { label, ..Pod::default() }
}

/// Counts how often a task is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl futures::task::ArcWake for Wakes {
    fn wake_by_ref(wakes: &Arc<Wakes>) {
        wakes.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn a_cursor_over_some_kinds_sees_them_in_order_and_sleeps_through_the_others() {
    let mut c = Cluster::new(NO_LIMIT);
    let put = |c: &Cluster, kind, name: &str| {
        let json = format!(r#"{{"metadata":{{"name":"{name}","namespace":"d"}}}}"#);
        block_on(c.store.commit(Batch::new().put(keys::object(c.registry.get(kind), "d", name), json))).unwrap();
    };
    let mut cursor = c.cache.cursor(Scope::kinds(vec![id::SERVICE, id::POD, id::POD]), c.cache.revision()).unwrap();
    let wakes = Arc::new(Wakes::default());
    let waker = futures::task::waker(wakes.clone());
    let mut context = std::task::Context::from_waker(&waker);
    {
        let mut next = Box::pin(cursor.next_batch(10));
        assert!(next.poll_unpin(&mut context).is_pending());
        put(&c, id::CONFIG_MAP, "a");
        c.feed();
        assert_eq!(wakes.0.load(Relaxed), 0);
        for (kind, name) in [(id::POD, "b"), (id::CONFIG_MAP, "c"), (id::SERVICE, "d"), (id::POD, "e")] {
            put(&c, kind, name);
        }
        c.feed();
        assert!(wakes.0.load(Relaxed) > 0);
        let names = |events: Vec<Arc<corten_cache::Event>>| {
            events.iter().map(|event| event.object.as_ref().unwrap().head.name.to_string()).collect::<Vec<_>>().join("")
        };
        let std::task::Poll::Ready(Ok(events)) = next.poll_unpin(&mut context) else { panic!("nothing came") };
        assert_eq!(names(events), "bde");
    }
    for (kind, name) in [(id::POD, "f"), (id::SERVICE, "g"), (id::CONFIG_MAP, "h"), (id::SERVICE, "i")] {
        put(&c, kind, name);
    }
    c.feed();
    // In pieces, too; what is seen is everything once nothing waits.
    assert_eq!(cursor.take(2).unwrap().len(), 2);
    assert_eq!(cursor.take(2).unwrap()[0].object.as_ref().unwrap().head.name, "i");
    assert!(cursor.take(2).unwrap().is_empty());
    assert_eq!(cursor.progress().unwrap(), c.cache.revision());
}

#[test]
fn a_cursor_over_quiet_kinds_outlives_a_busy_one_and_is_gone_with_its_own_events() {
    let mut c = Cluster::new(RingLimits { events_max: 3, bytes_max: 1 << 20 });
    let start = c.cache.revision();
    let mut quiet = c.cache.cursor(Scope::kinds(vec![id::SERVICE, id::NODE]), start).unwrap();
    let mut busy = c.cache.cursor(Scope::kinds(vec![id::SERVICE, id::POD]), start).unwrap();
    for n in 0..10 {
        c.put("d", &n.to_string(), &pod(""));
    }
    c.feed();
    assert!(quiet.take(10).unwrap().is_empty());
    assert_eq!(busy.take(10).unwrap_err().requested, start);
    assert!(c.cache.cursor(Scope::kinds(vec![id::SERVICE, id::POD]), start).is_err());
    assert!(c.cache.cursor(Scope::kinds(vec![id::SERVICE, id::NODE]), start).is_ok());
}

/// A pod as a server stores it, of about 1.5 kB.
fn full_pod(n: usize) -> String {
    let fields = r#"{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"web\"}":{".":{},"f:image":{},"f:imagePullPolicy":{},"f:name":{},"f:resources":{".":{},"f:limits":{".":{},"f:memory":{}},"f:requests":{".":{},"f:cpu":{},"f:memory":{}}},"f:terminationMessagePath":{},"f:terminationMessagePolicy":{}}},"f:dnsPolicy":{},"f:enableServiceLinks":{},"f:restartPolicy":{},"f:schedulerName":{}}}"#;
    let time = format!("2026-11-27T10:{:02}:{:02}Z", n / 60 % 60, n % 60);
    let uid = format!("{:08x}-1c5e-4bd4-9c61-{:012x}", n.wrapping_mul(2_654_435_761) as u32, n * 7919 + 1_000_000);
    let account = r#"{"name":"kube-api-access-8tp9d","projected":{"sources":[{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}},{"configMap":{"name":"kube-root-ca.crt","items":[{"key":"ca.crt","path":"ca.crt"}]}}],"defaultMode":420}}"#;
    format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"web-7d9c5b8f6-{n}","namespace":"shop","uid":"{uid}","creationTimestamp":"{time}","labels":{{"app":"web"}},"managedFields":[{{"manager":"m","operation":"Update","apiVersion":"v1","time":"{time}","fieldsType":"FieldsV1","fieldsV1":{fields}}}]}},"spec":{{"volumes":[{account}],"containers":[{{"name":"web","image":"registry.example/shop/web:1.42.0","resources":{{"limits":{{"memory":"256Mi"}},"requests":{{"cpu":"100m","memory":"128Mi"}}}},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent"}}],"restartPolicy":"Always","dnsPolicy":"ClusterFirst","schedulerName":"default-scheduler"}},"status":{{"phase":"Pending","qosClass":"Burstable"}}}}"#
    )
}

/// Memory: objects that look alike are kept as what differs, whether they come one by one or at a start.
#[test]
fn a_pod_like_others_takes_a_tenth_of_its_bytes() {
    let mut c = Cluster::new(NO_LIMIT);
    for n in 0..500 {
        let key = c.key("shop", &format!("web-7d9c5b8f6-{n}"));
        block_on(c.store.commit(Batch::new().put(key, full_pod(n)))).unwrap();
    }
    c.feed();
    let loaded = Cluster::over(c.store.clone(), CacheOptions::default());
    for cache in [&c.cache, &loaded.cache] {
        let pods = cache.list(&Filter::all(id::POD)).items;
        assert_eq!(pods.len(), 500);
        let own: usize = pods.iter().map(|pod| pod.own_bytes()).sum();
        let all: usize = pods.iter().map(|pod| pod.stored_len()).sum();
        assert!(own * 10 < all, "{own} of {all} bytes");
        assert_eq!(cache.read().bytes(id::POD), all);
        for pod in &pods {
            let n = pod.head.name.rsplit('-').next().unwrap().parse().unwrap();
            assert_eq!(pod.stored(), full_pod(n));
        }
    }
}

#[test]
fn lists_are_in_the_order_of_the_store() {
    let mut c = Cluster::new(NO_LIMIT);
    for (namespace, name) in [("a", "2"), ("b", "1"), ("a-b", "1"), ("a", "10"), ("a.b", "1"), ("a0", "1")] {
        c.put(namespace, name, &pod(""));
    }
    c.feed();
    let everything = Filter::all(id::POD);
    assert_eq!(c.listed(&everything), "a-b/1 a.b/1 a/10 a/2 a0/1 b/1");
    let page = block_on(c.store.scan(keys::all(), None, 0)).unwrap();
    let stored: Vec<_> = page.entries.iter().map(|e| e.key.clone()).collect();
    let cached: Vec<_> =
        c.cache.list(&everything).items.iter().map(|o| c.key(&o.head.namespace, &o.head.name)).collect();
    assert_eq!(stored, cached);
    assert_eq!(c.listed(&c.filter("a", "", "")), "a/10 a/2");
    assert_eq!(c.listed(&c.filter("a", "", "metadata.name=2")), "a/2");
    assert_eq!(c.listed(&c.filter("", "", "metadata.name!=1")), "a/10 a/2");
    assert_eq!(c.cache.list(&everything).revision, Revision(7));
}

#[test]
fn a_watcher_sees_everything_in_order() {
    let mut c = Cluster::new(NO_LIMIT);
    c.put("a", "x", &pod("1"));
    c.put("a", "x", &pod("2"));
    c.put("b", "y", &pod("1"));
    c.delete("a", "x");
    c.feed();
    let all = Filter::all(id::POD);
    assert_eq!(c.seen(&all, 1).unwrap(), "A a/x@2 M a/x@3 A b/y@4 D a/x@5");
    assert_eq!(c.seen(&all, 3).unwrap(), "A b/y@4 D a/x@5");
    assert_eq!(c.seen(&c.filter("b", "", ""), 1).unwrap(), "A b/y@4");
    let mut watcher = c.cache.watch(all, Revision(5)).unwrap();
    assert_eq!(seen(&mut watcher).unwrap(), "");
    assert!(watcher.next().now_or_never().is_none());
    c.delete("b", "y");
    c.feed();
    assert_eq!(show(&watcher.next().now_or_never().unwrap().unwrap()), "D b/y@6");
    assert_eq!(watcher.progress().unwrap(), Some(Revision(6)));
}

#[test]
fn entering_and_leaving_a_selection_are_added_and_deleted() {
    let mut c = Cluster::new(NO_LIMIT);
    let on = |node| Pod { node, ..Pod::default() };
    c.put("a", "x", &on("")); // 2: not selected
    c.put("a", "x", &on("n1")); // 3: enters
    c.put("a", "x", &Pod { label: "new", ..on("n1") }); // 4: changes inside
    c.put("a", "x", &on("n2")); // 5: leaves
    c.delete("a", "x"); // 6: not seen
    c.put("a", "y", &on("n1")); // 7
    c.delete("a", "y"); // 8
    c.feed();
    let on_n1 = c.filter("", "", "spec.nodeName=n1");
    assert_eq!(c.seen(&on_n1, 1).unwrap(), "A a/x@3 M a/x@4 D a/x@5 A a/y@7 D a/y@8");
    assert_eq!(c.seen(&c.filter("", "", "spec.nodeName!=n1"), 1).unwrap(), "A a/x@2 D a/x@3 A a/x@5 D a/x@6");
    // Who sees it leave sees it as it was when it was last selected.
    let mut watcher = c.cache.watch(c.filter("", "l=new", ""), Revision(4)).unwrap();
    let left = watcher.try_next().unwrap().unwrap();
    assert_eq!((left.transition, left.object().head.labels.get("l")), (Transition::Deleted, Some("new")));
    assert!(
        left.object()
            .to_json()
            .starts_with(br#"{"kind":"Pod","metadata":{"name":"x","namespace":"a","uid":"a.x","resourceVersion":"5","#)
    );
}

#[test]
fn unselectable_fields_are_refused_in_upstreams_words() {
    let registry = Registry::builtin();
    let fields = FieldSelector::parse("spec.nonsense=1").unwrap();
    let error = Filter::new(registry.get(id::POD), "", None, &fields).unwrap_err();
    assert_eq!(error.to_string(), "field label not supported: spec.nonsense");
}

#[test]
fn a_slow_watcher_falls_off_and_a_new_one_is_told_at_once() {
    let mut c = Cluster::new(RingLimits { events_max: 3, bytes_max: 1 << 30 });
    let all = Filter::all(id::POD);
    let mut slow = c.cache.watch(all.clone(), Revision(1)).unwrap();
    for _ in 0..5 {
        c.put("a", "x", &pod(""));
    }
    c.feed();
    assert_eq!(slow.try_next().unwrap_err(), Gone { requested: Revision(1), oldest: Revision(3) });
    assert_eq!(c.seen(&all, 2).unwrap_err().to_string(), "too old resource version: 2 (3)");
    assert_eq!(c.seen(&all, 3).unwrap(), "M a/x@4 M a/x@5 M a/x@6");
    let mut everything = c.cache.cursor(Scope::Everything, Revision(3)).unwrap();
    assert_eq!(everything.take(2).unwrap().len(), 2);
    assert_eq!(everything.progress().unwrap(), Revision(4));
    assert_eq!(everything.take(2).unwrap().len(), 1);
    assert_eq!(everything.progress().unwrap(), Revision(6));
}

#[test]
fn the_ring_is_bounded_by_bytes_too() {
    let mut c = Cluster::new(RingLimits { events_max: 1000, bytes_max: 10_000 });
    for _ in 0..100 {
        c.put("a", "x", &pod(""));
    }
    c.feed();
    assert!(c.seen(&Filter::all(id::POD), 50).is_err());
    assert!(!c.seen(&Filter::all(id::POD), 96).unwrap().is_empty());
}

#[test]
fn frames_are_encoded_once() {
    let mut c = Cluster::new(NO_LIMIT);
    c.put("a", "x", &pod(""));
    c.feed();
    let mut watcher = c.cache.watch(Filter::all(id::POD), Revision(1)).unwrap();
    let seen = watcher.try_next().unwrap().unwrap();
    let mut encoded = 0;
    for _ in 0..3 {
        let frame = seen.event.frame(seen.transition, Encoding::Json, |object| {
            encoded += 1;
            object.to_json()
        });
        assert!(frame.starts_with(b"{"));
    }
    seen.event.frame(seen.transition, Encoding::Protobuf, |_| Bytes::new());
    assert_eq!(encoded, 1);
}

#[test]
fn waiting_for_a_revision_is_reading_your_writes() {
    let mut c = Cluster::new(NO_LIMIT);
    let revision = c.put("a", "x", &pod(""));
    let key = ObjectKey::new(id::POD, "a", "x");
    assert!(c.cache.wait_for(revision).now_or_never().is_none());
    assert!(c.cache.get(&key).is_none());
    c.feed();
    assert!(c.cache.wait_for(revision).now_or_never().is_some());
    assert_eq!(c.cache.get(&key).unwrap().head.revision, revision);
    assert_eq!(c.cache.read().by_uid("a.x").unwrap().key(), key);
}

#[test]
fn a_restart_replays_the_latest_changes() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let mut before = Cluster::over(store.clone(), CacheOptions::default());
    before.put("a", "x", &pod(""));
    before.put("a", "y", &pod(""));
    before.delete("a", "x");
    before.feed();
    let after = Cluster::over(store.clone(), CacheOptions { replay_revisions: 2, ..CacheOptions::default() });
    assert_eq!(after.cache.revision(), Revision(4));
    assert_eq!(after.seen(&Filter::all(id::POD), 2).unwrap(), "A a/y@3 D a/x@4");
    assert!(after.seen(&Filter::all(id::POD), 1).is_err());
    assert_eq!(after.listed(&Filter::all(id::POD)), "a/y");
}

#[test]
fn a_cache_that_fell_behind_loads_again_and_its_watchers_are_gone() {
    let watches = BTreeMap::from([(Revision(3), WatchFault::Compacted)]);
    let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()), Scripted { watches, ..Scripted::default() }));
    let mut c = Cluster::over(store, CacheOptions::default());
    let mut watcher = c.cache.watch(Filter::all(id::POD), Revision(1)).unwrap();
    c.put("a", "x", &pod(""));
    c.put("a", "y", &pod(""));
    c.feed();
    assert_eq!(c.listed(&Filter::all(id::POD)), "a/x a/y");
    assert!(watcher.try_next().is_err());
    assert_eq!(c.put("a", "z", &pod("")), Revision(4));
    c.feed();
    assert_eq!(c.seen(&Filter::all(id::POD), 3).unwrap(), "A a/z@4");
}

#[test]
fn the_end_of_the_store_is_the_end_of_the_feeder() {
    let store = MemoryStore::new();
    let mut c = Cluster::over(Arc::new(store.clone()), CacheOptions::default());
    c.put("a", "x", &pod(""));
    store.close();
    let end = block_on(c.cache.run(Arc::new(store), c.watch.take().unwrap()));
    assert!(matches!(end, Error::Closed));
}

#[test]
fn what_nobody_can_read_is_absent() {
    let mut c = Cluster::new(NO_LIMIT);
    c.put("a", "x", &pod(""));
    let put = |key: Bytes, value: &'static str| block_on(c.store.commit(Batch::new().put(key, value))).unwrap();
    put(c.key("a", "broken"), "{");
    put(c.key("a", "other"), r#"{"metadata":{"name":"x","namespace":"a"}}"#);
    put("/registry/nobody/knows/a/x".into(), "{}");
    put("/elsewhere".into(), "{}");
    c.feed();
    assert_eq!(c.listed(&Filter::all(id::POD)), "a/x");
    assert_eq!(c.cache.revision(), Revision(6));
}

const NODES: [&str; 3] = ["", "n1", "n2"];
const OWNERS: [&str; 3] = ["", "o1", "o2"];
const LABELS: [&str; 2] = ["u", "v"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Maps, indexes and every watcher agree with a naive copy, whatever happens.
    #[test]
    fn indexes_and_watchers_agree_with_a_model(
        ops in prop::collection::vec((0..3usize, 0..4usize, prop::option::weighted(0.7, (0..3usize, 0..3usize, 0..2usize)), any::<bool>()), 1..60),
    ) {
        let mut c = Cluster::new(NO_LIMIT);
        let namespaces = ["a", "a-b", "b"];
        let mut model: BTreeMap<(String, String), Pod> = BTreeMap::new();
        let filters = [c.filter("", "l=u", ""), c.filter("a", "", "spec.nodeName=n1"), c.filter("", "", "spec.nodeName!=n2")];
        let mut watchers: Vec<Watcher> =
            filters.iter().map(|filter| c.cache.watch(filter.clone(), Revision(1)).unwrap()).collect();
        let mut copies: Vec<BTreeMap<ObjectKey, Revision>> = vec![BTreeMap::new(); filters.len()];
        for (namespace, name, what, feed) in ops {
            let (namespace, name) = (namespaces[namespace], format!("p{name}"));
            let key = (format!("{namespace}/"), name.clone());
            match what {
                Some((node, owner, label)) => {
                    let pod = Pod { node: NODES[node], owner: OWNERS[owner], label: LABELS[label] };
                    c.put(namespace, &name, &pod);
                    model.insert(key, pod);
                }
                None => {
                    c.delete(namespace, &name);
                    model.remove(&key);
                }
            }
            if feed {
                c.feed();
                compare(&c, &model);
                for ((filter, watcher), copy) in filters.iter().zip(&mut watchers).zip(&mut copies) {
                    follow(watcher, copy);
                    let listed: BTreeMap<ObjectKey, Revision> =
                        c.cache.list(filter).items.iter().map(|o| (o.key(), o.head.revision)).collect();
                    prop_assert_eq!(&*copy, &listed);
                }
            }
        }
    }
}

/// Applies what a watcher sees to a copy, as a client does, and insists on sane transitions.
fn follow(watcher: &mut Watcher, copy: &mut BTreeMap<ObjectKey, Revision>) {
    while let Some(seen) = watcher.try_next().unwrap() {
        let key = seen.object().key();
        match seen.transition {
            Transition::Added => assert!(copy.insert(key, seen.revision()).is_none()),
            Transition::Modified => assert!(copy.insert(key, seen.revision()).is_some()),
            Transition::Deleted => assert!(copy.remove(&key).is_some()),
        }
    }
}

fn compare(c: &Cluster, model: &BTreeMap<(String, String), Pod>) {
    let world = c.cache.read();
    let names = |objects: &mut dyn Iterator<Item = String>| objects.collect::<Vec<_>>();
    let expected = |wanted: &dyn Fn(&Pod) -> bool| {
        let mut found: Vec<_> =
            model.iter().filter(|(_, pod)| wanted(pod)).map(|((ns, name), _)| format!("{ns}{name}")).collect();
        found.sort();
        found
    };
    let all: Vec<_> = model.keys().map(|(ns, name)| format!("{ns}{name}")).collect();
    assert_eq!(names(&mut world.list(id::POD).map(|o| o.key().to_string())), all);
    assert_eq!(world.count(id::POD), model.len());
    for node in ["n1", "n2"] {
        let mut found = names(&mut world.by_index(id::POD, "spec.nodeName", node).map(|o| o.key().to_string()));
        found.sort();
        assert_eq!(found, expected(&|pod| pod.node == node));
    }
    for owner in ["o1", "o2"] {
        let mut found = names(&mut world.by_owner(owner).map(|o| o.key().to_string()));
        found.sort();
        assert_eq!(found, expected(&|pod| pod.owner == owner));
        assert_eq!(world.owned(owner, id::POD).count(), found.len());
    }
    let mut found = names(&mut world.unmanaged(id::POD, "").map(|o| o.key().to_string()));
    found.sort();
    assert_eq!(found, expected(&|pod| pod.owner != "o1"));
    for (ns, name) in model.keys() {
        let pod = model.get(&(ns.clone(), name.clone())).unwrap();
        let namespace = ns.split('/').rev().find(|part| !part.is_empty()).unwrap_or_default();
        let here = world.unmanaged(id::POD, namespace).any(|o| o.head.name == name.as_str());
        assert_eq!(here, pod.owner != "o1");
        assert_eq!(world.by_uid(&format!("{}.{name}", ns.trim_end_matches('/'))).unwrap().head.name, name.as_str());
    }
}
