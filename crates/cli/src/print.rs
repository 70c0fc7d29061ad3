//! Server-side Tables as text.

use corten_tree::Tree;

/// Rows with their widths, printed as kubectl does: columns three spaces apart, headings in capitals.
#[derive(Default)]
pub struct Printer {
    rows: Vec<Vec<String>>,
}

impl Printer {
    /// Takes the rows of a Table. `wide` shows low-priority columns, `namespaces` puts the namespace first.
    pub fn add(&mut self, table: &Tree, wide: bool, namespaces: bool, heading: bool) {
        let columns = table.list_at("columnDefinitions");
        let shown: Vec<bool> = columns.iter().map(|c| wide || c.i64_at("priority").unwrap_or(0) == 0).collect();
        let pick = |cells: Vec<String>| cells.into_iter().zip(&shown).filter(|(_, s)| **s).map(|(c, _)| c);
        if heading {
            let names = columns.iter().map(|c| c.str_at("name").to_uppercase()).collect();
            let first = namespaces.then(|| "NAMESPACE".to_owned());
            self.rows.push(first.into_iter().chain(pick(names)).collect());
        }
        for row in table.list_at("rows") {
            let cells = row.list_at("cells").iter().map(cell).collect();
            let first = namespaces.then(|| row.str_at("object.metadata.namespace").to_owned());
            self.rows.push(first.into_iter().chain(pick(cells)).collect());
        }
    }

    /// The text; rows that were added are forgotten, column widths are not carried over.
    pub fn take(&mut self) -> String {
        let rows = std::mem::take(&mut self.rows);
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &rows {
            for (i, cell) in row.iter().enumerate() {
                if i + 1 == row.len() {
                    out.push_str(cell);
                } else {
                    out.push_str(&format!("{cell:<width$}   ", width = widths[i]));
                }
            }
            out.push('\n');
        }
        out
    }
}

fn cell(value: &Tree) -> String {
    match value {
        Tree::Null => "<none>".into(),
        Tree::Str(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use corten_tree::tree;

    #[test]
    fn columns_line_up() {
        let table = tree!({
            "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "IP", "priority": 1}, {"name": "Age", "priority": 0}],
            "rows": [{"cells": ["a", "1.2.3.4", "5s"]}, {"cells": ["longer", null, "10m"]}]
        });
        let mut printer = super::Printer::default();
        printer.add(&table, false, false, true);
        assert_eq!(printer.take(), "NAME     AGE\na        5s\nlonger   10m\n");
    }
}
