//! From a request's body to a canonical tree of the storage version.

use bytes::Bytes;
use corten_audit::trail;
use corten_kinds::Kind;
use corten_object::{FieldError, Status};
use corten_schema::{Options, Schema, TypeId, UnknownFields, canonicalise, decode_json, protobuf};
use corten_tree::{FieldPath, Tree, json};

use super::{Request, yaml};
use crate::core::{Core, is_at_version};

/// A body as it arrived.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Tree(Tree),
    Json(Bytes),
    Yaml(Bytes),
    Protobuf(Bytes),
}

/// The configuration of an apply, and its repeated fields.
pub(crate) fn apply_body(bytes: &[u8]) -> Result<(Tree, Vec<String>), Status> {
    let decoding = |why: String| Status::bad_request(format!("error decoding patch: {why}"));
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    let (tree, strict) = match first {
        Some(b'{') => corten_object::patch::document(bytes).map_err(|error| decoding(error.message))?,
        _ => {
            let yaml = yaml::parse(bytes).map_err(|status| decoding(status.message))?;
            (yaml.tree, yaml.strict.iter().map(|strict| yaml::converting(strict)).collect())
        }
    };
    match tree {
        Tree::Map(_) => Ok((tree, strict)),
        Tree::Null => Ok((Tree::map(), strict)),
        other => Err(decoding(format!(
            "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            other.type_name()
        ))),
    }
}

/// A decoded body.
pub(crate) struct Decoded {
    /// At the storage version of the stored kind (or of the subresource's own type).
    pub tree: Tree,
    pub warnings: Vec<String>,
}

impl Core {
    /// Decodes an object of the request's kind, checks its fields as the request wants, and converts it.
    pub fn decode(&self, request: &Request<'_>, body: Body) -> Result<Decoded, Status> {
        let kind = request.kind;
        let ty = kind.type_of(request.version).ok_or_else(Status::no_such_resource)?;
        let gvk = kind.gvk(request.version);
        let mut decoded = self.decode_only(request, body, (&kind.schema, ty), &gvk.api_version(), &gvk.kind)?;
        trail::request_object(&decoded.tree, || {
            let mut tree = decoded.tree.clone();
            // Upstream's decoder sets defaults.
            if is_at_version(kind, request.version) {
                kind.fill_defaults(&mut tree);
            }
            json::parse(&corten_schema::encode_json(&kind.schema, ty, &tree)).unwrap_or_default()
        });
        self.to_storage(kind, request.version, &mut decoded.tree)?;
        Ok(decoded)
    }

    /// Decodes a body of a type that is not the kind's own (Scale, Binding, reviews).
    pub fn decode_as(
        &self,
        request: &Request<'_>,
        body: Body,
        (schema, ty): (&Schema, TypeId),
        api_version: &str,
        kind: &str,
    ) -> Result<Decoded, Status> {
        let decoded = self.decode_only(request, body, (schema, ty), api_version, kind)?;
        trail::request_object(&decoded.tree, || {
            json::parse(&corten_schema::encode_json(schema, ty, &decoded.tree)).unwrap_or_default()
        });
        Ok(decoded)
    }

    fn decode_only(
        &self,
        request: &Request<'_>,
        body: Body,
        (schema, ty): (&Schema, TypeId),
        api_version: &str,
        kind: &str,
    ) -> Result<Decoded, Status> {
        let version = api_version.rsplit('/').next().unwrap_or(api_version);
        let ignore = request.options.field_validation == "Ignore";
        let unknown = if ignore { UnknownFields::Ignore } else { UnknownFields::Report };
        let options = Options { unknown, ..Options::default() };
        let bad = |e: corten_schema::DecodeError| request.undecodable(version, kind, e);
        let decoded = match body {
            Body::Json(bytes) => decode_json(schema, ty, &bytes, options).map_err(bad)?,
            Body::Yaml(bytes) => {
                let yaml = yaml::parse(&bytes)?;
                let mut decoded = canonicalise(schema, ty, &yaml.tree, options).map_err(bad)?;
                decoded.strict.splice(..0, yaml.strict.filter(|_| !ignore));
                decoded
            }
            Body::Tree(tree) => canonicalise(schema, ty, &tree, options).map_err(bad)?,
            Body::Protobuf(bytes) => self.decode_protobuf(&bytes, schema, ty)?,
        };
        let mut tree = decoded.tree;
        check_type(&tree, api_version, kind)?;
        tree.insert("apiVersion", api_version);
        tree.insert("kind", kind);
        let warnings = self.strictness(request, decoded.strict, version, kind)?;
        Ok(Decoded { tree, warnings })
    }

    /// Checks what a patch made, as upstream does: what is wrong with it is wrong with the field `patch`, whose value is
    /// `shown`. (`apiserver/pkg/endpoints/handlers/patch.go` `applyPatchToCurrentObject`)
    pub fn decode_patched(
        &self,
        request: &Request<'_>,
        ty: TypeId,
        patched: &Tree,
        strict: Vec<String>,
        shown: impl Fn() -> String,
    ) -> Result<Decoded, Status> {
        let unfit = |why: String| {
            let fault = FieldError::invalid_str(&FieldPath::of("patch"), &shown(), why);
            Status::invalid("", "", "", &[fault])
        };
        let ignore = request.options.field_validation == "Ignore";
        let unknown = if ignore { UnknownFields::Ignore } else { UnknownFields::Report };
        let options = Options { unknown, ..Options::default() };
        let decoded =
            canonicalise(&request.kind.schema, ty, patched, options).map_err(|error| unfit(error.to_string()))?;
        let gvk = request.kind.gvk(request.version);
        let mut tree = decoded.tree;
        check_type(&tree, &gvk.api_version(), &gvk.kind)?;
        tree.insert("apiVersion", gvk.api_version());
        tree.insert("kind", gvk.kind.as_str());
        let warnings = [strict, decoded.strict].concat();
        if request.options.field_validation == "Strict" && !warnings.is_empty() {
            return Err(unfit(format!("strict decoding error: {}", warnings.join(", "))));
        }
        self.to_storage(request.kind, request.version, &mut tree)?;
        Ok(Decoded { tree, warnings })
    }

    fn strictness(
        &self,
        request: &Request<'_>,
        found: Vec<String>,
        version: &str,
        kind: &str,
    ) -> Result<Vec<String>, Status> {
        match request.options.field_validation.as_str() {
            _ if found.is_empty() => Ok(found),
            "Strict" => {
                let why = format!("strict decoding error: {}", found.join(", "));
                Err(request.undecodable(version, kind, why))
            }
            _ => Ok(found.iter().flat_map(|text| yaml::warnings(text)).collect()),
        }
    }

    fn decode_protobuf(&self, bytes: &[u8], schema: &Schema, ty: TypeId) -> Result<corten_schema::Decoded, Status> {
        let bad = |e: protobuf::ProtobufError| Status::bad_request(e.to_string());
        let envelope = protobuf::Envelope::read(bytes).map_err(bad)?;
        let mut tree = protobuf::decode(schema, ty, envelope.raw).map_err(bad)?;
        if !envelope.api_version.is_empty() {
            tree.insert("apiVersion", envelope.api_version);
        }
        if !envelope.kind.is_empty() {
            tree.insert("kind", envelope.kind);
        }
        Ok(corten_schema::Decoded { tree, strict: Vec::new() })
    }

    /// DeleteOptions; their group is of no account.
    pub fn decode_delete_options(&self, body: Body) -> Result<Tree, Status> {
        let ty = self.schema.gvk("", "v1", "DeleteOptions").ok_or_else(Status::no_such_resource)?;
        let options = Options { unknown: UnknownFields::Ignore, ..Options::default() };
        let bad = |e: corten_schema::DecodeError| Status::bad_request(e.to_string());
        let tree = match body {
            Body::Json(bytes) => decode_json(self.schema, ty, &bytes, options).map_err(bad)?.tree,
            Body::Yaml(bytes) => canonicalise(self.schema, ty, &yaml::parse(&bytes)?.tree, options).map_err(bad)?.tree,
            Body::Tree(tree) => canonicalise(self.schema, ty, &tree, options).map_err(bad)?.tree,
            Body::Protobuf(bytes) => self.decode_protobuf(&bytes, self.schema, ty)?.tree,
        };
        match tree.str_at("kind") {
            "" | "DeleteOptions" => Ok(tree),
            _ => Err(Status::bad_request("decoded object cannot be converted to DeleteOptions")),
        }
    }

    /// Converts a tree of a served version to the storage version of the stored kind.
    pub fn to_storage(&self, kind: &std::sync::Arc<Kind>, version: &str, tree: &mut Tree) -> Result<(), Status> {
        let stored = self.stored(kind);
        // A custom resource is worked on at the version of the request, and converted when it is encoded.
        if kind.custom.is_some() || is_at_version(kind, version) {
            return Ok(());
        }
        if let Some(conversion) = kind.conversion(version) {
            (conversion.to_storage)(tree);
        }
        let gvk = stored.gvk(&stored.versions[0]);
        tree.set("apiVersion", gvk.api_version());
        tree.set("kind", gvk.kind);
        let ty = stored.type_of(&stored.versions[0]).ok_or_else(Status::no_such_resource)?;
        let options = Options { unknown: UnknownFields::Ignore, ..Options::default() };
        let decoded = canonicalise(&stored.schema, ty, tree, options).map_err(Status::internal)?;
        *tree = decoded.tree;
        Ok(())
    }

    /// The canonical bytes of a stored kind's tree, without resourceVersion.
    pub fn encode(&self, stored: &Kind, tree: &mut Tree) -> Result<Bytes, Status> {
        tree.remove("metadata.resourceVersion");
        let renamed = stored.custom.as_ref().is_some_and(|custom| custom.webhook.is_none());
        if renamed && tree.str_at("apiVersion") != stored.api_version() {
            stored.rename_version(tree, &stored.versions[0]);
        }
        let ty = stored.type_for(tree).ok_or_else(Status::no_such_resource)?;
        // These bytes stay for as long as the object does: without the room that they grew in.
        Ok(corten_schema::encode_json(&stored.schema, ty, tree).into_boxed_slice().into())
    }
}

/// The body's own apiVersion and kind, where it has them, must be the request's.
fn check_type(tree: &Tree, api_version: &str, kind: &str) -> Result<(), Status> {
    let (found_version, found_kind) = (tree.str_at("apiVersion"), tree.str_at("kind"));
    if !found_kind.is_empty() && found_kind != kind {
        return Err(Status::bad_request(format!(
            "the kind in the data ({found_kind}) does not match the expected kind ({kind})"
        )));
    }
    if !found_version.is_empty() && found_version != api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({found_version}) does not match the expected API version ({api_version})"
        )));
    }
    Ok(())
}
