//! From the runtime's words to podplan's.

use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;

use corten_base::Timestamp;
use corten_podplan::{ObservedContainer, Run};
use corten_runtime::{Container, ContainerStatus, ExitInfo};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::labels;

/// Bytes of a termination message at most.
const MESSAGE_MAX: u64 = 4096;
/// Of a message taken from the log.
const LOG_MESSAGE_MAX: u64 = 2048;
const LOG_MESSAGE_LINES: usize = 80;

pub fn at(nanoseconds: u64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A container as podplan sees it. Reads the termination message of one that has ended.
pub fn container(found: &Container) -> ObservedContainer {
    let label = |key| labels::get(&found.labels, key).to_owned();
    let (run, message) = match &found.status {
        ContainerStatus::Created => (Run::Created, String::new()),
        ContainerStatus::Running { started_at, .. } => (Run::Running { started_at: at(*started_at) }, String::new()),
        ContainerStatus::Exited(exit) => (exited(exit), message(found, exit)),
    };
    let ids = label(labels::USER);
    let mut numbers = ids.split(',').filter_map(|n| n.parse::<u32>().ok());
    let user = numbers.next().zip(numbers.next()).map(|(uid, gid)| (uid, gid, numbers.collect()));
    ObservedContainer {
        id: found.id.clone(),
        name: label(labels::CONTAINER),
        attempt: labels::number(&found.labels, labels::ATTEMPT),
        sandbox: found.sandbox.clone(),
        run,
        created_at: at(found.created_at),
        image: label(labels::IMAGE),
        image_id: label(labels::IMAGE_ID),
        spec_image: label(labels::SPEC_IMAGE),
        message,
        user,
    }
}

fn exited(exit: &ExitInfo) -> Run {
    Run::Exited {
        exit_code: exit.exit_code,
        signal: exit.signal,
        oom_killed: exit.oom_killed,
        started_at: Some(exit.started_at).filter(|t| *t != 0).map(at),
        finished_at: at(exit.finished_at),
    }
}

/// The termination message (`kuberuntime_container.go` `getTerminationMessage`).
fn message(found: &Container, exit: &ExitInfo) -> String {
    let written = tail(Path::new(labels::get(&found.labels, labels::MESSAGE_FILE)), MESSAGE_MAX);
    if !written.is_empty() {
        return written;
    }
    let falls_back = labels::get(&found.labels, labels::MESSAGE_POLICY) == "FallbackToLogsOnError";
    if exit.message.is_empty() && falls_back && exit.exit_code != 0 {
        let log = tail(Path::new(labels::get(&found.labels, labels::LOG)), LOG_MESSAGE_MAX * 2);
        let text = last_lines(&log);
        let start = text.len().saturating_sub(LOG_MESSAGE_MAX as usize);
        let start = (start..text.len()).find(|i| text.is_char_boundary(*i)).unwrap_or(text.len());
        return text[start..].to_owned();
    }
    exit.message.clone()
}

/// What the container wrote in the last lines of its log. Only a full line ends with a newline: what it said last may not.
fn last_lines(log: &str) -> String {
    let lines: Vec<(&str, &str)> = log
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(4, ' ').skip(2);
            Some((parts.next()?, parts.next()?))
        })
        .collect();
    let mut text = String::new();
    for (tag, content) in &lines[lines.len().saturating_sub(LOG_MESSAGE_LINES)..] {
        text.push_str(content);
        if *tag != "P" {
            text.push('\n');
        }
    }
    text
}

/// The last bytes of a file; empty if it cannot be read.
fn tail(path: &Path, bytes_max: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes_max)))?;
        let mut out = Vec::new();
        file.take(bytes_max).read_to_end(&mut out)?;
        Ok(out)
    };
    read().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// A descriptor for the event loop.
#[expect(deprecated, reason = "the constructor that replaces it is unsafe for the sake of other types than OwnedFd")]
pub fn async_fd(fd: OwnedFd, interest: Interest) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}

/// Completes when a descriptor is readable (a pidfd: when the process has ended).
pub async fn readable(fd: OwnedFd) -> std::io::Result<()> {
    let fd = async_fd(fd, Interest::READABLE)?;
    fd.readable().await.map(drop)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_termination_message_from_the_log_ends_as_the_container_ended_it() {
        let log = "2026-01-01T00:00:00.000000000Z stdout F one\n2026-01-01T00:00:00.000000000Z stderr P tw\n\
                   2026-01-01T00:00:00.000000000Z stderr P o";
        assert_eq!(super::last_lines(log), "one\ntwo");
        assert_eq!(super::last_lines("2026-01-01T00:00:00.000000000Z stdout F DONE\n"), "DONE\n");
    }
}
