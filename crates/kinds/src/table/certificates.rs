//! The kinds of `certificates.k8s.io`.

use corten_tree::Tree;

use crate::print;
use crate::spec::{Fact, KindSpec, Subresource};
use crate::{Column, Of, RowContext, TextOr, column};

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
