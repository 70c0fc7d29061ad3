//! The built-in plugins that are on by default, in upstream's order.

use corten_object::Status;
use corten_tree::Tree;

use crate::{
    Request, certificates, declared_features, limits, namespace, node, node_restriction, pod, pod_resize, pod_security,
    runtime_class, service_account, storage,
};

type Mutate = fn(&Request<'_>, &mut Tree, Option<&Tree>) -> Result<(), Status>;
type Validate = fn(&Request<'_>, Option<&Tree>, Option<&Tree>) -> Result<(), Status>;

/// One plugin. Both functions see the object at the storage version; the second argument is the object, the third the old one.
pub(crate) struct Plugin {
    /// Upstream's name.
    pub name: &'static str,
    /// Changes an object that is to be created or updated.
    pub mutate: Option<Mutate>,
    /// Looks at every request; the object is `None` for a delete.
    pub validate: Option<Validate>,
}

const fn mutating(name: &'static str, mutate: Mutate) -> Plugin {
    Plugin { name, mutate: Some(mutate), validate: None }
}

const fn validating(name: &'static str, validate: Validate) -> Plugin {
    Plugin { name, mutate: None, validate: Some(validate) }
}

const fn both(name: &'static str, mutate: Mutate, validate: Validate) -> Plugin {
    Plugin { name, mutate: Some(mutate), validate: Some(validate) }
}

pub(crate) static PLUGINS: &[Plugin] = &[
    // Upstream's NamespaceLifecycle runs among the mutating ones, so that nobody is asked about a namespace that is not there.
    both("NamespaceLifecycle", namespace::lifecycle, namespace::immortal),
    both("LimitRanger", limits::mutate, limits::validate),
    both("ServiceAccount", service_account::mutate, service_account::validate),
    both("NodeRestriction", node_restriction::restrict, node_restriction::restrict_delete),
    mutating("TaintNodesByCondition", node::taint),
    validating("PodSecurity", pod_security::validate),
    both("Priority", pod::priority, pod::one_default_priority),
    mutating("DefaultTolerationSeconds", pod::default_tolerations),
    mutating("DefaultStorageClass", storage::default_class),
    mutating("StorageObjectInUseProtection", storage::protect),
    validating("PersistentVolumeClaimResize", storage::resize),
    both("RuntimeClass", runtime_class::mutate, runtime_class::validate),
    validating("CertificateApproval", certificates::approval),
    validating("CertificateSigning", certificates::signing),
    validating("ClusterTrustBundleAttest", certificates::attest),
    validating("CertificateSubjectRestriction", certificates::subject),
    mutating("DefaultIngressClass", storage::default_ingress_class),
    mutating("PodTopologyLabels", pod::topology_labels),
    validating("NodeDeclaredFeatureValidator", declared_features::validate),
    validating("PodResizeValidator", pod_resize::validate),
];

#[cfg(test)]
mod tests {
    use super::PLUGINS;

    /// `AllOrderedPlugins` without those that are off by default; NodeRestriction is on as every installer has it.
    const UPSTREAM: &[&str] = &[
        "NamespaceLifecycle",
        "LimitRanger",
        "ServiceAccount",
        "NodeRestriction",
        "TaintNodesByCondition",
        "PodSecurity",
        "Priority",
        "DefaultTolerationSeconds",
        "DefaultStorageClass",
        "StorageObjectInUseProtection",
        "PodGroupProtection",
        "PersistentVolumeClaimResize",
        "RuntimeClass",
        "CertificateApproval",
        "CertificateSigning",
        "ClusterTrustBundleAttest",
        "CertificateSubjectRestriction",
        "DefaultIngressClass",
        "PodTopologyLabels",
        "NodeDeclaredFeatureValidator",
        "PodResizeValidator",
    ];

    #[test]
    fn admission_plugins_are_in_upstreams_order() {
        let places: Vec<usize> = PLUGINS
            .iter()
            .map(|plugin| UPSTREAM.iter().position(|name| *name == plugin.name).expect(plugin.name))
            .collect();
        assert!(places.is_sorted_by(|a, b| a < b), "{places:?}");
    }
}
