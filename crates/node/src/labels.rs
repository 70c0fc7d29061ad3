//! The labels by which an agent knows its sandboxes and containers again.

use std::collections::BTreeMap;

pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const CONTAINER: &str = "io.kubernetes.container.name";
pub const ATTEMPT: &str = "corten.dev/attempt";
pub const IMAGE: &str = "corten.dev/image";
pub const IMAGE_ID: &str = "corten.dev/image-id";
pub const SPEC_IMAGE: &str = "corten.dev/spec-image";
pub const USER: &str = "corten.dev/user";
/// The file that the container's termination message is in.
pub const MESSAGE_FILE: &str = "corten.dev/message-file";
/// `FallbackToLogsOnError`, or empty.
pub const MESSAGE_POLICY: &str = "corten.dev/message-policy";
/// The container's log file.
pub const LOG: &str = "corten.dev/log";
/// The signal that stops the container.
pub const STOP_SIGNAL: &str = "corten.dev/stop-signal";

pub fn get<'l>(labels: &'l BTreeMap<String, String>, key: &str) -> &'l str {
    labels.get(key).map_or("", String::as_str)
}

pub fn number(labels: &BTreeMap<String, String>, key: &str) -> u32 {
    get(labels, key).parse().unwrap_or(0)
}
