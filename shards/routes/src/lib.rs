//! A slice of the routes: which ticket goes next over which connection, and when another connection is worth opening.
//!
//! A *route* is one mail site from one source: all domains that share their mail exchangers share it, with its
//! connections, its limits and its back-off. The room decides and is told what came of it; `shard` opens the
//! connections. Never here: I/O, clocks (`now` is an argument), what a ticket holds.
#![forbid(unsafe_code)]

pub mod limits;
mod route;
mod schedule;
mod site;
mod sources;

pub use limits::Limits;
pub use route::{Attempt, Next};
pub use schedule::{Refused, RouteId, Routes, Totals};
pub use site::{Channel, Encryption, Helo, Host, Site};
pub use sources::Origin;
