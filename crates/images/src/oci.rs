//! The OCI image format's documents, as far as they are used here. Blobs are kept as they came; these are read from them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Digest;

pub(crate) const MEDIA_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MEDIA_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const MEDIA_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const MEDIA_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MEDIA_DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const MEDIA_DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// A layer that exists only as its unpacked directory, made on this machine: the built-in image's.
pub(crate) const MEDIA_DIRECTORY: &str = "application/vnd.corten.layer.directory";

/// Where other tools put an image's full name in an index, and where they put its tag (some: its name).
pub(crate) const NAME: &str = "io.containerd.image.name";
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Where this store keeps what a name resolved to in its registry: the digest of an index, if there is one.
pub(crate) const SOURCE: &str = "dev.corten.image.source";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor { media_type: media_type.into(), digest, size, platform: None, annotations: BTreeMap::new() }
    }

    pub(crate) fn is_index(&self) -> bool {
        self.media_type == MEDIA_INDEX || self.media_type == MEDIA_DOCKER_LIST
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub architecture: String,
    pub os: String,
}

impl Platform {
    pub(crate) fn is_here(&self) -> bool {
        self.os == "linux" && self.architecture == architecture()
    }
}

/// This machine's architecture in Go's words.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What a document of a registry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DocumentKind {
    Manifest,
    Index,
}

/// Tells a manifest from an index. A document that could be read as either is refused (CVE-2021-41190), as is what is older.
pub(crate) fn document_kind(bytes: &[u8], content_type: &str) -> Result<DocumentKind, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        #[serde(default)]
        schema_version: u32,
        #[serde(default)]
        media_type: String,
        #[serde(default)]
        fs_layers: Option<serde_json::Value>,
        #[serde(default)]
        config: Option<serde_json::Value>,
        #[serde(default)]
        layers: Option<serde_json::Value>,
        #[serde(default)]
        manifests: Option<serde_json::Value>,
    }
    let shape: Shape = serde_json::from_slice(bytes).map_err(|error| format!("invalid manifest: {error}"))?;
    if shape.schema_version == 1 || shape.fs_layers.is_some() {
        return Err(
            "media type \"application/vnd.docker.distribution.manifest.v1+prettyjws\" is no longer supported".into()
        );
    }
    if shape.schema_version != 2 {
        return Err(format!("invalid manifest: schemaVersion {}", shape.schema_version));
    }
    let kind = match (shape.manifests.is_some(), shape.layers.is_some() || shape.config.is_some()) {
        (true, false) => DocumentKind::Index,
        (false, true) => DocumentKind::Manifest,
        (true, true) => return Err("media-type conflict: the document is both a manifest and an index".into()),
        (false, false) => return Err("invalid manifest: neither layers nor manifests".into()),
    };
    for said in [shape.media_type.as_str(), content_type] {
        let other = match kind {
            DocumentKind::Index => [MEDIA_MANIFEST, MEDIA_DOCKER_MANIFEST],
            DocumentKind::Manifest => [MEDIA_INDEX, MEDIA_DOCKER_LIST],
        };
        if other.contains(&said) {
            return Err(format!("media-type conflict: the document is no {said}"));
        }
    }
    Ok(kind)
}

/// The manifest for this machine; what there is instead, if there is none.
pub(crate) fn choose(index: &Index) -> Result<Descriptor, String> {
    let here = index.manifests.iter().find(|m| m.platform.as_ref().is_some_and(Platform::is_here));
    let any = index.manifests.iter().find(|m| m.platform.is_none());
    here.or(any).cloned().ok_or_else(|| {
        let found = index.manifests.iter().filter_map(|m| m.platform.as_ref());
        found.map(|p| format!("{}/{}", p.os, p.architecture)).collect::<Vec<_>>().join(", ")
    })
}

/// Whether a configuration says how containers run. Other artifacts (charts, policies) have other configurations.
pub(crate) fn is_image_config(media_type: &str) -> bool {
    media_type.is_empty()
        || media_type == MEDIA_CONFIG
        || media_type == "application/vnd.docker.container.image.v1+json"
}

/// Whether a layer is an archive that is fetched. The type of layers that are made on this machine is never taken from others.
pub(crate) fn is_layer(media_type: &str) -> bool {
    let known = [
        "",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    ];
    let plain = media_type.split_once('+').map_or(media_type, |(plain, _)| plain);
    known.contains(&media_type) || plain == MEDIA_LAYER
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub schema_version: u32,
    #[serde(default)]
    pub media_type: String,
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
}

impl Default for Index {
    fn default() -> Index {
        Index { schema_version: 2, media_type: MEDIA_INDEX.into(), manifests: Vec::new() }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub schema_version: u32,
    #[serde(default)]
    pub media_type: String,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// The configuration blob.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ConfigFile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: ImageConfig,
    pub rootfs: RootFs,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RootFs {
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
}

/// How a container of an image runs, unless its pod says otherwise. The JSON form is the OCI configuration's `config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `user`, `uid`, `user:group` or `uid:gid`; empty: root.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub user: String,
    /// `8080/tcp` and the like.
    #[serde(skip_serializing_if = "Set::is_empty", deserialize_with = "null_is_default")]
    pub exposed_ports: Set,
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    /// Paths that are to be volumes of their own.
    #[serde(skip_serializing_if = "Set::is_empty", deserialize_with = "null_is_default")]
    pub volumes: Set,
    /// Empty: `/`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub working_dir: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// A signal's name or number; empty: SIGTERM.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub stop_signal: String,
}

/// A set, which Go writes as a map to empty objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, serde_json::Value>", into = "BTreeMap<String, serde_json::Value>")]
pub struct Set(pub Vec<String>);

impl Set {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<BTreeMap<String, serde_json::Value>> for Set {
    fn from(map: BTreeMap<String, serde_json::Value>) -> Set {
        Set(map.into_keys().collect())
    }
}

impl From<Set> for BTreeMap<String, serde_json::Value> {
    fn from(set: Set) -> BTreeMap<String, serde_json::Value> {
        set.0.into_iter().map(|key| (key, serde_json::json!({}))).collect()
    }
}

/// Go writes nil slices and maps as null.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// One image of a docker archive's `manifest.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerImage {
    pub config: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub layers: Vec<String>,
}
