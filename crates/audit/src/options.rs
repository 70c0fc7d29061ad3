//! What is recorded where, and its limits, under the names of upstream's flags (`apiserver/pkg/server/options/audit.go`).

use std::path::PathBuf;
use std::time::Duration;

/// Events that wait for a backend, at most.
const BUFFER_SIZE: usize = 10_000;

/// Whether a request waits for its events to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It does not: events are buffered, and dropped when too many wait.
    Batch,
    /// It does, but goes on if that fails.
    Blocking,
    /// It does, and is refused if its first event cannot be recorded.
    BlockingStrict,
}

impl Mode {
    /// The text in flags.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Batch => "batch",
            Mode::Blocking => "blocking",
            Mode::BlockingStrict => "blocking-strict",
        }
    }
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Mode, String> {
        let all = [Mode::Batch, Mode::Blocking, Mode::BlockingStrict];
        let found = all.into_iter().find(|mode| mode.as_str() == text);
        found.ok_or_else(|| format!("invalid audit mode {text}, allowed modes are \"batch,blocking,blocking-strict\""))
    }
}

/// How events are buffered and sent together; all but `mode` is for the mode `batch`.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchOptions {
    /// Whether requests wait.
    pub mode: Mode,
    /// Events that wait, at most.
    pub buffer_size: usize,
    /// Events that are sent together, at most.
    pub max_size: usize,
    /// How long the first event of a batch waits for others.
    pub max_wait: Duration,
    /// Batches per second on average, and at once; `None` does not limit them.
    pub throttle: Option<(f64, u32)>,
}

/// How large events and batches may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TruncateOptions {
    /// Whether anything is done about it.
    pub enabled: bool,
    /// Bytes of an event: a larger one loses its objects, and is dropped if that does not help.
    pub max_event_size: usize,
    /// Bytes of a batch: a larger one is sent in parts.
    pub max_batch_size: usize,
}

impl Default for TruncateOptions {
    fn default() -> TruncateOptions {
        TruncateOptions { enabled: false, max_event_size: 100 * 1024, max_batch_size: 10 * 1024 * 1024 }
    }
}

/// The log file.
#[derive(Debug, Clone, PartialEq)]
pub struct LogOptions {
    /// The file; `-` is standard output. `None` writes no log.
    pub path: Option<String>,
    /// Days that rotated files are kept; 0 is for ever.
    pub max_age_days: u32,
    /// Rotated files that are kept; 0 is all.
    pub max_backups: usize,
    /// Megabytes of a file before it is rotated; 0 is never.
    pub max_size_megabytes: u64,
    /// `json` or `legacy`.
    pub format: String,
    /// The API version of events.
    pub version: String,
    /// Whether rotated files are compressed.
    pub compress: bool,
    /// How events are buffered.
    pub batch: BatchOptions,
    /// How large they may be.
    pub truncate: TruncateOptions,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            path: None,
            max_age_days: 366,
            max_backups: 100,
            max_size_megabytes: 100,
            format: "json".into(),
            version: VERSION.into(),
            compress: false,
            batch: BatchOptions {
                mode: Mode::Blocking,
                buffer_size: BUFFER_SIZE,
                max_size: 1,
                max_wait: Duration::ZERO,
                throttle: None,
            },
            truncate: TruncateOptions::default(),
        }
    }
}

/// The server that events are sent to.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookOptions {
    /// A kubeconfig file that says where it is; `None` sends nothing.
    pub config_file: Option<PathBuf>,
    /// How long the first retry waits; each next one half as long again, five attempts in all.
    pub initial_backoff: Duration,
    /// The API version of events.
    pub version: String,
    /// How events are buffered.
    pub batch: BatchOptions,
    /// How large they may be.
    pub truncate: TruncateOptions,
}

impl Default for WebhookOptions {
    fn default() -> WebhookOptions {
        WebhookOptions {
            config_file: None,
            initial_backoff: Duration::from_secs(10),
            version: VERSION.into(),
            batch: BatchOptions {
                mode: Mode::Batch,
                buffer_size: BUFFER_SIZE,
                max_size: 400,
                max_wait: Duration::from_secs(30),
                throttle: Some((10.0, 15)),
            },
            truncate: TruncateOptions::default(),
        }
    }
}

/// All that can be said of auditing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// The policy; without one nothing is recorded.
    pub policy_file: Option<PathBuf>,
    /// The log file.
    pub log: LogOptions,
    /// The server that events are sent to.
    pub webhook: WebhookOptions,
}

const VERSION: &str = "audit.k8s.io/v1";

/// Why auditing cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// An option has a value that it cannot have.
    #[error("{0}")]
    Invalid(String),
    /// The policy file is of no use.
    #[error("{0}")]
    Policy(String),
    /// The log file cannot be written.
    #[error("--audit-log-path {path}: {source}")]
    Log {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The webhook's kubeconfig is of no use.
    #[error("initializing audit webhook: {0}")]
    Webhook(String),
}

impl Options {
    /// Checks what is switched on.
    ///
    /// # Errors
    /// Upstream's words for the first value that cannot be.
    pub fn validate(&self) -> Result<(), OptionsError> {
        let invalid = |why: String| Err(OptionsError::Invalid(why));
        if self.log.path.is_some() {
            check("log", &self.log.batch, &self.log.truncate, &self.log.version)?;
            if !matches!(self.log.format.as_str(), "json" | "legacy") {
                let format = &self.log.format;
                return invalid(format!("invalid audit log format {format}, allowed formats are \"legacy,json\""));
            }
        }
        if self.webhook.config_file.is_some() {
            check("webhook", &self.webhook.batch, &self.webhook.truncate, &self.webhook.version)?;
        }
        Ok(())
    }
}

fn check(plugin: &str, batch: &BatchOptions, truncate: &TruncateOptions, version: &str) -> Result<(), OptionsError> {
    let why = if batch.mode == Mode::Batch && batch.buffer_size == 0 {
        format!("invalid audit batch {plugin} buffer size 0, must be a positive number")
    } else if batch.mode == Mode::Batch && batch.max_size == 0 {
        format!("invalid audit batch {plugin} max batch size 0, must be a positive number")
    } else if let (Mode::Batch, Some((qps, _))) = (batch.mode, batch.throttle)
        && qps <= 0.0
    {
        format!("invalid audit batch {plugin} throttle QPS {qps}, must be a positive number")
    } else if let (Mode::Batch, Some((_, 0))) = (batch.mode, batch.throttle) {
        format!("invalid audit batch {plugin} throttle burst 0, must be a positive number")
    } else if truncate.max_event_size == 0 {
        format!("invalid audit truncate {plugin} max event size 0, must be a positive number")
    } else if truncate.max_batch_size < truncate.max_event_size {
        let (batch, event) = (truncate.max_batch_size, truncate.max_event_size);
        format!("invalid audit truncate {plugin} max batch size {batch}, must be greater than max event size ({event})")
    } else if version != VERSION {
        format!("invalid group version, allowed versions are [\"{VERSION}\"]")
    } else {
        return Ok(());
    };
    Err(OptionsError::Invalid(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audit_options_that_cannot_be_are_told_in_upstreams_words() {
        let mut options = Options::default();
        options.log.path = Some("-".into());
        assert!(options.validate().is_ok());
        options.log.format = "xml".into();
        let said = |options: &Options| options.validate().unwrap_err().to_string();
        assert_eq!(said(&options), "invalid audit log format xml, allowed formats are \"legacy,json\"");
        options.log.truncate.max_batch_size = 5;
        assert_eq!(
            said(&options),
            "invalid audit truncate log max batch size 5, must be greater than max event size (102400)"
        );
        options.log.path = None;
        options.webhook.config_file = Some("x".into());
        options.webhook.batch.throttle = Some((10.0, 0));
        assert_eq!(said(&options), "invalid audit batch webhook throttle burst 0, must be a positive number");
        assert!("async".parse::<Mode>().unwrap_err().contains("allowed modes"));
    }
}
