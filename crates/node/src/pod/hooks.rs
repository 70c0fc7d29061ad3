//! postStart and preStop hooks (`pkg/kubelet/lifecycle/handlers.go`).

use std::time::Duration;

use corten_views::Container;
use corten_views::container::LifecycleHandler;

use super::PodContext;
use super::probes::{self, ExecError, HttpTarget};

/// How long an HTTP hook may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Runs a hook to its end. The caller bounds its time.
pub async fn run(
    ctx: &PodContext,
    id: &str,
    container: &Container,
    hook: &LifecycleHandler,
    ips: &[String],
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let ran = probes::exec(ctx, id, &exec.command, Duration::from_secs(24 * 3600)).await;
        let (code, output) = ran.map_err(ExecError::into_text)?;
        return match code {
            0 => Ok(()),
            code => Err(format!("command '{}' exited with {code}: {output}", exec.command.join(" "))),
        };
    }
    if let Some(sleep) = &hook.sleep {
        ctx.shared.clock.sleep(Duration::from_secs(sleep.seconds.max(0).unsigned_abs())).await;
        return Ok(());
    }
    if let Some(get) = &hook.http_get {
        // Whatever the answer is: it was asked.
        let mut target = HttpTarget { agent: "kube-lifecycle", ..HttpTarget::of(ctx, container, get, ips)? };
        return match probes::http_get(&target, TIMEOUT).await {
            Err(error) if target.tls && error.ends_with(probes::NOT_TLS) => {
                target.tls = false;
                target.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
                // If that fails, too, the first failure is the one that is told.
                probes::http_get(&target, TIMEOUT).await.map_err(|_| error)?;
                let at = format!("{}:{}", target.host, target.port);
                let message =
                    format!("request to HTTPS lifecycle hook {at} got HTTP response, retry with HTTP succeeded");
                ctx.event("", true, "LifecycleHTTPFallback", message);
                Ok(())
            }
            answer => answer.map(drop),
        };
    }
    Err("the hook has no handler that is implemented".into())
}
