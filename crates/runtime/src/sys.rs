//! System calls that rustix does not wrap, and the few that need `unsafe`: the only unsafe code of this crate.

use libc::{c_int, c_long};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Above 32 bits, where libc's constant does not reach.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The two sides of a clone.
pub enum Cloned {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// `clone3` with the given namespaces, as `fork` otherwise; straight into a v2 cgroup when one is given.
///
/// The child shares nothing with the parent but descriptors, so the one thing to fear is a lock that another thread held.
/// The caller must be single-threaded; it is checked. With `CLONE_PARENT` among the flags the child is its sibling.
pub fn clone_process(namespaces: c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    if !single_threaded()? {
        return Err(io::Error::other("the process that makes containers must be single-threaded"));
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is the documented neutral value of every field.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (namespaces | libc::CLONE_PIDFD) as u64;
    args.pidfd = &mut pidfd as *mut RawFd as u64;
    // A sibling's end is told to the common parent as the caller's own is.
    args.exit_signal = if namespaces & libc::CLONE_PARENT == 0 { libc::SIGCHLD as u64 } else { 0 };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM, so the child works on its own copy of a single-threaded process: the same contract as fork.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(Cloned::Parent { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// `fork` for a single-threaded process; true in the child.
pub fn fork() -> io::Result<bool> {
    // SAFETY: as in `clone_process`; the caller is at the start of a single-threaded main.
    Ok(check(unsafe { libc::fork() } as c_long)? == 0)
}

fn single_threaded() -> io::Result<bool> {
    Ok(std::fs::read_dir("/proc/self/task")?.count() == 1)
}

pub fn exit(code: i32) -> ! {
    // SAFETY: ends the process; nothing after it runs.
    unsafe { libc::_exit(code) }
}

/// Replaces the program; returns only on failure.
pub fn execve(path: &CStr, argv: &CStrings, envp: &CStrings) -> io::Error {
    // SAFETY: both arrays are null-terminated and point to strings that `CStrings` keeps alive.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Strings in the form that `execve` takes, made before a clone.
pub struct CStrings {
    /// Keeps what `pointers` point to.
    _strings: Vec<std::ffi::CString>,
    pointers: Vec<*const libc::c_char>,
}

impl CStrings {
    pub fn new(strings: Vec<std::ffi::CString>) -> CStrings {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        CStrings { _strings: strings, pointers }
    }
}

fn prctl(option: c_int, value: u64) -> io::Result<()> {
    // SAFETY: none of the options used here takes a pointer.
    check(unsafe { libc::prctl(option, value, 0, 0, 0) } as c_long).map(drop)
}

/// An ioctl whose argument is a number.
pub fn ioctl_number(fd: BorrowedFd<'_>, operation: u64, argument: u64) -> io::Result<i64> {
    // SAFETY: the operations used here take their argument as a number: nothing of this process is read or written.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), operation as _, argument) }.into())
}

/// A file's attributes as XFS introduced them (`linux/fs.h` `struct fsxattr`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct FileAttributes {
    pub flags: u32,
    extent_size: u32,
    extents: u32,
    pub project: u32,
    copy_extent_size: u32,
    padding: [u8; 8],
}

const FS_IOC_FSGETXATTR: u64 = 0x801c_581f;
const FS_IOC_FSSETXATTR: u64 = 0x401c_5820;

/// The attributes of an open file.
pub fn file_attributes(file: BorrowedFd<'_>) -> io::Result<FileAttributes> {
    let mut attributes = FileAttributes::default();
    // SAFETY: the kernel writes a structure of the size that the operation's number names.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSGETXATTR as _, &mut attributes) }.into())?;
    Ok(attributes)
}

/// Changes the attributes of an open file.
pub fn set_file_attributes(file: BorrowedFd<'_>, attributes: &FileAttributes) -> io::Result<()> {
    // SAFETY: the kernel reads a structure of the size that the operation's number names.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSSETXATTR as _, attributes) }.into()).map(drop)
}

/// `linux/quota.h` `struct if_dqblk`: bounds in units of 1024 bytes, use in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Quota {
    blocks_hard: u64,
    blocks_soft: u64,
    bytes_used: u64,
    inodes_hard: u64,
    inodes_soft: u64,
    inodes_used: u64,
    blocks_time: u64,
    inodes_time: u64,
    valid: u32,
}

const Q_GETQUOTA: u64 = 0x80_0007;
const Q_SETQUOTA: u64 = 0x80_0008;
const PROJECTS: u64 = 2;
/// Only the bounds of blocks.
const QIF_BLIMITS: u32 = 1;

fn quotactl(file: BorrowedFd<'_>, command: u64, project: u32, quota: &mut Quota) -> io::Result<()> {
    const QUOTACTL_FD: c_long = 443;
    let command = command << 8 | PROJECTS;
    // SAFETY: both commands take a `struct if_dqblk`, which lives for the call. The number is the same on all architectures.
    check(unsafe { libc::syscall(QUOTACTL_FD, file.as_raw_fd(), command, project, quota as *mut Quota) }).map(drop)
}

/// A project's bound and use on the file system of an open file, in bytes.
pub fn project_quota(file: BorrowedFd<'_>, project: u32) -> io::Result<(u64, u64)> {
    let mut quota = Quota::default();
    quotactl(file, Q_GETQUOTA, project, &mut quota)?;
    Ok((quota.blocks_hard * 1024, quota.bytes_used))
}

/// Bounds a project; 0 is no bound.
pub fn set_project_quota(file: BorrowedFd<'_>, project: u32, bytes: u64) -> io::Result<()> {
    let blocks = bytes.div_ceil(1024);
    let mut quota = Quota { blocks_hard: blocks, blocks_soft: blocks, valid: QIF_BLIMITS, ..Quota::default() };
    quotactl(file, Q_SETQUOTA, project, &mut quota)
}

/// The signal that this process gets when its parent dies.
pub fn set_parent_death_signal(signal: i32) -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, signal as u64)
}

/// Keeps other users' processes away from `/proc/<pid>` of this one and of its children until they exec.
pub fn set_not_dumpable() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0)
}

/// Orphans below this process become its children.
pub fn set_child_subreaper() -> io::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// Whether this process and what it forks and executes get huge pages unasked.
pub fn set_huge_pages(allowed: bool) -> io::Result<()> {
    prctl(libc::PR_SET_THP_DISABLE, !allowed as u64)
}

/// Has a command run without huge pages: a small process would get megabytes with its first allocation.
pub fn without_huge_pages(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec only one system call is made, which neither allocates nor locks.
    unsafe { command.pre_exec(|| set_huge_pages(false)) };
}

pub fn set_no_new_privs() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

pub fn set_keep_caps(keep: bool) -> io::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, keep as u64)
}

pub fn drop_from_bounding_set(capability: u32) -> io::Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability as u64)
}

/// Whether a capability is in the bounding set; `None` when the kernel does not know it.
pub fn in_bounding_set(capability: u32) -> Option<bool> {
    // SAFETY: takes a number only.
    let answer = unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability as libc::c_ulong, 0, 0, 0) };
    (answer >= 0).then_some(answer == 1)
}

pub fn clear_ambient_set() -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64)
}

/// `capset` of the calling thread.
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header: [u32; 2] = [VERSION_3, 0];
    let half = |n: u32| [(effective >> n) as u32, (permitted >> n) as u32, (inheritable >> n) as u32];
    let data: [[u32; 3]; 2] = [half(0), half(32)];
    // SAFETY: header and data have the layout of version 3: two structures of three 32-bit words.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) }).map(drop)
}

/// Groups, gid and uid of the calling thread, which must be the only one.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the slice is valid for its length; the raw calls change this thread only, and there is no other.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}

/// Installs a filter for the calling thread, with `seccomp(2)` flags.
pub fn install_seccomp(filter: &[libc::sock_filter], flags: u64) -> io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program points to `len` instructions, which the kernel only reads.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &program) }).map(drop)
}

/// `setns` by a namespace's descriptor or a pidfd.
pub fn set_namespace(fd: BorrowedFd<'_>, kinds: c_int) -> io::Result<()> {
    // SAFETY: takes a descriptor and flags only.
    check(unsafe { libc::setns(fd.as_raw_fd(), kinds) } as c_long).map(drop)
}

/// `unshare` of namespaces, for the calling thread.
pub fn unshare(namespaces: c_int) -> io::Result<()> {
    // SAFETY: namespaces only; CLONE_FILES and CLONE_FS, which could break std's assumptions, are never passed.
    check(unsafe { libc::unshare(namespaces) } as c_long).map(drop)
}

/// `mount_setattr` on the mount behind a descriptor.
pub fn set_mount_attributes(mount: BorrowedFd<'_>, recursive: bool, set: u64, propagation: u64) -> io::Result<()> {
    mount_setattr(mount, recursive, &libc::mount_attr { attr_set: set, attr_clr: 0, propagation, userns_fd: 0 })
}

/// Shows the files behind a detached mount as a user namespace numbers their owners: who is 0 on disk is 0 in there.
pub fn map_mount_ids(mount: BorrowedFd<'_>, users: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: users.as_raw_fd() as u64,
    };
    mount_setattr(mount, true, &attributes)
}

fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, attributes: &libc::mount_attr) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: an empty C string and a structure of the size that is passed along.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            attributes,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// All signals to their default action and none blocked: what a container's program expects to start with.
pub fn reset_signals() {
    // A `struct sigaction` of the kernel, which all zero is SIG_DFL with no flags; larger than any architecture's.
    let default = [0u64; 8];
    // SAFETY: SIG_DFL installs no handler; the set is initialised before it is used. Failures (SIGKILL) do not matter.
    unsafe {
        for signal in 1..=64 {
            // Not libc's function, which hides the two signals that it keeps to itself and that it spawns ignored.
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), 8);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Ignores a signal; an ignored SIGCHLD reaps children by itself.
pub fn ignore_signal(signal: i32) {
    // SAFETY: SIG_IGN installs no handler.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Sleeps until a signal with a handler arrives.
pub fn pause() {
    // SAFETY: no arguments.
    unsafe { libc::pause() };
}

/// Blocks SIGCHLD and gives a non-blocking descriptor that reads it.
pub fn child_signal_fd() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised before use; the new descriptor is ours alone.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) as c_long)?;
        let fd = check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) as c_long)?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// One child that has ended: its pid, exit code (128 + signal) and signal (0 for none).
pub fn reap() -> Option<(i32, i32, i32)> {
    let mut status: c_int = 0;
    // SAFETY: `status` is a valid place to write to.
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    if pid <= 0 {
        return None;
    }
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        return Some((pid, 128 + signal, signal));
    }
    Some((pid, libc::WEXITSTATUS(status), 0))
}

/// Sends a signal to a process that is known to be still there, or unreaped.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::kill(pid, signal) } as c_long).map(drop)
}

/// Sends a signal through a pidfd; fine when the process has ended.
pub fn kill_pidfd(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: no siginfo is passed.
    match check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) }) {
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other.map(drop),
    }
}

/// Closes all descriptors from `first` on.
pub fn close_from(first: RawFd) {
    // SAFETY: called where no Rust object that owns one of these descriptors runs any more: at the start of a process of
    // ours, and just before exec.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
}

/// Takes over a descriptor that was inherited under a known number.
pub fn inherited(fd: RawFd) -> OwnedFd {
    // SAFETY: the process was started with this descriptor for this purpose; nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Makes `fd` the descriptor `target`, across exec as well.
pub fn redirect(fd: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
    // SAFETY: the standard descriptors 0 to 2 have no Rust owner.
    check(unsafe { libc::dup2(fd.as_raw_fd(), target) } as c_long)?;
    if fd.as_raw_fd() == target {
        // SAFETY: plain flag change; dup2 onto itself does not clear close-on-exec.
        check(unsafe { libc::fcntl(target, libc::F_SETFD, 0) } as c_long)?;
    }
    Ok(())
}

/// A copy under a number of choice, closed on exec; what had the number is closed.
pub fn move_to(fd: BorrowedFd<'_>, target: RawFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() != target {
        // SAFETY: only called where no owner of the number runs any more.
        check(unsafe { libc::dup3(fd.as_raw_fd(), target, libc::O_CLOEXEC) } as c_long)?;
    }
    // SAFETY: the number now is the copy, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(target) })
}

/// Makes a terminal the controlling one of the calling session leader.
pub fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the request takes an integer.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) } as c_long).map(drop)
}

/// `setrlimit` of the calling process.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: a valid structure, read only.
    check(unsafe { libc::prlimit(0, resource as _, &limit, std::ptr::null_mut()) } as c_long).map(drop)
}

/// Brings the loopback link of the calling thread's network namespace up.
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // SAFETY: all-zero is a valid ifreq; the name is shorter than its field; the kernel reads and writes only the structure.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) as c_long)?;
    }
    Ok(())
}

/// `bpf(2)`.
pub fn bpf<T>(command: c_int, attributes: &mut T) -> io::Result<c_long> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes; callers pass structures laid out as the command wants, with pointers
    // to live buffers.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, attributes as *mut T, size_of::<T>()) })
}

/// Adopts a descriptor that a system call has returned.
pub fn adopt(fd: c_long) -> OwnedFd {
    // SAFETY: only called with the result of a call that makes a new descriptor.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// Lets the allocator give unused memory back to the kernel.
pub fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no arguments that could be wrong.
    unsafe {
        libc::malloc_trim(0);
    }
}
