//! What becomes of a valid manifest: it is made for real, read back as an object and as a table, and deleted.
//!
//! `cargo xtask faults --stored` compares the objects field by field: defaults, what a server fills in, managed fields and the cells of
//! tables. What differs from run to run (uids, times, revisions, addresses) is masked.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::Method;
use serde_json::{Value, json};

use crate::ask::Asker;
use crate::case::{Base, Line, Section, Verb};
use crate::outcome;
use crate::recorded::Answers;

/// How long a status may take that the server writes by itself.
const SETTLE_SECONDS: u32 = 10;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

impl Asker {
    /// Makes, reads and deletes the base with the edits of each line of its create sections.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn stored(&mut self, base: &Base, wanted: &dyn Fn(&str) -> bool) -> Result<Answers> {
        let mut answers = Answers::new();
        let (collection, _) = self.paths(base).await?;
        for section in base.sections.iter().filter(|section| section.verb == Verb::Create) {
            for line in &section.lines {
                let id = stored_id(base, section, line);
                if wanted(&id) {
                    let answer = self.one_stored(base, line, &collection).await.with_context(|| id.clone())?;
                    answers.push((id, answer));
                }
            }
        }
        Ok(answers)
    }

    async fn one_stored(&mut self, base: &Base, line: &Line, collection: &str) -> Result<String> {
        let mut body = base.object.clone();
        line.edits.iter().for_each(|edit| edit.apply(&mut body));
        let made = self.json(Method::POST, collection, &body).await?;
        if made.code >= 400 {
            return Ok(format!("{} {}", made.code, made.body["reason"].as_str().unwrap_or_default()));
        }
        let mut lines = vec![made.code.to_string()];
        lines.extend(outcome::whole(&made.body).into_iter().map(|line| format!("made {line}")));
        let Some(name) = made.body["metadata"]["name"].as_str().filter(|name| !name.is_empty()) else {
            return Ok(lines.join("\n"));
        };
        let object = format!("{collection}/{name}");
        let mut read = self.send(Method::GET, &object, "", Bytes::new()).await?;
        if !is_settled(&base.kind, &read.body) {
            self.settled(collection, name, &base.kind, &read.body).await?;
            read = self.send(Method::GET, &object, "", Bytes::new()).await?;
        }
        lines.push(format!("read {}", read.code));
        if read.code == 200 {
            lines.extend(outcome::whole(&read.body).into_iter().map(|line| format!("read {line}")));
            let table = self.send_accepting(Method::GET, &object, TABLE, "", Bytes::new()).await?;
            let columns = table.body["columnDefinitions"].as_array().cloned().unwrap_or_default();
            let cells = table.body["rows"][0]["cells"].as_array().cloned().unwrap_or_default();
            for (column, cell) in columns.iter().zip(&cells).filter(|(column, _)| column["name"] != "Age") {
                lines.push(format!("cell {} = {}", column["name"], outcome::masked(cell)));
            }
        }
        self.remove(&object).await?;
        Ok(lines.join("\n"))
    }

    /// Watches an object until its status is settled, or for as long as that may take.
    async fn settled(&mut self, collection: &str, name: &str, kind: &str, seen: &Value) -> Result<()> {
        let revision = seen["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let path = format!(
            "{collection}?watch=true&fieldSelector=metadata.name%3D{name}&resourceVersion={revision}&timeoutSeconds={SETTLE_SECONDS}"
        );
        let mut body = self.stream(&path).await?;
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            text.extend_from_slice(frame?.data_ref().map_or(&[][..], |bytes| bytes));
            while let Some(end) = text.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap_or_default();
                if is_settled(kind, &event["object"]) {
                    // A connection cannot be used while its answer goes on.
                    return self.reconnect().await;
                }
            }
        }
        Ok(())
    }

    /// Deletes an object at once, whatever holds it.
    async fn remove(&mut self, object: &str) -> Result<()> {
        let options = json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background"});
        self.json(Method::DELETE, object, &options).await?;
        let free = json!({"metadata": {"finalizers": null}}).to_string();
        self.send(Method::PATCH, object, "application/merge-patch+json", Bytes::from(free)).await?;
        Ok(())
    }
}

/// Whether the server has said of an object what it says by itself, soon after it was made.
fn is_settled(kind: &str, object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    match kind {
        "FlowSchema" | "APIService" => !conditions.is_empty(),
        "CustomResourceDefinition" => conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True"),
        _ => true,
    }
}

/// Tells what is made and read back from what is only asked.
fn stored_id(base: &Base, section: &Section, line: &Line) -> String {
    format!("stored {}", base.id(section, line))
}
