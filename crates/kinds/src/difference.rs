//! What differs between two values, as upstream's messages tell it (`k8s.io/apimachinery/pkg/util/diff.Diff`): a unified diff of the
//! indented JSON of its Go structs.
//!
//! Lines are matched by the longest common run, then left and right of it (Ratcliff and Obershelp), without lines that are too
//! common to say anything.

use std::collections::HashMap;
use std::ops::Range;

use corten_schema::internal;
use corten_tree::Tree;

/// Lines around a change.
const CONTEXT: usize = 3;
/// From so many lines on, those that stand in more than a hundredth of all places are no anchors.
const POPULAR_FROM: usize = 200;
/// More changed lines than this are shown as one change, without a search for what they have in common.
const SEARCHED_MAX: usize = 4_000;

/// The difference between two values of a type of upstream's (`core.v1.PodSpec`).
pub(crate) fn between(ty: &str, old: &Tree, new: &Tree) -> String {
    let schema = corten_schema::builtin();
    let text = |tree: &Tree| {
        let mut out = String::new();
        pretty(&internal::shown_as(schema, ty, tree), 0, &mut out);
        out
    };
    let (old, new) = (text(old), text(new));
    unified(&old.lines().collect::<Vec<_>>(), &new.lines().collect::<Vec<_>>())
}

/// JSON with one space of indentation, as Go's `MarshalIndent`.
fn pretty(tree: &Tree, depth: usize, out: &mut String) {
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', depth));
    };
    match tree {
        Tree::Map(map) if !map.is_empty() => {
            out.push('{');
            for (i, (key, value)) in map.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                line(out, depth + 1);
                out.push_str(&Tree::from(key).to_json_string());
                out.push_str(": ");
                pretty(value, depth + 1, out);
            }
            line(out, depth);
            out.push('}');
        }
        Tree::List(items) if !items.is_empty() => {
            out.push('[');
            for (i, value) in items.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                line(out, depth + 1);
                pretty(value, depth + 1, out);
            }
            line(out, depth);
            out.push(']');
        }
        other => out.push_str(&other.to_json_string()),
    }
}

/// Equal runs of two lists of lines: where they begin in each, and how long they are. The last is empty and stands at the ends.
fn equal_runs(old: &[&str], new: &[&str]) -> Vec<(usize, usize, usize)> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (i, line) in new.iter().enumerate() {
        places.entry(line).or_default().push(i);
    }
    if new.len() >= POPULAR_FROM {
        let most = new.len() / 100 + 1;
        places.retain(|_, at| at.len() <= most);
    }
    let mut found = Vec::new();
    let mut todo = vec![(0..old.len(), 0..new.len())];
    while let Some((a, b)) = todo.pop() {
        let (i, j, length) = longest(old, new, &places, a.clone(), b.clone());
        if length > 0 {
            found.push((i, j, length));
            todo.push((a.start..i, b.start..j));
            todo.push((i + length..a.end, j + length..b.end));
            todo.retain(|(a, b)| !a.is_empty() && !b.is_empty());
        }
    }
    found.sort_unstable();
    let mut runs: Vec<(usize, usize, usize)> = Vec::new();
    for (i, j, length) in found {
        match runs.last_mut() {
            Some((x, y, n)) if *x + *n == i && *y + *n == j => *n += length,
            _ => runs.push((i, j, length)),
        }
    }
    runs.push((old.len(), new.len(), 0));
    runs
}

/// The longest run that two parts share: the first one in both, of several.
fn longest(
    old: &[&str],
    new: &[&str],
    places: &HashMap<&str, Vec<usize>>,
    a: Range<usize>,
    b: Range<usize>,
) -> (usize, usize, usize) {
    let (mut i, mut j, mut length) = (a.start, b.start, 0);
    let mut ending: HashMap<usize, usize> = HashMap::new();
    for x in a.clone() {
        let mut next = HashMap::new();
        for &y in places.get(old[x]).into_iter().flatten().filter(|y| b.contains(y)) {
            let run = y.checked_sub(1).and_then(|before| ending.get(&before)).map_or(1, |n| n + 1);
            next.insert(y, run);
            if run > length {
                (i, j, length) = (x + 1 - run, y + 1 - run, run);
            }
        }
        ending = next;
    }
    while i > a.start && j > b.start && old[i - 1] == new[j - 1] {
        (i, j, length) = (i - 1, j - 1, length + 1);
    }
    while i + length < a.end && j + length < b.end && old[i + length] == new[j + length] {
        length += 1;
    }
    (i, j, length)
}

/// A stretch of lines, equal or not.
struct Stretch {
    equal: bool,
    old: Range<usize>,
    new: Range<usize>,
}

fn stretches(old: &[&str], new: &[&str]) -> Vec<Stretch> {
    let (mut i, mut j) = (0, 0);
    let mut out = Vec::new();
    let runs = match old.len().max(new.len()) > SEARCHED_MAX {
        true => rough_runs(old, new),
        false => equal_runs(old, new),
    };
    for (a, b, length) in runs {
        if i < a || j < b {
            out.push(Stretch { equal: false, old: i..a, new: j..b });
        }
        (i, j) = (a + length, b + length);
        if length > 0 {
            out.push(Stretch { equal: true, old: a..i, new: b..j });
        }
    }
    out
}

/// What is equal at the start and at the end.
fn rough_runs(old: &[&str], new: &[&str]) -> Vec<(usize, usize, usize)> {
    let start = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (a, b) = (&old[start..], &new[start..]);
    let end = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    vec![(0, 0, start), (old.len() - end, new.len() - end, end), (old.len(), new.len(), 0)]
}

fn unified(old: &[&str], new: &[&str]) -> String {
    let mut groups: Vec<Vec<Stretch>> = vec![Vec::new()];
    let all = stretches(old, new);
    let last = all.len().saturating_sub(1);
    for (i, mut stretch) in all.into_iter().enumerate() {
        let long = stretch.old.len();
        if stretch.equal && i == 0 {
            let skipped = long.saturating_sub(CONTEXT);
            (stretch.old.start, stretch.new.start) = (stretch.old.start + skipped, stretch.new.start + skipped);
        }
        let long = if i == 0 { stretch.old.len() } else { long };
        if stretch.equal && i == last {
            let kept = long.min(CONTEXT);
            (stretch.old.end, stretch.new.end) = (stretch.old.start + kept, stretch.new.start + kept);
        } else if stretch.equal && long > 2 * CONTEXT {
            let (a, b) = (stretch.old.start, stretch.new.start);
            if let Some(group) = groups.last_mut() {
                group.push(Stretch { equal: true, old: a..a + CONTEXT, new: b..b + CONTEXT });
            }
            groups.push(Vec::new());
            let skipped = long - CONTEXT;
            (stretch.old.start, stretch.new.start) = (a + skipped, b + skipped);
        }
        if let Some(group) = groups.last_mut() {
            group.push(stretch);
        }
    }
    let mut out = String::new();
    for group in groups.iter().filter(|group| group.iter().any(|s| !s.equal)) {
        write_group(group, old, new, &mut out);
    }
    out
}

fn write_group(group: &[Stretch], old: &[&str], new: &[&str], out: &mut String) {
    let (Some(first), Some(last)) = (group.first(), group.last()) else { return };
    let range = |start: usize, end: usize| match end - start {
        1 => format!("{}", start + 1),
        0 => format!("{start},0"),
        length => format!("{},{length}", start + 1),
    };
    let (a, b) = (range(first.old.start, last.old.end), range(first.new.start, last.new.end));
    out.push_str(&format!("@@ -{a} +{b} @@\n"));
    let mut lines = |sign: char, lines: &[&str]| {
        for line in lines {
            out.push(sign);
            out.push_str(line);
            out.push('\n');
        }
    };
    for stretch in group {
        if stretch.equal {
            lines(' ', &old[stretch.old.clone()]);
        } else {
            lines('-', &old[stretch.old.clone()]);
            lines('+', &new[stretch.new.clone()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_tree::tree;

    #[test]
    fn a_change_with_its_context() {
        let old = tree!({"template": null, "containers": [{"name": "a", "image": "b"}], "hostNetwork": true});
        let mut new = old.clone();
        new.set("hostNetwork", false);
        let text = between("core.v1.PodSpec", &old, &new);
        assert_eq!(
            text,
            "@@ -44,7 +44,7 @@\n  \"DeprecatedServiceAccount\": \"\",\n  \"AutomountServiceAccountToken\": null,\n  \"NodeName\": \
             \"\",\n- \"HostNetwork\": true,\n+ \"HostNetwork\": false,\n  \"HostPID\": false,\n  \"HostIPC\": false,\n  \
             \"ShareProcessNamespace\": null,\n"
        );
        assert_eq!(between("core.v1.PodSpec", &old, &old), "");
    }

    #[test]
    fn huge_values_are_compared_roughly() {
        let lines: Vec<String> = (0..10_000).map(|i| i.to_string()).collect();
        let old: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut new = old.clone();
        new[5_000] = "x";
        assert_eq!(unified(&old, &new), "@@ -4998,7 +4998,7 @@\n 4997\n 4998\n 4999\n-5000\n+x\n 5001\n 5002\n 5003\n");
    }
}
