//! `/livez`, `/readyz`, `/healthz`: what is checked, and how it is told.
//!
//! Upstream: `apiserver/pkg/server/healthz/healthz.go`. The names are upstream's, because monitoring asks for single checks and
//! excludes them by name; each stands for the part of Corten that does that work.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::Response;

use super::body::Body;
use super::handle::Call;
use super::respond::text;
use crate::core::Core;
use crate::families;

/// What a check looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    /// That the server answers at all. What is written and loaded before it listens has been done then.
    Answers,
    /// That the store answers.
    Store,
    /// That the cache has seen what the store has.
    Cache,
    /// That the server is not being stopped.
    Running,
}

const CHECKS: &[(&str, Looks)] = &[
    ("ping", Looks::Answers),
    ("log", Looks::Answers),
    ("etcd", Looks::Store),
    ("poststarthook/start-apiserver-admission-initializer", Looks::Answers),
    ("poststarthook/generic-apiserver-start-informers", Looks::Cache),
    ("poststarthook/priority-and-fairness-config-consumer", Looks::Answers),
    ("poststarthook/priority-and-fairness-config-producer", Looks::Answers),
    ("poststarthook/start-apiextensions-informers", Looks::Cache),
    ("poststarthook/start-apiextensions-controllers", Looks::Answers),
    ("poststarthook/crd-informer-synced", Looks::Cache),
    ("poststarthook/start-system-namespaces-controller", Looks::Answers),
    ("poststarthook/bootstrap-controller", Looks::Answers),
    ("poststarthook/start-service-ip-repair-controllers", Looks::Answers),
    ("poststarthook/rbac/bootstrap-roles", Looks::Answers),
    ("poststarthook/scheduling/bootstrap-system-priority-classes", Looks::Answers),
    ("poststarthook/start-cluster-authentication-info-controller", Looks::Answers),
    ("poststarthook/start-kube-aggregator-informers", Looks::Cache),
    ("poststarthook/apiservice-registration-controller", Looks::Answers),
    ("poststarthook/apiservice-status-local-available-controller", Looks::Answers),
    ("poststarthook/apiservice-status-remote-available-controller", Looks::Answers),
    ("poststarthook/kube-apiserver-autoregistration", Looks::Answers),
    ("autoregister-completion", Looks::Answers),
    ("poststarthook/apiservice-openapi-controller", Looks::Answers),
    ("poststarthook/apiservice-openapiv3-controller", Looks::Answers),
    ("poststarthook/apiservice-discovery-controller", Looks::Answers),
];

/// What only readiness depends on.
const READY: &[(&str, Looks)] = &[("etcd-readiness", Looks::Store), ("informer-sync", Looks::Cache)];
const LAST: &[(&str, Looks)] = &[("shutdown", Looks::Running)];

/// The endpoints.
const ENDPOINTS: [&str; 3] = ["healthz", "livez", "readyz"];

fn checks(endpoint: &str) -> impl Iterator<Item = &'static (&'static str, Looks)> {
    let ready = endpoint == "readyz";
    let more = |list: &'static [(&'static str, Looks)]| list.iter().filter(move |_| ready);
    CHECKS.iter().chain(more(READY)).chain(more(LAST))
}

/// All paths below here, for the index.
pub(super) fn paths() -> impl Iterator<Item = String> {
    ENDPOINTS.into_iter().flat_map(|endpoint| {
        let below = checks(endpoint).map(move |(name, _)| format!("/{endpoint}/{name}"));
        std::iter::once(format!("/{endpoint}")).chain(below)
    })
}

/// The answer, if the path is one of these.
pub(super) async fn answer(core: &Arc<Core>, call: &Call, path: &str) -> Option<Response<Body>> {
    let path = path.trim_matches('/');
    let (endpoint, name) = path.split_once('/').unwrap_or((path, ""));
    let endpoint = ENDPOINTS.into_iter().find(|e| *e == endpoint)?;
    if name.is_empty() {
        return Some(whole(core, call, endpoint).await);
    }
    let (name, looks) = checks(endpoint).find(|(n, _)| *n == name)?;
    Some(match counted(core, name, endpoint, *looks).await {
        None => text(200, "ok"),
        Some(why) => text(500, format!("internal server error: {why}\n")),
    })
}

async fn whole(core: &Arc<Core>, call: &Call, endpoint: &'static str) -> Response<Body> {
    let mut excluded: Vec<&str> = call.query.all("exclude").collect();
    let (mut out, mut failed) = (String::new(), Vec::new());
    for (name, looks) in checks(endpoint) {
        if let Some(at) = excluded.iter().position(|e| e == name) {
            excluded.remove(at);
            let _ = writeln!(out, "[+]{name} excluded: ok");
            continue;
        }
        match counted(core, name, endpoint, *looks).await {
            None => {
                let _ = writeln!(out, "[+]{name} ok");
            }
            Some(why) => {
                let _ = writeln!(out, "[-]{name} failed: reason withheld");
                failed.push(format!("{name}: {why}"));
            }
        }
    }
    if !excluded.is_empty() {
        excluded.sort_unstable();
        let names: Vec<String> = excluded.iter().map(|e| format!("{e:?}")).collect();
        let _ = writeln!(out, "warn: some health checks cannot be excluded: no matches for {}", names.join(","));
    }
    if !failed.is_empty() {
        tracing::warn!(endpoint, ?failed, "a health check failed");
        return text(500, format!("{out}{endpoint} check failed\n"));
    }
    match call.query.has("verbose") {
        true => text(200, format!("{out}{endpoint} check passed\n")),
        false => text(200, "ok"),
    }
}

/// The same, and counted.
async fn counted(core: &Arc<Core>, name: &str, endpoint: &str, looks: Looks) -> Option<String> {
    let why = failure(core, looks).await;
    families::checked(name, endpoint, why.is_none());
    why
}

/// Why a check fails, if it does.
async fn failure(core: &Arc<Core>, looks: Looks) -> Option<String> {
    match looks {
        Looks::Answers => None,
        Looks::Running => {
            let stopping = core.shutting_down.load(Ordering::Relaxed) || core.tasks.is_stopping();
            stopping.then(|| "process is shutting down".to_owned())
        }
        Looks::Store => core.store.current_revision().await.err().map(|e| e.to_string()),
        Looks::Cache => core.fresh().await.err().map(|e| e.message),
    }
}
