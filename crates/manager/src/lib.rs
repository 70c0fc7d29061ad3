//! Runs controllers and scheduler: queue, one reconcile per key, revision barrier.
//!
//! Deciding is in the crates `controllers` and `scheduler`; here their plans are executed through [`corten_client::Api`], each
//! controller as its own user. Nothing polls: a controller's task waits for changes in the cache, for timers that plans asked
//! for, and for the ends of its own writes.

mod bind;
mod execute;
#[cfg(test)]
mod fake;
mod queue;
mod recorder;
mod runner;
mod scheduling;

use std::sync::Arc;

use corten_base::task::{OnError, OnStop, Tasks};
use corten_base::{Clock, Entropy};
use corten_cache::Cache;
use corten_client::Api;
use corten_controllers::{Config, Controller};

pub use recorder::Recorder;

/// Gives the API as a user of this name sees it.
pub type ApiFactory = Arc<dyn Fn(&str) -> Arc<dyn Api> + Send + Sync>;

/// What running needs from outside.
#[derive(Clone)]
pub struct Manager {
    /// The objects.
    pub cache: Cache,
    /// Writes, by user.
    pub api: ApiFactory,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl Manager {
    /// Starts all controllers and the scheduler as tasks of the tree. The cache must have been loaded.
    pub fn start(&self, tasks: &Tasks, config: &Config) {
        // Nobody can have been heard before this.
        let started = config.started.or_else(|| Some(self.clock.now()));
        for controller in corten_controllers::all(&Config { started, ..config.clone() }) {
            self.start_controller(tasks, controller);
        }
        self.start_scheduler(tasks);
    }

    /// Starts one controller.
    pub fn start_controller(&self, tasks: &Tasks, controller: Box<dyn Controller>) {
        let (manager, controller): (Manager, Arc<dyn Controller>) = (self.clone(), controller.into());
        let name = controller.name();
        let component = controller.component();
        let api = (self.api)(&controller.user());
        let recorder = Recorder::start(tasks, self, api.clone(), component);
        tasks.run(name, OnError::Restart, OnStop::Abort, move || {
            let runner = runner::Runner::new(&manager, controller.clone(), api.clone(), recorder.clone());
            async move { runner.run().await }
        });
    }

    /// Starts the scheduler.
    pub fn start_scheduler(&self, tasks: &Tasks) {
        let manager = self.clone();
        let api = (self.api)("system:kube-scheduler");
        let recorder = Recorder::start(tasks, self, api.clone(), "default-scheduler");
        tasks.run("scheduler", OnError::Restart, OnStop::Abort, move || {
            let scheduler = scheduling::Scheduler::new(&manager, api.clone(), recorder.clone());
            async move { scheduler.run().await }
        });
    }
}
