//! The server's authorizer, as expressions ask it: for the request's user or for a service account.

use corten_auth::{Attributes, User};
use corten_cel::{Authorizer, Check, Decision};

use crate::Request;

/// Whom expressions about a request ask.
pub(crate) struct Asking<'a> {
    /// The request.
    pub request: &'a Request<'a>,
}

impl Asking<'_> {
    /// The request itself as a check without a verb: `authorizer.requestResource`.
    pub fn of_request(&self) -> Check {
        let request = self.request;
        Check {
            group: request.asked.group.to_string(),
            resource: request.asked.plural.to_string(),
            subresource: request.subresource.into(),
            namespace: request.namespace.into(),
            name: request.name.into(),
            ..Check::default()
        }
    }
}

impl Authorizer for Asking<'_> {
    fn authorize(&self, check: &Check) -> Decision {
        let account = check.service_account.as_ref().map(|(namespace, name)| User::service_account(namespace, name));
        let user = account.as_ref().unwrap_or(self.request.user);
        let attributes = match &check.path {
            Some(path) => Attributes::path(user, &check.verb, path),
            None => Attributes {
                user,
                verb: &check.verb,
                group: &check.group,
                resource: &check.resource,
                subresource: &check.subresource,
                namespace: &check.namespace,
                name: &check.name,
                path: "",
                version: "",
                fields: &[],
            },
        };
        let decision = self.request.cluster.decide(&attributes);
        Decision { allowed: decision.allowed, reason: decision.reason, error: decision.error }
    }
}
