//! Executing a plan.
//!
//! Upstream's roles let controllers patch pods and update everything else, so a plan's merge patch goes out as a patch for a pod
//! and else as an update of the object as the cache has it. Both are conditional on the revision that the plan was made from.

use std::sync::Arc;

use corten_base::Revision;
use corten_cache::Cache;
use corten_client::{Api, DeleteOptions, PatchKind, Propagation, Target, WriteOptions};
use corten_controllers::{ASKS_MAX, Action, Answer, Failed, Outcome, Plan, Verb, Write};
use corten_kinds::id;
use corten_object::Status;
use corten_object::patch::merge_patch;
use futures::stream::{FuturesUnordered, StreamExt};

use crate::Recorder;

/// How many writes of a plan are under way at once.
const WRITES_MAX: usize = 32;

/// What executing needs.
#[derive(Clone)]
pub(crate) struct Context {
    /// Writes as the controller's user.
    pub api: Arc<dyn Api>,
    /// The objects that updates start from.
    pub cache: Cache,
    /// Takes events.
    pub recorder: Recorder,
}

/// Executes a plan's stages. Answers what failed, and the revision that shows all of it.
pub(crate) async fn plan(context: &Context, plan: &Plan) -> (Outcome, Revision) {
    let mut outcome = Outcome::default();
    let mut barrier = Revision::default();
    for stage in &plan.stages {
        let (creates, others): (Vec<&Action>, Vec<&Action>) =
            stage.iter().partition(|action| action.write.verb() == Verb::Create);
        let (others, creates) = futures::join!(run(context, &others), slow_start(context, &creates));
        for done in [others, creates] {
            barrier = barrier.max(done.barrier);
            outcome.failures.extend(done.failures);
        }
        if !outcome.failures.is_empty() {
            break;
        }
    }
    if outcome.failures.is_empty() {
        outcome.answers = answers(context, &plan.asks).await;
    }
    (outcome, barrier)
}

/// What is at the paths that a plan asks for.
async fn answers(context: &Context, asks: &[String]) -> Vec<Answer> {
    let read = |path: &String| {
        let path = path.clone();
        async move { Answer { read: context.api.read(&path).await, path } }
    };
    futures::stream::iter(asks.iter().take(ASKS_MAX).map(read)).buffered(WRITES_MAX).collect().await
}

/// What became of some writes.
#[derive(Default)]
struct Done {
    failures: Vec<Failed>,
    /// The revision that shows them all.
    barrier: Revision,
}

/// Creates in batches of 1, 2, 4, …; a batch with a failure is the last (`slowStartBatch` in `replica_set.go`).
async fn slow_start(context: &Context, mut rest: &[&Action]) -> Done {
    let mut all = Done::default();
    let mut size = 1;
    while !rest.is_empty() && all.failures.is_empty() {
        let (batch, later) = rest.split_at(size.min(rest.len()));
        let done = run(context, batch).await;
        all.barrier = all.barrier.max(done.barrier);
        all.failures = done.failures;
        rest = later;
        size *= 2;
    }
    all
}

async fn run(context: &Context, actions: &[&Action]) -> Done {
    let mut done = Done::default();
    let mut waiting = actions.iter();
    let mut running: FuturesUnordered<_> = waiting.by_ref().take(WRITES_MAX).map(|a| write(context, a)).collect();
    while let Some((revision, failed)) = running.next().await {
        done.barrier = done.barrier.max(revision);
        done.failures.extend(failed);
        running.extend(waiting.next().map(|a| write(context, a)));
    }
    done
}

async fn write(context: &Context, action: &Action) -> (Revision, Option<Failed>) {
    let options = WriteOptions { owners_alive: action.owners_alive.clone(), ..WriteOptions::default() };
    match context.api.write(convert(&context.cache, &action.write), options).await {
        Ok(written) => {
            if let Some(note) = &action.done {
                context.recorder.record(note.clone());
            }
            (written.revision, None)
        }
        Err(failure) => {
            let (verb, status) = (action.write.verb(), failure.status);
            if is_benign(verb, &status) {
                return (failure.revision, None);
            }
            if let Some(note) = action.failed.clone().filter(|_| is_news(&status)) {
                let message = format!("{}{}", note.message, status.message);
                context.recorder.record(corten_controllers::EventNote { message, ..note });
            }
            (failure.revision, Some(Failed { verb, key: action.write.key().clone(), status }))
        }
    }
}

/// What was to go is gone; or nothing can be made any more because the namespace ends.
fn is_benign(verb: Verb, status: &Status) -> bool {
    let terminating = status.causes.iter().any(|cause| cause.reason == "NamespaceTerminating");
    (verb == Verb::Delete && status.is_not_found()) || (verb == Verb::Create && terminating)
}

/// Whether a failure is worth an event: it will not go away by looking again.
fn is_news(status: &Status) -> bool {
    !status.is_conflict() && !status.is_not_found() && !status.is_already_exists()
}

fn convert(cache: &Cache, write: &Write) -> corten_client::Write {
    let target = |key: &corten_object::ObjectKey, subresource| Target { key: key.clone(), subresource };
    match write {
        Write::Create { key, body } => corten_client::Write::Create { target: target(key, ""), body: body.clone() },
        Write::Act { key, subresource, body } => {
            corten_client::Write::Create { target: target(key, subresource), body: body.clone() }
        }
        Write::Update { key, subresource, body } => {
            corten_client::Write::Update { target: target(key, subresource), body: body.clone() }
        }
        Write::Patch { key, subresource, patch, as_patch } => {
            match cache.get(key).filter(|_| key.kind != id::POD && !as_patch) {
                Some(object) => corten_client::Write::Update {
                    target: target(key, subresource),
                    body: merge_patch(object.to_tree(), patch.clone()),
                },
                // A pod, or one of those who patch; or gone, and then the answer says so.
                None => corten_client::Write::Patch {
                    target: target(key, subresource),
                    patch: PatchKind::Merge,
                    body: patch.clone(),
                },
            }
        }
        Write::Delete { key, uid, revision, propagation, grace_seconds } => corten_client::Write::Delete {
            key: key.clone(),
            options: DeleteOptions {
                grace_seconds: *grace_seconds,
                propagation: match *propagation {
                    "Orphan" => Some(Propagation::Orphan),
                    "Background" => Some(Propagation::Background),
                    "Foreground" => Some(Propagation::Foreground),
                    _ => None,
                },
                uid: (!uid.is_empty()).then(|| uid.clone()),
                revision: *revision,
                dry_run: false,
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use corten_base::Tasks;
    use corten_cache::CacheOptions;
    use corten_kinds::Registry;
    use corten_object::ObjectKey;
    use corten_tree::tree;

    use super::*;
    use crate::fake::{FakeApi, pod};

    async fn batches(refused: &[&str]) -> (Vec<usize>, usize) {
        let api = FakeApi::refusing(refused);
        let tasks = Tasks::tokio();
        let cache = Cache::new(Arc::new(Registry::builtin()), CacheOptions::default());
        let recorder = Recorder::start_with(&tasks, &cache, Arc::new(corten_base::SystemClock), api.clone(), "test");
        let context = Context { api: api.clone(), cache, recorder };
        let kind = pod("x").kind;
        let create = |n: usize| Action::create(ObjectKey::new(kind, "default", &format!("p{n}")), tree!({}));
        let (outcome, _) = plan(&context, &Plan::of((0..10).map(create).collect())).await;
        (api.batches(), outcome.failures.len())
    }

    #[tokio::test]
    async fn slow_start_doubles_and_ends_with_a_failure() {
        assert_eq!(batches(&[]).await, (vec![1, 2, 4, 3], 0));
        assert_eq!(batches(&["p0"]).await, (vec![1], 1));
        assert_eq!(batches(&["p2"]).await, (vec![1, 2], 1), "the others of its batch are under way already");
    }
}
