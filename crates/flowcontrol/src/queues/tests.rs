//! Scenarios on a clock of the test's own.

use super::*;
use crate::Queuing;
use crate::shuffle::flow_hash;

const MS: Nanos = 1_000_000;

/// A set whose tokens are numbers; whoever is woken is noted.
struct Set {
    set: QueueSet<u32>,
    now: Nanos,
    woken: Vec<u32>,
    schema: usize,
}

fn queuing(queues: usize, hand_size: usize, length_limit: usize) -> Option<Response> {
    Some(Response::Queue(Queuing { queues, hand_size, length_limit }))
}

impl Set {
    fn new(response: Option<Response>, limit: u64) -> Set {
        let mut set = QueueSet::new(response, limit, 0);
        let schema = set.schema("f", |_| true);
        Set { set, now: 0, woken: Vec::new(), schema }
    }

    fn begin_wide(&mut self, flow: &str, token: u32, work: Work) -> Begin {
        let arrival = Arrival { schema: self.schema, hash: flow_hash("f", flow), work, watch: false };
        let woken = &mut self.woken;
        self.set.begin(self.now, arrival, token, &mut |token| woken.push(*token))
    }

    fn begin(&mut self, flow: &str, token: u32) -> Begin {
        self.begin_wide(flow, token, Work::ONE)
    }

    fn runs(&mut self, flow: &str, token: u32) -> Id {
        match self.begin(flow, token) {
            Begin::Runs(id) => id,
            other => panic!("{token}: {other:?}"),
        }
    }

    fn waits(&mut self, flow: &str, token: u32) -> Id {
        match self.begin(flow, token) {
            Begin::Waits(id) => id,
            other => panic!("{token}: {other:?}"),
        }
    }

    /// Ends a request; who is woken.
    fn end(&mut self, id: Id) -> Vec<u32> {
        let woken = &mut self.woken;
        self.set.end(id, self.now, &mut |token| woken.push(*token));
        std::mem::take(&mut self.woken)
    }

    fn pass(&mut self, time: Nanos) {
        self.now += time;
    }
}

#[test]
fn exempt_level_has_no_limit() {
    let mut set = Set::new(None, 0);
    let ids: Vec<Id> = (0..1000).map(|n| set.runs("a", n)).collect();
    assert_eq!(set.set.totals().seats_in_use, 1000);
    ids.into_iter().for_each(|id| assert!(set.end(id).is_empty()));
    assert!(set.set.is_idle());
}

#[test]
fn limit_response_reject_turns_away_above_the_limit() {
    let mut set = Set::new(Some(Response::Reject), 2);
    let first = set.runs("a", 1);
    set.runs("a", 2);
    assert_eq!(set.begin("a", 3), Begin::Refused(Refusal::ConcurrencyLimit));
    set.end(first);
    set.runs("b", 4);
    assert_eq!(set.set.totals().rejected, 1);
    assert_eq!(set.set.stats()[0].rejected, [0, 1, 0]);
}

#[test]
fn limit_response_queue_lets_wait_up_to_the_queue_length_limit() {
    let mut set = Set::new(queuing(1, 1, 2), 1);
    let first = set.runs("a", 1);
    let second = set.waits("a", 2);
    set.waits("a", 3);
    assert_eq!(set.begin("a", 4), Begin::Refused(Refusal::QueueFull));
    assert_eq!(set.end(first), [2]);
    assert_eq!(set.end(second), [3]);
    let stats = &set.set.stats()[0];
    assert_eq!((stats.dispatched, stats.rejected, stats.waiting, stats.executing), (3, [1, 0, 0], (0, 0), (1, 1)));
}

#[test]
fn flows_take_turns_whoever_has_more_requests() {
    // A hand of all queues: the elephant fills one queue after the other, the mouse still gets a queue with less in it.
    let mut set = Set::new(queuing(8, 1, 1000), 1);
    let mut running = set.runs("elephant", 0);
    // Different queues, else this would show nothing.
    let other = (0..).map(|n| format!("mouse-{n}")).find(|mouse| {
        let dealer = Dealer::new(8, 1).unwrap();
        let of = |flow: &str| dealer.deal(flow_hash("f", flow), &mut [0; HAND_MAX])[0];
        of(mouse) != of("elephant")
    });
    let mouse = other.unwrap();
    let mut ids: std::collections::HashMap<u32, Id> = (1..100).map(|n| (n, set.waits("elephant", n))).collect();
    ids.extend((1000..1010).map(|n| (n, set.waits(&mouse, n))));
    let mut order = Vec::new();
    for _ in 0..20 {
        set.pass(3 * MS);
        let woken = set.end(running);
        let [next] = woken.as_slice() else { panic!("{woken:?}") };
        running = ids[next];
        order.push(*next >= 1000);
    }
    let mice = order.iter().filter(|mouse| **mouse).count();
    assert_eq!(mice, 10, "{order:?}");
    assert!(order.windows(3).all(|three| three.iter().any(|mouse| *mouse)), "{order:?}");
}

#[test]
fn a_flow_with_long_requests_gets_fewer_of_them() {
    let mut set = Set::new(queuing(2, 1, 1000), 1);
    let queue_of = |flow: &str| Dealer::new(2, 1).unwrap().deal(flow_hash("f", flow), &mut [0; HAND_MAX])[0];
    let flow = |queue| (0..).map(|n| format!("flow-{n}")).find(|flow| queue_of(flow) == queue).unwrap();
    let (long, short) = (flow(0), flow(1));
    let mut running = (0, set.runs(&long, 0));
    let mut ids: std::collections::HashMap<u32, Id> = (1..200).map(|n| (n, set.waits(&long, n))).collect();
    ids.extend((1000..1200).map(|n| (n, set.waits(&short, n))));
    let mut time = [0, 0];
    for _ in 0..100 {
        let takes = if running.0 >= 1000 { 10 * MS } else { 40 * MS };
        time[usize::from(running.0 >= 1000)] += takes;
        set.pass(takes);
        let next = set.end(running.1)[0];
        running = (next, ids[&next]);
    }
    let ratio = time[0] as f64 / time[1] as f64;
    assert!((0.8..1.3).contains(&ratio), "{time:?}");
}

#[test]
fn seats_are_taken_by_width() {
    let wide = |seats| Work { seats, ..Work::ONE };
    let mut set = Set::new(queuing(4, 1, 10), 10);
    let Begin::Runs(six) = set.begin_wide("a", 1, wide(6)) else { panic!() };
    assert!(matches!(set.begin_wide("b", 2, wide(5)), Begin::Waits(_)));
    assert_eq!(
        set.set.totals(),
        Totals { waiting: 1, executing: 1, seats_in_use: 6, seats_waiting: 5, dispatched: 1, ..Totals::default() }
    );
    // Who is next is not overtaken by who would fit: else it would never begin.
    let one = set.waits("b", 3);
    assert_eq!(set.end(six), [2, 3]);
    set.end(one);
    // What is wider than the whole level runs alone.
    let mut set = Set::new(queuing(4, 2, 10), 10);
    let one = set.runs("a", 1);
    assert!(matches!(set.begin_wide("a", 2, wide(20)), Begin::Waits(_)));
    assert_eq!(set.end(one), [2]);
    assert!(matches!(set.begin("a", 3), Begin::Waits(_)));
}

#[test]
fn seats_linger_after_a_write_with_many_watchers() {
    let mut set = Set::new(queuing(1, 1, 10), 4);
    let work = Work { seats: 1, last_seats: 8, lingers: 10 * MS };
    let one = set.runs("a", 0);
    let Begin::Waits(id) = set.begin_wide("a", 1, work) else { panic!("8 seats of 4 begin only when nothing runs") };
    set.end(one);
    assert_eq!(set.set.totals().seats_in_use, 4);
    let waiting = set.waits("a", 2);
    // The same work in fewer seats takes longer.
    let mut woken = Vec::new();
    assert_eq!(set.set.end(id, set.now, &mut |token| woken.push(*token)), Ended::Lingers(20 * MS));
    assert!(woken.is_empty() && set.set.totals().executing == 0 && !set.set.is_idle());
    set.pass(20 * MS);
    set.set.release(id, set.now, &mut |token| woken.push(*token));
    assert_eq!(woken, [2]);
    set.end(waiting);
    assert!(set.set.is_idle());
    assert_eq!(set.set.stats()[0].executing, (0, 0));
}

#[test]
fn who_gives_up_leaves_nothing() {
    let mut set = Set::new(queuing(2, 1, 10), 1);
    let one = set.runs("a", 1);
    let (two, three) = (set.waits("b", 2), set.waits("b", 3));
    set.pass(15_000 * MS);
    assert!(set.set.give_up(two, set.now));
    assert_eq!(set.end(one), [3]);
    // It was let in meanwhile: it has to end as any other.
    assert!(!set.set.give_up(three, set.now));
    set.end(three);
    assert!(set.set.is_idle() && set.set.queues().count() == 0 && set.set.active == 0 && set.set.queued_seats == 0);
    let stats = &set.set.stats()[0];
    assert_eq!((stats.rejected, stats.wait_seconds[0].sum, stats.wait_seconds[0].count), ([0, 0, 1], 15.0, 1));
    assert_eq!(set.set.totals().cancelled, 1);
}

#[test]
fn a_new_configuration_keeps_what_waits() {
    let mut set = Set::new(queuing(8, 1, 10), 1);
    let one = set.runs("a", 1);
    for n in 0..6 {
        set.waits(&format!("flow-{n}"), 10 + n);
    }
    let mut woken = Vec::new();
    set.set.configure(queuing(1, 1, 10), 3, set.now, &mut |token| woken.push(*token));
    assert_eq!(woken.len(), 2);
    set.set.configure(Some(Response::Reject), 3, set.now, &mut |token| woken.push(*token));
    assert_eq!(set.begin("a", 2), Begin::Refused(Refusal::ConcurrencyLimit));
    assert_eq!(set.end(one).len(), 1);
    set.set.set_limit(100, set.now, &mut |token| woken.push(*token));
    assert_eq!((woken.len(), set.set.totals().waiting), (5, 0));
}

#[test]
fn schema_places_are_used_again_when_nobody_is_there() {
    let mut set = Set::new(queuing(8, 1, 10), 1);
    assert_eq!(set.set.schema("g", |_| true), 1);
    assert_eq!(set.set.schema("f", |_| true), 0);
    assert_eq!(set.set.schema("h", |name| name == "f"), 1);
    set.schema = 1;
    let id = set.runs("a", 1);
    assert_eq!(set.set.schema("i", |name| name == "f"), 2);
    set.end(id);
    assert_eq!(set.set.schema("j", |_| false), 0);
}

/// Whatever happens, the sums are what the parts add up to, nothing is lost, and no seat stays unused while one waits that fits.
#[test]
fn any_sequence_keeps_the_books() {
    let mut seed = 1u64;
    let mut next = move |n: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % n
    };
    for round in 0..50 {
        let mut set = Set::new(queuing(1 + round % 16, 1 + round % 2.min(1 + round % 16), 5), 1 + next(20));
        let mut live: Vec<(Id, bool, u32)> = Vec::new();
        let mut lingering: Vec<Id> = Vec::new();
        for token in 0..500 {
            set.pass(next(5) * MS);
            match next(5) {
                0 | 1 => {
                    let last_seats = if next(4) == 0 { next(12) } else { 0 };
                    let work = Work { seats: 1 + next(6), last_seats, lingers: last_seats * MS };
                    match set.begin_wide(&format!("flow-{}", next(6)), token, work) {
                        Begin::Runs(id) => live.push((id, true, token)),
                        Begin::Waits(id) => live.push((id, false, token)),
                        Begin::Refused(_) => {}
                    }
                }
                2 => {
                    if let Some(at) = live.iter().position(|(_, runs, _)| *runs) {
                        let (id, ..) = live.swap_remove(at);
                        let woken = &mut set.woken;
                        if let Ended::Lingers(_) = set.set.end(id, set.now, &mut |token| woken.push(*token)) {
                            lingering.push(id);
                        }
                    }
                }
                3 => {
                    if let Some(id) = lingering.pop() {
                        let woken = &mut set.woken;
                        set.set.release(id, set.now, &mut |token| woken.push(*token));
                    }
                }
                _ => {
                    if let Some(at) = live.iter().position(|(_, runs, _)| !runs) {
                        let (id, ..) = live.swap_remove(at);
                        assert!(set.set.give_up(id, set.now));
                    }
                }
            }
            for token in std::mem::take(&mut set.woken) {
                live.iter_mut().find(|(.., of)| *of == token).expect("who is woken is there").1 = true;
            }
            let totals = set.set.totals();
            assert_eq!(totals.executing, live.iter().filter(|(_, runs, _)| *runs).count() as u64);
            assert_eq!(totals.waiting, live.iter().filter(|(_, runs, _)| !runs).count() as u64);
            let (mut seats, mut waiting, mut active) = (0, 0, 0);
            for queue in &set.set.queues {
                seats += queue.seats;
                waiting += queue.waiting.len() as u64;
                active += u64::from(queue.running > 0 || !queue.waiting.is_empty());
                assert!(queue.seats > 0 || queue.running > 0 || !queue.waiting.is_empty());
            }
            assert_eq!((seats, waiting, active), (totals.seats_in_use, totals.waiting, set.set.active));
            assert_eq!(set.set.queued_seats, totals.seats_in_use + totals.seats_waiting);
            assert!(totals.waiting == 0 || totals.seats_in_use > 0, "somebody waits, and nobody runs");
        }
    }
}
