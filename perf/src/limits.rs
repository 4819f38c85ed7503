//! Bounds of what is measured, with their reasons.

use std::time::Duration;

/// Digits that a latency keeps (HdrHistogram): 0.1 % of the value, about 100 KiB for a stage that is used.
pub const DIGITS: u8 = 3;
/// Longest time of a stage within a session; what is longer counts as this.
pub const SESSION_MAX: Duration = Duration::from_hours(1);
/// Longest time of a stage that waits for a retry: the expiry of four days and what comes with it.
pub const QUEUE_MAX: Duration = Duration::from_hours(5 * 24);
/// Bounds of the buckets that Prometheus is given, in microseconds: few, since each is a series, and dense where a
/// commit or a transaction is expected.
pub const METRIC_BOUNDS_US: [u64; 22] = [
    20,
    50,
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    60_000_000,
    600_000_000,
    3_600_000_000,
    86_400_000_000,
];
/// Rows of one factor of two in a heat-map: a pixel row each, about 19 % wide.
pub const HEAT_ROWS_PER_OCTAVE: u32 = 4;
/// What stands for all sites, or classes, that have no name of their own.
pub const REST: &str = "other";
/// Classes of refusals that are counted by name: the built-in ones, and those of some dozen lines.
pub const CLASSES_MAX: usize = 64;
/// Sites that a shard counts by name until it is asked, which is every few seconds (some 200 bytes each).
pub const SITES_BETWEEN: usize = 4_096;
/// Sites without a name of which is known how much mail they have (some 100 bytes each).
pub const SITES_WATCHED: usize = 8_192;
