//! The world round the engine, simulated: clients that submit, receivers that accept and refuse, names, crashes, and a
//! judge. One thread, one seed, virtual time; a seed that fails once fails always.
//!
//! Never here: a copy of what the engine does. It runs `shards/shard` as production does, over `ringpost_io::sim`.
#![forbid(unsafe_code)]

mod clients;
mod coordinator;
mod engine;
mod faults;
pub mod limits;
mod programs;
mod promises;
pub mod provider;
mod receivers;
mod run;
mod watch;
mod weather;

pub use faults::{Faults, UnknownFault};
pub use promises::Broken;
pub use run::{Outcome, Plan, Ttl, run};
