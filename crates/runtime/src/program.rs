//! The last steps of a container's process: limits, user, capabilities, filter, program. All that can be prepared is made
//! before the process is; the process is a clone of a single-threaded one, so it may still allocate.

use crate::rootfs::Step;
use crate::seccomp::{self, Filter};
use crate::state::ContainerRecord;
use crate::sys::{self, CStrings};
use crate::{CapSet, Error, ExecSpec, Result, User, defaults, inside, users};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

/// A program with everything that its process takes on before it.
pub struct Program {
    name: String,
    /// Where it may be, in order.
    candidates: Vec<CString>,
    argv: CStrings,
    envp: CStrings,
    cwd: String,
    user: User,
    capabilities: CapSet,
    /// What we have ourselves, and the highest that the kernel knows.
    available: CapSet,
    last_capability: u32,
    no_new_privs: bool,
    filter: Option<Filter>,
    rlimits: Vec<Limit>,
    oom_score_adj: i32,
    /// The host's number of the user.
    host_uid: u32,
    /// A profile of AppArmor for the program.
    app_armor: Option<String>,
}

struct Limit {
    name: String,
    number: u32,
    soft: u64,
    hard: u64,
}

/// Standard streams of a new process.
pub struct Streams {
    pub fds: [OwnedFd; 3],
    /// They are one terminal, which becomes the controlling one.
    pub terminal: bool,
}

/// For the kernel. What it is is told when it cannot be one, never the text: that may be a secret.
fn c_string(text: &str, what: impl Fn() -> String) -> Result<CString> {
    CString::new(text).map_err(|_| Error::Invalid(format!("{} has a zero byte", what())))
}

impl Program {
    /// The container's own program.
    pub fn of_container(record: &ContainerRecord) -> Result<Program> {
        let spec = &record.spec;
        let exec = ExecSpec { args: spec.args.clone(), tty: spec.tty, ..ExecSpec::default() };
        Program::of_exec(record, &exec)
    }

    /// A further program in a container.
    pub fn of_exec(record: &ContainerRecord, exec: &ExecSpec) -> Result<Program> {
        let container = &record.spec;
        let ids = record.users.as_ref().map(|users| users.ids);
        let user = exec.user.clone().unwrap_or_else(|| container.user.clone());
        users::check(&user, ids)?;
        let last_capability = last_capability()?;
        let Some(name) = exec.args.first() else { return Err(Error::Invalid("no command was given".into())) };
        let mut env: Vec<(String, String)> = exec.env.clone().unwrap_or_else(|| container.env.clone());
        if exec.tty && !env.iter().any(|(name, _)| name == "TERM") {
            env.push(("TERM".into(), "xterm".into()));
        }
        if !env.iter().any(|(name, _)| name == "PATH") {
            env.push(("PATH".into(), defaults::PATH.into()));
        }
        let search = env.iter().rev().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value.as_str());
        let command = |text: &str| c_string(text, || "the command's name".into());
        let candidates = if name.contains('/') {
            vec![command(name)?]
        } else {
            let directories = search.split(':').filter(|d| !d.is_empty());
            directories.map(|d| command(&format!("{d}/{name}"))).collect::<Result<_>>()?
        };
        let argv = exec.args.iter().enumerate().map(|(n, text)| c_string(text, || format!("argument {n}")));
        // A later entry of the same name wins, as upstream documents it for `env`.
        let last = |n: usize| !env[n + 1..].iter().any(|(name, _)| *name == env[n].0);
        let kept = (0..env.len()).filter(|n| last(*n)).map(|n| {
            let (name, value) = &env[n];
            c_string(&format!("{name}={value}"), || format!("the variable {name:?}"))
        });
        let capabilities = if container.privileged { CapSet::ALL } else { container.capabilities };
        let seccomp = if container.privileged { &crate::Seccomp::Unconfined } else { &container.seccomp };
        Ok(Program {
            name: name.clone(),
            candidates,
            argv: CStrings::new(argv.collect::<Result<_>>()?),
            envp: CStrings::new(kept.collect::<Result<_>>()?),
            cwd: exec.cwd.clone().unwrap_or_else(|| container.cwd.clone()),
            host_uid: ids.map_or(0, |ids| ids.first) + user.uid,
            user,
            capabilities,
            // Who steps into a user namespace has all of them there.
            available: match ids {
                Some(_) => CapSet(CapSet::ALL.0 & ((2 << last_capability) - 1)),
                None => available_capabilities()?,
            },
            last_capability,
            no_new_privs: container.no_new_privs,
            filter: seccomp::filter(seccomp, capabilities)?,
            rlimits: container.rlimits.iter().map(limit).collect::<Result<_>>()?,
            oom_score_adj: container.oom_score_adj,
            app_armor: container.app_armor.clone(),
        })
    }

    /// While the host's `/proc` is there: what may be given in part only, with a note for the caller.
    pub fn apply_scores(&self, note: &mut dyn FnMut(String)) -> Step<()> {
        let wanted = self.oom_score_adj.to_string();
        let set = std::fs::write("/proc/self/oom_score_adj", &wanted);
        if let Err(e) = set {
            if self.oom_score_adj >= 0 {
                return Err((format!("set the OOM score adjustment to {wanted}"), errno(e)));
            }
            note(format!(
                "The OOM score adjustment {wanted} needs CAP_SYS_RESOURCE, which this machine does not give."
            ));
        }
        let missing = CapSet(self.capabilities.0 & !self.available.0);
        if missing != CapSet::EMPTY {
            note(format!("This machine does not give {}.", missing.names().join(", ")));
        }
        for limit in &self.rlimits {
            match sys::set_rlimit(limit.number, limit.soft, limit.hard).map_err(errno) {
                Ok(()) => {}
                Err(Errno::PERM) => note(format!(
                    "The limit {} of {} needs CAP_SYS_RESOURCE, which this machine does not give.",
                    limit.name, limit.hard
                )),
                Err(e) => return Err((format!("set the limit {} to {}", limit.name, limit.hard), e)),
            }
        }
        Ok(())
    }

    /// Pipes and terminals become the user's, who may then open them by their names in `/proc/self/fd`, as runc does
    /// (`libcontainer/init_linux.go` `fixStdioPermissions`). With the host's rights.
    pub fn give_streams(&self, streams: &Streams) -> Result<()> {
        for fd in &streams.fds {
            let failed = |e| Error::system("give the standard streams to the user", e);
            let stat = rustix::fs::fstat(fd).map_err(failed)?;
            let pipe = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo;
            if (pipe || streams.terminal) && stat.st_uid != self.host_uid {
                rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(self.host_uid)), None).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Standard streams, and the terminal of a new session.
    pub fn take_streams(streams: &Streams) -> Step<()> {
        match rustix::process::setsid() {
            // Already the leader of one.
            Ok(_) | Err(Errno::PERM) => {}
            Err(e) => return Err(("start a session".into(), e)),
        }
        for (n, fd) in streams.fds.iter().enumerate() {
            sys::redirect(fd.as_fd(), n as i32).map_err(|e| ("take the standard streams".to_string(), errno(e)))?;
        }
        if streams.terminal {
            sys::set_controlling_terminal(streams.fds[0].as_fd())
                .map_err(|e| ("take the terminal".to_string(), errno(e)))?;
        }
        Ok(())
    }

    /// Becomes the program; returns only with the reason why not, as a whole sentence.
    pub fn run(&self, ends_with_parent: bool) -> String {
        match self.become_user(ends_with_parent) {
            Err((what, e)) => format!("{what}: {}", reason(e)),
            Ok(()) => self.exec(),
        }
    }

    fn become_user(&self, ends_with_parent: bool) -> Step<()> {
        let cwd = if self.cwd.is_empty() { "/" } else { &self.cwd };
        let failed = |what: &str| {
            let what = what.to_string();
            move |e| (what, errno(e))
        };
        sys::set_huge_pages(true).map_err(failed("allow huge pages"))?;
        if let Some(profile) = &self.app_armor {
            confine(profile).map_err(|e| (format!("apply the AppArmor profile {profile:?}"), errno(e)))?;
        }
        // Not `chdir`, which would follow a link into `/proc/<pid>/fd` or `root` of some process.
        let directory = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|root| inside::open(&root, cwd, OFlags::PATH | OFlags::DIRECTORY));
        directory.and_then(rustix::process::fchdir).map_err(|e| (format!("chdir to cwd ({cwd:?})"), e))?;
        let wanted = self.capabilities.0 & self.available.0;
        for capability in (0..=self.last_capability).filter(|c| self.capabilities.0 >> c & 1 == 0) {
            sys::drop_from_bounding_set(capability).map_err(failed("drop capabilities from the bounding set"))?;
        }
        sys::set_keep_caps(true).map_err(failed("keep capabilities"))?;
        let User { uid, gid, additional_gids } = &self.user;
        sys::become_user(*uid, *gid, additional_gids).map_err(failed("change user and groups"))?;
        // Changing the user clears this.
        if ends_with_parent {
            sys::set_parent_death_signal(libc::SIGKILL).map_err(failed("tie the container to its shim"))?;
        }
        if self.no_new_privs {
            sys::set_no_new_privs().map_err(failed("set no_new_privs"))?;
        } else if let Some(filter) = &self.filter {
            // Without no_new_privs a filter needs CAP_SYS_ADMIN, so it comes before the last capabilities go.
            let admin = 1 << crate::caps::number("SYS_ADMIN").expect("a known name");
            sys::set_capabilities(wanted | admin, wanted | admin, 0).map_err(failed("set capabilities"))?;
            sys::install_seccomp(&filter.program, filter.flags).map_err(failed("install the seccomp filter"))?;
        }
        sys::clear_ambient_set().map_err(failed("clear ambient capabilities"))?;
        sys::set_capabilities(wanted, wanted, 0).map_err(failed("set capabilities"))?;
        if let (true, Some(filter)) = (self.no_new_privs, &self.filter) {
            sys::install_seccomp(&filter.program, filter.flags).map_err(failed("install the seccomp filter"))?;
        }
        Ok(())
    }

    /// Tries the candidates as `execvp` does. The messages are those that Go's `exec.LookPath` makes of the same failures,
    /// which users of Kubernetes know.
    fn exec(&self) -> String {
        let name = &self.name;
        let mut denied = false;
        for candidate in &self.candidates {
            let error = sys::execve(candidate, &self.argv, &self.envp);
            let path = candidate.to_string_lossy();
            match errno(error) {
                Errno::NOENT | Errno::NOTDIR if rustix::fs::stat(candidate.as_c_str()).is_err() => {}
                Errno::ACCESS if is_directory(candidate) => {
                    if name.contains('/') {
                        return format!("exec: {name:?}: is a directory");
                    }
                }
                Errno::ACCESS => denied = true,
                e => return format!("exec {path}: {}", reason(e)),
            }
        }
        if denied {
            return format!("exec: {name:?}: permission denied");
        }
        if name.contains('/') {
            return format!("exec: {name:?}: stat {name}: no such file or directory");
        }
        format!("exec: {name:?}: executable file not found in $PATH")
    }
}

/// Has the next program of this process run under a profile of AppArmor. While the container's `/proc` is there and
/// nothing of the container has run.
fn confine(profile: &str) -> std::io::Result<()> {
    let order = format!("exec {profile}");
    let own = "/proc/self/attr/apparmor/exec";
    let path = if std::path::Path::new(own).exists() { own } else { "/proc/self/attr/exec" };
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    // Another file system in its place would take anything.
    if rustix::fs::fstatfs(&file)?.f_type != rustix::fs::PROC_SUPER_MAGIC {
        return Err(std::io::Error::from(Errno::NODEV));
    }
    rustix::io::write(&file, order.as_bytes())?;
    Ok(())
}

fn is_directory(path: &CString) -> bool {
    rustix::fs::stat(path.as_c_str()).is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode).is_dir())
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// The kernel's reason in Go's spelling, which begins in lower case.
pub fn reason(error: Errno) -> String {
    let text = std::io::Error::from(error).to_string();
    let text = text.split(" (os error").next().unwrap_or("");
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_lowercase().chain(letters).collect())
}

/// What this machine's root can give: a capability that it lacks itself is left out, with a note.
fn available_capabilities() -> Result<CapSet> {
    let sets = rustix::thread::capabilities(None).map_err(|e| Error::system("capget", e))?;
    Ok(CapSet(sets.permitted.bits()))
}

/// The highest capability of this kernel.
fn last_capability() -> Result<u32> {
    let path = "/proc/sys/kernel/cap_last_cap";
    let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
    text.trim().parse().map_err(|e| Error::file(path, std::io::Error::other(e)))
}

#[allow(clippy::unnecessary_cast, reason = "the constants' type is the C library's choice")]
fn limit(limit: &crate::Rlimit) -> Result<Limit> {
    const NAMES: [(&str, u32); 16] = [
        ("AS", libc::RLIMIT_AS as u32),
        ("CORE", libc::RLIMIT_CORE as u32),
        ("CPU", libc::RLIMIT_CPU as u32),
        ("DATA", libc::RLIMIT_DATA as u32),
        ("FSIZE", libc::RLIMIT_FSIZE as u32),
        ("LOCKS", libc::RLIMIT_LOCKS as u32),
        ("MEMLOCK", libc::RLIMIT_MEMLOCK as u32),
        ("MSGQUEUE", libc::RLIMIT_MSGQUEUE as u32),
        ("NICE", libc::RLIMIT_NICE as u32),
        ("NOFILE", libc::RLIMIT_NOFILE as u32),
        ("NPROC", libc::RLIMIT_NPROC as u32),
        ("RSS", libc::RLIMIT_RSS as u32),
        ("RTPRIO", libc::RLIMIT_RTPRIO as u32),
        ("RTTIME", libc::RLIMIT_RTTIME as u32),
        ("SIGPENDING", libc::RLIMIT_SIGPENDING as u32),
        ("STACK", libc::RLIMIT_STACK as u32),
    ];
    let bare = limit.resource.strip_prefix("RLIMIT_").unwrap_or(&limit.resource);
    let number = NAMES.iter().find(|(name, _)| *name == bare).map(|(_, number)| *number);
    let number = number.ok_or_else(|| Error::Invalid(format!("unknown resource limit {:?}", limit.resource)))?;
    Ok(Limit { name: limit.resource.clone(), number, soft: limit.soft, hard: limit.hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_with_a_zero_byte_is_named_and_not_shown() {
        assert_eq!(c_string("a=b", String::new).unwrap().as_bytes(), b"a=b");
        let error = c_string("PASSWORD=secret\0", || "the variable \"PASSWORD\"".into()).unwrap_err().to_string();
        assert!(error.contains("the variable \"PASSWORD\" has a zero byte") && !error.contains("secret"), "{error}");
    }
}
