//! What a pod's volumes are, and the contents of those that are made of API objects.

use corten_kinds::x509;
use corten_views::volume::{
    ClusterTrustBundleProjection, KeyToPath, PodCertificateProjection, Volume, VolumeProjection,
};
use corten_views::{Container, LabelSelector, Pod, Quantity};

use crate::downward;
use crate::env::{Sources, TrustBundle};
use crate::huge_pages;

/// What a volume is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum VolumeKind {
    /// An empty directory.
    EmptyDir {
        /// Where it is kept.
        medium: Medium,
        /// At most so many bytes.
        size_limit: Option<i64>,
    },
    /// A path of the node.
    HostPath {
        /// The path.
        path: String,
        /// `DirectoryOrCreate`, `File`, …; empty: no check.
        check: String,
    },
    /// Files from API objects; [`files`] computes them.
    Files,
    /// A persistent volume claim.
    Claim {
        /// Its name.
        name: String,
        /// Mounted read-only everywhere.
        read_only: bool,
    },
    /// The content of an image.
    Image {
        /// The image's name.
        reference: String,
        /// `Always`, `IfNotPresent`, `Never`.
        policy: String,
    },
}

/// What an empty directory is kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// The node's disk.
    Disk,
    /// Memory.
    Memory,
    /// Huge pages of so many bytes.
    HugePages(u64),
}

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Path inside the volume, without a leading slash.
    pub path: String,
    /// Its content.
    pub content: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// What a volume is; the error names a source that is not implemented.
pub fn kind(pod: &Pod, volume: &Volume) -> Result<VolumeKind, String> {
    if let Some(v) = &volume.empty_dir {
        let medium = match (v.medium.as_str(), huge_pages::of_medium(pod, &v.medium)?) {
            (_, Some(page_bytes)) => Medium::HugePages(page_bytes),
            ("", _) => Medium::Disk,
            ("Memory", _) => Medium::Memory,
            (other, _) => return Err(format!("unknown storage medium {other:?}")),
        };
        return Ok(VolumeKind::EmptyDir { medium, size_limit: v.size_limit.as_ref().map(Quantity::value) });
    }
    if let Some(v) = &volume.host_path {
        return Ok(VolumeKind::HostPath { path: v.path.clone(), check: v.r#type.clone().unwrap_or_default() });
    }
    if let Some(v) = &volume.persistent_volume_claim {
        return Ok(VolumeKind::Claim { name: v.claim_name.clone(), read_only: v.read_only });
    }
    if let Some(v) = &volume.image {
        return Ok(VolumeKind::Image { reference: v.reference.clone(), policy: v.pull_policy.clone() });
    }
    if volume.ephemeral.is_some() {
        return Ok(VolumeKind::Claim { name: format!("{}-{}", pod.metadata.name, volume.name), read_only: false });
    }
    if let Some(v) = &volume.csi {
        return Err(no_driver(&v.driver));
    }
    let files = volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some();
    match files {
        true => Ok(VolumeKind::Files),
        false => Err(format!("volume {:?} has no source that is implemented", volume.name)),
    }
}

/// Whether the containers use a volume as what it is, a file system or a block device
/// (`pkg/kubelet/volumemanager/populator` `createVolumeSpec`).
pub fn check_mode(pod: &Pod, volume: &str, block: bool) -> Result<(), String> {
    let all = || pod.spec.containers.iter().chain(&pod.spec.init_containers);
    let mounted = all().any(|c| c.volume_mounts.iter().any(|m| m.name == volume));
    let device = all().any(|c| c.volume_devices.iter().any(|d| d.name == volume));
    match (block, mounted, device) {
        (true, true, _) => Err(format!("volume {volume} has volumeMode Block, but is specified in volumeMounts")),
        (false, _, true) => {
            Err(format!("volume {volume} has volumeMode Filesystem, but is specified in volumeDevices"))
        }
        _ => Ok(()),
    }
}

/// Bytes of an emptyDir in memory: as many as its `sizeLimit` says, but no more than the pod may use, or the node gives to pods
/// (`pkg/volume/emptydir/empty_dir.go` `calculateEmptyDirMemorySize`).
pub fn memory_size(pod: &Pod, size_limit: Option<i64>, node: i64) -> i64 {
    let of = |c: &Container| c.resources.limits.get("memory").map_or(node, Quantity::value);
    let whole = pod.spec.resources.as_ref().and_then(|r| r.limits.get("memory")).map(Quantity::value);
    let sum = |all: &[Container]| all.iter().map(of).fold(0_i64, i64::saturating_add);
    let of_pod = whole
        .unwrap_or_else(|| sum(&pod.spec.containers).max(pod.spec.init_containers.iter().map(of).max().unwrap_or(0)));
    [Some(of_pod), size_limit].into_iter().flatten().filter(|b| *b > 0).fold(node, i64::min)
}

/// What a kubelet says while no such driver is registered with it (`pkg/volume/csi/csi_mounter.go` `SetUpAt`): here never one is.
pub fn no_driver(driver: &str) -> String {
    format!(
        "kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: driver name {driver} not found in the list of registered CSI drivers"
    )
}

/// The files of a volume of kind [`VolumeKind::Files`]. The error is the message of a `FailedMount` event.
pub fn files(pod: &Pod, volume: &Volume, sources: &Sources) -> Result<Vec<File>, String> {
    let mut out = Vec::new();
    let default = |mode: Option<i32>| mode.map_or(0o644, |m| m as u32);
    if let Some(v) = &volume.config_map {
        config_map(&mut out, sources, &v.name, &v.items, v.optional, default(v.default_mode))?;
    } else if let Some(v) = &volume.secret {
        secret(&mut out, sources, &v.secret_name, &v.items, v.optional, default(v.default_mode))?;
    } else if let Some(v) = &volume.downward_api {
        downward_api(&mut out, pod, sources, &v.items, default(v.default_mode))?;
    } else if let Some(v) = &volume.projected {
        for (place, source) in v.sources.iter().enumerate() {
            projection(&mut out, pod, sources, (source, &volume.name, place), default(v.default_mode))?;
        }
    }
    Ok(out)
}

fn projection(
    out: &mut Vec<File>,
    pod: &Pod,
    sources: &Sources,
    (source, volume, place): (&VolumeProjection, &str, usize),
    mode: u32,
) -> Result<(), String> {
    if let Some(v) = &source.config_map {
        config_map(out, sources, &v.name, &v.items, v.optional, mode)?;
    }
    if let Some(v) = &source.secret {
        secret(out, sources, &v.name, &v.items, v.optional, mode)?;
    }
    if let Some(v) = &source.downward_api {
        downward_api(out, pod, sources, &v.items, mode)?;
    }
    if let Some(v) = &source.service_account_token {
        let key = (v.audience.clone(), v.expiration_seconds.unwrap_or(3600));
        let token = sources.tokens.get(&key).ok_or_else(|| String::from("failed to fetch token"))?;
        out.push(File { path: v.path.clone(), content: token.clone().into_bytes(), mode: own_mode(pod, mode) });
    }
    if let Some(v) = &source.cluster_trust_bundle {
        let content = trust_anchors(v, sources)?.into_bytes();
        out.push(File { path: v.path.clone(), content, mode: own_mode(pod, mode) });
    }
    if let Some(v) = &source.pod_certificate {
        let found = sources.certificates.get(&(volume.to_owned(), place));
        let found = found.ok_or_else(|| String::from("credential bundle is not issued yet"))?;
        let bundle = format!("{}{}", found.key, found.chain);
        for (path, text) in
            [(&v.credential_bundle_path, &bundle), (&v.key_path, &found.key), (&v.certificate_chain_path, &found.chain)]
        {
            if !path.is_empty() {
                let content = text.clone().into_bytes();
                out.push(File { path: path.clone(), content, mode: own_mode(pod, mode) });
            }
        }
    }
    Ok(())
}

/// The mode of a file that is for its container's user alone, unless a group shares the volume
/// (`pkg/volume/projected/projected.go` `collectData`).
fn own_mode(pod: &Pod, mode: u32) -> u32 {
    let shared = pod.spec.security_context.as_ref().is_some_and(|s| s.fs_group.is_some());
    if shared || single_user(pod) { 0o600 } else { mode }
}

/// The certificates that a projection wants, each once (`pkg/kubelet/clustertrustbundle`).
fn trust_anchors(wanted: &ClusterTrustBundleProjection, sources: &Sources) -> Result<String, String> {
    let all = sources.trust_bundles.iter();
    let chosen: Vec<&str> = match (&wanted.name, &wanted.signer_name) {
        (Some(name), _) => {
            let found: Vec<&str> = all.filter(|b| b.name == *name).map(|b| b.text.as_str()).collect();
            if found.is_empty() && !wanted.optional {
                let missing = format!("clustertrustbundle.certificates.k8s.io {name:?} not found");
                return Err(format!("while getting ClusterTrustBundle: {missing}"));
            }
            found
        }
        (None, Some(signer)) => {
            // No selector selects nothing, an empty one everything.
            let selects = |b: &&std::sync::Arc<TrustBundle>| {
                b.signer == *signer && wanted.label_selector.as_ref().is_some_and(|s| selected(s, b))
            };
            let found: Vec<&str> = all.filter(selects).map(|b| b.text.as_str()).collect();
            if found.is_empty() && !wanted.optional {
                return Err("combination of signerName and labelSelector matched zero ClusterTrustBundles".into());
            }
            found
        }
        (None, None) => {
            return Err("ClusterTrustBundle projection requires either name or signerName to be set".into());
        }
    };
    let mut blocks: Vec<Vec<u8>> = chosen.into_iter().flat_map(x509::pem_blocks).map(|block| block.der).collect();
    // Nobody shall rely on an order.
    blocks.sort();
    blocks.dedup();
    Ok(blocks.iter().map(|der| x509::pem("CERTIFICATE", der)).collect())
}

fn selected(selector: &LabelSelector, bundle: &TrustBundle) -> bool {
    let exact = selector.match_labels.iter().all(|(key, value)| bundle.labels.get(key) == Some(value));
    exact
        && selector.match_expressions.iter().all(|e| {
            let value = bundle.labels.get(&e.key);
            let listed = value.is_some_and(|v| e.values.contains(v));
            match e.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// Whether a pod mounts trust bundles.
pub fn wants_trust_bundles(pod: &Pod) -> bool {
    let sources = pod.spec.volumes.iter().filter_map(|v| v.projected.as_ref()).flat_map(|p| &p.sources);
    sources.into_iter().any(|s| s.cluster_trust_bundle.is_some())
}

/// The certificates that a pod's volumes want: volume, place among its sources, and what is asked for.
pub fn certificates(pod: &Pod) -> Vec<(String, usize, PodCertificateProjection)> {
    let mut out = Vec::new();
    for volume in &pod.spec.volumes {
        let sources = volume.projected.iter().flat_map(|p| p.sources.iter().enumerate());
        let wanted = sources.filter_map(|(place, s)| Some((place, s.pod_certificate.clone()?)));
        out.extend(wanted.map(|(place, projection)| (volume.name.clone(), place, projection)));
    }
    out
}

/// Whether all containers run as one known user.
fn single_user(pod: &Pod) -> bool {
    let of_pod = pod.spec.security_context.as_ref().and_then(|s| s.run_as_user);
    let all = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    let mut users = all.map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(of_pod));
    let Some(first) = users.next().flatten() else { return false };
    users.all(|u| u == Some(first))
}

/// The user that owns files of a volume with a token, if all containers run as the same.
pub fn token_owner(pod: &Pod) -> Option<u32> {
    let of_pod = pod.spec.security_context.as_ref().and_then(|s| s.run_as_user);
    let own = pod.spec.containers.first().and_then(|c| c.security_context.as_ref()).and_then(|s| s.run_as_user);
    own.or(of_pod).filter(|_| single_user(pod)).and_then(|u| u32::try_from(u).ok())
}

/// Audience and lifetime in seconds of the tokens that a pod's volumes want.
pub fn tokens(pod: &Pod) -> Vec<(String, i64)> {
    let sources = pod.spec.volumes.iter().filter_map(|v| v.projected.as_ref()).flat_map(|p| &p.sources);
    let tokens = sources.filter_map(|s| s.service_account_token.as_ref());
    tokens.map(|t| (t.audience.clone(), t.expiration_seconds.unwrap_or(3600))).collect()
}

fn config_map(
    out: &mut Vec<File>,
    sources: &Sources,
    name: &str,
    items: &[KeyToPath],
    optional: bool,
    mode: u32,
) -> Result<(), String> {
    let Some(map) = sources.config_maps.get(name) else {
        return if optional { Ok(()) } else { Err(format!("configmap {name:?} not found")) };
    };
    let text = map.data.iter().map(|(k, v)| (k.as_str(), v.clone().into_bytes()));
    let all: Vec<(&str, Vec<u8>)> =
        text.chain(map.binary_data.iter().map(|(k, v)| (k.as_str(), crate::env::base64(v)))).collect();
    chosen(out, all, items, optional, mode, "configmap")
}

fn secret(
    out: &mut Vec<File>,
    sources: &Sources,
    name: &str,
    items: &[KeyToPath],
    optional: bool,
    mode: u32,
) -> Result<(), String> {
    let Some(values) = sources.secrets.get(name) else {
        return if optional { Ok(()) } else { Err(format!("secret {name:?} not found")) };
    };
    let all = values.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    chosen(out, all, items, optional, mode, "secret")
}

fn chosen(
    out: &mut Vec<File>,
    all: Vec<(&str, Vec<u8>)>,
    items: &[KeyToPath],
    optional: bool,
    mode: u32,
    kind: &str,
) -> Result<(), String> {
    if items.is_empty() {
        out.extend(all.into_iter().map(|(key, content)| File { path: key.into(), content, mode }));
        return Ok(());
    }
    for item in items {
        match all.iter().find(|(key, _)| *key == item.key) {
            Some((_, content)) => out.push(File {
                path: item.path.clone(),
                content: content.clone(),
                mode: item.mode.map_or(mode, |m| m as u32),
            }),
            None if optional => {}
            None => return Err(format!("{kind} references non-existent {kind} key: {}", item.key)),
        }
    }
    Ok(())
}

fn downward_api(
    out: &mut Vec<File>,
    pod: &Pod,
    sources: &Sources,
    items: &[corten_views::volume::DownwardApiVolumeFile],
    mode: u32,
) -> Result<(), String> {
    for item in items {
        let content = match (&item.field_ref, &item.resource_field_ref) {
            (Some(selector), _) => downward::field(pod, selector, &sources.facts)?,
            (None, Some(selector)) => downward::resource(pod, None, selector, &sources.facts)?,
            (None, None) => String::new(),
        };
        let mode = item.mode.map_or(mode, |m| m as u32);
        out.push(File { path: item.path.clone(), content: content.into_bytes(), mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_projected_volume() {
        let pod: Pod = serde_json::from_str(
            r#"{"metadata":{"name":"p","namespace":"d"},"spec":{"containers":[{"name":"c"}],"volumes":[{"name":"v","projected":{"defaultMode":420,
            "sources":[{"serviceAccountToken":{"path":"token","expirationSeconds":3607}},{"configMap":{"name":"ca","items":[{"key":"ca.crt","path":"ca.crt"}]}},
            {"downwardAPI":{"items":[{"path":"namespace","fieldRef":{"fieldPath":"metadata.namespace"}}]}}]}}]}}"#,
        )
        .unwrap();
        assert_eq!(tokens(&pod), [(String::new(), 3607)]);
        let mut sources = Sources::default();
        sources.tokens.insert((String::new(), 3607), "jwt".into());
        let volume = &pod.spec.volumes[0];
        assert_eq!(files(&pod, volume, &sources).unwrap_err(), "configmap \"ca\" not found");
        sources
            .config_maps
            .insert("ca".into(), Arc::new(serde_json::from_str(r#"{"data":{"ca.crt":"PEM"}}"#).unwrap()));
        let got: Vec<String> = files(&pod, volume, &sources)
            .unwrap()
            .iter()
            .map(|f| format!("{} {:o} {}", f.path, f.mode, String::from_utf8_lossy(&f.content)))
            .collect();
        assert_eq!(got, ["token 644 jwt", "ca.crt 644 PEM", "namespace 644 d"]);
    }

    #[test]
    fn empty_dir_in_memory_is_no_larger_than_the_pod() {
        let pod = |limits: &str| -> Pod {
            serde_json::from_str(&format!(
                r#"{{"spec":{{"containers":[{{"name":"a","resources":{{"limits":{limits}}}}},
                {{"name":"b","resources":{{"limits":{{"memory":"100"}}}}}}]}}}}"#
            ))
            .unwrap()
        };
        let limited = pod(r#"{"memory":"50"}"#);
        assert_eq!(memory_size(&limited, None, 1000), 150);
        assert_eq!(memory_size(&limited, Some(60), 1000), 60);
        assert_eq!(memory_size(&limited, Some(500), 1000), 150);
        assert_eq!(memory_size(&pod("{}"), None, 1000), 1000);
        assert_eq!(memory_size(&pod("{}"), Some(2000), 1000), 1000);
    }

    #[test]
    fn volume_mode_must_be_what_containers_use() {
        let pod: Pod = serde_json::from_str(
            r#"{"spec":{"containers":[{"name":"c","volumeMounts":[{"name":"m"}],"volumeDevices":[{"name":"d"}]}]}}"#,
        )
        .unwrap();
        assert_eq!(check_mode(&pod, "m", false), Ok(()));
        assert_eq!(check_mode(&pod, "d", true), Ok(()));
        assert_eq!(
            check_mode(&pod, "m", true).unwrap_err(),
            "volume m has volumeMode Block, but is specified in volumeMounts"
        );
        assert_eq!(
            check_mode(&pod, "d", false).unwrap_err(),
            "volume d has volumeMode Filesystem, but is specified in volumeDevices"
        );
    }

    #[test]
    fn cluster_trust_bundle_projection_chooses_by_name_or_by_signer_and_labels() {
        let bundle = |name: &str, signer: &str, alive: &str, der: &[u8]| {
            let labels = [("alive".to_owned(), alive.to_owned())].into();
            let text = x509::pem("CERTIFICATE", der);
            std::sync::Arc::new(TrustBundle { name: name.into(), signer: signer.into(), labels, text })
        };
        let sources = Sources {
            trust_bundles: vec![
                bundle("a", "s", "true", b"1"),
                bundle("b", "s", "true", b"1"),
                bundle("c", "s", "no", b"2"),
            ],
            ..Sources::default()
        };
        let anchors = |json: &str| {
            let projection: ClusterTrustBundleProjection = serde_json::from_str(json).unwrap();
            trust_anchors(&projection, &sources)
        };
        let one = x509::pem("CERTIFICATE", b"1");
        assert_eq!(anchors(r#"{"name":"a"}"#), Ok(one.clone()));
        assert_eq!(
            anchors(r#"{"name":"x"}"#).unwrap_err(),
            "while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io \"x\" not found"
        );
        assert_eq!(anchors(r#"{"name":"x","optional":true}"#), Ok(String::new()));
        assert_eq!(
            anchors(r#"{"signerName":"s","labelSelector":{"matchLabels":{"alive":"true"}}}"#),
            Ok(one.clone()),
            "each once"
        );
        assert_eq!(anchors(r#"{"signerName":"s","labelSelector":{}}"#).unwrap().matches("BEGIN").count(), 2);
        assert!(anchors(r#"{"signerName":"s"}"#).is_err(), "no selector selects nothing");
        assert_eq!(anchors(r#"{"signerName":"s","optional":true}"#), Ok(String::new()));
    }

    #[test]
    fn pod_certificate_projection_writes_key_and_chain() {
        let pod: Pod = serde_json::from_str(
            r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c"}],"volumes":[{"name":"v","projected":{"sources":[
                {"podCertificate":{"signerName":"a/b","keyType":"ED25519","credentialBundlePath":"all","keyPath":"key"}}]}}]}}"#,
        )
        .unwrap();
        let volume = &pod.spec.volumes[0];
        assert_eq!(files(&pod, volume, &Sources::default()).unwrap_err(), "credential bundle is not issued yet");
        let (name, place, _) = certificates(&pod).remove(0);
        let credential = crate::env::Credential { key: "K".into(), chain: "C".into() };
        let sources = Sources { certificates: [((name, place), credential)].into(), ..Sources::default() };
        let made = files(&pod, volume, &sources).unwrap();
        let shown: Vec<(&str, &[u8])> = made.iter().map(|f| (f.path.as_str(), f.content.as_slice())).collect();
        assert_eq!(shown, [("all", &b"KC"[..]), ("key", b"K")]);
    }
}
