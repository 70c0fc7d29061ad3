//! `cargo xtask vm`: a virtual machine with Debian's own kernel and cgroup v2 only, in software emulation, that runs one
//! command and gives its exit status. By default these are the tests of container runtime and node agent.
//!
//! The kernel comes from the package `linux-image-cloud-amd64`, fetched and unpacked below `target/vm` and never installed.
//! The root file system is made here: busybox, the kernel modules that nodes need, the program with the shared libraries
//! that it loads.

mod cpio;

use anyhow::{Context, Result, bail};
use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// What to run and in which machine.
#[derive(Debug, Clone, clap::Args)]
pub struct VmArgs {
    /// Memory of the machine in MiB.
    #[arg(long, default_value_t = 2048)]
    memory: u32,
    /// Processors of the machine.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Give up after so many seconds.
    #[arg(long, default_value_t = 1800)]
    timeout_seconds: u64,
    /// Take a file or directory of this machine along, as HOST or HOST:GUEST.
    #[arg(long = "file")]
    files: Vec<String>,
    /// The program (of this machine, taken along with its libraries) and its arguments. Without one: the tests of container
    /// runtime and node agent.
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

/// Kernel modules that a node uses, with what they depend on. Those that are built into the kernel, or that it does not
/// have, are left out; the program under test says what it misses.
const MODULES: &[&str] = &[
    "overlay",
    "veth",
    "bridge",
    "br_netfilter",
    "vxlan",
    "dummy",
    "tun",
    "nf_tables",
    "nf_conntrack",
    "nf_nat",
    "nft_chain_nat",
    "nft_ct",
    "nft_fib_inet",
    "nft_fib_ipv4",
    "nft_masq",
    "nft_nat",
    "nft_numgen",
    "nft_redir",
    "nft_reject_inet",
    "nft_reject_ipv4",
    "nf_conntrack_netlink",
    "virtio_rng",
    "loop",
    "quota_v2",
];

/// Printed by the guest as soon as it is ready.
const FIRST_WORD: &str = "vm: Linux ";
/// Printed by the guest as its last word.
const STATUS_MARK: &str = "corten-vm-status:";

/// Runs the machine and gives the guest's exit status.
pub fn run(args: &VmArgs) -> Result<u8> {
    let directory = workspace().join("target/vm");
    fs::create_dir_all(&directory)?;
    let qemu = program("qemu-system-x86_64", "qemu-system-x86")?;
    let busybox = program("busybox", "busybox-static")?;
    let kernel = kernel(&directory)?;
    let mut files = args.files.clone();
    let commands = if args.command.is_empty() {
        // A disk with quotas is made of it.
        files.push(format!("{}:/bin/mkfs.ext4", program("mkfs.ext4", "e2fsprogs")?.display()));
        // Where the tests of images look for it: the machine has no packages.
        let registry = corten_testkit::root().join("target/testkit/docker-registry/usr/bin/docker-registry");
        files.push(format!("{}:{}", corten_testkit::registry::program()?.display(), registry.display()));
        tests()?
    } else {
        vec![args.command.clone()]
    };
    let initramfs = directory.join("initramfs.cpio");
    build_initramfs(&initramfs, &kernel, &busybox, &commands, &files)?;
    boot(args, &qemu, &kernel.image, &initramfs)
}

fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// A program of this machine, installed from its Debian package when missing.
fn program(name: &str, package: &str) -> Result<PathBuf> {
    let find = || {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|d| d.join(name)).find(|p| p.is_file())
    };
    if let Some(path) = find() {
        return Ok(path);
    }
    eprintln!("vm: installing {package}, which has {name}");
    succeed(Command::new("apt-get").args(["install", "-y", "--no-install-recommends", package]))?;
    find().with_context(|| format!("{package} was installed, but {name} is not in PATH"))
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

struct Kernel {
    image: PathBuf,
    /// `lib/modules/VERSION`
    modules: PathBuf,
}

/// Debian's cloud kernel, unpacked below the directory; fetched once.
fn kernel(directory: &Path) -> Result<Kernel> {
    let root = directory.join("kernel");
    if let Some(kernel) = find_kernel(&root)? {
        return Ok(kernel);
    }
    // The package without a version in its name only depends on the current one.
    let depends =
        Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]).output().context("run apt-cache")?;
    let depends = String::from_utf8_lossy(&depends.stdout).into_owned();
    let package = depends.lines().find_map(|l| l.trim().strip_prefix("Depends: ")).context(
        "the package lists have no linux-image-cloud-amd64: this needs Debian's package sources (try `apt-get update`)",
    )?;
    eprintln!("vm: fetching {package}");
    succeed(Command::new("apt-get").args(["download", package]).current_dir(directory))?;
    let archive = fs::read_dir(directory)?
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "deb"))
        .context("apt-get download left no package file")?;
    succeed(Command::new("dpkg").arg("-x").arg(&archive).arg(&root))?;
    fs::remove_file(archive)?;
    find_kernel(&root)?.context("the kernel package has no vmlinuz or no modules")
}

fn find_kernel(root: &Path) -> Result<Option<Kernel>> {
    let first = |directory: PathBuf, prefix: &str| -> Option<PathBuf> {
        let entries = fs::read_dir(directory).ok()?.flatten();
        entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix)).map(|e| e.path()).next()
    };
    let modules = first(root.join("lib/modules"), "").or_else(|| first(root.join("usr/lib/modules"), ""));
    let (Some(image), Some(modules)) = (first(root.join("boot"), "vmlinuz-"), modules) else { return Ok(None) };
    if !modules.join("modules.dep").exists() {
        // Made at installation, which does not happen here.
        let base = root.join(if modules.starts_with(root.join("usr")) { "usr" } else { "" });
        let version = modules.file_name().context("the modules have no version")?;
        let depmod = program("depmod", "kmod").or_else(|_| Ok::<_, anyhow::Error>(PathBuf::from("/sbin/depmod")))?;
        succeed(Command::new(depmod).arg("-b").arg(base).arg(version))?;
    }
    Ok(Some(Kernel { image, modules }))
}

/// A test program that needs this machine: what talks to cgroups and network itself.
struct TestProgram {
    package: &'static str,
    test: &'static str,
    /// Tests that are left out, and why. All others run: what is new is tried here, too.
    without: &'static [(&'static str, &'static str)],
}

const TESTS: [TestProgram; 2] = [
    TestProgram {
        package: "corten-runtime",
        test: "containers",
        without: &[("figures", "it measures, and a measurement in emulation says nothing")],
    },
    TestProgram {
        package: "corten-node",
        test: "agent",
        without: &[
            (
                "log_line_without_end",
                "a line of 96 MiB, byte by byte, and nothing in it depends on cgroups or the kernel",
            ),
            ("image_pull_progress", "it waits for pauses that are the same everywhere"),
        ],
    },
];

/// The tests, built.
fn tests() -> Result<Vec<Vec<String>>> {
    let mut commands = Vec::new();
    for TestProgram { package, test, without } in &TESTS {
        eprintln!("vm: building the test {test} of {package}");
        let output = Command::new("cargo")
            .args(["test", "-p", package, "--test", test, "--no-run", "--message-format", "json"])
            .current_dir(workspace())
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            bail!("the test {test} of {package} does not build");
        }
        let executable = String::from_utf8(output.stdout)?
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["target"]["name"] == *test)
            .find_map(|message| message["executable"].as_str().map(str::to_string))
            .context("cargo did not name the test's executable")?;
        let skips = without.iter().flat_map(|(name, _)| ["--skip".to_owned(), (*name).to_owned()]);
        commands.push(std::iter::once(executable).chain(skips).collect());
    }
    Ok(commands)
}

fn build_initramfs(
    to: &Path,
    kernel: &Kernel,
    busybox: &Path,
    commands: &[Vec<String>],
    files: &[String],
) -> Result<()> {
    let mut archive = cpio::Writer::create(to)?;
    archive.file("init", INIT.as_bytes(), 0o755)?;
    archive.copy(busybox, "bin/busybox")?;
    // All of this moves to a tmpfs: the first root cannot be left by pivot_root.
    for directory in ["proc", "sys", "dev", "tmp", "run", "root", "etc", "var/tmp", "var/lib", "new"] {
        archive.directory(directory)?;
    }
    archive.copy(busybox, "payload/usr/bin/busybox")?;
    archive.copy(busybox, "payload/bin/busybox")?;
    archive.file("payload/init", SECOND_INIT.as_bytes(), 0o755)?;
    archive.file("payload/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", 0o644)?;
    archive.file("payload/etc/group", b"root:x:0:\n", 0o644)?;
    archive.file("payload/etc/hosts", b"127.0.0.1 localhost\n", 0o644)?;
    let mut order = String::new();
    for module in modules(&kernel.modules)? {
        let name = Path::new(&module).file_name().context("a module has no name")?.to_string_lossy().into_owned();
        let name = name.trim_end_matches(".xz").trim_end_matches(".zst").to_string();
        archive.file(&format!("payload/modules/{name}"), &module_bytes(&kernel.modules.join(&module))?, 0o644)?;
        order += &format!("{name}\n");
    }
    archive.file("payload/modules/order", order.as_bytes(), 0o644)?;
    let mut script = String::from("status=0\n");
    for command in commands {
        let (executable, arguments) = command.split_first().context("no command")?;
        let executable = fs::canonicalize(executable).with_context(|| format!("find {executable}"))?;
        // Under its own name, which some programs look at.
        let name = executable.file_name().context("the program has no name")?.to_string_lossy().into_owned();
        take_program(&mut archive, &executable, &format!("payload/vm/{name}"))?;
        let quoted: Vec<String> = arguments.iter().map(|a| format!("'{}'", a.replace('\'', "'\\''"))).collect();
        script += &format!("'/vm/{name}' {} || status=$?\n", quoted.join(" "));
    }
    archive.file("payload/vm-command", format!("{script}exit $status\n").as_bytes(), 0o755)?;
    for file in files {
        let (host, guest) = file.split_once(':').unwrap_or((file, file));
        take_tree(&mut archive, Path::new(host), &format!("payload/{}", guest.trim_start_matches('/')))?;
    }
    archive.finish()
}

/// A program and the shared libraries that it loads, at the paths where it looks for them.
fn take_program(archive: &mut cpio::Writer, from: &Path, to: &str) -> Result<()> {
    archive.copy(from, to)?;
    let listed = Command::new("ldd").arg(from).output().context("run ldd")?;
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        // `libc.so.6 => /lib/…/libc.so.6 (0x…)` or `/lib64/ld-linux-x86-64.so.2 (0x…)`; static programs list none.
        let path = line.split("=>").last().unwrap_or("").trim().split(' ').next().unwrap_or("");
        if path.starts_with('/') {
            archive.copy(&fs::canonicalize(path)?, &format!("payload{path}"))?;
        }
    }
    Ok(())
}

fn take_tree(archive: &mut cpio::Writer, host: &Path, guest: &str) -> Result<()> {
    if !host.is_dir() {
        return take_program(archive, host, guest);
    }
    archive.directory(guest)?;
    for entry in fs::read_dir(host)? {
        let entry = entry?;
        take_tree(archive, &entry.path(), &format!("{guest}/{}", entry.file_name().to_string_lossy()))?;
    }
    Ok(())
}

/// Paths of the modules below their directory, each after those that it needs.
fn modules(directory: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(directory.join("modules.dep"))?;
    let lines: Vec<(&str, Vec<&str>)> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (path, needs.split_whitespace().collect()))
        .collect();
    let (mut order, mut taken) = (Vec::new(), HashSet::new());
    for wanted in MODULES {
        let Some((path, needs)) = lines.iter().find(|(path, _)| module_name(path) == *wanted) else { continue };
        // `modules.dep` lists the nearest need first.
        for module in needs.iter().rev().chain([path]) {
            if taken.insert(*module) {
                order.push(module.to_string());
            }
        }
    }
    Ok(order)
}

fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

/// A module, unpacked where Debian compresses it.
fn module_bytes(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(path).with_context(|| format!("read {}", path.display())),
    };
    let output = Command::new(tool).arg("-dc").arg(path).output().with_context(|| format!("run {tool}"))?;
    if !output.status.success() {
        bail!("{tool} cannot unpack {}", path.display());
    }
    Ok(output.stdout)
}

const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mount -t tmpfs -o size=90%,mode=755 root /new
/bin/busybox cp -a /payload/. /new
/bin/busybox mkdir -p /new/proc /new/sys /new/dev /new/tmp /new/run /new/root /new/var/tmp /new/var/lib /new/bin /new/sbin
/bin/busybox rm -r /payload
exec /bin/busybox switch_root /new /init
"#;

const SECOND_INIT: &str = r#"#!/usr/bin/busybox sh
/usr/bin/busybox mount -t proc proc /proc
/usr/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin:/sbin HOME=/root CORTEN_TEST_STRICT=1 RUST_BACKTRACE=1
chmod 1777 /tmp /var/tmp
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
while read module; do insmod /modules/$module || echo "vm: no module $module"; done < /modules/order
truncate -s 1G /disk && losetup /dev/loop0 /disk && mke2fs -q /dev/loop0 && mount -t ext4 /dev/loop0 /var/tmp || echo "vm: no disk"
mkdir -p /var/tmp/tmp && chmod 1777 /var/tmp /var/tmp/tmp && mount --bind /var/tmp/tmp /tmp
mount --make-rshared /
echo "+cpu +memory +pids +io +cpuset +hugetlb" > /sys/fs/cgroup/cgroup.subtree_control
ip link set lo up
hostname corten-vm
echo 1 > /proc/sys/net/ipv4/ip_forward
echo "vm: Linux $(uname -r), up $(cut -d' ' -f1 /proc/uptime) s"
sh /vm-command < /dev/null
echo "corten-vm-status: $?"
sync
echo 1 > /proc/sys/kernel/sysrq
echo o > /proc/sysrq-trigger
exec sleep 60
"#;

/// Boots and prints the serial line until the machine is off.
fn boot(args: &VmArgs, qemu: &Path, kernel: &Path, initramfs: &Path) -> Result<u8> {
    let mut child = Command::new(qemu)
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-nographic", "-no-reboot", "-nic", "none"])
        .args(["-m", &args.memory.to_string(), "-smp", &args.cpus.to_string()])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all oops=panic"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start qemu")?;
    let output = child.stdout.take().context("qemu has no output")?;
    let (sender, receiver) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let (mut status, mut firmware) = (None, Some(Vec::new()));
        for line in BufReader::new(output).split(b'\n').map_while(std::result::Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_string();
            match line.split_once(STATUS_MARK) {
                Some((_, code)) => status = code.trim().parse::<u8>().ok(),
                None => match &mut firmware {
                    // What comes before our own first word matters only if that never comes.
                    Some(held) if !line.contains(FIRST_WORD) => held.push(line),
                    _ => {
                        firmware = None;
                        println!("{}", &line[line.find(FIRST_WORD).unwrap_or(0)..]);
                    }
                },
            }
        }
        firmware.into_iter().flatten().for_each(|line| println!("{line}"));
        // The machine is off when its output ends.
        let _ = sender.send(());
        status
    });
    let in_time = receiver.recv_timeout(Duration::from_secs(args.timeout_seconds)).is_ok();
    if !in_time {
        child.kill()?;
    }
    child.wait()?;
    let status = reader.join().ok().flatten();
    if !in_time {
        bail!("the machine was not done after {} s", args.timeout_seconds);
    }
    status.context("the machine went off without a status: see its output above")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test that was renamed would run again, unnoticed; and each reason is one.
    #[test]
    fn what_the_machine_leaves_out_exists() {
        for TestProgram { package, test, without } in &TESTS {
            let dir = workspace().join("crates").join(package.trim_start_matches("corten-")).join("tests").join(test);
            let text: String =
                fs::read_dir(dir).unwrap().map(|e| fs::read_to_string(e.unwrap().path()).unwrap()).collect();
            for (name, why) in *without {
                assert!(text.contains(&format!("fn {name}(")), "{package} has no test {name}");
                assert!(why.len() > 20, "{name}: {why}");
            }
        }
    }

    #[test]
    fn modules_come_after_their_needs() {
        let directory = std::env::temp_dir().join(format!("corten-modules-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let text = "kernel/net/vxlan.ko.xz: kernel/net/udp_tunnel.ko.xz kernel/net/ip6_udp_tunnel.ko.xz\n\
            kernel/fs/overlay.ko:\nkernel/net/br-netfilter.ko: kernel/net/bridge.ko kernel/net/stp.ko kernel/net/llc.ko\n\
            kernel/net/bridge.ko: kernel/net/stp.ko kernel/net/llc.ko\n";
        fs::write(directory.join("modules.dep"), text).unwrap();
        let order: Vec<String> = modules(&directory).unwrap().iter().map(|m| module_name(m)).collect();
        assert_eq!(order, ["overlay", "llc", "stp", "bridge", "br_netfilter", "ip6_udp_tunnel", "udp_tunnel", "vxlan"]);
        fs::remove_dir_all(directory).unwrap();
    }
}
