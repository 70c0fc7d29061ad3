//! Who may approve, sign and vouch, and whom no certificate names
//! (`plugin/pkg/admission/certificates/{approval,signing,subjectrestriction,ctbattest}`).

use corten_auth::Attributes;
use corten_kinds::id;
use corten_kinds::x509::{CertificateRequest, pem_blocks};
use corten_object::Status;
use corten_schema::scalars::base64;
use corten_tree::Tree;

use crate::{Operation, Request};

/// Whether the user may do this with the signer, by its name or by all names of its domain (`pkg/certauthorization`).
fn may(request: &Request<'_>, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    [signer.to_owned(), format!("{domain}/*")].iter().any(|name| {
        let attributes = Attributes {
            group: "certificates.k8s.io",
            resource: "signers",
            name,
            ..Attributes::resource(request.user, verb)
        };
        request.cluster.decide(&attributes).allowed
    })
}

/// Approving needs the verb `approve` on the signer.
pub(crate) fn approval(request: &Request<'_>, _object: Option<&Tree>, old: Option<&Tree>) -> Result<(), Status> {
    let concerns = request.kind.id == id::CERTIFICATE_SIGNING_REQUEST && request.subresource == "approval";
    let Some(old) = old.filter(|_| concerns) else { return Ok(()) };
    let signer = old.str_at("spec.signerName");
    match may(request, "approve", signer) {
        true => Ok(()),
        false => Err(request.forbidden(format!("user not permitted to approve requests with signerName {signer:?}"))),
    }
}

/// Writing a certificate, or saying that there will be none, needs the verb `sign` on the signer.
pub(crate) fn signing(request: &Request<'_>, object: Option<&Tree>, old: Option<&Tree>) -> Result<(), Status> {
    if request.subresource != "status" {
        return Ok(());
    }
    let (Some(new), Some(old)) = (object, old) else { return Ok(()) };
    let changes = |path: &str| {
        let of = |tree: &Tree| tree.path(path).cloned().unwrap_or_default();
        !of(new).semantically_equal(&of(old))
    };
    let signer = old.str_at("spec.signerName");
    match request.kind.id {
        id::CERTIFICATE_SIGNING_REQUEST if changes("status.certificate") || changes("status.conditions") => {
            match may(request, "sign", signer) {
                true => Ok(()),
                false => {
                    Err(request.forbidden(format!("user not permitted to sign requests with signerName {signer:?}")))
                }
            }
        }
        id::POD_CERTIFICATE_REQUEST if changes("status") && !may(request, "sign", signer) => {
            let user = &request.user.name;
            let why = format!("User {user:?} is not permitted to \"sign\" for signer {signer:?}");
            let error = corten_object::FieldError::forbidden(&corten_tree::FieldPath::of("spec.signerName"), why);
            Err(Status::invalid(&request.kind.group, &request.kind.kind, request.name, &[error]))
        }
        _ => Ok(()),
    }
}

/// No client certificate of the API server's signer makes its owner a master.
pub(crate) fn subject(request: &Request<'_>, object: Option<&Tree>, _old: Option<&Tree>) -> Result<(), Status> {
    let concerns = request.is(id::CERTIFICATE_SIGNING_REQUEST) && request.operation == Operation::Create;
    let Some(new) = object.filter(|_| concerns) else { return Ok(()) };
    if new.str_at("spec.signerName") != "kubernetes.io/kube-apiserver-client" {
        return Ok(());
    }
    let text = base64::decode(new.str_at("spec.request")).unwrap_or_default();
    let block = pem_blocks(&String::from_utf8_lossy(&text)).into_iter().next();
    let parsed = block.and_then(|b| CertificateRequest::parse_unverified(&b.der).ok());
    let Some(parsed) = parsed else { return Ok(()) };
    match parsed.organizations.iter().any(|o| o == "system:masters") {
        true => {
            let why = "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
            Err(request.forbidden(why))
        }
        false => Ok(()),
    }
}

/// A signer's trust bundle needs the verb `attest` on the signer.
pub(crate) fn attest(request: &Request<'_>, object: Option<&Tree>, old: Option<&Tree>) -> Result<(), Status> {
    if !request.is(id::CLUSTER_TRUST_BUNDLE) || !request.writes() {
        return Ok(());
    }
    let Some(new) = object else { return Ok(()) };
    let signer = new.str_at("spec.signerName");
    let spec = |tree: &Tree| tree.get("spec").cloned().unwrap_or_default();
    if signer.is_empty() || old.is_some_and(|old| spec(old).semantically_equal(&spec(new))) {
        return Ok(());
    }
    match may(request, "attest", signer) {
        true => Ok(()),
        false => {
            let why = format!("user not permitted to attest for signerName {signer:?}");
            Err(request.forbidden(why))
        }
    }
}
