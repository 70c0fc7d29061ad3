//! What every request needs: store, cache, kinds, clock, and who may do what.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use corten_admission::{Admission, ServiceAllocator};
use corten_audit::{Backends, trail};
use corten_auth::{
    Attributes, Authenticated, Authenticator, AuthnError, Decision, Material, Rbac, Sealer, Source, TokenError, User,
    authorizer::{self, Union},
    denial,
};
use corten_base::{Clock, Entropy, Revision, Tasks, Timestamp};
use corten_cache::Cache;
use corten_client::NodeApi;
use corten_federation::{Authorizer, Authorizers, Identities};
use corten_flowcontrol::work::ListAsked;
use corten_kinds::{Kind, Kinds, Registry, id};
use corten_object::{KindId, Object, ObjectKey, Reason, Status};
use corten_schema::Schema;
use corten_store::Store;
use corten_tree::Tree;
use corten_webhook::Caller;

use crate::aggregation::Aggregation;
use crate::derived::Derived;
use crate::discovery::Discovery;
use crate::families;
use crate::flow::{Flow, FlowLimits};
use crate::http::{Anonymous, Messages, RequestHeader};
use crate::metrics::Metrics;
use crate::openapi::OpenApi;
use crate::swagger::Swagger;

/// How long a read waits for a revision that a client named and that is not here yet
/// (`apiserver/pkg/storage/cacher/watch_cache.go`, `blockTimeout`).
const FUTURE_WAIT: Duration = Duration::from_secs(3);

/// Shared by all requests.
pub(crate) struct Core {
    pub store: Arc<dyn Store>,
    pub cache: Cache,
    /// The kinds as they are whenever they are asked for.
    pub registry: Kinds,
    /// The kinds that are always there.
    builtin: Arc<Registry>,
    pub schema: &'static Schema,
    pub clock: Arc<dyn Clock>,
    /// When this server was made.
    pub started: Timestamp,
    pub entropy: Arc<dyn Entropy>,
    pub tasks: Tasks,
    pub authenticator: Authenticator,
    /// Others who know tokens.
    pub identities: Identities,
    /// Who decides what is allowed.
    pub authorizers: Authorizers,
    pub node_api: Arc<dyn NodeApi>,
    pub services: ServiceAllocator,
    pub admission: Admission,
    pub caller: Caller,
    pub flow: Flow,
    /// Records requests, if anything is to be recorded.
    pub audit: Option<Arc<Backends>>,
    /// Whether the server will stop soon: it is not ready any more.
    pub shutting_down: AtomicBool,
    pub metrics: Metrics,
    /// Objects as protobuf messages.
    pub messages: Messages,
    pub openapi: OpenApi,
    pub swagger: Swagger,
    pub discovery: Discovery,
    /// Seals what is sealed at rest; `None` keeps everything as it is.
    pub sealer: Option<Arc<Sealer>>,
    /// Certificates and keys.
    pub material: Arc<Material>,
    /// Who may ask without proof.
    pub anonymous: Anonymous,
    /// The front proxy, if one is believed.
    pub request_header: Option<RequestHeader>,
    /// Where the keys of service account tokens are read.
    pub jwks_uri: String,
    /// Groups that other servers serve.
    pub aggregation: Aggregation,
    rbac: Derived<Rbac>,
}

/// The parts of a [`Core`] that the server's configuration gives.
pub(crate) struct Parts {
    pub store: Arc<dyn Store>,
    pub cache: Cache,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub tasks: Tasks,
    pub authenticator: Authenticator,
    pub identities: Identities,
    pub authorizers: Authorizers,
    pub node_api: Arc<dyn NodeApi>,
    pub services: ServiceAllocator,
    pub sealer: Option<Arc<Sealer>>,
    pub material: Arc<Material>,
    pub anonymous: Anonymous,
    pub request_header: Option<RequestHeader>,
    pub jwks_uri: String,
    pub caller: Caller,
    pub audit: Option<Arc<Backends>>,
    pub flow: FlowLimits,
}

impl Core {
    pub fn new(parts: Parts) -> Core {
        let flow = Flow::new(parts.clock.clone(), parts.tasks.clone(), parts.flow);
        Core {
            caller: parts.caller,
            audit: parts.audit,
            admission: Admission::default(),
            registry: parts.cache.kinds().clone(),
            builtin: parts.cache.registry(),
            store: parts.store,
            cache: parts.cache,
            schema: corten_schema::builtin(),
            started: parts.clock.now(),
            clock: parts.clock,
            entropy: parts.entropy,
            tasks: parts.tasks,
            authenticator: parts.authenticator,
            identities: parts.identities,
            authorizers: parts.authorizers,
            node_api: parts.node_api,
            services: parts.services,
            flow,
            shutting_down: AtomicBool::new(false),
            metrics: Metrics::default(),
            messages: Messages::default(),
            openapi: OpenApi::default(),
            swagger: Swagger::default(),
            discovery: Discovery::default(),
            sealer: parts.sealer,
            material: parts.material,
            anonymous: parts.anonymous,
            request_header: parts.request_header,
            jwks_uri: parts.jwks_uri,
            aggregation: Aggregation::default(),
            rbac: Derived::default(),
        }
    }

    /// The roles and bindings as of the last write that was answered.
    pub fn rbac(&self) -> Arc<Rbac> {
        self.rbac.get(|| Rbac::build(self))
    }

    /// Notes that objects of a kind were written, before the write is answered.
    pub fn note_write(&self, kind: KindId) {
        if [id::ROLE, id::ROLE_BINDING, id::CLUSTER_ROLE, id::CLUSTER_ROLE_BINDING].contains(&kind) {
            self.rbac.outdate();
        } else if kind == id::API_SERVICE {
            self.aggregation.outdate();
        }
    }

    /// Whether a request is allowed; the 403 if not. The request's record learns of it.
    pub async fn authorize(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let begun = Instant::now();
        let decision = self.decide(attributes).await;
        families::authorized(&decision, begun.elapsed());
        if let (false, Some(error)) = (decision.allowed, &decision.error) {
            trail::annotate("authorization.k8s.io/reason", "internal error");
            return Err(Status::internal(error));
        }
        trail::annotate("authorization.k8s.io/decision", if decision.allowed { "allow" } else { "forbid" });
        trail::annotate("authorization.k8s.io/reason", &decision.reason);
        if decision.allowed { Ok(()) } else { Err(denial(attributes, &decision.reason)) }
    }

    /// Whether something is allowed that is not the request itself; the 403 if not.
    pub async fn permit(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let decision = self.decide(attributes).await;
        if decision.allowed { Ok(()) } else { Err(denial(attributes, &decision.reason)) }
    }

    /// Whether a request is allowed, and why. An authorizer may have to ask somebody else.
    pub async fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        if authorizer::is_master(attributes.user) {
            return Decision::allow("");
        }
        let mut union = Union::default();
        for authorizer in &*self.authorizers.now() {
            let said = match authorizer {
                Authorizer::Webhook(webhook) => Box::pin(webhook.decide(attributes)).await,
                other => self.ask(other, attributes),
            };
            if let Some(decision) = union.heard(said) {
                families::decided(authorizer, &decision);
                return decision;
            }
        }
        union.end()
    }

    /// The same where nothing can be waited for, in expressions and plugins: if somebody else has to be asked, the thread waits.
    pub fn decide_now(&self, attributes: &Attributes<'_>) -> Decision {
        if authorizer::is_master(attributes.user) {
            return Decision::allow("");
        }
        let mut union = Union::default();
        let all = self.authorizers.now();
        let decision = all.iter().find_map(|authorizer| union.heard(self.ask(authorizer, attributes)));
        decision.unwrap_or_else(|| union.end())
    }

    fn ask(&self, authorizer: &Authorizer, attributes: &Attributes<'_>) -> Decision {
        match authorizer {
            Authorizer::AlwaysAllow => Decision::allow(""),
            Authorizer::AlwaysDeny => Decision::no_opinion("Everything is forbidden."),
            Authorizer::Node => authorizer::node(self, attributes),
            Authorizer::Rbac => self.rbac().authorize(attributes),
            Authorizer::Webhook(webhook) => webhook.decide_now(attributes),
        }
    }

    /// Whose token this is. `audiences`: who asks; none is the API server itself.
    pub async fn whose_token(&self, token: &str, audiences: &[String]) -> Result<Authenticated, AuthnError> {
        let own = self.authenticator.token(self, token, audiences, self.clock.now());
        let refused = match own {
            Err(refused) if self.identities.any() => refused,
            own => return own,
        };
        match self.identities.token(token, audiences).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(refused),
            Err(said) => Err(AuthnError::Others(match refused {
                AuthnError::Token(TokenError::Foreign) => said,
                own => format!("[{own}, {said}]"),
            })),
        }
    }

    /// Waits until the cache shows all that the store has now.
    pub async fn fresh(&self) -> Result<Revision, Status> {
        let revision = self.store.current_revision().await.map_err(store_error)?;
        if self.cache.revision() < revision {
            self.cache.wait_for(revision).await;
        }
        Ok(revision)
    }

    /// Waits until the cache shows a revision that a client named; 504 if that does not come.
    pub async fn at_least(&self, revision: Revision) -> Result<(), Status> {
        if self.cache.revision() >= revision {
            return Ok(());
        }
        let reached = self.cache.wait_for(revision);
        let limit = self.clock.sleep(FUTURE_WAIT);
        futures::pin_mut!(reached);
        match futures::future::select(reached, limit).await {
            futures::future::Either::Left(_) => Ok(()),
            futures::future::Either::Right(_) => {
                let now = self.cache.revision();
                let why = format!("Too large resource version: {revision}, current: {now}");
                let mut status = Status::timeout(why, 1);
                status.causes.push(corten_object::Cause {
                    reason: "ResourceVersionTooLarge".into(),
                    message: "Too large resource version".into(),
                    field: String::new(),
                });
                Err(status)
            }
        }
    }

    /// Whether paths below a group end in upstream's router of built-in groups, whatever their version: what that does not find it
    /// tells with a Status. Behind it is only Go's own 404 (`apiserver/pkg/server/handler.go`, `director`).
    pub fn knows_group(&self, group: &str) -> bool {
        self.builtin.iter().any(|kind| *kind.group == *group)
    }

    /// Whether there is a kind of a group at a version.
    pub fn serves(&self, group: &str, version: &str) -> bool {
        self.registry.now().iter().any(|kind| *kind.group == *group && kind.serves(version))
    }

    /// What a list of all objects of a kind has to look at.
    pub fn list_asked(&self, kind: &Arc<Kind>) -> ListAsked {
        let stored = self.stored(kind).id;
        let world = self.cache.read();
        ListAsked { objects: world.count(stored) as u64, bytes: world.bytes(stored) as u64, ..ListAsked::default() }
    }

    /// The kind under which objects of `kind` are stored.
    pub fn stored<'a>(&'a self, kind: &'a Arc<Kind>) -> &'a Arc<Kind> {
        // Only rows are views of other rows.
        self.builtin.stored(kind)
    }

    /// The object's JSON at a version: its own bytes where that is how it is stored.
    pub fn at_version(&self, kind: &Kind, version: &str, object: &Object) -> Option<Tree> {
        // What a webhook converts was converted before it comes here.
        if is_at_version(kind, version) || crate::pipeline::is_by_webhook(kind) {
            return None;
        }
        let mut tree = object.to_tree();
        from_storage(kind, version, &mut tree);
        Some(tree)
    }
}

/// Whether stored objects are at a version as they are.
pub(crate) fn is_at_version(kind: &Kind, version: &str) -> bool {
    kind.stored_as.is_none() && *kind.versions[0] == *version
}

/// Turns a stored object's tree into what a served version of a kind shows.
pub(crate) fn from_storage(kind: &Kind, version: &str, tree: &mut Tree) {
    if kind.custom.is_some() {
        return kind.rename_version(tree, version);
    }
    if let Some(conversion) = kind.conversion(version) {
        (conversion.from_storage)(tree);
    }
    let gvk = kind.gvk(version);
    tree.set("apiVersion", gvk.api_version());
    tree.set("kind", gvk.kind);
}

impl Source for Core {
    fn object(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.cache.get(key)
    }

    fn objects(&self, kind: KindId) -> Vec<Arc<Object>> {
        self.cache.read().list(kind).cloned().collect()
    }

    fn with_fact(&self, kind: KindId, path: &str, value: &str) -> Vec<Arc<Object>> {
        self.cache.read().by_index(kind, path, value).cloned().collect()
    }
}

/// What a client sees of a failure of the store.
pub(crate) fn store_error(error: corten_store::Error) -> Status {
    use corten_store::Error;
    match error {
        Error::Compacted { .. } => Status::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
             the continue parameter.",
        ),
        Error::DiskFull { .. } | Error::Stopped(_) | Error::Closed => {
            Status::new(Reason::ServiceUnavailable, error.to_string())
        }
        Error::OutcomeUnknown(_) => Status::new(Reason::Timeout, error.to_string()),
        other => Status::internal(other),
    }
}

/// The attributes of a request about a resource.
pub(crate) fn attributes<'a>(
    user: &'a User,
    verb: &'a str,
    kind: &'a Kind,
    (namespace, name, subresource): (&'a str, &'a str, &'a str),
) -> Attributes<'a> {
    Attributes {
        group: &kind.group,
        version: &kind.versions[0],
        resource: &kind.plural,
        subresource,
        namespace,
        name,
        ..Attributes::resource(user, verb)
    }
}
