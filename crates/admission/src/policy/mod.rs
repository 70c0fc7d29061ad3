//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy (`apiserver/pkg/admission/plugin/policy`).

mod config;
mod counts;
pub(crate) mod expression;
pub(crate) mod matching;
mod mutating;
mod validating;

use std::sync::{Arc, Mutex, PoisonError};

use corten_kinds::id;
use corten_object::{KindId, Object, Status};
use corten_tree::Tree;

use crate::Request;
use crate::chain::Round;
use crate::hooks::is_exempt;
use crate::hooks::matching::Objects;
use config::{Binding, Policy};
use counts::Counts;

/// The policies of a server: what its objects say, compiled once per change.
#[derive(Default)]
pub struct Policies {
    mutating: Mutex<Compiled>,
    validating: Mutex<Compiled>,
    mutations: Counts,
    validations: Counts,
}

/// Policies with the bindings that name them.
type Bound = Arc<Vec<(Arc<Policy>, Vec<Arc<Binding>>)>>;

/// The objects of a kind of policy and of its bindings, and what they say.
#[derive(Default)]
struct Compiled {
    policies: Vec<(Arc<Object>, Arc<Policy>)>,
    bindings: Vec<(Arc<Object>, Arc<Binding>)>,
    bound: Bound,
}

/// Reads the objects of `now`; what did not change is kept. True if anything did.
fn refresh<T>(kept: &mut Vec<(Arc<Object>, Arc<T>)>, mut now: Vec<Arc<Object>>, read: fn(&str, &Tree) -> T) -> bool {
    now.sort_by(|a, b| a.head.name.cmp(&b.head.name));
    if kept.len() == now.len() && kept.iter().zip(&now).all(|((have, _), now)| Arc::ptr_eq(have, now)) {
        return false;
    }
    let before = std::mem::take(kept);
    *kept = now
        .into_iter()
        .map(|object| match before.iter().find(|(have, _)| Arc::ptr_eq(have, &object)) {
            Some((_, same)) => (object, same.clone()),
            None => {
                let made = Arc::new(read(&object.head.name, &object.to_tree()));
                (object, made)
            }
        })
        .collect();
    true
}

fn bound(kept: &Mutex<Compiled>, request: &Request<'_>, policies: KindId, bindings: KindId) -> Bound {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = &mut *kept;
    let new_policies = refresh(&mut kept.policies, request.cluster.objects(policies), Policy::read);
    let new_bindings = refresh(&mut kept.bindings, request.cluster.objects(bindings), Binding::read);
    if new_policies || new_bindings {
        let of = |policy: &Arc<Policy>| {
            let named = kept.bindings.iter().filter(|(_, binding)| binding.policy == policy.name);
            (policy.clone(), named.map(|(_, binding)| binding.clone()).collect::<Vec<_>>())
        };
        let all = kept.policies.iter().map(|(_, policy)| of(policy)).filter(|(_, bindings)| !bindings.is_empty());
        kept.bound = Arc::new(all.collect());
    }
    kept.bound.clone()
}

impl Policies {
    /// Lets the mutating policies change the object; `None` for deletes.
    pub(crate) async fn mutate(
        &self,
        request: &Request<'_>,
        object: Option<&mut Tree>,
        old: Option<&Tree>,
        round: &mut Round,
    ) -> Result<(), Status> {
        if is_exempt(request) {
            return Ok(());
        }
        let (policies, bindings) = (id::MUTATING_ADMISSION_POLICY, id::MUTATING_ADMISSION_POLICY_BINDING);
        let bound = bound(&self.mutating, request, policies, bindings);
        mutating::mutate(&bound, request, object, old, round, &self.mutations).await
    }

    /// Asks the validating policies.
    pub(crate) async fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Tree>,
        old: Option<&Tree>,
    ) -> Result<(), Status> {
        if is_exempt(request) {
            return Ok(());
        }
        let (policies, bindings) = (id::VALIDATING_ADMISSION_POLICY, id::VALIDATING_ADMISSION_POLICY_BINDING);
        let bound = bound(&self.validating, request, policies, bindings);
        validating::validate(&bound, request, &Objects { object, old }, &self.validations).await
    }

    /// Prometheus' text of what has been counted.
    pub(crate) fn metrics_text(&self) -> String {
        let mutations = self.mutations.text("apiserver_mutating_admission_policy");
        mutations + &self.validations.text("apiserver_validating_admission_policy")
    }
}
