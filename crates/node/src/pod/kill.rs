//! Stopping a container: preStop hook, stop signal, and SIGKILL when its time is over.

use std::time::Duration;

use corten_base::{OnStop, Timestamp};
use corten_views::Container;
use jiff::SignedDuration;
use tokio::sync::watch;

use super::{PodContext, hooks};
use crate::labels;

const SIGTERM: i32 = 15;

/// A kill under way. Dropping it ends the job: the container has gone.
pub struct Killing {
    deadline: watch::Sender<Timestamp>,
    _stop: super::Stopper,
}

impl Killing {
    /// Less time than before holds, more does not.
    pub fn shorten(&self, deadline: Timestamp) {
        self.deadline.send_if_modified(|now| {
            let shorter = deadline < *now;
            *now = (*now).min(deadline);
            shorter
        });
    }
}

/// Begins to stop a container. `grace_seconds` count from now.
pub fn begin(
    ctx: &PodContext,
    id: &str,
    container: Option<Container>,
    grace_seconds: i64,
    pre_stop: bool,
    ips: Vec<String>,
) -> Killing {
    let now = ctx.shared.clock.now();
    let (deadline, mut watched) = watch::channel(now + SignedDuration::from_secs(grace_seconds));
    let (stop, registration) = futures::future::AbortHandle::new_pair();
    let (ctx, id) = (ctx.clone(), id.to_owned());
    let tasks = ctx.shared.tasks.clone();
    let job = async move {
        let hook = container.as_ref().and_then(|c| Some((c, c.lifecycle.as_ref()?.pre_stop.as_ref()?)));
        if let Some((container, hook)) = hook.filter(|_| pre_stop) {
            let until = wait(&ctx, &mut watched);
            let run = hooks::run(&ctx, &id, container, hook, &ips);
            futures::pin_mut!(until, run);
            match futures::future::select(run, until).await {
                futures::future::Either::Left((Err(_), _)) => {
                    ctx.event(&container.name, true, "FailedPreStopHook", "PreStopHook failed");
                }
                futures::future::Either::Left((Ok(()), _)) => {}
                futures::future::Either::Right(_) => {
                    let message = format!("Container {} did not end its preStop hook in time", container.name);
                    ctx.event(&container.name, true, "ExceededGracePeriod", message);
                }
            }
            // A short window between signal and kill, however long the hook took.
            let least = ctx.shared.clock.now() + SignedDuration::from_secs(2);
            signal(&ctx, &id).await;
            ctx.shared.clock.sleep_until(least).await;
        } else {
            signal(&ctx, &id).await;
        }
        wait(&ctx, &mut watched).await;
        kill_all(&ctx, &id).await;
    };
    let task = futures::future::Abortable::new(job, registration);
    tasks.spawn("container-kill", OnStop::Abort, async move {
        let _ = task.await;
    });
    Killing { deadline, _stop: super::Stopper(stop) }
}

/// Stops a container that is of no use (its postStart hook failed), and waits for its end.
pub async fn now(ctx: &PodContext, id: &str, grace_seconds: i64) {
    signal(ctx, id).await;
    let owned = id.to_owned();
    let shim = ctx.shared.blocking(move |s| s.runtime.running_shim(&owned)).await;
    if let Ok(Ok(Some(shim))) = shim {
        let limit = ctx.shared.clock.sleep(Duration::from_secs(grace_seconds.max(2).unsigned_abs()));
        let ended = Box::pin(super::observe::readable(shim.pidfd));
        if let futures::future::Either::Left(_) = futures::future::select(ended, limit).await {
            return;
        }
    }
    kill_all(ctx, id).await;
}

async fn wait(ctx: &PodContext, deadline: &mut watch::Receiver<Timestamp>) {
    loop {
        let at = *deadline.borrow_and_update();
        if ctx.shared.clock.now() >= at {
            return;
        }
        let sleep = ctx.shared.clock.sleep_until(at);
        let changed = Box::pin(deadline.changed());
        match futures::future::select(changed, sleep).await {
            futures::future::Either::Left((Ok(()), _)) => {}
            _ => return,
        }
    }
}

async fn signal(ctx: &PodContext, id: &str) {
    let owned = id.to_owned();
    let sent = ctx.shared.blocking(move |s| {
        let signal = s.runtime.container(&owned).map(|c| number(labels::get(&c.labels, labels::STOP_SIGNAL)))?;
        s.runtime.kill(&owned, signal)
    });
    if let Ok(Err(error)) = sent.await {
        tracing::debug!(container = id, %error, "stop signal");
    }
}

async fn kill_all(ctx: &PodContext, id: &str) {
    let owned = id.to_owned();
    if let Ok(Err(error)) = ctx.shared.blocking(move |s| s.runtime.kill_all(&owned)).await {
        tracing::warn!(container = id, %error, "cannot kill the container");
    }
}

/// A signal's number from its name (`SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`); what is unknown is SIGTERM.
fn number(name: &str) -> i32 {
    let upper = name.trim().to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    if let Ok(n) = bare.parse::<i32>() {
        return n;
    }
    let real_time = |prefix: &str, base: i32, sign: i32| {
        let rest = bare.strip_prefix(prefix)?;
        if rest.is_empty() { Some(base) } else { Some(base + sign * rest[1..].parse::<i32>().ok()?) }
    };
    let found = NAMES.iter().position(|n| *n == bare).map(|i| i as i32 + 1);
    let found = found.or_else(|| real_time("RTMIN", 34, 1)).or_else(|| real_time("RTMAX", 64, -1));
    found.unwrap_or(SIGTERM)
}

#[cfg(test)]
mod tests {
    #[test]
    fn signals_by_name() {
        let numbers = ["SIGTERM", "quit", "9", "SIGRTMIN+3", "SIGRTMAX-1", "", "what"].map(super::number);
        assert_eq!(numbers, [15, 3, 9, 37, 63, 15, 15]);
    }
}
