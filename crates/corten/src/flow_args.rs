//! Options of how much the API server does at once and for how long, under the names of upstream's flags.

use std::time::Duration;

use clap::Args;
use corten_apiserver::FlowLimits;

/// How much is done at once, and for how long.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Flow control")]
pub struct FlowArgs {
    /// Reads at once; with the writes, what priority levels share [default: 400]
    #[arg(long, value_name = "COUNT", hide_short_help = true)]
    max_requests_inflight: Option<u32>,
    /// Writes at once; with the reads, what priority levels share [default: 200]
    #[arg(long, value_name = "COUNT", hide_short_help = true)]
    max_mutating_requests_inflight: Option<u32>,
    /// How long a request may take that is not made to last [default: 1m0s]
    #[arg(long, value_name = "DURATION", value_parser = crate::api_args::duration, hide_short_help = true)]
    request_timeout: Option<Duration>,
}

impl FlowArgs {
    /// The limits.
    ///
    /// # Errors
    /// If nothing at all may be done (`apiserver/pkg/server/options/{feature,server_run_options}.go`).
    pub fn limits(&self) -> anyhow::Result<FlowLimits> {
        let usual = FlowLimits::default();
        let limits = FlowLimits {
            reads: self.max_requests_inflight.map_or(usual.reads, u64::from),
            writes: self.max_mutating_requests_inflight.map_or(usual.writes, u64::from),
            request_timeout: self.request_timeout.unwrap_or(usual.request_timeout),
        };
        if limits.reads + limits.writes == 0 {
            anyhow::bail!(
                "--max-requests-inflight and --max-mutating-requests-inflight must add up to something positive"
            );
        }
        if limits.request_timeout.is_zero() {
            anyhow::bail!("--request-timeout must be positive");
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Command, FromArgMatches as _};

    fn parse(words: &[&str]) -> anyhow::Result<FlowLimits> {
        let words = std::iter::once("api").chain(words.iter().copied());
        let matches = FlowArgs::augment_args(Command::new("api")).try_get_matches_from(words)?;
        FlowArgs::from_arg_matches(&matches)?.limits()
    }

    #[test]
    fn flow_flags_are_upstreams_with_upstreams_defaults() {
        assert_eq!(parse(&[]).unwrap(), FlowLimits::default());
        let limits =
            parse(&["--max-requests-inflight=3", "--max-mutating-requests-inflight", "0", "--request-timeout=90s"]);
        let limits = limits.unwrap();
        assert_eq!((limits.reads, limits.writes, limits.request_timeout), (3, 0, Duration::from_secs(90)));
        assert!(parse(&["--max-requests-inflight=0", "--max-mutating-requests-inflight=0"]).is_err());
        assert!(parse(&["--request-timeout=0s"]).is_err());
    }
}
