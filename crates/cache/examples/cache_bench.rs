//! Times the cache with 10,000 realistic pods: `cargo run --release -p corten-cache --example cache_bench`.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use corten_cache::{Cache, CacheOptions, Filter, keys};
use corten_kinds::{Registry, id};
use corten_object::{FieldSelector, LabelSelector, Revision};
use corten_store::{Batch, Change, Changes, SqliteOptions, SqliteStore, Store};
use futures::executor::block_on;

const PODS: u64 = 10_000;

fn main() {
    let registry = Arc::new(Registry::builtin());
    let pod = registry.get(id::POD).clone();
    let cache = Cache::new(registry, CacheOptions::default());
    let filler = "x".repeat(4600);
    let changes: Vec<Arc<Changes>> = (0..PODS)
        .map(|n| {
            let (namespace, name) = (format!("ns{}", n % 20), format!("web-{n}"));
            let value = format!(
                r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"{namespace}","uid":"{n}","labels":{{"app":"a{}","tier":"web"}},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"r","uid":"r{}","controller":true}}],"annotations":{{"x":"{filler}"}}}},"spec":{{"nodeName":"n{}"}}}}"#,
                n % 50,
                n / 10,
                n % 100
            );
            let change = Change {
                key: keys::object(&pod, &namespace, &name),
                value: Some(Bytes::from(value)),
                create_revision: Revision(n + 2),
                version: 1,
                previous: Revision::ZERO,
            };
            Arc::new(Changes { revision: Revision(n + 2), changes: vec![change] })
        })
        .collect();
    let start = Instant::now();
    cache.apply(&changes);
    println!("apply, per pod: {:?}", start.elapsed() / PODS as u32);
    let filter = |labels: &str, fields: &str| {
        let labels = Some(LabelSelector::parse(labels).expect("a selector"));
        Filter::new(&pod, "", labels, &FieldSelector::parse(fields).expect("a selector")).expect("known fields")
    };
    for (name, filter) in [
        ("list all", Filter::all(id::POD)),
        ("list by label", filter("app=a7", "")),
        ("list by node (index)", filter("", "spec.nodeName=n7")),
    ] {
        let best = (0..50).map(|_| {
            let start = Instant::now();
            let list = cache.list(&filter);
            (start.elapsed(), list.items.len())
        });
        let (time, count) = best.min().expect("50 runs");
        println!("{name}: {time:?} for {count} of {PODS}");
    }
    load(&changes);
}

/// How long a start takes that finds this many pods in the store.
fn load(changes: &[Arc<Changes>]) {
    let dir = std::env::args_os().nth(1).unwrap_or_else(|| "target/cache-bench".into());
    let _ = std::fs::remove_dir_all(&dir);
    let start = Instant::now();
    let store = SqliteStore::open(dir.as_ref(), SqliteOptions::default()).expect("a new store");
    println!("open a new store: {:?}", start.elapsed());
    for batch in changes.chunks(1000) {
        let each = batch.iter().flat_map(|changes| &changes.changes);
        let batch = each.fold(Batch::new(), |batch, change| {
            batch.put(change.key.clone(), change.value.clone().expect("only puts"))
        });
        block_on(store.commit(batch)).expect("a commit");
    }
    store.close();
    let start = Instant::now();
    let store = SqliteStore::open(dir.as_ref(), SqliteOptions::default()).expect("an old store");
    println!("open it again: {:?}", start.elapsed());
    let start = Instant::now();
    let cache = Cache::new(Arc::new(Registry::builtin()), CacheOptions::default());
    block_on(cache.load(&store)).expect("a load");
    println!("load {PODS} pods: {:?}", start.elapsed());
    assert_eq!(cache.read().count(id::POD), PODS as usize);
    drop(store);
    let _ = std::fs::remove_dir_all(&dir);
}
