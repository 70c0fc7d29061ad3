//! ServiceCIDRs become ready, and stay while Services hold addresses that no other range has
//! (`pkg/controller/servicecidrs/servicecidrs_controller.go`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use corten_kinds::id;
use corten_object::Object;
use corten_object::conditions::{self, NewCondition};
use corten_tree::{Tree, tree};

use crate::{Action, Changed, Controller, Key, Plan, Watch, World, status};

/// The controller.
pub struct ServiceCidrs;

/// Holds a range until no address needs it.
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// How long a range that nothing needs stays, so that every server has stopped allocating from it.
const GRACE: Duration = Duration::from_secs(10);
/// Upstream's allocators mark their addresses with this label.
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");

const WATCHES: &[Watch] = &[
    Watch::itself(id::SERVICE_CIDR),
    Watch::by(id::SERVICE_CIDR, ending_ranges),
    Watch::by(id::IP_ADDRESS, ending_ranges),
];

/// Another range, or an address that went, may be what a range waits for that is being deleted.
fn ending_ranges(change: &Changed<'_>, out: &mut Vec<Key>) {
    let ending = change.state.list(id::SERVICE_CIDR).filter(|range| range.head.is_deleting());
    out.extend(ending.map(|range| range.key()));
}

/// A range of addresses: the first bits of one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Range {
    /// Left-aligned in 128 bits.
    bits: u128,
    length: u32,
    v4: bool,
}

impl Range {
    fn parse(text: &str) -> Option<Range> {
        let (ip, length) = text.split_once('/')?;
        let address = Range::of(ip.parse().ok()?);
        Some(Range { length: length.parse().ok().filter(|n| *n <= address.length)?, ..address })
    }

    /// One address.
    fn of(ip: IpAddr) -> Range {
        match ip {
            IpAddr::V4(v4) => Range { bits: u128::from(u32::from(v4)) << 96, length: 32, v4: true },
            IpAddr::V6(v6) => Range { bits: v6.into(), length: 128, v4: false },
        }
    }

    fn contains(&self, other: &Range) -> bool {
        let differs = (self.bits ^ other.bits).checked_shr(128 - self.length).unwrap_or(0);
        self.v4 == other.v4 && self.length <= other.length && differs == 0
    }
}

fn ranges(object: &Object) -> Vec<Range> {
    object.to_tree().list_at("spec.cidrs").iter().filter_map(|cidr| Range::parse(cidr.as_str()?)).collect()
}

/// `canDeleteCIDR`: another range has all of this one, or no address would be left without a range.
fn may_go(world: &World<'_>, range: &Object) -> bool {
    let others: Vec<Range> = world
        .state
        .list(id::SERVICE_CIDR)
        .filter(|other| other.head.name != range.head.name && !other.head.is_deleting())
        .flat_map(|other| ranges(other))
        .collect();
    let own = ranges(range);
    let covered = |range: &Range| others.iter().any(|other| other.contains(range));
    if own.iter().all(covered) {
        return true;
    }
    let (label, manager) = MANAGED_BY;
    let held = world.state.list(id::IP_ADDRESS).filter(|address| address.head.labels.get(label) == Some(manager));
    let addresses = held.filter_map(|address| address.head.name.parse().ok()).map(Range::of);
    !addresses.into_iter().any(|address| own.iter().any(|range| range.contains(&address)) && !covered(&address))
}

fn ready(world: &World<'_>, range: &Arc<Object>, status: &str, reason: &str, message: &str) -> Option<Action> {
    let tree = range.to_tree();
    let before = status::of(&tree);
    let same =
        |c: &Tree| c.str_at("status") == status && c.str_at("reason") == reason && c.str_at("message") == message;
    if conditions::find(&before, "Ready").is_some_and(same) {
        return None;
    }
    let mut after = before.clone();
    conditions::replace(
        &mut after,
        &NewCondition { kind: "Ready", status, reason, message: message.to_owned() },
        world.now,
        "",
    );
    status::write(range, &before, &after)
}

impl Controller for ServiceCidrs {
    fn name(&self) -> &'static str {
        "service-cidrs"
    }

    fn component(&self) -> &'static str {
        "service-cidrs-controller"
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(range) = world.state.get(key) else { return Plan::empty() };
        let held = range.head.finalizers.iter().any(|finalizer| *finalizer == *FINALIZER);
        let Some(deleted) = range.head.deleted else {
            let mut plan = Plan::empty();
            if !held {
                let all = range.head.finalizers.iter().map(|f| f.as_str()).chain([FINALIZER]);
                let all: Vec<Tree> = all.map(Tree::from).collect();
                plan.stage([Action::patch(range, tree!({"metadata": {"finalizers": (all)}}))]);
                return plan;
            }
            let known = conditions::find(&status::of(&range.to_tree()), "Ready").map(|c| c.str_at("status").to_owned());
            if known.as_deref() != Some("True") {
                plan.stage(ready(world, range, "True", "", "Kubernetes Service CIDR is ready"));
            }
            return plan;
        };
        if !may_go(world, range) {
            let why = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
            return Plan::of(ready(world, range, "False", "Terminating", why).into_iter().collect());
        }
        if !held {
            return Plan::empty();
        }
        let since = world.now.duration_since(deleted);
        let passed = Duration::try_from(since).unwrap_or_default();
        if let Some(left) = GRACE.checked_sub(passed).filter(|left| !left.is_zero()) {
            let mut plan = Plan::empty();
            plan.requeue_after(left);
            return plan;
        }
        let rest = range.head.finalizers.iter().filter(|finalizer| **finalizer != *FINALIZER);
        let rest: Vec<Tree> = rest.map(|finalizer| Tree::from(finalizer.as_str())).collect();
        Plan::of(vec![Action::patch(range, tree!({"metadata": {"finalizers": (rest)}}))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_contain_addresses_and_ranges() {
        let range = |text: &str| Range::parse(text).unwrap();
        assert!(range("10.0.0.0/8").contains(&range("10.1.0.0/16")));
        assert!(!range("10.1.0.0/16").contains(&range("10.0.0.0/8")));
        assert!(range("0.0.0.0/0").contains(&Range::of("1.2.3.4".parse().unwrap())));
        assert!(!range("::/0").contains(&Range::of("1.2.3.4".parse().unwrap())));
        assert!(Range::parse("1.2.3.4/33").is_none());
    }
}
