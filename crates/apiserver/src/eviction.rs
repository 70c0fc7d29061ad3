//! The action `eviction`: deletes a pod if its disruption budget allows (`pkg/registry/core/pod/storage/eviction.go`).

use corten_client::WriteOptions;
use corten_kinds::id;
use corten_object::conditions::{self, NewCondition};
use corten_object::{Cause, LabelSelector, Object, ObjectKey, Status, time};
use corten_tree::Tree;

use crate::core::Core;
use crate::http::delete_parameters;
use crate::pipeline::{Answer, DeleteParameters, Request, check_preconditions};
use crate::reviews::success;

/// How often an eviction is tried again when the pod changed meanwhile.
const RETRIES: usize = 10;
/// How many evictions a budget may know of whose pods are not gone yet (`MaxDisruptedPodSize`).
const DISRUPTED_MAX: usize = 2000;

/// What a client reads when its eviction must wait.
const VIOLATES: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// What the budgets say of a pod.
enum Budget {
    /// It may go.
    Allowed,
    /// It may go as long as it is exactly what was looked at: it is not healthy, and its budget (named) does not guard such pods.
    Unguarded(String),
}

impl Core {
    /// Deletes a pod, if its disruption budget allows.
    pub(crate) async fn evict(&self, request: Request<'_>, eviction: &Tree) -> Result<Answer, Status> {
        let named = eviction.str_at("metadata.name");
        if !named.is_empty() && named != request.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let asked = eviction.get("deleteOptions").unwrap_or(&Tree::Null);
        let (in_query, in_body) = (request.options.dry_run, asked.list_at("dryRun"));
        // Who says both must say the same (`propagateDryRun`).
        if in_query && !in_body.is_empty() && *in_body != [Tree::from("All")] {
            let said: Vec<&str> = in_body.iter().filter_map(Tree::as_str).collect();
            let why = format!("Non-matching dry-run options in request and content: [All] and [{}]", said.join(" "));
            return Err(Status::unexplained(500, why));
        }
        let absent = || self.cache.get(&ObjectKey::new(id::POD, request.namespace, request.name)).is_none();
        let given: DeleteParameters =
            delete_parameters(asked).map_err(|status| if absent() { request.not_found() } else { status })?;
        let dry_run = given.dry_run || request.options.dry_run;
        let options = WriteOptions { dry_run, ..request.options.clone() };
        let request = Request { options: &options, ..request };
        let key = ObjectKey::new(id::POD, request.namespace, request.name);
        let mut tries = RETRIES;
        loop {
            let pod = self.cache.get(&key).ok_or_else(|| request.not_found())?;
            let tree = pod.to_tree();
            let ended = matches!(tree.str_at("status.phase"), "Succeeded" | "Failed")
                || tree.path("metadata.deletionTimestamp").is_some();
            let mut parameters = given.clone();
            let exactly = |parameters: &mut DeleteParameters| {
                parameters.resource_version.get_or_insert_with(|| pod.head.revision.to_string());
            };
            let pending = !ended && tree.str_at("status.phase") == "Pending";
            let mut guard = None;
            if pending {
                // It may become healthy meanwhile: then the budget has a say.
                exactly(&mut parameters);
            } else if !ended && let Budget::Unguarded(name) = self.take_from_budget(&request, &pod, &tree).await? {
                exactly(&mut parameters);
                guard = Some(name);
            }
            match (self.mark_and_delete(&request, parameters).await, guard) {
                (Err(status), None)
                    if status.is_conflict() && given.resource_version.is_none() && pending && tries > 0 =>
                {
                    tries -= 1;
                    self.fresh().await?;
                }
                (Err(status), Some(name)) if status.is_conflict() && given.resource_version.is_none() => {
                    return Err(busy(&name));
                }
                (result, _) => return result,
            }
        }
    }

    /// Looks for the pod's budget, and takes one disruption from it if the pod counts; 429 if there is none left.
    async fn take_from_budget(&self, request: &Request<'_>, pod: &Object, tree: &Tree) -> Result<Budget, Status> {
        let matching: Vec<(String, Tree)> = {
            let world = self.cache.read();
            let budgets = world.list_in(id::POD_DISRUPTION_BUDGET, request.namespace).filter_map(|budget| {
                let tree = budget.to_tree();
                let selector = LabelSelector::from_tree(tree.path("spec.selector"));
                selector.is_ok_and(|s| s.matches(&pod.head.labels)).then(|| (budget.head.name.to_string(), tree))
            });
            budgets.collect()
        };
        let (name, budget) = match matching.as_slice() {
            [] => return Ok(Budget::Allowed),
            [one] => one,
            _ => {
                let why =
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Err(Status::internal(why));
            }
        };
        let ready = conditions::find(tree.get("status").unwrap_or(&Tree::Null), "Ready");
        if ready.is_none_or(|c| c.str_at("status") != "True") {
            let number = |path: &str| budget.i64_at(path).unwrap_or(0);
            let (has, needs) = (number("status.currentHealthy"), number("status.desiredHealthy"));
            let always = budget.str_at("spec.unhealthyPodEvictionPolicy") == "AlwaysAllow";
            if always || (has >= needs && needs > 0) {
                return Ok(Budget::Unguarded(name.clone()));
            }
        }
        let kind = self.registry.get(id::POD_DISRUPTION_BUDGET);
        let now = time::format(self.clock.now());
        let budget = Request { kind: &kind, version: &kind.versions[0], name, subresource: "status", ..*request };
        let taken = self.modify(&budget, |tree| {
            may_disrupt(name, tree)?;
            let allowed = tree.i64_at("status.disruptionsAllowed").unwrap_or(0);
            tree.set("status.disruptionsAllowed", allowed - 1);
            // Until the pod's end is seen, the controller counts it as gone.
            tree.make_map_at("status.disruptedPods").insert(request.name.to_owned(), now.as_str());
            Ok(())
        });
        taken.await.map(|_| Budget::Allowed)
    }

    /// The pod says why it goes (`DisruptionTarget`), and goes.
    async fn mark_and_delete(&self, request: &Request<'_>, mut parameters: DeleteParameters) -> Result<Answer, Status> {
        let condition = NewCondition {
            kind: "DisruptionTarget",
            status: "True",
            reason: "EvictionByEvictionAPI",
            message: "Eviction API: evicting".to_owned(),
        };
        let now = self.clock.now();
        let pod = Request { subresource: "", ..*request };
        let marked = self.modify(&pod, |tree| {
            let found = (tree.str_at("metadata.uid").to_owned(), tree.str_at("metadata.resourceVersion").to_owned());
            check_preconditions(&pod, &parameters, (&found.0, &found.1))?;
            tree.make_map_at("status");
            if let Some(status) = tree.path_mut("status") {
                conditions::set(status, &condition, now, "");
            }
            Ok(())
        });
        let revision = marked.await?;
        if parameters.resource_version.is_some() && !request.options.dry_run {
            parameters.resource_version = Some(revision.to_string());
        }
        let answer = self.delete_authorized(pod, &parameters, false).await?;
        Ok(Answer::tree(201, success(), answer.revision))
    }
}

/// `checkAndDecrement`: whether a budget has a disruption left.
fn may_disrupt(name: &str, budget: &Tree) -> Result<(), Status> {
    let number = |path: &str| budget.i64_at(path).unwrap_or(0);
    if number("status.observedGeneration") < number("metadata.generation") {
        return Err(busy(name));
    }
    let refused = |why: &str, cause: &str| {
        let status = Status::forbidden("policy", "poddisruptionbudget", name, why);
        Err(because(status, format!("The disruption budget {name} does not allow evicting pods currently: {cause}")))
    };
    let allowed = number("status.disruptionsAllowed");
    if allowed < 0 {
        return refused("pdb disruptions allowed is negative", "pdb disruptions allowed is negative");
    }
    if budget.map_at("status.disruptedPods").len() > DISRUPTED_MAX {
        return refused(
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
            "too many pending evictions not confirmed by PDB controller",
        );
    }
    if allowed > 0 {
        return Ok(());
    }
    let (needs, has) = (number("status.desiredHealthy"), number("status.currentHealthy"));
    let condition = conditions::find(budget.get("status").unwrap_or(&Tree::Null), "DisruptionAllowed");
    let said = condition.filter(|c| c.str_at("status") == "False" && !c.str_at("message").is_empty());
    let not_now = format!("The disruption budget {name} does not allow evicting pods currently");
    let cause = match said {
        Some(c) if c.str_at("reason") == "SyncFailed" => {
            format!("{not_now} because it failed sync: {}", c.str_at("message"))
        }
        _ if has <= needs => format!("The disruption budget {name} needs {needs} healthy pods and has {has} currently"),
        Some(c) => format!("{not_now} ({}): {}", c.str_at("reason"), c.str_at("message")),
        None => not_now,
    };
    Err(because(Status::too_many_requests(VIOLATES, 0), cause))
}

/// 429: the budget's controller has not seen its last change yet, or the pod's.
fn busy(name: &str) -> Status {
    let cause = format!("The disruption budget {name} is still being processed by the server.");
    because(Status::too_many_requests(VIOLATES, 10), cause)
}

fn because(mut status: Status, message: String) -> Status {
    status.causes.push(Cause { reason: "DisruptionBudget".into(), message, field: String::new() });
    status
}
