//! Whose a token is, by another server's word (`plugin/pkg/authenticator/token/webhook`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use corten_auth::{Authenticated, User};
use corten_base::Clock;
use corten_tree::{Tree, json, tree};
use corten_webhook::{Caller, ClientConfig, Retries};
use ring::digest::{SHA256, digest};

use crate::kept::Kept;

/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the first retry waits (`genericoptions.DefaultAuthWebhookRetryBackoff`).
const BACKOFF: Duration = Duration::from_millis(500);
/// Answers that are kept, at most.
const KEPT_MAX: usize = 4096;

/// Who is asked, under the names of upstream's flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenReviewOptions {
    /// A kubeconfig file (`--authentication-token-webhook-config-file`).
    pub config_file: PathBuf,
    /// `v1` or `v1beta1` (`--authentication-token-webhook-version`).
    pub version: String,
    /// How long answers are good (`--authentication-token-webhook-cache-ttl`).
    pub cache_ttl: Duration,
}

/// An answer: `None` does not know the token.
type Answer = Option<Authenticated>;

/// The server that knows tokens.
pub struct TokenReviewer {
    caller: Caller,
    config: ClientConfig,
    version: String,
    ttl: Duration,
    clock: Arc<dyn Clock>,
    /// By the digest of token and audiences.
    kept: Kept<Vec<u8>, Result<Answer, String>>,
}

impl TokenReviewer {
    /// Reads the kubeconfig; nobody is asked yet.
    ///
    /// # Errors
    /// If that or the version is of no use.
    pub fn new(options: &TokenReviewOptions, caller: Caller, clock: Arc<dyn Clock>) -> Result<TokenReviewer, String> {
        let version = options.version.clone();
        if !matches!(version.as_str(), "v1" | "v1beta1") {
            return Err(format!(
                "unsupported authentication webhook version {version:?}, supported versions are \"v1\", \"v1beta1\""
            ));
        }
        let config = ClientConfig::from_kubeconfig(&options.config_file)?;
        Ok(TokenReviewer { caller, config, version, ttl: options.cache_ttl, clock, kept: Kept::new(KEPT_MAX) })
    }

    /// Whose a token is. `wanted`: for whom it must be; `own` are the audiences that a server without a word on them means.
    ///
    /// # Errors
    /// What the server says against the token, or why it does not answer.
    pub async fn authenticate(&self, token: &str, wanted: &[String], own: &[String]) -> Result<Answer, String> {
        let mut question = token.as_bytes().to_vec();
        for audience in wanted {
            question.push(0);
            question.extend_from_slice(audience.as_bytes());
        }
        let key = digest(&SHA256, &question).as_ref().to_vec();
        if let Some(answer) = self.kept.get(&key, self.clock.now()) {
            return answer;
        }
        let status = self.ask(token, wanted).await?;
        let answer = read(&status, wanted, own);
        self.kept.put(key, answer.clone(), self.clock.now(), self.ttl);
        answer
    }

    async fn ask(&self, token: &str, wanted: &[String]) -> Result<Tree, String> {
        let review = tree!({"kind": "TokenReview", "apiVersion": (format!("authentication.k8s.io/{}", self.version)),
            "metadata": {}, "spec": {"token": token, "audiences": (wanted.to_vec())}, "status": {"user": {}}});
        let retries = Retries::of_passing_faults(BACKOFF);
        let answer = self.caller.post_again(&self.config, TIMEOUT, review.to_json().into(), &retries).await;
        let answer = answer.map_err(|error| {
            tracing::error!(%error, "Failed to make webhook authenticator request");
            error.to_string()
        })?;
        let answer = json::parse(&answer).map_err(|e| e.to_string())?;
        Ok(answer.get("status").cloned().unwrap_or_default())
    }
}

fn texts(tree: &Tree, path: &str) -> Vec<String> {
    tree.list_at(path).iter().filter_map(Tree::as_str).map(str::to_owned).collect()
}

fn read(status: &Tree, wanted: &[String], own: &[String]) -> Result<Answer, String> {
    let said = texts(status, "audiences");
    let got = if said.is_empty() { own } else { &said };
    let common: Vec<String> = wanted.iter().filter(|a| got.contains(a)).cloned().collect();
    if common.is_empty() {
        return Ok(None);
    }
    if !status.bool_at("authenticated") {
        return match status.str_at("error") {
            "" => Ok(None),
            why => Err(why.to_owned()),
        };
    }
    let extra = status.map_at("user.extra").iter();
    let extra = extra.map(|(key, values)| {
        let values = values.as_list().unwrap_or_default().iter().filter_map(Tree::as_str).map(str::to_owned);
        (key.to_owned(), values.collect())
    });
    let user = User {
        name: status.str_at("user.username").into(),
        uid: status.str_at("user.uid").into(),
        groups: texts(status, "user.groups"),
        extra: extra.collect(),
    };
    Ok(Some(Authenticated { user, audiences: common }))
}
