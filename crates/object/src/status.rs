//! `metav1.Status`: the one error that a client sees, and the field errors that validation collects.
//!
//! Words and forms: `k8s.io/apimachinery/pkg/api/errors/errors.go`, `pkg/util/validation/field/errors.go`.

use std::fmt;

use corten_tree::{FieldPath, Map, Tree, tree};

/// Machine-readable cause of a failure (`metav1.StatusReason`), with its HTTP code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// 400
    BadRequest,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 406
    NotAcceptable,
    /// 409, the name is taken
    AlreadyExists,
    /// 409, the object has changed
    Conflict,
    /// 410, the resource is gone for good
    Gone,
    /// 410, the resourceVersion or continue token is too old
    Expired,
    /// 413
    RequestEntityTooLarge,
    /// 415
    UnsupportedMediaType,
    /// 422
    Invalid,
    /// 429
    TooManyRequests,
    /// 500
    InternalError,
    /// 503
    ServiceUnavailable,
    /// 504
    Timeout,
    /// 504, the server could not decide in time
    ServerTimeout,
    /// No reason is given; the code says all.
    Unknown,
}

impl Reason {
    /// The text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::BadRequest => "BadRequest",
            Reason::Unauthorized => "Unauthorized",
            Reason::Forbidden => "Forbidden",
            Reason::NotFound => "NotFound",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::NotAcceptable => "NotAcceptable",
            Reason::AlreadyExists => "AlreadyExists",
            Reason::Conflict => "Conflict",
            Reason::Gone => "Gone",
            Reason::Expired => "Expired",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
            Reason::Invalid => "Invalid",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::InternalError => "InternalError",
            Reason::ServiceUnavailable => "ServiceUnavailable",
            Reason::Timeout => "Timeout",
            Reason::ServerTimeout => "ServerTimeout",
            Reason::Unknown => "",
        }
    }

    /// The reason of a text, as a client reads it.
    pub fn parse(text: &str) -> Reason {
        use Reason::*;
        [
            BadRequest,
            Unauthorized,
            Forbidden,
            NotFound,
            MethodNotAllowed,
            NotAcceptable,
            AlreadyExists,
            Conflict,
            Gone,
            Expired,
            RequestEntityTooLarge,
            UnsupportedMediaType,
            Invalid,
            TooManyRequests,
            InternalError,
            ServiceUnavailable,
            Timeout,
            ServerTimeout,
        ]
        .into_iter()
        .find(|r| r.as_str() == text)
        .unwrap_or(Unknown)
    }

    /// The HTTP status code.
    pub fn code(self) -> u16 {
        match self {
            Reason::BadRequest => 400,
            Reason::Unauthorized => 401,
            Reason::Forbidden => 403,
            Reason::NotFound => 404,
            Reason::MethodNotAllowed => 405,
            Reason::NotAcceptable => 406,
            Reason::AlreadyExists | Reason::Conflict => 409,
            Reason::Gone | Reason::Expired => 410,
            Reason::RequestEntityTooLarge => 413,
            Reason::UnsupportedMediaType => 415,
            Reason::Invalid => 422,
            Reason::TooManyRequests => 429,
            Reason::InternalError | Reason::Unknown => 500,
            Reason::ServiceUnavailable => 503,
            Reason::Timeout | Reason::ServerTimeout => 504,
        }
    }
}

/// What kind of field error (`metav1.CauseType` and `field.ErrorType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CauseKind {
    /// A required value is missing.
    Required,
    /// A value occurs twice.
    Duplicate,
    /// A value is malformed.
    Invalid,
    /// A value is not one of the allowed.
    NotSupported,
    /// A value is not allowed here.
    Forbidden,
    /// A text is too long.
    TooLong,
    /// A list is too long.
    TooMany,
    /// A reference names nothing.
    NotFound,
    /// The server failed.
    InternalError,
    /// A value has the wrong type.
    TypeInvalid,
    /// A field manager owns the field (server-side apply); not a field error.
    FieldManagerConflict,
}

impl CauseKind {
    /// The text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            CauseKind::Required => "FieldValueRequired",
            CauseKind::Duplicate => "FieldValueDuplicate",
            CauseKind::Invalid => "FieldValueInvalid",
            CauseKind::NotSupported => "FieldValueNotSupported",
            CauseKind::Forbidden => "FieldValueForbidden",
            CauseKind::TooLong => "FieldValueTooLong",
            CauseKind::TooMany => "FieldValueTooMany",
            CauseKind::NotFound => "FieldValueNotFound",
            CauseKind::InternalError => "InternalError",
            CauseKind::TypeInvalid => "FieldValueTypeInvalid",
            CauseKind::FieldManagerConflict => "FieldManagerConflict",
        }
    }
}

/// One thing that validation finds wrong. Its text is upstream's `field.Error.Error()`.
#[derive(Debug, Clone)]
pub struct FieldError {
    /// Where.
    pub path: FieldPath,
    /// What kind of fault.
    pub kind: CauseKind,
    /// The text without the path.
    pub body: String,
    /// The map or list that the text shows, if it shows one.
    pub value: Option<Tree>,
}

impl FieldError {
    /// `Required value[: detail]`
    pub fn required(path: &FieldPath, detail: impl fmt::Display) -> FieldError {
        FieldError::make(path, CauseKind::Required, with_detail("Required value", detail))
    }

    /// `Invalid value: <value>[: detail]`
    pub fn invalid(path: &FieldPath, value: &Tree, detail: impl fmt::Display) -> FieldError {
        let body = with_detail(&format!("Invalid value: {}", shown(value)), detail);
        FieldError::make(path, CauseKind::Invalid, body).showing(value)
    }

    /// As [`FieldError::invalid`], for a value that is text.
    pub fn invalid_str(path: &FieldPath, value: &str, detail: impl fmt::Display) -> FieldError {
        FieldError::invalid(path, &Tree::from(value), detail)
    }

    /// `Unsupported value: <value>: supported values: "a", "b"`
    pub fn not_supported(path: &FieldPath, value: &str, supported: &[&str]) -> FieldError {
        let list = supported.iter().map(|s| quoted(s)).collect::<Vec<_>>().join(", ");
        let body = format!("Unsupported value: {}", quoted(value));
        let body = if supported.is_empty() { body } else { format!("{body}: supported values: {list}") };
        FieldError::make(path, CauseKind::NotSupported, body)
    }

    /// As [`FieldError::not_supported`], for a value that is not text.
    pub fn not_supported_value(path: &FieldPath, value: &Tree, supported: &[&str]) -> FieldError {
        let list = supported.iter().map(|s| quoted(s)).collect::<Vec<_>>().join(", ");
        let body = format!("Unsupported value: {}: supported values: {list}", shown(value));
        FieldError::make(path, CauseKind::NotSupported, body).showing(value)
    }

    /// `Duplicate value: <value>`
    pub fn duplicate(path: &FieldPath, value: &Tree) -> FieldError {
        FieldError::make(path, CauseKind::Duplicate, format!("Duplicate value: {}", shown(value))).showing(value)
    }

    /// `Forbidden: detail`
    pub fn forbidden(path: &FieldPath, detail: impl fmt::Display) -> FieldError {
        FieldError::make(path, CauseKind::Forbidden, with_detail("Forbidden", detail))
    }

    /// `Too long: may not be more than N bytes`
    pub fn too_long(path: &FieldPath, bytes_max: usize) -> FieldError {
        FieldError::make(path, CauseKind::TooLong, format!("Too long: may not be more than {bytes_max} bytes"))
    }

    /// `Too many: N: must have at most M items`
    pub fn too_many(path: &FieldPath, actual: usize, max: usize) -> FieldError {
        let items = if max == 1 { "item" } else { "items" };
        FieldError::make(path, CauseKind::TooMany, format!("Too many: {actual}: must have at most {max} {items}"))
    }

    /// `Not found: <value>`
    pub fn not_found(path: &FieldPath, value: &Tree) -> FieldError {
        FieldError::make(path, CauseKind::NotFound, format!("Not found: {}", shown(value)))
    }

    /// Shows the map or list of the text in another form.
    pub fn reshape(&mut self, form: impl FnOnce(&Tree) -> Tree) {
        if let Some(value) = self.value.take() {
            let new = form(&value);
            self.body = self.body.replacen(&shown(&value), &shown(&new), 1);
        }
    }

    /// The error with its value as it is, whatever forms others are shown in.
    #[must_use]
    pub fn as_shown(self) -> FieldError {
        FieldError { value: None, ..self }
    }

    fn make(path: &FieldPath, kind: CauseKind, body: String) -> FieldError {
        FieldError { path: path.clone(), kind, body, value: None }
    }

    fn showing(self, value: &Tree) -> FieldError {
        let value = matches!(value, Tree::Map(_) | Tree::List(_)).then(|| value.clone());
        FieldError { value, ..self }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body)
    }
}

fn with_detail(head: &str, detail: impl fmt::Display) -> String {
    match detail.to_string() {
        empty if empty.is_empty() => head.to_owned(),
        detail => format!("{head}: {detail}"),
    }
}

/// A value in a message: text quoted as Go's `%q`, the rest as JSON; null as `null`.
fn shown(value: &Tree) -> String {
    match value {
        Tree::Str(text) => quoted(text),
        other => other.to_json_string(),
    }
}

/// Go's `%q` for the texts that occur.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// One cause in `status.details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// `reason`
    pub reason: String,
    /// `message`
    pub message: String,
    /// `field`
    pub field: String,
}

/// A failed request's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// HTTP code.
    pub code: u16,
    /// The reason.
    pub reason: Reason,
    /// For people.
    pub message: String,
    /// `details.name`
    pub name: String,
    /// `details.group`
    pub group: String,
    /// `details.kind`: the resource's plural, or the kind for Invalid.
    pub kind: String,
    /// `details.uid`
    pub uid: String,
    /// `details.causes`
    pub causes: Vec<Cause>,
    /// `details.retryAfterSeconds`, and the Retry-After header.
    pub retry_after_seconds: Option<u32>,
    /// `metadata.continue`: where a list whose token has expired may go on, inconsistently.
    pub continue_token: String,
    /// Whether `details` is there although nothing is in it.
    pub bare_details: bool,
    /// Texts of Warning headers that go with it: a refused request has them, too.
    pub warnings: Vec<String>,
}

impl std::error::Error for Status {}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// `resource` or `resource.group` in messages.
fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

impl Status {
    /// A status with a reason and a text only.
    pub fn new(reason: Reason, message: impl Into<String>) -> Status {
        Status {
            code: reason.code(),
            reason,
            message: message.into(),
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: None,
            continue_token: String::new(),
            bare_details: false,
            warnings: Vec::new(),
        }
    }

    /// Puts warnings before those that it has.
    #[must_use]
    pub fn with_warnings(mut self, earlier: impl IntoIterator<Item = String>) -> Status {
        self.warnings.splice(..0, earlier);
        self
    }

    /// Says which object (by resource plural) this is about.
    #[must_use]
    pub fn about(mut self, group: &str, resource: &str, name: &str) -> Status {
        (self.group, self.kind, self.name) = (group.into(), resource.into(), name.into());
        self
    }

    /// 404 `pods "x" not found`
    pub fn not_found(group: &str, resource: &str, name: &str) -> Status {
        let message = format!("{} {} not found", qualified(group, resource), quoted(name));
        Status::new(Reason::NotFound, message).about(group, resource, name)
    }

    /// 404 for a resource that nothing serves (`NewGenericServerResponse`).
    pub fn no_such_resource() -> Status {
        let status = Status::new(Reason::NotFound, "the server could not find the requested resource");
        Status { bare_details: true, ..status }
    }

    /// 409 `pods "x" already exists`
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Status {
        let message = format!("{} {} already exists", qualified(group, resource), quoted(name));
        Status::new(Reason::AlreadyExists, message).about(group, resource, name)
    }

    /// 409 `Operation cannot be fulfilled on pods "x": why`
    pub fn conflict(group: &str, resource: &str, name: &str, why: impl fmt::Display) -> Status {
        let what = qualified(group, resource);
        let message = format!("Operation cannot be fulfilled on {what} {}: {why}", quoted(name));
        Status::new(Reason::Conflict, message).about(group, resource, name)
    }

    /// 409 for a stale resourceVersion.
    pub fn modified(group: &str, resource: &str, name: &str) -> Status {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Status::conflict(group, resource, name, why)
    }

    /// 403 `pods "x" is forbidden: why`
    pub fn forbidden(group: &str, resource: &str, name: &str, why: impl fmt::Display) -> Status {
        let what = qualified(group, resource);
        let message = match name {
            "" => format!("{what} is forbidden: {why}"),
            name => format!("{what} {} is forbidden: {why}", quoted(name)),
        };
        Status::new(Reason::Forbidden, message).about(group, resource, name)
    }

    /// 422 with all field errors. `kind` is the object's kind, as upstream has it here.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Status {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let all = match texts.as_slice() {
            [one] => one.clone(),
            many => {
                let mut seen = std::collections::HashSet::new();
                let unique: Vec<&str> = many.iter().map(String::as_str).filter(|t| seen.insert(*t)).collect();
                if unique.len() == 1 { unique[0].to_owned() } else { format!("[{}]", unique.join(", ")) }
            }
        };
        let message = format!("{} {} is invalid: {all}", qualified(group, kind), quoted(name));
        let cause = |e: &FieldError| Cause {
            reason: e.kind.as_str().into(),
            message: e.body.clone(),
            field: e.path.to_string(),
        };
        let mut status = Status::new(Reason::Invalid, message).about(group, kind, name);
        status.causes = errors.iter().map(cause).collect();
        status
    }

    /// A code and a message without a reason: what upstream makes of an error that is no Status.
    pub fn unexplained(code: u16, message: impl Into<String>) -> Status {
        Status { code, ..Status::new(Reason::Unknown, message) }
    }

    /// 400
    pub fn bad_request(message: impl Into<String>) -> Status {
        Status::new(Reason::BadRequest, message)
    }

    /// 401
    pub fn unauthorized() -> Status {
        Status::new(Reason::Unauthorized, "Unauthorized")
    }

    /// 405
    pub fn method_not_allowed() -> Status {
        let message = "the server does not allow this method on the requested resource";
        Status { bare_details: true, ..Status::new(Reason::MethodNotAllowed, message) }
    }

    /// 504 `Timeout: why`, with a time to wait if that is not zero.
    pub fn timeout(why: impl fmt::Display, retry_after_seconds: u32) -> Status {
        let status = Status::new(Reason::Timeout, format!("Timeout: {why}"));
        let retry = (retry_after_seconds > 0).then_some(retry_after_seconds);
        Status { retry_after_seconds: retry, bare_details: true, ..status }
    }

    /// 410 for a resourceVersion or a continue token that is too old.
    pub fn expired(message: impl Into<String>) -> Status {
        Status::new(Reason::Expired, message)
    }

    /// 500 `Internal error occurred: why`
    pub fn internal(why: impl fmt::Display) -> Status {
        let mut status = Status::new(Reason::InternalError, format!("Internal error occurred: {why}"));
        status.causes.push(Cause { reason: String::new(), message: why.to_string(), field: String::new() });
        status
    }

    /// 429 with a time to wait.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Status {
        let mut status = Status::new(Reason::TooManyRequests, message);
        status.retry_after_seconds = Some(retry_after_seconds);
        status
    }

    /// Whether the answer is 404 NotFound.
    pub fn is_not_found(&self) -> bool {
        self.reason == Reason::NotFound
    }

    /// Whether the answer is 409 Conflict.
    pub fn is_conflict(&self) -> bool {
        self.reason == Reason::Conflict
    }

    /// Whether the answer is 409 AlreadyExists.
    pub fn is_already_exists(&self) -> bool {
        self.reason == Reason::AlreadyExists
    }

    /// The `v1.Status` object, in upstream's field order.
    pub fn to_tree(&self) -> Tree {
        let mut out = tree!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"});
        if !self.continue_token.is_empty() {
            out.set("metadata.continue", self.continue_token.as_str());
        }
        out.insert("message", self.message.as_str());
        if self.reason != Reason::Unknown {
            out.insert("reason", self.reason.as_str());
        }
        let mut details = Map::new();
        for (key, value) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !value.is_empty() {
                details.insert(key, value.as_str());
            }
        }
        if !self.causes.is_empty() {
            let causes: Vec<Tree> = self.causes.iter().map(cause_tree).collect();
            details.insert("causes", causes);
        }
        if let Some(seconds) = self.retry_after_seconds {
            details.insert("retryAfterSeconds", seconds);
        }
        if !details.is_empty() || self.bare_details {
            out.insert("details", details);
        }
        out.insert("code", i64::from(self.code));
        out
    }

    /// Reads a `v1.Status` object, as a client gets it.
    pub fn from_tree(tree: &Tree) -> Status {
        let text = |path: &str| tree.str_at(path).to_owned();
        let cause = |c: &Tree| Cause {
            reason: c.str_at("reason").into(),
            message: c.str_at("message").into(),
            field: c.str_at("field").into(),
        };
        let reason = Reason::parse(tree.str_at("reason"));
        Status {
            code: tree.i64_at("code").and_then(|c| u16::try_from(c).ok()).unwrap_or(reason.code()),
            reason,
            message: text("message"),
            name: text("details.name"),
            group: text("details.group"),
            kind: text("details.kind"),
            uid: text("details.uid"),
            causes: tree.list_at("details.causes").iter().map(cause).collect(),
            retry_after_seconds: tree.i64_at("details.retryAfterSeconds").and_then(|s| u32::try_from(s).ok()),
            continue_token: text("metadata.continue"),
            bare_details: tree.map_at("details").is_empty() && tree.get("details").is_some(),
            warnings: Vec::new(),
        }
    }
}

fn cause_tree(cause: &Cause) -> Tree {
    let mut out = Map::new();
    for (key, value) in [("reason", &cause.reason), ("message", &cause.message), ("field", &cause.field)] {
        if !value.is_empty() {
            out.insert(key, value.as_str());
        }
    }
    Tree::Map(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_names_every_field() {
        let path = FieldPath::of("spec.containers").index(0);
        let errors = [
            FieldError::required(&path.child("name"), ""),
            FieldError::invalid_str(&path.child("image"), " x", "must not have leading or trailing whitespace"),
            FieldError::not_supported(&path.child("imagePullPolicy"), "Maybe", &["Always", "Never"]),
        ];
        let status = Status::invalid("", "Pod", "p", &errors);
        assert_eq!(
            status.message,
            "Pod \"p\" is invalid: [spec.containers[0].name: Required value, spec.containers[0].image: Invalid value: \" x\": \
             must not have leading or trailing whitespace, spec.containers[0].imagePullPolicy: Unsupported value: \"Maybe\": \
             supported values: \"Always\", \"Never\"]"
        );
        assert_eq!(status.causes[0].message, "Required value");
        assert_eq!(Status::from_tree(&status.to_tree()), status);
        assert_eq!(status.code, 422);
    }

    #[test]
    fn messages_as_upstream() {
        assert_eq!(Status::not_found("apps", "deployments", "w").message, "deployments.apps \"w\" not found");
        assert_eq!(Status::already_exists("", "pods", "p").message, "pods \"p\" already exists");
        assert_eq!(
            Status::not_found("", "pods", "p").to_tree().to_string(),
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"pods \"p\" not found","reason":"NotFound","details":{"name":"p","kind":"pods"},"code":404}"#
        );
    }
}
