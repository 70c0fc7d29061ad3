//! One run: a cluster, users, faults, and the checks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use corten_base::Entropy;
use corten_base::entropy::SeededEntropy;

use crate::check::Checker;
use crate::cluster::Cluster;
use crate::node;
use crate::users::Users;

/// How long nothing must have changed for a cluster to count as settled.
const QUIET: Duration = Duration::from_secs(300);
/// How long a cluster may take to settle.
const SETTLE_MAX: Duration = Duration::from_secs(4 * 3600);

/// What a run has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The seed, to run it again.
    pub seed: u64,
    /// How many changes the cluster made.
    pub revisions: usize,
    /// How much virtual time has passed, in seconds.
    pub seconds: i64,
    /// What was wrong.
    pub faults: Vec<String>,
}

/// Simulates a cluster in which users do `steps` things.
pub fn run(seed: u64, steps: usize) -> Report {
    let choice = SeededEntropy::new(seed ^ 0xc401ce);
    let cluster = Cluster::start(seed, !seed.is_multiple_of(3));
    let began = cluster.sim.now();
    node::start(&cluster, 1 + (choice.u64() % 3) as usize);
    let mut checker = Checker::new(&cluster.cache);
    let users = Arc::new(tokio::sync::Mutex::new(Users::new(&cluster)));
    let working = users.clone();
    user_task(&cluster, &mut checker, async move { working.lock().await.begin().await });
    for _ in 0..steps {
        let pause = Duration::from_millis(choice.u64() % 20_000);
        pass(&cluster, &mut checker, pause);
        if choice.u64().is_multiple_of(8) {
            cluster.restart_manager(false);
        }
        let working = users.clone();
        user_task(&cluster, &mut checker, async move { working.lock().await.act().await });
    }
    if settle(&cluster, &mut checker) {
        checker.settled(cluster.sim.now());
    }
    checker.ending = true;
    let working = users.clone();
    user_task(&cluster, &mut checker, async move { working.lock().await.end().await });
    if settle(&cluster, &mut checker) {
        checker.ended();
    }
    Report {
        seed,
        revisions: checker.revisions,
        seconds: cluster.sim.now().duration_since(began).as_secs(),
        faults: checker.faults,
    }
}

/// Lets time pass.
fn pass(cluster: &Cluster, checker: &mut Checker, duration: Duration) -> bool {
    let until = cluster.sim.now().checked_add(duration).expect("within jiff's range");
    let mut any = false;
    loop {
        while cluster.sim.step() {
            any |= checker.follow();
        }
        if !cluster.sim.advance(until) {
            return any;
        }
    }
}

/// Lets a user do something; time passes as needed.
fn user_task(cluster: &Cluster, checker: &mut Checker, what: impl Future<Output = ()> + Send + 'static) {
    let done = Arc::new(Mutex::new(false));
    let flag = done.clone();
    cluster.sim.start(Box::pin(async move {
        what.await;
        *flag.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }));
    while !*done.lock().unwrap_or_else(PoisonError::into_inner) {
        pass(cluster, checker, Duration::from_millis(100));
    }
}

/// Waits until nothing changes any more; false (and a fault) if that does not come.
fn settle(cluster: &Cluster, checker: &mut Checker) -> bool {
    let limit = cluster.sim.now().checked_add(SETTLE_MAX).expect("within jiff's range");
    let mut quiet = Duration::ZERO;
    const STEP: Duration = Duration::from_secs(30);
    while cluster.sim.now() < limit {
        quiet = if pass(cluster, checker, STEP) { Duration::ZERO } else { quiet + STEP };
        if quiet >= QUIET {
            return true;
        }
    }
    checker.faults.push(String::from("the cluster does not settle"));
    false
}

#[cfg(test)]
mod tests {
    use super::run;

    /// `SIM_SEED=N` runs one seed only, `SIM_LOG=corten_manager=debug` tells what happens.
    #[test]
    fn seeds() {
        if let Ok(filter) = std::env::var("SIM_LOG") {
            tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).init();
        }
        let seeds = std::env::var("SIM_SEED").ok().and_then(|s| s.parse().ok()).map_or(0..6, |s: u64| s..s + 1);
        let bad: Vec<_> = seeds.map(|seed| run(seed, 12)).filter(|report| !report.faults.is_empty()).collect();
        assert!(bad.is_empty(), "{bad:#?}");
    }

    #[test]
    fn a_seed_gives_the_same_run() {
        assert_eq!(run(1, 4), run(1, 4));
    }
}
