//! One write of a sequence.

use std::fmt;

use anyhow::Result;
use bytes::Bytes;
use hyper::Method;
use serde_json::{Map, Value, json};

use super::Subject;
use super::space::{Dice, Extent, roll};
use crate::ask::Asker;
use crate::outcome::Answer;

const APPLIERS: &[&str] = &["a", "b", "kubectl"];
const UPDATERS: &[&str] = &["u", "v", "w"];
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A write. What depends on the state of the object is an edit of what the server itself has.
pub(super) struct Step {
    method: Method,
    path: String,
    content_type: &'static str,
    body: Body,
}

enum Body {
    Fixed(Value),
    /// The object as it is at a path, changed.
    Edited(String, Vec<Edit>),
}

enum Edit {
    /// As a merge patch does.
    Merge(Value),
    /// Takes out what is at a pointer.
    Remove(String),
    /// Sets the managed fields.
    Fields(Value),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.method, self.path, self.content_type)?;
        match &self.body {
            Body::Fixed(body) => write!(f, " {body}"),
            Body::Edited(_, edits) => {
                for edit in edits {
                    match edit {
                        Edit::Merge(value) => write!(f, " merge {value}")?,
                        Edit::Remove(pointer) => write!(f, " remove {pointer}")?,
                        Edit::Fields(value) => write!(f, " managedFields {value}")?,
                    }
                }
                Ok(())
            }
        }
    }
}

/// Where and as what a step writes.
struct Place {
    path: String,
    space: Value,
}

impl Step {
    /// A step to follow a state.
    pub fn roll(subject: &Subject, current: Option<&Value>, dice: &mut Dice) -> Step {
        let whole = current.is_none();
        let mut place = Place { path: subject.path.clone(), space: subject.space.clone() };
        if !subject.versions.is_empty() && dice.chance(25) {
            let (version, space) = dice.pick(&subject.versions);
            place = Place { path: at_version(&subject.path, version), space: space.clone() };
        }
        let mut subresource = "";
        if !whole && !subject.subresources.is_empty() && dice.chance(30) {
            subresource = dice.pick(&subject.subresources).as_str();
        }
        if subresource == "scale" {
            return scale(&place, dice);
        }
        let at = match subresource {
            "" => place.path.clone(),
            sub => format!("{}/{sub}", place.path),
        };
        let extent = Extent { whole, percent: *dice.pick(&[25, 50, 75]) };
        let body = roll(&place.space, extent, dice);
        match dice.below(100) {
            0..50 => apply(at, body, whole, dice),
            50..65 if !whole => edit(at, place.path, body, current, dice),
            65..80 if !whole => merge(at, body, dice),
            80..88 if !whole => json_patch(at, current, dice),
            88..94 if !whole => reset(at, place.path, dice),
            _ if whole && dice.chance(40) => create(&place.path, body, dice),
            _ => apply(at, body, whole, dice),
        }
    }

    /// Does it.
    pub async fn put_to(&self, asker: &mut Asker) -> Result<Answer> {
        let body = match &self.body {
            Body::Fixed(body) => body.clone(),
            Body::Edited(path, edits) => {
                let mut body = asker.send(Method::GET, path, "", Bytes::new()).await?.body;
                edits.iter().for_each(|edit| edit.apply(&mut body));
                body
            }
        };
        asker.send(self.method.clone(), &self.path, self.content_type, Bytes::from(body.to_string())).await
    }
}

/// The object as it is.
pub(super) async fn state(asker: &mut Asker, subject: &Subject) -> Result<Answer> {
    asker.send(Method::GET, &subject.path, "", Bytes::new()).await
}

impl Edit {
    fn apply(&self, body: &mut Value) {
        match self {
            Edit::Merge(patch) => merge_into(body, patch),
            Edit::Remove(pointer) => remove(body, pointer),
            Edit::Fields(value) => body["metadata"]["managedFields"] = value.clone(),
        }
    }
}

fn at_version(path: &str, version: &str) -> String {
    let rest: Vec<&str> = path.trim_start_matches("/apis/").splitn(3, '/').collect();
    format!("/apis/{version}/{}", rest.last().copied().unwrap_or_default())
}

fn apply(at: String, body: Value, whole: bool, dice: &mut Dice) -> Step {
    let manager = dice.pick(APPLIERS);
    let force = if dice.chance(if whole { 10 } else { 40 }) { "&force=true" } else { "" };
    Step {
        method: Method::PATCH,
        path: format!("{at}?fieldManager={manager}{force}"),
        content_type: "application/apply-patch+yaml",
        body: Body::Fixed(body),
    }
}

fn create(path: &str, mut body: Value, dice: &mut Dice) -> Step {
    let collection = path.rsplit_once('/').map_or(path, |(collection, _)| collection);
    if dice.chance(50) {
        // As client-side apply leaves it.
        let text = format!("{body}\n");
        body["metadata"]["annotations"][LAST_APPLIED] = Value::from(text);
    }
    let manager = dice.pick(&["kubectl-client-side-apply", "u"]);
    Step {
        method: Method::POST,
        path: format!("{collection}?fieldManager={manager}"),
        content_type: "application/json",
        body: Body::Fixed(body),
    }
}

/// An update of what is there.
fn edit(at: String, object: String, mut body: Value, current: Option<&Value>, dice: &mut Dice) -> Step {
    if let Some(map) = body.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
    }
    let mut edits = vec![Edit::Merge(body)];
    if dice.chance(50)
        && let Some(pointer) = some_pointer(current, dice)
    {
        edits.insert(0, Edit::Remove(pointer));
    }
    let manager = dice.pick(UPDATERS);
    Step {
        method: Method::PUT,
        path: format!("{at}?fieldManager={manager}"),
        content_type: "application/json",
        body: Body::Edited(object, edits),
    }
}

fn merge(at: String, mut body: Value, dice: &mut Dice) -> Step {
    // Members may be taken away.
    if dice.chance(50)
        && let Some(map) = body.as_object_mut()
    {
        let unnamed = dice.chance(5);
        for (_, part) in map.iter_mut().filter(|(key, _)| *key != "metadata" || unnamed) {
            if let Some((_, value)) =
                part.as_object_mut().and_then(|part| part.iter_mut().filter(|(key, _)| *key != "selector").last())
                && dice.chance(50)
            {
                *value = Value::Null;
            }
        }
        for key in ["apiVersion", "kind"] {
            map.remove(key);
        }
    }
    let manager = dice.pick(UPDATERS);
    let content_type = if at.contains("example.com") || dice.chance(50) {
        "application/merge-patch+json"
    } else {
        "application/strategic-merge-patch+json"
    };
    Step { method: Method::PATCH, path: format!("{at}?fieldManager={manager}"), content_type, body: Body::Fixed(body) }
}

fn json_patch(at: String, current: Option<&Value>, dice: &mut Dice) -> Step {
    let mut operations = Vec::new();
    if let Some(pointer) = some_pointer(current, dice) {
        operations.push(json!({"op": "remove", "path": pointer}));
    }
    let (key, value) = (dice.pick(&["z", "y"]), dice.pick(&["1", "2"]));
    operations.push(json!({"op": "add", "path": "/metadata/annotations", "value": {*key: *value}}));
    let manager = dice.pick(UPDATERS);
    Step {
        method: Method::PATCH,
        path: format!("{at}?fieldManager={manager}"),
        content_type: "application/json-patch+json",
        body: Body::Fixed(Value::Array(operations)),
    }
}

/// Changes the managed fields themselves.
fn reset(at: String, object: String, dice: &mut Dice) -> Step {
    let all = [
        json!([]),
        json!([{}]),
        json!(null),
        json!([{"manager": "m", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": {"f:a": {}}}}}]),
        json!([{"manager": "m", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]),
        json!([{"manager": "m", "operation": "Nothing"}]),
    ];
    let fields = dice.pick(&all);
    let mut edits = vec![Edit::Fields(fields.clone())];
    if dice.chance(50) {
        edits.push(Edit::Merge(json!({"metadata": {"labels": {"a": "9"}}})));
    }
    let manager = dice.pick(UPDATERS);
    if dice.chance(30) {
        let body = json!({"metadata": {"managedFields": (fields.clone()), "annotations": {"d": "8"}}});
        return Step {
            method: Method::PATCH,
            path: format!("{at}?fieldManager={manager}"),
            content_type: "application/merge-patch+json",
            body: Body::Fixed(body),
        };
    }
    Step {
        method: Method::PUT,
        path: format!("{at}?fieldManager={manager}"),
        content_type: "application/json",
        body: Body::Edited(object, edits),
    }
}

fn scale(place: &Place, dice: &mut Dice) -> Step {
    let at = format!("{}/scale", place.path);
    let replicas = dice.pick(&[1, 2, 3, 4]);
    let name = place.path.rsplit('/').next().unwrap_or_default();
    match dice.below(3) {
        0 => Step {
            method: Method::PATCH,
            path: format!("{at}?fieldManager={}", dice.pick(UPDATERS)),
            content_type: "application/merge-patch+json",
            body: Body::Fixed(json!({"spec": {"replicas": replicas}})),
        },
        1 => {
            let body = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": name},
                "spec": {"replicas": replicas}});
            apply(at, body, false, dice)
        }
        _ => Step {
            method: Method::PUT,
            path: format!("{at}?fieldManager={}", dice.pick(UPDATERS)),
            content_type: "application/json",
            body: Body::Edited(at, vec![Edit::Merge(json!({"spec": {"replicas": replicas}}))]),
        },
    }
}

fn merge_into(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(target) = target.as_object_mut() else { return };
    for (key, value) in patch {
        match value {
            Value::Null => drop(target.remove(key)),
            value => merge_into(target.entry(key.clone()).or_insert(Value::Null), value),
        }
    }
}

/// A place in the object that a writer may take out.
fn some_pointer(current: Option<&Value>, dice: &mut Dice) -> Option<String> {
    let mut all = Vec::new();
    pointers(current?, "", &mut all);
    all.retain(|pointer| {
        ["/spec/", "/data/", "/metadata/labels", "/metadata/annotations", "/status/", "/rules/"]
            .iter()
            .any(|p| pointer.starts_with(p))
    });
    (!all.is_empty()).then(|| dice.pick(&all).clone())
}

fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let here = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                out.push(here.clone());
                pointers(value, &here, out);
            }
        }
        Value::Array(items) => {
            for (i, value) in items.iter().enumerate() {
                let here = format!("{at}/{i}");
                out.push(here.clone());
                pointers(value, &here, out);
            }
        }
        _ => {}
    }
}

fn remove(body: &mut Value, pointer: &str) {
    let Some((parent, last)) = pointer.rsplit_once('/') else { return };
    let last = last.replace("~1", "/").replace("~0", "~");
    match body.pointer_mut(parent) {
        Some(Value::Object(map)) => drop(map.remove(&last)),
        Some(Value::Array(items)) => {
            if let Some(i) = last.parse::<usize>().ok().filter(|i| *i < items.len()) {
                items.remove(i);
            }
        }
        _ => {}
    }
}
