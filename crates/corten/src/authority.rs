//! What the certificate controllers are given: the API server's word on who may, and the CA's signature.

use std::sync::Arc;

use corten_apiserver::Server;
use corten_auth::{Attributes, Material, User};
use corten_base::Timestamp;
use corten_controllers::certificate_signing::Authority;
use corten_tree::Tree;

/// The authority of this process.
pub struct ClusterAuthority {
    /// Who may do what.
    pub server: Arc<Server>,
    /// The CA.
    pub material: Arc<Material>,
}

impl Authority for ClusterAuthority {
    fn may(&self, spec: &Tree, subresource: &str) -> bool {
        let texts = |list: &[Tree]| list.iter().filter_map(Tree::as_str).map(str::to_owned).collect();
        let extra = spec.map_at("extra");
        let user = User {
            name: spec.str_at("username").into(),
            uid: spec.str_at("uid").into(),
            groups: texts(spec.list_at("groups")),
            extra: extra.iter().map(|(k, v)| (k.to_owned(), texts(v.as_list().unwrap_or_default()))).collect(),
        };
        self.server.may(&Attributes {
            group: "certificates.k8s.io",
            resource: "certificatesigningrequests",
            subresource,
            ..Attributes::resource(&user, "create")
        })
    }

    fn sign(&self, request: &[u8], usages: &[String], seconds: i64, now: Timestamp) -> Result<String, String> {
        self.material.issuing.sign(request, usages, seconds, now)
    }
}
