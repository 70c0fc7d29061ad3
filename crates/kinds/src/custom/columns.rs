//! Printer columns of custom resources (`registry/customresource/tableconvertor`).

use std::sync::Arc;

use corten_object::time;
use corten_tree::Tree;

use super::json_path::JsonPath;
use crate::column::{Cell, Column, ColumnType, Row, RuntimeColumn};
use crate::print;

/// The columns of a version: the name, then those that it declares, or the age.
pub(super) fn columns(version: &Tree) -> Arc<[RuntimeColumn]> {
    let declared = version.list_at("additionalPrinterColumns");
    let name = RuntimeColumn::from(&Column::NAME);
    if declared.is_empty() {
        let path = JsonPath::parse(".metadata.creationTimestamp");
        let cell: Arc<dyn Cell> = Arc::new(PathCell { path, kind: ColumnType::Date });
        let age = RuntimeColumn { name: "Age".into(), kind: ColumnType::Date, cell, ..name.clone() };
        return [name, RuntimeColumn { format: "".into(), ..age }].into();
    }
    let column = |declared: &Tree| {
        let kind = match declared.str_at("type") {
            "integer" => ColumnType::Integer,
            "number" => ColumnType::Number,
            "boolean" => ColumnType::Boolean,
            "date" => ColumnType::Date,
            _ => ColumnType::Text,
        };
        let text = declared.str_at("jsonPath");
        let described = declared.str_at("description");
        let description = match described {
            "" => format!("Custom resource definition column (in JSONPath format): {text}"),
            words => words.to_owned(),
        };
        RuntimeColumn {
            name: declared.str_at("name").into(),
            kind,
            format: declared.str_at("format").into(),
            description: description.into(),
            priority: u8::try_from(declared.i64_at("priority").unwrap_or(0).clamp(0, 255)).unwrap_or(0),
            cell: Arc::new(PathCell { path: JsonPath::parse(text), kind }),
        }
    };
    std::iter::once(name).chain(declared.iter().map(column)).collect()
}

struct PathCell {
    path: Option<JsonPath>,
    kind: ColumnType,
}

impl Cell for PathCell {
    fn render(&self, row: &Row<'_>) -> Tree {
        let Some(found) = self.path.as_ref().and_then(|path| path.first(row.tree())) else { return Tree::Null };
        match (self.kind, found) {
            (_, Tree::Null) => Tree::Null,
            (ColumnType::Text, Tree::Str(text)) => Tree::from(text.as_str()),
            (ColumnType::Text, other) => Tree::from(other.to_json_string()),
            (ColumnType::Integer, number) => match number.as_f64() {
                Some(n) => Tree::Int(number.as_i64().unwrap_or(n as i64)),
                None => Tree::Null,
            },
            (ColumnType::Number, number @ (Tree::Int(_) | Tree::Float(_))) => number.clone(),
            (ColumnType::Boolean, Tree::Bool(b)) => Tree::Bool(*b),
            (ColumnType::Date, Tree::Str(text)) => match time::parse(text) {
                Some(at) => Tree::from(print::age(Some(at), row.context.now)),
                None => Tree::from("<invalid>"),
            },
            _ => Tree::Null,
        }
    }
}
