//! What the host must offer: root, kernel features, free ports. One clear sentence each, before anything is half done.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Least free space of the data directory's disk, in bytes.
const FREE_MIN_BYTES: u64 = 64 << 20;

/// Makes sure that this process is root: if not, it becomes `sudo` of itself.
///
/// # Errors
/// If it is not root and there is no sudo.
pub fn become_root() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let exe = std::env::current_exe().context("where is this program?")?;
    eprintln!("corten makes network namespaces, mounts and cgroups: continuing as root through sudo");
    let error = Command::new("sudo").arg("--preserve-env=KUBECONFIG").arg(exe).args(std::env::args_os().skip(1)).exec();
    bail!("this needs root, and sudo could not be started ({error}): run it as root")
}

/// The user who called, through sudo or directly: their home directory, uid and gid.
pub struct Caller {
    /// Home directory.
    pub home: PathBuf,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Caller {
    /// The user who called sudo, or the current one.
    pub fn find() -> Caller {
        let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u32>().ok());
        let uid = number("SUDO_UID").unwrap_or_else(|| rustix::process::getuid().as_raw());
        let gid = number("SUDO_GID").unwrap_or_else(|| rustix::process::getgid().as_raw());
        let under_sudo = number("SUDO_UID").is_some();
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|_| !under_sudo).or_else(|| home_of(uid));
        Caller { home: home.unwrap_or_else(|| PathBuf::from("/root")), uid, gid }
    }

    /// Gives a file to the caller.
    ///
    /// # Errors
    /// If the owner cannot be changed.
    pub fn own(&self, path: &Path) -> Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid)).with_context(|| path.display().to_string())
    }
}

fn home_of(uid: u32) -> Option<PathBuf> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let entry = passwd
        .lines()
        .map(|l| l.split(':').collect::<Vec<_>>())
        .find(|f| f.get(2) == Some(&uid.to_string().as_str()))?;
    entry.get(5).map(PathBuf::from)
}

/// Checks what a node needs of the kernel.
///
/// # Errors
/// One sentence with the next step for the first thing that is missing.
pub fn check_kernel() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("a node needs root: run `sudo corten …`, or use --disable-agent for an API server only");
    }
    let filesystems = fs::read_to_string("/proc/filesystems").context("/proc/filesystems: is /proc mounted?")?;
    if !filesystems.contains("overlay") && !modprobe("overlay") {
        bail!("the kernel has no overlayfs: load it with `modprobe overlay`, or boot a kernel that has it");
    }
    if !Path::new("/sys/fs/cgroup").is_dir() || fs::read_to_string("/proc/self/cgroup").unwrap_or_default().is_empty() {
        bail!("no cgroups: mount them below /sys/fs/cgroup (systemd does), then start again");
    }
    for namespace in ["net", "mnt", "pid", "uts", "ipc"] {
        if !Path::new("/proc/self/ns").join(namespace).exists() {
            bail!("the kernel has no {namespace} namespaces: boot a kernel with CONFIG_NAMESPACES");
        }
    }
    Ok(())
}

fn modprobe(module: &str) -> bool {
    Command::new("modprobe").arg(module).status().is_ok_and(|s| s.success())
}

/// Checks that a port can be listened on.
///
/// # Errors
/// If it is taken, naming the flag to change it.
pub fn check_port(address: IpAddr, port: u16) -> Result<()> {
    let address = SocketAddr::new(address, port);
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(e) => bail!("cannot listen on {address} ({e}): free the port, or choose another with --https-listen-port"),
    }
}

/// Checks that the data directory can be written and its disk is not full.
///
/// # Errors
/// If not, with the next step.
pub fn check_disk(data: &Path) -> Result<()> {
    fs::create_dir_all(data).with_context(|| format!("cannot make the data directory {}", data.display()))?;
    let stat = rustix::fs::statvfs(data).with_context(|| data.display().to_string())?;
    let free = stat.f_bavail * stat.f_frsize;
    if free < FREE_MIN_BYTES {
        bail!(
            "the disk of {} has only {} MiB free: free some space, or choose another place with --data-dir",
            data.display(),
            free >> 20
        );
    }
    Ok(())
}

/// Lets this process open as many files as it ever may: a node holds some for each of its containers, and the usual 1,024 are too few
/// for hundreds. Returns the soft and hard limit that were, for those who must not see the difference (as Go's runtime does it for
/// the kubelet and its children).
pub fn raise_open_files() -> (u64, u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let was = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: was.maximum, maximum: was.maximum }) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    (was.current.unwrap_or(u64::MAX), was.maximum.unwrap_or(u64::MAX))
}

/// The node's default name: the host's name in lower case, as the kubelet takes it.
pub fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}

/// The machine's address: that of the way out, else the first that is not loopback, else loopback.
pub fn node_ip() -> Ipv4Addr {
    // Connecting a datagram socket sends nothing; it only asks the routing table.
    let way_out = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9))?;
        socket.local_addr()
    });
    match way_out.map(|address| address.ip()) {
        Ok(IpAddr::V4(ip)) if !ip.is_loopback() && !ip.is_unspecified() => ip,
        _ => local_addresses().into_iter().find(|ip| !ip.is_loopback()).unwrap_or(Ipv4Addr::LOCALHOST),
    }
}

/// The machine's own addresses, from the kernel's table of local routes.
fn local_addresses() -> Vec<Ipv4Addr> {
    let trie = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let mut found: Vec<Ipv4Addr> = Vec::new();
    let mut last = None;
    for line in trie.lines() {
        if let Some(address) = line.trim().strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line.trim() == "/32 host LOCAL"
            && let Some(ip) = last.take()
            && !found.contains(&ip)
        {
            found.push(ip);
        }
    }
    found
}
