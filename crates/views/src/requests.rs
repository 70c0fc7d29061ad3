//! What a pod asks of a node (`k8s.io/component-helpers/resource`).

use crate::container::Container;
use crate::pod::{Pod, PodSpec};
use crate::quantity::ResourceList;

/// Amounts in the unit that counting uses: `cpu` in millicores, everything else as its value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amounts(std::collections::BTreeMap<String, i64>);

impl Amounts {
    /// From a resource list.
    pub fn of(list: &ResourceList) -> Amounts {
        let amount = |name: &str, q: &crate::Quantity| if name == "cpu" { q.milli() } else { q.value() };
        Amounts(list.iter().map(|(name, q)| (name.clone(), amount(name, q))).collect())
    }

    /// The amount of a resource; 0 if it is not named.
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Whether the resource is named.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Sets an amount.
    pub fn set(&mut self, name: &str, amount: i64) {
        self.0.insert(name.to_owned(), amount);
    }

    /// Adds the other amounts.
    pub fn add(&mut self, other: &Amounts) {
        for (name, amount) in &other.0 {
            let slot = self.0.entry(name.clone()).or_insert(0);
            *slot = slot.saturating_add(*amount);
        }
    }

    /// Takes the other amounts away.
    pub fn subtract(&mut self, other: &Amounts) {
        for (name, amount) in &other.0 {
            let slot = self.0.entry(name.clone()).or_insert(0);
            *slot = slot.saturating_sub(*amount);
        }
    }

    /// Raises each amount to the other's where that is larger.
    pub fn max(&mut self, other: &Amounts) {
        for (name, amount) in &other.0 {
            let slot = self.0.entry(name.clone()).or_insert(*amount);
            *slot = (*slot).max(*amount);
        }
    }

    /// The amounts by resource name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }
}

/// The larger of what starting (init containers one after the other, over the sidecars started before) and running
/// (containers and sidecars together) need, by `amounts` of a container (`resource.AggregateContainerRequests`).
fn aggregate(spec: &PodSpec, amounts: impl Fn(&Container) -> Amounts) -> Amounts {
    let mut running = Amounts::default();
    for container in &spec.containers {
        running.add(&amounts(container));
    }
    let (mut sidecars, mut starting) = (Amounts::default(), Amounts::default());
    for container in &spec.init_containers {
        let mut own = amounts(container);
        if container.is_sidecar() {
            running.add(&own);
            sidecars.add(&own);
            own = sidecars.clone();
        } else {
            own.add(&sidecars);
        }
        starting.max(&own);
    }
    running.max(&starting);
    running
}

/// Whether pod-level resources may name it.
fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// The pod's requests with its overhead (`resource.PodRequests`). `containers_resized` are allocated amounts per container
/// that count instead of the specification's where they are larger; empty if there are none.
pub fn pod_requests(pod: &Pod) -> Amounts {
    let spec = &pod.spec;
    let mut total = aggregate(spec, |container| {
        let mut wanted = Amounts::of(&container.resources.requests);
        if let Some(status) = pod.container_status(&container.name) {
            wanted.max(&Amounts::of(&status.allocated_resources));
        }
        wanted
    });
    if let Some(resources) = &spec.resources {
        for (name, amount) in Amounts::of(&resources.requests).iter().filter(|(name, _)| is_pod_level(name)) {
            total.set(name, amount);
        }
    }
    total.add(&Amounts::of(&spec.overhead));
    total
}

/// The pod's limits with its overhead on those that are named (`resource.PodLimits`).
pub fn pod_limits(spec: &PodSpec) -> Amounts {
    let mut total = aggregate(spec, |container| Amounts::of(&container.resources.limits));
    if let Some(resources) = &spec.resources {
        for (name, amount) in Amounts::of(&resources.limits).iter().filter(|(name, _)| is_pod_level(name)) {
            total.set(name, amount);
        }
    }
    for (name, amount) in Amounts::of(&spec.overhead).iter() {
        if total.get(name) > 0 {
            total.set(name, total.get(name) + amount);
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starting_and_running_are_compared() {
        let pod: Pod = serde_json::from_str(
            r#"{"spec":{"overhead":{"cpu":"10m"},
            "initContainers":[
                {"name":"a","resources":{"requests":{"cpu":"300m"}}},
                {"name":"s","restartPolicy":"Always","resources":{"requests":{"cpu":"50m","memory":"1Mi"}}},
                {"name":"b","resources":{"requests":{"cpu":"400m"}}}],
            "containers":[{"name":"c","resources":{"requests":{"cpu":"200m"}}},{"name":"d","resources":{"requests":{"cpu":"100m"}}}]}}"#,
        )
        .unwrap();
        let requests = pod_requests(&pod);
        assert_eq!(requests.get("cpu"), 450 + 10);
        assert_eq!(requests.get("memory"), 1 << 20);
    }
}
