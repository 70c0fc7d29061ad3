//! The API for components of this process: the same pipeline without sockets and authentication.

use std::sync::Arc;

use corten_audit::{Asked, Trail, trail};
use corten_auth::User;
use corten_base::{BoxFuture, Revision};
use corten_cache::Transition;
use corten_client::{
    Api, ApiList, Failure, ListOptions, WatchEvent, WatchEventKind, Write, WriteOptions, Written, collection_path,
};
use corten_flowcontrol::work::{of_list, of_write};
use corten_flowcontrol::{Digest, What, Work};
use corten_kinds::{Kind, SubresourceKind, Verbs};
use corten_object::{FieldSelector, KindId, LabelSelector, Object, ObjectKey, Status};
use corten_tree::{Tree, tree};
use futures::stream::{self, BoxStream, StreamExt};

use crate::aggregation;
use crate::core::{Core, attributes};
use crate::flow::{Asking, Place};
use crate::http::{Query, Route, parse};
use crate::pipeline::{
    Answer, Body, ListRequest, PatchBody, Request, RevisionMatch, WatchItem, WatchRequest, WatchStart, parameters_of,
};

/// From where the parts of this process come, as the audit log shows it.
const LOCAL: &str = "127.0.0.1";

/// The API as one user sees it.
pub(crate) struct LocalApi {
    core: Arc<Core>,
    user: Arc<User>,
}

impl LocalApi {
    pub fn new(core: Arc<Core>, user: User) -> LocalApi {
        LocalApi { core, user: Arc::new(user) }
    }

    /// Seats for a request of this user, as for anyone's.
    async fn enter(&self, verb: &'static str, kind: &Arc<Kind>, key: &ObjectKey, sub: &str) -> Result<Place, Status> {
        let what =
            What::Resource { group: &kind.group, resource: &kind.plural, subresource: sub, namespace: &key.namespace };
        let digest = Digest { user: &self.user.name, groups: &self.user.groups, verb, what };
        let wait_max = self.core.flow.wait_default();
        let asking = Asking { user: &self.user, digest, verb, uri: None, wait_max };
        let work = |level_max| match verb {
            "list" => (of_list(&self.core.list_asked(kind), level_max), None),
            "get" => (Work::ONE, None),
            _ => {
                let watchers = self.core.flow.watches.interested(&what, &key.name);
                (of_write(watchers, level_max), Some(watchers))
            }
        };
        self.core.flow.enter(asking, work).await.map_err(|refused| refused.status())
    }

    fn list_request(options: ListOptions, revision: RevisionMatch) -> ListRequest {
        ListRequest {
            namespace: options.namespace,
            labels: options.labels,
            fields: options.fields,
            revision,
            limit: 0,
            start: None,
            remaining: None,
        }
    }

    /// Has a request recorded, if anything is; `answered` says what has become of it.
    async fn recorded<T>(
        &self,
        verb: &str,
        (key, subresource): (&ObjectKey, &str),
        working: impl Future<Output = Result<T, Status>>,
        answered: impl Fn(&T) -> u16,
    ) -> Result<T, Status> {
        let Some(backends) = &self.core.audit else { return working.await };
        let kind = self.core.registry.get(key.kind);
        let mut uri = collection_path(&kind, &key.namespace);
        for part in [&*key.name, subresource].into_iter().filter(|part| !part.is_empty()) {
            uri = format!("{uri}/{part}");
        }
        if verb == "watch" {
            uri.push_str("?watch=true");
        }
        let trail = Trail::new(
            backends,
            Asked {
                id: self.core.entropy.uid(),
                received: self.core.clock.now(),
                uri,
                source_ips: vec![LOCAL.to_owned()],
                user_agent: manager_of(&self.user).into(),
                long_running: verb == "watch",
            },
        );
        let names = (&*key.namespace, &*key.name, subresource);
        if !trail.decided(&attributes(&self.user, verb, &kind, names), &kind.versions[0]).await {
            return Err(Status::internal("failed to store audit event"));
        }
        let working = Box::pin(async {
            let worked = working.await;
            if let Err(status) = &worked {
                trail::response_status(status);
            }
            worked
        });
        trail.scope(working, |worked| worked.as_ref().map_or_else(|status| status.code, &answered)).await
    }

    /// Reads a path, here or where an APIService says.
    async fn read_path(&self, path: &str) -> Result<Tree, Status> {
        let (before, query) = path.split_once('?').unwrap_or((path, ""));
        let Route::Resource(r) = parse(before) else { return Err(Status::no_such_resource()) };
        let verb = if r.name.is_empty() { "list" } else { "get" };
        if let Some(service) = self.core.served_elsewhere(&r.group, &r.version) {
            self.core.authorize(&r.attributes(&self.user, verb)).await?;
            return aggregation::read(&self.core, &service, path, &self.user).await;
        }
        let kind = self.core.registry.resource(&r.group, &r.version, &r.resource);
        let kind = kind.filter(|_| r.subresource.is_empty()).ok_or_else(Status::no_such_resource)?;
        if verb == "get" {
            let object = self.get(&ObjectKey::new(kind.id, &r.namespace, &r.name)).await?;
            return Ok(object.to_tree());
        }
        let query = Query::parse(Some(query));
        let labels = LabelSelector::parse(query.get("labelSelector")).map_err(Status::bad_request)?;
        let fields = FieldSelector::parse(query.get("fieldSelector")).map_err(Status::bad_request)?;
        let options = ListOptions { namespace: r.namespace.clone(), labels: Some(labels), fields };
        let items = self.list(kind.id, options).await?.items;
        Ok(tree!({"items": (items.iter().map(|object| object.to_tree()).collect::<Vec<_>>())}))
    }

    async fn do_write(&self, write: Write, options: &WriteOptions) -> Result<Answer, Status> {
        let (verb, key, subresource) = match &write {
            Write::Create { target, .. } => ("create", target.key.clone(), target.subresource),
            Write::Update { target, .. } => ("update", target.key.clone(), target.subresource),
            Write::Patch { target, .. } => ("patch", target.key.clone(), target.subresource),
            Write::Delete { key, .. } => ("delete", key.clone(), ""),
        };
        let working = async {
            let answer = self.do_write_to(write, (verb, &key, subresource), options).await?;
            match (&answer.object, &answer.tree) {
                (Some(object), _) => trail::response_object(|| Some(object.to_tree())),
                (None, Some(tree)) => trail::response_object(|| Some(tree.clone())),
                (None, None) => {}
            }
            Ok(answer)
        };
        self.recorded(verb, (&key, subresource), working, |answer| answer.code).await
    }

    async fn do_write_to(
        &self,
        write: Write,
        (verb, key, subresource): (&'static str, &ObjectKey, &'static str),
        options: &WriteOptions,
    ) -> Result<Answer, Status> {
        let named;
        let options = match options.field_manager.is_empty() {
            true => {
                named = WriteOptions { field_manager: manager_of(&self.user).into(), ..options.clone() };
                &named
            }
            false => options,
        };
        let kind = self.core.registry.get(key.kind);
        let _place = self.enter(verb, &kind, key, subresource).await?;
        let version = kind.versions[0].clone();
        let request = Request {
            user: &self.user,
            kind: &kind,
            version: &version,
            namespace: &key.namespace,
            name: &key.name,
            subresource,
            options,
        };
        let part = request.sub().map(|s| s.kind);
        match write {
            Write::Create { body, .. } => match part {
                None if kind.verbs == Verbs::CreateOnly => self.core.review(request, Body::Tree(body)).await,
                None => self.core.create(Request { name: "", ..request }, Body::Tree(body)).await,
                Some(SubresourceKind::Action { .. }) => self.core.act(request, Body::Tree(body)).await,
                Some(_) => Err(Status::method_not_allowed()),
            },
            Write::Update { body, .. } => match part {
                Some(SubresourceKind::Scale { .. }) => self.core.update_scale(request, Body::Tree(body)).await,
                _ => self.core.update(request, Body::Tree(body)).await,
            },
            Write::Patch { patch, body, .. } => {
                let patch = PatchBody { kind: patch, body: body.to_json().into() };
                match part {
                    Some(SubresourceKind::Scale { .. }) => self.core.patch_scale(request, patch).await,
                    _ => self.core.patch(request, patch).await,
                }
            }
            Write::Delete { options, .. } => self.core.delete(request, &parameters_of(&options)).await,
        }
    }
}

/// The name under which a component of this process owns fields: that of upstream's program, which its client sends as user agent.
fn manager_of(user: &User) -> &'static str {
    match user.name.as_str() {
        "system:kube-scheduler" => "kube-scheduler",
        "system:apiserver" => "kube-apiserver",
        name if name.starts_with("system:node:") => "kubelet",
        name if name.starts_with("system:serviceaccount:kube-system:") => "kube-controller-manager",
        "system:kube-controller-manager" => "kube-controller-manager",
        _ => "corten",
    }
}

impl Api for LocalApi {
    fn get<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Arc<Object>, Status>> {
        Box::pin(async move {
            let kind = self.core.registry.get(key.kind);
            let options = WriteOptions::default();
            let request = Request {
                user: &self.user,
                kind: &kind,
                version: &kind.versions[0],
                namespace: &key.namespace,
                name: &key.name,
                subresource: "",
                options: &options,
            };
            let reading = async {
                let _place = self.enter("get", &kind, key, "").await?;
                self.core.get(request, RevisionMatch::MostRecent).await
            };
            self.recorded("get", (key, ""), reading, |_| 200).await
        })
    }

    fn list(&self, kind: KindId, options: ListOptions) -> BoxFuture<'_, Result<ApiList, Status>> {
        Box::pin(async move {
            let kind = self.core.registry.get(kind);
            let key = ObjectKey::new(kind.id, &options.namespace, "");
            let request = LocalApi::list_request(options, RevisionMatch::MostRecent);
            let listing = async {
                let _place = self.enter("list", &kind, &key, "").await?;
                self.core.list(&self.user, (&kind, &kind.versions[0]), &request).await
            };
            let listed = self.recorded("list", (&key, ""), listing, |_| 200).await?;
            Ok(ApiList { items: listed.items, revision: listed.revision })
        })
    }

    fn watch(
        &self,
        kind: KindId,
        options: ListOptions,
        after: Revision,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<WatchEvent, Status>>, Status>> {
        Box::pin(async move {
            let kind = self.core.registry.get(kind);
            let key = ObjectKey::new(kind.id, &options.namespace, "");
            let request = WatchRequest {
                list: LocalApi::list_request(options, RevisionMatch::Any),
                start: WatchStart::After(after),
                bookmarks: true,
                timeout: None,
            };
            let beginning = async {
                let watching = self.core.watch(&self.user, &kind, &request).await?;
                // The record lasts as long as the watch.
                Ok((watching, trail::current()))
            };
            let watching = self.recorded("watch", (&key, ""), beginning, |_| 200).await?;
            let events = stream::unfold(watching, |(mut watching, record)| async move {
                let event = match watching.next().await? {
                    WatchItem::Error(status) => Err(status),
                    item => Ok(event(item)),
                };
                Some((event, (watching, record)))
            });
            Ok(events.boxed())
        })
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Tree, Status>> {
        Box::pin(self.read_path(path))
    }

    fn write(&self, write: Write, options: WriteOptions) -> BoxFuture<'_, Result<Written, Failure>> {
        Box::pin(async move {
            match self.do_write(write, &options).await {
                Ok(answer) => Ok(Written { object: answer.object, answer: answer.tree, revision: answer.revision }),
                Err(status) => {
                    let revision = self.core.store.current_revision().await.unwrap_or(self.core.cache.revision());
                    Err(Failure { status, revision })
                }
            }
        })
    }
}

fn event(item: WatchItem) -> WatchEvent {
    match item {
        WatchItem::Initial(object) => {
            WatchEvent { kind: WatchEventKind::Added, revision: object.head.revision, object: Some(object) }
        }
        WatchItem::Change(seen) => WatchEvent {
            kind: match seen.transition {
                Transition::Added => WatchEventKind::Added,
                Transition::Modified => WatchEventKind::Modified,
                Transition::Deleted => WatchEventKind::Deleted,
            },
            revision: seen.revision(),
            object: Some(seen.object().clone()),
        },
        WatchItem::Bookmark(revision, _) => WatchEvent { kind: WatchEventKind::Bookmark, object: None, revision },
        WatchItem::Error(_) => unreachable!("errors are not events; the caller has taken them out"),
    }
}
