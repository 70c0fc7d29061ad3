//! How the parts become a server: made in order, wired, stopped in reverse.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use corten_admission::Cidr;
use corten_apiserver::{Server, ServerConfig};
use corten_auth::{Material, PkiNames, Sealer, TokenSigner, User};
use corten_base::{Clock as _, SystemClock, SystemEntropy, Tasks};
use corten_cache::{Cache, CacheOptions, Unseal};
use corten_client::{
    Api, Duplex, ExecRequest, ExecSession, ListOptions, LogRequest, NodeAnswer, NodeApi, NodeRequest, PatchKind,
    PortForwardRequest, Target, Write, WriteOptions,
};
use corten_client::{ByteStream, kubeconfig};
use corten_controllers::certificate_signing::SharedAuthority;
use corten_kinds::{Registry, id};
use corten_manager::Manager;
use corten_net::Severity;
use corten_node::{Agent, Apis};
use corten_object::{FieldSelector, Object, ObjectKey, Reason, Status};
use corten_store::{MemoryStore, SqliteOptions, SqliteStore, Store};
use corten_tree::tree;
use futures::StreamExt as _;
use futures::future::BoxFuture;

use crate::authority::ClusterAuthority;
use crate::dns_service;
use crate::image;
use crate::paths::{Addresses, Cluster};

/// How long the parts may take to finish when the server stops.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// What a server is made of, all decided.
pub struct Plan {
    /// The cluster.
    pub cluster: Cluster,
    /// Its addresses.
    pub addresses: Addresses,
    /// Where to listen; all addresses if `None`, loopback and the pods' gateway if loopback.
    pub bind: Option<IpAddr>,
    /// This machine's node; `None` runs no node.
    pub node_name: Option<String>,
    /// The machine's address.
    pub node_ip: Ipv4Addr,
    /// Pods that the node takes at most.
    pub pods_max: u32,
    /// A shared secret that makes its bearer an administrator.
    pub token: Option<String>,
    /// Whether objects are kept in memory only.
    pub in_memory: bool,
    /// Where to write the administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// How callers prove who they are.
    pub authentication: corten_apiserver::Authentication,
    /// Who decides what is allowed.
    pub authorization: corten_apiserver::AuthorizationOptions,
    /// What is recorded of requests, and where.
    pub audit: corten_apiserver::AuditOptions,
    /// How much the API server does at once, and for how long.
    pub flow: corten_apiserver::FlowLimits,
    /// Soft and hard limit of open files that containers get.
    pub open_files: (u64, u64),
    /// How pods end when the machine goes down.
    pub shutdown: corten_node::ShutdownPeriods,
    /// Manifests of static pods.
    pub pod_manifest_path: Option<PathBuf>,
    /// When the node evicts pods.
    pub eviction: corten_node::EvictionSettings,
    /// Processes and threads that a pod may have.
    pub pod_pids_max: Option<i64>,
    /// When images go that nothing uses.
    pub images: corten_node::ImagePolicy,
    /// How long Events are kept; `None`: as usual.
    pub event_ttl: Option<Duration>,
    /// The keys of service account tokens, besides the cluster's own.
    pub token_keys: TokenKeys,
    /// How long the API server goes on when it is told to stop, not ready any more.
    pub shutdown_delay: Duration,
}

/// Keys of service account tokens as PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenKeys {
    /// Signs, in place of the cluster's own.
    pub signing: Option<String>,
    /// What these have signed is believed, too.
    pub trusted: Vec<String>,
}

impl TokenKeys {
    fn used_by(&self, material: &mut Material) -> Result<()> {
        if let Some(pem) = &self.signing {
            let signer = TokenSigner::from_pem(pem, corten_auth::DEFAULT_ISSUER);
            material.signer = Arc::new(signer.context("--service-account-signing-key-file")?);
        }
        let signer = Arc::get_mut(&mut material.signer).context("the signer is in use already")?;
        self.trusted.iter().try_for_each(|pem| signer.trust(pem).context("--service-account-key-file"))
    }
}

/// A running server.
pub struct Running {
    server: Arc<Server>,
    feed_tasks: Tasks,
    api_tasks: Tasks,
    part_tasks: Tasks,
    agent: Option<Agent>,
    store: Option<SqliteStore>,
    shutdown_delay: Duration,
}

/// Pods that a node takes at most, unless it is told otherwise; upstream's `maxPods`.
pub const PODS_MAX: u32 = 110;

/// What begins a stage's text that is a warning about the host.
pub const WARNING: &str = "warning: ";

/// Makes and starts all parts; `stage` is told what has been reached, and what about this host ([`WARNING`]) would break pods
/// quietly.
///
/// # Errors
/// What keeps a part from starting. Nothing goes on then.
pub async fn start(plan: Plan, mut stage: impl FnMut(&str)) -> Result<Running> {
    let ranges = Ranges::new(&plan.addresses, plan.pods_max)?;
    if plan.node_name.is_some() {
        check_network(&plan, &ranges, &mut stage)?;
    }
    // Parts stop before the API that they write to.
    // What the API answers last still has to come by the cache.
    let (feed_tasks, api_tasks, part_tasks) = (Tasks::tokio(), Tasks::tokio(), Tasks::tokio());
    let clock = Arc::new(SystemClock);
    let (store, sqlite) = open_store(&plan)?;
    let registry = Arc::new(Registry::builtin());
    let sealer =
        Arc::new(Sealer::load_or_create(&plan.cluster.encryption_keys()).context("the keys of Secrets at rest")?);
    let opener = sealer.clone();
    let unseal: Unseal = Arc::new(move |_, place, kept| opener.open(place, kept));
    let cache = Cache::new(registry, CacheOptions { unseal: Some(unseal), ..CacheOptions::default() });
    cache.start(store.clone(), &feed_tasks).await.context("reading the store")?;
    let mut material = material(&plan, &ranges)?;
    plan.token_keys.used_by(&mut material)?;
    let material = Arc::new(material);
    let node_api = Arc::new(LateNode::default());
    let server = Server::start(ServerConfig {
        store,
        cache: cache.clone(),
        material: material.clone(),
        static_tokens: plan.token.iter().map(|t| (t.clone(), User::admin())).collect::<HashMap<_, _>>(),
        listen: listen_addresses(&plan, &ranges),
        advertise: advertise(&plan, &ranges),
        service_cidr: ranges.service,
        clock: clock.clone(),
        entropy: Arc::new(SystemEntropy),
        tasks: api_tasks.clone(),
        node_api: node_api.clone(),
        flow: plan.flow,
        event_ttl: plan.event_ttl,
        authentication: plan.authentication.clone(),
        authorization: plan.authorization.clone(),
        audit: plan.audit.clone(),
        sealer: Some(sealer),
    })
    .await?;
    write_kubeconfig(&plan, &material, &server)?;
    stage("API ready");
    let server = Arc::new(server);
    let manager = Manager {
        cache,
        api: {
            let server = server.clone();
            Arc::new(move |user: &str| server.api_as(component(user)))
        },
        clock,
        entropy: Arc::new(SystemEntropy),
    };
    let config = corten_controllers::Config {
        root_ca: material.ca_cert_pem.clone(),
        authority: SharedAuthority(Some(Arc::new(ClusterAuthority {
            server: server.clone(),
            material: material.clone(),
        }))),
        local_path: plan.cluster.data.join("storage").to_string_lossy().into_owned(),
        ..corten_controllers::Config::default()
    };
    manager.start(&part_tasks, &config);
    let mut running = Running {
        server: server.clone(),
        feed_tasks,
        api_tasks,
        part_tasks,
        agent: None,
        store: sqlite,
        shutdown_delay: plan.shutdown_delay,
    };
    if let Some(name) = &plan.node_name {
        let api = server.api_as(User::node(name));
        let of = |account: &str| server.api_as(User::service_account("kube-system", account));
        let apis = Apis { node: api, services: of("coredns"), volumes: of("local-path-provisioner") };
        match start_agent(&plan, &ranges, name, apis, &running.part_tasks).await {
            Ok(agent) => {
                node_api.set(agent.node_api());
                running.agent = Some(agent);
                label_control_plane(&server.api_as(User::apiserver()), name).await?;
                if let Some(address) = ranges.service.nth(10) {
                    dns_service::publish(&server.api_as(User::apiserver()), address, ranges.gateway()).await?;
                }
            }
            Err(error) => {
                running.stop().await;
                return Err(error);
            }
        }
        stage("node Ready");
    }
    Ok(running)
}

impl Running {
    /// Completes with the reason when a part fails that nothing goes on without.
    pub async fn failed(&self) -> String {
        tokio::select! {
            reason = self.feed_tasks.failed() => reason,
            reason = self.api_tasks.failed() => reason,
            reason = self.part_tasks.failed() => reason,
        }
    }

    /// Ends the node's pods because the machine goes down.
    pub async fn shut_down_node(&self) {
        if let Some(agent) = &self.agent {
            agent.shut_down().await;
        }
    }

    /// Stops the parts, then the API, then the store. Containers go on.
    pub async fn stop(self) {
        self.server.begin_shutdown();
        // Load balancers see that it is not ready, and it goes on answering meanwhile.
        tokio::time::sleep(self.shutdown_delay).await;
        if let Some(agent) = self.agent {
            // The node's pods go on; it is only for a moment that nobody looks after them.
            drop(agent);
        }
        if !self.part_tasks.stop(DRAIN_MAX).await {
            tracing::warn!("some parts did not stop in {DRAIN_MAX:?}");
        }
        if !self.api_tasks.stop(DRAIN_MAX).await {
            tracing::warn!("some connections did not end in {DRAIN_MAX:?}");
        }
        self.feed_tasks.stop(DRAIN_MAX).await;
        if let Some(store) = self.store {
            store.close();
        }
    }
}

/// Address ranges, understood.
struct Ranges {
    cluster: Cidr,
    service: Cidr,
    cluster_text: (Ipv4Addr, u8),
    service_text: (Ipv4Addr, u8),
    node_bits: u8,
}

/// The prefix of a node's pod range: twice as many addresses as pods, so that one which has just been given back rests a while;
/// a /24 at least.
fn node_bits(pods_max: u32) -> u8 {
    let addresses = u64::from(pods_max) * 2;
    let bits = addresses.next_power_of_two().ilog2();
    u8::try_from(32 - bits).unwrap_or(8).min(24)
}

impl Ranges {
    fn new(addresses: &Addresses, pods_max: u32) -> Result<Ranges> {
        let cidr = |flag: &str, text: &str| text.parse::<Cidr>().map_err(|e| anyhow!("{flag} {text}: {e}"));
        let (cluster, service) =
            (cidr("--cluster-cidr", &addresses.cluster_cidr)?, cidr("--service-cidr", &addresses.service_cidr)?);
        let parts = |text: &str| {
            let (ip, bits) = text.split_once('/').unwrap_or((text, "32"));
            Ok::<_, anyhow::Error>((ip.parse()?, bits.parse()?))
        };
        if cluster.size() < 256 || service.size() < 256 {
            bail!("--cluster-cidr and --service-cidr must each hold at least 256 addresses (a /24)");
        }
        let node_bits = node_bits(pods_max);
        let cluster_text = parts(&addresses.cluster_cidr)?;
        if node_bits < 24 && cluster_text.1 > node_bits {
            bail!("--max-pods {pods_max} needs a --cluster-cidr of at least a /{node_bits}");
        }
        Ok(Ranges { node_bits, cluster, service, cluster_text, service_text: parts(&addresses.service_cidr)? })
    }

    /// The first node's pod range: the first one of the pods' range.
    fn pod_cidr(&self) -> (Ipv4Addr, u8) {
        (self.cluster_text.0, self.cluster_text.1.max(self.node_bits))
    }

    /// The first node's address in its pod range: pods' gateway, where DNS and the API are reached.
    fn gateway(&self) -> Ipv4Addr {
        self.cluster.nth(1).unwrap_or(self.cluster_text.0)
    }
}

fn open_store(plan: &Plan) -> Result<(Arc<dyn Store>, Option<SqliteStore>)> {
    if plan.in_memory {
        return Ok((Arc::new(MemoryStore::new()), None));
    }
    let store = SqliteStore::open(&plan.cluster.data.join("store"), SqliteOptions::default()).context("the store")?;
    Ok((Arc::new(store.clone()), Some(store)))
}

fn material(plan: &Plan, ranges: &Ranges) -> Result<Material> {
    let mut ips: Vec<IpAddr> = vec![plan.node_ip.into(), ranges.gateway().into()];
    ips.extend(ranges.service.nth(1).map(IpAddr::from));
    ips.extend(plan.bind.filter(|ip| !ip.is_unspecified()));
    let host = crate::host::node_name();
    let node_name = plan.node_name.clone().unwrap_or_else(|| host.clone());
    let names = PkiNames { dns: vec![host], ips, node_name };
    Material::load_or_create(&plan.cluster.data.join("pki"), &names, SystemClock.now()).context("certificates")
}

/// Loopback means loopback and the pods' gateway: pods must reach the API, strangers must not.
fn listen_addresses(plan: &Plan, ranges: &Ranges) -> Vec<SocketAddr> {
    let port = plan.addresses.port;
    match plan.bind {
        None => vec![SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)],
        Some(ip) if ip.is_loopback() && plan.node_name.is_some() => {
            vec![SocketAddr::new(ip, port), SocketAddr::new(ranges.gateway().into(), port)]
        }
        Some(ip) => vec![SocketAddr::new(ip, port)],
    }
}

/// Where pods reach the API: an address that is not loopback.
fn advertise(plan: &Plan, ranges: &Ranges) -> IpAddr {
    match plan.bind {
        Some(ip) if !ip.is_loopback() && !ip.is_unspecified() => ip,
        Some(ip) if ip.is_loopback() => ranges.gateway().into(),
        _ => plan.node_ip.into(),
    }
}

fn write_kubeconfig(plan: &Plan, material: &Material, server: &Server) -> Result<()> {
    let port = server.addresses().first().map_or(plan.addresses.port, SocketAddr::port);
    let host = match plan.bind {
        Some(ip) if !ip.is_unspecified() => ip,
        _ => Ipv4Addr::LOCALHOST.into(),
    };
    let connection = kubeconfig::Connection {
        server: format!("https://{}", SocketAddr::new(host, port)),
        ca_pem: material.ca_cert_pem.clone().into_bytes(),
        cert_pem: material.admin.cert_pem.clone().into_bytes(),
        key_pem: material.admin.key_pem.clone().into_bytes(),
        ..kubeconfig::Connection::default()
    };
    let config = kubeconfig::single(&plan.cluster.context(), &connection);
    kubeconfig::write(&plan.cluster.kubeconfig(), &config)?;
    if plan.kubeconfig != plan.cluster.kubeconfig() {
        kubeconfig::write(&plan.kubeconfig, &config)?;
    }
    Ok(())
}

/// The user of a component by its name, with the groups that upstream gives it.
fn component(name: &str) -> User {
    if name == User::apiserver().name {
        return User::apiserver();
    }
    match name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        Some((namespace, account)) => User::service_account(namespace, account),
        None => User::new(name, &["system:authenticated"]),
    }
}

async fn start_agent(plan: &Plan, ranges: &Ranges, name: &str, apis: Apis, tasks: &Tasks) -> Result<Agent> {
    let images = image::open_at(&plan.cluster.data)?;
    image::ensure_builtin(&images)?;
    let config = corten_node::Config {
        node_name: name.to_owned(),
        cluster: plan.cluster.name.clone(),
        data_dir: plan.cluster.data.clone(),
        run_dir: plan.cluster.run.clone(),
        exe: std::env::current_exe().context("where is this program?")?,
        node_ip: plan.node_ip,
        pod_cidr: ranges.pod_cidr(),
        cluster_cidr: ranges.cluster_text,
        service_cidr: ranges.service_text,
        cluster_dns: ranges.service.nth(10).into_iter().collect(),
        cluster_domain: "cluster.local".into(),
        serve_services: true,
        dns_listen: Vec::new(),
        pods_max: plan.pods_max,
        // What role a node has is not for its agent to say.
        labels: Vec::new(),
        host_netns: None,
        shutdown: plan.shutdown.clone(),
        open_files: Some(plan.open_files),
        eviction: plan.eviction.clone(),
        pod_manifest_path: plan.pod_manifest_path.clone(),
        // The kubelet's default.
        file_check: Duration::from_secs(20),
        images: plan.images,
        pod_pids_max: plan.pod_pids_max,
    };
    let (data, clock) = (plan.cluster.data.clone(), tasks.clock());
    let images = tokio::task::spawn_blocking(move || image::of_node(images, &data, clock)).await?;
    let api = apis.node.clone();
    let agent = Agent::start(config, apis, images, tasks.clone()).await.map_err(|e| anyhow!("the node: {e}"))?;
    until_ready(api, name).await?;
    Ok(agent)
}

/// Says that the node is part of the control plane, as kubeadm does.
async fn label_control_plane(api: &Arc<dyn Api>, name: &str) -> Result<()> {
    let body = tree!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}});
    let target = Target::object(ObjectKey::new(id::NODE, "", name));
    let patch = Write::Patch { target, patch: PatchKind::Merge, body };
    api.write(patch, WriteOptions::default()).await.context("labelling the node")?;
    Ok(())
}

/// Tells what on this host would break pods quietly; stops, before anything is done, if pods could not be networked at all.
fn check_network(plan: &Plan, ranges: &Ranges, stage: &mut impl FnMut(&str)) -> Result<()> {
    let config = corten_net::NetConfig {
        cluster: plan.cluster.name.clone(),
        pod_cidr: ranges.pod_cidr(),
        cluster_cidr: ranges.cluster_text,
        service_cidr: ranges.service_text,
        state_dir: plan.cluster.run.join(corten_node::NETWORK_DIR),
        mtu: None,
        host_netns: None,
    };
    for finding in corten_net::preflight(&config) {
        match finding.severity {
            Severity::Fatal => bail!("{} {}", finding.summary, finding.next_step),
            Severity::Warning => stage(&format!("{WARNING}{} {}", finding.summary, finding.next_step)),
            Severity::Info => tracing::info!("{} {}", finding.summary, finding.next_step),
        }
    }
    Ok(())
}

/// Waits until the API shows the node as Ready.
async fn until_ready(api: Arc<dyn Api>, name: &str) -> Result<()> {
    let fields = FieldSelector::parse(&format!("metadata.name={name}")).map_err(|e| anyhow!(e))?;
    let options = ListOptions { fields, ..ListOptions::default() };
    let ready = |node: &Object| {
        let node = node.to_tree();
        let conditions = node.list_at("status.conditions");
        conditions.iter().any(|c| c.str_at("type") == "Ready" && c.str_at("status") == "True")
    };
    let list = api.list(id::NODE, options.clone()).await?;
    if list.items.iter().any(|node| ready(node)) {
        return Ok(());
    }
    let mut events = api.watch(id::NODE, options, list.revision).await?;
    while let Some(event) = events.next().await {
        if event?.object.is_some_and(|node| ready(&node)) {
            return Ok(());
        }
    }
    bail!("the node's watch ended before it was Ready")
}

/// The node of this process, once it is there.
#[derive(Default)]
struct LateNode(OnceLock<Arc<dyn NodeApi>>);

impl LateNode {
    fn set(&self, node: Arc<dyn NodeApi>) {
        // The first one stays: there is one node in a process.
        let _ = self.0.set(node);
    }

    fn get(&self) -> Result<&Arc<dyn NodeApi>, Status> {
        self.0.get().ok_or_else(|| Status::new(Reason::ServiceUnavailable, "the node has not started yet"))
    }
}

impl NodeApi for LateNode {
    fn logs(&self, request: LogRequest) -> BoxFuture<'_, Result<ByteStream, Status>> {
        Box::pin(async move { self.get()?.logs(request).await })
    }

    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecSession, Status>> {
        Box::pin(async move { self.get()?.exec(request).await })
    }

    fn port_forward(
        &self,
        request: PortForwardRequest,
    ) -> BoxFuture<'_, Result<std::pin::Pin<Box<dyn Duplex>>, Status>> {
        Box::pin(async move { self.get()?.port_forward(request).await })
    }

    fn usage(&self) -> Vec<Arc<corten_kinds::usage::NodeUsage>> {
        self.0.get().map(|node| node.usage()).unwrap_or_default()
    }

    fn http(&self, request: NodeRequest) -> BoxFuture<'_, Result<NodeAnswer, Status>> {
        Box::pin(async move { self.get()?.http(request).await })
    }
}

/// Removes everything that the cluster's node has made: containers, namespaces, mounts, cgroups, links, rules.
///
/// # Errors
/// The first thing that does not go away; everything else has been tried.
pub fn teardown(cluster: &Cluster) -> Result<()> {
    let runtime = corten_runtime::Runtime::new(runtime_config(cluster)?).context("the container runtime")?;
    let containers = runtime.shutdown().context("containers");
    let network =
        corten_net::teardown_all(&cluster.name, &cluster.run.join(corten_node::NETWORK_DIR)).context("network");
    let volumes = corten_volumes::unmount_below(&cluster.data).context("volumes");
    containers.and(network).and(volumes)?;
    match fs::remove_dir_all(&cluster.run) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| cluster.run.display().to_string())?
        }
        _ => {}
    }
    if let Some(root) = cluster.run.parent() {
        // Removed only when it is empty, that is, when this was the last cluster.
        let _ = fs::remove_dir(root);
    }
    Ok(())
}

/// The container runtime of a cluster.
///
/// # Errors
/// If the running program cannot be found.
fn runtime_config(cluster: &Cluster) -> Result<corten_runtime::RuntimeConfig> {
    Ok(corten_runtime::RuntimeConfig {
        state_dir: cluster.run.join(corten_node::RUNTIME_DIR),
        exe: std::env::current_exe().context("where is this program?")?,
        cgroup_root: format!("corten-{}", cluster.name),
    })
}
