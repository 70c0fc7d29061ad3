//! Configuration files in YAML or JSON: read as a tree, taken apart strictly.
//!
//! [`Fields`] hands out the fields of one object by name and remembers which were asked for; what is left is unknown, and what
//! has another type than expected is a fault. Each fault names its field, as upstream's strict decoder does.

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use corten_schema::scalars::duration;
use corten_tree::{FieldPath, Tree};

/// YAML (or JSON, which is YAML) as a tree.
///
/// # Errors
/// What the parser says.
pub fn yaml(text: &str) -> Result<Tree, String> {
    let value: serde_json::Value = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    corten_tree::json::parse(value.to_string().as_bytes()).map_err(|e| e.to_string())
}

/// A configuration file that says what it is.
///
/// # Errors
/// If it cannot be read, is no YAML, or is of another kind than `kind` at one of `versions`.
pub fn read(path: &Path, versions: &[&str], kind: &str) -> Result<Tree, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("failed to read file path {path:?}: {e}"))?;
    let tree = yaml(&text).map_err(|e| format!("{}: failed decoding: {e}", path.display()))?;
    let (version, found) = (tree.str_at("apiVersion"), tree.str_at("kind"));
    if !versions.contains(&version) || found != kind {
        let known = versions.join(", ");
        return Err(format!(
            "{}: is {found:?} of {version:?}: a {kind} of one of these versions is needed: {known}",
            path.display()
        ));
    }
    Ok(tree)
}

/// The fields of one object of a configuration.
pub struct Fields<'t> {
    tree: &'t Tree,
    path: FieldPath,
    asked: RefCell<Vec<&'static str>>,
    faults: &'t RefCell<Vec<String>>,
}

impl<'t> Fields<'t> {
    /// The fields of a whole document; faults are collected in `faults`.
    pub fn new(tree: &'t Tree, faults: &'t RefCell<Vec<String>>) -> Fields<'t> {
        let asked = RefCell::new(vec!["apiVersion", "kind", "metadata"]);
        Fields { tree, path: FieldPath::default(), asked, faults }
    }

    /// Where this object is.
    pub fn path(&self) -> &FieldPath {
        &self.path
    }

    fn fault(&self, path: &FieldPath, expected: &str) {
        self.faults.borrow_mut().push(format!("{path}: {expected} is expected"));
    }

    /// A field as it is; null is absent.
    pub fn any(&self, name: &'static str) -> Option<&'t Tree> {
        self.asked.borrow_mut().push(name);
        self.tree.get(name).filter(|value| !value.is_null())
    }

    fn typed<T>(&self, name: &'static str, expected: &str, read: impl Fn(&'t Tree) -> Option<T>) -> Option<T> {
        let value = self.any(name)?;
        let read = read(value);
        if read.is_none() {
            self.fault(&self.path.child(name), expected);
        }
        read
    }

    /// A text; empty if absent.
    pub fn text(&self, name: &'static str) -> String {
        self.typed(name, "a string", Tree::as_str).unwrap_or_default().to_owned()
    }

    /// A text that may be absent.
    pub fn optional_text(&self, name: &'static str) -> Option<String> {
        self.typed(name, "a string", Tree::as_str).map(str::to_owned)
    }

    /// A truth that may be absent.
    pub fn flag(&self, name: &'static str) -> Option<bool> {
        self.typed(name, "true or false", Tree::as_bool)
    }

    /// A whole number that may be absent.
    pub fn number(&self, name: &'static str) -> Option<i64> {
        self.typed(name, "a whole number", Tree::as_i64)
    }

    /// A duration as Go writes it (`1m30s`), if there is one.
    pub fn duration(&self, name: &'static str) -> Option<Duration> {
        let nanos = self.typed(name, "a duration such as 30s", |v| duration::parse(v.as_str()?).ok());
        nanos.map(|n| Duration::from_nanos(u64::try_from(n).unwrap_or(0)))
    }

    /// A list of texts; empty if absent.
    pub fn texts(&self, name: &'static str) -> Vec<String> {
        let texts = |v: &Tree| v.as_list()?.iter().map(|t| t.as_str().map(str::to_owned)).collect();
        self.typed(name, "a list of strings", texts).unwrap_or_default()
    }

    /// An object, if there is one.
    pub fn object(&self, name: &'static str) -> Option<Fields<'t>> {
        let tree = self.typed(name, "an object", |v| matches!(v, Tree::Map(_)).then_some(v))?;
        Some(self.inner(tree, self.path.child(name)))
    }

    /// The objects of a list; none if it is absent.
    pub fn objects(&self, name: &'static str) -> Vec<Fields<'t>> {
        let list = self.typed(name, "a list", Tree::as_list).unwrap_or_default();
        let path = self.path.child(name);
        let objects = list.iter().enumerate().filter_map(|(i, item)| {
            let path = path.index(i);
            if !matches!(item, Tree::Map(_)) {
                self.fault(&path, "an object");
                return None;
            }
            Some(self.inner(item, path))
        });
        objects.collect()
    }

    fn inner(&self, tree: &'t Tree, path: FieldPath) -> Fields<'t> {
        Fields { tree, path, asked: RefCell::default(), faults: self.faults }
    }
}

/// Whatever was not asked for is unknown.
impl Drop for Fields<'_> {
    fn drop(&mut self) {
        let asked = self.asked.borrow();
        for key in self.tree.fields().keys().filter(|key| !asked.contains(key)) {
            self.faults.borrow_mut().push(format!("unknown field \"{}\"", self.path.child(key)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_faults_name_their_fields() {
        let tree = yaml("rules:\n- level: 3\n  usrs: [a]\n- x\nwait: 1y\ntexts: [a, 1]\n").unwrap();
        let faults = RefCell::default();
        let fields = Fields::new(&tree, &faults);
        for rule in fields.objects("rules") {
            assert_eq!(rule.text("level"), "");
        }
        assert_eq!((fields.duration("wait"), fields.texts("texts")), (None, Vec::new()));
        drop(fields);
        let expected = [
            "rules[1]: an object is expected",
            "rules[0].level: a string is expected",
            "unknown field \"rules[0].usrs\"",
            "wait: a duration such as 30s is expected",
            "texts: a list of strings is expected",
        ];
        assert_eq!(*faults.borrow(), expected);
    }
}
