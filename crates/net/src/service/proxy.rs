//! The kernel work of [`super::ServiceProxy`], on its own thread: what is programmed, and what must change.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::mem;

use super::plan::{self, Front, Key, Pick, Plan, Target, Value};
use super::{ApplyReport, Protocol, ProxyConfig, Service, table};
use crate::netlink::Socket;
use crate::nft::{self, Transaction};
use crate::{Names, NetError, conntrack};

/// Ways of picking an endpoint are kept when nobody uses them any more, up to this many.
const CHAINS_MAX: usize = 2000;

/// State of the kernel thread.
pub(super) struct Proxy {
    config: ProxyConfig,
    table: String,
    socket: Socket,
    services: BTreeMap<String, Programmed>,
    /// Which service answers at a front.
    owners: HashMap<Front, String>,
    /// Services that lack a front because another one has it.
    deprived: BTreeSet<String>,
    /// How many services want a shared element.
    shared: HashMap<Key, usize>,
    chains: HashSet<Pick>,
    /// Whether the kernel's table is ours and as we remember it.
    in_step: bool,
    synced: bool,
}

struct Programmed {
    service: Service,
    plan: Plan,
}

/// Element changes of one call.
#[derive(Default)]
struct Changes {
    deleted: Vec<Key>,
    added: Vec<(Key, Value)>,
    /// Counts of shared elements before the call.
    shared_before: HashMap<Key, usize>,
    /// UDP fronts whose flows may lead to endpoints that are gone, with the endpoints they may have.
    udp: HashMap<Front, UdpChange>,
}

#[derive(Default)]
struct UdpChange {
    now: Vec<Target>,
    gone: Vec<Target>,
}

impl Proxy {
    pub(super) fn new(config: ProxyConfig) -> Result<Self, NetError> {
        Ok(Proxy {
            table: Names::new(&config.cluster)?.service_table(),
            config,
            socket: nft::open()?,
            services: BTreeMap::new(),
            owners: HashMap::new(),
            deprived: BTreeSet::new(),
            shared: HashMap::new(),
            chains: HashSet::new(),
            in_step: false,
            synced: false,
        })
    }

    pub(super) fn sync(&mut self, services: Vec<Service>) -> Result<ApplyReport, NetError> {
        let wanted: HashSet<&str> = services.iter().map(|service| service.id.as_str()).collect();
        let removed = self.services.keys().filter(|id| !wanted.contains(id.as_str())).cloned().collect();
        let changed = services
            .into_iter()
            .filter(|service| self.services.get(&service.id).is_none_or(|known| known.service != *service))
            .collect();
        self.apply(changed, removed)
    }

    pub(super) fn update(&mut self, changed: Vec<Service>, removed: Vec<String>) -> Result<ApplyReport, NetError> {
        if !self.synced {
            return Err(NetError::Invalid("the proxy needs a sync with all services before an update".to_owned()));
        }
        self.apply(changed, removed)
    }

    pub(super) fn repair(&mut self) -> Result<bool, NetError> {
        if !self.synced || (self.in_step && nft::table_exists(&mut self.socket, &self.table)?) {
            return Ok(false);
        }
        self.in_step = false;
        self.replace()?;
        self.in_step = true;
        Ok(true)
    }

    pub(super) fn teardown(&mut self) -> Result<(), NetError> {
        let mut tx = Transaction::new(&self.table);
        tx.delete_table();
        tx.commit(&mut self.socket)?;
        self.services.clear();
        self.owners.clear();
        self.deprived.clear();
        self.shared.clear();
        self.chains.clear();
        (self.in_step, self.synced) = (false, false);
        Ok(())
    }

    fn apply(&mut self, changed: Vec<Service>, removed: Vec<String>) -> Result<ApplyReport, NetError> {
        self.synced = true;
        let mut report = ApplyReport::default();
        let changes = self.change(changed, removed, &mut report.conflicts);
        report.added = changes.added.len();
        report.removed = changes.deleted.len();
        if self.in_step
            && self.chains.len() <= CHAINS_MAX
            && let Err(error) = self.write(&changes)
        {
            tracing::warn!(%error, "a change of services was refused; replacing the whole table");
            self.in_step = false;
        }
        if !self.in_step || self.chains.len() > CHAINS_MAX {
            self.in_step = false;
            self.replace()?;
            self.in_step = true;
            report.replaced = true;
        }
        report.flows_deleted = self.delete_flows(&changes)?;
        Ok(report)
    }

    /// Brings the memory to the new state: what that means for the kernel.
    fn change(&mut self, changed: Vec<Service>, removed: Vec<String>, conflicts: &mut Vec<String>) -> Changes {
        let mut before: BTreeMap<String, Programmed> = BTreeMap::new();
        // By id: of a service that comes twice the last one counts.
        let mut changed: BTreeMap<String, Service> =
            changed.into_iter().map(|service| (service.id.clone(), service)).collect();
        let leaving = changed.keys().cloned().chain(removed).collect::<Vec<_>>();
        let mut released = false;
        for id in leaving {
            if let Some(known) = self.forget(&id) {
                released |= !known.plan.places.is_empty();
                before.insert(id, known);
            }
        }
        if released {
            // A front has become free that one of these may want.
            for id in mem::take(&mut self.deprived) {
                if let Some(known) = self.forget(&id) {
                    changed.insert(id.clone(), known.service.clone());
                    before.insert(id, known);
                }
            }
        }
        let mut changes = Changes::default();
        for service in changed.into_values() {
            let old = before.remove(&service.id);
            let plan = self.claim(&service, old.as_ref().map(|old| &old.plan), conflicts);
            self.compare(old.as_ref(), Some(&plan), &mut changes);
            self.services.insert(service.id.clone(), Programmed { service, plan });
        }
        for old in before.values() {
            self.compare(Some(old), None, &mut changes);
        }
        self.settle_shared(&mut changes);
        changes
    }

    /// Takes a service out of the memory, but for its shared elements.
    fn forget(&mut self, id: &str) -> Option<Programmed> {
        let known = self.services.remove(id)?;
        for front in known.plan.places.keys() {
            self.owners.remove(front);
        }
        self.deprived.remove(id);
        Some(known)
    }

    /// Takes the fronts that are free, and plans the service on them.
    fn claim(&mut self, service: &Service, before: Option<&Plan>, conflicts: &mut Vec<String>) -> Plan {
        for front in plan::fronts(service) {
            let owner = self.owners.entry(front).or_insert_with(|| service.id.clone());
            if *owner != service.id {
                let place = match front.is_node_port() {
                    true => format!("node port {}/{}", front.port, front.protocol.as_str()),
                    false => format!("{}:{}/{}", front.ip, front.port, front.protocol.as_str()),
                };
                conflicts.push(format!("service {}: {place} belongs to service {owner}", service.id));
                self.deprived.insert(service.id.clone());
            }
        }
        let owners = &self.owners;
        plan::plan(
            service,
            |front| owners.get(front).is_some_and(|owner| *owner == service.id),
            before,
            self.config.cluster_cidr,
        )
    }

    fn compare(&mut self, old: Option<&Programmed>, new: Option<&Plan>, changes: &mut Changes) {
        let nothing = Plan::default();
        let old = old.map_or(&nothing, |old| &old.plan);
        let new = new.unwrap_or(&nothing);
        for (key, value) in &old.elements {
            if key.set.is_shared() {
                self.count(*key, -1, changes);
            } else if new.elements.get(key) != Some(value) {
                changes.deleted.push(*key);
            }
        }
        for (key, value) in &new.elements {
            if key.set.is_shared() {
                self.count(*key, 1, changes);
            } else if old.elements.get(key) != Some(value) {
                changes.added.push((*key, *value));
            }
        }
        let udp = |front: &&Front| front.protocol == Protocol::Udp;
        for front in old.places.keys().chain(new.places.keys()).filter(udp) {
            let list = |plan: &Plan| plan.places.get(front).map(|places| places.all.clone()).unwrap_or_default();
            let now = list(new);
            let gone: Vec<_> = list(old).into_iter().filter(|target| !now.contains(target)).collect();
            if !gone.is_empty() || (old.places.get(front).is_none_or(|old| old.all.is_empty()) && !now.is_empty()) {
                let change = changes.udp.entry(*front).or_default();
                change.now.extend(now);
                change.gone.extend(gone);
            }
        }
    }

    fn count(&mut self, key: Key, step: isize, changes: &mut Changes) {
        let count = self.shared.entry(key).or_insert(0);
        changes.shared_before.entry(key).or_insert(*count);
        *count = count.saturating_add_signed(step);
    }

    /// A shared element comes with its first wisher and goes with its last one.
    fn settle_shared(&mut self, changes: &mut Changes) {
        for (key, before) in mem::take(&mut changes.shared_before) {
            let now = self.shared.get(&key).copied().unwrap_or(0);
            match (before, now) {
                (0, 1..) => changes.added.push((key, Value::None)),
                (1.., 0) => changes.deleted.push(key),
                _ => {}
            }
            if now == 0 {
                self.shared.remove(&key);
            }
        }
    }

    fn write(&mut self, changes: &Changes) -> Result<(), NetError> {
        let mut tx = Transaction::new(&self.table);
        let new = missing_chains(&changes.added, &self.chains);
        new.iter().for_each(|pick| table::put_pick(&mut tx, pick, &self.config));
        table::delete(&mut tx, &changes.deleted);
        table::add(&mut tx, &changes.added);
        tx.commit(&mut self.socket)?;
        self.chains.extend(new);
        Ok(())
    }

    /// Builds the whole table anew in one step; packets see the old one until then.
    fn replace(&mut self) -> Result<(), NetError> {
        let own = self.services.values().flat_map(|known| &known.plan.elements);
        let mut elements: Vec<(Key, Value)> =
            own.filter(|(key, _)| !key.set.is_shared()).map(|(key, value)| (*key, *value)).collect();
        elements.extend(self.shared.keys().map(|key| (*key, Value::None)));
        let chains = missing_chains(&elements, &HashSet::new());
        let mut tx = Transaction::new(&self.table);
        table::put_static(&mut tx, &self.config);
        chains.iter().for_each(|pick| table::put_pick(&mut tx, pick, &self.config));
        table::add(&mut tx, &elements);
        tx.commit(&mut self.socket)?;
        self.chains = chains.into_iter().collect();
        Ok(())
    }

    /// UDP has no end of a connection: without this, clients would talk to endpoints that are gone for ever.
    /// As upstream `pkg/proxy/conntrack/cleanup.go`.
    fn delete_flows(&mut self, changes: &Changes) -> Result<usize, NetError> {
        if changes.udp.is_empty() {
            return Ok(0);
        }
        conntrack::delete_udp(&mut self.socket, |flow| {
            let front = |ip| Front { ip, protocol: Protocol::Udp, port: flow.destination_port };
            let target = (flow.reply_source, flow.reply_source_port);
            match changes.udp.get(&front(flow.destination)) {
                Some(change) => !change.now.contains(&target),
                None => changes
                    .udp
                    .get(&front(std::net::Ipv4Addr::UNSPECIFIED))
                    .is_some_and(|change| change.gone.contains(&target) && !change.now.contains(&target)),
            }
        })
    }
}

/// The chains that elements lead to and that are not there yet, each behind those that it leads to itself.
fn missing_chains(elements: &[(Key, Value)], there: &HashSet<Pick>) -> Vec<Pick> {
    let mut seen = HashSet::new();
    let mut missing = Vec::new();
    for (_, value) in elements {
        let Value::Pick(pick) = value else { continue };
        let needed = if pick.local.is_some() { pick.unrestricted().to_vec() } else { Vec::new() };
        for pick in needed.into_iter().chain([*pick]) {
            if !there.contains(&pick) && seen.insert(pick) {
                missing.push(pick);
            }
        }
    }
    missing
}
