//! Options of this machine's node, under the names of the kubelet's flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use corten_node::{EvictionSettings, ImagePolicy, ShutdownPeriod, ShutdownPeriods};

/// The kubelet's defaults, but for disks: those of laptops and build machines are fuller than servers' (k3s has 5 % as well).
const HARD: &str =
    "memory.available<100Mi,nodefs.available<5%,imagefs.available<5%,nodefs.inodesFree<5%,imagefs.inodesFree<5%";

/// When the node says that it runs short of something, and when it evicts pods.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Node")]
pub struct NodeArgs {
    /// Directory of manifests of static pods, or one such file; those that begin with a dot are ignored
    #[arg(long, value_name = "PATH", hide_short_help = true)]
    pod_manifest_path: Option<PathBuf>,
    /// How long pods have to end when the machine goes down; 0: they are not ended [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = crate::api_args::duration, hide_short_help = true)]
    shutdown_grace_period: Option<Duration>,
    /// The last part of --shutdown-grace-period, for critical pods alone [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = crate::api_args::duration, hide_short_help = true)]
    shutdown_grace_period_critical_pods: Option<Duration>,
    /// Instead of both: how long pods from each priority on have, as 0=30s,100000=1m,2000000000=10s
    #[arg(long, value_name = "PERIODS", hide_short_help = true)]
    #[arg(conflicts_with_all = ["shutdown_grace_period", "shutdown_grace_period_critical_pods"])]
    shutdown_grace_period_by_pod_priority: Option<String>,
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
    /// Processes and threads that a pod may have; -1: what the machine allows [default: -1]
    #[arg(long, value_name = "COUNT", allow_hyphen_values = true, hide_short_help = true)]
    pod_max_pids: Option<i64>,
    /// From this use of the disk on, in percent, images that nothing uses are removed; 100: never [default: 85]
    #[arg(long, value_name = "PERCENT", hide_short_help = true)]
    image_gc_high_threshold: Option<u64>,
    /// Until the use of the disk is down to this, in percent [default: 80]
    #[arg(long, value_name = "PERCENT", hide_short_help = true)]
    image_gc_low_threshold: Option<u64>,
    /// Images that have not been here for as long stay [default: 2m0s]
    #[arg(long, value_name = "DURATION", value_parser = crate::api_args::duration, hide_short_help = true)]
    minimum_image_ttl_duration: Option<Duration>,
    /// Images that nothing has used for longer go, however empty the disk is; 0s: none [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = crate::api_args::duration, hide_short_help = true)]
    image_maximum_gc_age: Option<Duration>,
}

impl NodeArgs {
    /// Where manifests of static pods are, as an absolute path.
    ///
    /// # Errors
    /// If there is no current directory.
    pub fn pod_manifest_path(&self) -> anyhow::Result<Option<PathBuf>> {
        Ok(self.pod_manifest_path.as_ref().map(std::path::absolute).transpose()?)
    }

    /// How pods end when the machine goes down.
    ///
    /// # Errors
    /// If a period cannot be understood, or critical pods are to have more than all.
    pub fn shutdown(&self) -> anyhow::Result<ShutdownPeriods> {
        if let Some(text) = &self.shutdown_grace_period_by_pod_priority {
            return by_priority(text).map_err(|e| anyhow::anyhow!("--shutdown-grace-period-by-pod-priority: {e}"));
        }
        let seconds = |given: Option<Duration>| given.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
        let (all, critical) = (self.shutdown_grace_period, self.shutdown_grace_period_critical_pods);
        for (flag, given) in [("--shutdown-grace-period", all), ("--shutdown-grace-period-critical-pods", critical)] {
            // As upstream's validation of the kubelet's configuration.
            if given.is_some_and(|d| !d.is_zero() && d < Duration::from_secs(1)) {
                anyhow::bail!("{flag} must be either zero or otherwise >= 1 sec");
            }
        }
        if seconds(critical) > seconds(all) {
            anyhow::bail!("--shutdown-grace-period-critical-pods must be <= --shutdown-grace-period");
        }
        Ok(ShutdownPeriods::of_totals(seconds(all), seconds(critical)))
    }

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

    /// Processes and threads that a pod may have.
    pub fn pod_pids_max(&self) -> Option<i64> {
        self.pod_max_pids.filter(|count| *count > 0)
    }

    /// When images go (`ValidateKubeletConfiguration` in `pkg/kubelet/apis/config/validation`).
    ///
    /// # Errors
    /// If the thresholds make no sense.
    pub fn images(&self) -> anyhow::Result<ImagePolicy> {
        let usual = ImagePolicy::default();
        let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
        let policy = ImagePolicy {
            high_percent: self.image_gc_high_threshold.unwrap_or(usual.high_percent),
            low_percent: self.image_gc_low_threshold.unwrap_or(usual.low_percent),
            age_seconds_min: self.minimum_image_ttl_duration.map_or(usual.age_seconds_min, seconds),
            age_seconds_max: self.image_maximum_gc_age.map_or(usual.age_seconds_max, seconds),
            ..usual
        };
        let ImagePolicy { high_percent: high, low_percent: low, age_seconds_min: least, age_seconds_max: most, .. } =
            policy;
        for (name, value) in [("image-gc-high-threshold", high), ("image-gc-low-threshold", low)] {
            anyhow::ensure!(value <= 100, "--{name} {value} must be between 0 and 100, inclusive");
        }
        let order = "--image-gc-low-threshold";
        anyhow::ensure!(low < high, "{order} {low} must be less than --image-gc-high-threshold {high}");
        let order = "--image-maximum-gc-age";
        anyhow::ensure!(most == 0 || most > least, "{order} must be longer than --minimum-image-ttl-duration");
        Ok(policy)
    }
}

fn by_priority(text: &str) -> Result<ShutdownPeriods, String> {
    let mut periods = Vec::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (priority, period) = part.split_once('=').ok_or_else(|| format!("{part:?} is not PRIORITY=DURATION"))?;
        let priority = priority.trim().parse().map_err(|_| format!("{priority:?} is no priority"))?;
        let seconds = crate::api_args::duration(period.trim())?.as_secs();
        periods.push(ShutdownPeriod { priority, seconds: i64::try_from(seconds).unwrap_or(i64::MAX) });
    }
    ShutdownPeriods::of_priorities(periods)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Command, FromArgMatches as _};

    fn args(words: &[&str]) -> anyhow::Result<NodeArgs> {
        let words = std::iter::once("node").chain(words.iter().copied());
        let matches = NodeArgs::augment_args(Command::new("node")).try_get_matches_from(words)?;
        Ok(NodeArgs::from_arg_matches(&matches)?)
    }

    fn parse(words: &[&str]) -> anyhow::Result<EvictionSettings> {
        args(words)?.eviction()
    }

    #[test]
    fn shutdown_grace_period_flags_are_the_kubelets_settings() {
        let of = |words: &[&str]| args(words).and_then(|args| args.shutdown()).map_err(|e| e.to_string());
        assert_eq!(of(&[]).unwrap(), ShutdownPeriods::default());
        let both = of(&["--shutdown-grace-period=30s", "--shutdown-grace-period-critical-pods=10s"]);
        assert_eq!(both.unwrap(), ShutdownPeriods::of_totals(30, 10));
        let period = |priority, seconds| ShutdownPeriod { priority, seconds };
        assert_eq!(
            of(&["--shutdown-grace-period-by-pod-priority=1000=1m30s,0=60s"]).unwrap(),
            ShutdownPeriods::of_priorities(vec![period(0, 60), period(1000, 90)]).unwrap()
        );
        for (words, wrong) in [
            (&["--shutdown-grace-period=5s", "--shutdown-grace-period-critical-pods=10s"][..], "must be <="),
            (&["--shutdown-grace-period=500ms"], ">= 1 sec"),
            (&["--shutdown-grace-period-by-pod-priority=high=10s"], "\"high\" is no priority"),
            (&["--shutdown-grace-period-by-pod-priority=0=1s", "--shutdown-grace-period=1s"], "cannot be used with"),
        ] {
            let error = of(words).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn image_gc_flags_are_the_kubelets() {
        let images = |words: &[&str]| args(words).unwrap().images().map_err(|error| error.to_string());
        assert_eq!(images(&[]), Ok(ImagePolicy::default()));
        let given = images(&[
            "--image-gc-high-threshold=70",
            "--image-gc-low-threshold=60",
            "--minimum-image-ttl-duration=1m",
            "--image-maximum-gc-age=24h",
        ]);
        let wanted = ImagePolicy {
            high_percent: 70,
            low_percent: 60,
            age_seconds_min: 60,
            age_seconds_max: 86_400,
            ..ImagePolicy::default()
        };
        assert_eq!(given, Ok(wanted));
        for (words, why) in [
            (
                &["--image-gc-high-threshold=101"][..],
                "--image-gc-high-threshold 101 must be between 0 and 100, inclusive",
            ),
            (
                &["--image-gc-low-threshold=85"],
                "--image-gc-low-threshold 85 must be less than --image-gc-high-threshold 85",
            ),
            (&["--image-maximum-gc-age=2m"], "--image-maximum-gc-age must be longer than --minimum-image-ttl-duration"),
        ] {
            assert_eq!(images(words), Err(why.to_owned()));
        }
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
