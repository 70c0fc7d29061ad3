//! Printer columns: how a kind shows in `kubectl get`.

use std::sync::Arc;

use corten_base::Timestamp;
use corten_object::{Object, View};
use corten_tree::{Tree, json};

/// What a cell may know besides the object.
#[derive(Debug, Clone, Copy)]
pub struct RowContext {
    /// The present, for ages.
    pub now: Timestamp,
}

/// Renders one cell of one object.
pub trait Cell: Send + Sync {
    /// The cell's value: text, number or boolean; null shows as `<none>` to kubectl.
    fn render(&self, object: &Object, context: &RowContext) -> Tree;
}

/// A cell computed from a typed view.
pub struct Typed<V: 'static>(pub fn(&V, &RowContext) -> Tree);

impl<V: View> Cell for Typed<V> {
    fn render(&self, object: &Object, context: &RowContext) -> Tree {
        match object.view::<V>() {
            Ok(view) => (self.0)(&view, context),
            Err(_) => Tree::from("<unknown>"),
        }
    }
}

/// A cell that shows the value at a dotted path.
pub struct Path(pub &'static str);

impl Cell for Path {
    fn render(&self, object: &Object, _context: &RowContext) -> Tree {
        let tree = json::parse(object.stored()).unwrap_or_default();
        tree.path(self.0).cloned().unwrap_or_default()
    }
}

/// A cell from the object's head: `creationTimestamp` as an age.
struct Age;

impl Cell for Age {
    fn render(&self, object: &Object, context: &RowContext) -> Tree {
        Tree::from(age(object.head.created, context.now))
    }
}

/// The age of a moment as upstream prints it: `5s`, `3m20s`, `2d3h`; `<unknown>` if there is none.
pub fn age(since: Option<Timestamp>, now: Timestamp) -> String {
    match since {
        Some(since) => human_duration(now.duration_since(since).as_secs()),
        None => "<unknown>".into(),
    }
}

/// A duration in seconds as `k8s.io/apimachinery/pkg/util/duration.HumanDuration` prints it.
pub fn human_duration(seconds: i64) -> String {
    let two = |big: i64, b: &str, small: i64, s: &str| {
        if small == 0 { format!("{big}{b}") } else { format!("{big}{b}{small}{s}") }
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match seconds {
        s if s < -1 => "<invalid>".into(),
        s if s < 0 => "0s".into(),
        s if s < 120 => format!("{s}s"),
        s if minutes < 10 => two(minutes, "m", s % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => two(days, "d", hours % 24, "h"),
        _ if days < 365 * 2 => format!("{days}d"),
        _ if days < 365 * 8 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// The column's OpenAPI type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// Text.
    Text,
    /// Integer.
    Integer,
    /// Boolean.
    Boolean,
}

/// A column of a kind's row.
#[derive(Clone, Copy)]
pub struct Column {
    /// The heading.
    pub name: &'static str,
    /// The type of its cells.
    pub kind: ColumnType,
    /// 0 shows always, 1 only with `-o wide`.
    pub priority: u8,
    /// What renders it.
    pub cell: &'static dyn Cell,
}

impl Column {
    /// The age of the object.
    pub const AGE: Column = column("Age", &Age);

    /// Marks the cells as integers.
    pub const fn integer(self) -> Column {
        Column { kind: ColumnType::Integer, ..self }
    }
}

/// A column that always shows.
pub const fn column(name: &'static str, cell: &'static dyn Cell) -> Column {
    Column { name, kind: ColumnType::Text, priority: 0, cell }
}

/// A column that shows with `-o wide`.
pub const fn wide(name: &'static str, cell: &'static dyn Cell) -> Column {
    Column { name, kind: ColumnType::Text, priority: 1, cell }
}

/// A column as the registry has it, of a row or of a CRD.
#[derive(Clone)]
pub struct RuntimeColumn {
    /// The heading.
    pub name: Arc<str>,
    /// The type of its cells.
    pub kind: ColumnType,
    /// 0 shows always, 1 only with `-o wide`.
    pub priority: u8,
    /// What renders it.
    pub cell: Arc<dyn Cell>,
}

struct Borrowed(&'static dyn Cell);

impl Cell for Borrowed {
    fn render(&self, object: &Object, context: &RowContext) -> Tree {
        self.0.render(object, context)
    }
}

impl From<&Column> for RuntimeColumn {
    fn from(column: &Column) -> RuntimeColumn {
        RuntimeColumn {
            name: column.name.into(),
            kind: column.kind,
            priority: column.priority,
            cell: Arc::new(Borrowed(column.cell)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::human_duration;

    #[test]
    fn durations_as_upstream() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_400, "3h10m"),
            (28_800, "8h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
