//! Services: what the proxy and DNS must know, kept equal to the API.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use corten_base::Clock;
use corten_client::{Api, ListOptions};
use corten_dns::{EndpointRecord, PortRecord, ServiceRecords, Zone};
use corten_kinds::id;
use corten_net::{Endpoint, Protocol, Service as NetService, ServicePort, ServiceProxy, TrafficPolicy};
use corten_object::Object;
use corten_views::discovery::EndpointPort;
use corten_views::{EndpointSlice, Service};

use crate::watcher::{Change, Watcher};

/// Changes within this time become one transaction.
const BATCH: Duration = Duration::from_millis(20);

type Key = (String, String);

/// All services and their endpoints.
#[derive(Default)]
pub struct ServiceTable {
    inner: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    services: BTreeMap<Key, Arc<Service>>,
    /// By service, then by the slice's name.
    slices: HashMap<Key, BTreeMap<String, Arc<EndpointSlice>>>,
}

impl ServiceTable {
    /// Services that a pod of a namespace learns of through its environment.
    pub fn for_environment(&self, namespace: &str) -> Vec<Arc<Service>> {
        let tables = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let matters = |(ns, name): &Key| ns == namespace || (ns == "default" && name == "kubernetes");
        tables.services.iter().filter(|(key, _)| matters(key)).map(|(_, s)| s.clone()).collect()
    }

    fn apply_service(&self, change: Change, dirty: &mut BTreeSet<Key>) {
        let mut tables = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let key = |o: &Object| (o.head.namespace.to_string(), o.head.name.to_string());
        match change {
            Change::Reset(objects) => {
                dirty.extend(tables.services.keys().cloned());
                tables.services.clear();
                for object in objects {
                    dirty.insert(key(&object));
                    if let Ok(view) = object.view() {
                        tables.services.insert(key(&object), view);
                    }
                }
            }
            Change::Set(object) => {
                dirty.insert(key(&object));
                if let Ok(view) = object.view() {
                    tables.services.insert(key(&object), view);
                }
            }
            Change::Gone(object) => {
                dirty.insert(key(&object));
                tables.services.remove(&key(&object));
            }
        }
    }

    fn apply_slice(&self, change: Change, dirty: &mut BTreeSet<Key>) {
        let mut tables = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = |o: &Object| {
            let name = o.head.labels.get("kubernetes.io/service-name")?;
            Some((o.head.namespace.to_string(), name.to_owned()))
        };
        let mut set = |tables: &mut Tables, object: Arc<Object>| {
            let Some(key) = owner(&object) else { return };
            if let Ok(view) = object.view() {
                tables.slices.entry(key.clone()).or_default().insert(object.head.name.to_string(), view);
                dirty.insert(key);
            }
        };
        match change {
            Change::Reset(objects) => {
                let old: Vec<Key> = tables.slices.drain().map(|(key, _)| key).collect();
                objects.into_iter().for_each(|o| set(&mut tables, o));
                dirty.extend(old);
            }
            Change::Set(object) => set(&mut tables, object),
            Change::Gone(object) => {
                let Some(key) = owner(&object) else { return };
                if let Some(slices) = tables.slices.get_mut(&key) {
                    slices.remove(object.head.name.as_str());
                    if slices.is_empty() {
                        tables.slices.remove(&key);
                    }
                }
                dirty.insert(key);
            }
        }
    }

    fn look(&self, key: &Key) -> (Option<Arc<Service>>, Vec<Arc<EndpointSlice>>) {
        let tables = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let slices = tables.slices.get(key).map(|s| s.values().cloned().collect()).unwrap_or_default();
        (tables.services.get(key).cloned(), slices)
    }
}

/// Where services are programmed.
#[derive(Clone)]
pub struct Targets {
    pub node_name: String,
    pub proxy: ServiceProxy,
    pub zone: Arc<Zone>,
}

/// Follows services and endpoint slices. `targets` is `None` where another agent of the machine programs them. `ready`
/// becomes true when services have been read once.
pub async fn run(
    api: Arc<dyn Api>,
    clock: Arc<dyn Clock>,
    table: Arc<ServiceTable>,
    targets: Option<Targets>,
    ready: tokio::sync::watch::Sender<bool>,
) -> Result<(), String> {
    let watcher = |kind| Watcher::new(api.clone(), clock.clone(), kind, ListOptions::default());
    let (mut services, mut slices) = (watcher(id::SERVICE), watcher(id::ENDPOINT_SLICE));
    let mut dirty = BTreeSet::new();
    table.apply_service(services.next().await, &mut dirty);
    table.apply_slice(slices.next().await, &mut dirty);
    ready.send_replace(true);
    let mut synced = false;
    let mut failed = 0_u32;
    loop {
        if let Some(targets) = &targets {
            match program(&table, targets, &dirty, synced).await {
                Ok(()) => {
                    dirty.clear();
                    synced = true;
                    failed = 0;
                }
                Err(error) => {
                    failed += 1;
                    tracing::warn!(error, "services could not be programmed");
                }
            }
        } else {
            dirty.clear();
        }
        let again = async {
            match failed {
                0 => std::future::pending().await,
                n => clock.sleep(corten_base::backoff::delay(Duration::from_secs(1), Duration::from_secs(30), n)).await,
            }
        };
        tokio::select! {
            change = services.next() => table.apply_service(change, &mut dirty),
            change = slices.next() => table.apply_slice(change, &mut dirty),
            () = again => continue,
        }
        // More of the same is usually on its way.
        let quiet = clock.sleep(BATCH);
        tokio::pin!(quiet);
        loop {
            tokio::select! {
                change = services.next() => table.apply_service(change, &mut dirty),
                change = slices.next() => table.apply_slice(change, &mut dirty),
                () = &mut quiet => break,
            }
        }
    }
}

async fn program(table: &ServiceTable, targets: &Targets, dirty: &BTreeSet<Key>, synced: bool) -> Result<(), String> {
    let (mut changed, mut removed) = (Vec::new(), Vec::new());
    for key in dirty {
        let (service, slices) = table.look(key);
        let proxied = service.as_ref().and_then(|s| for_proxy(key, s, &slices, &targets.node_name));
        match proxied {
            Some(service) => changed.push(service),
            None => removed.push(id_of(key)),
        }
        match &service {
            Some(service) => {
                targets.zone.set_namespace(&key.0, true);
                targets.zone.set_service(for_dns(service, &slices));
            }
            None => targets.zone.remove_service(&key.0, &key.1),
        }
    }
    let report = match synced {
        false => targets.proxy.sync(changed).await,
        true if changed.is_empty() && removed.is_empty() => return Ok(()),
        true => targets.proxy.update(changed, removed).await,
    };
    let report = report.map_err(|e| e.to_string())?;
    for conflict in &report.conflicts {
        tracing::warn!("{conflict}");
    }
    Ok(())
}

fn id_of(key: &Key) -> String {
    format!("{}/{}", key.0, key.1)
}

fn protocol(text: &str) -> Protocol {
    match text {
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        _ => Protocol::Tcp,
    }
}

fn addresses(texts: &[String]) -> Vec<IpAddr> {
    texts.iter().filter_map(|t| t.parse().ok()).collect()
}

/// A service as the proxy needs it; `None`: it needs none.
fn for_proxy(key: &Key, service: &Service, slices: &[Arc<EndpointSlice>], node: &str) -> Option<NetService> {
    let spec = &service.spec;
    if service.is_headless() || spec.r#type == "ExternalName" || spec.cluster_ip.is_empty() {
        return None;
    }
    let labels = &service.metadata.labels;
    if labels.contains_key("service.kubernetes.io/service-proxy-name") {
        return None;
    }
    let ports = spec.ports.iter().map(|port| ServicePort {
        name: port.name.clone(),
        protocol: protocol(&port.protocol),
        port: u16::try_from(port.port).unwrap_or(0),
        node_port: u16::try_from(port.node_port).ok().filter(|p| *p > 0),
        targets: targets(slices, &port.name, &port.protocol, node),
    });
    let balancer = &service.status.load_balancer.ingress;
    let balanced = balancer.iter().filter(|i| i.ip_mode.as_deref() != Some("Proxy")).filter_map(|i| i.ip.parse().ok());
    let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
    let seconds = config.and_then(|c| c.timeout_seconds).and_then(|s| u32::try_from(s).ok()).unwrap_or(10_800);
    let policy = |local: bool| if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
    let cluster_ips = if spec.cluster_ips.is_empty() {
        addresses(std::slice::from_ref(&spec.cluster_ip))
    } else {
        addresses(&spec.cluster_ips)
    };
    Some(NetService {
        id: id_of(key),
        cluster_ips,
        external_ips: addresses(&spec.external_ips).into_iter().chain(balanced).collect(),
        ports: ports.collect(),
        session_affinity_seconds: (spec.session_affinity == "ClientIP").then_some(seconds),
        internal_policy: policy(spec.internal_traffic_policy.as_deref() == Some("Local")),
        external_policy: policy(spec.external_traffic_policy == "Local"),
    })
}

/// Endpoints of one port: the ready ones, else those that still serve while they end.
fn targets(slices: &[Arc<EndpointSlice>], name: &str, wanted: &str, node: &str) -> Vec<Endpoint> {
    let (mut ready, mut serving) = (Vec::new(), Vec::new());
    for slice in slices {
        let is_port = |p: &&EndpointPort| {
            p.name.as_deref().unwrap_or("") == name
                && protocol(p.protocol.as_deref().unwrap_or("TCP")) == protocol(wanted)
        };
        let Some(port) = slice.ports.iter().find(is_port).and_then(|p| u16::try_from(p.port?).ok()) else { continue };
        for endpoint in &slice.endpoints {
            let local = endpoint.node_name.as_deref() == Some(node);
            let conditions = &endpoint.conditions;
            let into = if conditions.ready != Some(false) {
                &mut ready
            } else if conditions.serving == Some(true) && conditions.terminating == Some(true) {
                &mut serving
            } else {
                continue;
            };
            into.extend(addresses(&endpoint.addresses).into_iter().map(|ip| Endpoint { ip, port, local }));
        }
    }
    let mut out = if ready.is_empty() { serving } else { ready };
    out.sort_by_key(|e| (e.ip, e.port));
    out.dedup_by_key(|e| (e.ip, e.port));
    out
}

fn for_dns(service: &Service, slices: &[Arc<EndpointSlice>]) -> ServiceRecords {
    let spec = &service.spec;
    let transport = |text: &str| match text {
        "UDP" => "udp",
        "SCTP" => "sctp",
        _ => "tcp",
    };
    let port = |name: &str, proto: &str, port: i32| PortRecord {
        name: name.to_owned(),
        protocol: transport(proto),
        port: u16::try_from(port).unwrap_or(0),
    };
    let mut endpoints = Vec::new();
    for slice in slices {
        let one = |p: &EndpointPort| {
            port(p.name.as_deref().unwrap_or(""), p.protocol.as_deref().unwrap_or("TCP"), p.port.unwrap_or(0))
        };
        let ports: Vec<PortRecord> = slice.ports.iter().map(one).collect();
        let published = |e: &&corten_views::discovery::Endpoint| {
            spec.publish_not_ready_addresses || e.conditions.ready != Some(false)
        };
        for endpoint in slice.endpoints.iter().filter(published) {
            for ip in addresses(&endpoint.addresses) {
                endpoints.push(EndpointRecord { ip, hostname: endpoint.hostname.clone(), ports: ports.clone() });
            }
        }
    }
    let cluster_ips = match (service.is_headless(), spec.cluster_ips.is_empty()) {
        (true, _) => Vec::new(),
        (false, true) => addresses(std::slice::from_ref(&spec.cluster_ip)),
        (false, false) => addresses(&spec.cluster_ips),
    };
    ServiceRecords {
        namespace: service.metadata.namespace.clone(),
        name: service.metadata.name.clone(),
        cluster_ips,
        external_name: (spec.r#type == "ExternalName").then(|| spec.external_name.clone()),
        ports: spec.ports.iter().map(|p| port(&p.name, &p.protocol, p.port)).collect(),
        endpoints,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_endpoints_first_then_serving_ones() {
        let slice = |ready: bool| -> Arc<EndpointSlice> {
            let json = format!(
                r#"{{"addressType":"IPv4","ports":[{{"name":"http","protocol":"TCP","port":8080}}],"endpoints":[
                {{"addresses":["10.0.0.1"],"nodeName":"n","conditions":{{"ready":{ready},"serving":true,"terminating":{}}}}}]}}"#,
                !ready
            );
            Arc::new(serde_json::from_str(&json).unwrap())
        };
        let expected = [Endpoint { ip: "10.0.0.1".parse().unwrap(), port: 8080, local: true }];
        assert_eq!(targets(&[slice(true)], "http", "TCP", "n"), expected);
        assert_eq!(targets(&[slice(false)], "http", "TCP", "n"), expected);
        assert!(targets(&[slice(true)], "other", "TCP", "n").is_empty());
    }
}
