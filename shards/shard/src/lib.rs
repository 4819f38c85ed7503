//! Where the rooms meet: one core's sessions, slice of the queue and slice of the routes, and the only place that
//! awaits on their behalf.
//!
//! A message comes in by `listen`, `inbound`, `recipient`, `body`, `submit`; it goes out by `dispatch`, `resolve`,
//! `outbound` or `local`, `settle`, `bounce`. Everything is generic over [`World`], so that the simulator runs what
//! production runs. Never here: protocol, rules, formats, policy; those are the rooms'.
#![forbid(unsafe_code)]

mod ask;
mod audit;
mod backscatter;
mod backup;
mod body;
mod bounce;
mod certified;
mod client_name;
mod credentials;
mod dispatch;
mod event;
mod exchangers;
mod faults;
mod feedback;
mod greet;
mod handover;
mod inbound;
mod inspect;
mod letter;
pub mod limits;
mod listen;
mod local;
mod login;
mod lookups;
mod notices;
mod outbound;
mod outbox;
mod overview;
mod pieces;
mod proxied;
mod race;
mod reach;
mod reason;
mod recipient;
mod replies;
mod resolve;
mod returned;
mod reverse_path;
mod secure;
mod settings;
mod settle;
mod shard;
pub mod stock;
mod submit;
mod target;
mod vouch;
mod wake;
mod warmup;
mod wire;

pub use ask::{Ask, Dane, Exchanger, Mode, MxAnswer, NameAnswer, Policy, Said};
pub use backscatter::Backscatter;
pub use event::{Course, Event, Origin, Pace, Proof, Result as DeliveryResult};
pub use exchangers::is_reachable;
pub use handover::{Forwarding, HandOver, Handed, Handover, How, UserRecord};
pub use inspect::{Asked, Concerned, ListedEnvelope, Order, ShardReport, ShownMessage, Why, listed, stopped};
pub use letter::{Delays, Letter, Link, Outcome, Results, Security, Ticket};
pub use local::{Addressee, Store, Target};
pub use login::{Book, Guard, Login, Proceeding, Verdict, claimed};
pub use overview::{HostRow, HostState, LeftOut, Limit, Overview, RelayRow, RouteRow};
pub use reason::{Blocked, Onward, Reason, Selector};
pub use returned::Returned;
pub use ringpost_routes::{Allowed, Asking, Given, Ledger, PolicyKind, Rate, Schedule, Warming};
pub use secure::{Servers, shake};
pub use settings::Overrides;
pub use shard::{Opened, Plant, ShardError, Start, World, run};
