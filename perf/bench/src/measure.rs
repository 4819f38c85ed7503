//! How long each step of a session took, and what was refused. Histograms in microseconds, 3 digits.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::limits::REFUSALS_MAX;

/// Steps of a session, in order. `Message` is from when a message was due to its last reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The TCP handshake.
    Connect,
    /// From the handshake to 220.
    Greeting,
    /// EHLO (or HELO).
    Hello,
    /// MAIL FROM.
    Mail,
    /// Each RCPT TO.
    Rcpt,
    /// DATA to 354.
    Data,
    /// From the body to its 250: what a durable server spends.
    EndOfData,
    /// The whole transaction, from when it was due.
    Message,
}

impl Step {
    /// All steps, in order.
    pub const ALL: [Step; 8] = [
        Step::Connect,
        Step::Greeting,
        Step::Hello,
        Step::Mail,
        Step::Rcpt,
        Step::Data,
        Step::EndOfData,
        Step::Message,
    ];

    /// Name in reports.
    pub fn name(self) -> &'static str {
        ["connect", "greeting", "ehlo", "mail", "rcpt", "data", "end-of-data", "message"][self as usize]
    }
}

/// Distribution of one step, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Which step.
    pub step: &'static str,
    /// How many were measured.
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

impl Latency {
    /// Of a histogram in microseconds.
    pub fn of(step: &'static str, histogram: &Histogram<u64>) -> Self {
        Self {
            step,
            count: histogram.len(),
            mean_us: histogram.mean(),
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        }
    }
}

/// An empty histogram of 1 µs to an hour.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are valid")
}

/// One kind of refusal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Refusal {
    /// Step at which it came.
    pub step: &'static str,
    /// Reply code (RFC 5321 §4.2).
    pub code: u16,
    /// How often.
    pub count: u64,
    /// The first one's text.
    pub text: String,
}

/// All measures of a run.
#[derive(Debug)]
pub struct Measures {
    steps: Vec<Histogram<u64>>,
    refusals: BTreeMap<(Step, u16), (u64, String)>,
}

impl Measures {
    /// Nothing measured yet.
    pub fn new() -> Self {
        Self { steps: vec![histogram(); Step::ALL.len()], refusals: BTreeMap::new() }
    }

    /// Adds one; what is shorter than 1 µs counts as 1 µs, what is longer than an hour as an hour.
    pub fn record(&mut self, step: Step, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        self.steps[step as usize].saturating_record(micros);
    }

    /// Counts a refusal; beyond [`REFUSALS_MAX`] kinds only known kinds are counted.
    pub fn refuse(&mut self, step: Step, code: u16, text: &[u8]) {
        if let Some((count, _)) = self.refusals.get_mut(&(step, code)) {
            *count += 1;
        } else if self.refusals.len() < REFUSALS_MAX {
            let text = String::from_utf8_lossy(text).trim_end().to_owned();
            self.refusals.insert((step, code), (1, text));
        }
    }

    /// Whole transactions' 99th percentile, in microseconds, for the bar.
    pub fn message_p99_us(&self) -> u64 {
        self.steps[Step::Message as usize].value_at_quantile(0.99)
    }

    /// Steps that occurred.
    pub fn latencies(&self) -> Vec<Latency> {
        let measured = Step::ALL.iter().zip(&self.steps).filter(|(_, histogram)| !histogram.is_empty());
        measured.map(|(step, histogram)| Latency::of(step.name(), histogram)).collect()
    }

    /// Refusals by step and code.
    pub fn refusals(&self) -> Vec<Refusal> {
        let kinds = self.refusals.iter();
        kinds
            .map(|((step, code), (count, text))| Refusal {
                step: step.name(),
                code: *code,
                count: *count,
                text: text.clone(),
            })
            .collect()
    }
}
