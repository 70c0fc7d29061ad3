//! What the kinds of `certificates.k8s.io` and pods' certificate volumes have in common: signer names, keys, chains.
//!
//! Upstream: `pkg/apis/certificates/validation/validation.go`, `pkg/apis/core/validation/names.go`.

use corten_base::Timestamp;
use corten_object::CauseKind;
use corten_schema::scalars::base64;
use corten_tree::Tree;

use super::names;
use super::{Spot, fault};
use crate::Errors;
use crate::x509::{Certificate, CertificateRequest, KeyKind, pem_blocks, public_key_kind};

/// The least and the most seconds that a pod's certificate may be asked for; less for the project's own signers.
pub(crate) const POD_SECONDS_MIN: i64 = 3600;
const POD_SECONDS_MAX: i64 = 91 * 24 * 3600;
const POD_SECONDS_MAX_OWN: i64 = 24 * 3600;
/// Bytes of a pod certificate request's key, proof, or request.
const KEY_BYTES_MAX: usize = 10 << 10;
/// Bytes of a certificate chain.
const CHAIN_BYTES_MAX: usize = 100 << 10;
/// Bytes of a trust bundle.
const BUNDLE_BYTES_MAX: usize = 1 << 20;
/// Seconds that a pod's new certificate may begin before or after now.
const SKEW_SECONDS: i64 = 300;
/// Seconds between the ends of a certificate's life and its renewal.
const REFRESH_MARGIN_SECONDS: i64 = 600;

/// The most seconds that a pod's certificate of this signer may be asked for.
pub(crate) fn pod_seconds_max(signer: &str) -> i64 {
    if is_kubernetes_signer(signer) { POD_SECONDS_MAX_OWN } else { POD_SECONDS_MAX }
}

/// `IsKubernetesSignerName`
fn is_kubernetes_signer(signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    domain == "kubernetes.io" || domain.ends_with(".kubernetes.io")
}

/// `ValidateSignerName`
pub(crate) fn signer_name(spot: &Spot<'_>, field: &str, errors: &mut Errors) {
    const DOMAIN_MAX: usize = 253;
    const NAME_MAX: usize = DOMAIN_MAX + 1 + DOMAIN_MAX + 63 + 1;
    let name = spot.str(field);
    if name.is_empty() {
        spot.required(field, "", errors);
        return;
    }
    let Some((domain, path)) = name.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        spot.invalid(field, detail, errors);
        return;
    };
    if domain.len() > DOMAIN_MAX {
        spot.too_long(field, DOMAIN_MAX, errors);
    }
    let first_bad = |part: &str, check: fn(&str) -> Vec<String>, errors: &mut Errors| {
        let bad = part.split('.').map(|label| (label, check(label))).find(|(_, faults)| !faults.is_empty());
        for text in bad.iter().flat_map(|(label, faults)| faults.iter().map(move |f| (label, f))) {
            spot.invalid_as(field, part, format!("validating label {:?}: {}", text.0, text.1), errors);
        }
    };
    first_bad(domain, names::dns_label, errors);
    if !domain.contains('.') {
        spot.invalid_as(field, domain, "should be a domain with at least two segments separated by dots", errors);
    }
    first_bad(path, names::dns_subdomain, errors);
    if name.len() > NAME_MAX {
        spot.too_long(field, NAME_MAX, errors);
    }
}

/// `ValidateClusterTrustBundleName`
pub(crate) fn bundle_name(signer: &str, name: &str) -> Vec<String> {
    if signer.is_empty() {
        return match name.contains(':') {
            true => vec!["ClusterTrustBundle without signer name must not have \":\" in its name".into()],
            false => names::dns_subdomain(name),
        };
    }
    let prefix = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(&prefix) {
        Some(rest) => names::dns_subdomain(rest),
        None => vec![format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}")],
    }
}

/// The signer that a trust bundle's name tells (`extractSignerNameFromClusterTrustBundleName`).
pub(crate) fn signer_of_bundle_name(name: &str) -> String {
    name.rsplit_once(':').map(|(signer, _)| signer.replace(':', "/")).unwrap_or_default()
}

/// `ValidateUserAnnotations`
pub(crate) fn user_annotations(spot: &Spot<'_>, field: &str, errors: &mut Errors) {
    let annotations = spot.child(field);
    let mut size = 0;
    for (key, value) in annotations.map("").iter() {
        size += key.len() + value.as_str().unwrap_or_default().len();
        let lower = key.to_lowercase();
        let faults = names::label_key(&lower);
        if lower.is_empty() {
            annotations.required("", "", errors);
        } else if !faults.is_empty() {
            for text in faults {
                annotations.invalid_as("", lower.as_str(), text, errors);
            }
        } else if !lower.contains('/') {
            let detail = "must be a domain-prefixed key (such as \"acme.io/foo\")";
            annotations.invalid_as("", lower.as_str(), detail, errors);
        }
    }
    if size > super::meta::ANNOTATIONS_BYTES_MAX {
        annotations.too_long("", super::meta::ANNOTATIONS_BYTES_MAX, errors);
    }
}

/// `validateTrustBundle`
pub(crate) fn trust_bundle(spot: &Spot<'_>, field: &str, errors: &mut Errors) {
    let text = spot.str(field);
    if text.len() > BUNDLE_BYTES_MAX {
        spot.too_long(field, BUNDLE_BYTES_MAX, errors);
        return;
    }
    let mut bad = |detail: String| spot.invalid_as(field, "<value omitted>", detail, errors);
    let blocks = pem_blocks(text);
    let mut faults = 0;
    for (i, block) in blocks.iter().enumerate() {
        let fault = match Certificate::parse(&block.der) {
            _ if block.label != "CERTIFICATE" => format!("entry {i} has bad block type: {}", block.label),
            _ if block.has_headers => format!("entry {i} has PEM block headers"),
            Err(_) => format!("entry {i} does not parse as X.509"),
            Ok(certificate) if !certificate.is_ca => format!("entry {i} does not have the CA bit set"),
            Ok(_) => continue,
        };
        faults += 1;
        bad(fault);
    }
    if faults > 0 {
        return;
    }
    if blocks.is_empty() {
        bad("at least one trust anchor must be provided".into());
    }
    for (i, block) in blocks.iter().enumerate() {
        let same: Vec<String> =
            (0..blocks.len()).filter(|j| blocks[*j].der == block.der).map(|j| j.to_string()).collect();
        if same.len() > 1 && blocks.iter().position(|b| b.der == block.der) == Some(i) {
            bad(format!("duplicate trust anchor (indices [{}])", same.join(" ")));
        }
    }
}

/// Whether a text is nothing, or PEM blocks that are all certificates (`validateCertificate`).
pub(crate) fn certificates_only(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let blocks = pem_blocks(text);
    for block in &blocks {
        if block.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        if block.has_headers {
            return Err("no PEM block headers are permitted".into());
        }
        Certificate::parse(&block.der)?;
    }
    if blocks.is_empty() { Err("must contain at least one CERTIFICATE PEM block".into()) } else { Ok(()) }
}

/// `ValidatePodCertificateRequestCreate`, without the metadata.
pub(crate) fn pod_request(spec: &Spot<'_>, errors: &mut Errors) {
    const UID_MAX: usize = 128;
    signer_name(spec, "signerName", errors);
    user_annotations(spec, "unverifiedUserAnnotations", errors);
    for owner in ["pod", "serviceAccount", "node"] {
        let (name, uid) = (format!("{owner}Name"), format!("{owner}UID"));
        spec.each(&name, names::dns_subdomain(spec.str(&name)), errors);
        match spec.str(&uid).len() {
            0 => spec.invalid_as(&uid, spec.str(&uid), "must not be empty", errors),
            1..=UID_MAX => {}
            _ => spec.too_long(&uid, UID_MAX, errors),
        }
    }
    let max = pod_seconds_max(spec.str("signerName"));
    match spec.int("maxExpirationSeconds") {
        None => return spec.required("maxExpirationSeconds", "must be set", errors),
        Some(s) if (POD_SECONDS_MIN..=max).contains(&s) => {}
        Some(_) => {
            let detail = format!("must be in the range [{POD_SECONDS_MIN}, {max}]");
            spec.invalid("maxExpirationSeconds", detail, errors);
        }
    }
    let has = |field: &str| !spec.str(field).is_empty();
    match (has("stubPKCS10Request"), has("pkixPublicKey"), has("proofOfPossession")) {
        (true, false, false) => stub_request(spec, errors),
        (false, true, true) => key_and_proof(spec, errors),
        _ => {
            let detail = "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set";
            no_value(spec, "", detail, errors);
        }
    }
}

/// A fault without the value.
fn no_value(spot: &Spot<'_>, field: &str, detail: &str, errors: &mut Errors) {
    let place = if field.is_empty() { spot.path.clone() } else { spot.path.child(field) };
    errors.push(fault(&place, CauseKind::Invalid, format!("Invalid value: {detail}")));
}

fn bytes(spot: &Spot<'_>, field: &str) -> Vec<u8> {
    base64::decode(spot.str(field)).unwrap_or_default()
}

/// The fault of a key that pods may not have.
fn key_fault(key: KeyKind, curves: &str) -> Option<(String, String)> {
    match key {
        KeyKind::Ed25519 | KeyKind::Ec("P-256" | "P-384" | "P-521") | KeyKind::Rsa(3072 | 4096) => None,
        KeyKind::Ec(curve) => Some((format!("curve {curve}"), format!("elliptic public keys must use curve {curves}"))),
        KeyKind::Rsa(bits) => {
            Some((format!("{bits}-bit modulus"), "RSA keys must have modulus size 3072 or 4096".into()))
        }
        KeyKind::Unknown => {
            Some((String::new(), "unknown public key type; supported types are Ed25519, ECDSA, and RSA".into()))
        }
    }
}

fn stub_request(spec: &Spot<'_>, errors: &mut Errors) {
    const FIELD: &str = "stubPKCS10Request";
    let der = bytes(spec, FIELD);
    if der.len() > KEY_BYTES_MAX {
        return spec.too_long(FIELD, KEY_BYTES_MAX, errors);
    }
    let Ok(request) = CertificateRequest::parse_unverified(&der) else {
        return no_value(spec, FIELD, "must be a valid PKCS#10 CSR", errors);
    };
    match key_fault(request.key, "P256, P384, or P521") {
        Some((value, detail)) if value.is_empty() => no_value(spec, FIELD, &detail, errors),
        Some((value, detail)) => spec.invalid_as(FIELD, value, detail, errors),
        None if CertificateRequest::verify(&der).is_err() => no_value(spec, FIELD, "invalid signature", errors),
        None => {}
    }
}

/// `validateDeprecatedPKIXPublicKey`
fn key_and_proof(spec: &Spot<'_>, errors: &mut Errors) {
    let (key, proof) = (bytes(spec, "pkixPublicKey"), bytes(spec, "proofOfPossession"));
    for (field, len) in [("pkixPublicKey", key.len()), ("proofOfPossession", proof.len())] {
        if len > KEY_BYTES_MAX {
            return spec.too_long(field, KEY_BYTES_MAX, errors);
        }
    }
    let Some(kind) = public_key_kind(&key) else {
        return spec.invalid("pkixPublicKey", "must be a valid PKIX-serialized public key", errors);
    };
    match key_fault(kind, "P256 or P384") {
        Some((value, detail)) if value.is_empty() => spec.invalid("pkixPublicKey", detail, errors),
        Some((value, detail)) => spec.invalid_as("pkixPublicKey", value, detail, errors),
        None if !crate::x509::signed(&key, spec.str("podUID").as_bytes(), &proof) => {
            no_value(spec, "proofOfPossession", "could not verify proof-of-possession signature", errors);
        }
        None => {}
    }
}

fn has_condition(object: &Tree, kinds: &[&str]) -> bool {
    let conditions = object.list_at("status.conditions");
    conditions.iter().any(|c| kinds.contains(&c.str_at("type")) && c.str_at("status") == "True")
}

/// `ValidatePodCertificateRequestStatusUpdate`, without the metadata. `now`: the server's time.
pub(crate) fn pod_request_status(new: &Tree, old: &Tree, now: Timestamp, errors: &mut Errors) {
    const KINDS: [&str; 3] = ["Issued", "Denied", "Failed"];
    let before = errors.len();
    let status = Spot::of(new, "status");
    for (i, condition) in status.items("conditions").iter().enumerate() {
        match condition.str("type") {
            kind if KINDS.contains(&kind) => {
                if i > 0 {
                    let detail = r#"There may be at most one condition with type "Issued", "Denied", or "Failed""#;
                    condition.invalid("type", detail, errors);
                }
                if condition.str("status") != "True" {
                    condition.unsupported("status", &["True"], errors);
                }
            }
            _ => condition.unsupported("type", &KINDS, errors),
        }
        super::conditions::validate(condition, errors);
    }
    if errors.len() > before {
        return;
    }
    let same = |a: &Tree| status.tree.semantically_equal(a);
    let old_status = old.get("status").cloned().unwrap_or_else(Tree::map);
    if has_condition(old, &KINDS) {
        if !same(&old_status) {
            no_value(&status, "", "immutable after PodCertificateRequest is issued, denied, or failed", errors);
        }
    } else if has_condition(new, &KINDS[1..]) {
        let fields = ["certificateChain", "notBefore", "notAfter", "beginRefreshAt"];
        if fields.iter().any(|f| status.has(f) && status.tree.get(f) != Some(&Tree::from(""))) {
            let detail = "non-condition status fields must be empty when denying or failing the PodCertificateRequest";
            no_value(&status, "", detail, errors);
        }
    } else if has_condition(new, &KINDS[..1]) {
        issued(&status, old, now, errors);
    } else if !(same(&old_status) || status.tree.is_null() && old_status.semantically_equal(&Tree::map())) {
        let detail = r#"status is immutable unless transitioning to "Issued", "Denied", or "Failed""#;
        no_value(&status, "", detail, errors);
    }
}

/// The chain must be one for the requested key, and the times those that the leaf says.
fn issued(status: &Spot<'_>, old: &Tree, now: Timestamp, errors: &mut Errors) {
    const CHAIN: &str = "certificateChain";
    let text = status.str(CHAIN);
    if text.len() > CHAIN_BYTES_MAX {
        return status.too_long(CHAIN, CHAIN_BYTES_MAX, errors);
    }
    let blocks = pem_blocks(text);
    let Some((first, rest)) = blocks.split_first() else {
        return status.invalid_as(
            CHAIN,
            text,
            "issued certificate chain must contain at least one certificate",
            errors,
        );
    };
    if first.label != "CERTIFICATE" {
        let detail = "issued certificate chain must consist entirely of CERTIFICATE PEM blocks";
        return status.invalid(CHAIN, detail, errors);
    }
    let Ok(leaf) = Certificate::parse(&first.der) else {
        return status.invalid(CHAIN, "leaf certificate does not parse as valid X.509", errors);
    };
    leaf_names(status, &leaf, errors);
    let spec = Spot::of(old, "spec");
    let wanted = match CertificateRequest::parse_unverified(&bytes(&spec, "stubPKCS10Request")) {
        Ok(request) => request.public_key,
        Err(_) => bytes(&spec, "pkixPublicKey"),
    };
    if wanted != leaf.public_key {
        return status.invalid(CHAIN, "leaf certificate was not issued to the requested public key", errors);
    }
    let before = errors.len();
    let consistent = "must be present and consistent with the issued certificate";
    let refresh = "must be present and in the range [notbefore+10min, notafter-10min]";
    let time = |field: &str| corten_object::time::parse(status.str(field)).map(Timestamp::as_second);
    for (field, detail) in [("notBefore", consistent), ("notAfter", consistent), ("beginRefreshAt", refresh)] {
        if time(field).is_none() {
            status.required(field, detail, errors);
        }
    }
    let (Some(begin), Some(end), Some(renew)) = (time("notBefore"), time("notAfter"), time("beginRefreshAt")) else {
        return;
    };
    if errors.len() > before {
        return;
    }
    let life = leaf.not_after - leaf.not_before;
    let max = spec.int("maxExpirationSeconds").unwrap_or(POD_SECONDS_MAX);
    let (field, shown, detail) = if begin != leaf.not_before {
        ("notBefore", None, "must be set to the NotBefore time encoded in the leaf certificate".to_owned())
    } else if (begin - now.as_second()).abs() >= SKEW_SECONDS {
        ("notBefore", None, "must be set to within 5 minutes of kube-apiserver's current time".to_owned())
    } else if end != leaf.not_after {
        ("notAfter", None, "must be set to the NotAfter time encoded in the leaf certificate".to_owned())
    } else if life < POD_SECONDS_MIN {
        (CHAIN, Some(life), "leaf certificate lifetime must be >= 1 hour".to_owned())
    } else if life > max {
        (CHAIN, Some(life), format!("leaf certificate lifetime must be <= spec.maxExpirationSeconds ({max})"))
    } else if renew < begin + REFRESH_MARGIN_SECONDS {
        ("beginRefreshAt", None, "must be at least 10 minutes after status.notBefore".to_owned())
    } else if renew > end - REFRESH_MARGIN_SECONDS {
        ("beginRefreshAt", None, "must be at least 10 minutes before status.notAfter".to_owned())
    } else {
        return intermediates(status, rest, errors);
    };
    match shown {
        // Go shows a duration as its nanoseconds.
        Some(seconds) => status.invalid_as(field, seconds.saturating_mul(1_000_000_000), detail, errors),
        None => status.invalid(field, detail, errors),
    }
}

fn leaf_names(status: &Spot<'_>, leaf: &Certificate, errors: &mut Errors) {
    for name in &leaf.names.dns {
        let mut bad = |detail: &str| status.invalid_as("certificateChain", name.as_str(), detail, errors);
        if name.is_empty() {
            bad("leaf certificate should not contain empty DNSName");
        }
        if name.contains("..") {
            bad("leaf certificate's DNSName should not contain '..'");
        }
        if name.starts_with('.') || name.ends_with('.') {
            bad("leaf certificate's DNSName should not start or end with '.'");
        }
    }
    for email in leaf.names.emails.iter().filter(|e| e.split('@').filter(|part| !part.is_empty()).count() != 2) {
        let detail = "leaf certificate should not contain invalid EmailAddress";
        status.invalid_as("certificateChain", email.as_str(), detail, errors);
    }
}

fn intermediates(status: &Spot<'_>, blocks: &[crate::x509::PemBlock], errors: &mut Errors) {
    for block in blocks {
        let detail = if block.label != "CERTIFICATE" {
            "issued certificate chain must consist entirely of CERTFICATE PEM blocks"
        } else if Certificate::parse(&block.der).is_err() {
            "intermediate certificate does not parse as valid X.509"
        } else {
            continue;
        };
        return status.invalid("certificateChain", detail, errors);
    }
}
