//! The stages of a message's way and how long each takes: HdrHistograms that belong to one shard.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::histograms::Buckets;
use crate::limits::{DIGITS, QUEUE_MAX, SESSION_MAX};

/// Stages in the order in which a message meets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// From the kernel's connection to the session's first step.
    Accept,
    /// From a command's arrival to its reply.
    Command,
    /// From 354 to the last byte of the message.
    DataReceive,
    /// From the last byte to the durable batch.
    CommitWait,
    /// From durable to the attempt of delivery.
    QueueWait,
    /// Connecting to the next server, to its greeting.
    Connect,
    /// From MAIL to the next server's last reply.
    RemoteTransaction,
    /// Delivery on this machine.
    Local,
    /// From the message's arrival to the end of the delivery.
    Total,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Stage; 9] = [
        Stage::Accept,
        Stage::Command,
        Stage::DataReceive,
        Stage::CommitWait,
        Stage::QueueWait,
        Stage::Connect,
        Stage::RemoteTransaction,
        Stage::Local,
        Stage::Total,
    ];

    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Accept => "accept",
            Stage::Command => "command",
            Stage::DataReceive => "data receive",
            Stage::CommitWait => "commit wait",
            Stage::QueueWait => "queue wait",
            Stage::Connect => "connect",
            Stage::RemoteTransaction => "remote transaction",
            Stage::Local => "local",
            Stage::Total => "total",
        }
    }

    /// Name in labels and JSON: as [`Stage::name`], in one word.
    pub fn label(self) -> String {
        self.name().replace(' ', "_")
    }

    /// What is longer counts as this.
    fn longest(self) -> Duration {
        match self {
            Stage::QueueWait | Stage::Total => QUEUE_MAX,
            _ => SESSION_MAX,
        }
    }
}

/// Latencies of one shard. A histogram is made when its stage first occurs, so that an idle server is small.
#[derive(Debug, Default)]
pub struct Stages {
    stages: RefCell<[Option<Histogram<u32>>; Stage::ALL.len()]>,
    sums_us: [Cell<u64>; Stage::ALL.len()],
}

impl Stages {
    /// Nothing recorded.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one. Below 1 µs counts as 1 µs; above an hour (five days, for stages that wait for a retry) as that.
    pub fn record(&self, stage: Stage, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).clamp(1, stage.longest().as_micros() as u64);
        let sum = &self.sums_us[stage as usize];
        sum.set(sum.get().saturating_add(us));
        self.stages.borrow_mut()[stage as usize].get_or_insert_with(|| histogram(stage)).saturating_record(us);
    }

    /// What was recorded so far: a copy of the buckets in use, below a millisecond of work.
    pub fn snapshot(&self) -> StagesSnapshot {
        let stages = self.stages.borrow();
        let copy = |stage: &Stage| match &stages[*stage as usize] {
            None => Buckets::default(),
            Some(histogram) => {
                let used = histogram.iter_recorded();
                let used = used.map(|step| (step.value_iterated_to(), step.count_since_last_iteration()));
                Buckets::new(used.collect(), self.sums_us[*stage as usize].get())
            }
        };
        StagesSnapshot { stages: Stage::ALL.iter().map(copy).collect() }
    }
}

fn histogram(stage: Stage) -> Histogram<u32> {
    let highest = stage.longest().as_micros() as u64;
    Histogram::new_with_bounds(1, highest, DIGITS).expect("the bounds are constants that fit")
}

/// Latencies by stage at one moment, of one shard or of several merged. Each value keeps three digits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagesSnapshot {
    stages: Vec<Buckets>,
}

/// The figures of one stage that people read, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageSummary {
    /// Which, as [`Stage::label`].
    pub stage: String,
    /// How many.
    pub count: u64,
    /// Arithmetic mean.
    pub mean_us: f64,
    /// Median.
    pub p50_us: u64,
    /// 90th percentile.
    pub p90_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// 99.9th percentile.
    pub p999_us: u64,
    /// Longest.
    pub max_us: u64,
}

impl StagesSnapshot {
    /// Latencies of `stage`; empty when it has not occurred.
    pub fn stage(&self, stage: Stage) -> &Buckets {
        const NONE: &Buckets = &Buckets::EMPTY;
        self.stages.get(stage as usize).unwrap_or(NONE)
    }

    /// Adds another shard's.
    pub fn merge(&mut self, other: &Self) {
        if self.stages.len() < other.stages.len() {
            self.stages.resize_with(other.stages.len(), Buckets::default);
        }
        for (mine, theirs) in self.stages.iter_mut().zip(&other.stages) {
            mine.merge(theirs);
        }
    }

    /// What came after `earlier`, an older snapshot of the same shards.
    pub fn since(&self, earlier: &Self) -> Self {
        Self { stages: Stage::ALL.iter().map(|stage| self.stage(*stage).since(earlier.stage(*stage))).collect() }
    }

    /// The figures of each stage that occurred, in order.
    pub fn summaries(&self) -> Vec<StageSummary> {
        let occurred = Stage::ALL.iter().filter(|stage| self.stage(**stage).count() > 0);
        occurred.map(|stage| self.summary(*stage)).collect()
    }

    /// The figures of `stage`; all zero when it has not occurred.
    pub fn summary(&self, stage: Stage) -> StageSummary {
        let buckets = self.stage(stage);
        StageSummary {
            stage: stage.label(),
            count: buckets.count(),
            mean_us: buckets.mean_us(),
            p50_us: buckets.quantile_us(0.5),
            p90_us: buckets.quantile_us(0.9),
            p99_us: buckets.quantile_us(0.99),
            p999_us: buckets.quantile_us(0.999),
            max_us: buckets.max_us(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_keeps_three_digits_and_its_own_bounds() {
        let stages = Stages::new();
        for number in 1..=1000 {
            stages.record(Stage::CommitWait, Duration::from_micros(number * 10));
        }
        stages.record(Stage::Command, Duration::ZERO);
        stages.record(Stage::Connect, Duration::from_hours(100));
        stages.record(Stage::Total, Duration::from_hours(100));
        let snapshot = stages.snapshot();
        let commit = snapshot.summary(Stage::CommitWait);
        assert_eq!(commit.count, 1000);
        assert!((4_990..=5_010).contains(&commit.p50_us), "{}", commit.p50_us);
        assert!((9_890..=9_920).contains(&commit.p99_us), "{}", commit.p99_us);
        assert_eq!(commit.mean_us, 5005.0);
        assert_eq!(snapshot.stage(Stage::Command).max_us(), 1);
        let hours = |stage| snapshot.stage(stage).max_us() as f64 / 3.6e9;
        assert!((hours(Stage::Connect) - 1.0).abs() < 0.002, "{}", hours(Stage::Connect));
        assert!((hours(Stage::Total) - 100.0).abs() < 0.2, "{}", hours(Stage::Total));
        assert_eq!(snapshot.summary(Stage::Accept).count, 0);
        assert_eq!(snapshot.summaries().len(), 4);
    }

    #[test]
    fn shards_merge_into_what_one_would_have_recorded_and_json_keeps_it() {
        let (one, two, both) = (Stages::new(), Stages::new(), Stages::new());
        for number in 1..2000u64 {
            let took = Duration::from_micros(number * number);
            let stage = Stage::ALL[number as usize % Stage::ALL.len()];
            if number % 3 == 0 { &one } else { &two }.record(stage, took);
            both.record(stage, took);
        }
        let mut merged = StagesSnapshot::default();
        merged.merge(&one.snapshot());
        merged.merge(&two.snapshot());
        assert_eq!(merged, both.snapshot());
        assert_eq!(merged.since(&one.snapshot()), two.snapshot());
        let text = serde_json::to_string(&merged).unwrap();
        assert_eq!(serde_json::from_str::<StagesSnapshot>(&text).unwrap(), merged);
    }
}
