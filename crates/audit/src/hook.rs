//! The server that events are sent to (`apiserver/plugin/pkg/audit/webhook`).

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use corten_webhook::{Caller, ClientConfig, Retries};

/// How long one attempt may take (`apiserver/pkg/util/webhook/webhook.go`, `defaultRequestTimeout`).
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where events are sent.
pub(crate) struct Hook {
    caller: Caller,
    config: ClientConfig,
    retries: Retries,
}

impl Hook {
    /// Reads the kubeconfig; nothing is connected yet.
    pub fn load(file: &Path, initial_backoff: Duration, caller: Caller) -> Result<Hook, String> {
        let config = ClientConfig::from_kubeconfig(file)?;
        Ok(Hook { caller, config, retries: Retries { initial: initial_backoff, retry: |_| true } })
    }

    /// Sends events, tried again after any failure.
    pub async fn send(&self, events: &[Bytes]) -> Result<(), String> {
        let mut body = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#.to_vec();
        for (at, event) in events.iter().enumerate() {
            if at > 0 {
                body.push(b',');
            }
            body.extend_from_slice(event);
        }
        body.extend_from_slice(b"]}");
        let sent = self.caller.post_again(&self.config, TIMEOUT, body.into(), &self.retries).await;
        sent.map(drop).map_err(|e| e.to_string())
    }
}
