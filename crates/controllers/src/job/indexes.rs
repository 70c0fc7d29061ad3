//! Sets of completion indexes, printed as ranges (`indexed_job_utils.go`).

use std::collections::BTreeSet;
use std::fmt;

use corten_views::Pod;

/// Annotation and label of a pod with its index.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Annotation: how many pods of the index have failed before this one.
pub(super) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// Annotation: how many failures of the index were ignored by policy.
pub(super) const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// A set of indexes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Indexes(pub BTreeSet<i64>);

impl Indexes {
    /// From `0-2,5`; what is beyond `completions` or unreadable is left out.
    pub fn parse(text: &str, completions: i64) -> Indexes {
        let mut out = BTreeSet::new();
        for range in text.split(',').filter(|r| !r.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            if let (Ok(first), Ok(last)) = (first.parse::<i64>(), last.parse::<i64>()) {
                out.extend(first..=last.min(completions - 1));
            }
        }
        out.retain(|index| *index < completions);
        Indexes(out)
    }

    /// Whether the index is in it.
    pub fn has(&self, index: i64) -> bool {
        self.0.contains(&index)
    }

    /// How many there are.
    pub fn count(&self) -> i64 {
        self.0.len() as i64
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut indexes = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first) = indexes.next() {
            let mut last = first;
            while let Some(next) = indexes.next_if_eq(&(last + 1)) {
                last = next;
            }
            match last - first {
                0 => write!(f, "{separator}{first}")?,
                1 => write!(f, "{separator}{first},{last}")?,
                _ => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

/// A pod's index, if it has a readable one.
pub(super) fn index_of(pod: &Pod) -> Option<i64> {
    pod.metadata.annotations.get(INDEX)?.parse().ok().filter(|i| *i >= 0)
}

/// The number in an annotation; 0 if there is none.
pub(super) fn number(pod: &Pod, annotation: &str) -> i64 {
    pod.metadata.annotations.get(annotation).and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::Indexes;

    #[test]
    fn ranges_there_and_back() {
        for text in ["", "0", "0,1", "0-2", "1,3-5,7,8", "0-9"] {
            assert_eq!(Indexes::parse(text, 10).to_string(), text);
        }
        assert_eq!(Indexes::parse("2-20,x", 5).to_string(), "2-4");
    }
}
