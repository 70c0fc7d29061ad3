//! What a request costs here: finding its schema, and taking and giving back a seat. `cargo run --release --example flow_bench`.

use std::hint::black_box;
use std::time::Instant;

use corten_flowcontrol::{
    Arrival, Begin, Digest, FlowSchema, PriorityLevel, QueueSet, What, Work, bootstrap, shuffle::flow_hash,
};

const TIMES: u32 = 1_000_000;

fn measure(what: &str, mut one: impl FnMut(u64)) {
    let began = Instant::now();
    (0..u64::from(TIMES)).for_each(&mut one);
    println!("{what}: {:?}", began.elapsed() / TIMES);
}

fn main() {
    let objects = bootstrap::objects();
    let mut schemas: Vec<FlowSchema> = objects
        .iter()
        .filter(|b| b.object.str_at("kind") == "FlowSchema")
        .map(|b| FlowSchema::read(&b.object))
        .collect();
    schemas.sort_by(|a, b| a.order().cmp(&b.order()));
    let what = What::Resource { group: "", resource: "pods", subresource: "", namespace: "default" };
    let callers: [(&str, &str, &[&str]); 3] = [
        ("the first schema", "system:admin", &["system:masters", "system:authenticated"]),
        ("a node's", "system:node:n", &["system:nodes", "system:authenticated"]),
        ("the last but one", "alice", &["developers", "system:authenticated"]),
    ];
    for (name, user, groups) in callers {
        let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        let digest = Digest { user, groups: &groups, verb: "get", what };
        measure(&format!("match {name}"), |_| {
            black_box(schemas.iter().find(|schema| schema.matches(black_box(&digest))));
        });
    }
    measure("hash of a flow", |_| {
        black_box(flow_hash(black_box("global-default"), black_box("alice")));
    });
    for level in objects.iter().filter_map(|boot| PriorityLevel::read(&boot.object)) {
        if !["exempt", "catch-all", "global-default"].contains(&level.name.as_str()) {
            continue;
        }
        let mut set = QueueSet::new(level.response, 49, 0);
        let schema = set.schema("f", |_| true);
        let hash = flow_hash("f", "alice");
        measure(&format!("a seat of {}", level.name), |now| {
            let arrival = Arrival { schema, hash, work: Work::ONE, watch: false };
            let Begin::Runs(id) = set.begin(now, arrival, (), &mut |()| {}) else { return };
            set.end(id, now + 20_000, &mut |()| {});
        });
    }
}
