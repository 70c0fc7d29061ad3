//! What is wrong with an expression, shown as cel-go shows it (`common/error.go`, `common/errors.go`).

use std::fmt;

/// The most issues that are kept of one expression.
const ISSUES_MAX: usize = 100;
/// A longer line is not shown below its message, in bytes.
const SNIPPET_BYTES_MAX: usize = 16384;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// The line, from 1; -1 if it has no place.
    pub line: i32,
    /// The code point within the line, from 0; -1 if it has no place.
    pub column: i32,
    /// What is wrong.
    pub message: String,
}

/// All that is wrong with one expression. Prints upstream's text, with the lines of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issues {
    issues: Vec<Issue>,
    count: usize,
    lines: Vec<String>,
}

impl Issues {
    /// No issues of `source` yet.
    pub(crate) fn new(source: &str) -> Issues {
        Issues { issues: Vec::new(), count: 0, lines: source.split('\n').map(str::to_owned).collect() }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What is wrong, by place.
    pub fn list(&self) -> &[Issue] {
        &self.issues
    }

    /// Adds an issue at a code point of the source.
    pub(crate) fn report(&mut self, pos: u32, message: impl Into<String>) {
        let (line, column) = self.place(pos);
        self.push(Issue { line, column, message: message.into() });
    }

    /// Adds an issue that has no place.
    pub(crate) fn report_nowhere(&mut self, message: impl Into<String>) {
        self.push(Issue { line: -1, column: -1, message: message.into() });
    }

    fn push(&mut self, issue: Issue) {
        self.count += 1;
        if self.issues.len() < ISSUES_MAX {
            let at = self.issues.partition_point(|have| (have.line, have.column) <= (issue.line, issue.column));
            self.issues.insert(at, issue);
        }
    }

    fn place(&self, pos: u32) -> (i32, i32) {
        let mut rest = pos as usize;
        for (number, line) in self.lines.iter().enumerate() {
            let length = line.chars().count();
            if rest <= length {
                return (number as i32 + 1, rest as i32);
            }
            rest -= length + 1;
        }
        (self.lines.len() as i32, 0)
    }
}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, issue) in self.issues.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            let nothing = self.lines.iter().all(String::is_empty) && self.lines.len() == 1;
            let column = if nothing { 0 } else { issue.column + 1 };
            write!(f, "ERROR: <input>:{}:{column}: {}", issue.line, issue.message)?;
            if nothing {
                // The parser's end of nothing stands before its start, and there is no line to show.
                continue;
            }
            let line = usize::try_from(issue.line - 1).ok().and_then(|line| self.lines.get(line));
            let Some(line) = line.filter(|line| line.len() <= SNIPPET_BYTES_MAX) else { continue };
            let snippet = line.replace('\t', " ");
            write!(f, "\n | {snippet}\n | ")?;
            let mut chars = snippet.chars();
            for c in chars.by_ref().take(issue.column as usize) {
                f.write_str(if c.len_utf8() > 1 { "\u{ff0e}" } else { "." })?;
            }
            f.write_str(if chars.next().is_some_and(|c| c.len_utf8() > 1) { "\u{ff3e}" } else { "^" })?;
        }
        if self.count > ISSUES_MAX {
            write!(f, "\n{} more errors were truncated", self.count - ISSUES_MAX)?;
        }
        Ok(())
    }
}

impl std::error::Error for Issues {}
