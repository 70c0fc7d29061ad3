//! Cluster roles that are made of others (`pkg/controller/clusterroleaggregation`).

use corten_kinds::id;
use corten_object::{LabelSelector, ObjectKey};
use corten_tree::{Tree, tree};

use crate::{Action, Changed, Controller, Key, Plan, Watch, World};

/// The controller.
pub struct RoleAggregation;

/// A changed role may be part of any aggregated one.
const WATCHES: &[Watch] = &[Watch::itself(id::CLUSTER_ROLE), Watch::by(id::CLUSTER_ROLE, changed)];

fn changed(change: &Changed<'_>, out: &mut Vec<Key>) {
    let aggregated = |role: &&std::sync::Arc<corten_object::Object>| {
        role.to_tree().path("aggregationRule.clusterRoleSelectors").is_some()
    };
    let keys = change.state.list(id::CLUSTER_ROLE).filter(aggregated).map(|role| role.head.name.clone());
    out.extend(keys.map(|name| ObjectKey::new(id::CLUSTER_ROLE, "", name.as_str())));
}

impl Controller for RoleAggregation {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation"
    }

    fn component(&self) -> &'static str {
        "clusterrole-aggregation-controller"
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(object) = world.state.get(key) else { return Plan::empty() };
        let role = object.to_tree();
        let selectors = role.list_at("aggregationRule.clusterRoleSelectors");
        if selectors.is_empty() || object.head.is_deleting() {
            return Plan::empty();
        }
        let mut rules: Vec<Tree> = Vec::new();
        for selector in selectors {
            let Ok(selector) = LabelSelector::from_tree(Some(selector)) else { continue };
            for other in world.state.list(id::CLUSTER_ROLE).filter(|o| o.head.name != object.head.name) {
                if !selector.matches(&other.head.labels) {
                    continue;
                }
                for rule in other.to_tree().list_at("rules") {
                    if !rules.iter().any(|known| known.semantically_equal(rule)) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
        let now = Tree::List(role.list_at("rules").to_vec());
        let wanted = Tree::List(rules);
        if now.semantically_equal(&wanted) {
            return Plan::empty();
        }
        Plan::of(vec![Action::patch(object, tree!({"rules": wanted}))])
    }
}
