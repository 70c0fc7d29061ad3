//! Custom resources from one version to another by a webhook of their definition.
//!
//! Upstream: `apiextensions-apiserver/pkg/apiserver/conversion/webhook_converter.go`. Kinds whose versions all have the same fields,
//! and built-in ones, are converted in place and never come here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corten_kinds::Kind;
use corten_object::{Object, Status};
use corten_schema::{Options, UnknownFields, canonicalise};
use corten_tree::{Tree, json, tree};
use corten_webhook::ClientConfig;

use super::Request;
use crate::core::{Core, from_storage, is_at_version};

/// How long a conversion may take (`apiserver/pkg/util/webhook`, the client's default).
const TIMEOUT: Duration = Duration::from_secs(30);

/// Whether objects of a kind are converted by a webhook.
pub(crate) fn is_by_webhook(kind: &Kind) -> bool {
    kind.custom.as_ref().is_some_and(|custom| custom.webhook.is_some())
}

impl Core {
    /// An old object as a write sees it: at the storage version, or of a custom resource at the version of the request, as
    /// whose schema validates it.
    pub(super) async fn working_tree(&self, request: &Request<'_>, object: &Object) -> Result<Tree, Status> {
        let mut tree = object.to_tree();
        if is_by_webhook(request.kind) {
            return self.tree_at(request.kind, request.version, tree).await;
        }
        if request.kind.custom.is_some() && !is_at_version(request.kind, request.version) {
            from_storage(request.kind, request.version, &mut tree);
        }
        Ok(tree)
    }

    /// An old object as the request's version shows it: what patches work on.
    pub(super) async fn request_tree(&self, request: &Request<'_>, object: &Object) -> Result<Tree, Status> {
        if request.kind.custom.is_some() {
            return self.working_tree(request, object).await;
        }
        Ok(self.at_version(request.kind, request.version, object).unwrap_or_else(|| object.to_tree()))
    }

    /// The bytes at rest of a tree that was worked on.
    pub(super) async fn encode_at_rest(&self, stored: &Arc<Kind>, tree: &mut Tree) -> Result<Bytes, Status> {
        if !is_by_webhook(stored) {
            return self.encode(stored, tree);
        }
        let mut at_rest = self.tree_at(stored, &stored.versions[0], tree.clone()).await?;
        self.encode(stored, &mut at_rest)
    }

    /// Objects as they are shown at a version. Those of kinds without a webhook come back as they are.
    pub async fn objects_at(
        &self,
        kind: &Arc<Kind>,
        version: &str,
        objects: Vec<Arc<Object>>,
    ) -> Result<Vec<Arc<Object>>, Status> {
        if !is_by_webhook(kind) || objects.is_empty() {
            return Ok(objects);
        }
        let wanted = kind.gvk(version).api_version();
        let begins = format!("{{\"apiVersion\":{:?},", wanted);
        let other = |object: &Arc<Object>| !object.stored_begins_with(begins.as_bytes());
        let trees: Vec<Tree> = objects.iter().filter(|object| other(object)).map(|object| object.to_tree()).collect();
        let mut converted = self.converted(kind, version, trees).await?.into_iter();
        let place = |object: Arc<Object>| {
            if !other(&object) {
                return Ok(object);
            }
            let mut tree = converted.next().ok_or_else(|| Status::internal("a converted object is missing"))?;
            let json = self.encode(kind, &mut tree)?;
            let made = Object::parse(kind.id, json, object.head.revision, &kind.fact_paths);
            made.map(Arc::new).map_err(Status::internal)
        };
        objects.into_iter().map(place).collect()
    }

    /// A custom resource at a version; at that one already it comes back as it is.
    pub(super) async fn tree_at(&self, kind: &Arc<Kind>, version: &str, tree: Tree) -> Result<Tree, Status> {
        if tree.str_at("apiVersion") == kind.gvk(version).api_version() {
            return Ok(tree);
        }
        let mut converted = self.converted(kind, version, vec![tree]).await?;
        converted.pop().ok_or_else(|| Status::internal("a converted object is missing"))
    }

    /// Asks the webhook; the answer's objects, checked, with their metadata as it was.
    async fn converted(&self, kind: &Arc<Kind>, version: &str, trees: Vec<Tree>) -> Result<Vec<Tree>, Status> {
        let Some(webhook) = kind.custom.as_ref().and_then(|custom| custom.webhook.as_ref()) else { return Ok(trees) };
        if trees.is_empty() {
            return Ok(trees);
        }
        let from = trees[0].str_at("apiVersion").to_owned();
        let failed = |why: String| Status::internal(format!("conversion webhook for {from}, Kind={} {why}", kind.kind));
        let wanted = kind.gvk(version).api_version();
        let review = webhook.list_at("conversionReviewVersions").iter().filter_map(Tree::as_str);
        let review = review.into_iter().find(|v| matches!(*v, "v1" | "v1beta1"));
        let review = review.ok_or_else(|| Status::internal("no supported conversion review versions"))?;
        let uid = self.entropy.uid();
        let body = tree!({"kind": "ConversionReview", "apiVersion": (format!("apiextensions.k8s.io/{review}")),
            "request": {"uid": (uid.as_str()), "desiredAPIVersion": (wanted.as_str()), "objects": (Tree::List(trees.clone()))}});
        let config = webhook.path("clientConfig").cloned().unwrap_or_default();
        let config = ClientConfig::from_tree(&config).map_err(|why| failed(format!("failed: {why}")))?;
        let answer = self.caller.post(&config, TIMEOUT, Bytes::from(body.to_json())).await;
        let answer = answer.map_err(|why| failed(format!("failed: {why}")))?;
        let answer = json::parse(&answer).map_err(|why| failed(format!("failed: {}", why.message)))?;
        let objects = objects_of(&answer, review, &uid).map_err(|why| failed(format!("failed: {why}")))?;
        if objects.len() != trees.len() {
            return Err(failed(format!("returned {} objects, expected {}", objects.len(), trees.len())));
        }
        let ty = kind.type_of(version).ok_or_else(Status::no_such_resource)?;
        let options = Options { unknown: UnknownFields::Ignore, ..Options::default() };
        let mut out = Vec::with_capacity(trees.len());
        for (at, (before, after)) in trees.into_iter().zip(objects).enumerate() {
            let wrong = |why: String| failed(format!("returned invalid converted object at index {at}: {why}"));
            let after = checked(&before, after, &wanted).map_err(wrong)?;
            let decoded = canonicalise(&kind.schema, ty, &after, options).map_err(|why| wrong(why.to_string()))?;
            out.push(decoded.tree);
        }
        Ok(out)
    }
}

/// The objects in a ConversionReview's response.
fn objects_of(answer: &Tree, review: &str, uid: &str) -> Result<Vec<Tree>, String> {
    let expected = format!("apiextensions.k8s.io/{review}, Kind=ConversionReview");
    let found = format!("{}, Kind={}", answer.str_at("apiVersion"), answer.str_at("kind"));
    if review == "v1" && found != expected {
        return Err(format!("expected webhook response of {expected}, got {found}"));
    }
    let response = answer.path("response").ok_or("no response provided")?;
    if review == "v1" && response.str_at("uid") != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", response.str_at("uid")));
    }
    match (response.str_at("result.status"), response.str_at("result.message")) {
        ("Success", _) => Ok(response.list_at("convertedObjects").to_vec()),
        (status, "") => Err(format!("response.result.status was '{status}', not 'Success'")),
        (_, message) => Err(message.to_owned()),
    }
}

/// A converted object is the same one; of its metadata only labels and annotations are the webhook's to change.
/// (`validateConvertedObject`, `restoreObjectMeta`)
fn checked(before: &Tree, mut after: Tree, wanted: &str) -> Result<Tree, String> {
    if after.str_at("apiVersion") != wanted {
        let found = after.str_at("apiVersion");
        return Err(format!("invalid groupVersion (expected {wanted}, received {found})"));
    }
    if after.str_at("kind") != before.str_at("kind") {
        let (expected, found) = (before.str_at("kind"), after.str_at("kind"));
        return Err(format!("invalid kind (expected {expected}, received {found})"));
    }
    for (field, shown) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let path = format!("metadata.{field}");
        let (expected, found) = (before.str_at(&path), after.str_at(&path));
        if expected != found {
            return Err(format!("must have the same {shown}: {expected} != {found}"));
        }
    }
    if after.path("metadata").is_none() {
        return Err("missing metadata in converted object".into());
    }
    let mut metadata = before.path("metadata").cloned().unwrap_or_else(Tree::map);
    for field in ["labels", "annotations"] {
        match after.at(&["metadata", field]).filter(|value| !value.is_null()) {
            Some(value) => metadata.insert(field, value.clone()),
            None => drop(metadata.remove(field)),
        }
    }
    after.set("metadata", metadata);
    Ok(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_labels_and_annotations_are_the_webhooks_to_change() {
        let before = tree!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "a", "uid": "u", "generation": 3, "labels": {"x": "1"}}});
        let after = tree!({"apiVersion": "g/v2", "kind": "K", "metadata": {"name": "a", "uid": "u", "generation": 9,
            "finalizers": ["f"], "annotations": {"y": "2"}}, "spec": {"n": 1}});
        let made = checked(&before, after.clone(), "g/v2").unwrap();
        assert_eq!(
            made.get("metadata").unwrap().to_json_string(),
            r#"{"name":"a","uid":"u","generation":3,"annotations":{"y":"2"}}"#
        );
        assert_eq!(
            checked(&before, after.clone(), "g/v3").unwrap_err(),
            "invalid groupVersion (expected g/v3, received g/v2)"
        );
        let mut other = after;
        other.set("metadata.name", "b");
        assert_eq!(checked(&before, other, "g/v2").unwrap_err(), "must have the same name: a != b");
    }

    #[test]
    fn answers_are_checked() {
        let answer = |uid: &str, status: &str| {
            tree!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
                "response": {"uid": uid, "result": {"status": status}, "convertedObjects": [{"a": 1}]}})
        };
        assert_eq!(objects_of(&answer("u", "Success"), "v1", "u").unwrap().len(), 1);
        let wrong = objects_of(&answer("w", "Success"), "v1", "u").unwrap_err();
        assert_eq!(wrong, "expected response.uid=\"u\", got \"w\"");
        let failed = objects_of(&answer("u", "Failure"), "v1", "u").unwrap_err();
        assert_eq!(failed, "response.result.status was 'Failure', not 'Success'");
    }
}
