//! Containers: specification and status.

use corten_base::Timestamp;

use crate::meta::{IntOrString, LocalReference};
use crate::quantity::ResourceList;

views! {
    /// `v1.Container`; of an `EphemeralContainer` too, which has `target_container_name`.
    Container {
        name: String,
        image: String,
        command: Vec<String>,
        args: Vec<String>,
        working_dir: String,
        ports: Vec<ContainerPort>,
        env_from: Vec<EnvFromSource>,
        env: Vec<EnvVar>,
        resources: ResourceRequirements,
        resize_policy: Vec<ContainerResizePolicy>,
        restart_policy: Option<String>,
        restart_policy_rules: Vec<ContainerRestartRule>,
        volume_mounts: Vec<VolumeMount>,
        volume_devices: Vec<VolumeDevice>,
        liveness_probe: Option<Probe>,
        readiness_probe: Option<Probe>,
        startup_probe: Option<Probe>,
        lifecycle: Option<Lifecycle>,
        termination_message_path: String,
        termination_message_policy: String,
        image_pull_policy: String,
        security_context: Option<SecurityContext>,
        stdin: bool,
        stdin_once: bool,
        tty: bool,
        target_container_name: String,
    }
    /// `v1.ContainerPort`
    ContainerPort {
        name: String,
        host_port: i32,
        container_port: i32,
        protocol: String,
        #[serde(rename = "hostIP")] host_ip: String,
    }
    /// `v1.EnvFromSource`
    EnvFromSource { prefix: String, config_map_ref: Option<NamedSource>, secret_ref: Option<NamedSource> }
    /// `v1.ConfigMapEnvSource`, `v1.SecretEnvSource`
    NamedSource { name: String, optional: bool }
    /// `v1.EnvVar`
    EnvVar { name: String, value: String, value_from: Option<EnvVarSource> }
    /// `v1.EnvVarSource`
    EnvVarSource {
        field_ref: Option<ObjectFieldSelector>,
        resource_field_ref: Option<ResourceFieldSelector>,
        config_map_key_ref: Option<KeySelector>,
        secret_key_ref: Option<KeySelector>,
        file_key_ref: Option<FileKeySelector>,
    }
    /// `v1.ObjectFieldSelector`
    ObjectFieldSelector { api_version: String, field_path: String }
    /// `v1.ResourceFieldSelector`
    ResourceFieldSelector { container_name: String, resource: String, divisor: crate::Quantity }
    /// `v1.ConfigMapKeySelector`, `v1.SecretKeySelector`
    KeySelector { name: String, key: String, optional: bool }
    /// `v1.FileKeySelector`
    FileKeySelector { volume_name: String, path: String, key: String, optional: bool }
    /// `v1.ResourceRequirements`, of containers and pods
    ResourceRequirements { limits: ResourceList, requests: ResourceList, claims: Vec<ResourceClaim> }
    /// `v1.ResourceClaim`
    ResourceClaim { name: String, request: String }
    /// `v1.ContainerResizePolicy`
    ContainerResizePolicy { resource_name: String, restart_policy: String }
    /// `v1.ContainerRestartRule`
    ContainerRestartRule { action: String, exit_codes: Option<ExitCodes> }
    /// `v1.ContainerRestartRuleOnExitCodes`
    ExitCodes { operator: String, values: Vec<i32> }
    /// `v1.VolumeMount`
    VolumeMount {
        name: String,
        read_only: bool,
        recursive_read_only: Option<String>,
        mount_path: String,
        sub_path: String,
        mount_propagation: Option<String>,
        sub_path_expr: String,
    }
    /// `v1.VolumeDevice`
    VolumeDevice { name: String, device_path: String }
    /// `v1.Probe`; the server has filled the defaults in.
    Probe {
        exec: Option<ExecAction>,
        http_get: Option<HttpGetAction>,
        tcp_socket: Option<TcpSocketAction>,
        grpc: Option<GrpcAction>,
        initial_delay_seconds: i32,
        timeout_seconds: i32,
        period_seconds: i32,
        success_threshold: i32,
        failure_threshold: i32,
        termination_grace_period_seconds: Option<i64>,
    }
    /// `v1.ExecAction`
    ExecAction { command: Vec<String> }
    /// `v1.HTTPGetAction`
    HttpGetAction { path: String, port: IntOrString, host: String, scheme: String, http_headers: Vec<HttpHeader> }
    /// `v1.HTTPHeader`
    HttpHeader { name: String, value: String }
    /// `v1.TCPSocketAction`
    TcpSocketAction { port: IntOrString, host: String }
    /// `v1.GRPCAction`
    GrpcAction { port: i32, service: Option<String> }
    /// `v1.SleepAction`
    SleepAction { seconds: i64 }
    /// `v1.Lifecycle`
    Lifecycle {
        post_start: Option<LifecycleHandler>,
        pre_stop: Option<LifecycleHandler>,
        stop_signal: Option<String>,
    }
    /// `v1.LifecycleHandler`
    LifecycleHandler {
        exec: Option<ExecAction>,
        http_get: Option<HttpGetAction>,
        tcp_socket: Option<TcpSocketAction>,
        sleep: Option<SleepAction>,
    }
    /// `v1.SecurityContext`
    SecurityContext {
        capabilities: Option<Capabilities>,
        privileged: Option<bool>,
        se_linux_options: Option<SeLinuxOptions>,
        run_as_user: Option<i64>,
        run_as_group: Option<i64>,
        run_as_non_root: Option<bool>,
        read_only_root_filesystem: Option<bool>,
        allow_privilege_escalation: Option<bool>,
        proc_mount: Option<String>,
        seccomp_profile: Option<LocalProfile>,
        app_armor_profile: Option<LocalProfile>,
    }
    /// `v1.Capabilities`
    Capabilities { add: Vec<String>, drop: Vec<String> }
    /// `v1.SELinuxOptions`
    SeLinuxOptions { user: String, role: String, r#type: String, level: String }
    /// `v1.SeccompProfile`, `v1.AppArmorProfile`
    LocalProfile { r#type: String, localhost_profile: Option<String> }

    /// `v1.ContainerStatus`
    ContainerStatus {
        name: String,
        state: ContainerState,
        last_state: ContainerState,
        ready: bool,
        restart_count: i32,
        image: String,
        #[serde(rename = "imageID")] image_id: String,
        #[serde(rename = "containerID")] container_id: String,
        started: Option<bool>,
        allocated_resources: ResourceList,
        resources: Option<ResourceRequirements>,
        stop_signal: Option<String>,
    }
    /// `v1.ContainerState`: at most one is there; none means waiting.
    ContainerState {
        waiting: Option<ContainerStateWaiting>,
        running: Option<ContainerStateRunning>,
        terminated: Option<ContainerStateTerminated>,
    }
    /// `v1.ContainerStateWaiting`
    ContainerStateWaiting { reason: String, message: String }
    /// `v1.ContainerStateRunning`
    ContainerStateRunning { started_at: Option<Timestamp> }
    /// `v1.ContainerStateTerminated`
    ContainerStateTerminated {
        exit_code: i32,
        signal: i32,
        reason: String,
        message: String,
        started_at: Option<Timestamp>,
        finished_at: Option<Timestamp>,
        #[serde(rename = "containerID")] container_id: String,
    }
}

impl Container {
    /// Whether this is a sidecar: an init container that restarts always.
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }
}

/// Names of referenced secrets.
pub type SecretReferences = Vec<LocalReference>;
