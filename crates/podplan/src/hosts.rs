//! Host names and `/etc/hosts` (`pkg/kubelet/kubelet_pods.go`).

use std::fmt::Write;

use corten_views::Pod;

/// A pod's host name and its domain (empty: none).
pub fn host_name(pod: &Pod, cluster_domain: &str) -> (String, String) {
    if let Some(name) = &pod.spec.hostname_override {
        return (truncated(name), String::new());
    }
    let name = if pod.spec.hostname.is_empty() { &pod.metadata.name } else { &pod.spec.hostname };
    let domain = match pod.spec.subdomain.as_str() {
        "" => String::new(),
        subdomain => format!("{subdomain}.{}.svc.{cluster_domain}", pod.metadata.namespace),
    };
    (truncated(name), domain)
}

/// The name that the kernel is told: with `setHostnameAsFQDN` the full one, which must fit 64 characters.
pub fn kernel_host_name(pod: &Pod, cluster_domain: &str) -> Result<String, String> {
    let (name, domain) = host_name(pod, cluster_domain);
    if pod.spec.set_hostname_as_fqdn != Some(true) || domain.is_empty() {
        return Ok(name);
    }
    let full = format!("{name}.{domain}");
    if full.len() > 64 {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long (64 characters is the max, {} characters requested)",
            full.len()
        ));
    }
    Ok(full)
}

fn truncated(name: &str) -> String {
    if name.len() <= 63 { name.to_owned() } else { name[..63].trim_end_matches(['-', '.']).to_owned() }
}

/// Content of a pod's `/etc/hosts`; `node_file` is the node's own, for pods on the host's network.
pub fn hosts_file(pod: &Pod, cluster_domain: &str, pod_ips: &[String], node_file: &str) -> String {
    let mut out = String::new();
    if pod.spec.host_network {
        out.push_str("# Kubernetes-managed hosts file (host network).\n");
        out.push_str(node_file);
    } else {
        out.push_str("# Kubernetes-managed hosts file.\n");
        let fixed = [
            ("127.0.0.1", "localhost"),
            ("::1", "localhost ip6-localhost ip6-loopback"),
            ("fe00::0", "ip6-localnet"),
            ("fe00::0", "ip6-mcastprefix"),
            ("fe00::1", "ip6-allnodes"),
            ("fe00::2", "ip6-allrouters"),
        ];
        for (ip, names) in fixed {
            let _ = writeln!(out, "{ip}\t{names}");
        }
        let (name, domain) = host_name(pod, cluster_domain);
        for ip in pod_ips {
            let _ = match domain.as_str() {
                "" => writeln!(out, "{ip}\t{name}"),
                domain => writeln!(out, "{ip}\t{name}.{domain}\t{name}"),
            };
        }
    }
    if !pod.spec.host_aliases.is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
        for alias in &pod.spec.host_aliases {
            let _ = writeln!(out, "{}\t{}", alias.ip, alias.hostnames.join("\t"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_stateful_pods_file() {
        let pod: Pod = serde_json::from_str(
            r#"{"metadata":{"name":"web-0","namespace":"d"},"spec":{"hostname":"web-0","subdomain":"web","containers":[],
            "hostAliases":[{"ip":"1.2.3.4","hostnames":["a","b"]}]}}"#,
        )
        .unwrap();
        let file = hosts_file(&pod, "cluster.local", &["10.0.0.2".into()], "");
        expect![[r#"
            # Kubernetes-managed hosts file.
            127.0.0.1	localhost
            ::1	localhost ip6-localhost ip6-loopback
            fe00::0	ip6-localnet
            fe00::0	ip6-mcastprefix
            fe00::1	ip6-allnodes
            fe00::2	ip6-allrouters
            10.0.0.2	web-0.web.d.svc.cluster.local	web-0

            # Entries added by HostAliases.
            1.2.3.4	a	b
        "#]]
        .assert_eq(&file);
    }
}
