//! The service account `default` in each namespace (`pkg/controller/serviceaccount/serviceaccounts_controller.go`).

use corten_kinds::id;
use corten_object::ObjectKey;
use corten_tree::tree;
use corten_views::Namespace;

use crate::{Action, Changed, Controller, Key, Plan, Watch, World};

/// The controller.
pub struct ServiceAccountController;

const NAME: &str = "default";

const WATCHES: &[Watch] = &[Watch::itself(id::NAMESPACE), Watch::by(id::SERVICE_ACCOUNT, gone)];

fn gone(change: &Changed<'_>, out: &mut Vec<Key>) {
    let object = change.object();
    if change.new.is_none() && object.head.name == *NAME {
        out.push(ObjectKey::new(id::NAMESPACE, "", &object.head.namespace));
    }
}

impl Controller for ServiceAccountController {
    fn name(&self) -> &'static str {
        "service-account"
    }

    fn component(&self) -> &'static str {
        "serviceaccount-controller"
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(namespace) = world.get::<Namespace>(key) else { return Plan::empty() };
        if namespace.head().is_deleting() || namespace.status.phase == "Terminating" {
            return Plan::empty();
        }
        let key = ObjectKey::new(id::SERVICE_ACCOUNT, namespace.name(), NAME);
        if world.state.get(&key).is_some() {
            return Plan::empty();
        }
        let body = tree!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {}});
        Plan::of(vec![Action::create(key, body)])
    }
}
