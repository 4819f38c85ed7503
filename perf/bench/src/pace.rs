//! When the next message of an open-loop run is due. A late server does not slow the schedule down: the delay is
//! counted in the message's latency, or the worst moments would be the ones not measured.

use std::time::{Duration, Instant};

/// A steady schedule of `rate` messages a second.
#[derive(Debug)]
pub struct Pace {
    start: Instant,
    rate: f64,
    taken: u64,
}

impl Pace {
    /// Begins at `start`; `rate` is above zero.
    pub fn new(start: Instant, rate: f64) -> Self {
        Self { start, rate, taken: 0 }
    }

    /// When the next message is due.
    pub fn next_due(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.taken as f64 / self.rate)
    }

    /// Takes the next message if it is due at `now`; gives the time it was meant for.
    pub fn take(&mut self, now: Instant) -> Option<Instant> {
        let due = self.next_due();
        (due <= now).then(|| {
            self.taken += 1;
            due
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_caller_gets_all_that_became_due_at_their_own_times() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 100.0);
        assert_eq!(pace.take(start), Some(start));
        assert_eq!(pace.take(start), None);
        let late = start + Duration::from_millis(35);
        let due: Vec<u128> = std::iter::from_fn(|| pace.take(late)).map(|at| (at - start).as_millis()).collect();
        assert_eq!(due, [10, 20, 30]);
    }
}
