//! postStart and preStop hooks (`pkg/kubelet/lifecycle/handlers.go`).

use std::time::Duration;

use corten_views::Container;
use corten_views::container::LifecycleHandler;

use super::PodContext;
use super::probes::{self, HttpTarget};

/// Runs a hook to its end. The caller bounds its time.
pub async fn run(
    ctx: &PodContext,
    id: &str,
    container: &Container,
    hook: &LifecycleHandler,
    ips: &[String],
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let (code, output) = probes::exec(ctx, id, &exec.command, Duration::from_secs(24 * 3600)).await?;
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
        let target = HttpTarget::of(ctx, container, get, ips)?;
        let answer = probes::http_get(&target, Duration::from_secs(30)).await?;
        return match answer.status {
            200..400 => Ok(()),
            status => Err(format!("HTTP hook failed with statuscode: {status}")),
        };
    }
    Err("the hook has no handler that is implemented".into())
}
