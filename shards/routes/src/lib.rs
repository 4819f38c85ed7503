//! A slice of the routes: which ticket goes next over which connection, and when another connection is worth opening.
//!
//! A *route* is one mail site from one source: all domains that share their mail exchangers share it, with its
//! connections, its limits and its back-off. The room decides and is told what came of it; `shard` opens the
//! connections. Never here: I/O, clocks (`now` is an argument), what a ticket holds.
#![forbid(unsafe_code)]

mod allowance;
mod breaker;
mod bucket;
mod busy;
mod fair;
mod feedback;
mod leases;
pub mod limits;
mod pool;
mod route;
mod schedule;
mod site;
mod sources;
mod start;
mod warmup;

pub use breaker::{Breaker, Chance, Health, Left, Patience};
pub use busy::HostHold;
pub use fair::{FairQueue, Waiting, sender_key};
pub use feedback::{Change, Late, Slowed, Suspension};
pub use leases::Spent;
pub use limits::{Limits, Rate, Shape};
pub use pool::{Member, Pick, Pool};
pub use route::{Attempt, Next};
pub use schedule::{Refused, RouteId, Routes, Standing, Surveyed, Totals};
pub use site::{Channel, Encryption, Held, Helo, Host, Place, PolicyKind, Site, Speech, Tlsa};
pub use sources::{Absence, Hold, Origin};
pub use warmup::{Allowed, Asking, Given, Ledger, Schedule, Step, Warming};
