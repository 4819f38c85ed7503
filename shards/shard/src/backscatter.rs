//! How many reports are made of mail from strangers (grammar §4.7, `bounce limit`). Whoever sends such mail may have written somebody
//! else into the reverse-path, who then has what he knows nothing of: so nobody, no domain, and not all together get more
//! than so many in a time. What is beyond that is told in the log and counted, and not sent.
//!
//! One for all shards of an engine: it is asked for nothing but such reports. A limit is a time in an atomic, at which all
//! that was let through would have been spread evenly (GCRA). There are so many of those, whatever addresses there are: two
//! that fall on the same one share its limit. Which do so, nobody outside can know.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use ringpost_address::{Folded, split_address};
use ringpost_conf::{BounceLimits, Rate};

use crate::limits::BACKSCATTER_CELLS;

/// What was let through.
#[derive(Debug)]
pub struct Backscatter {
    /// The first shard's, so that nobody can choose what falls together.
    seed: OnceLock<u64>,
    senders: Box<[AtomicU64]>,
    domains: Box<[AtomicU64]>,
    total: AtomicU64,
}

impl Default for Backscatter {
    fn default() -> Self {
        let cells = || (0..BACKSCATTER_CELLS).map(|_| AtomicU64::new(0)).collect();
        Self { seed: OnceLock::new(), senders: cells(), domains: cells(), total: AtomicU64::new(0) }
    }
}

/// The limit that is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Over {
    /// As the configuration has it: `per-sender`, `per-domain`, `total`.
    pub(crate) name: &'static str,
    pub(crate) rate: Rate,
}

impl Backscatter {
    /// Whether one more report may go to `sender` at `now_ms`, milliseconds since the epoch; then it is counted. `seed` gives
    /// something random.
    ///
    /// # Errors
    /// A limit is met, and nothing is counted.
    pub(crate) fn admit(
        &self,
        limits: &BounceLimits,
        sender: &str,
        now_ms: u64,
        seed: impl FnOnce() -> u64,
    ) -> Result<(), Over> {
        let asked = self.asked(limits, sender, *self.seed.get_or_init(seed));
        for (place, (cell, name, rate)) in asked.iter().enumerate() {
            if !take(cell, *rate, now_ms) {
                // What the others have let through is not sent.
                asked[..place].iter().for_each(|(cell, _, rate)| give_back(cell, *rate));
                return Err(Over { name, rate: *rate });
            }
        }
        Ok(())
    }

    /// A report that was admitted with these `limits` was not sent: it does not count. Its place is there for another one.
    pub(crate) fn take_back(&self, limits: &BounceLimits, sender: &str) {
        // Nothing was admitted before there was a seed.
        let Some(seed) = self.seed.get() else { return };
        self.asked(limits, sender, *seed).iter().for_each(|(cell, _, rate)| give_back(cell, *rate));
    }

    /// What a report to `sender` counts for, with the name and the rate of each.
    fn asked(&self, limits: &BounceLimits, sender: &str, seed: u64) -> [(&AtomicU64, &'static str, Rate); 3] {
        let domain = split_address(sender).map_or("", |(_, domain)| domain);
        [
            (cell(&self.senders, seed, sender), "per-sender", limits.per_sender),
            (cell(&self.domains, seed, domain), "per-domain", limits.per_domain),
            (&self.total, "total", limits.total),
        ]
    }
}

fn cell<'c>(cells: &'c [AtomicU64], seed: u64, name: &str) -> &'c AtomicU64 {
    let mut hasher = DefaultHasher::new();
    (seed, Folded::new(name).as_str()).hash(&mut hasher);
    &cells[hasher.finish() as usize % cells.len()]
}

/// Of `count` in a time, one after the other, each has so many microseconds.
fn interval_us(rate: Rate) -> u64 {
    let per_us = u64::try_from(rate.per.as_micros()).unwrap_or(u64::MAX);
    (per_us / u64::from(rate.count)).max(1)
}

/// Lets one more through, if there is room: as many as `rate` says at once, and then one as each interval ends.
fn take(cell: &AtomicU64, rate: Rate, now_ms: u64) -> bool {
    let (now, interval) = (now_ms.saturating_mul(1000), interval_us(rate));
    let window = interval.saturating_mul(u64::from(rate.count));
    let after = |until: u64| {
        // A time that no counting leads to is of another configuration, or of a clock that was wrong.
        let from = if until > now.saturating_add(window) { now } else { until.max(now) };
        Some(from.saturating_add(interval)).filter(|after| *after <= now.saturating_add(window))
    };
    cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).is_ok()
}

fn give_back(cell: &AtomicU64, rate: Rate) {
    cell.fetch_sub(interval_us(rate), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const NOW: u64 = 1_795_900_000_000;

    fn limits(per_sender: u32, per_domain: u32, total: u32) -> BounceLimits {
        let rate = |count| Rate { count, per: Duration::from_secs(3600) };
        BounceLimits { per_sender: rate(per_sender), per_domain: rate(per_domain), total: rate(total) }
    }

    /// How many of `count` are let through.
    fn let_through(held: &Backscatter, limits: &BounceLimits, sender: impl Fn(u32) -> String, count: u32) -> u32 {
        (0..count).filter(|number| held.admit(limits, &sender(*number), NOW, || 7).is_ok()).count() as u32
    }

    #[test]
    fn each_limit_holds_and_says_its_name() {
        let held = Backscatter::default();
        let few = limits(3, 5, 8);
        assert_eq!(let_through(&held, &few, |_| "a@one.example".into(), 10), 3);
        let over = held.admit(&few, "A@One.Example", NOW, || 7).expect_err("the same in other letters");
        assert_eq!((over.name, over.rate), ("per-sender", few.per_sender));
        assert_eq!(let_through(&held, &few, |n| format!("b{n}@one.example"), 10), 2);
        assert_eq!(held.admit(&few, "c@one.example", NOW, || 7).expect_err("the domain's").name, "per-domain");
        assert_eq!(let_through(&held, &few, |n| format!("b@d{n}.example"), 10), 3);
        assert_eq!(held.admit(&few, "b@other.example", NOW, || 7).expect_err("all of them").name, "total");
    }

    #[test]
    fn what_one_limit_refuses_counts_for_none() {
        let held = Backscatter::default();
        let few = limits(1, 2, 100);
        assert_eq!(let_through(&held, &few, |_| "a@one.example".into(), 50), 1);
        assert!(held.admit(&few, "b@one.example", NOW, || 7).is_ok(), "the domain had one");
        // Those that the domain refuses are not counted for their senders, nor for all.
        assert_eq!(let_through(&held, &few, |_| "c@one.example".into(), 200), 0);
        assert_eq!(let_through(&held, &few, |n| format!("a@d{n}.example"), 98), 98);
    }

    #[test]
    fn what_was_admitted_and_not_sent_counts_for_none() {
        let held = Backscatter::default();
        let few = limits(3, 5, 8);
        held.take_back(&few, "a@one.example");
        for _ in 0..100 {
            assert!(held.admit(&few, "a@one.example", NOW, || 7).is_ok());
            held.take_back(&few, "A@one.example");
        }
        assert_eq!(let_through(&held, &few, |_| "a@one.example".into(), 10), 3);
        assert_eq!(let_through(&held, &few, |n| format!("b{n}@one.example"), 10), 2);
        assert_eq!(let_through(&held, &few, |n| format!("b@d{n}.example"), 10), 3);
    }

    #[test]
    fn there_is_room_again_as_time_goes_by() {
        let held = Backscatter::default();
        let few = limits(4, 100, 100);
        let admit = |at_ms: u64| held.admit(&few, "a@one.example", at_ms, || 7).is_ok();
        assert_eq!((0..9).filter(|_| admit(NOW)).count(), 4);
        assert!(!admit(NOW + HOUR_MS / 4 - 1) && admit(NOW + HOUR_MS / 4) && !admit(NOW + HOUR_MS / 4));
        assert_eq!((0..9).filter(|_| admit(NOW + 5 * HOUR_MS)).count(), 4, "what was not used is not saved up");
    }

    #[test]
    fn a_clock_that_was_wrong_shuts_nobody_out() {
        let held = Backscatter::default();
        let few = limits(2, 100, 100);
        assert!(held.admit(&few, "a@one.example", NOW + 1000 * HOUR_MS, || 7).is_ok());
        assert!(held.admit(&few, "a@one.example", NOW, || 7).is_ok());
    }

    #[test]
    fn all_threads_together_have_what_one_would_have() {
        let held = std::sync::Arc::new(Backscatter::default());
        let shards: Vec<_> = (0..4)
            .map(|_| {
                let held = held.clone();
                std::thread::spawn(move || let_through(&held, &limits(50, 500, 500), |_| "a@one.example".into(), 100))
            })
            .collect();
        let all: u32 = shards.into_iter().map(|shard| shard.join().expect("it counts")).sum();
        assert_eq!(all, 50);
    }
}
