//! The objects that every cluster has, and how they are kept as they should be
//! (`apiserver/pkg/apis/flowcontrol/bootstrap/default.go`, `pkg/registry/flowcontrol/ensurer`).

use corten_kinds::table::flow_mandatory;
use corten_tree::{Tree, tree};

use crate::name;

/// The API version of both kinds.
pub const API_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";
/// Whether the server keeps an object's spec as its own is.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
/// Who writes the objects.
pub const PRODUCER: &str = "api-priority-and-fairness-config-producer-v1";
/// Who writes the schemas' conditions.
pub const CONSUMER: &str = "api-priority-and-fairness-config-consumer-v1";

/// Name, shares, lendable percent; queues, hand size and length limit.
type Level = (&'static str, i64, i64, (i64, i64, i64));

const SUGGESTED_LEVELS: &[Level] = &[
    ("system", 30, 33, (64, 6, 50)),
    ("node-high", 40, 25, (64, 6, 50)),
    ("leader-election", 10, 0, (16, 4, 50)),
    ("workload-high", 40, 50, (128, 6, 50)),
    ("workload-low", 100, 90, (128, 6, 50)),
    ("global-default", 20, 50, (128, 6, 50)),
];

/// A schema of the bootstrap set.
struct Schema {
    name: &'static str,
    level: &'static str,
    precedence: i64,
    method: &'static str,
    /// `user:NAME`, `group:NAME`, or `accounts:NAMESPACE` for all service accounts of one.
    subjects: &'static [&'static str],
    resources: &'static [Resources],
    /// Verb and paths.
    paths: Option<(&'static str, &'static [&'static str])>,
}

struct Resources {
    verbs: &'static [&'static str],
    group: &'static str,
    resources: &'static [&'static str],
    cluster: bool,
}

const ALL: &[Resources] = &[Resources { verbs: &["*"], group: "*", resources: &["*"], cluster: true }];
const ALL_PATHS: Option<(&str, &[&str])> = Some(("*", &["*"]));
const EVERYBODY: &[&str] = &["group:system:unauthenticated", "group:system:authenticated"];
const NODES: &[&str] = &["group:system:nodes"];

const SUGGESTED_SCHEMAS: &[Schema] = &[
    Schema {
        name: "probes",
        level: name::EXEMPT,
        precedence: 2,
        method: "",
        subjects: EVERYBODY,
        resources: &[],
        paths: Some(("get", &["/healthz", "/readyz", "/livez"])),
    },
    Schema {
        name: "system-leader-election",
        level: "leader-election",
        precedence: 100,
        method: "ByUser",
        subjects: &["user:system:kube-controller-manager", "user:system:kube-scheduler", "accounts:kube-system"],
        resources: &[Resources {
            verbs: &["get", "create", "update"],
            group: "coordination.k8s.io",
            resources: &["leases"],
            cluster: false,
        }],
        paths: None,
    },
    Schema {
        name: "system-node-high",
        level: "node-high",
        precedence: 400,
        method: "ByUser",
        subjects: NODES,
        resources: &[
            Resources { verbs: &["*"], group: "", resources: &["nodes", "nodes/status"], cluster: true },
            Resources { verbs: &["*"], group: "coordination.k8s.io", resources: &["leases"], cluster: false },
        ],
        paths: None,
    },
    Schema {
        name: "system-nodes",
        level: "system",
        precedence: 500,
        method: "ByUser",
        subjects: NODES,
        resources: ALL,
        paths: ALL_PATHS,
    },
    Schema {
        name: "kube-controller-manager",
        level: "workload-high",
        precedence: 800,
        method: "ByNamespace",
        subjects: &["user:system:kube-controller-manager"],
        resources: ALL,
        paths: ALL_PATHS,
    },
    Schema {
        name: "kube-scheduler",
        level: "workload-high",
        precedence: 800,
        method: "ByNamespace",
        subjects: &["user:system:kube-scheduler"],
        resources: ALL,
        paths: ALL_PATHS,
    },
    Schema {
        name: "kube-system-service-accounts",
        level: "workload-high",
        precedence: 900,
        method: "ByNamespace",
        subjects: &["accounts:kube-system"],
        resources: ALL,
        paths: ALL_PATHS,
    },
    Schema {
        name: "service-accounts",
        level: "workload-low",
        precedence: 9000,
        method: "ByUser",
        subjects: &["group:system:serviceaccounts"],
        resources: ALL,
        paths: ALL_PATHS,
    },
    Schema {
        name: "global-default",
        level: "global-default",
        precedence: 9900,
        method: "ByUser",
        subjects: EVERYBODY,
        resources: ALL,
        paths: ALL_PATHS,
    },
];

/// An object of the bootstrap set.
pub struct Boot {
    /// As it is written.
    pub object: Tree,
    /// Whether its spec is always enforced.
    pub mandatory: bool,
}

/// All of them, in the order in which they are written: levels before the schemas that name them.
pub fn objects() -> Vec<Boot> {
    let suggested = |object| Boot { object, mandatory: false };
    let mandatory = |object| Boot { object, mandatory: true };
    let mut all: Vec<Boot> = SUGGESTED_LEVELS.iter().map(level).map(suggested).collect();
    all.extend(mandatory_levels().map(mandatory));
    all.extend(SUGGESTED_SCHEMAS.iter().map(schema).map(suggested));
    all.extend(mandatory_schemas().map(mandatory));
    all
}

/// The levels without which nothing works: they are imagined when they are not there.
pub fn mandatory_levels() -> [Tree; 2] {
    [name::EXEMPT, name::CATCH_ALL]
        .map(|name| object("PriorityLevelConfiguration", name, flow_mandatory::level_spec(name).unwrap_or_default()))
}

/// The schemas without which nothing works.
pub fn mandatory_schemas() -> [Tree; 2] {
    [name::EXEMPT, name::CATCH_ALL]
        .map(|name| object("FlowSchema", name, flow_mandatory::schema_spec(name).unwrap_or_default()))
}

/// What an object of the bootstrap set must be made to; `None` if it is as it should be (`ReviseIfNeeded`).
pub fn revised(current: &Tree, boot: &Boot) -> Option<Tree> {
    let value = auto_update(current);
    let untouched = || current.i64_at("metadata.generation") == Some(1);
    let update = boot.mandatory || value.unwrap_or_else(untouched);
    let annotate = value != Some(update);
    let changed = update && !same_spec(current, &boot.object);
    if !annotate && !changed {
        return None;
    }
    let mut revised = current.clone();
    if changed {
        revised.insert("spec", boot.object.get("spec").cloned().unwrap_or_default());
    }
    if annotate {
        let annotations = revised.make_map_at("metadata.annotations");
        annotations.insert(AUTO_UPDATE, if update { "true" } else { "false" });
    }
    Some(revised)
}

/// Whether an object that is not of the set was so once, and nobody has taken it over (`RemoveUnwantedObjects`).
pub fn is_left_over(object: &Tree, boots: &[Boot]) -> bool {
    let same = |boot: &Boot| {
        boot.object.str_at("kind") == object.str_at("kind")
            && boot.object.str_at("metadata.name") == object.str_at("metadata.name")
    };
    auto_update(object) == Some(true) && !boots.iter().any(same)
}

/// What the annotation says, in the words of Go's `strconv.ParseBool`.
fn auto_update(object: &Tree) -> Option<bool> {
    match object.at(&["metadata", "annotations", AUTO_UPDATE])?.as_str()? {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Whether the specs are equal; the seats of who is never limited are the administrator's to choose (`plcSpecEqualish`).
fn same_spec(current: &Tree, boot: &Tree) -> bool {
    let mut wanted = boot.get("spec").cloned().unwrap_or_default();
    if let Some(exempt) = wanted.get_mut("exempt") {
        let Some(chosen) = current.path("spec.exempt").filter(|t| !t.is_null()) else { return false };
        *exempt = chosen.clone();
    }
    current.get("spec").unwrap_or(&Tree::Null).semantically_equal(&wanted)
}

fn object(kind: &str, name: &str, spec: Tree) -> Tree {
    tree!({"apiVersion": API_VERSION, "kind": kind,
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec})
}

fn level((name, shares, lendable, (queues, hand, length)): &Level) -> Tree {
    let queuing = tree!({"queues": (*queues), "handSize": (*hand), "queueLengthLimit": (*length)});
    let limited = tree!({"nominalConcurrencyShares": (*shares), "lendablePercent": (*lendable),
        "limitResponse": {"type": "Queue", "queuing": queuing}});
    object("PriorityLevelConfiguration", name, tree!({"type": "Limited", "limited": limited}))
}

fn schema(row: &Schema) -> Tree {
    let subjects: Vec<Tree> = row.subjects.iter().map(|subject| self::subject(subject)).collect();
    let mut rule = tree!({"subjects": subjects});
    if !row.resources.is_empty() {
        let resources: Vec<Tree> = row.resources.iter().map(resources).collect();
        rule.insert("resourceRules", resources);
    }
    if let Some((verb, paths)) = row.paths {
        rule.insert("nonResourceRules", tree!([{"verbs": [verb], "nonResourceURLs": (paths.to_vec())}]));
    }
    let mut spec = tree!({"priorityLevelConfiguration": {"name": (row.level)}, "matchingPrecedence": (row.precedence)});
    if !row.method.is_empty() {
        spec.insert("distinguisherMethod", tree!({"type": (row.method)}));
    }
    spec.insert("rules", tree!([rule]));
    object("FlowSchema", row.name, spec)
}

fn subject(text: &str) -> Tree {
    match text.split_once(':') {
        Some(("user", name)) => tree!({"kind": "User", "user": {"name": name}}),
        Some(("accounts", namespace)) => {
            tree!({"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": "*"}})
        }
        Some((_, name)) => tree!({"kind": "Group", "group": {"name": name}}),
        None => Tree::Null,
    }
}

fn resources(rule: &Resources) -> Tree {
    let mut out = tree!({"verbs": (rule.verbs.to_vec()), "apiGroups": [(rule.group)],
        "resources": (rule.resources.to_vec())});
    if rule.cluster {
        out.insert("clusterScope", true);
    }
    out.insert("namespaces", tree!(["*"]));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Digest, FlowSchema, PriorityLevel, What};

    fn boot(name: &str, kind: &str) -> Boot {
        let found = |b: &Boot| b.object.str_at("metadata.name") == name && b.object.str_at("kind") == kind;
        objects().into_iter().find(found).unwrap()
    }

    #[test]
    fn bootstrap_flow_schemas_take_requests_to_their_levels() {
        let mut schemas: Vec<FlowSchema> = objects()
            .iter()
            .filter(|b| b.object.str_at("kind") == "FlowSchema")
            .map(|b| FlowSchema::read(&b.object))
            .collect();
        schemas.sort_by(|a, b| a.order().cmp(&b.order()));
        let levels: Vec<String> =
            objects().iter().filter_map(|b| PriorityLevel::read(&b.object)).map(|l| l.name).collect();
        assert_eq!((schemas.len(), levels.len()), (11, 8));
        assert!(schemas.iter().all(|schema| levels.contains(&schema.level)));
        let pods = What::Resource { group: "", resource: "pods", subresource: "", namespace: "default" };
        let node = What::Resource { group: "", resource: "nodes", subresource: "status", namespace: "" };
        let lease = What::Resource {
            group: "coordination.k8s.io",
            resource: "leases",
            subresource: "",
            namespace: "kube-system",
        };
        for (user, groups, verb, what, expected) in [
            ("admin", &["system:masters", "system:authenticated"][..], "list", pods, "exempt"),
            ("anyone", &["system:authenticated"], "list", pods, "global-default"),
            ("system:anonymous", &["system:unauthenticated"], "get", What::Path("/livez"), "probes"),
            ("system:anonymous", &["system:unauthenticated"], "get", What::Path("/version"), "global-default"),
            ("system:node:n", &["system:nodes", "system:authenticated"], "patch", node, "system-node-high"),
            ("system:node:n", &["system:nodes", "system:authenticated"], "update", lease, "system-node-high"),
            ("system:node:n", &["system:nodes", "system:authenticated"], "list", pods, "system-nodes"),
            ("system:kube-scheduler", &["system:authenticated"], "update", lease, "system-leader-election"),
            ("system:kube-scheduler", &["system:authenticated"], "watch", lease, "kube-scheduler"),
            (
                "system:serviceaccount:kube-system:c",
                &["system:serviceaccounts", "system:authenticated"],
                "list",
                pods,
                "kube-system-service-accounts",
            ),
            (
                "system:serviceaccount:a:b",
                &["system:serviceaccounts", "system:authenticated"],
                "list",
                pods,
                "service-accounts",
            ),
        ] {
            let groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
            let digest = Digest { user, groups: &groups, verb, what };
            let found = schemas.iter().find(|schema| schema.matches(&digest)).map(|schema| schema.name.as_str());
            assert_eq!(found, Some(expected), "{user} {verb}");
        }
    }

    #[test]
    fn autoupdate_spec_decides_who_keeps_a_suggested_object() {
        let boot = boot("system", "PriorityLevelConfiguration");
        let stored = |shares: i64, generation: i64, annotation: Option<&str>| {
            let mut object = boot.object.clone();
            object.set("metadata.generation", generation);
            object.set("spec.limited.nominalConcurrencyShares", shares);
            match annotation {
                Some(value) => object.make_map_at("metadata.annotations").insert(AUTO_UPDATE, value),
                None => object.make_map_at("metadata.annotations").remove(AUTO_UPDATE),
            };
            object
        };
        let shown = |object: Tree| {
            revised(&object, &boot).map(|revised| {
                let annotation =
                    revised.at(&["metadata", "annotations", AUTO_UPDATE]).and_then(Tree::as_str).map(str::to_owned);
                (revised.i64_at("spec.limited.nominalConcurrencyShares").unwrap(), annotation.unwrap())
            })
        };
        let made = |shares: i64, annotation: &str| Some((shares, annotation.to_owned()));
        assert_eq!(shown(stored(30, 1, Some("true"))), None);
        assert_eq!(shown(stored(7, 2, Some("true"))), made(30, "true"));
        assert_eq!(shown(stored(7, 2, Some("false"))), None);
        // Without the annotation: whoever never changed the spec gets the new one.
        assert_eq!(shown(stored(7, 1, None)), made(30, "true"));
        assert_eq!(shown(stored(7, 2, None)), made(7, "false"));
        assert_eq!(shown(stored(7, 2, Some("maybe"))), made(7, "false"));
    }

    #[test]
    fn autoupdate_spec_does_not_matter_for_mandatory_objects() {
        let schema = boot("catch-all", "FlowSchema");
        let mut changed = schema.object.clone();
        changed.make_map_at("metadata.annotations").insert(AUTO_UPDATE, "false");
        changed.set("spec.matchingPrecedence", 9);
        let revised = revised(&changed, &schema).unwrap();
        assert_eq!(revised.i64_at("spec.matchingPrecedence"), Some(10000));
        let exempt = boot("exempt", "PriorityLevelConfiguration");
        let mut chosen = exempt.object.clone();
        chosen.set("spec.exempt.nominalConcurrencyShares", 9);
        assert!(super::revised(&chosen, &exempt).is_none());
    }

    #[test]
    fn autoupdate_spec_marks_what_an_older_set_left() {
        let boots = objects();
        let mut old = boot("system", "PriorityLevelConfiguration").object;
        assert!(!is_left_over(&old, &boots));
        old.set("metadata.name", "of-an-older-version");
        assert!(is_left_over(&old, &boots));
        old.make_map_at("metadata.annotations").insert(AUTO_UPDATE, "false");
        assert!(!is_left_over(&old, &boots));
    }
}
