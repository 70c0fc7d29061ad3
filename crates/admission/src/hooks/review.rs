//! `AdmissionReview`: what is asked and answered (`request/admissionreview.go`, `errors/statuserror.go`).

use base64::Engine as _;
use corten_auth::User;
use corten_object::{GroupVersionKind, Status};
use corten_tree::{Tree, json, tree};

use super::config::Hook;
use super::matching::Invocation;
use crate::Request;

/// The review to send.
pub(crate) fn question(
    version: &str,
    uid: &str,
    invocation: &Invocation,
    request: &Request<'_>,
    object: Option<Tree>,
    old: Option<Tree>,
) -> Tree {
    let mut body = described(invocation, request);
    body.insert("uid", uid);
    body.insert("object", object);
    body.insert("oldObject", old);
    tree!({"kind": "AdmissionReview", "apiVersion": (format!("admission.k8s.io/{version}")), "request": (body)})
}

/// The request as webhooks and expressions see it, without its objects.
pub(crate) fn described(invocation: &Invocation, request: &Request<'_>) -> Tree {
    let kind = |gvk: &GroupVersionKind| tree!({"group": (gvk.group.as_str()), "version": (gvk.version.as_str()), "kind": (gvk.kind.as_str())});
    let resource =
        |group: &str, version: &str, plural: &str| tree!({"group": group, "version": version, "resource": plural});
    let (as_kind, asked) = (&invocation.kind, request.asked);
    let mut body = tree!({
        "kind": (kind(&invocation.gvk(request))),
        "resource": (resource(&as_kind.group, &invocation.version, &as_kind.plural))
    });
    let texts = |body: &mut Tree, key: &'static str, text: &str| {
        if !text.is_empty() {
            body.insert(key, text);
        }
    };
    texts(&mut body, "subResource", request.subresource);
    body.insert("requestKind", kind(&request.gvk()));
    body.insert("requestResource", resource(&asked.group, request.version, &asked.plural));
    texts(&mut body, "requestSubResource", request.subresource);
    texts(&mut body, "name", request.name);
    texts(&mut body, "namespace", request.namespace);
    body.insert("operation", request.operation.as_str());
    body.insert("userInfo", user_info(request.user));
    body.insert("dryRun", request.dry_run);
    body.insert("options", request.options.clone());
    body
}

/// A user as `authentication.k8s.io/v1 UserInfo`.
pub fn user_info(user: &User) -> Tree {
    let mut out = tree!({"username": (user.name.as_str())});
    if !user.uid.is_empty() {
        out.insert("uid", user.uid.as_str());
    }
    if !user.groups.is_empty() {
        out.insert("groups", user.groups.clone());
    }
    if !user.extra.is_empty() {
        let mut extra = Tree::map();
        for (key, values) in &user.extra {
            extra.insert(key.clone(), values.clone());
        }
        out.insert("extra", extra);
    }
    out
}

/// What a webhook has answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub allowed: bool,
    result: Option<Tree>,
    /// The JSON patch's bytes.
    pub patch: Vec<u8>,
    pub patch_type: String,
    annotations: Vec<(String, String)>,
    warnings: Vec<String>,
}

impl Answer {
    /// Passes warnings and audit annotations on.
    pub fn note(&self, hook: &Hook, request: &Request<'_>) {
        for (key, value) in &self.annotations {
            request.notes.annotate(format!("{}/{key}", hook.name), value.as_str());
        }
        for warning in &self.warnings {
            request.notes.warn(warning.as_str());
        }
    }

    /// What the client is told of a no (`ToStatusErr`).
    pub fn refusal(&self, name: &str) -> Status {
        let denied = format!("admission webhook {name:?} denied the request");
        let mut result = self.result.clone().unwrap_or_default();
        let code = result.i64_at("code").unwrap_or(0).max(400);
        let message = match (result.str_at("message"), result.str_at("reason")) {
            ("", "") => format!("{denied} without explanation"),
            ("", reason) => format!("{denied}: {reason}"),
            (message, _) => format!("{denied}: {message}"),
        };
        result.insert("code", code);
        result.insert("message", message);
        Status::from_tree(&result)
    }
}

/// Reads a review's answer (`VerifyAdmissionResponse`).
pub(crate) fn answer(version: &str, uid: &str, bytes: &[u8], mutating: bool) -> Result<Answer, String> {
    let review = json::parse(bytes).map_err(|e| e.message)?;
    let response = review.path("response").ok_or("webhook response was absent")?;
    let (patch, patch_type) = (response.str_at("patch"), response.path("patchType").and_then(Tree::as_str));
    if version == "v1" {
        let found = response.str_at("uid");
        if found != uid {
            return Err(format!("expected response.uid={uid:?}, got {found:?}"));
        }
        let (found_version, found_kind) = (review.str_at("apiVersion"), review.str_at("kind"));
        if found_version != "admission.k8s.io/v1" || found_kind != "AdmissionReview" {
            let found = format!("{found_version}, Kind={found_kind}");
            return Err(format!("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {found}"));
        }
        match (mutating, patch, patch_type) {
            (false, "", None) => {}
            (false, "", Some(_)) => return Err("validating webhook may not return response.patchType".into()),
            (false, ..) => return Err("validating webhook may not return response.patch".into()),
            (true, "", Some(_)) => return Err("webhook returned response.patchType but not response.patch".into()),
            (true, "", None) => {}
            (true, _, None) => return Err("webhook returned response.patch but not response.patchType".into()),
            (true, _, Some("")) => return Err("webhook returned invalid response.patchType of \"\"".into()),
            (true, _, Some(_)) => {}
        }
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(patch);
    let text = |t: &Tree| t.as_str().map(str::to_owned);
    let patch_type = if version == "v1" { patch_type.unwrap_or_default() } else { "JSONPatch" };
    Ok(Answer {
        allowed: response.bool_at("allowed"),
        result: response.path("status").cloned(),
        patch: if mutating { decoded.map_err(|e| format!("illegal base64 data: {e}"))? } else { Vec::new() },
        patch_type: patch_type.to_owned(),
        annotations: response
            .map_at("auditAnnotations")
            .iter()
            .filter_map(|(key, value)| Some((key.to_owned(), text(value)?)))
            .collect(),
        warnings: response.list_at("warnings").iter().filter_map(text).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(version: &str, response: &str, mutating: bool) -> Result<Answer, String> {
        let review =
            format!(r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/{version}","response":{response}}}"#);
        answer(version, "u", review.as_bytes(), mutating)
    }

    #[test]
    fn webhook_answers_that_do_not_fit_are_refused() {
        for (response, mutating, expected) in [
            ("null", true, "webhook response was absent"),
            (r#"{"uid":"x"}"#, true, r#"expected response.uid="u", got "x""#),
            (r#"{"uid":"u","patch":"W10="}"#, true, "webhook returned response.patch but not response.patchType"),
            (
                r#"{"uid":"u","patchType":"JSONPatch"}"#,
                true,
                "webhook returned response.patchType but not response.patch",
            ),
            (r#"{"uid":"u","patch":"W10="}"#, false, "validating webhook may not return response.patch"),
            (r#"{"uid":"u","patchType":"JSONPatch"}"#, false, "validating webhook may not return response.patchType"),
        ] {
            assert_eq!(answered("v1", response, mutating).unwrap_err(), expected, "{response}");
        }
        let wrong = answer("v1", "u", br#"{"kind":"X","apiVersion":"v1","response":{"uid":"u"}}"#, true);
        let expected = "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got v1, Kind=X";
        assert_eq!(wrong.unwrap_err(), expected);
        assert!(answered("v1beta1", r#"{"allowed":true}"#, true).unwrap().allowed);
    }

    #[test]
    fn webhook_refusals_have_a_code_of_400_at_least() {
        let refused = |response: &str| answered("v1", response, false).unwrap().refusal("w.x.y");
        let plain = refused(r#"{"uid":"u"}"#);
        assert_eq!(plain.message, "admission webhook \"w.x.y\" denied the request without explanation");
        assert_eq!(plain.code, 400);
        let told = refused(r#"{"uid":"u","status":{"message":"no","code":418,"reason":"Teapot"}}"#);
        assert_eq!((told.message.as_str(), told.code), ("admission webhook \"w.x.y\" denied the request: no", 418));
        let reason = refused(r#"{"uid":"u","status":{"reason":"Forbidden"}}"#);
        assert_eq!(reason.message, "admission webhook \"w.x.y\" denied the request: Forbidden");
    }
}
