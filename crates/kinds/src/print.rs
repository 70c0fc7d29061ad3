//! Forms that several kinds print: ages, container lists, selectors, labels.

use corten_base::Timestamp;
use corten_object::{LabelSelector, time};
use corten_tree::{Map, Tree};

use crate::RowContext;

/// The age of a moment as upstream prints it: `5s`, `3m20s`, `2d3h`; `<unknown>` if there is none.
pub fn age(since: Option<Timestamp>, now: Timestamp) -> String {
    match since {
        Some(since) => human_duration(now.duration_since(since).as_secs()),
        None => "<unknown>".into(),
    }
}

/// The age of the time text at a dotted path.
pub fn since(tree: &Tree, path: &str, context: &RowContext) -> String {
    age(time::parse(tree.str_at(path)), context.now)
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

/// The text at a path, or another if it is absent or empty.
pub fn text_or(tree: &Tree, path: &str, other: &str) -> Tree {
    match tree.str_at(path) {
        "" => Tree::from(other),
        text => Tree::from(text),
    }
}

/// The texts of a list, joined.
pub fn joined(items: &[Tree], separator: &str) -> String {
    items.iter().filter_map(Tree::as_str).collect::<Vec<_>>().join(separator)
}

/// A field of each item of a list, joined by commas (names and images of containers).
pub fn joined_field(items: &[Tree], field: &str) -> Tree {
    Tree::from(items.iter().map(|item| item.str_at(field)).collect::<Vec<_>>().join(","))
}

/// Labels as `k=v,k=v` in key order, `<none>` if there are none (`labels.FormatLabels`).
pub fn labels(map: &Map) -> Tree {
    let mut pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    pairs.sort();
    Tree::from(if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") })
}

/// A label selector as `metav1.FormatLabelSelector` prints it.
pub fn selector(selector: Option<&Tree>) -> Tree {
    Tree::from(match LabelSelector::from_tree(selector) {
        Err(_) => "<error>".to_owned(),
        Ok(parsed) => match parsed.to_string() {
            empty if empty.is_empty() => "<none>".to_owned(),
            text => text,
        },
    })
}

/// A list of which the first `shown` items show, with a note of how many more there are.
pub fn with_more(items: &[String], shown: usize) -> String {
    match items.len() {
        _ if items.iter().all(String::is_empty) && items.len() <= 1 => "<unset>".into(),
        n if n > shown => format!("{} + {} more...", items[..shown].join(","), n - shown),
        _ => items.join(","),
    }
}

/// Whether the conditions at a path say that `kind` is `status`.
pub fn condition_is(tree: &Tree, path: &str, kind: &str, status: &str) -> bool {
    let found = tree.list_at(path).iter().find(|c| c.str_at("type") == kind);
    found.is_some_and(|c| c.str_at("status") == status)
}

/// A boolean, or what stands for it where it is missing.
pub(crate) fn flag(object: &Tree, path: &str, default: bool) -> Tree {
    Tree::Bool(object.path(path).and_then(Tree::as_bool).unwrap_or(default))
}

/// An integer or text (`IntOrString`, a quantity) as text.
pub fn plain(value: &Tree) -> String {
    match value {
        Tree::Str(text) => text.clone(),
        other => other.to_json_string(),
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
