//! The kinds of `certificates.k8s.io`.

use corten_tree::Tree;

use crate::print;
use crate::spec::{Fact, Hooks, KindSpec, Subresource};
use crate::validate::Spot;
use crate::{Column, Of, RowContext, TextOr, column};
use crate::{Errors, WriteContext};

const GROUP: &str = "certificates.k8s.io";

/// `certificates.k8s.io/v1 CertificateSigningRequest`
pub(crate) const CERTIFICATE_SIGNING_REQUEST: KindSpec = KindSpec {
    group: GROUP,
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    short: &["csr"],
    subresources: &[Subresource::update("approval"), Subresource::STATUS],
    columns: &[
        Column::NAME,
        Column::AGE,
        column("SignerName", &TextOr("spec.signerName", "<none>")),
        column("Requestor", &TextOr("spec.username", "")),
        column("RequestedDuration", &Of(duration)),
        column("Condition", &Of(condition)),
    ],
    facts: &[Fact::selectable("spec.signerName")],
    hooks: Hooks {
        prepare_update: Some(|new, old, _| keep(new, old, &["spec", "status"])),
        prepare_status: Some(prepare_status),
        validate: Some(validate),
        subresource: Some(approval),
        ..Hooks::NONE
    },
    ..KindSpec::CLUSTER
};

/// `certificates.k8s.io/v1 ClusterTrustBundle`
pub(crate) const CLUSTER_TRUST_BUNDLE: KindSpec = KindSpec {
    group: GROUP,
    kind: "ClusterTrustBundle",
    unconditional_update: false,
    plural: "clustertrustbundles",
    columns: &[Column::NAME, column("SignerName", &TextOr("spec.signerName", "<none>"))],
    facts: &[Fact::selectable("spec.signerName")],
    ..KindSpec::CLUSTER
};

/// `certificates.k8s.io/v1 PodCertificateRequest`
pub(crate) const POD_CERTIFICATE_REQUEST: KindSpec = KindSpec {
    group: GROUP,
    kind: "PodCertificateRequest",
    unconditional_update: false,
    plural: "podcertificaterequests",
    subresources: &[Subresource::STATUS],
    columns: &[
        Column::NAME,
        column("PodName", &TextOr("spec.podName", "")),
        column("ServiceAccountName", &TextOr("spec.serviceAccountName", "")),
        column("NodeName", &TextOr("spec.nodeName", "")),
        column("SignerName", &TextOr("spec.signerName", "")),
        column("State", &Of(state)),
        column("UnverifiedUserAnnotations", &Of(|o, _| print::labels(o.map_at("spec.unverifiedUserAnnotations")))),
    ],
    facts: &[Fact::selectable("spec.signerName"), Fact::selectable("spec.podName"), Fact::selectable("spec.nodeName")],
    ..KindSpec::NAMESPACED
};

fn duration(request: &Tree, _: &RowContext) -> Tree {
    Tree::from(request.i64_at("spec.expirationSeconds").map_or_else(|| "<none>".to_owned(), print::human_duration))
}

fn condition(request: &Tree, _: &RowContext) -> Tree {
    let has = |kind: &str| request.list_at("status.conditions").iter().any(|c| c.str_at("type") == kind);
    let mut text = if has("Denied") {
        "Denied".to_owned()
    } else if has("Approved") {
        "Approved".to_owned()
    } else {
        "Pending".to_owned()
    };
    if has("Failed") {
        text.push_str(",Failed");
    }
    if !request.str_at("status.certificate").is_empty() {
        text.push_str(",Issued");
    }
    Tree::from(text)
}

fn state(request: &Tree, _: &RowContext) -> Tree {
    let known = |c: &Tree| ["Issued", "Denied", "Failed"].into_iter().find(|k| *k == c.str_at("type"));
    Tree::from(request.list_at("status.conditions").iter().rev().find_map(known).unwrap_or("Pending"))
}

fn keep(new: &mut Tree, old: &Tree, parts: &[&str]) {
    for part in parts {
        match old.path(part) {
            Some(value) => new.set(part, value.clone()),
            None => drop(new.remove(part)),
        }
    }
}

/// The signer writes certificates and failures; who approved or denied stays as it was.
fn prepare_status(new: &mut Tree, old: &Tree, _: &WriteContext) {
    let decided = |c: &&Tree| matches!(c.str_at("type"), "Approved" | "Denied");
    let mut conditions: Vec<Tree> = old.list_at("status.conditions").iter().filter(decided).cloned().collect();
    conditions.extend(new.list_at("status.conditions").iter().filter(|c| !decided(c)).cloned());
    if !conditions.is_empty() {
        new.set("status.conditions", Tree::List(conditions));
    }
}

/// `…/approval`: only the conditions change.
fn approval(_: &str, new: &mut Tree, old: &Tree, errors: &mut Errors) {
    let mut merged = old.clone();
    if let Some(version) = new.path("metadata.resourceVersion").cloned() {
        merged.set("metadata.resourceVersion", version);
    }
    let conditions = new.list_at("status.conditions").to_vec();
    let has = |kind: &str| conditions.iter().any(|c| c.str_at("type") == kind);
    if has("Approved") && has("Denied") {
        let detail = "Approved and Denied conditions are mutually exclusive";
        Spot::of(new, "status").invalid("conditions", detail, errors);
    }
    merged.set("status.conditions", Tree::List(conditions));
    *new = merged;
}

/// The least seconds that a certificate may be asked for.
const SECONDS_MIN: i64 = 600;

fn validate(request: &Tree, errors: &mut Errors) {
    let spec = Spot::of(request, "spec");
    if spec.str("request").is_empty() {
        let detail = "PEM block type must be CERTIFICATE REQUEST";
        spec.invalid_as("request", Tree::Null, detail, errors);
    }
    if spec.list("usages").is_empty() {
        spec.required("usages", "", errors);
    }
    let signer = spec.str("signerName");
    if signer.is_empty() {
        spec.required("signerName", "", errors);
    } else if signer.split('/').count() != 2 || signer.split('/').any(str::is_empty) {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        spec.invalid("signerName", detail, errors);
    }
    if spec.int("expirationSeconds").is_some_and(|s| s < SECONDS_MIN) {
        spec.invalid("expirationSeconds", "may not specify a duration less than 600 seconds (10 minutes)", errors);
    }
}
