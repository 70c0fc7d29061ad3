//! A runtime in a directory of its own, a busybox image, and the proof that nothing is left of either.

use corten_runtime::*;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

pub struct Machine {
    pub base: PathBuf,
    pub runtime: Runtime,
    name: String,
}

pub fn busybox() -> Option<PathBuf> {
    ["/usr/bin/busybox", "/bin/busybox"].iter().map(PathBuf::from).find(|p| p.exists())
}

pub fn requirements() -> Result<(), &'static str> {
    if !rustix::process::geteuid().is_root() {
        return Err("containers need root");
    }
    busybox().map(drop).ok_or("no /usr/bin/busybox: install busybox-static")
}

impl Machine {
    pub fn new(test: &str) -> Machine {
        let name = format!("corten-test-{}-{test}", std::process::id());
        let base = PathBuf::from("/var/tmp").join(&name);
        make_image(&base.join("image"));
        let runtime = Runtime::new(config(&base)).unwrap();
        Machine { base, runtime, name }
    }

    /// A machine that somebody else has made.
    pub fn of(base: &Path, runtime: Runtime) -> Machine {
        let name = base.file_name().unwrap().to_str().unwrap().to_string();
        Machine { base: base.into(), runtime, name }
    }

    /// A sandbox with its own namespaces.
    pub fn sandbox(&self, id: &str) -> Sandbox {
        self.runtime.create_sandbox(&self.sandbox_spec(id)).unwrap()
    }

    pub fn sandbox_spec(&self, id: &str) -> SandboxSpec {
        SandboxSpec {
            id: id.into(),
            hostname: format!("host-{id}"),
            cgroup: format!("burstable/pod-{id}"),
            ..SandboxSpec::default()
        }
    }

    /// A container with all of the usual restrictions that runs a shell command.
    pub fn spec(&self, sandbox: &str, id: &str, script: &str) -> ContainerSpec {
        ContainerSpec {
            id: id.into(),
            sandbox: sandbox.into(),
            rootfs: Rootfs {
                lower: vec![self.base.join("image")],
                upper: Some(self.base.join("upper").join(id)),
                ..Rootfs::default()
            },
            args: ["sh", "-c", script].map(String::from).to_vec(),
            env: vec![("PATH".into(), "/bin".into())],
            capabilities: CapSet::default_set(),
            seccomp: Seccomp::RuntimeDefault,
            masked_paths: defaults::MASKED_PATHS.iter().map(|p| p.to_string()).collect(),
            readonly_paths: defaults::READONLY_PATHS.iter().map(|p| p.to_string()).collect(),
            log: Some(Log::new(self.base.join("logs").join(id).join("0.log"))),
            ..ContainerSpec::default()
        }
    }

    pub fn start(&self, spec: &ContainerSpec) -> RunningShim {
        self.runtime.create_container(spec).unwrap();
        self.runtime.start_container(&spec.id).unwrap()
    }

    /// Runs a container to its end.
    pub fn run(&self, spec: &ContainerSpec) -> ExitInfo {
        let shim = self.start(spec);
        self.wait(&spec.id, &shim)
    }

    pub fn wait(&self, id: &str, shim: &RunningShim) -> ExitInfo {
        assert!(readable(&shim.pidfd, 30), "container {id} did not end");
        self.runtime.exit_info(id).unwrap().expect("an exit file at the shim's end")
    }

    /// What a container's log says, without times.
    pub fn log(&self, id: &str) -> String {
        let text = fs::read_to_string(self.base.join("logs").join(id).join("0.log")).unwrap();
        text.lines().map(|line| format!("{}\n", line.split_once(' ').unwrap().1)).collect()
    }

    /// Runs a script in a new container and gives what it said on standard output.
    pub fn output(&self, spec: &ContainerSpec) -> String {
        self.run(spec);
        let of_stdout = |l: &str| Some(format!("{}\n", l.strip_prefix("stdout F ").or(l.strip_prefix("stdout P "))?));
        self.log(&spec.id).lines().filter_map(of_stdout).collect()
    }

    /// Takes everything away, whatever a test left, and proves that nothing stays.
    pub fn clean_up(self) {
        let Machine { base, runtime, name } = self;
        runtime.shutdown().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let left: Vec<&str> = mounts.lines().filter(|l| l.contains(&name)).collect();
        assert!(left.is_empty(), "mounts left: {left:#?}");
        let left: Vec<String> = processes().into_iter().filter(|c| c.contains(&name)).collect();
        assert!(left.is_empty(), "processes left: {left:#?}");
        for tree in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            assert!(!tree.path().join(&name).exists(), "cgroup left in {}", tree.path().display());
        }
        assert!(!Path::new("/sys/fs/cgroup").join(&name).exists());
        fs::remove_dir_all(&base).unwrap();
    }
}

/// With `CORTEN_TEST_EXE` another binary makes the shims, such as the product's.
pub fn config(base: &Path) -> RuntimeConfig {
    let exe = std::env::var_os("CORTEN_TEST_EXE").map_or("/proc/self/exe".into(), PathBuf::from);
    let cgroup_root = base.file_name().unwrap().to_str().unwrap().to_string();
    RuntimeConfig { state_dir: base.join("run"), exe, cgroup_root }
}

/// Command lines of all processes but this one.
fn processes() -> Vec<String> {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let numbers =
        entries.filter_map(|e| e.file_name().into_string().ok()).filter(|n| n.parse::<u32>().is_ok() && *n != own);
    numbers
        .filter_map(|n| fs::read(format!("/proc/{n}/cmdline")).ok())
        .map(|c| String::from_utf8_lossy(&c).replace('\0', " "))
        .collect()
}

/// A root file system of one static program under many names.
fn make_image(root: &Path) {
    for directory in ["bin", "etc", "tmp", "proc", "sys", "dev", "root", "srv"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let busybox = busybox().unwrap();
    fs::copy(&busybox, root.join("bin/busybox")).unwrap();
    let list = std::process::Command::new(&busybox).arg("--list").output().unwrap().stdout;
    for applet in String::from_utf8(list).unwrap().lines().filter(|a| *a != "busybox") {
        let _ = std::os::unix::fs::symlink("busybox", root.join("bin").join(applet));
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/srv:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:102:\n").unwrap();
}

/// Waits at most so many seconds for a descriptor.
pub fn readable(fd: impl AsFd, seconds: i64) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.unwrap() > 0,
        }
    }
}

/// A file or directory of this machine at a place in a container.
pub fn bind(destination: &str, source: &Path) -> Mount {
    Mount {
        destination: destination.into(),
        source: MountSource::Bind(source.to_owned()),
        read_only: ReadOnly::No,
        propagation: Propagation::Private,
    }
}

/// Reads until the end.
pub fn read_all(fd: OwnedFd) -> String {
    let (mut file, mut bytes) = (fs::File::from(fd), Vec::new());
    // A terminal ends with EIO.
    let _ = file.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until some text has come.
pub fn read_until(fd: &OwnedFd, text: &str) -> String {
    let mut seen = String::new();
    let mut chunk = [0u8; 1024];
    while !seen.contains(text) {
        assert!(readable(fd, 20), "waiting for {text:?}, have {seen:?}");
        let n = match rustix::io::read(fd, &mut chunk) {
            Err(rustix::io::Errno::AGAIN) => continue,
            other => other.unwrap_or(0),
        };
        assert!(n > 0, "end of stream before {text:?}: {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&chunk[..n]));
    }
    seen
}
