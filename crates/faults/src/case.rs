//! Case files: a base manifest, and edits of which each makes one request.
//!
//! ```text
//! # a comment
//! = apps/v1 Deployment [LABEL] [/path/of/the/request]
//! spec: …                          the base, as YAML, without apiVersion and kind
//! + create                         each following line is one request
//! spec.replicas = -1
//! spec.a = 1 && spec["b/c"][0].d = -       several edits; `-` removes
//! + given [SUBRESOURCE]            each following line really changes the base before the updates that follow
//! + update [SUBRESOURCE]
//! + patch merge|json|strategic [SUBRESOURCE]      each following line is the body, as YAML
//! + list                           each following line is the query of a GET of the collection, escaped as in a URL
//! ```
//!
//! A section's own line (`+ create`) with nothing below it does nothing; `.` is a request without edits. All requests but those of
//! `given` are dry runs. Values are YAML flow.

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value};

/// A base manifest and what is asked of it.
#[derive(Debug, Clone)]
pub struct Base {
    /// `apps/v1`
    pub api_version: String,
    /// `Deployment`
    pub kind: String,
    /// Tells bases of one kind apart; mostly empty.
    pub label: String,
    /// Where to post, if not to the kind's collection.
    pub path: String,
    /// The manifest, apiVersion and kind included.
    pub object: Value,
    /// What is asked, in order.
    pub sections: Vec<Section>,
}

/// Requests of one sort.
#[derive(Debug, Clone)]
pub struct Section {
    /// Which sort.
    pub verb: Verb,
    /// Subresource; mostly empty.
    pub subresource: String,
    /// The requests.
    pub lines: Vec<Line>,
}

/// A sort of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// A dry-run POST of the edited base.
    Create,
    /// A real PUT of the edited live object.
    Given,
    /// A dry-run PUT of the edited live object.
    Update,
    /// A dry-run PATCH with the content type's middle word.
    Patch(&'static str),
    /// A GET of the collection with a query.
    List,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Line {
    /// As written.
    pub text: String,
    /// The edits, or the patch as its only value.
    pub edits: Vec<Edit>,
}

/// A change at a path.
#[derive(Debug, Clone)]
pub struct Edit {
    /// Where.
    pub path: Vec<Part>,
    /// The new value; `None` removes.
    pub value: Option<Value>,
}

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A field or map key.
    Key(String),
    /// A place in a list.
    Index(usize),
}

impl Base {
    /// What names the request in tables and recorded answers.
    pub fn id(&self, section: &Section, line: &Line) -> String {
        let label = if self.label.is_empty() { String::new() } else { format!(" ({})", self.label) };
        let verb = match section.verb {
            Verb::Create => "create".to_owned(),
            Verb::Given => "given".to_owned(),
            Verb::Update => "update".to_owned(),
            Verb::Patch(kind) => format!("patch {kind}"),
            Verb::List => "list".to_owned(),
        };
        let subresource =
            if section.subresource.is_empty() { String::new() } else { format!(" {}", section.subresource) };
        format!("{} {}{label} {verb}{subresource}: {}", self.api_version, self.kind, line.text)
    }
}

/// Reads a case file.
///
/// # Errors
/// If it is malformed; the message has the line.
pub fn parse(text: &str) -> Result<Vec<Base>> {
    let mut bases: Vec<(Base, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let context = || format!("line {}: {line}", number + 1);
        let trimmed = line.trim();
        if line.starts_with('#') || trimmed.is_empty() {
            continue;
        }
        if let Some(head) = line.strip_prefix("= ") {
            bases.push((base(head).with_context(context)?, String::new()));
            continue;
        }
        let (base, yaml) = bases.last_mut().with_context(context)?;
        if let Some(head) = line.strip_prefix("+ ") {
            base.sections.push(section(head).with_context(context)?);
        } else if let Some(section) = base.sections.last_mut() {
            section.lines.push(request(trimmed, section.verb).with_context(context)?);
        } else {
            yaml.push_str(line);
            yaml.push('\n');
        }
    }
    let finish = |(mut base, yaml): (Base, String)| {
        let mut object = Map::new();
        object.insert("apiVersion".into(), base.api_version.clone().into());
        object.insert("kind".into(), base.kind.clone().into());
        if !yaml.is_empty() {
            let rest = value(&yaml).with_context(|| format!("the base of {}", base.kind))?;
            let Value::Object(rest) = rest else { bail!("the base of {} is no map", base.kind) };
            object.extend(rest);
        }
        base.object = Value::Object(object);
        Ok(base)
    };
    bases.into_iter().map(finish).collect()
}

fn base(head: &str) -> Result<Base> {
    let mut words = head.split_whitespace();
    let mut word = || words.next().map(str::to_owned);
    let (api_version, kind) = (word().context("apiVersion")?, word().context("kind")?);
    let (mut label, mut path) = (String::new(), String::new());
    while let Some(word) = word() {
        if word.starts_with('/') { path = word } else { label = word }
    }
    Ok(Base { api_version, kind, label, path, object: Value::Null, sections: Vec::new() })
}

fn section(head: &str) -> Result<Section> {
    let mut words = head.split_whitespace();
    let verb = match words.next() {
        Some("create") => Verb::Create,
        Some("given") => Verb::Given,
        Some("update") => Verb::Update,
        Some("patch") => Verb::Patch(match words.next() {
            Some("merge") => "merge",
            Some("json") => "json",
            Some("strategic") => "strategic",
            _ => bail!("patch is merge, json or strategic"),
        }),
        Some("list") => Verb::List,
        _ => bail!("a section is create, given, update, patch or list"),
    };
    Ok(Section { verb, subresource: words.next().unwrap_or_default().to_owned(), lines: Vec::new() })
}

fn request(text: &str, verb: Verb) -> Result<Line> {
    let edits = match (verb, text) {
        (Verb::Patch(_), text) => vec![Edit { path: Vec::new(), value: Some(value(text)?) }],
        (_, ".") | (Verb::List, _) => Vec::new(),
        (_, text) => text.split(" && ").map(edit).collect::<Result<_>>()?,
    };
    Ok(Line { text: text.to_owned(), edits })
}

fn edit(text: &str) -> Result<Edit> {
    let (at, to) = text.split_once(" = ").with_context(|| format!("{text:?} has no ` = `"))?;
    let value = if to.trim() == "-" { None } else { Some(value(to.trim())?) };
    Ok(Edit { path: path(at.trim())?, value })
}

/// YAML as a value.
fn value(text: &str) -> Result<Value> {
    serde_saphyr::from_str(text).map_err(|e| anyhow::anyhow!("{text:?} is no YAML: {e}"))
}

fn path(text: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("[\"") {
            let (key, after) = after.split_once("\"]").context("a key without its end")?;
            parts.push(Part::Key(key.to_owned()));
            rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            let (index, after) = after.split_once(']').context("an index without its end")?;
            parts.push(Part::Index(index.parse()?));
            rest = after;
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            parts.push(Part::Key(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
    }
    Ok(parts)
}

impl Edit {
    /// Makes the change.
    pub fn apply(&self, object: &mut Value) {
        let Some((last, parents)) = self.path.split_last() else {
            if let Some(value) = &self.value {
                *object = value.clone();
            }
            return;
        };
        let mut at = object;
        for part in parents {
            at = step(at, part);
        }
        match (&self.value, last) {
            (Some(value), last) => *step(at, last) = value.clone(),
            (None, Part::Key(key)) => {
                if let Value::Object(map) = at {
                    map.shift_remove(key);
                }
            }
            (None, Part::Index(i)) => {
                if let Value::Array(items) = at
                    && *i < items.len()
                {
                    items.remove(*i);
                }
            }
        }
    }
}

/// The value at a part, made if it is not there.
fn step<'v>(value: &'v mut Value, part: &Part) -> &'v mut Value {
    match part {
        Part::Key(key) => {
            if !value.is_object() {
                *value = Value::Object(Map::new());
            }
            let Value::Object(map) = value else { unreachable!("it was just made one") };
            map.entry(key.as_str()).or_insert(Value::Null)
        }
        Part::Index(i) => {
            if !value.is_array() {
                *value = Value::Array(Vec::new());
            }
            let Value::Array(items) = value else { unreachable!("it was just made one") };
            while items.len() <= *i {
                items.push(Value::Null);
            }
            &mut items[*i]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file() {
        let text = "# c\n= v1 Pod x\nmetadata: {name: a}\nspec:\n  l: [1]\n+ create\n.\nspec.l[1].b = {c: 1} && metadata[\"a.b/c\"] = -\n\
                    + patch merge status\n{a: null}\n";
        let bases = parse(text).unwrap();
        let base = &bases[0];
        assert_eq!(base.object["spec"]["l"][0], 1);
        let line = &base.sections[0].lines[1];
        assert_eq!(
            base.id(&base.sections[0], line),
            "v1 Pod (x) create: spec.l[1].b = {c: 1} && metadata[\"a.b/c\"] = -"
        );
        let mut object = base.object.clone();
        line.edits.iter().for_each(|e| e.apply(&mut object));
        assert_eq!(object["spec"]["l"][1]["b"]["c"], 1);
        assert_eq!(base.sections[1].verb, Verb::Patch("merge"));
        assert!(parse("= v1 Pod\n+ create\nno equals sign\n").is_err());
    }
}
