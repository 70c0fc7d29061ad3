//! Progress for people: one line per step, a spinner while it runs; plain lines where there is no terminal.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// A step under way.
pub struct Step {
    bar: ProgressBar,
    what: String,
    began: Instant,
    plain: bool,
}

impl Step {
    /// Begins a step.
    pub fn begin(what: impl Into<String>) -> Step {
        let what = what.into();
        let plain = !std::io::stderr().is_terminal();
        let bar = if plain { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        bar.set_style(
            ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        bar.set_message(what.clone());
        if !plain {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        Step { bar, what, began: Instant::now(), plain }
    }

    /// Says where the step stands.
    pub fn note(&self, detail: &str) {
        if self.plain {
            eprintln!("  {}: {detail}", self.what);
        } else {
            self.bar.set_message(format!("{}: {detail}", self.what));
        }
    }

    /// Says something that stays on the screen.
    pub fn warn(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// Ends the step.
    pub fn done(self) {
        let seconds = self.began.elapsed().as_secs_f64();
        self.bar.finish_and_clear();
        eprintln!("✓ {} ({seconds:.1} s)", self.what);
    }
}
