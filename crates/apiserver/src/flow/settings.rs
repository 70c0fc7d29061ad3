//! FlowSchemas and PriorityLevelConfigurations: read from the cache when they change, told whether their level is there, and
//! the server's own ones kept as they should be.
//!
//! Upstream: `apiserver/pkg/util/flowcontrol/apf_controller.go`, `pkg/registry/flowcontrol/rest/storage_flowcontrol.go`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use corten_base::{BoxFuture, OnError, OnStop, Timestamp, backoff};
use corten_cache::{Filter, Watcher};
use corten_client::{PatchKind, WriteOptions};
use corten_flowcontrol::{FlowSchema, PriorityLevel, bootstrap};
use corten_kinds::id;
use corten_object::{KindId, ObjectKey, Status, time};
use corten_tree::{Tree, tree};
use futures::future::{Either, select};

use crate::core::Core;
use crate::own::Own;
use crate::pipeline::{Body, DeleteParameters, PatchBody};

/// How long a change of the server's own objects is left alone. Whoever replaces one deletes it and makes it anew.
const REPAIR_AFTER: Duration = Duration::from_secs(60);
/// How often a schema's condition is written in a minute, at most.
const UPDATES_MAX: usize = 6;
const CONDITION: &str = "Dangling";

const KINDS: [KindId; 2] = [id::PRIORITY_LEVEL_CONFIGURATION, id::FLOW_SCHEMA];

/// Reads what is there, and follows the changes from now on.
pub(crate) fn start(core: &Arc<Core>) {
    load(core);
    let core = core.clone();
    core.tasks.clone().run("flow control settings", OnError::Restart, OnStop::Abort, move || follow(core.clone()));
}

async fn follow(core: Arc<Core>) -> Result<(), corten_cache::Gone> {
    let revision = core.cache.revision();
    let [mut levels, mut schemas] = KINDS.map(|kind| core.cache.watch(Filter::all(kind), revision));
    let (levels, schemas) = (levels.as_mut().map_err(|gone| *gone)?, schemas.as_mut().map_err(|gone| *gone)?);
    let mut written = Written::default();
    let mut repair: BoxFuture<'static, ()> = Box::pin(std::future::pending());
    let mut repairs = false;
    loop {
        while levels.try_next()?.is_some() || schemas.try_next()?.is_some() {}
        load(&core);
        let again = written.tell(&core).await;
        if !repairs && !amiss(&core).is_empty() {
            repairs = true;
            repair = core.clock.sleep(REPAIR_AFTER);
        }
        let again: BoxFuture<'static, ()> = match again {
            Some(after) => core.clock.sleep(after),
            None => Box::pin(std::future::pending()),
        };
        match select(changed(levels, schemas), select(again, &mut repair)).await {
            Either::Left((changed, _)) => changed?,
            Either::Right((Either::Left(_), _)) => {}
            Either::Right((Either::Right(_), _)) => {
                repairs = false;
                repair = Box::pin(std::future::pending());
                if let Err(status) = ensure(&core).await {
                    tracing::warn!(%status, "keeping the flow control objects");
                }
            }
        }
    }
}

/// Completes when one of the objects has changed.
fn changed<'w>(levels: &'w mut Watcher, schemas: &'w mut Watcher) -> BoxFuture<'w, Result<(), corten_cache::Gone>> {
    Box::pin(async move {
        let (level, schema) = (Box::pin(levels.next()), Box::pin(schemas.next()));
        match select(level, schema).await {
            Either::Left((seen, _)) | Either::Right((seen, _)) => seen.map(drop),
        }
    })
}

fn objects(core: &Core, kind: KindId) -> Vec<Tree> {
    let objects: Vec<_> = core.cache.read().list(kind).cloned().collect();
    objects.iter().map(|object| object.to_tree()).collect()
}

/// Puts the objects of now into use.
fn load(core: &Core) {
    let levels = objects(core, id::PRIORITY_LEVEL_CONFIGURATION).iter().filter_map(PriorityLevel::read).collect();
    let schemas = objects(core, id::FLOW_SCHEMA).iter().map(FlowSchema::read).collect();
    core.flow.configure(levels, schemas);
}

/// When which schemas were told.
#[derive(Default)]
struct Written(BTreeMap<String, VecDeque<Timestamp>>);

impl Written {
    /// Writes into the schemas whether their level is there (`digestConfigObjects`). How long to wait before the next try, if
    /// one is needed.
    async fn tell(&mut self, core: &Arc<Core>) -> Option<Duration> {
        let levels = objects(core, id::PRIORITY_LEVEL_CONFIGURATION);
        let found = |name: &str| {
            let level = levels.iter().find(|level| level.str_at("metadata.name") == name);
            level.is_some_and(|level| PriorityLevel::read(level).is_some())
        };
        let schemas = objects(core, id::FLOW_SCHEMA);
        self.0.retain(|name, _| schemas.iter().any(|schema| schema.str_at("metadata.name") == name));
        let mut again = None;
        for schema in &schemas {
            let level = schema.str_at("spec.priorityLevelConfiguration.name");
            let Some(condition) = condition(schema, level, found(level)) else { continue };
            let name = schema.str_at("metadata.name");
            let now = core.clock.now();
            if self.too_often(name, now) {
                again = Some(Duration::from_secs(30 + core.entropy.u64() % 45));
                continue;
            }
            match apply(core, name, condition, now).await {
                Err(status) if !status.is_not_found() => {
                    tracing::warn!(%status, schema = name, "telling a FlowSchema whether its level is there");
                    let failures = self.0.get(name).map_or(1, VecDeque::len);
                    let wait = backoff::delay(Duration::from_millis(200), Duration::from_secs(60), failures as u32);
                    again = Some(again.map_or(wait, |again: Duration| again.min(wait)));
                }
                _ => {}
            }
        }
        again
    }

    fn too_often(&mut self, name: &str, now: Timestamp) -> bool {
        let times = self.0.entry(name.to_owned()).or_default();
        while times.front().is_some_and(|at| now.duration_since(*at).as_secs() >= 60) {
            times.pop_front();
        }
        if times.len() >= UPDATES_MAX {
            return true;
        }
        times.push_back(now);
        false
    }
}

/// The condition that a schema should have, if it has another (`presyncFlowSchemaStatus`).
fn condition(schema: &Tree, level: &str, found: bool) -> Option<Tree> {
    let about = format!("This FlowSchema references the PriorityLevelConfiguration object named \"{level}\"");
    let (status, reason, message) = match found {
        false => ("True", "NotFound", format!("{about} but there is no such object")),
        true => ("False", "Found", format!("{about} and it exists")),
    };
    let wanted = [("status", status), ("reason", reason), ("message", message.as_str())];
    let present = schema.list_at("status.conditions").iter().find(|c| c.str_at("type") == CONDITION);
    if present.is_some_and(|present| wanted.iter().all(|(field, value)| present.str_at(field) == *value)) {
        return None;
    }
    Some(tree!({"type": CONDITION, "status": status, "reason": reason, "message": message}))
}

async fn apply(core: &Arc<Core>, name: &str, mut condition: Tree, now: Timestamp) -> Result<(), Status> {
    condition.insert("lastTransitionTime", time::format(now));
    let key = ObjectKey::new(id::FLOW_SCHEMA, "", name);
    let kind = core.registry.get(key.kind);
    let body = tree!({"apiVersion": (bootstrap::API_VERSION), "kind": (&*kind.kind), "metadata": {"name": name},
        "status": {"conditions": [condition]}});
    let options = WriteOptions { field_manager: bootstrap::CONSUMER.into(), force: true, ..WriteOptions::default() };
    let patch = PatchBody { kind: PatchKind::Apply, body: body.to_json().into() };
    let own = Own::of(core, key.kind).with_options(options);
    core.patch(own.request(&key, "status"), patch).await.map(drop)
}

/// What has to be done with one of the server's own objects.
enum Amiss {
    Missing(Tree),
    Changed(Tree),
    LeftOver,
}

/// The server's own objects that are not as they should be, in the order in which they are put right.
fn amiss(core: &Core) -> Vec<(ObjectKey, Amiss)> {
    let boots = bootstrap::objects();
    let mut out = Vec::new();
    for boot in &boots {
        let Some(kind) = core.registry.gvk(boot.object.str_at("apiVersion"), boot.object.str_at("kind")) else {
            continue;
        };
        let key = ObjectKey::new(kind.id, "", boot.object.str_at("metadata.name"));
        match core.cache.get(&key) {
            None => out.push((key, Amiss::Missing(boot.object.clone()))),
            Some(current) => {
                let revised = bootstrap::revised(&current.to_tree(), boot);
                out.extend(revised.map(|revised| (key, Amiss::Changed(revised))));
            }
        }
    }
    for kind in KINDS {
        for object in objects(core, kind).iter().filter(|object| bootstrap::is_left_over(object, &boots)) {
            out.push((ObjectKey::new(kind, "", object.str_at("metadata.name")), Amiss::LeftOver));
        }
    }
    out
}

/// Makes the server's own objects what they should be (`ensure`).
///
/// # Errors
/// The first refusal, if it is not that somebody else was quicker.
pub(crate) async fn ensure(core: &Arc<Core>) -> Result<(), Status> {
    // One does not need the other, and the store groups what comes together.
    let all = amiss(core).into_iter().map(|(key, amiss)| async move {
        let options = WriteOptions { field_manager: bootstrap::PRODUCER.into(), ..WriteOptions::default() };
        let own = Own::of(core, key.kind).with_options(options);
        let done = match amiss {
            Amiss::Missing(object) => own.create(core, &key, object).await,
            Amiss::Changed(object) => core.update(own.request(&key, ""), Body::Tree(object)).await.map(drop),
            Amiss::LeftOver => core.delete(own.request(&key, ""), &DeleteParameters::default()).await.map(drop),
        };
        done.or_else(|status| match status.is_already_exists() || status.is_not_found() || status.is_conflict() {
            true => Ok(()),
            false => Err(status),
        })
    });
    futures::future::try_join_all(all).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dangling_flow_schema_is_told_so_once() {
        let mut schema = tree!({"spec": {"priorityLevelConfiguration": {"name": "p"}}});
        let wanted = condition(&schema, "p", false).unwrap();
        assert_eq!((wanted.str_at("status"), wanted.str_at("reason")), ("True", "NotFound"));
        schema.set("status.conditions", Tree::List(vec![wanted]));
        assert!(condition(&schema, "p", false).is_none());
        let found = condition(&schema, "p", true).unwrap();
        assert_eq!(
            found.str_at("message"),
            "This FlowSchema references the PriorityLevelConfiguration object named \"p\" and it exists"
        );
    }

    #[test]
    fn a_flow_schema_is_told_six_times_a_minute_at_most() {
        let mut written = Written::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let refused: Vec<bool> = (0..8).map(|second| written.too_often("f", at(second))).collect();
        assert_eq!(refused, [false, false, false, false, false, false, true, true]);
        assert!(!written.too_often("g", at(8)) && !written.too_often("f", at(60)));
    }
}
