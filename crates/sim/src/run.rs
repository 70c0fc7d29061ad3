//! One run: a cluster, users, faults, and the checks; and how a run that fails is made shorter.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::check::{Checker, Fault};
use crate::cluster::Cluster;
use crate::node::Nodes;
use crate::script::{Deed, Script};
use crate::users::Users;

/// How long nothing must have changed for a cluster to count as settled.
const QUIET: Duration = Duration::from_secs(300);
/// The same while jobs are not finished: their next pods wait for up to ten minutes when many have failed.
const QUIET_WITH_JOBS: Duration = Duration::from_secs(660);
/// How long a cluster may take to settle.
const SETTLE_MAX: Duration = Duration::from_secs(4 * 3600);
/// How long what was cut off may take to come back.
const HEAL: Duration = Duration::from_secs(700);
/// How many turns of tasks a second of virtual time may have. A thousand pods take some ten thousand.
const TURNS_MAX: u64 = 1_000_000;
/// How many shorter runs are tried.
const SHORTER_MAX: usize = 60;

/// What a run has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was done.
    pub script: Script,
    /// How many changes the cluster made.
    pub revisions: usize,
    /// How much virtual time has passed, in seconds.
    pub seconds: i64,
    /// The sum of the nodes' virtual time, in seconds.
    pub node_seconds: i64,
    /// What was wrong.
    pub faults: Vec<Fault>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { script, revisions, seconds, .. } = self;
        let faults = self.faults.len();
        write!(f, "seed {}: {revisions} revisions, {seconds} s of virtual time, {faults} faults", script.seed)?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

/// Simulates a cluster in which a script happens.
pub fn run(script: &Script) -> Report {
    Run::start(script, false).finish()
}

/// The same, which ends with the first fault.
pub fn run_to_fault(script: &Script) -> Report {
    Run::start(script, true).finish()
}

/// Takes from a script that fails whatever can be taken while the same rule is broken, and runs what is left.
pub fn shrink(report: &Report) -> Report {
    let mut best = report.clone();
    let Some(broken) = report.faults.first().map(|f| f.invariant) else { return best };
    let mut tries = 0;
    let mut size = best.script.steps.len().div_ceil(2);
    while size > 0 {
        let mut from = 0;
        while from < best.script.steps.len() && tries < SHORTER_MAX {
            tries += 1;
            let shorter = run_to_fault(&best.script.without(from, size));
            if shorter.faults.iter().any(|f| f.invariant == broken) {
                best = shorter;
            } else {
                from += size;
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    best
}

struct Run {
    script: Script,
    cluster: Cluster,
    checker: Checker,
    nodes: Nodes,
    users: Arc<tokio::sync::Mutex<Users>>,
    node_seconds: i64,
    /// Whether the first fault is the end of it.
    to_fault: bool,
    /// The second of virtual time that is, and the turns it has had.
    turns: (i64, u64),
}

impl Run {
    fn start(script: &Script, to_fault: bool) -> Run {
        let cluster = Cluster::start(script.seed, script.faults);
        let nodes = Nodes::start(&cluster, script.nodes);
        let checker = Checker::new(&cluster, nodes.clone());
        let users = Arc::new(tokio::sync::Mutex::new(Users::new(&cluster, nodes.clone())));
        Run { script: script.clone(), cluster, checker, nodes, users, node_seconds: 0, to_fault, turns: (0, 0) }
    }

    fn finish(mut self) -> Report {
        let began = self.cluster.sim.now();
        self.happen();
        let seconds = self.cluster.sim.now().duration_since(began).as_secs();
        self.cluster.sim.end();
        Report {
            revisions: self.checker.revisions,
            seconds,
            node_seconds: self.node_seconds,
            faults: self.checker.faults,
            script: self.script,
        }
    }

    /// Whether nothing more need happen.
    fn is_over(&self) -> bool {
        self.to_fault && !self.checker.faults.is_empty() || self.turns.1 > TURNS_MAX
    }

    /// Counts a turn. Controllers that always find something to do would keep the time from passing.
    fn count_turn(&mut self) {
        let second = self.cluster.sim.now().as_second();
        if self.turns.0 != second {
            self.turns = (second, 0);
        }
        self.turns.1 += 1;
        if self.turns.1 > TURNS_MAX {
            self.checker.restless();
        }
    }

    /// The script, until all is quiet and users have taken everything away again.
    fn happen(&mut self) {
        let users = self.users.clone();
        self.act(async move { users.lock().await.begin().await });
        for (pause, deed) in self.script.steps.clone() {
            if self.is_over() {
                return;
            }
            self.pass(Duration::from_millis(pause));
            self.step(&deed);
        }
        let cut_off = self.script.steps.iter().any(|(_, deed)| matches!(deed, Deed::Silence(..) | Deed::Slow(..)));
        if cut_off {
            self.pass(HEAL);
        }
        let users = self.users.clone();
        self.act(async move { users.lock().await.repair().await });
        if self.settle() {
            self.checker.settled();
        }
        self.checker.ending = true;
        let users = self.users.clone();
        self.act(async move { users.lock().await.end().await });
        if self.settle() {
            self.checker.ended();
        }
    }

    /// One step of the script.
    fn step(&mut self, deed: &Deed) {
        if let Some(seconds) = deed.disturbs() {
            self.checker.disturb(seconds);
        }
        match *deed {
            Deed::RestartPart(number) => self.cluster.restart_part(number),
            Deed::RestartProcess => self.cluster.restart_process(),
            Deed::SetClocks(seconds) => {
                self.checker.clocks_were_set();
                self.cluster.sim.set_clocks(seconds);
            }
            Deed::Sleep(seconds) => {
                self.checker.clocks_were_set();
                self.checker.disturb(seconds + 180);
                self.cluster.sim.suspend(Duration::from_secs(seconds));
            }
            _ => {
                let (users, deed) = (self.users.clone(), deed.clone());
                self.act(async move { users.lock().await.act(&deed).await });
            }
        }
    }

    /// Lets time pass; whether anything has changed.
    fn pass(&mut self, duration: Duration) -> bool {
        let began = self.cluster.sim.now();
        let until = began.checked_add(duration).expect("within jiff's range");
        let mut any = false;
        loop {
            if self.is_over() {
                return any;
            }
            while !self.is_over() && self.cluster.sim.step() {
                any |= self.checker.follow();
                self.count_turn();
            }
            if !self.cluster.sim.advance(until) {
                let passed = self.cluster.sim.now().duration_since(began).as_secs();
                self.node_seconds += passed * self.nodes.machines().len() as i64;
                return any;
            }
        }
    }

    /// Lets users do something; time passes as needed.
    fn act(&mut self, what: impl Future<Output = ()> + Send + 'static) {
        let done = Arc::new(Mutex::new(false));
        let flag = done.clone();
        self.cluster.sim.start(Box::pin(async move {
            what.await;
            *flag.lock().unwrap_or_else(PoisonError::into_inner) = true;
        }));
        while !*done.lock().unwrap_or_else(PoisonError::into_inner) && !self.is_over() {
            self.pass(Duration::from_secs(1));
        }
    }

    /// Waits until nothing changes any more; false (and a fault) if that does not come.
    fn settle(&mut self) -> bool {
        let limit = self.cluster.sim.now().checked_add(SETTLE_MAX).expect("within jiff's range");
        let mut quiet = Duration::ZERO;
        const STEP: Duration = Duration::from_secs(30);
        while self.cluster.sim.now() < limit {
            if self.is_over() {
                return false;
            }
            quiet = if self.pass(STEP) { Duration::ZERO } else { quiet + STEP };
            if quiet >= if self.checker.jobs_go_on() { QUIET_WITH_JOBS } else { QUIET } {
                return true;
            }
        }
        self.checker.unsettled();
        false
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Run, Script, run, shrink};

    #[test]
    fn a_run_in_which_time_stops_passing_ends_with_a_fault() {
        let mut run = Run::start(&Script::new(1, 1), false);
        // A task that is held up lets time pass.
        run.cluster.sim.set_hiccups(None);
        run.cluster.sim.start(Box::pin(async {
            loop {
                tokio::task::yield_now().await;
            }
        }));
        run.pass(Duration::from_secs(1));
        let broken: Vec<_> = run.checker.faults.iter().map(|fault| fault.invariant).collect();
        assert!(run.is_over() && broken == ["time passes"], "{broken:?}");
        run.cluster.sim.end();
    }

    /// `SIM_SEED=N` runs one seed only, `SIM_LOG=corten_manager=debug` tells what happens.
    #[test]
    fn seeds() {
        if let Ok(filter) = std::env::var("SIM_LOG") {
            tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).init();
        }
        let seeds = std::env::var("SIM_SEED").ok().and_then(|s| s.parse().ok()).map_or(0..6, |s: u64| s..s + 1);
        for seed in seeds {
            let report = run(&Script::new(seed, 14));
            if !report.faults.is_empty() {
                let shorter = shrink(&report);
                panic!("{report}\nshorter: {}{shorter}", shorter.script);
            }
        }
    }

    #[test]
    fn a_seed_gives_the_same_run() {
        let script = Script::new(1, 4);
        assert_eq!(run(&script), run(&script));
    }
}
