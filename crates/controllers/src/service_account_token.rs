//! Secrets with tokens of service accounts end with their account (`pkg/controller/serviceaccount/tokens_controller.go`).
//!
//! The API server fills them when they are written; one whose account is not there is deleted, also if it came before the account.

use corten_kinds::id;
use corten_object::{Object, ObjectKey};
use corten_tree::{Tree, json};

use crate::{Action, Changed, Controller, Key, Plan, Watch, World};

/// The controller. A key is that of an account, whether it is there or not.
pub struct TokenSecrets;

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

const WATCHES: &[Watch] = &[Watch::itself(id::SERVICE_ACCOUNT), Watch::by(id::SECRET, written)];

fn written(change: &Changed<'_>, out: &mut Vec<Key>) {
    let Some(secret) = change.new else { return };
    let tree = secret.to_tree();
    if tree.str_at("type") == TYPE {
        out.push(account_of(&tree));
    }
}

fn annotation<'t>(secret: &'t Tree, name: &str) -> &'t str {
    secret.at(&["metadata", "annotations", name]).and_then(Tree::as_str).unwrap_or_default()
}

fn account_of(secret: &Tree) -> ObjectKey {
    ObjectKey::new(id::SERVICE_ACCOUNT, secret.str_at("metadata.namespace"), annotation(secret, ACCOUNT))
}

/// Whether a Secret holds, or wants, a token of an account that is not there: none of this name, or another one.
fn orphaned(secret: &Object, account: &Key, found: Option<&Object>) -> bool {
    let Ok(tree) = json::parse(&secret.stored()) else { return false };
    let uid = annotation(&tree, ACCOUNT_UID);
    tree.str_at("type") == TYPE
        && account_of(&tree) == *account
        && !found.is_some_and(|found| uid.is_empty() || found.head.uid == uid)
}

impl Controller for TokenSecrets {
    fn name(&self) -> &'static str {
        "serviceaccount-token"
    }

    fn component(&self) -> &'static str {
        "serviceaccount-token-controller"
    }

    /// It has no account of its own: somebody has to make the first token.
    fn user(&self) -> String {
        String::from("system:kube-controller-manager")
    }

    fn watches(&self) -> &[Watch] {
        WATCHES
    }

    fn reconcile(&self, world: &World<'_>, key: &Key) -> Plan {
        let found = world.state.get(key).map(|account| &**account);
        let secrets = world.state.list_in(id::SECRET, &key.namespace);
        let orphans = secrets.filter(|secret| orphaned(secret, key, found));
        Plan::of(orphans.map(|secret| Action::delete(secret)).collect())
    }
}
