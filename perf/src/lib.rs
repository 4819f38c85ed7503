//! What a server measures of itself: how long each stage of a message's way took, and how often things happened.
//!
//! A shard owns its [`Stages`] and writes its [`Counters`]; whoever asks gets a [`ShardSnapshot`], several of which
//! make a [`Snapshot`]. [`openmetrics`] and [`report`] turn it into text. Never here: clocks, I/O, globals.
#![forbid(unsafe_code)]

mod counters;
mod histograms;
pub mod hlog;
mod limits;
pub mod openmetrics;
pub mod report;
pub mod sites;
mod snapshot;
mod stages;

pub use counters::{Counter, Counters, CountersSnapshot};
pub use histograms::Buckets;
pub use snapshot::{CertificateDays, Gauges, ShardSnapshot, Snapshot};
pub use stages::{Stage, StageSummary, Stages, StagesSnapshot};
