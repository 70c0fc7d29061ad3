//! Who decides what is allowed, in order: `--authorization-mode`, or an `AuthorizationConfiguration`
//! (`apiserver/pkg/apis/apiserver/validation`, `pkg/kubeapiserver/authorizer`).

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use corten_base::Clock;
use corten_client::config_file::{self, Fields};
use corten_kinds::validate::names;
use corten_object::FieldError;
use corten_tree::{FieldPath, Tree, tree};
use corten_webhook::{Caller, ClientConfig};

use crate::access_review::{AccessReviewOptions, AccessReviewer, CONDITIONS_MAX, Condition};
use crate::config::aggregate;
use crate::identities::Environment;
use crate::measured::Configuration;
use crate::reload::reload;

const VERSIONS: [&str; 3] =
    ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];
const KIND: &str = "AuthorizationConfiguration";
/// The modes that there are; ABAC is not one of them.
const MODES: [&str; 5] = ["AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];

/// One authorizer.
#[derive(Clone)]
pub enum Authorizer {
    /// Says yes to everything.
    AlwaysAllow,
    /// Says no to everything.
    AlwaysDeny,
    /// The node authorizer.
    Node,
    /// Roles and bindings.
    Rbac,
    /// Another server.
    Webhook(Arc<AccessReviewer>),
}

impl Authorizer {
    /// Its type and its name, as they are counted.
    pub fn names(&self) -> (&'static str, &str) {
        match self {
            Authorizer::AlwaysAllow => ("AlwaysAllow", "alwaysallow"),
            Authorizer::AlwaysDeny => ("AlwaysDeny", "alwaysdeny"),
            Authorizer::Node => ("Node", "node"),
            Authorizer::Rbac => ("RBAC", "rbac"),
            Authorizer::Webhook(reviewer) => ("Webhook", reviewer.name()),
        }
    }
}

/// The authorizer of a mode, if that is one of this process.
fn builtin(mode: &str) -> Option<Authorizer> {
    let all = [
        ("AlwaysAllow", Authorizer::AlwaysAllow),
        ("AlwaysDeny", Authorizer::AlwaysDeny),
        ("Node", Authorizer::Node),
        ("RBAC", Authorizer::Rbac),
    ];
    all.into_iter().find(|(name, _)| *name == mode).map(|(_, authorizer)| authorizer)
}

/// Who decides, under the names of upstream's flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationOptions {
    /// `--authorization-config`: instead of all others.
    pub config_file: Option<PathBuf>,
    /// `--authorization-mode`
    pub modes: Vec<String>,
    /// `--authorization-webhook-config-file`
    pub webhook_config_file: Option<PathBuf>,
    /// `--authorization-webhook-version`
    pub webhook_version: String,
    /// `--authorization-webhook-cache-authorized-ttl`
    pub webhook_authorized_ttl: Duration,
    /// `--authorization-webhook-cache-unauthorized-ttl`
    pub webhook_unauthorized_ttl: Duration,
}

impl Default for AuthorizationOptions {
    fn default() -> AuthorizationOptions {
        AuthorizationOptions {
            config_file: None,
            modes: vec!["Node".into(), "RBAC".into()],
            webhook_config_file: None,
            webhook_version: "v1beta1".into(),
            webhook_authorized_ttl: Duration::from_secs(300),
            webhook_unauthorized_ttl: Duration::from_secs(30),
        }
    }
}

impl AuthorizationOptions {
    /// The authorizers, in order.
    ///
    /// # Errors
    /// What is wrong with the options or the file.
    pub fn build(&self, caller: &Caller, clock: &Arc<dyn Clock>) -> Result<Vec<Authorizer>, String> {
        if let Some(file) = &self.config_file {
            return load(file, caller, clock);
        }
        if self.modes.is_empty() {
            return Err("at least one authorization-mode must be passed".into());
        }
        let webhook = self.modes.iter().any(|mode| mode == "Webhook");
        if webhook && self.webhook_config_file.is_none() {
            return Err("authorization-mode Webhook's authorization config file not passed".into());
        }
        if !webhook && self.webhook_config_file.is_some() {
            return Err("cannot specify --authorization-webhook-config-file without mode Webhook".into());
        }
        let mut out = Vec::new();
        for (i, mode) in self.modes.iter().enumerate() {
            if self.modes[..i].contains(mode) {
                return Err(format!(
                    "authorization-mode {} has mode specified more than once",
                    corten_auth::go_list(&self.modes)
                ));
            }
            out.push(match (builtin(mode), mode.as_str()) {
                (Some(builtin), _) => builtin,
                (None, "Webhook") => {
                    let file = self.webhook_config_file.as_deref().unwrap_or(Path::new(""));
                    let options = AccessReviewOptions {
                        name: "default".into(),
                        connection: ClientConfig::from_kubeconfig(file)?,
                        version: self.webhook_version.clone(),
                        authorized_ttl: self.webhook_authorized_ttl,
                        unauthorized_ttl: self.webhook_unauthorized_ttl,
                        timeout: Duration::from_secs(30),
                        deny_on_error: false,
                        conditions: Vec::new(),
                    };
                    Authorizer::Webhook(Arc::new(AccessReviewer::new(options, caller.clone(), clock.clone())))
                }
                (None, other) => return Err(format!("authorization-mode {other:?} is not a valid mode")),
            });
        }
        Ok(out)
    }
}

/// The authorizers as they are now: their file is read anew when it changes.
pub struct Authorizers(Arc<RwLock<Arc<Vec<Authorizer>>>>);

impl Authorizers {
    /// Those that the options name.
    ///
    /// # Errors
    /// What is wrong with the options or the file.
    pub fn start(options: &AuthorizationOptions, environment: &Environment) -> Result<Authorizers, String> {
        let (caller, clock) = (environment.caller.clone(), environment.clock.clone());
        let current = Arc::new(RwLock::new(Arc::new(options.build(&caller, &clock)?)));
        if let Some(file) = &options.config_file {
            let (file, weak) = (file.clone(), Arc::downgrade(&current));
            reload(
                &environment.tasks,
                Configuration::Authorization,
                &file.clone(),
                environment.clock.clone(),
                move || {
                    let Some(current) = weak.upgrade() else { return Ok(()) };
                    let next = Arc::new(load(&file, &caller, &clock)?);
                    *current.write().unwrap_or_else(PoisonError::into_inner) = next;
                    Ok(())
                },
            )?;
        }
        Ok(Authorizers(current))
    }

    /// The authorizers, in order.
    pub fn now(&self) -> Arc<Vec<Authorizer>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn load(file: &Path, caller: &Caller, clock: &Arc<dyn Clock>) -> Result<Vec<Authorizer>, String> {
    let tree = config_file::read(file, &VERSIONS, KIND)?;
    parse(&tree, caller, clock).map_err(|why| format!("{}: {why}", file.display()))
}

/// The authorizers that a document lists.
///
/// # Errors
/// All faults, each with its field.
pub fn parse(tree: &Tree, caller: &Caller, clock: &Arc<dyn Clock>) -> Result<Vec<Authorizer>, String> {
    let (faults, mut errors, mut out) = (RefCell::default(), Vec::new(), Vec::new());
    {
        let fields = Fields::new(tree, &faults);
        let (mut types, mut seen) = (Vec::<String>::new(), Vec::<String>::new());
        let entries = fields.objects("authorizers");
        if entries.is_empty() {
            let why = "at least one authorization mode must be defined";
            errors.push(FieldError::required(&FieldPath::of("authorizers"), why));
        }
        for entry in entries {
            let (kind, name) = (entry.text("type"), entry.text("name"));
            let webhook = entry.object("webhook");
            let path = entry.path();
            if kind.is_empty() {
                errors.push(FieldError::required(&path.child("type"), ""));
                continue;
            }
            if !MODES.contains(&kind.as_str()) {
                errors.push(FieldError::not_supported(&path.child("type"), &kind, &MODES));
                continue;
            }
            if kind != "Webhook" && types.contains(&kind) {
                errors.push(FieldError::duplicate(&path.child("type"), &kind.as_str().into()));
                continue;
            }
            types.push(kind.clone());
            check_name(&name, &seen, &path.child("name"), &mut errors);
            seen.push(name.clone());
            out.extend(match (kind.as_str(), webhook) {
                ("Webhook", None) => {
                    errors.push(FieldError::required(&path.child("webhook"), "required when type=Webhook"));
                    None
                }
                ("Webhook", Some(webhook)) => {
                    let options = read_webhook(name, &webhook, path, &mut errors);
                    options
                        .map(|o| Authorizer::Webhook(Arc::new(AccessReviewer::new(o, caller.clone(), clock.clone()))))
                }
                (_, Some(_)) => {
                    let why = "may only be specified when type=Webhook";
                    errors.push(FieldError::invalid_str(&path.child("webhook"), "non-null", why));
                    None
                }
                (_, None) => builtin(&kind),
            });
        }
    }
    let strict = faults.into_inner();
    if !strict.is_empty() {
        return Err(format!("strict decoding error: {}", strict.join(", ")));
    }
    aggregate(&errors).map_or(Ok(out), Err)
}

fn check_name(name: &str, seen: &[String], path: &FieldPath, errors: &mut Vec<FieldError>) {
    let wrong = names::dns_subdomain(name);
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if seen.iter().any(|other| other == name) {
        errors.push(FieldError::duplicate(path, &name.into()));
    } else if !wrong.is_empty() {
        errors.push(FieldError::invalid_str(path, name, format!("authorizer name is invalid: {}", wrong.join(", "))));
    }
}

/// Upstream's validation has no `webhook` in the paths of its fields.
fn read_webhook(
    name: String,
    fields: &Fields<'_>,
    path: &FieldPath,
    errors: &mut Vec<FieldError>,
) -> Option<AccessReviewOptions> {
    let before = errors.len();
    let positive = |field: &'static str, errors: &mut Vec<FieldError>| match fields.duration(field) {
        None | Some(Duration::ZERO) => {
            errors.push(FieldError::required(&path.child(field), ""));
            Duration::ZERO
        }
        Some(found) => found,
    };
    let timeout = positive("timeout", errors);
    if timeout > Duration::from_secs(30) {
        let shown = corten_schema_duration(timeout);
        errors.push(FieldError::invalid_str(&path.child("timeout"), &shown, "must be > 0s and <= 30s"));
    }
    let (authorized, unauthorized) = (positive("authorizedTTL", errors), positive("unauthorizedTTL", errors));
    let kept =
        |flag: &'static str, life: Duration| if fields.flag(flag).unwrap_or(true) { life } else { Duration::ZERO };
    let one_of = |field: &'static str, all: &[&str], required: Option<&str>, errors: &mut Vec<FieldError>| {
        let text = fields.text(field);
        match (text.as_str(), required) {
            ("", Some(why)) => errors.push(FieldError::required(&path.child(field), why)),
            ("", None) => {}
            (other, _) if all.contains(&other) => {}
            (other, _) => errors.push(FieldError::not_supported(&path.child(field), other, all)),
        }
        text
    };
    let version = one_of("subjectAccessReviewVersion", &["v1", "v1beta1"], Some(""), errors);
    let conditions = fields.objects("matchConditions");
    let needed = (!conditions.is_empty()).then_some("required if match conditions are specified");
    one_of("matchConditionSubjectAccessReviewVersion", &["v1"], needed, errors);
    let policy = one_of("failurePolicy", &["NoOpinion", "Deny"], Some(""), errors);
    let connection = read_connection(fields, path, errors);
    let conditions = read_conditions(&conditions, path, errors);
    if errors.len() > before {
        return None;
    }
    Some(AccessReviewOptions {
        name,
        connection: connection?,
        version,
        authorized_ttl: kept("cacheAuthorizedRequests", authorized),
        unauthorized_ttl: kept("cacheUnauthorizedRequests", unauthorized),
        timeout,
        deny_on_error: policy == "Deny",
        conditions,
    })
}

fn corten_schema_duration(duration: Duration) -> String {
    corten_cel::duration_text(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

fn read_connection(fields: &Fields<'_>, path: &FieldPath, errors: &mut Vec<FieldError>) -> Option<ClientConfig> {
    let path = path.child("connectionInfo");
    let (kind, file) = match fields.object("connectionInfo") {
        Some(info) => (info.text("type"), info.optional_text("kubeConfigFile")),
        None => (String::new(), None),
    };
    let file_path = path.child("kubeConfigFile");
    match (kind.as_str(), file.as_deref()) {
        ("", _) => errors.push(FieldError::required(&path.child("type"), "")),
        ("KubeConfigFile", None | Some("")) => errors.push(FieldError::required(&file_path, "")),
        ("KubeConfigFile", Some(file)) if !Path::new(file).is_absolute() => {
            errors.push(FieldError::invalid_str(&file_path, file, "must be an absolute path"));
        }
        ("KubeConfigFile", Some(file)) => match ClientConfig::from_kubeconfig(Path::new(file)) {
            Ok(config) => return Some(config),
            Err(why) => {
                errors.push(FieldError::invalid_str(&file_path, file, format!("error loading file: {why}")));
            }
        },
        ("InClusterConfig", _) => {
            let why = "this API server is not a pod: use KubeConfigFile";
            errors.push(FieldError::invalid_str(&path.child("type"), &kind, why));
        }
        (other, _) => {
            let shown = tree!({"type": other});
            let all = ["InClusterConfig", "KubeConfigFile"];
            errors.push(FieldError::not_supported_value(&path.child("type"), &shown, &all));
        }
    }
    None
}

fn read_conditions(entries: &[Fields<'_>], path: &FieldPath, errors: &mut Vec<FieldError>) -> Vec<Condition> {
    if entries.len() > CONDITIONS_MAX {
        errors.push(FieldError::too_many(&path.child("matchConditions"), entries.len(), CONDITIONS_MAX));
        return Vec::new();
    }
    let (mut out, mut seen) = (Vec::new(), Vec::<String>::new());
    for (i, entry) in entries.iter().enumerate() {
        let path = path.child("matchConditions").index(i).child("expression");
        let source = entry.text("expression");
        if source.trim().is_empty() {
            errors.push(FieldError::required(&path, ""));
            continue;
        }
        if seen.contains(&source) {
            errors.push(FieldError::duplicate(&path, &source.as_str().into()));
            continue;
        }
        match Condition::compile(&source, &path) {
            Ok(condition) => out.push(condition),
            Err(error) => errors.push(error),
        }
        seen.push(source);
    }
    out
}
