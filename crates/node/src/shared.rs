//! What all parts of an agent share.

use std::sync::Arc;

use corten_base::{Clock, Entropy, Tasks, Timestamp};
use corten_client::Api;
use corten_dns::Zone;
use corten_net::PodNetwork;
use corten_podplan::eviction::Signal;
use corten_runtime::Runtime;

use crate::Config;
use crate::admission::Ledger;
use crate::events::Recorder;
use crate::eviction::Conditions;
use crate::facts::Facts;
use crate::image_gc::ImageCollector;
use crate::images::ImageSource;
use crate::measured::Measured;
use crate::metrics::ProbeCounts;
use crate::pod::Mailboxes;
use crate::services::ServiceTable;
use crate::shutdown::Shutdown;
use crate::sources::SourceCache;
use crate::usage::Samples;
use crate::users::UserRanges;

/// What all parts of an agent share.
pub struct Shared {
    pub config: Config,
    pub api: Arc<dyn Api>,
    pub tasks: Tasks,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub runtime: Arc<Runtime>,
    pub network: PodNetwork,
    pub images: Arc<dyn ImageSource>,
    pub image_collector: ImageCollector,
    pub events: Recorder,
    pub sources: SourceCache,
    pub services: Arc<ServiceTable>,
    /// What DNS answers from.
    pub zone: Arc<Zone>,
    pub facts: Facts,
    /// The pods that were taken.
    pub ledger: Ledger,
    /// What was measured before.
    pub samples: Samples,
    /// How probes went.
    pub probes: ProbeCounts,
    /// Of what the node runs short.
    pub conditions: Conditions,
    /// Whether the machine goes down.
    pub shutdown: Shutdown,
    /// How the pods' workers are reached.
    pub mailboxes: Mailboxes,
    /// The users of pods that have some of their own.
    pub users: UserRanges,
    /// When the agent started.
    pub started: Timestamp,
    /// What they use.
    pub measured: Measured,
}

impl Shared {
    /// Runs a call of the runtime where it may block.
    pub async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        call: impl FnOnce(&Shared) -> T + Send + 'static,
    ) -> Result<T, String> {
        let shared = self.clone();
        let joined = tokio::task::spawn_blocking(move || call(&shared)).await;
        joined.map_err(|error| format!("internal error: {error}"))
    }

    /// Bytes of memory that pods may have. Huge pages count by themselves.
    pub fn allocatable_memory(&self) -> i64 {
        let huge: u64 = self.facts.huge_pages.values().sum();
        self.facts.memory
            - i64::try_from(huge).unwrap_or(i64::MAX)
            - self.config.eviction.reserved(Signal::Memory, self.facts.memory)
    }

    /// Bytes of local storage that pods may have.
    pub fn allocatable_storage(&self) -> i64 {
        self.facts.storage - self.config.eviction.reserved(Signal::NodeFs, self.facts.storage)
    }

    /// What the downward API says of the node, for a pod with these addresses.
    pub fn downward_facts(&self, pod_ips: &[String]) -> corten_podplan::downward::Facts {
        let host = self.config.node_ip.to_string();
        corten_podplan::downward::Facts {
            pod_ips: if pod_ips.is_empty() { vec![host.clone()] } else { pod_ips.to_vec() },
            host_ips: vec![host],
            milli_cpu: self.facts.cpus * 1000,
            memory: self.allocatable_memory(),
            ephemeral_storage: self.allocatable_storage(),
        }
    }
}
