//! Tokens kept in Secrets (`kubernetes.io/service-account-token`), for those who still ask for them.
//!
//! Upstream's token controller fills such a Secret soon after its creation (`pkg/controller/serviceaccount/tokens_controller.go`);
//! here it is full from the start. The token is bound to the Secret: it is worth nothing once the Secret is gone.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use corten_auth::{BoundRef, Claims, KubernetesClaims};
use corten_kinds::{Kind, id};
use corten_object::{ObjectKey, Status};
use corten_tree::Tree;

use crate::core::Core;

const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// Such tokens have no end of their own; a hundred years, in seconds.
const LIFE_SECONDS: i64 = 100 * 365 * 24 * 3600;

impl Core {
    /// Fills a Secret that is to hold a token and does not.
    pub fn fill_token_secret(&self, stored: &Kind, secret: &mut Tree) -> Result<(), Status> {
        let wanted = stored.id == id::SECRET
            && secret.str_at("type") == "kubernetes.io/service-account-token"
            && secret.path("data.token").is_none();
        if !wanted {
            return Ok(());
        }
        let namespace = secret.str_at("metadata.namespace").to_owned();
        let name =
            secret.at(&["metadata", "annotations", ACCOUNT]).and_then(Tree::as_str).unwrap_or_default().to_owned();
        let Some(account) = self.cache.get(&ObjectKey::new(id::SERVICE_ACCOUNT, &namespace, &name)) else {
            return Ok(());
        };
        let uid = account.head.uid.to_string();
        let now = self.clock.now().as_second();
        let reference = |name: &str, uid: &str| BoundRef { name: name.into(), uid: uid.into() };
        let signer = self.authenticator.signer();
        let claims = Claims {
            sub: format!("system:serviceaccount:{namespace}:{name}"),
            aud: vec![signer.issuer().to_owned()],
            iat: now,
            nbf: now,
            exp: now + LIFE_SECONDS,
            kubernetes: KubernetesClaims {
                namespace: namespace.clone(),
                serviceaccount: reference(&name, &uid),
                secret: Some(reference(secret.str_at("metadata.name"), secret.str_at("metadata.uid"))),
                ..KubernetesClaims::default()
            },
            ..Claims::default()
        };
        let token = signer.sign(&claims).map_err(Status::internal)?;
        secret.make_map_at("metadata.annotations").insert(ACCOUNT_UID, uid);
        let data = secret.make_map_at("data");
        for (key, value) in
            [("ca.crt", self.material.ca_cert_pem.as_str()), ("namespace", &namespace), ("token", &token)]
        {
            data.insert(key, STANDARD.encode(value));
        }
        Ok(())
    }
}
