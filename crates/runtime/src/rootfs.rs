//! A container's file system: prepared by the shim in the host's mount namespace, put together by the container's first
//! process in its own, so that nothing is ever mounted on the host and nothing can be left behind.

use crate::cgroup::View;
use crate::inside;
use crate::state::ContainerRecord;
use crate::{ContainerSpec, Error, IdRange, MountSource, Propagation, ReadOnly, Result, Rootfs, sys, users};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

const SAFE: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Files of `/proc` that a mount may cover (lxcfs does); anything else there would undo the masking.
const PROC_FILES_THAT_MAY_BE_COVERED: [&str; 9] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
];

/// Everything that the container's first process needs to build its file system.
pub struct Plan {
    root: Root,
    /// An empty directory on which the root is mounted before it becomes `/`.
    place: PathBuf,
    read_only: bool,
    mounts: Vec<Prepared>,
    /// Terminals; the shim keeps a copy to open new ones.
    devpts: OwnedFd,
    /// The sandbox's or the host's `/dev/shm`.
    shm: OwnedFd,
    devices: Vec<Node>,
    privileged: bool,
    view: View,
    masked: Vec<String>,
    readonly: Vec<String>,
    cwd: String,
    /// The host's number of the container's root.
    first_id: u32,
}

/// `/dev`, as runtimes make it.
const DEV: [(&str, &str); 2] = [("mode", "755"), ("size", "65536k")];

/// What [`Plan::assemble`] makes: detached trees.
pub struct Assembled {
    root: OwnedFd,
    /// With the devices.
    dev: OwnedFd,
}

enum Root {
    /// The trees are the layers with their owners mapped, for a sandbox with users of its own.
    Overlay(Rootfs, Vec<OwnedFd>),
    Tree(OwnedFd),
}

/// A sandbox's users and their namespace.
struct Users {
    namespace: OwnedFd,
    ids: IdRange,
}

/// One of the caller's mounts, detached and with its attributes set.
struct Prepared {
    destination: String,
    tree: OwnedFd,
    directory: bool,
}

/// A device node to make.
struct Node {
    path: String,
    kind: FileType,
    mode: u32,
    device: u64,
}

impl Node {
    /// Makes it at a path below `root`, for an owner that is not the caller.
    fn make(&self, root: &OwnedFd, path: &str, owner: Option<u32>) -> Step<()> {
        let (parent, name) = inside::split(path);
        let what = || format!("make the device {}", self.path);
        let parent = step(inside::make_directory(root, parent), what)?;
        match rustix::fs::mknodat(&parent, name, self.kind, Mode::from_raw_mode(self.mode), self.device) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(()),
            Err(e) => return Err((what(), e)),
        }
        let Some(owner) = owner else { return Ok(()) };
        let (uid, gid) = (Some(rustix::fs::Uid::from_raw(owner)), Some(rustix::fs::Gid::from_raw(owner)));
        step(rustix::fs::chownat(&parent, name, uid, gid, rustix::fs::AtFlags::SYMLINK_NOFOLLOW), what)?;
        let parent = rustix::fs::chownat(&parent, "", uid, gid, rustix::fs::AtFlags::EMPTY_PATH);
        step(parent, what)
    }
}

/// A failed step in the container's first process: a sentence without the kernel's reason, and the reason.
pub type Step<T> = std::result::Result<T, (String, Errno)>;

fn step<T>(result: std::result::Result<T, Errno>, what: impl FnOnce() -> String) -> Step<T> {
    result.map_err(|e| (what(), e))
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

impl Plan {
    /// Opens and checks all that comes from the host. `directory` is the container's state directory.
    pub fn prepare(record: &ContainerRecord, directory: &Path) -> Result<Plan> {
        let spec = &record.spec;
        let users = match &record.users {
            Some(found) => Some(Users { namespace: users::open(&found.pin)?, ids: found.ids }),
            None => None,
        };
        let first = users.as_ref().map_or(0, |users| users.ids.first);
        let devpts = devpts(first).map_err(|e| Error::system("make a devpts instance", e))?;
        let mut mounts = Vec::new();
        for mount in &spec.mounts {
            mounts.push(prepare(mount, users.as_ref())?);
        }
        // Parents first; the caller's order decides among equals.
        mounts.sort_by_key(|m| m.destination.split('/').filter(|p| !p.is_empty()).count());
        Ok(Plan {
            root: root(&spec.rootfs, users.as_ref())?,
            place: directory.join("rootfs"),
            read_only: spec.rootfs.read_only || spec.rootfs.upper.is_none(),
            mounts,
            devpts,
            shm: clone_private_tree(&record.shm)?,
            devices: nodes(spec, users.is_some())?,
            privileged: spec.privileged,
            view: record.cgroups.view(),
            masked: if spec.privileged { vec![] } else { spec.masked_paths.clone() },
            readonly: if spec.privileged { vec![] } else { spec.readonly_paths.clone() },
            cwd: spec.cwd.clone(),
            first_id: first,
        })
    }

    /// For a sandbox with users of its own, in a mount namespace of the host's root: what could not be mounted or made in
    /// theirs any more.
    pub fn assemble(&self) -> Step<Assembled> {
        rustix::process::umask(Mode::empty());
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        step(rustix::mount::mount_change("/", private), || "make mounts private".into())?;
        Ok(Assembled { dev: self.assemble_dev()?, root: self.assemble_root()? })
    }

    fn assemble_dev(&self) -> Step<OwnedFd> {
        let owner = self.first_id.to_string();
        let options = [DEV[0], DEV[1], ("uid", &owner), ("gid", &owner)];
        let dev = step(new_mount("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_NOSUID), || "make /dev".into())?;
        for node in &self.devices {
            node.make(&dev, node.path.trim_start_matches("/dev"), Some(self.first_id))?;
        }
        Ok(dev)
    }

    fn assemble_root(&self) -> Step<OwnedFd> {
        let what = || format!("put the root file system together at {}", self.place.display());
        let (rootfs, layers) = match &self.root {
            Root::Overlay(rootfs, layers) => (rootfs, layers),
            Root::Tree(tree) => return step(rustix::io::fcntl_dupfd_cloexec(tree, 0), what),
        };
        let onto = |tree: &OwnedFd, point: &Path| {
            rustix::mount::move_mount(tree, "", CWD, point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        };
        // Kernels before 6.15 take only layers that are mounted somewhere.
        let scratch = step(new_mount("tmpfs", &[("mode", "700")], MountAttrFlags::empty()), what)?;
        step(onto(&scratch, &self.place), what)?;
        let mut mapped = rootfs.clone();
        mapped.lower.clear();
        for (n, layer) in layers.iter().enumerate() {
            let point = self.place.join(n.to_string());
            step(rustix::fs::mkdir(&point, Mode::RWXU), what)?;
            step(onto(layer, &point), what)?;
            mapped.lower.push(point);
        }
        let point = self.place.join("root");
        step(rustix::fs::mkdir(&point, Mode::RWXU), what)?;
        step(mount_overlay(&mapped, &point), what)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = step(rustix::mount::open_tree(CWD, &point, flags), what)?;
        step(rustix::mount::unmount(&self.place, UnmountFlags::DETACH), what)?;
        Ok(tree)
    }

    /// A descriptor of the container's own devpts instance.
    pub fn devpts(&self) -> &OwnedFd {
        &self.devpts
    }

    /// In the container's first process, in all its namespaces but the cgroups', which `join_cgroups` makes late since it may
    /// take a while: builds the file system and makes it the root. `assembled` is what [`Plan::assemble`] made, if it was used.
    pub fn enter(
        &self,
        assembled: Option<&Assembled>,
        console: Option<BorrowedFd<'_>>,
        join_cgroups: &dyn Fn() -> Step<()>,
    ) -> Step<()> {
        rustix::process::umask(Mode::empty());
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        step(rustix::mount::mount_change("/", private), || "make mounts private".into())?;
        let root = self.mount_root(assembled.map(|made| &made.root))?;
        if assembled.is_some() {
            // From here on nothing of the host is needed, and what is made belongs to the container's root.
            step(sys::become_user(0, 0, &[]).map_err(errno), || "become root in the user namespace".into())?;
        }
        self.mount_base(&root, assembled.map(|made| &made.dev))?;
        if assembled.is_none() {
            self.make_devices(&root)?;
        }
        self.link_devices(&root)?;
        if let Some(console) = console {
            let tree = step(rustix::mount::open_tree(console, "", CLONE_HERE), || "open the terminal".into())?;
            attach(&root, &tree, "/dev/console", false)?;
        }
        join_cgroups()?;
        self.mount_cgroups(&root)?;
        for mount in &self.mounts {
            cover(&root, &mount.destination, &mount.tree, mount.directory)?;
        }
        if !self.cwd.is_empty() {
            step(inside::make_directory(&root, &self.cwd), || format!("make the working directory {:?}", self.cwd))?;
        }
        for path in &self.readonly {
            make_read_only(&root, path)?;
        }
        for path in &self.masked {
            mask(&root, path)?;
        }
        if self.read_only {
            let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64;
            let set = sys::set_mount_attributes(root.as_fd(), false, read_only, 0).map_err(errno);
            step(set, || "make the root read-only".into())?;
        }
        pivot(&root)?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        Ok(())
    }

    fn mount_root(&self, assembled: Option<&OwnedFd>) -> Step<OwnedFd> {
        let what = || format!("mount the root file system at {}", self.place.display());
        match (assembled, &self.root) {
            (None, Root::Overlay(rootfs, _)) => step(mount_overlay(rootfs, &self.place), what)?,
            (Some(tree), _) | (None, Root::Tree(tree)) => {
                let place = &self.place;
                let moved = rustix::mount::move_mount(tree, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
                step(moved, what)?;
            }
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        step(rustix::fs::open(&self.place, flags, Mode::empty()), what)
    }

    /// `/proc`, `/dev` and what is mounted in it, `/sys`.
    fn mount_base(&self, root: &OwnedFd, dev: Option<&OwnedFd>) -> Step<()> {
        mount_plain(root, "/proc", "proc", &[], SAFE)?;
        match dev {
            Some(dev) => attach(root, dev, "/dev", true)?,
            None => mount_plain(root, "/dev", "tmpfs", &DEV, MountAttrFlags::MOUNT_ATTR_NOSUID)?,
        }
        attach(root, &self.devpts, "/dev/pts", true)?;
        attach(root, &self.shm, "/dev/shm", true)?;
        mount_plain(root, "/dev/mqueue", "mqueue", &[], SAFE)?;
        mount_plain(root, "/sys", "sysfs", &[], SAFE | self.sys_mode())
    }

    fn sys_mode(&self) -> MountAttrFlags {
        if self.privileged { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY }
    }

    fn mount_cgroups(&self, root: &OwnedFd) -> Step<()> {
        let sys_mode = self.sys_mode();
        match &self.view {
            View::V2 => mount_plain(root, "/sys/fs/cgroup", "cgroup2", &[], SAFE | sys_mode),
            View::V1(hierarchies) => {
                mount_plain(root, "/sys/fs/cgroup", "tmpfs", &[("mode", "755")], SAFE)?;
                for controllers in hierarchies {
                    let path = format!("/sys/fs/cgroup/{}", controllers.join(","));
                    let options: Vec<(&str, &str)> = controllers.iter().map(|c| (c.as_str(), "")).collect();
                    mount_plain(root, &path, "cgroup", &options, SAFE | sys_mode)?;
                }
                make_read_only(root, "/sys/fs/cgroup")
            }
        }
    }

    fn make_devices(&self, root: &OwnedFd) -> Step<()> {
        for node in &self.devices {
            node.make(root, &node.path, None)?;
        }
        Ok(())
    }

    fn link_devices(&self, root: &OwnedFd) -> Step<()> {
        let dev = step(inside::open(root, "/dev", OFlags::PATH), || "open /dev".into())?;
        let links = [
            ("/proc/self/fd", "fd"),
            ("/proc/self/fd/0", "stdin"),
            ("/proc/self/fd/1", "stdout"),
            ("/proc/self/fd/2", "stderr"),
            ("/proc/kcore", "core"),
            ("pts/ptmx", "ptmx"),
        ];
        for (target, name) in links {
            step(rustix::fs::symlinkat(target, &dev, name), || format!("make the link /dev/{name}"))?;
        }
        Ok(())
    }
}

/// Mounts a tree of the host's, wherever links of the image lead, but never in `/proc`.
fn cover(root: &OwnedFd, destination: &str, tree: &OwnedFd, directory: bool) -> Step<()> {
    let what = || format!("mount at {destination:?}");
    let target =
        if directory { inside::make_directory(root, destination) } else { inside::make_file(root, destination) };
    let target = step(target, what)?;
    let in_proc = step(rustix::fs::fstatfs(&target), what)?.f_type == rustix::fs::PROC_SUPER_MAGIC;
    if in_proc && !PROC_FILES_THAT_MAY_BE_COVERED.contains(&destination) {
        return Err((format!("mount at {destination:?}, which is inside /proc"), Errno::PERM));
    }
    step(move_onto(tree, &target), what)
}

const CLONE_HERE: OpenTreeFlags =
    OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC).union(OpenTreeFlags::AT_EMPTY_PATH);

fn move_onto(tree: impl AsFd, target: impl AsFd) -> std::result::Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", target, "", flags)
}

/// Mounts a detached tree of ours. `/proc`, `/dev` and `/sys` of an image must be real directories: a link there would
/// make what is masked reachable under another name.
fn attach(root: &OwnedFd, tree: impl AsFd, path: &str, directory: bool) -> Step<()> {
    let what = || format!("mount {path}");
    let made = if directory { inside::make_directory(root, path) } else { inside::make_file(root, path) };
    step(made, what)?;
    let target =
        step(inside::open_plain(root, path, OFlags::PATH), || format!("mount {path}, which must not be a link"))?;
    step(move_onto(tree, target), what)
}

fn mount_plain(
    root: &OwnedFd,
    path: &str,
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Step<()> {
    let tree = step(new_mount(kind, options, attributes), || format!("mount {kind} at {path}"))?;
    attach(root, tree, path, true)
}

/// A new file system, mounted nowhere yet. An option without value is a flag.
fn new_mount(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> std::result::Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(&context, *key)?;
        } else {
            rustix::mount::fsconfig_set_string(&context, *key, *value)?;
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// `first`: the host's number of the container's root.
fn devpts(first: u32) -> std::result::Result<OwnedFd, Errno> {
    let tty = (first + 5).to_string();
    let options = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", &tty)];
    new_mount("devpts", &options, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC)
}

/// A detached copy of what is at a path of the host, with all mounts below it. It is still a peer of the original: what
/// is mounted on it appears on the host unless its propagation is changed.
fn clone_tree(path: &Path) -> std::result::Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, path, flags)
}

/// A detached copy that has nothing to do with the original's mounts any more.
fn clone_private_tree(path: &Path) -> Result<OwnedFd> {
    let tree = clone_tree(path).map_err(|e| Error::file(path, e))?;
    sys::set_mount_attributes(tree.as_fd(), true, 0, libc::MS_PRIVATE).map_err(|e| Error::file(path, e))?;
    Ok(tree)
}

fn prepare(mount: &crate::Mount, users: Option<&Users>) -> Result<Prepared> {
    let (tree, directory) = match &mount.source {
        MountSource::Bind(source) => {
            let tree = clone_tree(source).map_err(|e| Error::file(source, e))?;
            if let Some(users) = users {
                users::map_mount(&tree, &users.namespace, &source.to_string_lossy())?;
            }
            let directory = is_directory(&tree).map_err(|e| Error::file(source, e))?;
            if mount.propagation == Propagation::Bidirectional && !is_shared(source)? {
                let sentence = format!("{} is not below a shared mount of the host", source.display());
                return Err(Error::Invalid(sentence));
            }
            (tree, directory)
        }
        MountSource::Tmpfs { size, mode } => {
            let mode = format!("{mode:o}");
            let size = size.map(|bytes| bytes.to_string());
            let owner = users.map_or(0, |users| users.ids.first).to_string();
            let mut options = vec![("mode", mode.as_str()), ("uid", &owner), ("gid", &owner)];
            options.extend(size.as_deref().map(|size| ("size", size)));
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
            let tree = new_mount("tmpfs", &options, attributes);
            (tree.map_err(|e| Error::system(format!("make a tmpfs for {}", mount.destination), e))?, true)
        }
    };
    let failed = |what| move |e| Error::system(format!("make the mount at {} {what}", mount.destination), e);
    let propagation = match mount.propagation {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::HostToContainer => libc::MS_SLAVE,
        Propagation::Bidirectional => 0,
    };
    sys::set_mount_attributes(tree.as_fd(), true, 0, propagation).map_err(failed("private"))?;
    if mount.read_only != ReadOnly::No {
        let recursive = mount.read_only == ReadOnly::Recursive;
        let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64;
        sys::set_mount_attributes(tree.as_fd(), recursive, read_only, 0).map_err(failed("read-only"))?;
    }
    Ok(Prepared { destination: mount.destination.clone(), tree, directory })
}

fn is_directory(fd: &OwnedFd) -> std::result::Result<bool, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode).is_dir())
}

/// Whether the mount that a path is on propagates.
fn is_shared(path: &Path) -> Result<bool> {
    let path = path.canonicalize().map_err(|e| Error::file(path, e))?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(|e| Error::file("/proc/self/mountinfo", e))?;
    let above = mounts.lines().filter(|line| line.split(' ').nth(4).is_some_and(|point| path.starts_with(point)));
    // The longest mount point decides, the last one mounted there among equals.
    let nearest = above.max_by_key(|line| line.split(' ').nth(4).map_or(0, str::len));
    Ok(nearest.is_some_and(|line| line.split(" - ").next().is_some_and(|left| left.contains(" shared:"))))
}

/// The root: an overlay, or a plain directory where there is nothing to lay over.
fn root(rootfs: &Rootfs, users: Option<&Users>) -> Result<Root> {
    let mapped = |path: &Path| -> Result<OwnedFd> {
        let tree = clone_private_tree(path)?;
        if let Some(users) = users {
            users::map_mount(&tree, &users.namespace, &path.to_string_lossy())?;
        }
        Ok(tree)
    };
    let Some(first) = rootfs.lower.first() else {
        return Err(Error::Invalid("a root file system needs at least one layer".into()));
    };
    if rootfs.upper.is_none() && rootfs.lower.len() == 1 {
        return mapped(first).map(Root::Tree);
    }
    for path in rootfs.lower.iter().chain(&rootfs.upper) {
        // Here rather than in the new process: the error can name the layer.
        if !path.is_dir() {
            return Err(Error::file(path, std::io::Error::from(std::io::ErrorKind::NotADirectory)));
        }
    }
    let layers = match users {
        Some(_) => rootfs.lower.iter().map(|path| mapped(path)).collect::<Result<_>>()?,
        None => Vec::new(),
    };
    Ok(Root::Overlay(rootfs.clone(), layers))
}

/// In the container's mount namespace. Paths with odd characters, or too many for `mount(2)`, are passed as descriptors,
/// which need no escaping and are short.
fn mount_overlay(rootfs: &Rootfs, place: &Path) -> std::result::Result<(), Errno> {
    let plain = |path: &Path| path.to_str().is_some_and(|p| !p.contains([',', ':', '\\', '"']));
    let work = rootfs.work_directory();
    let length: usize = rootfs.lower.iter().map(|p| p.as_os_str().len() + 1).sum();
    let by_name = length < OPTIONS_BYTES_MAX && rootfs.lower.iter().chain(&rootfs.upper).chain(&work).all(|p| plain(p));
    let mut layers = Vec::new();
    let mut name = |path: &Path| -> std::result::Result<String, Errno> {
        if by_name {
            return Ok(path.to_string_lossy().into_owned());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        let text = format!("/proc/self/fd/{}", fd.as_raw_fd());
        layers.push(fd);
        Ok(text)
    };
    let lower = rootfs.lower.iter().map(|path| name(path)).collect::<std::result::Result<Vec<String>, Errno>>()?;
    let mut options = format!("lowerdir={}", lower.join(":"));
    if let (Some(upper), Some(work)) = (&rootfs.upper, &work) {
        options += &format!(",upperdir={},workdir={}", name(upper)?, name(work)?);
    }
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount("overlay", place, "overlay", MountFlags::empty(), options.as_c_str())
}

/// `mount(2)` takes a page of options; the rest of it is for the upper and work directories.
const OPTIONS_BYTES_MAX: usize = 3000;

impl Rootfs {
    /// Overlay's scratch directory, named or next to the upper one.
    pub(crate) fn work_directory(&self) -> Option<PathBuf> {
        self.work.clone().or_else(|| {
            let mut name = self.upper.as_ref()?.clone().into_os_string();
            name.push(".work");
            Some(name.into())
        })
    }
}

fn nodes(spec: &ContainerSpec, own_users: bool) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for (name, major, minor) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
    {
        let device = rustix::fs::makedev(major, minor);
        nodes.push(Node { path: format!("/dev/{name}"), kind: FileType::CharacterDevice, mode: 0o666, device });
    }
    if spec.privileged {
        all_host_devices(Path::new("/dev"), &mut nodes);
    }
    for device in &spec.devices {
        let path = &device.host_path;
        let node = host_device(path, &device.container_path).map_err(|e| Error::file(path, e))?;
        let node = node.ok_or_else(|| Error::Invalid(format!("{} is not a device", path.display())))?;
        nodes.push(node);
    }
    if let Some(node) = nodes.iter().find(|node| own_users && !node.path.starts_with("/dev/")) {
        let sentence = format!("the device {} is outside of /dev, which a user namespace does not have", node.path);
        return Err(Error::Invalid(sentence));
    }
    Ok(nodes)
}

/// The node to make for a host's device; `None` if it is none.
fn host_device(host: &Path, container: &str) -> std::io::Result<Option<Node>> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let meta = std::fs::symlink_metadata(host)?;
    let kind = if meta.file_type().is_char_device() {
        FileType::CharacterDevice
    } else if meta.file_type().is_block_device() {
        FileType::BlockDevice
    } else {
        return Ok(None);
    };
    Ok(Some(Node { path: container.to_string(), kind, mode: meta.mode() & 0o7777, device: meta.rdev() }))
}

/// For privileged containers, as runc does: no terminals, no shared memory, no consoles that would be taken away.
fn all_host_devices(directory: &Path, nodes: &mut Vec<Node>) {
    const SKIP: [&str; 8] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"];
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if directory == Path::new("/dev") && entry.file_name().to_str().is_none_or(|name| SKIP.contains(&name)) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => all_host_devices(&path, nodes),
            // ptmx is a link into the container's own devpts.
            Ok(_) if path == Path::new("/dev/ptmx") => {}
            Ok(_) => {
                if let (Some(name), Ok(Some(node))) = (path.to_str(), host_device(&path, path.to_str().unwrap_or("")))
                    && !nodes.iter().any(|n| n.path == name)
                {
                    nodes.push(node);
                }
            }
            Err(_) => {}
        }
    }
}

/// Covers a path with nothing: an empty read-only directory, or the null device. Fine if it is not there.
fn mask(root: &OwnedFd, path: &str) -> Step<()> {
    let what = || format!("mask {path}");
    let Some(target) = present(inside::open(root, path, OFlags::PATH), what)? else { return Ok(()) };
    if step(is_directory(&target), what)? {
        let attributes = SAFE | MountAttrFlags::MOUNT_ATTR_RDONLY;
        let empty = step(new_mount("tmpfs", &[("size", "0"), ("nr_inodes", "1")], attributes), what)?;
        return step(move_onto(empty, target), what);
    }
    // The host's, not the container's, and checked: what is bound here must be the real one.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let null = step(rustix::mount::open_tree(CWD, "/dev/null", flags), what)?;
    let stat = step(rustix::fs::fstat(&null), what)?;
    if !FileType::from_raw_mode(stat.st_mode).is_char_device() || stat.st_rdev != rustix::fs::makedev(1, 3) {
        return Err((format!("mask {path}: /dev/null is not the null device"), Errno::NODEV));
    }
    step(move_onto(null, target), what)
}

/// Makes what is at a path read-only, by a mount of itself. Fine if it is not there.
fn make_read_only(root: &OwnedFd, path: &str) -> Step<()> {
    let what = || format!("make {path} read-only");
    let Some(target) = present(inside::open(root, path, OFlags::PATH), what)? else { return Ok(()) };
    let tree = rustix::mount::open_tree(&target, "", CLONE_HERE | OpenTreeFlags::AT_RECURSIVE);
    let tree = step(tree, what)?;
    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64;
    step(sys::set_mount_attributes(tree.as_fd(), true, read_only, 0).map_err(errno), what)?;
    step(move_onto(tree, target), what)
}

fn present<T>(result: std::result::Result<T, Errno>, what: impl FnOnce() -> String) -> Step<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err((what(), e)),
    }
}

fn pivot(root: &OwnedFd) -> Step<()> {
    let what = || "change the root".to_string();
    step(rustix::process::fchdir(root), what)?;
    step(rustix::process::pivot_root(".", "."), what)?;
    // The old root is now on top of the new one, at the same place.
    step(rustix::mount::unmount(".", UnmountFlags::DETACH), what)?;
    step(rustix::process::chdir("/"), what)
}

/// A root with nothing in it, for a process that only holds namespaces.
pub fn enter_empty(place: &Path) -> Step<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    step(rustix::mount::mount_change("/", private), || "make mounts private".into())?;
    let attributes = SAFE | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let empty = step(new_mount("tmpfs", &[("size", "0")], attributes), || "mount an empty root".into())?;
    let moved = rustix::mount::move_mount(empty, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
    step(moved, || "mount an empty root".into())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = step(rustix::fs::open(place, flags, Mode::empty()), || "open an empty root".into())?;
    pivot(&root)
}
