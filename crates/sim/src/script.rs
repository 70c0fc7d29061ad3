//! What happens in a run, as a list that a seed gives and that can be made shorter.

use std::fmt;

use corten_base::Entropy;
use corten_base::entropy::SeededEntropy;

/// One thing that happens: something that users do, or that goes wrong. Numbers choose among what is there at that time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    /// A new image of the deployment that is only rolled.
    Roll,
    /// An image that no node can pull, until the next roll.
    RollBad,
    /// Holds the rollout, or lets it go on.
    Pause(bool),
    /// Another size of the scaled deployment.
    Scale(u64),
    /// Another image of the scaled deployment.
    Image(u64),
    /// Deletes the scaled deployment in one of three ways and makes it again after some seconds.
    Recreate { way: usize, wait: u64 },
    /// Another size of the ordered stateful set.
    Stretch(u64),
    /// A new image of the ordered stateful set.
    RollStateful,
    /// Another size of the parallel stateful set.
    StretchParallel(u64),
    /// A new image of the daemons.
    RollDaemons,
    /// A job of this shape.
    Job(JobShape),
    /// Deletes one of the jobs.
    DeleteJob(u64),
    /// Holds one of the jobs, or lets it go on.
    Suspend(u64, bool),
    /// Evicts so many of the guarded pods, one soon after the other.
    Evict(u64),
    /// Another size of the deployment under a quota.
    Crowd(u64),
    /// Deletes a pod.
    Kill(u64),
    /// A pod's container ends and comes back.
    Crash(u64),
    /// One controller, or the scheduler, dies and starts anew.
    RestartPart(usize),
    /// The whole process dies and starts anew.
    RestartProcess,
    /// A node is cut off for so many seconds.
    Silence(u64, u64),
    /// A node does everything ten times as slowly for so many seconds.
    Slow(u64, u64),
    /// A machine goes for good, and its node object with it.
    Remove(u64),
    /// A machine comes.
    Add,
    /// All clocks are put forward or back.
    SetClocks(i64),
    /// The machine that all runs on is suspended for so many seconds.
    Sleep(u64),
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobShape {
    pub completions: u64,
    pub parallelism: u64,
    pub indexed: bool,
    pub backoff_limit: u64,
    /// How many of a hundred pods fail.
    pub failing: u64,
    /// Seconds that it may take.
    pub deadline: Option<u64>,
    /// Seconds until it goes after its end.
    pub ttl: Option<u64>,
    /// Its pods would run for hours.
    pub endless: bool,
    pub suspended: bool,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    pub(crate) seed: u64,
    pub(crate) nodes: u64,
    /// Whether store and tasks misbehave by chance.
    pub(crate) faults: bool,
    /// What happens, each after a pause of so many milliseconds.
    pub(crate) steps: Vec<(u64, Deed)>,
}

impl Script {
    /// What a seed gives.
    pub fn new(seed: u64, steps: usize) -> Script {
        let choice = SeededEntropy::new(seed ^ 0x00c4_01ce);
        let pick = |n: u64| choice.u64() % n;
        let nodes = 1 + pick(4);
        // A third of the runs are calm: nothing but what users do.
        let rough = !seed.is_multiple_of(3);
        let one = |_| {
            let pause = if pick(10) == 0 { pick(600_000) } else { pick(20_000) };
            (pause, if rough && pick(10) < 3 { trouble(&pick) } else { work(&pick) })
        };
        Script { seed, nodes, faults: rough, steps: (0..steps).map(one).collect() }
    }

    /// The same without the steps from `from` on, `count` of them.
    pub(crate) fn without(&self, from: usize, count: usize) -> Script {
        let mut shorter = self.clone();
        shorter.steps.drain(from..(from + count).min(self.steps.len()));
        shorter
    }
}

/// What users do.
fn work(pick: &impl Fn(u64) -> u64) -> Deed {
    match pick(20) {
        0..=3 => Deed::Roll,
        4 => Deed::RollBad,
        5 => Deed::Pause(pick(2) == 0),
        6 => Deed::Scale(pick(8)),
        7 => Deed::Image(pick(3)),
        8 => Deed::Recreate { way: pick(3) as usize, wait: pick(30) },
        9 => Deed::Stretch(pick(5)),
        10 | 11 => Deed::RollStateful,
        12 => Deed::StretchParallel(pick(5)),
        13 => Deed::RollDaemons,
        14 | 15 => Deed::Job(JobShape::chosen(pick)),
        16 => Deed::Suspend(pick(100), pick(2) == 0),
        17 => Deed::Evict(1 + pick(4)),
        18 => Deed::Crowd(2 + pick(7)),
        _ => Deed::DeleteJob(pick(100)),
    }
}

/// What goes wrong.
fn trouble(pick: &impl Fn(u64) -> u64) -> Deed {
    match pick(16) {
        0..=3 => Deed::RestartPart(pick(1000) as usize),
        4 | 5 => Deed::RestartProcess,
        6 => Deed::Kill(pick(100)),
        7 => Deed::Crash(pick(100)),
        8 | 9 => Deed::Silence(pick(100), 10 + pick(600)),
        10 => Deed::Slow(pick(100), 10 + pick(200)),
        11 | 12 => Deed::Remove(pick(100)),
        13 => Deed::Add,
        14 => Deed::SetClocks(pick(900) as i64 - 200),
        _ => Deed::Sleep(1 + pick(900)),
    }
}

impl JobShape {
    fn chosen(pick: &impl Fn(u64) -> u64) -> JobShape {
        let endless = pick(8) == 0;
        JobShape {
            completions: 1 + pick(5),
            parallelism: 1 + pick(3),
            indexed: pick(2) == 0,
            backoff_limit: [0, 2, 6, 50][pick(4) as usize],
            failing: [0, 20, 50][pick(3) as usize],
            deadline: (endless || pick(6) == 0).then(|| 20 + pick(60)),
            ttl: (pick(3) == 0).then(|| pick(200)),
            endless,
            suspended: pick(8) == 0,
        }
    }
}

impl Deed {
    /// For how many seconds more, once it is done, pods may be missing through nobody's fault; `None`: it takes none away.
    pub fn disturbs(&self) -> Option<u64> {
        match self {
            Deed::Silence(_, seconds) => Some(seconds + 120),
            Deed::Remove(_) | Deed::Add | Deed::SetClocks(_) | Deed::Sleep(_) => Some(180),
            Deed::Kill(_) | Deed::Crash(_) => Some(90),
            _ => None,
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store = if self.faults { ", faults" } else { "" };
        writeln!(f, "seed {}, {} nodes{store}", self.seed, self.nodes)?;
        for (pause, deed) in &self.steps {
            writeln!(f, "  after {:.1} s: {deed:?}", *pause as f64 / 1000.0)?;
        }
        Ok(())
    }
}
