//! Checks of the host before anything is done, as data for clear messages.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::nft::{self, Listed};
use crate::{Names, NetConfig, NetError, host, netns, pods, route, service};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Some traffic will not pass.
    Warning,
    /// Pods cannot be networked.
    Fatal,
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was found, one sentence.
    pub summary: String,
    /// What to do about it, one sentence.
    pub next_step: String,
}

fn finding(severity: Severity, summary: impl Into<String>, next_step: impl Into<String>) -> Finding {
    Finding { severity, summary: summary.into(), next_step: next_step.into() }
}

/// Looks at the host in the namespace that `config` names and tries the kernel's features in a namespace of its own,
/// which is gone afterwards; the host itself is not changed. The worst finding comes first. Blocks for some
/// milliseconds.
pub fn preflight(config: &NetConfig) -> Vec<Finding> {
    let names = match Names::new(&config.cluster) {
        Ok(names) => names,
        Err(error) => return vec![finding(Severity::Fatal, error.to_string(), "Choose another cluster name.")],
    };
    let mut findings = try_features(config, &names);
    let look = || Ok(look_at_host(config, &names));
    let seen = match &config.host_netns {
        Some(path) => netns::run_in(path, look),
        None => look(),
    };
    match seen {
        Ok(seen) => findings.extend(seen),
        Err(error) => findings.push(unreadable("the host's network namespace", &error)),
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

fn unreadable(what: &str, error: &dyn std::error::Error) -> Finding {
    finding(Severity::Warning, format!("Cannot look at {what}: {error}."), "Check the privileges of this process.")
}

/// Does in a throwaway namespace what the cluster will do on the host.
fn try_features(config: &NetConfig, names: &Names) -> Vec<Finding> {
    let outcome = netns::in_throwaway(|| {
        pods::try_links(names)
            .and_then(|()| pods::try_table(names, config))
            .and_then(|()| service::try_table(names, config))
    });
    let error = match outcome {
        Ok(Ok(())) => return Vec::new(),
        Ok(Err(error)) => error,
        Err(source) => NetError::kernel("make a network namespace", source),
    };
    let next_step = match error.errno() {
        Some(libc::EPERM | libc::EACCES) => "Run as root (or through sudo), with CAP_NET_ADMIN and CAP_SYS_ADMIN.",
        Some(libc::EOPNOTSUPP | libc::ENOENT | libc::EPROTONOSUPPORT) => {
            "Load the kernel modules with `modprobe -a veth bridge nf_tables nft_chain_nat nft_nat nft_masq nft_numgen \
             nft_fib_ipv4 nft_reject_ipv4 nft_ct nf_conntrack_netlink`, or boot a kernel that has them."
        }
        _ => "Check that the kernel has veth, bridge and nf_tables with NAT.",
    };
    vec![finding(Severity::Fatal, format!("The kernel refuses what pods need: {error}."), next_step)]
}

fn look_at_host(config: &NetConfig, names: &Names) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(look_at_forwarding(Path::new(host::IP_FORWARD)));
    match route::open().and_then(|mut socket| route::routes(&mut socket)) {
        Ok(routes) => findings.extend(overlaps(config, names, &routes)),
        Err(error) => findings.push(unreadable("the host's routes", &error)),
    }
    match nft::open().and_then(|mut socket| nft::list_chains(&mut socket)) {
        Ok(chains) => findings.extend(firewalls(config, &chains)),
        Err(error) => findings.push(unreadable("the host's firewall", &error)),
    }
    let legacy = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    if legacy.lines().any(|table| table == "filter") {
        findings.push(finding(
            Severity::Info,
            "Rules of iptables-legacy are loaded, which cannot be looked at.",
            "If pods cannot reach anything, look for a dropping FORWARD policy with `iptables-legacy -S FORWARD`.",
        ));
    }
    if config.host_netns.is_none() && Path::new(host::NETWORK_MANAGER).is_dir() {
        findings.push(finding(
            Severity::Info,
            "NetworkManager runs here; a file in /run/NetworkManager/conf.d tells it to leave pods' links alone.",
            "If it touches them nevertheless, run `nmcli general reload conf`.",
        ));
    }
    findings
}

fn look_at_forwarding(path: &Path) -> Option<Finding> {
    let on = fs::read_to_string(path).is_ok_and(|value| value.trim() == "1");
    let error = fs::OpenOptions::new().write(true).open(path).err().filter(|_| !on)?;
    let next_step = match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => "Mount /proc/sys writable, or set net.ipv4.ip_forward=1 from outside.",
        _ => "Run as root, or set it with `sysctl -w net.ipv4.ip_forward=1`.",
    };
    Some(finding(
        Severity::Fatal,
        format!("Forwarding of packets is off and cannot be switched on: {error}."),
        next_step,
    ))
}

/// Routes of others into our ranges: their traffic or ours would go astray.
fn overlaps(config: &NetConfig, names: &Names, routes: &[route::Listed]) -> Vec<Finding> {
    let ranges = [
        ("pod", config.cluster_cidr, "--cluster-cidr"),
        ("pod", config.pod_cidr, "--cluster-cidr"),
        ("service", config.service_cidr, "--service-cidr"),
    ];
    let mut findings: Vec<Finding> = Vec::new();
    for listed in routes.iter().filter(|route| route.prefix > 0 && !route.link.starts_with(&names.link_prefix())) {
        for (what, (network, prefix), option) in ranges {
            if !overlap((network, prefix), (listed.destination, listed.prefix)) {
                continue;
            }
            let found = finding(
                Severity::Warning,
                format!(
                    "The host's route {}/{} by {} overlaps the {what} range {network}/{prefix}.",
                    listed.destination, listed.prefix, listed.link
                ),
                format!("Choose another range with {option}."),
            );
            // The node's range lies in the cluster's: one of both is enough.
            if findings
                .last()
                .is_none_or(|last| last.next_step != found.next_step || last.summary[..20] != found.summary[..20])
            {
                findings.push(found);
            }
        }
    }
    findings
}

fn overlap(one: (Ipv4Addr, u8), other: (Ipv4Addr, u8)) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(one.1.min(other.1))).unwrap_or(0);
    u32::from(one.0) & mask == u32::from(other.0) & mask
}

const FORWARD: u32 = nft::Hook::Forward as u32;
const INPUT: u32 = nft::Hook::Input as u32;

/// Firewalls that drop what nobody accepts: an accept in our table does not override them.
fn firewalls(config: &NetConfig, chains: &[Listed]) -> Vec<Finding> {
    let (network, prefix) = config.cluster_cidr;
    let pods = format!("{network}/{prefix}");
    let mut findings = Vec::new();
    if chains.iter().any(|chain| chain.table == "firewalld") {
        findings.push(finding(
            Severity::Warning,
            "firewalld rejects packets of pods.",
            format!(
                "Run `firewall-cmd --permanent --zone=trusted --add-source={pods}` and `firewall-cmd --reload` (undo \
                 with --remove-source)."
            ),
        ));
    }
    let ufw = chains.iter().any(|chain| chain.chain.starts_with("ufw-"));
    let docker = chains.iter().any(|chain| chain.table == host::DOCKER_TABLE && chain.chain == host::DOCKER_CHAIN);
    let drops = |hook: u32| {
        let ours = |chain: &&Listed| !chain.table.starts_with("corten-") && chain.table != "firewalld";
        let closed = move |chain: &&Listed| chain.hook == Some((hook, libc::NF_DROP as u32));
        chains.iter().filter(ours).find(closed)
    };
    match (drops(FORWARD), drops(INPUT)) {
        (None, None) => {}
        (Some(_), _) | (_, Some(_)) if ufw => findings.push(finding(
            Severity::Warning,
            "ufw drops packets of pods.",
            format!("Run `ufw allow from {pods}`, `ufw route allow from {pods}` and `ufw route allow to {pods}`."),
        )),
        (forward, input) => {
            if docker && forward.is_some() {
                findings.push(finding(
                    Severity::Info,
                    "Docker drops forwarded packets; a rule for pods is put into its chain DOCKER-USER.",
                    "Nothing to do.",
                ));
            } else if let Some(chain) = forward {
                findings.push(finding(
                    Severity::Warning,
                    format!("Chain {} of the nftables table {} drops forwarded packets.", chain.chain, chain.table),
                    format!("Accept packets from and to {pods} in it."),
                ));
            }
            if let Some(chain) = input {
                findings.push(finding(
                    Severity::Warning,
                    format!("Chain {} of the nftables table {} drops packets to this host.", chain.chain, chain.table),
                    format!("Accept packets from {pods} in it: pods ask DNS and the API server on this host."),
                ));
            }
        }
    }
    findings
}

/// The resolv.conf content that pods and DNS forwarding should start from: systemd-resolved's upstream file where
/// `/etc/resolv.conf` only names its loopback stub. Empty where there is no such file.
///
/// # Errors
/// If the file is there and cannot be read.
pub fn upstream_resolv_conf() -> io::Result<String> {
    resolv_conf_of(Path::new("/etc/resolv.conf"), Path::new("/run/systemd/resolve/resolv.conf"))
}

fn resolv_conf_of(usual: &Path, upstream: &Path) -> io::Result<String> {
    let content = match fs::read_to_string(usual) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    let servers: Vec<&str> = content.lines().filter_map(|line| line.trim().strip_prefix("nameserver")).collect();
    let is_stub = |server: &&str| matches!(server.trim(), "127.0.0.53" | "127.0.0.54");
    if !servers.is_empty()
        && servers.iter().all(is_stub)
        && let Ok(better) = fs::read_to_string(upstream)
    {
        return Ok(better);
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> NetConfig {
        NetConfig {
            cluster: "test".to_owned(),
            pod_cidr: (Ipv4Addr::new(10, 244, 0, 0), 24),
            cluster_cidr: (Ipv4Addr::new(10, 244, 0, 0), 16),
            service_cidr: (Ipv4Addr::new(10, 96, 0, 0), 12),
            state_dir: "/nonexistent".into(),
            mtu: None,
            host_netns: None,
        }
    }

    #[test]
    fn stub_resolvers_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let (usual, upstream) = (dir.path().join("a"), dir.path().join("b"));
        assert_eq!(resolv_conf_of(&usual, &upstream).unwrap(), "");
        fs::write(&usual, "nameserver 127.0.0.53\noptions edns0\n").unwrap();
        assert_eq!(resolv_conf_of(&usual, &upstream).unwrap(), "nameserver 127.0.0.53\noptions edns0\n");
        fs::write(&upstream, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(resolv_conf_of(&usual, &upstream).unwrap(), "nameserver 192.0.2.1\n");
        fs::write(&usual, "nameserver 192.0.2.9\nnameserver 127.0.0.53\n").unwrap();
        assert_eq!(resolv_conf_of(&usual, &upstream).unwrap(), "nameserver 192.0.2.9\nnameserver 127.0.0.53\n");
    }

    #[test]
    fn foreign_routes_in_our_ranges() {
        let config = config();
        let names = Names::new("test").unwrap();
        let listed = |a, b, prefix, link: &str| route::Listed {
            destination: Ipv4Addr::new(a, b, 0, 0),
            prefix,
            link: link.to_owned(),
        };
        let routes = [
            listed(0, 0, 0, "eth0"),
            listed(192, 168, 24, "eth0"),
            listed(10, 244, 24, &names.node_link()),
            listed(10, 0, 8, "vpn0"),
        ];
        let summaries: Vec<String> =
            overlaps(&config, &names, &routes).into_iter().map(|finding| finding.summary).collect();
        assert_eq!(
            summaries,
            [
                "The host's route 10.0.0.0/8 by vpn0 overlaps the pod range 10.244.0.0/16.",
                "The host's route 10.0.0.0/8 by vpn0 overlaps the service range 10.96.0.0/12.",
            ]
        );
    }

    #[test]
    fn firewalls_are_named() {
        let chain = |table: &str, chain: &str, hook: Option<u32>| Listed {
            family: libc::AF_INET as u8,
            table: table.to_owned(),
            chain: chain.to_owned(),
            hook: hook.map(|hook| (hook, libc::NF_DROP as u32)),
        };
        let check = |chains: &[Listed], expected: &[&str]| {
            let found: Vec<String> = firewalls(&config(), chains).into_iter().map(|found| found.summary).collect();
            assert_eq!(found, expected);
        };
        check(&[chain("filter", "FORWARD", None)], &[]);
        check(&[chain("firewalld", "filter_FORWARD", None)], &["firewalld rejects packets of pods."]);
        let forward = chain("filter", "FORWARD", Some(FORWARD));
        let input = chain("filter", "INPUT", Some(INPUT));
        check(
            &[forward.clone(), chain("filter", "DOCKER-USER", None)],
            &["Docker drops forwarded packets; a rule for pods is put into its chain DOCKER-USER."],
        );
        check(
            &[forward.clone(), input.clone(), chain("filter", "ufw-user-input", None)],
            &["ufw drops packets of pods."],
        );
        check(
            &[forward, input],
            &[
                "Chain FORWARD of the nftables table filter drops forwarded packets.",
                "Chain INPUT of the nftables table filter drops packets to this host.",
            ],
        );
    }

    #[test]
    fn this_machine_has_what_pods_need() {
        let fatal: Vec<Finding> =
            preflight(&config()).into_iter().filter(|finding| finding.severity == Severity::Fatal).collect();
        assert_eq!(fatal, []);
    }

    #[test]
    fn forwarding_that_cannot_be_switched_on() {
        let missing = look_at_forwarding(Path::new("/nonexistent/ip_forward")).unwrap();
        assert_eq!(missing.severity, Severity::Fatal);
        assert!(look_at_forwarding(Path::new(host::IP_FORWARD)).is_none());
    }
}
