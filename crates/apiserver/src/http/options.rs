//! The options of requests, from their query or body, and what is wrong with them.
//!
//! Upstream: `apimachinery/pkg/apis/meta/internalversion/validation`, `apimachinery/pkg/apis/meta/v1/validation`.

use corten_base::Revision;
use corten_client::{PatchKind, Propagation, WriteOptions};
use corten_object::{FieldError, FieldSelector, LabelSelector, Reason, Status};
use corten_tree::{FieldPath, Tree};

use super::query::Query;
use crate::pipeline::{DeleteParameters, ListRequest, RevisionMatch, WatchStart, parse_continue};

/// Longest name of a field manager, in bytes.
const MANAGER_BYTES_MAX: usize = 128;

/// The options of a list, a watch or the deletion of a collection, checked.
#[derive(Debug, Clone)]
pub(super) struct ListOptions {
    pub labels: Option<LabelSelector>,
    pub fields: FieldSelector,
    pub bookmarks: bool,
    pub timeout_seconds: Option<i64>,
    revision: String,
    revision_match: String,
    limit: i64,
    token: String,
    initial_events: Option<bool>,
}

/// Reads the options of a list; `watch` if it is one in truth, `name` if the path names one object.
pub(super) fn list(query: &Query, watch: bool, name: &str) -> Result<ListOptions, Status> {
    let labels = match query.get("labelSelector") {
        "" => None,
        text => Some(LabelSelector::parse(text).map_err(Status::bad_request)?),
    };
    let mut options = ListOptions {
        labels,
        fields: FieldSelector::parse(query.get("fieldSelector")).map_err(Status::bad_request)?,
        bookmarks: query.flag("allowWatchBookmarks"),
        timeout_seconds: query.number("timeoutSeconds")?,
        revision: query.get("resourceVersion").into(),
        revision_match: query.get("resourceVersionMatch").into(),
        limit: query.number("limit")?.unwrap_or(0),
        token: query.get("continue").into(),
        initial_events: query.optional_flag("sendInitialEvents"),
    };
    // A watch from now on shows the present state first (`SetListOptionsDefaults`).
    let from_now = matches!(options.revision.as_str(), "" | "0");
    if watch && from_now && options.initial_events.is_none() && options.revision_match.is_empty() {
        options.initial_events = Some(true);
        options.revision_match = "NotOlderThan".into();
    }
    let errors = if watch { watch_faults(&options) } else { list_faults(&options) };
    refuse("ListOptions", &errors)?;
    if !name.is_empty() {
        match options.fields.exact("metadata.name") {
            _ if options.fields.is_everything() => {
                let text = format!("metadata.name={name}");
                options.fields = FieldSelector::parse(&text).map_err(Status::bad_request)?;
            }
            Some(selected) if selected == name => {}
            _ => return Err(Status::bad_request("fieldSelector metadata.name doesn't match requested name")),
        }
    }
    Ok(options)
}

fn list_faults(options: &ListOptions) -> Vec<FieldError> {
    let (path, mut errors) = (FieldPath::of("resourceVersionMatch"), Vec::new());
    let wanted = options.revision_match.as_str();
    if !wanted.is_empty() {
        if options.revision.is_empty() {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            errors.push(FieldError::forbidden(&path, why));
        }
        if !options.token.is_empty() {
            errors.push(FieldError::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
        }
        if !matches!(wanted, "Exact" | "NotOlderThan") {
            errors.push(FieldError::not_supported(&path, wanted, &["Exact", "NotOlderThan", ""]));
        }
        if wanted == "Exact" && options.revision == "0" {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(FieldError::forbidden(&path, why));
        }
    }
    if options.initial_events.is_some() {
        let path = FieldPath::of("sendInitialEvents");
        errors.push(FieldError::forbidden(&path, "sendInitialEvents is forbidden for list"));
    }
    errors
}

fn watch_faults(options: &ListOptions) -> Vec<FieldError> {
    let (path, mut errors) = (FieldPath::of("resourceVersionMatch"), Vec::new());
    let wanted = options.revision_match.as_str();
    if options.initial_events.is_some() && wanted != "NotOlderThan" {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(FieldError::forbidden(&path, why));
    }
    if !wanted.is_empty() {
        if options.initial_events.is_none() {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(FieldError::forbidden(&path, why));
        }
        if wanted != "NotOlderThan" {
            errors.push(FieldError::not_supported(&path, wanted, &["NotOlderThan"]));
        }
        if !options.token.is_empty() {
            errors.push(FieldError::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
        }
    }
    errors
}

impl ListOptions {
    /// The list that is asked for (`apiserver/pkg/storage/interfaces.go`, `ValidateListOptions`).
    pub fn request(&self, namespace: &str) -> Result<ListRequest, Status> {
        let mut list = self.selection(namespace);
        list.limit = usize::try_from(self.limit).unwrap_or(0);
        if !self.token.is_empty() {
            let token = parse_continue(&self.token)?;
            if !matches!(self.revision.as_str(), "" | "0") {
                return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
            }
            (list.revision, list.start) = (token.revision, Some(token.start));
            list.remaining = token.remaining;
            return Ok(list);
        }
        let invalid = |e: FieldError| Status::bad_request(format!("invalid resource version: {e}"));
        let number = || revision(&self.revision).map_err(invalid);
        list.revision = match (self.revision.as_str(), self.revision_match.as_str()) {
            ("", _) => RevisionMatch::MostRecent,
            ("0", _) => RevisionMatch::Any,
            (_, "Exact") => RevisionMatch::Exact(number()?),
            (_, "") if self.limit > 0 => RevisionMatch::Exact(number()?),
            _ => RevisionMatch::NotOlderThan(number()?),
        };
        Ok(list)
    }

    /// The watch that is asked for: what it selects, and where it begins
    /// (`apiserver/pkg/storage/cacher/cacher.go`, `Watch`).
    pub fn watch(&self, namespace: &str) -> Result<(ListRequest, WatchStart), Status> {
        let bad = |e: FieldError| Status::new(Reason::Unknown, e.to_string());
        let at = match self.revision.as_str() {
            "" => RevisionMatch::MostRecent,
            "0" => RevisionMatch::Any,
            text => match revision(text).map_err(bad)? {
                Revision::ZERO => RevisionMatch::Any,
                revision => RevisionMatch::NotOlderThan(revision),
            },
        };
        let start = match (self.initial_events, at) {
            (Some(true), at) => WatchStart::State(at),
            (_, RevisionMatch::NotOlderThan(revision)) => WatchStart::After(revision),
            (_, at) => WatchStart::Now(at),
        };
        Ok((self.selection(namespace), start))
    }

    fn selection(&self, namespace: &str) -> ListRequest {
        ListRequest {
            namespace: namespace.to_owned(),
            labels: self.labels.clone(),
            fields: self.fields.clone(),
            revision: RevisionMatch::MostRecent,
            limit: 0,
            start: None,
            remaining: None,
        }
    }
}

/// A resourceVersion's number (`apiserver/pkg/storage/api_object_versioner.go`, `ParseResourceVersion`).
pub(super) fn revision(text: &str) -> Result<Revision, FieldError> {
    text.parse().map(Revision).map_err(|error: std::num::ParseIntError| {
        let why = match error.kind() {
            std::num::IntErrorKind::PosOverflow => "value out of range",
            _ => "invalid syntax",
        };
        let why = format!("strconv.ParseUint: parsing {text:?}: {why}");
        FieldError::invalid_str(&FieldPath::of("resourceVersion"), text, why)
    })
}

/// When a get wants the world.
pub(super) fn get_revision(query: &Query) -> Result<RevisionMatch, Status> {
    if query.flag("export") {
        let why = "the export parameter, deprecated since v1.14, is no longer supported";
        return Err(Status::bad_request(why));
    }
    Ok(match query.get("resourceVersion") {
        "" => RevisionMatch::MostRecent,
        "0" => RevisionMatch::Any,
        text => {
            let bad = |e: FieldError| Status::new(Reason::Unknown, e.to_string());
            RevisionMatch::NotOlderThan(revision(text).map_err(bad)?)
        }
    })
}

/// The manager of a client that names none: the program in its user agent, printable and not too long
/// (`apiserver/pkg/endpoints/handlers/create.go`, `prefixFromUserAgent`).
pub(super) fn manager_of_agent(agent: &str) -> String {
    let printable = |c: &char| *c == ' ' || !(c.is_control() || c.is_whitespace());
    let mut name = String::new();
    for c in agent.split('/').next().unwrap_or_default().chars().filter(printable) {
        if name.len() + c.len_utf8() > MANAGER_BYTES_MAX {
            break;
        }
        name.push(c);
    }
    name
}

/// The options of a create, an update or a patch.
pub(super) fn write(query: &Query, verb: &str, patch: Option<PatchKind>) -> Result<WriteOptions, Status> {
    let (manager, mut errors) = (query.get("fieldManager"), Vec::new());
    match patch {
        Some(PatchKind::Apply) if manager.is_empty() => {
            errors.push(FieldError::required(&FieldPath::of("fieldManager"), "is required for apply patch"));
        }
        Some(PatchKind::Json | PatchKind::Merge | PatchKind::Strategic) if query.has("force") => {
            let why = "may not be specified for non-apply patch";
            errors.push(FieldError::forbidden(&FieldPath::of("force"), why));
        }
        _ => {}
    }
    manager_faults(manager, &mut errors);
    let dry_run = texts(query, "dryRun");
    dry_run_faults(&dry_run, &mut errors);
    let validation = query.get("fieldValidation");
    if !matches!(validation, "" | "Ignore" | "Strict" | "Warn") {
        let path = FieldPath::of("fieldValidation");
        errors.push(FieldError::not_supported(&path, validation, &["", "Ignore", "Strict", "Warn"]));
    }
    let kind = match verb {
        "create" => "CreateOptions",
        "patch" => "PatchOptions",
        _ => "UpdateOptions",
    };
    refuse(kind, &errors)?;
    Ok(WriteOptions {
        dry_run: !dry_run.is_empty(),
        field_manager: manager.into(),
        force: query.flag("force"),
        field_validation: validation.into(),
        owners_alive: Vec::new(),
    })
}

fn texts<'q>(query: &'q Query, key: &'q str) -> Vec<&'q str> {
    query.all(key).collect()
}

fn manager_faults(manager: &str, errors: &mut Vec<FieldError>) {
    let path = FieldPath::of("fieldManager");
    if manager.len() > MANAGER_BYTES_MAX {
        errors.push(FieldError::too_long(&path, MANAGER_BYTES_MAX));
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| c.is_control() || (c.is_whitespace() && *c != ' ')) {
        let shown = if c.is_control() { String::new() } else { format!(" '{c}'") };
        let why = format!("invalid character U+{:04X}{shown} (at position {at})", c as u32);
        errors.push(FieldError::invalid_str(&path, manager, why));
    }
}

fn dry_run_faults(dry_run: &[&str], errors: &mut Vec<FieldError>) {
    if dry_run.iter().any(|d| *d != "All") {
        let found = Tree::List(dry_run.iter().map(|d| Tree::from(*d)).collect());
        errors.push(FieldError::not_supported_value(&FieldPath::of("dryRun"), &found, &["All"]));
    }
}

fn refuse(kind: &str, errors: &[FieldError]) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", kind, "", errors)) }
}

/// DeleteOptions as a query has them: no body was sent.
pub(super) fn delete_from_query(query: &Query) -> Result<Tree, Status> {
    let mut options = Tree::map();
    if let Some(seconds) = query.number("gracePeriodSeconds")? {
        options.insert("gracePeriodSeconds", seconds);
    }
    if let Some(orphan) = query.optional_flag("orphanDependents") {
        options.insert("orphanDependents", orphan);
    }
    if query.has("propagationPolicy") {
        options.insert("propagationPolicy", query.get("propagationPolicy"));
    }
    for (parameter, path) in [("uid", "preconditions.uid"), ("resourceVersion", "preconditions.resourceVersion")] {
        if !query.get(parameter).is_empty() {
            options.set(path, query.get(parameter));
        }
    }
    let dry_run = texts(query, "dryRun");
    if !dry_run.is_empty() {
        options.insert("dryRun", Tree::List(dry_run.into_iter().map(Tree::from).collect()));
    }
    Ok(options)
}

/// What DeleteOptions say, checked.
pub(crate) fn delete(options: &Tree) -> Result<DeleteParameters, Status> {
    let policy = options.get("propagationPolicy").and_then(Tree::as_str);
    let orphan = options.get("orphanDependents").and_then(Tree::as_bool);
    let (path, mut errors) = (FieldPath::of("propagationPolicy"), Vec::new());
    if let (Some(policy), Some(_)) = (policy, orphan) {
        let why = "orphanDependents and deletionPropagation cannot be both set";
        errors.push(FieldError::invalid_str(&path, policy, why));
    }
    let propagation = match (policy, orphan) {
        (None, Some(true)) | (Some("Orphan"), _) => Some(Propagation::Orphan),
        (None, Some(false)) | (Some("Background"), _) => Some(Propagation::Background),
        (Some("Foreground"), _) => Some(Propagation::Foreground),
        (None, None) => None,
        (Some(other), _) => {
            errors.push(FieldError::not_supported(&path, other, &["Foreground", "Background", "Orphan", "nil"]));
            None
        }
    };
    let dry_run: Vec<&str> = options.list_at("dryRun").iter().filter_map(Tree::as_str).collect();
    dry_run_faults(&dry_run, &mut errors);
    if options.bool_at("ignoreStoreReadErrorWithClusterBreakingPotential") {
        unsafe_delete_faults(options, &mut errors);
    }
    refuse("DeleteOptions", &errors)?;
    let text = |path: &str| options.path(path).and_then(Tree::as_str).map(str::to_owned);
    Ok(DeleteParameters {
        grace_seconds: options.i64_at("gracePeriodSeconds"),
        propagation,
        uid: text("preconditions.uid"),
        resource_version: text("preconditions.resourceVersion"),
        dry_run: !dry_run.is_empty(),
        accepted_if_marked: orphan == Some(false),
    })
}

/// The option that deletes what cannot be read goes alone (`ValidateIgnoreStoreReadError`).
fn unsafe_delete_faults(options: &Tree, errors: &mut Vec<FieldError>) {
    let path = FieldPath::of("ignoreStoreReadErrorWithClusterBreakingPotential");
    for key in ["propagationPolicy", "orphanDependents", "gracePeriodSeconds", "preconditions"] {
        if options.get(key).is_some_and(|v| !v.is_null()) {
            let why = format!("cannot be set together with .{key}");
            errors.push(FieldError::invalid(&path, &Tree::from(true), why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(result: Result<impl std::fmt::Debug, Status>) -> String {
        result.map_or_else(|s| format!("{} {}", s.code, s.message), |_| "ok".into())
    }

    #[test]
    fn list_options_are_refused_with_upstreams_words() {
        let invalid = |why: &str| format!("422 ListOptions.meta.k8s.io \"\" is invalid: {why}");
        for (watch, text, expected) in [
            (false, "limit=2&continue=", "ok".to_owned()),
            (false, "limit=x", "400 strconv.ParseInt: parsing \"x\": invalid syntax".into()),
            (
                false,
                "resourceVersionMatch=Exact",
                invalid(
                    "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
                ),
            ),
            (
                false,
                "resourceVersionMatch=Maybe&resourceVersion=1",
                invalid(
                    "resourceVersionMatch: Unsupported value: \"Maybe\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
                ),
            ),
            (
                false,
                "sendInitialEvents=true",
                invalid("sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"),
            ),
            (
                true,
                "sendInitialEvents=true",
                invalid(
                    "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ),
            ),
            (true, "sendInitialEvents=true&resourceVersionMatch=NotOlderThan", "ok".into()),
            (true, "", "ok".into()),
        ] {
            assert_eq!(message(list(&Query::parse(Some(text)), watch, "")), expected, "{text}");
        }
        let wrong = list(&Query::parse(Some("fieldSelector=metadata.name%3Db")), true, "a");
        assert_eq!(message(wrong), "400 fieldSelector metadata.name doesn't match requested name");
    }

    #[test]
    fn delete_options_are_refused_with_upstreams_words() {
        for (text, expected) in [
            ("gracePeriodSeconds=5&propagationPolicy=Orphan&uid=u&resourceVersion=7&dryRun=All", "ok"),
            (
                "propagationPolicy=Maybe",
                "422 DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"Maybe\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"",
            ),
            (
                "propagationPolicy=Orphan&orphanDependents=true",
                "422 DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Invalid value: \"Orphan\": orphanDependents and deletionPropagation cannot be both set",
            ),
            (
                "dryRun=Some",
                "422 DeleteOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Some\"]: supported values: \"All\"",
            ),
        ] {
            let options = delete_from_query(&Query::parse(Some(text))).unwrap();
            assert_eq!(message(delete(&options)), expected, "{text}");
        }
    }

    #[test]
    fn write_options_are_refused_with_upstreams_words() {
        for (verb, patch, text, expected) in [
            ("create", None, "dryRun=All&fieldValidation=Strict&fieldManager=me", "ok"),
            (
                "create",
                None,
                "fieldValidation=No",
                "422 CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"No\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
            ),
            (
                "patch",
                Some(PatchKind::Merge),
                "force=true",
                "422 PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
            ),
            (
                "patch",
                Some(PatchKind::Apply),
                "",
                "422 PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
            ),
            (
                "update",
                None,
                "fieldManager=a%0Ab",
                "422 UpdateOptions.meta.k8s.io \"\" is invalid: fieldManager: Invalid value: \"a\\nb\": invalid character U+000A (at position 1)",
            ),
        ] {
            assert_eq!(message(write(&Query::parse(Some(text)), verb, patch)), expected, "{text}");
        }
    }
}
