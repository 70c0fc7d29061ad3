//! The comparison's table, and its place in docs/benchmarks.md.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use corten_load::{Sample, thousands};

use super::ms;

const BEGIN: &str = "<!-- written by `cargo xtask bench api`; not edited by hand -->";
/// Begins the section of `bench workloads`.
pub(super) const BEGIN_WORKLOADS: &str = "<!-- written by `cargo xtask bench workloads`; not edited by hand -->";
/// Ends a section.
pub(super) const END: &str = "<!-- end -->";

/// What a row compares.
pub(super) enum Figures {
    /// More per second is better; p99 must be no worse.
    Rate(Sample, Sample),
    /// Only the times are compared: the rate is given.
    Times(Sample, Sample),
    /// Less is better, in KiB.
    Memory(u64, u64),
}

/// A row: upstream's figures before Corten's.
pub(super) struct Row {
    pub work: String,
    pub figures: Figures,
    /// The ratio that is aimed at; none where only p99 counts.
    pub target: Option<f64>,
}

impl Row {
    fn cells(&self) -> [String; 5] {
        let target = self.target;
        match &self.figures {
            Figures::Rate(theirs, ours) => {
                let ratio = ours.per_second() / theirs.per_second().max(1e-9);
                let target = target.map_or(String::new(), |t| verdict(&format!("≥ {t}×"), ratio >= t));
                [rate(theirs), rate(ours), format!("{ratio:.1}×"), target, p99(theirs, ours)]
            }
            Figures::Times(theirs, ours) => {
                let of = |s: &Sample| {
                    format!("p50 {}, p99 {}, {} CPU", ms(s.quantile(0.5)), ms(s.quantile(0.99)), micros(s.cpu()))
                };
                let ratio = theirs.quantile(0.5).as_secs_f64() / ours.quantile(0.5).as_secs_f64().max(1e-9);
                [of(theirs), of(ours), format!("{ratio:.1}× sooner"), String::new(), p99(theirs, ours)]
            }
            Figures::Memory(theirs, ours) => {
                let mib = |kib: u64| format!("{:.0} MiB", kib as f64 / 1024.0);
                let ratio = *theirs as f64 / (*ours).max(1) as f64;
                let target = target.map_or(String::new(), |t| verdict(&format!("≤ 1/{t}"), ratio >= t));
                [mib(*theirs), mib(*ours), format!("1/{ratio:.1}"), target, String::new()]
            }
        }
    }

    /// Whether the row's targets are met.
    pub fn met(&self) -> bool {
        !self.cells().iter().any(|c| c.contains("missed") || c.contains("worse by"))
    }
}

fn rate(sample: &Sample) -> String {
    format!("{sample}, {} CPU", micros(sample.cpu()))
}

/// CPU of one request.
fn micros(time: Duration) -> String {
    match time.as_secs_f64() * 1e6 {
        us if us < 1000.0 => format!("{us:.0} µs"),
        us => format!("{:.1} ms", us / 1000.0),
    }
}

fn verdict(target: &str, met: bool) -> String {
    format!("{target}: {}", if met { "met" } else { "missed" })
}

fn p99(theirs: &Sample, ours: &Sample) -> String {
    let (theirs, ours) = (theirs.quantile(0.99).as_secs_f64(), ours.quantile(0.99).as_secs_f64());
    match ours / theirs.max(1e-9) {
        part if part <= 1.0 => format!("{part:.2}"),
        part => format!("worse by {part:.2}"),
    }
}

/// The section of the page.
pub(super) fn section(conditions: &str, rows: &[Row]) -> String {
    let mut text = format!(
        "## Beside upstream's API server\n\n{BEGIN}\n\n{conditions}\n\n\
         | work | kube-apiserver + etcd | Corten | ratio | target | p99, of upstream's |\n|---|---|---|---|---|---|\n"
    );
    for row in rows {
        text.push_str(&format!("| {} | {} |\n", row.work, row.cells().join(" | ")));
    }
    let met = rows.iter().filter(|r| r.met()).count();
    text.push_str(&format!(
        "\n{} of {} rows meet all their targets.\n\n{END}\n",
        thousands_of(met),
        thousands_of(rows.len())
    ));
    text
}

fn thousands_of(count: usize) -> String {
    if count < 10 { count.to_string() } else { thousands(count as f64) }
}

/// Puts the section into the page, in place of an older one.
///
/// # Errors
/// If the page cannot be read or written.
pub(super) fn write(page: &Path, section: &str) -> Result<()> {
    let text = std::fs::read_to_string(page).with_context(|| page.display().to_string())?;
    std::fs::write(page, replaced(&text, section)).with_context(|| page.display().to_string())
}

fn replaced(page: &str, section: &str) -> String {
    let heading = section.lines().next().unwrap_or_default();
    let old = page.find(heading).and_then(|begin| {
        let end = page[begin..].find(END)? + begin + END.len();
        Some((&page[..begin], page[end..].trim_start_matches('\n')))
    });
    match old {
        Some((before, "")) => format!("{before}{section}"),
        Some((before, after)) => format!("{before}{section}\n{after}"),
        None => format!("{}\n\n{section}", page.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(per_second: usize, p99_ms: u64) -> Sample {
        let nanos = vec![p99_ms * 1_000_000; per_second];
        Sample { span: Duration::from_secs(1), nanos, ..Sample::default() }
    }

    #[test]
    fn targets_are_judged() {
        let row = |theirs, ours| Row { work: "GET".into(), figures: Figures::Rate(theirs, ours), target: Some(5.0) };
        let good = row(sample(100, 10), sample(500, 5));
        assert!(good.met(), "{:?}", good.cells());
        assert_eq!(good.cells()[2..], ["5.0×", "≥ 5×: met", "0.50"]);
        assert!(!row(sample(100, 10), sample(499, 5)).met());
        assert!(!row(sample(100, 10), sample(500, 11)).met());
        let memory = Row { work: "m".into(), figures: Figures::Memory(800, 100), target: Some(8.0) };
        assert_eq!(memory.cells()[2..4], ["1/8.0", "≤ 1/8: met"]);
    }

    #[test]
    fn a_section_replaces_its_older_self() {
        let rows = |n| [Row { work: "GET".into(), figures: Figures::Memory(n, 1), target: None }];
        let (first, second) = (section("a", &rows(8)), section("b", &rows(9)));
        let page = replaced("# Page\n\ntext\n", &first);
        assert_eq!(page, format!("# Page\n\ntext\n\n{first}"));
        let page = format!("{page}\n## Next\n");
        assert_eq!(replaced(&page, &second), format!("# Page\n\ntext\n\n{second}\n## Next\n"));
    }
}
