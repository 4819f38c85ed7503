//! When a deferred envelope is tried again. Pure: the caller brings the randomness and the clock.

use std::time::Duration;

use crate::limits::{JITTER_PERCENT, RETRY_WAITS};

/// How long the next attempt waits, and when to give up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The wait after the first, second … failed attempt; the last one repeats.
    pub waits: Vec<Duration>,
    /// Per cent by which a wait may be shorter or longer, so that a returning destination is not met by everybody at once.
    pub jitter_percent: u32,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { waits: RETRY_WAITS.to_vec(), jitter_percent: JITTER_PERCENT }
    }
}

impl Schedule {
    /// These waits, then always this one.
    pub fn of(waits: &[Duration], then: Option<Duration>, jitter_percent: u8) -> Self {
        Self { waits: waits.iter().copied().chain(then).collect(), jitter_percent: u32::from(jitter_percent) }
    }

    /// The wait after `attempts` failed attempts before this one, spread by `random`.
    pub fn next(&self, attempts: u16, random: u64) -> Duration {
        wait(&self.waits, self.jitter_percent, attempts, random)
    }
}

/// The wait of the default schedule (1 m 5 m 15 m 30 m 1 h 2 h, then every 4 h; ± 10 %) after a failed attempt, when
/// `attempts` attempts had failed before it.
pub fn next(attempts: u16, random: u64) -> Duration {
    wait(&RETRY_WAITS, JITTER_PERCENT, attempts, random)
}

fn wait(waits: &[Duration], jitter_percent: u32, attempts: u16, random: u64) -> Duration {
    let Some(last) = waits.len().checked_sub(1) else { return Duration::ZERO };
    let plain_ms = waits[usize::from(attempts).min(last)].as_millis() as u64;
    let spread_ms = plain_ms * u64::from(jitter_percent.min(100)) / 100;
    Duration::from_millis(plain_ms - spread_ms + random % (2 * spread_ms + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s126_waits_grow_and_then_stay_at_four_hours() {
        let middle = |attempts| {
            let waits = Schedule { jitter_percent: 0, ..Schedule::default() };
            waits.next(attempts, 7).as_secs() / 60
        };
        let minutes: Vec<u64> = (0..9).map(middle).collect();
        assert_eq!(minutes, [1, 5, 15, 30, 60, 120, 240, 240, 240]);
        assert_eq!(middle(u16::MAX), 240);
    }

    #[test]
    fn s126_a_schedule_of_ones_own() {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let schedule = Schedule::of(&[minutes(2), minutes(4)], Some(minutes(9)), 50);
        let waits = [0, 1, 2, 7].map(|attempts| schedule.next(attempts, 0).as_secs());
        assert_eq!(waits, [60, 120, 270, 270], "the shortest of each");
        assert_eq!(Schedule::of(&[minutes(2)], None, 0).next(5, 1), minutes(2));
    }

    #[test]
    fn jitter_stays_within_ten_per_cent_and_uses_all_of_it() {
        let all: Vec<u64> = (0..20_000).map(|random| next(0, random).as_millis() as u64).collect();
        assert_eq!((all.iter().min(), all.iter().max()), (Some(&54_000), Some(&66_000)));
    }
}
