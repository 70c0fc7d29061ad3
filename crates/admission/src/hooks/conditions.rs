//! The `matchConditions` of a webhook.

use super::config::Hook;
use super::matching::{Invocation, Objects};
use crate::Request;

/// Whether all conditions hold; the text says why that cannot be decided.
pub(crate) async fn hold(
    hook: &Hook,
    _invocation: &Invocation,
    _request: &Request<'_>,
    _objects: &Objects<'_>,
) -> Result<bool, String> {
    let names: Vec<&str> = hook.conditions.iter().map(|(name, _)| name.as_str()).collect();
    Err(format!("match conditions [{}] cannot be evaluated yet", names.join(" ")))
}
