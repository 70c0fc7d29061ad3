//! Requests about resources: from path, query and headers to one call of the pipeline, and its answer as a response.

use std::sync::Arc;
use std::time::{Duration, Instant};

use corten_audit::{Level, trail};
use corten_base::{OnStop, Revision};
use corten_client::{PatchKind, WriteOptions};
use corten_kinds::{Kind, Subresource, SubresourceKind, Verbs};
use corten_object::{Reason, Status};
use corten_tree::{json, tree};
use hyper::body::Incoming;
use hyper::{Method, Request as HttpRequest, Response};

use super::body::{Body as HttpBody, full, stream};
use super::encode::{Encoder, IncludeObject, tree_bytes};
use super::flow;
use super::handle::{self, Call, read_body};
use super::negotiate::{self, Form, Format, Offer, Shape};
use super::options;
use super::respond::{finish, page_not_found, rendered, respond, warn};
use super::route::Resource;
use super::watch::{Counted, Frames, frames};
use super::websocket;
use crate::core::{Core, attributes};
use crate::pipeline::{Answer, Body, DeleteParameters, Listed, PatchBody, Request, WatchRequest};
use crate::{families, streams};

/// The shortest life of a watch without `timeoutSeconds`; the longest is twice as much (`--min-request-timeout`).
const WATCH_SECONDS_MIN: u64 = 1800;

const JSON_YAML_PROTOBUF: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
const STREAMS: &str = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
const PATCHES: &str = "application/json-patch+json, application/merge-patch+json, \
     application/strategic-merge-patch+json, application/apply-patch+yaml";
const CUSTOM_PATCHES: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

/// Answers a request about a resource.
pub(super) async fn serve(
    core: &Arc<Core>,
    call: Call,
    r: Arc<Resource>,
    verb: &'static str,
    request: HttpRequest<Incoming>,
) -> Result<Response<HttpBody>, Status> {
    let Some(kind) = core.registry.resource(&r.group, &r.version, &r.resource) else {
        return Box::pin(unknown(core, &call, &r, verb)).await;
    };
    let misplaced = kind.namespaced() && r.namespace.is_empty() && !r.name.is_empty();
    if misplaced || (!kind.namespaced() && !r.namespace.is_empty()) {
        return Box::pin(unknown(core, &call, &r, verb)).await;
    }
    let sub = match r.subresource.as_str() {
        "" => None,
        name => match kind.subresource_at(&r.version, name) {
            Some(sub) if !r.watch => Some(*sub),
            _ => return Box::pin(unknown(core, &call, &r, verb)).await,
        },
    };
    if kind.verbs == Verbs::CreateOnly && sub.is_none() && !r.name.is_empty() {
        // What is only made has no names: there is no such path.
        return Box::pin(unknown(core, &call, &r, verb)).await;
    }
    if let Some(sub) = sub
        && sub.kind == SubresourceKind::Connect
    {
        return Box::pin(streams::connect(core, call, &kind, r, request)).await;
    }
    let about = attributes(&call.user, verb, &kind, (&r.namespace, &r.name, &r.subresource));
    let verbs = sub.map_or(kind.verbs.names(), |s| s.verbs);
    // Upstream routes GET only where something is read.
    let routed = !matches!(call.method, Method::HEAD | Method::OPTIONS) && (!r.watch || call.method == Method::GET);
    let named = match verb {
        "create" => sub.is_some() || r.name.is_empty(),
        "update" | "patch" => !r.name.is_empty(),
        _ => true,
    };
    if !verbs.contains(&verb) || !routed || !named {
        core.authorize(&about).await?;
        return Err(Status::method_not_allowed());
    }
    let form = negotiate::form(&call.headers, &call.query, offer(&kind, sub.as_ref()));
    let include = form.clone().and_then(|form| match form.shape {
        Shape::Table => IncludeObject::parse(call.query.get("includeObject")),
        _ => Ok(IncludeObject::Metadata),
    });
    let (form, include) = match (form, include) {
        (Ok(form), Ok(include)) => (form, include),
        // Who may not ask is told that first.
        (Err(status), _) | (_, Err(status)) => return Err(core.authorize(&about).await.err().unwrap_or(status)),
    };
    let version = r.version.as_str().into();
    let encoder = Encoder { late: None, core: core.clone(), version, form, include, kind: kind.clone() };
    let exchange = Exchange { core, call, kind, r, sub: sub.map(|s| s.kind), encoder };
    let deprecation = deprecation(&exchange);
    let mut response = exchange.run(verb, request).await.map_err(|status| status.with_warnings(deprecation.clone()))?;
    warn(response.headers_mut(), deprecation.as_slice());
    Ok(response)
}

/// What a definition says to who uses a version, and a row to who uses the kind.
fn deprecation(exchange: &Exchange<'_>) -> Option<String> {
    if let Some(text) = exchange.kind.spec.and_then(|row| row.deprecated) {
        let r = &exchange.r;
        families::DEPRECATED.with(&[&r.group, "", &r.resource, &r.subresource, &r.version]).set(1);
        return Some(text.to_owned());
    }
    let custom = exchange.kind.custom.as_ref()?;
    custom.version(&exchange.kind, &exchange.r.version).deprecation.as_ref().map(|text| text.to_string())
}

/// What an endpoint can answer with: Tables and partial metadata of objects only, protobuf of built-in kinds only.
fn offer(kind: &Kind, sub: Option<&Subresource>) -> Offer {
    let objects = kind.verbs != Verbs::CreateOnly && sub.is_none_or(|s| s.body.is_none());
    Offer { table: objects, partial: objects, protobuf: kind.custom.is_none() || sub.is_some_and(|s| s.body.is_some()) }
}

/// A path that nothing serves; who may not ask is told that first.
async fn unknown(core: &Core, call: &Call, r: &Resource, verb: &str) -> Result<Response<HttpBody>, Status> {
    core.authorize(&r.attributes(&call.user, verb)).await?;
    if core.knows_group(&r.group) { Err(Status::no_such_resource()) } else { Ok(page_not_found()) }
}

struct Exchange<'a> {
    core: &'a Arc<Core>,
    call: Call,
    kind: Arc<Kind>,
    r: Arc<Resource>,
    sub: Option<SubresourceKind>,
    encoder: Encoder,
}

impl Exchange<'_> {
    async fn run(mut self, verb: &'static str, http: HttpRequest<Incoming>) -> Result<Response<HttpBody>, Status> {
        match verb {
            "watch" => Box::pin(self.watch(http)).await,
            "list" => {
                let mut response = Box::pin(self.list()).await?;
                // Its seats are taken until all of it is sent.
                if let HttpBody::List(list) = response.body_mut() {
                    list.place = self.call.place.take();
                }
                Ok(response)
            }
            "get" => self.get().await,
            // Writes need much more room than reads, which should not take it along.
            _ => Box::pin(self.write(verb, http)).await,
        }
    }

    async fn write(&self, verb: &'static str, http: HttpRequest<Incoming>) -> Result<Response<HttpBody>, Status> {
        let media = negotiate::content_type(&self.call.headers).to_owned();
        let patch = match verb {
            "patch" => Some(self.allowed(verb, patch_kind(&media, &self.kind)).await?),
            "create" | "update" => self.allowed(verb, self.body_of(&media, bytes::Bytes::new())).await.map(|_| None)?,
            _ => None,
        };
        let bytes = self.allowed(verb, read_body(http).await).await?;
        let options = match verb {
            "delete" | "deletecollection" => WriteOptions::default(),
            _ => {
                let mut options = self.allowed(verb, options::write(&self.call.query, verb, patch)).await?;
                if options.field_manager.is_empty() {
                    let agent = self.call.headers.get(hyper::header::USER_AGENT);
                    let agent = agent.map(|value| String::from_utf8_lossy(value.as_bytes()));
                    options.field_manager = options::manager_of_agent(&agent.unwrap_or_default());
                }
                options
            }
        };
        let request = self.request(&options);
        let answer = match verb {
            "create" => {
                let body = self.body_of(&media, bytes)?;
                match self.sub {
                    Some(_) => self.core.act(request, body).await?,
                    None if self.kind.verbs == Verbs::CreateOnly => self.core.review(request, body).await?,
                    None => self.core.create(request, body).await?,
                }
            }
            "update" => {
                let body = self.body_of(&media, bytes)?;
                match self.sub {
                    Some(SubresourceKind::Scale { .. }) => self.core.update_scale(request, body).await?,
                    _ => self.core.update(request, body).await?,
                }
            }
            "patch" => {
                let kind = patch.expect("it was read above for this verb");
                let patch = PatchBody { kind, body: bytes };
                match self.sub {
                    Some(SubresourceKind::Scale { .. }) => self.core.patch_scale(request, patch).await?,
                    _ => self.core.patch(request, patch).await?,
                }
            }
            "delete" => {
                let parameters = self.allowed(verb, self.delete_parameters(&media, bytes)).await?;
                let options = WriteOptions { dry_run: parameters.dry_run, ..options.clone() };
                self.core.delete(self.request(&options), &parameters).await?
            }
            "deletecollection" => return self.delete_collection(&media, bytes).await,
            _ => return Err(Status::method_not_allowed()),
        };
        self.respond(answer).await
    }

    /// What was read of the request; if that failed, who may not ask is told that first.
    async fn allowed<T>(&self, verb: &str, read: Result<T, Status>) -> Result<T, Status> {
        match read {
            Ok(read) => Ok(read),
            Err(status) => {
                let names = (self.r.namespace.as_str(), self.r.name.as_str(), self.r.subresource.as_str());
                let about = attributes(&self.call.user, verb, &self.kind, names);
                Err(self.core.authorize(&about).await.err().unwrap_or(status))
            }
        }
    }

    /// The body of a write; custom resources have no protobuf form.
    fn body_of(&self, media: &str, bytes: bytes::Bytes) -> Result<Body, Status> {
        let own = self.sub.is_none_or(|sub| sub == SubresourceKind::Status);
        if self.kind.custom.is_some() && own && media == "application/vnd.kubernetes.protobuf" {
            return Err(negotiate::unsupported("application/json, application/yaml"));
        }
        body_of(media, bytes)
    }

    fn request<'r>(&'r self, options: &'r WriteOptions) -> Request<'r> {
        Request {
            user: &self.call.user,
            kind: &self.kind,
            version: &self.r.version,
            namespace: &self.r.namespace,
            name: &self.r.name,
            subresource: &self.r.subresource,
            options,
        }
    }

    async fn get(&self) -> Result<Response<HttpBody>, Status> {
        let options = WriteOptions::default();
        let request = self.request(&options);
        if let Some(SubresourceKind::Scale { .. }) = self.sub {
            let answer = self.core.get_scale(request).await?;
            return self.respond(answer).await;
        }
        let revision = self.allowed("get", options::get_revision(&self.call.query)).await?;
        let object = self.core.get(request, revision).await?;
        self.respond(Answer::of(200, object, Revision::ZERO, Vec::new())).await
    }

    async fn list(&self) -> Result<Response<HttpBody>, Status> {
        let asked = self.allowed("list", options::list(&self.call.query, false, "")).await?;
        let request = self.allowed("list", asked.request(&self.r.namespace)).await?;
        let listed = self.core.list(&self.call.user, (&self.kind, &self.r.version), &request).await?;
        let items = self.core.objects_at(&self.kind, &self.r.version, listed.items).await?;
        let listed = Listed { items, ..listed };
        self.respond_list(listed)
    }

    async fn watch(mut self, http: HttpRequest<Incoming>) -> Result<Response<HttpBody>, Status> {
        let begun = Instant::now();
        let asked = self.allowed("watch", options::list(&self.call.query, true, &self.r.name)).await?;
        let (list, start) = self.allowed("watch", asked.watch(&self.r.namespace)).await?;
        let seconds = match asked.timeout_seconds {
            Some(seconds) if seconds > 0 => seconds.unsigned_abs(),
            _ => WATCH_SECONDS_MIN + self.core.entropy.u64() % WATCH_SECONDS_MIN,
        };
        let timeout = Some(Duration::from_secs(seconds));
        let (late, list) = match self.core.late_filter((&self.kind, &self.r.version), &list)? {
            Some((late, early)) => (Some(late), early),
            None => (None, list),
        };
        self.encoder.late = late;
        let request = WatchRequest { list, start, bookmarks: asked.bookmarks, timeout };
        let held = flow::hold(self.core, self.call.place.take(), &self.r, &self.call.query);
        let watching = match self.core.watch(&self.call.user, &self.kind, &request).await {
            Ok(watching) => Ok(watching.holding(held)),
            // Who may watch, and asks well, is told within the stream that its beginning is not to be had.
            Err(status) if matches!(status.reason, Reason::Expired | Reason::Timeout) => Err(status),
            Err(status) => return Err(status),
        };
        let format = self.encoder.form.format;
        let content_type = match format {
            Format::Json => "application/json",
            Format::Yaml => return Err(negotiate::not_acceptable(STREAMS)),
            Format::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        };
        let stopping = self.core.tasks.stopping();
        let scope = handle::scope(&self.r);
        let counted = Counted { _lasting: self.call.lasting.take(), scope, begun };
        if websocket::wanted(&self.call.headers) {
            let frames = frames((self.encoder, counted), watching, Frames::Messages, stopping);
            let (response, upgraded) = websocket::accept(&self.call.headers, http, "")?;
            let record = trail::current();
            self.core.tasks.spawn("watch socket", OnStop::Abort, async move {
                let _record = record;
                if let Some(socket) = upgraded.await {
                    websocket::send_all(socket, frames, format != Format::Protobuf).await;
                }
            });
            return Ok(response);
        }
        Ok(respond(200, content_type, stream(frames((self.encoder, counted), watching, Frames::Stream, stopping))))
    }

    async fn delete_collection(&self, media: &str, bytes: bytes::Bytes) -> Result<Response<HttpBody>, Status> {
        let verb = "deletecollection";
        let asked = self.allowed(verb, options::list(&self.call.query, false, "")).await?;
        let parameters = self.allowed(verb, self.delete_parameters(media, bytes)).await?;
        let list = self.allowed(verb, asked.request(&self.r.namespace)).await?;
        let options = WriteOptions { dry_run: parameters.dry_run, ..WriteOptions::default() };
        let (user, version) = (&self.call.user, &self.r.version);
        let listed = self.core.delete_collection(user, &self.kind, version, &list, &parameters, &options).await?;
        let items = self.core.objects_at(&self.kind, &self.r.version, listed.items).await?;
        let listed = Listed { items, ..listed };
        self.respond_list(listed)
    }

    /// From the body, or from the query if there is none.
    fn delete_parameters(&self, media: &str, bytes: bytes::Bytes) -> Result<DeleteParameters, Status> {
        let options = match bytes.is_empty() {
            true => options::delete_from_query(&self.call.query)?,
            false => {
                let options = self.core.decode_delete_options(body_of(media, bytes)?)?;
                trail::request_object(&options, || {
                    // Options that do not say what they are count as the server's own form, which is how upstream writes them.
                    let mut written = tree!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/__internal"});
                    options.fields().iter().for_each(|(key, value)| written.insert(key.to_owned(), value.clone()));
                    written
                });
                options
            }
        };
        options::delete(&options)
    }

    /// Writes answers in the form of the audit log.
    fn json_encoder(&self) -> Encoder {
        let form = Form { format: Format::Json, pretty: false, ..self.encoder.form };
        Encoder { form, ..self.encoder.clone() }
    }

    /// A list as answer.
    fn respond_list(&self, listed: Listed) -> Result<Response<HttpBody>, Status> {
        if trail::wants(Level::RequestResponse) {
            let written = self.json_encoder().list(listed.clone())?.collect();
            trail::response_object(|| json::parse(&written?).ok());
        }
        let response = respond(200, self.encoder.form.format.content_type(), self.encoder.list(listed)?);
        Ok(finish(&self.call, response))
    }

    async fn respond(&self, answer: Answer) -> Result<Response<HttpBody>, Status> {
        let form = self.encoder.form;
        let bytes = match (&answer.object, &answer.tree) {
            (Some(object), _) => {
                let shown = self.core.objects_at(&self.kind, &self.r.version, vec![object.clone()]).await?;
                let shown = shown.first().unwrap_or(object);
                trail::response_object(|| json::parse(&self.json_encoder().object(shown).ok()?).ok());
                self.encoder.object(shown)?
            }
            (None, Some(tree)) => {
                match tree.str_at("kind") {
                    "Status" => trail::response_status_tree(&|| tree.clone()),
                    _ => trail::response_object(|| Some(tree.clone())),
                }
                tree_bytes(self.core, form.format, tree)
            }
            (None, None) => bytes::Bytes::new(),
        };
        let mut response = respond(answer.code, form.format.content_type(), full(rendered(form, bytes)));
        warn(response.headers_mut(), &answer.warnings);
        Ok(finish(&self.call, response))
    }
}

fn body_of(media: &str, bytes: bytes::Bytes) -> Result<Body, Status> {
    match media {
        "application/json" => Ok(Body::Json(bytes)),
        "application/yaml" => Ok(Body::Yaml(bytes)),
        "application/vnd.kubernetes.protobuf" => Ok(Body::Protobuf(bytes)),
        _ => Err(negotiate::unsupported(JSON_YAML_PROTOBUF)),
    }
}

/// The kind of a patch; there is no strategic merge of custom resources.
fn patch_kind(media: &str, kind: &Kind) -> Result<PatchKind, Status> {
    let builtin = kind.spec.is_some();
    match media {
        "application/json-patch+json" => Ok(PatchKind::Json),
        "application/merge-patch+json" => Ok(PatchKind::Merge),
        "application/strategic-merge-patch+json" if builtin => Ok(PatchKind::Strategic),
        "application/apply-patch+yaml" => Ok(PatchKind::Apply),
        _ => Err(negotiate::unsupported(if builtin { PATCHES } else { CUSTOM_PATCHES })),
    }
}
