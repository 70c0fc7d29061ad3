//! Random sequences of writes by several managers, put to two servers: both must make the same of them, managed fields included.
//!
//! What is written is data (`spaces/*.yaml`, see [`space`]). A sequence is about one object of one kind. `cargo xtask apply-diff`
//! runs it against upstream's kube-apiserver.

pub mod space;
mod step;

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use hyper::Method;
use serde_json::Value;

use crate::ask::Asker;
use crate::outcome::Answer;
use space::Dice;
use step::Step;

/// A kind to write to.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its name in reports.
    pub name: String,
    path: String,
    /// Further `apiVersion`s that serve the same objects, with what is written there.
    versions: Vec<(String, Value)>,
    subresources: Vec<String>,
    space: Value,
}

/// The kinds of the file.
///
/// # Errors
/// If the file is malformed.
pub fn subjects() -> Result<Vec<Subject>> {
    let all = read("kinds.yaml")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts = |value: &Value| value.as_array().map(|all| all.iter().map(text).collect()).unwrap_or_default();
    let subject = |value: &Value| {
        let versions: Vec<String> = texts(&value["versions"]);
        Subject {
            name: text(&value["name"]),
            path: text(&value["path"]),
            versions: versions.into_iter().map(|v| (v.clone(), value["space_of"][&v].clone())).collect(),
            subresources: texts(&value["also"]),
            space: value["space"].clone(),
        }
    };
    Ok(all.as_array().context("a list of kinds")?.iter().map(subject).collect())
}

fn read(file: &str) -> Result<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("spaces").join(file);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_saphyr::from_str(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}

/// Two servers.
pub struct Pair {
    /// Upstream's.
    pub theirs: Asker,
    /// Corten's.
    pub ours: Asker,
}

/// A difference, with all that led to it.
#[derive(Debug)]
pub struct Difference {
    /// The requests of the sequence, the last one is answered differently.
    pub steps: Vec<String>,
    /// The object before the last request; null if there was none.
    pub before: Value,
    /// What upstream says, and what Corten says; lines that only one of them has.
    pub lines: Vec<String>,
}

impl Pair {
    /// Makes what the sequences need.
    ///
    /// # Errors
    /// If a server refuses.
    pub async fn prepare(&mut self) -> Result<()> {
        const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let definition = read("widgets.yaml")?;
        for asker in [&mut self.theirs, &mut self.ours] {
            asker.prepare().await?;
            let body = Bytes::from(definition.to_string());
            let made = asker.send(Method::POST, DEFINITIONS, "application/json", body).await?;
            if made.code != 201 {
                bail!("the definition is refused: {}", made.body);
            }
            // Nothing tells when both versions are served, and published to the managed fields' schema.
            for _ in 0..100 {
                let found = asker.send(Method::GET, "/apis/diff.example.com/v2/widgets", "", Bytes::new()).await?;
                if found.code == 200 {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// Runs one sequence of writes.
    ///
    /// # Errors
    /// If a connection breaks.
    pub async fn run(
        &mut self,
        subject: &Subject,
        steps: usize,
        dice: &mut Dice,
    ) -> Result<(usize, Option<Difference>)> {
        self.clear(subject).await?;
        let mut told = Vec::new();
        let mut current = None;
        for done in 0..steps {
            let step = Step::roll(subject, current.as_ref(), dice);
            told.push(step.to_string());
            let theirs = step.put_to(&mut self.theirs).await?;
            let ours = step.put_to(&mut self.ours).await?;
            let (mut left, mut right) = (lines(&theirs), lines(&ours));
            let (theirs, ours) = (self.state(subject).await?, step::state(&mut self.ours, subject).await?);
            left.extend(lines(&theirs));
            right.extend(lines(&ours));
            if left != right {
                self.clear(subject).await?;
                let (before, lines) = (current.unwrap_or_default(), difference(&left, &right));
                return Ok((done + 1, Some(Difference { steps: told, before, lines })));
            }
            current = (theirs.code == 200).then_some(theirs.body);
        }
        self.clear(subject).await?;
        Ok((steps, None))
    }

    async fn state(&mut self, subject: &Subject) -> Result<Answer> {
        step::state(&mut self.theirs, subject).await
    }

    /// Deletes the object on both, finalizers and all.
    async fn clear(&mut self, subject: &Subject) -> Result<()> {
        for asker in [&mut self.theirs, &mut self.ours] {
            asker.send(Method::DELETE, &subject.path, "", Bytes::new()).await?;
            let bare = Bytes::from_static(br#"{"metadata":{"finalizers":null}}"#);
            asker.send(Method::PATCH, &subject.path, "application/merge-patch+json", bare).await?;
        }
        Ok(())
    }
}

/// An answer as lines that are equal for servers that behave alike.
fn lines(answer: &Answer) -> Vec<String> {
    let mut body = answer.body.clone();
    neutralise(&mut body);
    let mut out = vec![answer.code.to_string()];
    let warnings = answer.warnings.iter().filter(|warning| !warning.ends_with(crate::outcome::UNSERVED));
    out.extend(warnings.map(|warning| format!("W {warning}")));
    flatten(&body, "", &mut out);
    out
}

/// Takes out what differs between any two servers, and puts into one order what has none: entries of managed fields, which
/// depend on times, and the causes of conflicts, which upstream takes out of a Go map.
fn neutralise(body: &mut Value) {
    if body["reason"] == "Conflict"
        && let Some(causes) = body.pointer_mut("/details/causes").and_then(Value::as_array_mut)
    {
        causes.sort_by_cached_key(Value::to_string);
    }
    let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    for key in ["uid", "resourceVersion", "creationTimestamp", "deletionTimestamp"] {
        metadata.remove(key);
    }
    if let Some(entries) = metadata.get_mut("managedFields").and_then(Value::as_array_mut) {
        for entry in entries.iter_mut().filter_map(Value::as_object_mut) {
            if let Some(time) = entry.get_mut("time") {
                *time = Value::from("T");
            }
        }
        let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        entries.sort_by_cached_key(|e| ["manager", "operation", "apiVersion", "subresource"].map(|key| text(e, key)));
    }
}

fn flatten(value: &Value, path: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            keys.into_iter().for_each(|key| flatten(&map[key], &format!("{path}.{key}"), out));
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(i, item)| flatten(item, &format!("{path}[{i}]"), out));
        }
        other => out.push(format!("{path} = {other}")),
    }
}

fn difference(theirs: &[String], ours: &[String]) -> Vec<String> {
    let only = |these: &[String], those: &[String], who: &str| -> Vec<String> {
        these.iter().filter(|line| !those.contains(line)).map(|line| format!("{who} {line}")).collect()
    };
    let mut out = only(theirs, ours, "upstream");
    out.extend(only(ours, theirs, "Corten  "));
    if out.is_empty() {
        out.push("the same lines in another order".to_owned());
    }
    out
}
