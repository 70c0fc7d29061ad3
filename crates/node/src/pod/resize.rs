//! Resizing a running pod: its promise from the ledger, the writes to its cgroups, and what is kept for the next agent.

use corten_kinds::id;
use corten_object::ObjectKey;
use corten_podplan::resources::{CPU_PERIOD, CgroupValues};
use corten_podplan::{Event, Lifecycle, Memory, ResizeStep};
use corten_runtime::Resources;
use corten_scheduler::Rejection;
use corten_tree::Tree;
use corten_views::{Node, Pod};

use super::{Message, PodContext, sandbox};
use crate::admission::Rank;

/// In the pod's directory: what was promised to it and what its cgroups have.
const FILE: &str = "resources.json";

/// Values for the runtime.
pub fn resources(values: &CgroupValues) -> Resources {
    Resources {
        cpu_shares: values.cpu_shares,
        cpu_quota: values.cpu_quota,
        cpu_period: values.cpu_quota.map(|_| CPU_PERIOD),
        memory_max: values.memory_max,
        pids_max: None,
        huge_pages: None,
    }
}

/// What a former agent has kept.
pub fn load(ctx: &PodContext) -> Option<Tree> {
    let path = ctx.dir().join(FILE);
    match std::fs::read(&path) {
        Ok(bytes) => match corten_tree::json::parse(&bytes) {
            Ok(tree) => Some(tree),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "what was promised to a pod cannot be read");
                None
            }
        },
        Err(_) => None,
    }
}

/// Keeps what must outlive this agent, before anything is made of it.
pub fn save(ctx: &PodContext, memory: &mut Memory) {
    let Some(tree) = memory.to_save() else { return };
    let (path, new) = (ctx.dir().join(FILE), ctx.dir().join(format!("{FILE}.new")));
    let written = std::fs::create_dir_all(ctx.dir())
        .and_then(|()| std::fs::write(&new, tree.to_json()))
        .and_then(|()| std::fs::rename(&new, &path));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "what was promised to a pod cannot be kept");
    }
}

/// Asks the ledger for what the pod now wants (`handlePodResourcesResize`). The events to record; whether it has it.
pub async fn ask(ctx: &PodContext, memory: &mut Memory, wanted: &Pod) -> (Option<Event>, bool) {
    let shared = &ctx.shared;
    let ends = wanted.is_terminating() || wanted.is_terminal() || memory.lifecycle() != Lifecycle::Syncing;
    if ends || !memory.asks_for_resize(wanted) {
        memory.note_resize_reverted();
        shared.ledger.cancel_resize(ctx.uid());
        return (None, false);
    }
    let now = shared.clock.now();
    let since = memory.resize_pending_since().unwrap_or(now);
    let rank = Rank::of(&ctx.pod, wanted, since);
    let key = ObjectKey::new(id::NODE, "", &shared.config.node_name);
    let node = match shared.api.get(&key).await {
        Ok(node) => node.view::<Node>().map_err(|error| error.to_string()),
        Err(status) => Err(status.to_string()),
    };
    let outcome = match node {
        Ok(node) => shared.ledger.resize(&node, wanted, rank),
        Err(message) => Err(Rejection { reason: "InvalidNodeInfo".into(), message }),
    };
    match outcome {
        Ok(()) => (Some(memory.note_resize_accepted(wanted, now)), true),
        Err(rejection) => (memory.note_resize_refused(wanted, false, &rejection.message, now), false),
    }
}

/// Makes the writes of a plan, one after the other, and tells the worker how far it came.
pub async fn run(ctx: PodContext, steps: Vec<ResizeStep>) {
    let outcome = match check(&ctx, &steps).await {
        Err(error) => (0, Some(error)),
        Ok(()) => write(&ctx, &steps).await,
    };
    ctx.tell(Message::Resized(outcome.0, outcome.1)).await;
}

async fn write(ctx: &PodContext, steps: &[ResizeStep]) -> (usize, Option<String>) {
    for (n, step) in steps.iter().enumerate() {
        let (values, cgroup) = (resources(&step.values), sandbox::cgroup(&ctx.pod));
        let container = step.container.clone().map(|(id, _)| id);
        let written = ctx.shared.blocking(move |s| match container {
            Some(id) => s.runtime.update_container(&id, &values),
            None => s.runtime.update_cgroup(&cgroup, &values),
        });
        let written = written.await.and_then(|w| w.map_err(|e| e.to_string()));
        if let Err(error) = written {
            return (n, Some(error));
        }
    }
    (steps.len(), None)
}

/// Memory limits are not made smaller than what is in use (`validateMemoryResizeAction`).
async fn check(ctx: &PodContext, steps: &[ResizeStep]) -> Result<(), String> {
    let mut errors = Vec::new();
    for step in steps.iter().filter(|s| s.shrinks_memory) {
        let Some(limit) = step.values.memory_max.filter(|n| *n > 0) else { continue };
        let (container, cgroup) = (step.container.clone(), sandbox::cgroup(&ctx.pod));
        let usage = ctx.shared.blocking(move |s| match container {
            Some((id, _)) => s.runtime.container_stats(&id),
            None => s.runtime.cgroup_stats(&cgroup),
        });
        let usage = usage
            .await?
            .map_err(|_| format!("unable to read memory usage for pod {:?}", corten_podplan::format_pod(&ctx.pod)))?;
        if i64::try_from(usage.memory_usage).unwrap_or(i64::MAX) < limit {
            continue;
        }
        let usage = usage.memory_usage;
        errors.push(match &step.container {
            None => format!("attempting to set pod memory limit ({limit}) below current usage ({usage})"),
            Some((_, name)) => {
                format!("attempting to set container {name:?} memory limit ({limit}) below current usage ({usage})")
            }
        });
    }
    // As upstream's aggregate of errors.
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(format!("cannot decrease memory limits: {one}")),
        many => Err(format!("cannot decrease memory limits: [{}]", many.join(", "))),
    }
}
