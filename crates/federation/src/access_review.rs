//! Whether something is allowed, by another server's word (`plugin/pkg/authorizer/webhook`).

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use corten_auth::{Attributes, Decision};
use corten_base::Clock;
use corten_cel::{Budget, Decl, Env, PER_CALL_LIMIT, Program, Type, Value, Version};
use corten_object::FieldError;
use corten_tree::{FieldPath, Map, Tree, json, tree};
use corten_webhook::{CallError, Caller, ClientConfig, Retries};

use crate::kept::Kept;
use crate::measured;

/// How long the first retry waits.
const BACKOFF: Duration = Duration::from_millis(500);
/// Answers that are kept, at most.
const KEPT_MAX: usize = 8192;
/// Letters of a question whose answer is kept (`maxControlledAttrCacheSize`).
const QUESTION_MAX: usize = 10_000;
/// What all conditions of one question may cost (`RuntimeCELCostBudgetMatchConditions`).
const CONDITIONS_BUDGET: u64 = 2_500_000;
/// Conditions of one webhook, at most.
pub(crate) const CONDITIONS_MAX: usize = 64;

/// How a server is asked.
#[derive(Debug)]
pub struct AccessReviewOptions {
    /// The authorizer's name.
    pub name: String,
    /// Where it is.
    pub connection: ClientConfig,
    /// `v1` or `v1beta1`.
    pub version: String,
    /// How long a yes is good; zero asks each time.
    pub authorized_ttl: Duration,
    /// How long a no is good; zero asks each time.
    pub unauthorized_ttl: Duration,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Whether no answer is a no for good, instead of leaving the decision to the others.
    pub deny_on_error: bool,
    /// It is asked only if all of these hold.
    pub conditions: Vec<Condition>,
}

/// A condition on when a server is asked.
#[derive(Debug)]
pub struct Condition {
    source: String,
    program: Program,
}

fn request_decl() -> &'static Decl {
    static DECL: LazyLock<Decl> = LazyLock::new(|| {
        let text = || Decl::string(u64::MAX);
        let texts = || Decl::list(text(), u64::MAX);
        let all = |names: &[&str]| names.iter().map(|n| ((*n).to_owned(), text())).collect::<Vec<_>>();
        let of = |mut fields: Vec<(String, Decl)>, more: Vec<(&str, Decl)>, name: &str| {
            fields.extend(more.into_iter().map(|(n, d)| (n.to_owned(), d)));
            Decl::object(format!("kubernetes.{name}"), fields)
        };
        let requirement = || of(all(&["key", "operator"]), vec![("values", texts())], "SelectorRequirement");
        let selector =
            |name: &str| of(all(&["rawSelector"]), vec![("requirements", Decl::list(requirement(), u64::MAX))], name);
        let resource = of(
            all(&["namespace", "verb", "group", "version", "resource", "subresource", "name"]),
            vec![
                ("fieldSelector", selector("FieldSelectorAttributes")),
                ("labelSelector", selector("LabelSelectorAttributes")),
            ],
            "ResourceAttributes",
        );
        of(
            all(&["user", "uid"]),
            vec![
                ("resourceAttributes", resource),
                ("nonResourceAttributes", of(all(&["path", "verb"]), Vec::new(), "NonResourceAttributes")),
                ("groups", texts()),
                ("extra", Decl::map(texts(), u64::MAX)),
            ],
            "SubjectAccessReviewSpec",
        )
    });
    &DECL
}

impl Condition {
    /// Compiles an expression over `request`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(source: &str, path: &FieldPath) -> Result<Condition, FieldError> {
        static ENV: LazyLock<Env> =
            LazyLock::new(|| Env::new(Version::STORED).declared("request", request_decl().clone()));
        let refused = |why: String| FieldError::invalid_str(path, source, why);
        let program = ENV.compile(source).map_err(|issues| refused(format!("compilation failed: {issues}")))?;
        match program.result_type() {
            Type::Bool => Ok(Condition { source: source.to_owned(), program }),
            other => Err(refused(format!("must evaluate to bool but got {other}"))),
        }
    }
}

/// The server that is asked.
pub struct AccessReviewer {
    options: AccessReviewOptions,
    caller: Caller,
    clock: Arc<dyn Clock>,
    kept: Kept<String, Tree>,
}

impl AccessReviewer {
    /// Nobody is asked yet.
    pub fn new(options: AccessReviewOptions, caller: Caller, clock: Arc<dyn Clock>) -> AccessReviewer {
        AccessReviewer { options, caller, clock, kept: Kept::new(KEPT_MAX) }
    }

    /// The authorizer's name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// What the server says of a request.
    pub async fn decide(&self, asked: &Attributes<'_>) -> Decision {
        self.decide_by(asked, &self.caller).await
    }

    /// The same from where nothing can be waited for: the thread stands still until there is an answer.
    pub fn decide_now(&self, asked: &Attributes<'_>) -> Decision {
        // An answer that is known costs nothing.
        if let Some(known) = self.known(&spec(asked)) {
            return known;
        }
        // Connections of the runtime that stands still cannot be used meanwhile.
        let caller = self.caller.apart();
        let ask = || {
            std::thread::scope(|scope| {
                let asking = scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                    runtime.map(|runtime| runtime.block_on(self.decide_by(asked, &caller)))
                });
                match asking.join() {
                    Ok(Ok(decision)) => decision,
                    Ok(Err(error)) => self.failed(error.to_string()),
                    Err(_) => self.failed("asking the webhook failed".into()),
                }
            })
        };
        match tokio::runtime::Handle::try_current().map(|handle| handle.runtime_flavor()) {
            Ok(tokio::runtime::RuntimeFlavor::MultiThread) => tokio::task::block_in_place(ask),
            _ => ask(),
        }
    }

    fn known(&self, spec: &Tree) -> Option<Decision> {
        if !self.options.conditions.is_empty() {
            return None;
        }
        self.kept.get(&spec.to_json_string(), self.clock.now()).map(|status| of_status(&status))
    }

    async fn decide_by(&self, asked: &Attributes<'_>, caller: &Caller) -> Decision {
        let spec = spec(asked);
        match self.concerned(asked) {
            Ok(true) => {}
            Ok(false) => return Decision::no_opinion(""),
            Err(why) => return self.failed(why),
        }
        let key = spec.to_json_string();
        if let Some(status) = self.kept.get(&key, self.clock.now()) {
            return of_status(&status);
        }
        let version = format!("authorization.k8s.io/{}", self.options.version);
        let spec = if self.options.version == "v1beta1" { as_beta(spec) } else { spec };
        let review = tree!({"kind": "SubjectAccessReview", "apiVersion": version, "metadata": {}, "spec": spec,
            "status": {"allowed": false}});
        let retries = Retries::of_passing_faults(BACKOFF);
        let begun = Instant::now();
        let answer =
            caller.post_again(&self.options.connection, self.options.timeout, review.to_json().into(), &retries).await;
        measured::evaluated(&self.options.name, &answer, !self.options.deny_on_error, begun.elapsed());
        let status = answer
            .map_err(|e: CallError| e.to_string())
            .and_then(|bytes| json::parse(&bytes).map_err(|e| e.to_string()))
            .map(|answer| answer.get("status").cloned().unwrap_or_default());
        match status {
            Ok(status) => {
                let life = match status.bool_at("allowed") {
                    true => self.options.authorized_ttl,
                    false => self.options.unauthorized_ttl,
                };
                if key.len() < QUESTION_MAX {
                    self.kept.put(key, status.clone(), self.clock.now(), life);
                }
                of_status(&status)
            }
            Err(error) => {
                tracing::error!(authorizer = self.options.name, %error, "Failed to make webhook authorizer request");
                self.failed(error)
            }
        }
    }

    fn failed(&self, why: String) -> Decision {
        Decision { denied: self.options.deny_on_error, error: Some(why), ..Decision::default() }
    }

    /// Whether all conditions hold; one that is false decides, whatever the others are.
    fn concerned(&self, asked: &Attributes<'_>) -> Result<bool, String> {
        if self.options.conditions.is_empty() {
            return Ok(true);
        }
        let request = full(asked);
        let (mut left, mut errors) = (CONDITIONS_BUDGET, Vec::new());
        for condition in &self.options.conditions {
            let request = Value::declared(&request, request_decl()).map_err(|e| e.to_string())?;
            let mut budget = Budget::new(left.min(PER_CALL_LIMIT));
            let value = condition.program.eval(&[("request", request)], &mut budget);
            left = left.saturating_sub(budget.spent());
            match value {
                Ok(value) if value.as_bool() == Some(false) => return Ok(false),
                Ok(_) => {}
                Err(error) => errors.push(format!(
                    "cel evaluation error: expression '{}' resulted in error: {error}",
                    condition.source
                )),
            }
        }
        match errors.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}

fn of_status(status: &Tree) -> Decision {
    let reason = status.str_at("reason").to_owned();
    let (allowed, denied) = (status.bool_at("allowed"), status.bool_at("denied"));
    let both = "webhook subject access review returned both allow and deny response";
    let error = (allowed && denied).then(|| both.to_owned());
    Decision { allowed: allowed && !denied, denied, reason, error }
}

fn texts(list: &[String]) -> Tree {
    Tree::List(list.iter().map(Tree::from).collect())
}

fn requirements(asked: &Attributes<'_>) -> Tree {
    let one = |term: &corten_object::selector::FieldTerm| {
        let operator = if term.equal { "In" } else { "NotIn" };
        tree!({"key": (term.path.as_str()), "operator": operator, "values": [(term.value.as_str())]})
    };
    Tree::List(asked.fields.iter().map(one).collect())
}

/// `SubjectAccessReviewSpec` as Go writes it: what is empty is left out.
fn spec(asked: &Attributes<'_>) -> Tree {
    let filled = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().filter(|(_, text)| !text.is_empty());
        Tree::Map(pairs.map(|(key, text)| ((*key).to_owned().into(), (*text).into())).collect::<Map>())
    };
    let mut out = Tree::map();
    if asked.path.is_empty() {
        let mut resource = filled(&[
            ("namespace", asked.namespace),
            ("verb", asked.verb),
            ("group", asked.group),
            ("version", asked.version),
            ("resource", asked.resource),
            ("subresource", asked.subresource),
            ("name", asked.name),
        ]);
        if !asked.fields.is_empty() {
            resource.insert("fieldSelector", tree!({"requirements": (requirements(asked))}));
        }
        out.insert("resourceAttributes", resource);
    } else {
        out.insert("nonResourceAttributes", filled(&[("path", asked.path), ("verb", asked.verb)]));
    }
    let user = asked.user;
    if !user.name.is_empty() {
        out.insert("user", user.name.as_str());
    }
    if !user.groups.is_empty() {
        out.insert("groups", texts(&user.groups));
    }
    if !user.extra.is_empty() {
        let extra: Map = user.extra.iter().map(|(key, values)| (key.clone().into(), texts(values))).collect();
        out.insert("extra", Tree::Map(extra));
    }
    if !user.uid.is_empty() {
        out.insert("uid", user.uid.as_str());
    }
    out
}

/// The older version calls groups `group`.
fn as_beta(mut spec: Tree) -> Tree {
    if let Some(groups) = spec.remove("groups") {
        spec.insert("group", groups);
    }
    spec
}

/// The same for conditions: all texts are there.
fn full(asked: &Attributes<'_>) -> Tree {
    let user = asked.user;
    let extra: Map = user.extra.iter().map(|(key, values)| (key.clone().into(), texts(values))).collect();
    let mut out = tree!({"user": (user.name.as_str()), "groups": (texts(&user.groups)), "uid": (user.uid.as_str()),
        "extra": (Tree::Map(extra))});
    if !asked.path.is_empty() {
        out.insert("nonResourceAttributes", tree!({"path": (asked.path), "verb": (asked.verb)}));
        return out;
    }
    let mut resource = tree!({"namespace": (asked.namespace), "verb": (asked.verb), "group": (asked.group),
        "version": (asked.version), "resource": (asked.resource), "subresource": (asked.subresource), "name": (asked.name)});
    if !asked.fields.is_empty() {
        resource.insert("fieldSelector", tree!({"requirements": (requirements(asked))}));
    }
    out.insert("resourceAttributes", resource);
    out
}
