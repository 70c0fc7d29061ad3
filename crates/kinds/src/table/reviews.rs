//! The virtual kinds of `authentication.k8s.io` and `authorization.k8s.io`: a create that answers a question.

use crate::Column;
use crate::spec::{KindSpec, Verbs};

/// What reviews share.
const REVIEW: KindSpec = KindSpec {
    verbs: Verbs::CreateOnly,
    columns: &[Column::NAME, Column::CREATED_AT],
    served_by: Some("auth"),
    ..KindSpec::CLUSTER
};

/// `authentication.k8s.io/v1 TokenReview`
pub(crate) const TOKEN_REVIEW: KindSpec =
    KindSpec { group: "authentication.k8s.io", kind: "TokenReview", plural: "tokenreviews", ..REVIEW };

/// `authentication.k8s.io/v1 SelfSubjectReview`
pub(crate) const SELF_SUBJECT_REVIEW: KindSpec =
    KindSpec { group: "authentication.k8s.io", kind: "SelfSubjectReview", plural: "selfsubjectreviews", ..REVIEW };

/// `authorization.k8s.io/v1 LocalSubjectAccessReview`
pub(crate) const LOCAL_SUBJECT_ACCESS_REVIEW: KindSpec = KindSpec {
    group: "authorization.k8s.io",
    kind: "LocalSubjectAccessReview",
    plural: "localsubjectaccessreviews",
    scope: crate::Scope::Namespaced,
    ..REVIEW
};

/// `authorization.k8s.io/v1 SelfSubjectAccessReview`
pub(crate) const SELF_SUBJECT_ACCESS_REVIEW: KindSpec = KindSpec {
    group: "authorization.k8s.io",
    kind: "SelfSubjectAccessReview",
    plural: "selfsubjectaccessreviews",
    ..REVIEW
};

/// `authorization.k8s.io/v1 SelfSubjectRulesReview`
pub(crate) const SELF_SUBJECT_RULES_REVIEW: KindSpec = KindSpec {
    group: "authorization.k8s.io",
    kind: "SelfSubjectRulesReview",
    plural: "selfsubjectrulesreviews",
    ..REVIEW
};

/// `authorization.k8s.io/v1 SubjectAccessReview`
pub(crate) const SUBJECT_ACCESS_REVIEW: KindSpec =
    KindSpec { group: "authorization.k8s.io", kind: "SubjectAccessReview", plural: "subjectaccessreviews", ..REVIEW };
