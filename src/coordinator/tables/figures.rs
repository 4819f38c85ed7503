//! What has been asked of a table, and how it went: counters and the latency of its backend.

use std::time::Duration;

use hdrhistogram::Histogram;
use ringpost_perf::Buckets;
use serde::{Deserialize, Serialize};

use super::limits::TIMEOUT;

/// The histogram's largest value; longer time-outs than the default are rare, and count as this.
const LONGEST_US: u64 = TIMEOUT.as_micros() as u64 * 10;
/// Significant digits: about a percent.
const DIGITS: u8 = 2;

/// Counted as it happens.
pub struct Counts {
    pub tally: Tally,
    took: Histogram<u32>,
    sum_us: u64,
}

impl Counts {
    /// Nothing yet.
    pub fn new() -> Self {
        let took = Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("bounds and digits are constants that fit");
        Self { tally: Tally::default(), took, sum_us: 0 }
    }

    /// How long a backend took.
    pub fn took(&mut self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).clamp(1, LONGEST_US);
        self.sum_us += us;
        self.took.saturating_record(us);
    }

    /// How long backends took, to be sent and merged.
    pub fn latency(&self) -> Buckets {
        let buckets = self.took.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value().into()));
        Buckets::new(buckets.collect(), self.sum_us)
    }
}

/// How lookups went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Lookups that were answered from what is kept.
    pub hits: u64,
    /// Lookups that waited for another one with the same key.
    pub joined: u64,
    /// Lookups that the backend was asked for.
    pub asked: u64,
    /// Entries that it had.
    pub found: u64,
    /// Keys that it does not have.
    pub not_found: u64,
    /// Lookups that it did not answer.
    pub failures: u64,
    /// Old answers that were given because the backend failed.
    pub stale: u64,
}

/// The state of a table, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Its name.
    pub name: String,
    /// Who answers, such as `sqlite:/etc/mail/sqlite.conf`.
    pub backend: String,
    /// The services that it is told how to answer; empty where only the backend knows.
    pub services: Vec<String>,
    /// Why it fails, if it does.
    pub failing: Option<String>,
    /// Answers that are kept now.
    pub kept: u64,
    /// Lookups under way now.
    pub waiting: u64,
    /// How often its backend was opened, connected to or started.
    pub connections: u64,
    /// How lookups went.
    #[serde(flatten)]
    pub tally: Tally,
    /// How long it took.
    pub latency: Buckets,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_kept_to_a_percent() {
        let mut counts = Counts::new();
        for ms in 1..=100 {
            counts.took(Duration::from_millis(ms));
        }
        counts.took(Duration::from_secs(1000));
        let latency = counts.latency();
        assert_eq!(latency.count(), 101);
        let median = latency.quantile_us(0.5) as f64;
        assert!((median / 51_000.0 - 1.0).abs() < 0.02, "{median}");
    }
}
