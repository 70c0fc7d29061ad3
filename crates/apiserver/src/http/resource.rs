//! Requests about resources: from path, query and headers to one call of the pipeline, and its answer as a response.

use std::sync::Arc;
use std::time::Duration;

use corten_base::Revision;
use corten_client::{PatchKind, WriteOptions};
use corten_kinds::{Kind, SubresourceKind, Verbs};
use corten_object::{FieldError, FieldSelector, LabelSelector, Status};
use corten_tree::{FieldPath, Tree};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request as HttpRequest, Response};

use super::body::{Body as HttpBody, full, stream};
use super::encode::{Encoder, IncludeObject, tree_bytes};
use super::handle::{Call, finish, read_body, respond};
use super::negotiate::{self, Format};
use super::query::Query;
use super::route::Resource;
use super::watch::frames;
use crate::core::{Core, attributes};
use crate::pipeline::{
    Answer, Body, DeleteParameters, ListRequest, Listed, PatchBody, Request, RevisionMatch, WatchRequest,
    delete_parameters, parse_continue, parse_revision,
};
use crate::streams;

/// The shortest life of a watch without `timeoutSeconds`; the longest is twice as much (`--min-request-timeout`).
const WATCH_SECONDS_MIN: u64 = 1800;

const JSON_YAML_PROTOBUF: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
const PATCHES: &str = "application/json-patch+json, application/merge-patch+json, \
     application/strategic-merge-patch+json, application/apply-patch+yaml";

/// Answers a request about a resource.
pub(super) async fn serve(
    core: &Arc<Core>,
    call: Call,
    r: Resource,
    verb: &'static str,
    request: HttpRequest<Incoming>,
) -> Result<Response<HttpBody>, Status> {
    let Some(kind) = core.registry.resource(&r.group, &r.version, &r.resource) else {
        return unknown(core, &call, &r, verb);
    };
    let misplaced = kind.namespaced() && r.namespace.is_empty() && !r.name.is_empty();
    if misplaced || (!kind.namespaced() && !r.namespace.is_empty()) {
        return unknown(core, &call, &r, verb);
    }
    let sub = match r.subresource.as_str() {
        "" => None,
        name => match kind.subresource_at(&r.version, name) {
            Some(sub) => Some(*sub),
            None => return unknown(core, &call, &r, verb),
        },
    };
    if let Some(sub) = sub
        && sub.kind == SubresourceKind::Connect
    {
        return streams::connect(core, call, &kind, r, request).await;
    }
    if sub.is_some_and(|s| !s.verbs.contains(&verb)) {
        core.authorize(&attributes(&call.user, verb, &kind, (&r.namespace, &r.name, &r.subresource)))?;
        return Err(Status::method_not_allowed());
    }
    if sub.is_none() && !kind.verbs.names().contains(&verb) {
        core.authorize(&attributes(&call.user, verb, &kind, (&r.namespace, &r.name, "")))?;
        return Err(Status::method_not_allowed());
    }
    let form = negotiate::form_of(&call.headers, kind.custom.is_none() || sub.is_some_and(|s| s.body.is_some()))?;
    let encoder = Encoder {
        core: core.clone(),
        version: r.version.as_str().into(),
        form,
        include: IncludeObject::parse(call.query.get("includeObject")),
        kind: kind.clone(),
    };
    let exchange = Exchange { core, call, kind, r, sub: sub.map(|s| s.kind), encoder };
    let deprecation = deprecation(&exchange);
    let mut response = exchange.run(verb, request).await?;
    if let Some(value) = deprecation {
        response.headers_mut().append(HeaderName::from_static("warning"), value);
    }
    Ok(response)
}

/// What a definition says to who uses a version.
fn deprecation(exchange: &Exchange<'_>) -> Option<HeaderValue> {
    let custom = exchange.kind.custom.as_ref()?;
    let text = custom.version(&exchange.kind, &exchange.r.version).deprecation.as_ref()?;
    warning(text)
}

/// A text as the value of a Warning header.
fn warning(text: &str) -> Option<HeaderValue> {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
    HeaderValue::from_str(&format!("299 - \"{text}\"")).ok()
}

/// A path that nothing serves; who may not ask is told that first.
fn unknown(core: &Core, call: &Call, r: &Resource, verb: &str) -> Result<Response<HttpBody>, Status> {
    core.authorize(&corten_auth::Attributes {
        group: &r.group,
        resource: &r.resource,
        subresource: &r.subresource,
        namespace: &r.namespace,
        name: &r.name,
        ..corten_auth::Attributes::resource(&call.user, verb)
    })?;
    Err(Status::no_such_resource())
}

struct Exchange<'a> {
    core: &'a Arc<Core>,
    call: Call,
    kind: Arc<Kind>,
    r: Resource,
    sub: Option<SubresourceKind>,
    encoder: Encoder,
}

impl Exchange<'_> {
    async fn run(self, verb: &'static str, http: HttpRequest<Incoming>) -> Result<Response<HttpBody>, Status> {
        match verb {
            "watch" => return self.watch().await,
            "list" => return self.list().await,
            "get" => return self.get().await,
            _ => {}
        }
        let _place = self.core.flow.enter(&self.call.user, true, &*self.core.clock).await?;
        let media = negotiate::content_type(&self.call.headers).to_owned();
        let bytes = read_body(http).await?;
        let options = write_options(&self.call.query)?;
        let request = self.request(&options);
        let answer = match verb {
            "create" => {
                let body = self.body_of(&media, bytes)?;
                match self.sub {
                    Some(_) => self.core.act(request, body).await?,
                    None if self.kind.verbs == Verbs::CreateOnly => self.core.review(request, body).await?,
                    None if !self.r.name.is_empty() => return Err(Status::method_not_allowed()),
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
                let patch = PatchBody { kind: patch_kind(&media)?, body: bytes };
                match self.sub {
                    Some(SubresourceKind::Scale { .. }) => self.core.patch_scale(request, patch).await?,
                    _ => self.core.patch(request, patch).await?,
                }
            }
            "delete" => self.core.delete(request, &self.delete_parameters(&media, bytes)?).await?,
            "deletecollection" => return self.delete_collection(&options, &media, bytes).await,
            _ => return Err(Status::method_not_allowed()),
        };
        self.respond(answer)
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
        let _place = self.core.flow.enter(&self.call.user, false, &*self.core.clock).await?;
        let options = WriteOptions::default();
        let request = self.request(&options);
        if let Some(SubresourceKind::Scale { .. }) = self.sub {
            let answer = self.core.get_scale(request).await?;
            return self.respond(answer);
        }
        let revision = match self.call.query.get("resourceVersion") {
            "" => RevisionMatch::MostRecent,
            "0" => RevisionMatch::Any,
            text => RevisionMatch::NotOlderThan(parse_revision(text)?),
        };
        let object = self.core.get(request, revision).await?;
        self.respond(Answer::of(200, object, Revision::ZERO, Vec::new()))
    }

    async fn list(&self) -> Result<Response<HttpBody>, Status> {
        let _place = self.core.flow.enter(&self.call.user, false, &*self.core.clock).await?;
        let request = self.list_request()?;
        let listed = match self.kind.verbs.stored() {
            true => self.core.list(&self.call.user, &self.kind, &request).await?,
            false => {
                self.core.authorize(&attributes(&self.call.user, "list", &self.kind, (&self.r.namespace, "", "")))?;
                Listed { items: Vec::new(), revision: self.core.cache.revision(), next: None, remaining: None }
            }
        };
        let response = respond(200, self.encoder.form.format.content_type(), self.encoder.list(listed));
        Ok(finish(&self.call, response))
    }

    fn list_request(&self) -> Result<ListRequest, Status> {
        let query = &self.call.query;
        let labels = match query.get("labelSelector") {
            "" => None,
            text => Some(
                LabelSelector::parse(text)
                    .map_err(|e| Status::bad_request(format!("unable to parse requirement: {e}")))?,
            ),
        };
        let fields = FieldSelector::parse(query.get("fieldSelector")).map_err(Status::bad_request)?;
        let limit = usize::try_from(query.number("limit")?.unwrap_or(0)).unwrap_or(0);
        let (mut revision, mut start) = (list_revision(query, limit)?, None);
        let token = query.get("continue");
        if !token.is_empty() {
            let (at, last) = parse_continue(token)?;
            (revision, start) = (RevisionMatch::Exact(at), Some(last));
        }
        Ok(ListRequest { namespace: self.r.namespace.clone(), labels, fields, revision, limit, start })
    }

    async fn watch(self) -> Result<Response<HttpBody>, Status> {
        let query = &self.call.query;
        let initial_events = query.flag("sendInitialEvents");
        let mut list = self.list_request_for_watch()?;
        list.limit = 0;
        let seconds = match query.number("timeoutSeconds")? {
            Some(seconds) if seconds > 0 => seconds.unsigned_abs(),
            _ => WATCH_SECONDS_MIN + self.core.entropy.u64() % WATCH_SECONDS_MIN,
        };
        let request = WatchRequest {
            list,
            bookmarks: query.flag("allowWatchBookmarks"),
            initial_events,
            timeout: Some(Duration::from_secs(seconds)),
        };
        let watching = self.core.watch(&self.call.user, &self.kind, &request).await?;
        let content_type = match self.encoder.form.format {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml",
            Format::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        };
        let stopping = self.core.tasks.stopping();
        Ok(respond(200, content_type, stream(frames(self.encoder, watching, stopping))))
    }

    fn list_request_for_watch(&self) -> Result<ListRequest, Status> {
        let list = ListRequest { revision: RevisionMatch::MostRecent, ..self.list_request()? };
        let revision = match self.call.query.get("resourceVersion") {
            "" => RevisionMatch::MostRecent,
            "0" => RevisionMatch::Any,
            text if self.call.query.flag("sendInitialEvents") => RevisionMatch::NotOlderThan(parse_revision(text)?),
            text => RevisionMatch::Exact(parse_revision(text)?),
        };
        Ok(ListRequest { revision, ..list })
    }

    async fn delete_collection(
        &self,
        options: &WriteOptions,
        media: &str,
        bytes: bytes::Bytes,
    ) -> Result<Response<HttpBody>, Status> {
        let parameters = self.delete_parameters(media, bytes)?;
        let list = self.list_request()?;
        let user = &self.call.user;
        let items = self.core.delete_collection(user, &self.kind, &self.r.version, &list, &parameters, options).await?;
        let listed = Listed { items, revision: self.core.cache.revision(), next: None, remaining: None };
        Ok(respond(200, self.encoder.form.format.content_type(), self.encoder.list(listed)))
    }

    /// From the body, or from the query if there is none.
    fn delete_parameters(&self, media: &str, bytes: bytes::Bytes) -> Result<DeleteParameters, Status> {
        let mut options = Tree::map();
        if !bytes.is_empty() {
            options = match body_of(media, bytes)? {
                Body::Protobuf(bytes) => self.core.decode_delete_options(&bytes)?,
                other => other.to_tree()?,
            };
        } else {
            let query = &self.call.query;
            if let Some(seconds) = query.number("gracePeriodSeconds")? {
                options.insert("gracePeriodSeconds", seconds);
            }
            if query.has("propagationPolicy") {
                options.insert("propagationPolicy", query.get("propagationPolicy"));
            }
            if query.has("orphanDependents") {
                options.insert("orphanDependents", query.flag("orphanDependents"));
            }
        }
        delete_parameters(&options)
    }

    fn respond(&self, answer: Answer) -> Result<Response<HttpBody>, Status> {
        let format = self.encoder.form.format;
        let bytes = match (&answer.object, &answer.tree) {
            (Some(object), _) => self.encoder.object(object)?,
            (None, Some(tree)) => tree_bytes(self.core, format, tree),
            (None, None) => bytes::Bytes::new(),
        };
        let mut response = respond(answer.code, format.content_type(), full(bytes));
        for warning in &answer.warnings {
            if let Some(value) = self::warning(warning) {
                response.headers_mut().append(HeaderName::from_static("warning"), value);
            }
        }
        Ok(finish(&self.call, response))
    }
}

/// When a list wants the world (`apimachinery/pkg/apis/meta/internalversion/validation`, `apiserver/pkg/storage/cacher`).
fn list_revision(query: &Query, limit: usize) -> Result<RevisionMatch, Status> {
    let wanted = query.get("resourceVersionMatch");
    Ok(match (query.get("resourceVersion"), wanted) {
        ("", "") => RevisionMatch::MostRecent,
        ("", _) if query.flag("sendInitialEvents") => RevisionMatch::MostRecent,
        ("", _) => {
            let path = FieldPath::of("resourceVersionMatch");
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            return Err(Status::invalid("meta.k8s.io", "ListOptions", "", &[FieldError::forbidden(&path, why)]));
        }
        ("0", "Exact") => {
            let path = FieldPath::of("resourceVersionMatch");
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            return Err(Status::invalid("meta.k8s.io", "ListOptions", "", &[FieldError::forbidden(&path, why)]));
        }
        ("0", _) => RevisionMatch::Any,
        (text, "Exact") => RevisionMatch::Exact(parse_revision(text)?),
        (text, "") if limit > 0 => RevisionMatch::Exact(parse_revision(text)?),
        (text, _) => RevisionMatch::NotOlderThan(parse_revision(text)?),
    })
}

fn write_options(query: &Query) -> Result<WriteOptions, Status> {
    let mut errors = Vec::new();
    let dry_run: Vec<&str> = query.all("dryRun").filter(|d| !d.is_empty()).collect();
    for other in dry_run.iter().filter(|d| **d != "All") {
        errors.push(FieldError::not_supported(&FieldPath::of("dryRun"), other, &["All"]));
    }
    let validation = query.get("fieldValidation");
    if !matches!(validation, "" | "Strict" | "Warn" | "Ignore") {
        let path = FieldPath::of("fieldValidation");
        errors.push(FieldError::not_supported(&path, validation, &["Ignore", "Strict", "Warn"]));
    }
    if !errors.is_empty() {
        return Err(Status::invalid("meta.k8s.io", "CreateOptions", "", &errors));
    }
    Ok(WriteOptions {
        dry_run: !dry_run.is_empty(),
        field_manager: query.get("fieldManager").into(),
        force: query.flag("force"),
        field_validation: validation.into(),
        owners_alive: Vec::new(),
    })
}

fn body_of(media: &str, bytes: bytes::Bytes) -> Result<Body, Status> {
    match media {
        "application/json" => Ok(Body::Json(bytes)),
        "application/yaml" => Ok(Body::Yaml(bytes)),
        "application/vnd.kubernetes.protobuf" => Ok(Body::Protobuf(bytes)),
        _ => Err(negotiate::unsupported(JSON_YAML_PROTOBUF)),
    }
}

fn patch_kind(media: &str) -> Result<PatchKind, Status> {
    match media {
        "application/json-patch+json" => Ok(PatchKind::Json),
        "application/merge-patch+json" => Ok(PatchKind::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchKind::Strategic),
        "application/apply-patch+yaml" => Ok(PatchKind::Apply),
        _ => Err(negotiate::unsupported(PATCHES)),
    }
}
