//! `corten server`: everything in the foreground.

use anyhow::{Result, bail};

use crate::args::{AgentArgs, ServerArgs};

/// Runs the server until it is told to stop.
///
/// # Errors
/// What keeps it from starting, or what broke it.
pub fn run(_args: ServerArgs) -> Result<u8> {
    bail!("the server is not wired yet")
}

/// Runs a node that joins a server.
///
/// # Errors
/// Always, for now: joining is not there yet.
pub fn run_agent(args: &AgentArgs) -> Result<u8> {
    bail!("joining {} from another machine is not there yet: run `corten server` on one machine", args.server)
}

/// The start time of a process in clock ticks since boot, from `/proc/PID/stat`: with the pid it names a process for good.
pub fn start_time(pid: i32) -> Option<i64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces: fields are counted after it. Start time is field 22, the 20th after the name.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
