//! A container's environment, command and arguments (`makeEnvironmentVariables`, `pkg/kubelet/envvars`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use corten_views::container::KeySelector;
use corten_views::{ConfigMap, Container, Pod, Secret, Service};

use crate::downward::{self, Facts};

/// Objects that a pod refers to, in its namespace. Absent means that the object does not exist.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Config maps by name.
    pub config_maps: HashMap<String, Arc<ConfigMap>>,
    /// Secrets by name, their values decoded from base64.
    pub secrets: HashMap<String, Arc<BTreeMap<String, Vec<u8>>>>,
    /// Service account tokens by audience and lifetime in seconds.
    pub tokens: HashMap<(String, i64), String>,
    /// All trust bundles of the cluster, for pods that mount some.
    pub trust_bundles: Vec<Arc<TrustBundle>>,
    /// The pod's certificates by volume and place among the volume's sources.
    pub certificates: HashMap<(String, usize), Credential>,
    /// All services that may matter: the namespace's own, and `default/kubernetes`.
    pub services: Vec<Arc<Service>>,
    /// Contents of the files that `fileKeyRef`s name, by volume and path, or why they cannot be read.
    pub files: HashMap<(String, String), Result<String, String>>,
    /// What the node knows.
    pub facts: Facts,
}

/// A ClusterTrustBundle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustBundle {
    /// Its name.
    pub name: String,
    /// Its signer; empty for one without.
    pub signer: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Certificates in PEM.
    pub text: String,
}

/// A private key and the certificates for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The key (PKCS#8) in PEM.
    pub key: String,
    /// The chain, leaf first, in PEM.
    pub chain: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({} bytes of certificates)", self.chain.len())
    }
}

/// A secret's values, decoded.
pub fn decode_secret(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    secret.data.iter().map(|(key, value)| (key.clone(), base64(value))).collect()
}

/// Standard base64; what is not base64 ends the value.
pub fn base64(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'\n' | b'\r' => continue,
            _ => break,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    out
}

/// Why an environment cannot be made: upstream's `CreateContainerConfigError` with this message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EnvError(pub String);

/// The environment in the order: service variables, `envFrom`, `env`; names are unique, the last value wins.
pub fn environment(pod: &Pod, container: &Container, sources: &Sources) -> Result<Vec<(String, String)>, EnvError> {
    let service_vars = service_variables(pod, &sources.services);
    let mut own: BTreeMap<String, String> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut put = |own: &mut BTreeMap<String, String>, name: String, value: String| {
        if own.insert(name.clone(), value).is_none() {
            order.push(name);
        }
    };
    for from in &container.env_from {
        for (key, value) in env_from(pod, from, sources)? {
            put(&mut own, format!("{}{key}", from.prefix), value);
        }
    }
    for var in &container.env {
        let value = if !var.value.is_empty() {
            let look = |name: &str| own.get(name).or_else(|| service_vars.get(name)).map(String::as_str);
            expand(&var.value, look)
        } else if let Some(source) = &var.value_from {
            match value_from(pod, container, source, sources)? {
                Some(value) => value,
                None => continue,
            }
        } else {
            String::new()
        };
        put(&mut own, var.name.clone(), value);
    }
    let services = service_vars.iter().filter(|(name, _)| !own.contains_key(*name));
    let mut out: Vec<(String, String)> = services.map(|(n, v)| (n.clone(), v.clone())).collect();
    out.extend(order.into_iter().map(|name| {
        let value = own.remove(&name).unwrap_or_default();
        (name, value)
    }));
    Ok(out)
}

fn missing(kind: &str, name: &str) -> EnvError {
    EnvError(format!("{kind} {name:?} not found"))
}

/// A secret's value as a variable. One that is no text would not arrive as it is (CRI's variables are text, too).
fn text(pod: &Pod, secret: &str, key: &str, value: &[u8]) -> Result<String, EnvError> {
    let text = std::str::from_utf8(value).map(str::to_owned);
    let namespace = &pod.metadata.namespace;
    text.map_err(|_| {
        EnvError(format!("key {key} in Secret {namespace}/{secret} is not UTF-8 text: it cannot be a variable"))
    })
}

fn env_from(
    pod: &Pod,
    from: &corten_views::container::EnvFromSource,
    sources: &Sources,
) -> Result<Vec<(String, String)>, EnvError> {
    if let Some(source) = &from.config_map_ref {
        return match sources.config_maps.get(&source.name) {
            Some(map) => Ok(map.data.iter().map(|(k, v)| (k.clone(), v.clone())).collect()),
            None if source.optional => Ok(Vec::new()),
            None => Err(missing("configmap", &source.name)),
        };
    }
    let Some(source) = &from.secret_ref else { return Ok(Vec::new()) };
    match sources.secrets.get(&source.name) {
        Some(values) => values.iter().map(|(k, v)| Ok((k.clone(), text(pod, &source.name, k, v)?))).collect(),
        None if source.optional => Ok(Vec::new()),
        None => Err(missing("secret", &source.name)),
    }
}

/// `None`: optional and not there.
fn value_from(
    pod: &Pod,
    container: &Container,
    source: &corten_views::container::EnvVarSource,
    sources: &Sources,
) -> Result<Option<String>, EnvError> {
    if let Some(selector) = &source.field_ref {
        return downward::field(pod, selector, &sources.facts).map(Some).map_err(EnvError);
    }
    if let Some(selector) = &source.resource_field_ref {
        return downward::resource(pod, Some(container), selector, &sources.facts).map(Some).map_err(EnvError);
    }
    let ns = &pod.metadata.namespace;
    let absent = |s: &KeySelector, kind: &str| match s.optional {
        true => Ok(None),
        false => Err(EnvError(format!("couldn't find key {} in {kind} {ns}/{}", s.key, s.name))),
    };
    if let Some(s) = &source.config_map_key_ref {
        return match sources.config_maps.get(&s.name) {
            None if s.optional => Ok(None),
            None => Err(missing("configmap", &s.name)),
            Some(map) => map.data.get(&s.key).map_or_else(|| absent(s, "ConfigMap"), |v| Ok(Some(v.clone()))),
        };
    }
    if let Some(s) = &source.secret_key_ref {
        return match sources.secrets.get(&s.name) {
            None if s.optional => Ok(None),
            None => Err(missing("secret", &s.name)),
            Some(values) => {
                values.get(&s.key).map_or_else(|| absent(s, "Secret"), |v| text(pod, &s.name, &s.key, v).map(Some))
            }
        };
    }
    let Some(s) = &source.file_key_ref else { return Ok(Some(String::new())) };
    if !pod.spec.volumes.iter().any(|v| v.name == s.volume_name) {
        return Err(EnvError(format!("cannot find the volume {:?} referenced by FileKeyRef", s.volume_name)));
    }
    let text = sources.files.get(&(s.volume_name.clone(), s.path.clone())).and_then(|f| f.as_ref().ok());
    let value = text.map(|text| crate::env_file::value(text, &s.key));
    match value {
        Some(Ok(value)) if !value.is_empty() => Ok(Some(value)),
        Some(Ok(_)) if s.optional => Ok(None),
        Some(Ok(_)) => Err(EnvError(format!("environment variable key {:?} not found in file {:?}", s.key, s.path))),
        Some(Err(_)) | None => Err(EnvError("couldn't parse env file".into())),
    }
}

/// The files of variables that a container's `fileKeyRef`s name: volume and path.
pub fn files(container: &Container) -> BTreeSet<(String, String)> {
    let sources = container.env.iter().filter_map(|v| v.value_from.as_ref()?.file_key_ref.as_ref());
    sources.map(|f| (f.volume_name.clone(), f.path.clone())).collect()
}

/// Names of config maps and of secrets that a pod refers to.
pub fn references(pod: &Pod) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    let spec = &pod.spec;
    for c in spec.containers.iter().chain(&spec.init_containers).chain(&spec.ephemeral_containers) {
        for from in &c.env_from {
            maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
            secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
        }
        for source in c.env.iter().filter_map(|v| v.value_from.as_ref()) {
            maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.clone()));
            secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.clone()));
        }
    }
    for volume in &spec.volumes {
        maps.extend(volume.config_map.as_ref().map(|v| v.name.clone()));
        secrets.extend(volume.secret.as_ref().map(|v| v.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|p| &p.sources) {
            maps.extend(source.config_map.as_ref().map(|v| v.name.clone()));
            secrets.extend(source.secret.as_ref().map(|v| v.name.clone()));
        }
    }
    secrets.extend(spec.image_pull_secrets.iter().map(|s| s.name.clone()));
    (maps, secrets)
}

/// Variables that tell where services are (`pkg/kubelet/envvars/envvars.go` `FromServices`).
fn service_variables(pod: &Pod, services: &[Arc<Service>]) -> BTreeMap<String, String> {
    let links = pod.spec.enable_service_links != Some(false);
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services.iter().filter(|s| !s.is_headless() && !s.spec.cluster_ip.is_empty()) {
        let meta = &service.metadata;
        if meta.namespace == "default" && meta.name == "kubernetes" {
            chosen.entry(&meta.name).or_insert(service);
        } else if links && meta.namespace == pod.metadata.namespace {
            chosen.insert(&meta.name, service);
        }
    }
    let mut out = BTreeMap::new();
    let upper = |name: &str| name.replace('-', "_").to_uppercase();
    for (name, service) in chosen {
        let (prefix, ip) = (upper(name), &service.spec.cluster_ip);
        let Some(first) = service.spec.ports.first() else { continue };
        out.insert(format!("{prefix}_SERVICE_HOST"), ip.clone());
        out.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
        for port in service.spec.ports.iter().filter(|p| !p.name.is_empty()) {
            out.insert(format!("{prefix}_SERVICE_PORT_{}", upper(&port.name)), port.port.to_string());
        }
        for (i, port) in service.spec.ports.iter().enumerate() {
            let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
            let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
            let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
            if i == 0 {
                out.insert(format!("{prefix}_PORT"), url.clone());
            }
            let one = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
            out.insert(one.clone(), url);
            out.insert(format!("{one}_PROTO"), protocol.to_lowercase());
            out.insert(format!("{one}_PORT"), port.port.to_string());
            out.insert(format!("{one}_ADDR"), ip.clone());
        }
    }
    out
}

/// Replaces `$(NAME)`; `$$` is a dollar sign; what cannot be looked up stays (`third_party/forked/golang/expansion`).
pub fn expand<'v>(text: &str, look: impl Fn(&str) -> Option<&'v str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = tail.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match look(name) {
                Some(value) => out.push_str(value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

/// What to run: the pod's command and arguments with variables expanded, else the image's.
pub fn command_line(
    container: &Container,
    env: &[(String, String)],
    image_entrypoint: &[String],
    image_cmd: &[String],
) -> Vec<String> {
    let look = |name: &str| env.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let expanded = |texts: &[String]| texts.iter().map(|t| expand(t, look)).collect::<Vec<_>>();
    let mut out = match (container.command.is_empty(), container.args.is_empty()) {
        (false, _) => expanded(&container.command),
        (true, _) => image_entrypoint.to_vec(),
    };
    match (container.command.is_empty(), container.args.is_empty()) {
        (_, false) => out.extend(expanded(&container.args)),
        (true, true) => out.extend_from_slice(image_cmd),
        (false, true) => {}
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn read<T: serde::de::DeserializeOwned>(text: &str) -> T {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn expansion() {
        let look = |name: &str| (name == "A").then_some("1");
        let rows = ["$(A)-$(B)-$$(A)-$A-$", "$$$(A)", "$(A", "$()x"];
        let out: Vec<String> = rows.iter().map(|t| expand(t, look)).collect();
        assert_eq!(out, ["1-$(B)-$(A)-$A-$", "$1", "$(A", "$()x"]);
        assert_eq!(base64("aGVsbG8="), b"hello");
    }

    #[test]
    fn sources_in_order() {
        let pod: Pod = read(r#"{"metadata":{"name":"p","namespace":"d"},"spec":{"containers":[]}}"#);
        let container: Container = read(
            r#"{"name":"c","envFrom":[{"prefix":"P_","configMapRef":{"name":"m"}},{"secretRef":{"name":"none","optional":true}}],
            "env":[{"name":"A","value":"$(P_k)/$(KUBERNETES_SERVICE_HOST)"},{"name":"S","valueFrom":{"secretKeyRef":{"name":"s","key":"k"}}},
            {"name":"O","valueFrom":{"configMapKeyRef":{"name":"m","key":"no","optional":true}}},
            {"name":"F","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}},{"name":"P_k","value":"new"}]}"#,
        );
        let mut sources = Sources::default();
        sources.config_maps.insert("m".into(), Arc::new(read(r#"{"data":{"k":"v"}}"#)));
        sources.secrets.insert("s".into(), Arc::new(BTreeMap::from([("k".into(), b"secret".to_vec())])));
        sources.services.push(Arc::new(read(
            r#"{"metadata":{"name":"kubernetes","namespace":"default"},"spec":{"clusterIP":"10.96.0.1","ports":[{"name":"https","port":443,"protocol":"TCP"}]}}"#,
        )));
        let env = environment(&pod, &container, &sources).unwrap();
        let text: Vec<String> = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        expect![[r#"
            KUBERNETES_PORT=tcp://10.96.0.1:443
            KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443
            KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1
            KUBERNETES_PORT_443_TCP_PORT=443
            KUBERNETES_PORT_443_TCP_PROTO=tcp
            KUBERNETES_SERVICE_HOST=10.96.0.1
            KUBERNETES_SERVICE_PORT=443
            KUBERNETES_SERVICE_PORT_HTTPS=443
            P_k=new
            A=v/10.96.0.1
            S=secret
            F=p"#]]
        .assert_eq(&text.join("\n"));
        sources.secrets.insert("s".into(), Arc::new(BTreeMap::from([("k".into(), vec![0xff, 0xfe])])));
        let error = environment(&pod, &container, &sources).unwrap_err().0;
        assert_eq!(error, "key k in Secret d/s is not UTF-8 text: it cannot be a variable");
        sources.secrets.clear();
        assert_eq!(environment(&pod, &container, &sources).unwrap_err().0, "secret \"s\" not found");
    }

    #[test]
    fn command_lines() {
        let line = |json: &str| {
            let container: Container = read(json);
            command_line(&container, &[("A".into(), "1".into())], &["entry".into()], &["cmd".into()]).join(" ")
        };
        assert_eq!(line(r#"{}"#), "entry cmd");
        assert_eq!(line(r#"{"args":["$(A)"]}"#), "entry 1");
        assert_eq!(line(r#"{"command":["x"]}"#), "x");
        assert_eq!(line(r#"{"command":["x"],"args":["y"]}"#), "x y");
    }
}
