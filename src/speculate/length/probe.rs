//! When to try what is not done, since what is never tried is never found to pay: a device drafter that is off, a plain step
//! while drafts pay, a step that waits while going ahead pays.

/// Rounds between probes at first, and at most.
pub(super) const PROBE_ROUNDS: (usize, usize) = (4, 256);

/// Rounds since the last probe, and after how many the next is due.
#[derive(Clone, Copy)]
pub(in crate::speculate) struct Probe {
    pub(super) waited: usize,
    pub(super) rounds: usize,
}

impl Probe {
    /// The first of which is due after so many rounds.
    pub(in crate::speculate) const fn after(rounds: usize) -> Probe {
        Probe { waited: 0, rounds }
    }

    /// Counts a round. Each time in vain the next one waits longer, until what is lost at worst is no more than `share` of
    /// the time.
    pub(in crate::speculate) fn is_due(&mut self, lost_ms: f64, share: f64, round_ms: f64) -> bool {
        self.waited += 1;
        let due = self.waited >= self.rounds;
        if due {
            let most = (lost_ms / (share * round_ms)).ceil() as usize;
            *self = Probe { waited: 0, rounds: (2 * self.rounds).min(most.clamp(PROBE_ROUNDS.0, PROBE_ROUNDS.1)) };
        }
        due
    }
}

impl Default for Probe {
    fn default() -> Self {
        Probe::after(PROBE_ROUNDS.0)
    }
}
