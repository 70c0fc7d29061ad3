//! YAML in and out of trees.

use anyhow::{Context as _, Result};
use corten_tree::{Tree, json};

/// All documents of a YAML (or JSON) text; empty documents are left out.
///
/// # Errors
/// If the text is not YAML; the message has line and column.
pub fn documents(text: &str) -> Result<Vec<Tree>> {
    let values: Vec<serde_json::Value> = serde_saphyr::from_multiple(text).context("not valid YAML")?;
    let trees = values.into_iter().filter(|v| !v.is_null()).map(|v| json::parse(v.to_string().as_bytes()));
    trees.collect::<Result<_, _>>().context("not valid JSON")
}

/// A tree as YAML text.
///
/// # Errors
/// None in practice: trees hold only what YAML can say.
pub fn print(tree: &Tree) -> Result<String> {
    let value: serde_json::Value = serde_json::from_slice(&tree.to_json())?;
    Ok(serde_saphyr::to_string(&value)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn documents_round_trip() {
        let trees = super::documents("a: 1\nb: [x, 'y: z']\n---\n\n---\nc: |\n  two\n  lines\n").unwrap();
        assert_eq!(trees.len(), 2);
        assert_eq!(trees[1].str_at("c"), "two\nlines\n");
        let again = super::documents(&super::print(&trees[0]).unwrap()).unwrap();
        assert_eq!(again[0], trees[0]);
        assert!(super::documents("a: [").is_err());
    }
}
