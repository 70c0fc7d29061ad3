//! Printer columns: how a kind shows in `kubectl get`.
//!
//! A row of the table parses its object once, without managed fields, and all its cells read that one tree.
//! What each kind prints: `pkg/printers/internalversion/printers.go`.

use std::cell::OnceCell;
use std::sync::Arc;

use bytes::Bytes;
use corten_base::Timestamp;
use corten_object::{Object, View};
use corten_tree::json::{JsonError, Kind as JsonKind, Reader};
use corten_tree::{Key, Map, Tree};

use crate::print;

/// What a cell may know besides the object.
#[derive(Debug, Clone, Copy)]
pub struct RowContext {
    /// The present, for ages.
    pub now: Timestamp,
}

/// One object on its way into a table.
pub struct Row<'o> {
    object: Option<&'o Object>,
    reads: &'static [&'static str],
    tree: OnceCell<Tree>,
    /// What cells may know besides.
    pub context: RowContext,
}

impl<'o> Row<'o> {
    /// The row of a stored object; `reads` are the paths that its columns read, none for all.
    pub fn of(object: &'o Object, reads: &'static [&'static str], context: &RowContext) -> Row<'o> {
        Row { object: Some(object), reads, tree: OnceCell::new(), context: *context }
    }

    /// The row of an object that is not stored (a Scale, a review).
    pub fn of_tree(tree: Tree, context: &RowContext) -> Row<'static> {
        Row { object: None, reads: &[], tree: OnceCell::from(tree), context: *context }
    }

    /// What the columns read of the object, parsed on the first call.
    pub fn tree(&self) -> &Tree {
        self.tree.get_or_init(|| self.object.and_then(|o| parse(&o.stored(), self.reads).ok()).unwrap_or_default())
    }
}

/// Parses what the columns read of an object; if they may read all, all but `metadata.managedFields`, a third of a usual
/// object that no column shows.
fn parse(bytes: &Bytes, reads: &[&str]) -> Result<Tree, JsonError> {
    let mut reader = Reader::new(bytes);
    if !reads.is_empty() {
        return parse_part(&mut reader, reads);
    }
    let mut out = Map::new();
    reader.begin_map()?;
    while let Some(key) = reader.next_key()? {
        let value = if key == "metadata" && reader.peek()? == JsonKind::Map {
            let mut metadata = Map::new();
            reader.begin_map()?;
            while let Some(key) = reader.next_key()? {
                if key == "managedFields" {
                    reader.skip()?;
                } else {
                    metadata.push_unchecked(Key::from(key.into_owned()), reader.tree()?);
                }
            }
            Tree::Map(metadata)
        } else {
            reader.tree()?
        };
        out.push_unchecked(Key::from(key.into_owned()), value);
    }
    Ok(Tree::Map(out))
}

/// Parses the values at some dotted paths; a path leads through lists into each item. The rest is skipped unread.
fn parse_part(reader: &mut Reader<'_>, paths: &[&str]) -> Result<Tree, JsonError> {
    match reader.peek()? {
        JsonKind::Map => {
            let mut out = Map::new();
            reader.begin_map()?;
            while let Some(key) = reader.next_key()? {
                let below: Vec<&str> = paths
                    .iter()
                    .filter_map(|path| match path.strip_prefix(&*key)? {
                        "" => Some(""),
                        rest => rest.strip_prefix('.'),
                    })
                    .collect();
                if below.is_empty() {
                    reader.skip()?;
                    continue;
                }
                let value = if below.contains(&"") { reader.tree()? } else { parse_part(reader, &below)? };
                out.push_unchecked(Key::from(key.into_owned()), value);
            }
            Ok(Tree::Map(out))
        }
        JsonKind::List => {
            let mut out = Vec::new();
            reader.begin_list()?;
            while reader.next_item()? {
                out.push(parse_part(reader, paths)?);
            }
            Ok(Tree::List(out))
        }
        _ => reader.tree(),
    }
}

/// Renders one cell of one row.
pub trait Cell: Send + Sync {
    /// The cell's value: text, number or boolean; null shows as `<none>` to kubectl.
    fn render(&self, row: &Row<'_>) -> Tree;
}

/// A cell computed from the object's tree.
pub struct Of(pub fn(&Tree, &RowContext) -> Tree);

impl Cell for Of {
    fn render(&self, row: &Row<'_>) -> Tree {
        (self.0)(row.tree(), &row.context)
    }
}

/// A cell computed from a typed view.
pub struct Typed<V: 'static>(pub fn(&V, &RowContext) -> Tree);

impl<V: View> Cell for Typed<V> {
    fn render(&self, row: &Row<'_>) -> Tree {
        match row.object.map(Object::view::<V>) {
            Some(Ok(view)) => (self.0)(&view, &row.context),
            _ => Tree::from("<unknown>"),
        }
    }
}

/// A cell that shows the value at a dotted path.
pub struct Path(pub &'static str);

impl Cell for Path {
    fn render(&self, row: &Row<'_>) -> Tree {
        row.tree().path(self.0).cloned().unwrap_or_default()
    }
}

/// A cell that shows the text at a dotted path, or another text if there is none.
pub struct TextOr(pub &'static str, pub &'static str);

impl Cell for TextOr {
    fn render(&self, row: &Row<'_>) -> Tree {
        print::text_or(row.tree(), self.0, self.1)
    }
}

/// A cell that shows the number at a dotted path, 0 if there is none.
pub struct Number(pub &'static str);

impl Cell for Number {
    fn render(&self, row: &Row<'_>) -> Tree {
        Tree::Int(row.tree().i64_at(self.0).unwrap_or_default())
    }
}

/// A cell that shows how many items or keys there are at a dotted path.
pub struct Count(pub &'static str);

impl Cell for Count {
    fn render(&self, row: &Row<'_>) -> Tree {
        Tree::Int(match row.tree().path(self.0) {
            Some(Tree::List(items)) => items.len() as i64,
            Some(Tree::Map(map)) => map.len() as i64,
            _ => 0,
        })
    }
}

/// A cell that shows how long ago the time at a dotted path was.
pub struct Since(pub &'static str);

impl Cell for Since {
    fn render(&self, row: &Row<'_>) -> Tree {
        Tree::from(print::since(row.tree(), self.0, &row.context))
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
    /// Number with or without fraction (custom resources only).
    Number,
    /// A time, shown as how long ago it was (custom resources only).
    Date,
}

impl ColumnType {
    /// Its name in `columnDefinitions`.
    pub fn as_str(self) -> &'static str {
        match self {
            ColumnType::Text => "string",
            ColumnType::Integer => "integer",
            ColumnType::Boolean => "boolean",
            ColumnType::Number => "number",
            ColumnType::Date => "date",
        }
    }
}

/// A column of a kind's row.
#[derive(Clone, Copy)]
pub struct Column {
    /// The heading.
    pub name: &'static str,
    /// The type of its cells.
    pub kind: ColumnType,
    /// OpenAPI format: `name` marks the column that names the object.
    pub format: &'static str,
    /// 0 shows always, 1 only with `-o wide`.
    pub priority: u8,
    /// What renders it.
    pub cell: &'static dyn Cell,
}

impl Column {
    /// The object's name.
    pub const NAME: Column = Column { format: "name", ..column("Name", &TextOr("metadata.name", "")) };

    /// The age of the object.
    pub const AGE: Column = column("Age", &Since("metadata.creationTimestamp"));

    /// The time of creation, for kinds that upstream prints by its default converter.
    pub const CREATED_AT: Column = column("Created At", &TextOr("metadata.creationTimestamp", ""));

    /// Marks the cells as integers.
    pub const fn integer(self) -> Column {
        Column { kind: ColumnType::Integer, ..self }
    }

    /// Marks the cells as booleans.
    pub const fn boolean(self) -> Column {
        Column { kind: ColumnType::Boolean, ..self }
    }

    /// Gives the cells a format.
    pub const fn format(self, format: &'static str) -> Column {
        Column { format, ..self }
    }
}

/// A column that always shows.
pub const fn column(name: &'static str, cell: &'static dyn Cell) -> Column {
    Column { name, kind: ColumnType::Text, format: "", priority: 0, cell }
}

/// A column that shows with `-o wide`.
pub const fn wide(name: &'static str, cell: &'static dyn Cell) -> Column {
    Column { priority: 1, ..column(name, cell) }
}

/// A column as the registry has it, of a row or of a CRD.
#[derive(Clone)]
pub struct RuntimeColumn {
    /// The heading.
    pub name: Arc<str>,
    /// The type of its cells.
    pub kind: ColumnType,
    /// OpenAPI format; empty for none.
    pub format: Arc<str>,
    /// What it shows, in words.
    pub description: Arc<str>,
    /// 0 shows always, 1 only with `-o wide`.
    pub priority: u8,
    /// What renders it.
    pub cell: Arc<dyn Cell>,
}

struct Borrowed(&'static dyn Cell);

impl Cell for Borrowed {
    fn render(&self, row: &Row<'_>) -> Tree {
        self.0.render(row)
    }
}

impl From<&Column> for RuntimeColumn {
    fn from(column: &Column) -> RuntimeColumn {
        RuntimeColumn {
            name: column.name.into(),
            kind: column.kind,
            format: column.format.into(),
            description: "".into(),
            priority: column.priority,
            cell: Arc::new(Borrowed(column.cell)),
        }
    }
}
