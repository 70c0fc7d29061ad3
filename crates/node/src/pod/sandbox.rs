//! The sandbox: volumes, namespaces, network, and the files in `/etc`.

use std::collections::BTreeMap;
use std::path::Path;

use corten_dns::{DnsPolicy, NodeDns, PodDnsConfig, ResolvConf, pod_resolv_conf};
use corten_kinds::id;
use corten_net::{AttachRequest, HostPort, Protocol};
use corten_object::ObjectKey;
use corten_podplan::resources::{QosClass, pod_cgroup};
use corten_podplan::{ObservedSandbox, hosts, huge_pages};
use corten_runtime::{IdRange, Resources, SandboxSpec, Share};
use corten_views::Pod;

use super::PodContext;
use crate::{labels, volumes};

/// Makes a pod's sandbox after taking the old one away.
pub async fn create(
    ctx: &PodContext,
    attempt: u32,
    replaces: Option<String>,
    hold: &crate::sources::Reader,
) -> Result<ObservedSandbox, String> {
    if let Some(old) = replaces {
        remove(ctx, &old).await?;
    }
    // A full disk shows here first (`FailedToMakePodDataDirectories`, whose text is this).
    if let Err(error) = std::fs::create_dir_all(ctx.dir().join("etc")) {
        let message = format!("error making pod data directories: {}: {error}", ctx.dir().display());
        ctx.event("", true, "Failed", &message);
        return Err(message);
    }
    if let Err(refused) = volumes::prepare(ctx, hold).await {
        let told = refused.into_iter().map(|(volume, error)| {
            let message = format!("MountVolume.SetUp failed for volume {volume:?} : {error}");
            ctx.event("", true, "FailedMount", &message);
            message
        });
        return Err(told.collect::<Vec<_>>().join("; "));
    }
    let outcome = make(ctx, attempt).await;
    if let Err(error) = &outcome {
        ctx.event("", true, "FailedCreatePodSandBox", format!("Failed to create pod sandbox: {error}"));
    }
    outcome
}

async fn make(ctx: &PodContext, attempt: u32) -> Result<ObservedSandbox, String> {
    let pod = &ctx.pod;
    check_runtime_class(ctx).await?;
    let users = users(ctx).await?;
    let spec = spec(ctx, attempt, users)?;
    let id = spec.id.clone();
    let made = ctx.shared.blocking(move |s| s.runtime.create_sandbox(&spec)).await?.map_err(|e| e.to_string())?;
    let mut ips = Vec::new();
    if let Some(netns) = made.netns {
        let request = AttachRequest { sandbox_id: id.clone(), netns, host_ports: host_ports(pod)?, ip: None };
        match ctx.shared.network.attach(request).await {
            Ok(address) => ips.push(address.ip.to_string()),
            Err(error) => {
                let left = remove(ctx, &id).await;
                if let Err(left) = left {
                    tracing::warn!(sandbox = id, error = left, "a sandbox without network could not be removed");
                }
                return Err(format!("plugin type=\"corten\" failed (add): {error}"));
            }
        }
    }
    write_etc(ctx, &ips)?;
    Ok(ObservedSandbox { id, attempt, ready: true, ips })
}

/// Whether this node has what the pod's RuntimeClass asks for (`pkg/kubelet/runtimeclass` `LookupRuntimeHandler`).
async fn check_runtime_class(ctx: &PodContext) -> Result<(), String> {
    let Some(name) = ctx.pod.spec.runtime_class_name.as_deref().filter(|name| !name.is_empty()) else { return Ok(()) };
    let key = ObjectKey::new(id::RUNTIME_CLASS, "", name);
    match ctx.shared.api.get(&key).await {
        Ok(class) => corten_podplan::runtime_class::check(class.to_tree().str_at("handler")),
        Err(status) if status.is_not_found() => Err(format!("runtimeclass.node.k8s.io {name:?} not found")),
        Err(status) => Err(format!("failed to lookup RuntimeClass {name}: {status}")),
    }
}

/// Whether a sandbox's id is one that [`spec`] gives to the pod with this uid.
pub fn is_of(id: &str, uid: &str) -> bool {
    let attempt = id.strip_prefix(uid).and_then(|rest| rest.strip_prefix('-'));
    attempt.is_some_and(|attempt| attempt.parse::<u32>().is_ok())
}

/// Takes one sandbox away, with its network.
pub async fn remove(ctx: &PodContext, id: &str) -> Result<(), String> {
    ctx.shared.network.detach(id).await.map_err(|e| e.to_string())?;
    let owned = id.to_owned();
    ctx.shared.blocking(move |s| s.runtime.remove_sandbox(&owned)).await?.map_err(|e| e.to_string())
}

/// Where a pod's cgroup is, as kubelet's driver names it.
pub fn cgroup(pod: &Pod) -> String {
    let uid = &pod.metadata.uid;
    match QosClass::of(pod) {
        QosClass::Guaranteed => format!("pod{uid}"),
        QosClass::Burstable => format!("burstable/pod{uid}"),
        QosClass::BestEffort => format!("besteffort/pod{uid}"),
    }
}

/// The pod's own users, if it is to have some. The message is upstream's, `userns_manager.go`.
async fn users(ctx: &PodContext) -> Result<Option<IdRange>, String> {
    if ctx.pod.spec.host_users != Some(false) {
        return Ok(None);
    }
    if !ctx.shared.facts.user_namespaces {
        return Err("can't set `spec.hostUsers: false`, runtime does not support user namespaces".into());
    }
    let (pods, uid) = (ctx.shared.config.pods_dir(), ctx.uid().to_owned());
    ctx.shared.blocking(move |s| s.users.of(&pods, &uid)).await?.map(Some)
}

fn spec(ctx: &PodContext, attempt: u32, users: Option<IdRange>) -> Result<SandboxSpec, String> {
    let pod = &ctx.pod;
    let meta = &pod.metadata;
    let values = pod_cgroup(pod);
    let share = |host: bool| if host { Share::Host } else { Share::Sandbox };
    let sysctls = pod.spec.security_context.iter().flat_map(|s| &s.sysctls);
    let mut sysctls: BTreeMap<String, String> = sysctls.map(|s| (s.name.replace('/', "."), s.value.clone())).collect();
    if !pod.spec.host_network {
        // containerd's defaults: ports below 1024 and ping need no capability.
        sysctls.entry("net.ipv4.ip_unprivileged_port_start".into()).or_insert_with(|| "0".into());
        sysctls.entry("net.ipv4.ping_group_range".into()).or_insert_with(|| "0 2147483647".into());
    }
    Ok(SandboxSpec {
        id: format!("{}-{attempt}", meta.uid),
        hostname: hosts::kernel_host_name(pod, &ctx.shared.config.cluster_domain)?,
        labels: BTreeMap::from([
            (labels::POD_UID.into(), meta.uid.clone()),
            (labels::POD_NAME.into(), meta.name.clone()),
            (labels::POD_NAMESPACE.into(), meta.namespace.clone()),
            (labels::ATTEMPT.into(), attempt.to_string()),
        ]),
        network: share(pod.spec.host_network),
        ipc: share(pod.spec.host_ipc),
        users,
        shared_pid: pod.spec.share_process_namespace == Some(true),
        sysctls,
        cgroup: cgroup(pod),
        resources: Resources {
            pids_max: ctx.shared.config.pod_pids_max,
            huge_pages: Some(huge_pages::of_pod(pod)),
            ..super::resize::resources(&values)
        },
    })
}

fn host_ports(pod: &Pod) -> Result<Vec<HostPort>, String> {
    let sidecars = pod.spec.init_containers.iter().filter(|c| c.is_sidecar());
    let ports = pod.spec.containers.iter().chain(sidecars).flat_map(|c| &c.ports).filter(|p| p.host_port > 0);
    ports
        .map(|p| {
            let number = |n: i32| u16::try_from(n).map_err(|_| format!("port {n} is out of range"));
            let host_ip = match p.host_ip.as_str() {
                "" | "0.0.0.0" => None,
                text => Some(text.parse().map_err(|_| format!("hostIP {text:?}: only IPv4 is supported so far"))?),
            };
            let protocol = match p.protocol.as_str() {
                "UDP" => Protocol::Udp,
                "SCTP" => Protocol::Sctp,
                _ => Protocol::Tcp,
            };
            Ok(HostPort {
                host_ip,
                host_port: number(p.host_port)?,
                container_port: number(p.container_port)?,
                protocol,
            })
        })
        .collect()
}

/// Writes `hosts`, `hostname` and `resolv.conf`.
fn write_etc(ctx: &PodContext, ips: &[String]) -> Result<(), String> {
    let (pod, config) = (&ctx.pod, &ctx.shared.config);
    let node_hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let (name, _) = hosts::host_name(pod, &config.cluster_domain);
    let host = corten_net::upstream_resolv_conf().unwrap_or_default();
    let policy = match pod.spec.dns_policy.as_str() {
        "Default" => DnsPolicy::Default,
        "None" => DnsPolicy::None,
        "ClusterFirstWithHostNet" => DnsPolicy::ClusterFirstWithHostNet,
        _ => DnsPolicy::ClusterFirst,
    };
    let dns = pod.spec.dns_config.as_ref().map(|c| PodDnsConfig {
        nameservers: c.nameservers.clone(),
        searches: c.searches.clone(),
        options: c.options.iter().map(|o| (o.name.clone(), o.value.clone())).collect(),
    });
    let node = NodeDns {
        cluster_dns: config.cluster_dns.iter().map(|ip| (*ip).into()).collect(),
        cluster_domain: config.cluster_domain.clone(),
        host: ResolvConf::parse(&host),
    };
    let namespace = &pod.metadata.namespace;
    let resolv = pod_resolv_conf(&node, policy, pod.spec.host_network, namespace, dns.as_ref());
    for (reason, message) in &resolv.warnings {
        ctx.event("", true, reason, message);
    }
    let etc = ctx.dir().join("etc");
    write(&etc.join("hosts"), &hosts::hosts_file(pod, &config.cluster_domain, ips, &node_hosts))?;
    write(&etc.join("hostname"), &format!("{name}\n"))?;
    write(&etc.join("resolv.conf"), &resolv.content)
}

fn write(path: &Path, content: &str) -> Result<(), String> {
    std::fs::write(path, content).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn sandbox_ids_name_their_pod() {
        for (id, uid, yes) in
            [("a-b-0", "a-b", true), ("a-b-12", "a-b", true), ("a-b-0", "a", false), ("ab-0", "a", false)]
        {
            assert_eq!(super::is_of(id, uid), yes, "{id} {uid}");
        }
    }
}
