//! Starting and stopping the agent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use corten_base::{Entropy, OnError, OnStop, SystemEntropy, Tasks};
use corten_client::{Api, NodeApi};
use corten_dns::{DnsConfig, DnsServer, RecordSource, ResolvConf, Zone};
use corten_net::{NetConfig, PodNetwork, ProxyConfig, ServiceProxy};
use corten_runtime::{Runtime, RuntimeConfig};
use tokio::sync::watch;

use crate::admission::Ledger;
use crate::events::Recorder;
use crate::eviction::{self, Conditions};
use crate::image_gc::ImageCollector;
use crate::images::ImageSource;
use crate::measured::{self, Measured};
use crate::node_api::LocalNode;
use crate::pod::Mailboxes;
use crate::pods::{self, PodTable};
use crate::services::{self, ServiceTable, Targets};
use crate::shared::Shared;
use crate::shutdown::{self, Shutdown};
use crate::sources::SourceCache;
use crate::usage::Samples;
use crate::{Config, NETWORK_DIR, RUNTIME_DIR, facts, labels, local_volumes, node_object, static_pods};

/// Why an agent could not start or stop.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The container runtime.
    #[error("container runtime: {0}")]
    Runtime(#[from] corten_runtime::Error),
    /// Pod network or service proxy.
    #[error("network: {0}")]
    Network(#[from] corten_net::NetError),
    /// Cluster DNS.
    #[error("cluster DNS: {0}")]
    Dns(#[from] corten_dns::DnsError),
    /// A directory.
    #[error("{path}: {source}")]
    Directory {
        /// Which one.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// The API as the users that a node's parts are.
pub struct Apis {
    /// `system:node:NAME`
    pub node: Arc<dyn Api>,
    /// `system:serviceaccount:kube-system:coredns`, who reads services.
    pub services: Arc<dyn Api>,
    /// `system:serviceaccount:kube-system:local-path-provisioner`, who deletes volumes whose directories it has removed.
    pub volumes: Arc<dyn Api>,
}

/// A running agent.
pub struct Agent {
    shared: Arc<Shared>,
    node: Arc<LocalNode>,
    proxy: Option<ServiceProxy>,
}

impl Agent {
    /// Takes over what a former agent left, registers the node and begins to work. Returns once the network is ready and
    /// the background tasks run; registration goes on in them until the API answers. Services are read through
    /// an API of their own user, volumes likewise: a node's own user may not list them all.
    pub async fn start(
        config: Config,
        apis: Apis,
        images: Arc<dyn ImageSource>,
        tasks: Tasks,
    ) -> Result<Agent, AgentError> {
        for path in [&config.data_dir, &config.run_dir] {
            let failed = |source| AgentError::Directory { path: path.clone(), source };
            std::fs::create_dir_all(path).map_err(failed)?;
        }
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let Apis { node: api, services: services_api, volumes: volumes_api } = apis;
        let runtime = Runtime::new(RuntimeConfig {
            state_dir: config.run_dir.join(RUNTIME_DIR),
            exe: config.exe.clone(),
            cgroup_root: format!("corten-{}", config.cluster),
        })?;
        let network = PodNetwork::new(NetConfig {
            cluster: config.cluster.clone(),
            pod_cidr: config.pod_cidr,
            cluster_cidr: config.cluster_cidr,
            service_cidr: config.service_cidr,
            state_dir: config.run_dir.join(NETWORK_DIR),
            mtu: None,
            host_netns: config.host_netns.clone(),
        })
        .await?;
        let image_collector = ImageCollector::new(config.images, tasks.clock().now());
        let shared = Arc::new(Shared {
            events: Recorder::start(api.clone(), &tasks, &config.node_name),
            sources: SourceCache::new(api.clone(), &config.node_name, tasks.clone()),
            services: Arc::new(ServiceTable::default()),
            zone: Arc::new(Zone::new(&config.cluster_domain)),
            facts: facts::observe(&config.data_dir),
            ledger: Ledger::default(),
            samples: Samples::default(),
            probes: crate::metrics::ProbeCounts::default(),
            conditions: Conditions::default(),
            shutdown: Shutdown::default(),
            mailboxes: Mailboxes::default(),
            started: tasks.clock().now(),
            measured: Measured::default(),
            users: crate::users::UserRanges::default(),
            clock: tasks.clock(),
            runtime: Arc::new(runtime),
            config,
            api,
            tasks,
            entropy,
            network,
            images,
            image_collector,
        });
        let targets = if shared.config.serve_services { Some(serve(&shared).await?) } else { None };
        let proxy = targets.as_ref().map(|t| t.proxy.clone());
        let pods = PodTable::default();
        let agent = Agent { node: Arc::new(LocalNode { shared: shared.clone(), pods: pods.clone() }), shared, proxy };
        agent.run(targets, services_api, pods.clone());
        let shared = agent.shared.clone();
        shared
            .tasks
            .clone()
            .run("node-eviction", OnError::Restart, OnStop::Abort, move || eviction::run(shared.clone(), pods.clone()));
        let shared = agent.shared.clone();
        let volumes = local_volumes::run(shared.clone(), volumes_api);
        shared.tasks.spawn("node-local-volumes", OnStop::Abort, volumes);
        Ok(agent)
    }

    fn run(&self, targets: Option<Targets>, services_api: Arc<dyn Api>, pods: PodTable) {
        let shared = &self.shared;
        let services_read = watch::channel(false).0;
        let targets = Arc::new(std::sync::Mutex::new(targets));
        {
            let (shared, ready) = (shared.clone(), services_read.clone());
            shared.tasks.clone().run("node-services", OnError::Restart, OnStop::Abort, move || {
                let targets = targets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let targets = targets.clone();
                let (api, clock, table) = (services_api.clone(), shared.clock.clone(), shared.services.clone());
                services::run(api, clock, table, targets, ready.clone())
            });
        }
        {
            let shared = shared.clone();
            shared
                .tasks
                .clone()
                .run("node-lease", OnError::Restart, OnStop::Abort, move || node_object::renew_lease(shared.clone()));
        }
        {
            let shared = shared.clone();
            let tasks = shared.tasks.clone();
            tasks.run("node-usage", OnError::Restart, OnStop::Abort, move || measured::run(shared.clone()));
        }
        {
            let (shared, proxy) = (shared.clone(), self.proxy.clone());
            shared.tasks.clone().spawn("node-network-repair", OnStop::Abort, repair_network(shared, proxy));
        }
        {
            let shared = shared.clone();
            shared.tasks.clone().spawn("node-images", OnStop::Abort, async move {
                shared.image_collector.run(shared.clone()).await;
            });
        }
        {
            let shared = shared.clone();
            shared.tasks.clone().spawn("node-object", OnStop::Abort, node_object::follow(shared.clone()));
        }
        let (registered, wanted) = (watch::channel(false).0, Arc::new(watch::channel(None).0));
        self.run_pods(pods, &wanted, registered.subscribe());
        let shared = shared.clone();
        shared.tasks.clone().run("node-register", OnError::Restart, OnStop::Abort, move || {
            let (shared, mut ready, registered) = (shared.clone(), services_read.subscribe(), registered.clone());
            async move {
                register(&shared).await?;
                // Containers learn of services through their environment: not before these have been read.
                let _ = ready.wait_for(|ready| *ready).await;
                registered.send_replace(true);
                Ok::<(), String>(())
            }
        });
    }

    /// Static pods begin at once, those of the API when the node is registered.
    fn run_pods(&self, pods: PodTable, wanted: &Arc<static_pods::Wanted>, open: watch::Receiver<bool>) {
        let (shared, manifests) = (self.shared.clone(), wanted.clone());
        shared.tasks.clone().run("node-manifests", OnError::Restart, OnStop::Abort, move || {
            static_pods::follow(shared.clone(), manifests.clone())
        });
        let (shared, manifests) = (self.shared.clone(), wanted.clone());
        shared.tasks.clone().run("node-pods", OnError::Restart, OnStop::Abort, move || {
            let feeds = pods::Feeds { manifests: manifests.subscribe(), open: open.clone() };
            pods::run(shared.clone(), pods.clone(), feeds)
        });
    }

    /// What the API server asks of this node.
    pub fn node_api(&self) -> Arc<dyn NodeApi> {
        self.node.clone()
    }

    /// The node's address in the pod range: pods reach the host there.
    pub fn gateway(&self) -> std::net::Ipv4Addr {
        self.shared.network.node_ip()
    }

    /// Kills all containers and takes away everything that the agent has made on this machine. The task tree must have been
    /// stopped before.
    pub async fn teardown(self) -> Result<(), AgentError> {
        let shared = self.shared.clone();
        let sandboxes = self.shared.blocking(|s| -> corten_runtime::Result<Vec<String>> {
            for container in s.runtime.list_containers()? {
                s.runtime.delete_container(&container.id)?;
            }
            let found = s.runtime.list_sandboxes()?;
            Ok(found.into_iter().map(|b| b.id).collect())
        });
        for id in sandboxes.await.map_err(AgentError::Other)?? {
            shared.network.detach(&id).await?;
            let removed = shared.blocking(move |s| s.runtime.remove_sandbox(&id)).await;
            removed.map_err(AgentError::Other)??;
        }
        if let Some(proxy) = &self.proxy {
            proxy.teardown().await?;
        }
        let unmounted = shared.blocking(|s| crate::volumes::unmount_all(&s.config.data_dir.join("pods"))).await;
        unmounted.map_err(AgentError::Other)?.map_err(|e| AgentError::Other(e.to_string()))?;
        let cluster = shared.config.cluster.clone();
        let state = shared.config.run_dir.join(NETWORK_DIR);
        let cleaned = shared.blocking(move |_| corten_net::teardown_all(&cluster, &state)).await;
        cleaned.map_err(AgentError::Other)??;
        drop((self.node, self.proxy, self.shared));
        if let Ok(shared) = Arc::try_unwrap(shared)
            && let Ok(runtime) = Arc::try_unwrap(shared.runtime)
        {
            runtime.shutdown()?;
        }
        Ok(())
    }

    /// Ends the pods because the machine goes down, in the order and the time of [`Config::shutdown`]. Returns when that is done. No
    /// pod is taken any more.
    pub async fn shut_down(&self) {
        shutdown::run(&self.shared, &self.node.pods).await;
    }

    /// The machine does not go down after all: pods are taken again.
    pub async fn cancel_shutdown(&self) {
        shutdown::cancel(&self.shared).await;
    }

    /// How many containers run.
    pub fn running(&self) -> Result<usize, AgentError> {
        let found = self.shared.runtime.list_containers()?;
        let of_pod = |c: &&corten_runtime::Container| {
            crate::pod::start::is_running(&c.status) && !labels::get(&c.labels, labels::POD_UID).is_empty()
        };
        Ok(found.iter().filter(of_pod).count())
    }
}

/// Registers the node and says so.
async fn register(shared: &Arc<Shared>) -> Result<(), String> {
    node_object::register(shared).await?;
    shared.events.node(false, "Starting", "Starting kubelet.");
    node_object::write_status(shared).await
}

/// Puts back what others take from the pod network (`nft flush ruleset`, `sysctl --system`), of which the kernel tells nobody.
async fn repair_network(shared: Arc<Shared>, proxy: Option<ServiceProxy>) {
    const PAUSE: Duration = Duration::from_secs(30);
    loop {
        shared.clock.sleep(PAUSE).await;
        match shared.network.repair().await {
            Ok(repaired) if repaired.is_empty() => {}
            Ok(repaired) => tracing::warn!("put back what others removed: {}", repaired.join(", ")),
            Err(error) => tracing::warn!(%error, "the pod network cannot be repaired"),
        }
        let Some(proxy) = &proxy else { continue };
        match proxy.repair().await {
            Ok(false) => {}
            Ok(true) => tracing::warn!("put back the services' nftables table, which others removed"),
            Err(error) => tracing::warn!(%error, "the services' table cannot be repaired"),
        }
    }
}

/// The service proxy and DNS of this machine.
async fn serve(shared: &Arc<Shared>) -> Result<Targets, AgentError> {
    let config = &shared.config;
    let node_ip = shared.network.node_ip();
    let proxy = ServiceProxy::new(ProxyConfig {
        cluster: config.cluster.clone(),
        cluster_cidr: config.cluster_cidr,
        service_cidr: config.service_cidr,
        node_ip,
        host_netns: config.host_netns.clone(),
    })
    .await?;
    let zone = shared.zone.clone();
    let host = corten_net::upstream_resolv_conf().unwrap_or_default();
    let upstream = ResolvConf::parse(&host).nameservers;
    let upstream = upstream.iter().filter_map(|n| n.parse().ok()).map(|ip| SocketAddr::new(ip, 53)).collect();
    let mut listen = vec![SocketAddr::from((node_ip, 53))];
    listen.extend(&config.dns_listen);
    if config.host_netns.is_none() {
        let dns = DnsConfig { listen, upstream, upstream_timeout: Duration::from_secs(2), ..DnsConfig::default() };
        let server = DnsServer::bind(dns, zone.clone() as Arc<dyn RecordSource>).await?;
        shared.tasks.spawn("dns", OnStop::Abort, server.run());
    }
    Ok(Targets { node_name: config.node_name.clone(), proxy, zone })
}
