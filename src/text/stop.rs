//! Stop strings, found however the text is cut.

use crate::error::{Error, Result};

/// More than this is no stop list.
pub const MAX_STOPS: usize = 16;
/// Longest stop string; as much may be held back.
pub const MAX_STOP_BYTES: usize = 1024;

/// Looks for stop strings in a stream. The one that is complete first ends the text, the longest if several end at the
/// same character; it and all after it is not given out.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// What could be the beginning of a stop string.
    held: String,
    stopped: bool,
}

/// What came of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopPush {
    /// Text that can no longer be part of a stop string.
    pub emit: String,
    /// A stop string is complete: the text ends with `emit`.
    pub stopped: bool,
}

impl StopMatcher {
    /// # Errors
    /// [`Error::BadOption`]: more than [`MAX_STOPS`] strings, an empty one, one longer than [`MAX_STOP_BYTES`].
    pub fn new(stops: Vec<String>) -> Result<StopMatcher> {
        let bad = |name: String, found: String, expected: String| Err(Error::BadOption { name, found, expected });
        if stops.len() > MAX_STOPS {
            return bad("stop".into(), format!("{} strings", stops.len()), format!("at most {MAX_STOPS}"));
        }
        for (i, stop) in stops.iter().enumerate() {
            if stop.is_empty() || stop.len() > MAX_STOP_BYTES {
                let expected = format!("1 to {MAX_STOP_BYTES} bytes");
                return bad(format!("stop[{i}]"), format!("{} bytes long", stop.len()), expected);
            }
        }
        Ok(StopMatcher { stops, held: String::new(), stopped: false })
    }

    /// Takes text, gives out what is certain. After a stop nothing comes any more.
    pub fn push(&mut self, text: &str) -> StopPush {
        if self.stopped {
            return StopPush { emit: String::new(), stopped: true };
        }
        self.held.push_str(text);
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str()).map(|at| (at + stop.len(), at)));
        if let Some((_, start)) = found.min() {
            self.stopped = true;
            self.held.truncate(start);
            return StopPush { emit: std::mem::take(&mut self.held), stopped: true };
        }
        let keep_from = self.held.len() - self.held_back();
        let rest = self.held.split_off(keep_from);
        StopPush { emit: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// Bytes of the longest end of `held` that is a beginning of a stop string.
    fn held_back(&self) -> usize {
        let longest = |stop: &String| {
            let most = (stop.len() - 1).min(self.held.len());
            (1..=most).rev().find(|&length| self.held.as_bytes().ends_with(&stop.as_bytes()[..length])).unwrap_or(0)
        };
        self.stops.iter().map(longest).max().unwrap_or(0)
    }

    /// Ends the text: gives out what is held back.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}
