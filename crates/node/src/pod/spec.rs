//! A container's specification for the runtime, from the pod, the image and what was prepared.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use corten_podplan::resources::{container_cgroup, oom_score_adj};
use corten_podplan::security::{self, AppArmor, SeccompProfile, Security};
use corten_podplan::{ContainerKind, env, hosts, huge_pages};
use corten_runtime::{
    CapSet, ContainerSpec, Device, Log, Mount, MountSource, PidNamespace, Propagation, ReadOnly, Resources, Rlimit,
    Rootfs, Seccomp, User, defaults, user,
};
use corten_views::container::{VolumeDevice, VolumeMount};

use super::PodContext;
use super::start::{IMAGE_VOLUME_MOUNT_FAILED, StartJob};
use crate::images::PreparedImage;
use crate::labels;
use crate::volumes::Mounted;

/// Everything that a specification is made of.
pub struct Inputs<'i> {
    pub ctx: &'i PodContext,
    pub job: &'i StartJob,
    pub image: &'i PreparedImage,
    pub environment: Vec<(String, String)>,
    pub mounted: &'i HashMap<String, Mounted>,
    pub id: &'i str,
}

/// Builds the specification. The error is the message of `CreateContainerConfigError`.
pub fn build(inputs: Inputs<'_>) -> Result<ContainerSpec, String> {
    let (ctx, job, image) = (inputs.ctx, inputs.job, inputs.image);
    let (pod, container) = (&ctx.pod, &job.container);
    let security = security::security(pod, container);
    let dir = ctx.dir().join("containers").join(&container.name);
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let upper = dir.join(format!("{}.root", job.attempt));
    let rootfs =
        Rootfs { lower: image.layers.clone(), upper: Some(upper), work: None, read_only: security.read_only_root };
    let user = resolve_user(&inputs, &security, &rootfs)?;
    let mut env = base_env(&inputs, &rootfs, &user);
    env.extend(inputs.environment.iter().cloned());
    let args = env::command_line(container, &inputs.environment, &image.config.entrypoint, &image.config.cmd);
    let message_file = dir.join(format!("{}.message", job.attempt));
    std::fs::write(&message_file, "").map_err(|e| format!("{}: {e}", message_file.display()))?;
    open_to_all(&message_file);
    let log = ctx.log_dir().join(&container.name).join(format!("{}.log", job.attempt));
    std::fs::create_dir_all(log.parent().expect("it was joined")).map_err(|e| format!("{}: {e}", log.display()))?;
    let cgroup = container_cgroup(pod, container);
    let working_dir = &container.working_dir;
    Ok(ContainerSpec {
        id: inputs.id.to_owned(),
        sandbox: job.sandbox.clone(),
        labels: labels_of(&inputs, &user, &message_file, &log),
        args,
        cwd: if working_dir.is_empty() { image.config.working_dir.clone() } else { working_dir.clone() },
        user,
        pid: pid_namespace(&inputs),
        mounts: mounts(&inputs, &message_file)?,
        capabilities: match security.privileged {
            true => CapSet::ALL,
            false => CapSet::resolve(&security.caps_add, &security.caps_drop).map_err(|e| e.to_string())?,
        },
        no_new_privs: !security.escalation,
        privileged: security.privileged,
        seccomp: match &security.seccomp {
            SeccompProfile::Unconfined => Seccomp::Unconfined,
            SeccompProfile::RuntimeDefault => Seccomp::RuntimeDefault,
            SeccompProfile::Localhost(name) => {
                Seccomp::Localhost(ctx.shared.config.data_dir.join("seccomp").join(name.trim_start_matches('/')))
            }
        },
        app_armor: match &security.app_armor {
            AppArmor::Unconfined => None,
            AppArmor::Localhost(name) => Some(name.clone()),
            AppArmor::RuntimeDefault => {
                return Err("this node brings no default profile of AppArmor: use a profile of type Localhost".into());
            }
        },
        masked_paths: paths(&security, defaults::MASKED_PATHS),
        readonly_paths: paths(&security, defaults::READONLY_PATHS),
        devices: devices(&inputs)?,
        rlimits: ctx.shared.config.open_files.map(open_files).into_iter().collect(),
        oom_score_adj: oom_score_adj(pod, container, ctx.shared.facts.memory),
        resources: Resources {
            huge_pages: Some(huge_pages::of_container(pod, container)),
            ..super::resize::resources(&cgroup)
        },
        tty: container.tty,
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        terminal_size: None,
        log: Some(Log::new(log)),
        env,
        rootfs,
    })
}

fn open_files((soft, hard): (u64, u64)) -> Rlimit {
    Rlimit { resource: "RLIMIT_NOFILE".into(), soft, hard }
}

fn paths(security: &Security, all: &[&str]) -> Vec<String> {
    if security.unmasked_proc { Vec::new() } else { all.iter().map(|p| (*p).to_owned()).collect() }
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    // The container's user writes its termination message here.
    if let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)) {
        tracing::warn!(path = %path.display(), %error, "cannot open the termination message to the container");
    }
}

fn labels_of(inputs: &Inputs<'_>, user: &User, message_file: &Path, log: &Path) -> BTreeMap<String, String> {
    let (pod, job) = (&inputs.ctx.pod, inputs.job);
    let container = &job.container;
    let mut ids = vec![user.uid, user.gid];
    ids.extend(&user.additional_gids);
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    let of_pod = container.lifecycle.as_ref().and_then(|l| l.stop_signal.clone());
    let signal = of_pod.unwrap_or_else(|| inputs.image.config.stop_signal.clone());
    let text = |path: &Path| path.to_string_lossy().into_owned();
    BTreeMap::from([
        (labels::POD_UID.into(), pod.metadata.uid.clone()),
        (labels::POD_NAME.into(), pod.metadata.name.clone()),
        (labels::POD_NAMESPACE.into(), pod.metadata.namespace.clone()),
        (labels::CONTAINER.into(), container.name.clone()),
        (labels::ATTEMPT.into(), job.attempt.to_string()),
        (labels::IMAGE.into(), container.image.clone()),
        (labels::SPEC_IMAGE.into(), container.image.clone()),
        (labels::IMAGE_ID.into(), inputs.image.id.clone()),
        (labels::USER.into(), ids.join(",")),
        (labels::MESSAGE_FILE.into(), text(message_file)),
        (labels::MESSAGE_POLICY.into(), container.termination_message_policy.clone()),
        (labels::LOG.into(), text(log)),
        (labels::STOP_SIGNAL.into(), signal),
    ])
}

fn resolve_user(inputs: &Inputs<'_>, security: &Security, rootfs: &Rootfs) -> Result<User, String> {
    let image_user = inputs.image.config.user.as_str();
    let image_name = image_user.split(':').next().unwrap_or("");
    let uid = image_name.parse::<i64>().ok();
    security::check_non_root(&inputs.ctx.pod, &inputs.job.container, security, uid, image_name)?;
    let wanted = match (security.user, security.group) {
        (Some(uid), Some(gid)) => format!("{uid}:{gid}"),
        (Some(uid), None) => uid.to_string(),
        (None, Some(gid)) => format!("{}:{gid}", if image_name.is_empty() { "0" } else { image_name }),
        (None, None) => image_user.to_owned(),
    };
    let mut user = user::resolve(rootfs, &wanted).map_err(|e| e.to_string())?;
    if !security.image_groups {
        user.additional_gids.clear();
    }
    let extra = security.extra_groups.iter().filter_map(|g| u32::try_from(*g).ok());
    user.additional_gids.extend(extra);
    user.additional_gids.sort_unstable();
    user.additional_gids.dedup();
    Ok(user)
}

fn base_env(inputs: &Inputs<'_>, rootfs: &Rootfs, user: &User) -> Vec<(String, String)> {
    let (name, _) = hosts::host_name(&inputs.ctx.pod, &inputs.ctx.shared.config.cluster_domain);
    let name = if inputs.ctx.pod.spec.host_network { inputs.ctx.shared.config.node_name.clone() } else { name };
    let mut env = vec![("PATH".to_owned(), defaults::PATH.to_owned()), ("HOSTNAME".to_owned(), name)];
    if inputs.job.container.tty {
        env.push(("TERM".into(), "xterm".into()));
    }
    if let Some(home) = user::home(rootfs, user.uid) {
        env.push(("HOME".into(), home));
    }
    env.extend(inputs.image.config.env.iter().cloned());
    env
}

fn pid_namespace(inputs: &Inputs<'_>) -> PidNamespace {
    let spec = &inputs.ctx.pod.spec;
    match &inputs.job.target {
        Some(id) if inputs.job.kind == ContainerKind::Ephemeral => PidNamespace::Container(id.clone()),
        _ if spec.host_pid => PidNamespace::Host,
        _ if spec.share_process_namespace == Some(true) => PidNamespace::Sandbox,
        _ => PidNamespace::Own,
    }
}

fn mounts(inputs: &Inputs<'_>, message_file: &Path) -> Result<Vec<Mount>, String> {
    let (ctx, container) = (inputs.ctx, &inputs.job.container);
    let mut out = Vec::new();
    for (n, mount) in container.volume_mounts.iter().enumerate() {
        out.push(volume_mount(inputs, mount, n)?);
    }
    let bind = |destination: &str, source: PathBuf, read_only: bool| Mount {
        destination: destination.to_owned(),
        source: MountSource::Bind(source),
        read_only: if read_only { ReadOnly::Yes } else { ReadOnly::No },
        propagation: Propagation::Private,
    };
    let etc = ctx.dir().join("etc");
    for name in ["hosts", "hostname", "resolv.conf"] {
        let destination = format!("/etc/{name}");
        if !out.iter().any(|m| m.destination == destination) {
            out.push(bind(&destination, etc.join(name), false));
        }
    }
    let path = match container.termination_message_path.as_str() {
        "" => "/dev/termination-log",
        path => path,
    };
    out.push(bind(path, message_file.to_owned(), false));
    Ok(out)
}

/// The block devices that the container gets of its volumes.
fn devices(inputs: &Inputs<'_>) -> Result<Vec<Device>, String> {
    let one = |device: &VolumeDevice| {
        let name = &device.name;
        let found = inputs.mounted.get(name).filter(|m| m.block);
        let volume = found.ok_or_else(|| format!("volume {name:?} is no block device"))?;
        Ok(Device {
            host_path: volume.path.clone(),
            container_path: device.device_path.clone(),
            permissions: if volume.read_only { "r".into() } else { "rwm".into() },
        })
    };
    inputs.job.container.volume_devices.iter().map(one).collect()
}

fn volume_mount(inputs: &Inputs<'_>, mount: &VolumeMount, n: usize) -> Result<Mount, String> {
    let volume = inputs.mounted.get(&mount.name).ok_or_else(|| format!("volume {:?} is not mounted", mount.name))?;
    let mut sub_path = mount.sub_path.clone();
    if !mount.sub_path_expr.is_empty() {
        let look = |name: &str| {
            let found = inputs.environment.iter().rev().find(|(n, _)| n == name);
            found.map(|(_, v)| v.as_str())
        };
        sub_path = env::expand(&mount.sub_path_expr, look);
    }
    let source = match sub_path.as_str() {
        "" => volume.path.clone(),
        sub => {
            let target = crate::volumes::sub_path(inputs.ctx, &mount.name, &inputs.job.container.name, n);
            corten_volumes::bind_sub_path(&volume.path, sub, &target).map_err(|error| match volume.image {
                true => format!("{IMAGE_VOLUME_MOUNT_FAILED}: {error}"),
                false => error.to_string(),
            })?;
            target
        }
    };
    let read_only = mount.read_only || volume.read_only;
    let recursive = matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"));
    let path = &mount.mount_path;
    Ok(Mount {
        destination: if path.starts_with('/') { path.clone() } else { format!("/{path}") },
        source: MountSource::Bind(source),
        read_only: match (read_only, recursive) {
            (true, true) => ReadOnly::Recursive,
            (true, false) => ReadOnly::Yes,
            (false, _) => ReadOnly::No,
        },
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => Propagation::HostToContainer,
            Some("Bidirectional") => Propagation::Bidirectional,
            _ => Propagation::Private,
        },
    })
}
