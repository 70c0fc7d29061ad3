//! One call of a webhook: the review that goes out, and what comes back.

use bytes::Bytes;
use corten_object::{Reason, Status};
use corten_tree::Tree;

use super::config::Hook;
use super::matching::Invocation;
use super::review::{self, Answer};
use crate::Request;
use crate::measured::Called;

/// Why a webhook's call ended otherwise than with a yes.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It could not be asked; `failurePolicy` decides (`ErrCallingWebhook`).
    Call(String),
    /// The request is refused, by the webhook or because it may not be asked.
    Refused(Box<Status>),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Call(why) => f.write_str(why),
            Failure::Refused(status) => f.write_str(&status.message),
        }
    }
}

impl Failure {
    /// Whether the request goes on in spite of this.
    pub fn is_open(&self, hook: &Hook) -> bool {
        hook.ignore_failure && matches!(self, Failure::Call(_))
    }

    /// How it is counted.
    pub fn called(&self, hook: &Hook) -> Called {
        match self {
            Failure::Call(_) => Called::Failed(self.is_open(hook)),
            Failure::Refused(status) if status.reason == Reason::InternalError => Called::Internal,
            Failure::Refused(status) => Called::No(status.code),
        }
    }

    /// What the client is told.
    pub fn status(self, name: &str) -> Status {
        match self {
            Failure::Call(why) => Status::internal(format!("failed calling webhook {name:?}: {why}")),
            Failure::Refused(status) => *status,
        }
    }
}

/// Asks the webhook.
pub(crate) async fn call(
    hook: &Hook,
    invocation: &Invocation,
    request: &Request<'_>,
    object: Option<&Tree>,
    old: Option<&Tree>,
    mutating: bool,
) -> Result<Answer, Failure> {
    if request.dry_run && !hook.dry_run {
        let why = format!("admission webhook {:?} does not support dry run", hook.name);
        return Err(Failure::Refused(Box::new(Status::new(Reason::BadRequest, why))));
    }
    let Some(version) = hook.review_version else {
        let why = "webhook does not accept known AdmissionReview versions (v1, v1beta1)";
        return Err(Failure::Call(format!("could not create admission objects: {why}")));
    };
    let client = hook.client.as_ref().map_err(|why| Failure::Call(format!("could not get REST client: {why}")))?;
    let internal = |status: Status| Failure::Refused(Box::new(Status::internal(status.message)));
    let mut shown = [None, None];
    for (slot, tree) in shown.iter_mut().zip([object, old]) {
        if let Some(tree) = tree {
            *slot = Some(invocation.to_version(request, tree).await.map_err(internal)?);
        }
    }
    let [object, old] = shown;
    let uid = request.entropy.uid();
    let review = review::question(version, &uid, invocation, request, object, old);
    let answer = request.cluster.caller().post(client, hook.timeout, Bytes::from(review.to_json())).await;
    let answer = answer.map_err(|error| Failure::Call(format!("failed to call webhook: {error}")))?;
    review::answer(version, &uid, &answer, mutating)
        .map_err(|why| Failure::Call(format!("received invalid webhook response: {why}")))
}
