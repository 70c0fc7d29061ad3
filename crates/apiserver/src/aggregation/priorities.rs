//! Where groups and versions of this server stand in discovery (`cmd/kube-apiserver/app/aggregator.go`,
//! `pkg/controlplane/apiserver/aggregator.go` `DefaultGenericAPIServicePriorities`).

/// Group, its priority, and the priorities of its versions.
const PRIORITIES: &[(&str, i64, &[(&str, i64)])] = &[
    ("", 18000, &[("v1", 1)]),
    ("apps", 17800, &[("v1", 15)]),
    ("events.k8s.io", 17750, &[("v1", 15)]),
    ("authentication.k8s.io", 17700, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("authorization.k8s.io", 17600, &[("v1", 15)]),
    ("autoscaling", 17500, &[("v1", 15), ("v2", 30)]),
    ("batch", 17400, &[("v1", 15), ("v1beta1", 9)]),
    ("certificates.k8s.io", 17300, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("networking.k8s.io", 17200, &[("v1", 15), ("v1beta1", 9)]),
    ("policy", 17100, &[("v1", 15), ("v1beta1", 9)]),
    ("rbac.authorization.k8s.io", 17000, &[("v1", 15)]),
    ("storage.k8s.io", 16800, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("apiextensions.k8s.io", 16700, &[("v1", 15)]),
    ("admissionregistration.k8s.io", 16700, &[("v1", 15), ("v1beta1", 12), ("v1alpha1", 9)]),
    ("scheduling.k8s.io", 16600, &[("v1", 15), ("v1beta1", 9), ("v1alpha3", 3)]),
    ("coordination.k8s.io", 16500, &[("v1", 15), ("v1beta1", 13), ("v1alpha2", 12)]),
    ("node.k8s.io", 16300, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("resource.k8s.io", 16200, &[("v1", 21), ("v1beta2", 15), ("v1beta1", 9), ("v1alpha3", 1)]),
    ("discovery.k8s.io", 16200, &[("v1", 15), ("v1beta1", 12)]),
    ("flowcontrol.apiserver.k8s.io", 16100, &[("v1", 21), ("v1beta3", 18)]),
    ("internal.apiserver.k8s.io", 16000, &[("v1alpha1", 9)]),
    ("storagemigration.k8s.io", 15800, &[("v1", 15), ("v1beta1", 9)]),
    // An add-on's upstream: where its manifests put it.
    ("metrics.k8s.io", 100, &[("v1", 200), ("v1beta1", 100)]),
];

/// The group with which no APIService can compete (`kube-aggregator/pkg/apiserver/handler_discovery.go`).
const FIRST: (&str, (i64, i64)) = ("apiregistration.k8s.io", (20_001, 0));

/// The priorities of a definition's groups and versions (`crdregistration_controller.go`).
pub(super) const CUSTOM: (i64, i64) = (1000, 100);

/// The priorities of a built-in group and version that has an APIService.
pub(super) fn of(group: &str, version: &str) -> Option<(i64, i64)> {
    let (_, priority, versions) = PRIORITIES.iter().find(|(name, ..)| *name == group)?;
    versions.iter().find(|(name, _)| *name == version).map(|(_, of_version)| (*priority, *of_version))
}

/// The priorities of a group and version in discovery, where no APIService says otherwise.
pub(super) fn in_discovery(group: &str, version: &str) -> (i64, i64) {
    if group == FIRST.0 { FIRST.1 } else { of(group, version).unwrap_or(CUSTOM) }
}
