//! Times durable writes of 1.5 kB: `cargo run --release -p corten-store --example store_bench [DIR]`.

use std::time::{Duration, Instant};

use corten_store::{Batch, KeyRange, Result, SqliteOptions, SqliteStore, Store};
use futures::executor::block_on;

fn main() -> Result<()> {
    let dir = std::env::args_os().nth(1).unwrap_or_else(|| "target/store-bench".into());
    let store = SqliteStore::open(dir.as_ref(), SqliteOptions::default())?;
    for writers in [1, 16, 64] {
        let mut times: Vec<Duration> = Vec::new();
        let (begin, before) = (Instant::now(), store.stats());
        std::thread::scope(|scope| {
            let work = |writer: usize| {
                let store = &store;
                move || {
                    let mut times = Vec::new();
                    for n in 0.. {
                        if begin.elapsed() > Duration::from_secs(3) {
                            break;
                        }
                        let start = Instant::now();
                        let batch = Batch::new().put(format!("{writers}/{writer}/{}", n % 200), vec![n as u8; 1500]);
                        block_on(store.commit(batch)).expect("a commit");
                        times.push(start.elapsed());
                    }
                    times
                }
            };
            let threads: Vec<_> = (0..writers).map(|writer| scope.spawn(work(writer))).collect();
            for thread in threads {
                times.extend(thread.join().expect("a writer"));
            }
        });
        times.sort_unstable();
        let (after, took) = (store.stats(), begin.elapsed());
        println!(
            "{writers} writers: {:.0} writes/s, p50 {:?}, p99 {:?}, {:.1} writes per fsync",
            times.len() as f64 / took.as_secs_f64(),
            times[times.len() / 2],
            times[times.len() * 99 / 100],
            (after.commits - before.commits) as f64 / (after.groups - before.groups) as f64
        );
    }
    let start = Instant::now();
    let page = block_on(store.scan(KeyRange::all(), None, 10_000))?;
    println!("scan of {}: {:?}", page.entries.len(), start.elapsed());
    Ok(())
}
