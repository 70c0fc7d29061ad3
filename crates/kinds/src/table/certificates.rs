//! The kinds of `certificates.k8s.io`.

use corten_object::managed::Ownable;
use corten_tree::Tree;

use crate::print;
use crate::spec::{Fact, Hooks, KindSpec, Subresource};
use crate::validate::{Spot, certificates as rules, names};
use crate::x509::{CertificateRequest, pem_blocks};
use crate::{Column, Of, RowContext, TextOr, column};
use crate::{Errors, WriteContext};

const GROUP: &str = "certificates.k8s.io";

/// `certificates.k8s.io/v1 CertificateSigningRequest`
pub(crate) const CERTIFICATE_SIGNING_REQUEST: KindSpec = KindSpec {
    group: GROUP,
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    short: &["csr"],
    subresources: &[
        Subresource::update("approval").owning(Ownable::Except(&["spec", "status.certificate"])),
        Subresource::STATUS.owning(Ownable::Except(&["spec", "status.conditions"])),
    ],
    columns: &[
        Column::NAME,
        Column::AGE,
        column("SignerName", &TextOr("spec.signerName", "<none>")),
        column("Requestor", &TextOr("spec.username", "")),
        column("RequestedDuration", &Of(duration)),
        column("Condition", &Of(condition)),
    ],
    facts: &[Fact::selectable("spec.signerName")],
    served_by: Some("controllers"),
    name_check: names::path_segment,
    hooks: Hooks {
        requester: Some(requester),
        prepare_update: Some(|new, old, _| keep(new, old, &["spec", "status"])),
        prepare_status: Some(prepare_status),
        validate_create: Some(|request, errors| validate(request, None, Part::Object, errors)),
        validate_update: Some(|new, old, errors| validate(new, Some(old), Part::Object, errors)),
        validate_status: Some(|new, old, errors| validate(new, Some(old), Part::Status, errors)),
        subresource: Some(approval),
        prepare_subresource: Some(stamp_conditions),
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
    facts: &[Fact::indexed("spec.signerName")],
    immutable: &["spec.signerName"],
    served_by: Some("node"),
    name_check: names::path_segment,
    hooks: Hooks {
        validate_create: Some(|bundle, errors| validate_bundle(bundle, None, errors)),
        validate_update: Some(|new, old, errors| validate_bundle(new, Some(old), errors)),
        ..Hooks::NONE
    },
    ..KindSpec::CLUSTER
};

/// `certificates.k8s.io/v1 PodCertificateRequest`
pub(crate) const POD_CERTIFICATE_REQUEST: KindSpec = KindSpec {
    group: GROUP,
    kind: "PodCertificateRequest",
    unconditional_update: false,
    plural: "podcertificaterequests",
    subresources: &[Subresource::STATUS_WITHOUT_METADATA],
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
    immutable: &["spec"],
    served_by: Some("node"),
    hooks: Hooks {
        prepare_status: Some(|new, old, _| {
            keep(
                new,
                old,
                &["metadata.labels", "metadata.annotations", "metadata.finalizers", "metadata.ownerReferences"],
            );
        }),
        validate_create: Some(|request, errors| rules::pod_request(&Spot::of(request, "spec"), errors)),
        validate_status_at: Some(|new, old, context, errors| rules::pod_request_status(new, old, context.now, errors)),
        ..Hooks::NONE
    },
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

/// Who asks is written into the request by the server (`pkg/registry/certificates/certificates/strategy.go`).
fn requester(request: &mut Tree, user: &Tree) {
    for field in ["username", "uid", "groups", "extra"] {
        request.remove(&format!("spec.{field}"));
        if let Some(value) = user.get(field) {
            request.set(&format!("spec.{field}"), value.clone());
        }
    }
}

/// The signer writes certificates and failures; who approved or denied stays as it was, where nobody was added or taken.
fn prepare_status(new: &mut Tree, old: &Tree, context: &WriteContext) {
    for kind in ["Approved", "Denied"] {
        let of_kind = |tree: &Tree| -> Vec<Tree> {
            tree.list_at("status.conditions").iter().filter(|c| c.str_at("type") == kind).cloned().collect()
        };
        let kept = of_kind(old);
        if kept.len() != of_kind(new).len() {
            continue;
        }
        let mut kept = kept.into_iter();
        let conditions = new.path_mut("status.conditions").and_then(Tree::as_list_mut);
        for slot in conditions.into_iter().flatten().filter(|c| c.str_at("type") == kind) {
            if let Some(condition) = kept.next() {
                *slot = condition;
            }
        }
    }
    stamp_conditions(new, old, context);
}

/// `populateConditionTimestamps`
fn stamp_conditions(new: &mut Tree, old: &Tree, context: &WriteContext) {
    let now = corten_object::time::format(context.now);
    let conditions = new.path_mut("status.conditions").and_then(Tree::as_list_mut);
    for condition in conditions.into_iter().flatten() {
        if condition.str_at("lastUpdateTime").is_empty() {
            condition.insert("lastUpdateTime", now.as_str());
        }
        if condition.str_at("lastTransitionTime").is_empty() {
            let same = |c: &&Tree| {
                c.str_at("type") == condition.str_at("type") && c.str_at("status") == condition.str_at("status")
            };
            let before = old.list_at("status.conditions").iter().find(same).map(|c| c.str_at("lastTransitionTime"));
            let at = before.filter(|t| !t.is_empty()).unwrap_or(&now).to_owned();
            condition.insert("lastTransitionTime", at);
        }
    }
}

/// `…/approval`: only the conditions change, and labels and annotations.
fn approval(_: &str, new: &mut Tree, old: &Tree, errors: &mut Errors) {
    let conditions = new.list_at("status.conditions").to_vec();
    keep(new, old, &["spec", "status"]);
    new.set("status.conditions", Tree::List(conditions));
    validate(new, Some(old), Part::Approval, errors);
}

/// The part of a request that is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Object,
    Status,
    Approval,
}

/// The least seconds that a certificate may be asked for.
const SECONDS_MIN: i64 = 600;

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// `validateCertificateSigningRequest`. What was wrong already in the old object is tolerated.
fn validate(request: &Tree, old: Option<&Tree>, part: Part, errors: &mut Errors) {
    let spec = Spot::of(request, "spec");
    let text = corten_schema::scalars::base64::decode(spec.str("request")).unwrap_or_default();
    if let Err(why) = signed_request(&String::from_utf8_lossy(&text)) {
        let shown = spec.tree.get("request").cloned().unwrap_or_default();
        spec.invalid_as("request", shown, why, errors);
    }
    usages(&spec, old, errors);
    const LEGACY: &str = "kubernetes.io/legacy-unknown";
    if spec.str("signerName") == LEGACY && old.is_none_or(|o| o.str_at("spec.signerName") != LEGACY) {
        spec.invalid("signerName", "the legacy signerName is not allowed via this API version", errors);
    } else {
        rules::signer_name(&spec, "signerName", errors);
    }
    if spec.int("expirationSeconds").is_some_and(|s| s < SECONDS_MIN) {
        spec.invalid("expirationSeconds", "may not specify a duration less than 600 seconds (10 minutes)", errors);
    }
    conditions(request, old, errors);
    certificate(request, old, part, errors);
    if let Some(old) = old {
        kept_conditions(request, old, part, errors);
    }
}

fn usages(spec: &Spot<'_>, old: Option<&Tree>, errors: &mut Errors) {
    if spec.list("usages").is_empty() {
        spec.required("usages", "", errors);
    }
    let before = old.map(|o| o.list_at("spec.usages")).unwrap_or_default();
    let known = |usage: &Tree| usage.as_str().is_some_and(|u| USAGES.contains(&u));
    if before.iter().all(known) {
        for usage in spec.items("usages").iter().filter(|u| !known(u.tree)) {
            usage.unsupported("", USAGES, errors);
        }
    }
    if !(1..before.len()).any(|i| before[..i].contains(&before[i])) {
        let list = spec.list("usages");
        for (_, usage) in spec.items("usages").iter().enumerate().filter(|(i, _)| list[..*i].contains(&list[*i])) {
            usage.duplicate("", errors);
        }
    }
}

/// `validateCSR`
fn signed_request(text: &str) -> Result<(), String> {
    let first = pem_blocks(text).into_iter().next().filter(|b| b.label == "CERTIFICATE REQUEST");
    let block = first.ok_or("PEM block type must be CERTIFICATE REQUEST")?;
    CertificateRequest::parse(&block.der).map(drop)
}

/// `validateConditions`
fn conditions(request: &Tree, old: Option<&Tree>, errors: &mut Errors) {
    let kinds = |tree: &Tree| -> Vec<String> {
        tree.list_at("status.conditions").iter().map(|c| c.str_at("type").to_owned()).collect()
    };
    let before = old.map(kinds).unwrap_or_default();
    let both = |kinds: &[String]| ["Approved", "Denied"].iter().all(|k| kinds.iter().any(|x| x == k));
    let twice = |kinds: &[String]| (1..kinds.len()).any(|i| kinds[..i].contains(&kinds[i]));
    let list = Spot::of(request, "status.conditions");
    let now = kinds(request);
    for (i, condition) in list.items("").iter().enumerate() {
        if now[i].is_empty() && !before.iter().any(String::is_empty) {
            condition.required("type", "", errors);
        }
        let allowed: &[&str] = match now[i].as_str() {
            "Approved" | "Denied" | "Failed" => &["True"],
            _ => &["False", "True", "Unknown"],
        };
        condition.one_of("status", allowed, errors);
        let decides = matches!(now[i].as_str(), "Approved" | "Denied");
        if decides && both(&now[..=i]) && !both(&before) {
            list.invalid_as("", now[i].as_str(), "Approved and Denied conditions are mutually exclusive", errors);
        }
        if now[..i].contains(&now[i]) && !twice(&before) {
            condition.duplicate("type", errors);
        }
    }
}

fn certificate(request: &Tree, old: Option<&Tree>, part: Part, errors: &mut Errors) {
    let text = |tree: &Tree| {
        let bytes = corten_schema::scalars::base64::decode(tree.str_at("status.certificate")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let status = Spot::of(request, "status");
    let (new, before) = (text(request), old.map(text).unwrap_or_default());
    if old.is_some() && new == before {
        return;
    }
    if rules::certificates_only(&before).is_ok()
        && let Err(why) = rules::certificates_only(&new)
    {
        status.invalid_as("certificate", "<certificate data>", why, errors);
    }
    if old.is_some() && part != Part::Status {
        status.forbidden("certificate", "updates may not set certificate content", errors);
    } else if !before.is_empty() {
        status.forbidden("certificate", "updates may not modify existing certificate content", errors);
    }
}

/// Decisions stay; only the approval subresource makes them.
fn kept_conditions(new: &Tree, old: &Tree, part: Part, errors: &mut Errors) {
    let status = Spot::of(new, "status");
    let of = |tree: &Tree, kind: &str| -> Vec<Tree> {
        tree.list_at("status.conditions").iter().filter(|c| c.str_at("type") == kind).cloned().collect()
    };
    for kind in ["Approved", "Denied", "Failed"] {
        if of(new, kind).len() < of(old, kind).len() {
            let detail = format!("updates may not remove a condition of type {kind:?}");
            status.forbidden("conditions", detail, errors);
        }
    }
    if part == Part::Approval {
        return;
    }
    for kind in ["Approved", "Denied"] {
        let (now, before) = (of(new, kind), of(old, kind));
        if now.len() > before.len() {
            let detail = format!("updates may not add a condition of type {kind:?}");
            status.forbidden("conditions", detail, errors);
        } else if now.len() == before.len() && now != before {
            let detail = format!("updates may not modify a condition of type {kind:?}");
            status.forbidden("conditions", detail, errors);
        }
    }
}

/// `ValidateClusterTrustBundle`. A bundle that is not changed is not read again.
fn validate_bundle(bundle: &Tree, old: Option<&Tree>, errors: &mut Errors) {
    let (meta, spec) = (Spot::of(bundle, "metadata"), Spot::of(bundle, "spec"));
    if !meta.str("name").is_empty() {
        meta.each("name", rules::bundle_name(spec.str("signerName"), meta.str("name")), errors);
    }
    if !spec.str("signerName").is_empty() {
        rules::signer_name(&spec, "signerName", errors);
    }
    if old.is_none_or(|o| o.str_at("spec.trustBundle") != spec.str("trustBundle")) {
        rules::trust_bundle(&spec, "trustBundle", errors);
    }
}
