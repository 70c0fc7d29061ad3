//! Events and their two forms: JSON, and one line of text (`apiserver/pkg/apis/audit/v1/types.go`, `apiserver/pkg/audit/format.go`).

use std::collections::BTreeMap;

use corten_auth::User;
use corten_base::Timestamp;
use corten_object::time;
use corten_tree::{Map, Tree, tree};

use crate::policy::Level;

/// When in the course of a request an event is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    /// The request has come, and nothing was done yet.
    #[default]
    RequestReceived,
    /// The head of the answer was sent; only of requests that are made to last.
    ResponseStarted,
    /// The answer is complete.
    ResponseComplete,
    /// The server has failed in it.
    Panic,
}

impl Stage {
    /// All, in order.
    pub const ALL: [Stage; 4] = [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic];

    /// The text in policies and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

/// The object that a request is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectRef {
    /// The resource's plural.
    pub resource: String,
    /// The namespace, or empty.
    pub namespace: String,
    /// The name, or empty.
    pub name: String,
    /// The uid in the request's object.
    pub uid: String,
    /// The API group.
    pub group: String,
    /// The API version.
    pub version: String,
    /// The resourceVersion in the request's object.
    pub resource_version: String,
    /// The subresource, or empty.
    pub subresource: String,
}

/// What is known of a request at a stage.
#[derive(Debug, Clone, Default)]
pub struct Event {
    /// How much is recorded.
    pub level: Level,
    /// The request's id: what it said itself, else a random one.
    pub id: String,
    /// When in the course of the request.
    pub stage: Stage,
    /// Path and query.
    pub uri: String,
    /// The API's verb, or the HTTP method in lower case.
    pub verb: String,
    /// Who asks.
    pub user: User,
    /// As whom.
    pub impersonated: Option<User>,
    /// What allowed that, if it was constrained.
    pub constraint: String,
    /// Where the request came from, the last one last.
    pub source_ips: Vec<String>,
    /// The client's name for itself.
    pub user_agent: String,
    /// What the request is about.
    pub object: Option<ObjectRef>,
    /// The answer's Status, at least its code.
    pub status: Option<Tree>,
    /// The request's object.
    pub request: Option<Tree>,
    /// The answer's object.
    pub response: Option<Tree>,
    /// When the request came.
    pub received: Timestamp,
    /// When the stage was reached.
    pub reached: Timestamp,
    /// What others said of it.
    pub annotations: BTreeMap<String, String>,
}

fn texts(list: &[String]) -> Tree {
    Tree::List(list.iter().map(Tree::from).collect())
}

/// `UserInfo` as Go writes it: what is empty is left out.
fn user_info(user: &User) -> Tree {
    let mut out = Map::new();
    for (key, text) in [("username", &user.name), ("uid", &user.uid)] {
        if !text.is_empty() {
            out.insert(key, text.as_str());
        }
    }
    if !user.groups.is_empty() {
        out.insert("groups", texts(&user.groups));
    }
    if !user.extra.is_empty() {
        let extra: Map = user.extra.iter().map(|(k, v)| (k.clone().into(), texts(v))).collect();
        out.insert("extra", Tree::Map(extra));
    }
    Tree::Map(out)
}

impl ObjectRef {
    fn to_tree(&self) -> Tree {
        let fields = [
            ("resource", &self.resource),
            ("namespace", &self.namespace),
            ("name", &self.name),
            ("uid", &self.uid),
            ("apiGroup", &self.group),
            ("apiVersion", &self.version),
            ("resourceVersion", &self.resource_version),
            ("subresource", &self.subresource),
        ];
        let filled = fields.into_iter().filter(|(_, text)| !text.is_empty());
        Tree::Map(filled.map(|(key, text)| (key.into(), text.as_str().into())).collect())
    }
}

impl Event {
    /// The event without `kind` and `apiVersion`, in the order of upstream's type.
    pub fn to_tree(&self) -> Tree {
        let mut out = tree!({"level": (self.level.as_str()), "auditID": (self.id.as_str()), "stage": (self.stage.as_str()),
            "requestURI": (self.uri.as_str()), "verb": (self.verb.as_str()), "user": (user_info(&self.user))});
        if let Some(user) = &self.impersonated {
            out.insert("impersonatedUser", user_info(user));
        }
        if !self.constraint.is_empty() {
            out.insert("authenticationMetadata", tree!({"impersonationConstraint": (self.constraint.as_str())}));
        }
        if !self.source_ips.is_empty() {
            out.insert("sourceIPs", texts(&self.source_ips));
        }
        if !self.user_agent.is_empty() {
            out.insert("userAgent", self.user_agent.as_str());
        }
        if let Some(object) = &self.object {
            out.insert("objectRef", object.to_tree());
        }
        for (key, tree) in
            [("responseStatus", &self.status), ("requestObject", &self.request), ("responseObject", &self.response)]
        {
            if let Some(tree) = tree {
                out.insert(key, tree.clone());
            }
        }
        out.insert("requestReceivedTimestamp", time::format_micro(self.received));
        out.insert("stageTimestamp", time::format_micro(self.reached));
        if !self.annotations.is_empty() {
            let all: Map = self.annotations.iter().map(|(k, v)| (k.clone().into(), v.as_str().into())).collect();
            out.insert("annotations", Tree::Map(all));
        }
        out
    }

    /// The event on one line of text.
    pub fn to_line(&self) -> String {
        let quoted = |list: &[String]| list.iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().join(",");
        let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
        let groups = match self.user.name.is_empty() {
            true => String::new(),
            false => quoted(&self.user.groups),
        };
        let (asked_as, as_groups) = match &self.impersonated {
            None => ("<self>".to_owned(), "<lookup>".to_owned()),
            Some(user) => (user.name.clone(), or(&quoted(&user.groups), "<lookup>")),
        };
        let namespace = self.object.as_ref().map_or("", |o| o.namespace.as_str());
        let code = self.status.as_ref().map(|s| s.i64_at("code").unwrap_or(0).to_string());
        format!(
            "{} AUDIT: id={:?} stage={:?} ip={:?} method={:?} user={:?} groups={:?} as={:?} asgroups={:?} user-agent={:?} \
             namespace={:?} uri={:?} response=\"{}\"",
            self.received,
            self.id,
            self.stage.as_str(),
            or(self.source_ips.first().map_or("", String::as_str), "<unknown>"),
            self.verb,
            or(&self.user.name, "<none>"),
            or(&groups, "<none>"),
            asked_as,
            as_groups,
            self.user_agent,
            or(namespace, "<none>"),
            self.uri,
            code.unwrap_or_else(|| "<deferred>".into()),
        )
    }

    /// The event without the objects, and a word about that (`plugin/pkg/audit/truncate`).
    pub fn without_objects(&self) -> Event {
        let mut event = Event { request: None, response: None, ..self.clone() };
        event.annotations.insert("audit.k8s.io/truncated".into(), "true".into());
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        let at = |micros| Timestamp::from_microsecond(micros).unwrap();
        Event {
            level: Level::Request,
            id: "1-2".into(),
            stage: Stage::ResponseComplete,
            uri: "/api/v1/namespaces/n/pods/p?a=b".into(),
            verb: "get".into(),
            user: User::new("u", &["g"]),
            impersonated: Some(User::new("v", &[])),
            source_ips: vec!["10.0.0.1".into()],
            user_agent: "k".into(),
            object: Some(ObjectRef {
                resource: "pods".into(),
                namespace: "n".into(),
                name: "p".into(),
                version: "v1".into(),
                ..ObjectRef::default()
            }),
            status: Some(tree!({"metadata": {}, "code": 200})),
            request: Some(tree!({"a": 1})),
            received: at(1_000_000_000_000_001),
            reached: at(1_000_000_000_000_002),
            annotations: [("k".to_owned(), "v".to_owned())].into(),
            ..Event::default()
        }
    }

    #[test]
    fn audit_events_are_written_as_upstream_writes_them() {
        assert_eq!(
            event().to_tree().to_json_string(),
            "{\"level\":\"Request\",\"auditID\":\"1-2\",\"stage\":\"ResponseComplete\",\"requestURI\":\"/api/v1/namespaces/n/pods/p?a=b\",\
             \"verb\":\"get\",\"user\":{\"username\":\"u\",\"groups\":[\"g\",\"system:authenticated\"]},\"impersonatedUser\":{\"username\":\"v\",\
             \"groups\":[\"system:authenticated\"]},\"sourceIPs\":[\"10.0.0.1\"],\"userAgent\":\"k\",\"objectRef\":{\"resource\":\"pods\",\
             \"namespace\":\"n\",\"name\":\"p\",\"apiVersion\":\"v1\"},\"responseStatus\":{\"metadata\":{},\"code\":200},\"requestObject\":{\"a\":1},\
             \"requestReceivedTimestamp\":\"2001-09-09T01:46:40.000001Z\",\"stageTimestamp\":\"2001-09-09T01:46:40.000002Z\",\
             \"annotations\":{\"k\":\"v\"}}"
        );
    }

    #[test]
    fn legacy_audit_lines_are_those_of_upstream() {
        assert_eq!(
            event().to_line(),
            "2001-09-09T01:46:40.000001Z AUDIT: id=\"1-2\" stage=\"ResponseComplete\" ip=\"10.0.0.1\" method=\"get\" user=\"u\" \
             groups=\"\\\"g\\\",\\\"system:authenticated\\\"\" as=\"v\" asgroups=\"\\\"system:authenticated\\\"\" user-agent=\"k\" \
             namespace=\"n\" uri=\"/api/v1/namespaces/n/pods/p?a=b\" response=\"200\""
        );
        let bare = Event { user: User::default(), impersonated: None, object: None, status: None, ..event() };
        assert!(bare.to_line().contains("user=\"<none>\" groups=\"<none>\" as=\"<self>\" asgroups=\"<lookup>\""));
        assert!(bare.to_line().ends_with("response=\"<deferred>\""));
    }
}
