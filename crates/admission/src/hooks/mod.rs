//! Admission webhooks (`apiserver/pkg/admission/plugin/webhook`).

mod call;
pub(crate) mod config;
pub(crate) mod matching;
pub(crate) mod review;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use corten_kinds::id;
use corten_object::{KindId, Object, Status, patch};
use corten_tree::{Tree, tree};

use crate::Request;
use crate::chain::Round;
use crate::measured::{self, Called, Step};
use call::Failure;
use config::Hook;
use matching::{Invocation, Objects};

/// Audit annotations by which a webhook's work can be followed.
const MUTATION: &str = "mutation.webhook.admission.k8s.io/";
const PATCH: &str = "patch.webhook.admission.k8s.io/";
const FAILED_OPEN_MUTATING: &str = "failed-open.mutation.webhook.admission.k8s.io/";
const FAILED_OPEN_VALIDATING: &str = "failed-open.validating.webhook.admission.k8s.io/";

/// The webhooks of a server: what its configurations say, read once per change.
#[derive(Default)]
pub(crate) struct Hooks {
    mutating: Mutex<Compiled>,
    validating: Mutex<Compiled>,
}

/// The configurations of a kind, and what they say.
#[derive(Default)]
struct Compiled {
    read: Vec<Arc<Object>>,
    hooks: Arc<Vec<Hook>>,
}

/// The hooks of a kind of configuration, in the order of the configurations' names.
fn hooks_of(kept: &Mutex<Compiled>, request: &Request<'_>, kind: KindId) -> Arc<Vec<Hook>> {
    let mut now = request.cluster.objects(kind);
    now.sort_by(|a, b| a.head.name.cmp(&b.head.name));
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    let same = kept.read.len() == now.len() && kept.read.iter().zip(&now).all(|(a, b)| Arc::ptr_eq(a, b));
    if !same {
        let hooks = now.iter().flat_map(|object| config::read(&object.head.name, &object.to_tree())).collect();
        *kept = Compiled { read: now, hooks: Arc::new(hooks) };
    }
    kept.hooks.clone()
}

/// What no webhook is asked about: its own kind, so that nobody is locked out, and reviews, so that nobody waits for himself
/// (`IsExemptAdmissionConfigurationResource`, `ExcludeAdmissionWebhookVirtualResources`).
pub(crate) fn is_exempt(request: &Request<'_>) -> bool {
    const CONFIGURATION: [KindId; 6] = [
        id::MUTATING_WEBHOOK_CONFIGURATION,
        id::VALIDATING_WEBHOOK_CONFIGURATION,
        id::MUTATING_ADMISSION_POLICY,
        id::MUTATING_ADMISSION_POLICY_BINDING,
        id::VALIDATING_ADMISSION_POLICY,
        id::VALIDATING_ADMISSION_POLICY_BINDING,
    ];
    const REVIEWS: [KindId; 6] = [
        id::TOKEN_REVIEW,
        id::SELF_SUBJECT_REVIEW,
        id::LOCAL_SUBJECT_ACCESS_REVIEW,
        id::SELF_SUBJECT_ACCESS_REVIEW,
        id::SELF_SUBJECT_RULES_REVIEW,
        id::SUBJECT_ACCESS_REVIEW,
    ];
    CONFIGURATION.contains(&request.kind.id) || REVIEWS.contains(&request.kind.id)
}

impl Hooks {
    /// Lets the mutating webhooks change the object, one after the other (`mutating/dispatcher.go`, `Dispatch`).
    pub async fn mutate(
        &self,
        request: &Request<'_>,
        mut object: Option<&mut Tree>,
        old: Option<&Tree>,
        round: &mut Round,
    ) -> Result<(), Status> {
        if is_exempt(request) {
            return Ok(());
        }
        let hooks = hooks_of(&self.mutating, request, id::MUTATING_WEBHOOK_CONFIGURATION);
        if hooks.is_empty() {
            return Ok(());
        }
        round.hooks.begin(round.second, object.as_deref());
        for (index, hook) in hooks.iter().enumerate() {
            let objects = Objects { object: object.as_deref(), old };
            let Some(invocation) = matching::invocation(hook, request, &objects).await? else { continue };
            if round.second && !round.hooks.wants(&hook.uid) {
                continue;
            }
            let place = format!("round_{}_index_{index}", u8::from(round.second));
            let begun = Instant::now();
            let outcome = mutate_one(hook, &invocation, request, object.as_deref_mut(), old, &place).await;
            let called = outcome.as_ref().map_or_else(|failure| failure.called(hook), |_| Called::Yes);
            measured::webhook(&hook.name, request.operation, Step::Admit, called, begun.elapsed());
            let changed = *outcome.as_ref().unwrap_or(&false);
            let note = tree!({"configuration": (hook.configuration.as_str()), "webhook": (hook.name.as_str()),
                "mutated": changed});
            request.notes.annotate(format!("{MUTATION}{place}"), note.to_string());
            if changed {
                round.hooks.changed();
                round.again = true;
            }
            if hook.reinvoke {
                round.hooks.asked(&hook.uid);
            }
            if let Err(failure) = outcome {
                if !failure.is_open(hook) {
                    return Err(failure.status(&hook.name));
                }
                tracing::warn!(webhook = hook.name, error = %failure, "failed calling webhook, failing open");
                request.notes.annotate(format!("{FAILED_OPEN_MUTATING}{place}"), hook.name.as_str());
            }
        }
        round.hooks.end(object.as_deref());
        Ok(())
    }

    /// Asks the validating webhooks, all at once (`validating/dispatcher.go`, `Dispatch`).
    pub async fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Tree>,
        old: Option<&Tree>,
    ) -> Result<(), Status> {
        if is_exempt(request) {
            return Ok(());
        }
        let hooks = hooks_of(&self.validating, request, id::VALIDATING_WEBHOOK_CONFIGURATION);
        let objects = Objects { object, old };
        let mut wanted = Vec::new();
        for hook in hooks.iter() {
            if let Some(invocation) = matching::invocation(hook, request, &objects).await? {
                wanted.push((hook, invocation));
            }
        }
        let calls = wanted.iter().enumerate().map(|(index, (hook, invocation))| async move {
            let begun = Instant::now();
            let answer = call::call(hook, invocation, request, object, old, false).await.and_then(|answer| {
                answer.note(hook, request);
                if answer.allowed { Ok(()) } else { Err(Failure::Refused(Box::new(answer.refusal(&hook.name)))) }
            });
            let called = answer.as_ref().map_or_else(|failure| failure.called(hook), |()| Called::Yes);
            measured::webhook(&hook.name, request.operation, Step::Validate, called, begun.elapsed());
            match answer {
                Ok(()) => Ok(()),
                Err(failure) if failure.is_open(hook) => {
                    tracing::warn!(webhook = hook.name, error = %failure, "failed calling webhook, failing open");
                    let key = format!("{FAILED_OPEN_VALIDATING}round_0_index_{index}");
                    request.notes.annotate(key, hook.name.as_str());
                    Ok(())
                }
                Err(failure) => Err(failure.status(&hook.name)),
            }
        });
        futures::future::join_all(calls).await.into_iter().collect()
    }
}

/// Calls one mutating webhook and applies its patch; true if that has changed the object (`callAttrMutatingHook`).
async fn mutate_one(
    hook: &Hook,
    invocation: &Invocation,
    request: &Request<'_>,
    object: Option<&mut Tree>,
    old: Option<&Tree>,
    place: &str,
) -> Result<bool, Failure> {
    let answer = call::call(hook, invocation, request, object.as_deref(), old, true).await?;
    answer.note(hook, request);
    if !answer.allowed {
        return Err(Failure::Refused(Box::new(answer.refusal(&hook.name))));
    }
    if answer.patch.is_empty() {
        return Ok(false);
    }
    let undecodable = |why: &str| Failure::Call(format!("received undecodable patch in webhook response: {why}"));
    let operations = match corten_tree::json::parse(&answer.patch) {
        Ok(Tree::List(operations)) => operations,
        Ok(other) => {
            let found = other.type_name();
            return Err(undecodable(&format!("json: cannot unmarshal {found} into Go value of type jsonpatch.Patch")));
        }
        Err(error) => return Err(undecodable(&error.message)),
    };
    if operations.is_empty() {
        return Ok(false);
    }
    let internal = |why: String| Failure::Refused(Box::new(Status::internal(why)));
    let Some(object) = object else {
        let name = &hook.name;
        return Err(internal(format!(
            "admission webhook {name:?} attempted to modify the object, which is not supported for this operation"
        )));
    };
    if answer.patch_type != "JSONPatch" {
        return Err(Failure::Call(format!("unsupported patch type {:?}", answer.patch_type)));
    }
    let shown = invocation.to_version(request, object).await.map_err(|s| internal(s.message))?;
    let patched = patch::json_patch(shown, &operations).map_err(|e| internal(e.to_string()))?;
    let new = invocation.from_version(request, patched).await.map_err(|s| internal(s.message))?;
    let note = tree!({"configuration": (hook.configuration.as_str()), "webhook": (hook.name.as_str()),
        "patch": (Tree::List(operations)), "patchType": "JSONPatch"});
    request.notes.annotate(format!("{PATCH}{place}"), note.to_string());
    let changed = !object.semantically_equal(&new);
    *object = new;
    Ok(changed)
}
