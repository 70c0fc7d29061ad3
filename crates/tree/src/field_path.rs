//! Where in an object something is wrong: `spec.containers[0].env[1].name`.

use std::fmt;
use std::sync::Arc;

/// A path of fields, indexes and map keys, printed as upstream prints `field.Path`.
///
/// Cheap to extend: each step holds its parent. (`k8s.io/apimachinery/pkg/util/validation/field/path.go`)
#[derive(Clone, Default)]
pub struct FieldPath(Option<Arc<Step>>);

struct Step {
    parent: FieldPath,
    part: Part,
}

enum Part {
    Field(String),
    Index(usize),
    Key(String),
}

impl FieldPath {
    /// The path of the whole object (prints as `<nil>`).
    pub const ROOT: FieldPath = FieldPath(None);

    /// A path of one or more dotted fields, from the root.
    pub fn of(dotted: &str) -> FieldPath {
        FieldPath::ROOT.child(dotted)
    }

    /// The field `name` (or dotted fields) below this.
    #[must_use]
    pub fn child(&self, name: &str) -> FieldPath {
        self.push(Part::Field(name.to_owned()))
    }

    /// The item at `index` of this list.
    #[must_use]
    pub fn index(&self, index: usize) -> FieldPath {
        self.push(Part::Index(index))
    }

    /// The value of `key` in this map.
    #[must_use]
    pub fn key(&self, key: &str) -> FieldPath {
        self.push(Part::Key(key.to_owned()))
    }

    /// What this is a part of; `None` of the whole object.
    pub fn parent(&self) -> Option<FieldPath> {
        self.0.as_ref().map(|step| step.parent.clone())
    }

    fn push(&self, part: Part) -> FieldPath {
        FieldPath(Some(Arc::new(Step { parent: self.clone(), part })))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(step) = &self.0 else { return f.write_str("<nil>") };
        if step.parent.0.is_some() {
            step.parent.fmt(f)?;
        }
        match &step.part {
            Part::Field(name) if step.parent.0.is_some() => write!(f, ".{name}"),
            Part::Field(name) => f.write_str(name),
            Part::Index(index) => write!(f, "[{index}]"),
            Part::Key(key) => write!(f, "[{key}]"),
        }
    }
}

impl fmt::Debug for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::FieldPath;

    #[test]
    fn prints_as_upstream() {
        let p = FieldPath::of("spec").child("containers").index(0).child("env");
        assert_eq!(p.to_string(), "spec.containers[0].env");
        assert_eq!(FieldPath::of("metadata.labels").key("a/b").to_string(), "metadata.labels[a/b]");
        assert_eq!(FieldPath::ROOT.to_string(), "<nil>");
        assert_eq!(p.parent().map(|p| p.to_string()).as_deref(), Some("spec.containers[0]"));
    }
}
