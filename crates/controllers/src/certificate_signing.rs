//! Certificate signing requests: approved where that goes without asking, signed, cleaned up
//! (`pkg/controller/certificates/{approver,signer,cleaner}`).
//!
//! Whether somebody may have a certificate, and the signature itself, come from outside through [`Authority`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use corten_base::Timestamp;
use corten_kinds::id;
use corten_kinds::x509::{Certificate, CertificateRequest, pem_blocks};
use corten_object::Object;
use corten_schema::scalars::base64;
use corten_tree::{Tree, tree};

use crate::{Action, Controller, Key, Plan, Watch, World, Write};

const WATCHES: &[Watch] = &[Watch::itself(id::CERTIFICATE_SIGNING_REQUEST)];

/// The longest life of a signed certificate, in seconds (`--cluster-signing-duration`).
const SIGNED_SECONDS_MAX: i64 = 365 * 24 * 3600;
/// The shortest, in seconds.
const SIGNED_SECONDS_MIN: i64 = 600;
/// How long decided requests stay, in seconds.
const DECIDED_SECONDS: i64 = 3600;
/// How long others stay, in seconds.
const PENDING_SECONDS: i64 = 24 * 3600;

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const CLIENT_KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING: &str = "kubernetes.io/kubelet-serving";
const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// What the controllers cannot decide from objects.
pub trait Authority: Send + Sync {
    /// Whether the user that a request's `spec` names may create this subresource of requests: a SubjectAccessReview.
    fn may(&self, spec: &Tree, subresource: &str) -> bool;

    /// The PEM of a certificate for a request in DER.
    ///
    /// # Errors
    /// Why there is none.
    fn sign(&self, request: &[u8], usages: &[String], seconds: i64, now: Timestamp) -> Result<String, String>;
}

/// A shared authority, if there is one.
#[derive(Clone, Default)]
pub struct SharedAuthority(pub Option<Arc<dyn Authority>>);

impl fmt::Debug for SharedAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Authority" } else { "no authority" })
    }
}

/// Approves the client certificates of nodes.
pub struct Approver(pub Arc<dyn Authority>);
/// Signs what was approved.
pub struct Signer(pub Arc<dyn Authority>);
/// Removes old requests.
pub struct Cleaner;

/// Removes old requests of pods' certificates (`…/cleaner/pcrcleaner.go`).
pub struct PodRequestCleaner;

/// How long those stay, in seconds.
const POD_REQUEST_SECONDS: i64 = 15 * 60;

const USER: &str = "system:serviceaccount:kube-system:certificate-controller";

/// A request with what it asks for.
struct Request {
    object: Arc<Object>,
    tree: Tree,
}

impl Request {
    fn find(world: &World<'_>, key: &Key) -> Option<Request> {
        let object = world.state.get(key)?.clone();
        (!object.head.is_deleting()).then(|| Request { tree: object.to_tree(), object })
    }

    fn condition(&self, kind: &str) -> Option<&Tree> {
        self.tree.list_at("status.conditions").iter().find(|c| c.str_at("type") == kind)
    }

    fn issued(&self) -> bool {
        !self.tree.str_at("status.certificate").is_empty()
    }

    fn der(&self) -> Option<Vec<u8>> {
        let text = base64::decode(self.tree.str_at("spec.request")).ok()?;
        let block = pem_blocks(&String::from_utf8_lossy(&text)).into_iter().next()?;
        (block.label == "CERTIFICATE REQUEST").then_some(block.der)
    }

    fn usages(&self) -> Vec<String> {
        self.tree.list_at("spec.usages").iter().filter_map(Tree::as_str).map(str::to_owned).collect()
    }

    /// The update that adds a condition, or a certificate, through a subresource.
    fn update(&self, subresource: &'static str, change: impl FnOnce(&mut Tree)) -> Plan {
        let mut body = self.tree.clone();
        change(&mut body);
        body.set("metadata.resourceVersion", self.object.head.revision.to_string());
        Plan::of(vec![Write::Update { key: self.object.key(), subresource, body }.into()])
    }
}

fn add_condition(request: &mut Tree, condition: Tree) {
    if request.path("status.conditions").is_none() {
        request.set("status.conditions", Tree::List(Vec::new()));
    }
    if let Some(list) = request.path_mut("status.conditions").and_then(Tree::as_list_mut) {
        list.push(condition);
    }
}

/// Whether a request is one for a node's client certificate (`ValidateKubeletClientCSR`).
///
/// # Errors
/// Why it is not.
fn kubelet_client(request: &CertificateRequest, usages: &[String]) -> Result<(), String> {
    node_subject(request)?;
    let names = &request.names;
    let refused = [
        (names.dns.is_empty(), "DNS subjectAltNames are not allowed"),
        (names.emails.is_empty(), "Email subjectAltNames are not allowed"),
        (names.ips.is_empty(), "IP subjectAltNames are not allowed"),
        (names.uris.is_empty(), "URI subjectAltNames are not allowed"),
    ];
    if let Some((_, why)) = refused.iter().find(|(none, _)| !none) {
        return Err((*why).to_owned());
    }
    only_usages(usages, "client auth")?;
    node_name(request)
}

/// `ValidateKubeletServingCSR`
fn kubelet_serving(request: &CertificateRequest, usages: &[String]) -> Result<(), String> {
    node_subject(request)?;
    let names = &request.names;
    if names.dns.is_empty() && names.ips.is_empty() {
        return Err("DNS or IP subjectAltName is required".into());
    }
    if !names.emails.is_empty() {
        return Err("Email subjectAltNames are not allowed".into());
    }
    if !names.uris.is_empty() {
        return Err("URI subjectAltNames are not allowed".into());
    }
    only_usages(usages, "server auth")?;
    node_name(request)
}

fn node_subject(request: &CertificateRequest) -> Result<(), String> {
    match request.organizations.as_slice() {
        [one] if one == "system:nodes" => Ok(()),
        _ => Err("subject organization is not system:nodes".into()),
    }
}

fn node_name(request: &CertificateRequest) -> Result<(), String> {
    match request.common_name.starts_with("system:node:") {
        true => Ok(()),
        false => Err("subject common name does not begin with system:node:".into()),
    }
}

/// Exactly digital signature and this one; keys of RSA encipher keys, too.
fn only_usages(usages: &[String], auth: &str) -> Result<(), String> {
    let has = |usage: &str| usages.iter().any(|u| u == usage);
    let known = usages.iter().all(|u| u == auth || u == "digital signature" || u == "key encipherment");
    match has(auth) && has("digital signature") && known {
        true => Ok(()),
        false => {
            let mut all = [auth, "digital signature", "key encipherment"];
            all.sort_unstable();
            Err(format!("usages did not match [{}]", all.join(" ")))
        }
    }
}

/// `validAPIServerClientUsages`
fn apiserver_client(usages: &[String]) -> Result<(), String> {
    let allowed = ["digital signature", "key encipherment", "client auth"];
    if let Some(other) = usages.iter().find(|u| !allowed.contains(&u.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    match usages.iter().any(|u| u == "client auth") {
        true => Ok(()),
        false => Err("missing required usage for client certificate: client auth".into()),
    }
}

impl Controller for Approver {
    fn name(&self) -> &'static str {
        "csrapproving"
    }

    fn component(&self) -> &'static str {
        "certificate-controller"
    }

    fn user(&self) -> String {
        USER.into()
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(request) = Request::find(world, key) else { return Plan::empty() };
        let decided = request.condition("Approved").is_some() || request.condition("Denied").is_some();
        if decided || request.issued() || request.tree.str_at("spec.signerName") != CLIENT_KUBELET {
            return Plan::empty();
        }
        let asked = request.der().and_then(|der| CertificateRequest::parse_unverified(&der).ok());
        let Some(asked) = asked.filter(|asked| kubelet_client(asked, &request.usages()).is_ok()) else {
            return Plan::empty();
        };
        let spec = request.tree.get("spec").unwrap_or(&Tree::Null);
        let of_self = spec.str_at("username") == asked.common_name && self.0.may(spec, "selfnodeclient");
        let message = if of_self {
            "Auto approving self kubelet client certificate after SubjectAccessReview."
        } else if self.0.may(spec, "nodeclient") {
            "Auto approving kubelet client certificate after SubjectAccessReview."
        } else {
            return Plan::empty();
        };
        request.update("approval", |tree| {
            let approved = tree!({"type": "Approved", "status": "True", "reason": "AutoApproved", "message": message});
            add_condition(tree, approved);
        })
    }
}

impl Controller for Signer {
    fn name(&self) -> &'static str {
        "csrsigning"
    }

    fn component(&self) -> &'static str {
        "certificate-controller"
    }

    fn user(&self) -> String {
        USER.into()
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(request) = Request::find(world, key) else { return Plan::empty() };
        let has = |kind: &str| request.condition(kind).is_some_and(|c| c.str_at("status") == "True");
        if request.issued() || !has("Approved") || has("Denied") || has("Failed") {
            return Plan::empty();
        }
        let signer = request.tree.str_at("spec.signerName");
        if ![CLIENT, CLIENT_KUBELET, SERVING, LEGACY].contains(&signer) {
            return Plan::empty();
        }
        let Some(der) = request.der() else { return Plan::empty() };
        let Ok(asked) = CertificateRequest::parse_unverified(&der) else { return Plan::empty() };
        let usages = request.usages();
        let valid = match signer {
            CLIENT => apiserver_client(&usages),
            CLIENT_KUBELET => kubelet_client(&asked, &usages),
            SERVING => kubelet_serving(&asked, &usages),
            _ => Ok(()),
        };
        let seconds = request.tree.i64_at("spec.expirationSeconds").unwrap_or(SIGNED_SECONDS_MAX);
        let seconds = seconds.clamp(SIGNED_SECONDS_MIN, SIGNED_SECONDS_MAX);
        match valid.and_then(|()| self.0.sign(&der, &usages, seconds, world.now)) {
            Ok(pem) => request.update("status", |tree| tree.set("status.certificate", base64::encode(pem.as_bytes()))),
            Err(why) => request.update("status", |tree| {
                let failed = tree!({"type": "Failed", "status": "True", "reason": "SignerValidationFailure",
                    "message": why, "lastUpdateTime": (corten_object::time::format(world.now))});
                add_condition(tree, failed);
            }),
        }
    }
}

impl Controller for Cleaner {
    fn name(&self) -> &'static str {
        "csrcleaner"
    }

    fn component(&self) -> &'static str {
        "certificate-controller"
    }

    fn user(&self) -> String {
        USER.into()
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(request) = Request::find(world, key) else { return Plan::empty() };
        let Some(end) = ends_at(&request) else { return Plan::empty() };
        let left = end - world.now.as_second();
        if left < 0 {
            return Plan::of(vec![Action::delete(&request.object)]);
        }
        let mut plan = Plan::empty();
        plan.requeue_after(Duration::from_secs(left.unsigned_abs() + 1));
        plan
    }
}

impl Controller for PodRequestCleaner {
    fn name(&self) -> &'static str {
        "podcertificaterequestcleaner"
    }

    fn component(&self) -> &'static str {
        "podcertificaterequestcleaner"
    }

    fn user(&self) -> String {
        "system:serviceaccount:kube-system:podcertificaterequestcleaner".into()
    }

    fn watches(&self) -> &[Watch] {
        const WATCHES: &[Watch] = &[Watch::itself(id::POD_CERTIFICATE_REQUEST)];
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let Some(object) = world.state.get(key) else { return Plan::empty() };
        let made = corten_object::time::parse(object.to_tree().str_at("metadata.creationTimestamp"));
        let Some(made) = made else { return Plan::empty() };
        let left = made.as_second() + POD_REQUEST_SECONDS - world.now.as_second();
        if left <= 0 {
            return Plan::of(vec![Action::delete(object)]);
        }
        let mut plan = Plan::empty();
        plan.requeue_after(Duration::from_secs(left.unsigned_abs()));
        plan
    }
}

/// When a request has been there for long enough, in seconds of Unix time.
fn ends_at(request: &Request) -> Option<i64> {
    let second = |text: &str| corten_object::time::parse(text).map(Timestamp::as_second);
    let mut ends = Vec::new();
    if request.tree.list_at("status.conditions").is_empty() {
        ends.extend(second(request.tree.str_at("metadata.creationTimestamp")).map(|at| at + PENDING_SECONDS));
    }
    for (kind, after) in [
        ("Denied", DECIDED_SECONDS),
        ("Failed", DECIDED_SECONDS),
        ("Approved", if request.issued() { DECIDED_SECONDS } else { PENDING_SECONDS }),
    ] {
        let at = request.condition(kind).and_then(|c| second(c.str_at("lastUpdateTime")));
        ends.extend(at.map(|at| at + after));
    }
    if request.issued() && request.condition("Approved").is_some() {
        let text = base64::decode(request.tree.str_at("status.certificate")).unwrap_or_default();
        let first = pem_blocks(&String::from_utf8_lossy(&text)).into_iter().next();
        ends.extend(first.and_then(|block| Certificate::parse(&block.der).ok()).map(|c| c.not_after));
    }
    ends.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(organization: &str, name: &str, dns: &[&str]) -> CertificateRequest {
        CertificateRequest {
            common_name: name.into(),
            organizations: vec![organization.into()],
            has_subject: true,
            subject: Vec::new(),
            names: corten_kinds::x509::AltNames {
                dns: dns.iter().map(|d| (*d).to_owned()).collect(),
                ..Default::default()
            },
            alt_names: None,
            public_key: Vec::new(),
            key: corten_kinds::x509::KeyKind::Ed25519,
        }
    }

    #[test]
    fn signers_take_what_upstream_takes() {
        let usages = |list: &[&str]| list.iter().map(|u| (*u).to_owned()).collect::<Vec<String>>();
        let client = usages(&["digital signature", "client auth"]);
        let server = usages(&["digital signature", "key encipherment", "server auth"]);
        let node = asked("system:nodes", "system:node:a", &[]);
        assert!(kubelet_client(&node, &client).is_ok());
        assert_eq!(
            kubelet_client(&node, &server).unwrap_err(),
            "usages did not match [client auth digital signature key encipherment]"
        );
        let named = asked("system:nodes", "system:node:a", &["a.example"]);
        assert_eq!(kubelet_client(&named, &client).unwrap_err(), "DNS subjectAltNames are not allowed");
        assert!(kubelet_serving(&named, &server).is_ok());
        assert_eq!(kubelet_serving(&node, &server).unwrap_err(), "DNS or IP subjectAltName is required");
        let master = asked("system:masters", "system:node:a", &[]);
        assert_eq!(kubelet_client(&master, &client).unwrap_err(), "subject organization is not system:nodes");
        let person = asked("system:nodes", "jane", &[]);
        assert_eq!(
            kubelet_client(&person, &client).unwrap_err(),
            "subject common name does not begin with system:node:"
        );
        assert!(apiserver_client(&client).is_ok());
        assert_eq!(apiserver_client(&server).unwrap_err(), "invalid usage for client certificate: server auth");
        assert_eq!(
            apiserver_client(&usages(&["digital signature"])).unwrap_err(),
            "missing required usage for client certificate: client auth"
        );
    }
}
