//! The order in which everybody is asked (`pkg/kubeapiserver/options/plugins.go`, `apiserver/pkg/admission/{chain,reinvocation}.go`).
//!
//! Mutating: built-in plugins, policies, webhooks; if a policy or a webhook has changed the object, all of that once more, the
//! webhooks among those with `reinvocationPolicy: IfNeeded`. Validating: built-in plugins, policies, webhooks in parallel. The
//! quota comes last of all, and separately, because what it books is written together with the object.

use std::collections::HashSet;

use corten_object::Status;
use corten_tree::Tree;

use crate::hooks::Hooks;
use crate::measured::{self, Step, Stopwatch};
use crate::plugins::PLUGINS;
use crate::{Request, policy};

/// The admission stage of a server.
#[derive(Default)]
pub struct Admission {
    hooks: Hooks,
    policies: policy::Policies,
}

/// What the second round of mutation has to know of the first. Policies and webhooks each keep one
/// (`webhookReinvokeContext`, `policyReinvokeContext`).
#[derive(Debug, Default)]
pub struct Reinvoked {
    /// To be asked again in the second round.
    wanted: HashSet<String>,
    /// Asked since the object last changed, and willing to be asked again.
    asked: HashSet<String>,
    /// The object as it was left.
    output: Option<Tree>,
}

impl Reinvoked {
    /// Before a round's calls: if somebody else has changed the object since the last one, everyone willing is asked again.
    pub fn begin(&mut self, second: bool, object: Option<&Tree>) {
        let same = match (&self.output, object) {
            (Some(before), Some(now)) => before.semantically_equal(now),
            (before, now) => before.is_none() && now.is_none(),
        };
        if second && !same {
            self.changed();
        }
    }

    /// Whether the second round asks this one.
    pub fn wants(&self, name: &str) -> bool {
        self.wanted.contains(name)
    }

    /// Somebody has changed the object: those who were asked before are asked again.
    pub fn changed(&mut self) {
        self.wanted.extend(self.asked.drain());
    }

    /// This one was asked, and wants to be asked again if the object changes later.
    pub fn asked(&mut self, name: &str) {
        self.asked.insert(name.to_owned());
    }

    /// After a round's calls.
    pub fn end(&mut self, object: Option<&Tree>) {
        self.output = object.cloned();
    }
}

/// The round of mutation that is under way.
#[derive(Debug, Default)]
pub struct Round {
    /// Whether it is the second.
    pub second: bool,
    /// Set by whoever wants a second round.
    pub again: bool,
    /// The webhooks' memory.
    pub hooks: Reinvoked,
    /// The policies' memory.
    pub policies: Reinvoked,
}

impl Admission {
    /// Lets everybody change the object, which is at the storage version; `None` for deletes.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn mutate(
        &self,
        request: &Request<'_>,
        mut object: Option<&mut Tree>,
        old: Option<&Tree>,
    ) -> Result<(), Status> {
        let watch = Stopwatch::start(request.operation, Step::Admit);
        let mut round = Round::default();
        let mut outcome = self.mutate_once(request, object.as_deref_mut(), old, &mut round).await;
        if outcome.is_ok() && round.again {
            round.second = true;
            outcome = self.mutate_once(request, object, old, &mut round).await;
        }
        watch.end(&outcome);
        outcome
    }

    async fn mutate_once(
        &self,
        request: &Request<'_>,
        mut object: Option<&mut Tree>,
        old: Option<&Tree>,
        round: &mut Round,
    ) -> Result<(), Status> {
        let mut watch = Stopwatch::start(request.operation, Step::Admit);
        for (index, plugin) in PLUGINS.iter().enumerate() {
            if let (Some(mutate), Some(object)) = (plugin.mutate, object.as_deref_mut()) {
                let outcome = mutate(request, object, old);
                watch.plugin(index, &outcome);
                outcome?;
            }
        }
        let outcome = self.policies.mutate(request, object.as_deref_mut(), old, round).await;
        watch.controller("MutatingAdmissionPolicy", &outcome);
        outcome?;
        let outcome = self.hooks.mutate(request, object, old, round).await;
        watch.controller("MutatingAdmissionWebhook", &outcome);
        outcome
    }

    /// Prometheus' text of what has been counted.
    pub fn metrics_text(&self) -> String {
        self.policies.metrics_text() + &measured::text()
    }

    /// Asks everybody whether the object may be as it is. `object` is `None` for deletes.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Tree>,
        old: Option<&Tree>,
    ) -> Result<(), Status> {
        let watch = Stopwatch::start(request.operation, Step::Validate);
        let outcome = self.validate_all(request, object, old).await;
        watch.end(&outcome);
        outcome
    }

    async fn validate_all(
        &self,
        request: &Request<'_>,
        object: Option<&Tree>,
        old: Option<&Tree>,
    ) -> Result<(), Status> {
        let mut watch = Stopwatch::start(request.operation, Step::Validate);
        for (index, plugin) in PLUGINS.iter().enumerate() {
            if let Some(validate) = plugin.validate {
                let outcome = validate(request, object, old);
                watch.plugin(index, &outcome);
                outcome?;
            }
        }
        let outcome = self.policies.validate(request, object, old).await;
        watch.controller("ValidatingAdmissionPolicy", &outcome);
        outcome?;
        let outcome = self.hooks.validate(request, object, old).await;
        watch.controller("ValidatingAdmissionWebhook", &outcome);
        outcome
    }
}
