//! Options of this machine's node, under the names of the kubelet's flags.

use std::time::Duration;

use clap::Args;
use corten_node::EvictionSettings;

/// The kubelet's defaults, but for disks: those of laptops and build machines are fuller than servers' (k3s has 5 % as well).
const HARD: &str =
    "memory.available<100Mi,nodefs.available<5%,imagefs.available<5%,nodefs.inodesFree<5%,imagefs.inodesFree<5%";

/// When the node says that it runs short of something, and when it evicts pods.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Node")]
pub struct NodeArgs {
    /// Evict pods at once when so little is left, as memory.available<100Mi,nodefs.available<5%; empty: never
    #[arg(long, value_name = "THRESHOLDS", hide_short_help = true)]
    eviction_hard: Option<String>,
    /// Evict pods when so little is left for the time of --eviction-soft-grace-period
    #[arg(long, value_name = "THRESHOLDS", hide_short_help = true)]
    eviction_soft: Option<String>,
    /// How long a soft threshold must be met, as memory.available=1m30s
    #[arg(long, value_name = "DURATIONS", hide_short_help = true)]
    eviction_soft_grace_period: Option<String>,
    /// How much more than its threshold must be free again, as nodefs.available=500Mi
    #[arg(long, value_name = "AMOUNTS", hide_short_help = true)]
    eviction_minimum_reclaim: Option<String>,
    /// The longest grace of a pod that a soft threshold evicts, in seconds [default: 0]
    #[arg(long, value_name = "SECONDS", hide_short_help = true)]
    eviction_max_pod_grace_period: Option<u32>,
    /// How long the node keeps saying that it runs short after it no longer does [default: 5m0s]
    #[arg(long, value_name = "DURATION", value_parser = crate::api_args::duration, hide_short_help = true)]
    eviction_pressure_transition_period: Option<Duration>,
}

impl NodeArgs {
    /// How the node evicts.
    ///
    /// # Errors
    /// If a threshold cannot be understood.
    pub fn eviction(&self) -> anyhow::Result<EvictionSettings> {
        let text = |given: &Option<String>| given.clone().unwrap_or_default();
        let usual = EvictionSettings::default();
        let (graces, reclaims) = (text(&self.eviction_soft_grace_period), text(&self.eviction_minimum_reclaim));
        let hard = self.eviction_hard.as_deref().unwrap_or(HARD);
        let parsed = EvictionSettings::parse(hard, &text(&self.eviction_soft), &graces, &reclaims);
        let parsed = parsed.map_err(|error| anyhow::anyhow!("eviction thresholds: {error}"))?;
        Ok(EvictionSettings {
            transition_seconds: self
                .eviction_pressure_transition_period
                .map_or(usual.transition_seconds, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX)),
            pod_grace_seconds_max: self.eviction_max_pod_grace_period.map_or(usual.pod_grace_seconds_max, i64::from),
            ..parsed
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Command, FromArgMatches as _};

    fn parse(words: &[&str]) -> anyhow::Result<EvictionSettings> {
        let words = std::iter::once("node").chain(words.iter().copied());
        let matches = NodeArgs::augment_args(Command::new("node")).try_get_matches_from(words)?;
        NodeArgs::from_arg_matches(&matches)?.eviction()
    }

    #[test]
    fn eviction_flags_are_the_kubelets_and_leave_disks_a_twentieth() {
        assert_eq!(parse(&[]).unwrap(), EvictionSettings::parse(HARD, "", "", "").unwrap());
        let given = parse(&[
            "--eviction-hard=memory.available<5%",
            "--eviction-soft=nodefs.available<20%",
            "--eviction-soft-grace-period=nodefs.available=90s",
            "--eviction-max-pod-grace-period=60",
            "--eviction-pressure-transition-period=30s",
        ])
        .unwrap();
        assert_eq!((given.thresholds.len(), given.transition_seconds, given.pod_grace_seconds_max), (2, 30, 60));
        assert!(parse(&["--eviction-hard="]).unwrap().thresholds.is_empty());
        let error = parse(&["--eviction-soft=nodefs.available<20%"]).unwrap_err().to_string();
        assert!(error.contains("grace period must be specified"), "{error}");
    }
}
