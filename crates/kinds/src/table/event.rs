//! Event, in both API groups: `v1` objects are stored, `events.k8s.io/v1` is a view of them with other field names.

use corten_tree::Tree;

use crate::Errors;
use crate::spec::{Fact, Hooks, KindSpec, Version};
use crate::table::id;
use crate::validate::{Spot, names};
use crate::{Column, Of, RowContext, TextOr, column, print, wide};

/// `v1 Event`
pub(crate) const EVENT: KindSpec = KindSpec {
    kind: "Event",
    plural: "events",
    short: &["ev"],
    create_on_update: true,
    name_check: names::path_segment,
    columns: COLUMNS,
    facts: FACTS,
    counting: crate::quota::Counting::Nothing,
    served_by: Some("api"),
    // `--event-ttl`
    ttl_seconds: Some(3600),
    hooks: Hooks { validate: Some(validate), ..Hooks::NONE },
    ..KindSpec::NAMESPACED
};

/// `events.k8s.io/v1 Event`
pub(crate) const EVENTS_EVENT: KindSpec = KindSpec {
    group: "events.k8s.io",
    versions: &[Version::converted("v1", from_storage, to_storage)],
    stored_as: Some(id::EVENT),
    label_aliases: &[
        ("regarding.kind", "involvedObject.kind"),
        ("regarding.namespace", "involvedObject.namespace"),
        ("regarding.name", "involvedObject.name"),
        ("regarding.uid", "involvedObject.uid"),
        ("regarding.apiVersion", "involvedObject.apiVersion"),
        ("regarding.resourceVersion", "involvedObject.resourceVersion"),
        ("regarding.fieldPath", "involvedObject.fieldPath"),
        ("reportingController", "reportingComponent"),
    ],
    name_check: names::dns_subdomain,
    hooks: Hooks {
        validate: Some(validate_of_events),
        validate_create: Some(validate_create),
        validate_update: Some(validate_update),
        ..Hooks::NONE
    },
    ..EVENT
};

/// `ToSelectableFields` (`pkg/registry/core/event/strategy.go`).
const FACTS: &[Fact] = &[
    Fact::selectable("involvedObject.kind"),
    Fact::selectable("involvedObject.namespace"),
    Fact::selectable("involvedObject.name"),
    Fact::selectable("involvedObject.uid"),
    Fact::selectable("involvedObject.apiVersion"),
    Fact::selectable("involvedObject.resourceVersion"),
    Fact::selectable("involvedObject.fieldPath"),
    Fact::selectable("reason"),
    Fact::selectable("reportingComponent"),
    Fact::selectable("source.component|reportingComponent").label("source"),
    Fact::selectable("type"),
];

const COLUMNS: &[Column] = &[
    column("Last Seen", &Of(|o, c| Tree::from(last_seen(o, c)))),
    column("Type", &TextOr("type", "")),
    column("Reason", &TextOr("reason", "")),
    column("Object", &Of(target)),
    wide("Subobject", &TextOr("involvedObject.fieldPath", "")),
    wide("Source", &Of(source)),
    column("Message", &Of(|o, _| Tree::from(o.str_at("message").trim()))),
    wide("First Seen", &Of(|o, c| Tree::from(first_seen(o, c)))),
    wide("Count", &Of(count)),
    Column { priority: 1, ..Column::NAME },
];

fn first_seen(event: &Tree, context: &RowContext) -> String {
    let path = if event.path("firstTimestamp").is_some() { "firstTimestamp" } else { "eventTime" };
    print::since(event, path, context)
}

fn last_seen(event: &Tree, context: &RowContext) -> String {
    if event.path("series").is_some() {
        print::since(event, "series.lastObservedTime", context)
    } else if event.path("lastTimestamp").is_some() {
        print::since(event, "lastTimestamp", context)
    } else {
        first_seen(event, context)
    }
}

fn count(event: &Tree, _: &RowContext) -> Tree {
    match event.path("series") {
        Some(series) => Tree::Int(series.i64_at("count").unwrap_or_default()),
        None => Tree::Int(event.i64_at("count").filter(|c| *c != 0).unwrap_or(1)),
    }
}

fn target(event: &Tree, _: &RowContext) -> Tree {
    let kind = event.str_at("involvedObject.kind").to_lowercase();
    Tree::from(match event.str_at("involvedObject.name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    })
}

fn source(event: &Tree, _: &RowContext) -> Tree {
    let first =
        |a: &str, b: &str| if event.str_at(a).is_empty() { event.str_at(b) } else { event.str_at(a) }.to_owned();
    let component = first("source.component", "reportingComponent");
    let instance = first("source.host", "reportingInstance");
    Tree::from(if instance.is_empty() { component } else { format!("{component}, {instance}") })
}

/// Fields of `events.k8s.io/v1` (left) and `v1` (right) that mean the same.
const RENAMED: &[(&str, &str)] = &[
    ("reportingController", "reportingComponent"),
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn from_storage(event: &mut Tree) {
    for (new, old) in RENAMED {
        rename(event, old, new);
    }
}

fn to_storage(event: &mut Tree) {
    for (new, old) in RENAMED {
        rename(event, new, old);
    }
    // Required fields of v1 that events.k8s.io leaves out.
    event.set_default("source", Tree::map());
    for time in ["firstTimestamp", "lastTimestamp"] {
        if event.get(time).is_none() {
            event.insert(time, Tree::Null);
        }
    }
}

fn rename(event: &mut Tree, from: &str, to: &'static str) {
    if let Some(value) = event.remove(from) {
        event.insert(to, value);
    }
}

/// The longest reporting instance, action and reason, and the longest message.
const TEXT_BYTES_MAX: usize = 128;
const MESSAGE_BYTES_MAX: usize = 1024;

fn validate(event: &Tree, errors: &mut Errors) {
    rules_of_all(event, "reportingComponent", errors);
}

/// What every event keeps to; `controller` is what the version asked for calls the reporter. (`legacyValidateEvent`)
fn rules_of_all(event: &Tree, controller: &str, errors: &mut Errors) {
    let about = Spot::of(event, "involvedObject");
    let (own, namespace) = (event.str_at("metadata.namespace"), about.str("namespace"));
    let elsewhere = "does not match event.namespace";
    let root = Spot::of(event, "");
    if event.str_at("eventTime").is_empty() {
        // An event stands in the namespace of what it is about.
        if namespace.is_empty() {
            if !matches!(own, "" | "default") {
                about.invalid_as("namespace", "", elsewhere, errors);
            }
        } else if namespace != own {
            about.invalid("namespace", elsewhere, errors);
        }
        return;
    }
    if namespace.is_empty() && !matches!(own, "default" | "kube-system") {
        about.invalid_as("namespace", "", elsewhere, errors);
    }
    let at = |path: &str| Spot::at(Spot::of(event, path).tree, corten_tree::FieldPath::of(path));
    let reporter = event.str_at("reportingComponent");
    let place = Spot::at(root.tree, corten_tree::FieldPath::of(controller));
    if reporter.is_empty() {
        place.required("", "", errors);
    }
    for message in names::label_key(reporter) {
        place.invalid_as("", reporter, message, errors);
    }
    for (field, max, needed) in [
        ("reportingInstance", TEXT_BYTES_MAX, true),
        ("action", TEXT_BYTES_MAX, true),
        ("reason", TEXT_BYTES_MAX, true),
        ("message", MESSAGE_BYTES_MAX, false),
    ] {
        let spot = at(field);
        if needed && spot.str("").is_empty() {
            spot.required("", "", errors);
        }
        if spot.str("").len() > max {
            spot.invalid_as("", "", format!("can have at most {max} characters"), errors);
        }
    }
}

fn validate_of_events(event: &Tree, errors: &mut Errors) {
    rules_of_all(event, "reportingController", errors);
}

fn series(event: &Tree, errors: &mut Errors) {
    let series = Spot::of(event, "series");
    if !series.has("") {
        return;
    }
    if series.int("count").unwrap_or_default() < 2 {
        series.invalid_as("count", "", "should be at least 2", errors);
    }
    if series.str("lastObservedTime").is_empty() {
        series.required("lastObservedTime", "", errors);
    }
}

/// What a new event of events.k8s.io keeps to besides. (`ValidateEventCreate`)
fn validate_create(event: &Tree, errors: &mut Errors) {
    series(event, errors);
    let at = |path: &str| Spot::of(event, path);
    if at("eventTime").str("").is_empty() {
        at("eventTime").required("", "", errors);
    }
    let kind = event.str_at("type");
    if !matches!(kind, "Normal" | "Warning") {
        at("type").invalid_as("", "", format!("has invalid value: {kind}"), errors);
    }
    let unset = [
        ("firstTimestamp", event.str_at("firstTimestamp").is_empty()),
        ("lastTimestamp", event.str_at("lastTimestamp").is_empty()),
        ("count", event.i64_at("count").unwrap_or_default() == 0),
        ("source", event.str_at("source.component").is_empty() && event.str_at("source.host").is_empty()),
    ];
    for (field, _) in unset.iter().filter(|(_, unset)| !unset) {
        at(field).invalid_as("", "", "needs to be unset", errors);
    }
}

/// What stays of an event of events.k8s.io. (`ValidateEventUpdate`, which looks at the reason twice)
fn validate_update(new: &Tree, old: &Tree, errors: &mut Errors) {
    if Spot::of(new, "series").tree != Spot::of(old, "series").tree {
        series(new, errors);
    }
    for field in [
        "involvedObject",
        "reason",
        "message",
        "source",
        "firstTimestamp",
        "lastTimestamp",
        "count",
        "reason",
        "type",
        "eventTime",
        "action",
        "related",
        "reportingController",
        "reportingInstance",
    ] {
        let path = if field == "reportingController" { "reportingComponent" } else { field };
        let at = |tree| Spot::at(Spot::of(tree, path).tree, corten_tree::FieldPath::of(field));
        at(new).immutable(&at(old), "", errors);
    }
}
