//! Every pod has a service account, and a token of it where it does not say no
//! (`plugin/pkg/admission/serviceaccount/admission.go`).

use corten_kinds::id;
use corten_object::{Object, ObjectKey, Status};
use corten_tree::{Tree, tree};

use crate::{Operation, Request};

const DEFAULT: &str = "default";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// A little more than an hour, by which the agent knows a token that it may extend (`WarnOnlyBoundTokenExpirationSeconds`).
const TOKEN_SECONDS: i64 = 3607;
/// Marks a pod that the agent runs from a file.
const MIRROR: &str = "kubernetes.io/config.mirror";

fn concerns(request: &Request<'_>) -> bool {
    request.operation == Operation::Create && request.is(id::POD)
}

/// Fills in the account, its pull secrets and its token.
pub(crate) fn mutate(request: &Request<'_>, pod: &mut Tree, _old: Option<&Tree>) -> Result<(), Status> {
    if !concerns(request) || pod.at(&["metadata", "annotations", MIRROR]).is_some() {
        return Ok(());
    }
    if pod.str_at("spec.serviceAccountName").is_empty() {
        let old_name = pod.str_at("spec.serviceAccount").to_owned();
        pod.set("spec.serviceAccountName", if old_name.is_empty() { DEFAULT.to_owned() } else { old_name });
    }
    let name = pod.str_at("spec.serviceAccountName").to_owned();
    pod.set("spec.serviceAccount", name.as_str());
    let account = account(request, &name)?;
    let account = account.to_tree();
    if pod.list_at("spec.imagePullSecrets").is_empty() && !account.list_at("imagePullSecrets").is_empty() {
        pod.set("spec.imagePullSecrets", Tree::List(account.list_at("imagePullSecrets").to_vec()));
    }
    let wanted = [pod.path("spec.automountServiceAccountToken"), account.path("automountServiceAccountToken")];
    if wanted.into_iter().flatten().next().and_then(Tree::as_bool).unwrap_or(true) {
        mount_token(request, pod);
    }
    Ok(())
}

fn account(request: &Request<'_>, name: &str) -> Result<std::sync::Arc<Object>, Status> {
    let key = ObjectKey::new(id::SERVICE_ACCOUNT, request.namespace, name);
    request.cluster.object(&key).ok_or_else(|| {
        let missing = // The lister says the singular.
        Status::not_found("", "serviceaccount", name);
        request.forbidden(format!("error looking up service account {}/{name}: {missing}", request.namespace))
    })
}

/// Adds the projected volume once, and its mount to every container that has none at the place.
fn mount_token(request: &Request<'_>, pod: &mut Tree) {
    let existing = pod.list_at("spec.volumes").iter().map(|v| v.str_at("name")).find(|n| n.starts_with(VOLUME_PREFIX));
    let (volume, is_new) = match existing {
        Some(name) => (name.to_owned(), false),
        None => (format!("{VOLUME_PREFIX}{}", request.entropy.suffix(5)), true),
    };
    let mut used = false;
    for list in ["initContainers", "containers"] {
        let containers = pod.get_mut("spec").and_then(|s| s.get_mut(list)).and_then(Tree::as_list_mut);
        for container in containers.into_iter().flatten() {
            if container.list_at("volumeMounts").iter().any(|m| m.str_at("mountPath") == MOUNT_PATH) {
                continue;
            }
            let mount = tree!({"name": (volume.as_str()), "readOnly": true, "mountPath": MOUNT_PATH});
            push(container, "volumeMounts", mount);
            used = true;
        }
    }
    if used && is_new {
        let spec = pod.make_map_at("spec");
        let mut holder = Tree::Map(std::mem::take(spec));
        push(&mut holder, "volumes", token_volume(&volume));
        *spec = std::mem::take(holder.make_map());
    }
}

fn push(tree: &mut Tree, key: &'static str, item: Tree) {
    match tree.get_mut(key).and_then(Tree::as_list_mut) {
        Some(list) => list.push(item),
        None => tree.insert(key, Tree::List(vec![item])),
    }
}

fn token_volume(name: &str) -> Tree {
    tree!({"name": name, "projected": {"sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
        ]}}
    ], "defaultMode": 420}})
}

/// The account must be there after all other plugins, too.
pub(crate) fn validate(request: &Request<'_>, pod: Option<&Tree>, _old: Option<&Tree>) -> Result<(), Status> {
    let Some(pod) = pod.filter(|_| concerns(request)) else { return Ok(()) };
    if pod.at(&["metadata", "annotations", MIRROR]).is_some() {
        return match pod.str_at("spec.serviceAccountName") {
            "" => Ok(()),
            _ => Err(request.forbidden("a mirror pod may not reference service accounts")),
        };
    }
    account(request, pod.str_at("spec.serviceAccountName")).map(drop)
}
