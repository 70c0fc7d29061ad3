//! Event, in both API groups: `v1` objects are stored, `events.k8s.io/v1` is a view of them with other field names.

use corten_tree::Tree;

use crate::Errors;
use crate::spec::{Fact, Hooks, KindSpec, Version};
use crate::table::id;
use crate::validate::Spot;
use crate::{Column, Of, RowContext, TextOr, column, print, wide};

/// `v1 Event`
pub(crate) const EVENT: KindSpec = KindSpec {
    kind: "Event",
    plural: "events",
    short: &["ev"],
    create_on_update: true,
    columns: COLUMNS,
    facts: FACTS,
    counting: crate::quota::Counting::Nothing,
    served_by: Some("api"),
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

/// An event stands in the namespace of what it is about. (`legacyValidateEvent`)
fn validate(event: &Tree, errors: &mut Errors) {
    let about = Spot::of(event, "involvedObject");
    let (own, namespace) = (event.str_at("metadata.namespace"), about.str("namespace"));
    if namespace.is_empty() {
        if !matches!(own, "" | "default") {
            about.invalid_as("namespace", "", "does not match event.namespace", errors);
        }
    } else if namespace != own {
        about.invalid("namespace", "does not match event.namespace", errors);
    }
}
