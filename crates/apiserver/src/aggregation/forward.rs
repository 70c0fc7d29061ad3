//! Passing a request on to the server of its group version (`kube-aggregator/pkg/apiserver/handler_proxy.go`).

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::Either;
use hyper::body::Incoming;
use hyper::{Request, Response};

use super::backend::{ANSWER_MAX, destination};
use super::{ApiService, Backend};
use crate::core::Core;
use crate::http::{Call, HttpBody, text};
use crate::proxy::{self, Failed, Onward};

/// Passes a request on, as the user who asks; what is wrong is told in plain text.
pub(crate) async fn pass(
    core: &Arc<Core>,
    call: &Call,
    service: &ApiService,
    request: Request<Incoming>,
) -> Response<HttpBody> {
    let unavailable = || text(503, "service unavailable\n");
    let Some(backend) = service.backend.as_ref().filter(|b| b.available) else { return unavailable() };
    let Ok(destination) = destination(core, backend).inspect_err(|why| not_resolved(backend, why)) else {
        return unavailable();
    };
    let query = request.uri().query().map(str::to_owned);
    let onward = Onward {
        path: request.uri().path().to_owned(),
        query: query.as_deref(),
        host: Some(destination.authority.clone()),
        destination,
        prefix: String::new(),
        user: Some(&call.user),
        redirects: false,
    };
    // Everybody waits for discovery: it has to be quick.
    let quick = call.path.trim_matches('/').split('/').count() == 3;
    let limit = match quick {
        true => core.clock.sleep(ANSWER_MAX),
        false => std::future::pending().boxed(),
    };
    let passing = proxy::pass(core, call, request, onward);
    futures::pin_mut!(passing);
    let answer = match futures::future::select(passing, limit).await {
        Either::Left((answer, _)) => answer,
        Either::Right(_) => Err(Failed::Unreachable("error trying to reach service: context deadline exceeded".into())),
    };
    answer.unwrap_or_else(|(Failed::Unreachable(why) | Failed::Answer(why))| text(503, format!("{why}\n")))
}

fn not_resolved(backend: &Backend, why: &str) {
    tracing::warn!(namespace = backend.namespace, service = backend.name, why, "an aggregated API has no address");
}
