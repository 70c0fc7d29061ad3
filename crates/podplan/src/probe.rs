//! Probes as state machines: thresholds and verdicts (`pkg/kubelet/prober/worker.go`).

use corten_views::container::Probe;

use crate::ProbeKind;

/// One probe's run of equal outcomes and its verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProbeState {
    last: Option<bool>,
    run: i32,
    verdict: Option<bool>,
}

impl ProbeState {
    /// Notes one outcome; true if the verdict changed.
    pub fn note(&mut self, probe: &Probe, ok: bool) -> bool {
        self.run = if self.last == Some(ok) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(ok);
        let threshold = if ok { probe.success_threshold.max(1) } else { probe.failure_threshold.max(1) };
        if self.run < threshold || self.verdict == Some(ok) {
            return false;
        }
        self.verdict = Some(ok);
        true
    }

    /// The verdict; `None` before the first.
    pub fn verdict(&self) -> Option<bool> {
        self.verdict
    }
}

/// The probes of one container instance.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProbeResults {
    startup: ProbeState,
    liveness: ProbeState,
    readiness: ProbeState,
}

impl ProbeResults {
    /// Notes one outcome; true if that probe's verdict changed.
    pub fn note(&mut self, kind: ProbeKind, probe: &Probe, ok: bool) -> bool {
        match kind {
            ProbeKind::Startup => self.startup.note(probe, ok),
            ProbeKind::Liveness => self.liveness.note(probe, ok),
            ProbeKind::Readiness => self.readiness.note(probe, ok),
        }
    }

    /// A probe's verdict.
    pub fn verdict(&self, kind: ProbeKind) -> Option<bool> {
        match kind {
            ProbeKind::Startup => self.startup.verdict(),
            ProbeKind::Liveness => self.liveness.verdict(),
            ProbeKind::Readiness => self.readiness.verdict(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds() {
        let probe = Probe { success_threshold: 2, failure_threshold: 3, ..Probe::default() };
        let mut state = ProbeState::default();
        let changes: Vec<bool> = [true, true, true, false, false, true, false, false, false]
            .iter()
            .map(|ok| state.note(&probe, *ok))
            .collect();
        assert_eq!(changes, [false, true, false, false, false, false, false, false, true]);
        assert_eq!(state.verdict(), Some(false));
    }
}
