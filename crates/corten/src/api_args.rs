//! Options of the API server, under the names of upstream's flags. `server` takes them, and `up` passes them on.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{ArgAction, Args, Command, ValueHint};
use corten_apiserver::audit::{BatchOptions, LogOptions, Mode, Options, TruncateOptions, WebhookOptions};
use corten_apiserver::{
    Anonymous, Authentication, AuthenticationOptions, AuthorizationOptions, OidcFlags, TokenReviewOptions,
};

use crate::assembly::TokenKeys;
use crate::flow_args::FlowArgs;
use crate::node_args::NodeArgs;

/// What is recorded of requests, and where.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Audit")]
pub struct AuditArgs {
    /// File with the audit policy (audit.k8s.io/v1 Policy); without one nothing is recorded
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    audit_policy_file: Option<PathBuf>,
    /// Write audit events to this file; `-` is standard output
    #[arg(long, value_name = "FILE")]
    audit_log_path: Option<String>,
    /// Days that rotated audit logs are kept; 0 is for ever [default: 366]
    #[arg(long, value_name = "DAYS")]
    audit_log_maxage: Option<u32>,
    /// Rotated audit logs that are kept; 0 is all [default: 100]
    #[arg(long, value_name = "COUNT")]
    audit_log_maxbackup: Option<usize>,
    /// Megabytes of an audit log before it is rotated; 0 is never [default: 100]
    #[arg(long, value_name = "MEGABYTES")]
    audit_log_maxsize: Option<u64>,
    /// Compress rotated audit logs
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    audit_log_compress: Option<bool>,
    /// json or legacy (one line of text) [default: json]
    #[arg(long, value_name = "FORMAT")]
    audit_log_format: Option<String>,
    /// blocking, blocking-strict or batch [default: blocking]
    #[arg(long, value_name = "MODE", hide_short_help = true)]
    audit_log_mode: Option<Mode>,
    /// Events that wait to be written, in mode batch [default: 10000]
    #[arg(long, value_name = "COUNT", hide_short_help = true)]
    audit_log_batch_buffer_size: Option<usize>,
    /// Events that are written together, in mode batch [default: 1]
    #[arg(long, value_name = "COUNT", hide_short_help = true)]
    audit_log_batch_max_size: Option<usize>,
    /// How long an event waits for others, in mode batch
    #[arg(long, value_name = "DURATION", value_parser = duration, hide_short_help = true)]
    audit_log_batch_max_wait: Option<Duration>,
    /// Limit batches per second
    #[arg(long, hide_short_help = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    audit_log_batch_throttle_enable: Option<bool>,
    /// Batches per second on average
    #[arg(long, value_name = "RATE", hide_short_help = true)]
    audit_log_batch_throttle_qps: Option<f64>,
    /// Batches at once
    #[arg(long, value_name = "COUNT", hide_short_help = true)]
    audit_log_batch_throttle_burst: Option<u32>,
    /// Take the objects out of events that are too large
    #[arg(long, hide_short_help = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    audit_log_truncate_enabled: Option<bool>,
    /// Bytes of an event [default: 102400]
    #[arg(long, value_name = "BYTES", hide_short_help = true)]
    audit_log_truncate_max_event_size: Option<usize>,
    /// Bytes of a batch [default: 10485760]
    #[arg(long, value_name = "BYTES", hide_short_help = true)]
    audit_log_truncate_max_batch_size: Option<usize>,
    /// API version of logged events [default: audit.k8s.io/v1]
    #[arg(long, value_name = "VERSION", hide_short_help = true)]
    audit_log_version: Option<String>,
    /// Send audit events to the server that this kubeconfig file names
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    audit_webhook_config_file: Option<PathBuf>,
    /// How long the first retry waits [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = duration, hide_short_help = true, alias = "audit-webhook-batch-initial-backoff")]
    audit_webhook_initial_backoff: Option<Duration>,
    /// batch, blocking or blocking-strict [default: batch]
    #[arg(long, value_name = "MODE", hide_short_help = true)]
    audit_webhook_mode: Option<Mode>,
    /// Events that wait to be sent, in mode batch [default: 10000]
    #[arg(long, value_name = "COUNT", hide_short_help = true)]
    audit_webhook_batch_buffer_size: Option<usize>,
    /// Events that are sent together, in mode batch [default: 400]
    #[arg(long, value_name = "COUNT", hide_short_help = true)]
    audit_webhook_batch_max_size: Option<usize>,
    /// How long an event waits for others, in mode batch [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = duration, hide_short_help = true)]
    audit_webhook_batch_max_wait: Option<Duration>,
    /// Limit batches per second [default: true]
    #[arg(long, hide_short_help = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    audit_webhook_batch_throttle_enable: Option<bool>,
    /// Batches per second on average [default: 10]
    #[arg(long, value_name = "RATE", hide_short_help = true)]
    audit_webhook_batch_throttle_qps: Option<f64>,
    /// Batches at once [default: 15]
    #[arg(long, value_name = "COUNT", hide_short_help = true)]
    audit_webhook_batch_throttle_burst: Option<u32>,
    /// Take the objects out of events that are too large
    #[arg(long, hide_short_help = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    audit_webhook_truncate_enabled: Option<bool>,
    /// Bytes of an event [default: 102400]
    #[arg(long, value_name = "BYTES", hide_short_help = true)]
    audit_webhook_truncate_max_event_size: Option<usize>,
    /// Bytes of a batch [default: 10485760]
    #[arg(long, value_name = "BYTES", hide_short_help = true)]
    audit_webhook_truncate_max_batch_size: Option<usize>,
    /// API version of sent events [default: audit.k8s.io/v1]
    #[arg(long, value_name = "VERSION", hide_short_help = true)]
    audit_webhook_version: Option<String>,
}

/// Who knows callers.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Authentication")]
pub struct AuthenticationArgs {
    /// File with OIDC issuers and who may come without proof (apiserver.config.k8s.io/v1 AuthenticationConfiguration)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    authentication_config: Option<PathBuf>,
    /// File with the private key (RSA, P-256 or P-384) that signs service account tokens [default: a key in DATA-DIR]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    service_account_signing_key_file: Option<PathBuf>,
    /// File with keys (RSA, P-256 or P-384) whose service account tokens are believed, too; may be given several times
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    service_account_key_file: Vec<PathBuf>,
    /// Whether anybody may ask without proof [default: true]
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    anonymous_auth: Option<bool>,
    /// Whether bootstrap tokens in Secrets are believed [default: true]
    #[arg(long, hide_short_help = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_bootstrap_token_auth: Option<bool>,
    /// URL of an OIDC issuer whose tokens are believed
    #[arg(long, value_name = "URL")]
    oidc_issuer_url: Option<String>,
    /// For whom the issuer's tokens must be
    #[arg(long, value_name = "ID")]
    oidc_client_id: Option<String>,
    /// Authorities that vouch for the issuer's server [default: the system's]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    oidc_ca_file: Option<PathBuf>,
    /// Claim that is the user's name [default: sub]
    #[arg(long, value_name = "CLAIM")]
    oidc_username_claim: Option<String>,
    /// Put before the user's name; `-` is nothing [default: the issuer's URL and # unless the claim is email]
    #[arg(long, value_name = "PREFIX")]
    oidc_username_prefix: Option<String>,
    /// Claim with the user's groups
    #[arg(long, value_name = "CLAIM")]
    oidc_groups_claim: Option<String>,
    /// Put before each group
    #[arg(long, value_name = "PREFIX")]
    oidc_groups_prefix: Option<String>,
    /// With what the issuer may sign, separated by commas [default: RS256]
    #[arg(long, value_name = "ALGORITHMS", value_delimiter = ',')]
    oidc_signing_algs: Vec<String>,
    /// Claim that must have a value, as CLAIM=VALUE; may be repeated
    #[arg(long, value_name = "CLAIM=VALUE")]
    oidc_required_claim: Vec<String>,
    /// Ask the server that this kubeconfig file names whose a token is
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    authentication_token_webhook_config_file: Option<PathBuf>,
    /// v1 or v1beta1 [default: v1beta1]
    #[arg(long, value_name = "VERSION", hide_short_help = true)]
    authentication_token_webhook_version: Option<String>,
    /// How long its answers are good [default: 2m]
    #[arg(long, value_name = "DURATION", value_parser = duration, hide_short_help = true)]
    authentication_token_webhook_cache_ttl: Option<Duration>,
}

/// Who decides what is allowed.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Authorization")]
pub struct AuthorizationArgs {
    /// Who decides, in order: Node, RBAC, Webhook, AlwaysAllow, AlwaysDeny [default: Node,RBAC]
    #[arg(long, value_name = "MODES", value_delimiter = ',')]
    authorization_mode: Vec<String>,
    /// File that says who decides (apiserver.config.k8s.io/v1 AuthorizationConfiguration), instead of the other options
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    authorization_config: Option<PathBuf>,
    /// The server that mode Webhook asks, as a kubeconfig file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    authorization_webhook_config_file: Option<PathBuf>,
    /// v1 or v1beta1 [default: v1beta1]
    #[arg(long, value_name = "VERSION", hide_short_help = true)]
    authorization_webhook_version: Option<String>,
    /// How long a yes is good [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = duration, hide_short_help = true)]
    authorization_webhook_cache_authorized_ttl: Option<Duration>,
    /// How long a no is good [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = duration, hide_short_help = true)]
    authorization_webhook_cache_unauthorized_ttl: Option<Duration>,
}

/// All options of the API server, and of the node beside it.
#[derive(Debug, Clone, Default, Args)]
pub struct ApiArgs {
    #[command(flatten)]
    audit: AuditArgs,
    #[command(flatten)]
    authentication: AuthenticationArgs,
    #[command(flatten)]
    authorization: AuthorizationArgs,
    #[command(flatten)]
    flow: FlowArgs,
    #[command(flatten)]
    node: NodeArgs,
    /// How long events are kept after they were last seen [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    event_ttl: Option<Duration>,
    /// How long a server that is told to stop goes on answering, not ready any more [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    shutdown_delay_duration: Option<Duration>,
}

/// A duration as Go writes it, not a negative one.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let nanos = corten_apiserver::parse_duration(text)?;
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| format!("{text}: must not be negative"))
}

/// A batch's options with what was given; rate and burst count only if they are switched on.
struct Batch {
    mode: Option<Mode>,
    buffer_size: Option<usize>,
    max_size: Option<usize>,
    max_wait: Option<Duration>,
    throttle: Option<bool>,
    qps: Option<f64>,
    burst: Option<u32>,
}

impl Batch {
    fn over(self, usual: BatchOptions) -> BatchOptions {
        let (qps, burst) = usual.throttle.unwrap_or((10.0, 15));
        let throttle = self.throttle.unwrap_or(usual.throttle.is_some());
        BatchOptions {
            mode: self.mode.unwrap_or(usual.mode),
            buffer_size: self.buffer_size.unwrap_or(usual.buffer_size),
            max_size: self.max_size.unwrap_or(usual.max_size),
            max_wait: self.max_wait.unwrap_or(usual.max_wait),
            throttle: throttle.then(|| (self.qps.unwrap_or(qps), self.burst.unwrap_or(burst))),
        }
    }
}

fn truncate(enabled: Option<bool>, event: Option<usize>, batch: Option<usize>) -> TruncateOptions {
    let usual = TruncateOptions::default();
    TruncateOptions {
        enabled: enabled.unwrap_or(usual.enabled),
        max_event_size: event.unwrap_or(usual.max_event_size),
        max_batch_size: batch.unwrap_or(usual.max_batch_size),
    }
}

impl AuditArgs {
    fn options(&self) -> Options {
        let (log, hook) = (LogOptions::default(), WebhookOptions::default());
        Options {
            policy_file: self.audit_policy_file.clone(),
            log: LogOptions {
                path: self.audit_log_path.clone(),
                max_age_days: self.audit_log_maxage.unwrap_or(log.max_age_days),
                max_backups: self.audit_log_maxbackup.unwrap_or(log.max_backups),
                max_size_megabytes: self.audit_log_maxsize.unwrap_or(log.max_size_megabytes),
                format: self.audit_log_format.clone().unwrap_or(log.format),
                version: self.audit_log_version.clone().unwrap_or(log.version),
                compress: self.audit_log_compress.unwrap_or(log.compress),
                batch: Batch {
                    mode: self.audit_log_mode,
                    buffer_size: self.audit_log_batch_buffer_size,
                    max_size: self.audit_log_batch_max_size,
                    max_wait: self.audit_log_batch_max_wait,
                    throttle: self.audit_log_batch_throttle_enable,
                    qps: self.audit_log_batch_throttle_qps,
                    burst: self.audit_log_batch_throttle_burst,
                }
                .over(log.batch),
                truncate: truncate(
                    self.audit_log_truncate_enabled,
                    self.audit_log_truncate_max_event_size,
                    self.audit_log_truncate_max_batch_size,
                ),
            },
            webhook: WebhookOptions {
                config_file: self.audit_webhook_config_file.clone(),
                initial_backoff: self.audit_webhook_initial_backoff.unwrap_or(hook.initial_backoff),
                version: self.audit_webhook_version.clone().unwrap_or(hook.version),
                batch: Batch {
                    mode: self.audit_webhook_mode,
                    buffer_size: self.audit_webhook_batch_buffer_size,
                    max_size: self.audit_webhook_batch_max_size,
                    max_wait: self.audit_webhook_batch_max_wait,
                    throttle: self.audit_webhook_batch_throttle_enable,
                    qps: self.audit_webhook_batch_throttle_qps,
                    burst: self.audit_webhook_batch_throttle_burst,
                }
                .over(hook.batch),
                truncate: truncate(
                    self.audit_webhook_truncate_enabled,
                    self.audit_webhook_truncate_max_event_size,
                    self.audit_webhook_truncate_max_batch_size,
                ),
            },
        }
    }
}

impl AuthenticationArgs {
    fn options(&self) -> Result<Authentication> {
        let text = |given: &Option<String>| given.clone().unwrap_or_default();
        let claim = |pair: &String| match pair.split_once('=') {
            Some((claim, value)) => Ok((claim.to_owned(), value.to_owned())),
            None => bail!("--oidc-required-claim {pair}: CLAIM=VALUE is expected"),
        };
        let oidc = OidcFlags {
            issuer_url: text(&self.oidc_issuer_url),
            client_id: text(&self.oidc_client_id),
            ca_file: self.oidc_ca_file.clone(),
            username_claim: text(&self.oidc_username_claim),
            username_prefix: text(&self.oidc_username_prefix),
            groups_claim: text(&self.oidc_groups_claim),
            groups_prefix: text(&self.oidc_groups_prefix),
            signing_algs: self.oidc_signing_algs.clone(),
            required_claims: self.oidc_required_claim.iter().map(claim).collect::<Result<_>>()?,
        };
        let webhook = self.authentication_token_webhook_config_file.clone().map(|config_file| TokenReviewOptions {
            config_file,
            version: self.authentication_token_webhook_version.clone().unwrap_or_else(|| "v1beta1".into()),
            cache_ttl: self.authentication_token_webhook_cache_ttl.unwrap_or(Duration::from_secs(120)),
        });
        let usual = Authentication::default();
        Ok(Authentication {
            anonymous: Anonymous { disabled: self.anonymous_auth == Some(false), paths: Vec::new() },
            bootstrap_tokens: self.enable_bootstrap_token_auth.unwrap_or(usual.bootstrap_tokens),
            others: AuthenticationOptions { config_file: self.authentication_config.clone(), oidc, webhook },
            ..usual
        })
    }
}

impl AuthorizationArgs {
    fn options(&self) -> Result<AuthorizationOptions> {
        let others = !self.authorization_mode.is_empty() || self.authorization_webhook_config_file.is_some();
        if self.authorization_config.is_some() && others {
            bail!(
                "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags are defined"
            );
        }
        let usual = AuthorizationOptions::default();
        let or = |given: &Option<Duration>, usual: Duration| given.unwrap_or(usual);
        Ok(AuthorizationOptions {
            config_file: self.authorization_config.clone(),
            modes: if self.authorization_mode.is_empty() { usual.modes } else { self.authorization_mode.clone() },
            webhook_config_file: self.authorization_webhook_config_file.clone(),
            webhook_version: self.authorization_webhook_version.clone().unwrap_or(usual.webhook_version),
            webhook_authorized_ttl: or(&self.authorization_webhook_cache_authorized_ttl, usual.webhook_authorized_ttl),
            webhook_unauthorized_ttl: or(
                &self.authorization_webhook_cache_unauthorized_ttl,
                usual.webhook_unauthorized_ttl,
            ),
        })
    }
}

impl ApiArgs {
    /// How callers prove who they are.
    ///
    /// # Errors
    /// If options contradict each other.
    pub fn authentication(&self) -> Result<Authentication> {
        self.authentication.options()
    }

    /// Who decides what is allowed.
    ///
    /// # Errors
    /// If options contradict each other.
    pub fn authorization(&self) -> Result<AuthorizationOptions> {
        self.authorization.options()
    }

    /// The keys of service account tokens, besides the cluster's own.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn token_keys(&self) -> Result<TokenKeys> {
        let read = |file: &PathBuf| std::fs::read_to_string(file).with_context(|| file.display().to_string());
        Ok(TokenKeys {
            signing: self.authentication.service_account_signing_key_file.as_ref().map(read).transpose()?,
            trusted: self.authentication.service_account_key_file.iter().map(read).collect::<Result<_>>()?,
        })
    }

    /// What is recorded of requests.
    pub fn audit(&self) -> Options {
        self.audit.options()
    }

    /// How long a server that is told to stop goes on answering.
    pub fn shutdown_delay(&self) -> Duration {
        self.shutdown_delay_duration.unwrap_or_default()
    }

    /// How long Events are kept, if it was said.
    pub fn event_ttl(&self) -> Option<Duration> {
        self.event_ttl
    }

    /// How much is done at once, and for how long.
    ///
    /// # Errors
    /// As [`FlowArgs::limits`].
    pub fn flow(&self) -> Result<corten_apiserver::FlowLimits> {
        self.flow.limits()
    }

    /// When the node evicts pods.
    ///
    /// # Errors
    /// As [`NodeArgs::pod_manifest_path`].
    pub fn pod_manifest_path(&self) -> Result<Option<PathBuf>> {
        self.node.pod_manifest_path()
    }

    /// As [`NodeArgs::shutdown`].
    pub fn shutdown(&self) -> Result<corten_node::ShutdownPeriods> {
        self.node.shutdown()
    }

    /// As [`NodeArgs::eviction`].
    pub fn eviction(&self) -> Result<corten_node::EvictionSettings> {
        self.node.eviction()
    }

    /// As [`NodeArgs::pod_pids_max`].
    pub fn pod_pids_max(&self) -> Option<i64> {
        self.node.pod_pids_max()
    }

    /// When images go from the node.
    ///
    /// # Errors
    /// As [`NodeArgs::images`].
    pub fn images(&self) -> Result<corten_node::ImagePolicy> {
        self.node.images()
    }
}

/// The options of the API server among a command line's words, for another process: files by their full paths, since that
/// process may work elsewhere.
pub fn pass_on(words: impl Iterator<Item = String>) -> Vec<String> {
    let known = ApiArgs::augment_args(Command::new("api"));
    let find = |flag: &str| {
        let named =
            |a: &&clap::Arg| a.get_long() == Some(flag) || a.get_all_aliases().is_some_and(|all| all.contains(&flag));
        known.get_arguments().find(named)
    };
    let mut out = Vec::new();
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--") else { continue };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let Some(arg) = find(name) else { continue };
        let value = match value {
            None if !arg.is_require_equals_set() => words.next(),
            given => given,
        };
        let is_path = arg.get_value_hint() == ValueHint::FilePath || name == "audit-log-path";
        let full = |value: String| match std::path::absolute(&value) {
            Ok(path) if is_path && value != "-" => path.to_string_lossy().into_owned(),
            _ => value,
        };
        out.push(match value.map(full) {
            Some(value) => format!("--{name}={value}"),
            None => format!("--{name}"),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::FromArgMatches as _;

    fn parse(words: &[&str]) -> ApiArgs {
        let words = std::iter::once("api").chain(words.iter().copied());
        let matches = ApiArgs::augment_args(Command::new("api")).try_get_matches_from(words).unwrap();
        ApiArgs::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn audit_flags_are_upstreams_with_upstreams_defaults() {
        assert_eq!(parse(&[]).audit(), Options::default());
        let options = parse(&[
            "--audit-policy-file=/p",
            "--audit-log-path",
            "-",
            "--audit-log-compress",
            "--audit-log-mode=batch",
            "--audit-webhook-batch-throttle-enable=false",
            "--audit-webhook-batch-max-wait=5s",
            "--audit-webhook-truncate-enabled",
        ])
        .audit();
        assert_eq!(options.policy_file.as_deref(), Some(std::path::Path::new("/p")));
        assert_eq!((options.log.path.as_deref(), options.log.compress), (Some("-"), true));
        assert_eq!((options.log.batch.mode, options.webhook.batch.throttle), (Mode::Batch, None));
        assert_eq!(options.webhook.batch.max_wait, Duration::from_secs(5));
        assert!(options.webhook.truncate.enabled && !options.log.truncate.enabled);
    }

    #[test]
    fn authentication_and_authorization_flags_are_upstreams() {
        let plain = parse(&[]);
        assert_eq!(plain.authorization().unwrap(), AuthorizationOptions::default());
        assert_eq!(plain.authentication().unwrap().others, AuthenticationOptions::default());
        let given = parse(&[
            "--anonymous-auth=false",
            "--oidc-issuer-url=https://i",
            "--oidc-client-id",
            "c",
            "--oidc-signing-algs=RS256,ES256",
            "--oidc-required-claim=a=b=c",
            "--authorization-mode=Node,Webhook,RBAC",
            "--authorization-webhook-config-file=/w",
        ]);
        let authentication = given.authentication().unwrap();
        assert!(authentication.anonymous.disabled);
        assert_eq!(authentication.others.oidc.signing_algs, ["RS256", "ES256"]);
        assert_eq!(authentication.others.oidc.required_claims, [("a".to_owned(), "b=c".to_owned())]);
        assert_eq!(given.authorization().unwrap().modes, ["Node", "Webhook", "RBAC"]);
        let both = parse(&["--authorization-mode=RBAC", "--authorization-config=/f"]);
        assert!(both.authorization().unwrap_err().to_string().starts_with("--authorization-config can not be"));
        assert!(parse(&["--oidc-required-claim=a"]).authentication().is_err());
    }

    #[test]
    fn up_passes_the_api_servers_options_on_with_full_paths() {
        let words =
            ["up", "--name", "x", "--audit-policy-file", "p.yaml", "--audit-log-compress", "--audit-log-path=-"];
        let here = std::env::current_dir().unwrap();
        let expected = [
            format!("--audit-policy-file={}", here.join("p.yaml").display()),
            "--audit-log-compress".into(),
            "--audit-log-path=-".into(),
        ];
        assert_eq!(pass_on(words.into_iter().map(str::to_owned)), expected);
    }
}
