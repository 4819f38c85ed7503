//! Where the rooms meet: one core's sessions, slice of the queue and slice of the routes, and the only place that
//! awaits on their behalf.
//!
//! A message comes in by `listen`, `inbound`, `recipient`, `body`, `submit`; it goes out by `dispatch`, `resolve`,
//! `outbound` or `local`, `settle`, `bounce`. Everything is generic over [`World`], so that the simulator runs what
//! production runs. Never here: protocol, rules, formats, policy; those are the rooms'.
#![forbid(unsafe_code)]

mod ask;
mod body;
mod bounce;
mod client_name;
mod dispatch;
mod event;
mod handover;
mod inbound;
mod inspect;
mod letter;
pub mod limits;
mod listen;
mod local;
mod lookups;
mod outbound;
mod outbox;
mod reach;
mod recipient;
mod replies;
mod resolve;
mod secure;
mod settings;
mod settle;
mod shard;
mod submit;
mod target;
mod wire;

pub use ask::{Ask, Exchanger, MxAnswer, NameAnswer, Said};
pub use event::{Course, Event, Result as DeliveryResult};
pub use handover::{Forwarding, HandOver, Handed, Handover, How, UserRecord};
pub use inspect::{ListedEnvelope, Order, ShardReport, ShownMessage, listed};
pub use letter::{Delays, Letter, Link, Outcome, Results, Security, Ticket};
pub use local::{Addressee, Store, Target};
pub use secure::Servers;
pub use shard::{Opened, ShardError, Start, World, run};
