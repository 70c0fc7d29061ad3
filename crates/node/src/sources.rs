//! Config maps, secrets and tokens that pods refer to: fetched when a pod needs them, followed while one uses them.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use corten_base::{Clock, OnStop, Tasks, Timestamp};
use corten_client::{Api, ListOptions};
use corten_images::SecretRef;
use corten_kinds::id;
use corten_object::selector::FieldTerm;
use corten_object::{FieldSelector, KindId, Object, ObjectKey, time};
use corten_podplan::env::{Sources, decode_secret};
use corten_tree::Tree;
use corten_views::{ConfigMap, Pod, Secret};
use futures::FutureExt as _;
use futures::future::AbortHandle;
use jiff::SignedDuration;
use tokio::sync::watch;

use crate::certificates::{BundleFollower, Bundles, PodCertificates};
use crate::images::PullSecret;
use crate::pod::PodContext;
use crate::watcher::{Change, Watcher};
use crate::write;

type Slot = (KindId, String, String);

/// Objects that pods refer to.
#[derive(Clone)]
pub struct SourceCache(Arc<Inner>);

struct Inner {
    api: Arc<dyn Api>,
    tasks: Tasks,
    followed: Mutex<HashMap<Slot, Followed>>,
    /// By the pod's uid; then by audience and seconds.
    tokens: Mutex<HashMap<String, HashMap<(String, i64), Token>>>,
    bundles: BundleFollower,
    certificates: PodCertificates,
    holders: AtomicU64,
}

struct Followed {
    users: BTreeSet<u64>,
    changes: watch::Sender<Option<Arc<Object>>>,
    stop: AbortHandle,
}

#[derive(Clone)]
struct Token {
    text: String,
    refresh_at: Timestamp,
}

/// A pod's hold on the objects that it refers to; dropping the last clone ends the watches that nobody else needs.
#[derive(Clone)]
pub struct Reader(Arc<Hold>);

struct Hold {
    cache: SourceCache,
    holder: u64,
    uid: String,
    slots: Vec<(Slot, watch::Receiver<Option<Arc<Object>>>)>,
    bundles: Option<watch::Receiver<Option<Bundles>>>,
}

/// Tells when something that a pod refers to has changed.
pub struct Changes {
    objects: Vec<watch::Receiver<Option<Arc<Object>>>>,
    bundles: Option<watch::Receiver<Option<Bundles>>>,
}

impl SourceCache {
    pub fn new(api: Arc<dyn Api>, node_name: &str, tasks: Tasks) -> SourceCache {
        let (followed, tokens) = (Mutex::default(), Mutex::default());
        let certificates = PodCertificates::new(api.clone(), node_name.to_owned());
        let (bundles, holders) = (BundleFollower::default(), AtomicU64::new(0));
        SourceCache(Arc::new(Inner { api, tasks, followed, tokens, bundles, certificates, holders }))
    }

    /// Follows everything that a pod refers to. Returns once each object has been read once.
    pub async fn hold(&self, pod: &Pod) -> (Reader, Changes) {
        let (maps, secrets) = corten_podplan::env::references(pod);
        let of = |kind: KindId, names: BTreeSet<String>| {
            let namespace = pod.metadata.namespace.clone();
            names.into_iter().map(move |name| (kind, namespace.clone(), name))
        };
        let holder = self.0.holders.fetch_add(1, Ordering::Relaxed);
        let mut slots = Vec::new();
        for slot in of(id::CONFIG_MAP, maps).chain(of(id::SECRET, secrets)) {
            slots.push((slot.clone(), self.follow(slot, holder).await));
        }
        let bundles = match corten_podplan::volumes::wants_trust_bundles(pod) {
            true => Some(self.0.bundles.follow(&self.0.api, &self.0.tasks).await),
            false => None,
        };
        let objects = slots.iter().map(|(_, changes)| changes.clone()).collect();
        let changes = Changes { objects, bundles: bundles.clone() };
        let uid = pod.metadata.uid.clone();
        (Reader(Arc::new(Hold { cache: self.clone(), holder, uid, slots, bundles })), changes)
    }

    async fn follow(&self, slot: Slot, holder: u64) -> watch::Receiver<Option<Arc<Object>>> {
        let existing = {
            let mut followed = self.0.followed.lock().unwrap_or_else(PoisonError::into_inner);
            followed.get_mut(&slot).map(|entry| {
                entry.users.insert(holder);
                entry.changes.subscribe()
            })
        };
        if let Some(changes) = existing {
            return changes;
        }
        let key = ObjectKey::new(slot.0, &slot.1, &slot.2);
        let first = self.0.api.get(&key).await.ok();
        let (sender, receiver) = watch::channel(first);
        let (stop, registration) = AbortHandle::new_pair();
        let options = ListOptions {
            namespace: slot.1.clone(),
            labels: None,
            fields: FieldSelector {
                terms: vec![FieldTerm { path: "metadata.name".into(), equal: true, value: slot.2.clone() }],
            },
        };
        let mut watcher = Watcher::new(self.0.api.clone(), self.0.tasks.clock(), slot.0, options);
        let changes = sender.clone();
        let follow = async move {
            loop {
                let now = match watcher.next().await {
                    Change::Reset(items) => items.into_iter().next(),
                    Change::Set(object) => Some(object),
                    Change::Gone(_) => None,
                };
                let revision = |o: &Option<Arc<Object>>| o.as_ref().map(|o| o.head.revision);
                changes.send_if_modified(|slot| {
                    let changed = revision(slot) != revision(&now);
                    *slot = now;
                    changed
                });
            }
        };
        let task = futures::future::Abortable::new(follow, registration);
        self.0.tasks.spawn("node-source", OnStop::Abort, async move {
            let _ = task.await;
        });
        let entry = Followed { users: BTreeSet::from([holder]), changes: sender, stop };
        self.0.followed.lock().unwrap_or_else(PoisonError::into_inner).insert(slot, entry);
        receiver
    }

    /// A service account token for a pod, made anew in time ([`refresh_time`]). With it the time to ask again.
    pub async fn token(
        &self,
        pod: &Pod,
        audience: &str,
        seconds: i64,
        clock: &Arc<dyn Clock>,
    ) -> Result<(String, Timestamp), String> {
        let (uid, slot) = (&pod.metadata.uid, (audience.to_owned(), seconds));
        let now = clock.now();
        let known = self.tokens().get(uid).and_then(|of_pod| of_pod.get(&slot)).cloned();
        if let Some(token) = known.filter(|t| now < t.refresh_at) {
            return Ok((token.text, token.refresh_at));
        }
        let mut body = Tree::map();
        body.insert("apiVersion", "authentication.k8s.io/v1");
        body.insert("kind", "TokenRequest");
        if !audience.is_empty() {
            body.set("spec.audiences", Tree::List(vec![audience.into()]));
        }
        body.set("spec.expirationSeconds", seconds);
        body.set("spec.boundObjectRef.apiVersion", "v1");
        body.set("spec.boundObjectRef.kind", "Pod");
        body.set("spec.boundObjectRef.name", &pod.metadata.name);
        body.set("spec.boundObjectRef.uid", &pod.metadata.uid);
        let account = if pod.spec.service_account_name.is_empty() { "default" } else { &pod.spec.service_account_name };
        let key = ObjectKey::new(id::SERVICE_ACCOUNT, &pod.metadata.namespace, account);
        let written = write::act(&self.0.api, key, "token", body).await;
        let written = written.map_err(|failure| format!("failed to fetch token: {}", failure.status))?;
        let answer = written.answer.unwrap_or_default();
        let text = answer.str_at("status.token").to_owned();
        if text.is_empty() {
            return Err("failed to fetch token: the answer has none".into());
        }
        let told = time::parse(answer.str_at("status.expirationTimestamp"));
        let refresh_at = refresh_time(told.unwrap_or(now + SignedDuration::from_secs(seconds)), seconds);
        let token = Token { text: text.clone(), refresh_at };
        self.tokens().entry(uid.clone()).or_default().insert(slot, token);
        Ok((text, refresh_at))
    }

    fn release(&self, holder: u64, slots: impl Iterator<Item = Slot>) {
        let mut followed = self.0.followed.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in slots {
            if let Some(entry) = followed.get_mut(&slot) {
                entry.users.remove(&holder);
                if entry.users.is_empty() {
                    entry.stop.abort();
                    followed.remove(&slot);
                }
            }
        }
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<String, HashMap<(String, i64), Token>>> {
        self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a pod's tokens.
    pub fn forget(&self, uid: &str) {
        self.tokens().remove(uid);
        self.0.certificates.forget(uid);
    }
}

impl Reader {
    /// Everything that environment and volumes may need, as it is now.
    pub async fn sources(&self, ctx: &PodContext, ips: &[String]) -> Result<Sources, String> {
        let (shared, pod) = (&ctx.shared, &ctx.pod);
        let mut sources = Sources {
            services: shared.services.for_environment(&pod.metadata.namespace),
            facts: shared.downward_facts(ips),
            ..Sources::default()
        };
        self.fill(&mut sources);
        for (audience, seconds) in corten_podplan::volumes::tokens(pod) {
            let (token, _) = self.0.cache.token(pod, &audience, seconds, &shared.clock).await?;
            sources.tokens.insert((audience, seconds), token);
        }
        for (volume, place, wanted) in corten_podplan::volumes::certificates(pod) {
            let certificates = &self.0.cache.0.certificates;
            let credential = certificates.credential(pod, (&volume, place), &wanted, &shared.clock).await?;
            sources.certificates.insert((volume, place), credential);
        }
        if let Some(bundles) = &self.0.bundles {
            sources.trust_bundles = bundles.borrow().as_deref().cloned().unwrap_or_default();
        }
        Ok(sources)
    }

    /// When the first of the pod's tokens must be made anew.
    pub fn refresh_at(&self) -> Option<Timestamp> {
        let token = self.0.cache.tokens().get(&self.0.uid).and_then(|all| all.values().map(|t| t.refresh_at).min());
        let certificate = self.0.cache.0.certificates.refresh_at(&self.0.uid);
        [token, certificate].into_iter().flatten().min()
    }

    fn fill(&self, sources: &mut Sources) {
        for ((kind, _, name), changes) in &self.0.slots {
            let Some(object) = changes.borrow().clone() else { continue };
            if *kind == id::CONFIG_MAP {
                if let Ok(map) = object.view::<ConfigMap>() {
                    sources.config_maps.insert(name.clone(), map);
                }
            } else if let Ok(secret) = object.view::<Secret>() {
                sources.secrets.insert(name.clone(), Arc::new(decode_secret(&secret)));
            }
        }
    }

    /// The pod's image pull secrets, and the names of those that are not there.
    pub fn pull_secrets(&self, pod: &Pod) -> (Vec<PullSecret>, Vec<String>) {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for reference in pod.spec.image_pull_secrets.iter().filter(|r| !r.name.is_empty()) {
            let slot = self.0.slots.iter().find(|((kind, _, name), _)| *kind == id::SECRET && *name == reference.name);
            let Some(object) = slot.and_then(|(_, changes)| changes.borrow().clone()) else {
                missing.push(reference.name.clone());
                continue;
            };
            let Ok(secret) = object.view::<Secret>() else { continue };
            let data = decode_secret(&secret);
            for (key, legacy) in [(".dockerconfigjson", false), (".dockercfg", true)] {
                let Some(config) = data.get(key).filter(|config| !config.is_empty()) else { continue };
                let secret = SecretRef {
                    namespace: object.head.namespace.to_string(),
                    name: object.head.name.to_string(),
                    uid: object.head.uid.to_string(),
                };
                found.push(PullSecret { secret, config: config.clone(), legacy });
                break;
            }
        }
        (found, missing)
    }
}

/// When a token that ends at `expires` and lasts so many seconds is replaced: a fifth of its life before its end, and at the age of
/// a day at the latest (`pkg/kubelet/token/token_manager.go` `requiresRefresh`).
fn refresh_time(expires: Timestamp, seconds: i64) -> Timestamp {
    let issued = expires - SignedDuration::from_secs(seconds);
    (issued + SignedDuration::from_secs(seconds - seconds / 5)).min(issued + SignedDuration::from_hours(24))
}

impl Changes {
    /// Completes when one of the objects has changed.
    pub async fn changed(&mut self) {
        let objects = self.objects.iter_mut().map(|changes| changes.changed().boxed());
        let bundles = self.bundles.iter_mut().map(|changes| changes.changed().boxed());
        let waits: Vec<_> = objects.chain(bundles).collect();
        if waits.is_empty() {
            return std::future::pending().await;
        }
        let (outcome, ..) = futures::future::select_all(waits).await;
        if outcome.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.cache.release(self.holder, self.slots.iter().map(|(slot, _)| slot.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_rotation_comes_before_the_end_and_within_a_day() {
        let issued = Timestamp::from_second(1_767_225_600).unwrap();
        let after = |seconds: i64| {
            let expires = issued + SignedDuration::from_secs(seconds);
            refresh_time(expires, seconds).duration_since(issued).as_secs()
        };
        assert_eq!(after(3600), 2880);
        assert_eq!(after(600), 480);
        assert_eq!(after(7 * 86_400), 86_400);
    }
}
