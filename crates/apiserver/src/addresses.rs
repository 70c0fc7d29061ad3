//! An IPAddress for each address that a Service has (`ipallocator.go` `newIPAddress`, `controller/repairip.go`).
//!
//! The books of [`corten_admission::ServiceAllocator`] decide; the objects follow each durable write before it is answered, and
//! all of them at the start. An IPAddress that somebody deletes under its Service comes back at once.

use std::net::Ipv4Addr;

use corten_admission::{Moved, parent_service};
use corten_base::BoxFuture;
use corten_kinds::id;
use corten_object::{ObjectKey, Status};
use corten_tree::{Tree, tree};

use crate::core::Core;
use crate::own::Own;
use crate::pipeline::DeleteParameters;

/// The label that says who looks after an address, and its value.
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");

impl Core {
    /// Makes and removes the objects of addresses that a write of a Service has moved.
    pub(crate) fn note_addresses(&self, service: &ObjectKey, moved: Moved) -> BoxFuture<'_, ()> {
        let service = service.clone();
        Box::pin(async move {
            for ip in moved.taken {
                self.told(ip, self.make_address(ip, &service).await);
            }
            for ip in moved.left {
                self.told(ip, self.remove_address(ip, &service).await);
            }
        })
    }

    /// An IPAddress is gone: if a Service still has the address, it comes back.
    pub(crate) async fn repair_address(&self, gone: &ObjectKey) {
        if gone.kind != id::IP_ADDRESS {
            return;
        }
        let owner = gone.name.parse().ok().and_then(|ip: Ipv4Addr| Some((ip, self.services.owner(ip)?)));
        if let Some((ip, service)) = owner {
            self.note_addresses(&service, Moved { taken: vec![ip], left: Vec::new() }).await;
        }
    }

    /// Makes what is missing and removes what no Service has, of all addresses.
    pub(crate) async fn repair_addresses(&self) {
        let held = self.services.addresses();
        for (ip, service) in &held {
            if self.cache.get(&ObjectKey::new(id::IP_ADDRESS, "", &ip.to_string())).is_none() {
                self.told(*ip, self.make_address(*ip, service).await);
            }
        }
        let objects: Vec<_> = self.cache.read().list(id::IP_ADDRESS).cloned().collect();
        let (label, manager) = MANAGED_BY;
        for object in objects.iter().filter(|object| object.head.labels.get(label) == Some(manager)) {
            let Ok(ip) = object.head.name.parse::<Ipv4Addr>() else { continue };
            let Some(service) = parent_service(&object.to_tree()) else { continue };
            if !held.contains(&(ip, service.clone())) {
                self.told(ip, self.remove_address(ip, &service).await);
            }
        }
    }

    /// The Service stands as it was written; its address object is tried again at the next start.
    fn told(&self, ip: Ipv4Addr, result: Result<(), Status>) {
        if let Err(status) = result {
            tracing::warn!(%ip, error = %status.message, "the IPAddress of a Service is not as it should be");
        }
    }

    async fn make_address(&self, ip: Ipv4Addr, service: &ObjectKey) -> Result<(), Status> {
        let (label, manager) = MANAGED_BY;
        let mut labels = Tree::map();
        labels.insert("ipaddress.kubernetes.io/ip-family", "IPv4");
        labels.insert(label, manager);
        let object = tree!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
            "metadata": {"name": (ip.to_string()), "labels": labels},
            "spec": {"parentRef": {"group": "", "resource": "services",
                "namespace": (service.namespace.as_str()), "name": (service.name.as_str())}}});
        let key = ObjectKey::new(id::IP_ADDRESS, "", &ip.to_string());
        Own::of(self, key.kind).create(self, &key, object).await
    }

    async fn remove_address(&self, ip: Ipv4Addr, service: &ObjectKey) -> Result<(), Status> {
        let key = ObjectKey::new(id::IP_ADDRESS, "", &ip.to_string());
        let Some(found) = self.cache.get(&key) else { return Ok(()) };
        if parent_service(&found.to_tree()).as_ref() != Some(service) {
            return Ok(());
        }
        let parameters = DeleteParameters { uid: Some(found.head.uid.to_string()), ..DeleteParameters::default() };
        match self.delete(Own::of(self, key.kind).request(&key, ""), &parameters).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }
}
